//! Rolling updates: every replica is replaced by one that is started from another template, a few at a time.
//!
//! Make before break: the new one is started beside the old one, and takes over its ring number once it has answered; then
//! the old one finishes its requests and goes. If a new one fails before it was ready for [`FleetConfig::settle`], all that
//! the update has brought is replaced by what was before, in the same way.
//!
//! [`FleetConfig::settle`]: super::FleetConfig::settle

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::member::{Member, Phase, Standing};
use super::orders::Ticket;
use super::spare::inherited;
use super::{Action, Fleet, Notice, Refusal};
use crate::replica::{Generation, Health};
use crate::runtime::Template;

/// How often the start of a replica is tried while an update is rolled back.
const BACK_TRIES: u32 = 3;
/// So many replicas of an update may not fail while it goes on, however late.
const MOST_FAILURES: u32 = 3;

/// What a rolling update changes of the template; what is not named stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Program and arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// All environment variables besides `SERVER_ID` and `PORT`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<BTreeMap<String, String>>,
}

impl Change {
    /// Can `template` be changed so? The error says what is wrong.
    fn check(&self, template: &Template) -> Result<(), String> {
        if self.image.as_ref().is_some_and(|image| image.is_empty() || image.contains(char::is_whitespace)) {
            return Err("the image's name is empty, or has blanks in it".into());
        }
        if self.image.is_some() && template.image.is_empty() {
            return Err("replicas are processes, which have no image; give a command or an environment".into());
        }
        if self.command.as_ref().is_some_and(Vec::is_empty) {
            return Err("the command is empty; expected a program and its arguments".into());
        }
        let is_bad = |name: &&String| name.is_empty() || name.contains('=') || OWN_VARIABLES.contains(&name.as_str());
        match self.env.iter().flat_map(BTreeMap::keys).find(is_bad) {
            Some(name) => {
                Err(format!("'{name}' can't be set in the environment; SERVER_ID and PORT are the fleet's own"))
            }
            None => Ok(()),
        }
    }

    fn of(&self, template: &Template) -> Template {
        let mut changed = template.clone();
        changed.image = self.image.clone().unwrap_or(changed.image);
        changed.command = self.command.clone().unwrap_or(changed.command);
        changed.env = self.env.clone().unwrap_or(changed.env);
        changed
    }
}

/// Where a rolling update stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rollout {
    /// Replicas are being replaced.
    RollingOut,
    /// It failed; replicas are being replaced by what was before.
    RollingBack,
    /// All were replaced.
    Done,
    /// It failed, and all is as it was before.
    RolledBack,
}

/// How a rolling update stands, or how the last one ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Counts the updates of this run of the agent.
    pub seq: u64,
    /// What replicas are started from: an image or a command.
    pub template: String,
    /// Where it stands.
    pub state: Rollout,
    /// Replicas that were replaced (while it is rolled back: that are as before).
    pub done: usize,
    /// Of how many.
    pub total: usize,
    /// Host names of those that are being started.
    pub starting: Vec<String>,
    /// Why it failed.
    pub reason: Option<String>,
}

/// Environment variables that replicas get in any case.
const OWN_VARIABLES: [&str; 2] = ["SERVER_ID", "PORT"];

#[derive(Debug, Clone, Copy)]
struct Pair {
    new: Generation,
    old: Generation,
}

/// The update under way.
#[derive(Debug)]
pub(super) struct Deploying {
    ticket: Ticket,
    target: Arc<Template>,
    /// The number of what it brings.
    release: u64,
    /// Set once it has failed: why, and how many starts have failed since.
    back: Option<(String, u32)>,
    pairs: Vec<Pair>,
    total: usize,
    /// Of those that the update has brought.
    failures: u32,
    /// Until when the last ones that were brought have to stay ready.
    settling: Option<Instant>,
}

impl Fleet {
    /// Does something that takes time keep orders waiting?
    pub fn is_busy(&self) -> bool {
        self.adding.is_some() || self.deploying.is_some()
    }

    pub(super) fn template_of(&self, release: Option<u64>) -> Arc<Template> {
        match &self.deploying {
            Some(deploying) if release == Some(deploying.release) => Arc::clone(&deploying.target),
            _ => Arc::clone(&self.template),
        }
    }

    /// How the last rolling update stands, if there was one.
    pub fn progress(&self) -> Option<&Progress> {
        self.progress.as_ref()
    }

    pub(super) fn deploy(&mut self, ticket: Ticket, change: &Change, now: Instant) -> Result<(), Refusal> {
        change.check(&self.template).map_err(Refusal::BadChange)?;
        let target = Arc::new(change.of(&self.template));
        let total = self.desired().count();
        if total == 0 {
            return Err(Refusal::NothingToUpdate);
        }
        let template = target.to_string();
        self.act(Action::Report(Notice::Deploying { template: template.clone(), replicas: total }));
        // What fails meanwhile is replaced by what was before, under its own number.
        let release = self.release + 1;
        self.deploying = Some(Deploying {
            ticket,
            target,
            release,
            back: None,
            pairs: Vec::new(),
            total,
            failures: 0,
            settling: None,
        });
        self.progress = Some(Progress {
            seq: release,
            template,
            state: Rollout::RollingOut,
            done: 0,
            total,
            starting: Vec::new(),
            reason: None,
        });
        self.deploy_on(now);
        Ok(())
    }

