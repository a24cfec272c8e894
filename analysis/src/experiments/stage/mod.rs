//! Where the experiments happen: a balancer with a fleet of its own, as containers or as processes.
//!
//! With docker it is what `make up PROFILE=slim` starts: the balancer in a container that has the engine's socket, its
//! replicas as containers on a network of their own. With processes it is what `make run` starts.

mod balancer;
pub(crate) mod engine;
mod harm;
mod plain;
mod view;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::loopback::more_open_files;
pub(crate) use balancer::Balancer;
use engine::Engine;
pub(crate) use harm::Harm;
pub(crate) use view::Member;

/// What a request to this path does to a replica of a [`Plan`].
pub(crate) const CRASH_PATH: &str = "/crash";

/// What replicas are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Runtime {
    /// Containers, and so is the balancer
    Docker,
    /// Processes of this host
    Process,
}

impl Runtime {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Process => "process",
        }
    }
}

/// How long a replica's `/home` takes, and how many it serves at a time; the others wait.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Service {
    pub(crate) ms: u32,
    pub(crate) at_once: u32,
}

impl Service {
    /// What a replica can do at most, requests a second.
    pub(crate) fn per_second(self) -> f64 {
        f64::from(self.at_once) * 1e3 / f64::from(self.ms)
    }
}

/// A balancer that is wanted.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) replicas: u32,
    /// Besides what the stage itself sets: settings of `lb serve`.
    pub(crate) args: Vec<String>,
    /// `None`: as fast as can be.
    pub(crate) service: Option<Service>,
}

impl Plan {
    /// The sample server's settings.
    fn environment(&self) -> Vec<(&'static str, String)> {
        let service = self.service.map(|service| {
            [("SERVICE_TIME", format!("{}ms", service.ms)), ("SERVICE_CONCURRENCY", service.at_once.to_string())]
        });
        let crash = ("CRASH_PATH", CRASH_PATH.to_owned());
        service.into_iter().flatten().chain([crash]).collect()
    }
}

/// A place for one balancer after the other. What it has started ends when it is dropped.
pub(crate) struct Stage {
    pub(crate) runtime: Runtime,
    lb: PathBuf,
    dir: tempfile::TempDir,
    engine: Option<Engine>,
}

impl Stage {
    /// One for `runtime`; without it, containers if an engine answers, else processes of the program `lb`.
    pub(crate) async fn open(runtime: Option<Runtime>, lb: &Path) -> Result<Self, String> {
        more_open_files();
        let dir = tempfile::Builder::new().prefix("ringkeeper-analysis-").tempdir();
        let dir = dir.map_err(|error| format!("no temporary folder: {error}"))?;
        let answers = match runtime {
            Some(Runtime::Process) => Err("not asked".into()),
            _ => engine::answers().await,
        };
        let engine = match (runtime, answers) {
            (Some(Runtime::Docker), Err(error)) => return Err(format!("no Docker engine answers: {error}")),
            (_, Ok(())) => Some(Engine::open().await?),
            (_, Err(_)) => None,
        };
        if engine.is_none() && !lb.is_file() {
            return Err(format!("{} is missing: `make build` makes it, or name another with --lb", lb.display()));
        }
        let runtime = if engine.is_some() { Runtime::Docker } else { Runtime::Process };
        Ok(Self { runtime, lb: lb.to_owned(), dir, engine })
    }

    /// The engine, if replicas are containers.
    pub(crate) fn engine(&self) -> Option<&Engine> {
        self.engine.as_ref()
    }

    /// A folder that goes with the stage.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The balancer's program, for one beside containers.
    pub(crate) fn lb(&self) -> &Path {
        &self.lb
    }

    /// Starts a balancer, and waits until all of its replicas are ready.
    pub(crate) async fn balancer(&self, plan: &Plan) -> Result<Balancer, String> {
        let balancer = match &self.engine {
            Some(engine) => Balancer::container(engine, plan).await,
            None => Balancer::process(&self.lb, plan, self.dir.path()).await,
        };
        let mut balancer = balancer?;
        balancer.until_ready(plan.replicas).await?;
        Ok(balancer)
    }
}

/// From one look at what shall become true to the next.
pub(crate) const LOOK: Duration = Duration::from_millis(2);

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A stage with processes of the balancer that cargo has built beside these tests.
    pub(in crate::experiments) async fn stage() -> Stage {
        let tests = std::env::current_exe().unwrap();
        let lb = tests.ancestors().nth(2).unwrap().join("lb");
        assert!(lb.is_file(), "{} is missing: `cargo build --workspace` makes it", lb.display());
        Stage::open(Some(Runtime::Process), &lb).await.unwrap()
    }

    #[test]
    fn the_sample_server_is_told_what_the_plan_says() {
        let plan = Plan { replicas: 3, args: Vec::new(), service: Some(Service { ms: 10, at_once: 8 }) };
        let wanted = [("SERVICE_TIME", "10ms"), ("SERVICE_CONCURRENCY", "8"), ("CRASH_PATH", "/crash")];
        assert_eq!(plan.environment(), wanted.map(|(name, value)| (name, value.to_owned())));
        assert_eq!(Plan { service: None, ..plan.clone() }.environment().len(), 1);
        assert_eq!(plan.service.map(Service::per_second), Some(800.0));
    }

    #[tokio::test]
    async fn a_missing_program_is_told_before_anything_starts() {
        let missing = Path::new("/nowhere/lb");
        let error = Stage::open(Some(Runtime::Process), missing).await.err().unwrap();
        assert_eq!(error, "/nowhere/lb is missing: `make build` makes it, or name another with --lb");
    }
}
