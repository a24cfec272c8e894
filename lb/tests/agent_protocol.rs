//! The protocol between agent and balancer, spoken by hand with real processes on the other side.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "tests fail by panicking, and say what they measured"
)]
#![allow(clippy::disallowed_methods, reason = "tests read the environment that they pass on")]

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use support::agent::Agent;
use support::replica::Replica;
use support::{LIMIT, Lb, eventually};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Frame;

/// One end of a session.
struct Peer(WebSocketStream<TcpStream>);

impl Peer {
    async fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).await.unwrap();
        Self(tokio_tungstenite::client_async(format!("ws://{addr}"), stream).await.unwrap().0)
    }

    /// Says hello as a balancer that has this state of this run.
    async fn greet(addr: SocketAddr, name: &str, instance: &str, epoch: u64) -> (Self, Value) {
        let mut peer = Self::connect(addr).await;
        let hello =
            json!({"type":"hello","version":1,"fleet":"ringkeeper","balancer":name,"instance":instance,"epoch":epoch});
        peer.send(&hello).await;
        let hello = peer.next().await.expect("a hello");
        assert_eq!(hello["type"], "hello");
        (peer, hello)
    }

    async fn accept(listener: &TcpListener) -> Self {
        let (stream, _) = listener.accept().await.unwrap();
        Self(tokio_tungstenite::accept_async(stream).await.unwrap())
    }

    async fn text(&mut self, text: &str) {
        self.0.send(Frame::text(text.to_owned())).await.unwrap();
    }

    async fn send(&mut self, message: &Value) {
        self.text(&message.to_string()).await;
    }

    /// The next message; `None` when the other side has ended the session.
    async fn next(&mut self) -> Option<Value> {
        loop {
            let frame = tokio::time::timeout(LIMIT, self.0.next()).await.expect("something comes");
            match frame? {
                Ok(Frame::Text(text)) => return Some(serde_json::from_str(&text).unwrap()),
                Ok(Frame::Close(_)) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// The next message of this type; pings are answered meanwhile.
    async fn next_of(&mut self, kind: &str) -> Value {
        loop {
            let message = self.next().await.unwrap_or_else(|| panic!("the session ended before a {kind}"));
            if message["type"] == kind {
                return message;
            }
            if message["type"] == "ping" {
                self.send(&json!({"type":"pong","seq":message["seq"]})).await;
            }
        }
    }

    /// Everything that comes until the session has ended.
    async fn ended(&mut self) {
        while self.next().await.is_some() {}
    }
}

/// A snapshot of an agent whose three replicas are ready.
async fn whole(peer: &mut Peer) -> (u64, Vec<Value>) {
    let mut members: std::collections::BTreeMap<u64, Value> = std::collections::BTreeMap::new();
    loop {
        let message = peer.next().await.expect("the session goes on");
        let list = match message["type"].as_str().unwrap() {
            "snapshot" => message["members"].as_array().unwrap(),
            "delta" => message["changed"].as_array().unwrap(),
            _ => continue,
        };
        members.extend(list.iter().map(|member| (member["generation"].as_u64().unwrap(), member.clone())));
        if members.len() == 3 && members.values().all(|member| member["state"] == "ready") {
            return (message["epoch"].as_u64().unwrap(), members.into_values().collect());
        }
    }
}

#[tokio::test]
async fn a_balancer_is_told_everything_once_and_then_what_changes() {
    let agent = Agent::start(&[]);
    let (mut peer, hello) = Peer::greet(agent.addr, "one", "", 0).await;
    let (epoch, members) = whole(&mut peer).await;
    assert_eq!(members[0]["hostname"], "S1");
    assert_eq!(members[0]["share"], json!({"weight":1,"priority":0}));
    peer.send(&json!({"type":"command","id":7,"op":"set","hostname":"S2","weight":5,"priority":null})).await;
    let delta = peer.next_of("delta").await;
    assert_eq!((&delta["from"], &delta["epoch"]), (&json!(epoch), &json!(epoch + 1)));
    assert_eq!((delta["changed"].as_array().unwrap().len(), &delta["removed"]), (1, &json!([])));
    assert_eq!(delta["changed"][0]["share"]["weight"], 5);
    let result = peer.next_of("result").await;
    assert_eq!((&result["id"], &result["ok"]["N"]), (&json!(7), &json!(3)), "told after what it did");

    // Whoever comes back with a state of this run hears what is new, and nothing if nothing is.
    let instance = hello["instance"].as_str().unwrap();
    let (mut again, _) = Peer::greet(agent.addr, "one", instance, epoch).await;
    let message = again.next_of("delta").await;
    assert_eq!((&message["from"], &message["epoch"]), (&json!(epoch), &json!(epoch + 1)));
    let (mut current, _) = Peer::greet(agent.addr, "two", instance, epoch + 1).await;
    assert_eq!(current.next_of("ping").await["seq"], 1, "no snapshot before the first ping");
    let (mut other, _) = Peer::greet(agent.addr, "three", "another run", epoch + 1).await;
    assert_eq!(other.next_of("snapshot").await["epoch"], epoch + 1);
}

#[tokio::test]
async fn what_is_unknown_is_ignored_and_what_is_malformed_ends_the_session() {
    let agent = Agent::start(&["--replicas", "1"]);
    let (mut peer, _) = Peer::greet(agent.addr, "newer", "", 0).await;
    peer.send(&json!({"type":"gossip","about":"everything"})).await;
    peer.send(&json!({"type":"report","epoch":0,"replicas":[],"latencies":[],"mood":"good"})).await;
    peer.send(&json!({"type":"command","id":3,"op":"teleport","to":"mars"})).await;
    let result = peer.next_of("result").await;
    assert_eq!((&result["id"], &result["error"]["kind"]), (&json!(3), &json!("failed")), "{result}");
    peer.send(&json!({"type":"ping","seq":42})).await;
    assert_eq!(peer.next_of("pong").await["seq"], 42, "it goes on");
    agent.until_logged("sends 'gossip'").await;
    agent.until_logged("sends 'report.mood'").await;
    for text in [
        "rubbish",
        r#"{"type":"report"}"#,
        r#"{"type":"command","id":1,"op":"add"}"#,
        r#"{"type":"snapshot","epoch":1,"members":[]}"#,
    ] {
        let (mut peer, _) = Peer::greet(agent.addr, "broken", "", 0).await;
        peer.text(text).await;
        peer.ended().await;
    }
    for first in [r#"{"type":"ping","seq":1}"#, "rubbish", r#"{"type":"hello","version":0,"fleet":"ringkeeper"}"#] {
        let mut peer = Peer::connect(agent.addr).await;
        peer.text(first).await;
        assert_eq!(peer.next().await, None, "{first}");
    }
    agent.until_logged("malformed").await;
}

#[tokio::test]
async fn a_silent_balancer_is_given_up() {
    let agent = Agent::start(&["--replicas", "1"]);
    let (mut peer, _) = Peer::greet(agent.addr, "silent", "", 0).await;
    peer.ended().await;
    agent.until_logged("nothing was heard for 5 s").await;
}

#[tokio::test]
async fn a_replica_that_leaves_is_stopped_when_no_balancer_holds_it_any_more() {
    let agent = Agent::start(&["--drain-timeout", "20s"]);
    let (mut peer, _) = Peer::greet(agent.addr, "holder", "", 0).await;
    let (epoch, members) = whole(&mut peer).await;
    let generation = members[0]["generation"].as_u64().unwrap();
    let report = |epoch: u64, in_flight: u32| {
        json!({"type":"report","epoch":epoch,"latencies":[],"replicas":[{"generation":generation,
            "in_flight":in_flight,"served":0,"failed":0,"waited_us":0,"good":true}]})
    };
    peer.send(&report(epoch, 2)).await;
    peer.send(&json!({"type":"command","id":1,"op":"remove","n":1,"hostnames":["S1"]})).await;
    let delta = peer.next_of("delta").await;
    assert_eq!((&delta["changed"][0]["state"], &delta["changed"][0]["desired"]), (&json!("draining"), &json!(false)));
    let leaving = delta["epoch"].as_u64().unwrap();
    // It holds none, but has not said that it knows; then it knows, and holds one.
    peer.send(&report(epoch, 0)).await;
    peer.send(&report(leaving, 1)).await;
    let in_flight = async || {
        let replicas = agent.ask("/api/v1/replicas").await;
        let held = replicas.as_array().unwrap().iter().find(|it| it["generation"] == generation).cloned();
        held.filter(|it| it["in_flight"] == 1)
    };
    let (held, _) = eventually("the agent shows what the balancer holds", in_flight).await;
    assert_eq!(held["state"], "draining", "it still runs: {held}");
    let pid: u32 = held["runtime_id"].as_str().unwrap().parse().unwrap();
    assert!(support::lives(pid));
    peer.send(&report(leaving, 0)).await;
    let result = peer.next_of("result").await;
    assert_eq!(result["ok"]["N"], 2, "{result}");
    eventually("it is gone", async || (!support::lives(pid)).then_some(())).await;
}

#[tokio::test]
async fn one_balancers_trouble_with_a_replica_is_its_own() {
    let agent = Agent::start(&[]);
    let (mut a, _) = Peer::greet(agent.addr, "a", "", 0).await;
    let (epoch, members) = whole(&mut a).await;
    let (mut b, _) = Peer::greet(agent.addr, "b", "", 0).await;
    assert_eq!(b.next_of("snapshot").await["epoch"], epoch);
    let generation = members[0]["generation"].as_u64().unwrap();
    let report = |epoch: u64, in_flight: u32, good: bool| {
        json!({"type":"report","epoch":epoch,"latencies":[],"replicas":[{"generation":generation,
            "in_flight":in_flight,"served":0,"failed":0,"waited_us":0,"good":good}]})
    };
    b.send(&report(epoch, 0, true)).await;
    b.send(&json!({"type":"command","id":1,"op":"decisions"})).await;
    b.next_of("result").await;
    a.send(&report(epoch, 2, false)).await;
    let set = |weight: u16| json!({"type":"command","id":2,"op":"set","hostname":"S3","weight":weight,"priority":null});
    a.send(&set(5)).await;
    let delta = a.next_of("delta").await;
    assert_eq!((&delta["epoch"], &delta["changed"][0]["hostname"]), (&json!(epoch + 1), &json!("S3")), "{delta}");

    // Nobody reaches it: it is taken out, asked, and back when it has answered.
    b.send(&report(epoch + 1, 0, false)).await;
    let delta = b.next_of("delta").await;
    let delta = if delta["epoch"] == epoch + 1 { b.next_of("delta").await } else { delta };
    assert_eq!((&delta["changed"][0]["hostname"], &delta["changed"][0]["state"]), (&json!("S1"), &json!("unready")));
    let delta = b.next_of("delta").await;
    assert_eq!((&delta["changed"][0]["hostname"], &delta["changed"][0]["state"]), (&json!("S1"), &json!("ready")));

    // What a balancer held counts until it is gone.
    let held = async || agent.ask("/api/v1/replicas").await[0]["in_flight"].as_u64();
    eventually("the agent shows what is held", async || (held().await == Some(2)).then_some(())).await;
    drop(a);
    eventually("and no more, once that balancer is gone", async || (held().await == Some(0)).then_some(())).await;
}

#[tokio::test]
async fn browsers_are_refused() {
    let agent = Agent::start(&["--replicas", "1"]);
    let client = reqwest::Client::builder().no_proxy().timeout(LIMIT).build().unwrap();
    let upgrade = |origin: Option<&str>| {
        let request = client.get(format!("http://{}/", agent.addr)).header("connection", "upgrade");
        let request = request.header("upgrade", "websocket").header("sec-websocket-version", "13");
        let request = request.header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        origin.iter().fold(request, |request, origin| request.header("origin", *origin)).send()
    };
    assert_eq!(upgrade(None).await.unwrap().status(), 101);
    assert_eq!(upgrade(Some("http://evil.example")).await.unwrap().status(), 403);
    let deploy = client.post(format!("http://{}/api/v1/deploy", agent.admin)).header("origin", "null");
    let answer = deploy.body(r#"{"command":["sh"]}"#).send().await.unwrap();
    assert_eq!(answer.status(), 400);
    assert!(answer.text().await.unwrap().contains("web pages are not welcome"));
    assert_eq!(agent.ask("/api/v1/deploy").await, Value::Null, "nothing was begun");
}

#[tokio::test]
async fn a_stranger_may_not_say_much() {
    let agent = Agent::start(&["--replicas", "1"]);
    let mut peer = Peer::connect(agent.addr).await;
    peer.text(&format!(r#"{{"type":"hello","version":1,"fleet":"{}"}}"#, "x".repeat(20_000))).await;
    peer.ended().await;
    agent.until_logged("is refused").await;
    // One who has said who it is may.
    let (mut peer, _) = Peer::greet(agent.addr, "known", "", 0).await;
    let latencies: Vec<u64> = vec![0; 40_000];
    peer.send(&json!({"type":"report","epoch":0,"replicas":[],"latencies":latencies})).await;
    peer.send(&json!({"type":"ping","seq":7})).await;
    assert_eq!(peer.next_of("pong").await["seq"], 7);
}

/// A replica that the agent of a test tells of.
fn told(generation: u64, addr: SocketAddr, state: &str) -> Value {
    json!({"generation":generation,"id":generation,"hostname":format!("S{generation}"),"addr":addr,
        "runtime_id":format!("i{generation}"),"state":state,"desired":state != "draining",
        "share":{"weight":1,"priority":0},"order":generation,"started_at":0,"of_a_newer_version":true})
}

#[tokio::test]
async fn a_balancer_takes_what_it_understands_and_asks_anew_for_what_it_does_not() {
    let servers = [Replica::mirror().await, Replica::mirror().await];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let lb = Lb::start(&["--runtime", "agent", "--agent", &url, "--policy", "round-robin"]);
    let mut agent = Peer::accept(&listener).await;
    let hello = agent.next().await.unwrap();
    assert_eq!((&hello["type"], &hello["version"], &hello["epoch"]), (&json!("hello"), &json!(1), &json!(0)));
    let greeting = json!({"type":"hello","version":1,"fleet":"ringkeeper","instance":"run","since":"yesterday"});
    agent.send(&greeting).await;
    agent.send(&json!({"type":"weather","is":"fine"})).await;
    let first = told(1, servers[0].addr, "ready");
    agent.send(&json!({"type":"snapshot","epoch":5,"members":[first]})).await;
    // Reports of the time before may be under way.
    let report = loop {
        let report = agent.next_of("report").await;
        if report["epoch"] == 5 {
            break report;
        }
    };
    assert_eq!(report["replicas"].as_array().unwrap().len(), 1, "{report}");
    lb.until_ready().await;
    assert_eq!(lb.get("/home").await.0, 200);
    lb.until_logged("sends 'weather'").await;
    lb.until_logged("of_a_newer_version").await;
    agent
        .send(&json!({"type":"delta","from":5,"epoch":6,"changed":[told(2, servers[1].addr, "ready")],"removed":[]}))
        .await;
    eventually("both serve", async || (lb.rep().await == ["S1", "S2"]).then_some(())).await;

    // A step from a state that it does not have: it comes back, and says that it has none.
    agent.send(&json!({"type":"delta","from":9,"epoch":10,"changed":[],"removed":[2]})).await;
    let mut agent = Peer::accept(&listener).await;
    let hello = agent.next().await.unwrap();
    assert_eq!((&hello["instance"], &hello["epoch"]), (&json!("run"), &json!(0)), "{hello}");
    agent.send(&greeting).await;
    assert_eq!(lb.rep().await, ["S1", "S2"], "what it had is served");
    agent.send(&json!({"type":"snapshot","epoch":11,"members":[told(2, servers[1].addr, "ready")]})).await;
    eventually("one serves", async || (lb.rep().await == ["S2"]).then_some(())).await;

    // Rubbish ends the session; it comes back with what it has.
    agent.text("rubbish").await;
    agent.ended().await;
    let mut agent = Peer::accept(&listener).await;
    let hello = agent.next().await.unwrap();
    assert_eq!((&hello["instance"], &hello["epoch"]), (&json!("run"), &json!(11)));
    agent.send(&greeting).await;
    eventually("it is connected", async || (lb.metric("ringkeeper_agent_connected").await == 1.0).then_some(())).await;
    assert_eq!(lb.get("/home").await.0, 200);
}

#[tokio::test]
async fn pauses_between_attempts_grow() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let _lb = Lb::start(&["--runtime", "agent", "--agent", &url]);
    let mut times = Vec::new();
    for _ in 0..6 {
        let (stream, _) = listener.accept().await.unwrap();
        times.push(std::time::Instant::now());
        drop(stream);
    }
    let pauses: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // 100 ms, doubled each time, of which 50 to 100 % are waited for.
    assert!(pauses[0] >= Duration::from_millis(50), "{pauses:?}");
    assert!(pauses[4] >= Duration::from_millis(800), "{pauses:?}");
    assert!(pauses[4] < Duration::from_secs(5), "{pauses:?}");
}
