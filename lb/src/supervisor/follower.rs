//! A fleet that an agent elsewhere keeps, as a state machine: `(event, now) -> actions`, as [`Fleet`](super::fleet::Fleet).
//!
//! Owns what this balancer itself has found out about the members: its own heartbeats, and what live traffic met with. Does
//! *not* start, stop or number anybody. A member takes requests if the agent says that it is ready and nothing speaks
//! against it here. While the agent can't be heard, its last word on who is a member holds, and the heartbeats alone tell
//! who is ready.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

use super::LinkStatus;
use super::fleet::{Action, Event, Listing, MemberView, Notice, Refusal, State};
use crate::placement::Place;
use crate::probe::{HeartbeatConfig, ProbeError, Streak};
use crate::replica::{Generation, Health, Share};
use crate::runtime::remote::{Membership, RemoteMember, Standing};
use crate::runtime::{Instance, InstanceId, RuntimeEvent};

/// How much longer than its own time a probe may take before its result counts as lost.
const PROBE_PATIENCE: Duration = Duration::from_secs(1);

/// What this balancer has found out about a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Nothing speaks against it.
    Good,
    /// It refused a connection, and has not answered a heartbeat since.
    Refused,
    /// It failed its heartbeats.
    Failed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Probe {
    Off,
    Due(Instant),
    Sent { at: Instant, deadline: Instant },
}

#[derive(Debug, Clone)]
struct Followed {
    remote: RemoteMember,
    /// Is it in the pool? It is put there when it is ready first, and taken out when it leaves.
    instance: Option<Instance>,
    verdict: Verdict,
    streak: Streak,
    probe: Probe,
    seq: u64,
    /// The last word on its health.
    health: Health,
    error: Option<String>,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Follower {
    heartbeat: HeartbeatConfig,
    rng: StdRng,
    members: BTreeMap<Generation, Followed>,
    instance: Arc<str>,
    epoch: u64,
    detached: Option<String>,
    actions: Vec<Action>,
}

impl Follower {
    /// One that has heard nothing yet; `seed` decides the jitter of its heartbeats.
    pub fn new(heartbeat: HeartbeatConfig, seed: u64) -> Self {
        Self {
            heartbeat,
            rng: StdRng::seed_from_u64(seed),
            members: BTreeMap::new(),
            instance: "".into(),
            epoch: 0,
            detached: Some("not yet".into()),
            actions: Vec::new(),
        }
    }

    /// Takes in what happened, and says what to do, in this order.
    pub fn handle(&mut self, event: Event, now: Instant) -> Vec<Action> {
        match event {
            Event::Runtime(RuntimeEvent::Members(membership)) => self.follow(membership, now),
            Event::Runtime(RuntimeEvent::Detached(reason)) => {
                if self.detached.is_none() {
                    self.doubt_those_that_were_out(now);
                }
                self.detached = Some(reason);
                self.settle(now);
            }
            Event::Probed { generation, seq, result } => self.probed(generation, seq, result, now),
            Event::Refused { generation } => self.refused(generation, now),
            Event::Broken { generation } => self.probe_now(generation, now),
            Event::Order { ticket, .. } => {
                self.actions.push(Action::Answer { ticket, answer: Err(Refusal::Fixed) });
            }
            Event::Tick => self.tick(now),
            _ => {}
        }
        self.send_due_probes(now);
        std::mem::take(&mut self.actions)
    }

    /// When to call with [`Event::Tick`] next.
    pub fn deadline(&self) -> Option<Instant> {
        let deadline = |member: &Followed| match member.probe {
            Probe::Off => None,
            Probe::Due(at) => Some(at),
            Probe::Sent { deadline, .. } => Some(deadline),
        };
        self.members.values().filter_map(deadline).min()
    }

    /// The membership to publish.
    pub fn published(&self) -> impl Iterator<Item = (&Instance, Share)> {
        self.members.values().filter_map(|member| Some((member.instance.as_ref()?, member.remote.share)))
    }

