//! One core's share of the data path: a thread with a single-threaded runtime, its own listener (`SO_REUSEPORT` lets the
//! kernel spread connections over them), and its own connections to replicas.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use socket2::{Domain, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tower::ServiceExt;

use super::ProxyConfig;
use super::body::ProxyBody;
use super::connections::Connections;
use super::forward::{Client, Forwarder};
use super::watchdog::{TICK, Watch, Watchdog};
use crate::metrics::ProxyMetrics;
use crate::pool::PoolReader;
use crate::shutdown::Shutdown;

/// Connections that may wait to be accepted, per worker.
const BACKLOG: i32 = 4096;
/// An accept error (say, no descriptors left) is not cured by trying again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

type Http1<S> = http1::Connection<TokioIo<TcpStream>, S>;

/// Once this many idle connections were closed, and no more are, their memory is given back.
const BURST: usize = 128;

/// The balancer's own paths on the public listener, and what answers them.
#[derive(Clone)]
pub struct OwnRoutes {
    /// Exact paths.
    pub paths: &'static [&'static str],
    /// Their answers.
    pub router: axum::Router,
}

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
    /// Client connections at one time, of all workers together.
    pub max_connections: i64,
    /// When to stop.
    pub shutdown: Shutdown,
    /// How long requests under way may take after that.
    pub drain_timeout: Duration,
}

/// What a worker's tasks share; only its own thread touches it.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) connections: Connections,
    pub(super) watchdog: Arc<Watchdog>,
    draining: AtomicBool,
}

/// One listener for each of `workers`, all on the same address.
///
/// A listener without `SO_REUSEPORT` is tried first: two balancers on one port would otherwise share its connections
/// without anybody noticing.
pub fn bind(addr: SocketAddr, workers: usize) -> io::Result<Vec<StdListener>> {
    let socket = |addr: SocketAddr, reuse_port| {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(reuse_port)?;
        socket.set_nonblocking(true)?;
        socket.bind(&addr.into())?;
        Ok::<_, io::Error>(socket)
    };
    let probe = socket(addr, false)?;
    probe.listen(1)?;
    let addr = StdListener::from(probe).local_addr()?;
    (0..workers.max(1))
        .map(|_| {
            let socket = socket(addr, true)?;
            socket.listen(BACKLOG)?;
            Ok(socket.into())
        })
        .collect()
}

