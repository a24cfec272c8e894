//! Tables and plots that several experiments have.

use std::path::Path;

use super::spread::Spread;
use crate::bench::table::markdown;
use crate::plot::{Dots, Drawn, colour, dots, sheet};

/// The height of what is not rows, and of a row.
const AROUND: u32 = 130;
const ROW: u32 = 30;
const WIDTH: u32 = 860;

/// A row for each load.
pub(super) fn spreads<'a>(all: impl Iterator<Item = &'a Spread> + Clone) -> String {
    let replicas = all.clone().map(|spread| spread.counts.len()).max().unwrap_or_default();
    let mut header = ["placement", "N", "in flight", "each takes"].map(String::from).to_vec();
    header.extend((1..=replicas).map(|id| format!("S{id}")));
    let rest = ["failed", "max/mean", "predicted", "off", "sd", "requests/s", "p50 ms", "p99 ms"];
    header.extend(rest.map(String::from));
    let row = |spread: &Spread| {
        let outcome = &spread.outcome;
        let all_at_once = spread.concurrency >= outcome.answered() + outcome.failed();
        let in_flight = if all_at_once { "all".into() } else { spread.concurrency.to_string() };
        let counts = (0..replicas).map(|at| spread.counts.get(at).map_or_else(String::new, u64::to_string));
        let predicted = spread.predicted_max_mean().map_or_else(|| "-".into(), ratio);
        let off = spread.off().map_or_else(|| "-".into(), |off| format!("{:.2} %", off * 100.0));
        let figures = [
            outcome.failed().to_string(),
            ratio(spread.max_mean()),
            if spread.exact || predicted == "-" { predicted } else { format!("({predicted})") },
            off,
            format!("{:.0}", spread.deviation()),
            format!("{:.0}", outcome.per_second()),
            format!("{:.1}", outcome.p50_ms),
            format!("{:.1}", outcome.p99_ms),
        ];
        let takes = spread.service.map_or_else(String::new, |service| format!("{} ms", service.ms));
        let head = [spread.subject.clone(), spread.replicas.to_string(), in_flight, takes];
        head.into_iter().chain(counts).chain(figures).collect::<Vec<_>>()
    };
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    markdown(&header, 1, all.map(row).collect()).unwrap_or_default()
}

/// A subject's name below a group of bars: it breaks where it should.
pub(super) fn label(subject: &str) -> String {
    subject.replace(" × ", "×").replace(", ", "\n")
}

pub(super) fn ratio(value: f64) -> String {
    format!("{value:.2}")
}

/// Rows of shares in percent, a dot for each replica.
pub(super) fn shares(file: &Path, title: &str, rows: Vec<(String, Vec<Option<f64>>)>) -> Drawn {
    let replicas = rows.iter().map(|(_, shares)| shares.len()).max().unwrap_or_default();
    let most = rows.iter().flat_map(|(_, shares)| shares).flatten().copied().fold(0.0, f64::max);
    let sheet = sheet(file, (1, 1), (WIDTH, AROUND + ROW * rows.len() as u32));
    let chart = Dots {
        title,
        x: "share of the requests, % (the line: all alike)",
        from: 0.0,
        to: most * 1.05,
        ticks: (0..=10).map(|tick| f64::from(tick) * 10.0).filter(|tick| *tick <= most * 1.05).collect(),
        mark: Some(100.0 / replicas.max(1) as f64),
        series: (0..replicas).map(|at| (format!("S{}", at + 1), colour(at))).collect(),
        rows,
    };
    for panel in sheet.panels()? {
        dots(&panel, &chart)?;
    }
    sheet.finish()
}

#[cfg(test)]
mod tests {
    use super::super::spread::tests::example;
    use super::super::stage::Service;
    use super::*;

    #[test]
    fn loads_of_different_fleets_line_up_in_one_table() {
        let (small, large) = (example("bare", 100, &[60, 40]), example("bounded", 200, &[100, 50, 50]));
        let service = Some(Service { ms: 10, at_once: 8 });
        let unsure = Spread { exact: false, service, ..large.clone() };
        let unknown = Spread { predicted: Vec::new(), ..large };
        let table = spreads([&small, &unsure, &unknown].into_iter());
        let rows: Vec<String> =
            table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(rows[2], "| bare | 2 | all | | 60 | 40 | | 0 | 1.20 | 1.20 | 0.00 % | 10 | 200 | 3.0 | 9.0 |");
        assert_eq!(
            rows[3],
            "| bounded | 3 | all | 10 ms | 100 | 50 | 50 | 0 | 1.50 | (1.50) | 0.00 % | 24 | 400 | 3.0 | 9.0 |"
        );
        assert!(rows[4].contains("| 1.50 | - | - |"), "{table}");
    }
}
