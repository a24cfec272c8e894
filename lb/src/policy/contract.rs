//! What every policy must do, run against each of them.

use std::collections::BTreeSet;
use std::num::NonZeroU16;
use std::sync::Arc;

use super::{PickCx, PolicyConfig, PolicyKind};
use crate::replica::{Generation, Health, Hostname, PoolLoad, Replica, ReplicaId, ReplicaSpec};
use crate::ring::{RingConfig, RingHash};

/// `n` ready replicas, numbered from 1.
pub(super) fn members(n: u32) -> Arc<[Arc<Replica>]> {
    members_with(&vec![(1, 0); n as usize])
}

/// Ready replicas with these weights and priorities, numbered from 1.
pub(super) fn members_with(shares: &[(u16, u16)]) -> Arc<[Arc<Replica>]> {
    let pool = Arc::new(PoolLoad::default());
    (1..)
        .zip(shares)
        .map(|(id, (weight, priority))| {
            let hostname = Hostname::new(&format!("S{id}")).unwrap();
            let spec = ReplicaSpec { id: ReplicaId(id), generation: Generation(u64::from(id)), hostname };
            let replica = Replica::new(&spec, ([127, 0, 0, 1], 5000).into(), Arc::clone(&pool));
            let replica = replica.with_share(NonZeroU16::new(*weight).unwrap(), *priority);
            replica.set_health(Health::Ready);
            Arc::new(replica)
        })
        .collect()
}

fn every_policy(check: impl Fn(&PolicyConfig)) {
    of_kinds(&[PolicyKind::Consistent, PolicyKind::RoundRobin], check);
}

/// Those that place a request by its key, and keep it there.
fn hashing_policies(check: impl Fn(&PolicyConfig)) {
    of_kinds(&[PolicyKind::Consistent], check);
}

fn of_kinds(kinds: &[PolicyKind], check: impl Fn(&PolicyConfig)) {
    for kind in kinds.iter().copied() {
        for hash in [RingHash::Assignment, RingHash::Xxh3] {
            for bound in [None, Some(1.25)] {
                check(&PolicyConfig { kind, ring: RingConfig { hash, ..RingConfig::default() }, bound });
            }
        }
    }
}

const KEYS: std::ops::Range<u64> = 100_000..102_000;

#[test]
fn nobody_is_picked_from_none_or_from_unready_ones() {
    every_policy(|config| {
        assert!(config.policy().build(members(0)).pick(&PickCx { key: 1, tried: &[] }).is_none());
        let members = members(3);
        let picker = config.policy().build(Arc::clone(&members));
        for health in [Health::Unready, Health::Lost, Health::Draining] {
            members.iter().for_each(|member| member.set_health(health));
            assert!(
                KEYS.clone().all(|key| picker.pick(&PickCx { key, tried: &[] }).is_none()),
                "{config:?} {health:?}"
            );
        }
    });
}

#[test]
fn the_only_ready_one_is_always_found() {
    every_policy(|config| {
        let members = members(5);
        let picker = config.policy().build(Arc::clone(&members));
        for only in members.iter() {
            members.iter().for_each(|member| member.set_health(Health::Unready));
            only.set_health(Health::Ready);
            for key in KEYS {
                assert_eq!(picker.pick(&PickCx { key, tried: &[] }).unwrap().id, only.id, "{config:?}");
            }
        }
    });
}

#[test]
fn a_tried_one_is_never_picked_again() {
    every_policy(|config| {
        let members = members(4);
        let picker = config.policy().build(Arc::clone(&members));
        for key in KEYS {
            let mut tried = Vec::new();
            while let Some(replica) = picker.pick(&PickCx { key, tried: &tried }) {
                assert!(!tried.contains(&replica.generation), "{config:?}");
                tried.push(replica.generation);
            }
            assert_eq!(tried.len(), members.len(), "every ready one gets its turn");
        }
    });
}

#[test]
fn the_same_key_and_state_give_the_same_replica() {
    every_policy(|config| {
        let (one, two) = (config.policy().build(members(6)), config.policy().build(members(6)));
        for key in KEYS {
            let cx = PickCx { key, tried: &[] };
            assert_eq!(one.pick(&cx).unwrap().id, two.pick(&cx).unwrap().id);
        }
    });
}

#[test]
fn every_ready_member_gets_traffic() {
    every_policy(|config| {
        let members = members(6);
        let picker = config.policy().build(Arc::clone(&members));
        let got: BTreeSet<_> =
            (100_000..140_000).map(|key| picker.pick(&PickCx { key, tried: &[] }).unwrap().id).collect();
        assert_eq!(got.len(), 6, "{config:?}: only {got:?}");
    });
}

#[test]
fn a_flap_moves_only_the_flapping_ones_keys() {
    hashing_policies(|config| {
        let members = members(5);
        let picker = config.policy().build(Arc::clone(&members));
        let owners = || KEYS.map(|key| picker.pick(&PickCx { key, tried: &[] }).unwrap().id).collect::<Vec<_>>();
        let before = owners();
        members[2].set_health(Health::Unready);
        let during = owners();
        members[2].set_health(Health::Ready);
        assert_eq!(owners(), before);
        for (before, during) in before.into_iter().zip(during) {
            assert!(before == during || before == members[2].id);
        }
    });
}

#[test]
fn counts_add_up_over_eight_threads() {
    every_policy(|config| {
        let members = members(3);
        let picker = config.policy().build(Arc::clone(&members));
        std::thread::scope(|scope| {
            for thread in 0..8_u64 {
                let picker = &picker;
                scope.spawn(move || {
                    for key in 0..2_000 {
                        let replica = picker.pick(&PickCx { key: key * 8 + thread, tried: &[] }).unwrap();
                        assert!(replica.enter());
                        replica.count_served();
                        replica.leave();
                    }
                });
            }
        });
        assert_eq!(members.iter().map(|member| member.served()).sum::<u64>(), 16_000);
        assert!(members.iter().all(|member| member.in_flight() == 0));
        assert_eq!(members[0].pool_load().in_flight(), 0);
    });
}
