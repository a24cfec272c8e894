use super::*;
use crate::http1::field_slots;
use proptest::prelude::*;

fn check<T>(text: &str, look: impl FnOnce(Result<Option<RequestHead<'_, '_>>, Refusal>) -> T) -> T {
    look(parse(text.as_bytes(), &HeadLimits::default(), &mut field_slots()))
}

fn refusal(text: &str) -> Option<Refusal> {
    check(text, |head| head.err())
}

fn with(fields: &str) -> String {
    format!("POST /a?b HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
}

#[test]
fn a_plain_request_is_read() {
    let text = "GET /a%20b?c=d HTTP/1.1\r\nhost: a.example:80\r\nX-A:\t1 \r\n\r\nbehind";
    check(text, |head| {
        let head = head.unwrap().unwrap();
        assert_eq!((head.method, head.target.path(), head.target.query()), ("GET", "/a%20b", Some("c=d")));
        assert_eq!((head.host, head.framing, head.len), (&b"a.example:80"[..], Framing::None, text.len() - 6));
        assert!(head.is_1_1 && head.keep_alive && !head.upgrade && !head.expects_continue && !head.names_fields);
        assert_eq!((head.fields.len(), head.fields[1].value), (2, &b"1"[..]));
    });
}

#[test]
fn half_a_head_is_waited_for_unless_it_is_wrong_already() {
    let whole = with("Content-Length: 5\r\nConnection: close\r\n");
    for end in 0..whole.len() {
        assert!(check(&whole[..end], |head| matches!(head, Ok(None))), "{:?}", &whole[..end]);
    }
    for wrong in ["GET /\n", "GET  /", "GET / HTTP/2", "GET / HTTP/1.1\r\n ", "G\0", "GET / HTTP/1.1\r\na b"] {
        assert!(refusal(wrong).is_some(), "{wrong:?}");
    }
}

#[test]
fn bodies_end_where_exactly_one_field_says() {
    let framing = |fields: &str| check(&with(fields), |head| head.map(|head| head.unwrap().framing));
    assert_eq!(framing(""), Ok(Framing::None));
    assert_eq!(framing("Content-Length: 0\r\n"), Ok(Framing::None));
    assert_eq!(framing("content-length:  42 \r\n"), Ok(Framing::Length(42)));
    assert_eq!(framing("TRANSFER-ENCODING: Chunked\r\n"), Ok(Framing::Chunked));
    assert_eq!(framing("Transfer-Encoding: gzip, chunked\r\n"), Err(Refusal::Coding));
    for wrong in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: +5\r\n",
        "Content-Length:\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: , chunked\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding: a=\"b, chunked\r\n",
        "Transfer-Encoding:\r\n",
    ] {
        assert!(matches!(framing(wrong), Err(Refusal::Malformed(_))), "{wrong}: {:?}", framing(wrong));
    }
    assert!(refusal("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n").is_some());
}

#[test]
fn what_is_not_exactly_a_head_is_refused() {
    for wrong in [
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\n",
        "GET / HTTP/1.1\rHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nB: c\r\n d\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nB\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nB(c): d\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a,b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n",
        "GET /  HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
        "GET /\r\nHost: a\r\n\r\n",
        "GET / http/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.10\r\nHost: a\r\n\r\n",
        "GET /#a HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET a HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET * HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http:///a HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://:80/a HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        assert!(matches!(refusal(wrong), Some(Refusal::Malformed(_))), "{wrong:?}: {:?}", refusal(wrong));
    }
    for other in ["GET / HTTP/2.0\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET / HTTP/1.2\r\nHost: a\r\n\r\n"] {
        assert_eq!(refusal(other), Some(Refusal::Version), "{other:?}");
    }
    assert_eq!(refusal("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n"), Some(Refusal::Connect));
    for odd in ["Expect: 200-ok\r\n", "Expect: x\r\nExpect: 100-continue\r\n", "Expect: 100-continue\r\nExpect:\r\n"] {
        assert_eq!(refusal(&with(odd)), Some(Refusal::Expectation), "{odd}");
    }
}

