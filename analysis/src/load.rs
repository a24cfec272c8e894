//! Bounded load: so many requests, so many at a time.

use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::{Client, Url};
use serde::{Deserialize, Serialize};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::bench::paced::whole;

/// A request that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Different failures that are told apart.
const KEPT: usize = 50;

/// What came of a load.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Requests by the replica that answered.
    pub(crate) by_replica: BTreeMap<String, u64>,
    /// Failures by what went wrong.
    pub(crate) failures: BTreeMap<String, u64>,
    /// From first to last.
    pub(crate) seconds: f64,
    /// Of those that were answered, in milliseconds; 0 without any.
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

impl Outcome {
    pub(crate) fn answered(&self) -> u64 {
        self.by_replica.values().sum()
    }

    pub(crate) fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    pub(crate) fn per_second(&self) -> f64 {
        if self.seconds > 0.0 { self.answered() as f64 / self.seconds } else { 0.0 }
    }

    fn note(&mut self, answer: Result<String, String>) {
        let (counts, what) = match answer {
            Ok(replica) => (&mut self.by_replica, replica),
            Err(failure) if self.failures.len() < KEPT => (&mut self.failures, failure),
            Err(_) => (&mut self.failures, "other failures".into()),
        };
        *counts.entry(what).or_default() += 1;
    }
}

/// Sends `requests` GETs to `url`, `concurrency` at a time, with a progress bar on a terminal.
pub(crate) async fn run(url: &str, requests: u64, concurrency: usize) -> Result<Outcome, String> {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} requests, {per_sec}");
    let bar = ProgressBar::new(requests).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let outcome = counted(url, requests, concurrency, &bar).await;
    bar.finish_and_clear();
    outcome
}

/// The same beside other loads that `bar` counts, too.
pub(crate) async fn counted(
    url: &str,
    requests: u64,
    concurrency: usize,
    bar: &ProgressBar,
) -> Result<Outcome, String> {
    counted_by(|_| url.to_owned(), requests, concurrency, bar).await
}

/// The same, the request with number n to `url(n)`.
pub(crate) async fn counted_by(
    url: impl Fn(u64) -> String,
    requests: u64,
    concurrency: usize,
    bar: &ProgressBar,
) -> Result<Outcome, String> {
    let mut outcome = Outcome::default();
    let mut took = Vec::with_capacity(requests as usize);
    let note = |_, answer: Result<String, String>, time: Duration| {
        bar.inc(1);
        if answer.is_ok() {
            took.push(time);
        }
        outcome.note(answer);
    };
    let all = each(requests, concurrency, url, note).await?;
    took.sort_unstable();
    outcome.seconds = all.as_secs_f64();
    (outcome.p50_ms, outcome.p99_ms) = (quantile(&took, 0.5), quantile(&took, 0.99));
    Ok(outcome)
}

/// Sends `requests` GETs, the one with number n to `url(n)`, `concurrency` at a time, and tells `note` of each: its number,
/// the name of the replica that answered or what went wrong, and how long it took. How long all took.
pub(crate) async fn each(
    requests: u64,
    concurrency: usize,
    url: impl Fn(u64) -> String,
    mut note: impl FnMut(u64, Result<String, String>, Duration),
) -> Result<Duration, String> {
    let client = Client::builder().no_proxy().timeout(TIMEOUT).build().map_err(|error| error.to_string())?;
    // Nothing is there to be used twice then.
    let once = concurrency as u64 >= requests;
    let mut under_way = FuturesUnordered::new();
    let (mut sent, began) = (0, Instant::now());
    loop {
        while sent < requests && under_way.len() < concurrency {
            let (client, url, number) = (&client, url(sent), sent);
            under_way.push(async move {
                let began = Instant::now();
                let answer = if once { ask_once(&url).await } else { ask(client, &url).await };
                (number, answer, began.elapsed())
            });
            sent += 1;
        }
        let Some((number, answer, took)) = under_way.next().await else { return Ok(began.elapsed()) };
        note(number, answer, took);
    }
}

/// The name of the replica that answered, or what went wrong.
async fn ask(client: &Client, url: &str) -> Result<String, String> {
    let response = client.get(url).send().await.map_err(|error| cause(&error))?;
    let status = response.status();
    let body = response.bytes().await.map_err(|error| cause(&error))?;
    match replica(&body) {
        Some(replica) if status.is_success() => Ok(replica.to_owned()),
        _ => Err(format!("{status}: {}", String::from_utf8_lossy(&body).chars().take(200).collect::<String>())),
    }
}

