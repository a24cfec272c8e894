//! What the fleet is told, and what it asks for.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::{Listing, Notice, Order, Refusal, Ticket};
use crate::probe::ProbeError;
use crate::replica::{Generation, Health};
use crate::runtime::{Instance, InstanceId, Launch, RuntimeError, RuntimeEvent};

/// What happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// The runtime's list, asked for at `asked`. The first one begins the fleet's life: what it holds is adopted.
    Listed {
        /// When the list was asked for.
        asked: Instant,
        /// What there is.
        instances: Vec<Instance>,
    },
    /// The runtime could not give a list.
    Unlisted,
    /// Result of [`Action::Launch`].
    Launched {
        /// Of which one.
        generation: Generation,
        /// What came of it.
        result: Result<Instance, RuntimeError>,
    },
    /// Result of [`Action::Stop`].
    Stopped {
        /// Of which one.
        generation: Generation,
        /// What came of it.
        result: Result<(), RuntimeError>,
    },
    /// Result of [`Action::Probe`].
    Probed {
        /// Of which one.
        generation: Generation,
        /// The probe's number.
        seq: u64,
        /// What came of it.
        result: Result<(), ProbeError>,
    },
    /// Result of [`Action::Drain`]: it holds no request any more.
    Drained {
        /// Of which one.
        generation: Generation,
    },
    /// Live traffic was refused a connection; the replica is out of rotation already.
    Refused {
        /// By which one.
        generation: Generation,
    },
    /// Live traffic broke off without an answer.
    Broken {
        /// On which one.
        generation: Generation,
    },
    /// The runtime noticed something.
    Runtime(RuntimeEvent),
    /// Somebody wants another N.
    Order {
        /// Whom to answer.
        ticket: Ticket,
        /// What is wanted.
        order: Order,
    },
    /// The balancer stops: nothing is replaced any more, and with `remove` the replicas are stopped.
    Close {
        /// Stop the replicas?
        remove: bool,
    },
    /// The time that [`super::Fleet::deadline`] gave has come.
    Tick,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Start it; answer with [`Event::Launched`].
    Launch(Launch),
    /// Stop it; answer with [`Event::Stopped`].
    Stop {
        /// Whom the answer is about.
        generation: Generation,
        /// The runtime's name for it.
        id: InstanceId,
        /// How long it may take to end by itself.
        grace: Duration,
    },
    /// Ask it for a heartbeat; answer with [`Event::Probed`].
    Probe {
        /// Whom.
        generation: Generation,
        /// Number of the probe.
        seq: u64,
        /// Where it listens.
        addr: SocketAddr,
    },
    /// Publish [`super::Fleet::published`] and [`super::Fleet::places`].
    Publish,
    /// Set the health of a published replica, or of one that was.
    Health {
        /// Whose.
        generation: Generation,
        /// Which.
        health: Health,
    },
    /// Say [`Event::Drained`] when it holds no request.
    Drain {
        /// Whom.
        generation: Generation,
    },
    /// It is gone; forget it.
    Gone {
        /// Who.
        generation: Generation,
    },
    /// Ask the runtime for its list; answer with [`Event::Listed`].
    List,
    /// Answer an order.
    Answer {
        /// Whose.
        ticket: Ticket,
        /// N as it is now, or why nothing has changed.
        answer: Result<Listing, Refusal>,
    },
    /// Tell the operator.
    Report(Notice),
}
