//! Autoscaling: a square wave of load before an agent and a balancer that follows it. Is N right soon enough, and quiet
//! otherwise? And how long does news take from the one to the other?
//!
//! | file | what it does |
//! |---|---|
//! | `wave` | the load's course (pure) |
//! | `judge` | what is made of a run (pure) |
//! | `pair` | an agent and a balancer, as processes |
//! | `run` | one run |
//! | `news` | plays the agent before a real balancer |
//! | `table`, `figures` | the page and the plots |

mod figures;
mod judge;
mod news;
mod pair;
mod run;
mod table;
mod wave;

use std::path::Path;

use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};

use super::cx::{Cx, Settings};
use super::record::{Check, Experiment};
use super::stage::Runtime;
use crate::plot::Drawn;
use news::News;
use pair::Told;
use run::{Case, Run, Verdict};
use wave::Wave;

/// A request takes a replica so long, and it serves so many at a time.
const EACH_MS: u32 = 50;
const AT_ONCE: u32 = 4;
/// In flight at each replica: half of what it works on at a time.
const TARGET: f64 = 2.0;
const MIN: u32 = 1;
const MAX: u32 = 8;
const SPARES: u32 = 2;
/// Requests a second.
const LOW: u32 = 10;
const HIGH: u32 = 200;
/// p99 may be too high for so long after a jump, in seconds.
const SETTLED: f64 = 3.0;
/// What news may take, in milliseconds.
const SNAPSHOT_MS: f64 = 20.0;
const DELTA_MS: f64 = 2.0;
/// Least requests: a newcomer gets all that comes while others have a queue, so that queue is gone the soonest.
const POLICY: &str = "least-requests";

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Autoscale {
    /// What is judged.
    waves: Run,
    /// Others at one time, under the same load each.
    variants: Vec<Run>,
    news: Vec<News>,
}

impl Experiment for Autoscale {
    const NAME: &'static str = "autoscale";
    const TITLE: &'static str = "Autoscaling: N follows the load";
    const RUNTIME: Option<Runtime> = Some(Runtime::Process);

    async fn measure(cx: &Cx) -> Result<Self, String> {
        let (main, variants) = (main_case(), variants(cx.stage.lb()));
        let requests = variants.iter().chain([&main]).map(|case| u64::from(case.wave.requests())).sum::<u64>();
        let told = news::MEMBERS.len() as u64 * u64::from(news::SNAPSHOTS + news::DELTAS);
        let bar = cx.bar(Self::NAME, requests + told, "requests and messages");
        cx.begins(&bar, "news from agent to balancer");
        let (lb, dir) = (cx.stage.lb(), cx.stage.dir());
        let news = news::measure(lb, dir, || bar.inc(1)).await?;
        cx.begins(&bar, &main.name);
        let waves = run::run(lb, &main, &dir.join("waves"), &bar).await?;
        cx.begins(&bar, "variants");
        let runs = variants.iter().enumerate().map(|(number, case)| {
            let (dir, bar) = (dir.join(format!("variant{number}")), &bar);
            async move { run::run(lb, case, &dir, bar).await }
        });
        let variants = try_join_all(runs).await?;
        Ok(Self { waves, variants, news })
    }

    fn checks(&self) -> Vec<Check> {
        let waves = self.waves.verdicts();
        let limit = self.waves.limit();
        let all = waves.iter().zip(1..).flat_map(|(verdict, number)| wave_checks(number, verdict, limit));
        let failed = self.runs().map(|run| Check::none_failed(&run.case.name, run.took_us.len() as u64, run.failed()));
        let news = self.news.iter().flat_map(|news| {
            let members = news.members;
            [
                within(&format!("news: a snapshot of {members} members, median"), &news.snapshot_ms, SNAPSHOT_MS),
                within(&format!("news: a delta before {members} members, median"), &news.delta_ms, DELTA_MS),
            ]
        });
        all.chain(failed).chain(news).collect()
    }

    fn sections(&self) -> String {
        let (load, told) = table::words();
        format!(
            "## Waves\n\n{load}\n\n{}\n\n## Decisions\n\n{}\n\n## From the agent to the data path\n\n{}\n\n## Settings\n\n\
             {told}\n\n{}",
            table::waves(self),
            table::decisions(self),
            table::news(&self.news),
            table::settings(self),
        )
    }