    /// The places of the desired replicas, ready or not.
    pub fn places(&self) -> impl Iterator<Item = Place> {
        self.desired().map(|remote| {
            let Share { weight, priority } = remote.share;
            Place { id: remote.id.0, weight, priority }
        })
    }

    fn desired(&self) -> impl Iterator<Item = &RemoteMember> {
        self.members.values().map(|member| &member.remote).filter(|remote| remote.desired)
    }

    /// N and the host names, oldest first.
    pub fn listing(&self) -> Listing {
        let mut members: Vec<_> = self.desired().collect();
        members.sort_unstable_by_key(|remote| remote.order);
        Listing { n: members.len(), replicas: members.into_iter().map(|remote| remote.hostname.clone()).collect() }
    }

    /// What is heard of the agent.
    pub fn link(&self) -> LinkStatus {
        LinkStatus { instance: Arc::clone(&self.instance), epoch: self.epoch, detached: self.detached.clone() }
    }

    /// Everything there is, oldest first, for status output.
    pub fn view(&self) -> Vec<MemberView> {
        let time = |millis: u64| SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
        let mut members: Vec<_> = self.members.values().collect();
        members.sort_unstable_by_key(|member| member.remote.order);
        let view = |member: &Followed| {
            let remote = &member.remote;
            MemberView {
                spec: remote.spec(),
                instance: member.instance.clone().or_else(|| instance(remote)),
                state: match (&member.instance, remote.state) {
                    (Some(_), _) if member.health == Health::Ready => State::Ready,
                    (Some(_), _) => State::Unready,
                    (None, Standing::Starting) => State::Starting,
                    (None, Standing::Ready) => State::Ready,
                    (None, Standing::Unready) => State::Unready,
                    (None, Standing::Lost | Standing::Draining) => State::Draining,
                },
                share: remote.share,
                desired: remote.desired,
                spare: remote.spare,
                order: remote.order,
                crashes: remote.crashes,
                launch_at: remote.launch_at.map(time),
                last_error: member.error.clone().or_else(|| remote.last_error.clone()),
            }
        };
        members.into_iter().map(view).collect()
    }

    // ---- what the agent says

    fn follow(&mut self, Membership { instance: run, epoch, members }: Membership, now: Instant) {
        (self.instance, self.epoch) = (run, epoch);
        self.detached = None;
        let layout = self.layout();
        let told: BTreeMap<Generation, &RemoteMember> = members.iter().map(|one| (one.generation, one)).collect();
        let is_same = |known: &Followed| {
            // A restarted agent may give a number out again.
            let told = told.get(&known.remote.generation);
            told.is_some_and(|told| told.runtime_id == known.remote.runtime_id || known.remote.runtime_id.is_none())
        };
        let gone: Vec<_> =
            self.members.iter().filter(|(_, known)| !is_same(known)).map(|(generation, _)| *generation).collect();
        // Who comes is in before those that go are out.
        let (mut leaving, mut left) = (Vec::new(), Vec::new());
        for generation in gone {
            // Published no more, it is out of everybody's sight.
            left.push(Action::Gone { generation });
            self.members.remove(&generation);
        }
        // One that was started anew under the same number is another one: it must be forgotten first.
        let (again, left): (Vec<_>, Vec<_>) = left
            .into_iter()
            .partition(|action| matches!(action, Action::Gone { generation } if told.contains_key(generation)));
        self.actions.extend(again);
        for remote in members.iter() {
            let known = self.members.entry(remote.generation).or_insert_with(|| Followed::new(remote.clone()));
            let was_ready = known.remote.state == Standing::Ready;
            if known.remote != *remote {
                known.remote = remote.clone();
            }
            let answers = matches!(remote.state, Standing::Ready | Standing::Unready);
            if !remote.desired {
                // It leaves, or waits to be one of N.
                if known.instance.take().is_some() {
                    known.probe = Probe::Off;
                    let health = if remote.state == Standing::Lost { Health::Lost } else { Health::Draining };
                    leaving.push((remote.generation, health));
                }
            } else if let Some(instance) = &mut known.instance {
                instance.spec = remote.spec();
            } else if answers && let Some(instance) = instance(remote) {
                known.instance = Some(instance);
                known.probe = Probe::Due(now + self.heartbeat.interval);
            }
            // The agent has just seen that it answers: what speaks against it here may be out of date.
            let doubtful = self.members.get(&remote.generation).is_some_and(|known| known.verdict != Verdict::Good);
            if doubtful && !was_ready && remote.state == Standing::Ready {
                self.probe_now(remote.generation, now);
            }
        }
        let (published, places) = &layout;
        let stays = self.published().eq(published.iter().map(|(instance, share)| (instance, *share)))
            && self.places().eq(places.iter().copied());
        if !stays {
            self.actions.push(Action::Publish);
        }
        self.settle(now);
        for (generation, health) in leaving {
            self.say(generation, health);
        }
        self.actions.extend(left);
    }

