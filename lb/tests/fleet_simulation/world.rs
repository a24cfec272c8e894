//! The simulated world: a runtime in which launches and stops take time, fail and get lost, and a clock that jumps from
//! event to event.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::{Duration, SystemTime};

use lb::placement::Place;
use lb::placement::ring::RingConfig;
use lb::probe::{HeartbeatConfig, ProbeError};
use lb::replica::{Generation, Hostname, ReplicaSpec};
use lb::runtime::{Instance, InstanceId, Launch, RuntimeError, RuntimeEvent, Template};
use lb::supervisor::fleet::{
    Action, Backoff, Change, Event, Fleet, FleetConfig, Listing, Notice, Order, Refusal, State, Ticket,
};
use rand::rngs::StdRng;
use rand::seq::IteratorRandom;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

pub(crate) fn config() -> FleetConfig {
    FleetConfig {
        replicas: 3,
        min_replicas: 0,
        max_replicas: Some(12),
        spares: 0,
        template: Template { image: "v1".into(), ..Template::default() },
        max_surge: 1,
        settle: Duration::from_secs(1),
        places: RingConfig::default().capacity(),
        ring: RingConfig::default(),
        shares: BTreeMap::new(),
        heals: true,
        heartbeat: HeartbeatConfig::default(),
        drain_timeout: Duration::from_secs(10),
        stop_grace: Duration::from_secs(5),
        slow_start: Duration::ZERO,
        start_timeout: Duration::from_secs(30),
        relist: Duration::from_secs(5),
        backoff: Backoff::default(),
    }
}

/// How likely each fault is, in percent.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Faults {
    pub(crate) launch_fails: u32,
    pub(crate) result_lost: u32,
    pub(crate) result_twice: u32,
    pub(crate) stop_fails: u32,
    pub(crate) probe_fails: u32,
    pub(crate) event_lost: u32,
    pub(crate) list_fails: u32,
}

pub(crate) struct Later {
    at: Instant,
    number: u64,
    what: What,
}

pub(crate) enum What {
    Tell(Event),
    /// The runtime has started it, whether or not anybody learns of it.
    Started(Instance),
    Ended(InstanceId),
    /// The list is made now, and arrives at the given time.
    MakeList(Instant, Duration),
}

impl PartialEq for Later {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}
impl Eq for Later {}
impl PartialOrd for Later {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Later {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

pub(crate) struct World {
    pub(crate) fleet: Fleet,
    pub(crate) rng: StdRng,
    pub(crate) now: Instant,
    pub(crate) begin: Instant,
    pub(crate) faults: Faults,
    pub(crate) alive: BTreeMap<InstanceId, Instance>,
    pub(crate) hung: BTreeSet<InstanceId>,
    /// Probes can't be sent.
    pub(crate) not_asked: bool,
    pub(crate) queue: BinaryHeap<Later>,
    pub(crate) number: u64,
    /// Orders not answered yet, with the change of N they ask for.
    pub(crate) waiting: BTreeMap<Ticket, i64>,
    pub(crate) expected_n: i64,
    pub(crate) launches: u64,
    pub(crate) notices: Vec<Notice>,
    pub(crate) answers: Vec<Result<Listing, Refusal>>,
    /// What each was started from.
    pub(crate) images: BTreeMap<InstanceId, String>,
    pub(crate) spares: usize,
}

pub(crate) fn instance(spec: &ReplicaSpec) -> Instance {
    Instance {
        spec: spec.clone(),
        id: InstanceId(format!("i{}", spec.generation)),
        addr: Some(([127, 0, 0, 1], 5000).into()),
        running: true,
        started_at: SystemTime::UNIX_EPOCH,
        deployed: None,
        promoted: Vec::new(),
        instead_of: None,
    }
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let begin = Instant::now();
        Self {
            fleet: Fleet::new(config(), seed),
            rng: StdRng::seed_from_u64(seed),
            now: begin,
            begin,
            faults: Faults::default(),
            alive: BTreeMap::new(),
            hung: BTreeSet::new(),
            not_asked: false,
            queue: BinaryHeap::new(),
            number: 0,
            waiting: BTreeMap::new(),
            expected_n: 3,
            launches: 0,
            notices: Vec::new(),
            answers: Vec::new(),
            images: BTreeMap::new(),
            spares: 0,
        }
    }

