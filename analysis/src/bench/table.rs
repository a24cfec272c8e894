//! `bench.md`: tables that line up as plain text, too.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, Table, presets};

use super::goals::Verdict;
use super::relay::CONNECTIONS;
use super::report::{Report, Sample, Spread};
use super::workload::{MEMBERS, PACED, RELAY_IDLE, RELAYED, UDP, WORKLOADS, Workload};

/// The whole page.
pub(crate) fn page(report: &Report) -> String {
    let machine = &report.machine;
    let peers = [&machine.nginx, &machine.haproxy, &machine.wrk].into_iter().flatten().cloned().collect::<Vec<_>>();
    let mut page = format!(
        "# Benchmark\n\n{machine}.\n{}; {}.\n{} rounds, {} s a sample; medians, least to most \
         in brackets. How this is measured: docs/benchmarks.md.\n",
        machine.lb,
        peers.join("; "),
        report.rounds,
        report.seconds,
    );
    if let Some(failed) = &report.failed {
        let _ = write!(page, "\nFAILED, so this is a part only: {failed}\n");
    }
    for skipped in &report.skipped {
        let _ = write!(page, "\nSkipped: {skipped}\n");
    }
    let mut section = |title: &str, table: Option<String>| {
        if let Some(table) = table {
            let _ = write!(page, "\n## {title}\n\n{table}\n");
        }
    };
    section("Goals", goals(&report.verdicts));
    section("CPU time by request, saturating load", workloads(report, &WORKLOADS));
    section("Latency at one rate for all", paced(report));
    section("Idle connections", idle(report));
    section("Growing fleet", members(report));
    section("TCP relays: CPU time by request, saturating load", workloads(report, &RELAYED));
    section("UDP relays: CPU time by datagram and its echo, saturating load", datagrams(report));
    section("Idle TCP connections and UDP flows", relay_idle(report));
    section("Pieces", timings(report));
    page
}

/// Rows under a header, all columns but the first `words` right-aligned; `None` without rows.
pub(crate) fn markdown(header: &[&str], words: usize, rows: Vec<Vec<String>>) -> Option<String> {
    if rows.is_empty() {
        return None;
    }
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN).set_header(header.to_vec());
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(words) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    Some(table.to_string())
}

pub(crate) fn goals(verdicts: &[Verdict]) -> Option<String> {
    let row = |verdict: &Verdict| {
        vec![
            verdict.row.clone(),
            verdict.goal.clone(),
            format!("{} {}", if verdict.at_least { "≥" } else { "≤" }, number(verdict.limit)),
            number(verdict.measured.median),
            range(verdict.measured),
            if verdict.holds { "yes" } else { "NO" }.into(),
        ]
    };
    let header = ["row", "goal", "limit", "median", "range", "holds"];
    markdown(&header, 2, verdicts.iter().map(row).collect())
}

fn workloads(report: &Report, workloads: &[Workload]) -> Option<String> {
    let header =
        ["workload", "proxy", "CPU µs", "range", "user", "system", "req/s", "p50 µs", "p99 µs", "MiB", "lb / it"];
    let rows = workloads.iter().flat_map(|workload| {
        report.subjects(workload.id).into_iter().enumerate().map(|(index, subject)| {
            let title = if index == 0 { workload.title } else { "" };
            let mut row = vec![title.to_owned()];
            row.extend(values(report, workload.id, subject));
            row.push(versus(report, workload.id, subject, |sample| sample.cpu_us));
            row
        })
    });
    markdown(&header, 2, rows.collect())
}

