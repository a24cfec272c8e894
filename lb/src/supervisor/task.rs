//! The I/O shell around the fleet: turns everything that happens into events, and carries out the actions.
//!
//! Each action that takes time runs as a task of its own with a deadline, and reports back through one bounded channel.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;

use super::fleet::{Action, Event, Fleet, FleetConfig, Listing, Notice, Refusal, Ticket};
use super::follower::Follower;
use super::log::log;
use super::mind::Mind;
use super::{COMMANDS, Command, Holders, MemberStatus, Status, SupervisorHandle};
use crate::pool::{Pool, Suspicion};
use crate::probe::Prober;
use crate::replica::{Generation, Health, Replica};
use crate::runtime::{Runtime, RuntimeError};

/// Results that may wait to be taken in; tasks wait for room.
const RESULTS: usize = 1024;
/// Launches at one time; the engine takes no longer for them all this way.
const LAUNCHES: usize = 16;
/// Stops at one time. Most of a stop is waiting, and launches must not wait for it.
const STOPS: usize = 64;
/// What a stop may take on top of its grace period, and a list in all.
const RUNTIME_PATIENCE: Duration = Duration::from_secs(10);

/// The supervisor could not begin.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The runtime can't say what there is.
    #[error("the runtime can't list its replicas: {0}")]
    List(#[from] RuntimeError),
    /// The heartbeat path is not one.
    #[error("the heartbeat path can't be asked for: {0}")]
    Path(#[from] http::uri::InvalidUri),
}

/// Results that are taken in in one go.
const BATCH: usize = 64;
/// From one tick to the next, at least.
const TICK_GAP: Duration = Duration::from_millis(2);
/// Steps of a slow start.
const RAMP_STEPS: u32 = 50;

/// Where the question for the runtime's list stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Listed {
    Idle,
    UnderWay,
    AskAgain,
}

/// The task that keeps the fleet alive.
pub struct Supervisor<R> {
    fleet: Mind,
    config: FleetConfig,
    runtime: Arc<R>,
    pool: Pool,
    prober: Prober,
    replicas: HashMap<Generation, Arc<Replica>>,
    results: mpsc::Sender<Event>,
    reported: mpsc::Receiver<Event>,
    suspicions: mpsc::Receiver<Suspicion>,
    commands: mpsc::Receiver<Command>,
    status: watch::Sender<Arc<Status>>,
    callers: HashMap<Ticket, oneshot::Sender<Result<Listing, Refusal>>>,
    tickets: u64,
    launches: Arc<Semaphore>,
    stops: Arc<Semaphore>,
    listing: Listed,
    replaced: u64,
    /// Since when the newcomers have been ready.
    newcomers: HashMap<Generation, Instant>,
    next_ramp: Instant,
    /// Those that have been ready before.
    welcomed: HashSet<Generation>,
    /// Who holds requests besides this process, if anybody may.
    holders: Option<Arc<dyn Holders>>,
}

impl<R: Runtime> Supervisor<R> {
    /// A supervisor over `runtime` that has taken in its first list, and how to talk to it.
    pub async fn start(
        runtime: R,
        config: FleetConfig,
        pool: Pool,
        suspicions: mpsc::Receiver<Suspicion>,
        seed: u64,
    ) -> Result<(Self, SupervisorHandle), StartError> {
        let asked = Instant::now();
        let instances = match tokio::time::timeout(RUNTIME_PATIENCE, runtime.list()).await {
            Ok(instances) => instances?,
            Err(_) => return Err(RuntimeError::Failed("no answer".into()).into()),
        };
        let prober = Prober::new(&config.heartbeat)?;
        let (results, reported) = mpsc::channel(RESULTS);
        let (sender, commands) = mpsc::channel(COMMANDS);
        let (status, watched) = watch::channel(Arc::default());
        let mut supervisor = Self {
            fleet: if R::FOLLOWS {
                Mind::Follower(Box::new(Follower::new(config.heartbeat.clone(), seed)))
            } else {
                Mind::Fleet(Box::new(Fleet::new(config.clone(), seed)))
            },
            config,
            runtime: Arc::new(runtime),
            pool,
            prober,
            replicas: HashMap::new(),
            results,
            reported,
            suspicions,
            commands,
            status,
            callers: HashMap::new(),
            tickets: 0,
            launches: Arc::new(Semaphore::new(LAUNCHES)),
            stops: Arc::new(Semaphore::new(STOPS)),
            listing: Listed::Idle,
            replaced: 0,
            newcomers: HashMap::new(),
            next_ramp: asked,
            welcomed: HashSet::new(),
            holders: None,
        };
        supervisor.take_in(Event::Listed { asked, instances });
        Ok((supervisor, SupervisorHandle { commands: sender, status: watched, forward: None }))
    }

    /// The same, but requests on its replicas are held elsewhere: a replica that leaves waits for those.
    #[must_use]
    pub fn with_holders(self, holders: Arc<dyn Holders>) -> Self {
        Self { holders: Some(holders), ..self }
    }

