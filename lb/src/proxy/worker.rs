//! One core's share of the data path: a thread with a single-threaded runtime, its own listener (`SO_REUSEPORT` lets the
//! kernel spread connections over them), and its own connections to replicas.

use std::cell::{Cell, RefCell};
use std::net::{SocketAddr, TcpListener as StdListener};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::time::Instant;

use super::addresses::Addresses;
use super::connections::Connections;
use super::error::ProxyError;
use super::own::OwnRoutes;
use super::retry::Retries;
use super::session;
use super::{NotFound, ProxyConfig};
use crate::metrics::ProxyMetrics;
use crate::net::buffers::Buffers;
use crate::net::stream::{Listener, Stream};
use crate::pool::PoolReader;
use crate::shutdown::Shutdown;
use crate::watchdog::{TICK, Watchdog, ticks};

/// An accept error (say, no descriptors left) is not cured by trying again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);
/// Connections that are accepted in one go.
const BURST_ACCEPTED: usize = 16;
/// Once this many idle connections were closed, and no more are, their memory is given back.
const BURST: usize = 128;
/// Ticks between two looks at what is idle.
const SWEEP: u64 = 10;

/// Everything that workers are made of.
#[derive(Clone)]
pub struct WorkerConfig {
    /// How requests are treated.
    pub proxy: Arc<ProxyConfig>,
    /// Where replicas come from.
    pub pool: PoolReader,
    /// The balancer's own paths.
    pub own: OwnRoutes,
    /// What is counted.
    pub metrics: ProxyMetrics,
    /// What the workers keep together.
    pub common: Common,
    /// Client connections at one time, of all workers together.
    pub max_connections: i64,
    /// When to stop.
    pub shutdown: Shutdown,
    /// How long requests under way may take after that.
    pub drain_timeout: Duration,
}

/// What the workers keep together.
#[derive(Debug, Clone)]
pub struct Common {
    began: Instant,
    retries: Arc<Retries>,
    addresses: Option<Arc<Addresses>>,
}

impl Common {
    /// Nothing has happened yet.
    pub fn new(config: &ProxyConfig) -> Self {
        Self {
            began: Instant::now(),
            retries: Arc::new(Retries::new(config.retry_budget)),
            addresses: config.max_client_connections.map(|limit| Arc::new(Addresses::new(limit))),
        }
    }
}

/// Deadlines in ticks.
#[derive(Debug)]
pub(super) struct Ticks {
    pub(super) header: u64,
    pub(super) client: u64,
    pub(super) connect: u64,
    pub(super) response: u64,
    pub(super) one_try: u64,
    pub(super) idle: u64,
}

/// What a worker's tasks share; only its own thread touches it.
pub(super) struct Worker {
    pub(super) config: Arc<ProxyConfig>,
    pub(super) pool: PoolReader,
    pub(super) own: OwnRoutes,
    pub(super) metrics: ProxyMetrics,
    pub(super) connections: Connections,
    pub(super) watchdog: Rc<Watchdog>,
    pub(super) buffers: Buffers,
    pub(super) ticks: Ticks,
    pub(super) retries: Arc<Retries>,
    pub(super) draining: Cell<bool>,
    began: Instant,
    rng: RefCell<SmallRng>,
    /// Connections that are being served.
    sessions: Cell<usize>,
}

impl Worker {
    fn new(config: &WorkerConfig, seed: u64) -> Self {
        let proxy = Arc::clone(&config.proxy);
        let ticks = Ticks {
            header: ticks(proxy.header_timeout),
            client: ticks(proxy.client_timeout),
            connect: ticks(proxy.connect_timeout),
            response: ticks(proxy.response_timeout),
            one_try: proxy.try_timeout.map_or(u64::MAX, ticks),
            idle: ticks(proxy.idle_timeout),
        };
        Self {
            config: proxy,
            pool: config.pool.clone(),
            own: config.own.clone(),
            metrics: config.metrics.clone(),
            connections: Connections::default(),
            watchdog: Rc::default(),
            buffers: Buffers::default(),
            ticks,
            retries: Arc::clone(&config.common.retries),
            draining: Cell::new(false),
            began: config.common.began,
            rng: RefCell::new(SmallRng::seed_from_u64(seed)),
            sessions: Cell::new(0),
        }
    }

    /// Draws from this worker's random numbers.
    pub(super) fn random<T>(&self, draw: impl FnOnce(&mut SmallRng) -> T) -> T {
        draw(&mut self.rng.borrow_mut())
    }

    /// Seconds since the balancer began.
    pub(super) fn second(&self) -> u64 {
        self.began.elapsed().as_secs()
    }

