//! Which keys change their replica when one is added, and when one is removed, by placement.

use std::collections::BTreeMap;
use std::path::Path;

use lb::placement::Place;
use lb::policy;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

use super::cx::Cx;
use super::record::{Check, Experiment};
use super::spread::NEAR;
use super::stage::Balancer;
use super::subject::Subject;
use super::table::label;
use crate::bench::table::markdown;
use crate::load::each;
use crate::plot::{Drawn, Grouped, Height, colour, grouped, sheet};
use lb::placement::REQUEST_IDS;

const REPLICAS: u32 = 3;
/// The one that is removed after another has come.
const REMOVED: u32 = 2;
const CONCURRENCY: usize = 100;

/// What a change does to keys, as parts of all of them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Moved {
    /// Those that have another replica afterwards.
    all: f64,
    /// Of these, those that need not: between replicas that were there before and still are.
    needless: f64,
}

/// One change before one balancer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Change {
    subject: String,
    added: bool,
    /// Replicas before it.
    replicas: u32,
    predicted: Moved,
    measured: Moved,
    keys: u64,
    failed: u64,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Moves {
    changes: Vec<Change>,
}

/// The ring number that each key goes to; 0 where a request failed.
type Owners = Vec<u32>;

impl Experiment for Moves {
    const NAME: &'static str = "moves";
    const TITLE: &'static str = "Keys that move when a replica comes or goes";

    async fn measure(cx: &Cx) -> Result<Self, String> {
        let subjects: Vec<Subject> = [Subject::bare()].into_iter().chain(Subject::others()).collect();
        let mut random = StdRng::seed_from_u64(cx.settings.seed);
        let keys: Vec<u64> = (0..cx.settings.requests).map(|_| random.random_range(REQUEST_IDS)).collect();
        let bar = cx.bar(Self::NAME, subjects.len() as u64 * 3 * cx.settings.requests, "requests");
        let mut changes = Vec::new();
        for subject in &subjects {
            cx.begins(&bar, &subject.name());
            let mut plan = subject.plan(REPLICAS);
            plan.args.extend(["--hash-key".into(), "query:id".into()]);
            let mut balancer = cx.stage.balancer(&plan).await?;
            let before = owners(&balancer, &keys, &bar).await?;
            balancer.add().await?;
            let with = owners(&balancer, &keys, &bar).await?;
            let members = balancer.members().await?;
            let gone = members.iter().find(|member| member.id == REMOVED).ok_or("no such replica")?.hostname.clone();
            balancer.remove(&gone).await?;
            let without = owners(&balancer, &keys, &bar).await?;
            let newcomer = REPLICAS + 1;
            let change = |added, replicas, (from, to): (&Owners, &Owners), which: u32| -> Result<Change, String> {
                Ok(Change {
                    subject: subject.name(),
                    added,
                    replicas,
                    predicted: predicted(subject, added)?,
                    measured: moved(from, to, which),
                    keys: keys.len() as u64,
                    failed: from.iter().zip(to).filter(|(from, to)| **from == 0 || **to == 0).count() as u64,
                })
            };
            changes.push(change(true, REPLICAS, (&before, &with), newcomer)?);
            changes.push(change(false, newcomer, (&with, &without), REMOVED)?);
        }
        Ok(Self { changes })
    }

    fn checks(&self) -> Vec<Check> {
        // Three loads for two changes.
        let requests = self.changes.iter().map(|change| change.keys).sum::<u64>() * 3 / 2;
        let failed = self.changes.iter().map(|change| change.failed).sum();
        let off = self.changes.iter().map(|change| (change.measured.all - change.predicted.all).abs());
        let off = off.fold(0.0, f64::max);
        vec![
            Check::none_failed("Moves", requests, failed),
            Check::near("Moves: distance of what moved from its exact prediction", off, NEAR),
        ]
    }

    fn sections(&self) -> String {
        let row = |change: &Change| {
            let percent = |part: f64| format!("{:.2} %", part * 100.0);
            let what = if change.added {
                format!("S{} is added", change.replicas + 1)
            } else {
                format!("S{REMOVED} is removed")
            };
            vec![
                change.subject.clone(),
                what,
                percent(change.predicted.all),
                percent(change.measured.all),
                percent(change.predicted.needless),
                percent(change.measured.needless),
                change.failed.to_string(),
            ]
        };
        let header =
            ["placement", "change", "moved: predicted", "measured", "needlessly: predicted", "measured", "failed"];
        format!(
            "## Moves\n\nThe same keys are asked for before and after a change (`--hash-key query:id`), and the replica's \
             name compared. With four\nalike replicas the newcomer is due a quarter of the keys, and the removed one had a \
             quarter. Needless: keys that move\nbetween replicas that were there before and afterwards. Predictions are \
             exact, for all six-digit IDs.\n\n{}",
            markdown(&header, 2, self.changes.iter().map(row).collect()).unwrap_or_default()
        )
    }

    fn plots(&self) -> Vec<(&'static str, &'static str)> {
        vec![("moves.svg", "share of keys that change their replica, predicted and measured")]
    }

