//! What the runs have found, as it is written to `slow.json`: every request, and what follows from them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::bench::machine::Machine;

/// The last of them is the slow one.
pub(super) const REPLICAS: u8 = 4;
/// Parts of a second that the series has.
pub(super) const PARTS_A_SECOND: u32 = 2;
/// The policies of the goal: the one that must evade the slow replica, and the one that does not.
pub(super) const EVADES: &str = "peak-ewma";
pub(super) const REFERENCE: &str = "round-robin";
/// The goal: p99 of the first is below this, in ms, where that of the other is above.
pub(super) const GOAL_MS: f64 = 25.0;
pub(super) const WHERE_MS: f64 = 200.0;

/// When the last replica is slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Phase {
    /// All the time.
    Steady,
    /// In the middle third.
    Midway,
}

impl Phase {
    pub(super) const ALL: [Self; 2] = [Self::Steady, Self::Midway];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Steady => "slow all the time",
            Self::Midway => "slow midway",
        }
    }
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Settings {
    pub(super) policies: Vec<String>,
    /// Requests a second.
    pub(super) rate: u32,
    /// Of a run, before it is rounded up to thirds of whole seconds.
    pub(super) seconds: u32,
    /// Seconds before a run, not counted.
    pub(super) warm_up: u32,
    pub(super) fast_ms: f64,
    pub(super) slow_ms: f64,
    pub(super) connections: usize,
}

impl Settings {
    pub(super) fn fast(&self) -> Duration {
        Duration::from_secs_f64(self.fast_ms / 1e3)
    }

    pub(super) fn slow(&self) -> Duration {
        Duration::from_secs_f64(self.slow_ms / 1e3)
    }

    /// Of a run in which the replica changes.
    pub(super) fn third(&self) -> Duration {
        Duration::from_secs(u64::from(self.seconds.div_ceil(3)))
    }

    /// Those of a run.
    pub(super) fn requests(&self, phase: Phase) -> u32 {
        self.rate
            * match phase {
                Phase::Steady => self.seconds,
                Phase::Midway => self.seconds.div_ceil(3) * 3,
            }
    }
}

/// What came of the requests of one run, in the order in which they were due.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Outcome {
    /// Failures by what went wrong.
    pub(super) failures: BTreeMap<String, u64>,
    /// How many requests each replica has counted.
    pub(super) served: Vec<u64>,
    /// The number of the replica that answered; 0 where the request failed.
    pub(super) answered_by: Vec<u8>,
    /// From when a request was due to its answer's last byte; 0 where it failed.
    pub(super) took_us: Vec<u32>,
}

impl Outcome {
    /// That of so many requests, of which none is done.
    pub(super) fn new(requests: u32) -> Self {
        let requests = requests as usize;
        Self { answered_by: vec![0; requests], took_us: vec![0; requests], ..Self::default() }
    }

    pub(super) fn answered(&self) -> u64 {
        self.answered_by.iter().filter(|number| **number > 0).count() as u64
    }

    /// What became of the requests with these numbers.
    fn part(&self, numbers: Range<usize>) -> Part {
        let end = numbers.end.min(self.took_us.len());
        let numbers = numbers.start.min(end)..end;
        let by = &self.answered_by[numbers.clone()];
        let answered: Vec<u8> = by.iter().copied().filter(|number| *number > 0).collect();
        let slow = answered.iter().filter(|number| **number == REPLICAS).count();
        Part {
            requests: by.len() as u64,
            failed: (by.len() - answered.len()) as u64,
            latency: Latency::of(&self.sorted(numbers)),
            slow_share: (!answered.is_empty()).then(|| slow as f64 / answered.len() as f64),
        }
    }

    /// How long those took that were answered, shortest first.
    fn sorted(&self, numbers: Range<usize>) -> Vec<u32> {
        let both = self.took_us[numbers.clone()].iter().zip(&self.answered_by[numbers]);
        let mut took: Vec<u32> = both.filter(|(_, by)| **by > 0).map(|(took, _)| *took).collect();
        took.sort_unstable();
        took
    }
}

/// Some requests of a run that were due one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Part {
    pub(super) requests: u64,
    pub(super) failed: u64,
    /// Of those that were answered; `None` without any.
    pub(super) latency: Option<Latency>,
    /// The slow replica's part of the answers, 0 to 1.
    pub(super) slow_share: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Latency {
    pub(super) p50_ms: f64,
    pub(super) p90_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) max_ms: f64,
}

impl Latency {
    fn of(sorted: &[u32]) -> Option<Self> {
        let of = |part| quantile(sorted, part);
        Some(Self { p50_ms: of(0.5)?, p90_ms: of(0.9)?, p99_ms: of(0.99)?, max_ms: of(1.0)? })
    }
}

/// The least of these µs that so great a part of them does not exceed (nearest rank), in ms; `None` for none.
fn quantile(sorted: &[u32], part: f64) -> Option<f64> {
    // 0.99 × 100 is a little more than 99 in binary.
    let rank = (part * sorted.len() as f64 - 1e-6).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).map(|micros| f64::from(*micros) / 1e3)
}

