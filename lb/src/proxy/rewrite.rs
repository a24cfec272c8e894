//! Heads as they go on: a request's to a replica, a response's to a client. Pure.
//!
//! Both are written anew, so what arrives is what was understood here.

use std::io::Write;

use super::forwarded::Peer;
use crate::http1::fields::{Known, is_look_alike, known, list};
use crate::http1::request::RequestHead;
use crate::http1::response::ResponseHead;
use crate::http1::{Field, Framing};

/// Longest request ID that is taken from a client.
const REQUEST_ID_LENGTH: usize = 128;

/// Is `field` one that a `Connection` field names?
fn is_named(field: &Field<'_>, fields: &[Field<'_>]) -> bool {
    fields
        .iter()
        .filter(|other| known(other.name.as_bytes()) == Known::Connection)
        .any(|connection| list(connection.value).any(|name| name.eq_ignore_ascii_case(field.name.as_bytes())))
}

/// Copies those lines, runs of them of `head`, runs of them in one piece, whose fields are to be kept. `end` is where the empty line begins.
fn copy_fields(head: &[u8], end: usize, fields: &[Field<'_>], keep: impl Fn(&Field<'_>) -> bool, out: &mut Vec<u8>) {
    let offset = |field: &Field<'_>| field.name.as_ptr() as usize - head.as_ptr() as usize;
    let mut run = None;
    for field in fields {
        match (run, keep(field)) {
            (None, true) => run = Some(offset(field)),
            (Some(start), false) => {
                out.extend_from_slice(&head[start..offset(field)]);
                run = None;
            }
            _ => {}
        }
    }
    if let Some(start) = run {
        out.extend_from_slice(&head[start..end]);
    }
}

/// A client's own ID is kept if it can't do harm in a log.
fn is_request_id(value: &[u8]) -> bool {
    (1..=REQUEST_ID_LENGTH).contains(&value.len()) && value.iter().all(u8::is_ascii_graphic)
}

/// Writes the head that a replica gets. `bytes` is what `head` was read from.
pub(super) fn for_replica(
    head: &RequestHead<'_, '_>,
    bytes: &[u8],
    peer: &Peer,
    request_id: impl FnOnce() -> u64,
    out: &mut Vec<u8>,
) {
    let fields = head.fields;
    let is_dropped = |field: &Field<'_>| head.names_fields && is_named(field, fields);
    out.extend_from_slice(head.method.as_bytes());
    out.extend_from_slice(if head.target.rootless { b" /" } else { b" " });
    out.extend_from_slice(head.target.path_and_query.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\nhost: ");
    out.extend_from_slice(head.host);
    out.extend_from_slice(b"\r\n");
    let mut id = None;
    for field in fields.iter().filter(|field| known(field.name.as_bytes()) == Known::XRequestId) {
        if id.is_none() && is_request_id(field.value) && !is_dropped(field) {
            id = Some(field.value);
        }
    }
    let keep = |field: &Field<'_>| match known(field.name.as_bytes()) {
        Known::Other => !is_look_alike(field.name.as_bytes()) && !is_dropped(field),
        Known::Trailer => head.framing == Framing::Chunked,
        _ => false,
    };
    copy_fields(bytes, head.len - 2, fields, keep, out);
    peer.write(fields, head.host, is_dropped, out);
    out.extend_from_slice(b"x-request-id: ");
    match id {
        Some(id) => out.extend_from_slice(id),
        None => out.extend_from_slice(&hexadecimal(request_id())),
    }
    match head.framing {
        // Some servers wait for a body of these methods unless told that there is none.
        Framing::None if matches!(head.method, "POST" | "PUT" | "PATCH") => {
            out.extend_from_slice(b"\r\ncontent-length: 0");
        }
        Framing::Length(length) => {
            // Writing to a vector does not fail.
            let _ = write!(out, "\r\ncontent-length: {length}");
        }
        Framing::Chunked => out.extend_from_slice(b"\r\ntransfer-encoding: chunked"),
        Framing::None | Framing::UntilClose => {}
    }
    if head.expects_continue {
        out.extend_from_slice(b"\r\nexpect: 100-continue");
    }
    if head.upgrade {
        out.extend_from_slice(b"\r\nconnection: upgrade");
        write_upgrade(fields, out);
    }
    out.extend_from_slice(b"\r\n\r\n");
}

fn write_upgrade(fields: &[Field<'_>], out: &mut Vec<u8>) {
    for field in fields.iter().filter(|field| known(field.name.as_bytes()) == Known::Upgrade) {
        out.extend_from_slice(b"\r\nupgrade: ");
        out.extend_from_slice(field.value);
    }
}

/// How a body goes to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivery {
    /// As it came: by its length, or there is none.
    AsIs,
    /// In chunks of our own.
    Chunked,
    /// Until the connection's end.
    UntilClose,
}

