//! Chunked bodies: sizes, extensions, ends of lines, trailers.

use crate::vector::{LAST, Outcome, SMUGGLED, Vector, attack, last, post, refused, second, served, vector};

const TE: &str = "Transfer-Encoding: chunked\r\n";

/// A body that turns out to be broken. Its head, and what came before, may have reached a replica; the end can't have.
fn broken(name: &str, body: impl AsRef<[u8]>, valid_part: &str, why: &'static str) -> Vector {
    let sent = [&post(TE, ""), body.as_ref()].concat();
    vector(format!("chunks: {name}"), sent, Outcome::refused(400).with_cut(attack(valid_part)), why)
}

/// A body that is in order, with a second request behind it.
fn sound(name: &str, body: impl AsRef<str>, decoded: &str, why: &'static str) -> Vector {
    let sent = post(TE, &format!("{}{SMUGGLED}", body.as_ref()));
    served(format!("chunks: {name}"), sent, vec![attack(decoded), second()], why)
}

pub(crate) fn vectors() -> Vec<Vector> {
    let mut all = sizes();
    all.extend(extensions());
    all.extend(ends());
    all.extend(trailers());
    all
}

fn sizes() -> Vec<Vector> {
    const SIZE: &str = "RFC 9112, 7.1: a size is 1*HEXDIG; parsers that take more take it differently";
    const OVERFLOW: &str =
        "RFC 9112, 7.1: recipients must guard against overflow of large sizes; a wrapped one ends early";
    let mut all = vec![
        sound("upper case size", "A\r\nten bytes!\r\n0\r\n\r\n", "ten bytes!", SIZE),
        sound("lower case size", "a\r\nten bytes!\r\n0\r\n\r\n", "ten bytes!", SIZE),
        sound("size with zeros", "0005\r\nhello\r\n0\r\n\r\n", "hello", SIZE),
        sound("16 digits", "0000000000000005\r\nhello\r\n0\r\n\r\n", "hello", SIZE),
        sound("last chunk of many zeros", "5\r\nhello\r\n0000\r\n\r\n", "hello", SIZE),
        sound("a decimal look", "10\r\nsixteen bytes!!!\r\n0\r\n\r\n", "sixteen bytes!!!", SIZE),
        sound("several", "1\r\nh\r\n3\r\nell\r\n1\r\no\r\n0\r\n\r\n", "hello", SIZE),
        sound("none but the last", "0\r\n\r\n", "", SIZE),
        sound("chunks within a chunk", "f\r\n5\r\nhello\r\n0\r\n\r\n\r\n0\r\n\r\n", "5\r\nhello\r\n0\r\n\r\n", SIZE),
        broken("2^64 + 5", "10000000000000005\r\nhello\r\n0\r\n\r\n", "", OVERFLOW),
        broken("2^64", "10000000000000000\r\n\r\n", "", OVERFLOW),
        broken("2^68 + 5", "100000000000000005\r\nhello\r\n0\r\n\r\n", "", OVERFLOW),
    ];
    for size in [
        "", " ", "-5", "+5", "-1", "-0", "0x5", "0X5", "x5", "5x", "5h", "g", "\\x35", "5,", "5.", "5.0", "5_",
        "\"5\"", " 5", "\t5", "5 ", "5\t", "5 5", "5\0", "\x005", "5\u{b}", "\u{c}5", "5\u{7f}", "\u{ff15}", "0 ",
        " 0", "-0000", "5=",
    ] {
        let body = format!("{size}\r\nhello\r\n0\r\n\r\n{SMUGGLED}");
        all.push(broken(&format!("size {size:?}"), body, "", SIZE));
        let body = format!("3\r\nabc\r\n{size}\r\nhello\r\n0\r\n\r\n{SMUGGLED}");
        all.push(broken(&format!("second size {size:?}"), body, "abc", SIZE));
    }
    all
}

