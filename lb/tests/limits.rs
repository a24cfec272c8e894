//! What holds for the process as a whole: signals, clients that stay, memory, open files.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "tests fail by panicking, and say what they measured"
)]
#![allow(clippy::disallowed_methods, reason = "tests read the environment that they pass on")]

mod support;

use std::time::Duration;

use support::replica::{Answer, Replica, raw, ready, response};
use support::{Lb, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn a_client_that_sends_no_whole_header_in_time_is_closed_and_a_busy_one_is_not() {
    let replica = Replica::start(Answer::Silence).await;
    let lb = ready(&[&replica], &["--client-timeout", "200ms", "--header-timeout", "200ms"]).await;
    let mut busy = TcpStream::connect(lb.addr).await.unwrap();
    busy.write_all(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    for (what, sent) in [
        ("says nothing", ""),
        ("stops in its header", "GET /x HTTP/1.1\r\nHo"),
        ("goes idle after a request", "GET /rep HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("stops in its second header", "GET /rep HTTP/1.1\r\nHost: a\r\n\r\nGET"),
    ] {
        let began = std::time::Instant::now();
        let answer = raw(&lb, sent, "").await;
        let took = began.elapsed();
        assert_eq!(answer.contains("successful"), sent.contains("/rep"), "{what}: {answer}");
        assert_eq!(answer.contains("HTTP/1.1 408 "), what.contains("stops"), "{what}: {answer}");
        assert!(took >= Duration::from_millis(150) && took < Duration::from_secs(5), "{what}: closed after {took:?}");
    }
    let quiet = tokio::time::timeout(Duration::from_millis(50), busy.read(&mut [0; 1])).await;
    assert!(quiet.is_err(), "the one that waits for its answer still waits");
    assert_eq!(replica.requests().len(), 1);
}

#[tokio::test]
async fn a_signal_finishes_what_is_under_way_and_refuses_the_rest() {
    let replica = Replica::start(Answer::Echo).await;
    let mut lb = ready(&[&replica], &[]).await;
    let idle = TcpStream::connect(lb.addr).await.unwrap();
    let mut busy = TcpStream::connect(lb.addr).await.unwrap();
    busy.write_all(b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n").await.unwrap();
    let mut answer = Vec::new();
    while !String::from_utf8_lossy(&answer).contains("first") {
        assert!(busy.read_buf(&mut answer).await.unwrap() > 0);
    }
    lb.signal(nix::sys::signal::Signal::SIGTERM);
    eventually("new connections are refused", async || TcpStream::connect(lb.addr).await.err()).await;
    // The idle one is closed, the busy one goes on to its end.
    let mut idle = idle;
    assert_eq!(tokio::time::timeout(support::LIMIT, idle.read(&mut [0; 1])).await.unwrap().unwrap(), 0);
    busy.write_all(b"4\r\nlast\r\n0\r\n\r\n").await.unwrap();
    while busy.read_buf(&mut answer).await.unwrap() > 0 {}
    assert!(String::from_utf8_lossy(&answer).ends_with("4\r\nlast\r\n0\r\n\r\n"));
    assert!(lb.ended().await.success());
}

#[tokio::test]
async fn a_signal_waits_no_longer_than_the_drain_timeout() {
    let replica = Replica::start(Answer::Silence).await;
    let mut lb = ready(&[&replica], &["--drain-timeout", "300ms"]).await;
    let mut stream = TcpStream::connect(lb.addr).await.unwrap();
    stream.write_all(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    eventually("it is under way", async || (lb.replicas().await[0]["in_flight"] == 1).then_some(())).await;
    let began = std::time::Instant::now();
    lb.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(lb.ended().await.success());
    let took = began.elapsed();
    assert!((Duration::from_millis(300)..Duration::from_secs(3)).contains(&took), "{took:?}");
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let replica = Replica::start(Answer::Silence).await;
    let mut lb = ready(&[&replica], &["--drain-timeout", "1h"]).await;
    let mut stream = TcpStream::connect(lb.addr).await.unwrap();
    stream.write_all(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    eventually("it is under way", async || (lb.replicas().await[0]["in_flight"] == 1).then_some(())).await;
    lb.signal(nix::sys::signal::Signal::SIGTERM);
    lb.until_logged("finishing the requests under way").await;
    lb.signal(nix::sys::signal::Signal::SIGINT);
    assert!(lb.ended().await.success());
    assert!(lb.log().iter().any(|line| line.contains("a second signal, SIGINT: ending at once")), "{:?}", lb.log());
}

#[tokio::test]
async fn a_signal_loses_no_request_of_clients_that_have_just_connected() {
    let replica = Replica::start(response("200 OK", "", "yes")).await;
    for _ in 0..5 {
        let mut lb = ready(&[&replica], &[]).await;
        // Some of them are not accepted yet when the signal comes, and none of their requests has been read.
        let clients: Vec<_> = (0..200)
            .map(|_| {
                use std::io::Write;
                let mut stream = std::net::TcpStream::connect(lb.addr).unwrap();
                stream.write_all(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
                stream
            })
            .collect();
        lb.signal(nix::sys::signal::Signal::SIGTERM);
        for stream in clients {
            stream.set_nonblocking(true).unwrap();
            let mut answer = Vec::new();
            let read = TcpStream::from_std(stream).unwrap().read_to_end(&mut answer).await;
            assert!(answer.ends_with(b"yes"), "{read:?} {}", String::from_utf8_lossy(&answer));
        }
        assert!(lb.ended().await.success());
    }
}

#[tokio::test]
async fn want_of_descriptors_fails_no_replica() {
    // Half are kept for other things, and each client may need another one to a replica: 25 get in.
    let lb = Lb::with_files(100, &["--replicas", "2", "--heartbeat-interval", "20ms"]);
    lb.until_ready().await;
    let mut clients = Vec::new();
    for _ in 0..80 {
        let mut stream = TcpStream::connect(lb.addr).await.unwrap();
        stream.write_all(b"GET /home HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        clients.push(stream);
    }
    lb.until_logged("25 client connections, as many as are allowed (max_connections)").await;
    let served = async |n: f64| (lb.metric(r#"ringkeeper_responses_total{class="2xx"}"#).await >= n).then_some(());
    eventually("those that got in are served", || served(25.0)).await;
    // When they leave, others are let in, and whoever came last is served in the end.
    let mut last = clients.pop().unwrap();
    clients.clear();
    assert!(tokio::time::timeout(support::LIMIT, last.read(&mut [0; 1024])).await.unwrap().unwrap() > 0);
    assert_eq!(lb.metric("ringkeeper_replicas_replaced_total").await, 0.0);
    assert!(lb.is_ready().await);
}

#[tokio::test]
async fn a_thousand_idle_clients_take_less_than_30_mb() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let lb = Lb::ready(&["--workers", "2"]).await;
    let mut clients = Vec::new();
    for _ in 0..1000 {
        let mut stream = TcpStream::connect(lb.addr).await.unwrap();
        stream.write_all(b"GET /home HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        while !String::from_utf8_lossy(&answer).contains("successful") {
            assert!(stream.read_buf(&mut answer).await.unwrap() > 0);
        }
        clients.push(stream);
    }
    assert_eq!(lb.metric("ringkeeper_client_connections").await, 1000.0);
    let status = std::fs::read_to_string(format!("/proc/{}/status", lb.pid())).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kib: u64 = resident.trim().trim_end_matches(" kB").parse().unwrap();
    println!("figure: {:.1} MB resident with 3 replicas and 1000 idle client connections", kib as f64 / 1024.0);
    assert!(kib < 30 * 1024, "{kib} KiB resident");
}
