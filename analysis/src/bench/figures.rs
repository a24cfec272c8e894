//! The plots of a run: `cpu.svg`, `growth.svg`, `latency.svg`.

use std::path::Path;

use plotters::style::RGBColor;

use super::proxies::Kind;
use super::report::{Report, Sample, Spread};
use super::table::number;
use super::workload::{GROWTH, MEMBERS, PACED, PICK, REBUILD, RELAYED, UDP, WORKLOADS};
use crate::plot::{Area, Axes, Bar, Drawn, Line, bars, colour, lines, sheet};

/// Panels of a row of the sheet.
const COLUMNS: usize = 4;
const PANEL: (u32, u32) = (360, 300);
const WIDE: (u32, u32) = (520, 400);

/// What fills a panel.
type Panel<'a> = dyn Fn(&Area<'_>) -> Drawn + 'a;

/// Draws what the report has the values of.
pub(crate) fn draw(report: &Report, out: &Path) -> Drawn {
    cpu(report, &out.join("cpu.svg"))?;
    growth(report, &out.join("growth.svg"))?;
    latency(report, &out.join("latency.svg"))
}

/// A proxy has the same colour everywhere.
fn proxy_colour(name: &str) -> RGBColor {
    colour(Kind::ALL.iter().position(|kind| kind.name() == name).unwrap_or(Kind::ALL.len()))
}

fn cpu(report: &Report, file: &Path) -> Drawn {
    let requests = WORKLOADS.iter().chain(&RELAYED).map(|row| (row.id, row.title, "µs CPU by request"));
    let datagrams = UDP.iter().map(|row| (row.id, row.title, "µs CPU by datagram and echo"));
    let rows: Vec<_> = requests.chain(datagrams).filter(|(id, ..)| !report.subjects(id).is_empty()).collect();
    if rows.is_empty() {
        return Ok(());
    }
    let columns = rows.len().min(COLUMNS);
    let sheet = sheet(file, (columns, rows.len().div_ceil(columns)), PANEL);
    for ((id, title, unit), panel) in rows.into_iter().zip(sheet.panels()?) {
        let bar = |name: &str| {
            let Spread { median, min, max } = Spread::of(report.of(id, name).map(|sample| sample.cpu_us))?;
            Some(Bar { name: name.into(), colour: proxy_colour(name), median, min, max })
        };
        let all: Vec<Bar> = report.subjects(id).into_iter().filter_map(bar).collect();
        bars(&panel, title, unit, &all, number)?;
    }
    sheet.finish()
}

fn growth(report: &Report, file: &Path) -> Drawn {
    let mut panels: Vec<Box<Panel<'_>>> = Vec::new();
    if !report.subjects(MEMBERS).is_empty() {
        panels.push(Box::new(|panel| members(report, panel)));
    }
    for (row, title, y, scale) in [
        (PICK, "Time of one pick, 64 requests in flight", "ns", 1.0),
        (REBUILD, "Time from a new list of members to a picker", "µs", 1e3),
    ] {
        if report.timings.iter().any(|timing| timing.row == row) {
            panels.push(Box::new(move |panel| timings(report, panel, row, (title, y), scale)));
        }
    }
    if panels.is_empty() {
        return Ok(());
    }
    let sheet = sheet(file, (panels.len(), 1), WIDE);
    for (draw, panel) in panels.iter().zip(sheet.panels()?) {
        draw(&panel)?;
    }
    sheet.finish()
}

fn members(report: &Report, panel: &Area<'_>) -> Drawn {
    let line = |name: &str, colour, value: fn(&Sample) -> f64| {
        let point = |members: u16| {
            let spread = Spread::of(report.of(MEMBERS, &format!("lb-{members}")).map(value))?;
            Some((f64::from(members), spread.median, spread.min, spread.max))
        };
        Line { name: name.into(), colour, points: GROWTH.into_iter().filter_map(point).collect() }
    };
    let all = [
        line("all of it", proxy_colour("lb"), |sample| sample.cpu_us),
        line("without heartbeats", colour(1), Sample::net_cpu_us),
    ];
    let axes = Axes {
        title: "CPU time by request, 54 B, 64 connections",
        x: "members",
        y: "µs",
        log_x: true,
        log_y: false,
        ticks: GROWTH.map(f64::from).to_vec(),
        ..Axes::default()
    };
    lines(panel, &axes, &all)
}

fn timings(report: &Report, panel: &Area<'_>, row: &str, (title, y): (&str, &str), scale: f64) -> Drawn {
    let of_row = || report.timings.iter().filter(|timing| timing.row == row);
    let (mut cases, mut ticks): (Vec<&str>, Vec<u32>) = (Vec::new(), Vec::new());
    for timing in of_row() {
        if !cases.contains(&timing.case.as_str()) {
            cases.push(&timing.case);
        }
        ticks.push(timing.members);
    }
    ticks.sort_unstable();
    ticks.dedup();
    let line = |(index, case): (usize, &&str)| Line {
        name: (*case).to_owned(),
        colour: colour(index),
        points: of_row()
            .filter(|timing| timing.case == *case)
            .map(|timing| {
                let [median, min, max] =
                    [timing.median_ns, timing.lower_ns, timing.upper_ns].map(|nanos| nanos / scale);
                (f64::from(timing.members), median, min, max)
            })
            .collect(),
    };
    let all: Vec<Line> = cases.iter().enumerate().map(line).collect();
    let axes = Axes {
        title,
        x: "members",
        y,
        log_x: true,
        log_y: row == REBUILD,
        ticks: ticks.into_iter().map(f64::from).collect(),
        ..Axes::default()
    };
    lines(panel, &axes, &all)
}

fn latency(report: &Report, file: &Path) -> Drawn {
    let subjects = report.subjects(PACED);
    let Some(first) = report.samples.iter().find(|sample| sample.row == PACED) else { return Ok(()) };
    let quantiles: Vec<f64> = first.quantiles_us.iter().map(|(quantile, _)| *quantile).collect();
    let sheet = sheet(file, (quantiles.len(), 1), PANEL);
    for (at, (panel, quantile)) in sheet.panels()?.into_iter().zip(quantiles).enumerate() {
        let bar = |name: &&str| {
            let values = report.of(PACED, name).filter_map(|sample| Some(sample.quantiles_us.get(at)?.1));
            let Spread { median, min, max } = Spread::of(values)?;
            Some(Bar { name: (*name).to_owned(), colour: proxy_colour(name), median, min, max })
        };
        let all: Vec<Bar> = subjects.iter().filter_map(bar).collect();
        let title = format!("p{} at {:.0} requests/s", quantile * 100.0, first.per_second);
        bars(&panel, &title, "µs from when it was due", &all, number)?;
    }
    sheet.finish()
}
