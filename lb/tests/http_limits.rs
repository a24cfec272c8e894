//! Limits on what a client may send and hold: each at its boundary, with the status and the words of its refusal.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "tests fail by panicking, and say what they measured"
)]
#![allow(clippy::disallowed_methods, reason = "tests read the environment that they pass on")]

mod support;

use std::net::Ipv4Addr;

use support::client::Client;
use support::conn::Gate;
use support::replica::{Replica, ready};
use support::wire::{chunk, noise};
use support::{Lb, eventually};

const END: &str = "Host: a\r\n\r\n";

/// A GET with so many header fields, `Host` included.
fn with_fields(fields: usize) -> String {
    let more: String = (1..fields).map(|n| format!("x-{n}: {n}\r\n")).collect();
    format!("GET /x HTTP/1.1\r\n{more}{END}")
}

/// A GET whose whole head, the empty line included, has so many bytes.
fn with_head(bytes: usize) -> String {
    let start = "GET /x HTTP/1.1\r\nx-long: ";
    let filler = bytes - start.len() - "\r\n".len() - END.len();
    format!("{start}{}\r\n{END}", "v".repeat(filler))
}

/// A GET with a target of so many bytes.
fn with_target(bytes: usize) -> String {
    format!("GET /{} HTTP/1.1\r\n{END}", "t".repeat(bytes - 1))
}

/// The first request must be served, the second refused, with nothing of it or behind it reaching the replica.
async fn boundary(replica: &Replica, lb: &Lb, fits: &str, large: &str, status: u16, words: &[&str]) {
    let mut client = Client::connect(lb).await;
    let answer = client.ask(fits).await;
    assert_eq!(answer.status(), 200, "{:.200}: {}", answer.head, answer.text());
    let asked = replica.requests().len();
    // On a connection that was good so far, and with another request behind it.
    client.try_send(format!("{large}GET /behind HTTP/1.1\r\nHost: a\r\n\r\n")).await;
    client.refused(status, words).await;
    assert_eq!(replica.requests().len(), asked);
    // The same in two packets.
    let mut slow = Client::connect(lb).await;
    slow.try_send(&large[..large.len() / 2]).await;
    tokio::task::yield_now().await;
    slow.try_send(&large[large.len() / 2..]).await;
    slow.refused(status, words).await;
    assert_eq!(replica.requests().len(), asked);
}

#[tokio::test]
async fn one_field_more_than_max_headers_is_a_431() {
    let replica = Replica::mirror().await;
    for (args, most) in [(&[][..], 100), (&["--max-headers", "10"], 10)] {
        let lb = ready(&[&replica], args).await;
        let (fits, large) = (with_fields(most), with_fields(most + 1));
        boundary(&replica, &lb, &fits, &large, 431, &["header", "field"]).await;
    }
}

#[tokio::test]
async fn one_byte_more_than_max_header_bytes_is_a_431() {
    let replica = Replica::mirror().await;
    for (args, most) in [(&[][..], 32_768), (&["--max-header-bytes", "1000"], 1000)] {
        let lb = ready(&[&replica], args).await;
        boundary(&replica, &lb, &with_head(most), &with_head(most + 1), 431, &["header", "head", "bytes"]).await;
    }
}

#[tokio::test]
async fn a_head_without_end_is_a_431_before_it_ends() {
    let replica = Replica::mirror().await;
    let lb = ready(&[&replica], &[]).await;
    let endless = ["GET /x HTTP/1.1\r\nx-long: ", &"v".repeat(40_000)].concat();
    let many = ["GET /x HTTP/1.1\r\n", &"x-a: 1\r\n".repeat(6000)].concat();
    for head in [endless, many] {
        let mut client = Client::connect(&lb).await;
        client.try_send(&head).await;
        client.refused(431, &["header", "head", "field"]).await;
    }
    assert!(replica.requests().is_empty());
}

#[tokio::test]
async fn one_byte_more_than_max_target_bytes_is_a_414() {
    let replica = Replica::mirror().await;
    for (args, most) in [(&[][..], 8192), (&["--max-target-bytes", "100"], 100)] {
        let lb = ready(&[&replica], args).await;
        boundary(&replica, &lb, &with_target(most), &with_target(most + 1), 414, &["target"]).await;
    }
    // Known to be too long before it ends.
    let lb = ready(&[&replica], &[]).await;
    let mut client = Client::connect(&lb).await;
    client.try_send(format!("GET /{}", "t".repeat(10_000))).await;
    client.refused(414, &["target"]).await;
}

const MAX_BODY: [&str; 2] = ["--max-body", "1000"];

#[tokio::test]
async fn an_announced_body_over_max_body_is_a_413_and_no_replica_is_asked() {
    let replica = Replica::mirror().await;
    let lb = ready(&[&replica], &MAX_BODY).await;
    let mut client = Client::connect(&lb).await;
    let post = |length| format!("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
    let answer = client.ask(&(post(1000) + &"b".repeat(1000))).await;
    assert_eq!((answer.status(), answer.body.len()), (200, "POST /x ".len() + 1000));
    client.send(post(1001)).await;
    client.refused(413, &["body"]).await;
    // And with the body behind it, or with a client that asks before it sends.
    let mut client = Client::connect(&lb).await;
    client.try_send(post(100_000) + &"b".repeat(100_000)).await;
    client.refused(413, &["body"]).await;
    let mut client = Client::connect(&lb).await;
    client.send("POST /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1001\r\n\r\n").await;
    assert!(client.refused(413, &["body"]).await.interim.is_empty());
    assert_eq!(replica.requests().len(), 1);
}

#[tokio::test]
async fn a_chunked_body_over_max_body_is_cut_off_where_it_becomes_too_long() {
    let replica = Replica::mirror().await;
    let lb = ready(&[&replica], &MAX_BODY).await;
    let post = "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for sizes in [&[1000][..], &[7], &[999, 1], &[1]] {
        let mut client = Client::connect(&lb).await;
        client.send([post.as_bytes(), &chunk(&[b'b'; 1000], sizes)].concat()).await;
        let answer = client.response().await;
        assert_eq!((answer.status(), answer.body.len()), (200, "POST /x ".len() + 1000), "{sizes:?}");
        let mut client = Client::connect(&lb).await;
        client.try_send([post.as_bytes(), &chunk(&[b'b'; 1001], sizes)].concat()).await;
        client.refused(413, &["body"]).await;
    }
    eventually("nothing is under way", async || (lb.replicas().await[0]["in_flight"] == 0).then_some(())).await;
    drop(lb);
    let mut whole = 0;
    for n in 0..replica.connections().len() {
        whole += replica.until_ended(n).await.text().matches("\r\n0\r\n\r\n").count();
    }
    assert_eq!(whole, 4, "a body that is too long was passed as whole");
}

