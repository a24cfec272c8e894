//! A member's health: probes, what live traffic and the runtime report, and what follows from a failure.

use tokio::time::Instant;

use super::member::{Phase, ProbeState, Standing};
use super::spare::inherited;
use super::{Action, Fleet, Notice, PROBE_PATIENCE, QUICK_PROBE, QUICK_PROBES};
use crate::probe::{ProbeError, Streak};
use crate::replica::{Generation, Health};
use crate::runtime::RuntimeEvent;
use rand::RngExt;

/// How a replica failed, and so how it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// It is dead or hung: nothing to wait for.
    Lost,
    /// It is about to end, and may finish its requests.
    Doomed,
}

impl Fleet {
    pub(super) fn send_due_probes(&mut self, now: Instant) {
        let lost_after = self.config.heartbeat.timeout + PROBE_PATIENCE;
        for (generation, member) in &mut self.members {
            let Some(addr) = member.instance.as_ref().and_then(|instance| instance.addr) else { continue };
            if matches!(member.probe, ProbeState::Due(at) if at <= now) {
                member.probe_seq += 1;
                member.probe = ProbeState::Sent { at: now, deadline: now + lost_after };
                self.actions.push(Action::Probe { generation: *generation, seq: member.probe_seq, addr });
            }
        }
    }

    /// Has it probed at once, unless that is being done.
    pub(super) fn probe_now(&mut self, generation: Generation, now: Instant) {
        if let Some(member) = self.members.get_mut(&generation)
            && matches!(member.probe, ProbeState::Due(_))
        {
            member.probe = ProbeState::Due(now);
        }
        self.send_due_probes(now);
    }

    pub(super) fn probed(&mut self, generation: Generation, seq: u64, result: Result<(), ProbeError>, now: Instant) {
        let interval = self.config.heartbeat.interval.mul_f64(self.rng.random_range(0.9..=1.1));
        let Some(member) = self.members.get_mut(&generation) else { return };
        let ProbeState::Sent { at, .. } = member.probe else { return };
        if seq != member.probe_seq {
            return;
        }
        let quick = matches!(member.phase, Phase::Starting { .. }) && seq < QUICK_PROBES && result.is_err();
        let due = if quick { now + QUICK_PROBE.min(interval) } else { (at + interval).max(now) };
        member.probe = ProbeState::Due(due);
        match result {
            Ok(()) => {
                let rises = member.streak.rise();
                if rises >= self.config.heartbeat.rises {
                    self.answered(generation, now);
                }
            }
            Err(ProbeError::NotAsked(error)) => member.last_error = Some(format!("heartbeat not sent: {error}")),
            Err(ProbeError::Bad(error)) => {
                let falls = member.streak.fall();
                member.last_error = Some(format!("heartbeat: {error}"));
                // One that was just launched may take its time; one that was adopted has had it.
                let starting = matches!(member.phase, Phase::Starting { .. }) && member.launched_at.is_some();
                if falls >= self.config.heartbeat.falls && !starting {
                    let reason = format!("failed {falls} heartbeats (the last: {error})");
                    self.fail(generation, &reason, Failure::Lost, now);
                }
            }
        }
        if due <= now {
            self.send_due_probes(now);
        }
    }

    /// It answered often enough to be in rotation.
    pub(super) fn answered(&mut self, generation: Generation, now: Instant) {
        let Some(member) = self.members.get_mut(&generation) else { return };
        let since = match member.phase {
            Phase::Starting { .. } => now,
            Phase::Ready { since } | Phase::Unready { since } => since,
            _ => return,
        };
        let before = std::mem::replace(&mut member.phase, Phase::Ready { since });
        let replica = member.spec.clone();
        match member.standing {
            Standing::Adding => return self.added(now),
            Standing::Updating => return self.updated(generation, now),
            Standing::Spare => {
                if matches!(before, Phase::Starting { .. }) {
                    self.act(Action::Report(Notice::SpareReady { replica }));
                }
                return;
            }
            Standing::Desired | Standing::Leaving => {}
        }
        if !matches!(before, Phase::Ready { .. }) {
            if matches!(before, Phase::Starting { .. }) {
                self.act(Action::Publish);
            }
            self.act(Action::Report(Notice::Ready { replica }));
        }
        // Said again with every good heartbeat: live traffic may have taken it out, and that message may be lost.
        self.act(Action::Health { generation, health: Health::Ready });
    }

    pub(super) fn refused(&mut self, generation: Generation, now: Instant) {
        self.take_out(generation, Health::Unready, "refused a connection");
        if let Some(member) = self.members.get_mut(&generation)
            && let ProbeState::Sent { at, .. } = member.probe
            && at < now
        {
            // That one may have been answered before it went down.
            member.probe = ProbeState::Due(now);
        }
        self.probe_now(generation, now);
    }

