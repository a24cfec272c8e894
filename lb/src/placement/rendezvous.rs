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

/// The best two of a slot.
#[derive(Debug, Clone, Copy)]
struct Slot {
    winner: Won,
    second: Won,
}

const EMPTY: Slot = Slot { winner: NOBODY, second: NOBODY };

impl Slot {
    fn take(&mut self, new: Won) {
        if new.beats(self.winner) {
            (self.winner, self.second) = (new, self.winner);
        } else if new.beats(self.second) {
            self.second = new;
        }
    }
}

/// Who has won which slot, and who came second: under load, bounds pass many requests on.
#[derive(Debug, Clone)]
pub struct Rendezvous {
    slots: Box<[Slot]>,
    /// Weight by ring number, of those that have one.
    weights: BTreeMap<u32, u16>,
}

impl Rendezvous {
    /// A table of `slots`, 1 or more, that nobody owns.
    pub fn new(slots: u32) -> Self {
        Self { slots: vec![EMPTY; slots.max(1) as usize].into(), weights: BTreeMap::new() }
    }

    /// Has just these places compete.
    pub fn hold(&mut self, places: &[Place]) {
        let wanted: BTreeMap<u32, u16> =
            places.iter().filter(|place| place.weight > 0).map(|place| (place.id, place.weight)).collect();
        let old = std::mem::replace(&mut self.weights, wanted);
        let is_leaving = |id: u32| id != 0 && self.weights.get(&id) != old.get(&id);
        let came = self.weights.iter().filter(|(id, weight)| old.get(id) != Some(weight));
        let came: Vec<(u32, u16)> = came.map(|(id, weight)| (*id, *weight)).collect();
        let all: Vec<(u32, u16)> = self.weights.iter().map(|(id, weight)| (*id, *weight)).collect();
        for (number, slot) in (0..).zip(&mut self.slots) {
            let asked = if is_leaving(slot.winner.id) || is_leaving(slot.second.id) {
                *slot = EMPTY;
                &all
            } else {
                &came
            };
            for (id, weight) in asked {
                slot.take(Won { score: score(number, *id, *weight), id: *id });
            }
        }
    }

    /// How many slots it has.
    pub fn slots(&self) -> u32 {
        self.slots.len() as u32
    }

    /// The look-up table. `index` turns a ring number into what the table shall hold for it.
    pub fn freeze(&self, index: impl Fn(u32) -> u32) -> RendezvousTable {
        let owners = match self.weights.is_empty() {
            true => Box::default(),
            false => self.slots.iter().map(|slot| index(slot.winner.id)).collect(),
        };
        let seconds = match self.weights.len() {
            0 | 1 => Box::default(),
            _ => self.slots.iter().map(|slot| index(slot.second.id)).collect(),
        };
        let entries = self.weights.iter().map(|(id, weight)| Entry { id: *id, weight: *weight, holds: index(*id) });
        RendezvousTable { slots: self.slots(), owners, seconds, entries: entries.collect() }
    }

    /// Who owns which slot, by ring number.
    pub fn ownership(&self) -> Ownership {
        Ownership::new(Slots::Table, self.slots.iter().map(|slot| slot.winner.id).collect())
    }
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    id: u32,
    weight: u16,
    holds: u32,
}

impl Entry {
    fn score(&self, slot: u32) -> Won {
        Won { score: score(slot, self.id, self.weight), id: self.id }
    }
}

/// A frozen table. A look-up is one array read, and so is who stands in for the owner; who is next is found by asking all.
#[derive(Debug, Clone)]
pub struct RendezvousTable {
    slots: u32,
    /// What `freeze` was told to hold, by slot; empty if there is nobody.
    owners: Box<[u32]>,
    /// The same for who comes second; empty if nobody does.
    seconds: Box<[u32]>,
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
        let first_two = [&self.owners, &self.seconds].map(|table| table.get(slot as usize).copied());
        let mut third: Option<Won> = None;
        let mut others: Option<Vec<(Won, u32)>> = None;
        let rest = std::iter::from_fn(move || {
            let scored = || self.entries.iter().map(|entry| (entry.score(slot), entry.holds));
            let others_than_the_first = || scored().filter(|(_, holds)| !first_two.contains(&Some(*holds)));
            let Some(last) = third else {
                // Mostly one is enough.
                let (won, holds) =
                    others_than_the_first().reduce(|best, next| if next.0.beats(best.0) { next } else { best })?;
                third = Some(won);
                return Some(holds);
            };
            let others = others.get_or_insert_with(|| {
                let mut behind: Vec<_> = others_than_the_first().filter(|(won, _)| last.beats(*won)).collect();
                // They are taken from the end.
                behind.sort_unstable_by(|(one, _), (two, _)| one.order(two));
                behind
            });
            others.pop().map(|(_, holds)| holds)
        });
        first_two.into_iter().flatten().chain(rest)
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
                let at_once = held(251, &places);
                prop_assert_eq!(&after, &at_once.ownership());
                let seconds = |table: &Rendezvous| table.slots.iter().map(|slot| slot.second.id).collect::<Vec<_>>();
                prop_assert_eq!(seconds(&table), seconds(&at_once));
                let is_left_alone = |id: u32| id != 0 && old.get(&id) == weights.get(&id);
                for (from, to) in before.by_slot().iter().zip(after.by_slot()) {
                    prop_assert!(from == to || !is_left_alone(*from) || !is_left_alone(*to), "from {} to {}", from, to);
                }
                (before, old) = (after, weights);
            }
        }
    }
}
