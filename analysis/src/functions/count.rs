//! Works out what the functions do, one by one and in pairs. Exact. Pure.

use super::function::{KeyFunction, MOST, NODES, NodeFunction, Pair, SLOTS, by_slot};
use super::report::{self, FLEETS};
use super::ring::{Keys, Ring};
use crate::placement::figure::{Cases, Evenness, digits};

/// Where `function` puts all six-digit IDs.
pub(super) fn keys(function: &KeyFunction) -> report::Keys {
    let keys = by_slot(function.slot, |_| true);
    let loads: Vec<f64> = keys.iter().map(|keys| *keys as f64).collect();
    let multiples = by_slot(function.slot, |id| id.is_multiple_of(u64::from(SLOTS)));
    report::Keys {
        name: function.name.into(),
        reached: reached(&keys),
        evenness: Evenness::of(&loads),
        reached_by_multiples: reached(&multiples),
        by_slot: keys,
    }
}

fn reached(keys: &[u64]) -> u32 {
    keys.iter().filter(|keys| **keys > 0).count() as u32
}

/// The next replica comes, on the ring of the defaults.
pub(super) fn add(ring: &mut Ring<'_>, function: NodeFunction) {
    ring.add(NODES, |id, node| function.slot((SLOTS, NODES), id, node));
}

/// Where `function` puts the virtual nodes of the largest of the fleets that are shown.
pub(super) fn nodes(function: NodeFunction) -> report::Nodes {
    let keys = Keys::even(SLOTS);
    let mut ring = Ring::new(&keys);
    let mut longest_gaps = Vec::new();
    for replicas in 1..=*FLEETS.end() {
        add(&mut ring, function);
        if FLEETS.contains(&replicas) {
            longest_gaps.push(ring.longest_gap());
        }
    }
    let placed = |(id, displaced): (u32, &u32)| report::Placed { slots: ring.slots_of(id), displaced: *displaced };
    report::Nodes { function, replicas: (1..).zip(ring.displaced()).map(placed).collect(), longest_gaps }
}

/// What comes of a pair, `keys` being what its `H` does.
pub(super) fn pair(pair: &Pair, keys: &report::Keys) -> report::Pair {
    let keys = Keys::new(&keys.by_slot);
    let mut ring = Ring::new(&keys);
    let (mut fleets, mut max_mean) = (Vec::new(), Vec::new());
    for replicas in 1..=MOST {
        add(&mut ring, pair.nodes);
        if replicas >= *FLEETS.start() {
            max_mean.push(digits(ring.max_mean()));
        }
        if FLEETS.contains(&replicas) {
            let shares = ring.shares();
            let to_one: Vec<f64> = (1..=replicas).filter_map(|failed| ring.largest_heir(failed)).collect();
            fleets.push(report::Fleet {
                evenness: Evenness::of(&shares),
                shares: shares.into_iter().map(digits).collect(),
                to_one: Cases::of(&to_one),
            });
        }
    }
    report::Pair { keys: pair.keys.into(), nodes: pair.nodes, fleets, max_mean }
}

#[cfg(test)]
mod tests {
    use super::super::function::{PAIRS, QUADRATIC, key_functions};
    use super::*;

    #[test]
    fn slots_of_keys_are_counted() {
        let [assignment, ..] = key_functions();
        let own = keys(&assignment);
        // As `lb ring` says. One slot in 512 has a sixteenth of all keys.
        assert_eq!((own.reached, own.by_slot[80], own.evenness.max_mean), (87, 56_250, 32.0));
        assert_eq!((own.reached_by_multiples, keys(&QUADRATIC).reached_by_multiples), (1, 1));
        assert_eq!((keys(&QUADRATIC).reached, own.by_slot.iter().sum::<u64>()), (512, 900_000));
    }

    #[test]
    fn the_assignments_pair_has_the_known_figures() {
        let [assignment, ..] = key_functions();
        let own = pair(&PAIRS[0], &keys(&assignment));
        let percent: Vec<String> = own.fleets[1].shares.iter().map(|share| format!("{:.2}", share * 100.0)).collect();
        assert_eq!(percent, ["84.37", "4.69", "10.94"]);
        assert_eq!((own.max_mean.len(), own.max_mean[0]), (55, own.fleets[0].evenness.max_mean));
        assert_eq!(own.fleets[0].to_one, Cases { mean: 1.0, worst: 1.0 }, "two know only each other");
        assert_eq!(own.worst(), own.max_mean.iter().copied().reduce(f64::max).unwrap());
        let nodes = nodes(NodeFunction::Assignment);
        assert_eq!(nodes.replicas[0].slots, [26, 29, 34, 41, 50, 61, 74, 89, 106]);
        assert_eq!(
            nodes.replicas[1],
            report::Placed { slots: vec![30, 32, 37, 44, 53, 64, 77, 92, 109], displaced: 1 }
        );
        // From slot 109 around to slot 26.
        assert_eq!((nodes.longest_gaps.len(), nodes.longest_gaps[0]), (5, 512 - 109 + 26));
    }
}
