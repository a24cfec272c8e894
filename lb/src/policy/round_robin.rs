//! Smooth weighted round robin.
//!
//! Members take turns, each as often as its weight says. The turns of a round are spread evenly, as in nginx's smooth
//! weighted balancing: weights 5, 1, 1 give a a b a c a a, not a a a a a b c. A round is laid down when the membership
//! changes; after that a pick is one step of a cursor that all threads share, so the turns are right whichever thread takes
//! them. Whoever can't take a turn is passed over, and the turn goes to the next: its part is shared by all others, as their
//! turns come.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::explain::{Explanation, Witness};
use super::tiers::{Kind, Scope};
use super::{PickCx, Picker};
use crate::replica::Replica;

/// Turns of a round, at most; larger weights are scaled down to fit, as near as whole numbers allow.
const LONGEST_ROUND: u64 = 8192;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct RoundRobin {
    cursor: Arc<AtomicUsize>,
}

impl Kind for RoundRobin {
    fn build(&self, members: Arc<[Arc<Replica>]>, _: Scope) -> Arc<dyn Picker> {
        let weights = (0..).zip(members.iter()).map(|(at, member)| (at, u64::from(member.weight())));
        let round = round(&weights.collect::<Vec<_>>());
        Arc::new(Turns { round, cursor: Arc::clone(&self.cursor), members })
    }
}

/// Who has which turn: members and their weights, laid out smoothly.
fn round(weights: &[(u32, u64)]) -> Box<[u32]> {
    // Equals have a turn each, as they stand; what smoothes takes a step for every member and turn.
    match weights.first() {
        Some((_, first)) if *first > 0 && weights.iter().all(|(_, weight)| weight == first) => {
            weights.iter().map(|(at, _)| *at).collect()
        }
        _ => smooth(weights),
    }
}

