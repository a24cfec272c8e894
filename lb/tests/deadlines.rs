//! Deadlines of the data path: what happens when a client or a replica takes its time, and to whom it does not.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "tests fail by panicking, and say what they measured"
)]
#![allow(clippy::disallowed_methods, reason = "tests read the environment that they pass on")]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use support::client::Client;
use support::conn::Gate;
use support::eventually;
use support::replica::{Answer, Replica, balance, ready, response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

const SHORT: Duration = Duration::from_millis(300);
/// What is cut off after [`SHORT`] must not take longer, even on a busy machine.
const LONG: Duration = Duration::from_secs(8);

fn assert_in_time(began: Instant) {
    let took = began.elapsed();
    assert!(took >= SHORT - Duration::from_millis(50) && took < LONG, "it took {took:?}");
}

#[tokio::test]
async fn a_head_that_does_not_come_to_its_end_is_a_408() {
    let replica = Replica::mirror().await;
    let lb = ready(&[&replica], &["--header-timeout", "300ms"]).await;
    for (good, stalled) in
        [("", "G"), ("", "GET /x HTTP/1.1\r\nHost: a\r\nx-a"), ("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n", "GET /2")]
    {
        let mut client = Client::connect(&lb).await;
        if !good.is_empty() {
            assert_eq!(client.ask(good).await.status(), 200);
        }
        let began = Instant::now();
        client.send(stalled).await;
        client.refused(408, &["time"]).await;
        assert_in_time(began);
    }
    assert_eq!(replica.requests().len(), 1);
}

#[tokio::test]
async fn a_head_that_dribbles_in_gets_no_more_time_for_it() {
    let replica = Replica::mirror().await;
    let lb = ready(&[&replica], &["--header-timeout", "300ms"]).await;
    let mut client = Client::connect(&lb).await;
    client.send("GET /x HTTP/1.1\r\nHost: a\r\n").await;
    let began = Instant::now();
    let mut pace = tokio::time::interval(Duration::from_millis(10));
    while began.elapsed() < LONG && client.is_quiet() {
        pace.tick().await;
        client.try_send("x-a: 1\r\n").await;
    }
    assert_in_time(began);
    assert!(replica.requests().is_empty());
}

#[tokio::test]
async fn the_time_for_a_head_begins_with_its_first_byte_and_ends_with_its_last() {
    let replica = Replica::start(Answer::Echo).await;
    let lb = ready(&[&replica], &["--header-timeout", "300ms"]).await;
    let mut idle = Client::connect(&lb).await;
    let mut busy = Client::connect(&lb).await;
    busy.send("POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n").await;
    busy.until("first").await;
    let mut slow = Client::connect(&lb).await;
    slow.send("GET").await;
    slow.refused(408, &["time"]).await;
    // Both are older than the one that was cut off.
    busy.send("4\r\nlast\r\n0\r\n\r\n").await;
    busy.until("last").await;
    idle.send("POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nidle\r\n0\r\n\r\n").await;
    assert_eq!(idle.response().await.text(), "idle");
}

#[tokio::test]
async fn an_idle_client_is_closed_without_a_word() {
    let replica = Replica::mirror().await;
    let lb = ready(&[&replica], &["--client-timeout", "300ms"]).await;
    let mut client = Client::connect(&lb).await;
    let began = Instant::now();
    client.closed().await;
    assert_in_time(began);
    let mut client = Client::connect(&lb).await;
    assert_eq!(client.get("/x").await.status(), 200);
    let began = Instant::now();
    client.closed().await;
    assert_in_time(began);
}

/// A replica that is well until it is full: then it accepts no connection, and does not refuse any.
struct Full {
    addr: SocketAddr,
    full: Arc<AtomicBool>,
    waiting: Vec<TcpStream>,
}

impl Full {
    async fn start() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let listener = socket.listen(1).unwrap();
        let (addr, full) = (listener.local_addr().unwrap(), Arc::<AtomicBool>::default());
        let filled = Arc::clone(&full);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                if filled.load(Ordering::SeqCst) {
                    // What was accepted is kept, and so is the listener.
                    std::future::pending::<()>().await;
                }
                let _ = stream.read(&mut [0; 1024]).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
            }
        });
        Self { addr, full, waiting: Vec::new() }
    }

    /// Fills its backlog, until a connection gets no answer.
    async fn fill(&mut self) {
        self.full.store(true, Ordering::SeqCst);
        while let Ok(stream) = tokio::time::timeout(SHORT, TcpStream::connect(self.addr)).await {
            self.waiting.push(stream.unwrap());
            assert!(self.waiting.len() < 100, "its backlog has no end");
        }
    }
}