fn extensions() -> Vec<Vector> {
    const TERM_EXT: &str =
        "TERM.EXT, EXT.TERM (2025): a line end in an extension is one for one side and none for the other";
    const DROPPED: &str = "RFC 9112, 7.1.1: extensions that are not known are ignored, and belong to this hop";
    let mut all = vec![
        sound("an extension", "5;a=b\r\nhello\r\n0\r\n\r\n", "hello", DROPPED),
        sound("an extension without a value", "5;a\r\nhello\r\n0\r\n\r\n", "hello", DROPPED),
        sound("a quoted extension", "5;a=\"b;c\"\r\nhello\r\n0\r\n\r\n", "hello", DROPPED),
        sound("an extension that looks like a size", "5;f\r\nhello\r\n0\r\n\r\n", "hello", DROPPED),
        sound("an extension on the last", "5\r\nhello\r\n0;a=b\r\n\r\n", "hello", DROPPED),
        broken("an extension without a size", ";a=b\r\nhello\r\n0\r\n\r\n", "", DROPPED),
        broken(
            "a space before an extension",
            "5 ;a=b\r\nhello\r\n0\r\n\r\n",
            "",
            "BWS that nobody needs and parsers differ about",
        ),
        broken(
            "a tab before an extension",
            "5\t;a=b\r\nhello\r\n0\r\n\r\n",
            "",
            "BWS that nobody needs and parsers differ about",
        ),
        broken(
            "an endless extension",
            format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(20_000)),
            "",
            "CVE-2024-22019: extensions without a bound",
        ),
    ];
    for (name, line) in [
        ("a bare LF", "5;a\nhello\r\n0\r\n\r\n"),
        (
            "a bare LF and chunks behind it",
            "2;\nxx\r\n2d\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n0\r\n\r\n",
        ),
        ("a bare LF at its begin", "5;\nhello\r\n0\r\n\r\n"),
        ("a bare CR", "5;a\rb\r\nhello\r\n0\r\n\r\n"),
        ("a bare CR at its begin", "5;\rhello\r\n0\r\n\r\n"),
        ("a bare CR at its end", "5;a\r\r\nhello\r\n0\r\n\r\n"),
        ("a quoted CRLF", "5;a=\"\r\nhello\r\n0\r\n\r\n\"\r\nhello\r\n0\r\n\r\n"),
        ("NUL", "5;a\0\r\nhello\r\n0\r\n\r\n"),
        ("a vertical tab", "5;a\u{b}\r\nhello\r\n0\r\n\r\n"),
        ("DEL", "5;a\u{7f}\r\nhello\r\n0\r\n\r\n"),
    ] {
        if name == "a quoted CRLF" {
            // A quoted string can't have line ends: the line ends here, and what looks like the second chunk is a tail.
            let sent = post(TE, &format!("5;a=\"\r\nhello\r\n0\r\n\r\n{LAST}"));
            let served = Outcome::last(vec![attack("hello"), last()]);
            all.push(
                vector("chunks: an unfinished quote", sent, served, TERM_EXT)
                    .or(Outcome::refused(400).with_cut(attack(""))),
            );
        } else {
            all.push(broken(&format!("an extension with {name}"), format!("{line}{SMUGGLED}"), "", TERM_EXT));
        }
    }
    all
}

