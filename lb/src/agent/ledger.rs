//! The fleet's states by epoch, and the way from one to another. Pure.
//!
//! Every session remembers only the epoch that it has sent last. Whoever asks for the way from there to the present gets one
//! step, however much has happened in between; whoever has fallen further behind than is remembered gets the whole. So
//! nothing queues up for a slow balancer.

use std::collections::VecDeque;
use std::sync::Arc;

use super::wire::{Delta, Snapshot};
use crate::replica::Generation;
use crate::runtime::remote::{RemoteMember, Standing};

/// Past states that are remembered.
pub const HISTORY: usize = 64;

/// What a balancer has to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Update {
    /// Nothing: it has the present state.
    None,
    /// What has changed since.
    Delta(Delta),
    /// Everything.
    Snapshot(Snapshot),
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Ledger {
    instance: String,
    epoch: u64,
    members: Arc<[RemoteMember]>,
    history: VecDeque<(u64, Arc<[RemoteMember]>)>,
    /// Since which epoch a generation takes no new requests.
    leaving: std::collections::BTreeMap<Generation, u64>,
}

impl Ledger {
    /// The ledger of this run of the agent; empty, and at epoch 0.
    pub fn new(instance: String) -> Self {
        Self {
            instance,
            epoch: 0,
            members: Arc::new([]),
            history: VecDeque::new(),
            leaving: std::collections::BTreeMap::new(),
        }
    }

    /// Which run of the agent this is.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// The present epoch; 0 before the first state.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The present state, by generation.
    pub fn members(&self) -> &Arc<[RemoteMember]> {
        &self.members
    }

    /// Takes in the state of now. True if it is another one, and so a new epoch.
    pub fn advance(&mut self, mut members: Vec<RemoteMember>) -> bool {
        members.sort_unstable_by_key(|member| member.generation);
        if self.epoch > 0 && *members == *self.members {
            return false;
        }
        if self.epoch > 0 {
            self.history.push_back((self.epoch, Arc::clone(&self.members)));
            if self.history.len() > HISTORY {
                self.history.pop_front();
            }
        }
        self.epoch += 1;
        let takes_requests = |member: &RemoteMember| member.desired && member.state != Standing::Draining;
        let leaving = members.iter().filter(|member| !takes_requests(member) && !member.spare);
        let before = std::mem::take(&mut self.leaving);
        let since = |generation| before.get(&generation).copied().unwrap_or(self.epoch);
        self.leaving = leaving.map(|member| (member.generation, since(member.generation))).collect();
        self.members = members.into();
        true
    }

    /// The epoch since which a replica takes no new requests; `None` if it may.
    pub fn leaving_since(&self, generation: Generation) -> Option<u64> {
        let known = self.members.binary_search_by_key(&generation, |member| member.generation).is_ok();
        if known { self.leaving.get(&generation).copied() } else { Some(self.epoch) }
    }

    /// What a balancer has to be told that has the state `epoch` of the run `instance`.
    pub fn since(&self, instance: &str, epoch: u64) -> Update {
        let whole = || Update::Snapshot(Snapshot { epoch: self.epoch, members: self.members.to_vec() });
        if self.epoch == 0 {
            return Update::None;
        }
        if instance != self.instance {
            return whole();
        }
        if epoch == self.epoch {
            return Update::None;
        }
        let Some((_, old)) = self.history.iter().find(|(past, _)| *past == epoch) else { return whole() };
        let delta = difference(epoch, old, self.epoch, &self.members);
        // A change of everything is told shorter by the whole.
        if delta.changed.len() + delta.removed.len() > self.members.len().max(4) {
            whole()
        } else {
            Update::Delta(delta)
        }
    }
}

fn difference(from: u64, old: &[RemoteMember], epoch: u64, new: &[RemoteMember]) -> Delta {
    let find = |list: &[RemoteMember], generation| list.binary_search_by_key(&generation, |member| member.generation);
    let is_new = |member: &&RemoteMember| find(old, member.generation).map_or(true, |at| old[at] != **member);
    let changed = new.iter().filter(is_new).cloned().collect();
    let gone = old.iter().map(|member| member.generation).filter(|generation| find(new, *generation).is_err());
    Delta { from, epoch, changed, removed: gone.collect() }
}