impl Delivery {
    /// The way for a body that came in this framing.
    pub(super) fn of(framing: Framing, client_is_1_1: bool) -> Self {
        match framing {
            Framing::None | Framing::Length(_) => Self::AsIs,
            Framing::Chunked | Framing::UntilClose if client_is_1_1 => Self::Chunked,
            Framing::Chunked | Framing::UntilClose => Self::UntilClose,
        }
    }
}

/// Writes the head that a client gets; `added` are further fields, as lines, of a final response.
pub(super) fn for_client(
    head: &ResponseHead<'_, '_>,
    delivery: Delivery,
    client_is_1_1: bool,
    keep_alive: bool,
    added: &[u8],
    out: &mut Vec<u8>,
) {
    // Writing to a vector does not fail.
    let _ = write!(out, "HTTP/1.1 {} {}\r\n", head.status, head.reason);
    let switches = head.status == 101;
    let is_dropped = |field: &Field<'_>| head.names_fields && is_named(field, head.fields);
    let keep = |field: &Field<'_>| match known(field.name.as_bytes()) {
        Known::Connection | Known::HopByHop | Known::TransferEncoding | Known::Upgrade | Known::ContentLength => false,
        Known::Trailer => delivery == Delivery::Chunked,
        _ => !is_dropped(field),
    };
    // One by one: lines of a response may end in a bare LF.
    for field in head.fields.iter().filter(|field| keep(field)) {
        out.extend_from_slice(field.name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(field.value);
        out.extend_from_slice(b"\r\n");
    }
    if head.status >= 200 || switches {
        out.extend_from_slice(added);
    }
    match delivery {
        // RFC 9110, section 8.6.
        Delivery::AsIs if matches!(head.status, 100..=199 | 204) => {}
        Delivery::AsIs => {
            // The first of them: there may be equal ones.
            if let Some(length) = head.fields.iter().find(|field| known(field.name.as_bytes()) == Known::ContentLength)
            {
                out.extend_from_slice(b"content-length: ");
                out.extend_from_slice(length.value);
                out.extend_from_slice(b"\r\n");
            }
        }
        Delivery::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        Delivery::UntilClose => {}
    }
    if switches {
        out.extend_from_slice(b"connection: upgrade");
        write_upgrade(head.fields, out);
        out.extend_from_slice(b"\r\n");
    } else if head.status >= 200 {
        out.extend_from_slice(connection(client_is_1_1, keep_alive));
    }
    out.extend_from_slice(b"\r\n");
}

/// The field that tells a client what becomes of its connection, if it would not expect that anyway.
pub(super) fn connection(client_is_1_1: bool, keep_alive: bool) -> &'static [u8] {
    match (client_is_1_1, keep_alive) {
        (_, false) => b"connection: close\r\n",
        (false, true) => b"connection: keep-alive\r\n",
        (true, true) => b"",
    }
}

