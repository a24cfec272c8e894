//! The composition root: binds listeners, starts the runtime, the supervisor and the workers, and ends them in order.
//!
//! Admin work (axum, supervisor, probes) runs on the thread that calls [`run`]; the data path on threads of its own.

pub mod agent;
mod control;
mod l4;
mod workers;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Semaphore, mpsc};

use crate::admin::api::Api;
use crate::admin::assignment;
use crate::agent::link::{self, Link, LinkConfig};
use crate::agent::tls;
use crate::config::{Config, FollowConfig, RuntimeConfig};
use crate::metrics::{ControlMetrics, LinkMetrics, ProxyMetrics};
use crate::net::bind;
use crate::pilot::{Board, Journal};
use crate::pin::PinKey;
use crate::pool::{Pool, Suspicion, pool};
use crate::proxy::OwnRoutes;
use crate::proxy::worker::{self, Common, WorkerConfig};
use crate::replica::Hostname;
use crate::runtime::remote::Remote;
use crate::shutdown::{ShutdownTrigger, shutdown};
use crate::supervisor::{StartError, Supervisor, SupervisorHandle};

/// Open files that are no clients' or their replicas' connections: listeners, runtimes, the admin listener, the engine's.
const RESERVED_FILES: u64 = 64;
/// And for each replica: a probe, and a child's two pipes and handle.
const FILES_PER_REPLICA: u64 = 4;

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
    /// A certificate or a key can't be used.
    #[error("{setting}: {error}")]
    Tls {
        /// The setting that names the file.
        setting: &'static str,
        /// What is wrong.
        error: String,
    },
    /// A part of the balancer has ended by itself.
    #[error("{0}; ending, to be started anew")]
    Broken(String),
    /// The system would not give something.
    #[error("{0}")]
    System(#[from] io::Error),
    /// A metric was registered twice.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// Serves until SIGTERM or SIGINT, then finishes the requests under way and ends. A second signal ends at once.
pub async fn run(config: Config) -> Result<(), AppError> {
    // Handlers first: as process 1 of a container, a signal without a handler would be ignored.
    let mut signals = Signals::new()?;
    let mut app = tokio::select! {
        app = App::start(config) => app?,
        name = signals.next() => {
            tracing::info!(signal = name, "{name}: ending before the start was done");
            return Ok(());
        }
    };
    let name = tokio::select! {
        name = signals.next() => name,
        broken = app.broken() => return Err(broken),
    };
    tracing::info!(signal = name, "{name}: finishing the requests under way, taking no new ones");
    tokio::select! {
        () = app.stop() => tracing::info!("stopped"),
        name = signals.next() => tracing::warn!(signal = name, "a second signal, {name}: ending at once"),
    }
    Ok(())
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// A balancer that serves.
struct App {
    remove_on_exit: bool,
    supervisor: SupervisorHandle,
    supervising: tokio::task::JoinHandle<()>,
    workers: Vec<JoinHandle<()>>,
    /// Each worker holds a sender, so it says when one has ended.
    ended: mpsc::Receiver<()>,
    trigger: ShutdownTrigger,
}

impl App {
    /// Binds, starts everything, and logs where it listens.
    async fn start(config: Config) -> Result<Self, AppError> {
        let listen_error = |addr, setting| move |error| AppError::Listen { addr, setting, error };
        // First of all: a port that is taken should not cost a single container.
        let listeners = bind::tcp(config.listen, config.workers, config.proxy.idle_timeout)
            .map_err(listen_error(config.listen, "listen"))?;
        let addr = listeners.first().map_or(Ok(config.listen), |listener| listener.local_addr())?;
        let admin = match config.admin_listen {
            Some(addr) => Some(TcpListener::bind(addr).await.map_err(listen_error(addr, "admin_listen"))?),
            None => None,
        };
        let admin_addr = admin.as_ref().map(TcpListener::local_addr).transpose()?;
        let control = match &config.l4 {
            Some(l4) => Some(TcpListener::bind(l4.listen).await.map_err(listen_error(l4.listen, "control_listen"))?),
            None => None,
        };
        let control_addr = control.as_ref().map(TcpListener::local_addr).transpose()?;

        let registry = Registry::new();
        let metrics = ProxyMetrics::new(&registry)?;
        let policy = config.policy.policy();
        let (mut pool, reader, suspicions) = pool(Arc::clone(&policy));
        if let Some(key) = pin_key(&config) {
            pool = pool.with_pins(key);
        }
        let (journal, board) = (Journal::default(), Board::default());
        let control::Started { supervisor, supervising } = match &config.runtime {
            RuntimeConfig::Agent(follow) => {
                let start = Start { config: &config, pool, suspicions };
                start.follow(follow, metrics.clone(), LinkMetrics::new(&registry)?).await?
            }
            _ => {
                let latencies = metrics.clone();
                let pilot = control::PilotSeat {
                    journal: journal.clone(),
                    board: board.clone(),
                    measures: false,
                    latencies: Arc::new(move || latencies.latencies()),
                    sees: Arc::new(|| true),
                };
                control::start(&config, pool, suspicions, None, pilot).await?
            }
        };

        let (trigger, shutdown) = shutdown();
        let (registrations, mut seats) = match (&config.l4, control) {
            (Some(l4), Some(control)) => {
                let own = [Some(addr), admin_addr, control_addr].into_iter().flatten().map(|addr| addr.port());
                let ports = l4::Ports { own: own.collect(), workers: config.workers };
                let (handle, seats) = l4::start(l4, control, &ports, ControlMetrics::new(&registry)?, &shutdown);
                (Some(handle), seats)
            }
            _ => (None, Vec::new()),
        };
        if let Some(listener) = admin {
            let api = Api {
                supervisor: supervisor.clone(),
                policy,
                config: config.policy,
                hash_keys: config.proxy.hash_keys.clone(),
                pool: reader.clone(),
                metrics: registry,
                relays: registrations,
                journal,
                board,
                balancers: None,
                ring_turn: Arc::new(Semaphore::new(1)),
            };
            serve_admin(listener, api);
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
            common: Common::new(&config.proxy),
            max_connections: config.max_connections.unwrap_or_else(|| {
                let most = max_connections(config.fleet.capacity());
                // The relay has the other half.
                if config.l4.is_some() { (most / 2).max(1) } else { most }
            }),
            shutdown,
            drain_timeout: config.fleet.drain_timeout,
        };
        let (alive, ended) = mpsc::channel(config.workers);
        let workers = listeners
            .into_iter()
            .enumerate()
            .map(|(at, listener)| {
                let (config, seed) = (worker.clone(), rand::random());
                let relay = if seats.is_empty() { None } else { Some(seats.remove(0)) };
                workers::spawn(at, alive.clone(), move || async move {
                    let shutdown = config.shutdown.clone();
                    let relay = relay.map(|seat| tokio::task::spawn_local(seat.serve(shutdown.clone())));
                    worker::serve(listener, config, seed).await;
                    // Before that it ended for want of its clock; then the other must not keep the thread alive.
                    if let Some(relay) = relay
                        && shutdown.has_begun()
                    {
                        let _ = relay.await;
                    }
                })
            })
            .collect::<Result<_, _>>()?;
        tracing::info!(%addr, workers = config.workers, "listening on {addr}");
        if let Some(addr) = admin_addr {
            tracing::info!(%addr, "admin listening on {addr}");
        }
        if let Some(addr) = control_addr {
            tracing::info!(%addr, "control channel listening on {addr}");
        }
        Ok(Self { remove_on_exit: config.remove_on_exit, supervisor, supervising, workers, ended, trigger })
    }

    /// Says so if a part has ended that should not: better to start anew than to go on without it.
    async fn broken(&mut self) -> AppError {
        tokio::select! {
            ended = &mut self.supervising => {
                let why = ended.err().map(|error| format!(": {error}")).unwrap_or_default();
                AppError::Broken(format!("the supervisor has ended{why}"))
            }
            _ = self.ended.recv() => AppError::Broken("a worker has ended".into()),
        }
    }

    async fn stop(self) {
        self.trigger.begin();
        let workers = self.workers;
        let joined =
            tokio::task::spawn_blocking(move || workers.into_iter().map(JoinHandle::join).all(|end| end.is_ok()));
        if !joined.await.unwrap_or(false) {
            tracing::error!("a worker had panicked");
        }
        self.supervisor.close(self.remove_on_exit).await;
        let _ = self.supervising.await;
    }
}

struct Start<'a> {
    config: &'a Config,
    pool: Pool,
    suspicions: mpsc::Receiver<Suspicion>,
}

impl Start<'_> {
    /// A supervisor that follows the agent, and the link to that.
    async fn follow(
        self,
        follow: &FollowConfig,
        metrics: ProxyMetrics,
        link_metrics: LinkMetrics,
    ) -> Result<control::Started, AppError> {
        let tls = follow.ca.as_deref().map(tls::connector).transpose();
        let tls = tls.map_err(|error| AppError::Tls { setting: "agent_ca", error })?;
        let (remote, events) = Remote::new();
        let fleet = self.config.fleet.clone();
        let started = Supervisor::start(remote, fleet, self.pool, self.suspicions, rand::random()).await;
        let (supervisor, handle) = started.map_err(|error: StartError| AppError::Runtime(error.to_string()))?;
        let (forward, orders) = link::orders();
        let config = LinkConfig {
            host: follow.host.clone(),
            port: follow.port,
            url: follow.url.clone(),
            tls,
            fleet: self.config.fleet_name.clone(),
            token: follow.token.clone(),
            policy: self.config.policy.kind.to_string(),
        };
        tokio::spawn(Link::new(config, events, orders, handle.clone(), metrics, link_metrics).run());
        let supervising = tokio::spawn(supervisor.run());
        Ok(control::Started { supervisor: handle.forwarding(Arc::new(forward)), supervising })
    }
}

