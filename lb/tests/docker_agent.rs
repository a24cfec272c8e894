//! The split in two on real containers: the agent has the engine's socket, the balancer nothing. Runs whenever a Docker
//! engine answers. The tests take turns: host names of containers are shared by the whole engine.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "tests fail by panicking, and say what they measured"
)]
#![allow(clippy::disallowed_methods, reason = "tests read the environment that they pass on")]

mod support;

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use support::agent::Agent;
use support::engine::{Engine, docker, docker_ok};
use support::harm::{a_pause_is_noticed, kill, kills_are_healed, nothing_is_lost, same_as_listed};
use support::load::Load;
use support::{Lb, SOON, eventually};
use tokio::sync::Mutex;

static TURN: Mutex<()> = Mutex::const_new(());

/// What is required within 50 ms: five times that, as the tests share the machine with each other. Without spares it would take
/// as long as a start does.
const SPARE_SOON: Duration = Duration::from_millis(250);

fn agent(engine: &Engine, args: &[&str]) -> Agent {
    let mut all = engine.args().to_vec();
    all.extend(args);
    Agent::start(&all)
}

/// A balancer of this fleet that could not reach an engine if it wanted to.
async fn balancer(engine: &Engine, agent: &Agent) -> Lb {
    agent.ready_balancer(&["--fleet", &engine.fleet, "--docker-host", "unix:///nowhere"]).await
}

/// An image that is made from the sample server's; it goes with this.
struct Image(String);

