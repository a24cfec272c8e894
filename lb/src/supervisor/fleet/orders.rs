//! `/add` and `/rm`: checked against the fleet, done one after the other, all or nothing.

use std::collections::BTreeSet;

use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::deploy::Change;
use super::health::Failure;
use super::member::{Listing, Member, Phase, Standing};
use super::{Action, Fleet, Notice, ORDERS, SETTLE};
use crate::placement::ring::RingConfig;
use crate::replica::{Generation, Health, Hostname, Share};

/// Names the caller of an order, so that the answer finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// A change of N.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Start `n` more.
    Add {
        /// How many, 1 or more.
        n: usize,
        /// Names for the first of them.
        hostnames: Vec<Hostname>,
    },
    /// Remove `n`.
    Remove {
        /// How many, 1 or more.
        n: usize,
        /// Those that must be among them.
        hostnames: Vec<Hostname>,
    },
    /// Change a replica's share.
    Set {
        /// Whose.
        hostname: Hostname,
        /// Its weight from now on, if that changes.
        weight: Option<u16>,
        /// Its priority from now on, if that changes.
        priority: Option<u16>,
    },
    /// Replace one that answers, but not as it should.
    Eject {
        /// Which one.
        generation: Generation,
        /// Why, with its subject left out: "answers after 240 ms".
        reason: String,
    },
    /// Replace all, a few at a time, by replicas that are started from another template.
    Deploy(Change),
}

/// Why an order changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// `/add` names more than it adds. The contract fixes the words.
    #[error("Length of hostname list is more than newly added instances")]
    TooManyToAdd,
    /// `/rm` names more than it removes. The contract fixes the words.
    #[error("Length of hostname list is more than removable instances")]
    TooManyToRemove,
    /// A name stands twice in the list.
    #[error("hostname '{0}' is given twice; each may be given once")]
    Duplicate(Hostname),
    /// `/add` of a name in use.
    #[error("hostname '{0}' is in use; a new replica needs another")]
    InUse(Hostname),
    /// `/rm` of an unknown name.
    #[error("hostname '{name}' is not a replica; there {}", known(replicas))]
    Unknown {
        /// The name asked for.
        name: Hostname,
        /// Those there are.
        replicas: Vec<Hostname>,
    },
    /// `/rm` of more than there are.
    #[error("n is {n}, more than the {replicas} replicas there are")]
    MoreThanThereAre {
        /// Asked for.
        n: usize,
        /// N.
        replicas: usize,
    },
    /// More than fit on the ring.
    #[error(
        "n is {n}: {replicas} + {n} replicas are more than the {capacity} that the ring can hold ({slots} slots / {vnodes} virtual nodes)"
    )]
    RingFull {
        /// Asked for.
        n: usize,
        /// N.
        replicas: usize,
        /// The most that fit.
        capacity: usize,
        /// Slots on the ring.
        slots: u32,
        /// Virtual nodes per replica.
        vnodes: u32,
    },
    /// More than the policy's table has slots.
    #[error("n is {n}: {replicas} + {n} replicas are more than the {capacity} that the policy has places for")]
    TableFull {
        /// Asked for.
        n: usize,
        /// N.
        replicas: usize,
        /// The most that fit.
        capacity: usize,
    },
    /// More than configured.
    #[error("n is {n}: {replicas} + {n} replicas are more than max_replicas = {max}")]
    AboveMax {
        /// Asked for.
        n: usize,
        /// N.
        replicas: usize,
        /// The limit.
        max: usize,
    },
    /// Fewer than configured.
    #[error("n is {n}: {replicas} - {n} replicas are fewer than min_replicas = {min}")]
    BelowMin {
        /// Asked for.
        n: usize,
        /// N.
        replicas: usize,
        /// The limit.
        min: usize,
    },
    /// The one to be ejected is not one of N.
    #[error("there is no replica of generation {0} to be replaced")]
    NoneToEject(Generation),
    /// A rolling update asks for what can't be done.
    #[error("{0}")]
    BadChange(String),
    /// There is nobody to show that an update is good.
    #[error("there are no replicas to update, so nothing would show whether the new ones get ready; add one first")]
    NothingToUpdate,
    /// A rolling update failed, and was rolled back.
    #[error("the rolling update was rolled back: {0}")]
    RolledBack(String),
    /// The runtime has a fixed membership.
    #[error(
        "the static runtime has a fixed list of members (setting 'members'); replicas can be added and removed with the process and docker runtimes"
    )]
    Fixed,
    /// The runtime could not start one of the replicas.
    #[error("a replica could not be started: {0}")]
    Runtime(String),
    /// The agent, which does all this, can't be heard.
    #[error("the agent is not connected ({0}); replicas can be changed when it is")]
    NoAgent(String),
    /// The agent's own refusal.
    #[error("{message}")]
    Agent {
        /// Which kind of refusal.
        kind: RefusalKind,
        /// Its words.
        message: String,
    },
    /// Too many orders wait.
    #[error("{ORDERS} changes wait already; try again later")]
    Busy,
    /// The balancer is stopping.
    #[error("the balancer is stopping")]
    Closing,
}

