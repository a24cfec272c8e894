//! Weights and priorities from measures, for policies that go by them. Pure: measures and time come in.
//!
//! **Weights.** What a request at a replica costs is
//! `max(latency, 1 ms) × (1 + 4 × share of failures) × max(1, CPU / 80 %)`; its weight is `base × median cost / cost`, rounded,
//! from `least` to `most`. The median is that of the ready replicas of the normal tier, so where all are alike, or all are in
//! the same trouble, all have `base`. A change is at most a factor of 2, is none below the hysteresis, and comes once in an
//! interval. Without two latencies to compare there is none.
//!
//! **Tiers.** The normal one has priority 1. Who has been at the limit of its memory or CPU for an interval goes to the reserve,
//! priority 0, and comes back once it is well below. The reserve never has more than its share of the ready replicas; if those
//! become fewer, whoever is furthest from the limit comes back.
//!
//! **By hand.** A share that is neither what was set here last nor a neutral one (1 with priority 0, as replicas are born, or
//! `base` with priority 1) is somebody's decision, and left alone until it is neutral again.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::{median, percent, time};
use crate::replica::{Generation, Share};

/// Priority of those that serve.
const NORMAL: u16 = 1;
/// Priority of those that serve if nobody else can.
const RESERVE: u16 = 0;
/// Below this, latencies differ by chance.
const LATENCY_FLOOR: Duration = Duration::from_millis(1);
/// What a failure costs, in requests.
const FAILURE_COST: f64 = 4.0;
/// Up to this share of its limit, CPU costs nothing.
const CPU_FREE: f64 = 0.8;
/// So far below the pressure it is over.
const RELIEF: f64 = 0.15;

/// How far weights go, and when a replica is a reserve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WeighConfig {
    /// The neutral weight. Default 10.
    pub base: u16,
    /// The lowest weight. Default 2.
    pub least: u16,
    /// The highest weight. Default 40.
    pub most: u16,
    /// A change by less than this share of the weight is none. Default 0.25.
    pub hysteresis: f64,
    /// From one change of a replica to the next, and how long pressure has to last. Default 5 s.
    pub interval: Duration,
    /// Share of its memory or CPU limit from which a replica is under pressure. Default 0.9.
    pub pressure: f64,
    /// Share of the ready replicas that may be in reserve, rounded down. Default a third.
    pub max_reserve: f64,
}

impl Default for WeighConfig {
    fn default() -> Self {
        Self {
            base: 10,
            least: 2,
            most: 40,
            hysteresis: 0.25,
            interval: Duration::from_secs(5),
            pressure: 0.9,
            max_reserve: 1.0 / 3.0,
        }
    }
}

/// How a replica is at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measure {
    /// Which replica.
    pub generation: Generation,
    /// Is it in rotation?
    pub ready: bool,
    /// Smoothed; `None` if there were too few requests.
    pub latency: Option<Duration>,
    /// Smoothed share of requests that failed, 0 to 1.
    pub failures: f64,
    /// Share of its limit; `None` if it is not known, or there is none.
    pub cpu: Option<f64>,
    /// Share of its limit; `None` if it is not known, or there is none.
    pub memory: Option<f64>,
    /// What it has.
    pub share: Share,
}

/// A share that is to be set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reweigh {
    /// Whose.
    pub generation: Generation,
    /// What it shall have.
    pub share: Share,
    /// Why: `weight 10 -> 5: answers after 40 ms, the median is 20 ms`.
    pub reason: String,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Weigher {
    config: WeighConfig,
    states: BTreeMap<Generation, State>,
}

/// What is remembered of a replica.
#[derive(Debug, Clone, Copy, Default)]
struct State {
    /// What was set last, and when.
    set: Option<(Share, Instant)>,
    /// What it had before, until it has been seen with what was set.
    before: Option<Share>,
    /// Since when it has been under pressure.
    pressed: Option<Instant>,
}