/// The state that a delta makes of `members`, which are sorted by generation.
pub fn apply(members: &[RemoteMember], delta: Delta) -> Vec<RemoteMember> {
    let mut changed: Vec<_> = delta.changed;
    changed.sort_unstable_by_key(|member| member.generation);
    let stays = |member: &&RemoteMember| {
        let is_changed = changed.binary_search_by_key(&member.generation, |other| other.generation).is_ok();
        !is_changed && !delta.removed.contains(&member.generation)
    };
    let mut members: Vec<_> = members.iter().filter(stays).cloned().collect();
    members.extend(changed);
    members.sort_unstable_by_key(|member| member.generation);
    members
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::{Hostname, ReplicaId, Share};
    use proptest::prelude::*;

    fn member(generation: u64, state: Standing, weight: u16) -> RemoteMember {
        RemoteMember {
            generation: Generation(generation),
            id: ReplicaId(u32::try_from(generation).unwrap()),
            hostname: Hostname::new(&format!("S{generation}")).unwrap(),
            addr: Some(([127, 0, 0, 1], 5000).into()),
            runtime_id: Some(format!("i{generation}")),
            state,
            desired: state != Standing::Draining,
            spare: false,
            share: Share { weight, priority: 0 },
            order: generation,
            started_at: Some(0),
            crashes: 0,
            launch_at: None,
            last_error: None,
        }
    }

    fn state() -> impl Strategy<Value = Vec<RemoteMember>> {
        let standing = prop_oneof![Just(Standing::Ready), Just(Standing::Unready), Just(Standing::Draining)];
        let members = prop::collection::btree_map(1_u64..12, (standing, 1_u16..3), 0..10);
        members.prop_map(|members| {
            members.into_iter().map(|(generation, (state, weight))| member(generation, state, weight)).collect()
        })
    }

    proptest! {
        #[test]
        fn from_any_state_one_update_leads_to_the_present_one(states in prop::collection::vec(state(), 1..100)) {
            let mut ledger = Ledger::new("run".into());
            let mut known = vec![(0, Vec::new())];
            for state in states {
                let before = ledger.epoch();
                let changed = ledger.advance(state.clone());
                prop_assert_eq!(changed, ledger.epoch() == before + 1);
                prop_assert_eq!(&ledger.members().to_vec(), &state);
                known.push((ledger.epoch(), state));
            }
            for (epoch, state) in known {
                let reached = match ledger.since("run", epoch) {
                    Update::None => { prop_assert_eq!(epoch, ledger.epoch()); state }
                    Update::Delta(delta) => {
                        prop_assert_eq!((delta.from, delta.epoch), (epoch, ledger.epoch()));
                        apply(&state, delta)
                    }
                    Update::Snapshot(snapshot) => { prop_assert_eq!(snapshot.epoch, ledger.epoch()); snapshot.members }
                };
                prop_assert_eq!(&reached, &ledger.members().to_vec());
            }
        }
    }

    #[test]
    fn another_run_or_too_old_a_state_gets_everything() {
        let mut ledger = Ledger::new("run".into());
        assert_eq!(ledger.since("run", 0), Update::None, "there is nothing to tell yet");
        let many =
            |weight: u16| (1..=20).map(|at| member(at, Standing::Ready, if at == 1 { weight } else { 1 })).collect();
        for weight in 1..=HISTORY as u16 + 10 {
            assert!(ledger.advance(many(weight)));
            assert!(!ledger.advance(many(weight)), "the same again is no new state");
        }
        let epoch = ledger.epoch();
        assert!(matches!(ledger.since("another", epoch), Update::Snapshot(_)));
        assert!(matches!(ledger.since("run", 1), Update::Snapshot(_)));
        assert!(matches!(ledger.since("run", 0), Update::Snapshot(_)));
        let Update::Delta(delta) = ledger.since("run", epoch - HISTORY as u64) else { panic!("remembered") };
        assert_eq!((delta.changed.len(), delta.removed.len()), (1, 0), "only what differs, however often it changed");
        assert_eq!(ledger.since("run", epoch), Update::None);
        assert!(matches!(ledger.since("run", epoch + 5), Update::Snapshot(_)), "a state that never was");
    }

    #[test]
    fn it_knows_since_when_a_replica_takes_no_requests() {
        let mut ledger = Ledger::new("run".into());
        ledger.advance(vec![member(1, Standing::Ready, 1), member(2, Standing::Ready, 1)]);
        assert_eq!(ledger.leaving_since(Generation(1)), None);
        ledger.advance(vec![member(1, Standing::Draining, 1), member(2, Standing::Ready, 1)]);
        ledger.advance(vec![member(1, Standing::Draining, 1), member(2, Standing::Unready, 1)]);
        assert_eq!((ledger.leaving_since(Generation(1)), ledger.leaving_since(Generation(2))), (Some(2), None));
        assert_eq!(ledger.leaving_since(Generation(9)), Some(3), "one that nobody was told of");
    }
}