/// 16 hexadecimal digits.
fn hexadecimal(number: u64) -> [u8; 16] {
    std::array::from_fn(|at| b"0123456789abcdef"[(number >> (60 - 4 * at)) as usize & 15])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::{HeadLimits, field_slots, request, response};

    fn to_replica(text: &str) -> String {
        let mut slots = field_slots();
        let head = request::parse(text.as_bytes(), &HeadLimits::default(), &mut slots).unwrap().unwrap();
        let peer = Peer::new([192, 0, 2, 7].into(), &"".parse().unwrap());
        let mut out = Vec::new();
        for_replica(&head, text.as_bytes(), &peer, || 0x1f, &mut out);
        String::from_utf8(out).unwrap()
    }

    const OURS: &str = "x-forwarded-for: 192.0.2.7\r\nx-forwarded-proto: http\r\nx-forwarded-host: a\r\n";
    const ID: &str = "x-request-id: 000000000000001f\r\n";

    #[test]
    fn what_concerns_one_connection_stays_there() {
        let text = "PATCH /x?y HTTP/1.1\r\nA: 1\r\nHost: a\r\nConnection: keep-alive, X-Secret, content-length, host\r\n\
                    Keep-Alive: 5\r\nX-Secret: s\r\nTE: trailers\r\nB: 2\r\nC:\t3 \r\nProxy-Authorization: p\r\n\
                    Upgrade: h2c\r\nTrailer: t\r\nX_Forwarded_For: evil\r\nX-Forwarded-For: evil\r\nForwarded: for=evil\r\n\
                    Content-Length: 5\r\nB: 4\r\n\r\nhello";
        assert_eq!(
            to_replica(text),
            format!(
                "PATCH /x?y HTTP/1.1\r\nhost: a\r\nA: 1\r\nB: 2\r\nC:\t3 \r\nB: 4\r\n{OURS}{ID}content-length: 5\r\n\r\n"
            )
        );
    }

    #[test]
    fn a_sound_request_id_is_kept() {
        let id = |line: &str| {
            let head = to_replica(&format!("GET / HTTP/1.1\r\nHost: a\r\n{line}\r\n"));
            let ids: Vec<_> =
                head.lines().filter_map(|line| line.strip_prefix("x-request-id: ")).map(str::to_owned).collect();
            let [id] = &ids[..] else { panic!("{head}") };
            id.clone()
        };
        let fresh = "000000000000001f";
        assert_eq!(id("X-Request-ID: abc-1\r\nX-Request-Id: other\r\n"), "abc-1");
        for line in
            ["", "X-Request-Id:\r\n", "X-Request-Id: a b\r\n", "X-Request-Id: a\r\nConnection: x-request-id\r\n"]
        {
            assert_eq!(id(line), fresh, "{line}");
        }
        assert_eq!(id(&format!("X-Request-Id: {}\r\n", "a".repeat(129))), fresh);
    }

    #[test]
    fn bodies_and_upgrades_are_announced_in_our_own_words() {
        for (fields, end) in [
            ("Transfer-Encoding: Chunked\r\nTrailer: t\r\n", "transfer-encoding: chunked\r\n\r\n"),
            ("Content-Length: 007\r\nExpect: 100-Continue\r\n", "content-length: 7\r\nexpect: 100-continue\r\n\r\n"),
            ("Content-Length: 0\r\nExpect: 100-Continue\r\n", "content-length: 0\r\n\r\n"),
            (
                "Connection: x, Upgrade\r\nUpgrade: websocket\r\n",
                "content-length: 0\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
            ),
        ] {
            let head = to_replica(&format!("POST /x HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
            assert!(head.ends_with(&format!("{ID}{end}")), "{head}");
            assert_eq!(head.contains("Trailer: t"), fields.contains("chunk") || fields.contains("Chunk"), "{head}");
        }
        assert!(
            to_replica("GET http://b?c HTTP/1.1\r\nHost: a\r\n\r\n").starts_with("GET /?c HTTP/1.1\r\nhost: b\r\n")
        );
        assert!(to_replica("GET /c HTTP/1.0\r\n\r\n").starts_with("GET /c HTTP/1.1\r\nhost: \r\n"));
    }

    fn with_added(text: &str, client_is_1_1: bool, keep_alive: bool, added: &str) -> String {
        let mut slots = field_slots();
        let head = response::parse(text.as_bytes(), false, &mut slots).unwrap().unwrap();
        let mut out = Vec::new();
        let delivery = Delivery::of(head.framing, client_is_1_1);
        for_client(&head, delivery, client_is_1_1, keep_alive, added.as_bytes(), &mut out);
        String::from_utf8(out).unwrap()
    }

    fn to_client(text: &str, client_is_1_1: bool, keep_alive: bool) -> String {
        with_added(text, client_is_1_1, keep_alive, "")
    }

    #[test]
    fn fields_are_added_to_final_responses_beside_those_of_the_replica() {
        let added = |text: &str| with_added(text, true, true, "set-cookie: lb=1\r\n");
        assert_eq!(
            added("HTTP/1.1 200 OK\r\nSet-Cookie: lb=2\r\nset-cookie: a=1\r\nContent-Length: 5\r\n\r\n"),
            "HTTP/1.1 200 OK\r\nSet-Cookie: lb=2\r\nset-cookie: a=1\r\nset-cookie: lb=1\r\ncontent-length: 5\r\n\r\n"
        );
        assert_eq!(
            added("HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"),
            "HTTP/1.1 101 Go\r\nset-cookie: lb=1\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n"
        );
        assert_eq!(added("HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n"), "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n");
    }

    #[test]
    fn responses_are_framed_for_their_client() {
        let chunked = "HTTP/1.1 200 Fine\nA: 1\r\nConnection: close, X-Hop\r\nX-Hop: h\r\nTrailer: t\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(
            to_client(chunked, true, true),
            "HTTP/1.1 200 Fine\r\nA: 1\r\nTrailer: t\r\ntransfer-encoding: chunked\r\n\r\n"
        );
        assert_eq!(to_client(chunked, false, false), "HTTP/1.1 200 Fine\r\nA: 1\r\nconnection: close\r\n\r\n");
        let plain = "HTTP/1.0 404 \r\nContent-Length: 5\r\ncontent-length: 5\r\nX_Custom: kept\r\n\r\n";
        assert_eq!(
            to_client(plain, false, true),
            "HTTP/1.1 404 \r\nX_Custom: kept\r\ncontent-length: 5\r\nconnection: keep-alive\r\n\r\n"
        );
        let switch = "HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-X: 1\r\n\r\n";
        assert_eq!(
            to_client(switch, true, true),
            "HTTP/1.1 101 Go\r\nSec-X: 1\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
        );
    }
}
