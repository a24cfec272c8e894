//! Responses of HTTP/1: those without a body, interim ones, large heads, and those that no client may see.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "tests fail by panicking, and say what they measured"
)]
#![allow(clippy::disallowed_methods, reason = "tests read the environment that they pass on")]

mod support;

use support::client::Client;
use support::replica::{Answer, Replica, ready};
use support::{Lb, eventually};

/// A balancer over a replica that answers target `/n` with the `n`th of these, byte for byte.
async fn answering(answers: &[&str], args: &[&str]) -> (Replica, Lb) {
    let answers: Vec<String> = answers.iter().map(|&answer| answer.to_owned()).collect();
    let replica = Replica::scripted(move |mut conn| {
        let answers = answers.clone();
        async move {
            while let Some(head) = conn.request().await {
                let n: usize = head.split(['/', ' ']).nth(2).and_then(|n| n.parse().ok()).unwrap();
                conn.send(&answers[n]).await;
            }
        }
    })
    .await;
    let lb = ready(&[&replica], &[&["--workers", "1"], args].concat()).await;
    (replica, lb)
}

#[tokio::test]
async fn responses_without_a_body_end_with_their_heads() {
    let (replica, lb) = answering(
        &[
            "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 304 Not Modified\r\ncontent-length: 1000\r\netag: \"a\"\r\n\r\n",
            "HTTP/1.1 304 Not Modified\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 304 Not Modified\r\n\r\n",
            "HTTP/1.1 204 No Content\r\nx-a: 1\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nyes",
        ],
        &[],
    )
    .await;
    let methods = ["HEAD", "HEAD", "HEAD", "GET", "GET", "GET", "GET", "GET", "GET"];
    let all: String =
        methods.iter().enumerate().map(|(n, method)| format!("{method} /{n} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    let mut client = Client::connect(&lb).await;
    client.send(all).await;
    let mut answers = Vec::new();
    for method in methods {
        answers.push(client.response_to(method).await);
    }
    let statuses: Vec<_> = answers.iter().map(|answer| answer.status()).collect();
    assert_eq!(statuses, [200, 200, 200, 304, 304, 304, 204, 200, 200]);
    assert_eq!((answers[0].field("content-length"), answers[3].field("content-length")), (Some("1000"), Some("1000")));
    for empty in [5, 6] {
        let head = &answers[empty].head;
        let framed = answers[empty].field("transfer-encoding").or(answers[empty].field("content-length"));
        assert_eq!(framed, None, "{head}");
    }
    assert_eq!(answers[8].text(), "yes");
    assert!(client.is_quiet());
    assert_eq!(replica.connections().len(), 1, "all leave the connection as it should be");
}

#[tokio::test]
async fn head_of_a_1_0_client_ends_with_its_head_too() {
    let (_replica, lb) = answering(&["HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n"], &[]).await;
    let mut client = Client::connect(&lb).await;
    for _ in 0..2 {
        client.send("HEAD /0 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
        let answer = client.response_to("HEAD").await;
        assert!(answer.field("content-length") == Some("1000") && answer.connection("keep-alive"), "{}", answer.head);
    }
}

#[tokio::test]
async fn interim_responses_pass_in_order_and_not_to_1_0_clients() {
    let (replica, lb) = answering(
        &["HTTP/1.1 102 Processing\r\n\r\n\
           HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\nconnection: x-hop\r\nx-hop: 1\r\n\r\n\
           HTTP/1.1 103 Early Hints\r\nlink: </b.css>\r\n\r\n\
           HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nyes"],
        &[],
    )
    .await;
    let mut client = Client::connect(&lb).await;
    for _ in 0..2 {
        let answer = client.get("/0").await;
        assert_eq!((answer.status(), answer.text().as_str()), (200, "yes"));
        let [one, two, three] = &answer.interim[..] else { panic!("{:?}", answer.interim) };
        assert!(one.starts_with("HTTP/1.1 102 "), "{one}");
        assert!(two.starts_with("HTTP/1.1 103 ") && two.contains("link: </a.css>") && !two.contains("x-hop"), "{two}");
        assert!(three.starts_with("HTTP/1.1 103 ") && three.contains("link: </b.css>"), "{three}");
    }
    let mut old = Client::connect(&lb).await;
    let answer = old.ask("GET /0 HTTP/1.0\r\n\r\n").await;
    assert_eq!((answer.status(), answer.text().as_str(), answer.interim.len()), (200, "yes", 0));
    old.closed().await;
    assert_eq!(replica.connections().len(), 1);
}

#[tokio::test]
async fn an_interim_response_is_passed_before_the_final_one_is_there() {
    let gate = support::conn::Gate::closed();
    let held = gate.clone();
    let replica = Replica::scripted(move |mut conn| {
        let held = held.clone();
        async move {
            while conn.request().await.is_some() {
                conn.send("HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n").await;
                held.pass().await;
                conn.answer("yes").await;
            }
        }
    })
    .await;
    let lb = ready(&[&replica], &[]).await;
    let mut client = Client::connect(&lb).await;
    client.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(client.head().await.starts_with("HTTP/1.1 103 "));
    gate.open();
    assert_eq!(client.response().await.text(), "yes");
}

#[tokio::test]
async fn own_fields_of_a_response_pass_as_they_are() {
    let (_replica, lb) = answering(
        &["HTTP/1.1 299 Some Thing, Else\r\nSet-Cookie: a=1\r\nX-Mixed:   spaced \t\r\nSet-Cookie: b=2\r\nX-Empty:\r\n\
           X-Latin: \u{e4}\r\nWarning: 1\r\nContent-Length: 0\r\n\r\n"],
        &[],
    )
    .await;
    let answer = Client::connect(&lb).await.get("/0").await;
    assert!(answer.head.starts_with("HTTP/1.1 299 Some Thing, Else\r\n"), "{}", answer.head);
    let cookies = support::wire::fields(&answer.head, "set-cookie");
    assert_eq!(cookies, ["a=1", "b=2"], "{}", answer.head);
    for (name, value) in [("x-mixed", "spaced"), ("x-empty", ""), ("x-latin", "\u{e4}"), ("warning", "1")] {
        assert_eq!(answer.field(name), Some(value), "{}", answer.head);
    }
    assert_eq!(answer.field("via"), None, "{}", answer.head);
}

/// A response whose whole head, the empty line included, has this many bytes.
fn long_head(bytes: usize) -> String {
    let (start, end) = ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n", "\r\n\r\nyes");
    let mut head = start.to_owned();
    let field = |n: usize, length: usize| format!("x-{n}: {}\r\n", "v".repeat(length));
    let mut n = 1000;
    while head.len() + 2000 < bytes {
        head += &field(n, 1000);
        n += 1;
    }
    let last = bytes + "yes".len() - head.len() - end.len() - "x-last: ".len();
    head + "x-last: " + &"v".repeat(last) + end
}

#[tokio::test]
async fn a_response_head_may_have_64_kib_and_not_more() {
    let (fits, large) = (long_head(64 << 10), long_head((64 << 10) + 1));
    let (huge, endless) = (long_head(1 << 20), format!("HTTP/1.1 200 OK\r\nx: {}", "v".repeat(70_000)));
    let (replica, lb) = answering(&[&fits, &large, &huge, &endless], &[]).await;
    let answer = Client::connect(&lb).await.get("/0").await;
    assert_eq!((answer.status(), answer.text().as_str()), (200, "yes"));
    assert_eq!(answer.field("x-1000").map(str::len), Some(1000));
    for n in 1..4 {
        let answer = Client::connect(&lb).await.get(&format!("/{n}")).await;
        assert_eq!(answer.status(), 502, "{n}: {:.200}", answer.head);
    }
    assert_eq!(replica.requests().len(), 4, "none was tried again");
}

#[tokio::test]
async fn many_fields_in_a_response_are_no_fault() {
    let fields: String = (0..400).map(|n| format!("x-{n}: {n}\r\n")).collect();
    let (_replica, lb) = answering(&[&format!("HTTP/1.1 200 OK\r\n{fields}content-length: 3\r\n\r\nyes")], &[]).await;
    let answer = Client::connect(&lb).await.get("/0").await;
    assert_eq!((answer.status(), answer.field("x-399"), answer.text().as_str()), (200, Some("399"), "yes"));
}

#[tokio::test]
async fn a_response_that_cannot_be_trusted_is_a_502_and_not_asked_for_again() {
    for bad in [
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 5\r\n\r\nyes",
        "HTTP/1.1 200 OK\r\ncontent-length: 3, 5\r\n\r\nyes",
        "HTTP/1.1 200 OK\r\ncontent-length: -3\r\n\r\nyes",
        "HTTP/1.1 200 OK\r\ncontent-length: +3\r\n\r\nyes",
        "HTTP/1.1 200 OK\r\ncontent-length: 0x3\r\n\r\nyes",
        "HTTP/1.1 200 OK\r\ncontent-length: 3 3\r\n\r\nyes",
        "HTTP/1.1 200 OK\r\ncontent-length:\r\n\r\nyes",
        "HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551616\r\n\r\nyes",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nyes",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, gzip\r\n\r\n3\r\nyes\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: xchunked\r\n\r\n3\r\nyes\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\ncontent-length: 3\r\n\r\nyes",
        "HTTP/1.1 200 OK\r\n: no name\r\ncontent-length: 3\r\n\r\nyes",
        "HTTP/1.1 200 OK\r\nx-a: a\0b\r\ncontent-length: 3\r\n\r\nyes",
        "HTTP/1.1 200 OK\r\nx-a: a\rb\r\ncontent-length: 3\r\n\r\nyes",
        "HTTP/1.1 20 OK\r\ncontent-length: 3\r\n\r\nyes",
        "HTTP/1.1 2000 OK\r\ncontent-length: 3\r\n\r\nyes",
        "HTTP/1.1 abc OK\r\ncontent-length: 3\r\n\r\nyes",
        "HTTP/2.0 200 OK\r\ncontent-length: 3\r\n\r\nyes",
        "ICY 200 OK\r\ncontent-length: 3\r\n\r\nyes",
        "yes\r\n\r\n",
        "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\r\n\r\n",
    ] {
        let (one, two) = (Answer::Bytes(bad.into()), Answer::Bytes(bad.into()));
        let (one, two) = (Replica::start(one).await, Replica::start(two).await);
        let lb = ready(&[&one, &two], &["--workers", "1"]).await;
        let mut client = Client::connect(&lb).await;
        let answer = client.get("/x").await;
        assert!(answer.status() == 502 && answer.text().contains("<Error> replica S"), "{bad:?}: {}", answer.text());
        assert_eq!(one.requests().len() + two.requests().len(), 1, "{bad:?}");
        let asked = if one.requests().is_empty() { &two } else { &one };
        asked.until_ended(0).await;
        // The client has done nothing wrong.
        assert!(client.get("/x").await.status() == 502, "{bad:?}");
    }
}

#[tokio::test]
async fn a_response_with_length_and_chunks_costs_its_connection() {
    let both = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n6\r\nlonger\r\n0\r\n\r\n";
    let (replica, lb) = answering(&[both], &[]).await;
    let mut client = Client::connect(&lb).await;
    for _ in 0..2 {
        let answer = client.get("/0").await;
        assert_eq!((answer.text().as_str(), answer.field("content-length")), ("longer", None), "{}", answer.head);
    }
    replica.until_ended(0).await;
    assert_eq!(replica.connections().len(), 2);
}

#[tokio::test]
async fn a_response_with_broken_chunks_is_not_passed_as_whole() {
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nbegun\r\n";
    let broken =
        ["5\nhello\r\n0\r\n\r\n", "g\r\nhello\r\n0\r\n\r\n", "5\r\nhello!\r\n0\r\n\r\n", "5\r\nhello\n0\r\n\r\n"];
    let answers: Vec<_> = broken.iter().map(|broken| format!("{head}{broken}")).collect();
    let (replica, lb) = answering(&answers.iter().map(String::as_str).collect::<Vec<_>>(), &[]).await;
    for (n, broken) in broken.iter().enumerate() {
        let mut client = Client::connect(&lb).await;
        client.send(format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let got = String::from_utf8(client.rest().await).unwrap();
        assert!(!got.ends_with("\r\n0\r\n\r\n"), "{broken:?}: {got}");
        replica.until_ended(n).await;
    }
    let failed = async || lb.replicas().await[0]["failed"].as_u64().filter(|failed| *failed == 4);
    eventually("each is counted as a failure", failed).await;
}
