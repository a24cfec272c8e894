//! Starting a member: its launch, the back-off before it, and what comes of it.

use std::time::Duration;

use tokio::time::Instant;

use super::member::{Member, Phase, ProbeState, Standing};
use super::{Action, Failure, Fleet, Notice, PATIENCE};
use crate::replica::Generation;
use crate::runtime::{Instance, Launch, RuntimeError};

impl Fleet {
    pub(super) fn launch(&mut self, generation: Generation, now: Instant) {
        let Some(member) = self.members.get_mut(&generation) else { return };
        member.phase = Phase::Launching { since: now, deadline: now + self.config.start_timeout + PATIENCE };
        member.launched_at = Some(now);
        let (spec, release) = (member.spec.clone(), member.release);
        let template = self.template_of(release);
        let (promoted, instead_of) = (self.promoted(), self.instead_of(generation));
        self.act(Action::Launch(Launch { spec, template, promoted, instead_of }));
    }

    /// Launches now, or later if too much has failed in a row; gives the delay. What counts is the time since the launch
    /// of `failed`, the one before: a replica that has lived for longer than the back-off is replaced at once.
    pub(super) fn launch_after(
        &mut self,
        generation: Generation,
        failed: &Member,
        crashes: u32,
        now: Instant,
    ) -> Duration {
        let since = failed.launched_at.map_or(Duration::ZERO, |launched_at| now - launched_at);
        let delay = self.config.backoff.delay(crashes, &mut self.rng).saturating_sub(since);
        if let Some(member) = self.members.get_mut(&generation) {
            member.crashes = crashes;
            member.phase = Phase::Waiting { until: now + delay };
        }
        if delay.is_zero() {
            self.launch(generation, now);
        }
        delay
    }

    pub(super) fn launched(&mut self, generation: Generation, result: Result<Instance, RuntimeError>, now: Instant) {
        let Some(member) = self.members.get_mut(&generation) else {
            // Given up long ago; whatever has come of it must not live on.
            if let Ok(Instance { id, .. }) = result {
                self.act(Action::Stop { generation, id, grace: Duration::ZERO });
            }
            return;
        };
        match (member.phase, result) {
            (Phase::Launching { since, .. }, Ok(instance)) => {
                member.phase = Phase::Starting { since, deadline: now + self.config.start_timeout };
                let reachable = instance.addr.is_some();
                member.instance = Some(instance);
                member.up_at = Some(now);
                member.probe = ProbeState::Due(now);
                if reachable {
                    self.send_due_probes(now);
                } else {
                    self.fail(generation, "has no address", Failure::Lost, now);
                }
            }
            (Phase::Launching { .. }, Err(error)) => self.launch_failed(generation, &error, now),
            (Phase::Aborting { .. }, Ok(instance)) => {
                member.instance = Some(instance);
                member.up_at = Some(now);
                self.stop(generation, 1, now);
            }
            (Phase::Aborting { .. }, Err(_)) => self.gone(generation, now),
            _ => {}
        }
    }

    /// Nothing was started. The member is tried again in the same place, as a new generation.
    pub(super) fn launch_failed(&mut self, generation: Generation, error: &RuntimeError, now: Instant) {
        let Some(failed) = self.members.remove(&generation) else { return };
        self.act(Action::Gone { generation });
        match failed.standing {
            Standing::Adding => return self.add_failed(&error.to_string(), now),
            _ if self.closing => return,
            Standing::Updating => return self.update_failed(&failed, &error.to_string(), now),
            Standing::Spare => return self.spare_failed(&failed, &error.to_string(), now),
            // Its successor is being started already.
            Standing::Desired if self.hand_over(&failed, &format!("could not be started: {error}")) => return,
            Standing::Desired | Standing::Leaving => {}
        }
        let hostname = match error {
            RuntimeError::NameTaken(_) => self.random_hostname(),
            RuntimeError::Failed(_) => failed.spec.hostname.clone(),
        };
        let stops_deploy = self.stops_deploy(&failed, now);
        let again = self.enlist_as(failed.spec.id, hostname, Standing::Desired, now);
        if let Some(member) = self.members.get_mut(&again) {
            member.order = failed.order;
            member.share = failed.share;
            member.last_error = Some(error.to_string());
        }
        self.act(Action::Publish);
        let delay = self.launch_after(again, &failed, failed.crashes.saturating_add(1), now);
        self.act(Action::Report(Notice::LaunchFailed { replica: failed.spec, reason: error.to_string(), delay }));
        // Last, as orders that have waited for the update take what is free.
        if stops_deploy {
            self.roll_back(&error.to_string(), now);
        }
    }

    pub(super) fn start_late(&mut self, generation: Generation, since: Instant, now: Instant) {
        if self.config.heals {
            let reason = format!("answered no heartbeat within {} s", (now - since).as_secs());
            self.fail(generation, &reason, Failure::Lost, now);
        } else if let Some(member) = self.members.get_mut(&generation) {
            // Nobody can replace it, so it may take all the time it needs.
            member.phase = Phase::Starting { since, deadline: now + self.config.start_timeout };
        }
    }
}
