//! The consistent hash ring as a policy, with bounded loads.
//!
//! The ring holds every member, ready or not, and unready ones are skipped by walking on: a replica that flaps moves its
//! own keys and no others. With bounded loads a replica whose requests in flight would exceed
//! `ceil(c × (in flight + 1) / ready replicas)` passes the request on clockwise (V. Mirrokni, M. Thorup, M. Zadimoghaddam,
//! "Consistent Hashing with Bounded Loads", arXiv 1608.01350).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{PickCx, Picker, Policy};
use crate::replica::{Replica, ReplicaId};
use crate::ring::{Ring, RingConfig, RingTable};

/// See the module's documentation.
#[derive(Debug)]
pub struct Consistent {
    bound: Option<f64>,
    places: Mutex<Places>,
}

/// The ring's layout depends on its history, so the history is kept here.
#[derive(Debug)]
struct Places {
    ring: Ring,
    /// Ring numbers on it.
    held: BTreeSet<u32>,
}

impl Places {
    /// Puts just these numbers on the ring, new ones in ascending order.
    fn hold(&mut self, wanted: BTreeSet<u32>) {
        for gone in self.held.difference(&wanted) {
            self.ring.remove(*gone);
        }
        for new in wanted.difference(&self.held) {
            // The fleet never holds more replicas than the ring's capacity.
            let fits = self.ring.insert(*new);
            debug_assert!(fits.is_ok(), "replica {new} does not fit on the ring");
        }
        self.held = wanted;
    }
}

