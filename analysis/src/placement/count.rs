//! Works the figures out: each function one row of a table.

use lb::placement::Place;
use lb::placement::ownership::Ownership;
use lb::policy;

use super::case::Case;
use super::figure::{Cases, Evenness, digits};
use super::fleet::Fleet;
use super::report::{Failure, Moves, Shares, Spread, Weighted};

fn ones(replicas: u32) -> Vec<u16> {
    vec![1; replicas as usize]
}

/// Random requests before replicas of weight 1.
pub(super) fn spread(
    case: &Case,
    replicas: u32,
    (in_flight, bound): (usize, Option<f64>),
    (requests, seed): (u32, u64),
) -> Result<Spread, String> {
    let counts = Fleet::new(&case.bounded(bound), &ones(replicas))?.counts(requests, in_flight, seed)?;
    let loads: Vec<f64> = counts.iter().map(|count| *count as f64).collect();
    Ok(Spread { case: case.name.clone(), replicas, in_flight, bound, requests, evenness: Evenness::of(&loads) })
}

/// Random requests before replicas of these weights, without a bound.
pub(super) fn weighted(
    case: &Case,
    weights: &[u16],
    in_flight: usize,
    (requests, seed): (u32, u64),
) -> Result<Weighted, String> {
    let counts = Fleet::new(&case.bounded(None), weights)?.counts(requests, in_flight, seed)?;
    let shares = counts.iter().map(|count| digits(*count as f64 / f64::from(requests))).collect();
    Ok(Weighted { case: case.name.clone(), in_flight, weights: weights.to_vec(), shares })
}

/// Who owns what among replicas of weight 1.
fn layout(case: &Case, replicas: u32) -> Result<(policy::Layout, Ownership), String> {
    let layout = policy::layout(&case.config, &Place::first(replicas));
    let layout = layout.ok_or_else(|| format!("{} does not go by keys", case.name))?;
    let ownership = layout.ownership();
    Ok((layout, ownership))
}

/// Exact shares of replicas of weight 1.
pub(crate) fn shares(case: &Case, replicas: u32) -> Result<Shares, String> {
    let (_, ownership) = layout(case, replicas)?;
    let ids: Vec<u32> = (1..=replicas).collect();
    Ok(Shares { case: case.name.clone(), shares: ownership.shares(&ids).into_iter().map(digits).collect() })
}

/// Exact moves when each of the replicas leaves, and when one comes.
pub(super) fn moves(case: &Case, replicas: u32) -> Result<Moves, String> {
    let (layout, before) = layout(case, replicas)?;
    let keys = before.keys();
    let places = Place::first(replicas);
    let (mut removed, mut own, mut survivors) = (Vec::new(), Vec::new(), Vec::new());
    for gone in 1..=replicas {
        let rest: Vec<Place> = places.iter().copied().filter(|place| place.id != gone).collect();
        let after = layout.clone().hold(&rest).ownership();
        removed.push(before.moved_if(&after, &keys, |_, _| true));
        own.push(before.moved_if(&after, &keys, |from, _| from == gone));
        survivors.push(before.moved_if(&after, &keys, |from, _| from != gone));
    }
    let newcomer = replicas + 1;
    let after = layout.hold(&Place::first(newcomer)).ownership();
    Ok(Moves {
        case: case.name.clone(),
        kind: case.config.kind.to_string(),
        replicas,
        slots: before.by_slot().len() as u32,
        removed: Cases::of(&removed),
        own: Cases::of(&own),
        survivors: Cases::of(&survivors),
        added: digits(before.moved_if(&after, &keys, |_, _| true)),
        added_others: digits(before.moved_if(&after, &keys, |_, to| to != newcomer)),
    })
}

/// Takes each replica out of rotation, and sees where its keys go. Those without any keys don't count.
pub(super) fn failure(case: &Case, replicas: u32) -> Result<Failure, String> {
    let fleet = Fleet::new(&case.bounded(None), &ones(replicas))?;
    let before = fleet.owners()?;
    let (mut largest, mut loads) = (Vec::new(), Vec::new());
    for failed in 1..=replicas {
        fleet.set_ready(failed, false);
        let after = fleet.owners()?;
        fleet.set_ready(failed, true);
        let (mut inherited, mut load) = (vec![0_u64; replicas as usize], vec![0_u64; replicas as usize]);
        for (from, to) in before.iter().zip(&after) {
            load[*to as usize - 1] += 1;
            inherited[*to as usize - 1] += u64::from(*from == failed);
        }
        let lost: u64 = inherited.iter().sum();
        if lost > 0 {
            largest.push(inherited.iter().copied().max().unwrap_or(0) as f64 / lost as f64);
        }
        load.remove(failed as usize - 1);
        let load: Vec<f64> = load.into_iter().map(|keys| keys as f64).collect();
        loads.push(Evenness::of(&load).max_mean);
    }
    Ok(Failure { case: case.name.clone(), replicas, largest: Cases::of(&largest), max_mean: Cases::of(&loads) })
}

#[cfg(test)]
mod tests {
    use super::super::case::{Case, EVEN, SMALL};
    use super::*;
    use lb::placement::hash::RingHash;
    use lb::policy::PolicyKind;

    #[test]
    fn two_replicas_know_only_each_other() {
        let failure = failure(&Case::ring(RingHash::Xxh3, SMALL), 2).unwrap();
        assert_eq!(failure.largest, Cases { mean: 1.0, worst: 1.0 });
        assert_eq!(failure.max_mean.worst, 1.0);
    }

    #[test]
    fn removals_move_the_own_keys_and_with_maglev_few_others() {
        let ring = moves(&Case::ring(RingHash::Assignment, SMALL), 3).unwrap();
        assert_eq!(ring.removed, ring.own);
        assert_eq!((ring.survivors.worst, ring.added_others), (0.0, 0.0));
        assert!((ring.own.mean - 1.0 / 3.0).abs() < 1e-6 && ring.own.worst > 0.84, "{ring:?}");
        let maglev = moves(&Case::of(PolicyKind::Maglev), 3).unwrap();
        assert!(maglev.survivors.worst > 0.0 && maglev.removed.mean > maglev.own.mean, "{maglev:?}");
        assert!(moves(&Case::of(PolicyKind::Random), 3).is_err());
    }

    #[test]
    fn shares_of_the_assignments_ring_are_those_that_lb_ring_shows() {
        let shares = shares(&Case::ring(RingHash::Assignment, SMALL), 3).unwrap().shares;
        let percent: Vec<String> = shares.iter().map(|share| format!("{:.2}", share * 100.0)).collect();
        assert_eq!(percent, ["84.37", "4.69", "10.94"]);
    }

    #[test]
    fn a_bound_makes_the_assignments_ring_even_and_turns_are_exact() {
        let ring = Case::ring(RingHash::Assignment, SMALL);
        let of = |bound| spread(&ring, 3, (100, bound), (5000, 1)).unwrap().evenness.max_mean;
        assert!(of(None) > 2.4 && of(Some(1.25)) < 1.35, "{} {}", of(None), of(Some(1.25)));
        let turns = spread(&Case::of(PolicyKind::RoundRobin), 3, (0, None), (3000, 1)).unwrap();
        assert_eq!(turns.evenness, Evenness { max_mean: 1.0, sd_mean: 0.0 });
        let heavy = weighted(&Case::of(PolicyKind::RoundRobin), &[1, 3], 0, (4000, 1)).unwrap();
        assert_eq!(heavy.shares, [0.25, 0.75]);
        assert!(Case::ring(RingHash::Xxh3, EVEN).holds(65));
    }
}
