//! from two replicas to six, one more each time: the average load, and what more replicas bring.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::cx::Cx;
use super::record::{Check, Experiment};
use super::spread::{self, Spread};
use super::stage::{Plan, Service};
use super::subject::Subject;
use super::table::{ratio, spreads};
use crate::bench::table::markdown;
use crate::plot::{Axes, Drawn, Line, colour, lines, sheet};

/// As the assignment has it: with each from `0` to the last one 10,000 requests.
pub(super) const SIZES: std::ops::RangeInclusive<u32> = 2..=6;
pub(super) const CONCURRENCY: u64 = 100;
/// Replicas that are busy without using the processor, so that six of them can be seen to do more than two on two cores.
pub(super) const SERVICE: Service = Service { ms: 10, at_once: 10 };

/// Replicas that hold all requests that are in flight, each for a while: what bounded loads do can be predicted then.
pub(super) const HOLDING: Service = Service { ms: 10, at_once: 10_000 };

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct A2 {
    concurrency: u64,
    /// Replicas as fast as can be.
    spreads: Vec<Spread>,
    service: Service,
    /// Replicas that take the time of `service`.
    scaled: Vec<Spread>,
}

impl Experiment for A2 {
    const NAME: &'static str = "a2";
    const TITLE: &'static str = "A-2: from two replicas to six";

    async fn measure(cx: &Cx) -> Result<Self, String> {
        let rings = [Subject::bare(), Subject::bounded()];
        let turns: Vec<Subject> = Subject::keyless().into_iter().take(1).collect();
        let slow: Vec<Subject> = rings.iter().cloned().chain(turns).collect();
        let loads = (rings.len() + slow.len()) as u64 * SIZES.count() as u64;
        let bar = cx.bar(Self::NAME, loads * cx.settings.requests, "requests");
        let (mut spreads, mut scaled) = (Vec::new(), Vec::new());
        for subject in &rings {
            spreads.extend(growing(cx, subject, None, &bar).await?);
        }
        for subject in &slow {
            scaled.extend(growing(cx, subject, Some(SERVICE), &bar).await?);
        }
        Ok(Self { concurrency: CONCURRENCY, spreads, service: SERVICE, scaled })
    }

    fn checks(&self) -> Vec<Check> {
        [spread::checks("A-2", self.spreads.iter()), spread::checks("A-2, slow replicas", self.scaled.iter())].concat()
    }

    fn sections(&self) -> String {
        let load = format!(
            "The average is always the requests by N; what differs is how far replicas are from it. Replicas are added with \
             `/add`,\none after the other, to the same balancer. {} requests in flight.",
            self.concurrency
        );
        let scaled = format!(
            "Each replica serves {} requests at a time, and each takes {} ms, so one can do {:.0} a second, and N of them N \
             times that.\nWithout a bound a ring can do at most what its busiest replica can do, divided by that one's share. \
             With a bound that one's\nqueue is cut short, and the others always have something to do.",
            self.service.at_once,
            self.service.ms,
            self.service.per_second()
        );
        format!(
            "## Load by replica\n\n{load}\n\n{}\n\n{}\n\n## Throughput and latency\n\n{scaled}\n\n{}",
            self.loads(),
            spreads(self.spreads.iter()),
            self.throughput()
        )
    }

    fn plots(&self) -> Vec<(&'static str, &'static str)> {
        vec![
            ("a2.svg", "average, busiest and idlest replica's requests, from two replicas to six"),
            ("a2-scaling.svg", "throughput and p99 from two replicas to six"),
        ]
    }

    fn draw(&self, out: &Path) -> Drawn {
        self.draw_loads(&out.join("a2.svg"))?;
        self.draw_scaling(&out.join("a2-scaling.svg"))
    }
}

