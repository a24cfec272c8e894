//! `analysis soak`: millions of requests of all sorts, not one of which may fail, while memory stays flat.
//!
//! `lb` runs with the process runtime and three sample replicas. Every answer is checked to its last byte; at the end the
//! balancer must have counted just what was received. `--kill-every` kills replicas meanwhile, which must not show.

mod answer;
mod client;
mod kill;
mod record;

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};
use serde::Serialize;
use tokio::task::{JoinSet, LocalSet};

use crate::bench::machine::Machine;
use crate::child::{Running, command};
use crate::cpu::resident_kib_of;
use crate::loopback;
use client::{Mix, Progress};
use record::{Memory, Second, draw};

/// From one look at memory and progress to the next.
const LOOK: Duration = Duration::from_secs(1);
/// For the balancer to have counted the last answers.
const COUNTED: Duration = Duration::from_secs(5);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The balancer's program, with the program 'server' beside it
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/x86_64-unknown-linux-gnu/release/lb"))]
    lb: PathBuf,
    /// How many requests
    #[arg(long, default_value = "5000000", value_parser = clap::value_parser!(u64).range(1..))]
    requests: u64,
    /// How many at a time, each on a connection of its own
    #[arg(long, default_value = "64", value_parser = clap::value_parser!(u16).range(1..=4096))]
    connections: u16,
    /// Kill a replica that often, in seconds; requests with a body are then PUTs, as a POST must not be repeated
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86400))]
    kill_every: Option<u64>,
    /// The longest body of a request, in bytes; the replica answers long ones before it has read them
    #[arg(long, default_value_t = client::LONGEST, value_parser = max_body)]
    max_body: usize,
    /// Where results go
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/results/soak"))]
    out: PathBuf,
}

fn max_body(text: &str) -> Result<usize, String> {
    let fits = text.parse().ok().filter(|length| *length <= client::LONGEST);
    fits.ok_or_else(|| format!("0 to {}", client::LONGEST))
}

/// What came of it, as it is written to `soak.json`.
#[derive(Debug, Serialize)]
struct Report {
    machine: Machine,
    requests: u64,
    connections: u16,
    kill_every: Option<u64>,
    kills: u64,
    max_body: usize,
    seconds: f64,
    progress: Progress,
    /// `None` if the run was too short to say.
    memory: Option<Memory>,
    /// What does not hold.
    problems: Vec<String>,
    samples: Vec<Second>,
}

/// Runs it and writes what it found; false if anything does not hold.
#[allow(clippy::print_stdout, reason = "a program for the command line")]
pub(crate) async fn run(args: &Args) -> Result<bool, String> {
    let dir = tempfile::Builder::new().prefix("ringkeeper-soak-").tempdir();
    let dir = dir.map_err(|error| format!("no temporary folder: {error}"))?;
    let mut balancer = Balancer::start(&args.lb, dir.path()).await?;
    let mix = Mix { repeatable: args.kill_every.is_some(), max_body: args.max_body };
    let progress = Rc::new(RefCell::new(Progress::new(args.requests, mix)));
    let mut samples = Vec::new();
    let mut kills = 0;
    let began = Instant::now();
    let local = LocalSet::new();
    let load = async {
        let mut clients = JoinSet::new();
        for _ in 0..args.connections {
            let (addr, progress) = (balancer.addr, Rc::clone(&progress));
            clients.spawn_local(async move { client::run(addr, &progress).await });
        }
        while let Some(ended) = clients.join_next().await {
            ended.map_err(|error| format!("a client: {error}"))?;
        }
        Ok::<_, String>(())
    };
    let watched = local.run_until(async {
        tokio::select! {
            ended = load => ended,
            error = watch(balancer.running.pid, &progress, &mut samples) => Err(error),
            error = kill::run(args.kill_every, &balancer.admin, balancer.running.pid, &mut kills) => Err(error),
        }
    });
    let watched = watched.await;
    balancer.running.check("lb")?;
    watched?;
    let seconds = began.elapsed().as_secs_f64();
    let progress = progress.replace(Progress::new(0, mix));
    let memory = Memory::judge(&samples, args.requests);
    let mut problems = problems(&progress, args, memory.as_ref());
    // What failed was counted in one class or another.
    if progress.done().1 == 0 {
        problems.extend(miscounted(&balancer.admin, &progress).await?);
    }
    let report = Report {
        machine: Machine::look(&args.lb),
        requests: args.requests,
        connections: args.connections,
        kill_every: args.kill_every,
        kills,
        max_body: args.max_body,
        seconds,
        progress,
        memory,
        problems,
        samples,
    };
    write(&args.out, &report)?;
    println!("{}\n\nWritten to {}", summary(&report), args.out.display());
    Ok(report.problems.is_empty())
}

/// A balancer that serves.
struct Balancer {
    running: Running,
    addr: SocketAddr,
    /// `http://127.0.0.1:port` of its admin listener.
    admin: String,
}

