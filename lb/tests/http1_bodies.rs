//! Bodies of HTTP/1 both ways: lengths, chunks, trailers, `Expect`, answers that come early, bodies that break off.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "tests fail by panicking, and say what they measured"
)]
#![allow(clippy::disallowed_methods, reason = "tests read the environment that they pass on")]

mod support;

use support::client::Client;
use support::conn::Gate;
use support::replica::{Answer, Replica, ready};
use support::wire::{assert_same, chunk, field, fields, noise};

/// A replica that answers with the request's body: framed by its length, or in chunks of these sizes.
async fn returns_bodies(sizes: &'static [usize]) -> Replica {
    Replica::scripted(move |mut conn| async move {
        while let Some(head) = conn.request().await {
            let Some(body) = conn.body(&head).await else { return };
            if sizes.is_empty() {
                conn.answer(body.bytes).await;
            } else {
                conn.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
                conn.send(chunk(&body.bytes, sizes)).await;
            }
        }
    })
    .await
}

fn post(framing: &str, body: &[u8]) -> Vec<u8> {
    [format!("POST /x HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n").as_bytes(), body].concat()
}

const CHUNKED: &str = "Transfer-Encoding: chunked";

#[tokio::test]
async fn large_bodies_arrive_byte_for_byte_whatever_frames_them() {
    const SIZES: &[usize] = &[1, 65_536, 3, 16_384, 1_000_003, 17, 4096];
    let body = noise(3_000_000);
    let length = format!("Content-Length: {}", body.len());
    for sizes in [&[][..], SIZES] {
        let replica = returns_bodies(sizes).await;
        let lb = ready(&[&replica], &[]).await;
        let mut client = Client::connect(&lb).await;
        for request in [post(&length, &body), post(CHUNKED, &chunk(&body, SIZES))] {
            client.send(request).await;
            let answer = client.response().await;
            assert_eq!(answer.field("transfer-encoding").is_some(), !sizes.is_empty(), "{}", answer.head);
            assert_same(&answer.body, &body);
        }
        let framings =
            replica.requests().iter().map(|head| field(head, "transfer-encoding").is_some()).collect::<Vec<_>>();
        assert_eq!(framings, [false, true]);
    }
}

#[tokio::test]
async fn bodies_in_tiny_chunks_and_tiny_packets_arrive_whole() {
    let replica = returns_bodies(&[1]).await;
    let lb = ready(&[&replica], &[]).await;
    let body = noise(3000);
    let mut client = Client::connect(&lb).await;
    client.send(post(CHUNKED, &chunk(&body, &[1]))).await;
    assert_same(&client.response().await.body, &body);
    client.dribble(post(CHUNKED, &chunk(&body[..300], &[1, 7, 20]))).await;
    assert_same(&client.response().await.body, &body[..300]);
    client.dribble(post("Content-Length: 300", &body[..300])).await;
    assert_same(&client.response().await.body, &body[..300]);
}

#[tokio::test]
async fn responses_byte_by_byte_arrive_whole() {
    let replica = Replica::scripted(|mut conn| async move {
        while let Some(head) = conn.request().await {
            if head.starts_with("GET /chunks ") {
                conn.dribble("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nx-a: 1\r\n\r\n").await;
                conn.dribble("4;ext=\"1;2\"\r\nfour\r\n00A\r\n ten bytes\r\n0;x\r\nx-sum: 9\r\n\r\n").await;
            } else {
                conn.dribble("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n").await;
                conn.dribble("HTTP/1.1 200 OK\r\ncontent-length: 14\r\nx-a: 1\r\n\r\nfour ten bytes").await;
            }
        }
    })
    .await;
    let lb = ready(&[&replica], &["--workers", "1"]).await;
    let mut client = Client::connect(&lb).await;
    for target in ["/chunks", "/length", "/chunks"] {
        let answer = client.get(target).await;
        assert_eq!((answer.text().as_str(), answer.field("x-a")), ("four ten bytes", Some("1")), "{}", answer.head);
    }
    assert_eq!(replica.connections().len(), 1);
}

