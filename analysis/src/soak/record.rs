//! What was seen once a second, and whether memory stayed flat.

use std::path::Path;

use serde::Serialize;

use crate::plot::{Area, Axes, Drawn, Line, colour, lines, sheet, steps};

/// Memory may grow by this part from the second quarter to the last, and by this many KiB on top.
const GROWTH: f64 = 0.05;
const SLACK_KIB: u64 = 1024;
/// Fewer looks than this in a quarter say nothing.
const FEWEST: usize = 3;
const PANEL: (u32, u32) = (900, 260);

/// One second of the run.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Second {
    /// Since the beginning.
    pub(super) seconds: f64,
    /// Done so far, failed ones included.
    pub(super) requests: u64,
    pub(super) failures: u64,
    /// In this second.
    pub(super) per_second: f64,
    /// Of `lb` without its replicas.
    pub(super) rss_kib: u64,
}

/// Medians of resident memory, by quarters of the requests.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Memory {
    pub(super) second_quarter_kib: u64,
    pub(super) last_quarter_kib: u64,
    pub(super) limit_kib: u64,
    pub(super) flat: bool,
}

impl Memory {
    /// `None` if there are too few samples.
    pub(super) fn judge(samples: &[Second], total: u64) -> Option<Self> {
        let quarter = |number: u64| {
            let inside = samples.iter().filter(|sample| sample.requests * 4 / total.max(1) == number);
            let mut kib: Vec<u64> = inside.map(|sample| sample.rss_kib).collect();
            kib.sort_unstable();
            (kib.len() >= FEWEST).then(|| kib[kib.len() / 2])
        };
        let (second_quarter_kib, last_quarter_kib) = (quarter(1)?, quarter(3)?);
        let limit_kib = (second_quarter_kib as f64 * (1.0 + GROWTH)) as u64 + SLACK_KIB;
        Some(Self { second_quarter_kib, last_quarter_kib, limit_kib, flat: last_quarter_kib <= limit_kib })
    }
}

/// Memory and throughput over requests, as SVG.
pub(super) fn draw(samples: &[Second], file: &Path) -> Drawn {
    let Some(last) = samples.last() else { return Ok(()) };
    let (scale, x) = if last.requests < 2_000_000 { (1e3, "thousand requests") } else { (1e6, "million requests") };
    let sheet = sheet(file, (1, 2), PANEL);
    let end = last.requests as f64 / scale;
    let draw = |panel: &Area<'_>, index: usize, (title, y): (&str, &str), value: fn(&Second) -> f64| {
        let point = |second: &Second| (second.requests as f64 / scale, value(second), value(second), value(second));
        let line = Line { name: y.into(), colour: colour(index), points: samples.iter().map(point).collect() };
        let axes =
            Axes { title, x, y, log_x: false, log_y: false, ticks: steps(end), right: Some(end), ..Axes::default() };
        lines(panel, &axes, &[line])
    };
    let panels = sheet.panels()?;
    draw(&panels[0], 0, ("Resident memory of lb", "MiB"), |second| second.rss_kib as f64 / 1024.0)?;
    draw(&panels[1], 1, ("Throughput, failed requests included", "requests/s"), |second| second.per_second)?;
    sheet.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(kib: impl Fn(u64) -> u64) -> Vec<Second> {
        (1..=100)
            .map(|number| Second {
                seconds: number as f64,
                requests: number * 10,
                failures: 0,
                per_second: 10.0,
                rss_kib: kib(number),
            })
            .collect()
    }

    #[test]
    fn warming_up_is_no_growth_but_a_leak_is() {
        let warm = Memory::judge(&run(|number| if number < 20 { number * 1000 } else { 20_000 }), 1000).unwrap();
        assert!(warm.flat, "{warm:?}");
        let leak = Memory::judge(&run(|number| 20_000 + number * 100), 1000).unwrap();
        assert!(!leak.flat, "{leak:?}");
        assert_eq!(leak.limit_kib, (leak.second_quarter_kib as f64 * 1.05) as u64 + 1024);
        let peak = Memory::judge(&run(|number| if number == 90 { 90_000 } else { 20_000 }), 1000).unwrap();
        assert!(peak.flat, "the median of a quarter is judged, not its peak");
    }

    #[test]
    fn too_few_samples_say_nothing() {
        assert_eq!(Memory::judge(&run(|_| 1)[..60], 1000), None);
        assert_eq!(Memory::judge(&[], 1000), None);
    }

    #[test]
    fn the_plot_has_units() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("soak.svg");
        draw(&run(|_| 20_000), &file).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(["MiB", "requests/s", "thousand requests"].iter().all(|word| text.contains(word)));
    }
}
