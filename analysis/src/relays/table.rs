//! `relays.md`: tables beside the source document's figures.

use std::fmt::Write as _;

use super::report::{Report, Row, WORK_CLIENTS};
use crate::bench::report::Spread;
use crate::bench::table::{markdown, number};
use crate::control::Protocol;

/// The whole page.
pub(super) fn page(report: &Report) -> String {
    let machine = &report.machine;
    let mut page = format!(
        "# TCP and UDP servers\n\n{machine}.\n{}.\n{} rounds; medians, least to most in \
         brackets. {} runs were made again, as others had disturbed them. How this is measured: docs/benchmarks.md.\n",
        machine.lb, report.rounds, report.repeated,
    );
    let mut section = |title: &str, text: &str, table: Option<String>| {
        if let Some(table) = table {
            let _ = write!(page, "\n## {title}\n\n{text}\n\n{table}\n");
        }
    };
    let text = format!(
        "All clients send one request each, at once; it takes {} ms of CPU time, and a server does one at a time. There are \
         {cores} cores,\nwhich the servers share with balancer, clients, and whoever else is on the machine (\"others\": \
         how many cores those had):\nmore than {cores} servers can't be faster than {cores}. The document's requests took \
         about 3 s each on another machine, so only\nthe speed-up over one server can be compared.",
        report.work_ms,
        cores = machine.cores,
    );
    section("Work of a fixed size", &text, work(report));
    let text = "A thousand connections at once, an answer of 20 KB over each.";
    section("Burst", text, burst(report));
    let failures = report.failures();
    if !failures.is_empty() {
        page.push_str("\n## Failures\n\n");
    }
    for (what, count) in failures {
        let _ = writeln!(page, "- {count} of {what}");
    }
    page
}

fn work(report: &Report) -> Option<String> {
    let header =
        ["protocol", "clients", "servers", "seconds", "speed-up", "possible", "others", "document: s", "its speed-up"];
    let cases = [Protocol::Tcp, Protocol::Udp].into_iter();
    let cases = cases.flat_map(|protocol| WORK_CLIENTS.map(|clients| (protocol, clients)));
    let rows = cases.flat_map(|(protocol, clients)| {
        let row = move |(seconds, speed_up): (Row, Row)| {
            vec![
                protocol.name().to_uppercase(),
                clients.to_string(),
                seconds.servers.to_string(),
                spread(seconds.measured),
                spread(speed_up.measured),
                report.possible(seconds.servers).to_string(),
                report
                    .others(protocol, clients, seconds.servers)
                    .map_or_else(String::new, |others| number(others.median)),
                number(seconds.document),
                number(speed_up.document),
            ]
        };
        report.seconds(protocol, clients).into_iter().zip(report.speed_up(protocol, clients)).map(row)
    });
    markdown(&header, 1, rows.collect())
}

fn burst(report: &Report) -> Option<String> {
    let row = |(success, seconds): (Row, Row)| {
        let Spread { median, min, max } = success.measured;
        vec![
            success.servers.to_string(),
            format!("{median:.1} % ({min:.1}..{max:.1})"),
            spread(seconds.measured),
            format!("{:.1} %", success.document),
        ]
    };
    let rows = report.success().into_iter().zip(report.burst_seconds()).map(row);
    markdown(&["servers", "answered", "seconds", "document: answered"], 0, rows.collect())
}

fn spread(spread: Spread) -> String {
    format!("{} ({}..{})", number(spread.median), number(spread.min), number(spread.max))
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::report;
    use super::*;

    #[test]
    fn the_page_has_measured_and_documented_figures_side_by_side() {
        let page = page(&report());
        let row = |begin: &str| {
            let found = page.lines().find(|line| line.replace(' ', "").starts_with(begin));
            found
                .unwrap_or_else(|| panic!("{begin} is missing in {page}"))
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(
            row("|TCP|10|2|"),
            "| TCP | 10 | 2 | 0.33 (0.25..0.40) | 2.25 (2.00..2.50) | 2 | 0.50 | 13.0 | 1.92 |"
        );
        assert_eq!(row("|1|99"), "| 1 | 99.5 % (99.0..100.0) | 0.30 (0.20..0.40) | 72.8 % |");
        assert!(page.contains("3 runs were made again"));
        assert!(page.contains("- 10 of 1000 tcp, 1 servers, round 2: reset"));
    }
}
