//! What was worked out, as it is written to `placement.json`, and whether the goals hold.

use lb::policy::PolicyKind;
use serde::{Deserialize, Serialize};

use super::case::grouped;
use super::figure::{Cases, Evenness};
use crate::bench::machine::Machine;

/// Fleets before which requests are spread.
pub(super) const FLEETS: [u32; 3] = [3, 6, 50];
/// Fleets of which one replica leaves, or to which one comes.
pub(super) const CHANGED: [u32; 4] = [3, 6, 50, 500];
/// Replicas of the parts about shares and failures.
pub(super) const SIX: u32 = 6;
/// Requests held at any time.
pub(super) const IN_FLIGHT: usize = 100;
/// Factors of bounded loads.
pub(super) const BOUNDS: [f64; 2] = [1.25, 1.1];
/// Weights that are tried, and how many requests are held then.
pub(super) const WEIGHTS: [u16; 4] = [1, 2, 3, 4];
pub(super) const WEIGHTED_IN_FLIGHT: usize = 200;
/// Requests of the goals of bounded loads.
pub(super) const BOUNDED_REQUESTS: u32 = 10_000;
/// Slots of each replica from which on Maglev's table is to move few others.
const SLOTS_EACH: u32 = 100;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Settings {
    /// Random requests of each spread.
    pub(super) requests: u32,
    /// Those of each distribution by weight.
    pub(super) weighted_requests: u32,
    pub(super) seed: u64,
}

/// How evenly requests fall on replicas of one weight.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Spread {
    pub(super) case: String,
    pub(super) replicas: u32,
    /// Requests held at any time; 0: one has ended before the next comes.
    pub(super) in_flight: usize,
    /// `None`: no bound.
    pub(super) bound: Option<f64>,
    pub(super) requests: u32,
    #[serde(flatten)]
    pub(super) evenness: Evenness,
}

/// What each of the replicas owns, by ring number: exact fractions of all six-digit IDs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Shares {
    pub(crate) case: String,
    pub(crate) shares: Vec<f64>,
}

/// What replicas with different weights get.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Weighted {
    pub(super) case: String,
    pub(super) in_flight: usize,
    pub(super) weights: Vec<u16>,
    pub(super) shares: Vec<f64>,
}

impl Weighted {
    /// What is due to each.
    pub(super) fn due(&self) -> Vec<f64> {
        let total: f64 = self.weights.iter().map(|weight| f64::from(*weight)).sum();
        self.weights.iter().map(|weight| f64::from(*weight) / total).collect()
    }

    /// The largest difference, as a part of what is due.
    pub(super) fn off(&self) -> f64 {
        self.shares.iter().zip(self.due()).map(|(got, due)| (got - due).abs() / due).fold(0.0, f64::max)
    }
}

/// What one replica less, or one more, moves: exact fractions of all six-digit IDs. Means and worst are over the replica
/// that leaves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Moves {
    pub(super) case: String,
    pub(super) kind: String,
    pub(super) replicas: u32,
    /// Slots of the ring or table.
    pub(super) slots: u32,
    /// All that move when one leaves.
    pub(super) removed: Cases,
    /// The leaving one's own keys, which must move.
    pub(super) own: Cases,
    /// Of those that move: from one that stays to another that stays.
    pub(super) survivors: Cases,
    /// All that move when one comes.
    pub(super) added: f64,
    /// Of those: not to the one that comes.
    pub(super) added_others: f64,
}

