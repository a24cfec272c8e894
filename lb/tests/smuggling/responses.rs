//! Replicas that frame their responses wrongly, answer early, or send more than they were asked for.
//!
//! The requests that follow on other connections must get their own answers: that is checked after each vector.

use crate::support::recorder::Act;
use crate::vector::{Answer, LAST, Outcome, SMUGGLED, Step, Vector, last, vector, want};

const FRAMING: &str =
    "RFC 9112, 6.3: a response without a certain end can't be passed on, and its connection not used again";
const BEHIND: &str =
    "response queue poisoning: what comes behind a response would be the answer to somebody else's request";
const HEAD: &str = "RFC 9112, 5 and 2.2: a head that others may read differently";
const EARLY: &str = "CL.0 on the replica's side: what it did not read of a body it would take for the next request";

/// An answer that must never be seen by anybody.
const POISON: &str = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\nx-marker: poison\r\n\r\npoison";

/// What comes of `GET /attack` if a replica answers with these bytes, and of a request behind it.
fn answers(name: &str, bytes: impl AsRef<[u8]>, answer: Answer, why: &'static str) -> Vector {
    to_method("GET", name, bytes, answer, why)
}

fn to_method(method: &'static str, name: &str, bytes: impl AsRef<[u8]>, answer: Answer, why: &'static str) -> Vector {
    let sent = format!("{method} /attack HTTP/1.1\r\nHost: a\r\n\r\n");
    let broken = matches!(answer, Answer::Broken(_));
    let outcome = if broken {
        Outcome::served(vec![want(method, "/attack", "")]).and_closed()
    } else {
        Outcome::served(vec![want(method, "/attack", "")])
    };
    let mut vector = vector(format!("response: {name}"), sent, outcome.clone().answered(&[answer]), why);
    if broken {
        // What was wrong may have been seen before the head went out.
        vector = vector.or(outcome.clone().answered(&[])).or(outcome.answered(&[Answer::Status(502)]));
    }
    vector.script("/attack", [Act::Body, Act::Write(bytes.as_ref().to_vec())])
}

fn body(text: &'static str) -> Answer {
    Answer::Body(text)
}

pub(crate) fn vectors() -> Vec<Vector> {
    let mut all = framings();
    all.extend(heads());
    all.extend(behind());
    all.extend(early());
    all
}

fn framings() -> Vec<Vector> {
    const BAD: Answer = Answer::Status(502);
    let ok = |fields: &str, rest: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\n{rest}");
    let chunks = "6\r\nlonger\r\n0\r\n\r\n";
    let mut all = vec![
        answers(
            "CL and TE",
            ok("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", chunks),
            body("longer"),
            FRAMING,
        ),
        answers(
            "TE and CL",
            ok("Transfer-Encoding: chunked\r\nContent-Length: 300\r\n", chunks),
            body("longer"),
            FRAMING,
        ),
        answers("two CL that differ", ok("Content-Length: 6\r\nContent-Length: 3\r\n", "longer"), BAD, FRAMING),
        answers("two equal CL", ok("Content-Length: 6\r\nContent-Length: 6\r\n", "longer"), body("longer"), FRAMING),
        answers(
            "a chunk without its CRLF",
            ok("Transfer-Encoding: chunked\r\n", "5\r\nhello0\r\n\r\n"),
            Answer::Broken(200),
            FRAMING,
        ),
        answers(
            "a chunk with a bare LF",
            ok("Transfer-Encoding: chunked\r\n", "5\nhello\n0\n\n"),
            Answer::Broken(200),
            FRAMING,
        ),
        answers(
            "a chunk size of letters",
            ok("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\nxyz\r\n\r\n"),
            Answer::Broken(200),
            FRAMING,
        ),
        answers(
            "a chunk size over 2^64",
            ok("Transfer-Encoding: chunked\r\n", "10000000000000005\r\nhello\r\n0\r\n\r\n"),
            Answer::Broken(200),
            FRAMING,
        ),
    ];
    for value in ["+6", "-6", "0x6", "6,7", "6x", "six", "6 6", "18446744073709551622"] {
        let bytes = ok(&format!("Content-Length: {value}\r\n"), "longer");
        all.push(answers(&format!("CL {value:?}"), bytes, BAD, FRAMING));
    }
    for value in
        ["identity", "xchunked", "gzip", "chunked, identity", "gzip, chunked", "chunked, chunked", "\"chunked\""]
    {
        let bytes = ok(&format!("Transfer-Encoding: {value}\r\n"), chunks);
        all.push(answers(&format!("TE {value:?}"), bytes, BAD, FRAMING));
    }
    all
}

