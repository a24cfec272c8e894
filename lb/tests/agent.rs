//! The split in two, with real processes: an agent that keeps the fleet, and balancers that follow it.

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
use serde_json::{Value, json};
use support::agent::Agent;
use support::load::Load;
use support::{Lb, SOON, eventually, server};
use tokio::sync::Mutex;

static TURN: Mutex<()> = Mutex::const_new(());

/// What is required within 50 ms: five times that, as the tests share the machine with each other. Without spares it would take
/// as long as a start does.
const SPARE_SOON: Duration = Duration::from_millis(250);

/// A server that nobody restarts; it ends with the test.
struct Server {
    child: std::process::Child,
    addr: String,
}

impl Server {
    fn start(name: &str) -> Self {
        use std::io::BufRead;
        let mut command = std::process::Command::new(server());
        command.env("SERVER_ID", name).env("PORT", "0").env("BIND", "127.0.0.1");
        let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        std::io::BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, addr: line.trim().strip_prefix("listening on ").unwrap().to_owned() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Identity of all replicas as a balancer sees them: ring number, generation, process.
async fn identities(lb: &Lb) -> Vec<(u64, u64, String)> {
    let of = |replica: &Value| {
        let id = replica["runtime_id"].as_str().unwrap_or_default().to_owned();
        (replica["id"].as_u64().unwrap(), replica["generation"].as_u64().unwrap(), id)
    };
    lb.replicas().await.iter().map(of).collect()
}

async fn victim(lb: &Lb) -> (String, Pid) {
    let replicas = lb.replicas().await;
    let victim = replicas.iter().find(|replica| replica["state"] == "ready" && replica["spare"] == false).unwrap();
    let pid = victim["runtime_id"].as_str().unwrap().parse().unwrap();
    (victim["hostname"].as_str().unwrap().to_owned(), Pid::from_raw(pid))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_and_hung_replicas_are_replaced_and_no_client_notices() {
    let _turn = TURN.lock().await;
    let agent = Agent::start(&[]);
    let lb = agent.ready_balancer(&[]).await;
    let load = Load::on(&lb, 32);
    for (signal, limit) in [
        (Signal::SIGKILL, SOON),
        (Signal::SIGKILL, SOON),
        // Three heartbeats of half a second each, on a busy machine.
        (Signal::SIGSTOP, Duration::from_secs(5)),
        (Signal::SIGTERM, Duration::from_secs(3)),
    ] {
        load.more(200).await;
        let (name, pid) = victim(&lb).await;
        let began = std::time::Instant::now();
        kill(pid, signal).unwrap();
        eventually("the victim is replaced", async || (!lb.rep().await.contains(&name)).then_some(())).await;
        let replaced = began.elapsed();
        assert_eq!(lb.rep().await.len(), 3, "N stays");
        lb.until_ready().await;
        println!("figure: agent, {signal}: replaced after {replaced:.1?}, 3 ready after {:.1?}", began.elapsed());
        assert!(replaced < limit, "{signal}: {replaced:?}");
        assert!(began.elapsed() < limit + Duration::from_millis(1300), "{signal}: {:?}", began.elapsed());
    }
    load.more(200).await;
    load.stop().await.assert_nothing_lost();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn adding_and_removing_through_a_balancer_loses_nothing() {
    let _turn = TURN.lock().await;
    let agent = Agent::start(&[]);
    let (lb, other) = (agent.ready_balancer(&[]).await, agent.ready_balancer(&[]).await);
    let loads = [Load::on(&lb, 16), Load::on(&other, 16)];
    for round in 0..6 {
        let body = format!(r#"{{"n":3,"hostnames":["R{round}"]}}"#);
        let (status, answer) = lb.change("POST", "/add", &body).await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!(support::names(&answer), lb.rep().await, "the answer is what is seen next");
        assert_eq!(lb.rep().await.len(), 6);
        loads[0].more(50).await;
        loads[1].more(50).await;
        let (status, answer) = other.change("DELETE", "/rm", &body).await;
        assert_eq!((status, support::names(&answer).len()), (200, 3), "{answer}");
        loads[0].more(50).await;
        loads[1].more(50).await;
    }
    for load in loads {
        load.stop().await.assert_nothing_lost();
    }
}

#[tokio::test]
async fn errors_are_those_of_a_balancer_with_a_fleet_of_its_own() {
    let _turn = TURN.lock().await;
    let agent = Agent::start(&[]);
    let (split, whole) = (agent.ready_balancer(&[]).await, Lb::ready(&[]).await);
    for (method, path, body) in [
        ("POST", "/add", r#"{"n":2,"hostnames":["S5","S4","S10","S11"]}"#),
        ("POST", "/add", r#"{"n":1,"hostnames":["S1"]}"#),
        ("POST", "/add", r#"{"n":1000}"#),
        ("POST", "/add", r#"{"n":0}"#),
        ("DELETE", "/rm", r#"{"n":2,"hostnames":["S5","S4","S10","S11"]}"#),
        ("DELETE", "/rm", r#"{"n":9}"#),
        ("DELETE", "/rm", r#"{"n":1,"hostnames":["nobody"]}"#),
        ("GET", "/add", ""),
    ] {
        let (here, there) = (split.change(method, path, body).await, whole.change(method, path, body).await);
        assert_eq!(here, there, "{method} {path} {body}");
        assert!(here.0 >= 400);
    }
    let set = async |lb: &Lb, name: &str| {
        let request = lb.client.patch(lb.admin_url(&format!("/api/v1/replicas/{name}"))).body(r#"{"weight":3}"#);
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    assert_eq!(set(&split, "nobody").await, set(&whole, "nobody").await);
    let (status, body) = set(&split, "S2").await;
    assert_eq!(status, 200, "{body}");
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&body["hostname"], &body["weight"]), (&json!("S2"), &json!(3)), "{body}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_is_killed_costs_no_request_and_finds_back() {
    let _turn = TURN.lock().await;
    // Child processes end with their agent; these are somebody else's.
    let servers: Vec<_> = (1..=3).map(|number| Server::start(&format!("S{number}"))).collect();
    let members: Vec<_> = servers.iter().map(|server| server.addr.clone()).collect();
    let members = members.join(",");
    let args = ["--runtime", "static", "--members", &members];
    let mut agent = Agent::start(&args);
    let lb = agent.ready_balancer(&[]).await;
    let (before, ring) = (identities(&lb).await, async || {
        lb.client.get(lb.admin_url("/api/v1/ring")).send().await.unwrap().text().await.unwrap()
    });
    let (ring_before, load) = (ring().await, Load::on(&lb, 32));
    load.more(200).await;
    let addr = agent.addr;
    agent.kill();
    lb.until_logged("can't be heard").await;
    load.more(500).await;
    let ready = lb.client.get(lb.admin_url("/readyz")).send().await.unwrap();
    let (status, body) = (ready.status().as_u16(), ready.text().await.unwrap());
    assert!(status == 200 && body.contains("agent is not connected"), "{status} {body}");
    assert_eq!(lb.metric("ringkeeper_agent_connected").await, 0.0);
    let (status, body) = lb.change("POST", "/add", r#"{"n":1}"#).await;
    assert!(status == 503 && body.contains("the agent is not connected"), "{status} {body}");
    assert_eq!(identities(&lb).await, before, "its last word holds");

    // A replica that dies meanwhile is taken out by the balancer's own means.
    kill(Pid::from_raw(servers[1].child.id() as i32), Signal::SIGSTOP).unwrap();
    eventually("the hung one is out of rotation", async || {
        lb.replicas().await.iter().any(|replica| replica["state"] == "unready").then_some(())
    })
    .await;
    load.more(200).await;
    kill(Pid::from_raw(servers[1].child.id() as i32), Signal::SIGCONT).unwrap();
    lb.until_ready().await;

    let publications = async || lb.metric("ringkeeper_publications_total").await;
    let published = publications().await;
    let again = Agent::start_at(addr, &args);
    eventually("it is connected again", async || (lb.metric("ringkeeper_agent_connected").await == 1.0).then_some(()))
        .await;
    again.until_logged("is connected").await;
    load.more(500).await;
    lb.until_ready().await;
    assert_eq!((identities(&lb).await, ring().await), (before, ring_before), "nothing has moved");
    assert_eq!(publications().await, published, "nothing was even published");
    load.stop().await.assert_nothing_lost();
}

#[tokio::test]
async fn several_balancers_see_the_same_states() {
    let _turn = TURN.lock().await;
    let agent = Agent::start(&[]);
    let balancers = [agent.ready_balancer(&[]).await, agent.ready_balancer(&["--policy", "round-robin"]).await];
    for n in 1..=5 {
        let (status, body) =
            balancers[n % 2].change("POST", "/add", &format!(r#"{{"n":1,"hostnames":["A{n}"]}}"#)).await;
        assert_eq!(status, 200, "{body}");
    }
    let ((), took) = eventually("both serve the same epoch", async || {
        let epochs =
            [balancers[0].metric("ringkeeper_agent_epoch").await, balancers[1].metric("ringkeeper_agent_epoch").await];
        (epochs[0] == epochs[1] && epochs[0] > 5.0).then_some(())
    })
    .await;
    println!("figure: two balancers serve the same state after {took:.1?}");
    assert_eq!(identities(&balancers[0]).await, identities(&balancers[1]).await);
    assert_eq!(balancers[0].rep().await, balancers[1].rep().await);
}

#[tokio::test]
async fn whoever_has_another_token_or_fleet_is_refused() {
    let _turn = TURN.lock().await;
    let token = "a token of sixteen letters";
    let agent = Agent::start(&["--agent-token", token, "--replicas", "1"]);
    for args in [&["--agent-token", "a token of other letters"][..], &[], &["--agent-token", token, "--fleet", "other"]]
    {
        let lb = agent.balancer(args);
        lb.until_logged("can't be heard").await;
        let why = lb.log().into_iter().find(|line| line.contains("can't be heard")).unwrap();
        let expected = if args.len() > 2 { "its fleet is 'other'" } else { "its token is wrong" };
        assert!(why.contains(expected), "{why}");
        assert!(!why.contains(token), "{why}");
        let (status, body) = lb.get("/home").await;
        assert!(status == 503 && body.contains("no server replica is ready"), "{status} {body}");
        assert!(!lb.is_ready().await);
    }
    let lb = agent.ready_balancer(&["--agent-token", token]).await;
    assert_eq!(lb.get("/home").await.0, 200);
}

#[tokio::test]
async fn a_balancer_speaks_tls_with_those_only_whose_certificate_it_was_given() {
    let _turn = TURN.lock().await;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).display().to_string();
    for name in ["good", "other"] {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
        std::fs::write(file(&format!("{name}.pem")), made.cert.pem()).unwrap();
        std::fs::write(file(&format!("{name}.key")), made.signing_key.serialize_pem()).unwrap();
    }
    let (certificate, key) = (file("good.pem"), file("good.key"));
    let agent = Agent::start(&["--agent-cert", &certificate, "--agent-key", &key, "--replicas", "2"]);
    agent.until_logged("(wss)").await;
    let url = format!("wss://localhost:{}", agent.addr.port());
    let lb = Lb::ready(&["--runtime", "agent", "--agent", &url, "--agent-ca", &certificate]).await;
    assert_eq!(lb.get("/home").await.0, 200);
    let other = file("other.pem");
    let distrustful = Lb::start(&["--runtime", "agent", "--agent", &url, "--agent-ca", &other]);
    distrustful.until_logged("can't be heard").await;
    let plain = agent.balancer(&[]);
    plain.until_logged("can't be heard").await;
    for lb in [distrustful, plain] {
        assert_eq!(lb.get("/home").await.0, 503);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spare_takes_over_within_milliseconds() {
    let _turn = TURN.lock().await;
    let agent = Agent::start(&["--spares", "1"]);
    let lb = agent.ready_balancer(&[]).await;
    let spare_is_ready = async || {
        let replicas = lb.replicas().await;
        replicas.iter().any(|replica| replica["spare"] == true && replica["state"] == "ready").then_some(())
    };
    // Not so much that this test would measure how long a thread waits for a core.
    let load = Load::on(&lb, 4);
    for round in 1..=5 {
        eventually("a spare waits", spare_is_ready).await;
        load.more(100).await;
        assert_eq!(lb.rep().await.len(), 3, "a spare is not counted");
        let (name, pid) = victim(&lb).await;
        kill(pid, Signal::SIGKILL).unwrap();
        let taken = async || agent.logged_at(&format!("replica {name} (ring"), "takes over");
        let ((noticed, line), _) = eventually("a spare takes over", taken).await;
        let spare = line.split("spare ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
        let ready = async || lb.logged_at(&format!("replica {spare} (ring"), "is ready");
        let ((ready, _), _) = eventually("the balancer has it in rotation", ready).await;
        let took = ready.duration_since(noticed).unwrap_or_default();
        let why = lb.client.get(lb.admin_url("/readyz")).send().await.unwrap().text().await.unwrap();
        assert!(lb.rep().await.contains(&spare) && why == "ready\n", "{why} {:?}", lb.rep().await);
        println!("figure: spare, round {round}: 3 ready {took:.1?} after the death was noticed");
        assert!(took < SPARE_SOON, "{took:?}");
    }
    load.stop().await.assert_nothing_lost();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_update_loses_nothing_and_a_broken_one_is_rolled_back() {
    let _turn = TURN.lock().await;
    let agent = Agent::start(&["--settle", "100ms"]);
    let lb = agent.ready_balancer(&[]).await;
    let load = Load::on(&lb, 16);
    let deploy = async |body: &str| {
        let response = lb.client.post(lb.admin_url("/api/v1/deploy")).body(body.to_owned()).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    let ended = async || {
        let progress: Value = lb.client.get(lb.admin_url("/api/v1/deploy")).send().await.unwrap().json().await.unwrap();
        let state = progress["state"].as_str().unwrap_or_default().to_owned();
        ["done", "rolled_back"].contains(&state.as_str()).then_some(progress)
    };
    load.more(100).await;
    let before = lb.rep().await;
    let (status, body) = deploy(r#"{"env":{"SERVICE_TIME":"1ms"}}"#).await;
    assert!(status == 202 || status == 200, "{status} {body}");
    let (progress, took) = eventually("the update ends", ended).await;
    println!("figure: rolling update of 3 processes: {took:.1?}");
    assert_eq!((&progress["state"], &progress["done"], &progress["total"]), (&json!("done"), &json!(3), &json!(3)));
    let after = lb.rep().await;
    assert!(after.len() == 3 && after.iter().all(|name| !before.contains(name)), "{before:?} {after:?}");
    load.more(100).await;

    let ids = identities(&lb).await;
    for (command, reason) in [(r#"["/no/such/program"]"#, "no/such/program"), (r#"["sh","-c","exit 3"]"#, "status 3")] {
        let (status, body) = deploy(&format!(r#"{{"command":{command}}}"#)).await;
        assert!(status == 202 || status == 500, "{status} {body}");
        let (progress, _) = eventually("the update ends", ended).await;
        assert_eq!(progress["state"], "rolled_back", "{progress}");
        assert!(progress["reason"].as_str().unwrap().contains(reason), "{progress}");
        load.more(100).await;
        eventually("all is as before", async || (identities(&lb).await == ids).then_some(())).await;
    }
    for bad in ["", "{}", r#"{"image":7}"#, r#"{"imgae":"x"}"#] {
        let (status, body) = deploy(bad).await;
        assert_eq!(status, 400, "{bad}: {body}");
    }
    load.stop().await.assert_nothing_lost();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_shows_an_update_step_by_step_and_says_how_it_ended() {
    let _turn = TURN.lock().await;
    let agent = Agent::start(&["--settle", "100ms", "--spares", "1"]);
    let lb = agent.ready_balancer(&[]).await;
    let admin = lb.admin.to_string();
    let run = async |args: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_lb"));
        command.args(args).args(["--admin-listen", &admin]).env_clear();
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, out, _) = run(&["decisions"]).await;
    assert!(code == Some(0) && out.contains("Nothing was decided yet"), "{out}");
    let (code, out, err) = run(&["deploy", "--new-env", "SERVICE_TIME=1ms"]).await;
    let last = out.lines().last().unwrap_or_default();
    assert!(code == Some(0) && last.ends_with("done: 3 of 3 replicas run the sample server"), "{out}{err}");
    // The one before is over; this one's own end is waited for.
    let (code, out, err) = run(&["deploy", "--new-command", "sh -c 'sleep 0.3; exit 3'"]).await;
    assert!(code == Some(1) && err.contains("rolled back") && err.contains("status 3"), "{out}{err}");
    for (args, why) in [
        (&["deploy"][..], "nothing is to be changed"),
        (&["deploy", "--image", "my-server:2"], "replicas are processes, which have no image"),
        (&["deploy", "--new-env", "PORT=1"], "PORT"),
        (&["deploy", "--new-command", "'"], "quoted as in a shell"),
    ] {
        let (code, out, err) = run(args).await;
        assert!(code == Some(1) && err.contains(why), "{args:?}: {out}{err}");
    }
    assert_eq!(lb.rep().await.len(), 3);
}
