//! Request lines, line ends, and bytes that have no place in a head.

use crate::vector::{LAST, Outcome, SMUGGLED, Vector, last, refused, second, served, vector, want};

const LINE: &str =
    "RFC 9112, 3: METHOD SP target SP version CRLF; parsers that split at other white space see other targets";
const ENDS: &str = "RFC 9112, 2.2: a bare CR is invalid, and a bare LF is taken for a line end by some only";
const VERSION: &str = "RFC 9112, 2.3: HTTP/1.0 and HTTP/1.1 are what is spoken here";
const TARGET: &str = "RFC 9112, 3.2: origin form, absolute form, or * for OPTIONS";
const FIELDS: &str = "RFC 9112, 5: name, colon, value; anything else is read differently by different parsers";

pub(crate) fn vectors() -> Vec<Vector> {
    let mut all = request_lines();
    all.extend(targets());
    all.extend(field_lines());
    all.extend(sequences());
    all
}

fn request_lines() -> Vec<Vector> {
    let mut all = Vec::new();
    for (name, line) in [
        ("two spaces before the target", "GET  /attack HTTP/1.1\r\n"),
        ("two spaces behind the target", "GET /attack  HTTP/1.1\r\n"),
        ("tabs", "GET\t/attack\tHTTP/1.1\r\n"),
        ("a vertical tab", "GET\u{b}/attack HTTP/1.1\r\n"),
        ("a form feed behind the target", "GET /attack\u{c}HTTP/1.1\r\n"),
        ("a space at the end", "GET /attack HTTP/1.1 \r\n"),
        ("a tab at the end", "GET /attack HTTP/1.1\t\r\n"),
        ("a space at the begin", " GET /attack HTTP/1.1\r\n"),
        ("a second version", "GET /attack HTTP/1.1 HTTP/1.1\r\n"),
        ("a second target", "GET /attack HTTP/1.1/ /smuggled HTTP/1.1\r\n"),
        ("a space in the target", "GET /attack /smuggled HTTP/1.1\r\n"),
        ("no target", "GET HTTP/1.1\r\n"),
        ("an empty target", "GET  HTTP/1.1\r\n"),
        ("HTTP/0.9", "GET /attack\r\n"),
        ("HTTP/0.9 with a space", "GET /attack \r\n"),
        ("a method alone", "GET\r\n"),
        ("a bare LF", "GET /attack HTTP/1.1\n"),
        ("a bare CR", "GET /attack HTTP/1.1\r"),
        ("CR CR LF", "GET /attack HTTP/1.1\r\r\n"),
        ("LF CR", "GET /attack HTTP/1.1\n\r"),
        ("a bare CR before the version", "GET /attack\rHTTP/1.1\r\n"),
        ("NUL in the target", "GET /att\0ack HTTP/1.1\r\n"),
        ("NUL in the method", "G\0ET /attack HTTP/1.1\r\n"),
        ("NUL at the begin", "\0GET /attack HTTP/1.1\r\n"),
        ("DEL in the target", "GET /att\u{7f}ack HTTP/1.1\r\n"),
        ("ESC in the target", "GET /att\u{1b}ack HTTP/1.1\r\n"),
        ("a bare LF in the target", "GET /attack\nX HTTP/1.1\r\n"),
        ("a bracket in the method", "G(ET /attack HTTP/1.1\r\n"),
        ("a colon in the method", "GET: /attack HTTP/1.1\r\n"),
        ("a slash in the method", "GET/1 /attack HTTP/1.1\r\n"),
        ("a no-break space for a space", "GET\u{a0}/attack HTTP/1.1\r\n"),
        ("a method in quotes", "\"GET\" /attack HTTP/1.1\r\n"),
        ("a byte order mark", "\u{feff}GET /attack HTTP/1.1\r\n"),
        ("a response", "HTTP/1.1 200 OK\r\n"),
    ] {
        all.push(refused(format!("request line: {name}"), 400, format!("{line}Host: a\r\n\r\n{SMUGGLED}"), LINE));
    }
    for version in [
        "http/1.1",
        "Http/1.1",
        "HTTP/1.10",
        "HTTP/01.1",
        "HTTP/1.01",
        "HTTP/1.",
        "HTTP/1",
        "HTTP/.1",
        "HTTP/1,1",
        "HTTP/1.1.1",
        "HTTP/11",
        "HTTP/-1.1",
        "HTTP/+1.1",
        "HTTP/1.1x",
        "HTTP/x.1",
        "HTTP1.1",
        "HTTPS/1.1",
        "HTTP\\1.1",
        "HTTP/\u{661}.1",
        "HTTP/1.1\0",
        "XHTTP/1.1",
        "ICY/1.1",
        "/1.1",
        "1.1",
    ] {
        let sent = format!("GET /attack {version}\r\nHost: a\r\n\r\n{SMUGGLED}");
        all.push(refused(format!("version {version:?}"), 400, sent, VERSION));
    }
    for version in ["HTTP/0.9", "HTTP/1.2", "HTTP/1.9", "HTTP/2.0", "HTTP/3.0", "HTTP/9.9", "HTTP/0.0", "HTTP/0.1"] {
        let sent = format!("GET /attack {version}\r\nHost: a\r\n\r\n{SMUGGLED}");
        all.push(refused(format!("version {version:?}"), 505, sent, VERSION));
    }
    let preface = format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{SMUGGLED}");
    all.push(refused(
        "the preface of HTTP/2",
        505,
        preface,
        "RFC 9113, 3.4: made to fail in HTTP/1.1 servers, at once",
    ));
    all
}

