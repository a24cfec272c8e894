//! Which servers are registered for which ports.
//!
//! `table` decides (pure), `task` opens and closes ports, publishes their pools and lets replicas drain, and
//! [`RegistryHandle`] is how everybody else talks to them. The only writer of the relay's pools. It knows nothing of the
//! channel that registrations come over.

mod log;
mod table;
mod task;

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use serde::Serialize;
use tokio::sync::{mpsc, oneshot, watch};

pub use task::start;

use crate::policy::PolicyConfig;
use crate::relay::{Port, PortKey, Protocol};
use crate::replica::{Replica, Share};

/// Commands that may wait for the registry's task.
const COMMANDS: usize = 256;

/// How a UDP port's datagrams are placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Affinity {
    /// Each for itself.
    Datagram,
    /// A client sticks to a replica for as long as it is not idle.
    Flow,
}

impl fmt::Display for Affinity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Datagram => "datagram",
            Self::Flow => "flow",
        })
    }
}

/// What a server registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registration {
    /// What is spoken.
    pub protocol: Protocol,
    /// The server's own port.
    pub port: u16,
    /// The port that clients use.
    pub relay_port: u16,
    /// How datagrams are placed, if the server cares.
    pub affinity: Option<Affinity>,
    /// Its weight among the others.
    pub weight: NonZeroU16,
    /// Its priority among the others.
    pub priority: u16,
}

impl Registration {
    /// The port that clients use.
    pub fn key(&self) -> PortKey {
        PortKey { protocol: self.protocol, port: self.relay_port }
    }

    /// Weight and priority.
    pub fn share(&self) -> Share {
        Share { weight: self.weight.get(), priority: self.priority }
    }
}

/// One control connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(u64);

/// Who registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The connection.
    pub id: PeerId,
    /// Where its traffic goes.
    pub ip: IpAddr,
    /// Does it run on this host?
    pub is_local: bool,
}

/// Why a registration, or its end, was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is there already.
    #[error("{0} is registered for {1} already")]
    Registered(std::net::SocketAddr, PortKey),
    /// It is not there.
    #[error("{0} is not registered for {1} by this connection")]
    NotRegistered(std::net::SocketAddr, PortKey),
    /// The port can't be opened.
    #[error("{0} can't be opened: {1}")]
    CannotBind(PortKey, String),
    /// The peer has as many as it may have.
    #[error("this connection has {0} registrations, as many as are allowed")]
    TooMany(usize),
    /// The port has as many replicas as its policy can place.
    #[error("{0} has {1} replicas, as many as its policy can place")]
    Full(PortKey, usize),
    /// Others have registered for the port with another affinity.
    #[error("affinity is {1}, but {0} is used by {2} already")]
    Affinity(PortKey, Affinity, Affinity),
    /// The balancer ends.
    #[error("the balancer is stopping")]
    Stopping,
}

/// How the registry treats registrations.
#[derive(Debug, Clone)]
pub struct RegistryConfig {
    /// Where ports are opened.
    pub address: IpAddr,
    /// Ports that may be opened.
    pub allowed: Vec<RangeInclusive<u16>>,
    /// Ports that the balancer itself uses.
    pub reserved: Vec<PortKey>,
    /// Registrations of one peer at one time.
    pub max_registrations: usize,
    /// How a replica is chosen.
    pub policy: PolicyConfig,
    /// How long connections to a replica that has left may go on.
    pub drain_timeout: Duration,
}

/// Why a peer's registrations end all at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaving {
    /// Its connection has ended; connections to its replicas go on for a while.
    Closed,
    /// It was silent for so long: connections to its replicas are closed.
    Silent(Duration),
}

enum Command {
    Register { peer: Peer, registration: Registration, answer: oneshot::Sender<Result<(), Refusal>> },
    Unregister { peer: Peer, registration: Registration, answer: oneshot::Sender<Result<(), Refusal>> },
    State { peer: Peer, of: Option<(Protocol, u16)>, state: Option<String> },
    Leave { peer: Peer, leaving: Leaving },
}

/// All ports at one moment.
#[derive(Debug, Default)]
pub struct Status {
    /// By protocol and number. A port that is closed is listed while connections to its replicas go on.
    pub ports: Vec<PortStatus>,
}

/// One port.
#[derive(Debug)]
pub struct PortStatus {
    /// The port and what it has counted.
    pub port: Arc<Port>,
    /// Is it open?
    pub open: bool,
    /// Its replicas, those that leave included, oldest first.
    pub replicas: Vec<ReplicaStatus>,
}

/// One registered replica.
#[derive(Debug)]
pub struct ReplicaStatus {
    /// As the data path sees it.
    pub replica: Arc<Replica>,
    /// Since when.
    pub registered_at: SystemTime,
    /// Why it is out of rotation, if it is.
    pub reason: Option<String>,
}

/// Talks to the registry; cheap to clone.
#[derive(Debug, Clone)]
pub struct RegistryHandle {
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<Arc<Status>>,
    peers: Arc<AtomicU64>,
}

impl RegistryHandle {
    /// All ports as they are now.
    pub fn status(&self) -> Arc<Status> {
        Arc::clone(&self.status.borrow())
    }

    /// A name for a new control connection.
    pub fn new_peer(&self) -> PeerId {
        PeerId(self.peers.fetch_add(1, Ordering::Relaxed))
    }

    /// Registers a replica; its port is open when this has returned.
    pub async fn register(&self, peer: Peer, registration: Registration) -> Result<(), Refusal> {
        let (answer, answered) = oneshot::channel();
        self.ask(Command::Register { peer, registration, answer }, answered).await
    }

    /// Ends a registration; if it was the last one of its port, that is closed when this has returned.
    pub async fn unregister(&self, peer: Peer, registration: Registration) -> Result<(), Refusal> {
        let (answer, answered) = oneshot::channel();
        self.ask(Command::Unregister { peer, registration, answer }, answered).await
    }

    async fn ask(&self, command: Command, answered: oneshot::Receiver<Result<(), Refusal>>) -> Result<(), Refusal> {
        self.commands.send(command).await.map_err(|_| Refusal::Stopping)?;
        answered.await.unwrap_or(Err(Refusal::Stopping))
    }

    /// Takes a peer's replicas out of rotation, with the word that it says instead of "good", or back in without one. With
    /// `of`, that is the one with this protocol and port, its own or that of its clients, if there is one.
    pub async fn set_state(&self, peer: Peer, of: Option<(Protocol, u16)>, state: Option<String>) {
        let _ = self.commands.send(Command::State { peer, of, state }).await;
    }

    /// Ends all registrations of a peer.
    pub async fn leave(&self, peer: Peer, leaving: Leaving) {
        let _ = self.commands.send(Command::Leave { peer, leaving }).await;
    }
}
