//! What starts and stops replicas.
//!
//! One trait, and one module for each kind of runtime. A runtime does as it is told and reports what it sees; it does not
//! decide, keep count of N, or probe.

pub mod docker;
pub mod fake;
pub mod fixed;
pub mod process;
pub mod remote;
mod template;
mod usage;

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use futures_util::Stream;
use tokio::sync::broadcast;

pub use template::{Deployed, Launch, Template};
pub use usage::{Measured, Usage};

use crate::replica::{Generation, ReplicaId, ReplicaSpec};

/// The runtime's own name for an instance: a container ID, a process ID.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId(pub String);

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A replica as its runtime knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// What it was launched as.
    pub spec: ReplicaSpec,
    /// The runtime's name for it.
    pub id: InstanceId,
    /// Where it listens; `None` if it has no address (any more).
    pub addr: Option<SocketAddr>,
    /// False for one that has ended and was not removed yet.
    pub running: bool,
    /// When it was started.
    pub started_at: SystemTime,
    /// What it was started from, if a rolling update said so.
    pub deployed: Option<Box<Deployed>>,
    /// What [`Launch::promoted`] was at its launch, where that is kept.
    pub promoted: Vec<(Generation, ReplicaId)>,
    /// What [`Launch::instead_of`] was at its launch, where that is kept.
    pub instead_of: Option<Generation>,
}

/// What a runtime noticed by itself; faster than any probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuntimeEvent {
    /// It has ended.
    Died {
        /// Which one.
        generation: Generation,
        /// Why, for the log.
        reason: String,
    },
    /// Somebody else told it to end: it may still answer, but not for long.
    Doomed {
        /// Which one.
        generation: Generation,
        /// Why, for the log.
        reason: String,
    },
    /// It is frozen and can't answer.
    Paused {
        /// Which one.
        generation: Generation,
    },
    /// Something happened after which it should be probed at once (it went on after a pause; ran out of memory).
    Doubtful {
        /// Which one.
        generation: Generation,
        /// Why, for the log.
        reason: String,
    },
    /// Events may have been missed: compare with a list.
    Resync,
    /// What the agent says there is; only from a runtime that follows one.
    Members(remote::Membership),
    /// The agent can't be heard, and why.
    Detached(String),
}

/// Why a runtime could not do as told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuntimeError {
    /// The host name belongs to something that is not of this fleet.
    #[error("the name '{0}' is taken by something that is not of this fleet")]
    NameTaken(String),
    /// Anything else, in the runtime's words.
    #[error("{0}")]
    Failed(String),
}

/// Starts and stops replicas.
pub trait Runtime: Send + Sync + 'static {
    /// False for a runtime with a fixed membership: nothing is started, stopped or replaced.
    const HEALS: bool;

    /// True for a runtime whose members an agent elsewhere starts, stops and replaces.
    const FOLLOWS: bool = false;

    /// Starts a replica; done when it has an address, not when it answers. Leaves nothing behind if it fails.
    fn launch(&self, launch: &Launch) -> impl Future<Output = Result<Instance, RuntimeError>> + Send;

    /// Ends and removes a replica: politely first, by force after `grace`. One that is gone already is fine.
    fn stop(&self, id: &InstanceId, grace: Duration) -> impl Future<Output = Result<(), RuntimeError>> + Send;

    /// All replicas of the fleet, ended ones included.
    fn list(&self) -> impl Future<Output = Result<Vec<Instance>, RuntimeError>> + Send;

    /// What the replicas use of the machine, measured about once a second for as long as somebody listens. A runtime that
    /// can't tell has nothing to say.
    fn usage(&self) -> impl Stream<Item = Measured> + Send + 'static {
        futures_util::stream::pending()
    }

    /// Events as they come. The stream never ends; it reconnects by itself and says [`RuntimeEvent::Resync`] afterwards.
    fn events(&self) -> impl Stream<Item = RuntimeEvent> + Send + 'static;
}

/// A runtime's own broadcast as a stream that never ends; what was missed is a [`RuntimeEvent::Resync`].
fn subscription(events: broadcast::Receiver<RuntimeEvent>) -> impl Stream<Item = RuntimeEvent> + Send + 'static {
    futures_util::stream::unfold(events, |mut events| async move {
        let event = match events.recv().await {
            Ok(event) => event,
            Err(broadcast::error::RecvError::Lagged(_)) => RuntimeEvent::Resync,
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        };
        Some((event, events))
    })
}
