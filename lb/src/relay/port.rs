//! A port that is relayed: its name, what it counts, and how all workers open and close it together.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use serde::{Serialize, Serializer};
use tokio::sync::mpsc;

use crate::net::bind;
use crate::pool::PoolReader;
use crate::shutdown::{Shutdown, ShutdownTrigger, shutdown};

/// Ports that may wait to be opened by a worker.
const OPENINGS: usize = 64;
/// Workers look at a closing port within microseconds; a worker that is stuck must not hold up everybody else.
const CLOSING: Duration = Duration::from_secs(1);

/// What is spoken on a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

impl FromStr for Protocol {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            _ => Err(()),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// A port that clients use. Written as in `tcp/50000`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortKey {
    /// What is spoken.
    pub protocol: Protocol,
    /// Its number.
    pub port: u16,
}

impl fmt::Display for PortKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.protocol, self.port)
    }
}

impl Serialize for PortKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What one worker counts of a port. Each has its own, as counting together would cost them time.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Counts {
    pub(super) accepted: AtomicU64,
    pub(super) connections: AtomicI64,
    pub(super) flows: AtomicI64,
    pub(super) unserved: AtomicU64,
    pub(super) bytes_up: AtomicU64,
    pub(super) bytes_down: AtomicU64,
    pub(super) datagrams_up: AtomicU64,
    pub(super) datagrams_down: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) evicted: AtomicU64,
}

/// Adds to a counter.
#[inline]
pub(super) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

/// What all workers have counted of a port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counted {
    /// Open connections of clients.
    pub connections: u64,
    /// Flows.
    pub flows: u64,
    /// Connections accepted, or flows begun.
    pub accepted: u64,
    /// Of these, connections that no replica took, and datagrams that none was ready for.
    pub unserved: u64,
    /// From clients to replicas.
    pub bytes_up: u64,
    /// From replicas to clients.
    pub bytes_down: u64,
    /// From clients to replicas.
    pub datagrams_up: u64,
    /// From replicas to clients.
    pub datagrams_down: u64,
    /// Datagrams that could not be sent.
    pub dropped: u64,
    /// Flows that ended to make room for others.
    pub evicted: u64,
}

/// A port as the control side and all workers see it.
#[derive(Debug)]
pub struct Port {
    /// Its name.
    pub key: PortKey,
    /// Where it is opened.
    pub addr: SocketAddr,
    by_flow: AtomicBool,
    counts: Box<[Counts]>,
}

impl Port {
    /// Does a client's flow of datagrams stick to one replica?
    #[inline]
    pub fn by_flow(&self) -> bool {
        self.by_flow.load(Ordering::Relaxed)
    }

    /// Says so, or that each datagram is placed for itself.
    pub fn set_by_flow(&self, by_flow: bool) {
        self.by_flow.store(by_flow, Ordering::Relaxed);
    }

    /// What one worker counts.
    pub(super) fn counts(&self, worker: usize) -> &Counts {
        &self.counts[worker % self.counts.len()]
    }

    /// What was counted so far.
    pub fn counted(&self) -> Counted {
        let sum = |counter: fn(&Counts) -> &AtomicU64| {
            self.counts.iter().map(|counts| counter(counts).load(Ordering::Relaxed)).sum()
        };
        let gauge = |gauge: fn(&Counts) -> &AtomicI64| {
            let sum: i64 = self.counts.iter().map(|counts| gauge(counts).load(Ordering::Relaxed)).sum();
            u64::try_from(sum).unwrap_or(0)
        };
        Counted {
            connections: gauge(|counts| &counts.connections),
            flows: gauge(|counts| &counts.flows),
            accepted: sum(|counts| &counts.accepted),
            unserved: sum(|counts| &counts.unserved),
            bytes_up: sum(|counts| &counts.bytes_up),
            bytes_down: sum(|counts| &counts.bytes_down),
            datagrams_up: sum(|counts| &counts.datagrams_up),
            datagrams_down: sum(|counts| &counts.datagrams_down),
            dropped: sum(|counts| &counts.dropped),
            evicted: sum(|counts| &counts.evicted),
        }
    }
}

/// A worker's own socket of a port.
#[derive(Debug)]
pub(super) enum Bound {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

/// A port for a worker to open.
pub(super) struct Opening {
    pub(super) port: Arc<Port>,
    pub(super) bound: Bound,
    pub(super) pool: PoolReader,
    pub(super) closing: Shutdown,
    /// Dropped once the socket is closed.
    pub(super) open: mpsc::Sender<()>,
}

/// All workers, as those see them who open ports.
#[derive(Debug, Clone)]
pub struct Workers {
    ip: IpAddr,
    write_timeout: Duration,
    openings: Vec<mpsc::Sender<Opening>>,
}

/// One worker's end of it.
pub struct Seat {
    /// Which one.
    pub(super) at: usize,
    pub(super) openings: mpsc::Receiver<Opening>,
}

impl Workers {
    /// `count` workers that open ports on `ip`, and a seat for each. A client that takes nothing for `write_timeout` is given
    /// up.
    pub fn new(ip: IpAddr, count: usize, write_timeout: Duration) -> (Self, Vec<Seat>) {
        let (openings, seats) = (0..count.max(1))
            .map(|at| {
                let (sender, openings) = mpsc::channel(OPENINGS);
                (sender, Seat { at, openings })
            })
            .unzip();
        (Self { ip, write_timeout, openings }, seats)
    }

    /// Opens a port for what `pool` holds. Connections made after this has returned are served.
    pub async fn open(&self, key: PortKey, pool: &PoolReader) -> io::Result<OpenPort> {
        let addr = SocketAddr::new(self.ip, key.port);
        let count = self.openings.len();
        let bound: Vec<Bound> = match key.protocol {
            Protocol::Tcp => bind::tcp(addr, count, self.write_timeout)?.into_iter().map(Bound::Tcp).collect(),
            Protocol::Udp => bind::udp(addr, count)?.into_iter().map(Bound::Udp).collect(),
        };
        let counts = (0..count).map(|_| Counts::default()).collect();
        let port = Arc::new(Port { key, addr, by_flow: AtomicBool::new(false), counts });
        let (trigger, closing) = shutdown();
        let (open, closed) = mpsc::channel(1);
        for (sender, bound) in self.openings.iter().zip(bound) {
            let (port, pool, closing, open) = (Arc::clone(&port), pool.clone(), closing.clone(), open.clone());
            let opening = Opening { port, bound, pool, closing, open };
            sender.send(opening).await.map_err(|_| io::Error::other("the balancer is stopping"))?;
        }
        Ok(OpenPort { port, trigger, closed })
    }
}

/// A port that is open until this is closed or dropped.
#[derive(Debug)]
pub struct OpenPort {
    /// The port.
    pub port: Arc<Port>,
    trigger: ShutdownTrigger,
    closed: mpsc::Receiver<()>,
}

impl OpenPort {
    /// Closes it. Clients are refused once this has returned; connections go on.
    pub async fn close(mut self) {
        self.trigger.begin();
        if tokio::time::timeout(CLOSING, self.closed.recv()).await.is_err() {
            tracing::error!(relay = %self.port.key, "a worker does not close {}", self.port.key);
        }
    }
}