#[tokio::test]
async fn a_replica_that_accepts_no_connection_in_time_is_passed_over() {
    let (mut full, good) = (Full::start().await, Replica::mirror().await);
    let args = [
        "--connect-timeout",
        "300ms",
        "--heartbeat-interval",
        "1h",
        "--response-timeout",
        "1h",
        "--retry-budget-min",
        "0",
    ];
    let both = balance(&[full.addr, good.addr], &[&args[..], &["--hash", "xxh3", "--bound", "off"]].concat()).await;
    let alone = balance(&[full.addr], &args).await;
    both.until_ready().await;
    alone.until_ready().await;
    full.fill().await;
    let mut client = Client::connect(&alone).await;
    let began = Instant::now();
    let answer = client.get("/x").await;
    assert_eq!(answer.status(), 502, "{}", answer.text());
    assert!(answer.text().contains("<Error> replica S1 failed: "), "{}", answer.text());
    assert_in_time(began);
    // Nothing was sent, so any method may go to another, body and all, free of the budget.
    let passed_over = async || {
        let post = "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";
        let answer = Client::connect(&both).await.ask(post).await;
        assert_eq!((answer.status(), answer.text().as_str()), (200, "POST /x hi"));
        (both.metric("ringkeeper_retries_total").await > 0.0).then_some(())
    };
    eventually("the full one had its turn", passed_over).await;
    assert_eq!(both.metric("ringkeeper_retries_denied_total").await, 0.0);
}

#[tokio::test]
async fn a_try_that_takes_too_long_goes_to_another_replica_if_it_may() {
    let (silent, good) = (Replica::start(Answer::Silence).await, Replica::start(response("200 OK", "", "yes")).await);
    let args = ["--try-timeout", "300ms", "--response-timeout", "1h", "--hash", "xxh3", "--bound", "off"];
    let lb = ready(&[&silent, &good], &[&args[..], &["--hash-key", "header:x-key"]].concat()).await;
    let mut client = Client::connect(&lb).await;
    let mut key = 0;
    while silent.requests().is_empty() {
        key += 1;
        let began = Instant::now();
        let answer = client.ask(&format!("GET /x HTTP/1.1\r\nHost: a\r\nX-Key: {key}\r\n\r\n")).await;
        assert_eq!((answer.status(), answer.text().as_str()), (200, "yes"));
        if !silent.requests().is_empty() {
            assert_in_time(began);
        }
        assert!(key < 100, "the silent one has no share");
    }
    silent.until_ended(0).await;
    // The same key, and so the silent one again; but this may not be repeated.
    let began = Instant::now();
    let answer = client.ask(&format!("POST /x HTTP/1.1\r\nHost: a\r\nX-Key: {key}\r\nContent-Length: 0\r\n\r\n")).await;
    assert_eq!(answer.status(), 504, "{}", answer.text());
    assert_in_time(began);
    assert_eq!(silent.requests().len(), 2);
    assert!(good.requests().iter().all(|head| head.starts_with("GET ")), "{:?}", good.requests());
}

#[tokio::test]
async fn the_last_try_that_takes_too_long_is_a_504() {
    let (one, two) = (Replica::start(Answer::Silence).await, Replica::start(Answer::Silence).await);
    let lb = ready(&[&one, &two], &["--try-timeout", "100ms", "--response-timeout", "1h", "--tries", "2"]).await;
    let answer = Client::connect(&lb).await.get("/x").await;
    assert_eq!(answer.status(), 504, "{}", answer.text());
    assert_eq!((one.requests().len(), two.requests().len()), (1, 1));
}

#[tokio::test]
async fn without_a_try_timeout_nobody_else_is_asked() {
    let (one, two) = (Replica::start(Answer::Silence).await, Replica::start(Answer::Silence).await);
    let lb = ready(&[&one, &two], &["--response-timeout", "300ms"]).await;
    let began = Instant::now();
    let answer = Client::connect(&lb).await.get("/x").await;
    assert_eq!(answer.status(), 504, "{}", answer.text());
    assert_in_time(began);
    assert_eq!(one.requests().len() + two.requests().len(), 1);
}