/// The same over a connection of its own, which is reset at the end: closed, each would keep its port for a minute, and
/// thousands of them make those that follow wait for one.
async fn ask_once(url: &str) -> Result<String, String> {
    let url = Url::parse(url).map_err(|error| error.to_string())?;
    let addrs = url.socket_addrs(|| None).map_err(|error| error.to_string())?;
    let exchange = async {
        let mut stream = TcpStream::connect(&*addrs).await?;
        SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        let query = url.query().map_or_else(String::new, |query| format!("?{query}"));
        let request = format!("GET {}{query} HTTP/1.1\r\nHost: {}\r\n\r\n", url.path(), url.authority());
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        loop {
            if let Some(body) = whole(&answer)? {
                return Ok(answer.split_off(body));
            }
            if stream.read_buf(&mut answer).await? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed before the answer's end"));
            }
        }
    };
    let body = timeout(TIMEOUT, exchange).await.map_err(|_| "no answer in time")?;
    let body = body.map_err(|error: io::Error| error.to_string())?;
    replica(&body).map(str::to_owned).ok_or_else(|| "an answer that is no replica's".into())
}

/// The name of the replica in an answer of `/home`.
pub(crate) fn replica(body: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(body).ok()?;
    let (_, rest) = text.split_once("\"Hello from Server: ")?;
    rest.split_once('"').map(|(name, _)| name)
}

/// The innermost error: it says what the system said, and nothing that differs between two alike.
pub(crate) fn cause(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".into();
    }
    let mut cause: &dyn Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// In milliseconds, by the nearest rank; 0 for none.
pub(crate) fn quantile(sorted: &[Duration], part: f64) -> f64 {
    let rank = (sorted.len() as f64 * part).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).map_or(0.0, |time| time.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use axum::Router;
    use axum::extract::Query;
    use axum::http::StatusCode;
    use axum::routing::get;

    use super::*;

    /// A server that says which number it was asked for; it has not heard of number 3.
    async fn server() -> (String, tokio::task::JoinHandle<()>) {
        let answer = async |Query(query): Query<BTreeMap<String, u64>>| match query.get("n") {
            Some(3) => (StatusCode::SERVICE_UNAVAILABLE, "no".to_owned()),
            n => {
                (StatusCode::OK, format!(r#"{{"message":"Hello from Server: S{}","status":""}}"#, n.unwrap_or(&0) % 2))
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/home", listener.local_addr().unwrap());
        let serving = tokio::spawn(async move {
            axum::serve(listener, Router::new().route("/home", get(answer))).await.unwrap();
        });
        (url, serving)
    }

    #[tokio::test]
    async fn every_request_is_counted_once_and_told_by_its_number() {
        let (url, serving) = server().await;
        let mut told = BTreeMap::new();
        let most = Cell::new(0);
        let asked = |n: u64| {
            most.set(most.get().max(n));
            format!("{url}?n={n}")
        };
        each(10, 4, asked, |n, answer, _| drop(told.insert(n, answer))).await.unwrap();
        assert_eq!((told.len(), most.get()), (10, 9));
        assert_eq!(told[&4], Ok("S0".into()));
        assert_eq!(told[&3], Err("503 Service Unavailable: no".into()));
        let mut at_once = BTreeMap::new();
        each(10, 10, |n| format!("{url}?n={n}"), |n, answer, _| drop(at_once.insert(n, answer))).await.unwrap();
        assert_eq!((at_once.len(), &at_once[&4], &at_once[&5]), (10, &Ok("S0".into()), &Ok("S1".into())));
        assert_eq!(at_once[&3], Err("status 503".into()));
        let outcome = counted(&url, 20, 5, &ProgressBar::hidden()).await.unwrap();
        assert_eq!((outcome.answered(), outcome.failed(), outcome.by_replica["S0"]), (20, 0, 20));
        assert!(outcome.p50_ms > 0.0 && outcome.p50_ms <= outcome.p99_ms && outcome.per_second() > 0.0);
        serving.abort();
        assert!(serving.await.unwrap_err().is_cancelled());
        let refused = counted(&url, 3, 3, &ProgressBar::hidden()).await.unwrap();
        assert_eq!((refused.answered(), refused.failed()), (0, 3));
        assert!(refused.failures.keys().all(|why| why.contains("refused")), "{refused:?}");
    }

    #[test]
    fn quantiles_are_those_of_the_nearest_rank() {
        let times: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!((quantile(&times, 0.5), quantile(&times, 0.99), quantile(&times, 1.0)), (100.0, 198.0, 200.0));
        assert_eq!(quantile(&[], 0.5), 0.0);
    }

    #[test]
    fn failures_of_all_sorts_take_no_more_room_than_some() {
        let mut outcome = Outcome::default();
        (0..500).for_each(|n| outcome.note(Err(format!("{n}"))));
        assert_eq!((outcome.failures.len(), outcome.failed()), (KEPT + 1, 500));
    }
}
