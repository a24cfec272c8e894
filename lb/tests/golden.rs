//! The ring against vectors that `golden/ring.py` made from the definition, independently of this code.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "tests fail by panicking, and say what they measured"
)]
#![allow(clippy::disallowed_methods, reason = "tests read the environment that they pass on")]

use lb::placement::Lookup;
use lb::placement::hash::Probing;
use lb::placement::ring::{Ring, RingConfig};
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
