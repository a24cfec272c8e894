//! The balancer before the replicas: one process for each run, so that none knows what another has learnt.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use tokio::process::Command;

use crate::child::{Running, command};
use crate::loopback::{self, free_port};

/// One that serves; ended when this is dropped.
pub(super) struct Balancer {
    running: Running,
    pub(super) addr: SocketAddr,
}

impl Balancer {
    /// Starts one before `members` and waits until it knows all of them to be ready.
    pub(super) async fn start(lb: &Path, policy: &str, members: &str, dir: &Path) -> Result<Self, String> {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let mut command = configured(lb, "serve", policy, members);
        command.args(["--listen", &addr.to_string(), "--admin-listen", &admin.to_string()]);
        let mut running = Running::start(command, dir.join("lb.log")).map_err(|error| format!("lb: {error}"))?;
        loopback::until_ready(&format!("http://{admin}/readyz"), "lb", &mut running).await?;
        Ok(Self { running, addr })
    }

    /// An error if it has ended.
    pub(super) fn check(&mut self) -> Result<(), String> {
        self.running.check("lb")
    }
}

/// An error if this `lb` has no such policy, with those that it has.
pub(super) async fn knows(lb: &Path, policy: &str) -> Result<(), String> {
    if !lb.is_file() {
        return Err(format!("{} is missing: `make build` makes it, or name another with --lb", lb.display()));
    }
    let checked = configured(lb, "check", policy, "127.0.0.1:1").output().await;
    let checked = checked.map_err(|error| format!("{}: {error}", lb.display()))?;
    if checked.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&checked.stderr).trim().to_owned()) }
}

fn configured(lb: &Path, subcommand: &str, policy: &str, members: &str) -> Command {
    let mut command = command(lb);
    command.args([subcommand, "--runtime", "static", "--members", members, "--policy", policy]);
    command
}