impl Weigher {
    /// Nothing has been set yet: the first observation lifts whoever has the share that replicas are born with to `base`.
    pub fn new(config: WeighConfig) -> Self {
        let least = config.least.max(1);
        let config = WeighConfig { least, most: config.most.max(least), base: config.base.max(1), ..config };
        Self { config, states: BTreeMap::new() }
    }

    /// Takes in how all replicas are, and says whose share is to change.
    pub fn observe(&mut self, measures: &[Measure], now: Instant) -> Vec<Reweigh> {
        let mut states = std::mem::take(&mut self.states);
        self.states = measures
            .iter()
            .map(|one| (one.generation, self.look(one, states.remove(&one.generation).unwrap_or_default(), now)))
            .collect();
        let mut changes: Vec<Reweigh> = self.newcomers(measures).collect();
        // Whoever has just been born is weighed next time, when its latency is that of its present share.
        let settled: Vec<&Measure> =
            measures.iter().filter(|one| one.share != Share::default() && self.is_ours(one)).collect();
        let ready: Vec<&Measure> = measures.iter().filter(|one| one.ready).collect();
        changes.extend(self.tiers(&settled, &ready, now));
        let usual = self.usual(&ready);
        let moved: Vec<_> = changes.iter().map(|change| change.generation).collect();
        let staying = settled.iter().filter(|one| one.share.priority == NORMAL && !moved.contains(&one.generation));
        changes.extend(staying.filter_map(|one| self.reweigh(one, usual?, now)).collect::<Vec<_>>());
        for change in &changes {
            let had = measures.iter().find(|one| one.generation == change.generation).map(|one| one.share);
            let state = self.states.entry(change.generation).or_default();
            (state.set, state.before) = (Some((change.share, now)), had);
        }
        changes
    }

    fn look(&self, one: &Measure, mut state: State, now: Instant) -> State {
        if state.set.is_some_and(|(share, _)| share == one.share) {
            state.before = None;
        }
        state.pressed = (strain(one) >= self.config.pressure).then(|| state.pressed.unwrap_or(now));
        state
    }

    fn neutral(&self) -> Share {
        Share { weight: self.config.base, priority: NORMAL }
    }

    /// Has nobody else decided about its share?
    fn is_ours(&self, one: &Measure) -> bool {
        if one.share == self.neutral() || one.share == Share::default() {
            return true;
        }
        let Some(State { set: Some((share, _)), before, .. }) = self.states.get(&one.generation) else { return false };
        // What was ordered may need a while to be seen, or was refused and is ordered again.
        one.share == *share || *before == Some(one.share)
    }

    /// All at once: as priorities go before weights, whoever were late would have nothing to do.
    fn newcomers(&self, measures: &[Measure]) -> impl Iterator<Item = Reweigh> {
        let born = measures.iter().filter(|one| one.share == Share::default() && self.neutral() != Share::default());
        born.map(|one| Reweigh {
            generation: one.generation,
            share: self.neutral(),
            reason: format!("weight {}: the neutral one, to begin with", self.config.base),
        })
    }

    /// May its share be changed again?
    fn is_due(&self, generation: Generation, now: Instant) -> bool {
        let set = self.states.get(&generation).and_then(|state| state.set);
        set.is_none_or(|(_, at)| now.saturating_duration_since(at) >= self.config.interval)
    }

