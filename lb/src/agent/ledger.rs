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
