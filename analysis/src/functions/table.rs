//! `functions.md`: the figures as tables, each with what it shows.

use std::fmt::Write as _;

use super::report::{Class, FLEETS, Family, Keys, Nodes, Pair, Parity, Ranking, Report};
use super::search::ELSEWHERE;
use crate::bench::table::markdown;
use crate::placement::case::grouped;

/// Percentiles that are shown, and what they are called.
const PERCENTILES: [(usize, &str); 5] = [(0, "best"), (1, "1 %"), (10, "10 %"), (50, "median"), (100, "worst")];

/// The whole page.
pub(super) fn page(report: &Report) -> String {
    let settings = &report.settings;
    let (slots, nodes) = (settings.slots, settings.nodes);
    let mut page = format!(
        "# Pairs of hash functions\n\nA ring of {slots} slots, {nodes} virtual nodes of each replica, linear probing, clockwise. \
         All figures are exact, for all\nsix-digit IDs. `analysis functions` works them out; docs/hash-functions.md says what \
         they mean.\n"
    );
    let mut section = |title: &str, text: &str, table: Option<String>| {
        let Some(table) = table else { return };
        let _ = write!(page, "\n## {title}\n\n{text}\n\n{table}\n");
    };
    let text = "Largest share of a replica as a multiple of the mean, by number of replicas N; the last column is the worst \
                of all N\nfor which there is room.";
    section("Pairs", text, pairs(report));
    let text = "`H` of all six-digit IDs: how many slots have any, the keys of the busiest slot as a multiple of the mean, the \
                standard\ndeviation as a part of the mean, and how many slots those IDs reach that are multiples of the number \
                of slots.";
    section("Slots of keys", text, keys(report));
    let text =
        "Every `ai² + bi + c` with `a` and `b` below the number of slots. `c` turns the ring and changes nothing here.";
    section("All quadratics as H", text, classes(report));
    let text = "Lowest to highest slot of each replica's virtual nodes, in brackets how many did not get the slot they wanted; \
                and the\nlongest way from one node to the next among N replicas, in slots.";
    section("Slots of virtual nodes", text, placed(report));
    let text = "What each owns; the largest share and the standard deviation, both by the mean; and the largest part of a \
                failed replica's\nkeys that goes to one survivor, as the mean and the worst over who fails.";
    section("Shares", text, shares(report));
    let [few, all] = ranges(report);
    let text = format!(
        "`Φ` alone, with the same number of keys in every slot: largest share / mean of the worst of N = {few} replicas, and of\nN \
         = {all}. Columns are the best of a family, that behind which 1 % of it comes, and so on."
    );
    section("Search for Φ", &text, families(report));
    let both = |family: &Family| format!("{} of {}", grouped(family.better_in_both), grouped(family.members));
    let text = format!(
        "The same of known functions, and how many of each family are better (and how many as good). For both ranges of N \
         better\nthan the first: {}.",
        report.families.iter().map(both).collect::<Vec<_>>().join(", ")
    );
    section("Ranks", &text, known(report));
    let text = format!(
        "Ours and the best of each search: of N = {few}, of N = {all}, and of those that are better than ours in both. Worst \
         of\nthese N, and on other rings (slots × virtual nodes) the worst of N = {few}."
    );
    section("What was found, on other rings", &text, elsewhere(report));
    page
}

/// The table of pairs, which the guide shows too.
pub(super) fn pairs(report: &Report) -> Option<String> {
    let mut header = ["H", "Φ"].map(String::from).to_vec();
    header.extend(FLEETS.map(|replicas| format!("N = {replicas}")));
    header.push(format!("N = {} to {}", FLEETS.start(), report.settings.slots / report.settings.nodes));
    let row = |pair: &Pair| {
        let fleets = pair.fleets.iter().map(|fleet| fleet.evenness.max_mean).chain([pair.worst()]);
        [pair.keys.clone(), pair.nodes.to_string()].into_iter().chain(fleets.map(ratio)).collect()
    };
    table(&header, 2, report.pairs.iter().map(row).collect())
}

