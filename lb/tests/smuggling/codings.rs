//! `Transfer-Encoding`: odd, doubled, disguised.

use crate::vector::{LAST, Outcome, SMUGGLED, Vector, attack, last, post, post_bytes, refused, second, served, vector};

const HIDDEN: &str = "TE.TE: one side takes it for chunked, the other one does not";
const FINAL: &str = "RFC 9112, 6.3: a request whose final coding is not chunked has no end";
const VALID: &str = "RFC 9112, 7: coding names and field names have no case, white space around a value does not count";

/// Chunks with a request behind them, of a length that hides it from who counts.
fn chunks() -> String {
    format!("5\r\nhello\r\n0\r\n\r\n{SMUGGLED}")
}

pub(crate) fn vectors() -> Vec<Vector> {
    let mut all = values();
    all.extend(names());
    all.extend(valid());
    all
}

fn values() -> Vec<Vector> {
    let mut all = Vec::new();
    for value in [
        "xchunked",
        "chunkedx",
        "x chunked",
        "chunked x",
        "chunked,identity",
        "chunked, identity",
        "chunked, gzip",
        "chunked, chunked",
        "chunked,chunked",
        "identity",
        "gzip",
        "",
        " ",
        ",",
        "chunked;x",
        "chunked;q=1",
        "chunked; a=b",
        "\"chunked\"",
        "'chunked'",
        "chunked\"",
        "chunk",
        "chunke",
        "chunked\0",
        "\0chunked",
        "\u{b}chunked",
        "chunked\u{b}",
        "\u{c}chunked",
        "\u{1}chunked",
        "chunked\u{7f}",
        "\u{a0}chunked",
        "\u{85}chunked",
        "chun\u{212a}ed",
        "chunked\r",
        "\rchunked",
        "chunked/1",
        "(chunked)",
        "cow",
        ": chunked",
        "Transfer-Encoding: chunked",
        "[chunked]",
        "chunked.",
        "deflate, chunked, identity",
    ] {
        let line = format!("Transfer-Encoding: {value}\r\n");
        all.push(refused(format!("TE {value:?}"), 400, post(&line, &chunks()), HIDDEN));
    }
    for value in ["gzip, chunked", "deflate,chunked", "cow, chunked", "gzip, deflate, chunked"] {
        let sent = post(&format!("Transfer-Encoding: {value}\r\n"), &chunks());
        all.push(refused(
            format!("TE {value:?}"),
            501,
            sent,
            "RFC 9112, 6.1: a coding that is not understood is a 501",
        ));
    }
    let sent = post("Transfer-Encoding: identity, chunked\r\n", &chunks());
    all.push(refused("TE identity, chunked", 400, sent, FINAL).or(Outcome::refused(501)));
    for value in [",chunked", "chunked,", ", , chunked"] {
        let sent = post(&format!("Transfer-Encoding: {value}\r\n"), &format!("5\r\nhello\r\n0\r\n\r\n{LAST}"));
        let why =
            "RFC 9110, 5.6.1: empty elements may be skipped, which is safe as the body is framed anew, or refused";
        all.push(
            vector(format!("TE {value:?}"), sent, Outcome::last(vec![attack("hello"), last()]), why)
                .or(Outcome::refused(400)),
        );
    }
    for (name, lines) in [
        ("chunked twice", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
        ("chunked and identity", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"),
        ("identity and chunked", "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n"),
        ("chunked and cow", "Transfer-Encoding: chunked\r\nTransfer-encoding: cow\r\n"),
        ("chunked and nothing", "Transfer-Encoding: chunked\r\nTransfer-Encoding:\r\n"),
        ("nothing and chunked", "Transfer-Encoding:\r\nTransfer-Encoding: chunked\r\n"),
        ("chunked, far apart", "Transfer-Encoding: chunked\r\nX-A: b\r\nTransfer-Encoding: x\r\n"),
    ] {
        all.push(refused(format!("two TE lines: {name}"), 400, post(lines, &chunks()), HIDDEN));
    }
    for (name, sent) in [
        (
            "HTTP/1.0 with TE",
            format!("POST /attack HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{}", chunks()),
        ),
        (
            "HTTP/1.0 with TE, kept alive",
            format!(
                "POST /attack HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n{}",
                chunks()
            ),
        ),
        (
            "HTTP/1.0 with TE and CL",
            format!(
                "POST /attack HTTP/1.0\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n{}",
                chunks()
            ),
        ),
    ] {
        all.push(refused(name, 400, sent, "RFC 9112, 6.1: framing is faulty, as HTTP/1.0 knows no chunks"));
    }
    all
}

fn names() -> Vec<Vector> {
    let mut all = Vec::new();
    for (name, line) in [
        ("a space before the colon", &b"Transfer-Encoding : chunked\r\n"[..]),
        ("a tab before the colon", b"Transfer-Encoding\t: chunked\r\n"),
        ("a vertical tab before the colon", b"Transfer-Encoding\x0b: chunked\r\n"),
        ("a space before the name", b" Transfer-Encoding: chunked\r\n"),
        ("a tab before the name", b"\tTransfer-Encoding: chunked\r\n"),
        ("NUL before the name", b"\0Transfer-Encoding: chunked\r\n"),
        ("NUL behind the name", b"Transfer-Encoding\0: chunked\r\n"),
        ("NUL within the name", b"Transfer-\0Encoding: chunked\r\n"),
        ("a byte of Latin 1 behind the name", b"Transfer-Encoding\xff: chunked\r\n"),
        ("a dotless i", "Transfer-Encod\u{131}ng: chunked\r\n".as_bytes()),
        ("a space within the name", b"Transfer Encoding: chunked\r\n"),
        ("quotes around the name", b"\"Transfer-Encoding\": chunked\r\n"),
        ("no colon", b"Transfer-Encoding chunked\r\n"),
        ("= for the colon", b"Transfer-Encoding=chunked\r\n"),
        ("folded", b"Transfer-Encoding:\r\n chunked\r\n"),
        ("folded by a tab", b"Transfer-Encoding:\r\n\tchunked\r\n"),
        ("folded in the name", b"Transfer-Encoding\r\n : chunked\r\n"),
        ("continued", b"Transfer-Encoding: chunked\r\n , identity\r\n"),
        ("in a folded line", b"X-A: b\r\n Transfer-Encoding: chunked\r\n"),
        ("behind a bare LF", b"X-A: b\nTransfer-Encoding: chunked\r\n"),
        ("behind a bare CR", b"X-A: b\rTransfer-Encoding: chunked\r\n"),
        ("behind a CR at the line's begin", b"X-A: b\r\n\rTransfer-Encoding: chunked\r\n"),
        ("ended by a bare LF", b"Transfer-Encoding: chunked\n"),
        ("with a bare LF and CL behind it", b"Transfer-Encoding: chunked\nX-A: b\r\n"),
    ] {
        // The length covers the chunks and the request behind them, or chunks end before it: one of both is blind.
        let length = format!("Content-Length: {}\r\n", chunks().len());
        all.push(refused(
            format!("CL.TE, TE: {name}"),
            400,
            post_bytes(&[length.as_bytes(), line].concat(), &chunks()),
            HIDDEN,
        ));
        all.push(refused(format!("TE: {name}"), 400, post_bytes(line, &chunks()), HIDDEN));
    }
    all
}

fn valid() -> Vec<Vector> {
    let mut all = Vec::new();
    for line in [
        "Transfer-Encoding: chunked",
        "Transfer-Encoding:chunked",
        "Transfer-Encoding:\tchunked",
        "Transfer-Encoding: chunked \t ",
        "Transfer-Encoding: CHUNKED",
        "Transfer-Encoding: cHuNkEd",
        "tRANSFER-eNCODING: chunked",
        "Connection: transfer-encoding\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTE: trailers, chunked",
    ] {
        let wanted = attack("hello").without("te");
        all.push(served(
            format!("valid {line:?}"),
            post(&format!("{line}\r\n"), &chunks()),
            vec![wanted, second()],
            VALID,
        ));
    }
    let length = format!("Content-Length: {}\r\n", SMUGGLED.len());
    for line in
        ["Transfer_Encoding: chunked", "TE: chunked", "Content-Encoding: chunked", "X-Transfer-Encoding: chunked"]
    {
        let wanted = attack(SMUGGLED).without("transfer_encoding").without("te");
        let why = "no framing: the length counts, and a look-alike that a replica might believe is gone";
        all.push(served(
            format!("CL with {line:?}"),
            post(&format!("{length}{line}\r\n"), SMUGGLED),
            vec![wanted],
            why,
        ));
    }
    all
}
