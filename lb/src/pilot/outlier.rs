//! Which replica is so much worse than its peers that it is to be replaced. Pure: counters and time come in.
//!
//! Compares what each did in a window with the median of the *other* ready ones, so that what ails all is nobody's fault. A
//! replica that is worse in several windows in a row is ejected. Does *not* look for replicas that are dead: probes do.
//! After the outlier detection of Envoy: its strikes, and its bound on how many may be out at once.
//!
//! - **Latency** needs two peers to compare with, so three ready replicas: of two that differ, one is not the odd one.
//! - **Failures** need one: who fails while its peer does not is at fault. Two replicas have an ejection only if `max_share`
//!   allows for it, which the default does not.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::{median, percent, time};
use crate::replica::Generation;

/// What counts as an outlier, and how many may go.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OutlierConfig {
    /// So many times its peers' latency is too slow. Default 3.
    pub latency_factor: f64,
    /// Up to this latency nobody is too slow. Default 20 ms.
    pub latency_floor: Duration,
    /// To fail this share of the requests more than its peers is too much. Default 0.2.
    pub failure_share: f64,
    /// Fewer requests in a window say nothing about a replica. Default 20.
    pub min_requests: u64,
    /// How long is counted before it is compared. Default 2 s.
    pub window: Duration,
    /// So many windows in a row make an outlier; windows with too few requests do not count. Default 3.
    pub strikes: u32,
    /// Share of the fleet that may be out at once, not ready or ejected; one in any case where three are ready. Default 0.34.
    pub max_share: f64,
    /// For so long an ejection counts as still out, and a strike as recent. Default 30 s.
    pub rest: Duration,
}

impl Default for OutlierConfig {
    fn default() -> Self {
        Self {
            latency_factor: 3.0,
            latency_floor: Duration::from_millis(20),
            failure_share: 0.2,
            min_requests: 20,
            window: Duration::from_secs(2),
            strikes: 3,
            max_share: 0.34,
            rest: Duration::from_secs(30),
        }
    }
}

/// A replica's counters at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Which replica.
    pub generation: Generation,
    /// Is it in rotation?
    pub ready: bool,
    /// Requests that it has answered, ever.
    pub served: u64,
    /// Tries on it that have failed, ever.
    pub failed: u64,
    /// The latencies of all that it has answered, together.
    pub latency_sum: Duration,
}

/// A replica that is to be replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ejection {
    /// Which replica.
    pub generation: Generation,
    /// Why: `answers after 240 ms, its peers after 12 ms`.
    pub reason: String,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Outliers {
    config: OutlierConfig,
    /// When the window began, and the counters then.
    begin: Option<(Instant, BTreeMap<Generation, Seen>)>,
    strikes: BTreeMap<Generation, (u32, Instant)>,
    ejected: Vec<(Generation, Instant)>,
}

/// What a replica did in a window.
#[derive(Debug, Clone, Copy)]
struct Did {
    generation: Generation,
    /// Seconds; `None` if it has answered too few.
    latency: Option<f64>,
    /// Share of its requests.
    failures: f64,
}

/// How bad an outlier is, 1 being just too bad, and why it is one.
type Verdict = (f64, String);

impl Outliers {
    /// Nothing is known, so nobody is ejected before `strikes` windows.
    pub fn new(config: OutlierConfig) -> Self {
        Self { config, begin: None, strikes: BTreeMap::new(), ejected: Vec::new() }
    }

    /// Takes in the counters of all replicas, ready or not. Says who is to be replaced, the worst first; that is each time at
    /// the end of a window, however often it is called.
    pub fn observe(&mut self, seen: &[Seen], now: Instant) -> Vec<Ejection> {
        let counters = || seen.iter().map(|one| (one.generation, *one)).collect();
        let Some((begin, before)) = &self.begin else {
            self.begin = Some((now, counters()));
            return Vec::new();
        };
        if now.saturating_duration_since(*begin) < self.config.window {
            return Vec::new();
        }
        let ready = seen.iter().filter(|one| one.ready);
        let did: Vec<Did> = ready.filter_map(|one| self.did(before.get(&one.generation)?, one)).collect();
        // Counters that went back are those of another balancer: what they say about strikes is over, too.
        let reset = |one: &Seen| before.get(&one.generation).is_some_and(|old| went_back(old, one));
        let known: Vec<_> = seen.iter().filter(|one| !reset(one)).map(|one| one.generation).collect();
        let rest = self.config.rest;
        let recent = |at: Instant| now.saturating_duration_since(at) < rest;
        self.strikes.retain(|generation, (_, at)| known.contains(generation) && recent(*at));
        self.ejected.retain(|(_, at)| recent(*at));
        self.begin = Some((now, counters()));

        let mut worst = Vec::new();
        for one in &did {
            let Some((badness, reason)) = self.judge(one, &did) else {
                self.strikes.remove(&one.generation);
                continue;
            };
            let (strikes, at) = self.strikes.entry(one.generation).or_insert((0, now));
            (*strikes, *at) = (strikes.saturating_add(1), now);
            if *strikes >= self.config.strikes && !self.is_ejected(one.generation) {
                worst.push((badness, Ejection { generation: one.generation, reason }));
            }
        }
        worst.sort_by(|(one, _), (other, _)| other.total_cmp(one));
        let ejections: Vec<_> = worst.into_iter().map(|(_, ejection)| ejection).take(self.allowed(seen)).collect();
        for ejection in &ejections {
            self.strikes.remove(&ejection.generation);
            self.ejected.push((ejection.generation, now));
        }
        ejections
    }

