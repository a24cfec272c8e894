//! Messages that stop in the middle: what has come must not pass for the whole when time is up or the client leaves.

use crate::vector::{Outcome, SMUGGLED, Step, Vector, attack, post, vector, want};

const WHOLE: &str = "RFC 9112, 8: an incomplete message must not be taken for a whole one";
const LONG: &str = "a length that wraps in 32 or 64 bits would end the body early, with a request behind it";

/// Those that time ends. They need a balancer with short timeouts.
pub(crate) fn vectors() -> Vec<Vector> {
    let late = |name: &str, sent: Vec<u8>, why: &'static str| {
        vector(format!("late: {name}"), sent, Outcome::refused(408), why)
    };
    let cut = |name: &str, fields: &str, rest: &str, valid: &str, why: &'static str| {
        vector(format!("late: {name}"), post(fields, rest), Outcome::refused(408).with_cut(attack(valid)), why)
    };
    const TE: &str = "Transfer-Encoding: chunked\r\n";
    let mut all = vec![
        late("a line", b"GET /attack HT".to_vec(), WHOLE),
        late("a head", b"GET /attack HTTP/1.1\r\nHost: a\r\n".to_vec(), WHOLE),
        late("a head without its last LF", b"GET /attack HTTP/1.1\r\nHost: a\r\n\r".to_vec(), WHOLE),
        vector("late: everything", "", Outcome::last(vec![]), "an idle connection is closed without a word"),
        vector(
            "late: a second head",
            "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /attack HTTP/1.1\r\nHo",
            Outcome::served(vec![want("GET", "/1", "")]).then_refused(408),
            WHOLE,
        ),
        cut("a body", "Content-Length: 10\r\n", "hello", "hello", WHOLE),
        cut("a size", TE, "5", "", WHOLE),
        cut("a size without its LF", TE, "5\r", "", WHOLE),
        cut("a chunk", TE, "5\r\nhel", "hel", WHOLE),
        cut("a chunk's LF", TE, "5\r\nhello\r", "hello", WHOLE),
        cut("a last chunk", TE, "5\r\nhello\r\n", "hello", WHOLE),
        cut("a last chunk's end", TE, "5\r\nhello\r\n0\r\n", "hello", WHOLE),
        cut("a trailer's end", TE, "5\r\nhello\r\n0\r\nX-Sum: 1\r\n", "hello", WHOLE),
        cut("a body that was to be asked for", "Content-Length: 5\r\nExpect: 100-continue\r\n", "", "", WHOLE),
    ];
    let rest = format!("hello{SMUGGLED}");
    for length in ["4294967301", "2147483653", "9223372036854775813", "18446744073709551615", "1000000000000000000"] {
        // Whether such a length is refused at once or waited for: nothing of the body is a request.
        all.push(
            cut(&format!("CL {length}"), &format!("Content-Length: {length}\r\n"), &rest, &rest, LONG)
                .or(Outcome::refused(400))
                .or(Outcome::refused(413)),
        );
    }
    for size in [
        "ffffffffffffffff",
        "FFFFFFFFFFFFFFFE",
        "fffffffffffffffd",
        "8000000000000005",
        "7fffffffffffffff",
        "100000005",
        "80000005",
    ] {
        let rest = format!("{size}\r\nhello\r\n0\r\n\r\n{SMUGGLED}");
        let valid = &rest[size.len() + 2..];
        let refused = |status| Outcome::refused(status).with_cut(attack(valid));
        all.push(cut(&format!("chunk size {size}"), TE, &rest, valid, LONG).or(refused(400)).or(refused(413)));
    }
    let sums = format!("5\r\nhello\r\nfffffffffffffffb\r\nabc\r\n0\r\n\r\n{SMUGGLED}");
    let valid = format!("helloabc\r\n0\r\n\r\n{SMUGGLED}");
    let refused = Outcome::refused(400).with_cut(attack(&valid));
    all.push(cut("chunk sizes whose sum wraps", TE, &sums, &valid, LONG).or(refused));
    all
}

/// Those that the client ends.
pub(crate) fn broken_off() -> Vec<Vector> {
    let mut all = Vec::new();
    for (name, fields, rest, valid) in [
        ("a body", "Content-Length: 10\r\n", "hello", "hello"),
        ("a size", "Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0", "hello"),
        ("a chunk", "Transfer-Encoding: chunked\r\n", "5\r\nhel", "hel"),
        ("a last chunk", "Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n", "hello"),
        ("a last chunk's end", "Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n", "hello"),
    ] {
        // Whether its client is told or not: the replica must see that it is not whole.
        let silent = Outcome::last(vec![]).with_cut(attack(valid));
        let told = |status| Outcome::refused(status).with_cut(attack(valid));
        all.push(
            vector(format!("broken off: {name}"), post(fields, rest), silent, WHOLE)
                .then(Step::HalfClose)
                .or(told(400))
                .or(told(408)),
        );
    }
    let head = vector("broken off: a head", "GET /attack HTTP/1.1\r\nHost: a\r\n", Outcome::last(vec![]), WHOLE);
    all.push(head.then(Step::HalfClose).or(Outcome::refused(400)).or(Outcome::refused(408)));
    all
}
