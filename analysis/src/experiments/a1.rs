//! 10,000 asynchronous requests before three replicas, by placement: who has answered how many.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::a2::{CONCURRENCY, HOLDING};
use super::cx::Cx;
use super::record::{Check, Experiment};
use super::spread::{self, Spread};
use super::stage::Plan;
use super::subject::Subject;
use super::table::{shares, spreads};
use crate::plot::{Drawn, Grouped, Height, colour, grouped, sheet};

/// As the assignment has it.
const REPLICAS: u32 = 3;
/// The first of the subjects: the assignment's ring, bare and bounded.
const RINGS: usize = 2;

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct A1 {
    /// Each subject with some in flight, then all at once; the rings a third time, with replicas that take their time.
    spreads: Vec<Spread>,
}

impl Experiment for A1 {
    const NAME: &'static str = "a1";
    const TITLE: &'static str = "A-1: requests before three replicas";

    async fn measure(cx: &Cx) -> Result<Self, String> {
        let subjects: Vec<Subject> =
            [Subject::bare(), Subject::bounded()].into_iter().chain(Subject::others()).collect();
        let subjects: Vec<Subject> = subjects.into_iter().chain(Subject::keyless()).collect();
        let loads = [(CONCURRENCY, None), (cx.settings.requests, None)];
        let runs = subjects.len() * loads.len() + RINGS;
        let bar = cx.bar(Self::NAME, runs as u64 * cx.settings.requests, "requests");
        let mut spreads = Vec::new();
        for (at, subject) in subjects.iter().enumerate() {
            cx.begins(&bar, &subject.name());
            let mut balancer = cx.stage.balancer(&subject.plan(REPLICAS)).await?;
            for load in loads {
                spreads.push(Spread::measure(&mut balancer, subject, load, &cx.settings, &bar).await?);
            }
            if at < RINGS {
                let plan = Plan { service: Some(HOLDING), ..subject.plan(REPLICAS) };
                let mut balancer = cx.stage.balancer(&plan).await?;
                let load = (CONCURRENCY, plan.service);
                spreads.push(Spread::measure(&mut balancer, subject, load, &cx.settings, &bar).await?);
            }
        }
        Ok(Self { spreads })
    }

    fn checks(&self) -> Vec<Check> {
        spread::checks("A-1", self.spreads.iter())
    }

    fn sections(&self) -> String {
        let text = "Requests by replica, the share of the busiest beside its prediction, and the largest distance of any share \
                    from\nits prediction. Predictions are exact for placement by keys alone. In brackets: for bounded loads from a \
                    simulation in\nwhich replicas hold as many requests as the clients have in flight, for other policies even \
                    shares.";
        format!("## Requests by replica\n\n{text}\n\n{}", spreads(self.spreads.iter()))
    }

    fn plots(&self) -> Vec<(&'static str, &'static str)> {
        vec![
            ("a1.svg", "requests by replica, on the bare ring and with bounded loads, beside the prediction"),
            ("a1-others.svg", "share of each of three replicas, by placement"),
        ]
    }

    fn draw(&self, out: &Path) -> Drawn {
        self.draw_ring(&out.join("a1.svg"))?;
        self.draw_others(&out.join("a1-others.svg"))
    }
}

impl A1 {
    fn of(&self, subject: &str) -> Vec<&Spread> {
        self.spreads.iter().filter(|spread| spread.subject == subject).collect()
    }

    /// The two rings, side by side.
    fn draw_ring(&self, file: &Path) -> Drawn {
        let sheet = sheet(file, (2, 1), (430, 360));
        let panels = sheet.panels()?;
        let subjects = [("The ring as it is written", Subject::bare()), ("With bounded loads", Subject::bounded())];
        for (area, (title, subject)) in panels.iter().zip(subjects) {
            let spreads = self.of(&subject.name());
            let Some(first) = spreads.first() else { continue };
            let height = |share: &f64| Some(Height::from(share * 100.0));
            let predicted = spreads.iter().map(|spread| &spread.predicted).rfind(|shares| !shares.is_empty());
            let group = |at: usize| {
                let shares = spreads.iter().map(|spread| spread.shares().get(at).and_then(height));
                let due = predicted.and_then(|shares| shares.get(at)).and_then(height);
                (format!("S{}", at + 1), shares.chain([due]).collect())
            };
            let name = |spread: &&Spread| match spread.service {
                None if spread.concurrency > CONCURRENCY => "all at once".to_owned(),
                None => format!("{} at a time", spread.concurrency),
                Some(service) => format!("{} at a time, {} ms each", spread.concurrency, service.ms),
            };
            let names = spreads.iter().map(name).chain(["predicted".to_owned()]);
            let chart = Grouped {
                title,
                y: "% of the requests",
                series: names.zip([0, 6, 2, 3]).map(|(name, at)| (name, colour(at))).collect(),
                groups: (0..first.counts.len()).map(group).collect(),
                mark: Some((100.0 / f64::from(first.replicas), "even".into())),
                number: Some(|value| format!("{value:.1}")),
            };
            grouped(area, &chart)?;
        }
        sheet.finish()
    }

    /// All subjects with some requests in flight.
    fn draw_others(&self, file: &Path) -> Drawn {
        let spreads =
            self.spreads.iter().filter(|spread| spread.concurrency == CONCURRENCY && spread.service.is_none());
        let row = |spread: &Spread| {
            (spread.subject.clone(), spread.shares().iter().map(|share| Some(share * 100.0)).collect::<Vec<_>>())
        };
        shares(
            file,
            &format!("What each of {REPLICAS} replicas answered, {CONCURRENCY} at a time"),
            spreads.map(row).collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::written;
    use super::super::spread::tests::example;
    use super::*;

    #[test]
    fn the_page_and_the_plots_have_every_load() {
        let (bare, bounded) = (Subject::bare().name(), Subject::bounded().name());
        let slow = Spread { service: Some(HOLDING), ..example(&bounded, CONCURRENCY, &[424, 400, 176]) };
        let spreads = vec![
            example(&bare, CONCURRENCY, &[844, 47, 109]),
            example(&bare, 1000, &[830, 60, 110]),
            example(&bounded, CONCURRENCY, &[500, 300, 200]),
            slow,
            example("maglev, 65,537", CONCURRENCY, &[334, 333, 333]),
        ];
        let (page, plots) = written(A1 { spreads });
        for text in ["844", "830", "maglev, 65,537", "10 ms |", "failed of 5000 requests"] {
            assert!(page.contains(text), "{text}: {page}");
        }
        for text in ["84.4", "17.6", "all at once", "100 at a time, 10 ms each", "predicted", "maglev, 65,537"] {
            assert!(plots.contains(text), "{text}");
        }
    }
}