    /// One whose fleet keeps so many spares.
    pub(crate) fn with_spares(seed: u64, spares: usize) -> Self {
        let mut world = Self::new(seed);
        world.fleet = Fleet::new(FleetConfig { spares, ..config() }, seed);
        world.spares = spares;
        world
    }

    pub(crate) fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    pub(crate) fn millis(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.rng.random_range(range))
    }

    pub(crate) fn later(&mut self, after: Duration, what: What) {
        self.number += 1;
        self.queue.push(Later { at: self.now + after, number: self.number, what });
    }

    /// A result on its way back, if it isn't lost.
    pub(crate) fn result(&mut self, after: Duration, event: Event) {
        if self.chance(self.faults.result_lost) {
            return;
        }
        if self.chance(self.faults.result_twice) {
            let again = after + self.millis(0..2000);
            self.later(again, What::Tell(event.clone()));
        }
        self.later(after, What::Tell(event));
    }

    pub(crate) fn runtime_event(&mut self, event: RuntimeEvent) {
        if !self.chance(self.faults.event_lost) {
            let after = self.millis(0..50);
            self.later(after, What::Tell(Event::Runtime(event)));
        }
    }

    pub(crate) fn tell(&mut self, event: Event) {
        let actions = self.fleet.handle(event, self.now);
        self.fleet.check_invariants();
        for action in actions {
            self.carry_out(action);
        }
        // What is published is part of what is listed, and each of its addresses is known.
        let listing = self.fleet.listing();
        assert_eq!(listing.n, listing.replicas.len());
        for (instance, share) in self.fleet.published() {
            assert!(listing.replicas.contains(&instance.spec.hostname), "published, but not listed: {instance:?}");
            let place = Place { id: instance.spec.id.0, weight: share.weight, priority: share.priority };
            assert!(self.fleet.places().any(|other| other == place), "published with another weight than its place's");
        }
    }

