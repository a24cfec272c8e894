//! Each datagram by itself.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use serde_json::json;

use crate::support::control::{Control, own_ip};
use crate::support::server::{
    UdpServer, answer, count, exchange, talker, talker_from, udp, until_udp_is_refused, voices,
};
use crate::support::wire::{assert_same, noise};
use crate::support::{LIMIT, Lb, SOON, eventually};
use crate::{PORT, by_flow, register};

#[tokio::test]
async fn datagrams_take_turns_whoever_sends_them() {
    let lb = Lb::relaying(&["--workers", "3"]);
    let (a, b, c) = (UdpServer::named("A").await, UdpServer::named("B").await, UdpServer::named("C").await);
    let _controls = [
        register(&lb, &a, json!({})).await,
        register(&lb, &b, json!({"affinity": "datagram"})).await,
        register(&lb, &c, json!({})).await,
    ];
    let one = talker(lb.relay(PORT)).await;
    let heard = voices(&one, 31).await;
    assert_eq!(heard[..6], ["A", "B", "C", "A", "B", "C"]);
    assert_eq!(["A", "B", "C"].map(|name| count(&heard, name)), [11, 10, 10], "{heard:?}");
    // Several clients share the turns; between them all get their part.
    let others = [talker(lb.relay(PORT)).await, talker(lb.relay(PORT)).await];
    let mut heard = Vec::new();
    for _ in 0..15 {
        for other in &others {
            heard.extend(voices(other, 1).await);
        }
    }
    assert_eq!(["A", "B", "C"].map(|name| count(&heard, name)), [10; 3], "{heard:?}");
    let port = lb.port("udp", PORT).await.unwrap();
    assert_eq!((&port["datagrams_up"], &port["datagrams_down"]), (&json!(61), &json!(61)));
    assert_eq!((&port["unserved"], &port["dropped"]), (&json!(0), &json!(0)));
    assert_eq!(port["flows"], 9, "three clients, each with three servers");
    assert_eq!(a.received() + b.received() + c.received(), 61);
}

#[tokio::test]
async fn weights_and_priorities_count_for_datagrams_as_well() {
    let lb = Lb::relaying(&[]);
    let (a, b, c) = (UdpServer::named("A").await, UdpServer::named("B").await, UdpServer::named("C").await);
    let mut first = register(&lb, &a, json!({"weight": 2, "priority": 1})).await;
    let mut second = register(&lb, &b, json!({"weight": 1, "priority": 1})).await;
    let _third = register(&lb, &c, json!({})).await;
    let client = talker(lb.relay(PORT)).await;
    let heard = voices(&client, 12).await;
    assert_eq!(["A", "B", "C"].map(|name| count(&heard, name)), [8, 4, 0], "{heard:?}");
    first.unregister("udp", a.addr.port(), PORT).await;
    second.unregister("udp", b.addr.port(), PORT).await;
    assert_eq!(voices(&client, 3).await, ["C"; 3]);
}

#[tokio::test]
async fn datagrams_of_every_size_are_the_same_on_the_other_side() {
    let lb = Lb::relaying(&[]);
    let bytes = noise(65_507);
    for affinity in ["datagram", "flow"] {
        let server = UdpServer::echo().await;
        let _control = register(&lb, &server, json!({"affinity": affinity})).await;
        let client = talker(lb.relay(PORT)).await;
        for size in [0, 1, 1472, 1473, 9000, 65_506, 65_507, 0] {
            assert_same(&exchange(&client, &bytes[..size]).await.unwrap(), &bytes[..size]);
        }
        // Several that wait at the same time are still several.
        let sizes = [700, 0, 1472, 1, 30_000, 0, 2];
        for size in sizes {
            client.send(&bytes[..size]).await.unwrap();
        }
        let mut got = Vec::new();
        for _ in sizes {
            got.push(answer(&client).await.unwrap().len());
        }
        assert_eq!(got, sizes, "one client's datagrams to one server stay in order");
        drop(client);
        drop(_control);
        eventually("it is gone", async || lb.port("udp", PORT).await.is_none().then_some(())).await;
    }
}

#[tokio::test]
async fn answers_come_from_the_address_and_port_that_was_asked() {
    // Open on all addresses, so the number must be free on all: no other test uses these.
    let port = 10_000 + (std::process::id() % 10_000) as u16;
    let control = format!("{}:0", own_ip());
    let lb = Lb::start(&["--replicas", "0", "--control-listen", &control, "--relay-address", "0.0.0.0"]);
    for affinity in ["datagram", "flow"] {
        let server = UdpServer::echo().await;
        let mut control = Control::connect(&lb, server.ip()).await;
        control.register_with("udp", server.addr.port(), port, json!({"affinity": affinity})).await;
        // One client asks at several addresses, among them one that nobody would choose by default.
        let client = udp((own_ip(), 0).into());
        let asked = [Ipv4Addr::new(127, 0, 0, 9), Ipv4Addr::LOCALHOST, own_ip(), Ipv4Addr::new(127, 0, 0, 9)];
        for ip in asked {
            let asked = SocketAddr::from((ip, port));
            client.send_to(ip.to_string().as_bytes(), asked).await.unwrap();
            let mut bytes = [0; 64];
            let (len, from) = tokio::time::timeout(LIMIT, client.recv_from(&mut bytes)).await.unwrap().unwrap();
            assert_eq!((from, &bytes[..len]), (asked, ip.to_string().as_bytes()), "{affinity}");
        }
        control.unregister("udp", server.addr.port(), port).await;
    }
}

