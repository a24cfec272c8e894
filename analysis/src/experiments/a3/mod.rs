//! all endpoints, and replicas that fail under load: how soon is each replaced, and what do clients notice?

mod endpoints;
mod failure;
mod figures;

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::cx::Cx;
use super::record::{Check, Experiment};
use super::stage::{Harm, Plan, Runtime};
use crate::bench::table::markdown;
use crate::plot::Drawn;
use endpoints::Endpoint;
use failure::{Calm, Load, Run, Trace};

const REPLICAS: u32 = 3;
/// Requests a second while replicas fail.
const RATE: f64 = 500.0;
const ROUNDS: u32 = 20;

/// All failures of one kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Series {
    harm: Harm,
    runs: Vec<Run>,
    load: Load,
    trace: Trace,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct A3 {
    runtime: Runtime,
    endpoints: Vec<Endpoint>,
    series: Vec<Series>,
}

impl Experiment for A3 {
    const NAME: &'static str = "a3";
    const TITLE: &'static str = "A-3: all endpoints, and recovery from failures";

    async fn measure(cx: &Cx) -> Result<Self, String> {
        let rounds = cx.settings.rounds.unwrap_or(ROUNDS);
        let steps = endpoints::count() + Harm::ALL.len() as u64 * u64::from(rounds);
        let bar = cx.bar(Self::NAME, steps, "steps");
        let plan = Plan { replicas: REPLICAS, args: Vec::new(), service: None };
        let balancer = cx.stage.balancer(&plan).await?;
        cx.begins(&bar, "endpoints");
        let endpoints = endpoints::all(&balancer, || bar.inc(1)).await?;
        drop(balancer);
        // Anew, so that S1, S2 and S3 are there: of those that were removed just now some were chosen at random.
        let mut balancer = cx.stage.balancer(&plan).await?;
        let (mut series, mut calm) = (Vec::new(), Calm::default());
        for harm in Harm::ALL {
            cx.begins(&bar, harm.name(cx.stage.runtime));
            let done = failure::series(&cx.stage, &mut balancer, (harm, rounds), &mut calm, || bar.inc(1)).await;
            let (runs, load, trace) = done.map_err(|error| format!("{}: {error}", harm.name(cx.stage.runtime)))?;
            series.push(Series { harm, runs, load, trace });
        }
        Ok(Self { runtime: cx.stage.runtime, endpoints, series })
    }

    fn checks(&self) -> Vec<Check> {
        let wrong = self.endpoints.iter().filter(|endpoint| !endpoint.is_right()).count();
        let what = format!("A-3, wrong answers of {} endpoint calls", self.endpoints.len());
        let holds = wrong == 0 && !self.endpoints.is_empty();
        let endpoints = Check { what, limit: "0".into(), found: wrong.to_string(), holds };
        let series = self.series.iter().map(|series| {
            let what = format!("A-3, {} × {}", series.runs.len(), series.harm.name(self.runtime));
            Check::none_failed(&what, series.load.requests, series.load.failed)
        });
        [endpoints].into_iter().chain(series).collect()
    }

    fn sections(&self) -> String {
        let recovery = format!(
            "{RATE:.0} requests a second, whatever happens, over kept connections; a request counts from when it was due. The \
             balancer is\nasked about every millisecond how its replicas are. Milliseconds from the moment the harm was asked \
             for: medians, least to\nmost in brackets."
        );
        let endpoints = "Right and wrong input, one after the other, before three replicas. `is due`: the status that the \
                         assignment or the\nREADME names.";
        format!(
            "## Recovery\n\n{recovery}\n\n{}\n\n## Endpoints\n\n{endpoints}\n\n{}",
            self.recoveries(),
            self.endpoints()
        )
    }

    fn plots(&self) -> Vec<(&'static str, &'static str)> {
        vec![
            ("timeline.svg", "who answers around the failure of one replica, and how long each request takes"),
            ("recovery.svg", "times until a failed replica is out of rotation, replaced, and all are ready again"),
        ]
    }

    fn draw(&self, out: &Path) -> Drawn {
        figures::draw(self, out)
    }
}

impl A3 {
    fn recoveries(&self) -> String {
        let row = |series: &Series| {
            let times = |value: fn(&Run) -> f64| spread(series.runs.iter().map(value).collect());
            vec![
                series.harm.name(self.runtime).to_owned(),
                series.runs.len().to_string(),
                times(|run| run.out_ms),
                times(|run| run.listed_ms),
                times(|run| run.ready_ms),
                series.load.requests.to_string(),
                series.load.failed.to_string(),
                times(|run| run.slowest_ms),
                format!("{:.1}", series.load.p50_ms),
                format!("{:.1}", series.load.p99_ms),
            ]
        };
        let header = [
            "failure",
            "times",
            "out of rotation",
            "replacement listed",
            "3 ready again",
            "requests",
            "failed",
            "slowest request",
            "p50",
            "p99",
        ];
        markdown(&header, 1, self.series.iter().map(row).collect()).unwrap_or_default()
    }

