//! What was worked out, as it is written to `functions.json`.

use serde::{Deserialize, Serialize};

use super::function::NodeFunction;
use crate::placement::figure::{Cases, Evenness};

/// Fleets of which everything is shown.
pub(super) const FLEETS: std::ops::RangeInclusive<u32> = 2..=6;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Settings {
    pub(super) slots: u32,
    /// Virtual nodes of each replica.
    pub(super) nodes: u32,
    /// Quadratics drawn at random as `Φ`.
    pub(super) sample: u32,
    pub(super) seed: u64,
}

/// Where an `H` puts the six-digit IDs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Keys {
    pub(super) name: String,
    /// Slots with any.
    pub(super) reached: u32,
    #[serde(flatten)]
    pub(super) evenness: Evenness,
    /// Slots that the IDs reach which are multiples of the number of slots.
    pub(super) reached_by_multiples: u32,
    pub(super) by_slot: Vec<u64>,
}

/// Where a `Φ` puts virtual nodes. Replicas come in ascending order, so a further one changes nothing for the others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Nodes {
    pub(super) function: NodeFunction,
    /// By ring number.
    pub(super) replicas: Vec<Placed>,
    /// The longest way from one node to the next, by fleet.
    pub(super) longest_gaps: Vec<u32>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Placed {
    pub(super) slots: Vec<u32>,
    /// Nodes that got another slot than they wanted.
    pub(super) displaced: u32,
}

/// What comes of an `H` with a `Φ`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Pair {
    pub(super) keys: String,
    pub(super) nodes: NodeFunction,
    pub(super) fleets: Vec<Fleet>,
    /// The largest share, as a multiple of the mean, of two replicas, three, and so on until the ring is full.
    pub(super) max_mean: Vec<f64>,
}

/// Exact figures of one number of replicas.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Fleet {
    pub(super) shares: Vec<f64>,
    #[serde(flatten)]
    pub(super) evenness: Evenness,
    /// The largest part of a failed replica's keys that goes to one survivor, over the replica that fails.
    pub(super) to_one: Cases,
}

/// All quadratics `ai² + bi + c` of one kind, as `H`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Class {
    pub(super) a: Parity,
    pub(super) b: Parity,
    /// Pairs of `a` and `b`.
    pub(super) members: u32,
    /// Slots reached.
    pub(super) fewest: u32,
    pub(super) most: u32,
    /// The keys of the busiest slot, as a multiple of the mean of all slots: the least and the most.
    pub(super) evenest: f64,
    pub(super) unevenest: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Parity {
    Even,
    Odd,
}

/// How uneven a `Φ` is when every slot has as many keys: the largest share, as a multiple of the mean, of the worst fleet.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Worst {
    /// Of [`FLEETS`].
    pub(super) few: f64,
    /// Of all that fit the ring.
    pub(super) all: f64,
}

/// A `Φ` that was not searched for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Known {
    pub(super) function: NodeFunction,
    pub(super) worst: Worst,
}

/// What was searched through.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Family {
    pub(super) name: String,
    pub(super) members: u32,
    pub(super) few: Ranking,
    pub(super) all: Ranking,
    /// How many are better than `modified` in both.
    pub(super) better_in_both: u32,
    /// Of these the best of [`FLEETS`].
    pub(super) best_in_both: Option<NodeFunction>,
}

/// A family in order, from the best.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Ranking {
    pub(super) best: NodeFunction,
    /// How many are better than each of the known ones, in their order.
    pub(super) better: Vec<u32>,
    /// How many are as good.
    pub(super) equal: Vec<u32>,
    /// The best, that behind which one percent comes, and so on to the worst.
    pub(super) percentiles: Vec<f64>,
}

/// How uneven a `Φ` is on other rings than that of the search.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Elsewhere {
    pub(super) function: NodeFunction,
    /// On that of the search.
    pub(super) worst: Worst,
    /// Of [`FLEETS`], in the order of the rings.
    pub(super) few: Vec<f64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Report {
    pub(super) settings: Settings,
    pub(super) keys: Vec<Keys>,
    pub(super) nodes: Vec<Nodes>,
    pub(super) pairs: Vec<Pair>,
    pub(super) classes: Vec<Class>,
    pub(super) known: Vec<Known>,
    pub(super) families: Vec<Family>,
    pub(super) elsewhere: Vec<Elsewhere>,
}

impl Pair {
    /// The worst of all fleets.
    pub(super) fn worst(&self) -> f64 {
        self.max_mean.iter().copied().fold(0.0, f64::max)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Two pairs, one search, and round figures.
    pub(in crate::functions) fn report() -> Report {
        let even = |max_mean| Evenness { max_mean, sd_mean: 0.1 };
        let keys = |name: &str, reached: u32| Keys {
            name: name.into(),
            reached,
            evenness: even(2.0),
            reached_by_multiples: 1,
            by_slot: (0..512).map(|slot| u64::from(slot < reached)).collect(),
        };
        let nodes = |function, first: u32| Nodes {
            function,
            replicas: (0..6)
                .map(|at| Placed { slots: vec![first + at, first + 20 * at + 100], displaced: at })
                .collect(),
            longest_gaps: vec![400, 300, 200, 100, 50],
        };
        let pair = |keys: &str, nodes, max_mean: f64| Pair {
            keys: keys.into(),
            nodes,
            fleets: FLEETS
                .map(|replicas| Fleet {
                    shares: vec![1.0 / f64::from(replicas); replicas as usize],
                    evenness: even(max_mean),
                    to_one: Cases { mean: 0.5, worst: 0.75 },
                })
                .collect(),
            max_mean: (0..55).map(|more| max_mean + f64::from(more) / 10.0).collect(),
        };
        let ranking = |best| Ranking {
            best: NodeFunction::Multiples(best),
            better: vec![8],
            equal: vec![2],
            percentiles: (0..=100).map(|percent| 1.25 + f64::from(percent) / 128.0).collect(),
        };
        let family = |name: &str| Family {
            name: name.into(),
            members: 65_536,
            few: ranking(45),
            all: ranking(13),
            better_in_both: 3,
            best_in_both: None,
        };
        Report {
            settings: Settings { slots: 512, nodes: 9, sample: 1000, seed: 17 },
            keys: vec![keys("assignment", 87), keys("modified", 512)],
            nodes: vec![nodes(NodeFunction::Assignment, 26), nodes(NodeFunction::Modified, 6)],
            pairs: vec![
                pair("assignment", NodeFunction::Assignment, 2.5),
                pair("modified", NodeFunction::Modified, 1.125),
            ],
            classes: vec![Class {
                a: Parity::Even,
                b: Parity::Odd,
                members: 65_536,
                fewest: 1,
                most: 256,
                evenest: 1.0,
                unevenest: 1.0,
            }],
            known: vec![Known { function: NodeFunction::Modified, worst: Worst { few: 1.375, all: 1.75 } }],
            families: vec![family("m(9i + j), m odd"), family("drawn")],
            elsewhere: vec![Elsewhere {
                function: NodeFunction::Multiples(45),
                worst: Worst { few: 1.25, all: 1.875 },
                few: vec![1.5, 1.25, 1.5, 1.75, 3.0],
            }],
        }
    }

    #[test]
    fn the_worst_is_that_of_all_fleets() {
        assert!((report().pairs[0].worst() - 7.9).abs() < 1e-9);
    }
}
