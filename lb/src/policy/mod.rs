//! How a replica is chosen for a request.
//!
//! A [`Policy`] lives as long as the balancer and owns what must survive a change of membership (the ring's layout, later
//! cursors and seeds). From each new membership it builds a [`Picker`], which is immutable and answers on the hot path.
//! Neither does I/O, reads a clock or draws random numbers: the request's key comes in with [`PickCx`].

mod consistent;
mod round_robin;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

pub use consistent::Consistent;
pub use round_robin::RoundRobin;

use crate::replica::{Generation, Replica, ReplicaId};
use crate::ring::{Ring, RingConfig};

/// What a picker knows of the request.
#[derive(Debug, Clone, Copy)]
pub struct PickCx<'a> {
    /// The request's ID, or the hash of its configured key.
    pub key: u64,
    /// Replicas that were tried for this request already.
    pub tried: &'a [Generation],
}

/// Builds pickers; told of every change of membership, in order.
pub trait Policy: Send + Sync {
    /// Keeps places for these ring numbers, whether or not their replicas are members yet: where a replica sits must not
    /// depend on which of them was ready first. Called before [`Policy::build`]; means nothing to a policy without places.
    fn place(&self, ring_numbers: &[ReplicaId]) {
        let _ = ring_numbers;
    }

    /// A picker over `members`, called on a change of membership only.
    fn build(&self, members: Arc<[Arc<Replica>]>) -> Arc<dyn Picker>;

    /// The ring as it is now, for a policy that has one.
    fn ring(&self) -> Option<Ring> {
        None
    }
}

/// Chooses; shared by all threads of the data path.
pub trait Picker: Send + Sync {
    /// A ready replica that was not tried yet; `None` only if there is none.
    fn pick(&self, cx: &PickCx<'_>) -> Option<&Arc<Replica>>;
}

/// Which policy, as configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyKind {
    /// The consistent hash ring.
    Consistent,
    /// Turns by weight, highest priority first.
    RoundRobin,
}

impl PolicyKind {
    /// The words that select a policy.
    pub const WORDS: &'static [&'static str] = &["consistent", "round-robin"];
}

impl FromStr for PolicyKind {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "consistent" => Ok(Self::Consistent),
            "round-robin" => Ok(Self::RoundRobin),
            _ => Err(Self::WORDS.join(", ")),
        }
    }
}

impl fmt::Display for PolicyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Consistent => "consistent",
            Self::RoundRobin => "round-robin",
        })
    }
}

/// All that the policies may be configured with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PolicyConfig {
    /// Which one.
    pub kind: PolicyKind,
    /// The ring of the hashing ones.
    pub ring: RingConfig,
    /// Factor of bounded loads, more than 1; `None` turns them off.
    pub bound: Option<f64>,
}

impl PolicyConfig {
    /// The policy this configures.
    pub fn policy(&self) -> Arc<dyn Policy> {
        match self.kind {
            PolicyKind::Consistent => Arc::new(Consistent::new(self.ring, self.bound)),
            PolicyKind::RoundRobin => Arc::new(RoundRobin::default()),
        }
    }
}

#[cfg(test)]
mod contract;
