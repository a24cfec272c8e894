//! Searches for better functions. Exact, but for the sample, which comes from a seed. Pure.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::function::{MOST, NODES, NodeFunction, SLOTS, by_slot};
use super::report::{Class, Elsewhere, FLEETS, Family, Known, Parity, Ranking, Worst};
use super::ring::{Keys, Ring};
use crate::placement::figure::digits;

/// The odd neighbours of 512 / φ = 316.4.
const GOLDEN: [u32; 2] = [315, 317];
/// Rings other than that of the search.
pub(super) const ELSEWHERE: [(u32, u32); 5] = [(512, 8), (512, 10), (512, 12), (1024, 9), (4096, 9)];

/// All quadratics as `H`, by what `a` and `b` are. What is added to a quadratic turns the ring, and changes no figure here.
pub(super) fn quadratics() -> Vec<Class> {
    // A quadratic knows only the remainder of an ID.
    let ids = by_slot(|id| (id % u64::from(SLOTS)) as u32, |_| true);
    let mean = ids.iter().sum::<u64>() as f64 / f64::from(SLOTS);
    let mut classes: Vec<Class> = Vec::new();
    for a in 0..SLOTS {
        for b in 0..SLOTS {
            let (reached, busiest) = quadratic(a, b, &ids);
            let busiest = digits(busiest as f64 / mean);
            let parities = (Parity::of(a), Parity::of(b));
            match classes.iter_mut().find(|class| (class.a, class.b) == parities) {
                Some(class) => {
                    class.members += 1;
                    class.fewest = class.fewest.min(reached);
                    class.most = class.most.max(reached);
                    class.evenest = class.evenest.min(busiest);
                    class.unevenest = class.unevenest.max(busiest);
                }
                None => classes.push(Class {
                    a: parities.0,
                    b: parities.1,
                    members: 1,
                    fewest: reached,
                    most: reached,
                    evenest: busiest,
                    unevenest: busiest,
                }),
            }
        }
    }
    classes
}

impl Parity {
    fn of(number: u32) -> Self {
        if number.is_multiple_of(2) { Self::Even } else { Self::Odd }
    }
}

/// How many slots `ai² + bi` reaches, and how many keys the busiest has.
fn quadratic(a: u32, b: u32, ids: &[u64]) -> (u32, u64) {
    let mut keys = [0_u64; SLOTS as usize];
    // From one value to the next it is a + b, then 2a more each time.
    let (mut slot, mut step) = (0, a + b);
    for ids in ids {
        keys[(slot % SLOTS) as usize] += ids;
        slot = (slot + step) % SLOTS;
        step = (step + 2 * a) % SLOTS;
    }
    (keys.iter().filter(|keys| **keys > 0).count() as u32, keys.iter().copied().max().unwrap_or(0))
}

/// How uneven `function` is with keys in every slot alike.
fn worst(function: NodeFunction, (slots, nodes): (u32, u32), keys: &Keys, most: u32) -> Worst {
    let mut ring = Ring::new(keys);
    let mut worst = Worst { few: 0.0, all: 0.0 };
    for replicas in 1..=most {
        ring.add(nodes, |id, node| function.slot((slots, nodes), id, node));
        let max_mean = if replicas < *FLEETS.start() { 0.0 } else { ring.max_mean() };
        worst.all = worst.all.max(max_mean);
        if replicas <= *FLEETS.end() {
            worst.few = worst.all;
        }
    }
    worst
}

/// The functions that the families are held against. The first one is ours.
pub(super) fn known() -> Vec<Known> {
    let own = [NodeFunction::Modified, NodeFunction::Xxh3, NodeFunction::Assignment].into_iter();
    let keys = Keys::even(SLOTS);
    let known = |function| Known { function, worst: worst(function, (SLOTS, NODES), &keys, MOST) };
    own.chain(GOLDEN.map(NodeFunction::Multiples)).map(known).collect()
}

/// `m(9i + j)` with every odd `m`. With an even one most slots stay out of reach.
pub(super) fn multiples(known: &[Known]) -> Option<Family> {
    let members = (1..SLOTS).step_by(2).map(NodeFunction::Multiples);
    family(&format!("m({NODES}i + j), m odd"), members.collect(), known)
}

/// Random quadratics in `i` and `j`.
pub(super) fn sample(count: u32, seed: u64, known: &[Known]) -> Option<Family> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut drawn = || NodeFunction::Quadratic([0; 5].map(|_: u32| random.random_range(0..SLOTS)));
    family("ai² + bj² + cij + di + ej, drawn", (0..count).map(|_| drawn()).collect(), known)
}

/// Judges all of them.
fn family(name: &str, members: Vec<NodeFunction>, known: &[Known]) -> Option<Family> {
    let keys = Keys::even(SLOTS);
    let judged = |function| (function, worst(function, (SLOTS, NODES), &keys, MOST));
    let judged: Vec<(NodeFunction, Worst)> = members.into_iter().map(judged).collect();
    let ours = known.first()?.worst;
    let better: Vec<&(NodeFunction, Worst)> =
        judged.iter().filter(|(_, worst)| worst.few < ours.few && worst.all < ours.all).collect();
    let best = better.iter().min_by(|one, other| one.1.few.total_cmp(&other.1.few));
    Some(Family {
        name: name.into(),
        members: judged.len() as u32,
        few: ranking(&judged, known, |worst| worst.few)?,
        all: ranking(&judged, known, |worst| worst.all)?,
        better_in_both: better.len() as u32,
        best_in_both: best.map(|(function, _)| *function),
    })
}

