//! `Expect` and `Upgrade`: whether a body comes, and whether what comes is HTTP at all.

use crate::support::recorder::Act;
use crate::vector::{
    Answer, LAST, Outcome, SMUGGLED, Step, Vector, attack, last, post, refused, second, served, vector, want,
};

const EXPECT: &str =
    "RFC 9110, 10.1.1: 100-continue is the only expectation; whoever misreads it waits for a body or skips it (2025)";
const UPGRADE: &str =
    "RFC 9110, 7.8: only a 101 changes the protocol; until then nothing behind the request is for the replica";
const H2C: &str = "h2c smuggling (2020): an upgrade to h2c makes a blind tunnel of the proxy";

pub(crate) fn vectors() -> Vec<Vector> {
    let mut all = expectations();
    all.extend(upgrades());
    all
}

fn expectations() -> Vec<Vector> {
    let length = format!("Content-Length: {}\r\n", SMUGGLED.len());
    let with = |expect: &str| post(&format!("{length}{expect}"), &format!("{SMUGGLED}{LAST}"));
    let mut all = Vec::new();
    for value in [
        "y 100-continue",
        "100-continue, x",
        "x, 100-continue",
        "100-continued",
        "100",
        "200-ok",
        "\"100-continue\"",
        "100-continue;q=1",
        "x",
        "100 continue",
    ] {
        all.push(refused(format!("Expect {value:?}"), 417, with(&format!("Expect: {value}\r\n")), EXPECT));
    }
    for (name, line) in [
        ("a space before the colon", "Expect : 100-continue\r\n"),
        ("folded", "Expect:\r\n 100-continue\r\n"),
        ("with a bare LF", "Expect: 100-continue\n"),
        ("with a vertical tab", "Expect:\u{b}100-continue\r\n"),
        ("with NUL", "Expect: 100-continue\0\r\n"),
    ] {
        all.push(refused(format!("Expect: {name}"), 400, with(line), EXPECT));
    }
    let whole = || Outcome::last(vec![attack(SMUGGLED), last()]);
    for line in ["Expect: 100-continue\r\n", "Expect: 100-CONTINUE\r\n", "expect:100-continue \r\n"] {
        all.push(vector(format!("{line:?} with its body at once"), with(line), whole(), EXPECT));
    }
    all.push(
        vector("two Expect lines", with("Expect: 100-continue\r\nExpect: 100-continue\r\n"), whole(), EXPECT)
            .or(Outcome::refused(417)),
    );
    all.push(served(
        "Expect without a body",
        format!("GET /attack HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n{SMUGGLED}"),
        vec![want("GET", "/attack", "").without("expect"), second()],
        "0.CL: nobody may wait for a body that never comes, or take the next request for it",
    ));
    all.push(vector(
        "Expect in HTTP/1.0",
        format!("POST /attack HTTP/1.0\r\nHost: a\r\n{length}Expect: 100-continue\r\n\r\n{SMUGGLED}"),
        Outcome::last(vec![attack(SMUGGLED).without("expect")]).with_interim(&[]),
        "RFC 9110, 10.1.1: ignored in HTTP/1.0, whose clients know no interim answers",
    ));
    all.push(vector(
        "Expect with chunks at once",
        post("Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n", &format!("5\r\nhello\r\n0\r\n\r\n{LAST}")),
        Outcome::last(vec![attack("hello"), last()]),
        EXPECT,
    ));
    let go_on = [Act::Write(b"HTTP/1.1 100 Continue\r\n\r\n".to_vec()), Act::Body, Act::Write(ok("done"))];
    let mut waits = vector(
        "Expect and a replica that says 100",
        post(&format!("{length}Expect: 100-continue\r\n"), ""),
        Outcome::served(vec![attack(SMUGGLED)]).with_interim(&[100]),
        EXPECT,
    );
    waits = waits.then(Step::AwaitInterim).then(Step::Send(SMUGGLED.into())).script("/attack", go_on);
    all.push(waits);
    // It says no and closes: the body that the client had sent anyway is never taken for a request.
    let no = [
        Act::Write(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_vec()),
        Act::Close,
    ];
    let outcome = |answers: &[Answer], forwarded| Outcome {
        forwarded,
        ..Outcome::last(Vec::new()).answered(answers).with_cut(attack(SMUGGLED))
    };
    all.push(
        vector(
            "Expect that a replica refuses early",
            with("Expect: 100-continue\r\n"),
            outcome(&[Answer::Status(401)], vec![]),
            EXPECT,
        )
        .or(outcome(&[Answer::Status(401), Answer::Status(200)], vec![last()]))
        .script("/attack", no.clone()),
    );
    all.push(
        vector(
            "Expect that a replica refuses before the body comes",
            post(&format!("{length}Expect: 100-continue\r\n"), ""),
            outcome(&[Answer::Status(401)], vec![]),
            EXPECT,
        )
        .or(outcome(&[Answer::Status(401), Answer::Status(200)], vec![last()]))
        .then(Step::Await(1))
        .then(Step::Send(format!("{SMUGGLED}{LAST}").into_bytes()))
        .script("/attack", no),
    );
    all
}

fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn upgrades() -> Vec<Vector> {
    let upgrade = |fields: &str| format!("GET /attack HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let websocket =
        upgrade("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 777\r\nSec-WebSocket-Key: x\r\n");
    let asked = || want("GET", "/attack", "").with("upgrade", "websocket").with("connection", "upgrade");
    let mut all = vec![
        vector(
            "a refused upgrade with a request behind it",
            format!("{websocket}{SMUGGLED}"),
            Outcome::last(vec![asked()]).answered(&[Answer::Status(426)]),
            UPGRADE,
        )
        .at_once()
        .script(
            "/attack",
            [Act::Body, Act::Write(b"HTTP/1.1 426 Upgrade Required\r\ncontent-length: 0\r\n\r\n".to_vec())],
        ),
        vector(
            "an ignored upgrade with a request behind it",
            format!("{websocket}{SMUGGLED}"),
            Outcome::last(vec![asked()]),
            UPGRADE,
        )
        .at_once(),
        vector(
            "a refused upgrade, and a request later",
            websocket.clone(),
            Outcome::served(vec![asked(), second()]),
            UPGRADE,
        )
        .then(Step::Await(1))
        .then(Step::Send(SMUGGLED.into())),
        vector(
            "an upgrade that takes place",
            websocket.clone(),
            Outcome::last(vec![asked()]).answered(&[Answer::Status(101)]),
            "what is in a tunnel is no HTTP, and its connections are used for nothing else",
        )
        .then(Step::Await(1))
        .then(Step::Send(SMUGGLED.into()))
        .then(Step::HalfClose)
        .script("/attack", [Act::Body, Act::Write(switch()), Act::Tunnel(SMUGGLED.as_bytes())]),
        vector(
            "a 101 that nobody asked for",
            format!("GET /attack HTTP/1.1\r\nHost: a\r\n\r\n{LAST}"),
            Outcome::last(vec![want("GET", "/attack", ""), last()])
                .answered(&[Answer::Status(502), Answer::Status(200)]),
            UPGRADE,
        )
        .or(Outcome::served(vec![want("GET", "/attack", "")]).answered(&[Answer::Status(502)]).and_closed())
        .script("/attack", [Act::Body, Act::Write(switch()), Act::Write(b"tunnelled".to_vec())]),
        served(
            "Upgrade that Connection does not name",
            format!("{}{SMUGGLED}", upgrade("Upgrade: websocket\r\n")),
            vec![want("GET", "/attack", "").without("upgrade"), second()],
            "RFC 9110, 7.8: it is for this hop, which does not know it",
        ),
        served(
            "Connection: upgrade without Upgrade",
            format!("{}{SMUGGLED}", upgrade("Connection: upgrade\r\n")),
            vec![want("GET", "/attack", "").without("connection"), second()],
            UPGRADE,
        ),
        served(
            "an upgrade with a body",
            post(
                &format!("Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: {}\r\n", SMUGGLED.len()),
                SMUGGLED,
            ),
            vec![attack(SMUGGLED).without("upgrade").without("connection")],
            "where the tunnel would begin is not clear to everybody",
        ),
        vector(
            "an upgrade in HTTP/1.0",
            format!("GET /attack HTTP/1.0\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n{SMUGGLED}"),
            Outcome::last(vec![want("GET", "/attack", "").without("upgrade")]),
            "RFC 9110, 7.8: Upgrade of HTTP/1.0 is ignored",
        ),
    ];
    for value in ["h2c", "H2C"] {
        let sent = upgrade(&format!(
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: {value}\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"
        ));
        let wanted = || want("GET", "/attack", "").without("upgrade").without("connection").without("http2-settings");
        all.push(served(format!("upgrade to {value}"), format!("{sent}{SMUGGLED}"), vec![wanted(), second()], H2C));
        let preface = format!("{sent}PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{SMUGGLED}");
        all.push(vector(
            format!("upgrade to {value} with a preface"),
            preface,
            Outcome::served(vec![wanted()]).then_refused(505),
            H2C,
        ));
    }
    for (name, fields) in [
        ("in a list", "Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n"),
        ("first in a list", "Connection: Upgrade\r\nUpgrade: h2c,websocket\r\n"),
        ("on a second line", "Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n"),
    ] {
        // Whether the rest is passed or not: h2c is not among it.
        let plain = Outcome::last(vec![want("GET", "/attack", "").without("upgrade")]);
        let rest = Outcome::last(vec![want("GET", "/attack", "").with("upgrade", "websocket")]);
        let sent = upgrade(&format!("{fields}Connection: close\r\n"));
        all.push(vector(format!("h2c {name}"), sent, plain, H2C).or(rest).or(Outcome::refused(400)));
    }
    all
}

fn switch() -> Vec<u8> {
    b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n".to_vec()
}
