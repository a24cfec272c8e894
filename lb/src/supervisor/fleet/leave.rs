//! A member on its way out: draining, stopping, gone.

use std::time::Duration;

use tokio::time::Instant;

use super::member::{Phase, ProbeState, Standing};
use super::{Action, Fleet, Notice, PATIENCE, REMEMBERED};
use crate::replica::{Generation, Health};
use crate::runtime::RuntimeError;

impl Fleet {
    /// Lets it finish its requests, then stops it. The caller publishes.
    pub(super) fn drain(&mut self, generation: Generation, now: Instant) {
        let Some(member) = self.members.get_mut(&generation) else { return };
        if !member.is_published() {
            return self.discard(generation, now);
        }
        member.standing = Standing::Leaving;
        member.phase = Phase::Draining { deadline: now + self.config.drain_timeout };
        member.probe = ProbeState::Off;
        self.act(Action::Health { generation, health: Health::Draining });
        self.act(Action::Drain { generation });
    }

    pub(super) fn drained(&mut self, generation: Generation, now: Instant) {
        if self.members.get(&generation).is_some_and(|member| matches!(member.phase, Phase::Draining { .. })) {
            self.stop(generation, 1, now);
        }
    }

    /// Stops it without waiting for its requests; one that was never launched is just forgotten.
    pub(super) fn discard(&mut self, generation: Generation, now: Instant) {
        let Some(member) = self.members.get_mut(&generation) else { return };
        member.standing = Standing::Leaving;
        member.probe = ProbeState::Off;
        match member.phase {
            Phase::Waiting { .. } => self.gone(generation, now),
            Phase::Launching { deadline, .. } => {
                member.phase = Phase::Aborting { deadline: deadline.max(now + PATIENCE) };
            }
            Phase::Starting { .. } | Phase::Ready { .. } | Phase::Unready { .. } => self.stop(generation, 1, now),
            Phase::Draining { .. } | Phase::Stopping { .. } | Phase::Aborting { .. } => {}
        }
    }

    pub(super) fn stop(&mut self, generation: Generation, attempts: u32, now: Instant) {
        let Some(member) = self.members.get_mut(&generation) else { return };
        let Some(id) = member.instance.as_ref().map(|instance| instance.id.clone()) else {
            return self.gone(generation, now);
        };
        // What has drained may end politely; what was lost, or would not go, is not asked.
        let polite = matches!(member.phase, Phase::Draining { .. }) || self.closing;
        let grace = if polite && attempts == 1 { self.config.stop_grace } else { Duration::ZERO };
        member.standing = Standing::Leaving;
        member.probe = ProbeState::Off;
        member.phase = Phase::Stopping { attempts, deadline: now + grace + PATIENCE };
        self.act(Action::Stop { generation, id, grace });
    }

    pub(super) fn stopped(&mut self, generation: Generation, result: Result<(), RuntimeError>, now: Instant) {
        let Some(member) = self.members.get_mut(&generation) else { return };
        let Phase::Stopping { attempts, .. } = member.phase else { return };
        match result {
            Ok(()) => self.gone(generation, now),
            Err(error) => {
                let wait = Duration::from_secs(1 << attempts.min(5));
                member.phase = Phase::Stopping { attempts, deadline: now + wait };
                member.last_error = Some(format!("stop: {error}"));
                let replica = member.spec.clone();
                self.act(Action::Report(Notice::StopFailed { replica, reason: error.to_string() }));
            }
        }
    }

    pub(super) fn gone(&mut self, generation: Generation, now: Instant) {
        self.members.remove(&generation);
        self.gone.push_back((generation, now));
        if self.gone.len() > REMEMBERED {
            self.gone.pop_front();
        }
        self.act(Action::Gone { generation });
        self.settle_orders(now);
    }

    pub(super) fn close(&mut self, remove: bool, now: Instant) {
        self.closing = true;
        self.relist_at = None;
        self.refuse_orders();
        if remove {
            for generation in self.members.keys().copied().collect::<Vec<_>>() {
                self.discard(generation, now);
            }
        }
    }
}
