//! The simulated world: replicas with slots and queues, launches that take time, requests that come by a curve. One step is
//! one sample. After each decision its rules are checked anew, from what the world itself has recorded.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use lb::pilot::scale::{Decision, Sample, ScaleConfig, Scaler};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

use crate::watch::Watch;

/// Requests a second at a moment, between points that are joined by lines; the last one lasts.
#[derive(Debug, Clone)]
pub(crate) struct Load(pub(crate) Vec<(f64, f64)>);

impl Load {
    pub(crate) fn recorded(csv: &str) -> Self {
        let rows = csv.lines().filter(|line| !line.starts_with('#')).skip(1);
        let number = |text: &str| text.parse::<f64>().unwrap();
        Self(rows.map(|row| row.split_once(',').map(|(at, rate)| (number(at), number(rate))).unwrap()).collect())
    }

    pub(crate) fn constant(rate: f64) -> Self {
        Self(vec![(0.0, rate)])
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.0.last().unwrap().0
    }

    fn at(&self, second: f64) -> f64 {
        let after = self.0.partition_point(|(at, _)| *at <= second);
        let (from, before) = self.0[after.max(1) - 1];
        let Some((to, next)) = self.0.get(after) else { return before };
        before + (next - before) * ((second - from) / (to - from)).clamp(0.0, 1.0)
    }
}

/// What everything in a world is like.
#[derive(Debug, Clone)]
pub(crate) struct Nature {
    /// Mean service time.
    pub(crate) service: Duration,
    /// Service times are this share longer or shorter, at most.
    pub(crate) uneven: f64,
    /// Requests that a replica works on at a time; the others wait there.
    pub(crate) slots: usize,
    pub(crate) launch: Duration,
    pub(crate) interval: Duration,
    /// Requests come by chance (Poisson), not evenly.
    pub(crate) chance: bool,
    /// Percent of the orders that are refused, or fail after N has shown them.
    pub(crate) refused: u32,
}

impl Default for Nature {
    fn default() -> Self {
        Self {
            service: Duration::from_millis(50),
            uneven: 0.2,
            slots: 4,
            launch: Duration::from_millis(50),
            interval: Duration::from_millis(100),
            chance: true,
            refused: 0,
        }
    }
}

/// Times are microseconds since the world's begin.
struct Server {
    id: u64,
    ready_at: u64,
    free_at: Vec<u64>,
    in_flight: usize,
}

pub(crate) struct World {
    pub(crate) nature: Nature,
    pub(crate) load: Load,
    pub(crate) scaler: Scaler,
    pub(crate) watch: Watch,
    pub(crate) decisions: Vec<(f64, Decision)>,
    pub(crate) rng: StdRng,
    servers: Vec<Server>,
    begin: Instant,
    micros: u64,
    last_id: u64,
    credit: f64,
    next: f64,
    arrived: u32,
    /// Ends, with the server and the latency.
    under_way: BinaryHeap<Reverse<(u64, u64, u64)>>,
    done: VecDeque<(u64, u64)>,
    /// What a late failure takes N back to, and when.
    taken_back: Option<(u64, usize)>,
}

impl World {
    pub(crate) fn new(config: ScaleConfig, nature: Nature, load: Load, start: usize, seed: u64) -> Self {
        let mut world = Self {
            nature,
            load,
            scaler: Scaler::new(config),
            watch: Watch::new(config),
            decisions: Vec::new(),
            rng: StdRng::seed_from_u64(seed),
            servers: Vec::new(),
            begin: Instant::now(),
            micros: 0,
            last_id: 0,
            credit: 0.0,
            next: 1.0,
            arrived: 0,
            under_way: BinaryHeap::new(),
            done: VecDeque::new(),
            taken_back: None,
        };
        world.set_n(start);
        world.servers.iter_mut().for_each(|server| server.ready_at = 0);
        world
    }

    pub(crate) fn n(&self) -> usize {
        self.servers.len()
    }

    pub(crate) fn second(&self) -> f64 {
        self.micros as f64 / 1e6
    }

    pub(crate) fn now(&self) -> Instant {
        self.begin + Duration::from_micros(self.micros)
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.under_way.len()
    }

    /// The latency that 99 % of what ended in the last so many seconds stayed under.
    pub(crate) fn p99(&self, last: Duration) -> Option<Duration> {
        let since = self.micros.saturating_sub(last.as_micros() as u64);
        let mut all: Vec<_> =
            self.done.iter().rev().take_while(|(end, _)| *end >= since).map(|(_, took)| *took).collect();
        all.sort_unstable();
        let rank = (all.len() as f64 * 0.99).ceil() as usize;
        all.get(rank.checked_sub(1)?).map(|micros| Duration::from_micros(*micros))
    }