    /// Runs until it is told to close, or all handles are gone.
    pub async fn run(mut self) {
        let events = self.runtime.events();
        tokio::pin!(events);
        let mut ticked = Instant::now();
        loop {
            // Those that are due within a moment of each other are done together.
            let deadline = self.fleet.deadline().map(|deadline| deadline.max(ticked + TICK_GAP));
            let tick = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            let event = tokio::select! {
                () = tokio::time::sleep_until(self.next_ramp), if !self.newcomers.is_empty() => {
                    self.ramp(Instant::now());
                    continue;
                }
                Some(event) = events.next() => Event::Runtime(event),
                Some(event) = self.reported.recv() => event,
                Some(suspicion) = self.suspicions.recv() => match suspicion {
                    Suspicion::Refused(generation) => Event::Refused { generation },
                    Suspicion::Broken(generation) => Event::Broken { generation },
                },
                command = self.commands.recv() => match command {
                    Some(Command::Order { order, answer }) => {
                        self.tickets += 1;
                        let ticket = Ticket(self.tickets);
                        self.callers.insert(ticket, answer);
                        Event::Order { ticket, order }
                    }
                    Some(Command::Close { remove, done }) => {
                        self.close(remove).await;
                        let _ = done.send(());
                        return;
                    }
                    None => return,
                },
                () = tick => {
                    ticked = Instant::now();
                    Event::Tick
                }
            };
            self.take_in(event);
            // What is there already is taken in before the next look at all deadlines.
            for _ in 0..BATCH {
                let Ok(event) = self.reported.try_recv() else { break };
                self.take_in(event);
            }
        }
    }

    /// Lets the replicas go, as long as that may take.
    async fn close(&mut self, remove: bool) {
        let rounds = self.status.borrow().members.len().div_ceil(STOPS).max(1) as u32;
        let deadline = Instant::now() + self.config.stop_grace * rounds + RUNTIME_PATIENCE;
        self.take_in(Event::Close { remove });
        while remove && !self.fleet.is_empty() {
            if Instant::now() >= deadline {
                let left = self.fleet.view(Instant::now(), SystemTime::now());
                let left: Vec<_> = left.iter().map(|member| member.spec.hostname.as_str()).collect();
                tracing::error!("these replicas could not be stopped in time: {}", left.join(", "));
                return;
            }
            let tick = self.fleet.deadline().unwrap_or(deadline).min(deadline);
            match tokio::time::timeout_at(tick, self.reported.recv()).await {
                Ok(Some(event)) => self.take_in(event),
                Ok(None) => return,
                Err(_) => self.take_in(Event::Tick),
            }
        }
    }

