//! The fleet as a state machine: `(event, now) -> actions`.
//!
//! Owns the desired number N, which replica holds which ring number, and what is to be done about each. Does *not* do any
//! of it: no socket, no clock, no container; time comes in with each event, randomness as a seed. The I/O shell around it
//! (`super::task`) carries actions out and reports results as events; results may be late, doubled or lost.
//!
//! The life of a member, with what moves it on:
//!
//! ```text
//! waiting ─time─> launching ─launched─> starting ─heartbeat─> ready <─heartbeat── unready
//!                     │                     │                   │ ──refused, paused──> │
//!                     │ failed, late        │ late              │ died, 3 heartbeats   │
//!                     ▼                     ▼                   ▼                      ▼
//!                 (again, or aborting) ──> replaced: a new member takes the ring number; this one is stopped
//!
//! removed, or told to end by somebody else: ready ──> draining ─idle or late─> stopping ─stopped─> gone
//! ```

mod adopt;
mod backoff;
mod member;
mod notice;
mod orders;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

pub use backoff::Backoff;
pub use member::{Listing, MemberView, State};
use member::{Member, Phase, ProbeState, Standing};
pub use notice::Notice;
use orders::{Adding, Removing};
pub use orders::{Order, Refusal, Ticket};

use crate::probe::{HeartbeatConfig, ProbeError, Streak};
use crate::replica::{Generation, Health, Hostname, ReplicaId, ReplicaSpec};
use crate::ring::RingConfig;
use crate::runtime::{Instance, InstanceId, RuntimeError, RuntimeEvent};

/// Orders that may wait for one under way.
const ORDERS: usize = 64;
/// How much longer than its own time an action may take before its result counts as lost.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long an order's answer waits for replicas that should have gone by then.
const SETTLE: Duration = Duration::from_secs(10);
/// The same for a probe.
const PROBE_PATIENCE: Duration = Duration::from_secs(1);
/// Probes of a replica that starts are this close, for as many as [`QUICK_PROBES`]; then they take their usual interval.
const QUICK_PROBE: Duration = Duration::from_millis(20);
const QUICK_PROBES: u64 = 100;
/// A stop is tried this often; what is still there is left to the comparison with the runtime's list.
const STOP_ATTEMPTS: u32 = 8;
/// How many of those that went are remembered.
const REMEMBERED: usize = 256;
/// Letters of generated host names: the first is a letter, as some resolvers want it.
const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";

/// What a fleet is told once.
#[derive(Debug, Clone)]
pub struct FleetConfig {
    /// N at the start.
    pub replicas: usize,
    /// N at most, besides the ring's capacity.
    pub max_replicas: Option<usize>,
    /// The ring whose numbers are given out.
    pub ring: RingConfig,
    /// False for a fixed membership.
    pub heals: bool,
    /// Heartbeats.
    pub heartbeat: HeartbeatConfig,
    /// How long a leaving replica may finish its requests.
    pub drain_timeout: Duration,
    /// How long a replica may take to end by itself.
    pub stop_grace: Duration,
    /// How long a launch may take, and the first good heartbeat after it.
    pub start_timeout: Duration,
    /// How often the runtime's list is compared.
    pub relist: Duration,
    /// Delays of what keeps failing.
    pub backoff: Backoff,
}