/// Loads before two replicas, then three, and so on.
pub(super) async fn growing(
    cx: &Cx,
    subject: &Subject,
    service: Option<Service>,
    bar: &indicatif::ProgressBar,
) -> Result<Vec<Spread>, String> {
    let plan = Plan { service, ..subject.plan(*SIZES.start()) };
    let mut balancer = cx.stage.balancer(&plan).await?;
    let mut spreads = Vec::new();
    for replicas in SIZES {
        let slow = if service.is_some() { ", slow replicas" } else { "" };
        cx.begins(bar, &format!("{}{slow}, N = {replicas}", subject.name()));
        if replicas > *SIZES.start() {
            balancer.add().await?;
        }
        spreads.push(Spread::measure(&mut balancer, subject, (CONCURRENCY, service), &cx.settings, bar).await?);
    }
    Ok(spreads)
}

/// Of one subject.
fn of<'a>(spreads: &'a [Spread], subject: &str) -> Vec<&'a Spread> {
    spreads.iter().filter(|spread| spread.subject == subject).collect()
}

/// Each once, in order.
fn subjects(spreads: &[Spread]) -> Vec<&str> {
    let mut names: Vec<&str> = spreads.iter().map(|spread| &*spread.subject).collect();
    names.dedup();
    names
}

fn point(spread: &Spread, value: f64) -> (f64, f64, f64, f64) {
    (f64::from(spread.replicas), value, value, value)
}

impl A2 {
    /// What a fleet can do at most, requests a second, if the busiest has this part.
    fn possible(&self, spread: &Spread) -> Option<f64> {
        let most = spread.predicted.iter().copied().reduce(f64::max)?;
        Some(self.service.per_second() / most)
    }

    fn loads(&self) -> String {
        let row = |spread: &Spread| {
            let predicted = spread.predicted_max_mean().map_or_else(String::new, |ratio| {
                let most = ratio * spread.mean();
                if spread.exact { format!("{most:.0}") } else { format!("({most:.0})") }
            });
            vec![
                spread.subject.clone(),
                spread.replicas.to_string(),
                format!("{:.0}", spread.mean()),
                spread.least().to_string(),
                spread.most().to_string(),
                predicted,
                format!("{:.0}", spread.deviation()),
                ratio(spread.max_mean()),
            ]
        };
        let header = ["placement", "N", "average", "least", "most", "most, predicted", "sd", "max/mean"];
        markdown(&header, 1, self.spreads.iter().map(row).collect()).unwrap_or_default()
    }

    fn throughput(&self) -> String {
        let row = |spread: &Spread| {
            let possible = self.possible(spread);
            vec![
                spread.subject.clone(),
                spread.replicas.to_string(),
                format!("{:.0}", spread.outcome.per_second()),
                possible.map_or_else(String::new, |possible| format!("{possible:.0}")),
                format!("{:.0}", self.service.per_second() * f64::from(spread.replicas)),
                format!("{:.1}", spread.outcome.p50_ms),
                format!("{:.1}", spread.outcome.p99_ms),
                spread.outcome.failed().to_string(),
                ratio(spread.max_mean()),
            ]
        };
        let header =
            ["placement", "N", "requests/s", "at most, by shares", "by N", "p50 ms", "p99 ms", "failed", "max/mean"];
        markdown(&header, 1, self.scaled.iter().map(row).collect()).unwrap_or_default()
    }

