//! The plots: `timeline.svg`, `recovery.svg`.

use std::path::Path;

use super::{A3, Series};
use crate::experiments::stage::Harm;
use crate::plot::{Drawn, Scale, Strips, Timeline, Track, colour, scatter, sheet, strips, timeline};

const SIZE: (u32, u32) = (860, 560);
/// The height of the upper panel of the timeline.
const ROWS: i32 = 330;
/// Of what is not rows, and of a row.
const AROUND: u32 = 150;
const ROW: u32 = 40;

pub(super) fn draw(found: &A3, out: &Path) -> Drawn {
    let kill = found.series.iter().find(|series| series.harm == Harm::Kill);
    if let Some(kill) = kill.filter(|series| !series.runs.is_empty()) {
        course(found, kill, &out.join("timeline.svg"))?;
    }
    recoveries(found, &out.join("recovery.svg"))
}

/// The first failure of this kind.
fn course(found: &A3, series: &Series, file: &Path) -> Drawn {
    let (Some(run), trace) = (series.runs.first(), &series.trace) else { return Ok(()) };
    let (from, to) =
        (trace.due_s.first().copied().unwrap_or_default(), trace.due_s.last().copied().unwrap_or_default());
    let label = |what: &str, ms: f64| (ms / 1e3, format!("{what}, {ms:.0} ms"));
    let events = vec![
        (0.0, series.harm.name(found.runtime).to_owned()),
        label("out of rotation", run.out_ms),
        label("replacement listed", run.listed_ms),
        label("3 ready again", run.ready_ms),
    ];
    let row = |(at, name): (usize, &String)| {
        let requests = trace.by.iter().zip(&trace.due_s).zip(&trace.took_ms);
        let points = requests.filter(|((by, _), _)| **by == at).map(|((_, due), took)| (*due, Some(*took)));
        let stretches = match name {
            name if *name == run.victim => vec![(run.out_ms / 1e3, f64::INFINITY)],
            name if *name == run.replacement => vec![(f64::NEG_INFINITY, run.ready_ms / 1e3)],
            _ => Vec::new(),
        };
        let name = match name {
            name if *name == run.victim => format!("{name}, failed"),
            name if *name == run.replacement => format!("{name}, new"),
            name => name.clone(),
        };
        Track { name, colour: colour([0, 2, 5, 6, 1][at.min(4)]), points: points.collect(), stretches }
    };
    let step = if to > 2.0 { 0.5 } else { 0.2 };
    let ticks = (-5..=40).map(|tick| f64::from(tick) * step).filter(|tick| (from..=to).contains(tick));
    let chart = Timeline {
        title: "One failure, request by request",
        x: Scale { name: "seconds", from, to, ticks: ticks.collect(), ..Scale::default() },
        events,
        stretch: "not in rotation",
        rows: trace.names.iter().enumerate().map(row).collect(),
    };
    let sheet = sheet(file, (1, 1), SIZE);
    for panel in sheet.panels()? {
        let (upper, lower) = panel.split_vertically(ROWS);
        timeline(&upper, &chart)?;
        let most = trace.took_ms.iter().copied().fold(1.0, f64::max);
        let ticks = [0.1, 1.0, 10.0, 100.0, 1000.0, 10_000.0];
        let end = ticks.into_iter().find(|tick| *tick >= most).unwrap_or(most);
        let y = Scale {
            name: "ms",
            from: 0.1,
            to: end,
            log: true,
            ticks: ticks.into_iter().filter(|tick| *tick <= end).collect(),
            ..Scale::default()
        };
        scatter(&lower, "How long each request took", &y, &chart)?;
    }
    sheet.finish()
}

/// All failures.
fn recoveries(found: &A3, file: &Path) -> Drawn {
    let row = |series: &Series| {
        let times = |value: fn(&super::Run) -> f64| series.runs.iter().map(value).collect::<Vec<_>>();
        let all = vec![times(|run| run.out_ms), times(|run| run.listed_ms), times(|run| run.ready_ms)];
        (format!("{} × {}", series.runs.len(), series.harm.name(found.runtime)), all)
    };
    let names = ["out of rotation", "replacement listed", "3 ready again"];
    let chart = Strips {
        title: "From failure to recovery",
        x: Scale {
            name: "from the harm on",
            from: 1.0,
            to: 10_000.0,
            log: true,
            ticks: vec![1.0, 10.0, 100.0, 1000.0, 10_000.0],
            tick: Some(|ms| if ms < 1000.0 { format!("{ms} ms") } else { format!("{} s", ms / 1e3) }),
        },
        series: names.iter().zip([1, 4, 0]).map(|(name, at)| ((*name).to_owned(), colour(at))).collect(),
        rows: found.series.iter().map(row).collect(),
    };
    let sheet = sheet(file, (1, 1), (SIZE.0, AROUND + 3 * ROW / 2 * found.series.len() as u32));
    for panel in sheet.panels()? {
        strips(&panel, &chart)?;
    }
    sheet.finish()
}
