//! Who may connect and register, how much, and how slowly.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::control::{Encoding, Raw, own_ip, registration};
use crate::support::server::{TcpServer, Visit, names};
use crate::support::{Lb, eventually};

#[tokio::test]
async fn a_token_is_missing_wrong_or_right() {
    let lb = Lb::relaying(&["--control-token", "open sesame"]);
    let good = registration("tcp", 30_000, 50_000);
    for encoding in Encoding::BOTH {
        for wrong in [json!(null), json!(""), json!("open sesam"), json!("open sesame "), json!("OPEN SESAME")] {
            let mut message = good.clone();
            message["token"] = wrong;
            let mut foe = Raw::connect(&lb, encoding).await;
            foe.refused(&message, 1, &["token is missing or wrong"]).await;
            // One guess a connection.
            foe.closed().await;
        }
        let mut foe = Raw::connect(&lb, encoding).await;
        foe.refused(&good, 1, &["token is missing or wrong"]).await;
        foe.closed().await;
        assert!(lb.relays().await.is_empty());
        let mut message = good.clone();
        message["token"] = json!("open sesame");
        let mut server = Raw::connect(&lb, encoding).await;
        server.done(&message).await;
        // To end what is one's own takes none.
        message = good.clone();
        message["cmd"] = json!("unregister");
        server.done(&message).await;
    }
    assert!(!lb.log().iter().any(|line| line.contains("sesame")), "{:?}", lb.log());
}

#[tokio::test]
async fn a_token_nobody_asks_for_does_no_harm() {
    let lb = Lb::relaying(&[]);
    let mut message = registration("tcp", 30_000, 50_000);
    message["token"] = json!("anything");
    Raw::connect(&lb, Encoding::Json).await.done(&message).await;
}