#[tokio::test]
async fn bodies_may_have_any_length_unless_told_otherwise() {
    let replica = Replica::mirror().await;
    let lb = ready(&[&replica], &[]).await;
    let body: Vec<u8> = noise(5_000_000).iter().map(|byte| byte & 0x7f).collect();
    let mut client = Client::connect(&lb).await;
    client.send("POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    client.send(chunk(&body, &[100_000])).await;
    let answer = client.response().await;
    assert_eq!((answer.status(), answer.body.len()), (200, "POST /x ".len() + body.len()));
}

/// A replica that answers when it is let, and one that lets it.
async fn holding() -> (Replica, Gate) {
    let gate = Gate::closed();
    let held = gate.clone();
    let replica = Replica::scripted(move |mut conn| {
        let held = held.clone();
        async move {
            while conn.request().await.is_some() {
                held.pass().await;
                conn.answer("yes").await;
            }
        }
    })
    .await;
    (replica, gate)
}

#[tokio::test]
async fn one_request_more_than_max_in_flight_is_a_503_until_there_is_room() {
    let (replica, gate) = holding().await;
    let lb = ready(&[&replica], &["--max-in-flight", "2", "--workers", "2"]).await;
    let mut held = Vec::new();
    for n in 1..=2 {
        let mut client = Client::connect(&lb).await;
        client.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await;
        replica.until_asked(n).await;
        held.push(client);
    }
    for _ in 0..5 {
        let answer = Client::connect(&lb).await.get("/x").await;
        assert_eq!((answer.status(), answer.field("retry-after")), (503, Some("1")), "{}", answer.head);
        let text = answer.text().to_lowercase();
        assert!(text.contains("<error> ") && (text.contains("in flight") || text.contains("requests")), "{text}");
        // That is no verdict on the replicas.
        assert!(!text.contains("no server replica is ready"), "{text}");
    }
    assert_eq!(replica.requests().len(), 2);
    gate.let_one();
    gate.let_one();
    for client in &mut held {
        assert_eq!(client.response().await.status(), 200);
    }
    gate.open();
    let served = async || (Client::connect(&lb).await.get("/x").await.status() == 200).then_some(());
    eventually("there is room again", served).await;
}

#[tokio::test]
async fn one_connection_more_than_max_connections_waits_until_another_closes() {
    let replica = Replica::mirror().await;
    let lb = ready(&[&replica], &["--max-connections", "2", "--workers", "1"]).await;
    let (mut one, mut two) = (Client::connect(&lb).await, Client::connect(&lb).await);
    assert_eq!((one.get("/1").await.status(), two.get("/2").await.status()), (200, 200));
    let mut three = Client::connect(&lb).await;
    three.send("GET /3 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    for _ in 0..20 {
        assert_eq!((one.get("/1").await.status(), two.get("/2").await.status()), (200, 200));
    }
    assert!(three.is_quiet(), "it neither was served nor refused");
    assert_eq!(lb.metric("ringkeeper_client_connections").await, 2.0);
    assert!(replica.requests().iter().all(|head| !head.starts_with("GET /3 ")));
    drop(one);
    assert_eq!(three.response().await.text(), "GET /3 ");
}

#[tokio::test]
async fn one_connection_more_than_max_client_connections_is_a_429_for_that_address() {
    let replica = Replica::mirror().await;
    let lb = ready(&[&replica], &["--max-client-connections", "2", "--workers", "2"]).await;
    let (mut one, mut two) = (Client::connect(&lb).await, Client::connect(&lb).await);
    assert_eq!((one.get("/1").await.status(), two.get("/2").await.status()), (200, 200));
    let refused = async |from| {
        let mut three = Client::connect_from(&lb, from).await;
        three.try_send("GET /3 HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let answer = three.refused(429, &["connections"]).await;
        assert_eq!(answer.field("retry-after"), Some("1"), "{}", answer.head);
    };
    for _ in 0..5 {
        refused(Ipv4Addr::LOCALHOST).await;
    }
    assert_eq!((one.get("/1").await.status(), two.get("/2").await.status()), (200, 200));
    let other = Ipv4Addr::new(127, 0, 0, 2);
    let mut others = Vec::new();
    for _ in 0..2 {
        let mut client = Client::connect_from(&lb, other).await;
        assert_eq!(client.get("/other").await.status(), 200);
        others.push(client);
    }
    refused(other).await;
    assert!(replica.requests().iter().all(|head| !head.starts_with("GET /3 ")));
    drop(one);
    let served = async || {
        let mut client = Client::connect(&lb).await;
        client.try_send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n").await;
        (client.response().await.status() == 200).then_some(())
    };
    eventually("there is room again", served).await;
}