    fn did(&self, before: &Seen, after: &Seen) -> Option<Did> {
        if went_back(before, after) || self.is_ejected(after.generation) {
            return None;
        }
        let (served, failed) = (after.served - before.served, after.failed - before.failed);
        let requests = served.saturating_add(failed);
        if requests < self.config.min_requests.max(1) {
            return None;
        }
        let latency = (after.latency_sum - before.latency_sum).as_secs_f64() / served.max(1) as f64;
        let enough = served >= self.config.min_requests.max(1);
        let failures = failed as f64 / requests as f64;
        Some(Did { generation: after.generation, latency: enough.then_some(latency), failures })
    }

    fn is_ejected(&self, generation: Generation) -> bool {
        self.ejected.iter().any(|(ejected, _)| *ejected == generation)
    }

    /// Was it an outlier in this window?
    fn judge(&self, one: &Did, all: &[Did]) -> Option<Verdict> {
        let peers = || all.iter().filter(|peer| peer.generation != one.generation);
        let failing = median(peers().map(|peer| peer.failures)).and_then(|usual| {
            let excess = one.failures - usual;
            let reason = || format!("fails {} of its requests, its peers {}", percent(one.failures), percent(usual));
            (excess > self.config.failure_share).then(|| (excess / self.config.failure_share, reason()))
        });
        let latencies: Vec<f64> = peers().filter_map(|peer| peer.latency).collect();
        let slow = (latencies.len() >= 2).then(|| median(latencies)).flatten().zip(one.latency).and_then(
            |(usual, latency)| {
                let limit = (self.config.latency_factor * usual).max(self.config.latency_floor.as_secs_f64());
                let [own, theirs] = [latency, usual].map(|seconds| time(Duration::from_secs_f64(seconds)));
                (latency > limit).then(|| (latency / limit, format!("answers after {own}, its peers after {theirs}")))
            },
        );
        [failing, slow].into_iter().flatten().max_by(|(one, _), (other, _)| one.total_cmp(other))
    }

    /// How many may go now.
    fn allowed(&self, seen: &[Seen]) -> usize {
        let is_out = |one: &&Seen| !one.ready || self.is_ejected(one.generation);
        let out = seen.iter().filter(is_out).count();
        let ready = seen.len() - out;
        // Those that have left; who came instead is counted among the rest.
        let left = self.ejected.iter().filter(|(ejected, _)| seen.iter().all(|one| one.generation != *ejected)).count();
        let share = (self.config.max_share * seen.len() as f64 + 1e-9).floor().max(0.0) as usize;
        let most = share.max(usize::from(ready >= 3));
        most.saturating_sub(out + left).min(ready.saturating_sub(1))
    }
}

