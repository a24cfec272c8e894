//! A ring of any functions: linear probing, clockwise. lb's own ring knows only lb's functions. Pure.

/// How many keys each slot has; made so that a stretch of slots is counted at once.
pub(super) struct Keys {
    /// The keys in the slots before each, and behind the last: all of them.
    before: Vec<u64>,
}

impl Keys {
    pub(super) fn new(by_slot: &[u64]) -> Self {
        let mut before = vec![0];
        let mut sum = 0;
        before.extend(by_slot.iter().map(|keys| {
            sum += keys;
            sum
        }));
        Self { before }
    }

    /// Each slot has one.
    pub(super) fn even(slots: u32) -> Self {
        Self { before: (0..=u64::from(slots)).collect() }
    }

    fn slots(&self) -> usize {
        self.before.len() - 1
    }

    fn all(&self) -> u64 {
        self.before[self.slots()]
    }

    /// Those behind slot `from` up to slot `to`, clockwise; all if it is the same.
    fn between(&self, from: usize, to: usize) -> u64 {
        let (after, until) = (self.before[from + 1], self.before[to + 1]);
        if to > from { until - after } else { self.all() - after + until }
    }
}

/// A ring to which replicas come one after the other, with the numbers 1, 2, …
pub(super) struct Ring<'a> {
    keys: &'a Keys,
    /// Ring numbers by slot, 0 for nobody.
    slots: Vec<u32>,
    /// What each replica owns, by ring number, beginning with 1.
    loads: Vec<u64>,
    displaced: Vec<u32>,
}

impl<'a> Ring<'a> {
    pub(super) fn new(keys: &'a Keys) -> Self {
        Self { keys, slots: vec![0; keys.slots()], loads: Vec::new(), displaced: Vec::new() }
    }

    /// The next replica comes: `wish` says which slot each of its `nodes` virtual nodes would like.
    pub(super) fn add(&mut self, nodes: u32, wish: impl Fn(u32, u32) -> u32) {
        let count = self.slots.len();
        let id = self.loads.len() as u32 + 1;
        self.loads.push(0);
        self.displaced.push(0);
        let last = self.loads.len() - 1;
        for node in 0..nodes {
            let home = wish(id, node) as usize % count;
            let Some(slot) = self.seek(home, false) else { return };
            self.displaced[last] += u32::from(slot != home);
            // The slots back to the node behind were those of the node ahead.
            let keys = self.keys.between(self.behind(slot), slot);
            if let Some(ahead) = self.seek(slot, true) {
                self.loads[self.slots[ahead] as usize - 1] -= keys;
            }
            self.loads[last] += keys;
            self.slots[slot] = id;
        }
    }

    /// The first slot from `from` on, clockwise, that is taken or not. These two take all the time of a search, so they are
    /// plain loops.
    fn seek(&self, from: usize, taken: bool) -> Option<usize> {
        let mut at = from;
        while (self.slots[at] > 0) != taken {
            at = if at + 1 == self.slots.len() { 0 } else { at + 1 };
            if at == from {
                return None;
            }
        }
        Some(at)
    }

    /// The first taken slot behind `from`, which is `from` if there is no other.
    fn behind(&self, from: usize) -> usize {
        let mut at = from;
        loop {
            at = if at == 0 { self.slots.len() - 1 } else { at - 1 };
            if self.slots[at] > 0 || at == from {
                return at;
            }
        }
    }

    /// How many virtual nodes of each replica did not get the slot that they wanted.
    pub(super) fn displaced(&self) -> &[u32] {
        &self.displaced
    }

    /// The slots of a replica, in order.
    pub(super) fn slots_of(&self, id: u32) -> Vec<u32> {
        (0..).zip(&self.slots).filter(|(_, owner)| **owner == id).map(|(slot, _)| slot).collect()
    }

    /// What each owns, by ring number, as a part of all keys.
    pub(super) fn shares(&self) -> Vec<f64> {
        self.loads.iter().map(|keys| *keys as f64 / self.keys.all() as f64).collect()
    }

    /// The largest of all loads, as a multiple of their mean.
    pub(super) fn max_mean(&self) -> f64 {
        let most = self.loads.iter().copied().max().unwrap_or(0);
        (most * self.loads.len() as u64) as f64 / self.keys.all() as f64
    }

    /// The longest way from one virtual node to the next, in slots.
    pub(super) fn longest_gap(&self) -> u32 {
        let taken: Vec<u32> = (0..).zip(&self.slots).filter(|(_, owner)| **owner > 0).map(|(slot, _)| slot).collect();
        let (Some(first), Some(last)) = (taken.first(), taken.last()) else { return 0 };
        let around = self.slots.len() as u32 - last + first;
        taken.windows(2).map(|pair| pair[1] - pair[0]).fold(around, u32::max)
    }