/// What a refusal means for whoever asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalKind {
    /// It asked for something that can't be done.
    Bad,
    /// It named a replica that is not there.
    Unknown,
    /// It should have been possible.
    Failed,
    /// Later it may be possible.
    Later,
}

impl Refusal {
    /// What it means.
    pub fn kind(&self) -> RefusalKind {
        match self {
            Self::Unknown { .. } | Self::NoneToEject(_) => RefusalKind::Unknown,
            Self::Runtime(_) | Self::RolledBack(_) => RefusalKind::Failed,
            Self::Busy | Self::Closing | Self::NoAgent(_) => RefusalKind::Later,
            Self::Agent { kind, .. } => *kind,
            _ => RefusalKind::Bad,
        }
    }
}

fn known(replicas: &[Hostname]) -> String {
    match replicas {
        [] => "are none".into(),
        replicas => {
            let names: Vec<_> = replicas.iter().map(Hostname::as_str).collect();
            format!("are {}", names.join(", "))
        }
    }
}

/// The `/add` under way.
#[derive(Debug)]
pub(super) struct Adding {
    ticket: Ticket,
    generations: Vec<Generation>,
    /// Set once it has failed: why, and until when its replicas have to be gone before it is answered.
    failed: Option<(String, Instant)>,
}

/// A `/rm` whose replicas are leaving.
#[derive(Debug)]
pub(super) struct Removing {
    ticket: Ticket,
    generations: BTreeSet<Generation>,
    listing: Listing,
    deadline: Instant,
}

impl Fleet {
    pub(super) fn order(&mut self, ticket: Ticket, order: Order, now: Instant) {
        if self.closing {
            self.answer(ticket, Err(Refusal::Closing));
        } else if let Order::Set { hostname, weight, priority } = &order {
            // It takes no time, and waits for nobody.
            let answer = self.set_share(hostname, *weight, *priority);
            self.answer(ticket, answer);
        } else if !self.config.heals {
            self.answer(ticket, Err(Refusal::Fixed));
        } else if let Order::Eject { generation, reason } = order {
            let answer = self.eject(generation, &reason, now);
            self.answer(ticket, answer);
        } else if !self.is_busy() {
            self.carry_out(ticket, order, now);
        } else if self.orders.len() < ORDERS {
            self.orders.push_back((ticket, order));
        } else {
            self.answer(ticket, Err(Refusal::Busy));
        }
    }

    fn carry_out(&mut self, ticket: Ticket, order: Order, now: Instant) {
        let refused = match order {
            Order::Add { n, hostnames } => self.add(ticket, n, &hostnames, now),
            Order::Remove { n, hostnames } => self.remove(ticket, n, &hostnames, now),
            Order::Deploy(change) => self.deploy(ticket, &change, now),
            // They were carried out when they came.
            Order::Set { .. } | Order::Eject { .. } => Ok(()),
        };
        if let Err(refusal) = refused {
            self.answer(ticket, Err(refusal));
        }
    }

    /// The next orders, until one of them takes time.
    pub(super) fn next_orders(&mut self, now: Instant) {
        while !self.is_busy() {
            let Some((ticket, order)) = self.orders.pop_front() else { return };
            self.carry_out(ticket, order, now);
        }
    }

