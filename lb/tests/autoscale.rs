//! Decisions by the load, with real processes: N follows it, an outlier is replaced, weights follow latency.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "tests fail by panicking, and say what they measured"
)]
#![allow(clippy::disallowed_methods, reason = "tests read the environment that they pass on")]

mod support;

use serde_json::Value;
use support::agent::Agent;
use support::load::Load;
use support::{Lb, eventually, server};
use tokio::sync::Mutex;

static TURN: Mutex<()> = Mutex::const_new(());

async fn decisions(lb: &Lb) -> Vec<Value> {
    lb.client.get(lb.admin_url("/api/v1/decisions")).send().await.unwrap().json().await.unwrap()
}

/// The first decision that is about this and has been carried out.
async fn decided(lb: &Lb, kind: &str) -> Option<Value> {
    let decisions = decisions(lb).await;
    decisions.into_iter().find(|decision| decision["kind"] == kind && !decision["outcome"].is_null())
}

/// Settings that make up their mind quickly.
const QUICK: [&str; 18] = [
    "--autoscale",
    "on",
    "--replicas",
    "1",
    "--max-replicas",
    "4",
    "--target-in-flight",
    "2",
    "--scale-up-window",
    "200ms",
    "--scale-up-cooldown",
    "300ms",
    "--scale-down-window",
    "1s",
    "--scale-down-cooldown",
    "1s",
    "--replica-env",
    "SERVICE_TIME=20ms",
];

async fn n_follows_the_load(lb: &Lb) {
    assert_eq!(lb.rep().await.len(), 1);
    // Eight at a time: two each for four.
    let load = Load::on(lb, 8);
    let (_, took) = eventually("there are four", async || (lb.rep().await.len() == 4).then_some(())).await;
    println!("figure: 1 -> 4 replicas {took:.1?} after eight clients came");
    load.more(200).await;
    let first = decided(lb, "scale").await.expect("a decision");
    let reason = first["reason"].as_str().unwrap();
    assert!(reason.starts_with('+') && reason.contains("in flight per replica") && reason.contains("> 2"), "{first}");
    assert_eq!(first["outcome"], "done", "{first}");
    load.stop().await.assert_nothing_lost();
    let (_, took) = eventually("there is one", async || (lb.rep().await.len() == 1).then_some(())).await;
    println!("figure: 4 -> 1 replicas {took:.1?} after they went");
    let all = decisions(lb).await;
    let ups = all.iter().filter(|it| it["reason"].as_str().unwrap().starts_with('+')).count();
    let last_up = all.iter().rposition(|it| it["reason"].as_str().unwrap().starts_with('+'));
    assert_eq!(last_up, Some(ups - 1), "once up and once down: {all:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn n_follows_the_load_within_one_process() {
    let _turn = TURN.lock().await;
    n_follows_the_load(&Lb::ready(&QUICK).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn n_follows_what_balancers_report() {
    let _turn = TURN.lock().await;
    let agent = Agent::start(&QUICK);
    n_follows_the_load(&agent.ready_balancer(&[]).await).await;
    let measured = async || {
        let replicas = agent.ask("/api/v1/replicas").await;
        let is_measured = replicas[0]["cpu"].is_f64() && replicas[0]["memory"].as_u64().unwrap_or_default() > 100_000;
        is_measured.then_some(())
    };
    eventually("the agent shows what its processes use", measured).await;
    let own = agent.ask("/api/v1/decisions").await;
    assert!(own.as_array().unwrap().len() > 1, "{own}");
}

#[tokio::test]
async fn people_may_change_n_within_its_bounds_and_are_left_alone_then() {
    let _turn = TURN.lock().await;
    let mut args = QUICK.to_vec();
    args.extend(["--min-replicas", "1", "--scale-hold", "1h"]);
    let lb = Lb::ready(&args).await;
    let (status, body) = lb.change("POST", "/add", r#"{"n":2}"#).await;
    assert_eq!((status, support::names(&body).len()), (200, 3));
    let (status, body) = lb.change("POST", "/add", r#"{"n":2}"#).await;
    assert!(status == 400 && body.contains("max_replicas = 4"), "{body}");
    let (status, body) = lb.change("DELETE", "/rm", r#"{"n":3}"#).await;
    assert!(status == 400 && body.contains("min_replicas = 1"), "{body}");
    // Nobody needs three; the next decision would have come after a second.
    let load = Load::on(&lb, 1);
    load.more(150).await;
    load.stop().await.assert_nothing_lost();
    assert_eq!((lb.rep().await.len(), decisions(&lb).await.len()), (3, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_much_slower_than_its_peers_is_replaced_before_it_fails() {
    let _turn = TURN.lock().await;
    // The first of each name is slow; whoever replaces it has another name.
    let command =
        format!("sh -c 'case $SERVER_ID in S2) export SERVICE_TIME=100ms;; esac; exec {}'", server().display());
    let args = ["--server-command", &command, "--policy", "round-robin", "--outliers", "on"];
    let lb = Lb::ready(&args).await;
    let load = Load::on(&lb, 16);
    let (decision, took) = eventually("the slow one is ejected", async || decided(&lb, "eject").await).await;
    println!("figure: the slow one of three is replaced {took:.1?} after the load began");
    assert_eq!((&decision["decision"], &decision["outcome"]), (&"replace S2".into(), &"done".into()), "{decision}");
    assert!(decision["reason"].as_str().unwrap().contains("its peers"), "{decision}");
    let names = lb.rep().await;
    assert!(names.len() == 3 && !names.contains(&"S2".to_owned()), "{names:?}");
    load.more(500).await;
    load.stop().await.assert_nothing_lost();
    assert!(lb.log().iter().any(|line| line.contains("replica S2 (ring 2) answers after")), "{:?}", lb.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slower_replica_gets_less() {
    let _turn = TURN.lock().await;
    let command = format!(
        "sh -c 'case $SERVER_ID in S2) export SERVICE_TIME=20ms;; *) export SERVICE_TIME=5ms;; esac; exec {}'",
        server().display()
    );
    let lb = Lb::ready(&["--server-command", &command, "--policy", "round-robin", "--weights", "auto"]).await;
    let load = Load::on(&lb, 8);
    let weights = async || {
        let replicas = lb.replicas().await;
        let weight = |name: &str| {
            let replica = replicas.iter().find(|replica| replica["hostname"] == name).unwrap();
            replica["weight"].as_u64().unwrap()
        };
        let weights = [weight("S1"), weight("S2"), weight("S3")];
        (weights[1] * 2 <= weights[0] && weights[1] * 2 <= weights[2]).then_some(weights)
    };
    let (weights, took) = eventually("the slow one has half of the others' weight", weights).await;
    println!("figure: weights {weights:?} {took:.1?} after the load began");
    load.stop().await.assert_nothing_lost();
    assert!(decided(&lb, "weigh").await.is_some());
}