#[tokio::test]
async fn a_server_without_a_socket_is_out_of_rotation_until_it_has_one() {
    let lb = Lb::relaying(&[]);
    // It will be there, but is not yet.
    let addr = SocketAddr::from((own_ip(), 17_000));
    let mut a_control = Control::connect(&lb, addr.ip().to_string().parse().unwrap()).await;
    a_control.register("udp", addr.port(), PORT).await;
    let b = UdpServer::named("B").await;
    let _b_control = register(&lb, &b, json!({})).await;
    let client = talker(lb.relay(PORT)).await;
    // The first is A's turn, and is lost; but the balancer hears that nobody is there.
    client.send(b"0").await.unwrap();
    lb.until_state("udp", PORT, addr, "unready").await;
    assert_eq!(lb.member("udp", PORT, addr).await.unwrap()["failed"], 1);
    for _ in 0..20 {
        client.send(b"x").await.unwrap();
    }
    for _ in 0..20 {
        assert_eq!(answer(&client).await.unwrap(), b"B");
    }
    lb.until_logged(&format!("replica {addr} (ring 1) of udp/{PORT} is out of rotation: nobody answers")).await;
    let a = UdpServer::start_at(addr, |_| b"A".into()).await;
    lb.until_state("udp", PORT, addr, "ready").await;
    let heard = voices(&client, 10).await;
    assert_eq!((count(&heard, "A"), a.received()), (5, 5), "{heard:?}");
}

#[tokio::test]
async fn when_nobody_is_ready_datagrams_are_dropped_and_counted() {
    let lb = Lb::relaying(&[]);
    let a = UdpServer::named("A").await;
    let control = register(&lb, &a, json!({})).await;
    control.say(json!({"cmd": "hello", "state": "bad"}));
    lb.until_state("udp", PORT, a.addr, "unready").await;
    let client = talker(lb.relay(PORT)).await;
    for _ in 0..3 {
        client.send(b"x").await.unwrap();
    }
    lb.until_counted("udp", PORT, "unserved", 3).await;
    control.say(json!({"cmd": "hello", "state": "good"}));
    lb.until_state("udp", PORT, a.addr, "ready").await;
    assert_eq!(voices(&client, 1).await, ["A"]);
    assert_eq!(a.received(), 1);
}

#[tokio::test]
async fn the_port_is_closed_with_its_last_server() {
    let lb = Lb::relaying(&[]);
    let a = UdpServer::named("A").await;
    for affinity in [json!({}), by_flow()] {
        // Unregistered: it is closed when that is confirmed.
        let mut control = register(&lb, &a, affinity.clone()).await;
        let client = talker(lb.relay(PORT)).await;
        assert_eq!(voices(&client, 2).await, ["A"; 2]);
        control.unregister("udp", a.addr.port(), PORT).await;
        let error = exchange(&client, b"x").await.expect_err("nobody is there");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
        eventually("nothing of it is left", async || lb.port("udp", PORT).await.is_none().then_some(())).await;
        // Gone: within 100 ms, with flows and without.
        let control = register(&lb, &a, affinity).await;
        assert_eq!(voices(&talker(lb.relay(PORT)).await, 2).await, ["A"; 2]);
        let gone = Instant::now();
        drop(control);
        until_udp_is_refused(lb.relay(PORT)).await;
        assert!(gone.elapsed() < SOON, "closed after {:?}", gone.elapsed());
    }
}

#[tokio::test]
async fn a_late_answer_still_finds_its_client_after_its_server_has_unregistered() {
    let lb = Lb::relaying(&[]);
    let slow = udp((own_ip(), 0).into());
    let addr = slow.local_addr().unwrap();
    let mut control = Control::connect(&lb, addr.ip().to_string().parse().unwrap()).await;
    control.register_with("udp", addr.port(), PORT, json!({"priority": 1})).await;
    let b = UdpServer::named("B").await;
    let _b_control = register(&lb, &b, json!({})).await;
    let client = talker_from((own_ip(), 0).into(), lb.relay(PORT)).await;
    client.send(b"question").await.unwrap();
    let mut bytes = [0; 16];
    let (_, from) = tokio::time::timeout(LIMIT, slow.recv_from(&mut bytes)).await.unwrap().unwrap();
    control.unregister("udp", addr.port(), PORT).await;
    slow.send_to(b"answer", from).await.unwrap();
    assert_eq!(answer(&client).await.unwrap(), b"answer");
    assert_eq!(voices(&client, 2).await, ["B"; 2]);
}
