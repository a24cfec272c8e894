//! How messages are written: both encodings, whole and in pieces, and what is no message.

use serde_json::{Value, json};

use crate::support::Lb;
use crate::support::control::{Control, Encoding, Raw, frame, own_ip, registration};
use crate::support::server::{TcpServer, Visit, names};

/// `{"cmd": "register", "protocol": "tcp", "port": 30000, "relay_port": 50000}`, byte by byte.
const REGISTER: &[u8] = b"\x84\xa3cmd\xa8register\xa8protocol\xa3tcp\xa4port\xcd\x75\x30\xaarelay_port\xcd\xc3\x50";
/// The longest message that is allowed.
const LONGEST: usize = 64 * 1024;

fn unregistration(protocol: &str, port: u16, relay_port: u16) -> Value {
    let mut message = registration(protocol, port, relay_port);
    message["cmd"] = json!("unregister");
    message
}

#[tokio::test]
async fn replies_are_the_contracts_byte_by_byte() {
    let lb = Lb::relaying(&[]);
    let mut json = Raw::connect(&lb, Encoding::Json).await;
    // No newline: the object's end is enough.
    json.send(r#"{"cmd":"register","protocol":"tcp","port":30000,"relay_port":50000}"#).await;
    let done = b"{\"ack\":\"successful\",\"error\":0}\n";
    assert_eq!(json.bytes(done.len()).await, done);
    json.send(r#"{"cmd":"register","protocol":"tcp","port":30000,"relay_port":50000}"#).await;
    let failed = b"{\"ack\":\"failed\",\"msg\":\"";
    assert_eq!(json.bytes(failed.len()).await, failed);
    let rest = json.line().await;
    assert!(rest.ends_with("\",\"error\":3}\n"), "{rest}");

    let mut pack = Raw::connect(&lb, Encoding::MessagePack).await;
    pack.send(frame(REGISTER)).await;
    let done = b"\x17\0\0\0\x82\xa3ack\xaasuccessful\xa5error\x00";
    assert_eq!(pack.bytes(done.len()).await, done);
    pack.send(frame(REGISTER)).await;
    let length = u32::from_le_bytes(pack.bytes(4).await.try_into().unwrap());
    let failed = pack.bytes(length as usize).await;
    assert!(failed.starts_with(b"\x83\xa3ack\xa6failed\xa3msg"), "{failed:?}");
    assert!(failed.ends_with(b"\xa5error\x03"), "{failed:?}");
    assert_eq!(lb.port("tcp", 50_000).await.unwrap()["replicas"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn messages_in_one_segment_are_answered_in_turn() {
    let lb = Lb::relaying(&[]);
    for encoding in Encoding::BOTH {
        let mut server = Raw::connect(&lb, encoding).await;
        let messages = [
            registration("tcp", 30_000, 50_000),
            registration("tcp", 30_000, 50_000),
            json!({"cmd": "hello"}),
            json!({"cmd": "dance"}),
            unregistration("tcp", 30_000, 50_000),
            unregistration("tcp", 30_000, 50_000),
        ];
        server.send(messages.iter().flat_map(|message| encoding.encode(message)).collect::<Vec<u8>>()).await;
        for code in [0, 3, 2, 0, 4] {
            assert_eq!(server.reply().await["error"], code, "{encoding:?}");
        }
        assert!(server.buffer.is_empty());
    }
    // Between JSON objects there may be any white space, and need not be any.
    let mut server = Raw::connect(&lb, Encoding::Json).await;
    let (on, off) = (registration("tcp", 30_000, 50_000), unregistration("tcp", 30_000, 50_000));
    server.send(format!("{on}{off}\r\n\r\n\t {on}\n\n{off}")).await;
    for _ in 0..4 {
        assert_eq!(server.reply().await["error"], 0);
    }
}

#[tokio::test]
async fn a_message_may_be_split_at_every_byte() {
    let lb = Lb::relaying(&[]);
    for encoding in Encoding::BOTH {
        let mut server = Raw::connect(&lb, encoding).await;
        let turns = [registration("tcp", 30_000, 50_000), unregistration("tcp", 30_000, 50_000)];
        let turns = turns.map(|message| encoding.encode(&message));
        for at in 1..turns[1].len() {
            let bytes = &turns[(at - 1) % 2];
            let at = at.min(bytes.len() - 1);
            server.send(&bytes[..at]).await;
            // The thread that answers this has read the first piece by then.
            lb.is_ready().await;
            server.send(&bytes[at..]).await;
            assert_eq!(server.reply().await["error"], 0, "{encoding:?} split at {at}");
        }
        // And all of it in pieces of one byte.
        for bytes in &turns {
            let mut other = Raw::connect(&lb, encoding).await;
            for byte in bytes {
                other.send([*byte]).await;
                tokio::task::yield_now().await;
            }
            let expected = if bytes == &turns[0] { 0 } else { 4 };
            assert_eq!(other.reply().await["error"], expected);
        }
    }
}

#[tokio::test]
async fn the_first_bytes_tell_the_encodings_apart() {
    let lb = Lb::relaying(&[]);
    // A map of 123 bytes: its length begins as JSON does, with '{', and goes on with a zero byte.
    let mut message = registration("tcp", 30_000, 50_000);
    message["note"] = json!("");
    let short = Encoding::MessagePack.encode(&message).len() - 4;
    // A text of up to 31 bytes has one byte in front, a longer one has two.
    message["note"] = json!("x".repeat(123 - short - 1));
    let bytes = Encoding::MessagePack.encode(&message);
    assert_eq!(bytes[..4], *b"{\0\0\0");
    for pieces in [vec![&bytes[..]], vec![&bytes[..1], &bytes[1..2], &bytes[2..]]] {
        let mut server = Raw::connect(&lb, Encoding::MessagePack).await;
        for piece in pieces {
            server.send(piece).await;
            lb.is_ready().await;
        }
        assert_eq!(server.reply().await["error"], 0);
    }
}

#[tokio::test]
async fn what_is_no_message_gets_one_error_and_the_connection_ends() {
    let lb = Lb::relaying(&[]);
    let (_server, _control) = TcpServer::registered(&lb, "A", 50_000).await;
    let long = |encoding: Encoding| encoding.encode(&json!({"cmd": "x".repeat(LONGEST)}));
    let of_number = 2_u32.to_le_bytes().into_iter().chain(*b"\x07\x07").collect();
    let rubbish: Vec<(&str, Encoding, Vec<u8>, &str)> = vec![
        ("JSON with a hole", Encoding::Json, b"{\"cmd\":}".to_vec(), "not a JSON object"),
        ("no quotes", Encoding::Json, b"{cmd}".to_vec(), "not a JSON object"),
        ("an endless object", Encoding::Json, long(Encoding::Json), "65536 bytes at most"),
        ("a number, packed", Encoding::MessagePack, of_number, "not a MessagePack map"),
        ("an empty frame", Encoding::MessagePack, frame(b""), "not a MessagePack map"),
        ("bytes behind the map", Encoding::MessagePack, frame(b"\x80\xc0"), "left over"),
        ("too long a frame", Encoding::MessagePack, long(Encoding::MessagePack), "65536 bytes at most"),
        ("a browser", Encoding::MessagePack, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), "65536 bytes at most"),
        ("TLS", Encoding::MessagePack, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc".to_vec(), "bytes at most"),
    ];
    for (what, encoding, bytes, says) in rubbish {
        let mut peer = Raw::connect(&lb, encoding).await;
        peer.done(&registration("tcp", 30_000, 50_000)).await;
        // As the first thing it says, and behind messages that are none.
        for mut peer in [peer, Raw::connect(&lb, encoding).await] {
            // More of the same must not bring more replies.
            peer.send([&bytes[..], &bytes[..]].concat()).await;
            let reply = peer.reply().await;
            assert!(reply["ack"] == "failed" && reply["error"] == 1, "{what}: {reply}");
            assert!(reply["msg"].as_str().unwrap().contains(says), "{what}: {reply}");
            peer.closed().await;
        }
    }
    let mut peer = Raw::connect(&lb, Encoding::Json).await;
    peer.done(&registration("tcp", 30_000, 50_000)).await;
    peer.send("x{\"cmd\":\"hello\"}").await;
    assert_eq!(peer.reply().await["error"], 1, "JSON, and then none");
    peer.closed().await;
    // What they had registered has gone with them, and nothing else has.
    lb.until_counted("tcp", 50_000, "relay_port", 50_000).await;
    let gone = async || lb.port("tcp", 50_000).await.filter(|port| port["replicas"].as_array().unwrap().len() == 1);
    crate::support::eventually("they are gone", gone).await;
    assert_eq!(names(lb.relay(50_000), 3).await, ["A"; 3]);
}

#[tokio::test]
async fn a_message_may_have_64_kib() {
    let lb = Lb::relaying(&[]);
    for encoding in Encoding::BOTH {
        let mut server = Raw::connect(&lb, encoding).await;
        let mut message = registration("tcp", 30_000, 50_000);
        message["note"] = json!("x".repeat(60_000));
        let frame = |message: &Value| match encoding {
            Encoding::Json => message.to_string().len(),
            Encoding::MessagePack => encoding.encode(message).len() - 4,
        };
        let longest = 60_000 + LONGEST - frame(&message);
        message["note"] = json!("x".repeat(longest));
        assert_eq!(frame(&message), LONGEST);
        server.done(&message).await;
        message["note"] = json!("x".repeat(longest + 1));
        server.refused(&message, 1, &["65536 bytes at most"]).await;
        server.closed().await;
    }
}

#[tokio::test]
async fn a_message_that_is_refused_ends_nothing() {
    let lb = Lb::relaying(&[]);
    for encoding in Encoding::BOTH {
        let mut server = Raw::connect(&lb, encoding).await;
        server.done(&registration("tcp", 30_000, 50_000)).await;
        server.refused(&json!({"cmd": "dance"}), 2, &["'dance'"]).await;
        server.refused(&json!({}), 1, &["cmd is missing"]).await;
        server.done(&registration("tcp", 30_001, 50_000)).await;
        assert_eq!(lb.port("tcp", 50_000).await.unwrap()["replicas"].as_array().unwrap().len(), 2);
        drop(server);
        lb.until_logged("tcp/50000 is closed").await;
    }
}

#[tokio::test]
async fn without_a_relay_port_the_servers_own_is_opened() {
    let lb = Lb::relaying(&[]);
    let ip = own_ip();
    for (encoding, port) in [(Encoding::Json, 30_000), (Encoding::MessagePack, 30_001)] {
        let server = TcpServer::named_at((ip, port).into(), "A").await;
        let mut control = Control::connect_as(&lb, ip, encoding).await;
        let message = json!({"cmd": "register", "protocol": "tcp", "port": port});
        assert_eq!(control.ask(message.clone()).await["error"], 0);
        assert_eq!(Visit::to(lb.relay(port)).await.unwrap().name, "A");
        assert_eq!(server.accepted(), 1);
        let mut message = message;
        message["cmd"] = json!("unregister");
        assert_eq!(control.ask(message).await["error"], 0);
        assert!(crate::support::server::is_refused(lb.relay(port)).await);
    }
}

#[tokio::test]
async fn the_published_programs_clients_are_understood() {
    // They name the port that is to be opened first, and speak MessagePack.
    let lb = Lb::relaying(&["--control-dialect", "lander"]);
    let server = TcpServer::named("A").await;
    let mut control = Control::connect_as(&lb, server.ip(), Encoding::MessagePack).await;
    let message = json!({"cmd": "register", "protocol": "tcp", "port": 50_000, "relay_port": server.addr.port()});
    assert_eq!(control.ask(message.clone()).await, json!({"ack": "successful", "error": 0}));
    assert_eq!(names(lb.relay(50_000), 3).await, ["A"; 3]);
    assert_eq!(lb.relays().await[0]["replicas"][0]["addr"], server.addr.to_string());
    // What they send as a sign of life names the port that was opened.
    control.say(json!({"cmd": "healthcheck", "protocol": "tcp", "port": 50_000, "state": "bad"}));
    lb.until_state("tcp", 50_000, server.addr, "unready").await;
    let mut message = message;
    message["cmd"] = json!("unregister");
    assert_eq!(control.ask(message).await["error"], 0);
    let closed = async || lb.port("tcp", 50_000).await.is_none().then_some(());
    crate::support::eventually("nothing of it is left", closed).await;
}
