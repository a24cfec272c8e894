//! What `docs/hash-functions.md` says is what the record says.

use std::path::Path;

use super::function::NodeFunction;
use super::report::{Keys, Known, Pair, Parity, Report};
use super::table;
use super::tests::recorded;
use crate::placement::case::grouped;

fn guide() -> String {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/hash-functions.md");
    let text = std::fs::read_to_string(guide).unwrap();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn keys<'a>(report: &'a Report, name: &str) -> &'a Keys {
    report.keys.iter().find(|keys| keys.name == name).unwrap()
}

fn pair<'a>(report: &'a Report, name: &str, nodes: NodeFunction) -> &'a Pair {
    report.pairs.iter().find(|pair| pair.keys == name && pair.nodes == nodes).unwrap()
}

fn known(report: &Report, function: NodeFunction) -> &Known {
    report.known.iter().find(|known| known.function == function).unwrap()
}

fn whole(part: f64) -> String {
    format!("{:.0} %", part * 100.0)
}

/// What is said of the pairs and of `H`.
fn of_pairs(report: &Report) -> Vec<String> {
    let (own, ours) = (keys(report, "assignment"), keys(report, "modified"));
    let busiest = own.by_slot.iter().position(|keys| Some(keys) == own.by_slot.iter().max()).unwrap();
    let part = own.evenness.max_mean / f64::from(report.settings.slots);
    let three = &report.nodes[0].replicas[..3];
    let slots = || three.iter().flat_map(|placed| &placed.slots);
    let share = |pair: &Pair| table::percent(pair.fleets[1].shares.iter().copied().fold(0.0, f64::max));
    let class = |a, b| {
        let class = report.classes.iter().find(|class| (class.a, class.b) == (a, b)).unwrap();
        (class.fewest, class.most)
    };
    let ((all, _), (half, _)) = (class(Parity::Even, Parity::Odd), class(Parity::Odd, Parity::Odd));
    let ((few, _), (least, most)) = (class(Parity::Odd, Parity::Even), class(Parity::Even, Parity::Even));
    let mended = pair(report, "assignment", NodeFunction::Modified);
    let (both, random) = (pair(report, "modified", NodeFunction::Modified), pair(report, "xxh3", NodeFunction::Xxh3));
    vec![
        format!("between the slots {} and {}", slots().min().unwrap(), slots().max().unwrap()),
        format!("reaches {} of {} slots", own.reached, report.settings.slots),
        format!("slot {busiest} alone has {}", table::percent(part)),
        format!("from {:.0} replicas on {}", (1.0 / part).floor() + 1.0, table::percent(part)),
        format!("the gap of {} slots (N = 3)", report.nodes[0].longest_gaps[1]),
        format!("max/mean grows to {}", table::ratio(mended.worst())),
        format!("All {} pairs", grouped(report.classes.iter().map(|class| class.members).sum())),
        format!("{all} slots, with both odd {half}, with `a` odd and `b` even {few} like"),
        format!("with both even between {least} and {most}"),
        format!("reach {} slot with any quadratic, {} with", own.reached_by_multiples, ours.reached_by_multiples),
        format!("{} with `xxh3`. Random", keys(report, "xxh3").reached_by_multiples),
        format!("{} at most instead of {}", share(both), share(&report.pairs[0])),
        format!("the longest gap is {} slots", report.nodes[1].longest_gaps[1]),
        format!("({} of them on average with six", whole(both.fleets[4].to_one.mean)),
        format!("{} with `xxh3`).", whole(random.fleets[4].to_one.mean)),
    ]
}

