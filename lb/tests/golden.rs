//! Ring and tables against vectors that `golden/ring.py` and `golden/tables.py` made from the definitions, independently of
//! this code.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "tests fail by panicking, and say what they measured"
)]
#![allow(clippy::disallowed_methods, reason = "tests read the environment that they pass on")]

use lb::placement::hash::Probing;
use lb::placement::maglev::Maglev;
use lb::placement::ownership::Ownership;
use lb::placement::rendezvous::Rendezvous;
use lb::placement::ring::{Ring, RingConfig};
use lb::placement::{Lookup, Place};
use serde::Deserialize;

#[derive(Deserialize)]
struct Vector {
    probing: String,
    replicas: u32,
    occupied: Vec<(u32, u32)>,
    /// How many of the six-digit request IDs each ring number owns.
    request_ids: Vec<u64>,
    owners: Vec<(u64, u32)>,
}

#[test]
fn the_ring_is_the_one_that_the_definition_gives() {
    let vectors: Vec<Vector> = serde_json::from_str(include_str!("golden/ring.json")).unwrap();
    assert_eq!(vectors.len(), 10, "1, 2, 3, 6 and 56 replicas by both probings");
    for vector in vectors {
        let what = format!("{} replicas, {}", vector.replicas, vector.probing);
        let probing: Probing = vector.probing.parse().unwrap();
        let ring = Ring::with_replicas(RingConfig { probing, ..RingConfig::default() }, vector.replicas).unwrap();
        assert_eq!(ring.occupied().collect::<Vec<_>>(), vector.occupied, "{what}");
        let ids: Vec<u32> = (1..=vector.replicas).collect();
        let owned: Vec<u64> = ring.shares(&ids).into_iter().map(|share| (share * 900_000.0).round() as u64).collect();
        assert_eq!(owned, vector.request_ids, "{what}");
        let table = ring.freeze(|id| id);
        for (key, owner) in vector.owners {
            assert_eq!(table.walk(key).next(), Some(owner), "{what}, key {key}");
        }
    }
}

/// A table of `maglev.json` or `rendezvous.json`; the script describes it.
#[derive(Deserialize)]
struct TableVector {
    slots: u32,
    members: Vec<(u32, u16)>,
    table: Option<Vec<u32>>,
    crc32: u32,
    counts: Vec<usize>,
    owners: Vec<u32>,
    #[serde(default)]
    rankings: Vec<(u32, Vec<u32>)>,
}

#[derive(Deserialize)]
struct TableVectors {
    keys: Vec<u64>,
    tables: Vec<TableVector>,
}

impl TableVector {
    fn places(&self) -> Vec<Place> {
        self.members.iter().map(|(id, weight)| Place::new(*id, *weight)).collect()
    }

    fn check(&self, keys: &[u64], ownership: &Ownership, table: &impl Lookup) {
        let what = format!("{} slots, {:?}", self.slots, self.members);
        let by_slot = ownership.by_slot();
        if let Some(whole) = &self.table {
            assert_eq!(by_slot, whole, "{what}");
        }
        let bytes: Vec<u8> = by_slot.iter().flat_map(|id| id.to_le_bytes()).collect();
        assert_eq!(crc32fast::hash(&bytes), self.crc32, "{what}");
        let count = |id: u32| by_slot.iter().filter(|owner| **owner == id).count();
        assert_eq!(self.members.iter().map(|(id, _)| count(*id)).collect::<Vec<_>>(), self.counts, "{what}");
        for (key, owner) in keys.iter().zip(&self.owners) {
            assert_eq!((ownership.owner(*key), table.owner(*key)), (Some(*owner), Some(*owner)), "{what}, key {key}");
        }
    }
}

#[test]
fn maglevs_tables_are_those_that_the_definition_gives() {
    let TableVectors { keys, tables } = serde_json::from_str(include_str!("golden/maglev.json")).unwrap();
    assert_eq!((keys.len(), tables.len()), (32, 48));
    for vector in tables {
        let maglev = Maglev::new(vector.slots, &vector.places());
        vector.check(&keys, &maglev.ownership(), &maglev.freeze(|id| id));
    }
}

#[test]
fn rendezvous_winners_are_those_that_the_definition_gives() {
    let TableVectors { keys, tables } = serde_json::from_str(include_str!("golden/rendezvous.json")).unwrap();
    assert_eq!((keys.len(), tables.len()), (32, 48));
    let mut ranked = 0;
    for vector in tables {
        let mut rendezvous = Rendezvous::new(vector.slots);
        rendezvous.hold(&vector.places());
        let table = rendezvous.freeze(|id| id);
        vector.check(&keys, &rendezvous.ownership(), &table);
        for (slot, ranking) in &vector.rankings {
            // Walks begin with keys, so one is looked for that has this slot.
            let key = (0..2_000_000).find(|key| table.slot(*key) == *slot).unwrap();
            assert_eq!(table.walk(key).collect::<Vec<_>>(), *ranking, "slot {slot} of {}", vector.slots);
            ranked += 1;
        }
    }
    assert!(ranked > 100, "{ranked} rankings");
}
