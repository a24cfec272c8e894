//! Maglev's table: every replica has nearly the same number of slots, and a change moves few others.
//!
//! Source: D. Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer" (NSDI 2016), §3.4. Each ring
//! number prefers the slots in an order of its own; in turns, each takes the first of its order that is free. Weights as in
//! Envoy: who has half of the largest weight takes every other turn.
//!
//! A table is made anew from its places, so it does not depend on the order of changes. What stands in for an owner is the
//! owner of the next slot, which spreads its keys over all others.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::ownership::{Ownership, Slots};
use super::{Lookup, Place, table_slot};

/// The least slots that a table may have.
pub const MIN_SLOTS: u32 = 2;
/// The most: as Envoy's.
pub const MAX_SLOTS: u32 = 5_000_011;

/// Can a table have this many slots? Only prime numbers make every preference visit every slot.
pub fn is_prime(number: u32) -> bool {
    number >= 2 && (2..=number.isqrt()).all(|divisor| !number.is_multiple_of(divisor))
}

/// Whose turn it is, and where it looks next.
struct Turn {
    place: Place,
    next: u64,
    skip: u64,
    taken_weight: u64,
}

/// Ring numbers by slot.
#[derive(Debug, Clone)]
pub struct Maglev {
    owners: Box<[u32]>,
}

impl Maglev {
    /// A table of `slots`, a prime number, for these places; those of weight 0 get nothing.
    pub fn new(slots: u32, places: &[Place]) -> Self {
        debug_assert!(is_prime(slots), "{slots} is no prime number");
        let mut owners = vec![0; slots as usize].into_boxed_slice();
        let mut turns: Vec<Turn> =
            places.iter().filter(|place| place.weight > 0).map(|place| turn(*place, slots)).collect();
        turns.sort_by_key(|turn| turn.place.id);
        let heaviest = turns.iter().map(|turn| u64::from(turn.place.weight)).max().unwrap_or(0);
        let mut free = if turns.is_empty() { 0 } else { owners.len() };
        for iteration in 1_u64.. {
            if free == 0 {
                break;
            }
            for turn in &mut turns {
                if iteration * u64::from(turn.place.weight) < turn.taken_weight || free == 0 {
                    continue;
                }
                turn.taken_weight += heaviest;
                // One is free, and the order visits them all.
                while owners[turn.next as usize] != 0 {
                    turn.step(slots);
                }
                owners[turn.next as usize] = turn.place.id;
                turn.step(slots);
                free -= 1;
            }
        }
        Self { owners }
    }

    /// How many slots it has.
    pub fn slots(&self) -> u32 {
        self.owners.len() as u32
    }

    /// The look-up table. `index` turns a ring number into what the table shall hold for it.
    pub fn freeze(&self, index: impl Fn(u32) -> u32) -> MaglevTable {
        let is_empty = self.owners.first().is_none_or(|id| *id == 0);
        let owners = if is_empty { Box::default() } else { self.owners.iter().map(|id| index(*id)).collect() };
        MaglevTable { owners, slots: self.owners.len() as u32 }
    }

    /// Who owns which slot, by ring number.
    pub fn ownership(&self) -> Ownership {
        Ownership::new(Slots::Table, self.owners.clone())
    }
}

fn turn(place: Place, slots: u32) -> Turn {
    let hash = |seed| xxh3_64_with_seed(&u64::from(place.id).to_le_bytes(), seed);
    let slots = u64::from(slots);
    Turn { place, next: hash(1) % slots, skip: hash(2) % (slots - 1) + 1, taken_weight: 0 }
}

impl Turn {
    fn step(&mut self, slots: u32) {
        self.next += self.skip;
        if self.next >= u64::from(slots) {
            self.next -= u64::from(slots);
        }
    }
}

/// A frozen table. A look-up is one array read; walking on is one more a step.
#[derive(Debug, Clone)]
pub struct MaglevTable {
    slots: u32,
    /// What `freeze` was told to hold, by slot; empty if there is nobody.
    owners: Box<[u32]>,
}

impl Lookup for MaglevTable {
    #[inline]
    fn slot(&self, key: u64) -> u32 {
        table_slot(key, self.slots)
    }

    #[inline]
    fn owner(&self, key: u64) -> Option<u32> {
        self.owners.get(self.slot(key) as usize).copied()
    }

    #[inline]
    fn walk(&self, key: u64) -> impl Iterator<Item = u32> {
        let (before, from) = self.owners.split_at((self.slot(key) as usize).min(self.owners.len()));
        from.iter().chain(before).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn counts(table: &Maglev, ids: u32) -> Vec<usize> {
        (1..=ids).map(|id| table.owners.iter().filter(|owner| **owner == id).count()).collect()
    }

    #[test]
    fn slots_differ_by_one_at_most() {
        for count in [1, 2, 3, 7, 50, 500] {
            let counts = counts(&Maglev::new(65_537, &Place::first(count)), count);
            let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            assert!(most - least <= 1 && counts.iter().sum::<usize>() == 65_537, "{least} {most}");
        }
    }

    #[test]
    fn nobody_owns_an_empty_table() {
        let none = Maglev::new(7, &[Place::new(1, 0)]);
        let table = none.freeze(|id| id);
        assert_eq!((table.owner(1), table.walk(1).count()), (None, 0));
        assert_eq!(none.ownership().shares(&[1]), [0.0]);
    }

    #[test]
    fn primes_are_known() {
        let primes: Vec<u32> = (0..30).filter(|number| is_prime(*number)).collect();
        assert_eq!(primes, [2, 3, 5, 7, 11, 13, 17, 19, 23, 29]);
        assert!(is_prime(65_537) && is_prime(MAX_SLOTS) && !is_prime(65_536) && is_prime(4_294_967_291));
    }

    #[test]
    fn removals_move_few_others() {
        // 65,537 slots are 100 and more for each of 500.
        for count in [3, 10, 100, 500] {
            let all = Place::first(count);
            let fewer: Vec<Place> = all.iter().copied().filter(|place| place.id != 2).collect();
            let (before, after) = (Maglev::new(65_537, &all).ownership(), Maglev::new(65_537, &fewer).ownership());
            let extra = before.moved_if(&after, &before.keys(), |from, _| from != 2);
            assert!(extra <= 0.02, "{count} replicas: {extra}");
        }
    }

    proptest! {
        /// Any places, in any order, fill the table in proportion to their weights.
        #[test]
        fn tables_are_whole_and_weighted(weights in prop::collection::vec(0_u16..200, 1..20), size in 0_usize..3) {
            let slots = [1009, 5003, 65_537][size];
            let mut places: Vec<Place> = (1..).zip(&weights).map(|(id, weight)| Place::new(id, *weight)).collect();
            let table = Maglev::new(slots, &places);
            places.reverse();
            prop_assert_eq!(&table.owners, &Maglev::new(slots, &places).owners);
            let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
            for (count, weight) in counts(&table, weights.len() as u32).into_iter().zip(weights) {
                let part = if total == 0 { 0.0 } else { f64::from(slots) * f64::from(weight) / total as f64 };
                prop_assert!((count as f64 - part).abs() <= 2.0 + part * 0.02, "{} of {}", count, part);
            }
        }
    }
}
