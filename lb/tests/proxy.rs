//! The data path against replicas that misbehave: what reaches the client, what reaches the replica, what is tried again.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "tests fail by panicking, and say what they measured"
)]
#![allow(clippy::disallowed_methods, reason = "tests read the environment that they pass on")]

mod support;

use support::client::Client;
use support::eventually;
use support::replica::{Answer, Replica, balance, field, nobody, raw, ready, response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn a_replica_gets_the_request_with_this_hops_headers() {
    let replica =
        Replica::start(response("200 OK", "x-own: 1\r\nconnection: x-hop\r\nx-hop: 1\r\nkeep-alive: 5\r\n", "yes"))
            .await;
    let lb = ready(&[&replica], &[]).await;
    let answer = raw(
        &lb,
        "PATCH /a%20b?c=d&e HTTP/1.1\r\nHost: shop.example\r\nX-Forwarded-For: 10.0.0.1\r\nForwarded: for=10.0.0.1\r\n\
         Connection: close, x-secret\r\nX-Secret: 1\r\nTE: trailers\r\nX-Kept: a\r\nX-Kept: b\r\nContent-Length: 2\r\n\r\nhi",
        "",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nyes"), "{answer}");
    assert!(field(&answer, "x-own") == Some("1") && field(&answer, "x-hop").is_none(), "{answer}");
    assert!(field(&answer, "keep-alive").is_none(), "{answer}");
    let requests = replica.requests();
    let [head] = &requests[..] else { panic!("{requests:?}") };
    assert!(head.starts_with("PATCH /a%20b?c=d&e HTTP/1.1\r\n"), "{head}");
    for (name, value) in [
        ("host", "shop.example"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "shop.example"),
        ("content-length", "2"),
    ] {
        assert_eq!(field(head, name), Some(value), "{head}");
    }
    assert_eq!(field(head, "x-request-id").unwrap().len(), 16);
    for gone in ["connection", "x-secret", "te", "forwarded", "transfer-encoding"] {
        assert_eq!(field(head, gone), None, "{head}");
    }
    assert!(head.to_lowercase().contains("x-kept: a\r\nx-kept: b\r\n"), "{head}");
}

#[tokio::test]
async fn absolute_targets_and_http_1_0_arrive_as_origin_form_and_1_1() {
    let replica = Replica::start(response("200 OK", "", "yes")).await;
    let lb = ready(&[&replica], &[]).await;
    raw(&lb, "GET http://real.example/x?y HTTP/1.1\r\nHost: fake\r\nConnection: close\r\n\r\n", "").await;
    let answer = raw(&lb, "GET /old HTTP/1.0\r\n\r\n", "").await;
    assert!(answer.ends_with("\r\n\r\nyes"), "{answer}");
    let requests = replica.requests();
    assert!(requests[0].starts_with("GET /x?y HTTP/1.1\r\n"), "{requests:?}");
    assert_eq!(field(&requests[0], "host"), Some("real.example"));
    assert!(
        requests[1].starts_with("GET /old HTTP/1.1\r\n") && field(&requests[1], "host") == Some(""),
        "{requests:?}"
    );
}

#[tokio::test]
async fn head_and_bodiless_statuses_have_no_body_and_keep_the_connection() {
    let replica = Replica::start(Answer::Bytes("HTTP/1.1 204 No Content\r\nx-a: 1\r\n\r\n".into())).await;
    let lb = ready(&[&replica], &[]).await;
    let twice = "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let answer = raw(&lb, twice, "").await;
    assert_eq!(answer.matches("HTTP/1.1 204 No Content\r\n").count(), 2, "{answer}");
    let other = Replica::start(Answer::Bytes("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n".into())).await;
    let lb = ready(&[&other], &[]).await;
    let answer = lb.client.head(lb.url("/x")).send().await.unwrap();
    assert_eq!(answer.headers()["content-length"], "1000");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let replica = Replica::start(Answer::Echo).await;
    let lb = ready(&[&replica], &[]).await;
    let one = |n: u32, more: &str| {
        format!("POST /{n} HTTP/1.1\r\nHost: a\r\n{more}Transfer-Encoding: chunked\r\n\r\n1\r\n{n}\r\n0\r\n\r\n")
    };
    let answer = raw(&lb, &(one(1, "") + &one(2, "") + &one(3, "Connection: close\r\n")), "").await;
    let bodies: Vec<_> =
        answer.split("HTTP/1.1 200 OK").skip(1).map(|part| part.split("\r\n\r\n").nth(1).unwrap()).collect();
    assert_eq!(bodies, ["1\r\n1\r\n0", "1\r\n2\r\n0", "1\r\n3\r\n0"], "{answer}");
}

#[tokio::test]
async fn bodies_stream_both_ways_while_they_are_being_sent() {
    let replica = Replica::start(Answer::Echo).await;
    let lb = ready(&[&replica], &[]).await;
    let mut stream = TcpStream::connect(lb.addr).await.unwrap();
    stream.write_all(b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    for piece in ["first", "other", "third"] {
        stream.write_all(format!("5\r\n{piece}\r\n").as_bytes()).await.unwrap();
        // Each piece is back before the next is sent.
        while !String::from_utf8_lossy(&answer).contains(piece) {
            assert!(stream.read_buf(&mut answer).await.unwrap() > 0);
        }
    }
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    while !answer.ends_with(b"0\r\n\r\n") {
        assert!(stream.read_buf(&mut answer).await.unwrap() > 0);
    }
}

#[tokio::test]
async fn large_bodies_arrive_whole() {
    let big = "0123456789abcdef".repeat(256 * 1024);
    let replica = Replica::start(response("200 OK", "", &big)).await;
    let lb = ready(&[&replica], &[]).await;
    let answer = lb.client.post(lb.url("/big")).body(big.clone()).send().await.unwrap();
    assert_eq!(answer.content_length(), Some(big.len() as u64));
    assert!(answer.text().await.unwrap() == big);
    assert_eq!(field(&replica.requests()[0], "content-length"), Some(&*big.len().to_string()));
}

#[tokio::test]
async fn what_may_be_repeated_goes_to_another_replica_and_the_rest_is_a_502() {
    let (good, bad) = (Replica::start(response("200 OK", "", "yes")).await, Replica::start(Answer::Close).await);
    let args = ["--bound", "off", "--hash-key", "header:x-key", "--hash", "xxh3", "--retry-budget", "off"];
    let lb = ready(&[&good, &bad], &args).await;
    let mut posted = std::collections::BTreeMap::<u16, usize>::new();
    for key in 0..40 {
        let send = async |method: &str| {
            let request = lb.client.request(method.parse().unwrap(), lb.url("/x")).header("x-key", key.to_string());
            request.send().await.unwrap()
        };
        for method in ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"] {
            assert_eq!(send(method).await.status(), 200, "{method}");
        }
        let (before, answer) = (good.requests().len(), send("POST").await);
        let status = answer.status().as_u16();
        *posted.entry(status).or_default() += 1;
        if status == 502 {
            assert_eq!(good.requests().len(), before, "a POST was repeated");
            let body = answer.text().await.unwrap();
            assert!(body.starts_with(r#"{"message":"<Error> replica S2 failed: "#), "{body}");
        }
    }
    assert!(posted.len() == 2 && posted[&200] > 5 && posted[&502] > 5, "both owned some keys: {posted:?}");
    assert!(lb.metric("ringkeeper_retries_total").await > 20.0);
}

#[tokio::test]
async fn a_post_that_never_reached_a_replica_goes_to_another_with_its_body() {
    let good = Replica::start(response("200 OK", "", "yes")).await;
    let refusing = Replica::start(response("200 OK", "", "no")).await;
    // Heartbeats so rare that only live traffic can find out.
    let lb = ready(&[&good, &refusing], &["--heartbeat-interval", "1h", "--hash", "xxh3"]).await;
    let addr = refusing.addr;
    drop(refusing);
    eventually("nobody listens any more", async || TcpStream::connect(addr).await.err()).await;
    let mut refused = false;
    for n in 0..60 {
        let answer = lb.client.post(lb.url("/x")).body(format!("body {n}")).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.text().await.unwrap(), "yes");
        refused |= lb.log().iter().any(|line| line.contains("refused a connection, out of rotation"));
    }
    assert_eq!(good.requests().len(), 60);
    assert!(refused, "{:?}", lb.log());
    let states: Vec<_> = lb.replicas().await.iter().map(|replica| replica["state"].clone()).collect();
    assert_eq!(states, ["ready", "unready"]);
    // Probed at once, and again with each heartbeat; here nobody answers, so it stays out.
    assert_eq!(lb.metric("ringkeeper_retries_total").await, 1.0, "only the first had to find out");
}

#[tokio::test]
async fn the_last_failure_is_told_when_nobody_is_left() {
    let (one, two) = (Replica::start(Answer::Close).await, Replica::start(Answer::Close).await);
    let lb = ready(&[&one, &two], &[]).await;
    let (status, body) = lb.get("/x").await;
    assert!(status == 502 && body.contains("failed: "), "{status} {body}");
    assert_eq!((one.requests().len(), two.requests().len()), (1, 1), "each was tried once");
}

#[tokio::test]
async fn a_connection_that_was_closed_while_idle_costs_nothing() {
    // It closes each connection after its answer, without saying so.
    let replica = Replica::start(Answer::BytesAndClose("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nyes".into())).await;
    let lb = ready(&[&replica], &[]).await;
    for _ in 0..200 {
        assert_eq!(lb.get("/x").await, (200, "yes".into()));
    }
}

#[tokio::test]
async fn a_response_that_breaks_off_is_not_passed_as_whole() {
    let replica =
        Replica::start(Answer::BytesAndClose("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this".into())).await;
    let lb = ready(&[&replica], &[]).await;
    let answer = lb.client.get(lb.url("/x")).send().await.unwrap();
    assert!(answer.text().await.is_err());
    assert_eq!(replica.requests().len(), 1, "not tried again after the first byte");
    let (failed, _) = eventually("the failure is counted", async || {
        lb.replicas().await[0]["failed"].as_u64().filter(|failed| *failed > 0)
    })
    .await;
    assert_eq!(failed, 1);
}

#[tokio::test]
async fn a_replica_that_is_too_slow_is_a_504() {
    let replica = Replica::start(Answer::Silence).await;
    let lb = ready(&[&replica], &["--response-timeout", "200ms"]).await;
    let (status, body) = lb.get("/x").await;
    let expected = r#"{"message":"<Error> replica S1 did not answer in time","status":"failure"}"#;
    assert_eq!((status, body.as_str()), (504, expected));
    assert_eq!(replica.requests().len(), 1);
    eventually("its lease is given back", async || (lb.replicas().await[0]["in_flight"] == 0).then_some(())).await;
}

#[tokio::test]
async fn a_stalled_body_ends_the_exchange_either_way() {
    let stalling =
        Replica::start(Answer::Bytes("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this".into())).await;
    let lb = ready(&[&stalling], &["--idle-timeout", "200ms", "--response-timeout", "300ms"]).await;
    assert!(lb.client.get(lb.url("/x")).send().await.unwrap().text().await.is_err());
    let answer = raw(&lb, "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nonly this", "failure").await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    eventually("all leases are given back", async || (lb.replicas().await[0]["in_flight"] == 0).then_some(())).await;
}

#[tokio::test]
async fn a_client_that_leaves_gives_back_its_lease() {
    let replica = Replica::start(Answer::Silence).await;
    let lb = ready(&[&replica], &[]).await;
    let mut stream = TcpStream::connect(lb.addr).await.unwrap();
    stream.write_all(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let in_flight = async |n: u64| (lb.replicas().await[0]["in_flight"] == n).then_some(());
    eventually("the request is under way", || in_flight(1)).await;
    drop(stream);
    eventually("the lease is given back", || in_flight(0)).await;
}

#[tokio::test]
async fn nobody_ready_is_a_503_and_a_member_that_comes_up_is_found() {
    let addr = nobody().await;
    let lb = balance(&[addr], &["--heartbeat-interval", "50ms"]).await;
    assert_eq!(lb.get("/x").await.0, 503);
    let listener = tokio::net::TcpListener::bind(addr).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
        }
    });
    lb.until_ready().await;
    assert_eq!(lb.get("/x").await.0, 200);
}

#[tokio::test]
async fn a_hash_key_keeps_a_client_on_its_replica() {
    let replicas = [
        Replica::start(response("200 OK", "", "0")).await,
        Replica::start(response("200 OK", "", "1")).await,
        Replica::start(response("200 OK", "", "2")).await,
    ];
    let members: Vec<_> = replicas.iter().collect();
    let lb = ready(&members, &["--hash", "xxh3", "--hash-key", "cookie:sid"]).await;
    let ask = async |sid: u32| {
        let request = lb.client.get(lb.url("/x")).header("cookie", format!("a=b; sid=user{sid}"));
        request.send().await.unwrap().text().await.unwrap()
    };
    let mut used = std::collections::BTreeSet::new();
    for sid in 0..30 {
        let replica = ask(sid).await;
        for _ in 0..3 {
            assert_eq!(ask(sid).await, replica);
        }
        used.insert(replica);
    }
    assert_eq!(used.len(), 3);
}

#[tokio::test]
async fn the_first_hash_key_that_a_request_has_places_it() {
    let mut replicas = Vec::new();
    for name in ["0", "1", "2", "3"] {
        replicas.push(Replica::start(response("200 OK", "", name)).await);
    }
    let members: Vec<_> = replicas.iter().collect();
    // Without virtual nodes enough, a few keys might all belong to one replica.
    let ring = ["--hash", "xxh3", "--slots", "4096", "--vnodes", "100"];
    let lb = ready(&members, &[&ring[..], &["--hash-key", "header:x-user,cookie:sid,client-ip"]].concat()).await;
    let ask = async |from: u8, fields: &str| {
        let mut client = Client::connect_from(&lb, [127, 0, 0, from].into()).await;
        client.ask(&format!("GET /x HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).await.text()
    };
    let mut by_user = Vec::new();
    for n in 1..=20 {
        // Whatever comes behind it in the list is not asked.
        let by_header = ask(1, &format!("X-User: u{n}\r\n")).await;
        assert_eq!(ask(n, &format!("Cookie: sid=other{n}\r\nX-User: u{n}\r\n")).await, by_header);
        // The same text as a cookie is the same key; an empty header is none.
        assert_eq!(ask(n, &format!("X-User:\r\nCookie: sid=u{n}\r\n")).await, by_header);
        by_user.push(by_header);
    }
    let mut by_address = Vec::new();
    for n in 1..=20 {
        let replica = ask(n, "").await;
        for fields in ["Cookie: sid=\r\n", "X-User: \r\nCookie: other=1; sid=\r\n"] {
            assert_eq!(ask(n, fields).await, replica, "{n} {fields}");
        }
        by_address.push(replica);
    }
    for mut used in [by_user, by_address] {
        used.sort();
        used.dedup();
        assert!(used.len() > 1, "all 20 keys belong to {used:?}");
    }
}

#[tokio::test]
async fn tunnels_are_refused() {
    let replica = Replica::start(response("200 OK", "", "yes")).await;
    let lb = ready(&[&replica], &[]).await;
    let answer = raw(&lb, "CONNECT a:1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "failure").await;
    assert!(answer.starts_with("HTTP/1.1 405 ") && answer.contains("CONNECT is not supported"), "{answer}");
    assert!(replica.requests().is_empty());
}

#[tokio::test]
async fn a_get_with_a_body_arrives_with_it() {
    let replica = Replica::start(Answer::Echo).await;
    let lb = ready(&[&replica], &[]).await;
    let answer = raw(
        &lb,
        "GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nquery\r\n0\r\n\r\n",
        "",
    )
    .await;
    assert!(answer.contains("\r\n\r\n5\r\nquery\r\n0\r\n\r\n"), "{answer}");
    assert_eq!(field(&replica.requests()[0], "transfer-encoding"), Some("chunked"));
}

#[tokio::test]
async fn a_response_with_length_and_chunks_is_framed_by_its_chunks() {
    let both = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n6\r\nlonger\r\n0\r\n\r\n";
    let replica = Replica::start(Answer::Bytes(both.into())).await;
    let lb = ready(&[&replica], &[]).await;
    assert_eq!(lb.get("/x").await, (200, "longer".into()));
}

#[tokio::test]
async fn a_switch_of_protocols_that_nobody_asked_for_is_a_502_and_not_repeated() {
    let switch = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n";
    let (one, two) =
        (Replica::start(Answer::Bytes(switch.into())).await, Replica::start(Answer::Bytes(switch.into())).await);
    let lb = ready(&[&one, &two], &[]).await;
    assert_eq!(lb.get("/x").await.0, 502);
    assert_eq!(one.requests().len() + two.requests().len(), 1);
}
