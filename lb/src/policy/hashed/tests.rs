use super::*;
use crate::placement::REQUEST_IDS;
use crate::placement::hash::RingHash;
use crate::placement::ring::RingConfig;
use crate::policy::contract::{members, members_with};
use crate::replica::Health;
use rand::{RngExt, SeedableRng, rngs::StdRng};

fn picker(bound: Option<f64>, members: &Arc<[Arc<Replica>]>) -> Arc<dyn Picker> {
    PolicyConfig { bound, ..PolicyConfig::default() }.policy().build(Arc::clone(members))
}

fn cx(key: u64) -> PickCx<'static> {
    PickCx { key, ..PickCx::default() }
}

#[test]
fn the_limit_is_the_contracts() {
    // ceil(1.25 × (in-flight + 1) / ready)
    let limit = |in_flight, ready| Limit::new(limit_of(1.25, in_flight, ready)).of(1);
    assert_eq!(limit(0, 3), 1);
    assert_eq!(limit(4, 3), 3);
    assert_eq!(limit(99, 3), 42);
    assert_eq!(limit(0, 0), 2);
    // And by weight: ceil(1.25 × 100 × 3 / 7), not three times the limit of one.
    assert_eq!(Limit::new(limit_of(1.25, 99, 7)).of(3), 54);
    for number in [0.0, 0.1, 1.0, 1.000_1, 41.999, 1e9] {
        assert_eq!(f64::from(rounded_up(number)), number.ceil(), "{number}");
    }
    assert_eq!(rounded_up(1e12), u32::MAX);
}

/// Serves 10,000 requests with 100 in flight at any time, and gives max/mean of what each replica got.
fn spread(bound: Option<f64>) -> f64 {
    let members = members(3);
    let picker = picker(bound, &members);
    let mut rng = StdRng::seed_from_u64(7);
    let mut in_flight: Vec<Arc<Replica>> = Vec::new();
    let mut counts = [0_u32; 3];
    for _ in 0..10_000 {
        if in_flight.len() == 100 {
            in_flight.swap_remove(rng.random_range(0..100)).leave();
        }
        let replica = picker.pick(&cx(rng.random_range(REQUEST_IDS))).unwrap();
        assert!(replica.enter());
        counts[replica.id.0 as usize - 1] += 1;
        in_flight.push(Arc::clone(replica));
    }
    f64::from(*counts.iter().max().unwrap()) * 3.0 / 10_000.0
}

#[test]
fn bounded_loads_even_out_the_assignments_ring() {
    // The bare ring gives one replica 84.4 % of the keys. A bound of c lets no replica hold more than c times its part
    // of the 100 in flight, so what it gets stays near c as well.
    assert!((2.45..2.60).contains(&spread(None)), "{}", spread(None));
    assert!(spread(Some(1.25)) <= 1.30, "{}", spread(Some(1.25)));
    assert!(spread(Some(1.1)) <= 1.15, "{}", spread(Some(1.1)));
}

#[test]
fn tables_spread_a_hundred_thousand_keys() {
    let even_ring = RingConfig { slots: 65_536, vnodes: 1000, hash: RingHash::Xxh3, ..RingConfig::default() };
    for (kind, most) in [(PolicyKind::Consistent, 1.05), (PolicyKind::Maglev, 1.03), (PolicyKind::Rendezvous, 1.03)] {
        let config = PolicyConfig { kind, ring: even_ring, bound: None, ..PolicyConfig::default() };
        let picker = config.policy().build(members(3));
        let mut rng = StdRng::seed_from_u64(8);
        let mut counts = [0_u32; 3];
        for _ in 0..100_000 {
            counts[picker.pick(&cx(rng.random_range(REQUEST_IDS))).unwrap().id.0 as usize - 1] += 1;
        }
        let largest = f64::from(*counts.iter().max().unwrap()) * 3.0 / 100_000.0;
        assert!(largest <= most, "{kind}: {largest}");
    }
}

