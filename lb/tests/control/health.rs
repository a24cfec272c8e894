//! The balancer asks whether a server lives, and what it makes of the answers.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::control::{Control, Encoding, Raw, registration};
use crate::support::server::{
    TcpServer, UdpServer, Visit, exchange, is_refused, names, talker, until_refused, until_udp_is_refused,
};
use crate::support::{Lb, eventually};

/// A question every 100 ms, and a second for an answer: the tests answer in time even when they don't have the machine for
/// themselves.
const OFTEN: [&str; 4] = ["--control-interval", "100ms", "--control-timeout", "1s"];

#[tokio::test]
async fn the_balancer_asks_in_the_words_of_the_encoding_and_takes_either_word() {
    let lb = Lb::relaying(&OFTEN);
    let asked = async |encoding: Encoding, word: &str| {
        let mut server = Raw::connect(&lb, encoding).await;
        server.done(&registration("tcp", 30_000, 50_000)).await;
        let question: &[u8] = match encoding {
            Encoding::Json => b"{\"cmd\":\"hello\"}\n",
            Encoding::MessagePack => b"\x11\0\0\0\x81\xa3cmd\xabhealthcheck",
        };
        let began = Instant::now();
        // Long enough for it to be unregistered if its answers went unheard.
        for _ in 0..15 {
            assert_eq!(server.bytes(question.len()).await, question);
            server.say(&json!({"cmd": word})).await;
        }
        // Questions don't come before their time, though a late one may be closely followed by the next.
        assert!(began.elapsed() > Duration::from_millis(1100), "{:?}", began.elapsed());
        server.done(&registration("tcp", 30_001, 50_000)).await;
        let mut end = registration("tcp", 30_000, 50_000);
        end["cmd"] = json!("unregister");
        server.done(&end).await;
    };
    tokio::join!(
        asked(Encoding::Json, "hello"),
        asked(Encoding::Json, "healthcheck"),
        asked(Encoding::MessagePack, "hello"),
        asked(Encoding::MessagePack, "healthcheck"),
    );
}

#[tokio::test]
async fn a_server_that_is_not_good_gets_nothing_until_it_is() {
    let lb = Lb::relaying(&[]);
    let (a, mut a_control) = TcpServer::registered(&lb, "A", 50_000).await;
    let (b, b_control) = TcpServer::registered(&lb, "B", 50_000).await;
    let mut open = Visit::to(lb.relay(50_000)).await.unwrap();
    assert_eq!(open.name, "A");
    a_control.say(json!({"cmd": "hello", "state": "bad"}));
    lb.until_state("tcp", 50_000, a.addr, "unready").await;
    let reason = lb.member("tcp", 50_000, a.addr).await.unwrap()["reason"].clone();
    assert!(reason.as_str().unwrap().contains("'bad'"), "{reason}");
    assert_eq!(names(lb.relay(50_000), 4).await, ["B"; 4]);
    assert!(open.is_alive().await, "what is open goes on");
    // Without a word about its state, all is as before.
    a_control.say(json!({"cmd": "hello"}));
    a_control.say(json!({"cmd": "healthcheck", "state": null}));
    // What a connection says is heard in order, so this is refused when those have had their effect.
    let nothing = json!({"cmd": "unregister", "protocol": "udp", "port": 1, "relay_port": 1});
    assert_eq!(a_control.ask(nothing).await["error"], 4);
    assert_eq!(lb.member("tcp", 50_000, a.addr).await.unwrap()["state"], "unready");
    assert_eq!(names(lb.relay(50_000), 4).await, ["B"; 4]);
    a_control.say(json!({"cmd": "hello", "state": "still bad"}));
    lb.until_logged("'still bad'").await;
    assert_eq!(names(lb.relay(50_000), 4).await, ["B"; 4]);
    a_control.say(json!({"cmd": "healthcheck", "state": "good"}));
    lb.until_state("tcp", 50_000, a.addr, "ready").await;
    let after = names(lb.relay(50_000), 4).await;
    assert_eq!(after.iter().filter(|name| *name == "A").count(), 2, "{after:?}");
    a_control.say(json!({"cmd": "hello"}));

    // If nobody is good, the port stays open, and nobody is kept waiting.
    a_control.say(json!({"cmd": "hello", "state": "busy"}));
    b_control.say(json!({"cmd": "hello", "state": ""}));
    lb.until_state("tcp", 50_000, a.addr, "unready").await;
    lb.until_state("tcp", 50_000, b.addr, "unready").await;
    let error = Visit::to(lb.relay(50_000)).await.err().expect("nobody serves");
    assert_ne!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    assert_eq!(lb.port("tcp", 50_000).await.unwrap()["unserved"], 1);
    b_control.say(json!({"cmd": "hello", "state": "good"}));
    lb.until_state("tcp", 50_000, b.addr, "ready").await;
    assert_eq!(names(lb.relay(50_000), 2).await, ["B"; 2]);
}