    /// Is it in rotation from the moment that it is published?
    pub fn starts_ready(&self, generation: Generation) -> bool {
        self.members.get(&generation).is_some_and(|member| self.health(member) == Health::Ready)
    }

    /// From here on heartbeats alone tell who is ready, and whoever was not has to answer one first.
    fn doubt_those_that_were_out(&mut self, now: Instant) {
        let was_out = |member: &Followed| matches!(member.remote.state, Standing::Unready | Standing::Lost);
        let out: Vec<_> =
            self.members.iter().filter(|(_, member)| was_out(member)).map(|(generation, _)| *generation).collect();
        for generation in out {
            if let Some(member) = self.members.get_mut(&generation).filter(|member| member.verdict == Verdict::Good) {
                (member.verdict, member.streak) = (Verdict::Refused, Streak::default());
            }
            self.probe_now(generation, now);
        }
    }

    /// What a publication depends on.
    fn layout(&self) -> (Vec<(Instance, Share)>, Vec<Place>) {
        let published = self.published().map(|(instance, share)| (instance.clone(), share));
        (published.collect(), self.places().collect())
    }

    /// Says how the members are, where that has changed.
    fn settle(&mut self, _now: Instant) {
        let said: Vec<_> = self.members.iter().map(|(generation, member)| (*generation, self.health(member))).collect();
        for (generation, health) in said {
            let Some(member) = self.members.get(&generation) else { continue };
            if member.instance.is_some() && member.health != health {
                self.report(generation, health);
                self.say(generation, health);
            }
        }
    }

    /// The agent's word and this balancer's.
    fn health(&self, member: &Followed) -> Health {
        let here = match member.verdict {
            Verdict::Good => Health::Ready,
            Verdict::Refused => Health::Unready,
            Verdict::Failed => Health::Lost,
        };
        // An agent that was just started does not know yet; one that can't be heard may be out of date.
        let unknown = self.detached.is_some() || member.remote.state == Standing::Starting;
        match member.remote.state {
            _ if unknown => here,
            Standing::Unready if here == Health::Ready => Health::Unready,
            Standing::Lost => Health::Lost,
            Standing::Draining => Health::Draining,
            _ => here,
        }
    }

    fn say(&mut self, generation: Generation, health: Health) {
        if let Some(member) = self.members.get_mut(&generation) {
            member.health = health;
        }
        self.actions.push(Action::Health { generation, health });
    }

    fn report(&mut self, generation: Generation, health: Health) {
        let Some(member) = self.members.get(&generation) else { return };
        let replica = member.remote.spec();
        self.actions.push(Action::Report(match health {
            Health::Ready => Notice::Ready { replica },
            _ => {
                let agent =
                    || member.remote.last_error.clone().unwrap_or_else(|| "is not ready, says the agent".into());
                Notice::Unready { replica, reason: member.error.clone().unwrap_or_else(agent) }
            }
        }));
    }

    // ---- what is found out here

    fn refused(&mut self, generation: Generation, now: Instant) {
        let Some(member) = self.members.get_mut(&generation) else { return };
        if member.verdict == Verdict::Good {
            (member.verdict, member.streak) = (Verdict::Refused, Streak::default());
            member.error = Some("refused a connection".into());
        }
        if let Probe::Sent { at, .. } = member.probe
            && at < now
        {
            // That one may have been answered before it went down.
            member.probe = Probe::Due(now);
        }
        self.probe_now(generation, now);
        self.settle(now);
    }

