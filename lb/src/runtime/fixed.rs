//! The `static` runtime: a fixed list of members that somebody else starts and stops.
//!
//! Its list is the fleet. It launches nothing and never has an event; probes alone tell who is ready.

use std::future::{Ready, ready};
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use futures_util::Stream;

use super::{Instance, InstanceId, Launch, Runtime, RuntimeError, RuntimeEvent};
use crate::replica::{Generation, Hostname, ReplicaId, ReplicaSpec};

/// See the module's documentation.
#[derive(Debug, Clone)]
pub struct Fixed {
    members: Vec<Instance>,
}

impl Fixed {
    /// Members in ring order, numbered from 1.
    pub fn new(members: impl IntoIterator<Item = (Hostname, SocketAddr)>) -> Self {
        let started_at = SystemTime::now();
        let members = (1..)
            .zip(members)
            .map(|(number, (hostname, addr))| Instance {
                spec: ReplicaSpec { id: ReplicaId(number), generation: Generation(u64::from(number)), hostname },
                id: InstanceId(addr.to_string()),
                addr: Some(addr),
                running: true,
                started_at,
                deployed: None,
                promoted: Vec::new(),
                instead_of: None,
            })
            .collect();
        Self { members }
    }
}

impl Runtime for Fixed {
    const HEALS: bool = false;

    fn launch(&self, _: &Launch) -> impl Future<Output = Result<Instance, RuntimeError>> + Send {
        ready(Err(RuntimeError::Failed("the members of the static runtime are fixed".into())))
    }

    fn stop(&self, _: &InstanceId, _: Duration) -> impl Future<Output = Result<(), RuntimeError>> + Send {
        ready(Ok(()))
    }

    fn list(&self) -> impl Future<Output = Result<Vec<Instance>, RuntimeError>> + Send {
        let list: Ready<Result<_, RuntimeError>> = ready(Ok(self.members.clone()));
        list
    }

    fn events(&self) -> impl Stream<Item = RuntimeEvent> + Send + 'static {
        futures_util::stream::pending()
    }
}
