//! The consistent hash ring: slots, virtual nodes, probing, and the frozen table that answers look-ups.
//!
//! Owns the placement of ring numbers on slots. Does *not* know replicas, health or load: it maps a key to a place on the
//! ring, and the policy that holds it decides which replica that means. Pure: no clock, no I/O, no randomness.
//!
//! Sources: D. Karger et al., "Consistent Hashing and Random Trees" (STOC 1997) for the ring and its virtual nodes;
//! D. Knuth, TAOCP vol. 3, §6.4 for open addressing. `H` and `Φ` of [`RingHash::Assignment`] are those of the CS60002
//! assignment that this project grew from.

use std::fmt;
use std::str::FromStr;

/// The six-digit request IDs: the key space of which [`Ring::shares`] gives exact fractions.
pub const REQUEST_IDS: std::ops::RangeInclusive<u64> = 100_000..=999_999;
/// The most slots a ring may have, 2^20.
pub const MAX_SLOTS: u32 = 1 << 20;

/// The pair of hash functions that place keys (`H`) and virtual nodes (`Φ`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RingHash {
    /// `H(i) = i² + 2i + 17`, `Φ(i, j) = i² + j² + 2j + 25`.
    Assignment,
    /// XXH3 (64 bit) of the key, and of the pair (ring number, virtual node).
    Xxh3,
}

/// `number % slots`. A division takes longer than all else in a look-up, and most rings need none.
#[inline]
fn remainder(number: u64, slots: u64) -> u64 {
    if slots.is_power_of_two() { number & (slots - 1) } else { number % slots }
}

impl RingHash {
    /// The slot where the search for `key`'s virtual node begins, in `0..slots`.
    pub fn key_slot(self, key: u64, slots: u32) -> u32 {
        let slots = u64::from(slots);
        let slot = match self {
            // A polynomial may be reduced before it is evaluated, so no key can overflow.
            Self::Assignment => {
                let i = remainder(key, slots);
                i * i + 2 * i + 17
            }
            Self::Xxh3 => xxhash_rust::xxh3::xxh3_64(&key.to_le_bytes()),
        };
        remainder(slot, slots) as u32
    }

    /// The slot that virtual node `vnode` of ring number `id` would like, in `0..slots`.
    pub fn vnode_slot(self, id: u32, vnode: u32, slots: u32) -> u32 {
        let slots = u64::from(slots);
        let slot = match self {
            Self::Assignment => {
                let (i, j) = (u64::from(id) % slots, u64::from(vnode) % slots);
                i * i + j * j + 2 * j + 25
            }
            Self::Xxh3 => xxhash_rust::xxh3::xxh3_64(&((u64::from(id) << 32) | u64::from(vnode)).to_le_bytes()),
        };
        (slot % slots) as u32
    }
}

/// How a virtual node finds a free slot when the one it wants is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probing {
    /// The next slot clockwise, and so on.
    Linear,
    /// `home + k²` for `k = 1, 2, …, slots - 1`. Squares don't reach every slot, so a search that comes to the end of them
    /// goes on linearly from home: it finds a free slot whenever there is one.
    Quadratic,
}

macro_rules! words {
    ($type:ty { $($word:literal => $value:expr),+ $(,)? }) => {
        impl $type {
            /// The words that select a value, in configuration and output.
            pub const WORDS: &'static [&'static str] = &[$($word),+];
        }
        impl FromStr for $type {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok($value),)+
                    _ => Err(Self::WORDS.join(", ")),
                }
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                $(if *self == $value { return f.write_str($word); })+
                Ok(())
            }
        }
    };
}
words!(RingHash { "assignment" => RingHash::Assignment, "xxh3" => RingHash::Xxh3 });
words!(Probing { "linear" => Probing::Linear, "quadratic" => Probing::Quadratic });

/// Size and functions of a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingConfig {
    /// Slots on the ring, 1 to [`MAX_SLOTS`].
    pub slots: u32,
    /// Virtual nodes per replica, 1 to `slots`.
    pub vnodes: u32,
    /// Hash functions.
    pub hash: RingHash,
    /// Collision rule.
    pub probing: Probing,
}

impl Default for RingConfig {
    fn default() -> Self {
        Self { slots: 512, vnodes: 9, hash: RingHash::Assignment, probing: Probing::Linear }
    }
}

impl RingConfig {
    /// How many replicas fit: `slots / vnodes`, whole ones.
    pub fn capacity(&self) -> usize {
        (self.slots / self.vnodes.max(1)) as usize
    }
}

