//! `analysis pick`: how long one choice of a replica takes, by policy and number of replicas, beside `pingora-ketama`.
//!
//! Runs the benchmark of `lb` (`lb/benches/pick.rs`), and reads the samples that criterion leaves. What is timed is said
//! there; every policy that it has is in the table.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use lb::policy::PolicyKind;
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use crate::bench::goals::Verdict;
use crate::bench::machine::Machine;
use crate::bench::report::{Spread, Timing};
use crate::bench::table;
use crate::child::Running;

/// Names in the benchmark that are no policy's.
const LOOP: &str = "loop";
const KETAMA: &str = "pingora-ketama";
/// Two array look-ups: `maglev`, and the ring without a bound.
const LOOK_UP_NS: f64 = 10.0;
const ANY_NS: f64 = 100.0;
/// The fleet before which all others are judged.
const LARGEST: u32 = 500;
/// The ring with as many points as `pingora-ketama`, and how often it should be done while that one is done once.
const AS_KETAMA: &str = "160 points";
const FASTER: f64 = 3.0;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where results go
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/results/pick"))]
    out: PathBuf,
    /// Judge the timings in the results again, and write the table anew
    #[arg(long)]
    redraw: bool,
    /// For criterion: a part of the names of what is timed, --quick, and so on
    #[arg(last = true)]
    criterion: Vec<String>,
}

/// What is written to `pick.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Report {
    machine: Machine,
    /// By policy (`row`), case and members; a batch is one of criterion's samples.
    timings: Vec<Timing>,
    verdicts: Vec<Verdict>,
}

/// What criterion writes of a case (`benchmark.json`), as far as it is read here.
#[derive(Deserialize)]
struct Case {
    group_id: String,
    function_id: Option<String>,
    value_str: Option<String>,
}

/// What it has measured (`sample.json`): picks, and the nanoseconds that they took together.
#[derive(Deserialize)]
struct Samples {
    iters: Vec<f64>,
    times: Vec<f64>,
}

/// Times all cases, and writes and shows the table.
#[allow(clippy::print_stdout, reason = "a program for the command line")]
pub(crate) async fn run(args: &Args) -> Result<(), String> {
    let mut report = if args.redraw { read(&args.out)? } else { measure(args).await? };
    report.verdicts = judge(&report.timings);
    write(&args.out, &report)?;
    println!("\n{}\nWritten to {}", page(&report), args.out.display());
    Ok(())
}

async fn measure(args: &Args) -> Result<Report, String> {
    let machine = Machine::here();
    // Of its own, so that nothing of an earlier run is in it.
    let folder = tempfile::tempdir().map_err(|error| format!("a temporary folder: {error}"))?;
    let mut cargo = Command::new("cargo");
    cargo.args(["bench", "--locked", "--quiet", "-p", "lb", "--bench", "pick", "--"]).args(&args.criterion);
    cargo.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).env("CRITERION_HOME", folder.path());
    cargo.stdin(Stdio::null()).process_group(0).kill_on_drop(true);
    let mut cargo = Running::shown(cargo).map_err(|error| format!("cargo: {error}"))?;
    let status = cargo.wait().await.map_err(|error| format!("cargo: {error}"))?;
    if !status.success() {
        return Err(format!("cargo bench has failed ({status})"));
    }
    let mut timings = Vec::new();
    collect(folder.path(), &mut timings)?;
    if timings.is_empty() {
        return Err(format!("nothing was timed: no case has {:?} in its name", args.criterion.join(" ")));
    }
    timings.sort_by_key(|timing| (rank(&timing.row), timing.case.clone(), timing.members));
    Ok(Report { machine, timings, verdicts: Vec::new() })
}

/// The order of the rows: what all pay for, the policies as they are listed elsewhere, and who they are compared with.
fn rank(row: &str) -> usize {
    let policies = PolicyKind::WORDS;
    if row == LOOP { 0 } else { 1 + policies.iter().position(|word| *word == row).unwrap_or(policies.len()) }
}

/// Reads all cases below `folder`.
fn collect(folder: &Path, timings: &mut Vec<Timing>) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.file_name().is_some_and(|name| name == "new") {
            timings.push(timing(parse(&path.join("benchmark.json"))?, &parse(&path.join("sample.json"))?)?);
        } else if path.is_dir() {
            collect(&path, timings)?;
        }
    }
    Ok(())
}

fn timing(case: Case, samples: &Samples) -> Result<Timing, String> {
    let mut nanos: Vec<f64> = samples.times.iter().zip(&samples.iters).map(|(time, picks)| time / picks).collect();
    nanos.sort_by(f64::total_cmp);
    let row = case.group_id;
    let at = |part: f64| {
        let at = (part * nanos.len() as f64) as usize;
        nanos.get(at).copied().ok_or_else(|| format!("{row}: no samples"))
    };
    let (lower_ns, median_ns, upper_ns) = (at(0.25)?, at(0.5)?, at(0.75)?);
    let members = case.value_str.unwrap_or_default();
    let members = members.parse().map_err(|_| format!("{row}: members are '{members}', not a number"))?;
    let case = case.function_id.unwrap_or_default();
    Ok(Timing { row, case, members, median_ns, lower_ns, upper_ns, batches: nanos.len() })
}

/// The time of `pingora-ketama` with as many members, by that of `timing`.
fn ketama_by(timing: &Timing, timings: &[Timing]) -> Option<Spread> {
    let theirs = timings.iter().find(|other| other.row == KETAMA && other.members == timing.members)?;
    Some(Spread {
        median: theirs.median_ns / timing.median_ns,
        min: theirs.lower_ns / timing.upper_ns,
        max: theirs.upper_ns / timing.lower_ns,
    })
}

