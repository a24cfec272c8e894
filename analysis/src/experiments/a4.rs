//! A-4: A-1 and A-2 again with other functions and placements, side by side.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::a2::{CONCURRENCY, HOLDING, growing, sizes};
use super::cx::Cx;
use super::record::{Check, Experiment};
use super::spread::{self, Spread};
use super::stage::Plan;
use super::subject::Subject;
use super::table::{label, ratio, spreads};
use crate::bench::table::markdown;
use crate::plot::{Axes, Drawn, Grouped, Height, Line, colour, grouped, lines, sheet};

/// What A-1 has.
const REPLICAS: u32 = 3;
/// Colours of subjects; that of what is due is left out.
const COLOURS: [usize; 6] = [1, 0, 6, 5, 2, 4];

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct A4 {
    /// Each subject without a bound, with two replicas to six.
    spreads: Vec<Spread>,
    /// The same with bounded loads, before three replicas that take their time.
    bounded: Vec<Spread>,
}

impl Experiment for A4 {
    const NAME: &'static str = "a4";
    const TITLE: &'static str = "A-4: other hash functions and placements";

    async fn measure(cx: &Cx) -> Result<Self, String> {
        let subjects: Vec<Subject> = [Subject::bare()].into_iter().chain(Subject::others()).collect();
        let loads = subjects.len() as u64 * (sizes().ticks.len() as u64 + 1);
        let bar = cx.bar(Self::NAME, loads * cx.settings.requests, "requests");
        let (mut spreads, mut bounded) = (Vec::new(), Vec::new());
        for subject in &subjects {
            spreads.extend(growing(cx, subject, None, &bar).await?);
            let subject = subject.bounded_too();
            cx.begins(&bar, &subject.name());
            let plan = Plan { service: Some(HOLDING), ..subject.plan(REPLICAS) };
            let mut balancer = cx.stage.balancer(&plan).await?;
            let load = (CONCURRENCY, plan.service);
            bounded.push(Spread::measure(&mut balancer, &subject, load, &cx.settings, &bar).await?);
        }
        Ok(Self { spreads, bounded })
    }

    fn checks(&self) -> Vec<Check> {
        let mut checks = spread::checks("A-4", self.spreads.iter());
        checks.extend(spread::checks("A-4, bounded", self.bounded.iter()));
        checks
    }

    fn sections(&self) -> String {
        format!(
            "## max/mean by N\n\nThe busiest replica's requests as a multiple of the mean, measured, and predicted exactly in \
             brackets.\n\n{}\n\n## Every load\n\n{}\n\n## With bounded loads\n\nThe same with `--bound 1.25`, before replicas \
             that take {} ms for a request, any number at a time.\n\n{}",
            self.ratios(),
            spreads(self.spreads.iter()),
            HOLDING.ms,
            spreads(self.bounded.iter())
        )
    }

    fn plots(&self) -> Vec<(&'static str, &'static str)> {
        vec![("a4.svg", "A-1 and A-2 with other hash functions and placements")]
    }

    fn draw(&self, out: &Path) -> Drawn {
        let file = out.join("a4.svg");
        let sheet = sheet(&file, (1, 2), (860, 400));
        let panels = sheet.panels()?;
        if let [upper, lower] = &*panels {
            self.draw_shares(upper)?;
            self.draw_ratios(lower)?;
        }
        sheet.finish()
    }
}

impl A4 {
    /// Each subject's name once, in order.
    fn subjects(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.spreads.iter().map(|spread| &*spread.subject).collect();
        names.dedup();
        names
    }

    fn of(&self, subject: &str) -> impl Iterator<Item = &Spread> {
        self.spreads.iter().filter(move |spread| spread.subject == subject)
    }

    fn ratios(&self) -> String {
        let sizes = sizes().ticks;
        let mut header = vec!["placement".to_owned()];
        header.extend(sizes.iter().map(|size| format!("N = {size}")));
        let row = |subject: &&str| {
            let cells = self.of(subject).map(|spread| {
                let predicted = spread.predicted_max_mean().map_or_else(String::new, |due| format!(" ({due:.2})"));
                format!("{}{predicted}", ratio(spread.max_mean()))
            });
            [(*subject).to_owned()].into_iter().chain(cells).collect::<Vec<_>>()
        };
        let header: Vec<&str> = header.iter().map(String::as_str).collect();
        markdown(&header, 1, self.subjects().iter().map(row).collect()).unwrap_or_default()
    }

    /// what each of three replicas gets.
    fn draw_shares(&self, area: &crate::plot::Area<'_>) -> Drawn {
        let three = self.spreads.iter().filter(|spread| spread.replicas == REPLICAS);
        let group = |spread: &Spread| {
            let heights = spread.shares().into_iter().map(|share| Some(Height::from(share * 100.0)));
            (label(&spread.subject), heights.collect())
        };
        let chart = Grouped {
            title: "A-1 again: three replicas",
            y: "% of the requests",
            series: (0..REPLICAS).map(|at| (format!("S{}", at + 1), colour(at as usize))).collect(),
            groups: three.map(group).collect(),
            mark: Some((100.0 / f64::from(REPLICAS), "even".into())),
            number: Some(|value| format!("{value:.1}")),
        };
        grouped(area, &chart)
    }

    /// how far the busiest is from the mean.
    fn draw_ratios(&self, area: &crate::plot::Area<'_>) -> Drawn {
        let line = |(subject, at): (&&str, usize)| {
            let points = self.of(subject).map(|spread| {
                let value = spread.max_mean();
                (f64::from(spread.replicas), value, value, value)
            });
            Line { name: (*subject).to_owned(), colour: colour(at), points: points.collect() }
        };
        let names = self.subjects();
        let all: Vec<Line> = names.iter().zip(COLOURS).map(line).collect();
        lines(area, &Axes { title: "A-2 again: two to six replicas", y: "busiest / mean", ..sizes() }, &all)
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::written;
    use super::super::spread::tests::example;
    use super::*;

    #[test]
    fn subjects_stand_side_by_side() {
        let of = |subject: &str| {
            [example(subject, CONCURRENCY, &[600, 400]), example(subject, CONCURRENCY, &[500, 300, 200])]
        };
        let spreads = [of("consistent, assignment, 512 × 9"), of("maglev, 65,537")].concat();
        let bounded = vec![example("maglev, 65,537, bound 1.25", CONCURRENCY, &[400, 300, 300])];
        let (page, plots) = written(A4 { spreads, bounded });
        let rows: Vec<String> =
            page.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        let row = "| maglev, 65,537 | 1.20 (1.20) | 1.50 (1.50) |";
        assert!(rows.iter().any(|line| line.starts_with(row)), "{page}");
        assert!(page.contains("maglev, 65,537, bound 1.25"));
        for text in ["A-1 again", "A-2 again", "512×9", "50.0"] {
            assert!(plots.contains(text), "{text}");
        }
    }
}