impl Image {
    fn build(name: &str, changes: &str) -> Self {
        let name = format!("{name}:{}", std::process::id());
        let mut build = Command::new("docker")
            .args(["build", "-q", "-t", &name, "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("the docker client runs");
        let dockerfile = format!("FROM ringkeeper-server\n{changes}\n");
        build.stdin.take().unwrap().write_all(dockerfile.as_bytes()).unwrap();
        assert!(build.wait().unwrap().success(), "{dockerfile}");
        Self(name)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        docker(&["rmi", "-f", &self.0]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_socket_killed_containers_are_replaced_in_time() {
    let _turn = TURN.lock().await;
    let Some(engine) = Engine::for_test("without_a_socket_killed_containers_are_replaced_in_time") else { return };
    let agent = agent(&engine, &[]);
    let lb = balancer(&engine, &agent).await;
    kills_are_healed(&lb, SOON, Duration::from_millis(1500)).await;
    same_as_listed(&lb, &engine).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_socket_no_client_notices_anything() {
    let _turn = TURN.lock().await;
    let Some(engine) = Engine::for_test("without_a_socket_no_client_notices_anything") else { return };
    let agent = agent(&engine, &[]);
    let lb = balancer(&engine, &agent).await;
    nothing_is_lost(&lb).await;
    same_as_listed(&lb, &engine).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_socket_a_paused_container_is_out_of_rotation_at_once() {
    let _turn = TURN.lock().await;
    let Some(engine) = Engine::for_test("without_a_socket_a_paused_container_is_out_of_rotation_at_once") else {
        return;
    };
    let rare = ["--heartbeat-interval", "1h"];
    let agent = agent(&engine, &[&rare[..], &["--replicas", "2"]].concat());
    let lb = agent.ready_balancer(&[&rare[..], &["--fleet", &engine.fleet]].concat()).await;
    a_pause_is_noticed(&lb).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_socket_errors_of_the_engine_are_told_and_leave_nothing() {
    let _turn = TURN.lock().await;
    let Some(engine) = Engine::for_test("without_a_socket_errors_of_the_engine_are_told_and_leave_nothing") else {
        return;
    };
    let agent = agent(&engine, &[]);
    let lb = balancer(&engine, &agent).await;
    let began = std::time::Instant::now();
    let (status, body) = lb.change("POST", "/add", r#"{"n":3,"hostnames":["rk-test-a","rk-test-b"]}"#).await;
    assert_eq!(status, 200, "{body}");
    println!("figure: agent, /add of 3 containers {:.1?}", began.elapsed());
    let (status, body) = lb.change("DELETE", "/rm", r#"{"n":3,"hostnames":["rk-test-a","rk-test-b"]}"#).await;
    assert_eq!(status, 200, "{body}");
    assert!(!engine.containers().contains(&"rk-test-a".to_owned()), "gone by the time of the answer");
    let mut before = engine.containers();
    before.sort();
    docker_ok(&["create", "--name", "rk-test-foreign", "ringkeeper-server"]);
    let (status, body) = lb.change("POST", "/add", r#"{"n":3,"hostnames":["rk-test-ok","rk-test-foreign"]}"#).await;
    assert!(docker(&["rm", "-f", "rk-test-foreign"]).status.success(), "somebody else's container was touched");
    assert_eq!(status, 500, "{body}");
    assert!(body.contains("'rk-test-foreign' is taken by something that is not of this fleet"), "{body}");
    let mut after = engine.containers();
    after.sort();
    assert_eq!(after, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_agent_adopts_everything_and_nothing_moves() {
    let _turn = TURN.lock().await;
    let Some(engine) = Engine::for_test("a_killed_agent_adopts_everything_and_nothing_moves") else { return };
    let args = ["--spares", "1"];
    let mut first = agent(&engine, &args);
    let lb = balancer(&engine, &first).await;
    // A spare takes over before, so that labels alone do not tell all ring numbers.
    let spare_waits = async || {
        let replicas = lb.replicas().await;
        replicas.iter().any(|replica| replica["spare"] == true && replica["state"] == "ready").then_some(())
    };
    eventually("a spare waits", spare_waits).await;
    kill("S2").await;
    eventually("it is replaced", async || (!lb.rep().await.contains(&"S2".to_owned())).then_some(())).await;
    eventually("another spare waits", spare_waits).await;
    let seen = async || {
        let of = |replica: &Value| {
            let fields = ["id", "generation", "runtime_id", "hostname", "spare"];
            fields.map(|field| replica[field].to_string()).join(" ")
        };
        let mut seen: Vec<_> = lb.replicas().await.iter().map(of).collect();
        seen.sort();
        seen
    };
    let (before, listed, load) = (seen().await, lb.rep().await, Load::on(&lb, 16));
    let publications = async || lb.metric("ringkeeper_publications_total").await;
    let published = publications().await;
    load.more(200).await;
    let addr = first.addr;
    first.kill();
    lb.until_logged("can't be heard").await;
    load.more(200).await;
    let mut all = engine.args().to_vec();
    all.extend(args);
    let again = Agent::start_at(addr, &all);
    eventually("it is connected again", async || (lb.metric("ringkeeper_agent_connected").await == 1.0).then_some(()))
        .await;
    again.until_logged("is connected").await;
    eventually("it has found everybody", spare_waits).await;
    load.more(200).await;
    assert_eq!(
        (seen().await, publications().await),
        (before, published),
        "the same containers, and no change of the ring"
    );
    let mut names = (lb.rep().await, listed);
    names.0.sort();
    names.1.sort();
    assert_eq!(names.0, names.1);
    load.stop().await.assert_nothing_lost();
    // And it keeps them.
    kills_are_healed(&lb, SOON, Duration::from_millis(1500)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_spare_a_killed_container_is_made_up_for_within_milliseconds() {
    let _turn = TURN.lock().await;
    let Some(engine) = Engine::for_test("with_a_spare_a_killed_container_is_made_up_for_within_milliseconds") else {
        return;
    };
    let agent = agent(&engine, &["--spares", "1"]);
    let lb = balancer(&engine, &agent).await;
    let load = Load::on(&lb, 4);
    for round in 1..=4 {
        eventually("a spare waits", async || {
            let replicas = lb.replicas().await;
            replicas.iter().any(|replica| replica["spare"] == true && replica["state"] == "ready").then_some(())
        })
        .await;
        load.more(50).await;
        let name = lb.rep().await[0].clone();
        kill(&name).await;
        let taken = async || agent.logged_at(&format!("replica {name} (ring"), "takes over");
        let ((noticed, line), _) = eventually("a spare takes over", taken).await;
        let spare = line.split("spare ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
        let ready = async || lb.logged_at(&format!("replica {spare} (ring"), "is ready");
        let ((ready, _), _) = eventually("the balancer has it in rotation", ready).await;
        let took = ready.duration_since(noticed).unwrap_or_default();
        println!("figure: spare container, round {round}: 3 ready {took:.1?} after the death was noticed");
        assert!(took < SPARE_SOON, "{took:?}");
    }
    load.stop().await.assert_nothing_lost();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_is_rolled_out_and_a_broken_one_rolled_back() {
    let _turn = TURN.lock().await;
    let Some(engine) = Engine::for_test("an_image_is_rolled_out_and_a_broken_one_rolled_back") else { return };
    let good = Image::build("rk-test-good", "ENV SERVICE_TIME=1ms");
    let broken = Image::build("rk-test-broken", "ENTRYPOINT [\"/no-such-program\"]");
    let deaf = Image::build("rk-test-deaf", "ENV BIND=127.0.0.1");
    let mut first = agent(&engine, &["--start-timeout", "3s"]);
    let lb = balancer(&engine, &first).await;
    let load = Load::on(&lb, 16);
    let deploy = async |image: &str| {
        let body = format!(r#"{{"image":"{image}"}}"#);
        let response = lb.client.post(lb.admin_url("/api/v1/deploy")).body(body).send().await.unwrap();
        assert!(response.status().is_success() || response.status() == 500, "{response:?}");
        let ended = async || {
            let answer = lb.client.get(lb.admin_url("/api/v1/deploy")).send().await.unwrap();
            let progress: Value = answer.json().await.unwrap();
            ["done", "rolled_back"].contains(&progress["state"].as_str().unwrap_or_default()).then_some(progress)
        };
        let (progress, took) = eventually("the update ends", ended).await;
        println!("figure: rolling update to {image}: {} after {took:.1?}", progress["state"]);
        progress
    };
    let images = async || {
        let names = lb.rep().await;
        names.iter().map(|name| docker_ok(&["inspect", "-f", "{{.Config.Image}}", name])).collect::<Vec<_>>()
    };
    load.more(100).await;
    assert_eq!(deploy(&good.0).await["state"], "done");
    assert_eq!(images().await, vec![good.0.clone(); 3]);
    load.more(100).await;
    let listed = lb.rep().await;
    for image in [broken.0.as_str(), deaf.0.as_str(), "rk-test-no-such-image"] {
        let progress = deploy(image).await;
        assert_eq!(progress["state"], "rolled_back", "{image}: {progress}");
        let reason = progress["reason"].as_str().unwrap_or_default();
        assert!(!reason.is_empty() && !reason.contains("somebody else"), "the real reason: {progress}");
        assert_eq!((lb.rep().await, images().await), (listed.clone(), vec![good.0.clone(); 3]), "{image}");
        load.more(100).await;
    }
    // A restarted agent goes on with what was deployed, not with what its configuration says.
    let addr = first.addr;
    first.kill();
    let again = Agent::start_at(addr, &engine.args());
    again.until_logged("is connected").await;
    kill(&listed[0]).await;
    eventually("it is replaced", async || {
        let names = lb.rep().await;
        (!names.contains(&listed[0]) && lb.is_ready().await).then_some(())
    })
    .await;
    assert_eq!(images().await, vec![good.0.clone(); 3]);
    load.stop().await.assert_nothing_lost();
    same_as_listed(&lb, &engine).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_are_measured_and_have_their_limits() {
    let _turn = TURN.lock().await;
    let Some(engine) = Engine::for_test("containers_are_measured_and_have_their_limits") else { return };
    let busy = Image::build("rk-test-busy", "ENV SERVICE_TIME=1ms");
    let args = [
        "--image",
        &busy.0,
        "--replica-cpus",
        "0.5",
        "--replica-memory",
        "64m",
        "--replica-env",
        "CRASH_PATH=/crash",
        "--replicas",
        "1",
        "--max-replicas",
        "2",
        "--autoscale",
        "dry-run",
        "--target-in-flight",
        "off",
        "--target-cpu",
        "0.5%",
        "--scale-up-window",
        "100ms",
    ];
    let agent = agent(&engine, &args);
    let lb = balancer(&engine, &agent).await;
    let name = lb.rep().await[0].clone();
    let format = "{{.HostConfig.NanoCpus}} {{.HostConfig.Memory}} {{json .Config.Env}}";
    let inspected = docker_ok(&["inspect", "-f", format, &name]);
    assert!(inspected.starts_with("500000000 67108864 "), "{inspected}");
    assert!(inspected.contains("CRASH_PATH=/crash"), "{inspected}");
    // Its CPU time comes from the engine: nothing else could ask for a second replica.
    let load = Load::on(&lb, 8);
    let decided = async || {
        let decisions = agent.ask("/api/v1/decisions").await;
        decisions.as_array().unwrap().iter().find(|it| it["reason"].as_str().unwrap().contains("CPU")).cloned()
    };
    let (decision, _) = eventually("CPU asks for another replica", decided).await;
    assert_eq!((&decision["decision"], &decision["dry_run"]), (&"1 -> 2 replicas".into(), &true.into()), "{decision}");
    let replicas = agent.ask("/api/v1/replicas").await;
    let (cpu, memory) = (replicas[0]["cpu"].as_f64().unwrap(), replicas[0]["memory"].as_u64().unwrap());
    assert!(cpu > 0.0 && cpu < 1.0 && (100_000..64 << 20).contains(&memory), "{replicas}");
    load.stop().await.assert_nothing_lost();
    assert_eq!(lb.rep().await, [name], "only told, not done");
}
