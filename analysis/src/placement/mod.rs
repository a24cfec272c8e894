//! `analysis placement`: how evenly every policy and hash function spreads requests, and how many keys a change moves.
//!
//! Nothing runs and nothing is timed: the library's own pickers and tables are asked, with random numbers from a seed. So the
//! same program gives the same figures everywhere. They are written to `placement.json`, drawn, and put into
//! `docs/placement.md` between two marks.

pub(crate) mod case;
pub(crate) mod count;
mod docs;
pub(crate) mod figure;
mod figures;
pub(crate) mod fleet;
mod report;
mod table;

use std::fs;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};

use crate::bench::machine::Machine;
use case::{Case, SMALL};
use lb::placement::hash::RingHash;
use report::{
    BOUNDED_REQUESTS, BOUNDS, CHANGED, FLEETS, IN_FLIGHT, Report, SIX, Settings, WEIGHTED_IN_FLIGHT, WEIGHTS,
};

/// For each random request of a spread, so many for a distribution by weight: shares are compared with what is due there,
/// so chance must be smaller.
const WEIGHTED: u32 = 4;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Random requests of each spread
    #[arg(long, default_value = "100000", value_parser = clap::value_parser!(u32).range(1000..=10_000_000))]
    requests: u32,
    /// Seed of the random numbers: the same one gives the same figures
    #[arg(long, default_value = "17")]
    seed: u64,
    /// Where results go
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/results/placement"))]
    out: PathBuf,
    /// The guide that gets the tables
    #[arg(long, value_name = "FILE", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/placement.md"))]
    docs: PathBuf,
    /// Judge the figures in the results again, and write tables and plots anew
    #[arg(long)]
    redraw: bool,
}

/// Works all of it out and writes it; false if a goal is missed.
#[allow(clippy::print_stdout, reason = "a program for the command line")]
pub(crate) async fn run(args: &Args) -> Result<bool, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", args.docs.display());
    // Before a minute is spent.
    let guide = fs::read_to_string(&args.docs).map_err(|error| failed(&error))?;
    docs::replaced(&guide, "").map_err(|error| failed(&error))?;
    let mut report = if args.redraw { read(&args.out)? } else { work_out(args).await? };
    report.judge();
    let part = table::part(&report);
    write(&args.out, &report)?;
    let guide = docs::replaced(&guide, &part).map_err(|error| failed(&error))?;
    fs::write(&args.docs, guide).map_err(|error| failed(&error))?;
    println!("{part}\n\nWritten to {} and {}", args.out.display(), args.docs.display());
    Ok(report.holds())
}