    /// Takes the next step of the update, if it is time.
    pub(super) fn deploy_on(&mut self, now: Instant) {
        let Some(deploying) = &mut self.deploying else { return };
        if self.closing || !deploying.pairs.is_empty() || deploying.settling.is_some_and(|until| now < until) {
            return;
        }
        deploying.settling = None;
        let (target, back) = (deploying.release, deploying.back.is_some());
        // One that has taken over before it was ready has to show yet that it gets there.
        let is_settled = |member: &Member| match member.phase {
            Phase::Ready { since } => now - since >= self.config.settle,
            _ => false,
        };
        if !back && self.desired().any(|member| member.release == Some(target) && !is_settled(member)) {
            return;
        }
        let is_left = |member: &&Member| (member.release == Some(target)) == back;
        let mut left: Vec<_> = self.desired().filter(is_left).map(|m| (m.order, m.spec.generation)).collect();
        left.sort_unstable();
        if left.is_empty() || self.deploying.as_ref().is_some_and(|it| it.tries() >= BACK_TRIES) {
            return self.deployed(left.len(), now);
        }
        for (_, old) in left.into_iter().take(self.config.max_surge.max(1)) {
            let Some(id) = self.members.get(&old).map(|member| member.spec.id) else { continue };
            let hostname = self.random_hostname();
            let new = self.enlist_as(id, hostname, Standing::Updating, now);
            if let Some(member) = self.members.get_mut(&new).filter(|_| !back) {
                member.release = Some(target);
            }
            if let Some(deploying) = &mut self.deploying {
                deploying.pairs.push(Pair { new, old });
            }
            self.launch(new, now);
        }
        self.show_progress();
    }

    /// One that the update has started has answered: it takes over.
    pub(super) fn updated(&mut self, new: Generation, now: Instant) {
        let Some(deploying) = &mut self.deploying else { return };
        let Some(at) = deploying.pairs.iter().position(|pair| pair.new == new) else { return };
        let Pair { old, .. } = deploying.pairs.swap_remove(at);
        deploying.settling = Some(now + self.config.settle);
        let replica = self.members.get(&old).map(|member| (member.spec.clone(), member.share));
        // Put aside until the new one is in.
        let before = std::mem::take(&mut self.actions);
        self.drain(old, now);
        let drain = std::mem::replace(&mut self.actions, before);
        let Some(member) = self.members.get_mut(&new) else { return };
        member.standing = Standing::Desired;
        if let Some((_, share)) = &replica {
            member.share = *share;
        }
        let replacement = member.spec.clone();
        self.act(Action::Publish);
        self.act(Action::Health { generation: new, health: Health::Ready });
        self.actions.extend(drain);
        self.show_progress();
        if let (Some((replica, _)), Some(progress)) = (replica, &self.progress) {
            let (done, total) = (progress.done, progress.total);
            self.act(Action::Report(Notice::Updated { replica, replacement, done, total }));
        }
        self.deploy_on(now);
    }

    /// The old one of a pair has failed before its successor was ready: that is now its replacement. False if `failed` is
    /// in no pair.
    pub(super) fn hand_over(&mut self, failed: &Member, reason: &str) -> bool {
        let Some(deploying) = &mut self.deploying else { return false };
        let Some(at) = deploying.pairs.iter().position(|pair| pair.old == failed.spec.generation) else { return false };
        let Pair { new, .. } = deploying.pairs.swap_remove(at);
        let Some(member) = self.members.get_mut(&new) else { return false };
        member.standing = Standing::Desired;
        member.share = inherited(failed.share);
        let (replica, replacement) = (failed.spec.clone(), member.spec.clone());
        self.act(Action::Publish);
        self.act(Action::Report(Notice::Replaced { replica, reason: reason.to_owned(), replacement, delay: None }));
        true
    }

    /// Whose place one that the update starts is to take.
    pub(super) fn instead_of(&self, new: Generation) -> Option<Generation> {
        let pairs = self.deploying.iter().flat_map(|deploying| &deploying.pairs);
        pairs.into_iter().find(|pair| pair.new == new).map(|pair| pair.old)
    }

    /// `spare` has taken the place of `old`, which a rolling update was about to replace: now it is to be replaced.
    pub(super) fn update_instead(&mut self, old: Generation, spare: Generation) {
        let pairs = self.deploying.iter_mut().flat_map(|deploying| &mut deploying.pairs);
        pairs.filter(|pair| pair.old == old).for_each(|pair| pair.old = spare);
    }

