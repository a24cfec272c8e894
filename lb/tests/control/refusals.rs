//! What is refused, and with which code.

use serde_json::{Value, json};
use tokio::net::{TcpListener, UdpSocket};

use crate::support::Lb;
use crate::support::control::{Control, Encoding, Raw, own_ip, registration};
use crate::support::server::{TcpServer, UdpServer, exchange, is_refused, names, talker, until_refused};

fn with(message: &Value, key: &str, value: Value) -> Value {
    let mut message = message.clone();
    message[key] = value;
    message
}

fn without(message: &Value, key: &str) -> Value {
    let mut message = message.clone();
    message.as_object_mut().unwrap().remove(key);
    message
}

#[tokio::test]
async fn what_is_wrong_has_its_code_and_a_message_that_names_it() {
    let lb = Lb::relaying(&[]);
    for encoding in Encoding::BOTH {
        let mut server = Raw::connect(&lb, encoding).await;
        let good = registration("tcp", 30_000, 50_000);
        for message in [&good, &with(&good, "cmd", json!("unregister"))] {
            let mut refused = async |key: &str, value, code, says: &[&str]| {
                server.refused(&with(message, key, value), code, says).await;
            };
            for wrong in [json!(0), json!(65_536), json!(-1), json!("80"), json!(1.5), json!([1])] {
                refused("port", wrong.clone(), 1, &["port is", "1 to 65535"]).await;
                refused("relay_port", wrong, 1, &["relay_port is", "1 to 65535"]).await;
            }
            refused("protocol", json!("sctp"), 6, &["'sctp'", "tcp, udp"]).await;
            refused("protocol", json!("TCP"), 6, &["'TCP'", "tcp, udp"]).await;
            refused("protocol", json!(6), 6, &["6", "tcp, udp"]).await;
            refused("weight", json!(0), 1, &["weight is 0", "1 to 65535"]).await;
            refused("priority", json!(65_536), 1, &["priority is 65536", "0 to 65535"]).await;
            refused("affinity", json!("flow"), 1, &["affinity is 'flow'", "udp"]).await;
            server.refused(&without(message, "protocol"), 1, &["protocol is missing", "tcp, udp"]).await;
            server.refused(&without(message, "port"), 1, &["port is missing", "1 to 65535"]).await;
        }
        let udp = registration("udp", 30_000, 50_000);
        server.refused(&with(&udp, "affinity", json!("sticky")), 1, &["'sticky'", "datagram, flow"]).await;
        server.refused(&without(&good, "cmd"), 1, &["cmd is missing", "register, unregister"]).await;
        server.refused(&with(&good, "cmd", json!("Register")), 2, &["'Register'", "register, unregister"]).await;
        server.refused(&with(&good, "cmd", json!(7)), 2, &["7", "register, unregister"]).await;
        server.refused(&json!({"cmd": "hello", "state": 5}), 1, &["state is 5"]).await;
    }
    assert!(lb.relays().await.is_empty(), "nothing was opened");
}

#[tokio::test]
async fn nothing_is_registered_twice_and_nothing_ends_that_is_not_there() {
    let lb = Lb::relaying(&[]);
    let ip = own_ip();
    let mut one = Raw::connect_from(&lb, ip, Encoding::Json).await;
    let mut same_host = Raw::connect_from(&lb, ip, Encoding::MessagePack).await;
    let message = registration("tcp", 30_000, 50_000);
    let end = with(&message, "cmd", json!("unregister"));
    one.refused(&end, 4, &[&format!("{ip}:30000"), "tcp/50000"]).await;
    one.done(&message).await;
    one.refused(&message, 3, &[&format!("{ip}:30000"), "tcp/50000"]).await;
    same_host.refused(&message, 3, &[&format!("{ip}:30000")]).await;
    // Nobody ends what another connection has registered.
    same_host.refused(&end, 4, &[]).await;
    // Every part of it counts.
    one.refused(&with(&end, "port", json!(30_001)), 4, &[]).await;
    one.refused(&with(&end, "relay_port", json!(50_001)), 4, &[]).await;
    one.refused(&with(&end, "protocol", json!("udp")), 4, &[]).await;
    // The same port for another protocol, for another port of clients, and from another host is another registration.
    one.done(&with(&message, "protocol", json!("udp"))).await;
    one.done(&with(&message, "relay_port", json!(50_001))).await;
    Raw::connect(&lb, Encoding::Json).await.done(&message).await;
    one.done(&end).await;
    one.refused(&end, 4, &[]).await;
    same_host.done(&message).await;
}