async fn work_out(args: &Args) -> Result<Report, String> {
    let settings = Settings {
        requests: args.requests,
        weighted_requests: args.requests.saturating_mul(WEIGHTED),
        seed: args.seed,
    };
    let random = (settings.requests, settings.seed);
    let (hashing, keyless) = (case::hashing(), case::keyless());
    let spreads: Vec<&Case> = hashing.iter().chain(&keyless).collect();
    let moving: Vec<(Case, u32)> =
        case::moving().into_iter().flat_map(|case| CHANGED.map(|replicas| (case.clone(), replicas))).collect();
    // With room for the one that is added.
    let moving: Vec<(Case, u32)> = moving.into_iter().filter(|(case, replicas)| case.holds(replicas + 1)).collect();
    let weighted = case::weighted();
    let mut progress = Progress::new(spreads.len() + weighted.len() + moving.len() + hashing.len());
    let mut report = Report {
        machine: Machine::here(),
        settings,
        spread: Vec::new(),
        bounded: Vec::new(),
        shares: Vec::new(),
        weighted: Vec::new(),
        moves: Vec::new(),
        failures: Vec::new(),
        goals: Vec::new(),
    };
    for case in spreads {
        progress.begins(format!("spread: {}", case.name)).await;
        let bounds: &[f64] = if case.is_hashing() { &BOUNDS } else { &[] };
        let loads = [(0, None), (IN_FLIGHT, None)].into_iter();
        let loads: Vec<_> = loads.chain(bounds.iter().map(|bound| (IN_FLIGHT, Some(*bound)))).collect();
        for replicas in FLEETS.into_iter().filter(|replicas| case.holds(*replicas)) {
            for load in &loads {
                report.spread.push(count::spread(case, replicas, *load, random)?);
            }
        }
    }
    let ring = Case::ring(RingHash::Assignment, SMALL);
    for bound in BOUNDS {
        let load = (IN_FLIGHT, Some(bound));
        report.bounded.push(count::spread(&ring, FLEETS[0], load, (BOUNDED_REQUESTS, args.seed))?);
    }
    for case in &weighted {
        progress.begins(format!("weights: {}", case.name)).await;
        let loads: &[usize] = if case.is_hashing() { &[0] } else { &[0, WEIGHTED_IN_FLIGHT] };
        for in_flight in loads {
            let random = (report.settings.weighted_requests, args.seed);
            report.weighted.push(count::weighted(case, &WEIGHTS, *in_flight, random)?);
        }
    }
    for (case, replicas) in &moving {
        progress.begins(format!("moves: {}, {replicas} replicas", case.name)).await;
        report.moves.push(count::moves(case, *replicas)?);
    }
    for case in &hashing {
        progress.begins(format!("failures: {}", case.name)).await;
        report.shares.push(count::shares(case, SIX)?);
        report.failures.push(count::failure(case, SIX)?);
    }
    progress.bar.finish_and_clear();
    Ok(report)
}

/// What is being worked out: a bar, or lines where no bar is drawn.
struct Progress {
    bar: ProgressBar,
    begun: usize,
    steps: usize,
}

impl Progress {
    fn new(steps: usize) -> Self {
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}");
        let bar = ProgressBar::new(steps as u64).with_finish(ProgressFinish::AndClear);
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self { bar, begun: 0, steps }
    }

    /// The next step begins; here a signal can end the run.
    #[allow(clippy::print_stderr, reason = "progress of a program for the command line")]
    async fn begins(&mut self, what: String) {
        if !std::io::stderr().is_terminal() {
            eprintln!("{}/{} {what}", self.begun + 1, self.steps);
        }
        self.bar.set_position(self.begun as u64);
        self.bar.set_message(what);
        self.begun += 1;
        tokio::task::yield_now().await;
    }
}

fn read(out: &Path) -> Result<Report, String> {
    let file = out.join("placement.json");
    let text = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", file.display()))
}

fn write(out: &Path, report: &Report) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", out.display());
    fs::create_dir_all(out).map_err(|error| failed(&error))?;
    let json = serde_json::to_string_pretty(report).map_err(|error| failed(&error))?;
    fs::write(out.join("placement.json"), json + "\n").map_err(|error| failed(&error))?;
    figures::draw(report, out).map_err(|error| failed(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_read_as_they_were_written() {
        let dir = tempfile::tempdir().unwrap();
        let mut report = report::tests::report();
        report.judge();
        write(dir.path(), &report).unwrap();
        let json = || fs::read_to_string(dir.path().join("placement.json")).unwrap();
        let before = json();
        let again = read(dir.path()).unwrap();
        assert_eq!((&again.spread, &again.goals), (&report.spread, &report.goals));
        write(dir.path(), &again).unwrap();
        assert_eq!(json(), before);
    }

    #[tokio::test]
    async fn a_guide_without_marks_is_told_before_anything_is_worked_out() {
        let dir = tempfile::tempdir().unwrap();
        let docs = dir.path().join("guide.md");
        fs::write(&docs, "no marks").unwrap();
        let args = Args { requests: 1000, seed: 1, out: dir.path().join("out"), docs, redraw: false };
        let error = run(&args).await.unwrap_err();
        assert!(error.contains("guide.md") && error.contains(docs::BEGIN), "{error}");
        assert!(!dir.path().join("out").exists());
    }
}
