//! Upgrades: tunnels through the balancer, what they count as, how they end, and upgrades that are refused.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "tests fail by panicking, and say what they measured"
)]
#![allow(clippy::disallowed_methods, reason = "tests read the environment that they pass on")]

mod support;

use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use nix::sys::signal::Signal;
use support::client::Client;
use support::conn::{Conn, Gate};
use support::replica::{Replica, ready, response};
use support::wire::{assert_same, field, noise};
use support::{Lb, eventually};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Message, Role};

const ASK: &str = "GET /x HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: Test/1\r\n\r\n";
const AGREE: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: Test/1\r\n\r\n";

/// Echoes what comes until the other side says that nothing more does, then says so itself.
async fn echo(mut conn: Conn) {
    loop {
        let piece = std::mem::take(&mut conn.buffer);
        if !conn.send(piece).await || !conn.fill().await {
            let _ = conn.stream.shutdown().await;
            return;
        }
    }
}

/// A replica that agrees to every upgrade, greets, and echoes.
async fn agreeing() -> Replica {
    Replica::scripted(|mut conn| async move {
        if conn.request().await.is_some() {
            conn.send(format!("{AGREE}greeting")).await;
            echo(conn).await;
        }
    })
    .await
}

/// A tunnel that the greeting has come through.
async fn tunnel(lb: &Lb) -> Client {
    let mut client = Client::connect(lb).await;
    client.send(ASK).await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    client.until("greeting").await;
    client
}

async fn until_in_flight(lb: &Lb, n: u64) {
    let same = async || {
        let upgrades = lb.metric("ringkeeper_upgrades").await;
        (lb.replicas().await[0]["in_flight"] == n && upgrades == n as f64).then_some(())
    };
    eventually("the tunnels are counted", same).await;
}

#[tokio::test]
async fn bytes_pass_both_ways_from_the_handshake_on() {
    let replica = agreeing().await;
    let lb = ready(&[&replica], &[]).await;
    let mut client = Client::connect(&lb).await;
    client.send(ASK).await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(field(&head, "connection").is_some_and(|options| options.eq_ignore_ascii_case("upgrade")), "{head}");
    assert_eq!(field(&head, "upgrade"), Some("Test/1"), "{head}");
    // It came in the packet of the head.
    client.until("greeting").await;
    client.send("GET /not-a-request HTTP/1.1\r\n\r\n\0\u{ff}").await;
    assert_eq!(client.until("\0\u{ff}").await, "GET /not-a-request HTTP/1.1\r\n\r\n\0\u{ff}");
    let head = &replica.requests()[0];
    assert!(field(head, "connection").is_some_and(|options| options.eq_ignore_ascii_case("upgrade")), "{head}");
    assert_eq!(field(head, "upgrade"), Some("Test/1"), "{head}");
    assert_eq!(field(head, "x-forwarded-for"), Some("127.0.0.1"), "{head}");

    let body = noise(2_000_000);
    let (mut reader, mut writer) = client.stream.split();
    let mut back = Vec::new();
    let read = async {
        while back.len() < body.len() {
            assert!(tokio::io::AsyncReadExt::read_buf(&mut reader, &mut back).await.unwrap() > 0);
        }
    };
    let both = async { tokio::join!(writer.write_all(&body), read).0.unwrap() };
    tokio::time::timeout(support::LIMIT, both).await.expect("it flows");
    assert_same(&back, &body);
}

#[tokio::test]
async fn tunnels_count_as_requests_in_flight_until_they_end() {
    let replica = agreeing().await;
    let lb = ready(&[&replica], &[]).await;
    until_in_flight(&lb, 0).await;
    let (one, two) = (tunnel(&lb).await, tunnel(&lb).await);
    until_in_flight(&lb, 2).await;
    drop(one);
    until_in_flight(&lb, 1).await;
    drop(two);
    until_in_flight(&lb, 0).await;
}

#[tokio::test]
async fn a_side_that_has_nothing_more_to_say_can_still_listen() {
    let gate = Gate::closed();
    let held = gate.clone();
    let replica = Replica::scripted(move |mut conn| {
        let held = held.clone();
        async move {
            if conn.request().await.is_some() {
                conn.send(format!("{AGREE}greeting")).await;
                conn.until_closed().await;
                held.pass().await;
                conn.send("last words").await;
            }
        }
    })
    .await;
    let lb = ready(&[&replica], &[]).await;
    let mut client = tunnel(&lb).await;
    client.send("first words").await;
    client.shut().await;
    let record = replica.until_ended(0).await.text();
    assert!(record.ends_with("first words"), "{record}");
    assert!(client.is_quiet(), "the other way is open");
    gate.open();
    assert_eq!(client.rest().await, b"last words");
    until_in_flight(&lb, 0).await;
}

