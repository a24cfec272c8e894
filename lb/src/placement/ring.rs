//! The consistent hash ring: slots, virtual nodes, probing, and the frozen table that answers look-ups.
//!
//! Sources: D. Karger et al., "Consistent Hashing and Random Trees" (STOC 1997) for the ring and its virtual nodes;
//! D. Knuth, TAOCP vol. 3, §6.4 for open addressing.

use std::collections::BTreeMap;

use super::hash::{Modulus, Probing, RingHash};
use super::ownership::{Ownership, Slots};
use super::{Lookup, Place};

/// The most slots a ring may have, 2^20.
pub const MAX_SLOTS: u32 = 1 << 20;

/// Size and functions of a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingConfig {
    /// Slots on the ring, 1 to [`MAX_SLOTS`].
    pub slots: u32,
    /// Virtual nodes of a replica of weight 1, 1 to `slots`.
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

    /// How many virtual nodes each of `places` gets: `vnodes` times its weight. If there are not slots enough for that,
    /// each gets less, in proportion, but at least one.
    fn nodes(&self, places: &[Place]) -> BTreeMap<u32, u32> {
        let wanted = |place: &Place| u64::from(place.weight) * u64::from(self.vnodes);
        let total: u64 = places.iter().map(wanted).sum();
        let slots = u64::from(self.slots);
        let weighted = places.iter().filter(|place| place.weight > 0).count() as u64;
        let fitting = |wanted: u64| match wanted {
            0 => 0,
            _ if total <= slots => wanted,
            _ => 1 + (u128::from(wanted) * u128::from(slots.saturating_sub(weighted)) / u128::from(total)) as u64,
        };
        places.iter().map(|place| (place.id, fitting(wanted(place)) as u32)).collect()
    }
}

/// The ring holds as many virtual nodes as it has room for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the ring of {slots} slots with {vnodes} virtual nodes per replica is full")]
pub struct RingFull {
    slots: u32,
    vnodes: u32,
}

/// What holds a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Node {
    /// Ring number, 0 for nobody's (ring numbers begin at 1).
    id: u32,
    /// Which of its virtual nodes.
    vnode: u32,
}

const FREE: Node = Node { id: 0, vnode: 0 };

/// A ring under construction: which ring number holds which slot.
///
/// What a probe displaced stays where it is when the cause goes away, so removing a ring number moves no key between the
/// others. The layout therefore depends on the order of changes; given the same order it is the same.
#[derive(Debug, Clone)]
pub struct Ring {
    config: RingConfig,
    slots: Vec<Node>,
    /// How many virtual nodes each ring number has: those from 0 on.
    nodes: BTreeMap<u32, u32>,
    occupied: u32,
}

impl Ring {
    /// An empty ring. `slots` is taken as at least 1.
    pub fn new(config: RingConfig) -> Self {
        Self { config, slots: vec![FREE; config.slots.max(1) as usize], nodes: BTreeMap::new(), occupied: 0 }
    }

    /// A ring with the numbers `1..=replicas`, added in that order, each with weight 1.
    pub fn with_replicas(config: RingConfig, replicas: u32) -> Result<Self, RingFull> {
        let mut ring = Self::new(config);
        (1..=replicas).try_for_each(|id| ring.resize(id, config.vnodes))?;
        Ok(ring)
    }

    /// What the ring was made with.
    pub fn config(&self) -> RingConfig {
        self.config
    }

    /// Puts just these places on the ring, new ones in ascending order. Who keeps its weight keeps its slots.
    pub fn hold(&mut self, places: &[Place]) {
        let wanted = self.config.nodes(places);
        let held: Vec<(u32, u32)> = self.nodes.iter().map(|(id, nodes)| (*id, *nodes)).collect();
        // First what makes room.
        for (id, nodes) in held {
            let wanted = wanted.get(&id).copied().unwrap_or(0);
            if wanted < nodes {
                self.shrink(id, wanted);
            }
        }
        for (id, nodes) in wanted {
            let fits = self.resize(id, nodes);
            debug_assert!(fits.is_ok(), "the {nodes} virtual nodes of {id} do not fit on the ring");
        }
    }