fn targets() -> Vec<Vector> {
    let mut all = Vec::new();
    for target in [
        "attack",
        "\\attack",
        "*",
        "?x",
        "a:80",
        "a",
        "/attack#/../smuggled",
        "/#",
        "ftp://a/attack",
        "http:/attack",
        "http:attack",
        "http:///attack",
        "http://",
        "http://?x",
        "http://u@a/attack",
        "http://u:p@a/attack",
        "http://a,b/attack",
        "http://a\\b/attack",
        "://a/attack",
        "javascript:x",
        "unix:/tmp/x",
        "http://a/attack#x",
        "http://a#/attack",
        "httpx://a/attack",
        "ws://a/attack",
        "http://a\"/attack",
    ] {
        let sent = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n{SMUGGLED}");
        all.push(refused(format!("target {target:?}"), 400, sent, TARGET));
    }
    all.push(refused("POST *", 400, format!("POST * HTTP/1.1\r\nHost: a\r\n\r\n{SMUGGLED}"), TARGET));
    for target in [
        "/",
        "//",
        "//evil/attack",
        "/attack?",
        "/attack?a=b&c=http://d/",
        "/attack%0d%0aHost:%20evil",
        "/attack%00%20HTTP/1.1",
        "/a;b=c,d:e@f!$'()*",
        "/attack/../rep",
        "/%72ep",
        "/.",
        "/caf\u{e9}/\u{212a}",
        "/http://b/",
    ] {
        let sent = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n{SMUGGLED}");
        let why = "RFC 9112, 3.2: passed byte by byte; decoding or cleaning it would make another request of it";
        all.push(served(format!("valid target {target:?}"), sent, vec![want("GET", target, ""), second()], why));
    }
    for (target, origin) in [
        ("http://b/attack?x", "/attack?x"),
        ("HTTP://b/attack", "/attack"),
        ("https://b/attack", "/attack"),
        ("http://b", "/"),
        ("http://b?x=/y", "/?x=/y"),
        ("http://b/?http://c/", "/?http://c/"),
    ] {
        let sent = format!("GET {target} HTTP/1.1\r\nHost: evil\r\n\r\n{SMUGGLED}");
        let wanted = want("GET", origin, "").with("host", "b").with("x-forwarded-host", "b");
        let why = "RFC 9112, 3.2.2: the target's authority counts, and Host is made to agree with it";
        all.push(served(format!("absolute target {target:?}"), sent, vec![wanted, second()], why));
    }
    for target in ["/a\"b", "/a<b>", "/a\\b", "/a^b", "/a`b", "/a{b|c}"] {
        let sent = format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n{SMUGGLED}");
        let why = "RFC 3986 has no such byte in a path, but clients send it: passed as it is, or refused";
        all.push(
            vector(format!("odd target {target:?}"), sent, Outcome::last(vec![want("GET", target, "")]), why)
                .or(Outcome::refused(400)),
        );
    }
    let options = format!("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n{SMUGGLED}");
    all.push(served("OPTIONS *", options, vec![want("OPTIONS", "*", ""), second()], TARGET));
    let why = "a refused tunnel: its client may have sent bytes into it already, which are no requests";
    for (name, target) in [("CONNECT", "a:80"), ("CONNECT with a path", "/attack")] {
        let sent = format!("CONNECT {target} HTTP/1.1\r\nHost: a:80\r\n\r\n{SMUGGLED}");
        all.push(refused(name, 405, sent, why).or(Outcome::refused(400)));
    }
    all
}

