//! One core's share of the relay: the ports that it serves, on the thread and runtime of the worker.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::time::{Instant, MissedTickBehavior};

use super::port::{Bound, Opening, Seat};
use super::{RelayConfig, tcp, udp};
use crate::net::buffers::Buffers;
use crate::net::datagrams::Batch;
use crate::shutdown::Shutdown;
use crate::watchdog::{TICK, Watchdog, ticks};

/// Ticks between two looks at what is idle.
const SWEEP: u64 = 10;
/// Once this many connections have ended, and no more do, their memory is given back.
const BURST: u64 = 128;

/// What the workers keep together.
#[derive(Debug, Clone, Default)]
pub struct Common {
    connections: Arc<AtomicI64>,
    flows: Arc<AtomicUsize>,
}

/// Deadlines in ticks.
#[derive(Debug)]
pub(super) struct Ticks {
    pub(super) connect: u64,
    pub(super) idle: u64,
    pub(super) flow_idle: u64,
}

/// What a worker's relay tasks share; only its own thread touches it.
pub(super) struct Worker {
    pub(super) at: usize,
    pub(super) config: Arc<RelayConfig>,
    pub(super) watchdog: Rc<Watchdog>,
    pub(super) buffers: Buffers,
    pub(super) batch: RefCell<Batch>,
    pub(super) ticks: Ticks,
    /// Of all ports on all workers.
    pub(super) flows: Arc<AtomicUsize>,
    connections: Arc<AtomicI64>,
    /// Of this one.
    sessions: Cell<usize>,
    ended: Cell<u64>,
    warned: Cell<u64>,
    rng: RefCell<SmallRng>,
}

impl Worker {
    /// May another connection be accepted?
    pub(super) fn has_room(&self) -> bool {
        self.connections.load(Ordering::Relaxed) < self.config.max_connections
    }

    /// Chance, for a choice.
    #[inline]
    pub(super) fn random(&self) -> u64 {
        self.rng.borrow_mut().next_u64()
    }

    /// Says what can't be had, once a second at most.
    pub(super) fn warn(&self, what: impl FnOnce()) {
        let second = self.watchdog.now() / 20 + 1;
        if self.warned.replace(second) != second {
            what();
        }
    }
}

/// A connection that is relayed; until dropped.
pub(super) struct Session(Rc<Worker>);

impl Session {
    pub(super) fn begin(worker: &Rc<Worker>) -> Self {
        worker.connections.fetch_add(1, Ordering::Relaxed);
        worker.sessions.set(worker.sessions.get() + 1);
        Self(Rc::clone(worker))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
        self.0.sessions.set(self.0.sessions.get() - 1);
        self.0.ended.set(self.0.ended.get() + 1);
    }
}

/// Serves the ports that come to this seat, until shutdown has begun and connections are done or late.
pub async fn serve(mut seat: Seat, config: Arc<RelayConfig>, common: Common, seed: u64, shutdown: Shutdown) {
    let ticks = Ticks {
        connect: ticks(config.connect_timeout),
        idle: ticks(config.idle_timeout),
        flow_idle: ticks(config.flow_idle),
    };
    let worker = Rc::new(Worker {
        at: seat.at,
        config,
        watchdog: Rc::default(),
        buffers: Buffers::default(),
        batch: RefCell::default(),
        ticks,
        flows: common.flows,
        connections: common.connections,
        sessions: Cell::new(0),
        ended: Cell::new(0),
        warned: Cell::new(0),
        rng: RefCell::new(SmallRng::seed_from_u64(seed)),
    });
    let house = tokio::task::spawn_local(keep_house(Rc::clone(&worker)));
    let begun = shutdown.begun();
    tokio::pin!(begun);
    loop {
        tokio::select! {
            Some(opening) = seat.openings.recv() => {
                let (worker, shutdown) = (Rc::clone(&worker), shutdown.clone());
                tokio::task::spawn_local(open(worker, opening, shutdown));
            }
            () = &mut begun => break,
        }
    }
    // Nothing is opened any more.
    drop(seat);
    // Ports close by themselves; whoever has connected by now is served. Their sessions may just be beginning.
    tokio::time::sleep(TICK).await;
    let deadline = Instant::now() + worker.config.drain_timeout;
    let mut tick = tokio::time::interval(TICK / 5);
    while worker.sessions.get() > 0 && Instant::now() < deadline {
        tick.tick().await;
    }
    house.abort();
}

async fn open(worker: Rc<Worker>, opening: Opening, shutdown: Shutdown) {
    let Opening { port, bound, pool, closing, open } = opening;
    let key = port.key;
    let served = match bound {
        Bound::Tcp(listener) => tcp::serve(worker, port, listener, pool, closing, shutdown).await,
        Bound::Udp(socket) => udp::serve(worker, port, socket, pool, closing, shutdown).await,
    };
    if let Err(error) = served {
        tracing::error!(relay = %key, "{key} can't be served by a worker: {error}");
    }
    drop(open);
}

/// Moves the worker's clock, and looks after what waits and what is idle.
async fn keep_house(worker: Rc<Worker>) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut seen = 0;
    loop {
        tick.tick().await;
        worker.watchdog.tick();
        worker.watchdog.abandon_lost();
        if worker.watchdog.now().is_multiple_of(SWEEP) {
            worker.buffers.shrink();
            let ended = worker.ended.get();
            if ended >= BURST && ended == seen {
                worker.ended.set(0);
                crate::memory::give_back();
            }
            seen = worker.ended.get();
        }
    }
}