    fn plots(&self) -> Vec<(&'static str, &'static str)> {
        vec![
            ("autoscale.svg", "load and N over time, and how long each request took"),
            (
                "variants.svg",
                "p99 over the same wave with N fixed, and with replicas that start slowly, with spares and without",
            ),
        ]
    }

    fn draw(&self, out: &Path) -> Drawn {
        figures::draw(self, out)
    }

    fn load(&self, settings: Settings) -> String {
        let requests: usize = self.runs().map(|run| run.took_us.len()).sum();
        format!("{requests} requests at fixed times, seed {}, which nothing depends on here", settings.seed)
    }
}

impl Autoscale {
    fn runs(&self) -> impl Iterator<Item = &Run> {
        [&self.waves].into_iter().chain(&self.variants)
    }
}

/// What must hold of a wave.
fn wave_checks(number: u32, verdict: &Verdict, limit: f64) -> [Check; 3] {
    let what = |what: &str| format!("wave {number}: {what}");
    let follows = verdict.most > verdict.before;
    [
        Check {
            what: what(&format!("p99 above twice its calm value, {limit:.0} ms")),
            limit: format!("{SETTLED:.1} s"),
            found: format!("{:.1} s", verdict.excess),
            holds: verdict.excess <= SETTLED + judge::STEP / 2.0,
        },
        Check {
            what: what(&format!("N at its end, after {} at most", verdict.most)),
            limit: verdict.before.to_string(),
            found: verdict.end.to_string(),
            holds: verdict.end == verdict.before && follows,
        },
        Check {
            what: what("changes of N's direction"),
            limit: "1".into(),
            found: verdict.turns.to_string(),
            holds: verdict.turns <= 1 && follows,
        },
    ]
}

/// The median of these times.
fn within(what: &str, times: &[f64], limit: f64) -> Check {
    let median = table::median(times);
    Check {
        what: what.into(),
        limit: format!("{limit:.1} ms"),
        found: format!("{median:.2} ms"),
        holds: median <= limit && !times.is_empty(),
    }
}

/// Before an agent with these further arguments.
fn case(name: &str, stretches: &[u32], further: &[&str], spares: u32) -> Case {
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let mut agent = words(&format!("--replicas {MIN}"));
    agent.extend(further.iter().map(|word| (*word).to_owned()));
    let replicas = [("SERVICE_TIME", format!("{EACH_MS}ms")), ("SERVICE_CONCURRENCY", AT_ONCE.to_string())];
    let replicas = replicas.map(|(name, value)| (name.to_owned(), value)).into();
    let told = Told { agent, balancer: words(&format!("--policy {POLICY}")), replicas };
    Case { name: name.to_owned(), wave: Wave { low: LOW, high: HIGH, stretches: stretches.to_vec() }, told, spares }
}

/// The arguments that make the agent decide.
fn scaling() -> String {
    format!(
        "--autoscale on --min-replicas {MIN} --max-replicas {MAX} --target-in-flight {TARGET:.1} --scale-up-window 200ms \
         --scale-up-cooldown 500ms --scale-down-window 5s --scale-down-cooldown 2s"
    )
}

/// The run that is judged.
fn main_case() -> Case {
    let scaling = scaling();
    case("two waves", &[10, 20, 20, 20, 20], &scaling.split(' ').collect::<Vec<_>>(), 0)
}

/// Those that are compared: one wave, at one time.
fn variants(lb: &Path) -> Vec<Case> {
    const STRETCHES: [u32; 3] = [6, 10, 16];
    let scaling = scaling();
    let scaling: Vec<&str> = scaling.split(' ').collect();
    let server = lb.with_file_name("server");
    let slowly = format!("sh -c 'sleep 1; exec {}'", server.display());
    // No more at a time than spares can be there for: a decision's replicas go into rotation together.
    let (step, spares) = (SPARES.to_string(), SPARES.to_string());
    let slow = [&scaling[..], &["--server-command", &slowly, "--scale-step", &step]].concat();
    let with_spares = [&slow[..], &["--spares", &spares]].concat();
    vec![
        case("N fixed", &STRETCHES, &[], 0),
        case("autoscale", &STRETCHES, &scaling, 0),
        case("1 s to start", &STRETCHES, &slow, 0),
        case("1 s to start, 2 spares", &STRETCHES, &with_spares, SPARES),
    ]
}

#[cfg(test)]
mod tests;