    fn endpoints(&self) -> String {
        let row = |endpoint: &Endpoint| {
            let body = if endpoint.body.is_empty() { "(empty)".into() } else { format!("`{}`", endpoint.body) };
            let due = if endpoint.is_right() { endpoint.due.to_string() } else { format!("{} (WRONG)", endpoint.due) };
            vec![
                format!("`{}`", endpoint.request),
                endpoint.status.to_string(),
                due,
                body,
                format!("{:.1}", endpoint.took_ms),
            ]
        };
        let rows = self.endpoints.iter().map(row).collect();
        markdown(&["request", "status", "is due", "answer", "ms"], 4, rows).unwrap_or_default()
    }
}

/// Median, least and most.
fn spread(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    let (Some(least), Some(most)) = (values.first(), values.last()) else { return String::new() };
    let number = |value: f64| if value < 10.0 { format!("{value:.1}") } else { format!("{value:.0}") };
    format!("{} ({}..{})", number(median(&values)), number(*least), number(*most))
}

/// Of sorted values; 0 for none.
fn median(sorted: &[f64]) -> f64 {
    let at = |at: usize| sorted.get(at).copied().unwrap_or_default();
    if sorted.len() % 2 == 1 {
        at(sorted.len() / 2)
    } else {
        (at((sorted.len() / 2).wrapping_sub(1)) + at(sorted.len() / 2)) / 2.0
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::written;
    use super::*;

    fn run(out_ms: f64, listed_ms: f64) -> Run {
        Run {
            harm: Harm::Kill,
            victim: "S1".into(),
            replacement: "k3x9q".into(),
            done_ms: 20.0,
            out_ms,
            listed_ms,
            ready_ms: 600.0,
            requests: 400,
            failed: 0,
            slowest_ms: 31.0,
        }
    }

    fn a3() -> A3 {
        let endpoint = |request: &str, due, body: &str| Endpoint {
            request: request.into(),
            due,
            holds: String::new(),
            status: 200,
            body: body.into(),
            took_ms: 0.5,
        };
        let trace = Trace {
            harm: Some(Harm::Kill),
            names: ["S1", "S2", "k3x9q", "failed"].map(String::from).into(),
            due_s: vec![-0.3, 0.0, 0.7],
            took_ms: vec![0.3, 12.0, 0.4],
            by: vec![0, 1, 2],
        };
        let load = Load { requests: 900, ..Load::default() };
        let runs = vec![run(24.0, 30.0), run(28.0, 31.0)];
        A3 {
            runtime: Runtime::Docker,
            endpoints: vec![endpoint("GET /rep", 200, "{}"), endpoint("GET /heartbeat", 200, "")],
            series: vec![Series { harm: Harm::Kill, runs, load, trace }],
        }
    }

    #[test]
    fn the_page_and_the_plots_have_every_endpoint_and_failure() {
        let (page, plots) = written(a3());
        let rows: Vec<String> =
            page.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        for row in [
            "| docker kill | 2 | 26 (24..28) | 30 (30..31) | 600 (600..600) | 900 | 0 | 31 (31..31) | 0.0 | 0.0 |",
            "| `GET /heartbeat` | 200 | 200 | (empty) | 0.5 |",
            "| A-3, 2 × docker kill: failed of 900 requests | 0 | 0 | yes |",
        ] {
            assert!(rows.iter().any(|line| line == row), "{row}: {page}");
        }
        for text in
            ["S1, failed", "k3x9q, new", "out of rotation, 24 ms", "2 × docker kill", "How long each request took"]
        {
            assert!(plots.contains(text), "{text}");
        }
    }

    #[test]
    fn a_wrong_answer_or_a_lost_request_does_not_hold() {
        let holds = |a3: &A3| a3.checks().iter().map(|check| check.holds).collect::<Vec<_>>();
        assert_eq!(holds(&a3()), [true, true]);
        let mut wrong = a3();
        wrong.endpoints[0].due = 400;
        wrong.series[0].load.failed = 1;
        assert_eq!(holds(&wrong), [false, false]);
        wrong.endpoints.clear();
        assert_eq!(holds(&wrong), [false, false], "nothing was asked");
    }

    #[test]
    fn times_are_told_as_median_least_and_most() {
        assert_eq!(spread(vec![120.4, 3.25, 9.0]), "9.0 (3.2..120)");
        assert_eq!(spread(vec![4.0, 2.0]), "3.0 (2.0..4.0)");
        assert_eq!(spread(Vec::new()), "");
    }
}
