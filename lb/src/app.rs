//! The composition root: binds listeners, starts the runtime, the supervisor and the workers, and ends them in order.
//!
//! Admin work (axum, supervisor, probes) runs on the thread that calls [`App::run`]; the data path on threads of its own.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::admin::{api, assignment};
use crate::config::{Config, RuntimeConfig};
use crate::metrics::ProxyMetrics;
use crate::policy::Policy;
use crate::pool::{Pool, PoolReader, Suspicion, pool};
use crate::proxy::worker::{OwnRoutes, WorkerConfig, bind, spawn};
use crate::replica::Hostname;
use crate::runtime::Runtime;
use crate::runtime::docker::{Docker, DockerOptions};
use crate::runtime::fixed::Fixed;
use crate::runtime::process::Process;
use crate::shutdown::{ShutdownTrigger, shutdown};
use crate::supervisor::{StartError, Supervisor, SupervisorHandle};

/// Looking up the address of a static member may take this long.
const LOOKUP: Duration = Duration::from_secs(10);

/// The balancer could not start.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// A listener could not be bound.
    #[error("cannot listen on {addr} ({setting}): {error}")]
    Listen {
        /// The address asked for.
        addr: SocketAddr,
        /// The setting that says so.
        setting: &'static str,
        /// Why not.
        error: io::Error,
    },
    /// A static member's address is unknown.
    #[error("static member {name}: the address of '{addr}' can't be found: {error}")]
    Lookup {
        /// Who.
        name: Hostname,
        /// What was looked up.
        addr: String,
        /// Why not.
        error: io::Error,
    },
    /// The runtime or the fleet could not begin.
    #[error("{0}")]
    Runtime(String),
    /// The system would not give something.
    #[error("{0}")]
    System(#[from] io::Error),
    /// A metric was registered twice.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// A balancer that serves.
pub struct App {
    config: Config,
    supervisor: SupervisorHandle,
    supervising: tokio::task::JoinHandle<()>,
    workers: Vec<JoinHandle<()>>,
    trigger: ShutdownTrigger,
    addr: SocketAddr,
    admin_addr: Option<SocketAddr>,
}

impl App {
    /// Binds, starts everything, and logs where it listens.
    pub async fn start(config: Config) -> Result<Self, AppError> {
        let listen_error = |addr, setting| move |error| AppError::Listen { addr, setting, error };
        // First of all: a port that is taken should not cost a single container.
        let listeners = bind(config.listen, config.workers).map_err(listen_error(config.listen, "listen"))?;
        let addr = listeners.first().map_or(Ok(config.listen), |listener| listener.local_addr())?;
        let admin = match config.admin_listen {
            Some(addr) => Some(TcpListener::bind(addr).await.map_err(listen_error(addr, "admin_listen"))?),
            None => None,
        };
        let admin_addr = admin.as_ref().map(TcpListener::local_addr).transpose()?;

        let policy = config.policy.policy();
        let (pool, reader, suspicions) = pool(Arc::clone(&policy));
        let start = Start { config: &config, pool, suspicions };
        let (supervisor, supervising) = match &config.runtime {
            RuntimeConfig::Process(command) => start.supervisor(Process::new(command.clone())?).await?,
            RuntimeConfig::Static(members) => start.supervisor(Fixed::new(resolve(members).await?)).await?,
            RuntimeConfig::Docker(docker) => {
                let options = DockerOptions {
                    host: docker.host.clone(),
                    fleet: docker.fleet.clone(),
                    image: docker.image.clone(),
                    network: docker.network.clone(),
                    port: docker.port,
                };
                let docker = Docker::connect(options).await.map_err(|error| AppError::Runtime(error.to_string()))?;
                start.supervisor(docker).await?
            }
        };

        let registry = Registry::new();
        let metrics = ProxyMetrics::new(&registry)?;
        let (trigger, shutdown) = shutdown();
        if let Some(listener) = admin {
            serve_admin(listener, &supervisor, &reader, policy, registry);
        }
        let own = OwnRoutes {
            paths: assignment::PATHS,
            router: assignment::router(supervisor.clone(), config.fleet.capacity()),
        };
        let worker = WorkerConfig {
            proxy: Arc::new(config.proxy.clone()),
            pool: reader,
            own,
            metrics,
            shutdown,
            drain_timeout: config.fleet.drain_timeout,
        };
        let workers = listeners
            .into_iter()
            .enumerate()
            .map(|(at, listener)| spawn(format!("worker-{at}"), listener, worker.clone(), rand::random()))
            .collect::<Result<_, _>>()?;
        tracing::info!(%addr, workers = config.workers, "listening on {addr}");
        if let Some(addr) = admin_addr {
            tracing::info!(%addr, "admin listening on {addr}");
        }
        Ok(Self { config, supervisor, supervising, workers, trigger, addr, admin_addr })
    }

    /// Where the public listener is.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where the admin listener is, if there is one.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin_addr
    }

    /// Serves until SIGTERM or SIGINT, then finishes the requests under way and ends. A second signal ends at once.
    pub async fn run(self) -> Result<(), AppError> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal = name, "{name}: finishing the requests under way, taking no new ones");
        tokio::select! {
            stopped = self.stop() => return stopped,
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::warn!("a second signal: ending at once");
        Ok(())
    }

    async fn stop(self) -> Result<(), AppError> {
        self.trigger.begin();
        let workers = self.workers;
        let joined =
            tokio::task::spawn_blocking(move || workers.into_iter().map(JoinHandle::join).all(|end| end.is_ok()));
        if !joined.await.unwrap_or(false) {
            tracing::error!("a worker had panicked");
        }
        self.supervisor.close(self.config.remove_on_exit).await;
        let _ = self.supervising.await;
        tracing::info!("stopped");
        Ok(())
    }
}

struct Start<'a> {
    config: &'a Config,
    pool: Pool,
    suspicions: tokio::sync::mpsc::Receiver<Suspicion>,
}

impl Start<'_> {
    async fn supervisor<R: Runtime>(
        self,
        runtime: R,
    ) -> Result<(SupervisorHandle, tokio::task::JoinHandle<()>), AppError> {
        let fleet = self.config.fleet.clone();
        let started = Supervisor::start(runtime, fleet, self.pool, self.suspicions, rand::random()).await;
        let (supervisor, handle) = started.map_err(|error: StartError| AppError::Runtime(error.to_string()))?;
        Ok((handle, tokio::spawn(supervisor.run())))
    }
}

fn serve_admin(
    listener: TcpListener,
    supervisor: &SupervisorHandle,
    pool: &PoolReader,
    policy: Arc<dyn Policy>,
    registry: Registry,
) {
    let router = api::router(supervisor.clone(), pool.clone(), policy, registry);
    // It stays open while requests are finished: that is when somebody wants to look.
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!("the admin listener has ended: {error}");
        }
    });
}

async fn resolve(members: &[(Hostname, String)]) -> Result<Vec<(Hostname, SocketAddr)>, AppError> {
    let mut resolved = Vec::with_capacity(members.len());
    for (name, addr) in members {
        let found = match tokio::time::timeout(LOOKUP, tokio::net::lookup_host(addr)).await {
            Ok(found) => found.and_then(|mut found| found.next().ok_or_else(|| io::Error::other("it has none"))),
            Err(_) => Err(io::Error::other("no answer")),
        };
        let found = found.map_err(|error| AppError::Lookup { name: name.clone(), addr: addr.clone(), error })?;
        resolved.push((name.clone(), found));
    }
    Ok(resolved)
}