    fn draw_loads(&self, file: &Path) -> Drawn {
        let sheet = sheet(file, (2, 1), (430, 400));
        let panels = sheet.panels()?;
        let top = self.spreads.iter().map(Spread::most).max().unwrap_or_default() as f64;
        for (area, (title, subject)) in panels
            .iter()
            .zip([("The ring as it is written", Subject::bare()), ("With bounded loads", Subject::bounded())])
        {
            let spreads = of(&self.spreads, &subject.name());
            let line = |name: &str, at, value: &dyn Fn(&Spread) -> f64| Line {
                name: name.into(),
                colour: colour(at),
                points: spreads.iter().map(|spread| point(spread, value(spread))).collect(),
            };
            let predicted = |spread: &Spread| spread.predicted_max_mean().unwrap_or_default() * spread.mean();
            let mut average = line("average, ± sd", 0, &Spread::mean);
            for (point, spread) in average.points.iter_mut().zip(&spreads) {
                (point.2, point.3) = ((point.1 - spread.deviation()).max(0.0), point.1 + spread.deviation());
            }
            let mut all = vec![
                line("busiest", 1, &|spread| spread.most() as f64),
                average,
                line("idlest", 2, &|spread| spread.least() as f64),
            ];
            if spreads.iter().any(|spread| !spread.predicted.is_empty()) {
                all.insert(0, line("busiest, predicted", 3, &predicted));
            }
            let axes = Axes { title, y: "requests by replica", top: Some(top), nested: true, ..sizes() };
            lines(area, &axes, &all)?;
        }
        sheet.finish()
    }

    fn draw_scaling(&self, file: &Path) -> Drawn {
        let sheet = sheet(file, (2, 1), (430, 400));
        let panels = sheet.panels()?;
        let names = subjects(&self.scaled);
        let all = |value: fn(&Spread) -> f64| -> Vec<Line> {
            let line = |(at, name): (usize, &&str)| Line {
                name: (*name).to_owned(),
                colour: colour([1, 0, 2][at % 3]),
                points: of(&self.scaled, name).iter().map(|spread| point(spread, value(spread))).collect(),
            };
            names.iter().enumerate().map(line).collect()
        };
        if let [left, right] = &*panels {
            let mut throughput = all(|spread| spread.outcome.per_second());
            let most = |replicas: u32| self.service.per_second() * f64::from(replicas);
            let points = SIZES.map(|n| (f64::from(n), most(n), most(n), most(n))).collect();
            throughput.insert(0, Line { name: "N times one replica".into(), colour: colour(3), points });
            lines(left, &Axes { title: "Throughput", y: "requests a second", ..sizes() }, &throughput)?;
            let p99 = all(|spread| spread.outcome.p99_ms);
            lines(right, &Axes { title: "Latency", y: "p99, ms", ..sizes() }, &p99)?;
        }
        sheet.finish()
    }
}

/// Axes over N.
pub(super) fn sizes() -> Axes<'static> {
    Axes { x: "replicas", ticks: SIZES.map(f64::from).collect(), ..Axes::default() }
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::written;
    use super::super::spread::tests::example;
    use super::*;

    #[test]
    fn the_page_and_the_plots_have_every_size() {
        let (bare, bounded) = (Subject::bare().name(), Subject::bounded().name());
        let unknown = Spread { predicted: Vec::new(), ..example(&bounded, CONCURRENCY, &[600, 400]) };
        let spreads =
            vec![example(&bare, CONCURRENCY, &[953, 47]), example(&bare, CONCURRENCY, &[844, 47, 109]), unknown];
        let slow = |counts: &[u64]| Spread { service: Some(SERVICE), ..example(&bare, CONCURRENCY, counts) };
        let scaled = vec![slow(&[500, 500]), slow(&[400, 300, 300])];
        let (page, plots) = written(A2 { concurrency: CONCURRENCY, spreads, service: SERVICE, scaled });
        let rows: Vec<String> =
            page.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        for row in [
            format!("| {bare} | 3 | 333 | 47 | 844 | 844 | 362 | 2.53 |"),
            format!("| {bounded} | 2 | 500 | 400 | 600 | | 100 | 1.20 |"),
            // The busiest one's 1000 a second are two fifths of what all do.
            format!("| {bare} | 3 | 2000 | 2500 | 3000 | 3.0 | 9.0 | 0 | 1.20 |"),
        ] {
            assert!(rows.contains(&row), "{row}: {page}");
        }
        for text in ["busiest, predicted", "idlest", "N times one replica", "p99, ms"] {
            assert!(plots.contains(text), "{text}");
        }
        assert_eq!(plots.matches("busiest, predicted").count(), 1, "no line for what is not predicted");
    }
}
