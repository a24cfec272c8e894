//! A runtime for tests: every launch gives an address that the test chose, and nothing is really started.
//!
//! Its counters and switches are shared by clones, so a test keeps one and gives one away.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::Stream;
use tokio::sync::broadcast;

use super::{Instance, InstanceId, Launch, Runtime, RuntimeError, RuntimeEvent};
use crate::replica::Generation;

/// Events that a slow test may leave unread.
const EVENTS: usize = 1024;

/// See the module's documentation.
#[derive(Debug, Clone)]
pub struct Fake {
    addr: SocketAddr,
    state: Arc<Mutex<State>>,
    events: broadcast::Sender<RuntimeEvent>,
}

#[derive(Debug, Default)]
struct State {
    alive: BTreeMap<Generation, Instance>,
    refusal: Option<RuntimeError>,
    launches: u64,
}

impl Fake {
    /// A runtime whose replicas all listen on `addr`.
    pub fn new(addr: SocketAddr) -> Self {
        Self { addr, state: Arc::default(), events: broadcast::channel(EVENTS).0 }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes every launch from now on fail with `refusal`, or none with `None`.
    pub fn refuse(&self, refusal: Option<RuntimeError>) {
        self.state().refusal = refusal;
    }

    /// Lets a replica die by itself.
    pub fn kill(&self, generation: Generation) {
        self.state().alive.remove(&generation);
        self.report(RuntimeEvent::Died { generation, reason: "killed by the test".into() });
    }

    /// Reports `event` as the runtime's own.
    pub fn report(&self, event: RuntimeEvent) {
        let _ = self.events.send(event);
    }

    /// Those that live.
    pub fn alive(&self) -> Vec<Instance> {
        self.state().alive.values().cloned().collect()
    }

    /// Launches asked for so far.
    pub fn launches(&self) -> u64 {
        self.state().launches
    }
}

impl Runtime for Fake {
    const HEALS: bool = true;

    async fn launch(&self, Launch { spec, .. }: &Launch) -> Result<Instance, RuntimeError> {
        let mut state = self.state();
        state.launches += 1;
        if let Some(refusal) = &state.refusal {
            return Err(refusal.clone());
        }
        let instance = Instance {
            spec: spec.clone(),
            id: InstanceId(format!("fake-{}", spec.generation)),
            addr: Some(self.addr),
            running: true,
            started_at: SystemTime::now(),
            deployed: None,
            promoted: Vec::new(),
            instead_of: None,
        };
        state.alive.insert(spec.generation, instance.clone());
        Ok(instance)
    }

    async fn stop(&self, id: &InstanceId, _grace: Duration) -> Result<(), RuntimeError> {
        self.state().alive.retain(|_, instance| instance.id != *id);
        Ok(())
    }

    async fn list(&self) -> Result<Vec<Instance>, RuntimeError> {
        Ok(self.alive())
    }

    fn events(&self) -> impl Stream<Item = RuntimeEvent> + Send + 'static {
        super::subscription(self.events.subscribe())
    }
}