impl FleetConfig {
    /// The most replicas that the configuration allows.
    pub fn capacity(&self) -> usize {
        self.ring.capacity().min(self.max_replicas.unwrap_or(usize::MAX))
    }
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// The runtime's list, asked for at `asked`. The first one begins the fleet's life: what it holds is adopted.
    Listed {
        /// When the list was asked for.
        asked: Instant,
        /// What there is.
        instances: Vec<Instance>,
    },
    /// The runtime could not give a list.
    Unlisted,
    /// Result of [`Action::Launch`].
    Launched {
        /// Of which one.
        generation: Generation,
        /// What came of it.
        result: Result<Instance, RuntimeError>,
    },
    /// Result of [`Action::Stop`].
    Stopped {
        /// Of which one.
        generation: Generation,
        /// What came of it.
        result: Result<(), RuntimeError>,
    },
    /// Result of [`Action::Probe`].
    Probed {
        /// Of which one.
        generation: Generation,
        /// The probe's number.
        seq: u64,
        /// What came of it.
        result: Result<(), ProbeError>,
    },
    /// Result of [`Action::Drain`]: it holds no request any more.
    Drained {
        /// Of which one.
        generation: Generation,
    },
    /// Live traffic was refused a connection; the replica is out of rotation already.
    Refused {
        /// By which one.
        generation: Generation,
    },
    /// Live traffic broke off without an answer.
    Broken {
        /// On which one.
        generation: Generation,
    },
    /// The runtime noticed something.
    Runtime(RuntimeEvent),
    /// Somebody wants another N.
    Order {
        /// Whom to answer.
        ticket: Ticket,
        /// What is wanted.
        order: Order,
    },
    /// The balancer stops: nothing is replaced any more, and with `remove` the replicas are stopped.
    Close {
        /// Stop the replicas?
        remove: bool,
    },
    /// The time that [`Fleet::deadline`] gave has come.
    Tick,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Start it; answer with [`Event::Launched`].
    Launch(ReplicaSpec),
    /// Stop it; answer with [`Event::Stopped`].
    Stop {
        /// Whom the answer is about.
        generation: Generation,
        /// The runtime's name for it.
        id: InstanceId,
        /// How long it may take to end by itself.
        grace: Duration,
    },
    /// Ask it for a heartbeat; answer with [`Event::Probed`].
    Probe {
        /// Whom.
        generation: Generation,
        /// Number of the probe.
        seq: u64,
        /// Where it listens.
        addr: SocketAddr,
    },
    /// Publish [`Fleet::published`].
    Publish,
    /// Set the health of a published replica, or of one that was.
    Health {
        /// Whose.
        generation: Generation,
        /// Which.
        health: Health,
    },
    /// Say [`Event::Drained`] when it holds no request.
    Drain {
        /// Whom.
        generation: Generation,
    },
    /// It is gone; forget it.
    Gone {
        /// Who.
        generation: Generation,
    },
    /// Ask the runtime for its list; answer with [`Event::Listed`].
    List,
    /// Answer an order.
    Answer {
        /// Whose.
        ticket: Ticket,
        /// N as it is now, or why nothing has changed.
        answer: Result<Listing, Refusal>,
    },
    /// Tell the operator.
    Report(Notice),
}

/// How a replica failed, and so how it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    /// It is dead or hung: nothing to wait for.
    Lost,
    /// It is about to end, and may finish its requests.
    Doomed,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Fleet {
    config: FleetConfig,
    rng: StdRng,
    members: BTreeMap<Generation, Member>,
    /// The highest generation given out or seen.
    last_generation: u64,
    adopted: bool,
    closing: bool,
    relist_at: Option<Instant>,
    /// Those that went last, and when: a list asked for before that may still name them.
    gone: VecDeque<(Generation, Instant)>,
    orders: VecDeque<(Ticket, Order)>,
    adding: Option<Adding>,
    removing: Vec<Removing>,
    actions: Vec<Action>,
}

impl Fleet {
    /// A fleet that waits for its first list; `seed` decides its random host names, choices and jitter.
    pub fn new(config: FleetConfig, seed: u64) -> Self {
        Self {
            config,
            rng: StdRng::seed_from_u64(seed),
            members: BTreeMap::new(),
            last_generation: 0,
            adopted: false,
            closing: false,
            relist_at: None,
            gone: VecDeque::new(),
            orders: VecDeque::new(),
            adding: None,
            removing: Vec::new(),
            actions: Vec::new(),
        }
    }

    /// Takes in what happened, and says what to do, in this order.
    pub fn handle(&mut self, event: Event, now: Instant) -> Vec<Action> {
        match event {
            Event::Listed { asked, instances } => self.listed(asked, instances, now),
            Event::Unlisted => {}
            Event::Launched { generation, result } => self.launched(generation, result, now),
            Event::Stopped { generation, result } => self.stopped(generation, result, now),
            Event::Probed { generation, seq, result } => self.probed(generation, seq, result, now),
            Event::Drained { generation } => self.drained(generation, now),
            Event::Refused { generation } => self.refused(generation, now),
            Event::Broken { generation } => self.probe_now(generation, now),
            Event::Runtime(event) => self.runtime(event, now),
            Event::Order { ticket, order } => self.order(ticket, order, now),
            Event::Close { remove } => self.close(remove, now),
            Event::Tick => self.tick(now),
        }
        std::mem::take(&mut self.actions)
    }

    /// When to call with [`Event::Tick`] next.
    pub fn deadline(&self) -> Option<Instant> {
        let members = self.members.values().filter_map(Member::deadline);
        members.chain(self.relist_at).chain(self.orders_deadline()).min()
    }

