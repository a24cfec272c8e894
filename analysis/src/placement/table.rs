//! The part of `docs/placement.md` that comes from the results.

use std::fmt::Write as _;

use super::case::grouped;
use super::report::{BOUNDS, FLEETS, Failure, IN_FLIGHT, Moves, Report, SIX, Weighted};
use crate::bench::table::markdown;

/// The tables and plots, each with what it shows.
pub(super) fn part(report: &Report) -> String {
    let requests = grouped(report.settings.requests);
    let mut part = String::new();
    let mut section = |title: &str, text: &str, plot: Option<(&str, &str)>, table: Option<String>| {
        let Some(table) = table else { return };
        let _ = write!(part, "### {title}\n\n{text}\n\n");
        if let Some((file, alt)) = plot {
            let _ = write!(part, "![{alt}](../analysis/results/placement/{file})\n\n");
        }
        let _ = write!(part, "{table}\n\n");
    };
    section("Goals", "Worked out from the figures below.", None, goals(report));
    let text = format!(
        "N replicas of weight 1, {requests} requests with random six-digit IDs: the busiest replica's requests as a multiple \
         of the\nmean (max/mean), and the standard deviation as a part of the mean (sd). In the first pair of columns a \
         request has ended\nbefore the next one comes, and no bound counts. In the others {IN_FLIGHT} are in flight, and each \
         is as likely to end next as the\nothers. A ring is named by its hash function, slots × virtual nodes."
    );
    let plot = ("spread.svg", "max/mean of every policy before three replicas");
    section("Spread", &text, Some(plot), spread(report));
    let text = format!(
        "What each of {SIX} replicas owns, exactly, of all six-digit IDs; {:.1} % are due to each.",
        100.0 / f64::from(SIX)
    );
    let plot = ("shares.svg", "share of each of six replicas, by hash function");
    section("Shares", &text, Some(plot), shares(report));
    let text = format!(
        "Replicas of weight 1, 2, 3 and 4: what they get of {} requests, beside what is due. Off is the largest \
         difference,\nas a part of what is due.",
        grouped(report.settings.weighted_requests)
    );
    section("Weights", &text, None, weights(report));
    let text = "What share of all six-digit IDs changes its owner when one replica of N is removed, whichever that is, or one \
                is added.\nThe least possible is what the removed one owned, on average 1/N, and 1/(N+1) for one that is \
                added. Between survivors: IDs\nthat move although their replica stays.";
    let plot = ("moves.svg", "share of keys that move when one replica is removed");
    section("Moves", text, Some(plot), moves(report));
    let text = format!(
        "One of {SIX} replicas is out of rotation: the largest part of its keys that goes to a single survivor, {:.0} % if all \
         got the same,\nand the busiest survivor's keys as a multiple of the survivors' mean. Mean and worst over the replica \
         that fails.",
        100.0 / f64::from(SIX - 1)
    );
    section("The keys of a failed replica", &text, None, failures(report));
    part.trim_end().to_owned()
}

fn goals(report: &Report) -> Option<String> {
    let row = |goal: &super::report::Goal| {
        let holds = if goal.holds { "yes" } else { "NO" };
        vec![goal.goal.clone(), format!("{:.2}", goal.limit), ratio(goal.found), holds.into()]
    };
    markdown(&["goal", "at most", "found", "holds"], 1, report.goals.iter().map(row).collect())
}

fn spread(report: &Report) -> Option<String> {
    let mut header: Vec<String> = ["policy", "N", "one at a time", "sd"].map(String::from).into();
    header.extend([format!("{IN_FLIGHT} in flight"), "sd".into()]);
    header.extend(BOUNDS.iter().flat_map(|bound| [format!("bound {bound}"), "sd".into()]));
    let columns = [(0, None), (IN_FLIGHT, None)].into_iter().chain(BOUNDS.map(|bound| (IN_FLIGHT, Some(bound))));
    let columns: Vec<_> = columns.collect();
    let row = |case: &str, replicas: u32| {
        let cells =
            columns.iter().flat_map(|(in_flight, bound)| match report.spread_of(case, replicas, *in_flight, *bound) {
                Some(evenness) => [ratio(evenness.max_mean), ratio(evenness.sd_mean)],
                None => [String::new(), String::new()],
            });
        [case.to_owned(), replicas.to_string()].into_iter().chain(cells).collect::<Vec<_>>()
    };
    let cases = report.cases();
    let rows = cases.iter().flat_map(|case| FLEETS.map(|replicas| (*case, replicas)));
    let rows = rows.filter(|(case, replicas)| report.spread_of(case, *replicas, 0, None).is_some());
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    markdown(&header, 1, rows.map(|(case, replicas)| row(case, replicas)).collect())
}