#[tokio::test]
async fn a_replica_that_has_nothing_more_to_say_can_still_listen() {
    let replica = Replica::scripted(|mut conn| async move {
        if conn.request().await.is_some() {
            conn.send(format!("{AGREE}greeting")).await;
            conn.stream.shutdown().await.unwrap();
            conn.until_closed().await;
        }
    })
    .await;
    let lb = ready(&[&replica], &[]).await;
    let mut client = tunnel(&lb).await;
    client.closed().await;
    client.send("last words").await;
    client.shut().await;
    let record = replica.until_ended(0).await.text();
    assert!(record.ends_with("last words"), "{record}");
    until_in_flight(&lb, 0).await;
}

#[tokio::test]
async fn a_tunnel_in_which_nothing_moves_is_ended_and_a_busy_one_is_not() {
    let replica = agreeing().await;
    let lb = ready(&[&replica], &["--idle-timeout", "400ms"]).await;
    let mut idle = tunnel(&lb).await;
    let mut busy = tunnel(&lb).await;
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(1200) {
        busy.send("ping").await;
        busy.until("ping").await;
    }
    idle.closed().await;
    replica.until_ended(0).await;
    busy.send("ping").await;
    busy.until("ping").await;
    until_in_flight(&lb, 1).await;
    let quiet = Instant::now();
    busy.closed().await;
    assert!(quiet.elapsed() >= Duration::from_millis(300), "ended after {:?}", quiet.elapsed());
}

#[tokio::test]
async fn a_tunnel_ends_when_its_replica_does() {
    let gate = Gate::closed();
    let held = gate.clone();
    let replica = Replica::scripted(move |mut conn| {
        let held = held.clone();
        async move {
            if conn.request().await.is_some() {
                conn.send(format!("{AGREE}greeting")).await;
                held.pass().await;
                conn.reset();
            }
        }
    })
    .await;
    let lb = ready(&[&replica], &[]).await;
    let mut client = tunnel(&lb).await;
    gate.open();
    client.closed().await;
    until_in_flight(&lb, 0).await;
}

#[tokio::test]
async fn a_signal_lets_a_tunnel_come_to_its_end() {
    let replica = agreeing().await;
    let mut lb = ready(&[&replica], &["--drain-timeout", "1h"]).await;
    let mut client = tunnel(&lb).await;
    lb.signal(Signal::SIGTERM);
    eventually("new connections are refused", async || TcpStream::connect(lb.addr).await.err()).await;
    for _ in 0..10 {
        client.send("ping").await;
        client.until("ping").await;
    }
    client.shut().await;
    client.closed().await;
    assert!(lb.ended().await.success());
}

#[tokio::test]
async fn a_signal_ends_a_tunnel_that_stays_after_the_drain_timeout() {
    let replica = agreeing().await;
    let mut lb = ready(&[&replica], &["--drain-timeout", "300ms"]).await;
    let mut client = tunnel(&lb).await;
    let began = Instant::now();
    lb.signal(Signal::SIGTERM);
    client.closed().await;
    assert!(lb.ended().await.success());
    let took = began.elapsed();
    assert!((Duration::from_millis(300)..Duration::from_secs(5)).contains(&took), "{took:?}");
}

