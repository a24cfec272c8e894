//! The plots: `spread.svg`, `shares.svg`, `moves.svg`.

use std::path::Path;

use super::report::{BOUNDS, FLEETS, IN_FLIGHT, Report, SIX};
use crate::plot::{Axes, Dots, Drawn, Line, colour, dots, lines, sheet};

/// The height of what is not rows, and of a row.
const AROUND: u32 = 130;
const ROW: u32 = 34;
const WIDTH: u32 = 900;
const PANEL: (u32, u32) = (560, 480);
/// Cases that only repeat what the others show are left out of the plot of moves.
const LEFT_OUT: [&str; 2] = ["consistent, modified, 65,536 × 1000", "consistent, xxh3, 65,536 × 1000"];

/// Draws what the report has the figures of.
pub(super) fn draw(report: &Report, out: &Path) -> Drawn {
    spread(report, &out.join("spread.svg"))?;
    shares(report, &out.join("shares.svg"))?;
    moves(report, &out.join("moves.svg"))
}

fn spread(report: &Report, file: &Path) -> Drawn {
    let replicas = FLEETS[0];
    let columns = [(0, None), (IN_FLIGHT, None)].into_iter().chain(BOUNDS.map(|bound| (IN_FLIGHT, Some(bound))));
    let columns: Vec<(usize, Option<f64>)> = columns.collect();
    let name = |(in_flight, bound): &(usize, Option<f64>)| match (in_flight, bound) {
        (0, _) => "one request at a time".to_owned(),
        (in_flight, None) => format!("{in_flight} in flight, no bound"),
        (in_flight, Some(bound)) => format!("{in_flight} in flight, bound {bound}"),
    };
    let row = |case: &&str| {
        let values = columns.iter().map(|(in_flight, bound)| {
            report.spread_of(case, replicas, *in_flight, *bound).map(|evenness| evenness.max_mean)
        });
        ((*case).to_owned(), values.collect())
    };
    let rows: Vec<(String, Vec<Option<f64>>)> = report.cases().iter().map(row).collect();
    let most = rows.iter().flat_map(|(_, values)| values).flatten().copied().fold(1.0, f64::max);
    let chart = Dots {
        title: &format!("The busiest of {replicas} replicas"),
        x: "requests of the busiest replica / mean",
        series: columns.iter().enumerate().map(|(at, column)| (name(column), colour(at))).collect(),
        from: 0.95,
        to: most * 1.05,
        ticks: [1.0, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5, 2.75, 3.0]
            .into_iter()
            .filter(|tick| *tick <= most * 1.05)
            .collect(),
        mark: Some(1.0),
        rows,
    };
    one(file, &chart)
}

fn shares(report: &Report, file: &Path) -> Drawn {
    let row = |row: &super::report::Shares| {
        (row.case.clone(), row.shares.iter().map(|share| Some(share * 100.0)).collect::<Vec<_>>())
    };
    let rows: Vec<_> = report.shares.iter().map(row).collect();
    let most = rows.iter().flat_map(|(_, values)| values).flatten().copied().fold(0.0, f64::max);
    let chart = Dots {
        title: &format!("What each of {SIX} replicas owns"),
        x: "share of all six-digit IDs, % (the line: what is due to each)",
        series: (0..SIX).map(|at| (format!("S{}", at + 1), colour(at as usize))).collect(),
        from: 0.0,
        to: most * 1.05,
        ticks: (0..=10).map(|tick| f64::from(tick) * 10.0).filter(|tick| *tick <= most * 1.05).collect(),
        mark: Some(100.0 / f64::from(SIX)),
        rows,
    };
    one(file, &chart)
}

fn one(file: &Path, chart: &Dots<'_>) -> Drawn {
    if chart.rows.is_empty() {
        return Ok(());
    }
    let sheet = sheet(file, (1, 1), (WIDTH, AROUND + ROW * chart.rows.len() as u32));
    for panel in sheet.panels()? {
        dots(&panel, chart)?;
    }
    sheet.finish()
}

fn moves(report: &Report, file: &Path) -> Drawn {
    let mut cases: Vec<&str> = Vec::new();
    for row in &report.moves {
        if !cases.contains(&row.case.as_str()) && !LEFT_OUT.contains(&row.case.as_str()) {
            cases.push(&row.case);
        }
    }
    let mut sizes: Vec<f64> = report.moves.iter().map(|row| f64::from(row.replicas)).collect();
    sizes.sort_by(f64::total_cmp);
    sizes.dedup();
    if sizes.is_empty() {
        return Ok(());
    }
    let all = |value: fn(&super::report::Moves) -> f64| -> Vec<Line> {
        let line = |(at, case): (usize, &&str)| {
            let points = report.moves.iter().filter(|row| row.case == **case).map(|row| {
                let percent = value(row) * 100.0;
                (f64::from(row.replicas), percent, percent, percent)
            });
            // The fourth colour, grey, is the ideal's.
            Line {
                name: (*case).to_owned(),
                colour: colour(if at < 3 { at } else { at + 1 }),
                points: points.collect(),
            }
        };
        cases.iter().enumerate().map(line).collect()
    };
    let ideal = Line {
        name: "the least possible on average, 1/N".into(),
        colour: colour(3),
        points: sizes.iter().map(|size| (*size, 100.0 / size, 100.0 / size, 100.0 / size)).collect(),
    };
    let sheet = sheet(file, (2, 1), PANEL);
    let panels = sheet.panels()?;
    let axes = |title| Axes {
        title,
        x: "replicas before one is removed",
        y: "% of all six-digit IDs",
        log_x: true,
        ticks: sizes.clone(),
        ..Axes::default()
    };
    if let [left, right] = &*panels {
        let worst: Vec<Line> = [ideal].into_iter().chain(all(|row| row.removed.worst)).collect();
        lines(left, &Axes { log_y: true, most: Some(2.0), ..axes("Moved, if the worst one is removed") }, &worst)?;
        let extra = all(|row| row.survivors.worst);
        lines(right, &Axes { nested: true, ..axes("Of these: between survivors") }, &extra)?;
    }
    sheet.finish()
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::report;
    use super::*;

    #[test]
    fn plots_name_every_case() {
        let dir = tempfile::tempdir().unwrap();
        draw(&report(), dir.path()).unwrap();
        let text = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        for word in ["consistent, assignment, 512 × 9", "maglev, 65,537", "random", "bound 1.25"] {
            assert!(text("spread.svg").contains(word), "{word}");
        }
        assert!(text("shares.svg").contains("S6"));
        assert!(text("moves.svg").contains("maglev, 65,537") && text("moves.svg").contains("1/N"));
    }
}
