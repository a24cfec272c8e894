//! `analysis bench`: what a request costs in CPU time, beside nginx, HAProxy and a plain TCP relay.
//!
//! All proxies run at the same time, each on the same core, before the same replicas; one at a time is under load, and they
//! take turns. `docs/benchmarks.md` says how and why.

mod figures;
pub(crate) mod goals;
pub(crate) mod machine;
mod micro;
pub(crate) mod paced;
mod proxies;
mod relay;
pub(crate) mod report;
mod session;
pub(crate) mod table;
mod workload;
mod wrk;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lb::placement::ring::{MAX_SLOTS, RingConfig};

use tokio::process::Command;

use crate::child;
use machine::Machine;
use proxies::{Kind, Programs, Proxy};
use report::{Report, Sample, Spread};
use session::Session;
use workload::{MEMBERS, PACED, PICK, REBUILD, WORKLOADS, Workload, ids};

/// The core that the measured proxies have, and nothing else of the run.
pub(crate) const PROXY_CORE: usize = 0;
/// The core of load generator and replicas.
pub(crate) const LOAD_CORE: usize = 1;
/// Seconds of a sample, as long as nothing else is said.
const SECONDS: u64 = 4;
const QUICK_SECONDS: u64 = 1;
/// Before each sample, so that connections and caches are as they stay.
const WARM_UP: u64 = 1;
/// The paced row runs at this part of what the slowest can do at most.
const PACED_PART: f64 = 0.5;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The balancer's program
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/x86_64-unknown-linux-gnu/release/lb"))]
    lb: PathBuf,
    /// How often each proxy has its turn
    #[arg(long, default_value = "5", value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// How long each turn is, besides a warm-up of one second [default: 4, with --quick 1]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: Option<u64>,
    /// Just these rows; may be given more than once
    #[arg(long, value_name = "ROW", value_parser = ids())]
    only: Vec<String>,
    /// Just the first row, in under a minute
    #[arg(long, conflicts_with = "only")]
    quick: bool,
    /// Where results go [default: analysis/results/bench, with --quick analysis/results/bench-quick]
    #[arg(long)]
    out: Option<PathBuf>,
    /// Judge the samples in the results again, and write tables and plots anew
    #[arg(long)]
    redraw: bool,
}

impl Args {
    fn out(&self) -> PathBuf {
        let name = if self.quick { "results/bench-quick" } else { "results/bench" };
        self.out.clone().unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join(name))
    }

    fn wants(&self, row: &str) -> bool {
        match (self.quick, self.only.is_empty()) {
            (true, _) => row == WORKLOADS[0].id,
            (false, true) => true,
            (false, false) => self.only.iter().any(|only| only == row),
        }
    }
}

/// Slots of a ring that holds `members`, in the proportion that the default ring has when it is full.
fn ring_slots(members: u32) -> u32 {
    let default = RingConfig::default();
    let each = default.slots.div_ceil(default.vnodes);
    members.saturating_mul(each).next_power_of_two().clamp(default.slots, MAX_SLOTS)
}

/// Measures, and writes what it found; the error says which sample failed. What was measured before is written, too.
#[allow(clippy::print_stdout, reason = "a program for the command line")]
pub(crate) async fn run(args: &Args) -> Result<(), String> {
    let out = args.out();
    let mut report = if args.redraw { read(&out)? } else { empty(args)? };
    if !args.redraw {
        report.failed = measure(args, &mut report).await.err();
    }
    report.verdicts = goals::judge(&report);
    write(&out, &report)?;
    println!("{}\n\nWritten to {}", table::page(&report), out.display());
    match report.failed {
        Some(error) if !args.redraw => Err(error),
        _ => Ok(()),
    }
}

/// A report without samples; an error if there is something missing that can't be done without.
#[allow(clippy::print_stderr, reason = "a program for the command line")]
fn empty(args: &Args) -> Result<Report, String> {
    if cfg!(debug_assertions) {
        eprintln!(
            "analysis: this is a debug build: replicas, relay and the timed pieces are slow (cargo run --release)"
        );
    }
    let machine = Machine::look(&args.lb);
    let (kinds, mut skipped) = kinds(&machine, &args.lb)?;
    skipped.extend(relay::Plan::of(|row| args.wants(row), &kinds).1);
    for skipped in &skipped {
        eprintln!("analysis: skipped: {skipped}");
    }
    let seconds = args.seconds.unwrap_or(if args.quick { QUICK_SECONDS } else { SECONDS });
    Ok(Report {
        machine,
        rounds: args.rounds,
        seconds,
        failed: None,
        skipped,
        order: Vec::new(),
        samples: Vec::new(),
        timings: Vec::new(),
        verdicts: Vec::new(),
    })
}