/// `None` if there is nobody to rank.
fn ranking(judged: &[(NodeFunction, Worst)], known: &[Known], of: fn(&Worst) -> f64) -> Option<Ranking> {
    let mut values: Vec<f64> = judged.iter().map(|(_, worst)| of(worst)).collect();
    values.sort_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    // Of several that are the best, the first.
    let (best, _) = judged.iter().find(|(_, worst)| of(worst) <= values[0])?;
    let better = |known: &Known| values.partition_point(|value| *value < of(&known.worst)) as u32;
    let until = |known: &Known| values.partition_point(|value| *value <= of(&known.worst)) as u32;
    Some(Ranking {
        best: *best,
        better: known.iter().map(better).collect(),
        equal: known.iter().map(|known| until(known) - better(known)).collect(),
        percentiles: (0..=100).map(|percent| values[last * percent / 100]).collect(),
    })
}

/// How `function` does, on the ring of the search and on others.
pub(super) fn elsewhere(function: NodeFunction) -> Elsewhere {
    let few = |ring: (u32, u32)| digits(worst(function, ring, &Keys::even(ring.0), *FLEETS.end()).few);
    let worst = worst(function, (SLOTS, NODES), &Keys::even(SLOTS), MOST);
    Elsewhere { function, worst, few: ELSEWHERE.map(few).into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quadratics_are_permutations_where_the_theorem_says_so() {
        let classes = quadratics();
        assert_eq!(super::super::tests::recorded().classes, classes);
        assert_eq!(classes.iter().map(|class| class.members).sum::<u32>(), SLOTS * SLOTS);
        let of = |a, b| {
            let class = classes.iter().find(|class| (class.a, class.b) == (a, b)).unwrap();
            (class.fewest, class.most)
        };
        assert_eq!(of(Parity::Even, Parity::Odd), (512, 512));
        assert_eq!(of(Parity::Odd, Parity::Even), (87, 87), "as the assignment's");
        assert_eq!(of(Parity::Odd, Parity::Odd), (256, 256));
        assert_eq!(of(Parity::Even, Parity::Even), (1, 256));
    }

    #[test]
    fn a_quadratic_is_stepped_through_as_it_is_written() {
        for (a, b) in [(0, 0), (1, 2), (511, 511), (6, 3)] {
            let ids: Vec<u64> = (0..512).map(|id| 1 + id % 7).collect();
            let mut keys = [0; 512];
            (0..512).for_each(|i: u32| keys[((a * i * i + b * i) % 512) as usize] += ids[i as usize]);
            let reached = keys.iter().filter(|keys| **keys > 0).count() as u32;
            assert_eq!(quadratic(a, b, &ids), (reached, *keys.iter().max().unwrap()), "{a}i² + {b}i");
        }
    }

    #[test]
    fn a_constant_only_turns_the_ring() {
        let keys = Keys::even(SLOTS);
        let by = |constant: u32| {
            let mut ring = Ring::new(&keys);
            let own = NodeFunction::Quadratic([3, 7, 100, 61, 8]);
            (0..20).for_each(|_| ring.add(NODES, |id, node| own.slot((SLOTS, NODES), id, node) + constant));
            ring.shares()
        };
        assert!((1..SLOTS).all(|constant| by(constant) == by(0)));
    }

    #[test]
    fn a_multiplier_and_its_negative_are_as_good() {
        let keys = Keys::even(SLOTS);
        let of = |by| worst(NodeFunction::Multiples(by), (SLOTS, NODES), &keys, MOST);
        for by in (1..256).step_by(18) {
            assert_eq!(of(by), of(SLOTS - by), "{by}");
        }
    }

    #[test]
    fn ranks_count_who_is_better_and_who_as_good() {
        let at = |few, all| Worst { few, all };
        let function = |m| NodeFunction::Multiples(m);
        let judged = [(function(1), at(1.5, 1.6)), (function(3), at(1.25, 2.0)), (function(5), at(1.25, 1.5))];
        let known = [Known { function: NodeFunction::Modified, worst: at(1.5, 1.8) }];
        let few = ranking(&judged, &known, |worst| worst.few).unwrap();
        assert_eq!((few.best, &*few.better, &*few.equal), (function(3), &[2][..], &[1][..]));
        assert_eq!((few.percentiles[0], few.percentiles[50], few.percentiles[100]), (1.25, 1.25, 1.5));
        let all = ranking(&judged, &known, |worst| worst.all).unwrap();
        assert_eq!((all.best, &*all.better, &*all.equal), (function(5), &[2][..], &[0][..]));
        assert!(ranking(&[], &known, |worst| worst.all).is_none());
    }

    #[test]
    fn the_same_seed_draws_the_same_functions() {
        let known = &known()[..1];
        assert_eq!(sample(50, 17, known), sample(50, 17, known));
        assert_ne!(sample(50, 17, known), sample(50, 18, known));
    }
}
