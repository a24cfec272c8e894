//! `analysis slow`: one slow replica of four, and what each policy makes of it.
//!
//! Two phases for each policy, each with a balancer of its own before the same four replicas, under the same load at a fixed
//! rate: in the first the fourth replica is slow all the time, in the second for the middle third. `docs/benchmarks.md` says
//! how and why.

mod balancer;
mod figures;
mod load;
mod replicas;
mod report;
mod table;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};

use crate::bench::machine::Machine;
use crate::json;
use crate::loopback::more_open_files;
use balancer::Balancer;
use replicas::Replicas;
use report::{Phase, REPLICAS, Report, Run, Settings};

/// A delay is at most this long, well below what the balancer waits for an answer.
const LONGEST_DELAY: Duration = Duration::from_secs(10);
/// Connections of the load, unless more could be in flight.
const CONNECTIONS: usize = 128;
const MOST_CONNECTIONS: usize = 4096;
/// Before each run, in seconds: what a policy learns from its first requests is not what this is about.
const WARM_UP: u32 = 1;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The balancer's program
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/x86_64-unknown-linux-gnu/release/lb"))]
    lb: PathBuf,
    /// The policies that are compared, as lb names them
    #[arg(long, value_delimiter = ',', default_value = "round-robin,random,least-requests,peak-ewma")]
    policies: Vec<String>,
    /// Requests a second
    #[arg(long, default_value = "200", value_parser = clap::value_parser!(u32).range(1..=5000))]
    rate: u32,
    /// How long each run is, besides a warm-up of one second; where the replica changes, it is rounded up to three parts of
    /// whole seconds
    #[arg(long, default_value = "20", value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// What three replicas, and the fourth while it is not slow, take to answer
    #[arg(long, value_name = "TIME", default_value = "2ms", value_parser = delay)]
    fast: Duration,
    /// What the slow one takes
    #[arg(long, value_name = "TIME", default_value = "200ms", value_parser = delay)]
    slow: Duration,
    /// Where results go
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/results/slow"))]
    out: PathBuf,
    /// Write tables and plots anew from the requests in the results
    #[arg(long)]
    redraw: bool,
}

fn delay(text: &str) -> Result<Duration, String> {
    let fits = humantime::parse_duration(text).ok().filter(|delay| *delay <= LONGEST_DELAY);
    fits.ok_or_else(|| format!("0ms to {LONGEST_DELAY:?}, such as 200ms"))
}

impl Args {
    /// What is measured, or what about it can't be.
    fn settings(&self) -> Result<Settings, String> {
        let Self { policies, rate, fast, slow, .. } = self;
        if slow <= fast {
            return Err(format!("--slow is {slow:?}; it must be longer than --fast, which is {fast:?}"));
        }
        if let Some(twice) = (1..policies.len()).find(|at| policies[..*at].contains(&policies[*at])) {
            return Err(format!("--policies names '{}' twice; once is allowed", policies[twice]));
        }
        // All may go to the slow one.
        let in_flight = (f64::from(*rate) * slow.as_secs_f64()).ceil() as usize;
        if in_flight * 2 > MOST_CONNECTIONS {
            let most = MOST_CONNECTIONS / 2;
            return Err(format!(
                "--rate {rate} and --slow {slow:?} may have {in_flight} requests in flight; {most} are allowed"
            ));
        }
        Ok(Settings {
            policies: policies.clone(),
            rate: *rate,
            seconds: self.seconds,
            warm_up: WARM_UP,
            fast_ms: fast.as_secs_f64() * 1e3,
            slow_ms: slow.as_secs_f64() * 1e3,
            connections: CONNECTIONS.max(in_flight * 2),
        })
    }
}

/// Runs all of it and writes what it found; false if any request failed.
#[allow(clippy::print_stdout, reason = "a program for the command line")]
pub(crate) async fn run(args: &Args) -> Result<bool, String> {
    let mut report = if args.redraw { read(&args.out)? } else { measure(args).await? };
    report.judge();
    write(&args.out, &report)?;
    println!("{}\nWritten to {}", table::page(&report), args.out.display());
    Ok(report.failures().is_empty())
}