    /// Gives `id` (1 or more) this many virtual nodes. Changes nothing if they don't all fit.
    pub fn resize(&mut self, id: u32, nodes: u32) -> Result<(), RingFull> {
        debug_assert!(id > 0);
        let RingConfig { slots, vnodes, hash, .. } = self.config;
        let held = self.nodes.get(&id).copied().unwrap_or(0);
        if nodes <= held {
            self.shrink(id, nodes);
            return Ok(());
        }
        if slots - self.occupied < nodes - held {
            return Err(RingFull { slots, vnodes });
        }
        for vnode in held..nodes {
            if let Some(slot) = self.free_slot(hash.vnode_slot(id, vnode, vnodes, slots)) {
                self.slots[slot as usize] = Node { id, vnode };
                self.occupied += 1;
            }
        }
        self.nodes.insert(id, nodes);
        Ok(())
    }

    /// Takes the virtual nodes of `id` off; all others stay where they are.
    pub fn remove(&mut self, id: u32) {
        self.shrink(id, 0);
    }

    fn shrink(&mut self, id: u32, nodes: u32) {
        for slot in &mut self.slots {
            if slot.id == id && slot.vnode >= nodes {
                *slot = FREE;
                self.occupied -= 1;
            }
        }
        match nodes {
            0 => self.nodes.remove(&id),
            nodes => self.nodes.insert(id, nodes),
        };
    }

    fn free_slot(&self, home: u32) -> Option<u32> {
        let slots = self.config.slots;
        let free = |slot: &u32| self.slots[*slot as usize] == FREE;
        let at = |distance: u64| ((u64::from(home) + distance) % u64::from(slots)) as u32;
        let linear = || (0..u64::from(slots)).map(at).find(free);
        match self.config.probing {
            Probing::Linear => linear(),
            Probing::Quadratic => (0..u64::from(slots)).map(|k| at(k * k)).find(free).or_else(linear),
        }
    }

    /// `(slot, ring number)` of every virtual node, by slot.
    pub fn occupied(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.slots.iter().enumerate().filter(|(_, node)| **node != FREE).map(|(slot, node)| (slot as u32, node.id))
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
            if self.slots[slot] != FREE {
                position -= 1;
                next = position;
            }
            starts[slot] = next;
        }
        let owners = match &*nodes {
            [] => Box::default(),
            nodes => starts.iter().map(|start| nodes[*start as usize]).collect(),
        };
        RingTable { hash: self.config.hash, slots: Modulus::new(self.slots.len() as u32), owners, starts, nodes }
    }

    /// Who owns which slot, by ring number.
    pub fn ownership(&self) -> Ownership {
        let owners = self.freeze(|id| id).owners;
        let owners = if owners.is_empty() { vec![0; self.slots.len()].into() } else { owners };
        Ownership::new(Slots::Ring(self.config.hash), owners)
    }

    /// The exact fraction of all six-digit request IDs that each of `ids` owns, in that order.
    pub fn shares(&self, ids: &[u32]) -> Vec<f64> {
        self.ownership().shares(ids)
    }
}

/// A frozen ring. A look-up is one array read; walking on is one more a step.
#[derive(Debug, Clone)]
pub struct RingTable {
    hash: RingHash,
    slots: Modulus,
    /// What `freeze` was told to hold for the first virtual node clockwise, by slot; empty if there is none.
    owners: Box<[u32]>,
    /// That node's position in `nodes`, by slot.
    starts: Box<[u32]>,
    /// The same as in `owners`, by virtual node in slot order.
    nodes: Box<[u32]>,
}

impl Lookup for RingTable {
    #[inline]
    fn slot(&self, key: u64) -> u32 {
        self.hash.slot(key, self.slots)
    }

    #[inline]
    fn owner(&self, key: u64) -> Option<u32> {
        self.owners.get(self.slot(key) as usize).copied()
    }

    /// Clockwise from `key`'s slot (its own counts), once around: what each virtual node on the way stands for.
    #[inline]
    fn walk(&self, key: u64) -> impl Iterator<Item = u32> {
        let start = self.starts[self.slot(key) as usize] as usize;
        let (before, from) = self.nodes.split_at(start.min(self.nodes.len()));
        from.iter().chain(before).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HASHES: [RingHash; 3] = [RingHash::Assignment, RingHash::Modified, RingHash::Xxh3];

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
        (0..slots).map(|d| ring.slots[((home + d) % slots) as usize].id).find(|id| *id != 0)
    }

    #[test]
    fn three_replicas_have_the_known_shares() {
        for probing in [Probing::Linear, Probing::Quadratic] {
            let ring = Ring::with_replicas(RingConfig { probing, ..RingConfig::default() }, 3).unwrap();
            let rounded: Vec<_> =
                ring.shares(&[1, 2, 3]).into_iter().map(|share| (share * 1000.0).round() / 10.0).collect();
            assert_eq!(rounded, [84.4, 4.7, 10.9], "{probing}");
            assert_eq!(ring.ownership().reachable_slots(), 87);
        }
    }