/// What the cookies of sticky sessions are signed with; `None` if there are no such sessions.
fn pin_key(config: &Config) -> Option<PinKey> {
    config.proxy.sticky.as_ref()?;
    let fleet = match &config.runtime {
        RuntimeConfig::Docker(docker) => &docker.fleet,
        RuntimeConfig::Process { .. } | RuntimeConfig::Static(_) | RuntimeConfig::Agent(_) => "",
    };
    Some(match (&config.sticky_secret, &config.runtime) {
        (Some(secret), _) => PinKey::secret(secret.as_bytes(), fleet),
        (None, RuntimeConfig::Docker(_)) => PinKey::public(fleet),
        // It is shared with the agent alone, and outlives a restart of either.
        (None, RuntimeConfig::Agent(follow)) if follow.token.is_some() => {
            PinKey::secret(follow.token.as_deref().unwrap_or_default().as_bytes(), &config.fleet_name)
        }
        (None, runtime) => {
            // Child processes end with the balancer, and sessions at them do anyway.
            if matches!(runtime, RuntimeConfig::Static(_) | RuntimeConfig::Agent(_)) {
                tracing::warn!("sticky sessions end with this balancer, as no sticky_secret is set");
            }
            PinKey::secret(&rand::random::<[u8; 32]>(), fleet)
        }
    })
}

fn serve_admin(listener: TcpListener, api: Api) {
    let router = api.router();
    // It stays open while requests are finished: that is when somebody wants to look.
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!("the admin listener has ended: {error}");
        }
    });
}

/// Half of the open files, as each client's connection may need one to a replica; before that some are kept for
/// everything else, but never more than half.
fn max_connections(replicas: usize) -> i64 {
    use nix::sys::resource::{Resource, getrlimit};
    let files = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(files, _)| files);
    let reserved = RESERVED_FILES + FILES_PER_REPLICA * replicas as u64;
    i64::try_from((files - reserved.min(files / 2)) / 2).unwrap_or(i64::MAX).max(1)
}
