//! Drives the decisions: samples the fleet, asks the pure parts, carries out what they say, and enters it in the journal.
//!
//! What is measured comes from the replicas' own cells, which the data path fills in, or an agent from its balancers' reports.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

use super::figures::{Board, Figures};
use super::journal::{Journal, Kind};
use super::outlier::{OutlierConfig, Outliers, Seen};
use super::scale::{Decision, Sample, ScaleConfig, Scaler};
use super::smooth::Smooth;
use super::weigh::{Measure, Reweigh, WeighConfig, Weigher};
use crate::metrics::LATENCY_BOUNDS;
use crate::replica::{Generation, Hostname, Replica};
use crate::runtime::{Measured, Usage};
use crate::supervisor::{MemberStatus, Order, Refusal, Status, SupervisorHandle};

/// From one sample to the next.
const SAMPLE: Duration = Duration::from_millis(100);
/// Samples from one look at replicas and their weights to the next.
const LOOK: u32 = 5;
/// How long the latencies are collected of which the 99th percentile is taken.
const LATENCIES: Duration = Duration::from_secs(2);
/// Time constants of what weights go by.
const SLOW: Duration = Duration::from_secs(5);
/// Orders that may be under way.
const ORDERS: usize = 64;

/// What is decided by the load; each with whether it is only to be told.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PilotConfig {
    /// N.
    pub scale: Option<(ScaleConfig, bool)>,
    /// Replicas that are out of their peers' range.
    pub outliers: Option<(OutlierConfig, bool)>,
    /// Weights and priorities.
    pub weigh: Option<WeighConfig>,
}

impl PilotConfig {
    /// Is there nothing to decide?
    pub fn is_off(&self) -> bool {
        self.scale.is_none() && self.outliers.is_none() && self.weigh.is_none()
    }
}

/// Gives responses by latency, cumulative, by the bounds of [`LATENCY_BOUNDS`].
pub type Latencies = Arc<dyn Fn() -> Vec<u64> + Send + Sync>;

/// Is anybody there to tell of the load? Without, nothing is decided: no load that is heard of is not no load.
pub type Sees = Arc<dyn Fn() -> bool + Send + Sync>;

/// What is known of one replica beside what its cells count.
struct Known {
    usage: Option<(Measured, Option<f64>)>,
    cpu: Smooth,
    counted: (u64, u64, Duration),
    latency: Smooth,
    failures: Smooth,
}

/// An order that has been carried out, or refused.
struct Settled {
    seq: u64,
    kind: Kind,
    result: Result<(), Refusal>,
}

/// See the module's documentation.
pub struct Pilot {
    supervisor: SupervisorHandle,
    journal: Journal,
    board: Board,
    latencies: Latencies,
    sees: Sees,
    scaler: Option<(Scaler, bool)>,
    outliers: Option<(Outliers, bool)>,
    weigher: Option<Weigher>,
    known: HashMap<Generation, Known>,
    /// When, how many each had answered, and how many requests were in flight.
    counted: Option<(Instant, HashMap<Generation, u64>, i64)>,
    histogram: VecDeque<(Instant, Vec<u64>)>,
    adding: bool,
    settled: (mpsc::Sender<Settled>, mpsc::Receiver<Settled>),
}

impl Pilot {
    /// One that decides what `config` says.
    pub fn new(
        config: &PilotConfig,
        supervisor: SupervisorHandle,
        journal: Journal,
        board: Board,
        latencies: Latencies,
        sees: Sees,
    ) -> Self {
        Self {
            supervisor,
            journal,
            board,
            latencies,
            sees,
            scaler: config.scale.map(|(config, dry_run)| (Scaler::new(config), dry_run)),
            outliers: config.outliers.map(|(config, dry_run)| (Outliers::new(config), dry_run)),
            weigher: config.weigh.map(Weigher::new),
            known: HashMap::new(),
            counted: None,
            histogram: VecDeque::new(),
            adding: false,
            settled: mpsc::channel(ORDERS),
        }
    }

