//! The table of flows: its bound, its time limit, and a crowd in it.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::net::UdpSocket;

use crate::support::server::{UdpServer, answer, exchange, talker, voices};
use crate::support::{Lb, eventually};
use crate::{PORT, by_flow, register};

fn metric(name: &str) -> String {
    format!(r#"ringkeeper_relay_{name}{{protocol="udp",relay_port="{PORT}"}}"#)
}

#[tokio::test]
async fn the_oldest_idle_flow_makes_room_for_a_new_one() {
    let lb = Lb::relaying(&["--relay-max-flows", "4", "--workers", "1"]);
    let (a, b) = (UdpServer::named("A").await, UdpServer::named("B").await);
    let _controls = [register(&lb, &a, by_flow()).await, register(&lb, &b, by_flow()).await];
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(talker(lb.relay(PORT)).await);
    }
    let talk = async |client: usize| voices(&clients[client], 1).await.remove(0);
    let state = async || {
        let port = lb.port("udp", PORT).await.unwrap();
        ["flows", "accepted", "evicted"].map(|what| port[what].as_u64().unwrap())
    };
    for (client, name) in ["A", "B", "A", "B"].into_iter().enumerate() {
        assert_eq!(talk(client).await, name);
    }
    assert_eq!(state().await, [4, 4, 0]);
    // The first is not the oldest any more.
    assert_eq!(talk(0).await, "A");
    assert_eq!(talk(4).await, "A");
    assert_eq!(state().await, [4, 5, 1]);
    for (client, name) in [(0, "A"), (2, "A"), (3, "B"), (4, "A")] {
        assert_eq!(talk(client).await, name);
    }
    assert_eq!(state().await, [4, 5, 1], "all of them are where they were");
    // The second has lost its place: it is a new flow, and its turn is the next.
    assert_eq!(talk(1).await, "B");
    assert_eq!(state().await, [4, 6, 2]);
    // That was instead of the first.
    assert_eq!(talk(0).await, "A");
    assert_eq!(state().await, [4, 7, 3]);
    assert_eq!(lb.metric(&metric("evicted_total")).await, 3.0);
    assert_eq!(lb.metric(&metric("flows")).await, 4.0);
}

#[tokio::test]
async fn the_table_is_bounded_by_datagram_as_well_and_nothing_is_lost() {
    let lb = Lb::relaying(&["--relay-max-flows", "3", "--workers", "1"]);
    let (a, b) = (UdpServer::named("A").await, UdpServer::named("B").await);
    let _controls = [register(&lb, &a, json!({})).await, register(&lb, &b, json!({})).await];
    for _ in 0..10 {
        assert_eq!(voices(&talker(lb.relay(PORT)).await, 2).await, ["A", "B"]);
        assert!(lb.port("udp", PORT).await.unwrap()["flows"].as_u64().unwrap() <= 3);
    }
    assert_eq!(lb.metric(&metric("evicted_total")).await, 17.0);
    assert_eq!(lb.metric(&metric("dropped_total")).await, 0.0);
}

#[tokio::test]
async fn a_flow_ends_when_it_was_idle_for_too_long_and_a_busy_one_does_not() {
    let lb = Lb::relaying(&["--relay-flow-idle", "300ms"]);
    let (a, b) = (UdpServer::named("A").await, UdpServer::named("B").await);
    let _controls = [register(&lb, &a, by_flow()).await, register(&lb, &b, by_flow()).await];
    let (busy, idle) = (talker(lb.relay(PORT)).await, talker(lb.relay(PORT)).await);
    assert_eq!(voices(&busy, 1).await, ["A"]);
    assert_eq!(voices(&idle, 1).await, ["B"]);
    let began = Instant::now();
    let ended = async || {
        assert_eq!(voices(&busy, 1).await, ["A"]);
        (lb.port("udp", PORT).await.unwrap()["flows"] == 1).then_some(())
    };
    eventually("the idle flow ends", ended).await;
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(250) && took < Duration::from_secs(5), "{took:?}");
    assert_eq!(lb.port("udp", PORT).await.unwrap()["evicted"], 0);
    assert_eq!(lb.member("udp", PORT, b.addr).await.unwrap()["in_flight"], 0);
    // Its client begins another one, whose turn is the next.
    assert_eq!(voices(&idle, 1).await, ["A"]);
    assert_eq!(lb.port("udp", PORT).await.unwrap()["accepted"], 3);
}

/// Clients that send before the answers of any of them are looked at: as many as fit into the sockets on the way, whatever
/// the system's limit of these is.
const AT_ONCE: usize = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_clients_at_once_get_their_own_answers() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let lb = Lb::relaying(&["--relay-max-flows", "10000"]);
    for (affinity, flows) in [("flow", 2000), ("datagram", 4000)] {
        let (a, b) = (UdpServer::echo().await, UdpServer::echo().await);
        let further = json!({"affinity": affinity});
        let mut controls = [register(&lb, &a, further.clone()).await, register(&lb, &b, further).await];
        let mut clients: Vec<UdpSocket> = Vec::new();
        for _ in 0..2000 {
            clients.push(talker(lb.relay(PORT)).await);
        }
        for round in 0..4 {
            for (chunk, crowd) in clients.chunks(AT_ONCE).enumerate() {
                let name = |at: usize| format!("round {round}, client {}", chunk * AT_ONCE + at);
                for (at, client) in crowd.iter().enumerate() {
                    client.send(name(at).as_bytes()).await.unwrap();
                }
                for (at, client) in crowd.iter().enumerate() {
                    let got = answer(client).await.unwrap();
                    assert_eq!(String::from_utf8_lossy(&got), name(at));
                }
            }
        }
        for client in &clients {
            assert!(client.try_recv(&mut [0; 64]).is_err(), "nobody gets more than what is theirs");
        }
        let port = lb.port("udp", PORT).await.unwrap();
        // By datagram nobody knows who meets whom.
        let some = port["flows"].as_u64().unwrap();
        assert!(some == flows || affinity == "datagram" && (2000..flows).contains(&some), "{port}");
        assert_eq!((&port["datagrams_down"], &port["dropped"]), (&json!(8000), &json!(0)));
        assert_eq!(a.received() + b.received(), 8000);
        for (control, server) in controls.iter_mut().zip([&a, &b]) {
            control.unregister("udp", server.addr.port(), PORT).await;
        }
    }
    // A crowd leaves nothing behind.
    let server = UdpServer::named("A").await;
    let _control = register(&lb, &server, by_flow()).await;
    assert_eq!(exchange(&talker(lb.relay(PORT)).await, b"x").await.unwrap(), b"A");
    assert_eq!(lb.metric(&metric("flows")).await, 1.0);
}