/// The same whatever the weights are.
fn smooth(weights: &[(u32, u64)]) -> Box<[u32]> {
    let divisor = weights.iter().fold(0, |divisor, (_, weight)| gcd(divisor, *weight)).max(1);
    let total: u64 = weights.iter().map(|(_, weight)| weight / divisor).sum();
    let scaled = |weight: u64| {
        let weight = weight / divisor;
        // Everybody has a turn.
        if total > LONGEST_ROUND { ((weight * LONGEST_ROUND + total / 2) / total).max(1) } else { weight }
    };
    let mut state: Vec<(u32, i64, i64)> = weights.iter().map(|(at, weight)| (*at, scaled(*weight) as i64, 0)).collect();
    let turns: i64 = state.iter().map(|(_, weight, _)| weight).sum();
    (0..turns)
        .filter_map(|_| {
            state.iter_mut().for_each(|(_, weight, credit)| *credit += *weight);
            // The first of those with the most credit.
            let next = state.iter_mut().rev().max_by_key(|(_, _, credit)| *credit)?;
            next.2 -= turns;
            Some(next.0)
        })
        .collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

struct Turns {
    /// Places in `members`.
    round: Box<[u32]>,
    cursor: Arc<AtomicUsize>,
    members: Arc<[Arc<Replica>]>,
}

impl Turns {
    /// `next` gives the number of the next turn. It wraps around after more requests than there are atoms to send them with,
    /// and then skips a part of a round.
    fn choose(
        &self,
        cx: &PickCx<'_>,
        witness: &mut impl Witness,
        mut next: impl FnMut() -> usize,
    ) -> Option<&Arc<Replica>> {
        let round = &self.round;
        let mut admitted = |at: u32| {
            let member = self.members.get(at as usize)?;
            cx.admits(member).map_err(|why| witness.passed(member, why)).ok().map(|()| member)
        };
        let mut turn = || round.get(next() % round.len().max(1)).copied();
        if let Some(member) = turn().and_then(&mut admitted) {
            return Some(member);
        }
        // A place for each is looked at once: while others take turns as well, the cursor may skip some.
        let anyone = (0..self.members.len() as u32).find_map(&mut admitted)?;
        for _ in 0..round.len() {
            if let Some(member) = turn().and_then(&mut admitted) {
                return Some(member);
            }
        }
        Some(anyone)
    }
}

impl Picker for Turns {
    fn pick(&self, cx: &PickCx<'_>) -> Option<&Arc<Replica>> {
        let picked = self.choose(cx, &mut (), || self.cursor.fetch_add(1, Ordering::Relaxed));
        if picked.is_none() {
            // The turn that nobody could take: another priority's replicas go by the same cursor.
            self.cursor.fetch_sub(1, Ordering::Relaxed);
        }
        picked
    }

    fn explain(&self, cx: &PickCx<'_>) -> Explanation {
        let mut next = self.cursor.load(Ordering::Relaxed);
        let mut turn = || {
            next = next.wrapping_add(1);
            next.wrapping_sub(1)
        };
        let mut explanation = Explanation::default();
        let chosen = self.choose(cx, &mut explanation, &mut turn);
        explanation.choose(chosen)
    }
}

#[cfg(test)]
mod tests {
    use crate::policy::contract::{members, members_with};
    use crate::policy::{PickCx, Picker, PolicyConfig, PolicyKind};
    use crate::replica::Health;
    use std::sync::Arc;

    fn config() -> PolicyConfig {
        PolicyConfig { kind: PolicyKind::RoundRobin, ..PolicyConfig::default() }
    }

    fn picks(picker: &Arc<dyn Picker>, count: usize) -> Vec<u32> {
        (0..count).map(|_| picker.pick(&PickCx::default()).unwrap().id.0).collect()
    }

    #[test]
    fn everybody_has_a_turn_in_order() {
        let picker = config().policy().build(members(3));
        assert_eq!(picks(&picker, 7), [1, 2, 3, 1, 2, 3, 1]);
    }

    #[test]
    fn the_short_way_for_equals_leads_to_the_same_turns() {
        for count in [1, 2, 3, 7, 50] {
            for weight in [1, 10, 60_000] {
                let weights: Vec<_> = (0..count).map(|at| (at, weight)).collect();
                assert_eq!(super::round(&weights), super::smooth(&weights), "{count} x {weight}");
            }
        }
        for weights in [&[][..], &[(0, 0)], &[(0, 0), (1, 0)], &[(0, 2), (1, 1)]] {
            assert_eq!(super::round(weights), super::smooth(weights), "{weights:?}");
        }
    }

    #[test]
    fn a_question_takes_no_turn() {
        let picker = config().policy().build(members(3));
        assert_eq!(picks(&picker, 2), [1, 2]);
        for _ in 0..5 {
            assert_eq!(picker.explain(&PickCx::default()).chosen.unwrap().id.0, 3);
        }
        assert_eq!(picks(&picker, 2), [3, 1]);
    }

    #[test]
    fn weights_are_smooth() {
        let picker = config().policy().build(members_with(&[(5, 0), (1, 0), (1, 0)]));
        assert_eq!(picks(&picker, 7), [1, 1, 2, 1, 3, 1, 1]);
        let picker = config().policy().build(members_with(&[(40, 0), (20, 0)]));
        assert_eq!(picks(&picker, 6), [1, 2, 1, 1, 2, 1], "divided by what they have in common");
        let picker = config().policy().build(members_with(&[(65535, 0), (65534, 0), (1, 0)]));
        let picked = picks(&picker, 8192);
        let of = |id| picked.iter().filter(|picked| **picked == id).count();
        assert!(of(1).abs_diff(4096) < 4 && of(2).abs_diff(4096) < 4 && of(3) >= 1, "{} {} {}", of(1), of(2), of(3));
    }

    #[test]
    fn the_part_of_an_absent_one_is_shared_by_all_others() {
        let members = members(4);
        let picker = config().policy().build(Arc::clone(&members));
        members[1].set_health(Health::Unready);
        let picked = picks(&picker, 300);
        for id in [1, 3, 4] {
            assert_eq!(picked.iter().filter(|picked| **picked == id).count(), 100, "of {id}");
        }
    }

    #[test]
    fn turns_go_on_when_the_membership_changes() {
        let policy = config().policy();
        let four = members(4);
        let picker = policy.build(Arc::clone(&four));
        assert_eq!(picks(&picker, 2), [1, 2]);
        let picker = policy.build(four);
        assert_eq!(picks(&picker, 2), [3, 4]);
    }
}