    pub(crate) fn carry_out(&mut self, action: Action) {
        match action {
            Action::Launch(launch) => {
                let Launch { spec, template, promoted, instead_of } = launch;
                self.launches += 1;
                let generation = spec.generation;
                let after = self.millis(5..400);
                if template.image == "missing" || self.chance(self.faults.launch_fails) {
                    let error = match self.chance(20) {
                        true => RuntimeError::NameTaken(spec.hostname.to_string()),
                        false => RuntimeError::Failed("no room".into()),
                    };
                    return self.result(after, Event::Launched { generation, result: Err(error) });
                }
                let started = Instance { promoted, instead_of, ..instance(&spec) };
                if template.image == "crashes" {
                    let dies = after + Duration::from_millis(100);
                    self.later(dies, What::Ended(started.id.clone()));
                    let reason = "exited with status 1".into();
                    self.later(dies, What::Tell(Event::Runtime(RuntimeEvent::Died { generation, reason })));
                }
                self.images.insert(started.id.clone(), template.image.clone());
                self.later(after, What::Started(started.clone()));
                self.result(after, Event::Launched { generation, result: Ok(started) });
            }
            Action::Stop { generation, id, .. } => {
                let after = self.millis(1..300);
                if self.chance(self.faults.stop_fails) {
                    let error = RuntimeError::Failed("the engine is busy".into());
                    return self.result(after, Event::Stopped { generation, result: Err(error) });
                }
                self.later(after, What::Ended(id));
                self.result(after, Event::Stopped { generation, result: Ok(()) });
            }
            Action::Probe { generation, seq, .. } => {
                let id = InstanceId(format!("i{generation}"));
                let bad = |why: &str| Err(ProbeError::Bad(why.into()));
                let (result, after) = if self.not_asked {
                    (Err(ProbeError::NotAsked("too many open files".into())), Duration::ZERO)
                } else if self.hangs(&id) || self.chance(self.faults.probe_fails) {
                    (bad("no answer within 500ms"), Duration::from_millis(500))
                } else if self.alive.contains_key(&id) {
                    (Ok(()), self.millis(1..20))
                } else {
                    (bad("connect: refused"), self.millis(1..3))
                };
                self.result(after, Event::Probed { generation, seq, result });
            }
            Action::Drain { generation } => {
                // Some never drain; the deadline has to end them.
                if !self.chance(20) {
                    let after = self.millis(0..15_000);
                    self.later(after, What::Tell(Event::Drained { generation }));
                }
            }
            Action::List => {
                let (made, arrives) = (self.millis(0..200), self.millis(200..3000));
                let asked = self.now;
                if self.chance(self.faults.list_fails) {
                    self.later(arrives, What::Tell(Event::Unlisted));
                } else {
                    self.later(made, What::MakeList(asked, arrives));
                }
            }
            Action::Answer { ticket, answer } => {
                let change = self.waiting.remove(&ticket).expect("answered twice, or never asked");
                if answer.is_ok() {
                    self.expected_n += change;
                }
                self.answers.push(answer);
            }
            Action::Report(notice) => {
                if let Notice::Replaced { replica, replacement, .. } | Notice::Promoted { replica, replacement, .. } =
                    &notice
                {
                    assert_eq!(replica.id, replacement.id, "a replacement takes the ring number over");
                }
                self.notices.push(notice);
            }
            Action::Publish | Action::Health { .. } | Action::Gone { .. } => {}
        }
    }

    fn hangs(&self, id: &InstanceId) -> bool {
        self.hung.contains(id) || self.images.get(id).is_some_and(|image| image == "hangs")
    }

    /// Whatever comes next, in order of time, but nothing behind `until`.
    pub(crate) fn step(&mut self, until: Instant) -> bool {
        let tick = self.fleet.deadline();
        let next = self.queue.peek().map(|later| later.at);
        let Some(at) = tick.into_iter().chain(next).min().filter(|at| *at <= until) else {
            self.now = until;
            return false;
        };
        self.now = self.now.max(at);
        if next.is_some_and(|next| next <= at) {
            match self.queue.pop().expect("just seen").what {
                What::Tell(event) => self.tell(event),
                What::Started(instance) => {
                    self.alive.insert(instance.id.clone(), instance);
                }
                What::Ended(id) => {
                    self.alive.remove(&id);
                    self.hung.remove(&id);
                }
                What::MakeList(asked, arrives) => {
                    let instances = self.alive.values().cloned().collect();
                    self.later(arrives, What::Tell(Event::Listed { asked, instances }));
                }
            }
        } else {
            self.tell(Event::Tick);
        }
        true
    }