    /// When `failed` is passed over: the largest part of its keys that goes to a single survivor. `None` if it has no keys,
    /// or nobody else is there.
    pub(super) fn largest_heir(&self, failed: u32) -> Option<f64> {
        let count = self.slots.len();
        let mut inherited = vec![0; self.loads.len()];
        for slot in (0..count).filter(|slot| self.slots[*slot] == failed) {
            let ahead = (1..count).map(|step| self.slots[(slot + step) % count]);
            let heir = ahead.into_iter().find(|id| *id > 0 && *id != failed)?;
            inherited[heir as usize - 1] += self.keys.between(self.behind(slot), slot);
        }
        let lost: u64 = inherited.iter().sum();
        (lost > 0).then(|| inherited.iter().copied().max().unwrap_or(0) as f64 / lost as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb::placement::hash::RingHash;
    use lb::placement::ring::{self, RingConfig};

    const HASHES: [RingHash; 3] = [RingHash::Assignment, RingHash::Modified, RingHash::Xxh3];

    #[test]
    fn a_ring_is_that_of_the_balancer() {
        for (slots, vnodes) in [(512, 9), (97, 7)] {
            for hash in HASHES {
                let config = RingConfig { slots, vnodes, hash, ..RingConfig::default() };
                let by_slot = ring::Ring::new(config).ownership().keys();
                let keys = Keys::new(&by_slot);
                let mut ring = Ring::new(&keys);
                for replicas in 1..=config.capacity() as u32 {
                    ring.add(vnodes, |id, node| hash.vnode_slot(id, node, vnodes, slots));
                    let own = ring::Ring::with_replicas(config, replicas).unwrap();
                    let ids: Vec<u32> = (1..=replicas).collect();
                    assert_eq!(ring.shares(), own.ownership().shares_of(&by_slot, &ids), "{hash}, {replicas} replicas");
                    let taken: Vec<(u32, u32)> = own.occupied().collect();
                    let same = |id: &u32| ring.slots_of(*id) == slots_of(&taken, *id);
                    assert!(ids.iter().all(same), "{hash}, {replicas} replicas");
                }
            }
        }
    }

    fn slots_of(taken: &[(u32, u32)], id: u32) -> Vec<u32> {
        taken.iter().filter(|(_, owner)| *owner == id).map(|(slot, _)| *slot).collect()
    }

    #[test]
    fn a_failed_replicas_keys_go_where_the_balancers_ring_moves_them() {
        for hash in HASHES {
            let config = RingConfig { hash, ..RingConfig::default() };
            let own = ring::Ring::with_replicas(config, 5).unwrap();
            let by_slot = own.ownership().keys();
            let keys = Keys::new(&by_slot);
            let mut ring = Ring::new(&keys);
            (0..5).for_each(|_| ring.add(9, |id, node| hash.vnode_slot(id, node, 9, 512)));
            for failed in 1..=5 {
                let mut rest = own.clone();
                rest.remove(failed);
                let (before, after) = (own.ownership(), rest.ownership());
                let to = |heir: u32| before.moved_if(&after, &by_slot, |_, to| to == heir);
                let most = (1..=5).map(to).fold(0.0, f64::max);
                let part = most / before.moved(&after);
                assert!((ring.largest_heir(failed).unwrap() - part).abs() < 1e-12, "{hash}, {failed}");
            }
        }
    }

    #[test]
    fn a_small_ring_is_as_counted_by_hand() {
        let keys = Keys::new(&[5, 0, 1, 0, 2, 0, 0, 4]);
        let mut ring = Ring::new(&keys);
        assert_eq!((ring.longest_gap(), ring.max_mean()), (0, 0.0));
        ring.add(2, |_, node| [2, 7][node as usize]);
        assert_eq!((ring.shares(), ring.longest_gap(), ring.largest_heir(1)), (vec![1.0], 5, None));
        // The second wants slot 2 for both, and gets 3 and 4.
        ring.add(2, |_, _| 2);
        assert_eq!((ring.displaced(), ring.slots_of(2)), (&[0, 2][..], vec![3, 4]));
        // Slots 3 and 4 have two keys, of twelve.
        assert_eq!(ring.shares(), [10.0 / 12.0, 2.0 / 12.0]);
        assert_eq!(ring.max_mean(), 20.0 / 12.0);
        assert_eq!(ring.longest_gap(), 3);
        assert_eq!((ring.largest_heir(1), ring.largest_heir(2)), (Some(1.0), Some(1.0)));
        // The third takes what is between: slots 5 and 6, without a key.
        ring.add(2, |_, node| 5 + node);
        assert_eq!((ring.shares()[2], ring.largest_heir(3)), (0.0, None));
        // Of the first one's ten keys those of slot 7 and 0 to 2 all go to slot 3.
        assert_eq!(ring.largest_heir(1), Some(1.0));
        // The fourth wants the last slot, and gets the first.
        ring.add(1, |_, _| 7);
        assert_eq!((ring.slots_of(4), ring.displaced()[3], ring.shares()[3]), (vec![0], 1, 5.0 / 12.0));
    }
}