fn datagrams(report: &Report) -> Option<String> {
    let header = [
        "load",
        "proxy",
        "CPU µs",
        "range",
        "user",
        "system",
        "echoes/s",
        "p50 µs",
        "p99 µs",
        "MiB",
        "lost",
        "of a core",
        "CPU lb / it",
        "echoes/s lb / it",
    ];
    let rows = UDP.iter().flat_map(|load| {
        report.subjects(load.id).into_iter().enumerate().map(|(index, subject)| {
            let mut row = vec![if index == 0 { load.title } else { "" }.to_owned()];
            row.extend(values(report, load.id, subject));
            row.push(report.of(load.id, subject).filter_map(|sample| sample.lost).sum::<u64>().to_string());
            let busy = Spread::of(report.of(load.id, subject).map(|sample| sample.cpu_us * sample.per_second / 1e4));
            row.push(busy.map_or_else(String::new, |busy| format!("{:.0} %", busy.median)));
            row.push(versus(report, load.id, subject, |sample| sample.cpu_us));
            row.push(versus(report, load.id, subject, |sample| sample.per_second));
            row
        })
    });
    markdown(&header, 2, rows.collect())
}

fn relay_idle(report: &Report) -> Option<String> {
    let rows = report.subjects(RELAY_IDLE).into_iter().filter_map(|subject| {
        let mib = Spread::of(report.of(RELAY_IDLE, subject).map(|sample| sample.rss_kib as f64 / 1024.0))?;
        let kib = Spread::of(report.of(RELAY_IDLE, subject).filter_map(|sample| sample.idle_kib))?;
        let opened = report.of(RELAY_IDLE, subject).map(|sample| sample.requests).min()?;
        let counts = [CONNECTIONS as u64, opened.saturating_sub(CONNECTIONS as u64)].map(|count| count.to_string());
        let values = [number(mib.median), range(mib), number(kib.median), range(kib)];
        Some([vec![subject.to_owned()], counts.into(), values.into()].concat())
    });
    markdown(&["proxy", "connections", "flows", "MiB", "range", "KiB by each", "range"], 1, rows.collect())
}

fn paced(report: &Report) -> Option<String> {
    let header =
        ["proxy", "CPU µs", "range", "user", "system", "req/s", "p50 µs", "p99 µs", "MiB", "p99 range", "p99 lb / it"];
    let rows = report.subjects(PACED).into_iter().map(|subject| {
        let mut row = values(report, PACED, subject);
        row.push(Spread::of(report.of(PACED, subject).map(|sample| sample.p99_us)).map_or_else(String::new, range));
        row.push(versus(report, PACED, subject, |sample| sample.p99_us));
        row
    });
    markdown(&header, 1, rows.collect())
}

/// How CPU time grows with the fleet; each sample is compared with that of three members in the same round.
fn members(report: &Report) -> Option<String> {
    let header = [
        "lb",
        "CPU µs",
        "range",
        "user",
        "system",
        "req/s",
        "p50 µs",
        "p99 µs",
        "MiB",
        "/ 3 members",
        "ms/s unused",
        "without it",
        "/ 3 members",
    ];
    let rows = report.subjects(MEMBERS).into_iter().map(|subject| {
        let mut row = values(report, MEMBERS, subject);
        let spread = |value: fn(&Sample) -> f64| Spread::of(report.of(MEMBERS, subject).map(value));
        let against = |value: fn(&Sample) -> f64| Spread::of(report.ratios(MEMBERS, subject, "lb-3", value));
        let median = |spread: Option<Spread>| spread.map_or_else(String::new, |spread| number(spread.median));
        row.push(median(against(|sample| sample.cpu_us)));
        row.push(median(spread(|sample| sample.background_us.unwrap_or_default() / 1e3)));
        row.push(median(spread(Sample::net_cpu_us)));
        row.push(median(against(Sample::net_cpu_us)));
        row
    });
    markdown(&header, 1, rows.collect())
}

fn values(report: &Report, row: &str, subject: &str) -> Vec<String> {
    let spread = |value: fn(&Sample) -> f64| Spread::of(report.of(row, subject).map(value));
    let median = |value| spread(value).map_or_else(String::new, |spread| number(spread.median));
    vec![
        subject.to_owned(),
        median(|sample| sample.cpu_us),
        spread(|sample| sample.cpu_us).map_or_else(String::new, range),
        median(|sample| sample.user_us),
        median(|sample| sample.system_us),
        median(|sample| sample.per_second),
        median(|sample| sample.p50_us),
        median(|sample| sample.p99_us),
        median(|sample| sample.rss_kib as f64 / 1024.0),
    ]
}

