//! Against a balancer of a few lines, written without the codec.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::codec::MAX_FRAME;
use super::*;

/// A balancer that knows one connection; written without the codec, so that it can't be wrong in the same way.
struct Fake {
    stream: TcpStream,
    encoding: Encoding,
}

impl Fake {
    async fn connected(encoding: Encoding) -> (Self, Control) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (accepted, control) = tokio::join!(listener.accept(), Control::connect(addr, encoding));
        (Self { stream: accepted.unwrap().0, encoding }, control.unwrap())
    }

    async fn hears(&mut self) -> Value {
        match self.encoding {
            Encoding::Json => {
                let mut line = Vec::new();
                while line.last() != Some(&b'\n') {
                    line.push(self.stream.read_u8().await.unwrap());
                }
                serde_json::from_slice(&line).unwrap()
            }
            Encoding::MessagePack => {
                let mut bytes = vec![0; self.stream.read_u32_le().await.unwrap() as usize];
                self.stream.read_exact(&mut bytes).await.unwrap();
                rmp_serde::from_slice(&bytes).unwrap()
            }
        }
    }

    /// Byte by byte, each in a packet of its own.
    async fn says(&mut self, message: Value) {
        let bytes = match self.encoding {
            Encoding::Json => format!("{message}\n").into_bytes(),
            Encoding::MessagePack => {
                let bytes = rmp_serde::to_vec(&message).unwrap();
                [&(bytes.len() as u32).to_le_bytes()[..], &bytes].concat()
            }
        };
        for byte in bytes {
            self.stream.write_u8(byte).await.unwrap();
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn registers_and_unregisters_in_both_encodings() {
    for encoding in [Encoding::Json, Encoding::MessagePack] {
        let (mut fake, control) = Fake::connected(encoding).await;
        let server = Registration::new(Protocol::Tcp, 30000, 50000);
        let balancer = async {
            let register = json!({"cmd": "register", "protocol": "tcp", "port": 30000, "relay_port": 50000});
            assert_eq!(fake.hears().await, register);
            fake.says(json!({"ack": "successful", "error": 0})).await;
            assert_eq!(fake.hears().await["cmd"], "unregister");
            fake.says(json!({"ack": "failed", "msg": "it isn't", "error": 4})).await;
        };
        let client = async {
            control.register(&server).await.unwrap();
            control.unregister(&server).await.unwrap_err()
        };
        let ((), error) = tokio::join!(balancer, client);
        assert_eq!(error, "unregister tcp 30000: the balancer refuses: it isn't (error 4)");
    }
}

#[tokio::test]
async fn what_is_not_set_is_not_sent() {
    let (mut fake, control) = Fake::connected(Encoding::MessagePack).await;
    let server = Registration {
        relay_port: None,
        affinity: Some(Affinity::Flow),
        weight: Some(3),
        priority: Some(1),
        token: Some("secret".into()),
        ..Registration::new(Protocol::Udp, 15000, 1)
    };
    let balancer = async {
        let heard = fake.hears().await;
        fake.says(json!({"ack": "successful", "error": 0})).await;
        heard
    };
    let (heard, registered) = tokio::join!(balancer, control.register(&server));
    registered.unwrap();
    let all = json!({"cmd": "register", "protocol": "udp", "port": 15000, "affinity": "flow", "weight": 3,
        "priority": 1, "token": "secret"});
    assert_eq!(heard, all);
}

#[tokio::test]
async fn health_messages_are_answered_while_nothing_is_asked_and_between_command_and_reply() {
    for (encoding, word) in [(Encoding::Json, "hello"), (Encoding::MessagePack, "healthcheck")] {
        let (mut fake, control) = Fake::connected(encoding).await;
        fake.says(json!({"cmd": word})).await;
        assert_eq!(fake.hears().await, json!({"cmd": word, "state": "good"}));
        let server = Registration::new(Protocol::Udp, 15000, 20000);
        let balancer = async {
            fake.hears().await;
            fake.says(json!({"cmd": word})).await;
            fake.hears().await;
            fake.says(json!({"ack": "successful", "error": 0})).await;
        };
        let ((), registered) = tokio::join!(balancer, control.register(&server));
        registered.unwrap();
        control.seen().wait_for(|seen| seen.health == 2).await.unwrap();
    }
}

#[tokio::test]
async fn a_dropped_control_closes_the_connection() {
    let (mut fake, control) = Fake::connected(Encoding::Json).await;
    drop(control);
    assert_eq!(fake.stream.read(&mut [0; 1]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_connection_that_ends_says_why() {
    let (mut fake, control) = Fake::connected(Encoding::Json).await;
    fake.says(json!({"ack": "failed", "msg": "too many connections", "error": 1})).await;
    drop(fake);
    let mut seen = control.seen();
    let closed = seen.wait_for(|seen| seen.closed.is_some()).await.unwrap().closed.clone();
    assert_eq!(closed.unwrap(), "the balancer refuses: too many connections (error 1)");
    let error = control.register(&Registration::new(Protocol::Tcp, 1, 2)).await.unwrap_err();
    assert_eq!(error, "register tcp 1: the balancer refuses: too many connections (error 1)");
}

#[tokio::test]
async fn frames_too_long_end_it() {
    let (mut fake, control) = Fake::connected(Encoding::MessagePack).await;
    fake.stream.write_u32_le(MAX_FRAME as u32 + 1).await.unwrap();
    let mut seen = control.seen();
    let closed = seen.wait_for(|seen| seen.closed.is_some()).await.unwrap().closed.clone();
    assert!(closed.unwrap().starts_with("control connection: "));

    let (mut fake, control) = Fake::connected(Encoding::Json).await;
    let _ = fake.stream.write_all(&vec![b' '; MAX_FRAME + 2]).await;
    let mut seen = control.seen();
    let closed = seen.wait_for(|seen| seen.closed.is_some()).await.unwrap().closed.clone();
    assert_eq!(closed.unwrap(), "control connection: a line over 64 KiB");
}

#[tokio::test]
async fn a_reply_that_never_comes_is_not_waited_for() {
    let (_fake, mut control) = Fake::connected(Encoding::Json).await;
    control.deadline = Duration::from_millis(20);
    let error = control.register(&Registration::new(Protocol::Tcp, 1, 2)).await.unwrap_err();
    assert_eq!(error, "register tcp 1: no reply within 20ms");
}