#[tokio::test]
async fn chunk_extensions_are_dropped_and_every_spelling_of_a_size_is_read() {
    // The replica's own reader fails on extensions.
    let replica = returns_bodies(&[]).await;
    let lb = ready(&[&replica], &[]).await;
    let mut client = Client::connect(&lb).await;
    let chunks = "5;name=value\r\nfirst\r\n0000000000000007;a;b=\"c d\"\r\n second\r\nA\r\n0123456789\r\n\
                  000a;c\r\n9876543210\r\n00;last\r\n\r\n";
    let answer = client.ask(std::str::from_utf8(&post(CHUNKED, chunks.as_bytes())).unwrap()).await;
    assert_eq!(answer.text(), "first second01234567899876543210");
    let sent = replica.connections()[0].text();
    assert!(!sent.contains(';') && !sent.contains("name"), "{sent}");
}

#[tokio::test]
async fn trailers_pass_both_ways_without_those_that_frame_route_or_belong_to_one_hop() {
    const TRAILERS: &str = "X-Sum: 1\r\nContent-Length: 77\r\nTransfer-Encoding: gzip\r\nHost: evil\r\nConnection: x-sum\r\n\
                            Keep-Alive: 5\r\nTE: gzip\r\nUpgrade: x\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\n\
                            X-Forwarded-Host: evil\r\nForwarded: for=6.6.6.6\r\nX-Last: a, b\r\n";
    let replica = Replica::scripted(|mut conn| async move {
        while let Some(head) = conn.request().await {
            let Some(body) = conn.body(&head).await else { return };
            let got = body.trailers.join("|");
            let length = got.len();
            conn.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum, x-last\r\n\r\n").await;
            conn.send(format!("{length:x}\r\n{got}\r\n0\r\n{TRAILERS}\r\n")).await;
        }
    })
    .await;
    let lb = ready(&[&replica], &["--workers", "1"]).await;
    let mut client = Client::connect(&lb).await;
    let wanted = ["x-sum: 1", "x-last: a, b"];
    for _ in 0..2 {
        client
            .send(post(
                "TE: trailers\r\nTransfer-Encoding: chunked",
                format!("2\r\nhi\r\n0\r\n{TRAILERS}\r\n").as_bytes(),
            ))
            .await;
        let answer = client.response().await;
        assert_eq!(answer.text().to_lowercase().split('|').collect::<Vec<_>>(), wanted, "what the replica got");
        let got: Vec<_> =
            answer.trailers.iter().map(|line| line.to_lowercase()).filter(|line| line.starts_with("x-")).collect();
        let framing = ["content-length", "transfer-encoding", "connection", "keep-alive", "te:", "upgrade"];
        let bad: Vec<_> = answer
            .trailers
            .iter()
            .filter(|line| framing.iter().any(|name| line.to_lowercase().starts_with(name)))
            .collect();
        assert!(bad.is_empty(), "what the client got: {:?}", answer.trailers);
        assert!(
            wanted.iter().all(|line| got.contains(&(*line).to_owned())),
            "what the client got: {:?}",
            answer.trailers
        );
    }
    assert_eq!((replica.requests().len(), replica.connections().len()), (2, 1));
}

#[tokio::test]
async fn a_replicas_100_is_passed_and_the_body_follows() {
    let gate = Gate::closed();
    let held = gate.clone();
    let replica = Replica::scripted(move |mut conn| {
        let held = held.clone();
        async move {
            while let Some(head) = conn.request().await {
                held.pass().await;
                assert!(conn.buffer.is_empty(), "a body that nobody has asked for");
                conn.send("HTTP/1.1 100 Continue\r\n\r\n").await;
                let Some(body) = conn.body(&head).await else { return };
                conn.answer(body.bytes).await;
            }
        }
    })
    .await;
    let lb = ready(&[&replica], &["--workers", "1"]).await;
    let mut client = Client::connect(&lb).await;
    for (expect, framing, body) in
        [("100-continue", "Content-Length: 5", "hello"), ("100-Continue", CHUNKED, "5\r\nhello\r\n0\r\n\r\n")]
    {
        let asked = replica.requests().len();
        client.send(post(&format!("Expect: {expect}\r\n{framing}"), b"")).await;
        replica.until_asked(asked + 1).await;
        assert!(client.is_quiet(), "a 100 that the replica has not sent");
        gate.let_one();
        assert!(client.head().await.starts_with("HTTP/1.1 100 "));
        client.send(body).await;
        let answer = client.response().await;
        assert_eq!((answer.interim.len(), answer.text().as_str()), (0, "hello"));
    }
    assert!(replica.requests().iter().all(|head| field(head, "expect").is_some()), "{:?}", replica.requests());
    assert_eq!(replica.connections().len(), 1);
}

