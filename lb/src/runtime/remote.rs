//! The `agent` runtime: replicas that a deployment agent starts, stops and replaces, and tells of.
//!
//! Its events are what the agent says; who hears it is not decided here. It launches and stops nothing.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::Stream;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::{Instance, InstanceId, Launch, Runtime, RuntimeError, RuntimeEvent};
use crate::replica::{Generation, Hostname, ReplicaId, ReplicaSpec, Share};

/// Memberships that the supervisor may be behind with; whoever hears the agent waits.
const EVENTS: usize = 16;

/// Where the agent says that a replica stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Not answering yet. It has its place on the ring.
    Starting,
    /// In rotation.
    Ready,
    /// Out of rotation until it answers.
    Unready,
    /// Out of rotation, and not expected to answer.
    Lost,
    /// Leaving: takes no new request.
    Draining,
}

/// One replica as the agent tells of it. A whole entry replaces an older one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteMember {
    /// Which launch it is.
    pub generation: Generation,
    /// Ring number.
    pub id: ReplicaId,
    /// Its name.
    pub hostname: Hostname,
    /// Where it listens, once it was launched.
    pub addr: Option<SocketAddr>,
    /// The runtime's name for it, once it was launched.
    pub runtime_id: Option<String>,
    /// Where it stands.
    pub state: Standing,
    /// Counted in N?
    pub desired: bool,
    /// Waits to take over for one that fails?
    #[serde(default)]
    pub spare: bool,
    /// Its weight and priority.
    pub share: Share,
    /// Place in the list of replicas.
    pub order: u64,
    /// Milliseconds since 1970, once it was launched.
    pub started_at: Option<u64>,
    /// Failures in a row that led to this launch.
    #[serde(default)]
    pub crashes: u32,
    /// Milliseconds since 1970, while its launch is put off because of these.
    #[serde(default)]
    pub launch_at: Option<u64>,
    /// The last thing that went wrong with it or its predecessor.
    #[serde(default)]
    pub last_error: Option<String>,
}

impl RemoteMember {
    /// Its ring number, generation and host name.
    pub fn spec(&self) -> ReplicaSpec {
        ReplicaSpec { id: self.id, generation: self.generation, hostname: self.hostname.clone() }
    }
}

/// All that the agent tells of, by generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// Which run of the agent says so.
    pub instance: Arc<str>,
    /// Which of that run's states this is.
    pub epoch: u64,
    /// The replicas.
    pub members: Arc<[RemoteMember]>,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Remote {
    events: Mutex<Option<mpsc::Receiver<RuntimeEvent>>>,
}

impl Remote {
    /// A runtime, and where its events go in.
    pub fn new() -> (Self, mpsc::Sender<RuntimeEvent>) {
        let (sender, events) = mpsc::channel(EVENTS);
        (Self { events: Mutex::new(Some(events)) }, sender)
    }
}

impl Runtime for Remote {
    const HEALS: bool = false;
    const FOLLOWS: bool = true;

    async fn launch(&self, _: &Launch) -> Result<Instance, RuntimeError> {
        Err(RuntimeError::Failed("replicas are started by the agent".into()))
    }

    async fn stop(&self, _: &InstanceId, _: Duration) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn list(&self) -> Result<Vec<Instance>, RuntimeError> {
        Ok(Vec::new())
    }

    /// The first who asks gets them.
    fn events(&self) -> impl Stream<Item = RuntimeEvent> + Send + 'static {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner).take();
        futures_util::stream::unfold(events, |events| async move {
            let mut events = events?;
            match events.recv().await {
                Some(event) => Some((event, Some(events))),
                // Nobody hears the agent any more: the balancer ends.
                None => std::future::pending().await,
            }
        })
    }
}