fn heads() -> Vec<Vector> {
    const BAD: Answer = Answer::Status(502);
    let mut all = Vec::new();
    for (name, head) in [
        ("folded", "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nX-A: b\r\n c\r\n\r\n"),
        ("a line without a colon", "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nX-A\r\n\r\n"),
        ("NUL", "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nX-A: \0\r\n\r\n"),
        ("a bare CR", "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nX-A: b\rX-B: c\r\n\r\n"),
        ("a space in a name", "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nX A: b\r\n\r\n"),
        ("HTTP/2.0", "HTTP/2.0 200 OK\r\nContent-Length: 6\r\n\r\n"),
        ("a status of four digits", "HTTP/1.1 2000 OK\r\nContent-Length: 6\r\n\r\n"),
        ("a status of two digits", "HTTP/1.1 20 OK\r\nContent-Length: 6\r\n\r\n"),
        ("no status", "HTTP/1.1 OK\r\nContent-Length: 6\r\n\r\n"),
        ("a negative status", "HTTP/1.1 -20 OK\r\nContent-Length: 6\r\n\r\n"),
        ("a status of 0", "HTTP/1.1 000 OK\r\nContent-Length: 6\r\n\r\n"),
        ("no HTTP", "SSH-2.0-OpenSSH_9.6\r\nlonger\r\n\r\n"),
        ("a request", SMUGGLED),
    ] {
        all.push(answers(&format!("head: {name}"), format!("{head}longer"), BAD, HEAD));
    }
    // Read leniently or refused: either is safe, as the head is written anew.
    for (name, head) in [
        ("bare LF", "HTTP/1.1 200 OK\nContent-Length: 6\n\n"),
        ("a space before a colon", "HTTP/1.1 200 OK\r\nContent-Length : 6\r\n\r\n"),
    ] {
        let both = answers(&format!("head: {name}"), format!("{head}longer"), body("longer"), HEAD);
        let refused = Outcome::served(vec![want("GET", "/attack", "")]).answered(&[BAD]);
        all.push(both.or(refused));
    }
    let bad_to_head = to_method(
        "HEAD",
        "bad head to a HEAD",
        "HTTP/1.1 200 OK\r\nX-A\r\n\r\n",
        BAD,
        "RFC 9110, 9.3.2: an error in answer to HEAD has no body either",
    );
    all.push(bad_to_head);
    all
}