/// What becomes of the keys of a replica that is out of rotation. Means and worst are over that replica.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Failure {
    pub(super) case: String,
    pub(super) replicas: u32,
    /// The largest part of its keys that goes to one survivor.
    pub(super) largest: Cases,
    /// The survivors' largest load, as a multiple of their mean.
    pub(super) max_mean: Cases,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Goal {
    pub(super) goal: String,
    pub(super) limit: f64,
    pub(super) found: f64,
    pub(super) holds: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Report {
    pub(super) machine: Machine,
    pub(super) settings: Settings,
    pub(super) spread: Vec<Spread>,
    /// Those of the goals of bounded loads.
    pub(super) bounded: Vec<Spread>,
    pub(super) shares: Vec<Shares>,
    pub(super) weighted: Vec<Weighted>,
    pub(super) moves: Vec<Moves>,
    pub(super) failures: Vec<Failure>,
    pub(super) goals: Vec<Goal>,
}

impl Report {
    pub(super) fn spread_of(
        &self,
        case: &str,
        replicas: u32,
        in_flight: usize,
        bound: Option<f64>,
    ) -> Option<Evenness> {
        let is_it = |row: &&Spread| {
            row.case == case && row.replicas == replicas && row.in_flight == in_flight && row.bound == bound
        };
        self.spread.iter().find(is_it).map(|row| row.evenness)
    }

    /// The cases of the spread, in their order.
    pub(super) fn cases(&self) -> Vec<&str> {
        let mut cases: Vec<&str> = Vec::new();
        for row in &self.spread {
            if !cases.contains(&row.case.as_str()) {
                cases.push(&row.case);
            }
        }
        cases
    }

    /// Do all goals hold?
    pub(super) fn holds(&self) -> bool {
        self.goals.iter().all(|goal| goal.holds)
    }

    /// Judges all goals of which there are the figures.
    pub(super) fn judge(&mut self) {
        let mut goals = Vec::new();
        let mut at_most = |goal: String, limit: f64, found: f64| {
            goals.push(Goal { goal, limit, found, holds: found <= limit });
        };
        for (case, limit) in [("maglev, 65,537", 1.03), ("consistent, xxh3, 65,536 × 1000", 1.05)] {
            if let Some(found) = self.spread_of(case, FLEETS[0], 0, None) {
                at_most(
                    format!("max/mean of {case}; {} replicas, one request at a time", FLEETS[0]),
                    limit,
                    found.max_mean,
                );
            }
        }
        for row in &self.bounded {
            let Spread { case, replicas, in_flight, requests, .. } = row;
            let Some(bound) = row.bound else { continue };
            // The bound holds for what is in flight; what was served differs from that by chance.
            let goal = format!(
                "max/mean of {case}; bound {bound}, {replicas} replicas, {in_flight} in flight, {} requests",
                grouped(*requests)
            );
            at_most(goal, super::figure::digits(bound + 0.05), row.evenness.max_mean);
        }
        for kind in PolicyKind::ALL.iter().filter(|kind| kind.is_hashing()) {
            let of_kind = |row: &&Moves| row.kind == kind.to_string() && row.slots / row.replicas >= SLOTS_EACH;
            let all = |row: &&Moves| row.kind == kind.to_string();
            let (rows, limit): (Vec<&Moves>, f64) = match kind {
                PolicyKind::Maglev => (self.moves.iter().filter(of_kind).collect(), 0.02),
                _ => (self.moves.iter().filter(all).collect(), 0.0),
            };
            let worst = rows.iter().map(|row| row.survivors.worst).reduce(f64::max);
            let few = if limit > 0.0 { format!(", {SLOTS_EACH} slots and more each") } else { String::new() };
            if let Some(worst) = worst {
                at_most(format!("share of keys that a removal moves between survivors: {kind}{few}"), limit, worst);
            }
        }
        self.goals = goals;
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn even(max_mean: f64) -> Evenness {
        Evenness { max_mean, sd_mean: 0.1 }
    }

    /// One case of each kind, with round figures.
    pub(in crate::placement) fn report() -> Report {
        let spread = |case: &str, in_flight, bound, max_mean| Spread {
            case: case.into(),
            replicas: 3,
            in_flight,
            bound,
            requests: 1000,
            evenness: even(max_mean),
        };
        let ring = "consistent, assignment, 512 × 9";
        let cases = |mean, worst| Cases { mean, worst };
        let moves = |case: &str, kind: &str, replicas, survivors| Moves {
            case: case.into(),
            kind: kind.into(),
            replicas,
            slots: 65_537,
            removed: cases(1.0 / f64::from(replicas) + survivors, 0.5),
            own: cases(1.0 / f64::from(replicas), 0.5),
            survivors: cases(survivors, survivors),
            added: 0.25,
            added_others: survivors,
        };
        Report {
            machine: Machine::default(),
            settings: Settings { requests: 1000, weighted_requests: 4000, seed: 17 },
            spread: vec![
                spread(ring, 0, None, 2.5),
                spread(ring, IN_FLIGHT, None, 2.5),
                spread(ring, IN_FLIGHT, Some(1.25), 1.26),
                spread(ring, IN_FLIGHT, Some(1.1), 1.12),
                spread("maglev, 65,537", 0, None, 1.01),
                spread("random", 0, None, 1.02),
                spread("random", IN_FLIGHT, None, 1.03),
            ],
            bounded: vec![spread(ring, IN_FLIGHT, Some(1.25), 1.29), spread(ring, IN_FLIGHT, Some(1.1), 1.16)],
            shares: vec![Shares { case: ring.into(), shares: vec![0.5, 0.1, 0.1, 0.1, 0.1, 0.1] }],
            weighted: vec![Weighted {
                case: "random".into(),
                in_flight: 0,
                weights: WEIGHTS.into(),
                shares: vec![0.1, 0.21, 0.29, 0.4],
            }],
            moves: vec![
                moves(ring, "consistent", 3, 0.0),
                moves("maglev, 65,537", "maglev", 3, 0.01),
                moves("maglev, 65,537", "maglev", 1000, 0.3),
            ],
            failures: vec![Failure {
                case: ring.into(),
                replicas: 6,
                largest: cases(0.5, 0.75),
                max_mean: cases(1.5, 2.0),
            }],
            goals: Vec::new(),
        }
    }

    #[test]
    fn goals_are_judged_by_their_own_limits() {
        let mut report = report();
        report.judge();
        let found: Vec<_> = report.goals.iter().map(|goal| (goal.limit, goal.found, goal.holds)).collect();
        // Of the figures that are missing no goal is judged; a table too small for its fleet does not count.
        let expected =
            [(1.03, 1.01, true), (1.3, 1.29, true), (1.15, 1.16, false), (0.0, 0.0, true), (0.02, 0.01, true)];
        assert_eq!(found, expected);
        assert!(!report.holds());
        report.moves[0].survivors.worst = 1e-6;
        report.judge();
        assert!(!report.goals[3].holds, "not one key");
    }

    #[test]
    fn what_is_due_is_in_proportion_to_weights() {
        let weighted = &report().weighted[0];
        assert_eq!(weighted.due(), [0.1, 0.2, 0.3, 0.4]);
        assert!((weighted.off() - 0.05).abs() < 1e-9);
    }
}
