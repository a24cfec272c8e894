//! Slow start: a newcomer is given less than its part at first.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "tests fail by panicking, and say what they measured"
)]
#![allow(clippy::disallowed_methods, reason = "tests read the environment that they pass on")]

mod support;

use std::time::{Duration, Instant};

use support::client::Client;
use support::conn::Gate;
use support::replica::{Answer, Replica, balance, nobody};
use support::{Lb, eventually, server};

/// Requests at a time. The bound lets neither of two replicas hold more than `ceil(1.25 × 40 / 2)` = 25 of them, so at
/// least 15 go to each.
const REQUESTS: usize = 40;
const PART: usize = 15;

/// Answers once it is let.
fn holding(gate: &Gate) -> Answer {
    let gate = gate.clone();
    Answer::Script(std::sync::Arc::new(move |mut conn| {
        let gate = gate.clone();
        Box::pin(async move {
            while let Some(head) = conn.request().await {
                if head.starts_with("GET /held ") {
                    gate.pass().await;
                }
                conn.answer("yes").await;
            }
        })
    }))
}

/// How many of [`REQUESTS`] that are under way at one time the newcomer gets.
async fn share(lb: &Lb, old: &Replica, new: &Replica, gate: &Gate) -> usize {
    let held = |replica: &Replica| replica.requests().iter().filter(|head| head.starts_with("GET /held ")).count();
    let before = (held(old), held(new));
    let mut clients = Vec::new();
    for n in 1..=REQUESTS {
        let mut client = Client::connect(lb).await;
        client.send("GET /held HTTP/1.1\r\nHost: a\r\n\r\n").await;
        clients.push(client);
        let arrived = async || (held(old) + held(new) == before.0 + before.1 + n).then_some(());
        eventually("each request arrives before the next is sent", arrived).await;
    }
    let got = held(new) - before.1;
    for client in &mut clients {
        gate.let_one();
        assert_eq!(client.response().await.status(), 200);
    }
    got
}

/// A balancer that one replica has been with for `age`, and a second one that has just come.
async fn with_newcomer(slow_start: &str, age: Duration, gate: &Gate) -> (Lb, Replica, Replica) {
    let old = Replica::start(holding(gate)).await;
    let addr = nobody().await;
    let args = ["--slow-start", slow_start, "--bound", "1.25", "--hash", "xxh3", "--heartbeat-interval", "50ms"];
    let lb = balance(&[old.addr, addr], &[&args[..], &["--workers", "1"]].concat()).await;
    eventually("the first one is ready", async || (lb.get("/x").await.0 == 200).then_some(())).await;
    let ready = Instant::now();
    eventually("it is no newcomer any more", async || (ready.elapsed() > age).then_some(())).await;
    let new = Replica::start_at(addr, holding(gate)).await;
    lb.until_ready().await;
    (lb, old, new)
}

#[tokio::test]
async fn a_newcomer_gets_less_than_its_part_at_first_and_all_of_it_afterwards() {
    const SLOW_START: Duration = Duration::from_secs(4);
    let gate = Gate::closed();
    let (lb, old, new) = with_newcomer("4s", SLOW_START + Duration::from_millis(100), &gate).await;
    let came = Instant::now();
    let first = share(&lb, &old, &new, &gate).await;
    assert!(first < PART / 2, "{first} of {REQUESTS} after {:?}", came.elapsed());
    assert!(first > 0, "none at all is no start");
    eventually("it has come long ago", async || (came.elapsed() > SLOW_START).then_some(())).await;
    let later = share(&lb, &old, &new, &gate).await;
    assert!((PART..=REQUESTS - PART).contains(&later), "{later} of {REQUESTS}");
}

#[tokio::test]
async fn without_slow_start_a_newcomer_gets_its_part_at_once() {
    let gate = Gate::closed();
    let (lb, old, new) = with_newcomer("0s", Duration::ZERO, &gate).await;
    let got = share(&lb, &old, &new, &gate).await;
    assert!((PART..=REQUESTS - PART).contains(&got), "{got} of {REQUESTS}");
}

#[test]
fn slow_start_without_a_bound_stops_the_start() {
    server();
    for command in ["check", "serve"] {
        let mut lb = std::process::Command::new(env!("CARGO_BIN_EXE_lb"));
        let output = lb.args([command, "--slow-start", "10s", "--bound", "off"]).output().expect("lb runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(64), "{said}");
        assert!(said.contains("slow") && said.contains("bound") && !said.contains("unexpected argument"), "{said}");
    }
    let mut lb = std::process::Command::new(env!("CARGO_BIN_EXE_lb"));
    let output = lb.args(["check", "--slow-start", "0s", "--bound", "off"]).output().expect("lb runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