    /// Decides for as long as the supervisor lives. `usage` is what the runtime measures.
    pub async fn run(mut self, usage: impl Stream<Item = Measured>) {
        let mut usage = std::pin::pin!(usage);
        let mut samples = tokio::time::interval(SAMPLE);
        samples.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut count = 0_u32;
        loop {
            tokio::select! {
                Some(measured) = usage.next() => self.measured(measured),
                Some(settled) = self.settled.1.recv() => self.settle(settled),
                _ = samples.tick() => {
                    let (status, now) = (self.supervisor.status(), Instant::now());
                    count = count.wrapping_add(1);
                    self.scale(&status, now);
                    if count.is_multiple_of(LOOK) {
                        self.look(&status, now);
                    }
                }
            }
        }
    }

    fn measured(&mut self, measured: Measured) {
        let known = self.known.entry(measured.generation).or_insert_with(Known::new);
        if let Some((before, _)) = known.usage {
            let passed = measured.at.saturating_duration_since(before.at);
            if passed >= Duration::from_millis(100) {
                let used = measured.usage.cpu.saturating_sub(before.usage.cpu);
                known.cpu.observe(used.as_secs_f64() / passed.as_secs_f64(), measured.at);
            }
        }
        known.usage = Some((measured, known.cpu.get()));
        self.board.set(measured.generation, Figures { cpu: known.cpu.get(), memory: measured.usage.memory });
    }

    /// CPU and memory as shares of what a replica may use; of one core if nothing is said.
    fn shares(&self, generation: Generation) -> (Option<f64>, Option<f64>) {
        let Some((Measured { usage, .. }, cores)) = self.known.get(&generation).and_then(|known| known.usage) else {
            return (None, None);
        };
        let Usage { memory, cpu_limit, memory_limit, .. } = usage;
        let memory = memory_limit.filter(|limit| *limit > 0).map(|limit| memory as f64 / limit as f64);
        (cores.map(|cores| cores / cpu_limit.unwrap_or(1.0)), memory)
    }

    // ---- N

    fn scale(&mut self, status: &Status, now: Instant) {
        let sample = self.sample(status, now);
        let Some((scaler, dry_run)) = &mut self.scaler else { return };
        let Some(Decision { from, to, reason }) = scaler.observe(&sample, now) else { return };
        let dry_run = *dry_run;
        let seq = self.journal.enter(Kind::Scale, format!("{from} -> {to} replicas"), reason.clone(), dry_run);
        if dry_run && self.journal.is_repeated(seq) {
            scaler.failed(now);
            return;
        }
        let would = if dry_run { "would be " } else { "" };
        tracing::info!(from, to, dry_run, "autoscale: N {would}{from} -> {to}: {reason}");
        if dry_run {
            scaler.failed(now);
            return;
        }
        let order = if to > from {
            self.adding = true;
            Order::Add { n: to - from, hostnames: Vec::new() }
        } else {
            Order::Remove { n: from - to, hostnames: cheapest(status, from - to) }
        };
        self.order(seq, Kind::Scale, order);
    }

    fn sample(&mut self, status: &Status, now: Instant) -> Sample {
        let replicas = || status.members.iter().filter_map(|member| member.replica.as_deref());
        let in_flight: u64 = replicas().map(|replica| u64::from(replica.in_flight())).sum();
        let done: HashMap<_, _> = replicas().map(|replica| (replica.generation, replica.served())).collect();
        let ready = status.members.iter().filter(|member| member.view.desired && member.is_ready()).count();
        let rate = match &self.counted {
            Some((at, before, held)) if now > *at => {
                // What has come is what has gone, and what is there now and was not before.
                let gone = |(generation, done): (&Generation, &u64)| {
                    done.saturating_sub(before.get(generation).copied().unwrap_or_default())
                };
                let came = done.iter().map(gone).sum::<u64>() as i64 + (in_flight as i64 - held);
                came.max(0) as f64 / (now - *at).as_secs_f64()
            }
            _ => 0.0,
        };
        self.counted = Some((now, done, in_flight as i64));
        let used: Vec<f64> = status
            .members
            .iter()
            .filter(|member| member.view.desired && member.is_ready())
            .filter_map(|member| self.shares(member.view.spec.generation).0)
            .collect();
        Sample {
            desired: status.listing.n,
            ready,
            in_flight,
            rate,
            p99: self.p99(now),
            cpu: (!used.is_empty()).then(|| used.iter().sum::<f64>() / used.len() as f64),
            busy: status.busy || self.adding || !(self.sees)(),
        }
    }

