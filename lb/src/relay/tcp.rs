//! A port's TCP connections.
//!
//! Each is a task of its own: it leases a replica, connects to it (to another if it refuses), then passes bytes both ways
//! until both sides have ended, nothing has moved for the idle time, or the replica was given up.

use std::io::{self, IoSlice};
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use std::{future, task::Poll};

use xxhash_rust::xxh3::xxh3_64;

use super::port::{Counts, Port, add};
use super::proxy_protocol;
use super::worker::{Session, Worker};
use crate::net::buffers::Buffer;
use crate::net::copy::{Side, Way, both_ways};
use crate::net::is_own_trouble;
use crate::net::stream::{Listener, Stream};
use crate::policy::PickCx;
use crate::pool::{Lease, PoolReader};
use crate::replica::Generation;
use crate::shutdown::Shutdown;
use crate::watchdog::{Alarm, TICK, Watch};

/// An accept error (say, no descriptors left) is not cured by trying again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);
/// Connections that are accepted in one go.
const BURST_ACCEPTED: usize = 16;

/// What a port's connections share.
struct TcpPort {
    worker: Rc<Worker>,
    port: Arc<Port>,
    pool: PoolReader,
}

/// Serves a port until it is closed. Its connections go on after that.
pub(super) async fn serve(
    worker: Rc<Worker>,
    port: Arc<Port>,
    listener: TcpListener,
    pool: PoolReader,
    closing: Shutdown,
    shutdown: Shutdown,
) -> io::Result<()> {
    let listener = Listener::new(listener)?;
    let tcp = Rc::new(TcpPort { worker, port, pool });
    let start = |stream: Stream, peer: SocketAddr| {
        let session = Session::begin(&tcp.worker);
        let tcp = Rc::clone(&tcp);
        tokio::task::spawn_local(async move {
            let _session = session;
            tcp.relay(stream, peer).await;
        });
    };
    let (mut closing, mut shutdown) = (pin!(closing.begun()), pin!(shutdown.begun()));
    loop {
        let room = tcp.worker.has_room();
        if !room {
            let most = tcp.worker.config.max_connections;
            tcp.worker.warn(|| {
                tracing::warn!(
                    "{most} relayed connections, as many as are allowed (relay_max_connections); others wait"
                );
            });
        }
        let accepted = tokio::select! {
            biased;
            () = &mut closing => return Ok(()),
            () = &mut shutdown => break,
            accepted = listener.accept(), if room => accepted,
            () = tokio::time::sleep(TICK), if !room => continue,
        };
        match accepted {
            Ok((stream, peer)) => {
                start(stream, peer);
                // They come in bursts. Not all at once, as others wait too.
                for _ in 1..BURST_ACCEPTED {
                    if !tcp.worker.has_room() {
                        break;
                    }
                    let Ok(Some((stream, peer))) = listener.try_accept() else { break };
                    start(stream, peer);
                }
                tokio::task::yield_now().await;
            }
            Err(error) => {
                tcp.worker.warn(|| tracing::warn!("cannot accept a connection: {error}"));
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // The balancer stops: whoever has connected by now is served, as closing the listener would reset them.
    while let Ok(Some((stream, peer))) = listener.try_accept() {
        start(stream, peer);
    }
    Ok(())
}

/// Counts an open connection until dropped.
struct Open<'a>(&'a Counts);

impl<'a> Open<'a> {
    fn begin(counts: &'a Counts) -> Self {
        add(&counts.accepted, 1);
        counts.connections.fetch_add(1, Ordering::Relaxed);
        Self(counts)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl TcpPort {
    async fn relay(&self, client: Stream, peer: SocketAddr) {
        let worker = &self.worker;
        let counts = self.port.counts(worker.at);
        let _open = Open::begin(counts);
        let watch = worker.watchdog.watch(worker.ticks.connect);
        let Some((lease, replica)) = self.connect(peer, &watch).await else {
            add(&counts.unserved, 1);
            client.reset_on_close();
            return;
        };
        lease.served();
        watch.set(worker.ticks.idle);
        watch.also_for(lease.replica());
        let ended = self.pass_on(&client, peer, &replica, &watch, counts).await;
        if let Err(error) = ended {
            tracing::debug!(relay = %self.port.key, addr = %lease.replica().addr, "a connection broke off: {error}");
            // Either side shall see that something is missing.
            client.reset_on_close();
            replica.reset_on_close();
        }
    }

    async fn pass_on(
        &self,
        client: &Stream,
        peer: SocketAddr,
        replica: &Stream,
        watch: &Watch,
        counts: &Counts,
    ) -> io::Result<()> {
        let worker = &self.worker;
        if worker.config.proxy_protocol {
            let header = proxy_protocol::header(peer, client.local_addr()?);
            // It fits in the buffer of a new connection.
            replica.write_all(&mut [IoSlice::new(&header)], || {}).await?;
        }
        let (mut up, mut down) = (Buffer::default(), Buffer::default());
        let ended = both_ways(
            Side { stream: client, buffer: &mut up },
            Side { stream: replica, buffer: &mut down },
            &worker.buffers,
            |way, bytes| {
                watch.renew(worker.ticks.idle);
                let counter = if way == Way::Up { &counts.bytes_up } else { &counts.bytes_down };
                add(counter, bytes as u64);
            },
            |cx| {
                watch.poll(cx).map(|alarm| match alarm {
                    Alarm::Late => io::ErrorKind::TimedOut.into(),
                    Alarm::Lost => io::ErrorKind::ConnectionAborted.into(),
                })
            },
        )
        .await;
        up.drop_into(&worker.buffers);
        down.drop_into(&worker.buffers);
        ended
    }

    /// A connection to a replica; `None` if there is none to be had.
    async fn connect(&self, peer: SocketAddr, watch: &Watch) -> Option<(Lease, Stream)> {
        let key = if self.worker.config.hashes { key_of(peer) } else { 0 };
        let mut tried: Vec<Generation> = Vec::new();
        loop {
            let (random, now) = (self.worker.random(), self.pool.now());
            let lease = self.pool.acquire(&PickCx { key, tried: &tried, random, now, limit: None })?;
            let began = Instant::now();
            let replica = lease.replica();
            watch.set(self.worker.ticks.connect);
            watch.also_for(replica);
            let mut connecting = pin!(Stream::connect(replica.addr));
            let connected = future::poll_fn(|cx| match connecting.as_mut().poll(cx) {
                Poll::Ready(connected) => Poll::Ready(connected),
                Poll::Pending => watch.poll(cx).map(|_| Err(io::ErrorKind::TimedOut.into())),
            })
            .await;
            match connected {
                Ok(stream) => {
                    self.pool.measure(replica, || began.elapsed());
                    return Some((lease, stream));
                }
                Err(error) if is_own_trouble(&error) => {
                    self.worker.warn(|| tracing::warn!("cannot connect to a replica: {error}"));
                    return None;
                }
                // It may have a crowd before its door.
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    self.pool.measure_failure(replica, || began.elapsed());
                }
                Err(_) => self.pool.suspect(replica),
            }
            lease.failed();
            tried.push(replica.generation);
        }
    }
}

/// A client's key: the hash of its address, without its port.
pub(super) fn key_of(peer: SocketAddr) -> u64 {
    match peer.ip().to_canonical() {
        std::net::IpAddr::V4(ip) => xxh3_64(&ip.octets()),
        std::net::IpAddr::V6(ip) => xxh3_64(&ip.octets()),
    }
}
