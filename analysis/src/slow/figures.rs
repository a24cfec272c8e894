//! The plots: `slow-latency.svg` and `slow-midway.svg`.

use std::path::Path;

use plotters::style::RGBColor;

use super::report::{PARTS_A_SECOND, Part, Phase, REPLICAS, Report, Run};
use crate::plot::{Area, Axes, Drawn, Line, colour, lines, sheet, steps};

/// Colours of policies: they are the same whichever others were measured.
const COLOURS: [(&str, usize); 5] =
    [("round-robin", 0), ("random", 4), ("least-requests", 5), ("peak-ewma", 2), ("consistent", 1)];
const OTHER: usize = 6;
const LATENCY: (u32, u32) = (760, 460);
const MIDWAY: (u32, u32) = (900, 330);
/// Percentiles that are labelled, as 1 of how many requests takes longer: p50, p75, p90, p95, p99, p99.9.
const TICKS: [f64; 6] = [2.0, 4.0, 10.0, 20.0, 100.0, 1000.0];
/// Points of a line from the first of these to the last.
const POINTS: u32 = 200;

/// Draws what the report has the values of.
pub(super) fn draw(report: &Report, out: &Path) -> Drawn {
    latency(report, &out.join("slow-latency.svg"))?;
    midway(report, &out.join("slow-midway.svg"))
}

/// Latency by percentile, a line for each policy; to the right ever fewer requests take longer.
fn latency(report: &Report, file: &Path) -> Drawn {
    let (first, last) = (TICKS[0].log10(), TICKS[TICKS.len() - 1].log10());
    let of_how_many: Vec<f64> =
        (0..=POINTS).map(|point| 10_f64.powf(first + (last - first) * f64::from(point) / f64::from(POINTS))).collect();
    let parts: Vec<f64> = of_how_many.iter().map(|count| 1.0 - 1.0 / count).collect();
    let line = |run: &Run| {
        let points = of_how_many.iter().zip(run.quantiles(&parts)?).map(|(x, ms)| (*x, ms, ms, ms)).collect();
        Some(Line { name: run.policy.clone(), colour: policy_colour(&run.policy), points })
    };
    let all: Vec<Line> = report.of(Phase::Steady).filter_map(line).collect();
    if all.is_empty() {
        return Ok(());
    }
    let settings = &report.settings;
    let title = format!(
        "Latency before {REPLICAS} replicas, one of which takes {} ms, the others {} ms",
        settings.slow_ms, settings.fast_ms
    );
    let axes = Axes {
        title: &title,
        x: "percentile of the requests",
        y: "ms from when a request was due (log)",
        log_x: true,
        log_y: true,
        ticks: TICKS.to_vec(),
        tick: Some(percentile),
        nested: true,
        ..Axes::default()
    };
    let sheet = sheet(file, (1, 1), LATENCY);
    for panel in sheet.panels()? {
        lines(&panel, &axes, &all)?;
    }
    sheet.finish()
}

/// The name of the percentile that 1 of so many exceeds.
fn percentile(of_how_many: f64) -> String {
    let text = format!("{:.1}", 100.0 * (1.0 - 1.0 / of_how_many));
    format!("p{}", text.trim_end_matches(".0"))
}

/// p99 and the slow replica's share over time, while it is fast, slow, and fast again.
fn midway(report: &Report, file: &Path) -> Drawn {
    if report.of(Phase::Midway).all(|run| run.whole().latency.is_none()) {
        return Ok(());
    }
    let settings = &report.settings;
    let third = settings.third().as_secs_f64();
    let p99 = format!(
        "p99 by half seconds; in the shaded time one of {REPLICAS} replicas takes {} ms instead of {}",
        settings.slow_ms, settings.fast_ms
    );
    let share = format!(
        "That replica's share of the answers by half seconds; a fair one is {:.0} %",
        100.0 / f64::from(REPLICAS)
    );
    let axes = |title, y| Axes {
        title,
        x: "s from the beginning",
        y,
        ticks: steps(third * 3.0),
        right: Some(third * 3.0),
        band: Some((third, third * 2.0)),
        ..Axes::default()
    };
    let sheet = sheet(file, (1, 2), MIDWAY);
    let panels = sheet.panels()?;
    let log = Axes { log_y: true, nested: true, ..axes(&p99, "ms from when due (log)") };
    over_time(report, &panels[0], &log, |part| part.latency.map(|latency| latency.p99_ms))?;
    let percent = Axes { most: Some(100.0), ..axes(&share, "% of the answers") };
    over_time(report, &panels[1], &percent, |part| part.slow_share.map(|share| share * 100.0))?;
    sheet.finish()
}

/// A line for each policy, with a point in the middle of each half second that has the value.
fn over_time(report: &Report, panel: &Area<'_>, axes: &Axes<'_>, value: fn(&Part) -> Option<f64>) -> Drawn {
    let line = |run: &Run| {
        let point = |(half, part): (u32, &Part)| {
            let value = value(part)?;
            Some(((f64::from(half) + 0.5) / f64::from(PARTS_A_SECOND), value, value, value))
        };
        let points = (0..).zip(&run.series(report.settings.rate)).filter_map(point).collect();
        Line { name: run.policy.clone(), colour: policy_colour(&run.policy), points }
    };
    let all: Vec<Line> = report.of(Phase::Midway).map(line).collect();
    lines(panel, axes, &all)
}

fn policy_colour(policy: &str) -> RGBColor {
    colour(COLOURS.iter().find(|(name, _)| *name == policy).map_or(OTHER, |(_, index)| *index))
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::report;
    use super::*;

    #[test]
    fn percentiles_are_named() {
        assert_eq!(TICKS.map(percentile), ["p50", "p75", "p90", "p95", "p99", "p99.9"]);
    }

    #[test]
    fn plots_say_what_they_show() {
        let dir = tempfile::tempdir().unwrap();
        draw(&report(), dir.path()).unwrap();
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        let (latency, midway) = (read("slow-latency.svg"), read("slow-midway.svg"));
        for word in ["Latency before 4 replicas", "p99.9", "round-robin", "peak-ewma", "ms from when a request was due"]
        {
            assert!(latency.contains(word), "{word}");
        }
        for word in ["takes 200 ms instead of 2", "a fair one is 25 %", "s from the beginning", "ms from when due"] {
            assert!(midway.contains(word), "{word}");
        }
    }

    #[test]
    fn runs_without_an_answer_are_not_drawn() {
        let dir = tempfile::tempdir().unwrap();
        let mut report = report();
        report.runs.iter_mut().for_each(|run| run.outcome.answered_by.fill(0));
        draw(&report, dir.path()).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
