//! Retries: which requests may be repeated, how often, and with whose leave.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "tests fail by panicking, and say what they measured"
)]
#![allow(clippy::disallowed_methods, reason = "tests read the environment that they pass on")]

mod support;

use support::client::{Client, Response};
use support::conn::Conn;
use support::replica::{Answer, Replica, balance, nobody, ready, response};
use support::wire::{assert_same, chunk, noise};
use support::{Lb, eventually};
use tokio::net::TcpStream;

/// Arguments that make the ring even, place requests by a header, and count for one core.
const PLACED: [&str; 8] = ["--hash", "xxh3", "--bound", "off", "--hash-key", "header:x-key", "--workers", "1"];

async fn placed(members: &[&Replica], args: &[&str]) -> Lb {
    ready(members, &[&PLACED[..], args].concat()).await
}

/// A replica that answers `GET /who` with its name, and does this with every other request.
async fn otherwise<F, Fut>(name: &'static str, script: F) -> Replica
where
    F: Fn(Conn, String) -> Fut + Send + Sync + Clone + 'static,
    Fut: Future<Output = Option<Conn>> + Send + 'static,
{
    Replica::scripted(move |mut conn| {
        let script = script.clone();
        async move {
            while let Some(head) = conn.request().await {
                if head.starts_with("GET /who ") {
                    conn.send(format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{name}")).await;
                    return;
                } else if let Some(left) = script(conn, head).await {
                    conn = left;
                } else {
                    return;
                }
            }
        }
    })
    .await
}

/// A good one, whose answers are the bodies that it got.
async fn good() -> Replica {
    otherwise("good", |mut conn, head| async move {
        let body = conn.body(&head).await?;
        conn.answer(body.bytes).await.then_some(conn)
    })
    .await
}

/// One that takes requests with their bodies, and closes.
async fn broken() -> Replica {
    otherwise("broken", |mut conn, head| async move {
        let _ = conn.body(&head).await;
        None
    })
    .await
}

/// A key that is placed on the replica of this name. No connection is left over from the search.
async fn key_of(lb: &Lb, name: &str) -> String {
    for key in 0..1000 {
        let who = format!("GET /who HTTP/1.1\r\nHost: a\r\nX-Key: {key}\r\nConnection: close\r\n\r\n");
        if Client::connect(lb).await.ask(&who).await.text() == name {
            return key.to_string();
        }
    }
    panic!("{name} has no share");
}

fn asked(replica: &Replica) -> usize {
    replica.requests().iter().filter(|head| !head.starts_with("GET /who ")).count()
}

async fn retries(lb: &Lb) -> (f64, f64) {
    (lb.metric("ringkeeper_retries_total").await, lb.metric("ringkeeper_retries_denied_total").await)
}

/// Sends GETs with keys of their own, and says how many were answered 200; the rest must be 502.
async fn gets(lb: &Lb, requests: usize) -> usize {
    let mut client = Client::connect(lb).await;
    let mut good = 0;
    for key in 0..requests {
        let answer = client.ask(&format!("GET /x HTTP/1.1\r\nHost: a\r\nX-Key: {key}\r\n\r\n")).await;
        assert!(matches!(answer.status(), 200 | 502), "{} {}", answer.status(), answer.text());
        good += usize::from(answer.status() == 200);
    }
    good
}

#[tokio::test]
async fn retries_stay_within_a_share_of_the_requests() {
    let (good, broken) = (Replica::start(response("200 OK", "", "yes")).await, Replica::start(Answer::Close).await);
    let lb = placed(&[&good, &broken], &["--retry-budget", "20%", "--retry-budget-min", "0"]).await;
    let served = gets(&lb, 300).await;
    let tries = broken.requests().len();
    assert!(tries > 90, "the broken one has its part: {tries}");
    let (retried, denied) = retries(&lb).await;
    assert!(retried <= 60.0, "{retried} retries of 300 requests are more than 20 %");
    assert!(retried >= 15.0, "{retried} retries, where the last 10 s of 300 requests allow more");
    assert_eq!(retried + denied, tries as f64, "each failed try was retried or denied");
    assert_eq!(denied, (300 - served) as f64, "each denied one is a 502");
    assert_eq!(good.requests().len(), served);
}

#[tokio::test]
async fn a_few_retries_a_second_are_always_allowed() {
    let (good, broken) = (Replica::start(response("200 OK", "", "yes")).await, Replica::start(Answer::Close).await);
    // One a second over 10 s, and next to nothing for the requests themselves.
    let lb = placed(&[&good, &broken], &["--retry-budget", "1%", "--retry-budget-min", "1"]).await;
    let served = gets(&lb, 60).await;
    let tries = broken.requests().len();
    let (retried, denied) = retries(&lb).await;
    assert!(tries > 15 && (10.0..=12.0).contains(&retried), "{retried} of {tries} failed tries were retried");
    assert_eq!((retried + denied, denied), (tries as f64, (60 - served) as f64));
}

#[tokio::test]
async fn without_a_budget_none_is_denied() {
    let (good, broken) = (Replica::start(response("200 OK", "", "yes")).await, Replica::start(Answer::Close).await);
    let lb = placed(&[&good, &broken], &["--retry-budget", "off", "--retry-budget-min", "0"]).await;
    assert_eq!(gets(&lb, 200).await, 200);
    assert!(broken.requests().len() > 50);
    assert_eq!(retries(&lb).await, (broken.requests().len() as f64, 0.0));
}

#[tokio::test]
async fn a_request_that_reached_nobody_needs_no_budget() {
    let good = good().await;
    let addr = nobody().await;
    let gone = Replica::start_at(addr, response("200 OK", "", "no")).await;
    let args = ["--retry-budget-min", "0", "--heartbeat-interval", "1h"];
    let lb = balance(&[good.addr, addr], &[&PLACED[..], &args].concat()).await;
    lb.until_ready().await;
    drop(gone);
    eventually("nobody listens any more", async || TcpStream::connect(addr).await.err()).await;
    for key in 0..60 {
        let post = format!("POST /x HTTP/1.1\r\nHost: a\r\nX-Key: {key}\r\nContent-Length: 2\r\n\r\nhi");
        let answer = Client::connect(&lb).await.ask(&post).await;
        assert_eq!((answer.status(), answer.text().as_str()), (200, "hi"));
    }
    let (retried, denied) = retries(&lb).await;
    assert!(retried >= 1.0 && denied == 0.0, "{retried} retries, {denied} denied");
}

/// Sends a request with this body, by its length or in chunks.
async fn send(lb: &Lb, method: &str, key: &str, body: &[u8], chunked: bool) -> Response {
    let mut client = Client::connect(lb).await;
    let head = format!("{method} /x HTTP/1.1\r\nHost: a\r\nX-Key: {key}\r\n");
    if chunked {
        client.send(head + "Transfer-Encoding: chunked\r\n\r\n").await;
        client.try_send(chunk(body, &[1, 300, 7])).await;
    } else {
        client.send(format!("{head}Content-Length: {}\r\n\r\n", body.len())).await;
        client.try_send(body).await;
    }
    client.response().await
}

#[tokio::test]
async fn a_body_up_to_retry_body_is_sent_again_byte_for_byte_and_a_larger_one_is_not() {
    for (args, most) in [(&[][..], 65_536), (&["--retry-body", "1000"], 1000)] {
        let (good, broken) = (good().await, broken().await);
        let lb = placed(&[&good, &broken], args).await;
        let key = key_of(&lb, "broken").await;
        let body = noise(most + 1);
        for chunked in [false, true] {
            for method in ["PUT", "DELETE"] {
                let before = (asked(&good), asked(&broken));
                let answer = send(&lb, method, &key, &body[..most], chunked).await;
                assert_eq!(answer.status(), 200, "{method} chunked {chunked}: {}", answer.text());
                assert_same(&answer.body, &body[..most]);
                assert_eq!((asked(&good), asked(&broken)), (before.0 + 1, before.1 + 1));
            }
            let before = asked(&good);
            let answer = send(&lb, "PUT", &key, &body, chunked).await;
            assert_eq!(answer.status(), 502, "chunked {chunked}: {}", answer.text());
            assert!(answer.text().contains("<Error> replica S2 failed: "), "{}", answer.text());
            // Nor is one that may not be repeated.
            for method in ["POST", "PATCH", "X-OWN"] {
                let answer = send(&lb, method, &key, &body[..10], chunked).await;
                assert_eq!(answer.status(), 502, "{method}: {}", answer.text());
            }
            assert_eq!(asked(&good), before);
        }
    }
}

#[tokio::test]
async fn a_body_is_sent_again_whole_if_the_first_replica_took_only_a_part() {
    let closing = otherwise("broken", |_conn, _head| async { None }).await;
    let good = good().await;
    let lb = placed(&[&good, &closing], &[]).await;
    let key = key_of(&lb, "broken").await;
    let body = noise(60_000);
    for chunked in [false, true] {
        let mut client = Client::connect(&lb).await;
        let framed = if chunked { chunk(&body, &[5000]) } else { body.clone() };
        let framing = if chunked { "Transfer-Encoding: chunked" } else { "Content-Length: 60000" };
        client.send(format!("PUT /x HTTP/1.1\r\nHost: a\r\nX-Key: {key}\r\n{framing}\r\n\r\n")).await;
        client.send(&framed[..20_000]).await;
        // The second half comes when the first replica is gone already.
        let tries = async || (asked(&closing) > usize::from(chunked)).then_some(());
        eventually("the first one was asked", tries).await;
        client.send(&framed[20_000..]).await;
        let answer = client.response().await;
        assert_eq!(answer.status(), 200, "chunked {chunked}: {}", answer.text());
        assert_same(&answer.body, &body);
    }
}

#[tokio::test]
async fn nothing_is_repeated_after_a_byte_of_a_response() {
    for begun in
        ["H", "HTTP/1.1 200 OK\r\ncontent-le", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n", "HTTP/1.1 103 Hints\r\n\r\n"]
    {
        let beginning = otherwise("broken", move |mut conn, _| async move {
            conn.send(begun).await;
            None
        })
        .await;
        let good = good().await;
        let lb = placed(&[&good, &beginning], &[]).await;
        let key = key_of(&lb, "broken").await;
        let answer = send(&lb, "GET", &key, b"", false).await;
        assert_eq!(answer.status(), 502, "{begun:?}: {}", answer.text());
        assert_eq!((asked(&good), asked(&beginning)), (0, 1), "{begun:?}");
    }
}

/// One that answers, until it is asked for `/closes`.
async fn closing(name: &'static str) -> Replica {
    otherwise(name, |mut conn, head| async move {
        let closes = head.starts_with("GET /closes ");
        (!closes && conn.answer("yes").await).then_some(conn)
    })
    .await
}

#[tokio::test]
async fn a_used_connection_that_closes_under_a_request_gives_one_free_retry() {
    let (one, two, three) = (closing("one").await, closing("two").await, closing("three").await);
    let lb = placed(&[&one, &two, &three], &["--retry-budget", "1%", "--retry-budget-min", "0"]).await;
    let key = key_of(&lb, "one").await;
    let mut client = Client::connect(&lb).await;
    for (target, status) in [("/x", 200), ("/closes", 502)] {
        let answer = client.ask(&format!("GET {target} HTTP/1.1\r\nHost: a\r\nX-Key: {key}\r\n\r\n")).await;
        assert_eq!(answer.status(), status, "{target}: {}", answer.text());
    }
    // Asked on the used connection, then on a new one; from there on the budget counts, and has nothing to give.
    let closed: usize = [&one, &two, &three]
        .iter()
        .map(|replica| replica.requests().iter().filter(|head| head.starts_with("GET /closes ")).count())
        .sum();
    assert_eq!(closed, 2);
    assert_eq!(lb.metric("ringkeeper_retries_denied_total").await, 1.0);
}

#[tokio::test]
async fn a_used_connection_that_closes_under_a_request_is_not_noticed_by_the_client() {
    // Each connection serves one request and dies under the second, as if the replica had just found it idle for too long.
    let replica = Replica::scripted(|mut conn| async move {
        for n in 0.. {
            let Some(head) = conn.request().await else { return };
            let Some(body) = conn.body(&head).await else { return };
            if n == 1 {
                return;
            }
            conn.answer(body.bytes).await;
        }
    })
    .await;
    let lb = ready(&[&replica], &["--workers", "1", "--retry-budget", "1%", "--retry-budget-min", "0"]).await;
    let mut client = Client::connect(&lb).await;
    for n in 0..50 {
        let answer = if n % 2 == 0 {
            client.get("/x").await
        } else {
            client.ask("PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").await
        };
        assert_eq!((answer.status(), answer.text().as_str()), (200, if n % 2 == 0 { "" } else { "hi" }), "request {n}");
    }
    assert_eq!(lb.metric("ringkeeper_retries_denied_total").await, 0.0);
    assert_eq!(replica.connections().len(), 50);
    // What may not be repeated is not, whatever the reason.
    let answer = client.ask("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").await;
    assert_eq!(answer.status(), 502, "{}", answer.text());
}

#[tokio::test]
async fn a_request_has_as_many_tries_as_configured() {
    let mut members = Vec::new();
    for _ in 0..5 {
        members.push(Replica::start(Answer::Close).await);
    }
    for (tries, expected) in [("1", 1), ("3", 3), ("10", 5)] {
        let before: usize = members.iter().map(|member| member.requests().len()).sum();
        let lb = ready(&members.iter().collect::<Vec<_>>(), &["--tries", tries, "--retry-budget", "off"]).await;
        let answer = Client::connect(&lb).await.get("/x").await;
        assert_eq!(answer.status(), 502, "{}", answer.text());
        let after: usize = members.iter().map(|member| member.requests().len()).sum();
        assert_eq!(after - before, expected, "--tries {tries}");
    }
    assert!(members.iter().all(|member| member.requests().len() <= 3), "nobody is asked twice for one request");
}