    /// The latency that 99 % of the latest requests stayed under.
    fn p99(&mut self, now: Instant) -> Option<Duration> {
        self.histogram.push_back((now, (self.latencies)()));
        while self.histogram.get(1).is_some_and(|(at, _)| now - *at >= LATENCIES) {
            self.histogram.pop_front();
        }
        let (first, last) = (&self.histogram.front()?.1, &self.histogram.back()?.1);
        percentile(first, last, 0.99)
    }

    // ---- single replicas

    fn look(&mut self, status: &Status, now: Instant) {
        let members: Vec<_> = status
            .members
            .iter()
            .filter(|member| member.view.desired)
            .filter_map(|member| Some((member, member.replica.clone()?)))
            .collect();
        let is_there = |generation| status.members.iter().any(|it| it.view.spec.generation == generation);
        self.known.retain(|generation, _| is_there(*generation));
        self.board.retain(is_there);
        for (_, replica) in &members {
            self.known.entry(replica.generation).or_insert_with(Known::new).count(replica, now);
        }
        self.eject(&members, now);
        self.weigh(&members, now);
    }

    fn eject(&mut self, members: &[(&MemberStatus, Arc<Replica>)], now: Instant) {
        let Some((outliers, dry_run)) = &mut self.outliers else { return };
        let dry_run = *dry_run;
        let seen: Vec<_> = members
            .iter()
            .map(|(member, replica)| Seen {
                generation: replica.generation,
                ready: member.is_ready(),
                served: replica.served(),
                failed: replica.failed(),
                latency_sum: replica.waited(),
            })
            .collect();
        for ejection in outliers.observe(&seen, now) {
            let Some((_, replica)) = members.iter().find(|(_, it)| it.generation == ejection.generation) else {
                continue;
            };
            let (name, reason) = (&replica.hostname, ejection.reason);
            let seq = self.journal.enter(Kind::Eject, format!("replace {name}"), reason.clone(), dry_run);
            if dry_run {
                tracing::info!(hostname = %name, dry_run, "outlier: {name} would be replaced: {reason}");
            } else {
                self.order(seq, Kind::Eject, Order::Eject { generation: ejection.generation, reason });
            }
        }
    }

    fn weigh(&mut self, members: &[(&MemberStatus, Arc<Replica>)], now: Instant) {
        if self.weigher.is_none() {
            return;
        }
        let measures: Vec<_> = members
            .iter()
            .map(|(member, replica)| {
                let (cpu, memory) = self.shares(replica.generation);
                let known = self.known.get(&replica.generation);
                let latency = known.and_then(|known| known.latency.get());
                Measure {
                    generation: replica.generation,
                    ready: member.is_ready(),
                    latency: latency.map(Duration::from_secs_f64),
                    failures: known.and_then(|known| known.failures.get()).unwrap_or(0.0),
                    cpu,
                    memory,
                    share: member.view.share,
                }
            })
            .collect();
        let reweighed = self.weigher.as_mut().map(|weigher| weigher.observe(&measures, now)).unwrap_or_default();
        for Reweigh { generation, share, reason } in reweighed {
            let Some((member, replica)) = members.iter().find(|(_, it)| it.generation == generation) else { continue };
            let old = member.view.share;
            let part = |what, old, new| if old == new { String::new() } else { format!(" {what} {old} -> {new}") };
            let weight = part("weight", old.weight, share.weight);
            let priority = part("priority", old.priority, share.priority);
            let decision = format!("{}:{weight}{priority}", replica.hostname);
            let seq = self.journal.enter(Kind::Weigh, decision, reason, false);
            let hostname = replica.hostname.clone();
            let (weight, priority) = (Some(share.weight), Some(share.priority));
            self.order(seq, Kind::Weigh, Order::Set { hostname, weight, priority });
        }
    }

    // ---- orders

    fn order(&self, seq: u64, kind: Kind, order: Order) {
        let (supervisor, settled) = (self.supervisor.clone(), self.settled.0.clone());
        tokio::spawn(async move {
            let result = supervisor.order(order).await.map(drop);
            let _ = settled.send(Settled { seq, kind, result }).await;
        });
    }

