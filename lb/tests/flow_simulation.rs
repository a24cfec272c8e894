//! The table of UDP flows beside a plain list, through thousands of random events.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]
#![allow(clippy::disallowed_methods, reason = "the seed to replay comes from the environment")]

use std::collections::HashSet;

use lb::relay::flow::Flows;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// The simplest thing that does the same: a list, oldest first.
#[derive(Default)]
struct Model(Vec<(u32, u32, u64)>);

impl Model {
    fn touch(&mut self, key: u32, now: u64) {
        if let Some(at) = self.0.iter().position(|(known, ..)| *known == key) {
            let (key, value, _) = self.0.remove(at);
            self.0.push((key, value, now));
        }
    }
}

/// One run of thousands of random events beside the model. A failure prints the seed, which `RINGKEEPER_SEED` replays.
fn simulate(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut flows, mut model) = (Flows::<u32, u32>::default(), Model::default());
    let (mut now, mut gone) = (0_u64, HashSet::new());
    for step in 0..3_000 {
        let fail = |what: &str| panic!("seed {seed}, step {step}: {what}");
        now += rng.random_range(0..3);
        let key = rng.random_range(0..40);
        match rng.random_range(0..100) {
            // A datagram: of a known flow, or of a new one, for which the oldest may have to go.
            0..=69 => match flows.find(&key).map(|(id, value)| (id, *value)) {
                Some((id, value)) => {
                    assert!(model.0.iter().any(|known| (known.0, known.1) == (key, value)), "seed {seed}, {step}");
                    flows.touch(id, now);
                    model.touch(key, now);
                }
                None => {
                    if flows.len() == 20 {
                        let oldest = model.0.remove(0);
                        if flows.remove_oldest() != Some(oldest.1) {
                            fail("another flow than the oldest was evicted");
                        }
                    }
                    flows.insert(key, step, now);
                    model.0.push((key, step, now));
                }
            },
            // A replica is gone, and all its flows.
            70..=74 => {
                let of = rng.random_range(0..5);
                let ended = flows.remove_where(|value| value % 5 == of);
                let before = model.0.len();
                model.0.retain(|(_, value, _)| value % 5 != of);
                if ended != before - model.0.len() {
                    fail("other flows than the replica's have ended");
                }
            }
            75..=84 => {
                let before = now.saturating_sub(rng.random_range(0..40));
                while let Some(value) = flows.remove_idle(before) {
                    if model.0.is_empty() || model.0.remove(0).1 != value {
                        fail("a flow ended out of turn");
                    }
                }
                if model.0.first().is_some_and(|(_, _, used)| *used <= before) {
                    fail("an idle flow was kept");
                }
            }
            85..=92 => {
                if let Some((id, _)) = flows.find(&key) {
                    flows.remove(id);
                    gone.insert(id);
                    model.0.retain(|(known, ..)| *known != key);
                }
            }
            // Late news of flows that have ended.
            _ => {
                for id in &gone {
                    flows.touch(*id, now);
                    if flows.get(*id).is_some() {
                        fail("an ended flow came back");
                    }
                }
            }
        }
        assert_eq!(flows.len(), model.0.len(), "seed {seed}, step {step}");
        let order: Vec<_> = flows.by_age().map(|(key, value, used)| (*key, *value, used)).collect();
        assert_eq!(order, model.0, "seed {seed}, step {step}");
        assert_eq!((0..40).filter(|key| flows.find(key).is_some()).count(), order.len(), "seed {seed}, step {step}");
    }
}

#[test]
fn a_simulation_agrees_with_a_list() {
    match std::env::var("RINGKEEPER_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => simulate(seed),
        None => (0..60).for_each(simulate),
    }
}
