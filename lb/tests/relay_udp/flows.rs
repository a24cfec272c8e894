//! A client sticks to a server.

use std::collections::BTreeMap;

use serde_json::json;
use tokio::net::UdpSocket;

use crate::support::Lb;
use crate::support::control::{Control, own_ip};
use crate::support::server::{UdpServer, count, exchange, talker, voices};
use crate::{PORT, by_flow, register};

/// Who answers this client; always the same one.
async fn voice(client: &UdpSocket) -> String {
    let heard = voices(client, 10).await;
    assert!(heard.iter().all(|name| *name == heard[0]), "{heard:?}");
    heard[0].clone()
}

#[tokio::test]
async fn a_client_sticks_to_a_server_and_others_go_elsewhere() {
    let lb = Lb::relaying(&[]);
    let (a, b) = (UdpServer::named("A").await, UdpServer::named("B").await);
    let _controls = [register(&lb, &a, by_flow()).await, register(&lb, &b, by_flow()).await];
    let mut clients = Vec::new();
    for _ in 0..6 {
        let client = talker(lb.relay(PORT)).await;
        let name = voice(&client).await;
        clients.push((client, name));
    }
    let places: Vec<_> = clients.iter().map(|(_, name)| name.clone()).collect();
    assert_eq!(places, ["A", "B", "A", "B", "A", "B"]);
    for (client, name) in &clients {
        assert_eq!(voice(client).await, *name);
    }
    let port = lb.port("udp", PORT).await.unwrap();
    assert_eq!((&port["affinity"], &port["flows"], &port["accepted"]), (&json!("flow"), &json!(6), &json!(6)));
    assert_eq!(lb.member("udp", PORT, a.addr).await.unwrap()["in_flight"], 3);
}

#[tokio::test]
async fn flows_move_when_their_server_goes_and_no_others_do() {
    let lb = Lb::relaying(&[]);
    let servers = [UdpServer::named("A").await, UdpServer::named("B").await, UdpServer::named("C").await];
    let mut controls = BTreeMap::new();
    for (server, name) in servers.iter().zip(["A", "B", "C"]) {
        controls.insert(name, register(&lb, server, by_flow()).await);
    }
    let mut clients = Vec::new();
    for _ in 0..6 {
        let client = talker(lb.relay(PORT)).await;
        let name = voice(&client).await;
        clients.push((client, name));
    }
    let here = async |clients: &[(UdpSocket, String)]| {
        let mut places = Vec::new();
        for (client, _) in clients {
            // Not one datagram is lost on the way: each is answered before the next is sent.
            places.push(voice(client).await);
        }
        places
    };
    // By unregistering.
    controls.get_mut("A").unwrap().unregister("udp", servers[0].addr.port(), PORT).await;
    let places = here(&clients).await;
    for ((_, before), now) in clients.iter().zip(&places) {
        assert!(now == before || before == "A" && now != "A", "{before} {now}");
    }
    assert_eq!(servers[0].received(), 20, "nothing since");
    // By closing its control connection.
    drop(controls.remove("B"));
    let gone = async || lb.member("udp", PORT, servers[1].addr).await.filter(|member| member["state"] != "draining");
    crate::support::eventually("B is gone", async || gone().await.is_none().then_some(())).await;
    assert_eq!(here(&clients).await, ["C"; 6]);
    // By saying that it is not good, and back by no more than that: whoever has moved stays.
    let mut a_control = controls.remove("A").unwrap();
    a_control.register_with("udp", servers[0].addr.port(), PORT, by_flow()).await;
    assert_eq!(here(&clients).await, ["C"; 6]);
    controls["C"].say(json!({"cmd": "hello", "state": "busy"}));
    lb.until_state("udp", PORT, servers[2].addr, "unready").await;
    assert_eq!(here(&clients).await, ["A"; 6]);
    controls["C"].say(json!({"cmd": "hello", "state": "good"}));
    lb.until_state("udp", PORT, servers[2].addr, "ready").await;
    assert_eq!(here(&clients).await, ["A"; 6]);
}

#[tokio::test]
async fn a_flow_moves_when_nobody_is_at_its_servers_port_any_more() {
    let lb = Lb::relaying(&[]);
    let a = UdpServer::named("A").await;
    let _a_control = register(&lb, &a, by_flow()).await;
    let client = talker(lb.relay(PORT)).await;
    assert_eq!(voice(&client).await, "A");
    let b = UdpServer::named("B").await;
    let _b_control = register(&lb, &b, by_flow()).await;
    assert_eq!(voice(&client).await, "A");
    // Its socket has gone, its control connection has not.
    let addr = a.addr;
    a.stop().await;
    // This one is under way when that is found out.
    client.send(b"lost").await.unwrap();
    lb.until_state("udp", PORT, addr, "unready").await;
    assert_eq!(voice(&client).await, "B");
}

#[tokio::test]
async fn one_registration_that_asks_for_flows_is_enough() {
    let lb = Lb::relaying(&[]);
    let (a, b) = (UdpServer::named("A").await, UdpServer::named("B").await);
    let _a_control = register(&lb, &a, json!({})).await;
    let mut b_control = register(&lb, &b, by_flow()).await;
    let client = talker(lb.relay(PORT)).await;
    voice(&client).await;
    // When that has gone, datagrams are on their own again.
    b_control.unregister("udp", b.addr.port(), PORT).await;
    let _b_control = register(&lb, &b, json!({})).await;
    assert_eq!(lb.port("udp", PORT).await.unwrap()["affinity"], "datagram");
    let heard = voices(&client, 10).await;
    assert_eq!((count(&heard, "A"), count(&heard, "B")), (5, 5), "{heard:?}");
}

#[tokio::test]
async fn by_client_address_flows_of_one_client_go_to_one_server() {
    for policy in ["consistent", "maglev", "rendezvous"] {
        go_to_one_server(policy).await;
    }
}

async fn go_to_one_server(policy: &str) {
    let lb = Lb::relaying(&["--relay-policy", policy]);
    let (a, b) = (UdpServer::named("A").await, UdpServer::named("B").await);
    let _controls = [register(&lb, &a, json!({})).await, register(&lb, &b, json!({})).await];
    for _ in 0..8 {
        let ip = own_ip();
        let mut heard = Vec::new();
        for _ in 0..3 {
            let client = crate::support::server::talker_from((ip, 0).into(), lb.relay(PORT)).await;
            heard.push(voice(&client).await);
        }
        assert!(heard.iter().all(|name| *name == heard[0]), "{heard:?}");
    }
}

#[tokio::test]
async fn two_ports_are_two_things() {
    let lb = Lb::relaying(&[]);
    let (a, b) = (UdpServer::named("A").await, UdpServer::named("B").await);
    let mut control = Control::connect(&lb, a.ip()).await;
    control.register("udp", a.addr.port(), PORT).await;
    let mut other = Control::connect(&lb, b.ip()).await;
    other.register_with("udp", b.addr.port(), PORT + 1, by_flow()).await;
    // One client, from the same port of its own.
    let client = crate::support::server::udp((own_ip(), 0).into());
    for (port, name) in [(PORT, b"A"), (PORT + 1, b"B"), (PORT, b"A"), (PORT + 1, b"B")] {
        client.connect(lb.relay(port)).await.unwrap();
        assert_eq!(exchange(&client, b"x").await.unwrap(), name);
    }
}