    /// The membership to publish: every replica that was ready once and was not given up.
    pub fn published(&self) -> impl Iterator<Item = &Instance> {
        self.members.values().filter(|member| member.is_published()).filter_map(|member| member.instance.as_ref())
    }

    /// N and the host names, oldest first.
    pub fn listing(&self) -> Listing {
        let mut members: Vec<_> = self.desired().collect();
        members.sort_unstable_by_key(|member| member.order);
        Listing { n: members.len(), replicas: members.into_iter().map(|member| member.spec.hostname.clone()).collect() }
    }

    /// Everything there is, oldest first, for status output. `wall` is the wall clock at `now`.
    pub fn view(&self, now: Instant, wall: SystemTime) -> Vec<MemberView> {
        let mut members: Vec<_> = self.members.values().collect();
        members.sort_unstable_by_key(|member| member.order);
        let view = |member: &Member| MemberView {
            spec: member.spec.clone(),
            instance: member.instance.clone(),
            state: member.state(),
            desired: member.standing == Standing::Desired,
            crashes: member.crashes,
            launch_at: match member.phase {
                Phase::Waiting { until } => Some(wall + until.saturating_duration_since(now)),
                _ => None,
            },
            last_error: member.last_error.clone(),
        };
        members.into_iter().map(view).collect()
    }