#[tokio::test]
async fn ports_that_cannot_be_opened_are_code_8() {
    let lb = Lb::relaying(&["--control-ports", "20000-29999,50000,1024-65535"]);
    let ip = lb.control().ip();
    let mut server = Raw::connect(&lb, Encoding::Json).await;
    // Somebody else's.
    let tcp = TcpListener::bind((ip, 20_000)).await.unwrap();
    let udp = UdpSocket::bind((ip, 20_001)).await.unwrap();
    server.refused(&registration("tcp", 30_000, 20_000), 8, &["tcp/20000", "Address already in use"]).await;
    server.refused(&registration("udp", 30_000, 20_001), 8, &["udp/20001", "Address already in use"]).await;
    // TCP and UDP are two things.
    server.done(&registration("udp", 30_000, 20_000)).await;
    server.done(&registration("tcp", 30_000, 20_001)).await;
    drop((tcp, udp));
    until_refused(lb.relay(20_000)).await;
    server.done(&registration("tcp", 30_000, 20_000)).await;
    // The balancer's own three, wherever they listen.
    for own in [lb.addr, lb.admin, lb.control()] {
        let message = registration("tcp", 30_000, own.port());
        server.refused(&message, 8, &[&format!("tcp/{}", own.port()), "the balancer itself"]).await;
        server.done(&registration("udp", 30_000, own.port())).await;
    }
    assert!(lb.is_ready().await);
    // A server on the balancer's host needs its own port for itself.
    let mut local = Raw::connect_from(&lb, lb.relay(0).ip().to_string().parse().unwrap(), Encoding::Json).await;
    local.refused(&json!({"cmd": "register", "protocol": "tcp", "port": 30_500}), 8, &["tcp/30500", "differ"]).await;
    local.refused(&registration("udp", 30_500, 30_500), 8, &["udp/30500", "differ"]).await;
    local.done(&registration("udp", 30_500, 30_501)).await;
}

#[tokio::test]
async fn only_ports_that_are_allowed_are_opened() {
    let lb = Lb::relaying(&["--control-ports", "53,20000-20009"]);
    let mut server = Raw::connect(&lb, Encoding::MessagePack).await;
    for port in [52, 54, 19_999, 20_010, 65_535] {
        for protocol in ["tcp", "udp"] {
            let says = [&*format!("{protocol}/{port}"), "53", "20000-20009"];
            server.refused(&registration(protocol, 30_000, port), 8, &says).await;
        }
    }
    for port in [20_000, 20_009] {
        server.done(&registration("tcp", 30_000, port)).await;
    }
}

#[tokio::test]
async fn a_refusal_changes_nothing_for_those_who_are_there() {
    let lb = Lb::relaying(&[]);
    let (server, mut control) = TcpServer::registered(&lb, "A", 50_000).await;
    let echo = UdpServer::named("U").await;
    let mut other = Control::connect(&lb, echo.ip()).await;
    other.register_with("udp", echo.addr.port(), 20_000, json!({"affinity": "flow"})).await;
    let mut foe = Raw::connect_from(&lb, server.ip(), Encoding::Json).await;
    foe.refused(&registration("tcp", server.addr.port(), 50_000), 3, &[]).await;
    foe.refused(&registration("sctp", 1, 50_000), 6, &[]).await;
    let other_affinity = with(&registration("udp", 30_000, 20_000), "affinity", json!("datagram"));
    foe.refused(&other_affinity, 1, &["affinity is datagram", "flow"]).await;
    drop(foe);
    assert_eq!(names(lb.relay(50_000), 3).await, ["A"; 3]);
    assert_eq!(exchange(&talker(lb.relay(20_000)).await, b"x").await.unwrap(), b"U");
    control.unregister("tcp", server.addr.port(), 50_000).await;
    assert!(is_refused(lb.relay(50_000)).await);
}
