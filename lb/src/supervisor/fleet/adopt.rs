//! The runtime's list: what a new balancer adopts, and what a running one compares itself with.
//!
//! The runtime is the database: a replica's identity lives in its labels. Events make the fleet fast; the list, compared
//! level by level every few seconds and after each gap in the events, makes it right.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::member::{Member, Phase, ProbeState, Standing};
use super::spare::NO_NUMBER;
use super::{Action, Failure, Fleet, Notice};
use crate::replica::{Generation, Hostname, ReplicaId};
use crate::runtime::Instance;

impl Fleet {
    pub(super) fn listed(&mut self, asked: Instant, instances: Vec<Instance>, now: Instant) {
        if self.closing {
            return;
        }
        if !std::mem::replace(&mut self.adopted, true) {
            self.relist_at = self.config.heals.then(|| now + self.config.relist);
            self.adopt(instances, now);
            return;
        }
        let runs = |wanted: &Instance| instances.iter().any(|instance| instance.id == wanted.id && instance.running);
        let missing: Vec<_> = self
            .members
            .values()
            .filter(|member| !matches!(member.phase, Phase::Stopping { .. }))
            .filter(|member| member.up_at.is_some_and(|up_at| up_at < asked))
            .filter(|member| !member.instance.as_ref().is_some_and(runs))
            .map(|member| member.spec.generation)
            .collect();
        for generation in missing {
            self.fail(generation, "is not running any more", Failure::Lost, now);
        }
        for instance in instances {
            let generation = instance.spec.generation;
            let known = match self.members.get(&generation).map(|member| &member.instance) {
                // Launched by a balancer before this one, which ended before it knew of it, under a number used again.
                Some(Some(own)) => own.id == instance.id,
                Some(None) => true,
                None => self.gone.iter().any(|(gone, at)| *gone == generation && *at >= asked),
            };
            if !known {
                self.remove_stray(instance);
            }
        }
    }

    /// Removes what runs and is not wanted, but lets it finish its requests: balancers may still have some for it.
    fn let_go(&mut self, instance: Instance, now: Instant) {
        let Instance { spec, .. } = &instance;
        let generation = spec.generation;
        let is_taken = self.members.contains_key(&generation) || self.is_used(&spec.hostname);
        if !instance.running || instance.addr.is_none() || is_taken {
            return self.remove_stray(instance);
        }
        self.last_generation = self.last_generation.max(generation.0);
        self.act(Action::Report(Notice::Stray { replica: spec.clone() }));
        let phase = Phase::Draining { deadline: now + self.config.drain_timeout };
        let mut member = Member::new(spec.clone(), generation.0, Standing::Leaving, phase);
        (member.up_at, member.instance) = (Some(now), Some(instance));
        self.members.insert(generation, member);
        self.act(Action::Drain { generation });
    }

    fn remove_stray(&mut self, instance: Instance) {
        self.last_generation = self.last_generation.max(instance.spec.generation.0);
        let Instance { spec, id, .. } = instance;
        self.act(Action::Stop { generation: spec.generation, id, grace: Duration::ZERO });
        self.act(Action::Report(Notice::Stray { replica: spec }));
    }