fn ends() -> Vec<Vector> {
    const LF: &str = "RFC 9112, 7.1: CRLF, nothing else; who takes a bare LF finds other chunks than who does not";
    const SPILL: &str =
        "TERM.SPILL, ONE.TWO (2025): who skips two bytes behind a chunk unseen lets other bytes pass for CRLF";
    let mut all = Vec::new();
    for (name, body, valid) in [
        ("a bare LF behind the size", "5\nhello\r\n0\r\n\r\n", ""),
        ("a bare CR behind the size", "5\rhello\r\n0\r\n\r\n", ""),
        ("CR CR LF behind the size", "5\r\r\nhello\r\n0\r\n\r\n", ""),
        ("LF CR behind the size", "5\n\rhello\r\n0\r\n\r\n", ""),
        ("a bare LF behind the data", "5\r\nhello\n0\r\n\r\n", "hello"),
        ("a bare CR behind the data", "5\r\nhello\r0\r\n\r\n", "hello"),
        ("nothing behind the data", "5\r\nhello0\r\n\r\n", "hello"),
        ("two LF behind the data", "5\r\nhello\n\n0\r\n\r\n", "hello"),
        ("LF CR behind the data", "5\r\nhello\n\r0\r\n\r\n", "hello"),
        ("CR CR LF behind the data", "5\r\nhello\r\r\n0\r\n\r\n", "hello"),
        ("two other bytes behind the data", "5\r\nhelloXX0\r\n\r\n", "hello"),
        ("two digits behind the data", "5\r\nhello00\r\n0\r\n\r\n", "hello"),
        ("a byte too many", "5\r\nhello!\r\n0\r\n\r\n", "hello"),
        ("a byte too few", "6\r\nhello\r\n0\r\n\r\n", "hello\r"),
        ("two bytes too few", "7\r\nhello\r\n0\r\n\r\n", "hello\r\n"),
        ("an empty line between chunks", "5\r\nhello\r\n\r\n0\r\n\r\n", "hello"),
        ("a bare LF behind the last size", "5\r\nhello\r\n0\n\r\n", "hello"),
        ("a bare LF for the empty line", "5\r\nhello\r\n0\r\n\n", "hello"),
        ("a bare CR for the empty line", "5\r\nhello\r\n0\r\n\rX", "hello"),
        ("two bare LF at the end", "5\r\nhello\r\n0\n\n", "hello"),
        ("a bare CR behind the last size", "5\r\nhello\r\n0\r\r\n\r\n", "hello"),
        ("other bytes for the last CRLF", "5\r\nhello\r\n0\r\nXX\r\n\r\n", "hello"),
        ("a request for the trailer", "5\r\nhello\r\n0\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", "hello"),
    ] {
        let why = if name.contains("LF") { LF } else { SPILL };
        all.push(broken(name, format!("{body}{SMUGGLED}"), valid, why));
    }
    all
}

fn trailers() -> Vec<Vector> {
    const TRAILER: &str = "RFC 9110, 6.5.1: a trailer can't frame, route or authorise";
    const STRICT: &str = "RFC 9112, 7.1.2: trailers are field lines, with the same strict form";
    let chunks = |trailers: &str| format!("5\r\nhello\r\n0\r\n{trailers}\r\n");
    let mut all = vec![
        sound("a trailer", chunks("X-Sum: 1\r\n"), "hello", STRICT),
        sound("a trailer CL", chunks("Content-Length: 3\r\n"), "hello", TRAILER),
        sound("a trailer TE", chunks("Transfer-Encoding: chunked\r\n"), "hello", TRAILER),
        sound("a trailer Host", chunks("Host: evil\r\n"), "hello", TRAILER),
        sound("a trailer Connection", chunks("Connection: close\r\n"), "hello", TRAILER),
        sound(
            "a trailer X-Forwarded-For",
            chunks("X-Forwarded-For: 10.0.0.1\r\nForwarded: for=10.0.0.1\r\n"),
            "hello",
            TRAILER,
        ),
        sound(
            "look-alikes in a trailer",
            chunks("X_Forwarded_For: 10.0.0.1\r\nContent_Length: 3\r\n"),
            "hello",
            TRAILER,
        ),
    ];
    for (name, trailer) in [
        ("folded", "X-Sum: 1\r\n 2\r\n"),
        ("folded first", " X-Sum: 1\r\n"),
        ("with a space before the colon", "X-Sum : 1\r\n"),
        ("without a colon", "X-Sum\r\n"),
        ("without a name", ": 1\r\n"),
        ("with a bare LF", "X-Sum: 1\nX-Other: 2\r\n"),
        ("with a bare CR", "X-Sum: 1\rX-Other: 2\r\n"),
        ("with NUL", "X-Sum: \0\r\n"),
        ("that is a request line", "GET /smuggled HTTP/1.1\r\n"),
    ] {
        all.push(broken(&format!("a trailer {name}"), format!("{}{SMUGGLED}", chunks(trailer)), "hello", STRICT));
    }
    let endless = chunks(&format!("X-Sum: {}\r\n", "1".repeat(20_000)));
    let outcome = Outcome::refused(431).with_cut(attack("hello"));
    all.push(vector("chunks: an endless trailer", post(TE, &endless), outcome, "trailers need a bound as heads do"));
    all.push(
        refused(
            "chunks: broken on the balancer's own path",
            400,
            format!("POST /rep HTTP/1.1\r\nHost: a\r\n{TE}\r\n5\nhello\r\n0\r\n\r\n{SMUGGLED}"),
            "what the balancer answers by itself is framed by the same rules",
        )
        .or(Outcome::refused(405)),
    );
    all
}
