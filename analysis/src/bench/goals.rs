//! The goals, and whether a run has met them.
//!
//! Each ratio is one of the same round, in which both had their turn within seconds of each other; the median of the
//! rounds is judged.

use serde::{Deserialize, Serialize};

use super::relay::megabytes;
use super::report::{Report, Sample, Spread};
use super::workload::{MEMBERS, PACED, PICK, RELAY_IDLE, UDP};

/// What a value is compared with.
#[derive(Debug, Clone, Copy)]
enum Versus {
    Nginx,
    Haproxy,
    Relay,
    /// The better of nginx and HAProxy, whichever that is in a round.
    Better,
}

/// `lb`'s CPU time by request, at most so many times another's.
const CPU: [(&str, Versus, f64); 18] = [
    ("54b-64", Versus::Nginx, 0.85),
    ("54b-64", Versus::Haproxy, 0.90),
    ("54b-64", Versus::Relay, 1.15),
    ("54b-512", Versus::Nginx, 0.85),
    ("54b-512", Versus::Haproxy, 0.90),
    ("54b-512", Versus::Relay, 1.15),
    ("10k-64", Versus::Nginx, 0.85),
    ("10k-64", Versus::Haproxy, 0.90),
    ("1m-16", Versus::Nginx, 0.45),
    ("1m-16", Versus::Haproxy, 0.90),
    ("new-64", Versus::Better, 1.00),
    ("post-64", Versus::Better, 0.90),
    (MEMBERS, Versus::Nginx, 1.05),
    ("relay-54b-64", Versus::Better, 1.00),
    ("relay-1m-16", Versus::Better, 0.90),
    ("relay-new-64", Versus::Better, 1.00),
    ("udp-echo", Versus::Nginx, 1.00),
    ("udp-flow", Versus::Nginx, 1.00),
];
/// `lb`'s datagrams a second, at least so many times those of nginx.
const DATAGRAMS: f64 = 1.5;
/// Of all connections and flows together, in millions of bytes.
const RELAY_IDLE_MB: f64 = 60.0;
const PACED_P99: f64 = 1.2;
const IDLE_KIB: f64 = 12.0;
const BARE_PICK_NS: f64 = 10.0;
const BOUNDED_PICK_NS: f64 = 50.0;

/// One goal, judged.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Verdict {
    pub(crate) row: String,
    pub(crate) goal: String,
    pub(crate) limit: f64,
    /// The limit is the least, not the most.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) at_least: bool,
    pub(crate) measured: Spread,
    pub(crate) holds: bool,
}

/// All goals of which the report has the values.
pub(crate) fn judge(report: &Report) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    let mut add = |row: &str, goal: String, limit: f64, values: Vec<f64>, strictly: bool| {
        if let Some(measured) = Spread::of(values) {
            let holds = measured.median < limit || (!strictly && measured.median <= limit);
            verdicts.push(Verdict { row: row.into(), goal, limit, at_least: false, measured, holds });
        }
    };
    for (row, versus, limit) in CPU {
        let cpu = |sample: &Sample| sample.cpu_us;
        let (goal, values) = match versus {
            _ if row == MEMBERS => ("CPU of 500 members / of 3", report.ratios(row, "lb-500", "lb-3", cpu)),
            Versus::Nginx => ("CPU lb / nginx", report.ratios(row, "lb", "nginx", cpu)),
            Versus::Haproxy => ("CPU lb / haproxy", report.ratios(row, "lb", "haproxy", cpu)),
            Versus::Relay => ("CPU lb / relay", report.ratios(row, "lb", "relay", cpu)),
            Versus::Better => ("CPU lb / better of nginx, haproxy", to_better(report, row, cpu)),
        };
        add(row, goal.into(), limit, values, false);
    }
    let p99 = to_better(report, PACED, |sample| sample.p99_us);
    add(PACED, "p99 lb / better of nginx, haproxy".into(), PACED_P99, p99, false);
    let idle = report.of("idle-1000", "lb").filter_map(|sample| sample.idle_kib).collect();
    add("idle-1000", "KiB by idle connection".into(), IDLE_KIB, idle, true);
    let idle = report.of(RELAY_IDLE, "lb").map(megabytes).collect();
    add(RELAY_IDLE, "MB resident".into(), RELAY_IDLE_MB, idle, true);
    for row in UDP {
        if let Some(measured) = Spread::of(report.ratios(row.id, "lb", "nginx", |sample| sample.per_second)) {
            let (goal, limit, holds) = ("datagrams/s lb / nginx".into(), DATAGRAMS, measured.median >= DATAGRAMS);
            verdicts.push(Verdict { row: row.id.into(), goal, limit, at_least: true, measured, holds });
        }
    }
    for timing in report.timings.iter().filter(|timing| timing.row == PICK) {
        let limit = if timing.case.contains("bare") {
            BARE_PICK_NS
        } else if timing.members == 500 {
            BOUNDED_PICK_NS
        } else {
            continue;
        };
        let goal = format!("ns: {}, {} members", timing.case, timing.members);
        // The middle half of the batches.
        let measured = Spread { median: timing.median_ns, min: timing.lower_ns, max: timing.upper_ns };
        let holds = timing.median_ns < limit;
        verdicts.push(Verdict { row: PICK.into(), goal, limit, at_least: false, measured, holds });
    }
    verdicts
}

