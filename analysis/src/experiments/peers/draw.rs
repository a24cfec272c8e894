//! `peers.svg`.

use std::path::Path;

use plotters::prelude::RGBColor;

use super::super::a2::SIZES;
use super::super::table::ratio;
use super::failures::{HARMS, OURS, REPLICAS};
use super::seen::SLOW;
use super::{Figures, Peers, table};
use crate::bench::report::Spread as Middle;
use crate::plot::{Area, Drawn, Grouped, Height, colour, grouped, sheet};

/// The colour of a program that is in no load but those of failures.
const LAST: usize = 6;

/// What is drawn of failures.
struct Panel {
    title: String,
    y: &'static str,
    /// Of the rounds of a program.
    bar: fn(&[&Figures]) -> Option<Height>,
    number: fn(f64) -> String,
}

/// Evenness above, failures below.
pub(super) fn draw(peers: &Peers, file: &Path) -> Drawn {
    let sheet = sheet(file, (1, 2), (860, 420));
    if let [above, below] = &*sheet.panels()? {
        even(peers, above)?;
        let panels = [
            Panel {
                title: format!("Failed, or slower than {} ms", SLOW.as_millis()),
                y: "requests, all rounds",
                bar: lost,
                number: |value| format!("{value:.0}"),
            },
            Panel {
                title: format!("{REPLICAS} replicas work again"),
                y: "s from the harm; no bar: not in the round",
                bar: again,
                number: |value| if value < 0.1 { format!("{value:.3}") } else { format!("{value:.1}") },
            },
        ];
        for (area, panel) in below.split_evenly((1, 2)).iter().zip(panels) {
            failures(peers, area, &panel)?;
        }
    }
    sheet.finish()
}

fn lost(rounds: &[&Figures]) -> Option<Height> {
    let count: u64 = rounds.iter().map(|figures| figures.failed() + figures.slow).sum();
    Some(Height::from(count as f64))
}

fn again(rounds: &[&Figures]) -> Option<Height> {
    let Middle { median, min, max } = Middle::of(rounds.iter().filter_map(|figures| figures.again))?;
    Some(Height { value: median, whisker: Some((min, max)) })
}

/// Those of the loads, in order.
fn programs(peers: &Peers) -> Vec<&str> {
    let mut names: Vec<&str> = peers.spreads.iter().map(|spread| &*spread.subject).collect();
    names.dedup();
    names
}

/// A program has one colour in all charts; lb as it is has that of its bare ring, which is in no load of failures.
fn colour_of(peers: &Peers, program: &str) -> RGBColor {
    colour(programs(peers).iter().position(|name| *name == program).unwrap_or(if program == OURS { 0 } else { LAST }))
}

fn even(peers: &Peers, area: &Area<'_>) -> Drawn {
    let programs = programs(peers);
    let height = |program: &str, replicas| {
        let spread = peers.spreads.iter().find(|spread| spread.subject == program && spread.replicas == replicas)?;
        Some(Height::from(spread.max_mean()))
    };
    let group = |replicas| {
        let heights = programs.iter().map(|program| height(program, replicas)).collect();
        (format!("N = {replicas}"), heights)
    };
    let chart = Grouped {
        title: "The busiest replica, the same keys for all",
        y: "times the mean",
        series: programs.iter().map(|name| ((*name).to_owned(), colour_of(peers, name))).collect(),
        groups: SIZES.map(group).collect(),
        mark: Some((1.0, "all alike".into())),
        number: Some(ratio),
    };
    grouped(area, &chart)
}

fn failures(peers: &Peers, area: &Area<'_>, panel: &Panel) -> Drawn {
    let all = table::grouped(peers);
    let mut programs: Vec<&str> = Vec::new();
    for (program, ..) in &all {
        if !programs.contains(program) {
            programs.push(program);
        }
    }
    let group = |harm| {
        let of = |program: &&str| {
            let (.., rounds) = all.iter().find(|(name, which, _)| name == program && *which == harm)?;
            (panel.bar)(rounds)
        };
        (harm.name(peers.runtime).to_owned(), programs.iter().map(of).collect())
    };
    let chart = Grouped {
        title: &panel.title,
        y: panel.y,
        series: programs.iter().map(|name| ((*name).to_owned(), colour_of(peers, name))).collect(),
        groups: HARMS.into_iter().map(group).collect(),
        mark: None,
        number: Some(panel.number),
    };
    grouped(area, &chart)
}

#[cfg(test)]
mod tests {
    use super::super::super::spread::tests::example;
    use super::super::tests::peers;
    use super::*;

    #[test]
    fn a_plot_has_every_program_and_leaves_out_what_did_not_happen() {
        let spreads = vec![example("lb: ring, bound 1.25", 100, &[60, 40]), example("nginx", 100, &[80, 20])];
        let peers = Peers { spreads, ..peers() };
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("peers.svg");
        draw(&peers, &file).unwrap();
        let svg = std::fs::read_to_string(&file).unwrap();
        let times = |word: &str| svg.matches(&format!("\n{word}\n")).count();
        assert_eq!((times("lb: ring, bound 1.25"), times("lb"), times("nginx")), (1, 2, 3));
        // Evenness, then lost requests, then seconds: nginx had none after the kill.
        assert_eq!((times("1.20"), times("1.60"), times("17"), times("0.7")), (1, 1, 1, 1));
        assert_eq!((colour_of(&peers, OURS), colour_of(&peers, "other")), (colour(0), colour(LAST)));
    }
}
