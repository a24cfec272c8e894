//! Nothing is lost and everything heals, shown on real child processes under load. The tests take turns: their figures
//! are part of what they show.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "tests fail by panicking, and say what they measured"
)]
#![allow(clippy::disallowed_methods, reason = "tests read the environment that they pass on")]

mod support;

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use support::load::Load;
use support::{Lb, eventually, lives};
use tokio::sync::Mutex;

static TURN: Mutex<()> = Mutex::const_new(());

const CLIENTS: usize = 32;

async fn victim(lb: &Lb) -> (String, Pid) {
    let replicas = lb.replicas().await;
    let victim: &Value = replicas.iter().find(|replica| replica["state"] == "ready").expect("one is ready");
    let pid = victim["runtime_id"].as_str().unwrap().parse().unwrap();
    (victim["hostname"].as_str().unwrap().to_owned(), Pid::from_raw(pid))
}

/// What a failure looked like from outside.
struct Times {
    replaced: Duration,
    ready: Duration,
}

/// Brings harm to a replica, and watches: it leaves `/rep` (and the rotation with it), then N are ready again.
async fn harm(lb: &Lb, signal: Signal) -> Times {
    let (name, pid) = victim(lb).await;
    let began = std::time::Instant::now();
    kill(pid, signal).unwrap();
    eventually("the victim is replaced", async || (!lb.rep().await.contains(&name)).then_some(())).await;
    let replaced = began.elapsed();
    assert_eq!(lb.rep().await.len(), 3, "N stays");
    lb.until_ready().await;
    Times { replaced, ready: began.elapsed() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_replicas_are_replaced_and_no_client_notices() {
    let _turn = TURN.lock().await;
    let lb = Lb::ready(&[]).await;
    let load = Load::on(&lb, CLIENTS);
    // Two of each lineage: each further one would have to wait longer.
    for round in 1..=6 {
        load.more(200).await;
        let Times { replaced, ready } = harm(&lb, Signal::SIGKILL).await;
        println!("figure: kill -9 under load, round {round}: replaced after {replaced:.1?}, 3 ready after {ready:.1?}");
        assert!(replaced < Duration::from_millis(100), "out of rotation after {replaced:?}");
        assert!(ready < Duration::from_secs(1), "N ready after {ready:?}");
    }
    load.more(200).await;
    let outcome = load.stop().await;
    println!("figure: {} requests while 6 replicas were killed, {} failed", outcome.requests, outcome.failures.len());
    outcome.assert_nothing_lost();
    assert_eq!(lb.metric("ringkeeper_replicas_replaced_total").await, 6.0);
    assert!(lb.log().iter().any(|line| line.contains("was killed by SIGKILL, replaced by ")), "{:?}", lb.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hung_replicas_are_replaced_and_their_requests_go_elsewhere() {
    let _turn = TURN.lock().await;
    let lb = Lb::ready(&[]).await;
    let load = Load::on(&lb, CLIENTS);
    for round in 1..=3 {
        load.more(200).await;
        let (_, pid) = victim(&lb).await;
        let Times { replaced, ready } = harm(&lb, Signal::SIGSTOP).await;
        println!("figure: SIGSTOP under load, round {round}: replaced after {replaced:.1?}, 3 ready after {ready:.1?}");
        assert!(replaced < Duration::from_secs(3), "out of rotation after {replaced:?}");
        eventually("the hung one is gone", async || (!lives(pid.as_raw() as u32)).then_some(())).await;
    }
    load.more(200).await;
    let outcome = load.stop().await;
    println!("figure: slowest request while 3 replicas hung: {:.1?}", outcome.slowest);
    outcome.assert_nothing_lost();
    assert!(lb.log().iter().any(|line| line.contains("failed 3 heartbeats")), "{:?}", lb.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn adding_and_removing_loses_nothing() {
    let _turn = TURN.lock().await;
    let lb = Lb::ready(&[]).await;
    let load = Load::on(&lb, CLIENTS);
    for round in 0..10 {
        let body = format!(r#"{{"n":3,"hostnames":["R{round}"]}}"#);
        assert_eq!(lb.change("POST", "/add", &body).await.0, 200);
        load.more(100).await;
        assert_eq!(lb.change("DELETE", "/rm", &body).await.0, 200);
        load.more(100).await;
    }
    let outcome = load.stop().await;
    println!(
        "figure: {} requests during 10 times /add and /rm of 3, {} failed",
        outcome.requests,
        outcome.failures.len()
    );
    outcome.assert_nothing_lost();
}

#[tokio::test]
async fn no_child_outlives_the_balancer() {
    let _turn = TURN.lock().await;
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        let mut lb = Lb::ready(&[]).await;
        let children: Vec<u32> = lb
            .replicas()
            .await
            .iter()
            .map(|replica| replica["runtime_id"].as_str().unwrap().parse().unwrap())
            .collect();
        assert!(children.iter().all(|pid| lives(*pid)) && children.len() == 3);
        lb.signal(signal);
        let status = lb.ended().await;
        assert_eq!(status.success(), signal == Signal::SIGTERM);
        eventually("all children are gone", async || children.iter().all(|pid| !lives(*pid)).then_some(())).await;
    }
}

#[tokio::test]
async fn what_a_replica_has_started_goes_with_it() {
    let _turn = TURN.lock().await;
    // The shell stays, with the server as its child.
    let command = format!("sh -c '{}; true'", support::server().display());
    // PORT is given, so the server listens there.
    let lb = Lb::ready(&["--server-command", &command, "--replicas", "1"]).await;
    let shell: u32 = lb.replicas().await[0]["runtime_id"].as_str().unwrap().parse().unwrap();
    let children = std::fs::read_to_string(format!("/proc/{shell}/task/{shell}/children")).unwrap();
    let child: u32 = children.split_whitespace().next().expect("a child").parse().unwrap();
    assert!(lives(child));
    assert_eq!(lb.change("DELETE", "/rm", r#"{"n":1}"#).await.0, 200);
    eventually("shell and server are gone", async || (!lives(shell) && !lives(child)).then_some(())).await;
}

#[tokio::test]
async fn idle_replicas_come_and_go_fast() {
    let _turn = TURN.lock().await;
    let lb = Lb::ready(&[]).await;
    for _ in 0..5 {
        let began = std::time::Instant::now();
        assert_eq!(lb.change("POST", "/add", r#"{"n":3,"hostnames":["A1","A2","A3"]}"#).await.0, 200);
        let added = began.elapsed();
        let began = std::time::Instant::now();
        assert_eq!(lb.change("DELETE", "/rm", r#"{"n":3,"hostnames":["A1","A2","A3"]}"#).await.0, 200);
        let removed = began.elapsed();
        println!("figure: /add of 3 processes {added:.1?}, /rm of 3 idle ones {removed:.1?}");
        assert!(added < Duration::from_secs(2) && removed < Duration::from_secs(1), "{added:?} {removed:?}");
    }
}