/// What is said of the search.
fn of_search(report: &Report) -> Vec<String> {
    let ours = &report.known[0];
    let [multiples, drawn] = &*report.families else { panic!("{:?}", report.families) };
    let [rounded, golden] = [315, 317].map(|by| table::ratio(known(report, NodeFunction::Multiples(by)).worst.few));
    let of_drawn = |count: u32| format!("{} %", (f64::from(count) / f64::from(drawn.members) * 100.0).round());
    let random = known(report, NodeFunction::Xxh3);
    let at = report.known.iter().position(|known| known == random).unwrap();
    let found = report.elsewhere.last().unwrap();
    let few = || found.few[..3].iter().copied();
    let own = &report.elsewhere[0];
    let least = |values: &[f64]| table::ratio(values.iter().copied().fold(f64::INFINITY, f64::min));
    let most = |values: &[f64]| table::ratio(values.iter().copied().fold(0.0, f64::max));
    let rings = [&own.few[..], &[own.worst.few]].concat();
    vec![
        format!("with {rounded} (315) and {golden} (317)"),
        format!("Ours has {} and {}", table::ratio(ours.worst.few), table::ratio(ours.worst.all)),
        format!("Of all {} odd multipliers, `Φ = m(9i + j)`, {} are", multiples.members, multiples.few.better[0]),
        format!("(the best is 45, with {})", table::ratio(multiples.few.percentiles[0])),
        format!("Of {} random quadratics", grouped(drawn.members)),
        format!("{} are better for N = 2 to 6 ({})", grouped(drawn.few.better[0]), of_drawn(drawn.few.better[0])),
        format!("{} for N = 2 to 56 ({})", grouped(drawn.all.better[0]), of_drawn(drawn.all.better[0])),
        format!(
            "{} in both ({:.1} %)",
            grouped(drawn.better_in_both),
            f64::from(drawn.better_in_both) / f64::from(drawn.members) * 100.0
        ),
        format!(
            "`{}` has {} and {}",
            drawn.best_in_both.unwrap(),
            table::ratio(found.worst.few),
            table::ratio(found.worst.all)
        ),
        format!("has {}, about as the median", table::ratio(random.worst.few)),
        format!("({}), and {},", table::ratio(drawn.few.percentiles[50]), table::ratio(random.worst.all)),
        format!("worse than {} of them", of_drawn(drawn.all.better[at])),
        format!("has {} to {} with", least(&few().collect::<Vec<_>>()), most(&few().collect::<Vec<_>>())),
        format!("ours has {} to {}", least(&own.few[..3]), most(&own.few[..3])),
        format!("but {} with 1024 slots, where ours has {}", table::ratio(found.few[3]), table::ratio(own.few[3])),
        format!("six rings lie between {} and {}", least(&rings), most(&rings)),
    ]
}

#[test]
fn the_guide_says_what_the_record_says() {
    let (guide, report) = (guide(), recorded());
    for said in of_pairs(&report).into_iter().chain(of_search(&report)) {
        assert!(guide.contains(&said), "docs/hash-functions.md does not say: {said}");
    }
    let [multiples, _] = &*report.families else { panic!("{:?}", report.families) };
    // "None for N = 2 to 56, and none in both"; and who the best is.
    assert_eq!((multiples.all.better[0], multiples.better_in_both), (0, 0));
    assert_eq!(multiples.few.best, NodeFunction::Multiples(45));
}

#[test]
fn the_guide_holds_the_table_of_pairs() {
    let table = table::pairs(&recorded()).unwrap();
    let table = table.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(guide().contains(&table), "copy the first table of functions.md");
}

#[test]
fn the_guide_shows_plots_that_there_are() {
    let guide = guide();
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let plots: Vec<&str> = guide.split("](").skip(1).filter_map(|link| link.split(')').next()).collect();
    let plots: Vec<&str> = plots.into_iter().filter(|link| link.ends_with(".svg")).collect();
    assert_eq!(plots.len(), 3, "{plots:?}");
    assert!(plots.iter().all(|plot| docs.join(plot).is_file()), "{plots:?}");
}

/// Nodes that are so far apart in number are neighbours.
#[test]
fn golden_multipliers_that_are_rounded_lie_in_clusters() {
    assert_eq!((21 * 317 % 512, 13 * 315 % 512), (1, 511));
    assert!(guide().contains("21 × 317 = 13 × 512 + 1"));
}