#[test]
fn targets_become_origin_form() {
    let target = |line: &str| {
        check(&format!("{line} HTTP/1.1\r\nHost: fake\r\n\r\n"), |head| {
            let head = head.unwrap().unwrap();
            let slash = if head.target.rootless { "/" } else { "" };
            (format!("{slash}{}", head.target.path_and_query), String::from_utf8_lossy(head.host).into_owned())
        })
    };
    for (line, path, host) in [
        ("GET /a?b", "/a?b", "fake"),
        ("GET //a//b", "//a//b", "fake"),
        ("GET /ä", "/ä", "fake"),
        ("GET http://real:8/x?y", "/x?y", "real:8"),
        ("GET HTTPS://[::1]", "/", "[::1]"),
        ("GET http://real?y=/", "/?y=/", "real"),
        ("OPTIONS *", "*", "fake"),
        ("OPTIONS http://real", "*", "real"),
    ] {
        assert_eq!(target(line), (path.into(), host.into()), "{line}");
    }
}

#[test]
fn connections_last_as_their_version_and_options_say() {
    let keeps = |text: &str| check(text, |head| head.unwrap().unwrap().keep_alive);
    assert!(keeps(&with("Connection: keep-alive, foo\r\n")));
    assert!(!keeps(&with("Connection: foo\r\nConnection: Close\r\n")));
    assert!(!keeps("GET / HTTP/1.0\r\n\r\n"));
    assert!(keeps("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"));
}

#[test]
fn upgrades_and_expectations_need_all_that_belongs_to_them() {
    let upgrade = |fields: &str| check(&with(fields), |head| head.unwrap().unwrap().upgrade);
    assert!(upgrade("Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"));
    for none in [
        "Connection: upgrade\r\n",
        "Upgrade: websocket\r\n",
        "Connection: upgrade\r\nUpgrade: h2c\r\n",
        "Connection: upgrade\r\nUpgrade: websocket, H2C\r\n",
        "Connection: upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n",
        "Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n",
    ] {
        assert!(!upgrade(none), "{none}");
    }
    let waits = |text: &str| check(text, |head| head.unwrap().unwrap().expects_continue);
    assert!(waits(&with("Expect: 100-Continue\r\nContent-Length: 1\r\n")));
    assert!(!waits(&with("Expect: 100-continue\r\n")));
    assert!(!waits("POST / HTTP/1.0\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n"));
}

#[test]
fn limits_hold_to_the_byte() {
    let limits = HeadLimits { fields: 2, bytes: 60, target: 10 };
    let refused = |text: &str| parse(text.as_bytes(), &limits, &mut field_slots()).map(|head| head.is_some());
    let of_length = |bytes: usize| {
        let fixed = "GET / HTTP/1.1\r\nHost: a\r\nB: \r\n\r\n".len();
        format!("GET / HTTP/1.1\r\nHost: a\r\nB: {}\r\n\r\n", "x".repeat(bytes - fixed))
    };
    assert_eq!(refused(&of_length(60)), Ok(true));
    assert_eq!(refused(&of_length(61)), Err(Refusal::HeadTooLarge { limit: 60 }));
    assert_eq!(refused(&of_length(61)[..60]), Err(Refusal::HeadTooLarge { limit: 60 }), "no need to wait for more");
    assert_eq!(refused("GET /234567890 HTTP/1.1\r\nHost: a\r\n\r\n"), Ok(true));
    assert_eq!(refused("GET /234567890x HTTP/1.1\r\nHost: a\r\n\r\n"), Err(Refusal::TargetTooLong { limit: 10 }));
    assert_eq!(refused(&format!("GET /{}", "a".repeat(70))), Err(Refusal::TargetTooLong { limit: 10 }));
    assert_eq!(refused("GET / HTTP/1.1\r\nHost: a\r\nB: 1\r\nC: 2\r\n\r\n"), Err(Refusal::TooManyFields { limit: 2 }));
}

#[test]
fn empty_lines_in_front_are_skipped() {
    assert_eq!(
        (empty_lines(b"\r\n\r\nGET"), empty_lines(b"\rGET"), empty_lines(b"\n"), empty_lines(b"\r")),
        (4, 0, 0, 0)
    );
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse(&bytes, &HeadLimits::default(), &mut field_slots());
        let _ = crate::http1::response::parse(&bytes, false, &mut field_slots());
    }

    #[test]
    fn a_mangled_head_never_panics(at in 0_usize..80, byte in any::<u8>()) {
        let mut bytes = with("Content-Length: 5\r\nConnection: upgrade\r\nUpgrade: websocket\r\n").into_bytes();
        let at = at % bytes.len();
        bytes[at] = byte;
        let _ = parse(&bytes, &HeadLimits::default(), &mut field_slots());
    }
}