#[tokio::test]
async fn only_networks_that_are_allowed_get_in() {
    let (friend, near, foe) = (own_ip(), own_ip(), own_ip());
    let lb = Lb::relaying(&["--control-networks", &format!("10.0.0.0/8,{friend},{near}/32")]);
    for ip in [friend, near] {
        Raw::connect_from(&lb, ip, Encoding::Json).await.done(&registration("tcp", 30_000, 50_000)).await;
    }
    let mut refused = Raw::connect_from(&lb, foe, Encoding::Json).await;
    refused.closed().await;
    assert_eq!(lb.metric(r#"ringkeeper_control_refused_total{reason="network"}"#).await, 1.0);
    lb.until_logged(&format!("control connection from {foe}:")).await;
    lb.until_logged("control_networks").await;
}

#[tokio::test]
async fn control_connections_are_limited() {
    let lb = Lb::relaying(&["--control-connections", "2"]);
    let mut one = Raw::connect(&lb, Encoding::Json).await;
    let mut two = Raw::connect(&lb, Encoding::Json).await;
    one.done(&registration("tcp", 30_000, 50_000)).await;
    two.done(&registration("tcp", 30_000, 50_000)).await;
    Raw::connect(&lb, Encoding::Json).await.closed().await;
    assert_eq!(lb.metric(r#"ringkeeper_control_refused_total{reason="full"}"#).await, 1.0);
    assert_eq!(lb.metric("ringkeeper_control_connections").await, 2.0);
    lb.until_logged("there are 2, as many as are allowed (control_connections)").await;
    drop(one);
    let room = async || (lb.metric("ringkeeper_control_connections").await == 1.0).then_some(());
    eventually("there is room", room).await;
    Raw::connect(&lb, Encoding::Json).await.done(&registration("tcp", 30_001, 50_000)).await;
}

#[tokio::test]
async fn registrations_of_a_connection_are_limited() {
    let lb = Lb::relaying(&["--control-registrations", "2"]);
    let mut server = Raw::connect(&lb, Encoding::MessagePack).await;
    server.done(&registration("tcp", 30_000, 50_000)).await;
    server.done(&registration("udp", 30_000, 50_000)).await;
    server.refused(&registration("tcp", 30_001, 50_001), 1, &["2 registrations"]).await;
    assert_eq!(lb.port("tcp", 50_001).await, None);
    Raw::connect(&lb, Encoding::Json).await.done(&registration("tcp", 30_000, 50_001)).await;
    let mut end = registration("udp", 30_000, 50_000);
    end["cmd"] = json!("unregister");
    server.done(&end).await;
    server.done(&registration("tcp", 30_001, 50_001)).await;
}

/// Sends this, and if it shall go on like that, a blank from time to time; how long it takes to be closed.
async fn closed_after(lb: &Lb, encoding: Encoding, sent: &[u8], goes_on: bool) -> Duration {
    let mut peer = Raw::connect(lb, encoding).await;
    let began = Instant::now();
    peer.send(sent).await;
    let (mut reader, mut writer) = peer.stream.into_split();
    let dribble = async {
        let mut pace = tokio::time::interval(Duration::from_millis(20));
        while goes_on && writer.write_all(b" ").await.is_ok() {
            pace.tick().await;
        }
    };
    // Whoever has shown how it writes is asked whether it lives, message or not.
    let mut asked = Vec::new();
    let ended = async { tokio::join!(reader.read_to_end(&mut asked), dribble) };
    let _ = tokio::time::timeout(crate::support::LIMIT, ended).await.expect("it is closed in time");
    began.elapsed()
}

#[tokio::test]
async fn a_peer_that_finishes_no_message_is_closed_in_time() {
    let patient = Lb::relaying(&["--control-interval", "10s", "--control-timeout", "30s"]);
    let mut slow = Raw::connect(&patient, Encoding::Json).await;
    slow.send(r#"{"cmd":"register","protocol":"tcp","port":30000,"relay_po"#).await;

    let lb = Lb::relaying(&["--control-interval", "200ms", "--control-timeout", "400ms"]);
    let peers = [
        ("says nothing", Encoding::Json, &b""[..], false),
        ("stops at once", Encoding::Json, b"{", false),
        ("stops in an object", Encoding::Json, b"{\"cmd\":\"register\",", false),
        ("stops in a text", Encoding::Json, b"{\"cmd\":\"reg", false),
        ("stops in a length", Encoding::MessagePack, b"\x40\0\0", false),
        ("stops in a map", Encoding::MessagePack, b"\x40\0\0\0\x84\xa3cmd", false),
        // Bytes that make no message are no sign of life.
        ("goes on and on in an object", Encoding::Json, b"{\"cmd\":\"register\",", true),
        ("goes on and on in a map", Encoding::MessagePack, b"\0\x40\0\0\x84", true),
    ];
    let closed =
        peers.map(async |(what, encoding, sent, goes_on)| (what, closed_after(&lb, encoding, sent, goes_on).await));
    for (what, took) in futures_util::future::join_all(closed).await {
        assert!(took >= Duration::from_millis(350) && took < Duration::from_secs(5), "{what}: closed after {took:?}");
    }
    lb.until_logged("it was silent for 400ms, in the middle of a message").await;
    slow.send(r#"rt":50000}"#).await;
    assert_eq!(slow.reply().await["error"], 0, "the time is what the setting says");
}

#[tokio::test]
async fn slow_peers_hold_up_nobody() {
    let lb = Lb::relaying(&[]);
    let mut slow = Vec::new();
    for _ in 0..50 {
        let mut peer = Raw::connect(&lb, Encoding::MessagePack).await;
        peer.send(b"\0\x40\0\0\x84").await;
        slow.push(peer);
    }
    let (_server, _control) = TcpServer::registered(&lb, "A", 50_000).await;
    assert_eq!(names(lb.relay(50_000), 2).await, ["A"; 2]);
    assert!(Visit::to(lb.relay(50_000)).await.unwrap().is_alive().await);
}
