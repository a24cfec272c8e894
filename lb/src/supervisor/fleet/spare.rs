//! Spares: replicas that are started and probed beforehand, so that one that fails is replaced as soon as it is known.
//!
//! A spare has no ring number of its own (its label says 0). It gets that of the one it takes over for; every launch from
//! then on carries that along, as labels of a running container can't be changed.

use tokio::time::Instant;

use super::member::{Member, Phase, Standing};
use super::{Action, Fleet, Notice};
use crate::replica::{Generation, Health, ReplicaId, Share};

/// The ring number of those that have none.
pub(super) const NO_NUMBER: ReplicaId = ReplicaId(0);

impl Fleet {
    /// Ready spares, the oldest first.
    pub(super) fn ready_spares(&self) -> Vec<Generation> {
        let is_ready = |member: &&Member| {
            let answers = matches!(member.phase, Phase::Ready { .. }) && !member.streak.is_failing();
            member.standing == Standing::Spare && answers
        };
        self.members.values().filter(is_ready).map(|member| member.spec.generation).collect()
    }

    /// Starts as many spares as are missing.
    pub(super) fn top_up_spares(&mut self, now: Instant) {
        if self.closing || !self.config.heals {
            return;
        }
        let there = self.members.values().filter(|member| member.standing == Standing::Spare).count();
        for _ in there..self.config.spares {
            let hostname = self.random_hostname();
            let generation = self.enlist_as(NO_NUMBER, hostname, Standing::Spare, now);
            self.launch(generation, now);
        }
    }

    /// A spare takes the place of `failed`, which is on its way out already. False if none is ready.
    pub(super) fn promote(&mut self, failed: &Member, reason: &str, now: Instant) -> bool {
        let Some(spare) = self.ready_spares().first().copied() else { return false };
        self.number_spare(spare, failed.spec.id, Standing::Desired);
        let Some(member) = self.members.get_mut(&spare) else { return false };
        member.share = inherited(failed.share);
        let replacement = member.spec.clone();
        self.act(Action::Publish);
        self.act(Action::Health { generation: spare, health: Health::Ready });
        self.update_instead(failed.spec.generation, spare);
        let (replica, reason) = (failed.spec.clone(), reason.to_owned());
        self.act(Action::Report(Notice::Promoted { replica, reason, replacement }));
        self.top_up_spares(now);
        true
    }

    /// Gives a spare this ring number and another standing. It comes last in the list of replicas.
    pub(super) fn number_spare(&mut self, spare: Generation, id: ReplicaId, standing: Standing) {
        self.last_generation += 1;
        let order = self.last_generation;
        let Some(member) = self.members.get_mut(&spare) else { return };
        member.spec.id = id;
        if let Some(instance) = &mut member.instance {
            instance.spec.id = id;
        }
        member.standing = standing;
        member.order = order;
        member.promoted = true;
    }

    /// A spare is gone, or as good as that: another is started, later if that happens again and again.
    pub(super) fn spare_failed(&mut self, failed: &Member, reason: &str, now: Instant) {
        let calm = failed.ready_for(now).is_some_and(|ready| ready >= self.config.backoff.calm);
        let crashes = if calm { 0 } else { failed.crashes.saturating_add(1) };
        let hostname = self.random_hostname();
        let successor = self.enlist_as(NO_NUMBER, hostname, Standing::Spare, now);
        let delay = self.launch_after(successor, failed, crashes, now);
        if let Some(member) = self.members.get_mut(&successor) {
            member.last_error = Some(format!("{} {reason}", failed.spec.hostname));
        }
        let (replica, reason) = (failed.spec.clone(), reason.to_owned());
        self.act(Action::Report(Notice::SpareFailed { replica, reason, delay }));
    }

    /// Who has a ring number that its own launch does not tell.
    pub(super) fn promoted(&self) -> Vec<(Generation, ReplicaId)> {
        let promoted = self.members.values().filter(|member| member.promoted && member.standing != Standing::Leaving);
        promoted.map(|member| (member.spec.generation, member.spec.id)).collect()
    }
}

/// The share of who takes over. It was the other that had to be emptied.
pub(super) fn inherited(share: Share) -> Share {
    Share { weight: if share.weight == 0 { Share::default().weight } else { share.weight }, ..share }
}
