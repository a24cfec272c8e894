//! Priorities, for every policy: the replicas of the highest priority that has ready ones are chosen from.
//!
//! For `priority` the next priority's replicas help before that: once a share of a priority's replicas is not ready, or all
//! of them hold as many requests as they may. Members of weight 0 are left out here, so no policy ever sees one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::explain::Explanation;
use super::{Layout, PickCx, Picker, Policy};
use crate::placement::Place;
use crate::replica::Replica;

/// When the next priority's replicas help.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spill {
    /// Once so much of a priority's replicas is not ready, above 0 to 1; 1 for all of them.
    pub share: f64,
    /// Once all of them that are ready hold so many requests each.
    pub in_flight: Option<u32>,
}

impl Default for Spill {
    fn default() -> Self {
        Self { share: 1.0, in_flight: None }
    }
}

/// Whom a picker chooses from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// All members that have a weight.
    Whole,
    /// Those of one priority.
    Tier,
}

/// A policy but for priorities.
pub(super) trait Kind: Send + Sync + 'static {
    /// As [`Policy::place`].
    fn place(&self, places: &[Place]) {
        let _ = places;
    }

    /// A picker over `members`, each of which has a weight. Their priorities do not matter.
    fn build(&self, members: Arc<[Arc<Replica>]>, scope: Scope) -> Arc<dyn Picker>;

    /// As [`Policy::layout`].
    fn layout(&self) -> Option<Layout> {
        None
    }

    /// As [`Policy::decay`].
    fn decay(&self) -> Option<Duration> {
        None
    }
}

/// A policy with priorities.
pub(super) struct Tiered<K> {
    kind: K,
    spill: Option<Spill>,
    /// Of the whole fleet: one that is being replaced is no member, but its tier is short of it.
    places: Mutex<Vec<Place>>,
}

impl<K: Kind> Tiered<K> {
    pub(super) fn over(kind: K) -> Arc<dyn Policy> {
        Arc::new(Self { kind, spill: None, places: Mutex::default() })
    }

    fn held(&self) -> MutexGuard<'_, Vec<Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn spilling(kind: K, spill: Spill) -> Arc<dyn Policy> {
        Arc::new(Self { kind, spill: Some(spill), places: Mutex::default() })
    }
}

impl<K: Kind> Policy for Tiered<K> {
    fn place(&self, places: &[Place]) {
        self.kind.place(places);
        if self.spill.is_some() {
            *self.held() = places.iter().copied().filter(|place| place.weight > 0).collect();
        }
    }

    fn build(&self, members: Arc<[Arc<Replica>]>) -> Arc<dyn Picker> {
        let weighted: Arc<[Arc<Replica>]> = match members.iter().all(|member| member.weight() > 0) {
            true => members,
            false => members.iter().filter(|member| member.weight() > 0).cloned().collect(),
        };
        let mut priorities: Vec<u16> = weighted.iter().map(|member| member.priority()).collect();
        priorities.sort_unstable();
        priorities.dedup();
        if priorities.len() <= 1 {
            return self.kind.build(weighted, Scope::Whole);
        }
        let of = |choose: &dyn Fn(u16) -> bool| -> Arc<[Arc<Replica>]> {
            weighted.iter().filter(|member| choose(member.priority())).cloned().collect()
        };
        let places = self.held();
        let tiers = priorities.iter().rev().map(|priority| Tier {
            members: of(&|other| other == *priority),
            places: places.iter().filter(|place| place.priority == *priority).count(),
            // One that helps does not take over: they take turns together.
            picker: match self.spill {
                Some(_) => self.kind.build(of(&|other| other >= *priority), Scope::Tier),
                None => self.kind.build(of(&|other| other == *priority), Scope::Tier),
            },
            ready: AtomicU64::new(0),
        });
        Arc::new(Tiers { tiers: tiers.collect(), spill: self.spill.unwrap_or_default() })
    }

    fn layout(&self) -> Option<Layout> {
        self.kind.layout()
    }

    fn decay(&self) -> Option<Duration> {
        self.kind.decay()
    }
}

struct Tier {
    members: Arc<[Arc<Replica>]>,
    /// How many it would have if all of them were members.
    places: usize,
    picker: Arc<dyn Picker>,
    /// How many of the members are ready, and after how many changes of the pool that was counted: + 1, so that 0 is none.
    ready: AtomicU64,
}

impl Tier {
    /// Is so much of it not ready that others must help?
    fn needs_help(&self, share: f64) -> bool {
        if share >= 1.0 {
            // Nobody is ready then, and nobody will be picked.
            return false;
        }
        let Some(first) = self.members.first() else { return true };
        let changes = u64::from(first.pool_load().changes().wrapping_add(1));
        let cached = self.ready.load(Ordering::Relaxed);
        let ready = if cached >> 32 == changes && changes != 0 {
            cached as u32
        } else {
            let ready = self.members.iter().filter(|member| member.is_ready()).count() as u32;
            self.ready.store(changes << 32 | u64::from(ready), Ordering::Relaxed);
            ready
        };
        let all = self.places.max(self.members.len()) as f64;
        // A tenth of a replica more or less is only a rounding error.
        (all - f64::from(ready)) / all >= share - 1e-9
    }
}

/// Tiers by priority, the highest first.
struct Tiers {
    tiers: Box<[Tier]>,
    spill: Spill,
}

impl Tiers {
    /// The tiers in the order in which they are asked, and the limit that holds then.
    fn order<'s, 'c>(&'s self, cx: &PickCx<'c>) -> impl Iterator<Item = (&'s Tier, PickCx<'c>)> {
        let unlimited = PickCx { limit: None, ..*cx };
        let limited = PickCx { limit: self.spill.in_flight, ..*cx };
        let eager = self.tiers.iter().filter(|tier| !tier.needs_help(self.spill.share));
        let eager = eager.map(move |tier| (tier, limited));
        // If nobody is left who has room, better the highest than none.
        let has_more = self.spill.share < 1.0 || self.spill.in_flight.is_some();
        eager.chain(self.tiers.iter().filter(move |_| has_more).map(move |tier| (tier, unlimited)))
    }
}

impl Picker for Tiers {
    fn pick(&self, cx: &PickCx<'_>) -> Option<&Arc<Replica>> {
        self.order(cx).find_map(|(tier, cx)| tier.picker.pick(&cx))
    }

    fn explain(&self, cx: &PickCx<'_>) -> Explanation {
        let mut all = Explanation::default();
        for (tier, cx) in self.order(cx) {
            all = all.then(tier.picker.explain(&cx));
            if all.chosen.is_some() {
                break;
            }
        }
        all
    }
}

#[cfg(test)]
mod tests;
