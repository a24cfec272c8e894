//! The balancer of the experiments, and servers that register with it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use tempfile::TempDir;

use crate::child::{Running, command};
use crate::control::{Encoding, Protocol};
use crate::loopback::{self, free_port};
use crate::samples::process::{Plan, Server};

/// A balancer with a control channel and no replicas of its own.
pub(super) struct Stage {
    running: Running,
    control: SocketAddr,
    relay: SocketAddr,
    dir: TempDir,
}

impl Stage {
    pub(super) async fn start(lb: &Path) -> Result<Self, String> {
        if !lb.is_file() {
            return Err(format!("{} is missing: `make build` makes it, or name another with --lb", lb.display()));
        }
        let dir = tempfile::Builder::new().prefix("ringkeeper-relays-").tempdir();
        let dir = dir.map_err(|error| format!("no temporary folder: {error}"))?;
        let local = || Ok::<_, String>(SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?)));
        let (listen, admin, control, relay) = (local()?, local()?, local()?, local()?);
        let mut command = command(lb);
        command.args(["serve", "--runtime", "process", "--replicas", "0", "--listen", &listen.to_string()]);
        command.args(["--admin-listen", &admin.to_string(), "--control-listen", &control.to_string()]);
        let log = dir.path().join("lb.log");
        let mut running = Running::start(command, log).map_err(|error| format!("lb: {error}"))?;
        loopback::until_ready(&format!("http://{admin}/healthz"), "lb", &mut running).await?;
        Ok(Self { running, control, relay, dir })
    }

    /// Starts so many servers behind the relay port.
    pub(super) async fn servers(&self, protocol: Protocol, count: usize) -> Result<Vec<Server>, String> {
        let mut servers = Vec::new();
        for number in 1..=count {
            let name = format!("{}-{number}", protocol.name());
            let plan =
                Plan { protocol, name: &name, port: 0, relay_port: self.relay.port(), encoding: Encoding::MessagePack };
            servers.push(Server::start(plan, self.control, self.dir.path()).await?);
        }
        Ok(servers)
    }

    /// Where clients go.
    pub(super) fn relay(&self) -> SocketAddr {
        self.relay
    }

    /// An error if the balancer has ended.
    pub(super) fn check(&mut self) -> Result<(), String> {
        self.running.check("lb")
    }
}
