use super::*;
use crate::policy::contract::members_with;
use crate::policy::{PolicyConfig, PolicyKind, Why};
use crate::replica::Health;
use std::collections::BTreeSet;

fn picker(spill: Spill, members: &Arc<[Arc<Replica>]>) -> Arc<dyn Picker> {
    let config = PolicyConfig { kind: PolicyKind::Priority, spill, ..PolicyConfig::default() };
    config.policy().build(Arc::clone(members))
}

fn served(picker: &Arc<dyn Picker>) -> Vec<u32> {
    let ids = (0..60).map(|_| picker.pick(&PickCx::default()).unwrap().id.0);
    ids.collect::<BTreeSet<_>>().into_iter().collect()
}

#[test]
fn a_lower_priority_serves_only_when_no_higher_one_is_ready() {
    let members = members_with(&[(1, 0), (1, 7), (1, 7)]);
    for spill in [Spill::default(), Spill { share: 0.6, in_flight: None }] {
        let picker = picker(spill, &members);
        assert_eq!(served(&picker), [2, 3]);
        members[1].set_health(Health::Unready);
        assert_eq!(served(&picker), [3], "half of them is less than either share");
        members[2].set_health(Health::Unready);
        assert_eq!(served(&picker), [1]);
        members[1].set_health(Health::Ready);
        assert_eq!(served(&picker), [2]);
        members[2].set_health(Health::Ready);
    }
}

#[test]
fn the_next_priority_helps_once_a_share_is_not_ready() {
    let members = members_with(&[(1, 9), (1, 9), (1, 9), (1, 9), (2, 5), (1, 0)]);
    let picker = picker(Spill { share: 0.5, in_flight: None }, &members);
    assert_eq!(served(&picker), [1, 2, 3, 4]);
    members[0].set_health(Health::Unready);
    assert_eq!(served(&picker), [2, 3, 4], "a quarter is not enough");
    members[1].set_health(Health::Lost);
    assert_eq!(served(&picker), [3, 4, 5], "those that are ready still take turns");
    members[4].set_health(Health::Unready);
    assert_eq!(served(&picker), [3, 4, 6], "and the one after that");
    members[5].set_health(Health::Unready);
    assert_eq!(served(&picker), [3, 4], "nobody helps: better few than none");
    members[0].set_health(Health::Ready);
    assert_eq!(served(&picker), [1, 3, 4]);
}

#[test]
fn one_that_is_being_replaced_is_missing() {
    let members = members_with(&[(1, 1), (1, 1), (1, 0)]);
    let config = PolicyConfig {
        kind: PolicyKind::Priority,
        spill: Spill { share: 0.5, in_flight: None },
        ..PolicyConfig::default()
    };
    let policy = config.policy();
    policy.place(&[(1, 1), (2, 1), (3, 0)].map(|(id, priority)| Place { priority, ..Place::new(id, 1) }));
    assert_eq!(served(&policy.build(Arc::clone(&members))), [1, 2]);
    // The supervisor takes a dead one out of the membership at once; its place is kept.
    assert_eq!(served(&policy.build(members.iter().skip(1).cloned().collect())), [2, 3]);
}

#[test]
fn the_next_priority_helps_once_all_are_full() {
    let members = members_with(&[(1, 1), (1, 1), (1, 0)]);
    let picker = picker(Spill { share: 1.0, in_flight: Some(2) }, &members);
    let held: Vec<u32> = (0..8)
        .map(|_| {
            let replica = picker.pick(&PickCx::default()).unwrap();
            assert!(replica.enter());
            replica.id.0
        })
        .collect();
    assert_eq!(held[..4].iter().collect::<BTreeSet<_>>().len(), 2, "both of the higher first: {held:?}");
    assert_eq!(held[4..6], [3, 3]);
    assert!(held[6..].iter().all(|id| [1, 2].contains(id)), "all are full: the highest takes it: {held:?}");
    let explained = picker.explain(&PickCx::default());
    assert_eq!(explained.passed.len(), 3, "{explained:?}");
    assert!(matches!(explained.passed[0].why, Why::Full { limit: 2, .. }));
    assert!(explained.chosen.is_some());
    members[0].leave();
    members[0].leave();
    assert_eq!(picker.pick(&PickCx::default()).unwrap().id.0, 1);
}