    fn settle(&mut self, Settled { seq, kind, result }: Settled) {
        if kind == Kind::Scale {
            self.adding = false;
        }
        if let Err(refusal) = &result {
            tracing::warn!("a decision was not carried out: {refusal}");
            if let (Kind::Scale, Some((scaler, _))) = (kind, &mut self.scaler) {
                scaler.failed(Instant::now());
            }
        }
        self.journal.settle(seq, result.map_or_else(|refusal| format!("refused: {refusal}"), |()| "done".into()));
    }
}

impl Known {
    fn new() -> Self {
        Self {
            usage: None,
            cpu: Smooth::new(SLOW),
            counted: (0, 0, Duration::ZERO),
            latency: Smooth::new(SLOW),
            failures: Smooth::new(SLOW),
        }
    }

    /// Takes in what has happened since the last look.
    fn count(&mut self, replica: &Replica, now: Instant) {
        let counted = (replica.served(), replica.failed(), replica.waited());
        let before = std::mem::replace(&mut self.counted, counted);
        // Counters that go backwards belong to a balancer that was started anew.
        let (Some(served), Some(failed), Some(waited)) =
            (counted.0.checked_sub(before.0), counted.1.checked_sub(before.1), counted.2.checked_sub(before.2))
        else {
            return;
        };
        if served > 0 {
            self.latency.observe(waited.as_secs_f64() / served as f64, now);
        }
        if served + failed > 0 {
            self.failures.observe(failed as f64 / (served + failed) as f64, now);
        }
    }
}

/// Those that are the cheapest to lose: not ready, of the lowest priority, with the fewest requests, the youngest.
fn cheapest(status: &Status, n: usize) -> Vec<Hostname> {
    let mut members: Vec<_> = status.members.iter().filter(|member| member.view.desired).collect();
    members.sort_by_key(|member| {
        let in_flight = member.replica.as_ref().map_or(0, |replica| replica.in_flight());
        (member.is_ready(), member.view.share.priority, in_flight, std::cmp::Reverse(member.view.order))
    });
    members.into_iter().take(n).map(|member| member.view.spec.hostname.clone()).collect()
}

/// The latency under which this share of the responses stayed that came between two cumulative counts: within its bucket it
/// is taken to rise evenly, as Prometheus' `histogram_quantile` does.
fn percentile(before: &[u64], after: &[u64], share: f64) -> Option<Duration> {
    let count = |at: usize| {
        let before = before.get(at).copied().unwrap_or_default();
        after.get(at).copied().unwrap_or_default().saturating_sub(before)
    };
    let total = count(LATENCY_BOUNDS.len());
    if total == 0 {
        return None;
    }
    let wanted = share * total as f64;
    let at = (0..LATENCY_BOUNDS.len()).find(|at| count(*at) as f64 >= wanted);
    let Some(at) = at else { return LATENCY_BOUNDS.last().map(|bound| Duration::from_secs_f64(*bound)) };
    let (low, under) = at.checked_sub(1).map_or((0.0, 0), |below| (LATENCY_BOUNDS[below], count(below)));
    let within = count(at) - under;
    let part = if within == 0 { 1.0 } else { (wanted - under as f64) / within as f64 };
    Some(Duration::from_secs_f64(low + (LATENCY_BOUNDS[at] - low) * part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_lies_within_its_bucket() {
        let bounds = LATENCY_BOUNDS.len();
        let mut before = vec![0; bounds + 1];
        assert_eq!(percentile(&before, &before, 0.99), None);
        // 90 up to 1 ms, 10 more up to 10 ms.
        let at = |seconds: f64| LATENCY_BOUNDS.iter().position(|bound| *bound >= seconds).unwrap();
        let mut after = before.clone();
        after[at(0.001)..].iter_mut().for_each(|count| *count += 90);
        after[at(0.01)..].iter_mut().for_each(|count| *count += 10);
        let p99 = percentile(&before, &after, 0.99).unwrap();
        assert!((0.009..=0.010).contains(&p99.as_secs_f64()), "{p99:?}");
        assert!(percentile(&before, &after, 0.5).unwrap() <= Duration::from_millis(1));
        // What was there before does not count.
        before.clone_from(&after);
        after[bounds] += 5;
        assert_eq!(percentile(&before, &after, 0.99), Some(Duration::from_secs(30)), "over all bounds");
    }
}