async fn measure(args: &Args) -> Result<Report, String> {
    more_open_files();
    let settings = args.settings()?;
    for policy in &settings.policies {
        // Before minutes are spent on the others.
        balancer::knows(&args.lb, policy).await?;
    }
    let dir = tempfile::Builder::new().prefix("ringkeeper-slow-").tempdir();
    let dir = dir.map_err(|error| format!("no temporary folder: {error}"))?;
    let mut replicas = Replicas::start(REPLICAS, settings.fast())?;
    let plan: Vec<(Phase, &String)> =
        Phase::ALL.into_iter().flat_map(|phase| settings.policies.iter().map(move |policy| (phase, policy))).collect();
    let bar = progress(plan.iter().map(|(phase, _)| u64::from(settings.requests(*phase))).sum());
    let mut runs: Vec<Run> = Vec::new();
    for (phase, policy) in &plan {
        bar.set_message(format!("{policy}, {}", phase.name()));
        let fail = |error| format!("{policy}, {}: {error}", phase.name());
        let mut balancer = Balancer::start(&args.lb, policy, &replicas.members(), dir.path()).await.map_err(fail)?;
        let outcome = load::measure(balancer.addr, &mut replicas, &settings, *phase, &bar).await;
        balancer.check().map_err(fail)?;
        runs.push(Run::new(policy, *phase, outcome.map_err(fail)?));
        told(&bar, runs.len(), plan.len(), &runs[runs.len() - 1]);
    }
    bar.finish_and_clear();
    Ok(Report { machine: Machine::look(&args.lb), settings, verdict: None, runs })
}

fn progress(requests: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} requests, {eta} left: {msg}");
    let bar = ProgressBar::new(requests).with_finish(ProgressFinish::AndClear);
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

/// A line for a run that is done: above the bar, or where no bar is drawn.
#[allow(clippy::print_stderr, reason = "progress of a program for the command line")]
fn told(bar: &ProgressBar, number: usize, of: usize, run: &Run) {
    let all = run.whole();
    let line = format!(
        "{number}/{of} {}, {}: {} requests, {} failed, p99 {}",
        run.policy,
        run.phase.name(),
        all.requests,
        all.failed,
        all.latency.map_or_else(|| "-".into(), |latency| format!("{:.1} ms", latency.p99_ms)),
    );
    if std::io::stderr().is_terminal() {
        bar.println(line);
    } else {
        eprintln!("{line}");
    }
}

fn read(out: &Path) -> Result<Report, String> {
    let file = out.join("slow.json");
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let text = std::fs::read_to_string(&file).map_err(|error| failed(&error))?;
    let report: Report = serde_json::from_str(&text).map_err(|error| failed(&error))?;
    report.check().map_err(|error| failed(&error))?;
    Ok(report)
}

fn write(out: &Path, report: &Report) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", out.display());
    std::fs::create_dir_all(out).map_err(|error| failed(&error))?;
    let json = json::lines(report).map_err(|error| failed(&error))?;
    std::fs::write(out.join("slow.json"), json).map_err(|error| failed(&error))?;
    std::fs::write(out.join("slow.md"), table::page(report)).map_err(|error| failed(&error))?;
    figures::draw(report, out).map_err(|error| failed(&error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn settings(line: &[&str]) -> Result<Settings, String> {
        let line = Line::try_parse_from([&["slow"], line].concat());
        line.map_err(|error| error.to_string())?.args.settings()
    }

    #[test]
    fn by_default_four_policies_are_compared_over_128_connections() {
        let default = settings(&[]).unwrap();
        assert_eq!(default.policies, ["round-robin", "random", "least-requests", "peak-ewma"]);
        assert_eq!((default.rate, default.seconds, default.connections), (200, 20, 128));
        assert_eq!((default.fast_ms, default.slow_ms), (2.0, 200.0));
        assert_eq!(settings(&["--slow", "1s"]).unwrap().connections, 400, "twice what may be in flight");
    }

    #[test]
    fn what_can_not_be_measured_is_told() {
        let wrong = |line: &[&str]| settings(line).unwrap_err();
        assert_eq!(wrong(&["--slow", "2ms"]), "--slow is 2ms; it must be longer than --fast, which is 2ms");
        assert_eq!(wrong(&["--policies", "a,b,a"]), "--policies names 'a' twice; once is allowed");
        let much = "--rate 5000 and --slow 1s may have 5000 requests in flight; 2048 are allowed";
        assert_eq!(wrong(&["--rate", "5000", "--slow", "1s"]), much);
        assert!(wrong(&["--slow", "11s"]).contains("0ms to 10s, such as 200ms"));
    }

    #[test]
    fn results_are_read_as_they_were_written() {
        let dir = tempfile::tempdir().unwrap();
        let mut report = report::tests::report();
        report.judge();
        write(dir.path(), &report).unwrap();
        let file = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        let (json, page) = (file("slow.json"), file("slow.md"));
        assert!(json.lines().any(|line| line.contains("\"took_us\": [3000,3000,")), "{json}");
        let mut again = read(dir.path()).unwrap();
        again.judge();
        write(dir.path(), &again).unwrap();
        assert_eq!((file("slow.json"), file("slow.md")), (json, page));
        let damaged = file("slow.json").replacen("\"took_us\": [3000,", "\"took_us\": [", 1);
        std::fs::write(dir.path().join("slow.json"), damaged).unwrap();
        assert!(
            read(dir.path())
                .unwrap_err()
                .ends_with("a run has 59 took_us and 60 answered_by; both are needed by request")
        );
    }
}
