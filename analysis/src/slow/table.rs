//! `slow.md`: tables, and what they show in words.

use std::fmt::Write as _;

use super::report::{EVADES, GOAL_MS, Latency, Part, Phase, REFERENCE, REPLICAS, Report, Run, WHERE_MS};
use crate::bench::table::{markdown, number};

/// The whole page.
pub(super) fn page(report: &Report) -> String {
    let (machine, settings) = (&report.machine, &report.settings);
    let mut page = format!(
        "# One slow replica of {REPLICAS}\n\n{machine}.\n{}.\n{} requests/s for {} s over {} \
         connections, after {} s of warm-up. Replicas answer after {} ms, the slow one after {} ms.\nms from when a request \
         was due. How this is measured: docs/benchmarks.md.\n",
        machine.lb,
        settings.rate,
        settings.seconds,
        settings.connections,
        settings.warm_up,
        settings.fast_ms,
        settings.slow_ms,
    );
    for finding in [steady_finding(report), midway_finding(report)].into_iter().flatten() {
        let _ = write!(page, "\n{finding}\n");
    }
    let mut section = |title: &str, table: Option<String>| {
        if let Some(table) = table {
            let _ = write!(page, "\n## {title}\n\n{table}\n");
        }
    };
    section("Goal", goal(report));
    section("Slow all the time", steady(report));
    let third = settings.third();
    section(&format!("Fast for {third:?}, slow for {third:?}, fast again for {third:?}"), midway(report));
    for run in report.runs.iter().filter(|run| run.outcome.served.iter().sum::<u64>() != run.outcome.answered()) {
        let (served, answered) = (run.outcome.served.iter().sum::<u64>(), run.outcome.answered());
        let name = format!("{}, {}", run.policy, run.phase.name());
        let _ = write!(page, "\n{name}: the replicas have answered {served} requests, {answered} answers have come.\n");
    }
    let failures = report.failures();
    if !failures.is_empty() {
        page.push_str("\n## Failures\n\n");
    }
    for (what, count) in failures {
        let _ = writeln!(page, "- {count} of {what}");
    }
    page
}

fn goal(report: &Report) -> Option<String> {
    let row = report.verdict.map(|verdict| {
        vec![
            format!("p99 of {EVADES} below {GOAL_MS} ms, where that of {REFERENCE} is above {WHERE_MS} ms"),
            number(verdict.evades_ms),
            number(verdict.reference_ms),
            if verdict.holds { "yes" } else { "NO" }.into(),
        ]
    });
    let header = ["goal", &format!("{EVADES}, ms"), &format!("{REFERENCE}, ms"), "holds"];
    markdown(&header, 1, row.into_iter().collect())
}

fn steady(report: &Report) -> Option<String> {
    let row = |run: &Run| {
        let all = run.whole();
        let latency = |of: fn(Latency) -> f64| all.latency.map_or_else(none, |latency| number(of(latency)));
        vec![
            run.policy.clone(),
            all.requests.to_string(),
            all.failed.to_string(),
            latency(|it| it.p50_ms),
            latency(|it| it.p90_ms),
            latency(|it| it.p99_ms),
            latency(|it| it.max_ms),
            share(&all),
        ]
    };
    let header = ["policy", "requests", "failed", "p50 ms", "p90 ms", "p99 ms", "max ms", "slow one's share"];
    markdown(&header, 1, report.of(Phase::Steady).map(row).collect())
}

fn midway(report: &Report) -> Option<String> {
    let row = |run: &Run| {
        let (all, thirds) = (run.whole(), run.thirds());
        let counts = [all.requests, all.failed].map(|count| count.to_string());
        [
            vec![run.policy.clone()],
            counts.into(),
            thirds.map(|third| p99(&third)).into(),
            thirds.map(|it| share(&it)).into(),
        ]
        .concat()
    };
    let header = [
        "policy",
        "requests",
        "failed",
        "p99 ms: fast",
        "slow",
        "fast again",
        "slow one's share: fast",
        "slow",
        "fast again",
    ];
    markdown(&header, 1, report.of(Phase::Midway).map(row).collect())
}

/// The policy to compare with, and the one with the lowest p99 of `part`, if that is another one.
fn compared(report: &Report, phase: Phase, part: fn(&Run) -> Part) -> Option<(&Run, Option<&Run>)> {
    let p99 = |run: &Run| part(run).latency.map_or(f64::INFINITY, |latency| latency.p99_ms);
    let reference =
        report.run(phase, REFERENCE).or_else(|| report.of(phase).max_by(|a, b| p99(a).total_cmp(&p99(b))))?;
    let best = report.of(phase).min_by(|a, b| p99(a).total_cmp(&p99(b)));
    Some((reference, best.filter(|best| best.policy != reference.policy)))
}