/// The ring holds as many replicas as it has room for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the ring of {slots} slots with {vnodes} virtual nodes per replica is full")]
pub struct RingFull {
    slots: u32,
    vnodes: u32,
}

/// A ring under construction: which ring number holds which slot.
///
/// What a probe displaced stays where it is when the cause goes away, so removing a ring number moves no key between the
/// others. The layout therefore depends on the order of changes; given the same order it is the same.
#[derive(Debug, Clone)]
pub struct Ring {
    config: RingConfig,
    /// Ring number by slot, 0 for a free one (ring numbers begin at 1).
    slots: Vec<u32>,
    occupied: u32,
}

impl Ring {
    /// An empty ring. `slots` is taken as at least 1.
    pub fn new(config: RingConfig) -> Self {
        Self { config, slots: vec![0; config.slots.max(1) as usize], occupied: 0 }
    }

    /// A ring with the numbers `1..=replicas`, added in that order.
    pub fn with_replicas(config: RingConfig, replicas: u32) -> Result<Self, RingFull> {
        let mut ring = Self::new(config);
        (1..=replicas).try_for_each(|id| ring.insert(id))?;
        Ok(ring)
    }

    /// What the ring was made with.
    pub fn config(&self) -> RingConfig {
        self.config
    }

    /// Places the virtual nodes of `id` (1 or more, not on the ring yet). Changes nothing if they don't all fit.
    pub fn insert(&mut self, id: u32) -> Result<(), RingFull> {
        debug_assert!(id > 0 && !self.slots.contains(&id));
        let RingConfig { slots, vnodes, hash, .. } = self.config;
        if slots - self.occupied < vnodes {
            return Err(RingFull { slots, vnodes });
        }
        for vnode in 0..vnodes {
            let home = hash.vnode_slot(id, vnode, slots);
            if let Some(slot) = self.free_slot(home) {
                self.slots[slot as usize] = id;
                self.occupied += 1;
            }
        }
        Ok(())
    }

    /// Takes the virtual nodes of `id` off; all others stay where they are.
    pub fn remove(&mut self, id: u32) {
        for slot in &mut self.slots {
            if *slot == id {
                *slot = 0;
                self.occupied -= 1;
            }
        }
    }

    fn free_slot(&self, home: u32) -> Option<u32> {
        let slots = self.config.slots;
        let free = |slot: &u32| self.slots[*slot as usize] == 0;
        let at = |distance: u64| ((u64::from(home) + distance) % u64::from(slots)) as u32;
        let linear = || (0..u64::from(slots)).map(at).find(free);
        match self.config.probing {
            Probing::Linear => linear(),
            Probing::Quadratic => (0..u64::from(slots)).map(|k| at(k * k)).find(free).or_else(linear),
        }
    }

    /// `(slot, ring number)` of every virtual node, by slot.
    pub fn occupied(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.slots.iter().enumerate().filter(|(_, id)| **id != 0).map(|(slot, id)| (slot as u32, *id))
    }

    /// The look-up table for this layout. `index` turns a ring number into what the table shall hold for it.
    pub fn freeze(&self, index: impl Fn(u32) -> u32) -> RingTable {
        let nodes: Box<[u32]> = self.occupied().map(|(_, id)| index(id)).collect();
        let mut starts = vec![0; self.slots.len()].into_boxed_slice();
        // From the last slot back, each learns the position of the nearest virtual node clockwise, itself included;
        // slots behind the last node wrap to the first.
        let mut next = 0;
        let mut position = nodes.len() as u32;
        for slot in (0..self.slots.len()).rev() {
            if self.slots[slot] != 0 {
                position -= 1;
                next = position;
            }
            starts[slot] = next;
        }
        RingTable { hash: self.config.hash, starts, nodes }
    }

    /// The exact fraction of all six-digit request IDs that each of `ids` owns, in that order.
    pub fn shares(&self, ids: &[u32]) -> Vec<f64> {
        let mut counts = vec![0_u64; ids.len()];
        if self.occupied > 0 {
            let table = self.freeze(|id| ids.iter().position(|other| *other == id).unwrap_or(ids.len()) as u32);
            // How many IDs begin at each slot: the polynomial hash repeats, so slots are counted, not IDs looked up.
            let mut keys = vec![0_u64; self.slots.len()];
            for id in REQUEST_IDS {
                keys[self.config.hash.key_slot(id, self.config.slots) as usize] += 1;
            }
            for (slot, keys) in keys.iter().enumerate() {
                if let Some(count) = counts.get_mut(table.nodes[table.starts[slot] as usize] as usize) {
                    *count += keys;
                }
            }
        }
        let all = (REQUEST_IDS.end() - REQUEST_IDS.start() + 1) as f64;
        counts.into_iter().map(|count| count as f64 / all).collect()
    }