    pub(crate) fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while self.step(until) {}
    }

    pub(crate) fn any_alive(&mut self) -> Option<(InstanceId, Generation)> {
        let one = self.alive.values().choose(&mut self.rng)?;
        Some((one.id.clone(), one.spec.generation))
    }

    pub(crate) fn order(&mut self, order: Order) {
        let ticket = Ticket(self.number);
        self.number += 1;
        let change = match &order {
            Order::Add { n, .. } => *n as i64,
            Order::Remove { n, .. } => -(*n as i64),
            Order::Set { .. } | Order::Eject { .. } | Order::Deploy(_) => 0,
        };
        self.waiting.insert(ticket, change);
        self.tell(Event::Order { ticket, order });
    }

    pub(crate) fn random_order(&mut self) {
        let n = self.rng.random_range(1..4);
        let mut hostnames = Vec::new();
        if self.chance(50) {
            let names = self.fleet.listing().replicas;
            hostnames.extend(names.into_iter().choose(&mut self.rng));
        }
        if self.chance(30) {
            hostnames.push(Hostname::new(&format!("N{}", self.rng.random_range(0..20))).unwrap());
        }
        if self.chance(10) {
            let image = ["good", "good", "missing", "hangs", "crashes"].into_iter().choose(&mut self.rng);
            return self.order(Order::Deploy(Change { image: image.map(str::to_owned), ..Change::default() }));
        }
        if self.chance(10) {
            let published: Vec<_> = self.fleet.published().map(|(instance, _)| instance.spec.generation).collect();
            if let Some(generation) = published.into_iter().choose(&mut self.rng) {
                return self.order(Order::Eject { generation, reason: "is slow".into() });
            }
        }
        let order = match (self.rng.random_range(0..3), hostnames.first()) {
            (0, Some(hostname)) => {
                let (weight, priority) = (Some(self.rng.random_range(0..4)), self.chance(30).then_some(n as u16));
                Order::Set { hostname: hostname.clone(), weight, priority }
            }
            (0 | 1, _) => Order::Add { n, hostnames },
            _ => Order::Remove { n, hostnames },
        };
        self.order(order);
    }

    pub(crate) fn mishap(&mut self) {
        let Some((id, generation)) = self.any_alive() else { return };
        match self.rng.random_range(0..7) {
            0 | 1 => {
                self.alive.remove(&id);
                self.runtime_event(RuntimeEvent::Died { generation, reason: "exited with status 1".into() });
            }
            2 => {
                self.hung.insert(id);
            }
            3 => {
                self.hung.insert(id);
                self.runtime_event(RuntimeEvent::Paused { generation });
            }
            4 => {
                self.hung.remove(&id);
                self.runtime_event(RuntimeEvent::Doubtful { generation, reason: "went on".into() });
            }
            5 => {
                self.runtime_event(RuntimeEvent::Doomed { generation, reason: "was told to end".into() });
                self.later(Duration::from_millis(300), What::Ended(id));
            }
            _ => {
                let event = match self.chance(50) {
                    true => Event::Refused { generation },
                    false => Event::Broken { generation },
                };
                self.tell(event);
            }
        }
    }

    pub(crate) fn states(&self) -> Vec<(String, State)> {
        let view = self.fleet.view(self.now, SystemTime::UNIX_EPOCH);
        view.into_iter().map(|member| (member.spec.hostname.to_string(), member.state)).collect()
    }

    pub(crate) fn assert_recovered(&self) {
        let states = self.states();
        assert!(states.iter().all(|(_, state)| *state == State::Ready), "not all ready: {states:?}");
        let n = states.len() - self.spares;
        assert_eq!(n as i64, self.expected_n, "N is not what the answers said: {states:?}");
        assert_eq!(self.fleet.listing().n, n, "spares are not counted");
        let mut published: BTreeSet<_> = self.fleet.published().map(|(instance, _)| instance.id.clone()).collect();
        let view = self.fleet.view(self.now, SystemTime::UNIX_EPOCH);
        let spares: Vec<_> = view.iter().filter(|member| member.spare).collect();
        assert_eq!(spares.len(), self.spares, "{states:?}");
        assert!(spares.iter().all(|spare| !spare.desired));
        published.extend(spares.into_iter().filter_map(|spare| Some(spare.instance.as_ref()?.id.clone())));
        let alive: BTreeSet<_> = self.alive.keys().cloned().collect();
        assert_eq!(published, alive, "the runtime holds something else than the fleet");
        assert!(self.waiting.is_empty(), "unanswered orders: {:?}", self.waiting);
    }
}

pub(crate) fn boot(seed: u64) -> World {
    boot_with_spares(seed, 0)
}

pub(crate) fn boot_with_spares(seed: u64, spares: usize) -> World {
    let mut world = World::with_spares(seed, spares);
    world.tell(Event::Listed { asked: world.now, instances: Vec::new() });
    world
}