    fn tiers(&self, settled: &[&Measure], ready: &[&Measure], now: Instant) -> Vec<Reweigh> {
        let is_reserve = |one: &Measure| one.share.priority < NORMAL && one.share != Share::default();
        let most = ((self.config.max_reserve * ready.len() as f64 + 1e-9).floor().max(0.0) as usize)
            .min(ready.len().saturating_sub(1));
        let mut reserve = ready.iter().filter(|one| is_reserve(one)).count();
        let mut changes = Vec::new();
        let mut by_strain = settled.to_vec();
        by_strain.sort_by(|one, other| strain(one).total_cmp(&strain(other)));
        let share = |one: &Measure, priority| Share { weight: one.share.weight, priority };
        for one in by_strain.iter().filter(|one| is_reserve(one)) {
            let (level, what) = pressure(one);
            let over = level < self.config.pressure - RELIEF && self.is_due(one.generation, now);
            let crowded = one.ready && reserve > most;
            if over || crowded {
                reserve -= usize::from(one.ready);
                let reason = if over {
                    format!("out of the reserve: {what} at {} of its limit", percent(level))
                } else {
                    format!("out of the reserve: it may have {most} of {} ready replicas", ready.len())
                };
                changes.push(Reweigh { generation: one.generation, share: share(one, NORMAL), reason });
            }
        }
        for one in by_strain.iter().rev().filter(|one| one.ready && !is_reserve(one)) {
            let pressed = self.states.get(&one.generation).and_then(|state| state.pressed);
            let lasting = pressed.is_some_and(|since| now.saturating_duration_since(since) >= self.config.interval);
            if reserve < most && lasting && self.is_due(one.generation, now) {
                reserve += 1;
                let (level, what) = pressure(one);
                let limit = percent(self.config.pressure);
                let reason =
                    format!("into the reserve: {what} at {} of its limit, {limit} is too much", percent(level));
                changes.push(Reweigh { generation: one.generation, share: share(one, RESERVE), reason });
            }
        }
        changes
    }

    /// The median cost and latency of those that serve, if there are two or more.
    fn usual(&self, ready: &[&Measure]) -> Option<(f64, Duration)> {
        let serving = || ready.iter().filter(|one| one.share.priority >= NORMAL);
        let costs: Vec<f64> = serving().filter_map(|one| cost(one)).collect();
        let latency = median(serving().filter_map(|one| one.latency).map(|latency| latency.as_secs_f64()))?;
        (costs.len() >= 2).then(|| median(costs)).flatten().zip(Some(Duration::from_secs_f64(latency)))
    }

    fn reweigh(&self, one: &Measure, (usual, latency): (f64, Duration), now: Instant) -> Option<Reweigh> {
        if !one.ready || !self.is_due(one.generation, now) {
            return None;
        }
        let WeighConfig { least, most, .. } = self.config;
        let has = one.share.weight;
        let ideal = (f64::from(self.config.base) * usual / cost(one)?).round();
        let ideal = ideal.clamp(f64::from(least), f64::from(most)) as u16;
        if f64::from(ideal.abs_diff(has)) < self.config.hysteresis * f64::from(has) {
            return None;
        }
        let weight = ideal.clamp(has.div_ceil(2), has.saturating_mul(2).max(1)).clamp(least, most);
        let own = one.latency.unwrap_or_default();
        let mut reason =
            format!("weight {has} -> {weight}: answers after {}, the median is {}", time(own), time(latency));
        if one.failures >= 0.005 {
            reason += &format!("; {} failed", percent(one.failures));
        }
        if let Some(cpu) = one.cpu.filter(|cpu| *cpu > CPU_FREE) {
            reason += &format!("; CPU at {} of its limit", percent(cpu));
        }
        let share = Share { weight, priority: one.share.priority };
        (weight != has).then_some(Reweigh { generation: one.generation, share, reason })
    }
}

/// What a request costs there, see the module's documentation.
fn cost(one: &Measure) -> Option<f64> {
    let latency = one.latency?.max(LATENCY_FLOOR).as_secs_f64();
    let failures = one.failures.clamp(0.0, 1.0);
    Some(latency * (1.0 + FAILURE_COST * failures) * (one.cpu.unwrap_or(0.0) / CPU_FREE).max(1.0))
}

/// How near its limit it is, and by what.
fn pressure(one: &Measure) -> (f64, &'static str) {
    let (cpu, memory) = (one.cpu.unwrap_or(0.0), one.memory.unwrap_or(0.0));
    if cpu > memory { (cpu, "CPU") } else { (memory, "memory") }
}

fn strain(one: &Measure) -> f64 {
    pressure(one).0
}

#[cfg(test)]
mod tests;
