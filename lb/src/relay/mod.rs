//! The L4 data path: relays TCP connections and UDP datagrams to the replicas of a port, and reads nothing of them.
//!
//! A port is opened by [`Workers::open`] and closed when what that gives is closed or dropped. Who its replicas are comes
//! from its pool; nothing here registers a replica or ends one. What is found out about one goes to the pool as a suspicion.
//!
//! | module | what it is |
//! |---|---|
//! | [`worker`] | a core's share: the ports it serves, its clock, shutdown |
//! | `tcp` | a port's connections: accept, connect, both ways until the end |
//! | `udp` | a port's datagrams and the sockets of its flows |
//! | [`flow`] | the table of flows (pure) |
//! | `proxy_protocol` | the header that names a client (pure) |
//! | [`port`] | a port's name, counters, opening and closing |

pub mod flow;
pub mod port;
mod proxy_protocol;
mod tcp;
mod udp;
pub mod worker;

use std::time::Duration;

pub use port::{Counted, OpenPort, Port, PortKey, Protocol, Seat, Workers};

/// How ports are relayed.
#[derive(Debug, Clone)]
pub struct RelayConfig {
    /// For a connection to a replica to be made.
    pub connect_timeout: Duration,
    /// For the next byte of a connection, either way.
    pub idle_timeout: Duration,
    /// For the next datagram of a flow, either way.
    pub flow_idle: Duration,
    /// For connections under way, when a replica leaves or the balancer stops.
    pub drain_timeout: Duration,
    /// Connections of clients at one time, of all ports together.
    pub max_connections: i64,
    /// Flows at one time, of all ports together.
    pub max_flows: usize,
    /// Does a replica get a header that names the client (TCP)?
    pub proxy_protocol: bool,
    /// Does the policy look at keys? Then a client's address is hashed.
    pub hashes: bool,
}
