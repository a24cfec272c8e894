//! The rows: what is sent, by how many connections.

use super::wrk::Load;
use crate::control::Affinity;

/// One row of saturating load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Workload {
    /// Names it on the command line and in the results.
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    pub(crate) load: Load,
    /// Connections that have asked once and then sit there.
    pub(crate) idle: usize,
}

const GET: Load = Load { path: "/54", connections: 64, body: 0, close: false };

/// All of them. The first is what `--quick` runs.
pub(crate) const WORKLOADS: [Workload; 8] = [
    Workload { id: "54b-64", title: "54 B, 64 connections", load: GET, idle: 0 },
    Workload { id: "54b-1", title: "54 B, 1 connection", load: Load { connections: 1, ..GET }, idle: 0 },
    Workload { id: "54b-512", title: "54 B, 512 connections", load: Load { connections: 512, ..GET }, idle: 0 },
    Workload { id: "10k-64", title: "10 KiB, 64 connections", load: Load { path: "/10k", ..GET }, idle: 0 },
    Workload {
        id: "1m-16",
        title: "1 MiB, 16 connections",
        load: Load { path: "/1m", connections: 16, ..GET },
        idle: 0,
    },
    Workload {
        id: "new-64",
        title: "54 B, new connection each, 64 at a time",
        load: Load { close: true, ..GET },
        idle: 0,
    },
    Workload {
        id: "post-64",
        title: "POST of 64 KiB, 64 connections",
        load: Load { path: "/post", body: 64 * 1024, ..GET },
        idle: 0,
    },
    Workload { id: "idle-1000", title: "54 B, 64 connections, 1000 idle ones beside", load: GET, idle: 1000 },
];

/// The same over relays, which pass on bytes.
pub(crate) const RELAYED: [Workload; 3] = [
    Workload { id: "relay-54b-64", title: "TCP: 54 B, 64 connections", load: GET, idle: 0 },
    Workload {
        id: "relay-1m-16",
        title: "TCP: 1 MiB, 16 connections",
        load: Load { path: "/1m", connections: 16, ..GET },
        idle: 0,
    },
    Workload {
        id: "relay-new-64",
        title: "TCP: 54 B, new connection each, 64 at a time",
        load: Load { close: true, ..GET },
        idle: 0,
    },
];

/// One row of datagrams that are echoed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Datagrams {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    pub(crate) affinity: Affinity,
}

pub(crate) const UDP: [Datagrams; 2] = [
    Datagrams { id: "udp-echo", title: "UDP: 64 B, lb by datagram", affinity: Affinity::Datagram },
    Datagrams { id: "udp-flow", title: "UDP: 64 B, lb by flow", affinity: Affinity::Flow },
];

/// Rows that are no plain workloads.
pub(crate) const PACED: &str = "paced";
pub(crate) const MEMBERS: &str = "members";
pub(crate) const RELAY_IDLE: &str = "relay-idle";
pub(crate) const REBUILD: &str = "rebuild";
pub(crate) const PICK: &str = "pick";

/// Members of the rows that grow.
pub(crate) const GROWTH: [u16; 3] = [3, 50, 500];

/// The names of all rows, in the order of the tables.
pub(crate) fn ids() -> Vec<&'static str> {
    let relayed = RELAYED.iter().map(|row| row.id).chain(UDP.iter().map(|row| row.id)).chain([RELAY_IDLE]);
    let rows = WORKLOADS.iter().map(|row| row.id).chain([PACED, MEMBERS]).chain(relayed);
    rows.chain([REBUILD, PICK]).collect()
}