/// What became of a run's requests by half seconds in which they were due.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Series {
    requests: Vec<u64>,
    failed: Vec<u64>,
    /// `None` where none was answered, as is the next.
    p99_ms: Vec<Option<f64>>,
    slow_share: Vec<Option<f64>>,
}

impl Series {
    fn of(parts: &[Part]) -> Self {
        Self {
            requests: parts.iter().map(|part| part.requests).collect(),
            failed: parts.iter().map(|part| part.failed).collect(),
            p99_ms: parts.iter().map(|part| Some(part.latency?.p99_ms)).collect(),
            slow_share: parts.iter().map(|part| part.slow_share).collect(),
        }
    }
}

/// One policy in one phase.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Run {
    pub(super) policy: String,
    pub(super) phase: Phase,
    /// All of it: what the table has. Like the next, worked out anew from the requests whenever they are read.
    whole: Option<Part>,
    by_half_second: Series,
    #[serde(flatten)]
    pub(super) outcome: Outcome,
}

impl Run {
    pub(super) fn new(policy: &str, phase: Phase, outcome: Outcome) -> Self {
        Self { policy: policy.to_owned(), phase, whole: None, by_half_second: Series::default(), outcome }
    }

    pub(super) fn whole(&self) -> Part {
        self.outcome.part(0..self.outcome.took_us.len())
    }

    /// The thirds, of which the middle one is the slow one.
    pub(super) fn thirds(&self) -> [Part; 3] {
        let third = self.outcome.took_us.len() / 3;
        [0, 1, 2].map(|at| self.outcome.part(third * at..third * (at + 1)))
    }

    /// By half seconds, at so many requests a second.
    pub(super) fn series(&self, rate: u32) -> Vec<Part> {
        let all = self.outcome.took_us.len() as u64;
        // Requests that were due before this half second.
        let before = |half: u64| (half * u64::from(rate)).div_ceil(u64::from(PARTS_A_SECOND)).min(all) as usize;
        let halves = (all * u64::from(PARTS_A_SECOND)).div_ceil(u64::from(rate));
        (0..halves).map(|half| self.outcome.part(before(half)..before(half + 1))).collect()
    }

    /// ms that these parts of the requests took at most.
    pub(super) fn quantiles(&self, parts: &[f64]) -> Option<Vec<f64>> {
        let sorted = self.outcome.sorted(0..self.outcome.took_us.len());
        parts.iter().map(|part| quantile(&sorted, *part)).collect()
    }
}

/// The goal, judged.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Verdict {
    /// p99 of the policy that must evade the slow replica.
    pub(super) evades_ms: f64,
    /// p99 of the one that does not.
    pub(super) reference_ms: f64,
    pub(super) holds: bool,
}

/// Everything.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Report {
    pub(super) machine: Machine,
    pub(super) settings: Settings,
    /// `None` if one of the two policies was not measured.
    pub(super) verdict: Option<Verdict>,
    pub(super) runs: Vec<Run>,
}