#[tokio::test]
async fn a_refused_upgrade_is_a_plain_response() {
    for status in ["403 Forbidden", "200 OK", "426 Upgrade Required"] {
        let replica = Replica::scripted(move |mut conn| async move {
            while conn.request().await.is_some() {
                conn.send(format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nno")).await;
            }
        })
        .await;
        let lb = ready(&[&replica], &["--workers", "1"]).await;
        let mut client = Client::connect(&lb).await;
        for request in [ASK, ASK, "GET /y HTTP/1.1\r\nHost: a\r\n\r\n"] {
            let answer = client.ask(request).await;
            assert_eq!((answer.status().to_string(), answer.text().as_str()), (status[..3].into(), "no"));
        }
        until_in_flight(&lb, 0).await;
        assert_eq!((replica.requests().len(), replica.connections().len()), (3, 1));
    }
}

#[tokio::test]
async fn what_a_client_sends_behind_a_refused_upgrade_goes_nowhere() {
    for status in ["403 Forbidden", "200 OK"] {
        let gate = Gate::closed();
        let held = gate.clone();
        let replica = Replica::scripted(move |mut conn| {
            let held = held.clone();
            async move {
                while conn.request().await.is_some() {
                    held.pass().await;
                    conn.send(format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nno")).await;
                }
            }
        })
        .await;
        let lb = ready(&[&replica], &[]).await;
        gate.let_one();
        let mut client = Client::connect(&lb).await;
        // In the packet of the handshake: for a protocol that was not agreed on, or a request? Nobody can know.
        let answer = client.ask(&format!("{ASK}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        assert_eq!(answer.status().to_string(), status[..3]);
        assert_eq!(answer.text(), "no");
        client.closed().await;

        let mut client = Client::connect(&lb).await;
        client.send(ASK).await;
        replica.until_asked(2).await;
        client.send("GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n").await;
        gate.let_one();
        assert_eq!(client.response().await.text(), "no");
        client.closed().await;
        let all: String = replica.connections().iter().map(support::conn::Record::text).collect();
        assert!(!all.contains("smuggled"), "{all}");
        until_in_flight(&lb, 0).await;
    }
}

#[tokio::test]
async fn what_is_no_upgrade_for_a_replica_is_sent_without_the_fields() {
    let replica = Replica::mirror().await;
    let lb = ready(&[&replica], &[]).await;
    let h2c = "HTTP2-Settings: AAMAAABkAAQAAP__\r\n";
    for (what, request) in [
        (
            "h2c",
            format!("GET /x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n{h2c}\r\n"),
        ),
        (
            "H2C",
            format!("GET /x HTTP/1.1\r\nHost: a\r\nConnection: upgrade, http2-settings\r\nUpgrade: H2C\r\n{h2c}\r\n"),
        ),
        ("not named", "GET /x HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n".into()),
        ("named only", "GET /x HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\n\r\n".into()),
        ("1.0", "GET /x HTTP/1.0\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n".into()),
        (
            "with a body",
            "POST /x HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\nhi"
                .into(),
        ),
    ] {
        let answer = Client::connect(&lb).await.ask(&request).await;
        assert_eq!(answer.status(), 200, "{what}");
        let head = replica.requests().pop().unwrap();
        for name in ["upgrade", "connection", "http2-settings"] {
            assert_eq!(field(&head, name), None, "{what}: {head}");
        }
    }
}

#[tokio::test]
async fn a_switch_of_protocols_that_was_not_passed_on_is_a_502() {
    let replica = agreeing().await;
    let lb = ready(&[&replica], &[]).await;
    let h2c = "GET /x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
    assert_eq!(Client::connect(&lb).await.ask(h2c).await.status(), 502);
    until_in_flight(&lb, 0).await;
}

/// A replica that is a WebSocket server and echoes messages.
async fn websockets() -> Replica {
    Replica::scripted(|mut conn| async move {
        let Some(head) = conn.request().await else { return };
        let accept = derive_accept_key(field(&head, "sec-websocket-key").unwrap().as_bytes());
        conn.send(format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        ))
        .await;
        let mut socket = WebSocketStream::from_partially_read(conn.stream, conn.buffer, Role::Server, None).await;
        while let Some(Ok(message)) = socket.next().await {
            if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
                return;
            }
        }
    })
    .await
}

#[tokio::test]
async fn websockets_speak_through_the_balancer_many_at_a_time() {
    let (one, two) = (websockets().await, websockets().await);
    let lb = ready(&[&one, &two], &[]).await;
    let speak = async |n: usize| {
        let stream = TcpStream::connect(lb.addr).await.unwrap();
        let (mut socket, answer) =
            tokio_tungstenite::client_async(format!("ws://{}/chat", lb.addr), stream).await.unwrap();
        assert_eq!(answer.status(), 101);
        let large = Message::binary(noise(200_000 + n));
        for message in [Message::text(format!("hello {n}")), large, Message::text(""), Message::binary(vec![0, 255])] {
            socket.send(message.clone()).await.unwrap();
            assert!(socket.next().await.unwrap().unwrap() == message, "{n}: another message came back");
        }
        socket.send(Message::Ping("are you there".into())).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::Pong("are you there".into()));
        socket.close(None).await.unwrap();
        assert!(matches!(socket.next().await, Some(Ok(Message::Close(_)))), "{n}: closed in order");
        assert!(socket.next().await.is_none());
    };
    tokio::time::timeout(support::LIMIT, futures_util::future::join_all((0..50).map(speak))).await.unwrap();
    eventually("all have ended", async || (lb.metric("ringkeeper_upgrades").await == 0.0).then_some(())).await;
    assert_eq!(one.requests().len() + two.requests().len(), 50);
    assert!(!one.requests().is_empty() && !two.requests().is_empty(), "both replicas had some");
}

#[tokio::test]
async fn what_comes_behind_an_upgrade_that_the_balancer_answers_itself_goes_nowhere() {
    const UPGRADE: &str = "Connection: upgrade\r\nUpgrade: websocket\r\n";
    let replica = Replica::start(response("404 Not Found", "", "")).await;
    let lb = ready(&[&replica], &[]).await;
    for (path, status) in [("/missing", 400), ("/rep", 200)] {
        let mut client = Client::connect(&lb).await;
        let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n{UPGRADE}\r\n{smuggled}")).await;
        let answer = client.response().await;
        assert!(answer.status() == status && answer.connection("close"), "{}", answer.head);
        assert!(client.rest().await.is_empty());
    }
    assert_eq!(replica.requests().len(), 1, "{:?}", replica.requests());
}