    fn add(&mut self, ticket: Ticket, n: usize, hostnames: &[Hostname], now: Instant) -> Result<(), Refusal> {
        if hostnames.len() > n {
            return Err(Refusal::TooManyToAdd);
        }
        no_duplicates(hostnames)?;
        if let Some(used) = hostnames.iter().find(|name| self.is_used(name)) {
            return Err(Refusal::InUse(used.clone()));
        }
        self.check_room(n)?;
        let mut generations = Vec::with_capacity(n);
        // Whoever does not care for the name gets those that are there already.
        let mut spares = self.ready_spares().into_iter();
        for at in 0..n {
            let named = hostnames.get(at);
            let spare = if named.is_none() { spares.next() } else { None };
            let generation = if let Some(spare) = spare {
                let id = self.lowest_free_id();
                self.number_spare(spare, id, Standing::Adding);
                spare
            } else {
                let hostname = named.cloned().unwrap_or_else(|| self.random_hostname());
                let generation = self.enlist(hostname, Standing::Adding, now);
                self.launch(generation, now);
                generation
            };
            generations.push(generation);
        }
        self.adding = Some(Adding { ticket, generations, failed: None });
        self.added(now);
        self.top_up_spares(now);
        Ok(())
    }

    /// Replaces one that answers, but not as it should. It finishes its requests.
    fn eject(&mut self, generation: Generation, reason: &str, now: Instant) -> Result<Listing, Refusal> {
        if !self.members.get(&generation).is_some_and(Member::is_published) {
            return Err(Refusal::NoneToEject(generation));
        }
        self.replace(generation, reason, Failure::Doomed, now);
        Ok(self.listing())
    }

    fn set_share(
        &mut self,
        hostname: &Hostname,
        weight: Option<u16>,
        priority: Option<u16>,
    ) -> Result<Listing, Refusal> {
        let listing = self.listing();
        let mut members = self.members.values_mut();
        let named = |member: &&mut Member| member.standing != Standing::Leaving && member.spec.hostname == *hostname;
        let Some(member) = members.find(named) else {
            return Err(Refusal::Unknown { name: hostname.clone(), replicas: listing.replicas });
        };
        let old = member.share;
        let new = Share { weight: weight.unwrap_or(old.weight), priority: priority.unwrap_or(old.priority) };
        if new != old {
            member.share = new;
            let replica = member.spec.clone();
            self.act(Action::Publish);
            self.act(Action::Report(Notice::Shared { replica, old, new }));
        }
        Ok(listing)
    }

    fn check_room(&self, n: usize) -> Result<(), Refusal> {
        let replicas = self.desired().count();
        let capacity = self.config.places;
        if replicas.saturating_add(n) > capacity {
            let RingConfig { slots, vnodes, .. } = self.config.ring;
            return Err(if capacity < self.config.ring.capacity() {
                Refusal::TableFull { n, replicas, capacity }
            } else {
                Refusal::RingFull { n, replicas, capacity, slots, vnodes }
            });
        }
        match self.config.max_replicas {
            Some(max) if replicas + n > max => Err(Refusal::AboveMax { n, replicas, max }),
            _ => Ok(()),
        }
    }

    fn remove(&mut self, ticket: Ticket, n: usize, hostnames: &[Hostname], now: Instant) -> Result<(), Refusal> {
        if hostnames.len() > n {
            return Err(Refusal::TooManyToRemove);
        }
        no_duplicates(hostnames)?;
        let listing = self.listing();
        if n > listing.n {
            return Err(Refusal::MoreThanThereAre { n, replicas: listing.n });
        }
        let min = self.config.min_replicas;
        if listing.n - n < min {
            return Err(Refusal::BelowMin { n, replicas: listing.n, min });
        }
        let mut chosen = BTreeSet::new();
        for name in hostnames {
            let member = self.desired().find(|member| member.spec.hostname == *name);
            let unknown = || Refusal::Unknown { name: name.clone(), replicas: listing.replicas.clone() };
            chosen.insert(member.ok_or_else(unknown)?.spec.generation);
        }
        let mut rest: Vec<_> =
            self.desired().map(|member| member.spec.generation).filter(|one| !chosen.contains(one)).collect();
        rest.shuffle(&mut self.rng);
        chosen.extend(rest.into_iter().take(n - chosen.len()));
        for generation in &chosen {
            let replica = self.members[generation].spec.clone();
            self.drain(*generation, now);
            self.act(Action::Report(Notice::Removed { replica }));
        }
        self.act(Action::Publish);
        // The answer is what N is from now on; it is given when the last of them has gone.
        let deadline = now + self.config.drain_timeout + SETTLE;
        self.removing.push(Removing { ticket, generations: chosen, listing: self.listing(), deadline });
        self.settle_orders(now);
        Ok(())
    }

