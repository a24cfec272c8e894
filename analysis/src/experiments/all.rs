//! `analysis all`: every experiment, one after the other, on one stage; and a page that leads to all of them.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Instant;

use super::cx::Cx;
use super::record::Summary;
use super::stage::Stage;
use super::{Args, Which};
use crate::bench::table::markdown;
use crate::{functions, relays};

/// The page.
const PAGE: &str = "experiments.md";
/// How often the experiments with TCP and UDP servers are repeated, and how long they wait for a quiet machine, in seconds.
const RELAY_ROUNDS: u32 = 1;
const RELAY_PATIENCE: u64 = 10;

/// Runs all; false if something does not hold.
#[allow(clippy::print_stdout, reason = "a program for the command line")]
pub(crate) async fn run(args: &Args) -> Result<bool, String> {
    let began = Instant::now();
    let cx = match args.redraw {
        true => None,
        false => Some(Cx::new(Stage::open(args.runtime, &args.lb).await?, args.settings(), &args.lb)),
    };
    let mut summaries = Vec::new();
    for which in Which::ALL {
        let summary = which.run(cx.as_ref(), args).await?;
        told(&summary);
        summaries.push(summary);
    }
    // Its containers would be in the way of what follows.
    drop(cx);
    let (sample, out) = (functions::SAMPLE, args.out.join("functions"));
    functions::run(&functions::Args { sample, seed: functions::SEED, out, redraw: args.redraw }).await?;
    let relays = relays::Args {
        lb: args.lb.clone(),
        rounds: RELAY_ROUNDS,
        patience: RELAY_PATIENCE,
        out: args.out.join("relays"),
        redraw: args.redraw,
        work: relays::WORK_MS,
    };
    let holds = relays::run(&relays).await?;
    let took = (!args.redraw).then(|| began.elapsed().as_secs_f64());
    let page = page(&summaries, holds, took);
    let file = args.out.join(PAGE);
    write(&file, &page)?;
    println!("{page}\nWritten to {}", file.display());
    Ok(holds && summaries.iter().all(|summary| summary.holds))
}

fn write(file: &Path, page: &str) -> Result<(), String> {
    std::fs::write(file, page).map_err(|error| format!("{}: {error}", file.display()))
}

/// A line for an experiment that is done.
#[allow(clippy::print_stderr, reason = "progress of a program for the command line")]
fn told(summary: &Summary) {
    let holds = if summary.holds { "holds" } else { "DOES NOT HOLD" };
    eprintln!("{} {holds}, {:.0} s", summary.title, summary.took);
}

fn page(summaries: &[Summary], relays: bool, took: Option<f64>) -> String {
    let holds = |holds: bool| if holds { "yes" } else { "NO" }.to_owned();
    let row = |summary: &Summary| {
        let link = format!("[{}]({}/{}.md)", summary.title, summary.name, summary.name);
        vec![link, format!("{:.0}", summary.took), holds(summary.holds)]
    };
    let relays = vec!["[TCP and UDP servers](relays/relays.md)".to_owned(), String::new(), holds(relays)];
    let functions = vec!["[Pairs of hash functions](functions/functions.md)".to_owned(), String::new(), String::new()];
    let rows = summaries.iter().map(row).chain([functions, relays]).collect();
    let mut page = "# Experiments\n\n`make analysis` has run them; docs/experiments.md says how and why.\n".to_owned();
    if let Some(took) = took {
        let _ = writeln!(page, "All of it took {:.1} minutes.", took / 60.0);
    }
    let table = markdown(&["experiment", "seconds", "all that must hold does"], 1, rows).unwrap_or_default();
    let _ = write!(page, "\n{table}\n");
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_leads_to_every_experiment_and_says_what_does_not_hold() {
        let summary = |name: &'static str, holds| Summary { name, title: "A title", took: 61.2, holds };
        let page = page(&[summary("a1", true), summary("a2", false)], true, Some(90.0));
        let rows: Vec<String> =
            page.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        for row in
            ["| [A title](a1/a1.md) | 61 | yes |", "| [A title](a2/a2.md) | 61 | NO |", "All of it took 1.5 minutes."]
        {
            assert!(rows.iter().any(|line| line == row), "{row}: {page}");
        }
    }
}
