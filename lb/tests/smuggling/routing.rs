//! `Host`, forwarding fields, and what `Connection` names.

use crate::vector::{Outcome, SMUGGLED, Vector, refused, second, served, vector, want};

const HOST: &str =
    "RFC 9112, 3.2: exactly one Host, with a valid value; two servers that pick another one route another way";
const SPOOF: &str = "whoever asks must not say himself who he is";
const NAMED: &str =
    "RFC 9110, 7.6.1: Connection names fields of this hop; it can't take away what frames, routes or tells who asks";

fn get(fields: &str) -> String {
    format!("GET /attack HTTP/1.1\r\n{fields}\r\n{SMUGGLED}")
}

pub(crate) fn vectors() -> Vec<Vector> {
    let mut all = Vec::new();
    for value in [
        "a b", "a,b", "a, b", "a/b", "a/../b", "u@a", "@a", "a\\b", "a#b", "a?b", "a\tb", "a\0", "\u{b}a", "a\u{7f}",
        "a\rb", "a\"b", "<a>", "a;b@c", "http://a", "a:80/x", "a^b", "a|b", "{a}", "a`b",
    ] {
        all.push(refused(format!("Host {value:?}"), 400, get(&format!("Host: {value}\r\n")), HOST));
    }
    for (name, fields) in [
        ("none", "X-A: b\r\n"),
        ("two", "Host: a\r\nHost: b\r\n"),
        ("two equal ones", "Host: a\r\nHost: a\r\n"),
        ("two, one empty", "Host: a\r\nHost:\r\n"),
        ("two in two spellings", "Host: a\r\nhOST: b\r\n"),
        ("with a space before the colon", "Host : a\r\n"),
        ("two, one with a space before the colon", "Host: a\r\nHost : b\r\n"),
        ("folded", "Host:\r\n a\r\n"),
        ("continued", "Host: a\r\n b\r\n"),
        ("in a folded line", "Host: a\r\nX-A: b\r\n Host: b\r\n"),
        ("behind a bare LF", "Host: a\nHost: b\r\n"),
        ("first with a space before it", " Host: b\r\nHost: a\r\n"),
    ] {
        all.push(refused(format!("Host: {name}"), 400, get(fields), HOST));
    }
    for (name, sent) in [
        ("none with an absolute target", format!("GET http://a/attack HTTP/1.1\r\n\r\n{SMUGGLED}")),
        (
            "two with an absolute target",
            format!("GET http://a/attack HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n{SMUGGLED}"),
        ),
        ("two with HTTP/1.0", format!("GET /attack HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n{SMUGGLED}")),
    ] {
        all.push(refused(format!("Host: {name}"), 400, sent, HOST));
    }
    for value in ["a", "A.b-c.example", "a:80", "127.0.0.1:80", "[::1]:80", "a_b", "xn--caf-dma.example", "a.", ""] {
        let wanted = want("GET", "/attack", "").with("host", value);
        all.push(served(
            format!("valid Host {value:?}"),
            get(&format!("Host: {value}\r\n")),
            vec![wanted, second()],
            HOST,
        ));
    }
    let wanted = want("GET", "/attack", "").with("host", "");
    all.push(vector(
        "HTTP/1.0 without Host",
        format!("GET /attack HTTP/1.0\r\n\r\n{SMUGGLED}"),
        Outcome::last(vec![wanted]),
        HOST,
    ));
    all.extend(forwarding());
    all.extend(named());
    all
}

/// That `x-forwarded-for` holds the client's own address and nothing else is checked of each request that arrives.
fn forwarding() -> Vec<Vector> {
    let with = |name: &str, fields: &str| {
        let wanted = want("GET", "/attack", "")
            .with("host", "a")
            .with("x-forwarded-host", "a")
            .with("x-forwarded-proto", "http")
            .without("forwarded");
        served(
            format!("forwarding fields: {name}"),
            get(&format!("Host: a\r\n{fields}")),
            vec![wanted, second()],
            SPOOF,
        )
    };
    vec![
        with(
            "made up",
            "X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Proto: https\r\nForwarded: for=10.0.0.1;host=evil\r\n",
        ),
        with(
            "made up twice",
            "X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-For: 10.0.0.2\r\nx-forwarded-host: e\r\nX-Forwarded-Host: f\r\n",
        ),
        with(
            "with underscores",
            "X_Forwarded_For: 10.0.0.1\r\nX-Forwarded_For: 10.0.0.1\r\nX_Forwarded_Host: evil\r\nX_FORWARDED_PROTO: https\r\n",
        ),
        with(
            "named by Connection",
            "Connection: x-forwarded-for, X-Forwarded-Host, x-forwarded-proto, x-request-id, forwarded\r\n",
        ),
        with("named and made up", "Connection: x-forwarded-for\r\nX-Forwarded-For: 10.0.0.1\r\n"),
    ]
}

fn named() -> Vec<Vector> {
    let body = SMUGGLED;
    let sent = |connection: &str| {
        let length = body.len();
        format!(
            "POST /attack HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\nConnection: {connection}\r\nX-Secret: 1\r\n\r\n{body}{SMUGGLED}"
        )
    };
    let mut all = Vec::new();
    for connection in [
        "content-length",
        "Content-Length, host",
        "host",
        "keep-alive, content-length",
        ",, content-length ,",
        "transfer-encoding",
        "expect",
    ] {
        let wanted = want("POST", "/attack", body).with("host", "a").with("x-secret", "1").without("connection");
        all.push(served(format!("Connection: {connection}"), sent(connection), vec![wanted, second()], NAMED));
    }
    let wanted = want("POST", "/attack", body).without("x-secret").without("connection");
    all.push(served("Connection: x-secret", sent("X-SECRET"), vec![wanted, second()], NAMED));
    let two = sent("x-a\r\nConnection: x-secret");
    let wanted = want("POST", "/attack", body).without("x-secret").without("connection");
    all.push(served("two Connection lines", two, vec![wanted, second()], NAMED));
    let hop = get(
        "Host: a\r\nKeep-Alive: timeout=9\r\nProxy-Connection: keep-alive\r\nTE: trailers\r\nProxy-Authorization: Basic eA==\r\n",
    );
    let wanted = want("GET", "/attack", "")
        .without("keep-alive")
        .without("proxy-connection")
        .without("te")
        .without("proxy-authorization");
    all.push(served("fields of one hop that nobody names", hop, vec![wanted, second()], NAMED));
    all
}