fn behind() -> Vec<Vector> {
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK";
    let poisoned = |first: &str| format!("{first}{POISON}");
    let mut all = vec![
        answers("another one behind it", poisoned(ok), body("OK"), BEHIND),
        answers("two others behind it", poisoned(&poisoned(ok)), body("OK"), BEHIND),
        answers("an empty line behind it", format!("{ok}\r\n"), body("OK"), BEHIND),
        answers("a byte behind it", format!("{ok}x"), body("OK"), BEHIND),
        answers(
            "another one behind its chunks",
            poisoned("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nOK\r\n0\r\n\r\n"),
            body("OK"),
            BEHIND,
        ),
        answers(
            "another one behind an empty one",
            poisoned("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
            body(""),
            BEHIND,
        ),
        answers(
            "a 204 with a body",
            "HTTP/1.1 204 No Content\r\nContent-Length: 6\r\n\r\npoison",
            Answer::Status(204),
            BEHIND,
        ),
        answers(
            "a 204 with chunks",
            "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n6\r\npoison\r\n0\r\n\r\n",
            Answer::Status(204),
            BEHIND,
        ),
        answers(
            "a 204 with another one behind it",
            poisoned("HTTP/1.1 204 No Content\r\n\r\n"),
            Answer::Status(204),
            BEHIND,
        ),
        answers(
            "a 304 with a body",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\npoison",
            Answer::Status(304),
            BEHIND,
        ),
        answers(
            "a 304 with another one behind it",
            poisoned("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"),
            Answer::Status(304),
            BEHIND,
        ),
        to_method(
            "HEAD",
            "a HEAD with a body",
            ok,
            Answer::Status(200),
            "CVE-2023-25725 and others: the body would be the next answer",
        ),
        to_method(
            "HEAD",
            "a HEAD with another one behind it",
            poisoned("HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n"),
            Answer::Status(200),
            BEHIND,
        ),
        to_method(
            "HEAD",
            "a HEAD with chunks",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nOK\r\n0\r\n\r\n",
            Answer::Status(200),
            BEHIND,
        ),
    ];
    // One that comes when the connection is idle, sent once the client has its answer.
    let late = [Act::Body, Act::Write(ok.into()), Act::Gate, Act::Write(POISON.into())];
    let idle = answers("another one, when nobody waits", "", body("OK"), BEHIND).then(Step::Await(1));
    all.push(idle.then(Step::OpenGate).script("/attack", late));
    let interim = |name: &str, bytes: &str, interim: &[u16], answer: Answer| {
        let mut vector =
            answers(name, bytes, answer, "RFC 9110, 15.2: interim answers go before the final one, and have no body");
        vector.outcomes = vector.outcomes.into_iter().map(|outcome| outcome.with_interim(interim)).collect();
        vector
    };
    all.push(interim(
        "a 103 before it",
        &format!("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n{ok}"),
        &[103],
        body("OK"),
    ));
    all.push(interim("a 100 that nobody asked for", &format!("HTTP/1.1 100 Continue\r\n\r\n{ok}"), &[100], body("OK")));
    let three =
        format!("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n{ok}");
    all.push(interim("three before it", &three, &[100, 102, 103], body("OK")));
    let with_body =
        "HTTP/1.1 100 Continue\r\nContent-Length: 6\r\n\r\npoisonHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK";
    all.push(answers("an interim one with a body", with_body, Answer::Status(502), BEHIND));
    let old = vector(
        "response: an interim one to HTTP/1.0",
        format!("GET /attack HTTP/1.0\r\nHost: a\r\n\r\n{SMUGGLED}"),
        Outcome::last(vec![want("GET", "/attack", "")]).answered(&[body("OK")]).with_interim(&[]),
        "RFC 9110, 15.2: never to HTTP/1.0, which would take it for the final one",
    );
    all.push(
        old.script("/attack", [Act::Body, Act::Write(format!("HTTP/1.1 103 Early Hints\r\n\r\n{ok}").into_bytes())]),
    );
    all
}

fn early() -> Vec<Vector> {
    let padding = "x".repeat(5000);
    let length = SMUGGLED.len() + padding.len();
    let head = format!("POST /attack HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
    let rest = format!("{SMUGGLED}{padding}{LAST}");
    let whole = || want("POST", "/attack", &format!("{SMUGGLED}{padding}"));
    let answer = b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno".to_vec();
    let closed = |forwarded: Vec<_>, answers: &[Answer]| Outcome {
        forwarded,
        cut: Some(whole()),
        ..Outcome::last(Vec::new()).answered(answers)
    };
    let (no, yes) = (Answer::Status(403), Answer::Status(200));
    let reads_on = [Act::Write(answer.clone()), Act::Body];
    let leaves = [Act::Write(answer.clone()), Act::Close];
    let poisons = [Act::Write(answer), Act::Write(POISON.into()), Act::Body];
    let mut all = Vec::new();
    for (name, acts) in
        [("reads on", reads_on.to_vec()), ("leaves", leaves.to_vec()), ("poisons the queue", poisons.to_vec())]
    {
        // The rest of the body may be read, or the connection closed: it is never a request.
        let mut vector = vector(
            format!("early answer: the replica {name}"),
            head.clone(),
            closed(vec![], std::slice::from_ref(&no)),
            EARLY,
        )
        .or(closed(vec![last()], &[no.clone(), yes.clone()]));
        if name != "leaves" {
            vector = vector
                .or(closed(vec![whole(), last()], &[no.clone(), yes.clone()]))
                .or(closed(vec![whole()], std::slice::from_ref(&no)));
        }
        all.push(vector.then(Step::Await(1)).then(Step::Send(rest.clone().into_bytes())).script("/attack", acts));
    }
    all
}