    /// How many different slots the six-digit request IDs hash to.
    pub fn reachable_slots(&self) -> usize {
        let mut reached = vec![false; self.slots.len()];
        for id in REQUEST_IDS {
            reached[self.config.hash.key_slot(id, self.config.slots) as usize] = true;
        }
        reached.into_iter().filter(|reached| *reached).count()
    }
}

/// A frozen ring. A look-up is two array reads; walking on is one more a step.
#[derive(Debug, Clone)]
pub struct RingTable {
    hash: RingHash,
    /// Position in `nodes` of the first virtual node clockwise, by slot.
    starts: Box<[u32]>,
    /// What `freeze` was told to hold, by virtual node in slot order.
    nodes: Box<[u32]>,
}

impl RingTable {
    /// The slot that `key` hashes to.
    #[inline]
    pub fn slot(&self, key: u64) -> u32 {
        self.hash.key_slot(key, self.starts.len() as u32)
    }

    /// The first of [`RingTable::walk`].
    #[inline]
    pub fn owner(&self, key: u64) -> Option<u32> {
        self.nodes.get(self.starts[self.slot(key) as usize] as usize).copied()
    }

    /// Clockwise from `key`'s slot (its own counts), once around: what each virtual node on the way stands for.
    #[inline]
    pub fn walk(&self, key: u64) -> impl Iterator<Item = u32> + '_ {
        let start = self.starts[self.slot(key) as usize] as usize;
        let (before, from) = self.nodes.split_at(start.min(self.nodes.len()));
        from.iter().chain(before).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn owner(ring: &Ring, key: u64) -> Option<u32> {
        let table = ring.freeze(|id| id);
        let first = table.walk(key).next();
        assert_eq!(table.owner(key), first);
        first
    }

    /// The definition, searched slot by slot.
    fn owner_by_search(ring: &Ring, key: u64) -> Option<u32> {
        let slots = ring.config.slots;
        let home = ring.config.hash.key_slot(key, slots);
        (0..slots).map(|d| ring.slots[((home + d) % slots) as usize]).find(|id| *id != 0)
    }

    #[test]
    fn assignment_functions_are_those_of_the_assignment() {
        for (i, h) in [(0_u64, 17), (1, 20), (132_574, (132_574_u64 * 132_574 + 2 * 132_574 + 17) % 512)] {
            assert_eq!(u64::from(RingHash::Assignment.key_slot(i, 512)), h % 512);
        }
        assert_eq!(RingHash::Assignment.vnode_slot(3, 8, 512), 9 + 64 + 16 + 25);
        assert_eq!(RingHash::Assignment.vnode_slot(56, 8, 512), (3136 + 64 + 16 + 25) % 512);
    }

    #[test]
    fn no_key_overflows() {
        assert_eq!(RingHash::Assignment.key_slot(u64::MAX, 512), ((511_u64 * 511 + 2 * 511 + 17) % 512) as u32);
        assert!(RingHash::Assignment.vnode_slot(u32::MAX, u32::MAX, MAX_SLOTS) < MAX_SLOTS);
    }

    #[test]
    fn three_replicas_have_the_known_shares() {
        for probing in [Probing::Linear, Probing::Quadratic] {
            let ring = Ring::with_replicas(RingConfig { probing, ..RingConfig::default() }, 3).unwrap();
            let rounded: Vec<_> =
                ring.shares(&[1, 2, 3]).into_iter().map(|share| (share * 1000.0).round() / 10.0).collect();
            assert_eq!(rounded, [84.4, 4.7, 10.9], "{probing}");
            assert_eq!(ring.reachable_slots(), 87);
        }
    }

    #[test]
    fn the_fifty_seventh_replica_does_not_fit_and_changes_nothing() {
        for probing in [Probing::Linear, Probing::Quadratic] {
            let config = RingConfig { probing, ..RingConfig::default() };
            assert_eq!(config.capacity(), 56);
            let mut ring = Ring::with_replicas(config, 56).unwrap();
            let before = ring.slots.clone();
            assert!(ring.insert(57).is_err());
            assert_eq!(ring.slots, before);
            for id in 1..=56 {
                assert_eq!(ring.slots.iter().filter(|slot| **slot == id).count(), 9);
            }
        }
    }