    fn take_in(&mut self, event: Event) {
        if matches!(event, Event::Listed { .. } | Event::Unlisted)
            && std::mem::replace(&mut self.listing, Listed::Idle) == Listed::AskAgain
        {
            self.list();
        }
        let now = Instant::now();
        // With hundreds of replicas nearly everything that happens is a heartbeat that went well: nothing to tell.
        let is_routine = matches!(event, Event::Probed { result: Ok(()), .. } | Event::Tick);
        let actions = self.fleet.handle(event, now);
        let is_routine = is_routine
            && actions
                .iter()
                .all(|action| matches!(action, Action::Probe { .. } | Action::Health { health: Health::Ready, .. }));
        for action in actions {
            self.carry_out(action);
        }
        if cfg!(debug_assertions) {
            self.fleet.check_invariants();
        }
        if is_routine {
            return;
        }
        let members = self.fleet.view(now, SystemTime::now()).into_iter();
        let members = members
            .map(|view| MemberStatus { replica: self.replicas.get(&view.spec.generation).cloned(), view })
            .collect();
        self.status.send_replace(Arc::new(Status {
            listing: self.fleet.listing(),
            members,
            replaced: self.replaced,
            progress: self.fleet.progress(),
            busy: self.fleet.is_busy(),
            link: self.fleet.link(),
        }));
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Launch(launch) => {
                let (runtime, at_once) = (Arc::clone(&self.runtime), Arc::clone(&self.launches));
                let (generation, limit) = (launch.spec.generation, self.config.start_timeout);
                self.spawn(async move {
                    let _turn = at_once.acquire().await;
                    let result = tokio::time::timeout(limit, runtime.launch(&launch)).await.unwrap_or_else(|_| {
                        Err(RuntimeError::Failed(format!("not started within {}", humantime::format_duration(limit))))
                    });
                    Event::Launched { generation, result }
                });
            }
            Action::Stop { generation, id, grace } => {
                let (runtime, at_once) = (Arc::clone(&self.runtime), Arc::clone(&self.stops));
                self.spawn(async move {
                    let _turn = at_once.acquire().await;
                    let limit = grace + RUNTIME_PATIENCE;
                    let result = tokio::time::timeout(limit, runtime.stop(&id, grace)).await.unwrap_or_else(|_| {
                        Err(RuntimeError::Failed(format!("not stopped within {}", humantime::format_duration(limit))))
                    });
                    Event::Stopped { generation, result }
                });
            }
            Action::Probe { generation, seq, addr } => {
                let prober = self.prober.clone();
                self.spawn(async move { Event::Probed { generation, seq, result: prober.probe(addr).await } });
            }
            Action::Publish => self.publish(),
            Action::Health { generation, health } => {
                if health == Health::Ready {
                    self.welcome(generation);
                }
                if let Some(replica) = self.replicas.get(&generation) {
                    replica.set_health(health);
                    if health == Health::Lost {
                        self.pool.announce();
                    }
                }
            }
            Action::Drain { generation } => {
                let replica = self.replicas.get(&generation).cloned();
                if let Some(holders) = &self.holders {
                    let released = holders.released(generation);
                    let limit = self.config.drain_timeout;
                    return self.spawn(async move {
                        let _ = tokio::time::timeout(limit, released).await;
                        Event::Drained { generation }
                    });
                }
                self.spawn(async move {
                    if let Some(replica) = replica {
                        replica.drained().await;
                    }
                    Event::Drained { generation }
                });
            }
            Action::Gone { generation } => {
                self.replicas.remove(&generation);
                self.welcomed.remove(&generation);
            }
            Action::List => self.list(),
            Action::Answer { ticket, answer } => {
                if let Some(caller) = self.callers.remove(&ticket) {
                    // A caller that has gone does not want to know.
                    let _ = caller.send(answer);
                }
            }
            Action::Report(notice) => {
                self.replaced += u64::from(matches!(notice, Notice::Replaced { .. } | Notice::Promoted { .. }));
                log(&notice);
            }
        }
    }

    /// A replica that is ready for the first time begins with a small part of what it may hold.
    fn welcome(&mut self, generation: Generation) {
        if self.config.slow_start.is_zero() || !self.welcomed.insert(generation) {
            return;
        }
        let now = Instant::now();
        self.newcomers.insert(generation, now);
        self.ramp(now);
    }

    /// Gives every newcomer its part. It is measured by the one that has come the furthest, as a fleet that starts as a
    /// whole has nobody else to hold the rest.
    fn ramp(&mut self, now: Instant) {
        self.next_ramp = now + (self.config.slow_start / RAMP_STEPS).max(Duration::from_millis(1));
        let replicas = &self.replicas;
        self.newcomers.retain(|generation, _| replicas.contains_key(generation));
        let part = |since: &Instant| {
            let part = (now - *since).as_secs_f64() / self.config.slow_start.as_secs_f64();
            part.clamp(1.0 / f64::from(RAMP_STEPS), 1.0)
        };
        let is_settled = |generation: &Generation| !self.newcomers.contains_key(generation);
        let settled = replicas.iter().any(|(generation, replica)| is_settled(generation) && replica.is_ready());
        let furthest = if settled { 1.0 } else { self.newcomers.values().map(part).fold(0.0, f64::max) };
        for (generation, since) in &self.newcomers {
            if let Some(replica) = replicas.get(generation) {
                replica.set_ramp(part(since) / furthest);
            }
        }
        let slow_start = self.config.slow_start;
        self.newcomers.retain(|_, since| now - *since < slow_start);
    }

    /// Runs `work` beside this task and takes its result in as an event.
    fn spawn(&self, work: impl Future<Output = Event> + Send + 'static) {
        let results = self.results.clone();
        tokio::spawn(async move {
            let _ = results.send(work.await).await;
        });
    }

    fn publish(&mut self) {
        let mut members = Vec::new();
        for (instance, share) in self.fleet.published() {
            let Some(addr) = instance.addr else { continue };
            // A spare has got another number, or its generation means another replica now.
            if self.replicas.get(&instance.spec.generation).is_some_and(|known| known.id != instance.spec.id) {
                self.replicas.remove(&instance.spec.generation);
            }
            let replica = self.replicas.entry(instance.spec.generation).or_insert_with(|| {
                let pin = self.pool.pin(&instance.spec.hostname, &instance.id.0);
                let replica = Replica::new(&instance.spec, addr, self.pool.load()).with_pin(pin);
                // It takes over from another in this very publication, maybe.
                if self.fleet.starts_ready(instance.spec.generation) {
                    replica.set_health(Health::Ready);
                }
                Arc::new(replica)
            });
            replica.set_share(share);
            members.push(Arc::clone(replica));
        }
        self.pool.publish(members.into(), &self.fleet.places());
    }

    fn list(&mut self) {
        if self.listing != Listed::Idle {
            // The list under way may be too old already.
            self.listing = Listed::AskAgain;
            return;
        }
        self.listing = Listed::UnderWay;
        let (runtime, results, asked) = (Arc::clone(&self.runtime), self.results.clone(), Instant::now());
        tokio::spawn(async move {
            let event = match tokio::time::timeout(RUNTIME_PATIENCE, runtime.list()).await {
                Ok(Ok(instances)) => Event::Listed { asked, instances },
                failed => {
                    let reason = match failed {
                        Ok(Err(error)) => error.to_string(),
                        _ => "no answer".into(),
                    };
                    tracing::warn!("the runtime can't list its replicas, those that live go on: {reason}");
                    Event::Unlisted
                }
            };
            let _ = results.send(event).await;
        });
    }
}
