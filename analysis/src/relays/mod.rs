//! `analysis relays`: the source document's experiments with TCP and UDP servers that register themselves.
//!
//! Requests of a fixed size of CPU work, by clients and servers; and a burst of a thousand connections. Each run has
//! servers of its own, as processes, and they register with one balancer. `docs/benchmarks.md` says how and why.

mod figures;
mod report;
mod stage;
mod table;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::bench::machine::Machine;
use crate::burst::{self, Burst};
use crate::control::Protocol;
use crate::cpu::{CpuTime, busy};
use crate::loopback::more_open_files;
use report::{BURST, BURST_SERVERS, Experiment, Report, Run, WORK_CLIENTS, WORK_SERVERS};
use stage::Stage;

/// For an answer, besides the work of all clients before it.
const PATIENCE: Duration = Duration::from_secs(30);
/// More cores than this for others disturb a run.
const QUIET: f64 = 0.2;
const LOOK: Duration = Duration::from_millis(200);
/// CPU time of a request for work, unless another is asked for.
pub(crate) const WORK_MS: u64 = 50;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The balancer's program
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/x86_64-unknown-linux-gnu/release/lb"))]
    pub(crate) lb: PathBuf,
    /// How often each run is made
    #[arg(long, default_value = "3", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: u32,
    /// CPU time of a request for work, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = WORK_MS, value_parser = clap::value_parser!(u64).range(1..=5000))]
    pub(crate) work: u64,
    /// Wait until others leave the machine alone, and repeat runs that they disturbed, for so long altogether
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = clap::value_parser!(u64).range(..=86400))]
    pub(crate) patience: u64,
    /// Where results go
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/results/relays"))]
    pub(crate) out: PathBuf,
    /// Write tables and plots anew from the runs in the results
    #[arg(long)]
    pub(crate) redraw: bool,
}

/// Runs all of it and writes what it found; false if any request had no answer.
#[allow(clippy::print_stdout, reason = "a program for the command line")]
pub(crate) async fn run(args: &Args) -> Result<bool, String> {
    let report = if args.redraw { read(&args.out)? } else { measure(args).await? };
    write(&args.out, &report)?;
    println!("{}\nWritten to {}", table::page(&report), args.out.display());
    Ok(report.failures().is_empty())
}

async fn measure(args: &Args) -> Result<Report, String> {
    more_open_files();
    let mut report = Report {
        machine: Machine::look(&args.lb),
        rounds: args.rounds,
        work_ms: args.work,
        repeated: 0,
        runs: Vec::new(),
    };
    let plan = plan(args.rounds);
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} runs, {elapsed}: {msg}");
    let bar = ProgressBar::new(plan.len() as u64);
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let mut patience = Duration::from_secs(args.patience);
    let mut stage = Stage::start(&args.lb).await?;
    for run in plan {
        bar.set_message(format!("{} {} clients, {} servers", run.clients, run.protocol.name(), run.servers));
        let (run, repeated) = undisturbed(&mut stage, run, args.work, &mut patience).await?;
        report.runs.push(run);
        report.repeated += repeated;
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(report)
}

/// All runs without what comes of them; round after round, so that a slow minute of the machine hits all alike.
fn plan(rounds: u32) -> Vec<Run> {
    let mut plan = Vec::new();
    for round in 1..=rounds {
        let run = |experiment, protocol, servers, clients| Run {
            experiment,
            protocol,
            servers,
            clients,
            round,
            outcome: burst::Outcome::default(),
            others: 0.0,
        };
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            for servers in WORK_SERVERS {
                plan.extend(WORK_CLIENTS.map(|clients| run(Experiment::Work, protocol, servers, clients)));
            }
        }
        plan.extend(BURST_SERVERS.map(|servers| run(Experiment::Burst, Protocol::Tcp, servers, BURST)));
    }
    plan
}

/// Makes a run while others are quiet, as long as there is patience. Whether it is repeated depends on what they did, not
/// on what came of it; but one with failures is kept in any case. Says how often it was repeated, too.
async fn undisturbed(stage: &mut Stage, run: Run, work_ms: u64, patience: &mut Duration) -> Result<(Run, u32), String> {
    let mut repeated = 0;
    loop {
        while !patience.is_zero() && look().await? > QUIET {
            *patience = patience.saturating_sub(LOOK);
        }
        let began = Instant::now();
        let done = once(stage, run.clone(), work_ms).await?;
        if done.others <= QUIET || done.outcome.failed() > 0 || patience.is_zero() {
            return Ok((done, repeated));
        }
        repeated += 1;
        *patience = patience.saturating_sub(began.elapsed());
    }
}

/// Cores that others have now.
async fn look() -> Result<f64, String> {
    let before = others()?;
    tokio::time::sleep(LOOK).await;
    Ok(others()?.saturating_sub(before).as_secs_f64() / LOOK.as_secs_f64())
}

/// Makes a run with servers of its own.
async fn once(stage: &mut Stage, run: Run, work_ms: u64) -> Result<Run, String> {
    let servers = stage.servers(run.protocol, run.servers).await?;
    let before = others()?;
    let work = Duration::from_millis(work_ms) * run.clients as u32;
    let outcome = match (run.experiment, run.protocol) {
        (Experiment::Burst, _) => burst::tcp(stage.relay(), "/20k", Burst::of(run.clients, PATIENCE)).await?,
        (Experiment::Work, Protocol::Tcp) => {
            let path = format!("/work?ms={work_ms}");
            burst::tcp(stage.relay(), &path, Burst::of(run.clients, PATIENCE + 2 * work)).await?
        }
        (Experiment::Work, Protocol::Udp) => {
            let order = format!("work {work_ms}");
            burst::udp(stage.relay(), order.as_bytes(), Burst::of(run.clients, PATIENCE + 2 * work)).await
        }
    };
    stage.check()?;
    let others = others()?.saturating_sub(before).as_secs_f64() / outcome.seconds;
    for server in servers {
        server.stop().await?;
    }
    Ok(Run { outcome, others, ..run })
}

/// CPU time that this machine has spent on others than this program, and those that it has started and not ended yet.
fn others() -> Result<Duration, String> {
    let ours = CpuTime::of(std::process::id()).map_err(|error| format!("CPU time: {error}"))?;
    let all = busy().map_err(|error| format!("CPU time of the machine: {error}"))?;
    Ok(all.saturating_sub(ours.total))
}

fn read(out: &Path) -> Result<Report, String> {
    let file = out.join("relays.json");
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let text = std::fs::read_to_string(&file).map_err(|error| failed(&error))?;
    serde_json::from_str(&text).map_err(|error| failed(&error))
}

fn write(out: &Path, report: &Report) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", out.display());
    std::fs::create_dir_all(out).map_err(|error| failed(&error))?;
    let json = serde_json::to_string_pretty(report).map_err(|error| failed(&error))?;
    std::fs::write(out.join("relays.json"), json + "\n").map_err(|error| failed(&error))?;
    std::fs::write(out.join("relays.md"), table::page(report)).map_err(|error| failed(&error))?;
    figures::draw(report, out).map_err(|error| failed(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_has_every_run_once() {
        let plan = plan(3);
        assert_eq!(plan.len(), 3 * (2 * 3 * 2 + 4));
        let same = |run: &Run, other: &Run| {
            let what = |run: &Run| (run.experiment, run.protocol, run.servers, run.clients, run.round);
            what(run) == what(other)
        };
        assert!(plan.iter().all(|run| plan.iter().filter(|other| same(run, other)).count() == 1));
    }
}
