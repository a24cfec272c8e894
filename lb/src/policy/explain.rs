//! Why a replica is chosen: pickers say what they pass over, to nobody on the hot path, and to an [`Explanation`] when
//! somebody asks.

use std::fmt;
use std::sync::Arc;

use super::PolicyKind;
use crate::replica::{Health, Replica, ReplicaId};

/// Why a replica was passed over.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Why {
    /// It is not in rotation.
    Unready(Health),
    /// It was tried for this request already.
    Tried,
    /// Bounded loads: with one request more it would hold more than its part.
    AtBound {
        /// What it holds.
        in_flight: u32,
        /// The most it may hold now.
        limit: u32,
    },
    /// It holds as many requests as it may before others help.
    Full {
        /// What it holds.
        in_flight: u32,
        /// The most.
        limit: u32,
    },
    /// The other of the two that were drawn has fewer requests in flight for its weight.
    Busier {
        /// What it holds.
        in_flight: u32,
    },
    /// The other of the two that were drawn is expected to answer sooner.
    Slower {
        /// What was expected of it, microseconds; `None` if it has requests and was never measured.
        expected: Option<f32>,
    },
}

impl Why {
    /// One word for it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Unready(Health::Draining) => "draining",
            Self::Unready(_) => "unready",
            Self::Tried => "tried",
            Self::AtBound { .. } => "at bound",
            Self::Full { .. } => "full",
            Self::Busier { .. } => "busier",
            Self::Slower { .. } => "slower",
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())?;
        match self {
            Self::AtBound { in_flight, limit } | Self::Full { in_flight, limit } => {
                write!(f, ": {in_flight} in flight, limit {limit}")
            }
            Self::Busier { in_flight } => write!(f, ": {in_flight} in flight"),
            Self::Slower { expected: Some(micros) } => write!(f, ": expected to take {:.1} ms", micros / 1e3),
            Self::Slower { expected: None } => f.write_str(": not measured yet, and has requests"),
            Self::Unready(_) | Self::Tried => Ok(()),
        }
    }
}

/// A replica that was passed over, and why.
#[derive(Debug, Clone)]
pub struct Passed {
    /// Who.
    pub replica: Arc<Replica>,
    /// Why.
    pub why: Why,
}

/// How a choice came about.
#[derive(Debug, Clone, Default)]
pub struct Explanation {
    /// The key's slot, for a policy that goes by keys and has members.
    pub slot: Option<u32>,
    /// Slots of its ring or table.
    pub slots: Option<u32>,
    /// Who owns that slot, member or not.
    pub owner: Option<ReplicaId>,
    /// Members that were passed over, each once, in order.
    pub passed: Vec<Passed>,
    /// Who was chosen; `None` if nobody can be.
    pub chosen: Option<Arc<Replica>>,
}

/// Hears who is passed over.
pub(super) trait Witness {
    fn passed(&mut self, replica: &Arc<Replica>, why: Why);
}

/// Nobody listens.
impl Witness for () {
    #[inline]
    fn passed(&mut self, _: &Arc<Replica>, _: Why) {}
}

impl Witness for Explanation {
    fn passed(&mut self, replica: &Arc<Replica>, why: Why) {
        if !self.passed.iter().any(|passed| passed.replica.generation == replica.generation) {
            self.passed.push(Passed { replica: Arc::clone(replica), why });
        }
    }
}

impl Explanation {
    /// With this choice. Whoever was passed over at first and chosen in the end, as the best of those that are full, stays
    /// on the list.
    pub(super) fn choose(mut self, chosen: Option<&Arc<Replica>>) -> Self {
        self.chosen = chosen.cloned();
        self
    }

    /// What comes after it was looked at in vain: both lists become one.
    pub(super) fn then(mut self, next: Self) -> Self {
        for Passed { replica, why } in next.passed {
            self.passed(&replica, why);
        }
        Self { chosen: next.chosen, slot: next.slot, slots: next.slots, owner: next.owner, ..self }
    }
}

impl PolicyKind {
    /// What it goes by, for explanations.
    pub fn goes_by(self) -> &'static str {
        match self {
            Self::Consistent | Self::Maglev | Self::Rendezvous => "the key",
            Self::RoundRobin | Self::Priority => "turns",
            Self::Random => "chance",
            Self::LeastRequests => "requests in flight of two drawn by chance",
            Self::PeakEwma => "expected latency of two drawn by chance",
        }
    }
}
