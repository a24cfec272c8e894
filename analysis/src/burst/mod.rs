//! `analysis burst`: so many requests at once, each on a connection or socket of its own, and who has answered them.

mod tcp;
mod udp;

use std::collections::BTreeMap;
use std::future::Future;
use std::time::{Duration, Instant};

use comfy_table::{CellAlignment, Table, presets};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde::{Deserialize, Serialize};

use crate::loopback::{more_open_files, resolve};
pub(crate) use tcp::tcp;
pub(crate) use udp::udp;

/// The field of an HTTP answer that names who has answered.
pub(crate) const NAME: &str = "x-server";
/// Different names and failures that are told apart.
const KEPT: usize = 50;
/// No longer than this is a name that is shown.
const NAME_LENGTH: usize = 64;

#[derive(clap::Args)]
#[group(id = "where", required = true, args = ["tcp", "udp"])]
pub(crate) struct Args {
    /// Send HTTP requests to HOST:PORT
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "udp")]
    tcp: Option<String>,
    /// Send datagrams to HOST:PORT
    #[arg(long, value_name = "HOST:PORT")]
    udp: Option<String>,
    /// How many
    #[arg(short = 'n', long, default_value = "1000", value_parser = clap::value_parser!(u32).range(1..=20_000))]
    requests: u32,
    /// How many at a time [default: all]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    at_once: Option<u32>,
    /// TCP: what is asked for; `/work?ms=50` and `/20k` are there, too
    #[arg(long, default_value = "/")]
    path: String,
    /// UDP: what is sent; the server answers `who` and `work 50` with its name, and echoes anything else
    #[arg(long, default_value = "who")]
    payload: String,
    /// An answer that takes longer has failed, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
}

/// How many, how many of them at a time, and for how long an answer is waited for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Burst {
    pub(crate) requests: usize,
    pub(crate) at_once: usize,
    pub(crate) timeout: Duration,
}

impl Burst {
    /// All at once.
    pub(crate) fn of(requests: usize, timeout: Duration) -> Self {
        Self { requests, at_once: requests, timeout }
    }
}

/// What came of a burst.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Answers by the name of who has answered.
    pub(crate) by_server: BTreeMap<String, u64>,
    /// Failures by what went wrong.
    pub(crate) failures: BTreeMap<String, u64>,
    /// From the first request to the last answer.
    pub(crate) seconds: f64,
}

impl Outcome {
    pub(crate) fn answered(&self) -> u64 {
        self.by_server.values().sum()
    }

    pub(crate) fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    fn note(&mut self, answer: Result<String, String>) {
        let (counts, what) = match answer {
            Ok(name) => (&mut self.by_server, name.chars().take(NAME_LENGTH).collect()),
            Err(why) => (&mut self.failures, why),
        };
        let what = if counts.len() < KEPT || counts.contains_key(&what) { what } else { "others".into() };
        *counts.entry(what).or_default() += 1;
    }
}

/// Runs `ask` so many times; it says who has answered, or what went wrong.
async fn all<F: Future<Output = Result<String, String>>>(burst: Burst, mut ask: impl FnMut() -> F) -> Outcome {
    let mut outcome = Outcome::default();
    let mut under_way = FuturesUnordered::new();
    let (mut sent, began) = (0, Instant::now());
    loop {
        while sent < burst.requests && under_way.len() < burst.at_once {
            under_way.push(ask());
            sent += 1;
        }
        let Some(answer) = under_way.next().await else { break };
        outcome.note(answer);
    }
    outcome.seconds = began.elapsed().as_secs_f64();
    outcome
}

/// Sends the burst and prints who answered; false if any request failed.
#[allow(clippy::print_stdout, reason = "a program for the command line")]
pub(crate) async fn run(args: &Args) -> Result<bool, String> {
    more_open_files();
    let requests = args.requests as usize;
    let at_once = args.at_once.map_or(requests, |at_once| at_once as usize);
    let burst = Burst { requests, at_once, timeout: Duration::from_secs(args.timeout) };
    let outcome = match (&args.tcp, &args.udp) {
        (Some(host), _) => tcp(resolve(host).await?, &args.path, burst).await?,
        (None, Some(host)) => udp(resolve(host).await?, args.payload.as_bytes(), burst).await,
        (None, None) => return Err("neither --tcp nor --udp says where to".into()),
    };
    println!("{}", table(&outcome));
    Ok(outcome.failed() == 0)
}

/// Who answered how often, and what went wrong.
pub(crate) fn table(outcome: &Outcome) -> String {
    let (answered, failed) = (outcome.answered(), outcome.failed());
    let mut text = String::new();
    if answered > 0 {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING).set_header(["SERVER", "ANSWERS", "SHARE"]);
        for (name, count) in &outcome.by_server {
            let share = *count as f64 * 100.0 / answered as f64;
            table.add_row([name.clone(), count.to_string(), format!("{share:.1} %")]);
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        text.push_str(&format!("{table}\n\n"));
    }
    text.push_str(&format!("{answered} answered, {failed} failed, in {:.2} s", outcome.seconds));
    for (why, count) in &outcome.failures {
        text.push_str(&format!("\n  {count} x {why}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn each_request_is_counted_once_and_no_more_run_than_allowed() {
        let (begun, running, most) = (Cell::new(0), Cell::new(0), Cell::new(0));
        let burst = Burst { requests: 100, at_once: 7, timeout: Duration::from_secs(1) };
        let outcome = all(burst, || {
            let number = begun.replace(begun.get() + 1);
            let (running, most) = (&running, &most);
            async move {
                running.set(running.get() + 1);
                most.set(most.get().max(running.get()));
                tokio::task::yield_now().await;
                running.set(running.get() - 1);
                if number % 10 == 0 { Err("no".into()) } else { Ok(format!("S{}", number % 2)) }
            }
        });
        let outcome = outcome.await;
        assert_eq!((begun.get(), most.get()), (100, 7));
        assert_eq!((outcome.answered(), outcome.failed()), (90, 10));
        assert_eq!(outcome.by_server, BTreeMap::from([("S0".into(), 40), ("S1".into(), 50)]));
        let table = table(&outcome);
        assert!(table.contains("55.6 %") && table.ends_with("\n  10 x no"), "{table}");
    }

    #[test]
    fn names_and_failures_are_bounded() {
        let mut outcome = Outcome::default();
        for number in 0..1000 {
            outcome.note(Ok(format!("{number}{}", "x".repeat(1000))));
            outcome.note(Err(number.to_string()));
        }
        assert_eq!((outcome.by_server.len(), outcome.failures.len()), (KEPT + 1, KEPT + 1));
        assert_eq!((outcome.answered(), outcome.failed()), (1000, 1000));
        assert!(outcome.by_server.keys().all(|name| name.len() <= NAME_LENGTH));
    }
}