fn keys(report: &Report) -> Option<String> {
    let row = |keys: &Keys| {
        vec![
            keys.name.clone(),
            keys.reached.to_string(),
            ratio(keys.evenness.max_mean),
            ratio(keys.evenness.sd_mean),
            keys.reached_by_multiples.to_string(),
        ]
    };
    let header = ["H", "slots reached", "busiest / mean", "sd / mean", "by multiples"];
    markdown(&header, 1, report.keys.iter().map(row).collect())
}

fn classes(report: &Report) -> Option<String> {
    let word = |parity| match parity {
        Parity::Even => "even".to_owned(),
        Parity::Odd => "odd".to_owned(),
    };
    let range = |least: String, most: String| if least == most { least } else { format!("{least} to {most}") };
    let row = |class: &Class| {
        vec![
            word(class.a),
            word(class.b),
            grouped(class.members),
            range(class.fewest.to_string(), class.most.to_string()),
            range(ratio(class.evenest), ratio(class.unevenest)),
        ]
    };
    let header = ["a", "b", "functions", "slots reached", "busiest / mean"];
    markdown(&header, 2, report.classes.iter().map(row).collect())
}

fn placed(report: &Report) -> Option<String> {
    let mut header = vec!["Φ".to_owned()];
    header.extend((1..=*FLEETS.end()).map(|id| format!("S{id}")));
    header.extend(FLEETS.map(|replicas| format!("gap, N = {replicas}")));
    let row = |nodes: &Nodes| {
        let replicas = nodes.replicas.iter().map(|placed| match (placed.slots.first(), placed.slots.last()) {
            (Some(first), Some(last)) => format!("{first} to {last} ({})", placed.displaced),
            _ => String::new(),
        });
        let gaps = nodes.longest_gaps.iter().map(u32::to_string);
        [nodes.function.to_string()].into_iter().chain(replicas).chain(gaps).collect()
    };
    table(&header, 1, report.nodes.iter().map(row).collect())
}

fn shares(report: &Report) -> Option<String> {
    let mut header = ["H", "Φ", "N"].map(String::from).to_vec();
    header.extend((1..=*FLEETS.end()).map(|id| format!("S{id}")));
    header.extend(["max/mean", "sd/mean", "to one: mean", "worst"].map(String::from));
    let row = |pair: &Pair, replicas: u32, fleet: &super::report::Fleet| {
        let mut row = vec![pair.keys.clone(), pair.nodes.to_string(), replicas.to_string()];
        row.extend(fleet.shares.iter().map(|share| percent(*share)));
        row.resize(3 + *FLEETS.end() as usize, String::new());
        row.extend([fleet.evenness.max_mean, fleet.evenness.sd_mean].map(ratio));
        row.extend([fleet.to_one.mean, fleet.to_one.worst].map(percent));
        row
    };
    let rows = report
        .pairs
        .iter()
        .flat_map(|pair| FLEETS.zip(&pair.fleets).map(move |(replicas, fleet)| row(pair, replicas, fleet)));
    table(&header, 2, rows.collect())
}

fn families(report: &Report) -> Option<String> {
    let mut header = ["Φ", "functions", "N"].map(String::from).to_vec();
    header.extend(PERCENTILES.iter().map(|(_, name)| (*name).to_owned()));
    header.push("the best one".into());
    let row = |family: &Family, fleets: &String, ranking: &Ranking| {
        let mut row = vec![family.name.clone(), grouped(family.members), fleets.clone()];
        row.extend(
            PERCENTILES.iter().map(|(at, _)| ranking.percentiles.get(*at).copied().map_or_else(String::new, ratio)),
        );
        row.push(ranking.best.to_string());
        row
    };
    let [few, all] = ranges(report);
    let rows =
        report.families.iter().flat_map(|family| [row(family, &few, &family.few), row(family, &all, &family.all)]);
    table(&header, 1, rows.collect())
}

