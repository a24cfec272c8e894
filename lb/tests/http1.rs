//! HTTP/1.0 and 1.1 on both sides: versions, connections kept and closed, pipelining, forms of the target.

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
use support::replica::{Replica, ready};
use support::wire::field;

#[tokio::test]
async fn a_1_0_client_is_closed_after_its_answer_unless_it_asks_to_be_kept() {
    let replica = Replica::mirror().await;
    let lb = ready(&[&replica], &[]).await;
    let mut client = Client::connect(&lb).await;
    // What it sends behind its one request is nobody's business any more.
    let answer = client.ask("GET /1 HTTP/1.0\r\n\r\nGET /2 HTTP/1.0\r\n\r\n").await;
    assert_eq!((answer.status(), answer.text().as_str()), (200, "GET /1 "));
    assert!(!answer.connection("keep-alive"), "{}", answer.head);
    client.closed().await;

    let mut client = Client::connect(&lb).await;
    for target in ["/3", "/4"] {
        let answer = client.ask(&format!("GET {target} HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n")).await;
        assert_eq!((answer.status(), answer.text()), (200, format!("GET {target} ")));
        assert!(answer.connection("keep-alive"), "{}", answer.head);
    }
    let targets: Vec<_> = replica.requests().iter().map(|head| head.split(' ').nth(1).unwrap().to_owned()).collect();
    assert_eq!(targets, ["/1", "/3", "/4"]);
    assert!(replica.requests().iter().all(|head| head.lines().next().unwrap().ends_with(" HTTP/1.1")));
    assert!(replica.requests().iter().all(|head| field(head, "connection").is_none()));
}

#[tokio::test]
async fn a_1_0_client_gets_chunks_decoded_and_their_end_is_the_connections() {
    let replica = Replica::scripted(|mut conn| async move {
        while conn.request().await.is_some() {
            conn.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n").await;
            conn.send("5;x=y\r\nfirst\r\n7\r\n second\r\n0\r\nx-sum: 1\r\n\r\n").await;
        }
    })
    .await;
    let lb = ready(&[&replica], &[]).await;
    for connection in ["", "Connection: keep-alive\r\n"] {
        let mut client = Client::connect(&lb).await;
        let answer = client.ask(&format!("GET /x HTTP/1.0\r\n{connection}\r\n")).await;
        assert_eq!((answer.status(), answer.text().as_str()), (200, "first second"), "{}", answer.head);
        assert!(answer.field("transfer-encoding").is_none() && !answer.connection("keep-alive"), "{}", answer.head);
        client.closed().await;
    }
}

#[tokio::test]
async fn a_1_0_replica_is_asked_once_a_connection_and_its_version_stays_there() {
    let replica = Replica::scripted(|mut conn| async move {
        // It would answer again, but has not said so.
        while conn.request().await.is_some() {
            conn.send("HTTP/1.0 200 Fine\r\nContent-Length: 2\r\n\r\nok").await;
        }
    })
    .await;
    let lb = ready(&[&replica], &["--workers", "1"]).await;
    let mut client = Client::connect(&lb).await;
    for _ in 0..3 {
        let answer = client.get("/x").await;
        assert!(answer.head.starts_with("HTTP/1.1 200 "), "{}", answer.head);
        assert!(answer.text() == "ok" && !answer.connection("close"), "{}", answer.head);
    }
    assert_eq!(replica.connections().len(), 3);
    for n in 0..3 {
        replica.until_ended(n).await;
    }
}

