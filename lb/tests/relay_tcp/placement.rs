//! Who gets a connection.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde_json::json;
use tokio::net::TcpSocket;

use crate::support::Lb;
use crate::support::control::{Control, own_ip};
use crate::support::server::{TcpServer, Visit, count, names};

async fn with(lb: &Lb, name: &str, further: serde_json::Value) -> (TcpServer, Control) {
    let server = TcpServer::named(name).await;
    let mut control = Control::connect(lb, server.ip()).await;
    control.register_with("tcp", server.addr.port(), 50_000, further).await;
    (server, control)
}

#[tokio::test]
async fn everybody_has_a_turn_whichever_thread_takes_it() {
    let lb = Lb::relaying(&["--workers", "3"]);
    let servers = [with(&lb, "A", json!({})).await, with(&lb, "B", json!({})).await, with(&lb, "C", json!({})).await];
    let served = names(lb.relay(50_000), 31).await;
    let counts = ["A", "B", "C"].map(|name| count(&served, name));
    assert_eq!(counts, [11, 10, 10], "{served:?}");
    assert_eq!(served[..6], ["A", "B", "C", "A", "B", "C"]);
    for ((server, _), count) in servers.iter().zip(counts) {
        assert_eq!(server.accepted(), count);
        assert_eq!(lb.member("tcp", 50_000, server.addr).await.unwrap()["served"], count);
    }
}

#[tokio::test]
async fn weights_share_two_to_one() {
    let lb = Lb::relaying(&[]);
    let _servers = [with(&lb, "A", json!({"weight": 2})).await, with(&lb, "B", json!({"weight": 1})).await];
    let served = names(lb.relay(50_000), 12).await;
    assert_eq!((count(&served, "A"), count(&served, "B")), (8, 4), "{served:?}");
    // Evenly, not in lumps.
    assert!(served.chunks(3).all(|three| count(three, "A") == 2), "{served:?}");
}

#[tokio::test]
async fn the_highest_priority_that_is_there_serves() {
    let lb = Lb::relaying(&[]);
    let (_a, _a_control) = with(&lb, "A", json!({})).await;
    assert_eq!(names(lb.relay(50_000), 2).await, ["A"; 2]);
    let (b, b_control) = with(&lb, "B", json!({"priority": 10})).await;
    let (c, c_control) = with(&lb, "C", json!({"priority": 10})).await;
    let served = names(lb.relay(50_000), 10).await;
    assert_eq!((count(&served, "B"), count(&served, "C")), (5, 5), "{served:?}");
    drop((c, c_control));
    let left = async || lb.port("tcp", 50_000).await.filter(|port| port["replicas"].as_array().unwrap().len() == 2);
    crate::support::eventually("C has left", left).await;
    assert_eq!(names(lb.relay(50_000), 4).await, ["B"; 4]);
    b_control.say(json!({"cmd": "hello", "state": "busy"}));
    lb.until_state("tcp", 50_000, b.addr, "unready").await;
    assert_eq!(names(lb.relay(50_000), 4).await, ["A"; 4]);
    b_control.say(json!({"cmd": "hello", "state": "good"}));
    lb.until_state("tcp", 50_000, b.addr, "ready").await;
    assert_eq!(names(lb.relay(50_000), 4).await, ["B"; 4]);
}

/// A socket that has a port, but does not listen: whoever connects is refused.
fn held() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind((own_ip(), 0).into()).unwrap();
    let addr = socket.local_addr().unwrap();
    (socket, addr)
}

#[tokio::test]
async fn when_one_refuses_the_next_is_tried_and_it_is_back_when_it_listens() {
    let lb = Lb::relaying(&[]);
    let (socket, addr) = held();
    let mut a_control = Control::connect(&lb, addr.ip().to_string().parse().unwrap()).await;
    a_control.register("tcp", addr.port(), 50_000).await;
    let (_b, _b_control) = TcpServer::registered(&lb, "B", 50_000).await;
    // No client notices.
    assert_eq!(names(lb.relay(50_000), 6).await, ["B"; 6]);
    let member = lb.member("tcp", 50_000, addr).await.unwrap();
    assert_eq!((&member["state"], &member["failed"]), (&json!("unready"), &json!(1)), "it was tried once");
    assert_eq!(lb.port("tcp", 50_000).await.unwrap()["unserved"], 0);
    drop(socket);
    let _a = TcpServer::named_at(addr, "A").await;
    lb.until_state("tcp", 50_000, addr, "ready").await;
    let served = names(lb.relay(50_000), 6).await;
    assert_eq!(count(&served, "A"), 3, "{served:?}");
}