async fn measure(args: &Args, report: &mut Report) -> Result<(), String> {
    let (kinds, _) = kinds(&report.machine, &args.lb)?;
    let (relays, _) = relay::Plan::of(|row| args.wants(row), &kinds);
    let analysis = std::env::current_exe().map_err(|error| format!("this program: {error}"))?;
    let programs = Programs { lb: args.lb.clone(), analysis };
    let seconds = report.seconds;
    pin()?;
    // Before any proxy is there to disturb them.
    if args.wants(REBUILD) {
        report.timings.extend(micro::rebuilds()?);
    }
    if args.wants(PICK) {
        report.timings.extend(micro::picks()?);
    }
    let rows: Vec<&Workload> = WORKLOADS.iter().filter(|workload| args.wants(workload.id)).collect();
    let (paced, growth) = (args.wants(PACED), args.wants(MEMBERS));
    if rows.is_empty() && !paced && !growth && relays.is_empty() {
        return Ok(());
    }
    let turns = (rows.len() + usize::from(paced)) * kinds.len() + usize::from(growth) * workload::GROWTH.len();
    let turns = turns + relays.turns();
    let session = Session::start(programs, growth, (WARM_UP, seconds), turns as u64 * u64::from(args.rounds)).await?;
    let proxies = if rows.is_empty() && !paced { Vec::new() } else { session.proxies(&kinds).await? };
    let grown = if growth { session.growth().await? } else { Vec::new() };
    for round in 1..=args.rounds {
        for workload in &rows {
            for (name, proxy) in turn(report, workload.id, round, &proxies) {
                let sample = match workload.idle {
                    0 => session.sample(workload.id, round, name, proxy, &workload.load).await?,
                    _ => session.idle(round, proxy.kind, workload).await?,
                };
                report.samples.push(sample);
            }
        }
        if growth {
            for (name, proxy) in turn(report, MEMBERS, round, &grown) {
                report
                    .samples
                    .push(session.sample_and_background(MEMBERS, round, name, proxy, &WORKLOADS[0].load).await?);
            }
        }
    }
    if paced {
        let rate = rate(report, &session, &proxies).await?;
        for round in 1..=args.rounds {
            for (name, proxy) in turn(report, PACED, round, &proxies) {
                report.samples.push(session.paced(round, name, proxy, rate).await?);
            }
        }
    }
    if relays.is_empty() {
        return Ok(());
    }
    // Heartbeats of the others would take the core away now and then.
    drop((proxies, grown));
    relays.measure(args.rounds, report, &session).await
}

/// Who is measured, and who can't be.
fn kinds(machine: &Machine, lb: &Path) -> Result<(Vec<Kind>, Vec<String>), String> {
    if !lb.is_file() {
        return Err(format!("{} is missing: `make build` makes it, or name another with --lb", lb.display()));
    }
    if machine.wrk.is_none() {
        return Err("wrk is missing: apt-get install wrk nginx haproxy".into());
    }
    let mut skipped = Vec::new();
    let mut there = |kind: Kind| {
        let version = match kind {
            Kind::Nginx => &machine.nginx,
            Kind::Haproxy => &machine.haproxy,
            Kind::Lb | Kind::Relay => return true,
        };
        if version.is_none() {
            skipped.push(format!("{name} is not installed: apt-get install {name}", name = kind.name()));
        }
        version.is_some()
    };
    let kinds = Kind::ALL.into_iter().filter(|kind| there(*kind)).collect();
    Ok((kinds, skipped))
}

/// `program` on core `core`.
fn pinned(core: usize, program: &Path) -> Command {
    let mut command = child::command(Path::new("taskset"));
    command.args(["-c", &core.to_string()]).arg(program);
    command
}

/// Keeps this process off the proxies' core.
fn pin() -> Result<(), String> {
    let mut cores = nix::sched::CpuSet::new();
    let set = cores.set(LOAD_CORE);
    set.and_then(|()| nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &cores))
        .map_err(|error| format!("two cores are needed, one for proxies and one for load: {error}"))
}

/// All of them, beginning with another one each round.
fn turn<'a, T>(
    report: &mut Report,
    row: &str,
    round: u32,
    proxies: &'a [(String, T)],
) -> impl Iterator<Item = (&'a str, &'a T)> + use<'a, T> {
    let from = (round as usize - 1) % proxies.len().max(1);
    let order = proxies[from..].iter().chain(&proxies[..from]).map(|(name, proxy)| (name.as_str(), proxy));
    report.order.push((row.into(), round, order.clone().map(|(name, _)| name.to_owned()).collect()));
    order
}

/// The paced row's requests a second: a part of what the slowest proxy did at most.
async fn rate(report: &Report, session: &Session, proxies: &[(String, Proxy)]) -> Result<f64, String> {
    let first = &WORKLOADS[0];
    let mut most: BTreeMap<&str, f64> = BTreeMap::new();
    for (name, proxy) in proxies {
        let known = Spread::of(report.of(first.id, name).map(|sample: &Sample| sample.per_second));
        let per_second = match known {
            Some(spread) => spread.median,
            None => session.most(proxy, &first.load).await?,
        };
        most.insert(name, per_second);
    }
    let slowest = most.values().copied().fold(f64::INFINITY, f64::min);
    Ok((slowest * PACED_PART).round())
}

fn read(out: &Path) -> Result<Report, String> {
    let file = out.join("bench.json");
    let text = std::fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", file.display()))
}

fn write(out: &Path, report: &Report) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", out.display());
    std::fs::create_dir_all(out).map_err(|error| failed(&error))?;
    let json = serde_json::to_string_pretty(report).map_err(|error| failed(&error))?;
    std::fs::write(out.join("bench.json"), json + "\n").map_err(|error| failed(&error))?;
    std::fs::write(out.join("bench.md"), table::page(report)).map_err(|error| failed(&error))?;
    figures::draw(report, out).map_err(|error| failed(&error))
}