/// Starts worker number `at` on a thread of its own; the thread ends when shutdown began and its connections are done or
/// late. It sends to `ended` then, or when it has panicked.
pub fn spawn(
    at: usize,
    listener: StdListener,
    config: WorkerConfig,
    seed: u64,
    ended: mpsc::Sender<()>,
) -> io::Result<JoinHandle<()>> {
    struct OnEnd(mpsc::Sender<()>);
    impl Drop for OnEnd {
        fn drop(&mut self) {
            let _ = self.0.try_send(());
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listener = {
        let _within = runtime.enter();
        TcpListener::from_std(listener)?
    };
    std::thread::Builder::new().name(format!("worker-{at}")).spawn(move || {
        let _on_end = OnEnd(ended);
        runtime.block_on(serve(listener, config, seed));
    })
}

async fn serve(listener: TcpListener, config: WorkerConfig, seed: u64) {
    let WorkerConfig { proxy, pool, own, metrics, max_connections, shutdown, drain_timeout } = config;
    let shared = Arc::<Shared>::default();
    let client_ticks = super::watchdog::ticks(proxy.client_timeout);
    let write_timeout = proxy.idle_timeout;
    let mut house = tokio::spawn(keep_house(Arc::clone(&shared), pool.clone(), proxy.keepalive));
    let rng = SmallRng::seed_from_u64(seed);
    let forwarder = Arc::new(Forwarder::new(proxy, pool, Arc::clone(&shared), metrics.clone(), rng));
    let mut http = http1::Builder::new();
    // The time that a client may take for a header is watched here, at no cost per request. Flushes are not put off while
    // more has arrived: half a request would hold back the answer to the one before.
    http.header_read_timeout(None);
    let start = |stream: TcpStream, peer: SocketAddr| {
        let _ = stream.set_nodelay(true);
        // The kernel ends a connection whose peer takes nothing for this long.
        let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(write_timeout));
        let watch = Arc::new(shared.watchdog.watch(client_ticks, None));
        let front = Arc::new(Front {
            forwarder: Arc::clone(&forwarder),
            own: own.clone(),
            client: Client::new(peer.ip()),
            watch: Arc::clone(&watch),
            client_ticks,
        });
        let service = service_fn(move |request: Request<Incoming>| {
            let front = Arc::clone(&front);
            async move { Ok::<_, Infallible>(front.answer(request).await) }
        });
        metrics.accepted.inc();
        metrics.connections.inc();
        let connection = http.serve_connection(TokioIo::new(stream), service);
        let (shared, metrics) = (Arc::clone(&shared), metrics.clone());
        tokio::spawn(async move {
            if let Err(error) = drive(pin!(connection), &watch, &shared).await {
                tracing::debug!(%peer, "client connection: {error}");
            }
            metrics.connections.dec();
        });
    };
    let mut full = false;
    loop {
        // The rest waits in the backlog. Probes, and connections to replicas, need descriptors too.
        let room = metrics.connections.get() < max_connections;
        if !room && !std::mem::replace(&mut full, true) {
            tracing::warn!(
                "{max_connections} client connections, as many as the limit of open files allows; others wait"
            );
        }
        let accepted = tokio::select! {
            accepted = listener.accept(), if room => accepted,
            () = tokio::time::sleep(TICK), if !room => continue,
            () = shutdown.begun() => break,
            // Without its clock the worker would keep no deadline.
            _ = &mut house => return,
        };
        full = false;
        match accepted {
            Ok((stream, peer)) => start(stream, peer),
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // Whoever has connected by now is served; closing the listener would reset them. The system is asked itself, as the
    // runtime may not have heard yet of those who came last.
    if let Ok(listener) = listener.into_std() {
        while let Ok((stream, peer)) = listener.accept() {
            let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
            match stream {
                Ok(stream) => start(stream, peer),
                Err(error) => tracing::warn!("cannot take over a connection: {error}"),
            }
        }
    }
    // Their first requests are on their way.
    tokio::time::sleep(TICK).await;
    shared.draining.store(true, Ordering::SeqCst);
    shared.watchdog.wake_all();
    let deadline = Instant::now() + drain_timeout;
    let mut tick = tokio::time::interval(TICK / 5);
    // The shared state is held by this function, the housekeeper, the forwarder, and by each connection.
    while Arc::strong_count(&shared) > 3 && Instant::now() < deadline {
        tick.tick().await;
    }
}

/// What answers the requests of one connection.
struct Front {
    forwarder: Arc<Forwarder>,
    own: OwnRoutes,
    client: Client,
    /// Ends the connection if the client takes too long with its next header.
    watch: Arc<Watch>,
    client_ticks: u64,
}

impl Front {
    /// Answers, with the client's time stopped until the last byte of the answer.
    async fn answer(&self, request: Request<Incoming>) -> Response<ProxyBody> {
        self.watch.renew(u64::MAX);
        let mut response = self.answer_now(request).await;
        response.body_mut().at_end_renew(Arc::clone(&self.watch), self.client_ticks);
        response
    }

    async fn answer_now(&self, request: Request<Incoming>) -> Response<ProxyBody> {
        if !self.own.paths.contains(&request.uri().path()) {
            return self.forwarder.forward(request, &self.client).await;
        }
        // Boxed, as these few requests would make room for themselves in the future of every other one.
        let answered = Box::pin(self.own.router.clone().oneshot(request.map(axum::body::Body::new)));
        match answered.await {
            Ok(response) => response.map(ProxyBody::own),
            Err(never) => match never {},
        }
    }
}

/// Moves the worker's clock, and looks after what waits and what is idle.
async fn keep_house(shared: Arc<Shared>, mut pool: PoolReader, keepalive: Duration) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let keepalive = super::watchdog::ticks(keepalive);
    let mut closed = 0;
    loop {
        tokio::select! {
            _ = tick.tick() => {
                shared.watchdog.tick();
                let oldest = shared.watchdog.now().saturating_sub(keepalive);
                let expired = shared.connections.expire(oldest, |_| true);
                closed += expired;
                if closed >= BURST && expired == 0 {
                    closed = 0;
                    crate::memory::give_back();
                }
            }
            () = pool.changed() => {
                shared.watchdog.abandon_lost();
                let snapshot = pool.snapshot();
                let is_member = |generation| snapshot.members.iter().any(|member| member.generation == generation);
                closed += shared.connections.expire(0, is_member);
            }
        }
    }
}

/// Drives a client's connection to its end: its own, or that of the client's time, or, when the worker drains, after its
/// current request.
async fn drive<S>(mut connection: Pin<&mut Http1<S>>, watch: &Watch, shared: &Shared) -> Result<(), hyper::Error>
where
    S: hyper::service::HttpService<Incoming, ResBody = ProxyBody>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut told = false;
    poll_fn(|cx| {
        // First of all it reads what has arrived: a connection that is told before its first request would end without it.
        let polled = connection.as_mut().poll(cx);
        if polled.is_ready() {
            return polled;
        }
        if !told && shared.draining.load(Ordering::Relaxed) {
            told = true;
            connection.as_mut().graceful_shutdown();
            return connection.as_mut().poll(cx);
        }
        watch.poll(cx).map(|_| Ok(()))
    })
    .await
}
