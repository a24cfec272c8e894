//! A worker's idle connections to replicas. Each worker has its own, so no other core ever waits for them.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hyper::client::conn::http1::SendRequest;

use super::body::ReplicaBody;
use crate::replica::{Generation, Replica};

/// Idle connections kept per replica and worker; more are closed.
const IDLE_PER_REPLICA: usize = 256;

pub(super) type Sender = SendRequest<ReplicaBody>;

#[derive(Debug)]
struct Idle {
    sender: Sender,
    /// Tick at which it became idle.
    since: u64,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Connections {
    idle: Mutex<HashMap<Generation, Vec<Idle>>>,
}

impl Connections {
    fn idle(&self) -> MutexGuard<'_, HashMap<Generation, Vec<Idle>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection that was used last, if one is open.
    pub(super) fn take(&self, generation: Generation) -> Option<Sender> {
        let mut idle = self.idle();
        let connections = idle.get_mut(&generation)?;
        while let Some(Idle { sender, .. }) = connections.pop() {
            if !sender.is_closed() {
                return Some(sender);
            }
        }
        None
    }

    /// Keeps a connection whose exchange was seen to its end.
    pub(super) fn put(&self, replica: &Replica, sender: Sender, now: u64) {
        // One that is leaving gets no more requests.
        if sender.is_closed() || !replica.is_ready() {
            return;
        }
        let mut idle = self.idle();
        let connections = idle.entry(replica.generation).or_default();
        if connections.len() < IDLE_PER_REPLICA {
            connections.push(Idle { sender, since: now });
        }
    }

    /// Closes what is closed on the other side, or has been idle since before `oldest`, or belongs to a replica that
    /// `keep` doesn't want. Says how many that were.
    pub(super) fn expire(&self, oldest: u64, keep: impl Fn(Generation) -> bool) -> usize {
        let mut closed = 0;
        self.idle().retain(|generation, connections| {
            let before = connections.len();
            connections.retain(|idle| idle.since >= oldest && !idle.sender.is_closed() && keep(*generation));
            closed += before - connections.len();
            !connections.is_empty()
        });
        closed
    }
}