#[tokio::test]
async fn a_body_that_ends_with_its_connection_is_chunked_for_1_1_and_closed_for_1_0() {
    for head in ["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.0 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"] {
        let replica = Replica::scripted(move |mut conn| async move {
            if conn.request().await.is_some() {
                conn.send(head).await;
                conn.dribble("all of it").await;
            }
        })
        .await;
        let lb = ready(&[&replica], &[]).await;
        let mut client = Client::connect(&lb).await;
        for _ in 0..2 {
            let answer = client.get("/x").await;
            assert_eq!(answer.text(), "all of it", "{}", answer.head);
            assert_eq!(answer.field("transfer-encoding"), Some("chunked"), "{}", answer.head);
        }
        let mut old = Client::connect(&lb).await;
        let answer = old.ask("GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
        assert_eq!(answer.text(), "all of it", "{}", answer.head);
        assert!(answer.field("transfer-encoding").is_none() && !answer.connection("keep-alive"), "{}", answer.head);
        old.closed().await;
    }
}

#[tokio::test]
async fn a_body_that_ends_with_a_reset_is_not_passed_as_whole() {
    let gate = Gate::closed();
    let held = gate.clone();
    let replica = Replica::scripted(move |mut conn| {
        let held = held.clone();
        async move {
            if conn.request().await.is_some() {
                conn.send("HTTP/1.1 200 OK\r\n\r\nonly this").await;
                held.pass().await;
                conn.reset();
            }
        }
    })
    .await;
    let lb = ready(&[&replica], &[]).await;
    let mut client = Client::connect(&lb).await;
    client.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.until("only this").await;
    gate.open();
    let rest = String::from_utf8(client.rest().await).unwrap();
    assert!(!rest.contains("\r\n0\r\n\r\n"), "a last chunk after a body that broke off: {rest:?}");
}

#[tokio::test]
async fn a_client_that_says_close_is_closed_and_what_it_sends_behind_is_not_read() {
    let replica = Replica::mirror().await;
    let lb = ready(&[&replica], &[]).await;
    for close in ["close", "CLOSE", "x-a, Close"] {
        let mut client = Client::connect(&lb).await;
        let two =
            format!("GET /1 HTTP/1.1\r\nHost: a\r\nConnection: {close}\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n");
        let answer = client.ask(&two).await;
        assert!(answer.text() == "GET /1 " && answer.connection("close"), "{}", answer.head);
        client.closed().await;
    }
    assert!(replica.requests().iter().all(|head| head.starts_with("GET /1 ")), "{:?}", replica.requests());
}

/// A replica that answers with the request's target, once it is let.
async fn held() -> (Replica, Gate) {
    let gate = Gate::closed();
    let held = gate.clone();
    let replica = Replica::scripted(move |mut conn| {
        let held = held.clone();
        async move {
            while let Some(head) = conn.request().await {
                held.pass().await;
                conn.answer(head.split(' ').nth(1).unwrap()).await;
            }
        }
    })
    .await;
    (replica, gate)
}

#[tokio::test]
async fn a_replica_that_says_close_closes_its_own_connection_only() {
    let replica = Replica::scripted(|mut conn| async move {
        // It says so, and leaves the closing to the balancer.
        while conn.request().await.is_some() {
            conn.send("HTTP/1.1 200 OK\r\nConnection: Close\r\ncontent-length: 2\r\n\r\nok").await;
        }
    })
    .await;
    let lb = ready(&[&replica], &["--workers", "1"]).await;
    let mut client = Client::connect(&lb).await;
    for n in 0..3 {
        let answer = client.get("/x").await;
        assert!(answer.text() == "ok" && !answer.connection("close"), "{}", answer.head);
        replica.until_ended(n).await;
    }
    assert_eq!(replica.connections().len(), 3);
}

#[tokio::test]
async fn a_mix_of_pipelined_requests_is_answered_in_order() {
    let replica = Replica::mirror().await;
    let lb = ready(&[&replica], &[]).await;
    let all = "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n\
               POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\nGET /not-one\
               POST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n4\r\n two\r\n0\r\n\r\n\
               HEAD /4 HTTP/1.1\r\nHost: a\r\n\r\n\
               \r\n\r\nPUT /5 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n\
               POST /6 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n\
               GET /7 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let halves = all.len() / 2;
    for way in ["at once", "byte by byte", "in two halves"] {
        let mut client = Client::connect(&lb).await;
        match way {
            "at once" => client.send(all).await,
            "byte by byte" => client.dribble(all).await,
            _ => {
                client.send(&all[..halves]).await;
                assert_eq!(client.response().await.text(), "GET /1 ", "before the second half has come");
                client.send(&all[halves..]).await;
            }
        }
        let mut answers =
            vec!["GET /1 ", "POST /2 GET /not-one", "POST /3 one two", "", "PUT /5 ", "POST /6 ", "GET /7 "];
        if way == "in two halves" {
            answers.remove(0);
        }
        for expected in answers {
            let answer = client.response_to(if expected.is_empty() { "HEAD" } else { "GET" }).await;
            assert_eq!((answer.status(), answer.text().as_str()), (200, expected), "{way}");
        }
        client.closed().await;
    }
    assert_eq!(replica.requests().len(), 21);
}

#[tokio::test]
async fn a_request_waits_for_the_answer_to_the_one_before_it() {
    // Whatever is pipelined behind a POST may depend on what that does.
    let (replica, gate) = held().await;
    let lb = ready(&[&replica], &[]).await;
    let mut client = Client::connect(&lb).await;
    client.send("POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    replica.until_asked(1).await;
    // Another client's request goes all the way while this one waits.
    let mut other = Client::connect(&lb).await;
    other.send("GET /other HTTP/1.1\r\nHost: a\r\n\r\n").await;
    replica.until_asked(2).await;
    assert!(replica.requests().iter().all(|head| !head.starts_with("GET /2 ")), "{:?}", replica.requests());
    gate.open();
    assert_eq!(client.response().await.text(), "/1");
    assert_eq!(client.response().await.text(), "/2");
    assert_eq!(other.response().await.text(), "/other");
}

#[tokio::test]
async fn each_form_of_a_target_arrives_as_origin_form_or_asterisk() {
    let replica = Replica::mirror().await;
    let lb = ready(&[&replica], &[]).await;
    let mut client = Client::connect(&lb).await;
    for (method, target, sent, host) in [
        ("OPTIONS", "*", "*", "given.example"),
        ("OPTIONS", "/x", "/x", "given.example"),
        ("GET", "http://real.example:81/a/b?c=d", "/a/b?c=d", "real.example:81"),
        ("GET", "HTTPS://Real.example/a", "/a", "Real.example"),
        ("GET", "http://real.example", "/", "real.example"),
        ("GET", "http://real.example?c", "/?c", "real.example"),
        ("GET", "http://[::1]:81/a", "/a", "[::1]:81"),
        ("GET", "//a/..//%2e%2E/b;c?d=/?e&%00", "//a/..//%2e%2E/b;c?d=/?e&%00", "given.example"),
        ("GET", "/\u{e4}?\u{f6}", "/\u{e4}?\u{f6}", "given.example"),
        ("X-CUSTOM", "/x", "/x", "given.example"),
    ] {
        let answer = client.ask(&format!("{method} {target} HTTP/1.1\r\nHost: given.example\r\n\r\n")).await;
        assert_eq!((answer.status(), answer.text()), (200, format!("{method} {sent} ")), "{target}");
        let head = replica.requests().pop().unwrap();
        assert!(
            field(&head, "host") == Some(host) && field(&head, "x-forwarded-host") == Some(host),
            "{target}: {head}"
        );
    }
}

#[tokio::test]
async fn a_hundred_requests_in_a_row_take_one_connection_to_the_replica() {
    let replica = Replica::mirror().await;
    let lb = ready(&[&replica], &["--workers", "1"]).await;
    let mut client = Client::connect(&lb).await;
    for n in 0..100 {
        let answer = if n % 2 == 0 {
            client.get("/x").await
        } else {
            client.ask("POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n").await
        };
        assert_eq!(answer.status(), 200);
    }
    assert_eq!((replica.requests().len(), replica.connections().len()), (100, 1));
    assert_eq!(lb.metric("ringkeeper_replica_connections_total").await, 1.0);
}

#[tokio::test]
async fn a_connection_is_not_used_again_if_the_client_left_in_the_middle_of_a_response() {
    for (framing, begun) in [("content-length: 100", "begun"), ("transfer-encoding: chunked", "5\r\nbegun\r\n")] {
        let replica = Replica::scripted(move |mut conn| async move {
            while conn.request().await.is_some() {
                if conn.number() == 0 {
                    conn.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n{begun}")).await;
                } else {
                    conn.answer("another").await;
                }
            }
        })
        .await;
        let lb = ready(&[&replica], &["--workers", "1"]).await;
        let mut leaving = Client::connect(&lb).await;
        leaving.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await;
        leaving.until("begun").await;
        drop(leaving);
        replica.until_ended(0).await;
        assert_eq!(Client::connect(&lb).await.get("/x").await.text(), "another");
        assert_eq!(replica.connections().len(), 2, "{framing}");
    }
}

#[tokio::test]
async fn what_a_replica_sends_behind_its_answer_is_nobodys_answer() {
    // In the same packet, and later, as servers do that say 408 before they close an idle connection.
    for at_once in [true, false] {
        let (gate, sent) = (Gate::closed(), Gate::closed());
        let gates = (gate.clone(), sent.clone());
        let replica = Replica::scripted(move |mut conn| {
            let (gate, sent) = gates.clone();
            async move {
                const LAST: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                const MORE: &str = "HTTP/1.1 408 Request Timeout\r\ncontent-length: 6\r\n\r\npoison";
                while conn.request().await.is_some() {
                    if at_once {
                        conn.send(format!("{LAST}{MORE}")).await;
                    } else {
                        conn.send(LAST).await;
                        gate.pass().await;
                        conn.send(MORE).await;
                    }
                    sent.let_one();
                }
            }
        })
        .await;
        let lb = ready(&[&replica], &["--workers", "1"]).await;
        let mut client = Client::connect(&lb).await;
        for n in 1..=10 {
            let answer = client.get("/x").await;
            assert_eq!((answer.status(), answer.text().as_str()), (200, "ok"), "request {n}, at once: {at_once}");
            gate.let_one();
            sent.pass().await;
        }
        assert_eq!(replica.connections().len(), 10, "each is used once");
    }
}