fn steady_finding(report: &Report) -> Option<String> {
    let (reference, best) = compared(report, Phase::Steady, Run::whole)?;
    let clause = |run: &Run| {
        let all = run.whole();
        format!("{} ms with {}, which gives it {} of them", p99(&all), run.policy, share(&all))
    };
    let clauses = [Some(reference), best].into_iter().flatten().map(clause).collect::<Vec<_>>();
    let (fast, slow) = (report.settings.fast_ms, report.settings.slow_ms);
    Some(format!(
        "With one replica of {REPLICAS} that takes {slow} ms where the others take {fast} ms, p99 of the requests is {}.",
        clauses.join(", and ")
    ))
}

fn midway_finding(report: &Report) -> Option<String> {
    let (reference, best) = compared(report, Phase::Midway, |run| run.thirds()[1])?;
    let clause = |run: &Run| {
        let thirds = run.thirds();
        let [before, during, after] = thirds.map(|third| share(&third));
        format!("{before}, {during}, {after} with {} (p99 while it is slow: {} ms)", run.policy, p99(&thirds[1]))
    };
    let clauses = [Some(reference), best].into_iter().flatten().map(clause).collect::<Vec<_>>();
    Some(format!("Before, while and after it is slow for a while, its share is {}.", clauses.join(", and ")))
}

fn p99(part: &Part) -> String {
    part.latency.map_or_else(none, |latency| number(latency.p99_ms))
}

fn share(part: &Part) -> String {
    part.slow_share.map_or_else(none, |share| format!("{:.1} %", share * 100.0))
}

fn none() -> String {
    "-".into()
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::report;
    use super::*;

    /// Rows whose cells are apart by one space.
    fn rows(page: &str) -> Vec<String> {
        page.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }

    #[test]
    fn the_page_has_both_phases_the_goal_and_what_they_show() {
        let mut report = report();
        report.judge();
        let page = page(&report);
        let rows = rows(&page);
        let has = |row: &str| assert!(rows.iter().any(|line| line == row), "{row} is missing in {page}");
        has("| round-robin | 60 | 0 | 3.00 | 202 | 202 | 202 | 25.0 % |");
        has("| peak-ewma | 60 | 0 | 3.00 | 3.00 | 3.00 | 3.00 | 0.0 % |");
        has("| round-robin | 60 | 0 | 3.00 | 202 | 3.00 | 25.0 % | 25.0 % | 25.0 % |");
        has("| peak-ewma | 60 | 0 | 3.00 | 3.00 | 3.00 | 25.0 % | 0.0 % | 25.0 % |");
        has("| p99 of peak-ewma below 25 ms, where that of round-robin is above 200 ms | 3.00 | 202 | yes |");
        has("With one replica of 4 that takes 200 ms where the others take 2 ms, p99 of the requests is 202 ms with \
             round-robin, which gives it 25.0 % of them, and 3.00 ms with peak-ewma, which gives it 0.0 % of them.");
        has(
            "Before, while and after it is slow for a while, its share is 25.0 %, 25.0 %, 25.0 % with round-robin (p99 \
             while it is slow: 202 ms), and 25.0 %, 0.0 %, 25.0 % with peak-ewma (p99 while it is slow: 3.00 ms).",
        );
        assert!(page.contains("## Fast for 2s, slow for 2s, fast again for 2s"), "{page}");
        assert!(!page.contains("Failures") && !page.contains("replicas have answered"), "{page}");
    }

    #[test]
    fn tables_line_up() {
        let mut report = report();
        report.judge();
        let page = page(&report);
        let mut tables = page.split("\n\n").filter(|block| block.starts_with('|')).collect::<Vec<_>>();
        assert_eq!(tables.len(), 3, "{page}");
        tables.retain(|table| {
            let widths: Vec<_> = table.lines().map(|line| line.chars().count()).collect();
            widths.iter().any(|width| *width != widths[0])
        });
        assert!(tables.is_empty(), "{tables:?}");
    }

    #[test]
    fn failures_and_a_policy_alone_are_told() {
        let mut report = report();
        report.runs.remove(0);
        report.runs[0].outcome.answered_by.fill(0);
        report.runs[0].outcome.failures.insert("status 503".into(), 60);
        report.judge();
        let page = page(&report);
        assert!(page.contains("- 60 of peak-ewma, slow all the time: status 503"), "{page}");
        assert!(rows(&page).iter().any(|line| line == "| peak-ewma | 60 | 60 | - | - | - | - | - |"), "{page}");
        assert!(page.contains("the replicas have answered 60 requests, 0 answers have come."), "{page}");
        assert!(!page.contains("## Goal"), "{page}");
    }
}