#[tokio::test]
async fn a_server_may_register_before_it_listens() {
    let lb = Lb::relaying(&[]);
    let (socket, addr) = held();
    let mut control = Control::connect(&lb, addr.ip().to_string().parse().unwrap()).await;
    control.register("tcp", addr.port(), 50_000).await;
    let error = Visit::to(lb.relay(50_000)).await.err().expect("nobody serves");
    assert_ne!(error.kind(), std::io::ErrorKind::ConnectionRefused, "the port is open");
    assert_eq!(lb.port("tcp", 50_000).await.unwrap()["unserved"], 1);
    drop(socket);
    let _server = TcpServer::named_at(addr, "A").await;
    lb.until_state("tcp", 50_000, addr, "ready").await;
    assert_eq!(names(lb.relay(50_000), 3).await, ["A"; 3]);
}

#[tokio::test]
async fn a_server_that_answers_no_connection_is_passed_over() {
    let lb = Lb::relaying(&["--relay-connect-timeout", "200ms"]);
    // A queue that is full: what more connects is never answered.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((own_ip(), 0).into()).unwrap();
    let hung = socket.listen(0).unwrap();
    let addr = hung.local_addr().unwrap();
    let _fill = tokio::net::TcpStream::connect(addr).await.unwrap();
    let mut control = Control::connect(&lb, addr.ip().to_string().parse().unwrap()).await;
    control.register("tcp", addr.port(), 50_000).await;
    let (_b, _b_control) = TcpServer::registered(&lb, "B", 50_000).await;
    assert_eq!(names(lb.relay(50_000), 3).await, ["B"; 3]);
    assert_ne!(lb.member("tcp", 50_000, addr).await.unwrap()["failed"], 0);
}

#[tokio::test]
async fn by_client_address_everybody_keeps_to_a_server() {
    for policy in ["consistent", "rendezvous", "maglev"] {
        keeps_to_a_server(policy).await;
    }
}

async fn keeps_to_a_server(policy: &str) {
    let lb = Lb::relaying(&["--relay-policy", policy]);
    let mut servers = Vec::new();
    for name in ["A", "B", "C"] {
        servers.push(TcpServer::registered(&lb, name, 50_000).await);
    }
    let clients: Vec<_> = (0..24).map(|_| own_ip()).collect();
    let place = async || {
        let (mut places, mut open) = (Vec::new(), Vec::new());
        for client in &clients {
            open.push(Visit::from(*client, lb.relay(50_000)).await.unwrap());
            places.extend(open.last().map(|visit| visit.name.clone()));
        }
        places
    };
    let before = place().await;
    assert!(before.iter().collect::<BTreeSet<_>>().len() > 1, "not all 24 to one: {before:?}");
    for _ in 0..3 {
        assert_eq!(place().await, before);
    }
    let (gone, mut control) = servers.remove(0);
    control.unregister("tcp", gone.addr.port(), 50_000).await;
    let after = place().await;
    let moved = before.iter().zip(&after).filter(|(before, after)| before != after && *before != "A").count();
    // Maglev's table is made anew, so a few of the others' slots may change hands.
    assert!(moved <= usize::from(policy == "maglev"), "{policy}: {before:?} {after:?}");
    assert_eq!(count(&after, "A"), 0);
}

#[tokio::test]
async fn every_policy_relays() {
    for policy in lb::policy::PolicyKind::WORDS {
        let lb = Lb::relaying(&["--relay-policy", policy]);
        let mut servers = Vec::new();
        for name in ["A", "B", "C"] {
            servers.push(TcpServer::registered(&lb, name, 50_000).await);
        }
        let served = names(lb.relay(50_000), 30).await;
        assert_eq!(served.len(), 30, "{policy}");
        let hashes = ["consistent", "maglev", "rendezvous"].contains(policy);
        let different = served.iter().collect::<BTreeSet<_>>().len();
        assert!(if hashes { different == 1 } else { different > 1 }, "{policy}: {served:?}");
    }
}