#[test]
fn a_full_replica_passes_on_and_the_last_one_takes_it_all_the_same() {
    let members = members(3);
    let picker = picker(Some(1.25), &members);
    let key = cx(132_574);
    let first = picker.pick(&key).unwrap();
    assert!(first.enter());
    // One in flight: ceil(1.25 × 2 / 3) = 1, so the first is full now.
    let second = picker.pick(&key).unwrap();
    assert_ne!(second.id, first.id);
    let explained = picker.explain(&key);
    assert_eq!(explained.owner, Some(first.id));
    assert_eq!(explained.passed.len(), 1);
    assert_eq!(explained.passed[0].why, Why::AtBound { in_flight: 1, limit: 1 });
    // Both others tried: the full one is better than none.
    let tried: Vec<_> = members.iter().filter(|member| member.id != first.id).map(|member| member.generation).collect();
    assert_eq!(picker.pick(&PickCx { tried: &tried, ..key }).unwrap().id, first.id);
}

#[test]
fn a_newcomer_holds_its_part_and_the_others_the_rest() {
    let members = members(2);
    let picker = picker(Some(1.25), &members);
    let held = |ramp: f64| {
        members[1].set_ramp(ramp);
        for key in 0..40 {
            assert!(picker.pick(&cx(key * 7919)).unwrap().enter());
        }
        let held = members[1].in_flight();
        for member in members.iter() {
            (0..member.in_flight()).for_each(|_| member.leave());
        }
        held
    };
    // The limit of 40 in flight on two is 25 or 26.
    assert!((1..=2).contains(&held(0.05)), "{}", held(0.05));
    assert!((1..=13).contains(&held(0.5)), "{}", held(0.5));
    assert!((15..=26).contains(&held(1.0)), "{}", held(1.0));
    // Alone, it takes everything.
    members[0].set_health(Health::Unready);
    assert_eq!(held(0.05), 40);
}

#[test]
fn newcomers_among_themselves_go_by_the_bound_of_all() {
    let members = members(3);
    let picker = picker(Some(1.25), &members);
    members.iter().take(2).for_each(|member| member.set_ramp(0.05));
    // The one that has settled serves nobody now: of a lower priority, or drained.
    members[2].set_health(Health::Unready);
    for _ in 0..40 {
        assert!(picker.pick(&cx(132_574)).unwrap().enter());
    }
    assert!(members.iter().take(2).all(|member| (14..=26).contains(&member.in_flight())), "{members:?}");
}

#[test]
fn the_bound_of_a_priority_is_that_of_its_own_replicas() {
    // Ten idle replicas of a lower priority must not make the bound of the higher ones narrower or wider.
    let shares: Vec<(u16, u16)> = [(1, 1); 2].into_iter().chain([(1, 0); 10]).collect();
    let members = members_with(&shares);
    let picker = picker(Some(1.25), &members);
    for _ in 0..40 {
        assert!(picker.pick(&cx(132_574)).unwrap().enter());
    }
    let held: Vec<u32> = members.iter().take(2).map(|member| member.in_flight()).collect();
    assert_eq!(held.iter().sum::<u32>(), 40);
    assert!(held.iter().all(|held| (15..=25).contains(held)), "{held:?}");
}

#[test]
fn an_absent_owner_is_named() {
    let policy = PolicyConfig::default().policy();
    policy.place(&Place::first(3));
    let all = members(3);
    let whole = policy.build(Arc::clone(&all));
    let key = (100_000..).map(cx).find(|cx| whole.pick(cx).unwrap().id.0 == 2).unwrap();
    let without: Arc<[_]> = all.iter().filter(|member| member.id.0 != 2).cloned().collect();
    let explained = policy.build(without).explain(&key);
    assert_eq!(explained.owner, Some(ReplicaId(2)));
    assert!(explained.chosen.is_some_and(|chosen| chosen.id.0 != 2));
    assert_eq!((explained.slots, explained.slot.is_some()), (Some(512), true));
}

#[test]
fn somebody_far_away_is_found_among_many() {
    // With one of 500 ready, a walk would take hundreds of steps; nobody else is ready to be found before.
    for kind in [PolicyKind::Consistent, PolicyKind::Maglev, PolicyKind::Rendezvous] {
        let ring = RingConfig { slots: 65_536, hash: RingHash::Xxh3, ..RingConfig::default() };
        let members = members(500);
        let picker = PolicyConfig { kind, ring, ..PolicyConfig::default() }.policy().build(Arc::clone(&members));
        members.iter().for_each(|member| member.set_health(Health::Unready));
        members[321].set_health(Health::Ready);
        assert!((0..200).all(|key| picker.pick(&cx(key * 7_919)).unwrap().id.0 == 322), "{kind}");
    }
}