    /// One of an `/add` has become ready: publishes them all if it was the last.
    pub(super) fn added(&mut self, now: Instant) {
        let Some(adding) = &self.adding else { return };
        let ready = |member: &Member| matches!(member.phase, Phase::Ready { .. });
        if adding.failed.is_some() || !adding.generations.iter().all(|one| self.members.get(one).is_some_and(ready)) {
            return;
        }
        let (ticket, generations) = (adding.ticket, adding.generations.clone());
        self.adding = None;
        for generation in &generations {
            if let Some(member) = self.members.get_mut(generation) {
                member.standing = Standing::Desired;
                let replica = member.spec.clone();
                self.act(Action::Report(Notice::Ready { replica }));
            }
        }
        self.act(Action::Publish);
        for generation in generations {
            self.act(Action::Health { generation, health: Health::Ready });
        }
        self.answer(ticket, Ok(self.listing()));
        self.next_orders(now);
    }

    /// One of an `/add` has failed: takes back them all.
    pub(super) fn add_failed(&mut self, reason: &str, now: Instant) {
        let Some(adding) = &mut self.adding else { return };
        if adding.failed.is_some() {
            return;
        }
        adding.failed = Some((reason.to_owned(), now + SETTLE));
        let generations = adding.generations.clone();
        self.act(Action::Report(Notice::AddFailed { reason: reason.to_owned() }));
        for generation in generations {
            self.discard(generation, now);
        }
        self.settle_orders(now);
    }

    /// Answers the orders whose replicas are gone, or have taken too long to go.
    pub(super) fn settle_orders(&mut self, now: Instant) {
        let (done, waiting) = std::mem::take(&mut self.removing).into_iter().partition::<Vec<_>, _>(|removing| {
            now >= removing.deadline || !removing.generations.iter().any(|one| self.members.contains_key(one))
        });
        self.removing = waiting;
        for Removing { ticket, listing, .. } in done {
            self.answer(ticket, Ok(listing));
        }
        let settled = self.adding.as_ref().is_some_and(|adding| match &adding.failed {
            None => false,
            Some((_, deadline)) => {
                now >= *deadline || !adding.generations.iter().any(|one| self.members.contains_key(one))
            }
        });
        if settled && let Some(Adding { ticket, failed: Some((reason, _)), .. }) = self.adding.take() {
            self.answer(ticket, Err(Refusal::Runtime(reason)));
            self.next_orders(now);
        }
    }

    /// When an order has to be answered at the latest.
    pub(super) fn orders_deadline(&self) -> Option<Instant> {
        let adding = self.adding.as_ref().and_then(|adding| adding.failed.as_ref()).map(|(_, deadline)| *deadline);
        self.removing.iter().map(|removing| removing.deadline).chain(adding).min()
    }

    /// Refuses what waits; for a balancer that stops.
    pub(super) fn refuse_orders(&mut self) {
        for (ticket, _) in std::mem::take(&mut self.orders) {
            self.answer(ticket, Err(Refusal::Closing));
        }
        if let Some(adding) = self.adding.take() {
            self.answer(adding.ticket, Err(Refusal::Closing));
        }
        self.refuse_deploy();
    }

    pub(super) fn answer(&mut self, ticket: Ticket, answer: Result<Listing, Refusal>) {
        self.act(Action::Answer { ticket, answer });
    }
}

fn no_duplicates(hostnames: &[Hostname]) -> Result<(), Refusal> {
    let mut seen = BTreeSet::new();
    match hostnames.iter().find(|name| !seen.insert(*name)) {
        None => Ok(()),
        Some(twice) => Err(Refusal::Duplicate(twice.clone())),
    }
}
