//! What stands before the replicas, and how it is started.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use lb::policy::PolicyKind;

use super::super::stage::{Member, Stage};
use super::super::subject::Subject;
use super::config;
use crate::bench::machine::Machine;
use crate::child::{Running, command};
use crate::loopback::{free_port, until_ready};

/// HAProxy's factor for what is 1.25 here.
const FACTOR: u32 = 125;

/// A program with its settings.
#[derive(Debug, Clone)]
pub(super) enum Program {
    Lb(Subject),
    Haproxy {
        factor: Option<u32>,
        /// It learns from live traffic, too.
        observes: bool,
    },
    Nginx,
}

impl Program {
    /// The balancer as the assignment has it, with its default bound, and with maglev.
    fn ours() -> Vec<Self> {
        let is_maglev = |subject: &Subject| subject.case().config.kind == PolicyKind::Maglev;
        let maglev = Subject::others().into_iter().filter(is_maglev);
        [Subject::bare(), Subject::bounded()].into_iter().chain(maglev).map(Self::Lb).collect()
    }

    fn others() -> Vec<Self> {
        let haproxy = |factor, observes| Self::Haproxy { factor, observes };
        vec![haproxy(None, false), haproxy(Some(FACTOR), false), haproxy(Some(FACTOR), true), Self::Nginx]
    }

    /// Those of the others that are installed, and what is to be said of the rest.
    pub(super) fn installed(machine: &Machine) -> (Vec<Self>, Vec<String>) {
        let is_there = |program: &Self| match program {
            Self::Lb(_) => true,
            Self::Haproxy { .. } => machine.haproxy.is_some(),
            Self::Nginx => machine.nginx.is_some(),
        };
        let (there, missing): (Vec<_>, Vec<_>) = Self::others().into_iter().partition(is_there);
        (there, missing.iter().map(|program| format!("{}: not installed", program.name())).collect())
    }

    /// All that differ in where they send requests while nothing fails, the balancer's first.
    pub(super) fn all(others: &[Self]) -> Vec<Self> {
        let differs = |program: &Self| !matches!(program, Self::Haproxy { observes: true, .. });
        Self::ours().into_iter().chain(others.iter().filter(|program| differs(program)).cloned()).collect()
    }

    /// In tables and plots.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Lb(subject) => format!("lb: {}", subject.name()),
            Self::Haproxy { factor, observes } => {
                let factor = factor.map_or_else(String::new, |factor| format!(", factor {factor}"));
                format!("HAProxy{factor}{}", if *observes { ", observing" } else { "" })
            }
            Self::Nginx => "nginx".into(),
        }
    }

    pub(super) fn subject(&self) -> Option<&Subject> {
        match self {
            Self::Lb(subject) => Some(subject),
            _ => None,
        }
    }
}

/// One that serves; it ends when this is dropped.
pub(super) struct Front {
    pub(super) name: String,
    pub(super) addr: SocketAddr,
    running: Running,
}

impl Front {
    /// Starts `program` before `members` with one thread, and waits until it answers.
    pub(super) async fn start(stage: &Stage, program: &Program, members: &[Member]) -> Result<Self, String> {
        let (port, name) = (free_port()?, program.name());
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        // A folder for each: two of one kind may run at the same time.
        let dir = stage.dir().join(format!("front-{port}"));
        let failed = |error: std::io::Error| format!("{name}: {}: {error}", dir.display());
        std::fs::create_dir_all(&dir).map_err(failed)?;
        let file = dir.join("conf");
        let mut ready = format!("http://{addr}/heartbeat");
        let command = match program {
            Program::Lb(subject) => {
                let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
                // All members are known to be ready, not just one.
                ready = format!("http://{admin}/readyz");
                let mut command = command(stage.lb());
                command.args(["serve", "--runtime", "static", "--workers", "1", "--hash-key", "query:id"]);
                command.args(["--listen", &addr.to_string(), "--admin-listen", &admin.to_string()]);
                command.args(["--members", &config::members(members)]);
                command.args(subject.plan(members.len() as u32).args);
                command
            }
            Program::Haproxy { factor, observes } => {
                std::fs::write(&file, config::haproxy(port, members, (*factor, *observes))).map_err(failed)?;
                let mut command = command(Path::new("haproxy"));
                command.arg("-f").arg(&file);
                command
            }
            Program::Nginx => {
                std::fs::write(&file, config::nginx(port, members, &dir)).map_err(failed)?;
                let mut command = command(Path::new("nginx"));
                command.arg("-p").arg(&dir).arg("-c").arg(&file).args(["-e", "stderr"]);
                command
            }
        };
        let running = Running::start(command, dir.join("log")).map_err(failed)?;
        let mut front = Self { name, addr, running };
        until_ready(&ready, &front.name, &mut front.running).await?;
        Ok(front)
    }

    /// An error if it has ended.
    pub(super) fn check(&mut self) -> Result<(), String> {
        self.running.check(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_installed_is_named_and_left_out() {
        let (there, missing) = Program::installed(&Machine { nginx: Some("1".into()), ..Machine::default() });
        assert_eq!(there.iter().map(Program::name).collect::<Vec<_>>(), ["nginx"]);
        let haproxy = ["HAProxy", "HAProxy, factor 125", "HAProxy, factor 125, observing"];
        assert_eq!(missing, haproxy.map(|name| format!("{name}: not installed")));
        let names: Vec<String> = Program::all(&there).iter().map(Program::name).collect();
        let ours = ["consistent, assignment, 512 × 9", "consistent, assignment, 512 × 9, bound 1.25", "maglev, 65,537"];
        assert_eq!(names, [ours.map(|name| format!("lb: {name}")).to_vec(), vec!["nginx".into()]].concat());
        let (there, _) = Program::installed(&Machine { haproxy: Some("2".into()), ..Machine::default() });
        assert_eq!(
            (there.len(), Program::all(&there).len()),
            (3, 3 + 2),
            "who observes sees nothing fail in a plain load"
        );
    }
}