    /// Takes over what runs, removes what is left of the past, and tops up to N.
    ///
    /// Of several with the same ring number or host name the youngest generation stays: the others were being replaced or
    /// removed when the last balancer ended.
    fn adopt(&mut self, mut instances: Vec<Instance>, now: Instant) {
        instances.sort_by_key(|instance| std::cmp::Reverse(instance.spec.generation));
        // Whoever was launched last knows which spares had taken over by then.
        let promoted: BTreeMap<Generation, ReplicaId> =
            instances.first().map(|youngest| youngest.promoted.iter().copied().collect()).unwrap_or_default();
        for instance in instances.iter_mut().filter(|instance| instance.spec.id == NO_NUMBER) {
            instance.spec.id = promoted.get(&instance.spec.generation).copied().unwrap_or(NO_NUMBER);
        }
        let promoted = self.number(&mut instances, promoted);
        // One that a rolling update has started beside another may never have answered; that other one has.
        let runs = |generation| instances.iter().any(|one| one.spec.generation == generation && one.running);
        let unproven: BTreeSet<_> = instances
            .iter()
            .filter(|instance| instance.instead_of.is_some_and(runs))
            .map(|instance| instance.spec.generation)
            .collect();
        // And a spare that has taken a number over did so because its holder had failed.
        let rank = |instance: &Instance| {
            let generation = instance.spec.generation;
            (unproven.contains(&generation), !promoted.contains_key(&generation), std::cmp::Reverse(generation))
        };
        instances.sort_by_key(rank);
        let (mut ids, mut names) = (BTreeSet::new(), BTreeSet::<Hostname>::new());
        let (mut kept, mut strays, mut spares) = (Vec::new(), Vec::new(), 0);
        for instance in instances {
            let is_spare = instance.spec.id == NO_NUMBER;
            let fits = is_spare || (1..=self.config.places as u32).contains(&instance.spec.id.0);
            let room = if is_spare { spares < self.config.spares } else { ids.len() < self.config.capacity() };
            let good = instance.running && instance.addr.is_some() && fits && room;
            let is_new = is_spare || !ids.contains(&instance.spec.id);
            if good && is_new && !names.contains(&instance.spec.hostname) {
                if is_spare {
                    spares += 1;
                } else {
                    ids.insert(instance.spec.id);
                }
                names.insert(instance.spec.hostname.clone());
                kept.push(instance);
            } else {
                strays.push(instance);
            }
        }
        let found = !kept.is_empty();
        self.take_up_deployed(&kept);
        for instance in kept {
            let generation = instance.spec.generation;
            self.last_generation = self.last_generation.max(generation.0);
            let phase = Phase::Starting { since: now, deadline: now + self.config.start_timeout };
            let is_spare = instance.spec.id == NO_NUMBER;
            let standing = if is_spare { Standing::Spare } else { Standing::Desired };
            let mut member = Member::new(instance.spec.clone(), generation.0, standing, phase);
            member.promoted = promoted.contains_key(&generation);
            member.share = self.first_share(&instance.spec.hostname);
            member.probe = ProbeState::Due(now);
            member.up_at = Some(now);
            if self.config.heals {
                self.act(Action::Report(Notice::Adopted { replica: instance.spec.clone() }));
            }
            member.instance = Some(instance);
            self.members.insert(generation, member);
        }
        if self.config.heals {
            for number in self.desired().count() + 1..=self.config.replicas {
                // A fleet starts with S1, S2, …; one that has lost replicas gets replacements.
                let first = Hostname::new(&format!("S{number}")).filter(|_| !found);
                let hostname = first.unwrap_or_else(|| self.random_hostname());
                let generation = self.enlist(hostname, Standing::Desired, now);
                self.launch(generation, now);
            }
            self.top_up_spares(now);
        }
        for stray in strays {
            self.let_go(stray, now);
        }
        // Their places on the ring are taken from the start, in order.
        self.act(Action::Publish);
        self.send_due_probes(now);
    }

    /// Gives those without a number what is missing of 1 to N, the oldest first: a spare had taken over, and who knew of it
    /// is gone. Rather than that it is taken for a spare again, and another is started in its place. Gives all that are
    /// promoted.
    fn number(
        &self,
        instances: &mut [Instance],
        mut promoted: BTreeMap<Generation, ReplicaId>,
    ) -> BTreeMap<Generation, ReplicaId> {
        let runs = |instance: &Instance| instance.running && instance.addr.is_some();
        let numbers: BTreeSet<_> = instances.iter().filter(|one| runs(one)).map(|one| one.spec.id).collect();
        let there = numbers.iter().filter(|id| **id != NO_NUMBER).count();
        let most = self.config.replicas.min(self.config.capacity());
        let missing = (1..).map(ReplicaId).filter(|id| !numbers.contains(id)).take(most.saturating_sub(there));
        let unnumbered = instances.iter_mut().rev().filter(|one| runs(one) && one.spec.id == NO_NUMBER);
        for (instance, id) in unnumbered.zip(missing) {
            instance.spec.id = id;
            promoted.insert(instance.spec.generation, id);
        }
        promoted
    }

    /// Goes on with what a rolling update has brought, if it had come to its end and the configuration has not changed since.
    fn take_up_deployed(&mut self, kept: &[Instance]) {
        let mut marks = kept.iter().filter(|instance| instance.spec.id != NO_NUMBER).map(|it| it.deployed.as_deref());
        let Some(Some(mark)) = marks.next() else { return };
        if marks.all(|other| other == Some(mark)) && mark.instead_of == self.config.template {
            self.template = Arc::new(mark.template.clone());
        }
    }
}
