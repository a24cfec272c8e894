//! The plots: `autoscale.svg`, and `variants.svg` with the comparison.

use std::path::Path;

use super::run::Run;
use super::{Autoscale, EACH_MS, TARGET};
use crate::plot::{Course, Drawn, Layer, Scale, Shape, colour, course, sheet, steps};

const WIDTH: u32 = 830;
/// The upper and the lower panel of the first plot, and that of the second.
const UPPER: u32 = 330;
const LOWER: u32 = 400;
const VARIANTS: u32 = 430;
/// Of what there is, and of what is too much.
const LOAD: usize = 4;
const REPLICAS: usize = 0;
const REQUESTS: usize = 0;
const P99: usize = 2;
const LIMIT: usize = 1;
/// A line for each variant.
const LINES: [usize; 6] = [1, 2, 4, 0, 5, 6];
const DECADES: [f64; 6] = [10.0, 20.0, 50.0, 100.0, 200.0, 500.0];

pub(super) fn draw(found: &Autoscale, out: &Path) -> Drawn {
    waves(&found.waves, &out.join("autoscale.svg"))?;
    variants(&found.variants, &out.join("variants.svg"))
}

/// The load and N, and each request.
fn waves(run: &Run, file: &Path) -> Drawn {
    let seconds = f64::from(run.case.wave.seconds());
    let sheet = sheet(file, (1, 1), (WIDTH, UPPER + LOWER));
    for panel in sheet.panels()? {
        let (upper, lower) = panel.split_vertically(UPPER);
        course(&upper, &load_and_n(run, seconds))?;
        let (requests, p99) = (run.requests(), run.p99());
        let most = requests.iter().map(|(_, took)| *took).fold(run.limit(), f64::max);
        let layer = |name: String, at, shape| Layer { name, colour: colour(at), shape, right: false };
        let chart = Course {
            title: "How long each request took, from when it was due",
            x: time(seconds),
            y: latency("ms (log)", most),
            right: None,
            aligned: true,
            bands: bands(run),
            layers: vec![
                layer("a request".into(), REQUESTS, Shape::Dots(requests)),
                layer("p99 of the last second's requests".into(), P99, Shape::Line(p99)),
                layer(
                    format!("the limit, twice the calm p99: {:.0} ms", run.limit()),
                    LIMIT,
                    Shape::Limit(run.limit()),
                ),
            ],
        };
        course(&lower, &chart)?;
    }
    sheet.finish()
}

/// One replica at its target has the height of the requests that it answers then, so N is right where it covers the load.
fn load_and_n(run: &Run, seconds: f64) -> Course<'static> {
    let each = TARGET * 1e3 / f64::from(EACH_MS);
    let wave = &run.case.wave;
    let mut load: Vec<(f64, f64)> = wave.parts().map(|(begin, _, rate)| (f64::from(begin), f64::from(rate))).collect();
    load.push((seconds, 0.0));
    let most = run.fleet.iter().map(|stand| stand.n.max(stand.ready)).max().unwrap_or_default() + 1;
    let of = |value: fn(&super::run::Stand) -> u32| {
        let begin = run.stand(0.0).map(|stand| (0.0, f64::from(value(stand))));
        let points = run.fleet.iter().map(|stand| (stand.at.min(seconds), f64::from(value(stand))));
        let end = run.stand(seconds).map(|stand| (seconds, f64::from(value(stand))));
        Shape::Steps(begin.into_iter().chain(points).chain(end).collect())
    };
    let layer = |name: &str, at, shape, right| Layer { name: name.into(), colour: colour(at), shape, right };
    let top = f64::from(most);
    Course {
        title: "The load, and N: where the line meets the load, each replica has 2 requests in flight",
        x: time(seconds),
        y: Scale { name: "requests a second", to: top * each, ticks: steps(top * each), ..Scale::default() },
        right: Some(Scale {
            name: "replicas",
            to: top,
            ticks: (0..=most).map(f64::from).collect(),
            ..Scale::default()
        }),
        aligned: true,
        bands: bands(run),
        layers: vec![
            layer("requests a second", LOAD, Shape::Blocks(load), false),
            layer("N, replicas", REPLICAS, of(|stand| stand.n), true),
        ],
    }
}

/// p99 of all variants over the same wave.
fn variants(runs: &[Run], file: &Path) -> Drawn {
    let Some(first) = runs.first() else { return Ok(()) };
    let seconds = f64::from(first.case.wave.seconds());
    let lines: Vec<Vec<(f64, f64)>> = runs.iter().map(Run::p99).collect();
    let most = lines.iter().flatten().map(|(_, ms)| *ms).fold(first.limit(), f64::max);
    let line = |at: usize, run: &Run, points| Layer {
        name: run.case.name.clone(),
        colour: colour(LINES[at % LINES.len()]),
        shape: Shape::Line(points),
        right: false,
    };
    let layers = runs.iter().zip(lines).enumerate().map(|(at, (run, points))| line(at, run, points));
    let chart = Course {
        title: "The same wave at the same time: p99 of the last second's requests",
        x: time(seconds),
        y: latency("ms (log)", most),
        right: None,
        aligned: false,
        bands: bands(first),
        layers: layers.collect(),
    };
    let sheet = sheet(file, (1, 1), (WIDTH, VARIANTS));
    for panel in sheet.panels()? {
        course(&panel, &chart)?;
    }
    sheet.finish()
}

fn time(seconds: f64) -> Scale<'static> {
    Scale { name: "seconds; shaded: the load is high", to: seconds, ticks: steps(seconds), ..Scale::default() }
}

/// From below what a request takes to above the slowest one.
fn latency(name: &'static str, most: f64) -> Scale<'static> {
    let least = f64::from(EACH_MS) * 0.8;
    let ticks: Vec<f64> = [1.0, 100.0].iter().flat_map(|by| DECADES.map(|tick| tick * by)).collect();
    let to = ticks.iter().copied().find(|tick| *tick >= most * 1.05).unwrap_or(most);
    let ticks = ticks.into_iter().filter(|tick| (least..=to).contains(tick)).collect();
    Scale { name, from: least, to, log: true, ticks, tick: None }
}

/// Where the load is high.
fn bands(run: &Run) -> Vec<(f64, f64)> {
    run.case.wave.spans().iter().map(|span| (f64::from(span.jump), f64::from(span.fall))).collect()
}