impl Balancer {
    async fn start(lb: &Path, dir: &Path) -> Result<Self, String> {
        if !lb.is_file() {
            return Err(format!("{} is missing: `make build` makes it, or name another with --lb", lb.display()));
        }
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, loopback::free_port()?));
        let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, loopback::free_port()?));
        let mut command = command(lb);
        command.args(["serve", "--runtime", "process", "--replicas", "3"]);
        command.args(["--listen", &addr.to_string(), "--admin-listen", &admin.to_string()]);
        let mut running = Running::start(command, dir.join("lb.log")).map_err(|error| format!("lb: {error}"))?;
        let admin = format!("http://{admin}");
        loopback::until_ready(&format!("{admin}/readyz"), "lb", &mut running).await?;
        Ok(Self { running, addr, admin })
    }
}

/// Notes memory and progress once a second, for as long as it is polled.
async fn watch(pid: u32, progress: &RefCell<Progress>, samples: &mut Vec<Second>) -> String {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} requests, {per_sec}, {eta} left: {msg}");
    let bar = ProgressBar::new(progress.borrow().total()).with_finish(ProgressFinish::AndClear);
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let began = Instant::now();
    let mut ticks = tokio::time::interval(LOOK);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let rss_kib = match resident_kib_of(pid) {
            Ok(kib) => kib,
            Err(error) => return format!("lb's memory: {error}"),
        };
        let (requests, failures) = progress.borrow().done();
        let before = samples.last();
        let seconds = began.elapsed().as_secs_f64();
        let since = seconds - before.map_or(0.0, |before| before.seconds);
        let per_second = (requests - before.map_or(0, |before| before.requests)) as f64 / since;
        samples.push(Second { seconds, requests, failures, per_second, rss_kib });
        bar.set_position(requests);
        bar.set_message(format!("{failures} failed, {:.1} MiB", rss_kib as f64 / 1024.0));
    }
}

fn problems(progress: &Progress, args: &Args, memory: Option<&Memory>) -> Vec<String> {
    let mut problems = Vec::new();
    let (requests, failures) = progress.done();
    if failures > 0 {
        problems.push(format!("{failures} requests failed"));
    }
    if requests != args.requests {
        problems.push(format!("{requests} requests were done, not {}", args.requests));
    }
    match memory {
        None => problems.push("too short to say whether memory stays flat: use more --requests".into()),
        Some(memory) if !memory.flat => problems.push(format!(
            "memory grows: {} KiB in the second quarter, {} KiB in the last",
            memory.second_quarter_kib, memory.last_quarter_kib
        )),
        Some(_) => {}
    }
    problems
}

/// Does the balancer count other answers than the clients do?
async fn miscounted(admin: &str, progress: &Progress) -> Result<Option<String>, String> {
    let (client, began) = (loopback::client()?, Instant::now());
    let received = progress.by_class();
    loop {
        let page = client.get(format!("{admin}/metrics")).send().await.map_err(|error| error.to_string())?;
        let page = page.text().await.map_err(|error| error.to_string())?;
        let counted = ["2xx", "3xx", "4xx", "5xx"].map(|class| {
            let name = format!("ringkeeper_responses_total{{class=\"{class}\"}} ");
            page.lines().find_map(|line| line.strip_prefix(&name)?.parse::<u64>().ok()).unwrap_or_default()
        });
        if counted == received {
            return Ok(None);
        }
        // A worker may count an answer after its last byte.
        if began.elapsed() > COUNTED {
            let what = "answers of class 2xx, 3xx, 4xx, 5xx";
            return Ok(Some(format!("{what}: lb counts {counted:?}, {received:?} were received")));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn summary(report: &Report) -> String {
    let (requests, failures) = report.progress.done();
    let mut text = format!(
        "{requests} requests in {:.0} s ({:.0} a second) over {} connections: {failures} failed, {} replicas killed\n",
        report.seconds,
        requests as f64 / report.seconds,
        report.connections,
        report.kills,
    );
    for (kind, count) in &report.progress.by_kind {
        text.push_str(&format!("  {count:>10} {kind}\n"));
    }
    if let Some(memory) = &report.memory {
        text.push_str(&format!(
            "memory: {:.1} MiB in the second quarter, {:.1} MiB in the last, at most {:.1} allowed: {}\n",
            memory.second_quarter_kib as f64 / 1024.0,
            memory.last_quarter_kib as f64 / 1024.0,
            memory.limit_kib as f64 / 1024.0,
            if memory.flat { "flat" } else { "NOT FLAT" },
        ));
    }
    for (failure, count) in &report.progress.failures {
        text.push_str(&format!("  {count} failed: {failure}\n"));
    }
    for problem in &report.problems {
        text.push_str(&format!("PROBLEM: {problem}\n"));
    }
    if report.problems.is_empty() {
        text.push_str("All of it holds.\n");
    }
    text.trim_end().to_owned()
}

fn write(out: &Path, report: &Report) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", out.display());
    std::fs::create_dir_all(out).map_err(|error| failed(&error))?;
    let json = serde_json::to_string_pretty(report).map_err(|error| failed(&error))?;
    std::fs::write(out.join("soak.json"), json + "\n").map_err(|error| failed(&error))?;
    std::fs::write(out.join("soak.txt"), summary(report) + "\n").map_err(|error| failed(&error))?;
    draw(&report.samples, &out.join("soak.svg")).map_err(|error| failed(&error))
}