impl Consistent {
    /// An empty ring; `bound` is the factor of bounded loads.
    pub fn new(ring: RingConfig, bound: Option<f64>) -> Self {
        Self { bound, places: Mutex::new(Places { ring: Ring::new(ring), held: BTreeSet::new() }) }
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Stands on the table for a ring number without a member.
const NOBODY: u32 = u32::MAX;

impl Policy for Consistent {
    fn place(&self, ring_numbers: &[ReplicaId]) {
        self.places().hold(ring_numbers.iter().map(|id| id.0).collect());
    }

    fn build(&self, members: Arc<[Arc<Replica>]>) -> Arc<dyn Picker> {
        let index: BTreeMap<u32, u32> = members.iter().zip(0..).map(|(member, at)| (member.id.0, at)).collect();
        let mut places = self.places();
        if !index.keys().all(|id| places.held.contains(id)) {
            places.hold(index.keys().copied().collect());
        }
        let table = places.ring.freeze(|id| index.get(&id).copied().unwrap_or(NOBODY));
        Arc::new(RingPicker { bound: self.bound, table, members })
    }

    fn ring(&self) -> Option<Ring> {
        Some(self.places().ring.clone())
    }
}

struct RingPicker {
    bound: Option<f64>,
    table: RingTable,
    members: Arc<[Arc<Replica>]>,
}

impl Picker for RingPicker {
    #[inline]
    fn pick(&self, cx: &PickCx<'_>) -> Option<&Arc<Replica>> {
        // Without a bound nearly every request ends here.
        if self.bound.is_none() && cx.tried.is_empty() {
            let owner = self.table.owner(cx.key).and_then(|at| self.members.get(at as usize));
            if let Some(owner) = owner.filter(|owner| owner.is_ready()) {
                return Some(owner);
            }
        }
        let mut limit = None;
        let (mut full, mut newcomer) = (None, None);
        for at in self.table.walk(cx.key) {
            let Some(replica) = self.members.get(at as usize) else { continue };
            if !replica.is_ready() || cx.tried.contains(&replica.generation) {
                continue;
            }
            let Some(bound) = self.bound else { return Some(replica) };
            let limit = *limit.get_or_insert_with(|| {
                let load = replica.pool_load();
                limit_of(bound, load.in_flight(), load.ready())
            });
            let (own_limit, fallback) = match replica.ramp() {
                None => (limit, &mut full),
                Some(part) => (((f64::from(limit) * part).ceil() as u32).max(1), &mut newcomer),
            };
            if replica.in_flight() < own_limit {
                return Some(replica);
            }
            fallback.get_or_insert(replica);
        }
        // All are full only if counts changed during the walk, or if the others were tried, or while a newcomer takes less
        // than its part: better the first than none, and better any other than the newcomer.
        full.or(newcomer)
    }
}

/// The most requests one replica may hold while the pool holds `in_flight` and one more arrives.
fn limit_of(bound: f64, in_flight: u32, ready: u32) -> u32 {
    (bound * (f64::from(in_flight) + 1.0) / f64::from(ready.max(1))).ceil() as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::contract::members;
    use crate::ring::{REQUEST_IDS, RingHash};
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    #[test]
    fn the_limit_is_the_contracts() {
        // ceil(1.25 × (in-flight + 1) / ready)
        assert_eq!(limit_of(1.25, 0, 3), 1);
        assert_eq!(limit_of(1.25, 4, 3), 3);
        assert_eq!(limit_of(1.25, 99, 3), 42);
        assert_eq!(limit_of(1.25, 0, 0), 2);
    }

    /// Serves 10,000 requests with 100 in flight at any time, and gives max/mean of what each replica got.
    fn spread(bound: Option<f64>) -> f64 {
        let members = members(3);
        let picker = Consistent::new(RingConfig::default(), bound).build(Arc::clone(&members));
        let mut rng = StdRng::seed_from_u64(7);
        let mut in_flight: Vec<Arc<Replica>> = Vec::new();
        let mut counts = [0_u32; 3];
        for _ in 0..10_000 {
            if in_flight.len() == 100 {
                in_flight.swap_remove(rng.random_range(0..100)).leave();
            }
            let replica = picker.pick(&PickCx { key: rng.random_range(REQUEST_IDS), tried: &[] }).unwrap();
            assert!(replica.enter());
            counts[replica.id.0 as usize - 1] += 1;
            in_flight.push(Arc::clone(replica));
        }
        f64::from(*counts.iter().max().unwrap()) * 3.0 / 10_000.0
    }

    #[test]
    fn bounded_loads_even_out_the_assignments_ring() {
        // The bare ring gives one replica 84.4 % of the keys. A bound of c lets no replica hold more than c times its part
        // of the 100 in flight, so what it gets stays near c as well.
        assert!((2.45..2.60).contains(&spread(None)), "{}", spread(None));
        assert!(spread(Some(1.25)) <= 1.30, "{}", spread(Some(1.25)));
        assert!(spread(Some(1.1)) <= 1.15, "{}", spread(Some(1.1)));
    }

    #[test]
    fn a_full_replica_passes_on_and_the_last_one_takes_it_all_the_same() {
        let members = members(3);
        let picker = Consistent::new(RingConfig::default(), Some(1.25)).build(Arc::clone(&members));
        let key = 132_574;
        let first = picker.pick(&PickCx { key, tried: &[] }).unwrap();
        assert!(first.enter());
        // One in flight: ceil(1.25 × 2 / 3) = 1, so the first is full now.
        let second = picker.pick(&PickCx { key, tried: &[] }).unwrap();
        assert_ne!(second.id, first.id);
        // Both others tried: the full one is better than none.
        let tried: Vec<_> =
            members.iter().filter(|member| member.id != first.id).map(|member| member.generation).collect();
        assert_eq!(picker.pick(&PickCx { key, tried: &tried }).unwrap().id, first.id);
    }

    #[test]
    fn a_newcomer_holds_its_part_and_the_others_the_rest() {
        let members = members(2);
        let picker = Consistent::new(RingConfig::default(), Some(1.25)).build(Arc::clone(&members));
        let held = |ramp: f64| {
            members[1].set_ramp(ramp);
            for key in 0..40 {
                assert!(picker.pick(&PickCx { key: key * 7919, tried: &[] }).unwrap().enter());
            }
            let held = members[1].in_flight();
            for member in members.iter() {
                (0..member.in_flight()).for_each(|_| member.leave());
            }
            held
        };
        // The limit of 40 in flight on two is 25 or 26.
        assert!((1..=2).contains(&held(0.05)), "{}", held(0.05));
        assert!((1..=13).contains(&held(0.5)), "{}", held(0.5));
        assert!((15..=26).contains(&held(1.0)), "{}", held(1.0));
        // Alone, it takes everything.
        members[0].set_health(crate::replica::Health::Unready);
        assert_eq!(held(0.05), 40);
    }

    #[test]
    fn membership_changes_keep_the_survivors_keys() {
        let config = RingConfig { hash: RingHash::Xxh3, ..RingConfig::default() };
        let policy = Consistent::new(config, None);
        let four = members(4);
        let before = policy.build(Arc::clone(&four));
        let three: Arc<[_]> = four.iter().filter(|member| member.id.0 != 2).cloned().collect();
        policy.place(&[ReplicaId(1), ReplicaId(3), ReplicaId(4)]);
        let without = policy.build(three);
        policy.place(&[ReplicaId(1), ReplicaId(2), ReplicaId(3), ReplicaId(4)]);
        let after = policy.build(four);
        for key in 0..5_000 {
            let cx = PickCx { key, tried: &[] };
            let owner = before.pick(&cx).unwrap().id;
            if owner.0 != 2 {
                assert_eq!(without.pick(&cx).unwrap().id, owner);
            }
            assert_eq!(after.pick(&cx).unwrap().id, owner, "ring number 2 returns to its slots");
        }
    }

    #[test]
    fn the_layout_does_not_depend_on_who_is_ready_first() {
        let ids = [ReplicaId(1), ReplicaId(2), ReplicaId(3)];
        let all = members(3);
        let policy = Consistent::new(RingConfig::default(), None);
        for order in [[2, 0, 1], [1, 2, 0]] {
            for ready in 0..=3 {
                policy.place(&ids);
                let some: Arc<[_]> = order[..ready].iter().map(|at: &usize| Arc::clone(&all[*at])).collect();
                let picker = policy.build(Arc::clone(&some));
                let expected = Ring::with_replicas(RingConfig::default(), 3).unwrap();
                assert!(policy.ring().unwrap().occupied().eq(expected.occupied()));
                let picked = (0..500).filter_map(|key| picker.pick(&PickCx { key, tried: &[] }));
                assert!(picked.into_iter().all(|replica| some.iter().any(|member| member.id == replica.id)));
            }
        }
    }
}