#[tokio::test]
async fn a_state_may_be_that_of_one_registration() {
    let lb = Lb::relaying(&[]);
    let server = TcpServer::named("A").await;
    let mut control = Control::connect_as(&lb, server.ip(), Encoding::MessagePack).await;
    control.register("tcp", server.addr.port(), 50_000).await;
    control.register("tcp", server.addr.port(), 50_001).await;
    // As the published program's README has it.
    control.say(json!({"cmd": "healthcheck", "protocol": "tcp", "port": 50_000, "state": "bad"}));
    lb.until_state("tcp", 50_000, server.addr, "unready").await;
    assert_eq!(lb.member("tcp", 50_001, server.addr).await.unwrap()["state"], "ready");
    control.say(json!({"cmd": "healthcheck", "state": "good"}));
    lb.until_state("tcp", 50_000, server.addr, "ready").await;
}

#[tokio::test]
async fn a_silent_server_is_unregistered_and_cut_off_and_others_notice_nothing() {
    let lb = Lb::relaying(&OFTEN);
    let a = TcpServer::named("A").await;
    let mut silent = Raw::connect_from(&lb, a.ip(), Encoding::Json).await;
    silent.done(&registration("tcp", a.addr.port(), 50_000)).await;
    silent.done(&registration("tcp", a.addr.port(), 50_001)).await;
    let mut same = Visit::to(lb.relay(50_001)).await.unwrap();
    let mut cut = Visit::to(lb.relay(50_000)).await.unwrap();
    let (b, _b_control) = TcpServer::registered(&lb, "B", 50_000).await;
    let mut kept = Visit::to(lb.relay(50_000)).await.unwrap();
    while kept.name != "B" {
        kept = Visit::to(lb.relay(50_000)).await.unwrap();
    }
    let began = Instant::now();
    silent.ended().await;
    let (_, ended) = cut.end().await;
    assert!(ended.is_err(), "the client sees that something is missing");
    assert!(same.end().await.1.is_err());
    // A second of silence, on a machine that does other things as well.
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(is_refused(lb.relay(50_001)).await);
    assert_eq!(names(lb.relay(50_000), 4).await, ["B"; 4]);
    assert!(kept.is_alive().await, "B's client");
    let before = (a.accepted(), b.accepted());
    assert_eq!(names(lb.relay(50_000), 2).await, ["B"; 2]);
    assert_eq!((a.accepted(), b.accepted()), (before.0, before.1 + 2));
    lb.until_logged("its server was silent for 1s, its connections are closed").await;
    // It may come back.
    let mut again = Control::connect(&lb, a.ip()).await;
    again.register("tcp", a.addr.port(), 50_001).await;
    assert_eq!(names(lb.relay(50_001), 2).await, ["A"; 2]);
}

#[tokio::test]
async fn a_silent_servers_flows_end_with_it() {
    let lb = Lb::relaying(&OFTEN);
    let (a, b) = (UdpServer::named("A").await, UdpServer::named("B").await);
    let mut silent = Raw::connect_from(&lb, a.ip(), Encoding::MessagePack).await;
    let mut message = registration("udp", a.addr.port(), 20_000);
    message["affinity"] = json!("flow");
    silent.done(&message).await;
    let client = talker(lb.relay(20_000)).await;
    assert_eq!(exchange(&client, b"x").await.unwrap(), b"A");
    let mut control = Control::connect(&lb, b.ip()).await;
    control.register("udp", b.addr.port(), 20_000).await;
    silent.ended().await;
    let gone = async || lb.member("udp", 20_000, a.addr).await.is_none().then_some(());
    eventually("it is gone", gone).await;
    assert_eq!(exchange(&client, b"x").await.unwrap(), b"B");
    assert_eq!(lb.port("udp", 20_000).await.unwrap()["flows"], 1);
}

#[tokio::test]
async fn a_closed_control_connection_unregisters_all_that_it_had() {
    let lb = Lb::relaying(&[]);
    for encoding in Encoding::BOTH {
        let server = TcpServer::named("A").await;
        let mut control = Raw::connect_from(&lb, server.ip(), encoding).await;
        for port in [50_000, 50_001] {
            control.done(&registration("tcp", server.addr.port(), port)).await;
        }
        control.done(&registration("udp", 17_000, 20_000)).await;
        let (_other, _other_control) = TcpServer::registered(&lb, "B", 50_001).await;
        let mut open = Visit::to(lb.relay(50_000)).await.unwrap();
        drop(control);
        until_refused(lb.relay(50_000)).await;
        let left = async || (names(lb.relay(50_001), 2).await == ["B"; 2]).then_some(());
        eventually("only the other is left", left).await;
        until_udp_is_refused(lb.relay(20_000)).await;
        // What is open may end in its own time.
        assert!(open.is_alive().await);
        open.stream.shutdown().await.unwrap();
        assert_eq!(open.stream.read(&mut [0; 1]).await.unwrap(), 0);
        eventually("nothing is left of it", async || lb.port("tcp", 50_000).await.is_none().then_some(())).await;
    }
}
