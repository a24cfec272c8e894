//! Keeps N replicas alive.
//!
//! [`fleet`] decides, `task` carries out and reports back, and [`SupervisorHandle`] is how everybody else talks to them.
//! The only writer of the pool.

pub mod fleet;
mod log;
mod task;

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

pub use fleet::{Backoff, FleetConfig, Listing, MemberView, Order, Refusal, State};
pub use task::{StartError, Supervisor};

use crate::replica::Replica;

/// Commands that may wait for the supervisor's task.
const COMMANDS: usize = 256;

enum Command {
    Order { order: Order, answer: oneshot::Sender<Result<Listing, Refusal>> },
    Close { remove: bool, done: oneshot::Sender<()> },
}

/// The fleet at one moment.
#[derive(Debug, Default)]
pub struct Status {
    /// N and the host names.
    pub listing: Listing,
    /// Every replica, leaving ones included, oldest first.
    pub members: Vec<MemberStatus>,
    /// Replicas that failed and were replaced since the start.
    pub replaced: u64,
}

/// One replica at that moment.
#[derive(Debug)]
pub struct MemberStatus {
    /// As the fleet sees it.
    pub view: MemberView,
    /// As the data path sees it, once it was published.
    pub replica: Option<Arc<Replica>>,
}

impl Status {
    /// Why not every desired replica is ready; `None` if they all are.
    pub fn unready_reason(&self) -> Option<String> {
        let desired = || self.members.iter().filter(|member| member.view.desired);
        let unready: Vec<_> = desired().filter(|member| !member.is_ready()).collect();
        if unready.is_empty() {
            return None;
        }
        let who = unready.iter().map(|member| {
            let MemberView { spec, state, last_error, .. } = &member.view;
            let state = if *state == State::Ready { State::Unready } else { *state };
            let why = last_error.as_ref().map(|error| format!(" ({error})")).unwrap_or_default();
            format!("{} is {state}{why}", spec.hostname)
        });
        let who = who.collect::<Vec<_>>().join("; ");
        Some(format!("{} of {} replicas are ready: {who}", desired().count() - unready.len(), self.listing.n))
    }
}

impl MemberStatus {
    /// In rotation, by the fleet's word and the data path's?
    pub fn is_ready(&self) -> bool {
        self.view.state == State::Ready && self.replica.as_ref().is_some_and(|replica| replica.is_ready())
    }
}

/// Talks to the supervisor; cheap to clone.
#[derive(Debug, Clone)]
pub struct SupervisorHandle {
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<Arc<Status>>,
}

impl SupervisorHandle {
    /// The fleet as it is now.
    pub fn status(&self) -> Arc<Status> {
        Arc::clone(&self.status.borrow())
    }

    /// Has `order` carried out; the answer comes when it is done or was refused.
    pub async fn order(&self, order: Order) -> Result<Listing, Refusal> {
        let (answer, answered) = oneshot::channel();
        self.commands.try_send(Command::Order { order, answer }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Refusal::Busy,
            mpsc::error::TrySendError::Closed(_) => Refusal::Closing,
        })?;
        answered.await.unwrap_or(Err(Refusal::Closing))
    }

    /// Ends the supervisor; with `remove`, when all replicas are gone or their time is over.
    pub async fn close(&self, remove: bool) {
        let (done, closed) = oneshot::channel();
        if self.commands.send(Command::Close { remove, done }).await.is_ok() {
            let _ = closed.await;
        }
    }
}