/// All goals of which there are the values.
fn judge(timings: &[Timing]) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for timing in timings.iter().filter(|timing| timing.row != LOOP && timing.row != KETAMA) {
        let (row, case) = (timing.row.clone(), format!("{}, {} members", timing.case, timing.members));
        let look_up = timing.case.starts_with("bare") && row != "rendezvous";
        if look_up || timing.members == LARGEST {
            let limit = if look_up { LOOK_UP_NS } else { ANY_NS };
            let measured = Spread { median: timing.median_ns, min: timing.lower_ns, max: timing.upper_ns };
            let (goal, holds) = (format!("ns: {case}"), measured.median < limit);
            verdicts.push(Verdict { row: row.clone(), goal, limit, at_least: false, measured, holds });
        }
        if timing.case == AS_KETAMA
            && let Some(measured) = ketama_by(timing, timings)
        {
            let (goal, holds) = (format!("{KETAMA} / it: {case}"), measured.median >= FASTER);
            verdicts.push(Verdict { row, goal, limit: FASTER, at_least: true, measured, holds });
        }
    }
    verdicts
}

fn page(report: &Report) -> String {
    let machine = &report.machine;
    let mut page = format!(
        "# Picks\n\n{}, {} cores, Linux {}, {}.\nCommit {}{}, {}.\nNanoseconds for one choice of a replica; median, and \
         the middle half of the samples. How this is measured: docs/benchmarks.md.\n",
        machine.cpu,
        machine.cores,
        machine.kernel,
        machine.rustc,
        machine.commit,
        if machine.dirty { " with changes" } else { "" },
        machine.date,
    );
    let mut section = |title: &str, table: Option<String>| {
        if let Some(table) = table {
            let _ = write!(page, "\n## {title}\n\n{table}\n");
        }
    };
    section("Goals", table::goals(&report.verdicts));
    section("All cases", cases(&report.timings));
    page
}

fn cases(timings: &[Timing]) -> Option<String> {
    let row = |timing: &Timing| {
        let spread = Spread { median: timing.median_ns, min: timing.lower_ns, max: timing.upper_ns };
        let ketama = ketama_by(timing, timings).map_or_else(String::new, |ratio| table::number(ratio.median));
        let values = [timing.members.to_string(), table::number(spread.median), table::range(spread), ketama];
        [vec![timing.row.clone(), timing.case.clone()], values.into()].concat()
    };
    let header = ["policy", "case", "members", "ns", "middle half", "ketama / it"];
    table::markdown(&header, 2, timings.iter().map(row).collect())
}

fn parse<T: serde::de::DeserializeOwned>(file: &Path) -> Result<T, String> {
    let text = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", file.display()))
}

fn read(out: &Path) -> Result<Report, String> {
    parse(&out.join("pick.json"))
}

fn write(out: &Path, report: &Report) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", out.display());
    fs::create_dir_all(out).map_err(|error| failed(&error))?;
    let json = serde_json::to_string_pretty(report).map_err(|error| failed(&error))?;
    fs::write(out.join("pick.json"), json + "\n").map_err(|error| failed(&error))?;
    fs::write(out.join("pick.md"), page(report)).map_err(|error| failed(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timed(row: &str, case: &str, members: u32, nanos: f64) -> Timing {
        let case = Case { group_id: row.into(), function_id: Some(case.into()), value_str: Some(members.to_string()) };
        let (iters, times) = (vec![10.0; 4], [4.0, 1.0, 2.0, 3.0].map(|part| part * nanos * 10.0 / 3.0).into());
        timing(case, &Samples { iters, times }).unwrap()
    }

    #[test]
    fn quartiles_are_those_of_the_samples() {
        let timing = timed("maglev", "64 in flight", 3, 9.0);
        assert_eq!((timing.lower_ns, timing.median_ns, timing.upper_ns, timing.batches), (6.0, 9.0, 12.0, 4));
        let none = Case { group_id: "maglev".into(), function_id: None, value_str: Some("3".into()) };
        assert!(super::timing(none, &Samples { iters: vec![], times: vec![] }).is_err());
    }

    #[test]
    fn a_policy_that_nobody_knows_is_judged_and_shown() {
        let timings = [timed("new", "64 in flight", 3, 500.0), timed("new", "64 in flight", 500, 99.0)];
        let verdicts = judge(&timings);
        assert_eq!(verdicts.len(), 1, "before the largest fleet only");
        assert!(verdicts[0].holds && verdicts[0].limit == ANY_NS);
        assert!(cases(&timings).unwrap().contains("| new "), "{}", cases(&timings).unwrap());
        assert!(!judge(&[timed("new", "64 in flight", 500, 100.0)])[0].holds);
    }

    #[test]
    fn look_ups_are_judged_before_every_fleet_and_ours_beside_ketamas() {
        let timings = [
            timed(LOOP, "keys alone", 0, 1.0),
            timed("consistent", "bare xxh3", 3, 9.9),
            timed("consistent", AS_KETAMA, 3, 8.0),
            timed("maglev", "bare", 50, 10.0),
            timed(KETAMA, AS_KETAMA, 3, 24.0),
        ];
        let verdicts = judge(&timings);
        let held: Vec<_> = verdicts.iter().map(|verdict| (verdict.limit, verdict.holds)).collect();
        assert_eq!(held, [(LOOK_UP_NS, true), (FASTER, true), (LOOK_UP_NS, false)]);
    }
}