/// The fleets that are searched for.
pub(super) fn ranges(report: &Report) -> [String; 2] {
    [*FLEETS.end(), report.settings.slots / report.settings.nodes].map(|end| format!("{} to {end}", FLEETS.start()))
}

fn known(report: &Report) -> Option<String> {
    let mut header = ["Φ", "N", "max/mean"].map(String::from).to_vec();
    header.extend(report.families.iter().map(|family| format!("of {} {}", grouped(family.members), family.name)));
    let ranges = ranges(report);
    let rows = report.known.iter().enumerate().flat_map(|(at, known)| {
        let rows = [(&ranges[0], known.worst.few, true), (&ranges[1], known.worst.all, false)];
        rows.map(|(fleets, worst, few)| {
            let ranks = report.families.iter().map(|family| {
                let ranking = if few { &family.few } else { &family.all };
                let count = |of: &[u32]| of.get(at).map_or_else(String::new, |count| grouped(*count));
                format!("{} ({})", count(&ranking.better), count(&ranking.equal))
            });
            let words = [known.function.to_string(), fleets.clone(), ratio(worst)];
            words.into_iter().chain(ranks).collect()
        })
    });
    table(&header, 1, rows.collect())
}

fn elsewhere(report: &Report) -> Option<String> {
    let mut header = vec!["Φ".to_owned()];
    header.extend(ranges(report).map(|fleets| format!("N = {fleets}")));
    header.extend(ELSEWHERE.map(|(slots, nodes)| format!("{} × {nodes}", grouped(slots))));
    let row = |row: &super::report::Elsewhere| {
        let values = [row.worst.few, row.worst.all].into_iter().chain(row.few.iter().copied());
        [row.function.to_string()].into_iter().chain(values.map(ratio)).collect()
    };
    table(&header, 1, report.elsewhere.iter().map(row).collect())
}

fn table(header: &[String], words: usize, rows: Vec<Vec<String>>) -> Option<String> {
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    markdown(&header, words, rows)
}

pub(super) fn ratio(value: f64) -> String {
    format!("{value:.3}")
}

pub(super) fn percent(part: f64) -> String {
    format!("{:.2} %", part * 100.0)
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::report;
    use super::*;

    #[test]
    fn every_table_is_there_and_lines_up() {
        let page = page(&report());
        let tables: Vec<&str> = page.split("\n\n").filter(|block| block.starts_with('|')).collect();
        assert_eq!(tables.len(), 8, "{page}");
        for table in tables {
            let widths: Vec<usize> = table.trim_end().lines().map(|line| line.chars().count()).collect();
            assert!(widths.iter().all(|width| *width == widths[0]), "{table}");
        }
        let rows: Vec<String> =
            page.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        for row in [
            "| assignment | assignment | 2.500 | 2.500 | 2.500 | 2.500 | 2.500 | 7.900 |",
            "| assignment | 87 | 2.000 | 0.100 | 1 |",
            "| even | odd | 65,536 | 1 to 256 | 1.000 |",
            "| modified | modified | 3 | 33.33 % | 33.33 % | 33.33 % | | | | 1.125 | 0.100 | 50.00 % | 75.00 % |",
            "| drawn | 65,536 | 2 to 56 | 1.250 | 1.258 | 1.328 | 1.641 | 2.031 | 13(9i + j) |",
            "| modified | 2 to 6 | 1.375 | 8 (2) | 8 (2) |",
            "| 45(9i + j) | 1.250 | 1.875 | 1.500 | 1.250 | 1.500 | 1.750 | 3.000 |",
        ] {
            assert!(rows.iter().any(|line| line == row), "{row} is missing in {page}");
        }
        assert!(rows.iter().any(|line| line.starts_with("| assignment | 26 to 126 (0)")), "{page}");
        assert!(page.contains("3 of 65,536, 3 of 65,536"), "{page}");
    }

    #[test]
    fn what_was_not_worked_out_has_no_section() {
        let mut report = report();
        report.classes.clear();
        assert!(!page(&report).contains("All quadratics"));
    }
}
