//! A worker's idle connections to replicas. Each worker has its own, so no other core ever waits for them.

use std::cell::RefCell;

use rustc_hash::FxHashMap;

use crate::net::stream::Stream;
use crate::replica::{Generation, Replica};

/// Idle connections kept per replica and worker; more are closed.
const IDLE_PER_REPLICA: usize = 1024;

#[derive(Debug)]
struct Idle {
    stream: Stream,
    /// Tick at which it became idle.
    since: u64,
    /// The system is asked before it is used again.
    to_be_looked_at: bool,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Connections {
    idle: RefCell<FxHashMap<Generation, Vec<Idle>>>,
}

impl Connections {
    /// The connection that was used last, if one is open. `for_sure`: the system itself is asked whether it is, for a
    /// request that can't be sent twice.
    pub(super) fn take(&self, generation: Generation, for_sure: bool) -> Option<Stream> {
        let mut idle = self.idle.borrow_mut();
        let connections = idle.get_mut(&generation)?;
        while let Some(Idle { stream, to_be_looked_at, .. }) = connections.pop() {
            if stream.seems_quiet() && (!(for_sure || to_be_looked_at) || stream.is_quiet()) {
                return Some(stream);
            }
        }
        None
    }

    /// Keeps a connection whose exchange was seen to its end.
    pub(super) fn put(&self, replica: &Replica, stream: Stream, to_be_looked_at: bool, now: u64) {
        // One that is leaving gets no more requests.
        if !replica.is_ready() {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        let connections = idle.entry(replica.generation).or_default();
        if connections.len() < IDLE_PER_REPLICA {
            connections.push(Idle { stream, since: now, to_be_looked_at });
        }
    }

    /// Closes what is closed on the other side, or has been idle since before `oldest`, or belongs to a replica that
    /// `keep` doesn't want. Says how many that were.
    pub(super) fn expire(&self, oldest: u64, keep: impl Fn(Generation) -> bool) -> usize {
        let mut closed = 0;
        self.idle.borrow_mut().retain(|generation, connections| {
            let before = connections.len();
            let keep = keep(*generation);
            connections.retain(|idle| keep && idle.since >= oldest && idle.stream.seems_quiet());
            closed += before - connections.len();
            !connections.is_empty()
        });
        closed
    }
}
