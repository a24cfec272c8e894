//! The rows: what is sent, by how many connections.

use super::wrk::Load;

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

/// Rows that are no plain workloads.
pub(crate) const PACED: &str = "paced";
pub(crate) const MEMBERS: &str = "members";
pub(crate) const REBUILD: &str = "rebuild";
pub(crate) const PICK: &str = "pick";

/// Members of the rows that grow.
pub(crate) const GROWTH: [u16; 3] = [3, 50, 500];

/// The names of all rows, in the order of the tables.
pub(crate) fn ids() -> Vec<&'static str> {
    WORKLOADS.iter().map(|workload| workload.id).chain([PACED, MEMBERS, REBUILD, PICK]).collect()
}
