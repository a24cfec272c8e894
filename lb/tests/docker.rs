//! The same promises on real containers. Runs whenever a Docker engine answers; the images are built by `make images`.
//! The tests take turns: host names of containers are shared by the whole engine.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "tests fail by panicking, and say what they measured"
)]
#![allow(clippy::disallowed_methods, reason = "tests read the environment that they pass on")]

mod support;

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use support::engine::{Engine, docker, docker_ok};
use support::harm::{a_pause_is_noticed, kill, kills_are_healed, nothing_is_lost, same_as_listed};
use support::{Lb, eventually};
use tokio::sync::Mutex;

static TURN: Mutex<()> = Mutex::const_new(());

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_containers_are_replaced_in_time() {
    let _turn = TURN.lock().await;
    let Some(engine) = Engine::for_test("killed_containers_are_replaced_in_time") else { return };
    let lb = Lb::ready(&engine.args()).await;
    kills_are_healed(&lb, Duration::from_millis(100), Duration::from_secs(1)).await;
    same_as_listed(&lb, &engine).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_client_notices_kill_rm_stop_pause_add_and_rm() {
    let _turn = TURN.lock().await;
    let Some(engine) = Engine::for_test("no_client_notices_kill_rm_stop_pause_add_and_rm") else { return };
    let lb = Lb::ready(&engine.args()).await;
    nothing_is_lost(&lb).await;
    same_as_listed(&lb, &engine).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_container_is_out_of_rotation_at_once() {
    let _turn = TURN.lock().await;
    let Some(engine) = Engine::for_test("a_paused_container_is_out_of_rotation_at_once") else { return };
    // With rare heartbeats only the engine's event can tell.
    let mut args = engine.args().to_vec();
    args.extend(["--heartbeat-interval", "1h", "--replicas", "2"]);
    let lb = Lb::ready(&args).await;
    a_pause_is_noticed(&lb).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn adding_three_and_removing_is_quick_and_containers_are_as_written() {
    let _turn = TURN.lock().await;
    let Some(engine) = Engine::for_test("adding_three_and_removing_is_quick_and_containers_are_as_written") else {
        return;
    };
    let lb = Lb::ready(&engine.args()).await;
    let began = Instant::now();
    let (status, body) = lb.change("POST", "/add", r#"{"n":3,"hostnames":["rk-test-a","rk-test-b"]}"#).await;
    let added = began.elapsed();
    assert_eq!(status, 200, "{body}");
    let format = "{{.Config.Hostname}} {{index .Config.Labels \"ringkeeper.fleet\"}} {{index .Config.Labels \"ringkeeper.hostname\"}} \
                  {{index .Config.Labels \"ringkeeper.ring-id\"}} {{index .Config.Labels \"ringkeeper.generation\"}}";
    let labels = docker_ok(&["inspect", "-f", format, "rk-test-a"]);
    assert_eq!(labels, format!("rk-test-a {} rk-test-a 4 4", engine.fleet));
    let network = format!("{{{{json (index .NetworkSettings.Networks {:?}).Aliases}}}}", engine.fleet);
    assert!(docker_ok(&["inspect", "-f", &network, "rk-test-a"]).contains("\"rk-test-a\""));
    let began = Instant::now();
    let (status, body) = lb.change("DELETE", "/rm", r#"{"n":1,"hostnames":["rk-test-a"]}"#).await;
    let removed = began.elapsed();
    assert_eq!(status, 200, "{body}");
    println!("figure: /add of 3 containers {added:.1?}, /rm of an idle one {removed:.1?}");
    assert!(added < Duration::from_secs(2) && removed < Duration::from_secs(1), "{added:?} {removed:?}");
    assert!(!engine.containers().contains(&"rk-test-a".to_owned()), "gone by the time of the answer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_taken_name_or_a_missing_image_is_a_500_that_leaves_nothing() {
    let _turn = TURN.lock().await;
    let Some(engine) = Engine::for_test("a_taken_name_or_a_missing_image_is_a_500_that_leaves_nothing") else { return };
    let lb = Lb::ready(&engine.args()).await;
    let mut before = engine.containers();
    before.sort();
    docker_ok(&["create", "--name", "rk-test-foreign", "ringkeeper-server"]);
    let (status, body) = lb.change("POST", "/add", r#"{"n":3,"hostnames":["rk-test-ok","rk-test-foreign"]}"#).await;
    let there = docker(&["rm", "-f", "rk-test-foreign"]);
    assert!(there.status.success(), "somebody else's container was touched");
    assert_eq!(status, 500, "{body}");
    assert!(body.contains("'rk-test-foreign' is taken by something that is not of this fleet"), "{body}");
    let mut after = engine.containers();
    after.sort();
    assert_eq!(after, before);
    drop(lb);

    let mut args = engine.args().to_vec();
    args.extend(["--image", "rk-test-no-such-image"]);
    let lb = Lb::start(&args);
    // Those that live are adopted and go on; only new ones can't be started.
    lb.until_ready().await;
    let (status, body) = lb.change("POST", "/add", r#"{"n":1}"#).await;
    assert!(status == 500 && body.contains("rk-test-no-such-image"), "{status} {body}");
    assert_eq!(lb.get("/home").await.0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_balancer_adopts_its_fleet() {
    let _turn = TURN.lock().await;
    let Some(engine) = Engine::for_test("a_restarted_balancer_adopts_its_fleet") else { return };
    let mut lb = Lb::ready(&engine.args()).await;
    let ids = async |lb: &Lb| {
        let of = |replica: &serde_json::Value| {
            (replica["runtime_id"].clone().to_string(), replica["id"].as_u64(), replica["generation"].as_u64())
        };
        let mut ids: Vec<_> = lb.replicas().await.iter().map(of).collect();
        ids.sort();
        ids
    };
    let (before, listed) = (ids(&lb).await, lb.rep().await);
    lb.signal(Signal::SIGKILL);
    lb.ended().await;
    let mut lb = Lb::ready(&engine.args()).await;
    assert_eq!(ids(&lb).await, before, "the same containers under the same numbers");
    assert_eq!(lb.rep().await, listed);

    // While nobody looks: one dies, and one is left over with the ring number of a younger one.
    lb.signal(Signal::SIGKILL);
    lb.ended().await;
    docker_ok(&["rm", "-f", &listed[2]]);
    let fleet = format!("ringkeeper.fleet={}", engine.fleet);
    let mut stray = vec!["run", "-d", "--name", "rk-test-stray", "--network", &engine.fleet, "--label", &fleet];
    let labels = ["ringkeeper.hostname=rk-test-stray", "ringkeeper.ring-id=1", "ringkeeper.generation=0"];
    labels.iter().for_each(|label| stray.extend(["--label", label]));
    stray.push("ringkeeper-server");
    docker_ok(&stray);
    let mut lb = Lb::ready(&engine.args()).await;
    let topped_up = lb.rep().await;
    assert_eq!(topped_up[..2], listed[..2]);
    assert_eq!(topped_up.len(), 3, "topped up to N");
    same_as_listed(&lb, &engine).await;

    // A good end keeps them too, as docker's default is; told otherwise it leaves nothing.
    lb.signal(Signal::SIGTERM);
    assert!(lb.ended().await.success());
    assert_eq!(engine.containers().len(), 3);
    let mut args = engine.args().to_vec();
    args.extend(["--on-exit", "remove"]);
    let mut lb = Lb::ready(&args).await;
    lb.signal(Signal::SIGTERM);
    assert!(lb.ended().await.success());
    assert!(engine.containers().is_empty(), "{:?}", engine.containers());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sticky_session_outlives_the_other_containers_and_the_balancer() {
    let _turn = TURN.lock().await;
    let Some(engine) = Engine::for_test("a_sticky_session_outlives_the_other_containers_and_the_balancer") else {
        return;
    };
    let mut args = engine.args().to_vec();
    // No secret: the containers' IDs are.
    args.extend(["--policy", "round-robin", "--sticky", "sid"]);
    let mut lb = Lb::ready(&args).await;
    let ask = async |lb: &Lb, cookie: &str| {
        let response = lb.client.get(lb.url("/home")).header("cookie", cookie).send().await.unwrap();
        assert_eq!(response.status(), 200);
        let set = response.headers().get("set-cookie").map(|value| value.to_str().unwrap().to_owned());
        let set = set.and_then(|value| Some(value.split_once(';')?.0.to_owned()));
        let greeting = response.text().await.unwrap();
        let name = greeting.split("Server: ").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
        (name.to_owned(), set)
    };
    let (name, cookie) = ask(&lb, "").await;
    let cookie = cookie.expect("a cookie");
    let stays = async |lb: &Lb| {
        for _ in 0..10 {
            assert_eq!(ask(lb, &cookie).await, (name.clone(), None));
        }
    };
    stays(&lb).await;
    for other in lb.rep().await.into_iter().filter(|other| *other != name) {
        docker_ok(&["kill", &other]);
        eventually("it is replaced", async || (!lb.rep().await.contains(&other)).then_some(())).await;
        stays(&lb).await;
    }
    lb.until_ready().await;
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        lb.signal(signal);
        lb.ended().await;
        lb = Lb::ready(&args).await;
        stays(&lb).await;
    }
    kill(&name).await;
    let (elsewhere, new) = eventually("it is kept elsewhere", async || {
        // It may answer once more, before it is dead.
        let (name, set) = ask(&lb, &cookie).await;
        set.map(|set| (name, set))
    })
    .await
    .0;
    assert_ne!((&elsewhere, &new), (&name, &cookie));
    lb.until_ready().await;
    assert_eq!(ask(&lb, &new).await, (elsewhere, None));
}
