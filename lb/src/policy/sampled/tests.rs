use super::*;
use crate::policy::contract::{members, members_with};
use crate::policy::{PolicyConfig, PolicyKind};
use crate::replica::Health;
use proptest::prelude::*;

const DECAY: Duration = Duration::from_secs(10);

fn picker(kind: PolicyKind, members: &Arc<[Arc<Replica>]>) -> Arc<dyn Picker> {
    PolicyConfig { kind, ..PolicyConfig::default() }.policy().build(Arc::clone(members))
}

fn cx(random: u64, now: u64) -> PickCx<'static> {
    PickCx { random, now, ..PickCx::default() }
}

#[test]
fn least_requests_avoids_the_busiest() {
    let members = members(3);
    for (member, held) in members.iter().zip([5, 0, 3]) {
        (0..held).for_each(|_| assert!(member.enter()));
    }
    let picker = picker(PolicyKind::LeastRequests, &members);
    let counts = (0..3_000).fold([0; 3], |mut counts, random| {
        counts[picker.pick(&cx(random, 0)).unwrap().id.0 as usize - 1] += 1;
        counts
    });
    // The busiest never wins a pair, the idlest wins both of its pairs: two thirds.
    assert_eq!(counts[0], 0);
    assert!((1_850..2_150).contains(&counts[1]), "{counts:?}");
    let explained = picker.explain(&cx(1, 0));
    assert!(
        matches!(explained.passed[..], [ref passed] if matches!(passed.why, Why::Busier { in_flight } if in_flight > 0))
    );
}

#[test]
fn requests_in_flight_count_by_weight() {
    let members = members_with(&[(3, 0), (1, 0)]);
    let picker = picker(PolicyKind::LeastRequests, &members);
    let mut held = [0; 2];
    for random in 0..40 {
        let replica = picker.pick(&cx(random, 0)).unwrap();
        assert!(replica.enter());
        held[replica.id.0 as usize - 1] += 1;
    }
    assert_eq!(held, [30, 10]);
}

#[test]
fn peak_ewma_avoids_the_slow_one_and_tries_it_again_later() {
    let members = members(3);
    let picker = picker(PolicyKind::PeakEwma, &members);
    let of_third = |now: u64| (0..1_000).filter(|random| picker.pick(&cx(*random, now)).unwrap().id.0 == 3).count();
    assert!((230..430).contains(&of_third(0)), "nothing is known of them: {}", of_third(0));
    for (member, millis) in members.iter().zip([2, 2, 200]) {
        member.measure(Duration::from_millis(millis), 0, DECAY);
    }
    assert_eq!(of_third(0), 0);
    // A request more on each of the others does not make them as slow.
    members[0].enter();
    members[1].enter();
    assert_eq!(of_third(1_000), 0);
    members[0].measure(Duration::from_millis(2), 60_000, DECAY);
    members[1].measure(Duration::from_millis(2), 60_000, DECAY);
    assert!(of_third(60_000) > 0, "its peak has faded");
}

#[test]
fn among_alike_latencies_load_decides_and_among_others_both_count() {
    let members = members(2);
    let picker = picker(PolicyKind::PeakEwma, &members);
    let all_to = |id: u32| (0..100).all(|random| picker.pick(&cx(random, 0)).unwrap().id.0 == id);
    members[0].measure(Duration::from_millis(20), 0, DECAY);
    members[1].measure(Duration::from_millis(39), 0, DECAY);
    assert!(!all_to(1) && !all_to(2), "they count as equal");
    members[0].enter();
    assert!(all_to(2), "the idle one, though it is slower");
    members[1].measure(Duration::from_millis(100), 0, DECAY);
    assert!(all_to(1), "20 ms with one before it are sooner over than 100 ms");
    (0..5).for_each(|_| assert!(members[0].enter()));
    assert!(all_to(2), "with six before it they are not");
}

#[test]
fn one_that_was_never_measured_gets_one_request_at_a_time() {
    let members = members(2);
    let picker = picker(PolicyKind::PeakEwma, &members);
    members[0].measure(Duration::from_millis(2), 0, DECAY);
    assert!((0..100).all(|random| picker.pick(&cx(random, 0)).unwrap().id.0 == 2), "the unknown one is tried");
    members[1].enter();
    assert!((0..100).all(|random| picker.pick(&cx(random, 0)).unwrap().id.0 == 1), "and then waited for");
    let explained = picker.explain(&cx(7, 0));
    assert!(explained.passed[0].why.to_string().contains("not measured yet"));
    // With all unknown it is the one with fewer requests.
    let members = super::tests::members(2);
    let picker = super::tests::picker(PolicyKind::PeakEwma, &members);
    members.iter().for_each(|member| assert!(member.enter()));
    members[0].enter();
    assert!((0..100).all(|random| picker.pick(&cx(random, 0)).unwrap().id.0 == 2));
}

#[test]
fn a_heavy_unready_one_hides_nobody() {
    let members = members_with(&[(60_000, 0), (1, 0), (2, 0)]);
    let picker = picker(PolicyKind::Random, &members);
    members[0].set_health(Health::Unready);
    let counts = (0..30_000).fold([0; 3], |mut counts, random| {
        counts[picker.pick(&cx(random, 0)).unwrap().id.0 as usize - 1] += 1;
        counts
    });
    assert_eq!(counts[0], 0);
    assert!((9_600..10_400).contains(&counts[1]), "by their weights: {counts:?}");
}

proptest! {
    /// The alias table holds each weight's exact part, but for the rounding of its fractions.
    #[test]
    fn the_table_holds_the_weights(weights in prop::collection::vec(1_u16..=u16::MAX, 1..60)) {
        let table = Alias::new(&weights);
        let mut parts = vec![0.0; weights.len()];
        for (at, (own, other)) in table.columns.iter().enumerate() {
            let own = if *other as usize == at { 1.0 } else { f64::from(*own) / 4_294_967_296.0 };
            parts[at] += own;
            parts[*other as usize] += 1.0 - own;
        }
        let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
        for (part, weight) in parts.iter().zip(&weights) {
            let expected = f64::from(*weight) / total * weights.len() as f64;
            prop_assert!((part - expected).abs() < 1e-6, "{} {}", part, expected);
        }
    }
}