#[tokio::test]
async fn a_body_that_moves_is_not_idle_and_one_that_stops_is_cut_off() {
    let replica = Replica::start(Answer::Echo).await;
    let lb = ready(&[&replica], &["--idle-timeout", "400ms"]).await;
    let mut client = Client::connect(&lb).await;
    client.send("POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(1200) {
        client.send("4\r\nping\r\n").await;
        client.until("ping").await;
    }
    let rest = String::from_utf8(client.rest().await).unwrap();
    assert!(!rest.ends_with("\r\n0\r\n\r\n") && !rest.contains("HTTP/1.1"), "a response had begun: {rest:?}");
    replica.until_ended(0).await;
    eventually("the lease is given back", async || (lb.replicas().await[0]["in_flight"] == 0).then_some(())).await;
}

#[tokio::test]
async fn a_client_that_stalls_in_its_body_before_there_is_a_response_is_a_408() {
    let replica = Replica::mirror().await;
    let lb = ready(&[&replica], &["--idle-timeout", "300ms"]).await;
    for begun in [
        "Content-Length: 100\r\n\r\nbegun",
        "Content-Length: 100\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nbeg",
    ] {
        let mut client = Client::connect(&lb).await;
        let began = Instant::now();
        client.send(format!("POST /x HTTP/1.1\r\nHost: a\r\n{begun}")).await;
        client.refused(408, &["time"]).await;
        assert_in_time(began);
    }
    let connections = replica.connections().len();
    for n in 0..connections {
        assert!(!replica.until_ended(n).await.text().ends_with("\r\n0\r\n\r\n"));
    }
}

#[tokio::test]
async fn a_client_that_takes_nothing_of_its_response_is_given_up() {
    let gate = Gate::closed();
    let stopped = gate.clone();
    let replica = Replica::scripted(move |mut conn| {
        let stopped = stopped.clone();
        async move {
            if conn.request().await.is_some() {
                conn.send("HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n").await;
                while conn.send([0; 65_536]).await {}
                stopped.open();
            }
        }
    })
    .await;
    let lb = ready(&[&replica], &["--idle-timeout", "400ms"]).await;
    let mut client = Client::connect(&lb).await;
    client.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await;
    tokio::time::timeout(support::LIMIT, gate.pass()).await.expect("the replica's side is closed in time");
    eventually("the lease is given back", async || (lb.replicas().await[0]["in_flight"] == 0).then_some(())).await;
}

#[tokio::test]
async fn a_replica_that_takes_nothing_of_an_upload_is_given_up() {
    let replica = Replica::scripted(|mut conn| async move {
        if conn.request().await.is_some() {
            std::future::pending::<()>().await;
        }
    })
    .await;
    let lb = ready(&[&replica], &["--idle-timeout", "400ms", "--response-timeout", "400ms"]).await;
    let mut client = Client::connect(&lb).await;
    client.send("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000000\r\n\r\n").await;
    let sending = async { while client.stream.write_all(&[0; 65_536]).await.is_ok() {} };
    tokio::time::timeout(support::LIMIT, sending).await.expect("the connection ends in time");
    eventually("the lease is given back", async || (lb.replicas().await[0]["in_flight"] == 0).then_some(())).await;
}

#[tokio::test]
async fn a_try_that_takes_too_long_on_a_used_connection_is_not_repeated_for_free() {
    let replica = Replica::scripted(|mut conn| async move {
        // It answers once, and then no more.
        if conn.request().await.is_some() && conn.answer("yes").await {
            while conn.request().await.is_some() {}
        }
    })
    .await;
    let lb = ready(&[&replica], &["--workers", "1", "--tries", "1", "--try-timeout", "200ms"]).await;
    let mut client = Client::connect(&lb).await;
    assert_eq!(client.get("/1").await.status(), 200);
    assert_eq!(client.ask("DELETE /2 HTTP/1.1\r\nHost: a\r\n\r\n").await.status(), 504);
    let asked: Vec<_> = replica.requests().iter().map(|head| head[..9].to_owned()).collect();
    assert_eq!(asked, ["GET /1 HT", "DELETE /2"]);
    assert_eq!(lb.metric("ringkeeper_retries_total").await, 0.0);
}

#[tokio::test]
async fn a_client_that_stalls_after_it_was_told_to_go_on_is_a_408() {
    let replica = Replica::scripted(|mut conn| async move {
        while conn.request().await.is_some() {
            conn.send("HTTP/1.1 100 Continue\r\n\r\n").await;
            conn.until_closed().await;
        }
    })
    .await;
    let lb = ready(&[&replica], &["--idle-timeout", "200ms"]).await;
    let mut client = Client::connect(&lb).await;
    client.send("PUT /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n").await;
    client.refused(408, &["idle_timeout"]).await;
    assert_eq!(lb.replicas().await[0]["failed"], 0, "it was not the replica's fault");
}
