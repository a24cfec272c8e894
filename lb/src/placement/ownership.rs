//! Who owns which slot: what every table can be asked about itself. For questions, not for requests.

use super::hash::RingHash;
use super::{REQUEST_IDS, table_slot};

/// How a key finds its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slots {
    /// By a ring's own function.
    Ring(RingHash),
    /// By that of the other tables.
    Table,
}

/// Ring numbers by slot, 0 for nobody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ownership {
    slots: Slots,
    owners: Box<[u32]>,
}

impl Ownership {
    pub(super) fn new(slots: Slots, owners: Box<[u32]>) -> Self {
        Self { slots, owners }
    }

    /// The slot of a key.
    pub fn slot(&self, key: u64) -> u32 {
        let count = self.owners.len() as u32;
        match self.slots {
            Slots::Ring(hash) => hash.key_slot(key, count),
            Slots::Table => table_slot(key, count),
        }
    }

    /// The owner of a key.
    pub fn owner(&self, key: u64) -> Option<u32> {
        self.owners.get(self.slot(key) as usize).copied().filter(|id| *id != 0)
    }

    /// Ring numbers by slot, 0 for nobody.
    pub fn by_slot(&self) -> &[u32] {
        &self.owners
    }

    /// How many of the six-digit request IDs have each slot: [`REQUEST_IDS`] are gone through, so it is asked once for
    /// several questions to tables of the same kind and size.
    pub fn keys(&self) -> Vec<u64> {
        let mut keys = vec![0; self.owners.len()];
        for id in REQUEST_IDS {
            keys[self.slot(id) as usize] += 1;
        }
        keys
    }

    /// The exact fraction of all six-digit request IDs that each of `ids` owns, in that order.
    pub fn shares(&self, ids: &[u32]) -> Vec<f64> {
        self.shares_of(&self.keys(), ids)
    }

    /// The same, with what [`Ownership::keys`] gave.
    pub fn shares_of(&self, keys: &[u64], ids: &[u32]) -> Vec<f64> {
        let place: std::collections::HashMap<u32, usize> = ids.iter().zip(0..).map(|(id, at)| (*id, at)).collect();
        let mut counts = vec![0_u64; ids.len()];
        for (owner, keys) in self.owners.iter().zip(keys) {
            if let Some(at) = place.get(owner) {
                counts[*at] += keys;
            }
        }
        counts.into_iter().map(of_all).collect()
    }

    /// The exact fraction of all six-digit request IDs that have another owner in `other`, a table of the same size.
    pub fn moved(&self, other: &Self) -> f64 {
        self.moved_if(other, &self.keys(), |_, _| true)
    }

    /// The same, with what [`Ownership::keys`] gave, but only of those IDs whose owners, here and there, `counts` says yes
    /// to.
    pub fn moved_if(&self, other: &Self, keys: &[u64], counts: impl Fn(u32, u32) -> bool) -> f64 {
        let owners = self.owners.iter().zip(&other.owners);
        let moved = owners.zip(keys).filter(|((here, there), _)| here != there && counts(**here, **there));
        of_all(moved.map(|(_, keys)| keys).sum())
    }

    /// How many different slots the six-digit request IDs hash to.
    pub fn reachable_slots(&self) -> usize {
        self.keys().into_iter().filter(|keys| *keys > 0).count()
    }
}

fn of_all(keys: u64) -> f64 {
    keys as f64 / (REQUEST_IDS.end() - REQUEST_IDS.start() + 1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::Place;
    use crate::placement::ring::{Ring, RingConfig};

    #[test]
    fn what_moves_is_what_the_shares_say() {
        let config = RingConfig { hash: RingHash::Xxh3, ..RingConfig::default() };
        let three = Ring::with_replicas(config, 3).unwrap();
        let mut two = three.clone();
        two.hold(&[Place::new(1, 1), Place::new(3, 1)]);
        let (three, two) = (three.ownership(), two.ownership());
        let gone = three.shares(&[2])[0];
        assert!((three.moved(&two) - gone).abs() < 1e-12, "the leaving one's keys");
        assert_eq!(three.moved_if(&two, &three.keys(), |from, _| from != 2), 0.0, "and no others");
        assert_eq!(three.moved(&three), 0.0);
        assert!((three.shares(&[1, 2, 3]).iter().sum::<f64>() - 1.0).abs() < 1e-12);
    }
}