    /// Does a 404 become something else?
    pub(super) fn hides_not_found(&self) -> bool {
        self.config.not_found == NotFound::Assignment
    }
}

/// A connection that is being served; until dropped.
struct Session(Rc<Worker>);

impl Session {
    fn begin(worker: &Rc<Worker>) -> Self {
        worker.metrics.accepted.inc();
        worker.metrics.connections.inc();
        worker.sessions.set(worker.sessions.get() + 1);
        Self(Rc::clone(worker))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.0.metrics.connections.dec();
        self.0.sessions.set(self.0.sessions.get() - 1);
    }
}

/// Serves until shutdown began and the connections are done or late.
pub async fn serve(listener: StdListener, config: WorkerConfig, seed: u64) {
    let listener = match Listener::new(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!("cannot watch the listener: {error}"),
    };
    let worker = Rc::new(Worker::new(&config, seed));
    let WorkerConfig { metrics, common, max_connections, shutdown, drain_timeout, .. } = config;
    let mut house = tokio::task::spawn_local(keep_house(Rc::clone(&worker)));
    let start = |stream: Stream, peer: SocketAddr| {
        let session = Session::begin(&worker);
        let worker = Rc::clone(&worker);
        let Some(addresses) = &common.addresses else {
            tokio::task::spawn_local(async move {
                let _session = session;
                session::serve(worker, stream, peer).await;
            });
            return;
        };
        let (counted, limit) = (addresses.enter(peer.ip()), addresses.limit());
        tokio::task::spawn_local(async move {
            let _session = session;
            match counted {
                Some(_counted) => session::serve(worker, stream, peer).await,
                None => session::turn_away(worker, stream, peer, ProxyError::TooManyConnections { limit }).await,
            }
        });
    };
    let mut full = false;
    let mut begun = pin!(shutdown.begun());
    loop {
        // The rest waits in the backlog. Probes, and connections to replicas, need descriptors too.
        let room = metrics.connections.get() < max_connections;
        if !room && !std::mem::replace(&mut full, true) {
            tracing::warn!(
                "{max_connections} client connections, as many as are allowed (max_connections); others wait"
            );
        }
        let accepted = tokio::select! {
            accepted = listener.accept(), if room => accepted,
            () = tokio::time::sleep(TICK), if !room => continue,
            () = &mut begun => break,
            // Without its clock the worker would keep no deadline.
            _ = &mut house => return,
        };
        full = false;
        match accepted {
            Ok((stream, peer)) => {
                start(stream, peer);
                // They come in bursts. Not all at once, as others wait too.
                for _ in 1..BURST_ACCEPTED {
                    if metrics.connections.get() >= max_connections {
                        break;
                    }
                    let Ok(Some((stream, peer))) = listener.try_accept() else { break };
                    start(stream, peer);
                }
                tokio::task::yield_now().await;
            }
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // Whoever has connected by now is served; closing the listener would reset them. The system is asked itself, as the
    // runtime may not have heard yet of those who came last.
    loop {
        match listener.try_accept() {
            Ok(Some((stream, peer))) => start(stream, peer),
            Ok(None) => break,
            Err(error) => {
                tracing::warn!("cannot take over a connection: {error}");
                break;
            }
        }
    }
    drop(listener);
    // Their first requests are on their way.
    tokio::time::sleep(TICK).await;
    worker.draining.set(true);
    worker.watchdog.wake_all();
    let deadline = Instant::now() + drain_timeout;
    let mut tick = tokio::time::interval(TICK / 5);
    while worker.sessions.get() > 0 && Instant::now() < deadline {
        tick.tick().await;
    }
}

/// Moves the worker's clock, and looks after what waits and what is idle.
async fn keep_house(worker: Rc<Worker>) {
    let mut pool = worker.pool.clone();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let keepalive = ticks(worker.config.keepalive);
    let mut closed = 0;
    loop {
        tokio::select! {
            _ = tick.tick() => {
                worker.watchdog.tick();
                let now = worker.watchdog.now();
                if !now.is_multiple_of(SWEEP) {
                    continue;
                }
                worker.retries.tick(worker.second());
                worker.buffers.shrink();
                let expired = worker.connections.expire(now.saturating_sub(keepalive), |_| true);
                closed += expired;
                if closed >= BURST && expired == 0 {
                    closed = 0;
                    crate::memory::give_back();
                }
            }
            () = pool.changed() => {
                worker.watchdog.abandon_lost();
                let snapshot = pool.snapshot();
                let is_member = |generation| snapshot.members.iter().any(|member| member.generation == generation);
                closed += worker.connections.expire(0, is_member);
            }
        }
    }
}