fn field_lines() -> Vec<Vector> {
    let mut all = Vec::new();
    for (name, line) in [
        ("no colon", &b"X-A\r\n"[..]),
        ("no name", b": b\r\n"),
        ("a space for a name", b" : b\r\n"),
        ("a space before the colon", b"X-A : b\r\n"),
        ("a space within the name", b"X A: b\r\n"),
        ("a slash in the name", b"X/A: b\r\n"),
        ("a bracket in the name", b"X(A): b\r\n"),
        ("an @ in the name", b"X@A: b\r\n"),
        ("a backslash in the name", b"X\\A: b\r\n"),
        ("a byte above 127 in the name", b"X\x80A: b\r\n"),
        ("NUL in the value", b"X-A: b\0c\r\n"),
        ("BEL in the value", b"X-A: b\x07c\r\n"),
        ("ESC in the value", b"X-A: b\x1bc\r\n"),
        ("DEL in the value", b"X-A: b\x7fc\r\n"),
        ("a bare CR in the value", b"X-A: b\rc\r\n"),
        ("a bare LF", b"X-A: b\n"),
        ("two bare LF", b"X-A: b\n\n"),
        ("CR CR LF", b"X-A: b\r\r\n"),
        ("LF CR", b"X-A: b\n\rX-B: c\r\n"),
        ("folded", b"X-A: b\r\n c\r\n"),
        ("folded by a tab", b"X-A: b\r\n\tc\r\n"),
        ("folded to nothing", b"X-A: b\r\n \r\n"),
        ("a bare CR before the empty line", b"X-A: b\r\n\r"),
        ("a bare LF for the empty line", b"X-A: b\r\n\n"),
        ("a request line", b"GET /smuggled HTTP/1.1\r\n"),
    ] {
        let sent = [b"GET /attack HTTP/1.1\r\nHost: a\r\n", line, b"\r\n", SMUGGLED.as_bytes()].concat();
        all.push(refused(
            format!("field: {name}"),
            400,
            sent,
            if name.contains("CR") || name.contains("LF") { ENDS } else { FIELDS },
        ));
    }
    for (name, line) in
        [("a space", " "), ("a tab", "\t"), ("a space and a field", " X-A: b\r\n"), ("an empty fold", " \r\n")]
    {
        let sent = format!("GET /attack HTTP/1.1\r\n{line}Host: a\r\n\r\n{SMUGGLED}");
        let why = "RFC 9112, 2.2: white space before the first field must be refused, or skipped with its line";
        all.push(refused(format!("before the first field: {name}"), 400, sent, why));
    }
    let sent =
        b"GET /attack HTTP/1.1\r\nHost: a\r\nX-A:\tb\tc \xe9\xff\r\nX-Empty:\r\n!#$%&'*+-.^_`|~09: d\r\n\r\n".to_vec();
    let wanted = want("GET", "/attack", "").with("x-empty", "").with("!#$%&'*+-.^_`|~09", "d");
    all.push(served("field: all that is allowed", [sent, SMUGGLED.into()].concat(), vec![wanted, second()], FIELDS));
    all
}