    /// Somebody changes N.
    pub(crate) fn by_hand(&mut self, n: usize) {
        self.watch.by_hand(self.second());
        self.set_n(n);
    }

    fn set_n(&mut self, n: usize) {
        self.servers.truncate(n);
        while self.servers.len() < n {
            self.last_id += 1;
            let launch = self.nature.launch.as_micros() as f64 * self.rng.random_range(0.8..1.2);
            let ready_at = self.micros + launch as u64;
            let free_at = vec![0; self.nature.slots];
            self.servers.push(Server { id: self.last_id, ready_at, free_at, in_flight: 0 });
        }
    }

    pub(crate) fn run(&mut self, seconds: f64) {
        let until = self.second() + seconds;
        while self.second() < until {
            self.step();
        }
    }

    /// On to the next sample. Gives what was decided.
    pub(crate) fn step(&mut self) -> Option<Decision> {
        self.arrived = 0;
        let end = self.micros + self.nature.interval.as_micros() as u64;
        while self.micros < end {
            self.micros += 1000;
            self.finish();
            self.credit += self.load.at(self.second()) / 1000.0;
            while self.credit >= self.next {
                self.credit -= self.next;
                self.next = if self.nature.chance { -self.rng.random_range(1e-9..1.0_f64).ln() } else { 1.0 };
                self.arrive();
            }
        }
        let failed = self.taken_back.take_if(|(at, _)| *at <= self.micros);
        if let Some((_, n)) = failed {
            self.set_n(n);
        }
        // Word of it may come after the sample that shows it.
        let late = failed.is_some() && self.rng.random_bool(0.5);
        if failed.is_some() && !late {
            self.scaler.failed(self.now());
        }
        let sample = self.sample();
        let decision = self.scaler.observe(&sample, self.now());
        if late {
            self.scaler.failed(self.now());
        }
        self.watch.check(&sample, decision.as_ref(), self.second());
        if let Some(decision) = &decision {
            self.decisions.push((self.second(), decision.clone()));
            self.carry_out(decision);
        }
        decision
    }

    fn carry_out(&mut self, decision: &Decision) {
        match self.rng.random_range(0..100) {
            roll if roll >= self.nature.refused => self.set_n(decision.to),
            roll if roll % 2 == 0 => self.scaler.failed(self.now()),
            _ => {
                self.set_n(decision.to);
                self.taken_back = Some((self.micros + self.rng.random_range(0..2_000_000), decision.from));
            }
        }
    }

    fn sample(&self) -> Sample {
        let ready = self.servers.iter().filter(|server| server.ready_at <= self.micros).count();
        let busy: usize =
            self.servers.iter().flat_map(|one| &one.free_at).filter(|until| **until > self.micros).count();
        Sample {
            desired: self.n(),
            ready,
            in_flight: self.in_flight() as u64,
            rate: f64::from(self.arrived) / self.nature.interval.as_secs_f64(),
            p99: self.p99(Duration::from_secs(1)),
            cpu: (ready > 0).then(|| busy as f64 / (self.nature.slots * ready) as f64),
            busy: ready < self.n(),
        }
    }

    /// A request comes, and goes to the ready replica that has the fewest.
    fn arrive(&mut self) {
        self.arrived += 1;
        let uneven = self.nature.uneven;
        let service = self.nature.service.as_micros() as f64 * self.rng.random_range(1.0 - uneven..=1.0 + uneven);
        let now = self.micros;
        let ready = self.servers.iter_mut().filter(|server| server.ready_at <= now);
        let server = ready.min_by_key(|server| server.in_flight).expect("one is always ready");
        let slot = server.free_at.iter_mut().min().unwrap();
        *slot = (*slot).max(now) + service as u64;
        server.in_flight += 1;
        self.under_way.push(Reverse((*slot, server.id, *slot - now)));
    }

    fn finish(&mut self) {
        while let Some(Reverse((end, id, latency))) = self.under_way.peek().copied()
            && end <= self.micros
        {
            self.under_way.pop();
            self.done.push_back((end, latency));
            if let Some(server) = self.servers.iter_mut().find(|server| server.id == id) {
                server.in_flight -= 1;
            }
        }
        while self.done.front().is_some_and(|(end, _)| *end + 5_000_000 < self.micros) {
            self.done.pop_front();
        }
    }
}