    #[test]
    fn the_fifty_seventh_replica_does_not_fit_and_changes_nothing() {
        for probing in [Probing::Linear, Probing::Quadratic] {
            let config = RingConfig { probing, ..RingConfig::default() };
            assert_eq!(config.capacity(), 56);
            let mut ring = Ring::with_replicas(config, 56).unwrap();
            let before = ring.slots.clone();
            assert!(ring.resize(57, 9).is_err());
            assert_eq!(ring.slots, before);
            for id in 1..=56 {
                assert_eq!(ring.slots.iter().filter(|slot| slot.id == id).count(), 9);
            }
        }
    }

    #[test]
    fn quadratic_probing_fills_the_last_free_slot() {
        // Squares modulo a prime reach about half of the slots, so this needs the linear end of the search.
        for slots in [2, 13, 64, 97, 512] {
            let config = RingConfig { slots, vnodes: 1, probing: Probing::Quadratic, ..RingConfig::default() };
            let ring = Ring::with_replicas(config, slots).unwrap();
            assert!(ring.slots.iter().all(|node| *node != FREE), "{slots} slots");
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
        ring.slots[2] = Node { id: 7, vnode: 0 };
        ring.occupied = 1;
        let table = ring.freeze(|id| id);
        assert!(table.starts.iter().all(|start| *start == 0));
        // Key 4 hashes to (16 + 8 + 17) % 8 = 1, key 1 to 20 % 8 = 4: before and behind the only node.
        assert_eq!((table.slot(4), table.slot(1)), (1, 4));
        assert_eq!((owner(&ring, 4), owner(&ring, 1)), (Some(7), Some(7)));
    }

    fn any_config() -> impl Strategy<Value = RingConfig> {
        (1_u32..400, 1_u32..12, 0_usize..3, any::<bool>()).prop_map(|(slots, vnodes, hash, quadratic)| RingConfig {
            slots: slots.max(vnodes),
            vnodes,
            hash: HASHES[hash],
            probing: if quadratic { Probing::Quadratic } else { Probing::Linear },
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
                    prop_assert!(ring.resize(id, config.vnodes).is_ok());
                    ids.insert(id);
                } else {
                    prop_assert!(ring.resize(id, config.vnodes).is_err());
                }
                for id in &ids {
                    prop_assert_eq!(ring.slots.iter().filter(|slot| slot.id == *id).count(), config.vnodes as usize);
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
            if larger.resize(1000, config.vnodes).is_ok() {
                for key in &keys {
                    let after = owner(&larger, *key);
                    prop_assert!(after == owner(&smaller, *key) || after == Some(1000));
                }
            }
        }
    }

    #[test]
    fn a_weight_scales_virtual_nodes_and_keeps_those_there_are() {
        let config = RingConfig { hash: RingHash::Xxh3, ..RingConfig::default() };
        let mut ring = Ring::new(config);
        let hold = |ring: &mut Ring, weights: &[u16]| {
            let places: Vec<Place> = (1..).zip(weights).map(|(id, weight)| Place::new(id, *weight)).collect();
            ring.hold(&places);
            let count = |id: u32| ring.occupied().filter(|(_, holder)| *holder == id).count();
            (1..=weights.len() as u32).map(count).collect::<Vec<_>>()
        };
        assert_eq!(hold(&mut ring, &[1, 1, 1]), [9, 9, 9]);
        let before: Vec<_> = ring.occupied().collect();
        assert_eq!(hold(&mut ring, &[1, 3, 0]), [9, 27, 0]);
        assert!(before.iter().filter(|(_, id)| *id != 3).all(|node| ring.occupied().any(|other| other == *node)));
        assert_eq!(hold(&mut ring, &[1, 1, 1]), [9, 9, 9]);
        assert_eq!(ring.occupied().collect::<Vec<_>>(), before, "back as it was");
        // 101 × 9 are more than 512.
        let many = hold(&mut ring, &[1, 100]);
        assert!(many[0] >= 5 && many[1] > 490 && many.iter().sum::<usize>() <= 512, "{many:?}");
        assert_eq!(hold(&mut ring, &[0, 0]), [0, 0]);
        assert_eq!(owner(&ring, 1), None);
    }
}