#[tokio::test]
async fn a_client_that_expects_100_and_does_not_wait_is_served() {
    let replica = returns_bodies(&[]).await;
    let lb = ready(&[&replica], &[]).await;
    let mut client = Client::connect(&lb).await;
    for _ in 0..2 {
        client.send(post("Expect: 100-continue\r\nContent-Length: 5", b"hello")).await;
        assert_eq!(client.response().await.text(), "hello");
    }
}

#[tokio::test]
async fn a_refusal_instead_of_a_100_reaches_the_client_and_ends_both_connections() {
    let replica = Replica::scripted(|mut conn| async move {
        if conn.request().await.is_some() {
            conn.send("HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig").await;
            conn.until_closed().await;
        }
    })
    .await;
    let lb = ready(&[&replica], &[]).await;
    let mut client = Client::connect(&lb).await;
    client.send(post("Expect: 100-continue\r\nContent-Length: 5", b"")).await;
    let answer = client.response().await;
    assert_eq!((answer.status(), answer.text().as_str(), answer.interim.len()), (413, "big", 0));
    // Whether the client still sends the body can't be known, so neither connection has a known state.
    assert!(answer.connection("close"), "{}", answer.head);
    client.closed().await;
    let record = replica.until_ended(0).await;
    assert!(record.text().ends_with("\r\n\r\n"), "{}", record.text());
}

#[tokio::test]
async fn other_expectations_are_a_417_and_those_of_1_0_or_without_a_body_mean_nothing() {
    let replica = Replica::scripted(|mut conn| async move {
        while let Some(head) = conn.request().await {
            if field(&head, "expect").is_some() {
                conn.send("HTTP/1.1 100 Continue\r\n\r\n").await;
            }
            let Some(body) = conn.body(&head).await else { return };
            conn.answer(body.bytes).await;
        }
    })
    .await;
    let lb = ready(&[&replica], &[]).await;
    for expect in ["something", "100-continued", "200-ok"] {
        let mut client = Client::connect(&lb).await;
        client.send(post(&format!("Expect: {expect}\r\nContent-Length: 5"), b"")).await;
        client.refused(417, &["expect"]).await;
    }
    assert!(replica.connections().is_empty(), "{:?}", replica.connections());
    let mut old = Client::connect(&lb).await;
    let answer = old.ask("POST /x HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello").await;
    assert_eq!((answer.status(), answer.text().as_str(), answer.interim.len()), (200, "hello", 0));
    let mut client = Client::connect(&lb).await;
    let answer = client.ask("GET /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n").await;
    assert_eq!((answer.status(), answer.interim.len()), (200, 0), "{answer:?}");
}

#[tokio::test]
async fn an_answer_before_the_whole_body_reaches_the_client_and_no_request_follows_on_that_connection() {
    let replica = Replica::scripted(|mut conn| async move {
        while let Some(head) = conn.request().await {
            if head.starts_with("POST ") {
                conn.send("HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig").await;
                conn.until_closed().await;
            } else {
                conn.answer("yes").await;
            }
        }
    })
    .await;
    let lb = ready(&[&replica], &["--workers", "1"]).await;
    for (framing, begun) in [("Content-Length: 1000000", &b"some"[..]), (CHUNKED, b"4\r\nsome\r\n")] {
        let mut client = Client::connect(&lb).await;
        client.send(post(framing, begun)).await;
        let answer = client.response().await;
        assert_eq!((answer.status(), answer.text().as_str()), (413, "big"));
        let used = replica.connections().len();
        assert_eq!(Client::connect(&lb).await.get("/x").await.text(), "yes");
        assert_eq!(replica.connections().len(), used + 1, "{framing}");
        drop(client);
        replica.until_ended(used - 1).await;
    }
}