    #[test]
    fn quadratic_probing_fills_the_last_free_slot() {
        // Squares modulo a prime reach about half of the slots, so this needs the linear end of the search.
        for slots in [2, 13, 64, 97, 512] {
            let config = RingConfig { slots, vnodes: 1, probing: Probing::Quadratic, ..RingConfig::default() };
            let ring = Ring::with_replicas(config, slots).unwrap();
            assert!(ring.slots.iter().all(|id| *id != 0), "{slots} slots");
        }
    }

    #[test]
    fn an_empty_ring_owns_nothing() {
        let ring = Ring::new(RingConfig::default());
        assert_eq!(owner(&ring, 132_574), None);
        assert_eq!(ring.shares(&[1]), [0.0]);
    }

    #[test]
    fn a_key_behind_the_last_virtual_node_wraps_to_the_first() {
        let mut ring = Ring::new(RingConfig { slots: 8, vnodes: 1, ..RingConfig::default() });
        ring.slots[2] = 7;
        ring.occupied = 1;
        let table = ring.freeze(|id| id);
        assert!(table.starts.iter().all(|start| *start == 0));
        // Key 4 hashes to (16 + 8 + 17) % 8 = 1, key 1 to 20 % 8 = 4: before and behind the only node.
        assert_eq!((table.slot(4), table.slot(1)), (1, 4));
        assert_eq!((owner(&ring, 4), owner(&ring, 1)), (Some(7), Some(7)));
    }

    fn any_config() -> impl Strategy<Value = RingConfig> {
        (1_u32..400, 1_u32..12, any::<bool>(), any::<bool>()).prop_map(|(slots, vnodes, strong, quadratic)| {
            RingConfig {
                slots: slots.max(vnodes),
                vnodes,
                hash: if strong { RingHash::Xxh3 } else { RingHash::Assignment },
                probing: if quadratic { Probing::Quadratic } else { Probing::Linear },
            }
        })
    }

    proptest! {
        /// Any history of insertions and removals leaves whole replicas, and the table agrees with the slot-by-slot search.
        #[test]
        fn any_history_keeps_the_ring_sound(
            config in any_config(),
            steps in prop::collection::vec(1_u32..40, 0..60),
            keys in prop::collection::vec(any::<u64>(), 1..50),
        ) {
            let mut ring = Ring::new(config);
            let mut ids = std::collections::BTreeSet::new();
            for id in steps {
                if ids.remove(&id) {
                    ring.remove(id);
                } else if ids.len() < config.capacity() {
                    prop_assert!(ring.insert(id).is_ok());
                    ids.insert(id);
                } else {
                    prop_assert!(ring.insert(id).is_err());
                }
                for id in &ids {
                    prop_assert_eq!(ring.slots.iter().filter(|slot| *slot == id).count(), config.vnodes as usize);
                }
                prop_assert_eq!(ring.occupied as usize, ids.len() * config.vnodes as usize);
            }
            for key in keys {
                prop_assert_eq!(owner(&ring, key), owner_by_search(&ring, key));
                let walked: std::collections::BTreeSet<_> = ring.freeze(|id| id).walk(key).collect();
                prop_assert_eq!(&walked, &ids, "a walk meets every replica");
            }
        }

        /// Removing a replica moves its own keys only, adding one moves keys to it only.
        #[test]
        fn changes_move_only_the_keys_they_must(
            config in any_config(),
            start in 0_u32..20,
            removed in 1_u32..20,
            keys in prop::collection::vec(any::<u64>(), 1..100),
        ) {
            let replicas = start.min(config.capacity() as u32);
            let ring = Ring::with_replicas(config, replicas).unwrap();
            let mut smaller = ring.clone();
            smaller.remove(removed);
            for key in &keys {
                let before = owner(&ring, *key);
                if before != Some(removed) {
                    prop_assert_eq!(owner(&smaller, *key), before);
                }
            }
            let mut larger = smaller.clone();
            if larger.insert(1000).is_ok() {
                for key in &keys {
                    let after = owner(&larger, *key);
                    prop_assert!(after == owner(&smaller, *key) || after == Some(1000));
                }
            }
        }
    }
}
