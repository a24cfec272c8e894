//! `Content-Length`: odd, doubled, disguised, and together with `Transfer-Encoding`.

use crate::vector::{Outcome, SMUGGLED, Vector, attack, post, post_bytes, refused, second, served, vector, want};

const BOTH: &str =
    "RFC 9112, 6.1 and 6.3: two framings are an attempt at smuggling; whoever sees the other one is misled";
const ODD: &str =
    "RFC 9112, 6.3: an invalid Content-Length is an unrecoverable error; parsers differ in what they make of it";
const NAME: &str = "RFC 9112, 5.1: a field name with other bytes is ignored by some and cleaned by others";
const DIGITS: &str = "RFC 9110, 8.6: any number of digits with optional white space around them is valid";
const HIDDEN: &str = "the body is a request: whoever thinks there is no body runs it (CL.0, 0.CL)";

pub(crate) fn vectors() -> Vec<Vector> {
    let mut all = both();
    all.extend(odd());
    all.extend(disguised());
    all.extend(valid());
    all
}

fn both() -> Vec<Vector> {
    let end = format!("0\r\n\r\n{SMUGGLED}");
    let length = end.len();
    let chunked = |fields: &str| post(fields, &end);
    vec![
        refused("CL.TE", 400, chunked(&format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n")), BOTH),
        refused("TE.CL", 400, chunked("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"), BOTH),
        refused(
            "CL.TE, which agree",
            400,
            post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
            BOTH,
        ),
        refused("CL 0 with TE", 400, chunked("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n"), BOTH),
        refused(
            "CL.TE timing probe",
            400,
            post("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", "1\r\nZ\r\nQ"),
            "the probe of scanners: it must be answered at once, not wait for a chunk",
        ),
        refused(
            "CL with TE identity",
            400,
            post("Content-Length: 5\r\nTransfer-Encoding: identity\r\n", "hello"),
            BOTH,
        ),
        refused("CL with an empty TE", 400, post("Content-Length: 5\r\nTransfer-Encoding:\r\n", "hello"), BOTH),
        refused("CL with TE xchunked", 400, chunked("Content-Length: 5\r\nTransfer-Encoding: xchunked\r\n"), BOTH),
        refused(
            "an invalid CL with TE",
            400,
            chunked("Content-Length: x\r\nTransfer-Encoding: chunked\r\n"),
            "an invalid length must not be forgotten because chunks come",
        ),
        refused(
            "GET with CL and TE",
            400,
            format!(
                "GET /attack HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n{end}"
            ),
            BOTH,
        ),
        refused(
            "CL.TE on the balancer's own path",
            400,
            format!(
                "GET /rep HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n{end}"
            ),
            "what the balancer answers by itself is framed by the same rules",
        ),
    ]
}

fn odd() -> Vec<Vector> {
    let mut all = vec![
        refused(
            "two CL that differ",
            400,
            post(&format!("Content-Length: 0\r\nContent-Length: {}\r\n", SMUGGLED.len()), SMUGGLED),
            ODD,
        ),
        refused(
            "two CL that differ, other order",
            400,
            post(&format!("Content-Length: {}\r\nContent-Length: 0\r\n", SMUGGLED.len()), SMUGGLED),
            ODD,
        ),
        refused(
            "two equal CL",
            400,
            post("Content-Length: 5\r\nContent-Length: 5\r\n", "hello"),
            "CVE-2021-46667 and others: the sender is broken or an attacker",
        ),
        refused("two CL in two spellings", 400, post("Content-Length: 5\r\ncontent-length: 05\r\n", "hello"), ODD),
        refused("two CL, one empty", 400, post("Content-Length: 5\r\nContent-Length:\r\n", "hello"), ODD),
        refused(
            "two CL, far apart",
            400,
            post("Content-Length: 5\r\nX-A: b\r\nX-C: d\r\nContent-Length: 0\r\n", "hello"),
            ODD,
        ),
    ];
    for value in [
        "5, 5",
        "5,5",
        "5, 6",
        "5,",
        ",5",
        "+5",
        "-1",
        "-0",
        "0x5",
        "5 5",
        "5\t5",
        "",
        " ",
        "5;",
        "5;a=b",
        "5.0",
        "5e0",
        "five",
        "5a",
        "a5",
        "\"5\"",
        "'5'",
        "5_0",
        "0b101",
        "5/5",
        "5\u{a0}",
        "\u{ff15}",
        "\u{665}",
        "\x005",
        "5\0",
        "\u{b}5",
        "5\u{c}",
        "5\u{7f}",
        ":5",
        "18446744073709551616",
        "18446744073709551621",
        "340282366920938463463374607431768211461",
        "99999999999999999999999999",
    ] {
        let sent = post(&format!("Content-Length: {value}\r\n"), &format!("hello{SMUGGLED}"));
        all.push(refused(format!("CL {value:?}"), 400, sent, ODD));
    }
    all
}

fn disguised() -> Vec<Vector> {
    let mut all = Vec::new();
    for (name, line) in [
        ("a space before the colon", &b"Content-Length : 5\r\n"[..]),
        ("a tab before the colon", b"Content-Length\t: 5\r\n"),
        ("a vertical tab before the colon", b"Content-Length\x0b: 5\r\n"),
        ("NUL behind the name", b"Content-Length\0: 5\r\n"),
        ("NUL before the name", b"\0Content-Length: 5\r\n"),
        ("a no-break space behind the name", b"Content-Length\xa0: 5\r\n"),
        ("quotes around the name", b"\"Content-Length\": 5\r\n"),
        ("a space within the name", b"Content Length: 5\r\n"),
        ("= for the colon", b"Content-Length=5\r\n"),
        ("a long dash", "Content\u{2010}Length: 5\r\n".as_bytes()),
        ("folded", b"Content-Length:\r\n 5\r\n"),
        ("folded by a tab", b"Content-Length:\r\n\t5\r\n"),
        ("continued", b"Content-Length: 5\r\n 0\r\n"),
        ("in a folded line", b"X-A: b\r\n Content-Length: 5\r\n"),
        ("behind a bare CR", b"X-A: b\rContent-Length: 5\r\n"),
        ("behind a bare LF", b"X-A: b\nContent-Length: 5\r\n"),
        ("with a bare CR behind it", b"Content-Length: 5\rX-A: b\r\n"),
        ("ended by a bare LF", b"Content-Length: 5\n"),
        ("ended by CR CR LF", b"Content-Length: 5\r\r\n"),
        ("behind a CR", b"X-A: b\r\n\rContent-Length: 5\r\n"),
        ("in an odd bracket", b"Content-Length]: 5\r\n"),
    ] {
        let sent = post_bytes(line, &format!("hello{SMUGGLED}"));
        all.push(refused(format!("CL {name}"), 400, sent, NAME));
    }
    all
}

fn valid() -> Vec<Vector> {
    let body_is_request = |method: &'static str, target: &'static str| {
        let sent =
            format!("{method} {target} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{SMUGGLED}", SMUGGLED.len());
        served(format!("{method} with a request as its body"), sent, vec![want(method, target, SMUGGLED)], HIDDEN)
    };
    vec![
        body_is_request("POST", "/attack"),
        body_is_request("GET", "/attack"),
        body_is_request("HEAD", "/attack"),
        body_is_request("DELETE", "/attack"),
        body_is_request("OPTIONS", "/attack"),
        body_is_request("TRACE", "/attack"),
        body_is_request("UNHEARD-OF", "/attack"),
        served(
            "CL 0 and a second request",
            post("Content-Length: 0\r\n", SMUGGLED),
            vec![attack(""), second()],
            DIGITS,
        ),
        served(
            "no CL and a second request",
            post("", SMUGGLED),
            vec![attack(""), second()],
            "RFC 9112, 6.3: no framing, no body",
        ),
        served(
            "CL with spaces around",
            post("Content-Length:  5  \r\n", &format!("hello{SMUGGLED}")),
            vec![attack("hello"), second()],
            DIGITS,
        ),
        served(
            "CL with tabs around",
            post("Content-Length:\t5\t\r\n", &format!("hello{SMUGGLED}")),
            vec![attack("hello"), second()],
            DIGITS,
        ),
        served(
            "CL without a space",
            post("Content-Length:5\r\n", &format!("hello{SMUGGLED}")),
            vec![attack("hello"), second()],
            DIGITS,
        ),
        served(
            "CL in odd case",
            post("cOnTENT-lENgTh: 5\r\n", &format!("hello{SMUGGLED}")),
            vec![attack("hello"), second()],
            DIGITS,
        ),
        served(
            "CL that is not octal",
            post("Content-Length: 010\r\n", &format!("ten bytes!{SMUGGLED}")),
            vec![attack("ten bytes!"), second()],
            DIGITS,
        ),
        served(
            "CL with an underscore",
            post(&format!("Content_Length: {}\r\n", SMUGGLED.len()), SMUGGLED),
            vec![attack("").without("content_length"), second()],
            "it frames nothing here; a replica that takes _ for - must not see it",
        ),
        served(
            "CL in a field that ends like it",
            post("X-Content-Length: 5\r\nContent-Length-: 5\r\n", SMUGGLED),
            vec![attack(""), second()],
            "only the whole name counts",
        ),
        vector(
            "CL with thirty zeros",
            post(&format!("Content-Length: {}5\r\n", "0".repeat(30)), &format!("hello{}", crate::vector::LAST)),
            Outcome::last(vec![attack("hello"), crate::vector::last()]),
            DIGITS,
        )
        .or(Outcome::refused(400)),
    ]
}