fn shares(report: &Report) -> Option<String> {
    let mut header = vec!["policy".to_owned()];
    header.extend((1..=SIX).map(|id| format!("S{id}")));
    let rows = report.shares.iter().map(|row| {
        let shares = row.shares.iter().map(|share| percent(*share));
        [row.case.clone()].into_iter().chain(shares).collect::<Vec<_>>()
    });
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    markdown(&header, 1, rows.collect())
}

fn weights(report: &Report) -> Option<String> {
    let first = report.weighted.first()?;
    let mut header = ["policy", "requests"].map(String::from).to_vec();
    header.extend(first.weights.iter().zip(first.due()).map(|(weight, due)| format!("{weight}: {:.0} %", due * 100.0)));
    header.push("off".into());
    let row = |row: &Weighted| {
        let how = if row.in_flight == 0 { "one at a time".into() } else { format!("{} in flight", row.in_flight) };
        let shares = row.shares.iter().map(|share| percent(*share));
        [row.case.clone(), how].into_iter().chain(shares).chain([percent(row.off())]).collect::<Vec<_>>()
    };
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    markdown(&header, 2, report.weighted.iter().map(row).collect())
}

fn moves(report: &Report) -> Option<String> {
    let row = |row: &Moves| {
        let replicas = f64::from(row.replicas);
        let cells = [
            row.removed.mean,
            1.0 / replicas,
            row.removed.worst,
            row.own.worst,
            row.survivors.mean,
            row.survivors.worst,
            row.added,
            1.0 / (replicas + 1.0),
            row.added_others,
        ];
        [row.case.clone(), row.replicas.to_string()].into_iter().chain(cells.map(percent)).collect::<Vec<_>>()
    };
    let header = [
        "policy",
        "N",
        "removed: mean",
        "least",
        "worst",
        "least",
        "between survivors: mean",
        "worst",
        "added",
        "1/(N+1)",
        "between others",
    ];
    markdown(&header, 1, report.moves.iter().map(row).collect())
}

fn failures(report: &Report) -> Option<String> {
    let row = |row: &Failure| {
        vec![
            row.case.clone(),
            percent(row.largest.mean),
            percent(row.largest.worst),
            ratio(row.max_mean.mean),
            ratio(row.max_mean.worst),
        ]
    };
    let header = ["policy", "to one survivor: mean", "worst", "survivors' max/mean: mean", "worst"];
    markdown(&header, 1, report.failures.iter().map(row).collect())
}

fn ratio(value: f64) -> String {
    format!("{value:.3}")
}

fn percent(part: f64) -> String {
    format!("{:.2} %", part * 100.0)
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::report;
    use super::*;

    #[test]
    fn every_table_is_there_and_lines_up() {
        let mut report = report();
        report.judge();
        let part = part(&report);
        let tables: Vec<&str> = part.split("\n\n").filter(|block| block.starts_with('|')).collect();
        assert_eq!(tables.len(), 6, "{part}");
        for table in tables {
            let widths: Vec<usize> = table.lines().map(|line| line.chars().count()).collect();
            assert!(widths.iter().all(|width| *width == widths[0]), "{table}");
        }
        let rows: Vec<String> =
            part.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        for row in [
            "| consistent, assignment, 512 × 9 | 3 | 2.500 | 0.100 | 2.500 | 0.100 | 1.260 | 0.100 | 1.120 | 0.100 |",
            "| random | 3 | 1.020 | 0.100 | 1.030 | 0.100 | | | | |",
            "| random | one at a time | 10.00 % | 21.00 % | 29.00 % | 40.00 % | 5.00 % |",
            "| policy | requests | 1: 10 % | 2: 20 % | 3: 30 % | 4: 40 % | off |",
            "| maglev, 65,537 | 3 | 34.33 % | 33.33 % | 50.00 % | 50.00 % | 1.00 % | 1.00 % | 25.00 % | 25.00 % | 1.00 % |",
            "| consistent, assignment, 512 × 9 | 50.00 % | 75.00 % | 1.500 | 2.000 |",
        ] {
            assert!(rows.iter().any(|line| line == row), "{row} is missing in {part}");
        }
        assert!(part.contains(" NO |") && part.contains(" yes |"), "{part}");
    }

    #[test]
    fn what_was_not_worked_out_has_no_section() {
        let mut report = report();
        report.weighted.clear();
        assert!(!part(&report).contains("### Weights") && !part(&report).contains("### Goals"));
    }
}