    fn draw(&self, out: &Path) -> Drawn {
        let file = out.join("moves.svg");
        let sheet = sheet(&file, (1, 2), (860, 330));
        let panels = sheet.panels()?;
        let titles = [(true, "A fourth replica is added"), (false, "One of four is removed")];
        for (area, (added, title)) in panels.iter().zip(titles) {
            let group = |change: &Change| {
                let values = [change.predicted.all, change.measured.all, change.measured.needless];
                let heights = values.map(|part| Some(Height::from(part * 100.0)));
                (label(&change.subject), heights.into())
            };
            let series = [("moved, predicted", 3), ("moved, measured", 0), ("of these needlessly", 1)];
            let chart = Grouped {
                title,
                y: "% of the keys",
                series: series.map(|(name, at)| (name.to_owned(), colour(at))).into(),
                groups: self.changes.iter().filter(|change| change.added == added).map(group).collect(),
                mark: Some((100.0 / f64::from(REPLICAS + 1), "a quarter".into())),
                number: Some(|value| format!("{value:.1}")),
            };
            grouped(area, &chart)?;
        }
        sheet.finish()
    }
}

/// Asks for each key once.
async fn owners(balancer: &Balancer, keys: &[u64], bar: &indicatif::ProgressBar) -> Result<Owners, String> {
    let ids: BTreeMap<String, u32> =
        balancer.members().await?.into_iter().map(|member| (member.hostname, member.id)).collect();
    let mut owners = vec![0; keys.len()];
    let url = |number: u64| balancer.url(&format!("/home?id={}", keys[number as usize]));
    each(keys.len() as u64, CONCURRENCY, url, |number, answer, _| {
        bar.inc(1);
        owners[number as usize] = answer.ok().and_then(|name| ids.get(&name).copied()).unwrap_or_default();
    })
    .await?;
    Ok(owners)
}

/// What the change did, in which replica `which` came or went.
fn moved(before: &Owners, after: &Owners, which: u32) -> Moved {
    let keys = before.len().max(1) as f64;
    let moves = before.iter().zip(after).filter(|(from, to)| from != to);
    let needless = moves.clone().filter(|(from, to)| **from != which && **to != which).count();
    Moved { all: moves.count() as f64 / keys, needless: needless as f64 / keys }
}

/// The same for all six-digit IDs, by calculation.
fn predicted(subject: &Subject, added: bool) -> Result<Moved, String> {
    let three = Place::first(REPLICAS);
    let four = Place::first(REPLICAS + 1);
    let rest: Vec<Place> = four.iter().copied().filter(|place| place.id != REMOVED).collect();
    let (from, to, which) = if added { (&three, &four, REPLICAS + 1) } else { (&four, &rest, REMOVED) };
    let layout = policy::layout(&subject.case().config, from);
    let layout = layout.ok_or_else(|| format!("{} does not go by keys", subject.name()))?;
    let before = layout.ownership();
    let (keys, after) = (before.keys(), layout.hold(to).ownership());
    Ok(Moved {
        all: before.moved_if(&after, &keys, |_, _| true),
        needless: before.moved_if(&after, &keys, |from, to| from != which && to != which),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_move_is_needless_if_both_replicas_stay() {
        let (before, after) = (vec![1, 1, 2, 3], vec![1, 4, 2, 1]);
        assert_eq!(moved(&before, &after, 4), Moved { all: 0.5, needless: 0.25 });
        assert_eq!(moved(&before, &before, 4), Moved { all: 0.0, needless: 0.0 });
    }

    #[test]
    fn the_page_and_the_plot_have_what_was_predicted_and_measured() {
        let change = |added, replicas, all| Change {
            subject: "maglev, 65,537".into(),
            added,
            replicas,
            predicted: Moved { all: 0.25, needless: 0.0003 },
            measured: Moved { all, needless: 0.0 },
            keys: 1000,
            failed: 0,
        };
        let moves = Moves { changes: vec![change(true, 3, 0.26), change(false, 4, 0.21)] };
        assert_eq!(moves.checks().iter().map(|check| check.holds).collect::<Vec<_>>(), [true, false], "4 points off");
        let (page, plots) = super::super::record::tests::written(moves);
        let rows: Vec<String> =
            page.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        let row = "| maglev, 65,537 | S4 is added | 25.00 % | 26.00 % | 0.03 % | 0.00 % | 0 |";
        assert!(rows.iter().any(|line| line == row), "{page}");
        assert!(page.contains("S2 is removed") && plots.contains("21.0"));
    }

    #[test]
    fn only_maglev_moves_more_than_it_must() {
        for subject in [Subject::bare()].into_iter().chain(Subject::others()) {
            for added in [true, false] {
                let moved = predicted(&subject, added).unwrap();
                let maglev = subject.name().starts_with("maglev");
                assert_eq!(moved.needless > 0.0, maglev, "{}: {moved:?}", subject.name());
                assert!(moved.needless < 0.01 && moved.all > moved.needless);
            }
        }
        let bare = predicted(&Subject::bare(), true).unwrap();
        assert!((bare.all - 0.0312).abs() < 1e-4, "{bare:?}");
    }
}