    /// Is `failed` one that the update has brought, and that says something against it? It does if it has failed soon after
    /// its start, as what it is made from may be why; later, if it is not the only one.
    pub(super) fn stops_deploy(&mut self, failed: &Member, now: Instant) -> bool {
        let soon = self.config.settle.max(self.config.backoff.calm);
        let Some(deploying) = self.deploying.as_mut().filter(|it| it.back.is_none()) else { return false };
        if failed.release != Some(deploying.release) {
            return false;
        }
        deploying.failures += 1;
        failed.ready_for(now).is_none_or(|ready| ready < soon) || deploying.failures >= MOST_FAILURES
    }

    /// One that the update has started did not get ready; it is gone, or as good as that.
    pub(super) fn update_failed(&mut self, failed: &Member, reason: &str, now: Instant) {
        let Some(deploying) = &mut self.deploying else { return };
        deploying.pairs.retain(|pair| pair.new != failed.spec.generation);
        match &mut deploying.back {
            None => self.roll_back(&format!("{} {reason}", failed.spec.hostname), now),
            Some((_, tries)) => {
                *tries += 1;
                self.deploy_on(now);
            }
        }
    }

    /// Gives the update up, and goes back.
    pub(super) fn roll_back(&mut self, reason: &str, now: Instant) {
        let Some(deploying) = self.deploying.as_mut().filter(|it| it.back.is_none()) else { return };
        deploying.back = Some((reason.to_owned(), 0));
        deploying.settling = None;
        let given_up: Vec<_> = std::mem::take(&mut deploying.pairs).into_iter().map(|pair| pair.new).collect();
        self.act(Action::Report(Notice::RollingBack { reason: reason.to_owned() }));
        for generation in given_up {
            self.discard(generation, now);
        }
        self.deploy_on(now);
    }

    /// The update is over, one way or the other; `left` replicas are not as they should be.
    fn deployed(&mut self, left: usize, now: Instant) {
        self.show_progress();
        let Some(Deploying { ticket, target, release, back, .. }) = self.deploying.take() else { return };
        // What was given up must not be taken for what comes next.
        self.release = release;
        let state = if back.is_some() { Rollout::RolledBack } else { Rollout::Done };
        if let Some(progress) = &mut self.progress {
            progress.state = state;
            progress.starting.clear();
        }
        match back {
            None => {
                self.template = target;
                self.act(Action::Report(Notice::Deployed { template: self.template.to_string() }));
                self.answer(ticket, Ok(self.listing()));
                self.renew_spares(now);
            }
            Some((reason, _)) => {
                // Those that went back were launched under the number before.
                for member in self.members.values_mut().filter(|member| member.release == Some(release)) {
                    member.release = None;
                }
                self.act(Action::Report(Notice::RolledBack { reason: reason.clone(), left }));
                self.answer(ticket, Err(Refusal::RolledBack(reason)));
            }
        }
        self.next_orders(now);
    }

    /// Spares are of no use if they are not what the fleet is made of.
    fn renew_spares(&mut self, now: Instant) {
        let spares = self.members.values().filter(|member| member.standing == Standing::Spare);
        let old: Vec<_> = spares.map(|member| member.spec.generation).collect();
        for generation in old {
            self.discard(generation, now);
        }
        self.top_up_spares(now);
    }

    fn show_progress(&mut self) {
        let Some(Deploying { release, back, pairs, total, .. }) = &self.deploying else { return };
        let of_the_update = self.desired().filter(|member| member.release == Some(*release)).count();
        let name = |pair: &Pair| self.members.get(&pair.new).map(|member| member.spec.hostname.to_string());
        let (total, starting) = (*total, pairs.iter().filter_map(name).collect());
        let (back, reason) = (back.is_some(), back.as_ref().map(|(reason, _)| reason.clone()));
        let Some(progress) = &mut self.progress else { return };
        progress.done = if back { total.saturating_sub(of_the_update) } else { of_the_update };
        progress.state = if back { Rollout::RollingBack } else { Rollout::RollingOut };
        (progress.starting, progress.reason) = (starting, reason);
    }

    pub(super) fn deploy_deadline(&self) -> Option<Instant> {
        self.deploying.as_ref().and_then(|deploying| deploying.settling)
    }

    pub(super) fn refuse_deploy(&mut self) {
        if let Some(deploying) = self.deploying.take() {
            self.answer(deploying.ticket, Err(Refusal::Closing));
        }
    }

    /// Panics if the update contradicts itself; for tests.
    pub(super) fn check_deploy(&self) {
        let pairs: &[Pair] = self.deploying.as_ref().map_or(&[], |deploying| &deploying.pairs);
        for Pair { new, old } in pairs {
            let (new, old) = (&self.members[new], &self.members[old]);
            assert_eq!(new.standing, Standing::Updating, "{new:?}");
            assert!(!matches!(new.phase, Phase::Ready { .. }), "it should have taken over: {new:?}");
            assert_eq!((old.standing, old.spec.id), (Standing::Desired, new.spec.id), "{old:?}");
        }
        if self.closing {
            return;
        }
        let updating = self.members.values().filter(|member| member.standing == Standing::Updating).count();
        assert_eq!(updating, pairs.len(), "started for nobody");
    }
}

impl Deploying {
    fn tries(&self) -> u32 {
        self.back.as_ref().map_or(0, |(_, tries)| *tries)
    }
}
