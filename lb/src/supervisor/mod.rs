//! Keeps N replicas alive.
//!
//! [`fleet`] decides (or [`follower`], where an agent elsewhere does), `task` carries out and reports back, and [`SupervisorHandle`] is how everybody else talks to them.
//! The only writer of the pool.

pub mod fleet;
pub mod follower;
mod log;
mod mind;
mod task;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};

pub use fleet::{
    Backoff, Change, FleetConfig, Listing, MemberView, Order, Progress, Refusal, RefusalKind, Rollout, State,
};
pub use task::{StartError, Supervisor};

use crate::replica::{Generation, Replica};

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
    /// How the last rolling update stands, if there was one.
    pub progress: Option<Progress>,
    /// Under way is an `/add` or a rolling update.
    pub busy: bool,
    /// What is heard of the agent, if there is one to follow.
    pub link: Option<LinkStatus>,
}

/// What a balancer knows of the agent that it follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkStatus {
    /// Which run of the agent has told it.
    pub instance: Arc<str>,
    /// Which of that run's states is served; 0 before the first.
    pub epoch: u64,
    /// Why the agent can't be heard; `None` while it is.
    pub detached: Option<String>,
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
        if let Some(LinkStatus { epoch: 0, detached: Some(reason), .. }) = &self.link {
            return Some(format!("the agent has not told yet which replicas there are ({reason})"));
        }
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

/// Knows who still holds requests on a replica that leaves.
pub trait Holders: Send + Sync {
    /// Returns once nobody does, or will.
    fn released(&self, generation: Generation) -> BoxFuture<'static, ()>;
}

/// Carries orders out that are not this process' own business: a deployment agent's, as seen from a balancer.
pub trait Forward: Send + Sync {
    /// Has `order` carried out.
    fn order(&self, order: Order) -> BoxFuture<'_, Result<Listing, Refusal>>;

    /// Asks for what only the other side knows.
    fn ask(&self, question: Question) -> BoxFuture<'_, Result<Value, Refusal>>;
}

/// What the agent can be asked for, besides what it tells by itself. Answers are JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// The last decisions.
    Decisions,
    /// How the last rolling update stands.
    Deployment,
}

/// Talks to the supervisor; cheap to clone.
#[derive(Clone)]
pub struct SupervisorHandle {
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<Arc<Status>>,
    forward: Option<Arc<dyn Forward>>,
}

impl std::fmt::Debug for SupervisorHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SupervisorHandle").field("forwards", &self.forward.is_some()).finish_non_exhaustive()
    }
}

impl SupervisorHandle {
    /// The fleet as it is now.
    pub fn status(&self) -> Arc<Status> {
        Arc::clone(&self.status.borrow())
    }

    /// The same, but orders go elsewhere.
    #[must_use]
    pub fn forwarding(self, forward: Arc<dyn Forward>) -> Self {
        Self { forward: Some(forward), ..self }
    }

    /// Who carries orders out, if it is not the supervisor.
    pub fn forward(&self) -> Option<&Arc<dyn Forward>> {
        self.forward.as_ref()
    }

    /// Returns when there is a status that was not seen at the last call.
    pub async fn changed(&mut self) {
        if self.status.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Has `order` carried out; the answer comes when it is done or was refused.
    pub async fn order(&self, order: Order) -> Result<Listing, Refusal> {
        if let Some(forward) = &self.forward {
            return forward.order(order).await;
        }
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
