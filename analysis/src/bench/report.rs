//! What a run has found, as it is written to `bench.json`: every sample of every round.

use serde::{Deserialize, Serialize};

use super::goals::Verdict;
use super::machine::Machine;

/// Everything.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) rounds: u32,
    /// Of a sample, without the warm-up.
    pub(crate) seconds: u64,
    /// What broke it off: it holds what was measured until then.
    #[serde(default)]
    pub(crate) failed: Option<String>,
    /// What was left out, and why.
    pub(crate) skipped: Vec<String>,
    /// Who had its turn when: row, round, subjects in order.
    pub(crate) order: Vec<(String, u32, Vec<String>)>,
    pub(crate) samples: Vec<Sample>,
    pub(crate) timings: Vec<Timing>,
    pub(crate) verdicts: Vec<Verdict>,
}

/// One run of one load against one proxy.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Sample {
    pub(crate) row: String,
    /// A proxy, or `lb` with so many members: `lb-50`.
    pub(crate) subject: String,
    pub(crate) round: u32,
    pub(crate) requests: u64,
    pub(crate) seconds: f64,
    pub(crate) per_second: f64,
    /// CPU time of the proxy by request, in µs: on a core, and its split.
    pub(crate) cpu_us: f64,
    pub(crate) user_us: f64,
    pub(crate) system_us: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// Resident memory after the load.
    pub(crate) rss_kib: u64,
    /// What an idle connection adds to it.
    pub(crate) idle_kib: Option<f64>,
    /// CPU time that it takes each second without a request, in µs: heartbeats.
    pub(crate) background_us: Option<f64>,
    /// Latency of the paced row by quantile, in µs.
    pub(crate) quantiles_us: Vec<(f64, f64)>,
    /// Datagrams that did not come back in time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lost: Option<u64>,
}

impl Sample {
    /// What is left of the CPU time by request without that which would have been used anyway.
    pub(crate) fn net_cpu_us(&self) -> f64 {
        self.cpu_us - self.background_us.unwrap_or_default() / self.per_second
    }
}

/// How long a piece of `lb` takes, called directly.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Timing {
    pub(crate) row: String,
    pub(crate) case: String,
    pub(crate) members: u32,
    /// For one, in nanoseconds: the median of the batches, and the quartiles. One batch in a hundred falls into somebody
    /// else's turn on the core, so the longest says nothing.
    pub(crate) median_ns: f64,
    pub(crate) lower_ns: f64,
    pub(crate) upper_ns: f64,
    pub(crate) batches: usize,
}

impl Report {
    /// The samples of `subject` in `row`, one a round.
    pub(crate) fn of<'a>(&'a self, row: &'a str, subject: &'a str) -> impl Iterator<Item = &'a Sample> + Clone {
        self.samples.iter().filter(move |sample| sample.row == row && sample.subject == subject)
    }

    /// The subjects of `row`, in order of their first sample.
    pub(crate) fn subjects(&self, row: &str) -> Vec<&str> {
        let mut subjects: Vec<&str> = Vec::new();
        for sample in self.samples.iter().filter(|sample| sample.row == row) {
            if !subjects.contains(&sample.subject.as_str()) {
                subjects.push(&sample.subject);
            }
        }
        subjects
    }

    /// The ratio of `ours` to `theirs` in each round that has both.
    pub(crate) fn ratios(&self, row: &str, ours: &str, theirs: &str, value: impl Fn(&Sample) -> f64) -> Vec<f64> {
        let ratio = |our: &Sample| {
            let their = self.of(row, theirs).find(|sample| sample.round == our.round)?;
            Some(value(our) / value(their))
        };
        self.of(row, ours).filter_map(ratio).collect()
    }
}

/// Median, least and most.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// `None` for no values.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len().is_multiple_of(2) {
            f64::midpoint(values[middle - 1], values[middle])
        } else {
            values[middle]
        };
        Some(Self { median, min, max })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A sample with the CPU time and p99 given, all else 1.
    pub(crate) fn sample(row: &str, subject: &str, round: u32, cpu_us: f64, p99_us: f64) -> Sample {
        Sample {
            row: row.into(),
            subject: subject.into(),
            round,
            requests: 1,
            seconds: 1.0,
            per_second: 1.0,
            cpu_us,
            user_us: 1.0,
            system_us: 1.0,
            p50_us: 1.0,
            p99_us,
            rss_kib: 1024,
            ..Sample::default()
        }
    }

    pub(crate) fn report(samples: Vec<Sample>) -> Report {
        Report {
            machine: Machine::default(),
            rounds: 3,
            seconds: 1,
            failed: None,
            skipped: Vec::new(),
            order: Vec::new(),
            samples,
            timings: Vec::new(),
            verdicts: Vec::new(),
        }
    }

    #[test]
    fn the_median_of_an_even_count_lies_between_the_middle_two() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]).unwrap().median, 2.5);
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn ratios_are_those_of_the_same_round() {
        let report = report(vec![
            sample("a", "nginx", 2, 20.0, 1.0),
            sample("a", "lb", 1, 10.0, 1.0),
            sample("a", "lb", 2, 10.0, 1.0),
            sample("a", "nginx", 1, 40.0, 1.0),
            sample("b", "nginx", 1, 1.0, 1.0),
            sample("a", "lb", 3, 10.0, 1.0),
        ]);
        assert_eq!(report.ratios("a", "lb", "nginx", |sample| sample.cpu_us), [0.25, 0.5]);
        assert_eq!(report.subjects("a"), ["nginx", "lb"]);
    }
}
