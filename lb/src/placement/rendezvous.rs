//! Rendezvous hashing: of all replicas, the one with the highest random weight owns a slot.
//!
//! Sources: D. Thaler, C. Ravishankar, "Using Name-Based Mappings to Increase Hit Rates" (IEEE/ACM ToN 1998); weights by
//! C. Schindelhauer, G. Schomaker, "Weighted Distributed Hash Tables" (SPAA 2005): the score is `-w / ln u`, with `u` drawn
//! evenly from 0 to 1 by a hash of slot and ring number.
//!
//! Asking all replicas for every request would take longer the more there are, so the question is asked once for each of a
//! fixed number of slots. A change of one replica is one question a slot: whoever comes takes the slots that it wins, and
//! the slots of whoever goes are asked anew. Nobody else's are touched, and the order of changes does not matter.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_64;

use super::ownership::{Ownership, Slots};
use super::{Lookup, Place, table_slot};

/// The score of ring number `id` for a slot: more than 0, the highest wins, and of equal ones the lower number.
fn score(slot: u32, id: u32, weight: u16) -> f64 {
    let hash = xxh3_64(&((u64::from(slot) << 32) | u64::from(id)).to_le_bytes());
    let u = ((hash >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    f64::from(weight) / u.ln().abs()
}

/// How a ring number has done at a slot.
#[derive(Debug, Clone, Copy)]
struct Won {
    score: f64,
    id: u32,
}

const NOBODY: Won = Won { score: 0.0, id: 0 };

impl Won {
    fn beats(self, other: Self) -> bool {
        self.order(&other).is_gt()
    }

    /// From the worst to the best.
    fn order(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then(other.id.cmp(&self.id))
    }
}

/// Who has won which slot.
#[derive(Debug, Clone)]
pub struct Rendezvous {
    winners: Box<[Won]>,
    /// Weight by ring number, of those that have one.
    weights: BTreeMap<u32, u16>,
}

impl Rendezvous {
    /// A table of `slots`, 1 or more, that nobody owns.
    pub fn new(slots: u32) -> Self {
        Self { winners: vec![NOBODY; slots.max(1) as usize].into(), weights: BTreeMap::new() }
    }

    /// Has just these places compete.
    pub fn hold(&mut self, places: &[Place]) {
        let wanted: BTreeMap<u32, u16> =
            places.iter().filter(|place| place.weight > 0).map(|place| (place.id, place.weight)).collect();
        let leaving = |id: &u32| self.weights.contains_key(id) && self.weights.get(id) != wanted.get(id);
        let lost: Vec<usize> = (0..self.winners.len()).filter(|slot| leaving(&self.winners[*slot].id)).collect();
        let came: Vec<(u32, u16)> = wanted
            .iter()
            .filter(|(id, weight)| self.weights.get(id) != Some(weight))
            .map(|(id, weight)| (*id, *weight))
            .collect();
        self.weights = wanted;
        for slot in lost {
            self.winners[slot] = NOBODY;
            self.compete(slot, self.weights.iter().map(|(id, weight)| (*id, *weight)).collect::<Vec<_>>());
        }
        if !came.is_empty() {
            for slot in 0..self.winners.len() {
                self.compete(slot, came.iter().copied());
            }
        }
    }

    fn compete(&mut self, slot: usize, ids: impl IntoIterator<Item = (u32, u16)>) {
        for (id, weight) in ids {
            let new = Won { score: score(slot as u32, id, weight), id };
            if new.beats(self.winners[slot]) {
                self.winners[slot] = new;
            }
        }
    }

    /// How many slots it has.
    pub fn slots(&self) -> u32 {
        self.winners.len() as u32
    }

    /// The look-up table. `index` turns a ring number into what the table shall hold for it.
    pub fn freeze(&self, index: impl Fn(u32) -> u32) -> RendezvousTable {
        let owners = if self.weights.is_empty() {
            Box::default()
        } else {
            self.winners.iter().map(|won| index(won.id)).collect()
        };
        let entries = self.weights.iter().map(|(id, weight)| Entry { id: *id, weight: *weight, holds: index(*id) });
        RendezvousTable { slots: self.winners.len() as u32, owners, entries: entries.collect() }
    }

    /// Who owns which slot, by ring number.
    pub fn ownership(&self) -> Ownership {
        Ownership::new(Slots::Table, self.winners.iter().map(|won| won.id).collect())
    }
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    id: u32,
    weight: u16,
    holds: u32,
}

/// A frozen table. A look-up is one array read; who stands in for the owner is found by asking all.
#[derive(Debug, Clone)]
pub struct RendezvousTable {
    slots: u32,
    /// What `freeze` was told to hold, by slot; empty if there is nobody.
    owners: Box<[u32]>,
    entries: Box<[Entry]>,
}

impl Lookup for RendezvousTable {
    #[inline]
    fn slot(&self, key: u64) -> u32 {
        table_slot(key, self.slots)
    }

    #[inline]
    fn owner(&self, key: u64) -> Option<u32> {
        self.owners.get(self.slot(key) as usize).copied()
    }

    /// All of them by their scores for the slot, each once.
    #[inline]
    fn walk(&self, key: u64) -> impl Iterator<Item = u32> {
        let slot = self.slot(key);
        let owner = self.owner(key);
        let won = move |entry: &Entry| Won { score: score(slot, entry.id, entry.weight), id: entry.id };
        let mut others: Option<Vec<(Won, u32)>> = None;
        let others = std::iter::from_fn(move || {
            // Nobody has asked for more than the owner until now.
            let others = others.get_or_insert_with(|| {
                let mut scored: Vec<_> = self.entries.iter().map(|entry| (won(entry), entry.holds)).collect();
                // They are taken from the end; the best of all is the owner.
                scored.sort_unstable_by(|(one, _), (two, _)| one.order(two));
                scored.pop();
                scored
            });
            others.pop().map(|(_, holds)| holds)
        });
        owner.into_iter().chain(others)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn held(slots: u32, places: &[Place]) -> Rendezvous {
        let mut table = Rendezvous::new(slots);
        table.hold(places);
        table
    }

    #[test]
    fn nobody_owns_an_empty_table() {
        let none = held(7, &[Place::new(1, 0)]);
        let table = none.freeze(|id| id);
        assert_eq!((table.owner(1), table.walk(1).count()), (None, 0));
        assert_eq!(none.ownership().by_slot(), [0; 7]);
    }

    #[test]
    fn a_walk_meets_everyone_once_by_score() {
        let table = held(97, &Place::first(9)).freeze(|id| id);
        for key in 0..50 {
            let walked: Vec<u32> = table.walk(key).collect();
            let mut sorted = walked.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (1..=9).collect::<Vec<_>>());
            let scores: Vec<f64> = walked.iter().map(|id| score(table.slot(key), *id, 1)).collect();
            assert!(scores.is_sorted_by(|one, two| one >= two), "{scores:?}");
        }
    }

    proptest! {
        /// Whatever happened before, the winners are those of a table made at once; and a change moves no key between
        /// those that it leaves alone.
        #[test]
        fn the_order_of_changes_does_not_matter(
            history in prop::collection::vec(prop::collection::btree_map(1_u32..12, 0_u16..5, 0..10), 1..8),
        ) {
            let mut table = Rendezvous::new(251);
            let mut before = table.ownership();
            let mut old = BTreeMap::new();
            for weights in history {
                let places: Vec<Place> = weights.iter().map(|(id, weight)| Place::new(*id, *weight)).collect();
                table.hold(&places);
                let after = table.ownership();
                prop_assert_eq!(&after, &held(251, &places).ownership());
                let is_left_alone = |id: u32| id != 0 && old.get(&id) == weights.get(&id);
                for (from, to) in before.by_slot().iter().zip(after.by_slot()) {
                    prop_assert!(from == to || !is_left_alone(*from) || !is_left_alone(*to), "from {} to {}", from, to);
                }
                (before, old) = (after, weights);
            }
        }
    }
}