    fn probe_now(&mut self, generation: Generation, now: Instant) {
        if let Some(member) = self.members.get_mut(&generation)
            && matches!(member.probe, Probe::Due(_))
        {
            member.probe = Probe::Due(now);
        }
    }

    fn probed(&mut self, generation: Generation, seq: u64, result: Result<(), ProbeError>, now: Instant) {
        let interval = self.heartbeat.interval.mul_f64(self.rng.random_range(0.9..=1.1));
        let Some(member) = self.members.get_mut(&generation) else { return };
        let Probe::Sent { at, .. } = member.probe else { return };
        if seq != member.seq {
            return;
        }
        member.probe = Probe::Due((at + interval).max(now));
        match result {
            Ok(()) => {
                if member.streak.rise() >= self.heartbeat.rises {
                    (member.verdict, member.error) = (Verdict::Good, None);
                }
            }
            Err(ProbeError::NotAsked(error)) => member.error = Some(format!("heartbeat not sent: {error}")),
            Err(ProbeError::Bad(error)) => {
                let falls = member.streak.fall();
                member.error = Some(format!("failed {falls} heartbeats (the last: {error})"));
                if falls >= self.heartbeat.falls {
                    member.verdict = Verdict::Failed;
                }
            }
        }
        let health = self.members.get(&generation).map(|member| (member.instance.is_some(), self.health(member)));
        if let Some((true, Health::Ready)) = health {
            if self.members.get(&generation).is_some_and(|member| member.health != Health::Ready) {
                self.report(generation, Health::Ready);
            }
            // Said again with every good heartbeat: live traffic may have taken it out, and that message may be lost.
            self.say(generation, Health::Ready);
        }
        self.settle(now);
    }

    fn tick(&mut self, now: Instant) {
        let late: Vec<_> = self
            .members
            .iter()
            .filter(|(_, member)| matches!(member.probe, Probe::Sent { deadline, .. } if deadline <= now))
            .map(|(generation, member)| (*generation, member.seq))
            .collect();
        for (generation, seq) in late {
            self.probed(generation, seq, Err(ProbeError::Bad("no result".into())), now);
        }
    }

    fn send_due_probes(&mut self, now: Instant) {
        let lost_after = self.heartbeat.timeout + PROBE_PATIENCE;
        for (generation, member) in &mut self.members {
            let Some(addr) = member.instance.as_ref().and_then(|instance| instance.addr) else { continue };
            if matches!(member.probe, Probe::Due(at) if at <= now) {
                member.seq += 1;
                member.probe = Probe::Sent { at: now, deadline: now + lost_after };
                self.actions.push(Action::Probe { generation: *generation, seq: member.seq, addr });
            }
        }
    }

    /// Panics if the follower contradicts itself; for tests.
    pub fn check_invariants(&self) {
        for (generation, member) in &self.members {
            assert_eq!(*generation, member.remote.generation);
            assert!(member.instance.is_none() || member.remote.desired, "published, but not wanted: {member:?}");
            assert_eq!(member.instance.is_some(), member.probe != Probe::Off, "{member:?}");
        }
    }
}

impl Followed {
    fn new(remote: RemoteMember) -> Self {
        Self {
            remote,
            instance: None,
            verdict: Verdict::Good,
            streak: Streak::default(),
            probe: Probe::Off,
            seq: 0,
            health: Health::Unready,
            error: None,
        }
    }
}

fn instance(remote: &RemoteMember) -> Option<Instance> {
    Some(Instance {
        spec: remote.spec(),
        id: InstanceId(remote.runtime_id.clone()?),
        addr: Some(remote.addr?),
        running: true,
        started_at: SystemTime::UNIX_EPOCH + Duration::from_millis(remote.started_at.unwrap_or_default()),
        deployed: None,
        promoted: Vec::new(),
        instead_of: None,
    })
}

#[cfg(test)]
#[path = "follower_tests.rs"]
mod tests;