#[tokio::test]
async fn an_upload_and_its_answer_flow_at_the_same_time() {
    // More than all buffers on the way hold: who waits for the one to end before the other begins, waits for ever.
    let replica = Replica::scripted(|mut conn| async move {
        while let Some(head) = conn.request().await {
            let mut left: usize = field(&head, "content-length").unwrap().parse().unwrap();
            conn.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {left}\r\n\r\n")).await;
            while left > 0 && (!conn.buffer.is_empty() || conn.fill().await) {
                let piece = std::mem::take(&mut conn.buffer);
                left -= piece.len();
                conn.send(piece).await;
            }
        }
    })
    .await;
    let lb = ready(&[&replica], &[]).await;
    let body = noise(16 << 20);
    let mut client = Client::connect(&lb).await;
    client.send(format!("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len())).await;
    let (mut back, mut sent) = (Vec::with_capacity(body.len()), 0);
    client.until("\r\n\r\n").await;
    while back.len() < body.len() {
        use tokio::io::AsyncWriteExt;
        let (mut reader, mut writer) = client.stream.split();
        let read = tokio::io::AsyncReadExt::read_buf(&mut reader, &mut back);
        let step = async {
            tokio::select! {
                read = read => assert!(read.unwrap() > 0),
                written = writer.write(&body[sent..]), if sent < body.len() => sent += written.unwrap(),
            }
        };
        tokio::time::timeout(support::LIMIT, step).await.expect("it flows");
    }
    assert_same(&back, &body);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_not_passed_as_whole() {
    for (framing, begun) in [("Content-Length: 10", &b"some"[..]), (CHUNKED, b"4\r\nsome\r\n")] {
        let waiting = Replica::scripted(|mut conn| async move {
            if let Some(head) = conn.request().await {
                assert!(conn.body(&head).await.is_none(), "a whole body");
            }
        })
        .await;
        let lb = ready(&[&waiting], &[]).await;
        let mut client = Client::connect(&lb).await;
        client.send(post(framing, begun)).await;
        let arrived = async || waiting.connections().first().filter(|record| record.text().contains("some")).cloned();
        support::eventually("the beginning arrives", arrived).await;
        drop(client);
        let record = waiting.until_ended(0).await.text();
        assert!(
            !record.ends_with("\r\n0\r\n\r\n") && fields(&record, "content-length").len() <= 1,
            "{framing}: {record}"
        );
    }
}

#[tokio::test]
async fn broken_chunks_are_a_400_and_the_replica_gets_no_last_chunk() {
    let replica = Replica::start(Answer::Silence).await;
    let lb = ready(&[&replica], &[]).await;
    let long = format!("5;{}\r\nhello\r\n0\r\n\r\n", "e".repeat(300));
    for broken in [
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello!\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "5 ;a\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "g\r\nhello\r\n0\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
        ";a=b\r\nhello\r\n0\r\n\r\n",
        "00000000000000005\r\nhello\r\n0\r\n\r\n",
        "5;a\u{1}b\r\nhello\r\n0\r\n\r\n",
        &long,
        "5\r\nhello\r\n0\r\nbad trailer\r\n\r\n",
        "5\r\nhello\r\n0\r\nx-a : 1\r\n\r\n",
        "5\r\nhello\r\n0\r\nx-a: 1\n\r\n",
    ] {
        let (mut client, seen) = (Client::connect(&lb).await, replica.connections().len());
        client.send(post(CHUNKED, broken.as_bytes())).await;
        let answer = client.response().await;
        assert_eq!(answer.status(), 400, "{broken:?}: {}{}", answer.head, answer.text());
        client.closed().await;
        // The head may have been on its way already.
        for n in seen..replica.connections().len() {
            let record = replica.until_ended(n).await.text();
            assert!(!record.ends_with("\r\n0\r\n\r\n"), "{broken:?}: {record}");
        }
    }
}
