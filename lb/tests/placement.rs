//! Policies, weights and priorities at run time, and the questions that a running balancer answers about them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "tests fail by panicking, and say what they measured"
)]
#![allow(clippy::disallowed_methods, reason = "tests read the environment that they pass on")]

mod support;

use std::collections::BTreeMap;
use std::process::{Command, Output};
use std::time::Duration;

use lb::policy::PolicyKind;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use support::Lb;

/// How many of so many requests, one after the other, each replica answers.
async fn served(lb: &Lb, requests: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..requests {
        *counts.entry(home(lb, "").await).or_default() += 1;
    }
    counts
}

/// Who answers a request of this user.
async fn home(lb: &Lb, user: &str) -> String {
    let response = lb.client.get(lb.url("/home")).header("x-user", user).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let body: Value = response.json().await.unwrap();
    body["message"].as_str().unwrap().rsplit(' ').next().unwrap().to_owned()
}

async fn patch(lb: &Lb, path: &str, body: &str) -> (u16, Value) {
    let request = lb.client.patch(lb.admin_url(path)).body(body.to_owned());
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

async fn set(lb: &Lb, hostname: &str, body: Value) -> Value {
    let (status, item) = patch(lb, &format!("/api/v1/replicas/{hostname}"), &body.to_string()).await;
    assert_eq!(status, 200, "{item}");
    item
}

async fn ask(lb: &Lb, path: &str) -> (u16, Value) {
    let response = lb.client.get(lb.admin_url(path)).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

async fn item(lb: &Lb, hostname: &str) -> Value {
    lb.replicas().await.into_iter().find(|item| item["hostname"] == hostname).unwrap()
}

/// `lb` with these arguments, asking this balancer.
fn tool(lb: &Lb, args: &[&str]) -> Output {
    let admin = lb.admin.to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_lb"));
    command.args(args).args(["--admin-listen", &admin]).env_clear().output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(if output.status.success() { &output.stdout } else { &output.stderr }).into_owned()
}

fn counts(pairs: &[(&str, usize)]) -> BTreeMap<String, usize> {
    pairs.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

#[tokio::test]
async fn every_policy_serves_and_heals() {
    for kind in PolicyKind::ALL {
        let policy = kind.to_string();
        let lb = Lb::ready(&["--policy", &policy]).await;
        let before = served(&lb, 60).await;
        assert!(!before.is_empty() && before.values().sum::<usize>() == 60, "{policy}");
        let victim = lb.replicas().await[0].clone();
        kill(Pid::from_raw(victim["runtime_id"].as_str().unwrap().parse().unwrap()), Signal::SIGKILL).unwrap();
        // Nobody notices, and the replacement joins in.
        served(&lb, 60).await;
        lb.until_ready().await;
        let after = served(&lb, 300).await;
        assert!(!after.contains_key(victim["hostname"].as_str().unwrap()), "{policy}: {after:?}");
        // Who is the fastest of three by a factor of two may be the only one for a while; nobody else is.
        if *kind != PolicyKind::PeakEwma {
            assert_eq!(after.len(), 3, "{policy}: {after:?}");
        }
    }
}

#[tokio::test]
async fn weights_change_at_run_time() {
    let lb = Lb::ready(&["--policy", "round-robin"]).await;
    assert_eq!(served(&lb, 30).await, counts(&[("S1", 10), ("S2", 10), ("S3", 10)]));
    let changed = set(&lb, "S2", json!({ "weight": 3 })).await;
    assert_eq!(
        (&changed["hostname"], &changed["weight"], &changed["state"]),
        (&json!("S2"), &json!(3), &json!("ready"))
    );
    assert_eq!(item(&lb, "S2").await["weight"], 3);
    assert_eq!(served(&lb, 50).await, counts(&[("S1", 10), ("S2", 30), ("S3", 10)]));
    let drained = set(&lb, "S2", json!({ "weight": 0 })).await;
    assert_eq!(
        (&drained["weight"], &drained["state"], &drained["in_flight"]),
        (&json!(0), &json!("draining"), &json!(0))
    );
    assert_eq!(served(&lb, 20).await, counts(&[("S1", 10), ("S3", 10)]));
    assert!(lb.is_ready().await, "it is well, only not wanted");
    lb.until_logged("replica S2 (ring 2): weight 3 -> 0, takes no new requests").await;
    let output = tool(&lb, &["set", "S2", "--weight", "1"]);
    assert_eq!(said(&output), "S2 (ring 2): weight 1, priority 0, ready, 0 in flight\n");
    assert_eq!(served(&lb, 30).await, counts(&[("S1", 10), ("S2", 10), ("S3", 10)]));
    for name in ["S1", "S2", "S3"] {
        set(&lb, name, json!({ "weight": 0 })).await;
    }
    assert_eq!(lb.get("/home").await.0, 503, "nobody may take it");
}

#[tokio::test]
async fn latencies_are_measured_and_shown() {
    let lb = Lb::ready(&["--policy", "peak-ewma"]).await;
    assert!(lb.replicas().await.iter().all(|item| item["latency_ms"].is_null()), "nothing is known yet");
    served(&lb, 20).await;
    // Whoever was never measured is tried first.
    for item in lb.replicas().await {
        let latency = item["latency_ms"].as_f64().unwrap();
        assert!(latency > 0.0 && latency < 5_000.0, "{item}");
    }
    assert_eq!(lb.metric(r#"ringkeeper_replica_weight{hostname="S1",ring_id="1"}"#).await, 1.0);
    let (_, explained) = ask(&lb, "/api/v1/explain?key=1").await;
    assert_eq!(explained["skipped"][0]["reason"], "slower", "{explained}");
    assert!(explained["skipped"][0]["detail"].as_str().unwrap().ends_with(" ms"), "{explained}");
}

#[tokio::test]
async fn what_cannot_be_set_changes_nothing() {
    let lb = Lb::ready(&["--policy", "round-robin"]).await;
    let before = lb.replicas().await;
    for (path, body, status, says) in [
        ("/api/v1/replicas/S9", r#"{"weight":1}"#, 404, "hostname 'S9' is not a replica; there are S1, S2, S3"),
        ("/api/v1/replicas/a%20b", r#"{"weight":1}"#, 400, "'a b' is no host name"),
        ("/api/v1/replicas/S1", r#"{"weight":65536}"#, 400, "weight is 65536; expected a whole number from 0 to 65535"),
        ("/api/v1/replicas/S1", r#"{"weight":5,"priority":-1}"#, 400, "priority is -1"),
        ("/api/v1/replicas/S1", "{}", 400, "nothing is to be changed"),
        ("/api/v1/replicas/S1", r#"{"weight":5,"colour":1}"#, 400, "unknown field 'colour'"),
        ("/api/v1/replicas/S1", "weight=5", 400, "the body is not JSON"),
    ] {
        let (got, answer) = patch(&lb, path, body).await;
        assert_eq!((got, &answer["status"]), (status, &json!("failure")), "{answer}");
        let message = answer["message"].as_str().unwrap();
        assert!(message.starts_with("<Error> ") && message.contains(says), "{message}");
    }
    let response = lb.client.get(lb.admin_url("/api/v1/replicas/S1")).send().await.unwrap();
    assert_eq!((response.status().as_u16(), &response.headers()["allow"]), (405, &"PATCH".parse().unwrap()));
    assert_eq!(lb.replicas().await, before);
    let output = tool(&lb, &["set", "S9", "--weight", "2"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("hostname 'S9' is not a replica"), "{}", said(&output));
    assert!(said(&tool(&lb, &["set", "S1"])).contains("--weight, --priority or both"));
    assert_eq!(tool(&lb, &["set", "S1", "--weight", "-1"]).status.code(), Some(64));
}

#[tokio::test]
async fn the_highest_priority_serves_and_a_replacement_inherits_it() {
    for policy in ["priority", "round-robin", "consistent", "random"] {
        let lb = Lb::ready(&["--policy", policy]).await;
        set(&lb, "S3", json!({ "priority": 5, "weight": 2 })).await;
        assert_eq!(served(&lb, 20).await, counts(&[("S3", 20)]), "{policy}");
        let pid = item(&lb, "S3").await["runtime_id"].as_str().unwrap().parse().unwrap();
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        // The others help until the replacement is there.
        served(&lb, 20).await;
        lb.until_ready().await;
        let replacement =
            lb.replicas().await.into_iter().find(|item| item["id"] == 3 && item["desired"] == true).unwrap();
        assert_eq!((&replacement["priority"], &replacement["weight"]), (&json!(5), &json!(2)), "{replacement}");
        assert_eq!(served(&lb, 20).await, counts(&[(replacement["hostname"].as_str().unwrap(), 20)]), "{policy}");
    }
}

#[tokio::test]
async fn a_replacement_of_a_drained_one_is_wanted() {
    let lb = Lb::ready(&["--policy", "round-robin"]).await;
    set(&lb, "S1", json!({ "priority": 3 })).await;
    let drained = set(&lb, "S1", json!({ "weight": 0 })).await;
    assert_eq!((&drained["weight"], &drained["priority"]), (&json!(0), &json!(3)), "what is not named stays");
    let pid = item(&lb, "S1").await["runtime_id"].as_str().unwrap().parse().unwrap();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    lb.until_logged("replica S1 (ring 1) was killed by SIGKILL").await;
    let replacement = lb.replicas().await.into_iter().find(|item| item["id"] == 1 && item["desired"] == true).unwrap();
    assert_eq!((&replacement["priority"], &replacement["weight"]), (&json!(3), &json!(1)), "{replacement}");
}

#[tokio::test]
async fn static_members_have_weights_of_their_own() {
    let servers = Lb::ready(&[]).await;
    let addr = async |name: &str| item(&servers, name).await["addr"].as_str().unwrap().to_owned();
    let members = format!(
        "S1={};weight=3,S2={}; weight = 1 ,S3={};priority=0;weight=0",
        addr("S1").await,
        addr("S2").await,
        addr("S3").await
    );
    let lb = Lb::ready(&["--runtime", "static", "--members", &members, "--policy", "round-robin"]).await;
    assert_eq!(served(&lb, 40).await, counts(&[("S1", 30), ("S2", 10)]));
    // They can be changed as well, though the membership can't.
    set(&lb, "S3", json!({ "weight": 4 })).await;
    assert_eq!(served(&lb, 80).await, counts(&[("S1", 30), ("S2", 10), ("S3", 40)]));
}

#[tokio::test]
async fn explanations_are_what_happens() {
    for policy in ["consistent", "maglev", "rendezvous"] {
        let lb = Lb::ready(&["--policy", policy, "--hash-key", "header:x-user,client-ip"]).await;
        for user in 0..20 {
            let user = format!("user {user}&x=1");
            let encoded = user.replace(' ', "+").replace('&', "%26").replace('=', "%3D");
            let (status, explained) = ask(&lb, &format!("/api/v1/explain?key={encoded}")).await;
            assert_eq!((status, &explained["key"]), (200, &json!(user)), "{explained}");
            assert_eq!((&explained["source"], &explained["policy"]), (&json!("header:x-user"), &json!(policy)));
            assert_eq!(explained["owner"], explained["chosen"], "nobody is in the way");
            assert_eq!(explained["chosen"]["hostname"], home(&lb, &user).await, "{explained}");
            assert!(explained["slot"].as_u64().unwrap() < explained["slots"].as_u64().unwrap());
            // Somebody else for a retry.
            let owner = explained["owner"]["hostname"].as_str().unwrap();
            let (_, again) = ask(&lb, &format!("/api/v1/explain?key={encoded}&tried={owner}")).await;
            assert_eq!(again["owner"], explained["owner"]);
            assert_eq!(
                (&again["skipped"][0]["hostname"], &again["skipped"][0]["reason"]),
                (&json!(owner), &json!("tried"))
            );
            assert_ne!(again["chosen"]["hostname"], json!(owner));
            // As it is said to people.
            let text = said(&tool(&lb, &["explain", &user, "--tried", owner]));
            let chosen = again["chosen"]["hostname"].as_str().unwrap();
            assert!(
                text.contains(&format!("owner    {owner}")) && text.contains(&format!("goes to  {chosen} ")),
                "{text}"
            );
            assert!(text.contains(&format!("skipped  {owner}  tried")), "{text}");
        }
        let (_, by_address) = ask(&lb, "/api/v1/explain?key=127.0.0.1").await;
        assert_eq!(by_address["source"], "client-ip");
    }
}

#[tokio::test]
async fn explanations_name_those_that_are_not_there() {
    let command =
        format!("sh -c 'case {{hostname}} in S1|S3) exec {};; *) exit 1;; esac'", support::server().display());
    let lb = Lb::start(&["--server-command", &command]);
    support::eventually("the two that can start are ready", async || {
        let ready = lb.replicas().await.iter().filter(|item| item["state"] == "ready").count();
        (ready == 2).then_some(())
    })
    .await;
    let mut missed = 0;
    for key in 100_000..100_200 {
        let (_, explained) = ask(&lb, &format!("/api/v1/explain?key={key}")).await;
        assert!(["S1", "S3"].contains(&explained["chosen"]["hostname"].as_str().unwrap()), "{explained}");
        if explained["owner"]["id"] == 2 {
            missed += 1;
            assert_eq!(
                (&explained["skipped"][0]["id"], &explained["skipped"][0]["reason"]),
                (&json!(2), &json!("unready"))
            );
        }
    }
    assert!(missed > 0);
}

#[tokio::test]
async fn explanations_name_those_that_come_after_others() {
    let lb = Lb::ready(&[]).await;
    set(&lb, "S2", json!({ "priority": 1 })).await;
    set(&lb, "S1", json!({ "weight": 0 })).await;
    // S3 owns its slot.
    let (_, explained) = ask(&lb, "/api/v1/explain?key=132574").await;
    assert_eq!((&explained["owner"]["hostname"], &explained["chosen"]["hostname"]), (&json!("S3"), &json!("S2")));
    let reasons = |explained: &Value| -> Vec<(String, String)> {
        let skipped = explained["skipped"].as_array().unwrap().iter();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        skipped.map(|skipped| (text(&skipped["hostname"]), text(&skipped["detail"]))).collect()
    };
    let expected = [("S3", "lower priority: 0, while 1 serves"), ("S1", "weight 0: takes no new requests")];
    assert_eq!(reasons(&explained), expected.map(|(name, why)| (name.to_owned(), why.to_owned())));
    set(&lb, "S2", json!({ "weight": 0 })).await;
    set(&lb, "S3", json!({ "weight": 0 })).await;
    let (_, nobody) = ask(&lb, "/api/v1/explain?key=132574").await;
    assert_eq!(nobody["chosen"], Value::Null);
    assert_eq!(reasons(&nobody).len(), 3, "{nobody}");
}

/// How many of so many POSTs, four at a time, are answered with 200.
async fn posted(lb: &Lb, count: usize) -> usize {
    let mut answered = 0;
    for _ in 0..count / 4 {
        let posts = (0..4).map(|_| async {
            let response = lb.client.post(lb.url("/")).body("x").send().await.unwrap();
            usize::from(response.status() == 200)
        });
        answered += futures_util::future::join_all(posts).await.into_iter().sum::<usize>();
    }
    answered
}

#[tokio::test]
async fn to_fail_fast_is_not_to_be_fast() {
    use support::replica::{Answer, Replica, ready, response};
    let mut replicas = vec![Replica::start(Answer::Close).await];
    for _ in 0..3 {
        replicas.push(Replica::start(response("200 OK", "", "well")).await);
    }
    let lb = ready(&replicas.iter().collect::<Vec<_>>(), &["--policy", "peak-ewma"]).await;
    // A POST is not tried again, so each that goes to the broken one is lost.
    let answered = posted(&lb, 200).await;
    assert!(answered >= 190, "{answered} of 200");
}

#[tokio::test]
async fn one_that_lets_clients_wait_until_they_leave_is_not_idle() {
    use support::replica::{Answer, Replica, ready, response};
    let mut replicas = vec![Replica::start(Answer::Silence).await];
    for _ in 0..2 {
        replicas.push(Replica::start(response("200 OK", "", "well")).await);
    }
    let lb = ready(&replicas.iter().collect::<Vec<_>>(), &["--policy", "peak-ewma"]).await;
    let impatient = reqwest::Client::builder().no_proxy().timeout(Duration::from_millis(300)).build().unwrap();
    let mut lost = 0;
    for _ in 0..20 {
        let gets = (0..3).map(|_| impatient.get(lb.url("/")).send());
        lost += futures_util::future::join_all(gets).await.iter().filter(|answer| answer.is_err()).count();
        // The balancer has seen that they are gone.
        let is_idle = async || lb.replicas().await.iter().all(|item| item["in_flight"] == 0).then_some(());
        support::eventually("nobody waits", is_idle).await;
    }
    assert!(lost <= 6, "{lost} of 60");
}

#[tokio::test]
async fn one_that_is_being_added_can_be_set() {
    // It starts, but its first heartbeat takes for ever.
    let command = format!("sh -c 'case {{hostname}} in S*) exec {};; *) sleep 60;; esac'", support::server().display());
    let lb = Lb::ready(&["--server-command", &command, "--start-timeout", "60s"]).await;
    let adding = lb.client.post(lb.url("/add")).body(r#"{"n":1,"hostnames":["A1"]}"#).send();
    let adding = tokio::spawn(adding);
    let state = async || lb.replicas().await.iter().any(|item| item["hostname"] == "A1").then_some(());
    support::eventually("A1 is being added", state).await;
    let (status, answer) = patch(&lb, "/api/v1/replicas/A1", r#"{"weight":5}"#).await;
    assert_eq!((status, &answer["weight"], &answer["state"]), (200, &json!(5), &json!("starting")), "{answer}");
    adding.abort();
}

#[tokio::test]
async fn the_next_priority_helps_while_one_is_replaced() {
    let command = format!("sh -c 'case {{hostname}} in S*) exec {};; *) sleep 60;; esac'", support::server().display());
    let lb = Lb::ready(&["--policy", "priority", "--spill-share", "50%", "--server-command", &command]).await;
    for name in ["S1", "S2"] {
        set(&lb, name, json!({ "priority": 1 })).await;
    }
    assert_eq!(served(&lb, 10).await, counts(&[("S1", 5), ("S2", 5)]));
    let pid = item(&lb, "S1").await["runtime_id"].as_str().unwrap().parse().unwrap();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    lb.until_logged("replica S1 (ring 1) was killed by SIGKILL").await;
    // Its replacement does not come, so half of the priority is missing.
    assert_eq!(served(&lb, 10).await, counts(&[("S2", 5), ("S3", 5)]));
}

#[tokio::test]
async fn a_policy_without_keys_says_what_it_goes_by() {
    let lb = Lb::ready(&["--policy", "round-robin"]).await;
    let (status, explained) = ask(&lb, "/api/v1/explain?key=1").await;
    assert_eq!((status, &explained["goes_by"], &explained["slot"]), (200, &json!("turns"), &Value::Null));
    assert_eq!(explained["chosen"]["hostname"], home(&lb, "").await, "a question takes no turn");
    let text = said(&tool(&lb, &["explain", "1"]));
    assert!(
        text.contains("the policy round-robin goes by turns") && text.contains("goes to  S2 (ring 2), 127."),
        "{text}"
    );
}

#[tokio::test]
async fn questions_that_make_no_sense_are_refused() {
    let lb = Lb::ready(&[]).await;
    for (path, says) in [
        ("/api/v1/explain", "key is missing"),
        ("/api/v1/explain?key=anna", "a whole number"),
        ("/api/v1/explain?key=1&key=2", "'key' is given twice"),
        ("/api/v1/explain?key=1&colour=2", "unknown parameter 'colour'; allowed: key, source, tried"),
        ("/api/v1/explain?key=1&tried=S9", "tried names 'S9'; allowed: S1, S2, S3"),
        ("/api/v1/explain?key=1&source=path", "'path' is not what requests are placed by here; allowed: random"),
        ("/api/v1/ring?replicas=57", "replicas is '57'; allowed: a whole number from 0 to 56"),
        ("/api/v1/ring?hash=md5", "hash is 'md5'; allowed: assignment, modified, xxh3"),
        ("/api/v1/ring?slots=4", "slots is 4; allowed: 9, the number of virtual nodes, or more"),
        ("/api/v1/ring?vnodes=513", "vnodes is '513'; allowed: a whole number from 1 to 512"),
        ("/api/v1/ring?policy=random", "policy is 'random'; allowed: consistent, maglev, rendezvous"),
        ("/api/v1/ring?policy=maglev&table_slots=65536", "maglev needs a prime number"),
        ("/api/v1/ring?slots=2&vnodes=1", "there are 3 replicas; these settings have places for 2"),
        ("/api/v1/ring?policy=rendezvous&slots=1048576&vnodes=1&replicas=60000", "60000 replicas on 65537 slots"),
        ("/api/v1/ring?nodes=3", "unknown parameter 'nodes'"),
    ] {
        let (status, answer) = ask(&lb, path).await;
        assert_eq!((status, &answer["status"]), (400, &json!("failure")), "{path}: {answer}");
        let message = answer["message"].as_str().unwrap();
        assert!(message.starts_with("<Error> ") && message.contains(says), "{path}: {message}");
    }
    let output = tool(&lb, &["explain", "anna"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("a whole number"), "{}", said(&output));
}

#[tokio::test]
async fn a_dry_run_tells_what_add_will_do() {
    let lb = Lb::ready(&[]).await;
    let (_, now) = ask(&lb, "/api/v1/ring").await;
    let (_, dry) = ask(&lb, "/api/v1/ring?replicas=3").await;
    assert_eq!(now, dry, "the same as it would be");
    assert!((now["max_mean"].as_f64().unwrap() - 2.531).abs() < 0.001, "{now}");
    assert_eq!(now["moves"]["remove"]["S1"], now["shares"]["S1"], "on a ring just its own keys move");
    let (_, four) = ask(&lb, "/api/v1/ring?replicas=4").await;
    // Only the newcomer takes keys.
    assert!((four["shares"]["S4"].as_f64().unwrap() - now["moves"]["add"].as_f64().unwrap()).abs() < 1e-9);
    assert_eq!(lb.rep().await, ["S1", "S2", "S3"], "nothing has happened");
    let (status, _) = lb.change("POST", "/add", r#"{"n":1,"hostnames":["S4"]}"#).await;
    assert_eq!(status, 200);
    assert_eq!(ask(&lb, "/api/v1/ring").await.1, four, "as it was foretold");
    let even = "/api/v1/ring?replicas=3&hash=xxh3&slots=65536&vnodes=1000&probing=quadratic";
    let (_, even) = ask(&lb, even).await;
    assert!(even["max_mean"].as_f64().unwrap() <= 1.05, "{}", even["max_mean"]);
    assert_eq!((&even["hash"], &even["vnodes"], &even["probing"]), (&json!("xxh3"), &json!(1000), &json!("quadratic")));
    let (_, maglev) = ask(&lb, "/api/v1/ring?policy=maglev&replicas=3").await;
    assert_eq!(
        (&maglev["policy"], &maglev["slots"], &maglev["vnodes"]),
        (&json!("maglev"), &json!(65537), &Value::Null)
    );
    assert!(maglev["max_mean"].as_f64().unwrap() <= 1.03, "{maglev}");
    let (_, full) = ask(&lb, "/api/v1/ring?replicas=56").await;
    assert_eq!(full["moves"]["add"], Value::Null, "there is no room");
}

#[tokio::test]
async fn a_weight_is_a_share_of_the_ring() {
    let lb = Lb::ready(&["--hash", "xxh3", "--slots", "65536", "--vnodes", "500", "--bound", "off"]).await;
    set(&lb, "S2", json!({ "weight": 4 })).await;
    let (_, ring) = ask(&lb, "/api/v1/ring").await;
    assert_eq!(ring["occupied"].as_array().unwrap().len(), 6 * 500);
    let share = ring["shares"]["S2"].as_f64().unwrap();
    assert!((share - 4.0 / 6.0).abs() < 0.03, "{share}");
    set(&lb, "S2", json!({ "weight": 0 })).await;
    let (_, ring) = ask(&lb, "/api/v1/ring").await;
    assert_eq!(ring["shares"]["S2"], 0.0);
    assert!(!served(&lb, 40).await.contains_key("S2"));
}

#[tokio::test]
async fn a_policy_without_a_ring_has_dry_runs_only() {
    let lb = Lb::ready(&["--policy", "random"]).await;
    let (status, answer) = ask(&lb, "/api/v1/ring").await;
    assert_eq!(status, 404);
    assert!(answer["message"].as_str().unwrap().contains("the policy random has no ring"), "{answer}");
    let (status, ring) = ask(&lb, "/api/v1/ring?policy=consistent").await;
    assert_eq!((status, ring["occupied"].as_array().unwrap().len()), (200, 27));
    // Its fleet is not limited by a ring that it does not have.
    let (status, answer) = lb.change("POST", "/add", r#"{"n":1}"#).await;
    assert_eq!(status, 200, "{answer}");
}
