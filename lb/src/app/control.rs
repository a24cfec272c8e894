//! Starts what keeps the fleet: runtime, supervisor, and who decides by the load. Balancer and agent have it in common.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::AppError;
use crate::config::{Config, RuntimeConfig};
use crate::pilot::{Board, Journal, Latencies, Pilot, Sees};
use crate::pool::{Pool, Suspicion};
use crate::replica::{Hostname, Share};
use crate::runtime::Runtime;
use crate::runtime::docker::{Docker, DockerOptions};
use crate::runtime::fixed::Fixed;
use crate::runtime::process::Process;
use crate::supervisor::{Holders, StartError, Supervisor, SupervisorHandle};

/// Looking up the address of a static member may take this long.
const LOOKUP: Duration = Duration::from_secs(10);

/// A supervisor that runs.
pub(super) struct Started {
    pub(super) supervisor: SupervisorHandle,
    pub(super) supervising: tokio::task::JoinHandle<()>,
}

/// What who decides by the load needs besides.
pub(super) struct PilotSeat {
    pub(super) journal: Journal,
    pub(super) board: Board,
    pub(super) latencies: Latencies,
    pub(super) sees: Sees,
    /// Are replicas measured even if nothing is decided by that?
    pub(super) measures: bool,
}

/// Starts the configured runtime under a supervisor.
pub(super) async fn start(
    config: &Config,
    pool: Pool,
    suspicions: mpsc::Receiver<Suspicion>,
    holders: Option<Arc<dyn Holders>>,
    pilot: PilotSeat,
) -> Result<Started, AppError> {
    let start = Start { config, pool, suspicions, holders, pilot };
    match &config.runtime {
        RuntimeConfig::Process { sample } => start.over(Process::new(sample.clone())?).await,
        RuntimeConfig::Static(members) => start.over(Fixed::new(resolve(members).await?)).await,
        RuntimeConfig::Docker(docker) => {
            let options = DockerOptions {
                host: docker.host.clone(),
                fleet: docker.fleet.clone(),
                configured: config.fleet.template.clone(),
                network: docker.network.clone(),
                port: docker.port,
            };
            let docker = Docker::connect(options).await.map_err(|error| AppError::Runtime(error.to_string()))?;
            start.over(docker).await
        }
        RuntimeConfig::Agent(_) => Err(AppError::Runtime("an agent follows no other agent".into())),
    }
}

struct Start<'a> {
    config: &'a Config,
    pool: Pool,
    suspicions: mpsc::Receiver<Suspicion>,
    holders: Option<Arc<dyn Holders>>,
    pilot: PilotSeat,
}

impl Start<'_> {
    async fn over<R: Runtime>(self, runtime: R) -> Result<Started, AppError> {
        let fleet = self.config.fleet.clone();
        // It costs the engine something.
        let usage = (self.pilot.measures || !self.config.pilot.is_off()).then(|| runtime.usage());
        let started = Supervisor::start(runtime, fleet, self.pool, self.suspicions, rand::random()).await;
        let (mut supervisor, handle) = started.map_err(|error: StartError| AppError::Runtime(error.to_string()))?;
        if let Some(holders) = self.holders {
            supervisor = supervisor.with_holders(holders);
        }
        if let Some(usage) = usage {
            let PilotSeat { journal, board, latencies, sees, .. } = self.pilot;
            tokio::spawn(Pilot::new(&self.config.pilot, handle.clone(), journal, board, latencies, sees).run(usage));
        }
        Ok(Started { supervisor: handle, supervising: tokio::spawn(supervisor.run()) })
    }
}

async fn resolve(members: &[(Hostname, String, Share)]) -> Result<Vec<(Hostname, SocketAddr)>, AppError> {
    let mut resolved = Vec::with_capacity(members.len());
    for (name, addr, _) in members {
        let found = match tokio::time::timeout(LOOKUP, tokio::net::lookup_host(addr)).await {
            Ok(found) => found.and_then(|mut found| found.next().ok_or_else(|| io::Error::other("it has none"))),
            Err(_) => Err(io::Error::other("no answer")),
        };
        let found = found.map_err(|error| AppError::Lookup { name: name.clone(), addr: addr.clone(), error })?;
        resolved.push((name.clone(), found));
    }
    Ok(resolved)
}
