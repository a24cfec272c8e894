//! The plots: `slots.svg`, `spread.svg`, `search.svg`.

use std::path::Path;

use super::report::{FLEETS, Known, Pair, Ranking, Report};
use crate::plot::{Axes, Drawn, Line, Ring, Rings, colour, lines, rings, sheet};

const WIDE: (u32, u32) = (900, 460);
const UNROLLED: (u32, u32) = (900, 430);
/// Replicas whose virtual nodes are drawn.
const REPLICAS: usize = 3;
/// Slots from one label to the next.
const EVERY: usize = 64;
const PANEL: (u32, u32) = (450, 420);
/// The functions of a family that are drawn, in percent from the best: the worst are far above all else.
const DRAWN: usize = 50;
/// The colour of ours.
const OURS: usize = 1;

/// Draws all of them.
pub(super) fn draw(report: &Report, out: &Path) -> Drawn {
    slots(report, &out.join("slots.svg"))?;
    spread(report, &out.join("spread.svg"))?;
    search(report, &out.join("search.svg"))
}

fn slots(report: &Report, file: &Path) -> Drawn {
    let ring = |pair: &Pair| {
        let nodes = report.nodes.iter().find(|nodes| nodes.function == pair.nodes);
        let placed = nodes.into_iter().flat_map(|nodes| nodes.replicas.iter().take(REPLICAS).enumerate());
        let marks = placed.flat_map(|(at, placed)| placed.slots.iter().map(move |slot| (*slot as usize, at)));
        let keys = report.keys.iter().find(|keys| keys.name == pair.keys);
        let keys = keys.into_iter().flat_map(|keys| keys.by_slot.iter().enumerate());
        let reached = keys.filter(|(_, keys)| **keys > 0).map(|(slot, _)| slot);
        Ring { name: name(pair), marks: marks.collect(), reached: reached.collect() }
    };
    let title =
        format!("Slots of {REPLICAS} replicas' virtual nodes and of all six-digit IDs, by the pair of functions");
    let chart = Rings {
        title: &title,
        x: "slot",
        slots: report.settings.slots as usize,
        every: EVERY,
        series: (0..REPLICAS).map(|at| (format!("Φ: S{}", at + 1), colour(at))).collect(),
        reached: "H: a slot that IDs have",
        rings: report.pairs.iter().map(ring).collect(),
    };
    let sheet = sheet(file, (1, 1), UNROLLED);
    for panel in sheet.panels()? {
        rings(&panel, &chart)?;
    }
    sheet.finish()
}

fn name(pair: &Pair) -> String {
    format!("H {}, Φ {}", pair.keys, pair.nodes)
}

fn spread(report: &Report, file: &Path) -> Drawn {
    let line = |(pair, at): (&Pair, usize)| {
        let points = FLEETS.start().to_owned()..;
        let points = points.zip(&pair.max_mean).map(|(replicas, value)| point(f64::from(replicas), *value));
        Line { name: name(pair), colour: colour(at), points: points.collect() }
    };
    // Ours has its colour in both plots; the fourth, grey, is nobody's.
    let pairs: Vec<Line> = report.pairs.iter().zip([0, 2, 5, OURS, 4]).map(line).collect();
    let sheet = sheet(file, (1, 1), WIDE);
    let axes = Axes {
        title: "The busiest replica, by the pair of functions",
        x: "replicas",
        y: "its share / mean",
        ticks: [2, 6, 10, 20, 30, 40, 50, 56].map(f64::from).into(),
        ..Axes::default()
    };
    for panel in sheet.panels()? {
        lines(&panel, &axes, &pairs)?;
    }
    sheet.finish()
}

fn search(report: &Report, file: &Path) -> Drawn {
    let Some(ours) = report.known.first() else { return Ok(()) };
    let panel = |ranking: fn(&super::report::Family) -> &Ranking, of: fn(&Known) -> f64| -> Vec<Line> {
        let line = |name: &str, at, points| Line { name: name.to_owned(), colour: colour(at), points };
        let mut all: Vec<Line> = Vec::new();
        for (family, at) in report.families.iter().zip([0, 2]) {
            let points = ranking(family).percentiles.iter().take(DRAWN + 1).enumerate();
            let points = points.map(|(percent, value)| point(percent as f64, above(*value)));
            all.push(line(&family.name, at, points.collect()));
        }
        let flat = [0, DRAWN].map(|percent| point(percent as f64, above(of(ours))));
        all.push(line(&ours.function.to_string(), OURS, flat.into()));
        all
    };
    let sheet = sheet(file, (2, 1), PANEL);
    let titles = super::table::ranges(report).map(|fleets| format!("Worst of N = {fleets} replicas"));
    let axes = |title| Axes {
        title,
        x: "functions that are better, % of all",
        y: "busiest replica, % above the mean",
        ticks: [0, 10, 20, 30, 40, DRAWN].map(|tick| tick as f64).into(),
        ..Axes::default()
    };
    if let [left, right] = &*sheet.panels()? {
        lines(left, &axes(&titles[0]), &panel(|family| &family.few, |known| known.worst.few))?;
        lines(right, &axes(&titles[1]), &panel(|family| &family.all, |known| known.worst.all))?;
    }
    sheet.finish()
}

fn point(x: f64, y: f64) -> (f64, f64, f64, f64) {
    (x, y, y, y)
}

fn above(max_mean: f64) -> f64 {
    (max_mean - 1.0) * 100.0
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::report;
    use super::*;

    #[test]
    fn plots_name_every_pair_and_family() {
        let dir = tempfile::tempdir().unwrap();
        draw(&report(), dir.path()).unwrap();
        let text = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        for file in ["slots.svg", "spread.svg"] {
            for word in ["H assignment, Φ assignment", "H modified, Φ modified"] {
                assert!(text(file).contains(word), "{file}: {word}");
            }
        }
        // Of each of two pairs three replicas with two nodes each, and one sign each in the legend.
        let marks = |at: usize| {
            let colour = ["#4477AA", "#EE6677", "#228833"][at];
            text("slots.svg").matches(&format!("stroke=\"{colour}\"")).count()
        };
        assert_eq!([marks(0), marks(1), marks(2)], [5; 3]);
        for word in ["m(9i + j), m odd", "drawn", "modified", "N = 2 to 6 ", "N = 2 to 56 "] {
            assert!(text("search.svg").contains(word), "{word}");
        }
    }
}