/// The ratio of `lb` to the better peer of each round.
fn to_better(report: &Report, row: &str, value: impl Fn(&Sample) -> f64) -> Vec<f64> {
    let ratio = |our: &Sample| {
        let their = |name| report.of(row, name).find(|sample| sample.round == our.round).map(&value);
        // Without both there is no better one.
        Some(value(our) / their("nginx")?.min(their("haproxy")?))
    };
    report.of(row, "lb").filter_map(ratio).collect()
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::{report, sample};
    use super::*;

    #[test]
    fn the_median_of_the_rounds_ratios_is_judged() {
        // Ratios 0.5, 0.8 and 2.0: the medians of the values themselves would give 80 / 100.
        let samples = [(1, 50.0, 100.0), (2, 80.0, 100.0), (3, 240.0, 120.0)].map(|(round, ours, theirs)| {
            [sample("54b-64", "lb", round, ours, 1.0), sample("54b-64", "nginx", round, theirs, 1.0)]
        });
        let verdicts = judge(&report(samples.into_iter().flatten().collect()));
        assert_eq!(verdicts.len(), 1, "nothing else was measured");
        assert_eq!(verdicts[0].measured, Spread { median: 0.8, min: 0.5, max: 2.0 });
        assert!(verdicts[0].holds && verdicts[0].limit == 0.85);
    }

    #[test]
    fn the_better_peer_is_that_of_the_round() {
        let samples = vec![
            sample("paced", "lb", 1, 1.0, 120.0),
            sample("paced", "nginx", 1, 1.0, 100.0),
            sample("paced", "haproxy", 1, 1.0, 400.0),
            sample("paced", "lb", 2, 1.0, 130.0),
            sample("paced", "nginx", 2, 1.0, 900.0),
            sample("paced", "haproxy", 2, 1.0, 100.0),
        ];
        let verdicts = judge(&report(samples));
        assert_eq!((verdicts[0].measured.min, verdicts[0].measured.max), (1.2, 1.3));
        assert!(!verdicts[0].holds, "the median is 1.25");
    }

    #[test]
    fn datagrams_must_be_more_and_cost_less() {
        let samples = |per_second, cpu_us| {
            let lb = Sample { per_second, ..sample("udp-flow", "lb", 1, cpu_us, 1.0) };
            vec![lb, Sample { per_second: 100.0, ..sample("udp-flow", "nginx", 1, 10.0, 1.0) }]
        };
        let holds =
            |per_second, cpu_us| judge(&report(samples(per_second, cpu_us))).iter().map(|it| it.holds).collect();
        let (yes, no): (Vec<bool>, Vec<bool>) = (holds(150.0, 10.0), holds(149.0, 11.0));
        assert_eq!((yes, no), (vec![true, true], vec![false, false]));
    }

    #[test]
    fn idle_relays_are_judged_by_all_of_the_memory() {
        let holds = |rss_kib, requests| {
            let lb = Sample { rss_kib, requests, idle_kib: Some(2.0), ..sample(RELAY_IDLE, "lb", 1, 1.0, 1.0) };
            judge(&report(vec![lb]))[0].holds
        };
        assert!(holds(58_593, 15_000) && !holds(58_594, 15_000), "60 MB are 58,593.75 KiB");
        assert!(holds(58_393, 14_900) && !holds(58_394, 14_900), "100 flows more would be 200 KiB more");
    }

    #[test]
    fn members_are_compared_with_each_other() {
        let samples = vec![sample(MEMBERS, "lb-3", 1, 100.0, 1.0), sample(MEMBERS, "lb-500", 1, 105.0, 1.0)];
        assert!(judge(&report(samples))[0].holds);
    }
}