fn sequences() -> Vec<Vector> {
    let get = |n: u32| format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n");
    let post =
        |n: u32| format!("POST /{n} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{n}\r\n0\r\n\r\n");
    let behind = "RFC 9112, 9.6: nothing is read behind the last request of a connection";
    let refusal = "once a request is refused, where the next one begins is unknown";
    let mixed = get(1) + &post(2) + &get(3) + &post(4) + &get(5);
    let wanted = vec![
        want("GET", "/1", ""),
        want("POST", "/2", "2"),
        want("GET", "/3", ""),
        want("POST", "/4", "4"),
        want("GET", "/5", ""),
    ];
    vec![
        served("pipelined requests", mixed, wanted, "RFC 9112, 9.3.2: each arrives once, in order"),
        served(
            "empty lines before requests",
            format!("\r\n\r\n{}\r\n{SMUGGLED}", get(1)),
            vec![want("GET", "/1", ""), second()],
            "RFC 9112, 2.2: empty lines before a request are skipped",
        ),
        served(
            "a method of its own",
            "get /attack HTTP/1.1\r\nHost: a\r\n\r\n",
            vec![want("get", "/attack", "")],
            "RFC 9110, 9.1: methods have case",
        ),
        refused("a bare LF before a request", 400, format!("\n{}", get(1)), ENDS),
        refused("a bare CR before a request", 400, format!("\r{}", get(1)), ENDS),
        refused("spaces on a line before a request", 400, format!("  \r\n{}", get(1)), LINE),
        vector(
            "a bad request behind a good one",
            get(1) + "BAD\r\n\r\n" + SMUGGLED,
            Outcome::served(vec![want("GET", "/1", "")]).then_refused(400),
            refusal,
        ),
        vector(
            "garbage behind a body",
            format!("POST /attack HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello\0\r\n{SMUGGLED}"),
            Outcome::served(vec![want("POST", "/attack", "hello")]).then_refused(400),
            refusal,
        ),
        vector(
            "a body longer than its length",
            format!("POST /attack HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello world\r\n\r\n{SMUGGLED}"),
            Outcome::served(vec![want("POST", "/attack", "hello")]).then_refused(400),
            refusal,
        ),
        vector("a request behind the last", format!("{LAST}{SMUGGLED}"), Outcome::last(vec![last()]), behind),
        vector(
            "a request behind the last, in a list",
            format!("GET /last HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, CLOSE\r\n\r\n{SMUGGLED}"),
            Outcome::last(vec![last()]),
            behind,
        ),
        vector(
            "a request behind the last, on a second line",
            format!("GET /last HTTP/1.1\r\nHost: a\r\nConnection: x\r\nConnection: close\r\n\r\n{SMUGGLED}"),
            Outcome::last(vec![last()]),
            behind,
        ),
        vector(
            "a request behind HTTP/1.0",
            format!("GET /last HTTP/1.0\r\nHost: a\r\n\r\n{SMUGGLED}"),
            Outcome::last(vec![last()]),
            behind,
        ),
        served(
            "HTTP/1.0, kept alive",
            format!("GET /1 HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n{SMUGGLED}"),
            vec![want("GET", "/1", ""), second()],
            "it asked for it, and the length of the answer is known",
        ),
        vector(
            "HTTP/1.0 with a length",
            format!("POST /attack HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello{SMUGGLED}"),
            Outcome::last(vec![want("POST", "/attack", "hello").with("host", "")]),
            behind,
        ),
        vector(
            "the balancer's own path with a request as its body",
            format!("POST /rep HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{SMUGGLED}{LAST}", SMUGGLED.len()),
            Outcome::last(vec![last()])
                .answered(&[crate::vector::Answer::Status(405), crate::vector::Answer::Status(200)]),
            "CL.0: who answers by himself must still read the body, or close",
        )
        .or(Outcome::refused(405)),
    ]
}
