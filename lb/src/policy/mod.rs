//! How a replica is chosen for a request.
//!
//! A [`Policy`] lives as long as the balancer and owns what must survive a change of membership (a layout, a cursor). From
//! each new membership it builds a [`Picker`], which is immutable and answers on the hot path. Neither does I/O, reads a
//! clock or draws random numbers: key, time and chance come in with [`PickCx`].
//!
//! | module | policies |
//! |---|---|
//! | `hashed` | `consistent`, `maglev`, `rendezvous`: by the request's key, with bounded loads |
//! | `round_robin` | `round-robin`, `priority`: turns |
//! | `sampled` | `random`, `least-requests`, `peak-ewma`: chance, and the better of two |
//! | `tiers` | priorities, for all of them |
//! | `explain` | why a replica is chosen |

mod explain;
mod hashed;
mod round_robin;
mod sampled;
mod tiers;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

pub use explain::{Explanation, Passed, Why};
pub use hashed::{Layout, layout};
pub use tiers::Spill;

use hashed::Hashed;
use round_robin::RoundRobin;
use sampled::{By, Sampled};
use tiers::Tiered;

use crate::placement::Place;
use crate::placement::maglev::Maglev;
use crate::placement::rendezvous::Rendezvous;
use crate::placement::ring::{Ring, RingConfig};
use crate::replica::{Generation, Replica};

/// What a picker knows of the request.
#[derive(Debug, Clone, Copy, Default)]
pub struct PickCx<'a> {
    /// The request's ID, or the hash of its configured key.
    pub key: u64,
    /// Replicas that were tried for this request already.
    pub tried: &'a [Generation],
    /// Drawn for this choice; used by policies that leave something to chance.
    pub random: u64,
    /// Milliseconds of the pool's clock; used by policies that measure.
    pub now: u64,
    /// Replicas that hold as many requests are passed over. Set by `priority`, which may spill over to others.
    pub limit: Option<u32>,
}

impl PickCx<'_> {
    /// Why `replica` can't be picked now; `Ok` if it can.
    #[inline]
    fn admits(&self, replica: &Replica) -> Result<(), Why> {
        if !replica.is_ready() {
            return Err(Why::Unready(replica.health()));
        }
        if !self.tried.is_empty() && self.tried.contains(&replica.generation) {
            return Err(Why::Tried);
        }
        match self.limit {
            Some(limit) if replica.in_flight() >= limit => Err(Why::Full { in_flight: replica.in_flight(), limit }),
            _ => Ok(()),
        }
    }
}

/// Builds pickers; told of every change of membership, in order.
pub trait Policy: Send + Sync {
    /// Keeps places for these ring numbers, whether or not their replicas are members yet: where a replica sits must not
    /// depend on which of them was ready first. Called before [`Policy::build`]; means nothing to a policy without places.
    fn place(&self, places: &[Place]) {
        let _ = places;
    }

    /// A picker over `members`, called on a change of membership, weight or priority only. Who has weight 0 is never picked.
    fn build(&self, members: Arc<[Arc<Replica>]>) -> Arc<dyn Picker>;

    /// Where keys belong now, for a policy that goes by them.
    fn layout(&self) -> Option<Layout> {
        None
    }

    /// For a policy that goes by latency: how fast a peak fades. Replicas are measured only then.
    fn decay(&self) -> Option<Duration> {
        None
    }
}

/// Chooses; shared by all threads of the data path.
pub trait Picker: Send + Sync {
    /// A ready replica that was not tried yet; `None` only if there is none.
    fn pick(&self, cx: &PickCx<'_>) -> Option<&Arc<Replica>>;

    /// The same choice, with the reasons. It leaves no trace: no turn is taken.
    fn explain(&self, cx: &PickCx<'_>) -> Explanation;
}

/// Which policy, as configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PolicyKind {
    /// The consistent hash ring.
    Consistent,
    /// Maglev's table.
    Maglev,
    /// Highest random weight.
    Rendezvous,
    /// Turns by weight, highest priority first.
    RoundRobin,
    /// The same, with spill-over to the next priority.
    Priority,
    /// Chance by weight.
    Random,
    /// Of two drawn by weight, the one with fewer requests in flight.
    LeastRequests,
    /// Of two drawn by weight, the one that is expected to answer sooner.
    PeakEwma,
}

impl PolicyKind {
    /// All of them, in the order of help.
    pub const ALL: &'static [Self] = &[
        Self::Consistent,
        Self::Maglev,
        Self::Rendezvous,
        Self::RoundRobin,
        Self::Priority,
        Self::Random,
        Self::LeastRequests,
        Self::PeakEwma,
    ];

    /// The words that select a policy, in the order of [`PolicyKind::ALL`].
    pub const WORDS: &'static [&'static str] =
        &["consistent", "maglev", "rendezvous", "round-robin", "priority", "random", "least-requests", "peak-ewma"];

    /// Does the request's key decide?
    pub fn is_hashing(self) -> bool {
        matches!(self, Self::Consistent | Self::Maglev | Self::Rendezvous)
    }
}

impl FromStr for PolicyKind {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let at = Self::WORDS.iter().position(|word| *word == text);
        at.map(|at| Self::ALL[at]).ok_or_else(|| Self::WORDS.join(", "))
    }
}

impl fmt::Display for PolicyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = Self::ALL.iter().position(|kind| kind == self).unwrap_or_default();
        f.write_str(Self::WORDS[at])
    }
}

/// All that the policies may be configured with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PolicyConfig {
    /// Which one.
    pub kind: PolicyKind,
    /// The ring of `consistent`.
    pub ring: RingConfig,
    /// Slots of the tables of `maglev`, for which it is a prime number, and `rendezvous`.
    pub table_slots: u32,
    /// Factor of bounded loads, more than 1, of the hashing ones; `None` turns them off.
    pub bound: Option<f64>,
    /// When `priority` spills over.
    pub spill: Spill,
    /// How fast `peak-ewma` forgets.
    pub decay: Duration,
}

impl Default for PolicyConfig {
    fn default() -> Self {
        Self {
            kind: PolicyKind::Consistent,
            ring: RingConfig::default(),
            table_slots: 65_537,
            bound: Some(1.25),
            spill: Spill::default(),
            decay: Duration::from_secs(10),
        }
    }
}

impl PolicyConfig {
    /// The policy this configures.
    pub fn policy(&self) -> Arc<dyn Policy> {
        match self.kind {
            PolicyKind::Consistent => Tiered::over(Hashed::new(Ring::new(self.ring), self.bound)),
            PolicyKind::Maglev => Tiered::over(Hashed::new(Maglev::new(self.table_slots, &[]), self.bound)),
            PolicyKind::Rendezvous => Tiered::over(Hashed::new(Rendezvous::new(self.table_slots), self.bound)),
            PolicyKind::RoundRobin => Tiered::over(RoundRobin::default()),
            PolicyKind::Priority => Tiered::spilling(RoundRobin::default(), self.spill),
            PolicyKind::Random => Tiered::over(Sampled(By::Chance)),
            PolicyKind::LeastRequests => Tiered::over(Sampled(By::Requests)),
            PolicyKind::PeakEwma => Tiered::over(Sampled(By::Latency(self.decay))),
        }
    }

    /// How many replicas there may be: as many as the ring has numbers for, whether the policy goes by it or not, and not
    /// more than its table has slots.
    pub fn capacity(&self) -> usize {
        match self.kind {
            PolicyKind::Maglev | PolicyKind::Rendezvous => self.ring.capacity().min(self.table_slots as usize),
            _ => self.ring.capacity(),
        }
    }
}

#[cfg(test)]
mod contract;