    /// Nothing is left that would have to be stopped.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    fn desired(&self) -> impl Iterator<Item = &Member> {
        self.members.values().filter(|member| member.standing == Standing::Desired)
    }

    fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    // ---- names and numbers

    fn is_used(&self, hostname: &Hostname) -> bool {
        self.members.values().any(|member| member.spec.hostname == *hostname)
    }

    fn random_hostname(&mut self) -> Hostname {
        loop {
            let letters = (0..5).map(|at| {
                let choice = if at == 0 { 26 } else { LETTERS.len() };
                char::from(LETTERS[self.rng.random_range(0..choice)])
            });
            let name: String = letters.collect();
            if let Some(hostname) = Hostname::new(&name).filter(|hostname| !self.is_used(hostname)) {
                return hostname;
            }
        }
    }

    /// The lowest ring number that no member holds; one that leaves holds none.
    fn lowest_free_id(&self) -> ReplicaId {
        let held: BTreeSet<u32> = self
            .members
            .values()
            .filter(|member| member.standing != Standing::Leaving)
            .map(|member| member.spec.id.0)
            .collect();
        ReplicaId((1..).zip(held).find(|(free, held)| free != held).map_or(self.held() + 1, |(free, _)| free))
    }

    fn held(&self) -> u32 {
        self.members.values().filter(|member| member.standing != Standing::Leaving).count() as u32
    }

    /// A new member with the lowest free ring number, not launched yet.
    fn enlist(&mut self, hostname: Hostname, standing: Standing, now: Instant) -> Generation {
        self.last_generation += 1;
        let generation = Generation(self.last_generation);
        let spec = ReplicaSpec { id: self.lowest_free_id(), generation, hostname };
        let member = Member::new(spec, self.last_generation, standing, Phase::Waiting { until: now });
        self.members.insert(generation, member);
        generation
    }

    // ---- starting

    fn launch(&mut self, generation: Generation, now: Instant) {
        let Some(member) = self.members.get_mut(&generation) else { return };
        member.phase = Phase::Launching { since: now, deadline: now + self.config.start_timeout + PATIENCE };
        member.launched_at = Some(now);
        let spec = member.spec.clone();
        self.act(Action::Launch(spec));
    }

    /// Launches now, or later if too much has failed in a row; gives the delay. What counts is the time since the launch
    /// of `failed`, the one before: a replica that has lived for longer than the back-off is replaced at once.
    fn launch_after(&mut self, generation: Generation, failed: &Member, crashes: u32, now: Instant) -> Duration {
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

    fn launched(&mut self, generation: Generation, result: Result<Instance, RuntimeError>, now: Instant) {
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
    fn launch_failed(&mut self, generation: Generation, error: &RuntimeError, now: Instant) {
        let Some(failed) = self.members.remove(&generation) else { return };
        self.act(Action::Gone { generation });
        if failed.standing == Standing::Adding {
            return self.add_failed(&error.to_string(), now);
        }
        if self.closing {
            return;
        }
        let hostname = match error {
            RuntimeError::NameTaken(_) => self.random_hostname(),
            RuntimeError::Failed(_) => failed.spec.hostname.clone(),
        };
        let again = self.enlist(hostname, Standing::Desired, now);
        if let Some(member) = self.members.get_mut(&again) {
            member.order = failed.order;
            member.last_error = Some(error.to_string());
        }
        let delay = self.launch_after(again, &failed, failed.crashes.saturating_add(1), now);
        self.act(Action::Report(Notice::LaunchFailed { replica: failed.spec, reason: error.to_string(), delay }));
    }

    // ---- probes

    fn send_due_probes(&mut self, now: Instant) {
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
    fn probe_now(&mut self, generation: Generation, now: Instant) {
        if let Some(member) = self.members.get_mut(&generation)
            && matches!(member.probe, ProbeState::Due(_))
        {
            member.probe = ProbeState::Due(now);
        }
        self.send_due_probes(now);
    }

    fn probed(&mut self, generation: Generation, seq: u64, result: Result<(), ProbeError>, now: Instant) {
        let interval = self.config.heartbeat.interval.mul_f64(self.rng.random_range(0.9..=1.1));
        let Some(member) = self.members.get_mut(&generation) else { return };
        let ProbeState::Sent { at, .. } = member.probe else { return };
        if seq != member.probe_seq {
            return;
        }
        let quick = matches!(member.phase, Phase::Starting { .. }) && seq < QUICK_PROBES && result.is_err();
        member.probe = ProbeState::Due(if quick { now + QUICK_PROBE.min(interval) } else { (at + interval).max(now) });
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
        self.send_due_probes(now);
    }

    /// It answered often enough to be in rotation.
    fn answered(&mut self, generation: Generation, now: Instant) {
        let Some(member) = self.members.get_mut(&generation) else { return };
        let since = match member.phase {
            Phase::Starting { .. } => now,
            Phase::Ready { since } | Phase::Unready { since } => since,
            _ => return,
        };
        let before = std::mem::replace(&mut member.phase, Phase::Ready { since });
        let replica = member.spec.clone();
        if member.standing == Standing::Adding {
            return self.added(now);
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

    // ---- failing

    fn refused(&mut self, generation: Generation, now: Instant) {
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
    fn take_out(&mut self, generation: Generation, health: Health, reason: &str) {
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

    fn runtime(&mut self, event: RuntimeEvent, now: Instant) {
        match event {
            RuntimeEvent::Died { generation, reason } => self.fail(generation, &reason, Failure::Lost, now),
            RuntimeEvent::Doomed { generation, reason } => self.fail(generation, &reason, Failure::Doomed, now),
            RuntimeEvent::Paused { generation } => {
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
        }
    }

    fn fail(&mut self, generation: Generation, reason: &str, failure: Failure, now: Instant) {
        let Some(member) = self.members.get(&generation) else { return };
        match (member.standing, member.phase) {
            (Standing::Leaving, Phase::Draining { .. }) if failure == Failure::Lost => self.stop(generation, 1, now),
            (Standing::Leaving, _) => {}
            (Standing::Adding, _) => {
                let reason = format!("{} {reason}", member.spec.hostname);
                self.add_failed(&reason, now);
            }
            (Standing::Desired, _) if !self.config.heals => self.take_out(generation, Health::Lost, reason),
            (Standing::Desired, _) if self.closing => self.discard(generation, now),
            (Standing::Desired, _) => self.replace(generation, reason, failure, now),
        }
    }

    fn replace(&mut self, generation: Generation, reason: &str, failure: Failure, now: Instant) {
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
        let hostname = self.random_hostname();
        let successor = self.enlist(hostname, Standing::Desired, now);
        if published {
            self.act(Action::Publish);
        }
        let delay = self.launch_after(successor, &failed, crashes, now);
        let replica = failed.spec;
        let Some(member) = self.members.get_mut(&successor) else { return };
        member.last_error = Some(format!("{} {reason}", replica.hostname));
        let (replacement, delay) = (member.spec.clone(), (!delay.is_zero()).then_some(delay));
        self.act(Action::Report(Notice::Replaced { replica, reason: reason.to_owned(), replacement, delay }));
    }

    // ---- leaving

    /// Lets it finish its requests, then stops it. The caller publishes.
    fn drain(&mut self, generation: Generation, now: Instant) {
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

    fn drained(&mut self, generation: Generation, now: Instant) {
        if self.members.get(&generation).is_some_and(|member| matches!(member.phase, Phase::Draining { .. })) {
            self.stop(generation, 1, now);
        }
    }

    /// Stops it without waiting for its requests; one that was never launched is just forgotten.
    fn discard(&mut self, generation: Generation, now: Instant) {
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

    fn stop(&mut self, generation: Generation, attempts: u32, now: Instant) {
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

    fn stopped(&mut self, generation: Generation, result: Result<(), RuntimeError>, now: Instant) {
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

    fn gone(&mut self, generation: Generation, now: Instant) {
        self.members.remove(&generation);
        self.gone.push_back((generation, now));
        if self.gone.len() > REMEMBERED {
            self.gone.pop_front();
        }
        self.act(Action::Gone { generation });
        self.settle_orders(now);
    }

    fn close(&mut self, remove: bool, now: Instant) {
        self.closing = true;
        self.relist_at = None;
        self.refuse_orders();
        if remove {
            for generation in self.members.keys().copied().collect::<Vec<_>>() {
                self.discard(generation, now);
            }
        }
    }

    // ---- time

    fn tick(&mut self, now: Instant) {
        let due: Vec<_> = self
            .members
            .iter()
            .filter(|(_, member)| member.deadline().is_some_and(|deadline| deadline <= now))
            .map(|(generation, member)| (*generation, member.phase, member.probe, member.probe_seq))
            .collect();
        for (generation, phase, probe, seq) in due {
            match phase {
                Phase::Waiting { until } if until <= now && !self.closing => self.launch(generation, now),
                Phase::Launching { since, deadline } if deadline <= now => {
                    let reason = format!("was not started within {} s", (now - since).as_secs());
                    self.fail(generation, &reason, Failure::Lost, now);
                }
                Phase::Starting { since, deadline } if deadline <= now => self.start_late(generation, since, now),
                Phase::Draining { deadline } if deadline <= now => self.stop(generation, 1, now),
                Phase::Stopping { attempts, deadline } if deadline <= now => {
                    if attempts < STOP_ATTEMPTS {
                        self.stop(generation, attempts + 1, now);
                    } else {
                        self.gone(generation, now);
                    }
                }
                Phase::Aborting { deadline } if deadline <= now => self.gone(generation, now),
                _ => {}
            }
            if matches!(probe, ProbeState::Sent { deadline, .. } if deadline <= now) {
                self.probed(generation, seq, Err(ProbeError::Bad("no result".into())), now);
            }
        }
        self.send_due_probes(now);
        if self.relist_at.is_some_and(|at| at <= now) {
            self.relist_at = Some(now + self.config.relist);
            self.act(Action::List);
        }
        self.settle_orders(now);
    }

    fn start_late(&mut self, generation: Generation, since: Instant, now: Instant) {
        if self.config.heals {
            let reason = format!("answered no heartbeat within {} s", (now - since).as_secs());
            self.fail(generation, &reason, Failure::Lost, now);
        } else if let Some(member) = self.members.get_mut(&generation) {
            // Nobody can replace it, so it may take all the time it needs.
            member.phase = Phase::Starting { since, deadline: now + self.config.start_timeout };
        }
    }

    /// Panics if the fleet contradicts itself; for tests.
    pub fn check_invariants(&self) {
        let mut names = BTreeSet::new();
        let mut ids = BTreeSet::new();
        for (generation, member) in &self.members {
            let what = format!("{member:?}");
            assert_eq!(*generation, member.spec.generation);
            assert!(generation.0 <= self.last_generation, "{what}");
            assert!(names.insert(&member.spec.hostname), "host name used twice: {what}");
            if member.standing != Standing::Leaving {
                assert!(ids.insert(member.spec.id), "ring number held twice: {what}");
                assert!((1..=self.config.ring.capacity() as u32).contains(&member.spec.id.0), "{what}");
            }
            let leaving =
                matches!(member.phase, Phase::Draining { .. } | Phase::Stopping { .. } | Phase::Aborting { .. });
            assert_eq!(leaving, member.standing == Standing::Leaving, "{what}");
            assert!(!member.is_published() || member.instance.is_some(), "published, but nowhere: {what}");
            let moving = member.deadline().is_some();
            assert!(moving, "nothing will ever happen to {what}");
        }
        assert!(self.held() as usize <= self.config.capacity(), "more than fit");
        assert!(self.orders.len() <= ORDERS);
        assert!(self.adding.is_some() || self.orders.is_empty(), "orders wait for nothing");
    }
}
