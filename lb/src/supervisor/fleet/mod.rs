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
mod deploy;
mod event;
mod health;
mod leave;
mod member;
mod notice;
mod orders;
mod spare;
mod start;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

pub use backoff::Backoff;
use deploy::Deploying;
pub use deploy::{Change, Progress, Rollout};
pub use event::{Action, Event};
use health::Failure;
pub use member::{Listing, MemberView, State};
use member::{Member, Phase, ProbeState, Standing};
pub use notice::Notice;
use orders::{Adding, Removing};
pub use orders::{Order, Refusal, RefusalKind, Ticket};

use crate::placement::Place;
use crate::placement::ring::RingConfig;
use crate::probe::{HeartbeatConfig, ProbeError};
use crate::replica::{Generation, Hostname, ReplicaId, ReplicaSpec, Share};
use crate::runtime::{Instance, Template};

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
    /// N at least; `/rm` goes no lower.
    pub min_replicas: usize,
    /// Replicas that wait, started and probed, to take over for one that fails.
    pub spares: usize,
    /// What replicas are started from, until a rolling update says otherwise.
    pub template: Template,
    /// Replicas that a rolling update starts beside those that they are to replace, at one time.
    pub max_surge: usize,
    /// For how long a replica that a rolling update has brought must stay ready before the next ones' turn.
    pub settle: Duration,
    /// N at most, besides the ring's capacity.
    pub max_replicas: Option<usize>,
    /// How many replicas the policy has places for.
    pub places: usize,
    /// The ring whose numbers are given out, whether the policy goes by it or not.
    pub ring: RingConfig,
    /// Weights and priorities by host name, of those that don't begin with the default ones.
    pub shares: BTreeMap<Hostname, Share>,
    /// False for a fixed membership.
    pub heals: bool,
    /// Heartbeats.
    pub heartbeat: HeartbeatConfig,
    /// How long a leaving replica may finish its requests.
    pub drain_timeout: Duration,
    /// How long a replica may take to end by itself.
    pub stop_grace: Duration,
    /// For a newcomer to take its full part of the load; zero for at once.
    pub slow_start: Duration,
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
        self.places.min(self.max_replicas.unwrap_or(usize::MAX))
    }
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
    /// What is launched from now on, and its number.
    template: Arc<Template>,
    release: u64,
    deploying: Option<Deploying>,
    /// How the last rolling update stands.
    progress: Option<Progress>,
    actions: Vec<Action>,
}

impl Fleet {
    /// A fleet that waits for its first list; `seed` decides its random host names, choices and jitter.
    pub fn new(config: FleetConfig, seed: u64) -> Self {
        Self {
            template: Arc::new(config.template.clone()),
            release: 0,
            deploying: None,
            progress: None,
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
        members.chain(self.relist_at).chain(self.orders_deadline()).chain(self.deploy_deadline()).min()
    }

    /// The membership to publish: every replica that was ready once and was not given up.
    pub fn published(&self) -> impl Iterator<Item = (&Instance, Share)> {
        let published = self.members.values().filter(|member| member.is_published());
        published.filter_map(|member| Some((member.instance.as_ref()?, member.share)))
    }

    /// Is it in rotation from the moment that it is published?
    pub fn starts_ready(&self, generation: Generation) -> bool {
        self.members.get(&generation).is_some_and(|member| matches!(member.phase, Phase::Ready { .. }))
    }

    /// The places of the desired replicas, ready or not.
    pub fn places(&self) -> impl Iterator<Item = Place> {
        self.desired().map(|member| {
            let Share { weight, priority } = member.share;
            Place { id: member.spec.id.0, weight, priority }
        })
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
            share: member.share,
            desired: member.standing == Standing::Desired,
            spare: member.standing == Standing::Spare,
            order: member.order,
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
        let held: BTreeSet<u32> =
            self.members.values().filter(|member| member.holds_a_number()).map(|member| member.spec.id.0).collect();
        ReplicaId((1..).zip(held).find(|(free, held)| free != held).map_or(self.held() + 1, |(free, _)| free))
    }

    fn held(&self) -> u32 {
        self.members.values().filter(|member| member.holds_a_number()).count() as u32
    }

    /// The share that a member of this name begins with.
    fn first_share(&self, hostname: &Hostname) -> Share {
        self.config.shares.get(hostname).copied().unwrap_or_default()
    }

    /// A new member with the lowest free ring number, not launched yet.
    fn enlist(&mut self, hostname: Hostname, standing: Standing, now: Instant) -> Generation {
        self.enlist_as(self.lowest_free_id(), hostname, standing, now)
    }

    /// A new member with this ring number, which nobody holds.
    fn enlist_as(&mut self, id: ReplicaId, hostname: Hostname, standing: Standing, now: Instant) -> Generation {
        self.last_generation += 1;
        let generation = Generation(self.last_generation);
        let spec = ReplicaSpec { id, generation, hostname };
        let share = self.first_share(&spec.hostname);
        let member =
            Member { share, ..Member::new(spec, self.last_generation, standing, Phase::Waiting { until: now }) };
        let member = Member { release: Some(self.release), ..member };
        self.members.insert(generation, member);
        generation
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
        self.deploy_on(now);
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
            if member.holds_a_number() {
                assert!(ids.insert(member.spec.id), "ring number held twice: {what}");
                assert!((1..=self.config.places as u32).contains(&member.spec.id.0), "{what}");
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
        assert!(self.is_busy() || self.orders.is_empty(), "orders wait for nothing");
        self.check_deploy();
    }
}