fn versus(report: &Report, row: &str, subject: &str, value: fn(&Sample) -> f64) -> String {
    if subject == "lb" {
        return String::new();
    }
    let ratios = Spread::of(report.ratios(row, "lb", subject, value));
    ratios.map_or_else(String::new, |ratios| format!("{} ({})", number(ratios.median), range(ratios)))
}

fn idle(report: &Report) -> Option<String> {
    let row = "idle-1000";
    let rows = report.subjects(row).into_iter().filter_map(|subject| {
        let kib = Spread::of(report.of(row, subject).filter_map(|sample| sample.idle_kib))?;
        Some(vec![subject.to_owned(), number(kib.median), range(kib)])
    });
    markdown(&["proxy", "KiB by connection", "range"], 1, rows.collect())
}

fn timings(report: &Report) -> Option<String> {
    let row = |timing: &super::report::Timing| {
        let spread = Spread { median: timing.median_ns, min: timing.lower_ns, max: timing.upper_ns };
        let (unit, scale) = unit(spread.median);
        let scaled = Spread { median: spread.median / scale, min: spread.min / scale, max: spread.max / scale };
        let members = timing.members.to_string();
        vec![timing.row.clone(), timing.case.clone(), members, number(scaled.median), range(scaled), unit.into()]
    };
    let header = ["row", "case", "members", "median", "middle half", "unit"];
    markdown(&header, 2, report.timings.iter().map(row).collect())
}

/// The unit that suits so many nanoseconds.
fn unit(nanos: f64) -> (&'static str, f64) {
    match nanos {
        ..1e3 => ("ns", 1.0),
        1e3..1e6 => ("µs", 1e3),
        _ => ("ms", 1e6),
    }
}

/// Three digits that matter; whole from 100 on.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        0.0..10.0 => format!("{value:.2}"),
        10.0..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// From the least to the most.
pub(crate) fn range(spread: Spread) -> String {
    format!("{}..{}", number(spread.min), number(spread.max))
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::{report, sample};
    use super::*;

    #[test]
    fn numbers_keep_three_digits() {
        assert_eq!([0.854, 9.99, 34.56, 99.94, 1234.5].map(number), ["0.85", "9.99", "34.6", "99.9", "1234"]);
        assert_eq!([5.0, 5e3, 5e6].map(|nanos| unit(nanos).0), ["ns", "µs", "ms"]);
    }

    #[test]
    fn a_part_of_a_run_says_so() {
        let mut report = report(vec![sample("54b-64", "lb", 1, 30.0, 9.0)]);
        assert!(!page(&report).contains("FAILED"));
        report.failed = Some("54b-64, round 1, nginx: 3 reads failed".into());
        assert!(page(&report).contains("FAILED, so this is a part only: 54b-64, round 1, nginx: 3 reads failed"));
    }

    #[test]
    fn tables_line_up_and_hold_the_ratio_of_the_rounds() {
        let mut report = report(vec![
            sample("54b-64", "lb", 1, 30.0, 9.0),
            sample("54b-64", "nginx", 1, 60.0, 8.0),
            sample("54b-64", "lb", 2, 30.0, 9.0),
            sample("54b-64", "nginx", 2, 100.0, 8.0),
            sample("54b-64", "lb", 3, 30.0, 9.0),
            sample("54b-64", "nginx", 3, 40.0, 8.0),
        ]);
        report.verdicts = super::super::goals::judge(&report);
        let page = page(&report);
        assert!(page.contains("0.50 (0.30..0.75)"), "{page}");
        assert!(page.contains("CPU lb / nginx") && page.contains("yes"), "{page}");
        let table: Vec<_> = page.lines().skip_while(|line| !line.starts_with("| workload")).take(4).collect();
        assert_eq!(table.len(), 4);
        assert!(table.iter().all(|line| line.chars().count() == table[0].chars().count()), "{page}");
    }
}
