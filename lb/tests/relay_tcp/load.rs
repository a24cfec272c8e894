//! What connections carry, and how many there may be.

use std::sync::Arc;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::support::control::Control;
use crate::support::server::{TcpServer, Visit};
use crate::support::wire::{assert_same, noise};
use crate::support::{LIMIT, Lb, eventually};

const MIB: usize = 1024 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn megabytes_go_both_ways_at_the_same_time_intact() {
    // What goes up differs from what comes down.
    let all = Arc::new(noise(33 * MIB));
    let lb = Lb::relaying(&[]);
    let (up, down) = (0..32 * MIB, MIB..33 * MIB);
    let (heard, mut hears) = mpsc::unbounded_channel();
    let (sent, downwards) = (Arc::clone(&all), down.clone());
    let server = TcpServer::start(move |stream| {
        let (sent, downwards, heard) = (Arc::clone(&sent), downwards.clone(), heard.clone());
        async move {
            let _ = heard.send(swap(stream, &sent[downwards]).await);
        }
    })
    .await;
    let mut control = Control::connect(&lb, server.ip()).await;
    control.register("tcp", server.addr.port(), 50_000).await;
    let client = TcpStream::connect(lb.relay(50_000)).await.unwrap();
    let got = swap(client, &all[up.clone()]).await;
    assert_same(&got, &all[down]);
    assert_same(&hears.recv().await.unwrap(), &all[up]);
    lb.until_counted("tcp", 50_000, "connections", 0).await;
    let port = lb.port("tcp", 50_000).await.unwrap();
    assert_eq!((&port["bytes_up"], &port["bytes_down"]), (&(32 * MIB).into(), &(32 * MIB).into()));
}

/// Sends all of it and hears all there is, at the same time.
async fn swap(stream: TcpStream, bytes: &[u8]) -> Vec<u8> {
    let (mut reader, mut writer) = stream.into_split();
    let mut got = Vec::with_capacity(33 * MIB);
    let send = async {
        writer.write_all(bytes).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let both = async { tokio::join!(send, reader.read_to_end(&mut got)).1.unwrap() };
    tokio::time::timeout(LIMIT, both).await.expect("it flows");
    got
}

/// The size of the documents' pages.
const PAGE: usize = 20 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_a_thousand_connections_succeeds_whole_with_one_to_four_servers() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let lb = Lb::relaying(&[]);
    let page = Arc::new(noise(PAGE));
    let mut servers = Vec::new();
    for number in 1..=4 {
        let answer = Arc::clone(&page);
        let server = TcpServer::start(move |mut stream| {
            let answer = Arc::clone(&answer);
            async move {
                let mut request = [0; 18];
                if stream.read_exact(&mut request).await.is_ok() {
                    let _ = stream.write_all(&answer).await;
                }
            }
        })
        .await;
        let mut control = Control::connect(&lb, server.ip()).await;
        control.register("tcp", server.addr.port(), 50_000).await;
        servers.push((server, control));
        let before: Vec<_> = servers.iter().map(|(server, _)| server.accepted()).collect();

        let mut clients = tokio::task::JoinSet::new();
        let addr = lb.relay(50_000);
        for _ in 0..1000 {
            let page = Arc::clone(&page);
            clients.spawn(async move {
                let mut stream = TcpStream::connect(addr).await?;
                stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
                let mut got = Vec::with_capacity(PAGE);
                stream.read_to_end(&mut got).await?;
                Ok::<_, std::io::Error>(got == *page)
            });
        }
        let outcomes = tokio::time::timeout(LIMIT, clients.join_all()).await.expect("in time");
        let failed: Vec<_> = outcomes.iter().filter(|outcome| !matches!(outcome, Ok(true))).collect();
        assert!(failed.is_empty(), "with {number} servers {} of 1000 failed: {failed:?}", failed.len());
        for ((server, _), before) in servers.iter().zip(before) {
            let part = server.accepted() - before;
            assert!(part.abs_diff(1000 / number) <= 1, "{part} of 1000 with {number} servers");
        }
        println!("figure: 1000 of 1000 connections in a burst succeeded with {number} servers");
    }
    lb.until_counted("tcp", 50_000, "connections", 0).await;
    assert_eq!(lb.port("tcp", 50_000).await.unwrap()["unserved"], 0);
}

#[tokio::test]
async fn a_server_may_be_told_who_its_client_is() {
    let lb = Lb::relaying(&["--relay-proxy-protocol", "v2"]);
    let (heard, mut hears) = mpsc::unbounded_channel();
    let server = TcpServer::start(move |mut stream| {
        let heard = heard.clone();
        async move {
            // The header comes before the client has said anything.
            let mut header = vec![0; 28];
            stream.read_exact(&mut header).await.unwrap();
            stream.write_all(b"hello").await.unwrap();
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.unwrap();
            let _ = heard.send((header, rest));
        }
    })
    .await;
    let mut control = Control::connect(&lb, server.ip()).await;
    control.register("tcp", server.addr.port(), 50_000).await;
    let mut client = TcpStream::connect(lb.relay(50_000)).await.unwrap();
    tokio::time::timeout(LIMIT, client.read_exact(&mut [0; 5])).await.expect("a greeting").unwrap();
    client.write_all(b"only this").await.unwrap();
    client.shutdown().await.unwrap();
    let (header, rest) = tokio::time::timeout(LIMIT, hears.recv()).await.unwrap().unwrap();
    let (std::net::SocketAddr::V4(from), std::net::SocketAddr::V4(to)) =
        (client.local_addr().unwrap(), lb.relay(50_000))
    else {
        unreachable!()
    };
    // Signature; version 2, PROXY; IPv4, TCP; 12 bytes of addresses: those of the client and of the port it asked for.
    let mut expected = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c".to_vec();
    expected.extend(from.ip().octets());
    expected.extend(to.ip().octets());
    expected.extend(from.port().to_be_bytes());
    expected.extend(to.port().to_be_bytes());
    assert_eq!(header, expected);
    assert_eq!(rest, b"only this");
}

#[tokio::test]
async fn more_connections_than_are_allowed_wait_and_are_served_then() {
    let lb = Lb::relaying(&["--relay-max-connections", "2", "--workers", "1"]);
    let (server, _control) = TcpServer::registered(&lb, "A", 50_000).await;
    let one = Visit::to(lb.relay(50_000)).await.unwrap();
    let mut two = Visit::to(lb.relay(50_000)).await.unwrap();
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let addr = lb.relay(50_000);
        waiting.spawn(async move { Visit::to(addr).await.map(|visit| visit.name) });
    }
    lb.until_logged("2 relayed connections, as many as are allowed (relay_max_connections); others wait").await;
    let port = lb.port("tcp", 50_000).await.unwrap();
    assert_eq!((&port["connections"], server.accepted()), (&2.into(), 2));
    assert!(waiting.try_join_next().is_none() && two.is_alive().await);
    drop(one);
    // Each of them leaves as soon as it was greeted, so one place is enough for all.
    let served = tokio::time::timeout(LIMIT, waiting.join_all()).await.expect("in time");
    assert!(served.iter().all(|name| matches!(name, Ok(name) if name == "A")), "{served:?}");
    assert!(two.is_alive().await);
    let same = async || (server.accepted() == 5).then_some(());
    eventually("all were served", same).await;
}