    /// Takes a ready one out of rotation until it answers.
    pub(super) fn take_out(&mut self, generation: Generation, health: Health, reason: &str) {
        let Some(member) = self.members.get_mut(&generation) else { return };
        let Phase::Ready { since } = member.phase else { return };
        if member.standing != Standing::Desired {
            return;
        }
        member.phase = Phase::Unready { since };
        member.streak = Streak::default();
        member.last_error = Some(reason.to_owned());
        let replica = member.spec.clone();
        self.act(Action::Health { generation, health });
        self.act(Action::Report(Notice::Unready { replica, reason: reason.to_owned() }));
    }

    pub(super) fn runtime(&mut self, event: RuntimeEvent, now: Instant) {
        match event {
            RuntimeEvent::Died { generation, reason } => self.fail(generation, &reason, Failure::Lost, now),
            RuntimeEvent::Doomed { generation, reason } => self.fail(generation, &reason, Failure::Doomed, now),
            RuntimeEvent::Paused { generation } => {
                // A spare that is frozen takes over for nobody.
                let spare = self.members.get_mut(&generation).filter(|member| member.standing == Standing::Spare);
                if let Some(spare) = spare {
                    spare.streak.fall();
                }
                self.take_out(generation, Health::Lost, "was paused");
                self.probe_now(generation, now);
            }
            RuntimeEvent::Doubtful { generation, reason } => {
                if let Some(member) = self.members.get_mut(&generation) {
                    member.last_error = Some(reason);
                }
                self.probe_now(generation, now);
            }
            RuntimeEvent::Resync => self.act(Action::List),
            // From an agent, which a follower hears.
            RuntimeEvent::Members(_) | RuntimeEvent::Detached(_) => {}
        }
    }

    pub(super) fn fail(&mut self, generation: Generation, reason: &str, failure: Failure, now: Instant) {
        let Some(member) = self.members.get(&generation) else { return };
        match (member.standing, member.phase) {
            (Standing::Leaving, Phase::Draining { .. }) if failure == Failure::Lost => self.stop(generation, 1, now),
            (Standing::Leaving, _) => {}
            (Standing::Adding, _) => {
                let reason = format!("{} {reason}", member.spec.hostname);
                self.add_failed(&reason, now);
            }
            (Standing::Spare | Standing::Updating, _) if self.closing => self.discard(generation, now),
            (Standing::Spare, _) => {
                let failed = member.clone();
                self.discard(generation, now);
                self.spare_failed(&failed, reason, now);
            }
            (Standing::Updating, _) => {
                let failed = member.clone();
                self.discard(generation, now);
                self.update_failed(&failed, reason, now);
            }
            (Standing::Desired, _) if !self.config.heals => self.take_out(generation, Health::Lost, reason),
            (Standing::Desired, _) if self.closing => self.discard(generation, now),
            (Standing::Desired, _) => self.replace(generation, reason, failure, now),
        }
    }

    pub(super) fn replace(&mut self, generation: Generation, reason: &str, failure: Failure, now: Instant) {
        let Some(failed) = self.members.get(&generation).cloned() else { return };
        let calm = failed.ready_for(now).is_some_and(|ready| ready >= self.config.backoff.calm);
        let crashes = if calm { 0 } else { failed.crashes.saturating_add(1) };
        let published = failed.is_published();
        match failure {
            Failure::Doomed => self.drain(generation, now),
            Failure::Lost => {
                if published {
                    self.act(Action::Health { generation, health: Health::Lost });
                }
                self.discard(generation, now);
            }
        }
        let stops_deploy = self.stops_deploy(&failed, now);
        if self.promote(&failed, reason, now) || self.hand_over(&failed, reason) {
            if stops_deploy {
                self.roll_back(reason, now);
            }
            return;
        }
        let hostname = self.random_hostname();
        // Not the lowest free number, which is another one where a replica was removed: its keys are to come back.
        let successor = self.enlist_as(failed.spec.id, hostname, Standing::Desired, now);
        // Even if it was not in the pool: its ring number goes over to another.
        self.act(Action::Publish);
        let delay = self.launch_after(successor, &failed, crashes, now);
        let replica = failed.spec;
        let Some(member) = self.members.get_mut(&successor) else { return };
        // Its place goes over to the replacement, and its share with that.
        member.share = inherited(failed.share);
        member.last_error = Some(format!("{} {reason}", replica.hostname));
        let (replacement, delay) = (member.spec.clone(), (!delay.is_zero()).then_some(delay));
        self.act(Action::Report(Notice::Replaced { replica, reason: reason.to_owned(), replacement, delay }));
        if stops_deploy {
            self.roll_back(reason, now);
        }
    }
}