impl Report {
    /// Is it one that could have been measured? It may come from a file.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.settings.rate == 0 {
            return Err("rate is 0; at least 1 is needed".into());
        }
        let mut lengths = self.runs.iter().map(|run| (run.outcome.took_us.len(), run.outcome.answered_by.len()));
        match lengths.find(|(took, by)| took != by) {
            Some((took, by)) => {
                Err(format!("a run has {took} took_us and {by} answered_by; both are needed by request"))
            }
            None => Ok(()),
        }
    }

    /// Works out what follows from the requests.
    pub(super) fn judge(&mut self) {
        for run in &mut self.runs {
            run.whole = Some(run.whole());
            run.by_half_second = Series::of(&run.series(self.settings.rate));
        }
        let p99 = |policy| Some(self.run(Phase::Steady, policy)?.whole().latency?.p99_ms);
        self.verdict = p99(EVADES).zip(p99(REFERENCE)).map(|(evades_ms, reference_ms)| Verdict {
            evades_ms,
            reference_ms,
            holds: evades_ms < GOAL_MS && reference_ms > WHERE_MS,
        });
    }

    /// The runs of a phase, in the order in which they were made.
    pub(super) fn of(&self, phase: Phase) -> impl Iterator<Item = &Run> {
        self.runs.iter().filter(move |run| run.phase == phase)
    }

    pub(super) fn run(&self, phase: Phase, policy: &str) -> Option<&Run> {
        self.of(phase).find(|run| run.policy == policy)
    }

    /// Failures of all runs, by run and by what went wrong.
    pub(super) fn failures(&self) -> Vec<(String, u64)> {
        let of_run = |run: &'_ Run| {
            let name = format!("{}, {}", run.policy, run.phase.name());
            let failures = run.outcome.failures.iter().filter(|(_, count)| **count > 0);
            failures.map(|(what, count)| (format!("{name}: {what}"), *count)).collect::<Vec<_>>()
        };
        self.runs.iter().flat_map(of_run).collect()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    impl Settings {
        /// Ten requests a second for six seconds.
        pub(in crate::slow) fn example() -> Self {
            Self {
                policies: vec![REFERENCE.into(), EVADES.into()],
                rate: 10,
                seconds: 6,
                warm_up: 1,
                fast_ms: 2.0,
                slow_ms: 200.0,
                connections: 128,
            }
        }
    }

    /// Replicas in turn; the slow one gets every fourth request where `gets` says so, else the first one does.
    fn outcome(slow: impl Fn(usize) -> bool, gets: impl Fn(usize) -> bool) -> Outcome {
        let mut outcome = Outcome::new(60);
        for at in 0..60 {
            let by = (at % 4 + 1) as u8;
            let by = if by == REPLICAS && !gets(at) { 1 } else { by };
            outcome.answered_by[at] = by;
            outcome.took_us[at] = if by == REPLICAS && slow(at) { 202_000 } else { 3000 };
        }
        outcome.served = (1..=REPLICAS)
            .map(|number| outcome.answered_by.iter().filter(|by| **by == number).count() as u64)
            .collect();
        outcome
    }

    /// Round robin gives the slow replica its fourth all the time, the other policy only while it is fast.
    pub(in crate::slow) fn report() -> Report {
        let middle = |at: usize| (20..40).contains(&at);
        let runs = vec![
            Run::new(REFERENCE, Phase::Steady, outcome(|_| true, |_| true)),
            Run::new(EVADES, Phase::Steady, outcome(|_| true, |_| false)),
            Run::new(REFERENCE, Phase::Midway, outcome(middle, |_| true)),
            Run::new(EVADES, Phase::Midway, outcome(middle, |at| !middle(at))),
        ];
        Report { machine: Machine::default(), settings: Settings::example(), verdict: None, runs }
    }

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let sorted: Vec<u32> = (1..=100).map(|number| number * 1000).collect();
        let of = |part| quantile(&sorted, part).unwrap();
        assert_eq!([0.0, 0.5, 0.9, 0.99, 0.999, 1.0].map(of), [1.0, 50.0, 90.0, 99.0, 100.0, 100.0]);
        assert_eq!(quantile(&[7000], 0.5), Some(7.0));
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn a_failed_request_counts_as_failed_and_in_nothing_else() {
        let mut outcome = outcome(|_| true, |_| true);
        for at in [3, 7] {
            (outcome.answered_by[at], outcome.took_us[at]) = (0, 0);
        }
        let part = outcome.part(0..8);
        assert_eq!((part.requests, part.failed, part.slow_share), (8, 2, Some(0.0)));
        assert_eq!(part.latency.unwrap().max_ms, 3.0);
        let lost = Outcome::new(5).part(0..5);
        assert_eq!(lost, Part { requests: 5, failed: 5, latency: None, slow_share: None });
    }

    #[test]
    fn the_series_has_every_request_once() {
        let run = &report().runs[2];
        let series = run.series(10);
        assert_eq!((series.len(), series.iter().map(|part| part.requests).sum::<u64>()), (12, 60));
        let max = |part: &Part| part.latency.unwrap().max_ms;
        assert_eq!([3, 4, 7, 8].map(|half| max(&series[half])), [3.0, 202.0, 202.0, 3.0]);
        // Rates that half seconds don't divide: 20 s of three requests are 40 half seconds with one or two.
        let odd = run.series(3);
        assert_eq!((odd.len(), odd.iter().map(|part| part.requests).sum::<u64>()), (40, 60));
        // Due after 0, 0.33, and 0.67 s.
        assert!(odd.chunks(2).all(|second| (second[0].requests, second[1].requests) == (2, 1)));
    }

    #[test]
    fn thirds_and_shares_are_those_of_the_answers() {
        let report = report();
        let shares = |run: &Run| run.thirds().map(|third| third.slow_share.unwrap());
        assert_eq!(shares(&report.runs[2]), [0.25, 0.25, 0.25]);
        assert_eq!(shares(&report.runs[3]), [0.25, 0.0, 0.25]);
        assert_eq!(report.runs[0].outcome.served, [15, 15, 15, 15]);
    }

    #[test]
    fn the_goal_is_missed_also_if_nothing_was_slow() {
        let judged = |slow_us: u32, evades_us: u32| {
            let mut report = report();
            report.runs[0].outcome.took_us.iter_mut().filter(|took| **took > 3000).for_each(|took| *took = slow_us);
            report.runs[1].outcome.took_us.fill(evades_us);
            report.judge();
            report.verdict.unwrap().holds
        };
        assert!(judged(201_000, 24_999));
        assert!(!judged(201_000, 25_000) && !judged(200_000, 24_999));
        let mut report = report();
        report.runs.remove(1);
        report.judge();
        assert_eq!(report.verdict, None);
    }
}
