//! Relayed ports as JSON.

use serde::{Deserialize, Serialize};

use crate::registry::{PortStatus, ReplicaStatus};
use crate::relay::Protocol;
use crate::replica::Health;

/// One port.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RelayItem {
    /// `tcp` or `udp`.
    pub protocol: String,
    /// The port that clients use.
    pub relay_port: u16,
    /// Where it is opened.
    pub addr: String,
    /// `open`, or `closed` while connections to its last replicas go on.
    pub state: String,
    /// How datagrams are placed: `datagram` or `flow`; `null` for TCP.
    pub affinity: Option<String>,
    /// Open connections of clients.
    pub connections: u64,
    /// Flows of datagrams.
    pub flows: u64,
    /// Connections accepted, or flows begun.
    pub accepted: u64,
    /// Connections that no replica took, and datagrams that none was ready for.
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
    /// Oldest first, leaving ones included.
    pub replicas: Vec<RelayReplica>,
}

/// One registered replica.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RelayReplica {
    /// Its ring number at this port.
    pub id: u32,
    /// Where its traffic goes.
    pub addr: String,
    /// `ready`, `unready` or `draining`.
    pub state: String,
    /// Why it is not ready, if that is known.
    pub reason: Option<String>,
    /// Its open connections, or its flows.
    pub in_flight: u32,
    /// Connections, or datagrams, that it got.
    pub served: u64,
    /// Those that it refused.
    pub failed: u64,
    /// Its weight among the others.
    pub weight: u16,
    /// Its priority among the others.
    pub priority: u16,
    /// RFC 3339.
    pub registered_at: String,
    /// Which registration it is.
    pub generation: u64,
}

impl From<&PortStatus> for RelayItem {
    fn from(PortStatus { port, open, replicas }: &PortStatus) -> Self {
        let counted = port.counted();
        let affinity = || if port.by_flow() { "flow" } else { "datagram" };
        Self {
            protocol: port.key.protocol.to_string(),
            relay_port: port.key.port,
            addr: port.addr.to_string(),
            state: if *open { "open" } else { "closed" }.into(),
            affinity: (port.key.protocol == Protocol::Udp).then(|| affinity().into()),
            connections: counted.connections,
            flows: counted.flows,
            accepted: counted.accepted,
            unserved: counted.unserved,
            bytes_up: counted.bytes_up,
            bytes_down: counted.bytes_down,
            datagrams_up: counted.datagrams_up,
            datagrams_down: counted.datagrams_down,
            dropped: counted.dropped,
            evicted: counted.evicted,
            replicas: replicas.iter().map(RelayReplica::from).collect(),
        }
    }
}

impl From<&ReplicaStatus> for RelayReplica {
    fn from(ReplicaStatus { replica, registered_at, reason }: &ReplicaStatus) -> Self {
        Self {
            id: replica.id.0,
            addr: replica.addr.to_string(),
            state: match replica.health() {
                Health::Ready => "ready",
                Health::Unready => "unready",
                Health::Lost | Health::Draining => "draining",
            }
            .into(),
            reason: reason.clone(),
            in_flight: replica.in_flight(),
            served: replica.served(),
            failed: replica.failed(),
            weight: replica.weight(),
            priority: replica.priority(),
            registered_at: humantime::format_rfc3339_millis(*registered_at).to_string(),
            generation: replica.generation.0,
        }
    }
}