fn went_back(before: &Seen, after: &Seen) -> bool {
    after.served < before.served || after.failed < before.failed || after.latency_sum < before.latency_sum
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A fleet whose replicas answer 100 requests a window, each after its latency, and fail some on top.
    struct Bench {
        outliers: Outliers,
        now: Instant,
        seen: Vec<Seen>,
        /// Milliseconds, and failures in a window.
        nature: Vec<(u64, u64)>,
        requests: u64,
    }

    impl Bench {
        fn new(config: OutlierConfig, nature: &[(u64, u64)]) -> Self {
            let seen = (1..).zip(nature).map(|(number, _)| fresh(number)).collect();
            let (outliers, now) = (Outliers::new(config), Instant::now());
            let mut bench = Self { outliers, now, seen, nature: nature.to_vec(), requests: 100 };
            assert!(bench.outliers.observe(&bench.seen, now).is_empty());
            bench.seen.reverse();
            bench.nature.reverse();
            bench
        }

        fn window(&mut self) -> Vec<Ejection> {
            for (seen, (millis, failed)) in self.seen.iter_mut().zip(&self.nature) {
                seen.served += self.requests;
                seen.failed += failed;
                seen.latency_sum += Duration::from_millis(*millis) * u32::try_from(self.requests).unwrap();
            }
            self.now += 2 * SECOND;
            self.outliers.observe(&self.seen, self.now)
        }

        fn windows(&mut self, count: u32) -> Vec<(u32, u64, String)> {
            let mut all = Vec::new();
            for window in 1..=count {
                all.extend(self.window().into_iter().map(|one| (window, one.generation.0, one.reason)));
            }
            all
        }
    }

    fn fresh(number: u64) -> Seen {
        Seen { generation: Generation(number), ready: true, served: 0, failed: 0, latency_sum: Duration::ZERO }
    }

    #[test]
    fn who_is_three_times_slower_than_its_peers_goes_after_three_windows() {
        let mut bench = Bench::new(OutlierConfig::default(), &[(12, 0), (240, 0), (12, 0), (13, 0)]);
        let reason = "answers after 240 ms, its peers after 12 ms".to_owned();
        assert_eq!(bench.windows(10), [(3, 2, reason)], "and only once within 30 s");
        for nature in [[(30, 0), (89, 0), (30, 0)], [(2, 0), (19, 0), (2, 0)], [(300, 0), (310, 0), (290, 0)]] {
            assert_eq!(Bench::new(OutlierConfig::default(), &nature).windows(10), [], "{nature:?}");
        }
    }

    #[test]
    fn who_fails_while_its_peers_do_not_goes() {
        let mut bench = Bench::new(OutlierConfig::default(), &[(12, 1), (12, 100), (12, 1)]);
        let reason = "fails 50 % of its requests, its peers 1 %".to_owned();
        assert_eq!(bench.windows(10), [(3, 2, reason)]);
        let all_fail = [(12, 90), (12, 100), (12, 80)];
        assert_eq!(Bench::new(OutlierConfig::default(), &all_fail).windows(10), []);
        // Of two, one may go if half of the fleet may be out, but never for its latency.
        let two = [(12, 0), (12, 100)];
        assert_eq!(Bench::new(OutlierConfig::default(), &two).windows(10), []);
        let half = OutlierConfig { max_share: 0.5, ..OutlierConfig::default() };
        assert_eq!(Bench::new(half, &two).windows(10).len(), 1);
        assert_eq!(Bench::new(half, &[(12, 0), (900, 0)]).windows(10), []);
    }

    #[test]
    fn a_good_window_between_begins_anew_and_one_with_too_few_requests_does_not() {
        let mut bench = Bench::new(OutlierConfig::default(), &[(240, 0), (12, 0), (12, 0)]);
        assert_eq!(bench.windows(2), []);
        bench.nature[2].0 = 12;
        assert_eq!(bench.windows(1), []);
        bench.nature[2].0 = 240;
        assert_eq!(bench.windows(2), []);
        bench.requests = 19;
        assert_eq!(bench.windows(4), []);
        bench.requests = 100;
        assert_eq!(bench.windows(1).len(), 1);
    }

    #[test]
    fn no_more_go_than_the_share_allows_the_worst_first_and_never_the_last() {
        let nature = [(12, 0), (12, 0), (12, 0), (12, 0), (240, 0), (300, 0), (360, 0)];
        let mut bench = Bench::new(OutlierConfig::default(), &nature);
        let ejected: Vec<_> = bench.windows(10).into_iter().map(|(window, number, _)| (window, number)).collect();
        assert_eq!(ejected, [(3, 7), (3, 6)], "a third of 7");
        // They have been replaced, and 30 s have passed.
        bench.nature[0].0 = 12;
        bench.nature[1].0 = 12;
        assert_eq!(bench.windows(8).into_iter().map(|(_, number, _)| number).collect::<Vec<_>>(), [5]);

        let mut bench = Bench::new(OutlierConfig::default(), &[(240, 0), (12, 0), (12, 0), (12, 0)]);
        bench.seen[0].ready = false;
        assert_eq!(bench.windows(10), [], "one is out already");
        // The first is slower than the others, and they fail more than it does.
        let all = OutlierConfig { max_share: 1.0, ..OutlierConfig::default() };
        assert_eq!(Bench::new(all, &[(240, 0), (12, 100), (12, 100)]).windows(20).len(), 2);
    }

    #[test]
    fn an_ejected_one_counts_as_out_after_it_has_left() {
        let mut bench = Bench::new(OutlierConfig::default(), &[(240, 0), (12, 0), (12, 0)]);
        assert_eq!(bench.windows(3).len(), 1);
        bench.seen[2] = fresh(9);
        (bench.nature[2].0, bench.nature[1].0) = (12, 300);
        let next = bench.windows(20);
        let (window, number, _) = &next[0];
        assert_eq!((*window, *number), (15, 2), "30 s after the first");
    }

    #[test]
    fn counters_that_go_back_begin_anew() {
        let mut bench = Bench::new(OutlierConfig::default(), &[(240, 0), (12, 0), (12, 0)]);
        assert_eq!(bench.windows(2), []);
        for seen in &mut bench.seen {
            *seen = fresh(seen.generation.0);
        }
        assert_eq!(bench.windows(3), [], "the window of the reset, then two strikes");
        assert_eq!(bench.windows(1).len(), 1);
    }

    #[test]
    fn nothing_is_said_within_a_window() {
        let mut bench =
            Bench::new(OutlierConfig { strikes: 1, ..OutlierConfig::default() }, &[(240, 0), (12, 0), (12, 0)]);
        for seen in &mut bench.seen {
            seen.served += 50;
            seen.latency_sum += if seen.generation.0 == 1 { 12 * SECOND } else { SECOND };
        }
        bench.now += SECOND;
        assert_eq!(bench.outliers.observe(&bench.seen, bench.now), []);
        bench.now += SECOND;
        assert_eq!(bench.outliers.observe(&bench.seen, bench.now).len(), 1);
    }
}
