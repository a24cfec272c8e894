//! Bounded load: so many requests, so many at a time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::Client;

/// A request that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What came of a load.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Requests by the replica that answered.
    pub(crate) by_replica: BTreeMap<String, u64>,
    /// Failures by what went wrong.
    pub(crate) failures: BTreeMap<String, u64>,
    /// From first to last.
    pub(crate) took: Duration,
}

/// Sends `requests` GETs to `url`, `concurrency` at a time, with a progress bar on a terminal.
pub(crate) async fn run(url: &str, requests: u64, concurrency: usize) -> Result<Outcome, reqwest::Error> {
    let client = Client::builder().no_proxy().timeout(TIMEOUT).build()?;
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} requests, {per_sec}");
    let bar = ProgressBar::new(requests).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let mut outcome = Outcome::default();
    let mut under_way = FuturesUnordered::new();
    let (mut sent, began) = (0, Instant::now());
    loop {
        while sent < requests && under_way.len() < concurrency {
            under_way.push(ask(&client, url));
            sent += 1;
        }
        let Some(answer) = under_way.next().await else { break };
        bar.inc(1);
        let (counts, what) = match answer {
            Ok(replica) => (&mut outcome.by_replica, replica),
            Err(failure) => (&mut outcome.failures, failure),
        };
        *counts.entry(what).or_default() += 1;
    }
    bar.finish_and_clear();
    outcome.took = began.elapsed();
    Ok(outcome)
}

/// The name of the replica that answered, or what went wrong.
async fn ask(client: &Client, url: &str) -> Result<String, String> {
    let response = client.get(url).send().await.map_err(|error| error.to_string())?;
    let status = response.status();
    let body: serde_json::Value = response.json().await.map_err(|error| format!("{status}: {error}"))?;
    let message = body["message"].as_str().unwrap_or_default();
    match message.strip_prefix("Hello from Server: ") {
        Some(replica) if status.is_success() => Ok(replica.to_owned()),
        _ => Err(format!("{status}: {message}")),
    }
}
