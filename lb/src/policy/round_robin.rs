//! Smooth weighted round robin, highest priority first.
//!
//! Members of the highest priority that has a ready one take turns, each as often as its weight says. The turns of a round
//! are spread evenly, as in nginx's smooth weighted balancing: weights 5, 1, 1 give a a b a c a a, not a a a a a b c. A
//! round is laid down when the membership changes; after that a pick is one step of a cursor that all threads share, so the
//! turns are right whichever thread takes them. Whoever can't take a turn is passed over, and the turn goes to the next: its
//! part is shared by all others, as their turns come.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{PickCx, Picker, Policy};
use crate::replica::Replica;

/// Turns of a round, at most; larger weights are scaled down to fit, as near as whole numbers allow.
const LONGEST_ROUND: u64 = 8192;

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct RoundRobin {
    cursor: Arc<AtomicUsize>,
}

impl Policy for RoundRobin {
    fn build(&self, members: Arc<[Arc<Replica>]>) -> Arc<dyn Picker> {
        let mut priorities: Vec<u16> = members.iter().map(|member| member.priority).collect();
        priorities.sort_unstable();
        priorities.dedup();
        let tiers = priorities.into_iter().rev().map(|priority| {
            let of_tier = |(at, member): (u32, &Arc<Replica>)| {
                (member.priority == priority).then(|| (at, u64::from(member.weight.get())))
            };
            round(&(0..).zip(members.iter()).filter_map(of_tier).collect::<Vec<_>>())
        });
        Arc::new(Turns { tiers: tiers.collect(), cursor: Arc::clone(&self.cursor), members })
    }
}

/// Who has which turn: members and their weights, laid out smoothly.
fn round(weights: &[(u32, u64)]) -> Box<[u32]> {
    let divisor = weights.iter().fold(0, |divisor, (_, weight)| gcd(divisor, *weight)).max(1);
    let total: u64 = weights.iter().map(|(_, weight)| weight / divisor).sum();
    let scaled = |weight: u64| {
        let weight = weight / divisor;
        // Everybody has a turn.
        if total > LONGEST_ROUND { (weight * LONGEST_ROUND / total).max(1) } else { weight }
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
    /// Rounds, of the highest priority first; places in `members`.
    tiers: Box<[Box<[u32]>]>,
    cursor: Arc<AtomicUsize>,
    members: Arc<[Arc<Replica>]>,
}

impl Picker for Turns {
    fn pick(&self, cx: &PickCx<'_>) -> Option<&Arc<Replica>> {
        let admitted = |at: &u32| {
            let member = self.members.get(*at as usize)?;
            (member.is_ready() && !cx.tried.contains(&member.generation)).then_some(member)
        };
        for round in &self.tiers {
            // Wraps around after more requests than there are atoms to send them with, and then skips a part of a round.
            let turn = || round.get(self.cursor.fetch_add(1, Ordering::Relaxed) % round.len().max(1));
            if let Some(member) = turn().and_then(admitted) {
                return Some(member);
            }
            // A place for each is looked at once: while others take turns as well, the cursor may skip some.
            let Some(anyone) = round.iter().find_map(admitted) else { continue };
            for _ in 0..round.len() {
                if let Some(member) = turn().and_then(admitted) {
                    return Some(member);
                }
            }
            return Some(anyone);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::contract::{members, members_with};
    use crate::replica::Health;

    fn picks(picker: &Arc<dyn Picker>, count: usize) -> Vec<u32> {
        (0..count).map(|_| picker.pick(&PickCx { key: 0, tried: &[] }).unwrap().id.0).collect()
    }

    #[test]
    fn everybody_has_a_turn_in_order() {
        let picker = RoundRobin::default().build(members(3));
        assert_eq!(picks(&picker, 7), [1, 2, 3, 1, 2, 3, 1]);
    }

    #[test]
    fn weights_are_smooth() {
        let picker = RoundRobin::default().build(members_with(&[(5, 0), (1, 0), (1, 0)]));
        assert_eq!(picks(&picker, 7), [1, 1, 2, 1, 3, 1, 1]);
        let picker = RoundRobin::default().build(members_with(&[(40, 0), (20, 0)]));
        assert_eq!(picks(&picker, 6), [1, 2, 1, 1, 2, 1], "divided by what they have in common");
        let picker = RoundRobin::default().build(members_with(&[(65535, 0), (65534, 0), (1, 0)]));
        let picked = picks(&picker, 8192);
        let of = |id| picked.iter().filter(|picked| **picked == id).count();
        assert!(of(1).abs_diff(4096) < 4 && of(2).abs_diff(4096) < 4 && of(3) >= 1, "{} {} {}", of(1), of(2), of(3));
    }

    #[test]
    fn the_part_of_an_absent_one_is_shared_by_all_others() {
        let members = members(4);
        let picker = RoundRobin::default().build(Arc::clone(&members));
        members[1].set_health(Health::Unready);
        let picked = picks(&picker, 300);
        for id in [1, 3, 4] {
            assert_eq!(picked.iter().filter(|picked| **picked == id).count(), 100, "of {id}");
        }
    }

    #[test]
    fn a_lower_priority_serves_only_when_no_higher_one_is_ready() {
        let members = members_with(&[(1, 0), (1, 7), (1, 7)]);
        let picker = RoundRobin::default().build(Arc::clone(&members));
        assert_eq!(picks(&picker, 4), [2, 3, 2, 3]);
        members[1].set_health(Health::Unready);
        assert_eq!(picks(&picker, 2), [3, 3]);
        members[2].set_health(Health::Unready);
        assert_eq!(picks(&picker, 2), [1, 1]);
        members[1].set_health(Health::Ready);
        assert_eq!(picks(&picker, 2), [2, 2]);
    }

    #[test]
    fn turns_go_on_when_the_membership_changes() {
        let policy = RoundRobin::default();
        let four = members(4);
        let picker = policy.build(Arc::clone(&four));
        assert_eq!(picks(&picker, 2), [1, 2]);
        let picker = policy.build(four);
        assert_eq!(picks(&picker, 2), [3, 4]);
    }
}
