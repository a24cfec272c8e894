//! A replica's head: its syntax, and where its body ends.

use super::fields::{Known, known, list};
use super::{Field, FieldSlots, Framing, MAX_RESPONSE_FIELDS, content_length};

/// Largest head that is taken from a replica.
pub const MAX_HEAD: usize = 64 * 1024;

/// A response's head.
#[derive(Debug)]
pub struct ResponseHead<'h, 'b> {
    /// Status code, 100 to 999.
    pub status: u16,
    /// Reason phrase; may be empty.
    pub reason: &'b str,
    /// All fields, in their order.
    pub fields: &'h [Field<'b>],
    /// Where its body ends.
    pub framing: Framing,
    /// May the connection carry another request?
    pub keep_alive: bool,
    /// Can a client of HTTP/1.1 get these very bytes?
    pub verbatim: bool,
    /// Does `Connection` name fields besides the words that this proxy knows?
    pub names_fields: bool,
    /// Bytes of the head.
    pub len: usize,
}

/// Reads the head at the start of `bytes`, an answer to a `HEAD` request or another one; `None` if its end has not arrived
/// yet. An error says what is wrong with it.
pub fn parse<'h, 'b>(
    bytes: &'b [u8],
    to_head: bool,
    slots: &'h mut FieldSlots<'b, MAX_RESPONSE_FIELDS>,
) -> Result<Option<ResponseHead<'h, 'b>>, &'static str> {
    let mut response = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut response, bytes, slots);
    let len = match parsed {
        Ok(httparse::Status::Complete(len)) if len <= MAX_HEAD => len,
        Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD => return Ok(None),
        Ok(_) => return Err("the header of its response is larger than 64 KiB"),
        Err(httparse::Error::TooManyHeaders) => return Err("its response has more than 1024 header fields"),
        Err(_) => return Err("the header of its response is malformed"),
    };
    let (Some(status @ 100..), Some(minor)) = (response.code, response.version) else {
        return Err("the header of its response is malformed");
    };
    let is_1_1 = minor == 1;
    let (mut length, mut chunked, mut coded) = (None, false, false);
    let (mut close, mut keep_alive, mut names_fields) = (false, false, false);
    let mut verbatim = is_1_1 && ends_in_crlf(&bytes[..len]) && !bytes.starts_with(b"\r\n");
    for field in response.headers.iter() {
        match known(field.name.as_bytes()) {
            Known::ContentLength => {
                let value =
                    content_length(field.value).ok_or("Content-Length of its response is not a number of bytes")?;
                match length.replace(value) {
                    Some(other) if other != value => return Err("its response has two lengths"),
                    Some(_) => verbatim = false,
                    None => {}
                }
            }
            Known::TransferEncoding => {
                verbatim = false;
                chunked = !coded && field.value.eq_ignore_ascii_case(b"chunked");
                coded = true;
            }
            Known::Connection => {
                verbatim = false;
                for option in list(field.value) {
                    if option.eq_ignore_ascii_case(b"close") {
                        close = true;
                    } else if option.eq_ignore_ascii_case(b"keep-alive") {
                        keep_alive = true;
                    } else if !option.eq_ignore_ascii_case(b"upgrade") {
                        names_fields = true;
                    }
                }
            }
            Known::HopByHop | Known::Upgrade | Known::Trailer => verbatim = false,
            _ => {}
        }
    }
    let bodiless = to_head || matches!(status, 100..=199 | 204 | 304);
    // RFC 9110, section 8.6: these have no length.
    let lengthless = matches!(status, 100..=199 | 204);
    verbatim &= status >= 200 && !(lengthless && length.is_some());
    if coded && !bodiless && (!chunked || !is_1_1) {
        return Err("the transfer coding of its response is not known here");
    }
    let framing = match length {
        _ if bodiless => Framing::None,
        _ if chunked => Framing::Chunked,
        Some(0) => Framing::None,
        Some(length) => Framing::Length(length),
        None => Framing::UntilClose,
    };
    // Of two framings the length is the one that does not count (RFC 9112, section 6.3); but who sends both may be confused
    // about where the message ends.
    let in_doubt = coded && length.is_some();
    Ok(Some(ResponseHead {
        status,
        reason: response.reason.unwrap_or_default(),
        fields: response.headers,
        framing,
        keep_alive: !close && (is_1_1 || keep_alive) && !in_doubt && framing != Framing::UntilClose,
        verbatim: verbatim && framing != Framing::UntilClose,
        names_fields,
        len,
    }))
}

/// Does every line of a head end in CRLF? Bare LF is taken from a replica, but not passed on.
fn ends_in_crlf(head: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', head).all(|at| at > 0 && head[at - 1] == b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::field_slots;

    fn check<T>(text: &str, look: impl FnOnce(Result<Option<ResponseHead<'_, '_>>, &'static str>) -> T) -> T {
        look(parse(text.as_bytes(), false, &mut field_slots()))
    }

    fn framing(fields: &str) -> Result<(Framing, bool, bool), &'static str> {
        check(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n"), |head| {
            head.map(|head| head.unwrap()).map(|head| (head.framing, head.keep_alive, head.verbatim))
        })
    }

    #[test]
    fn the_end_of_a_body_is_where_the_rfc_has_it() {
        assert_eq!(framing("Content-Length: 5\r\nX-A: b\r\n"), Ok((Framing::Length(5), true, true)));
        assert_eq!(framing("Content-Length: 0\r\n"), Ok((Framing::None, true, true)));
        assert_eq!(framing("Content-Length: 5\r\nContent-Length: 5\r\n"), Ok((Framing::Length(5), true, false)));
        assert_eq!(framing("Transfer-Encoding: chunked\r\n"), Ok((Framing::Chunked, true, false)));
        assert_eq!(
            framing("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
            Ok((Framing::Chunked, false, false))
        );
        assert_eq!(framing(""), Ok((Framing::UntilClose, false, false)));
        for wrong in [
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: -5\r\n",
            "Content-Length: 5, 5\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: identity\r\n",
        ] {
            assert!(framing(wrong).is_err(), "{wrong}");
        }
        assert!(check("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", |head| head.is_err()));
    }

    #[test]
    fn some_responses_have_no_body_whatever_they_say() {
        for status in [100, 103, 204, 304] {
            let text = format!("HTTP/1.1 {status} x\r\nContent-Length: 5\r\n\r\n");
            assert_eq!(check(&text, |head| head.unwrap().unwrap().framing), Framing::None);
        }
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(parse(head, true, &mut field_slots()).unwrap().unwrap().framing, Framing::None);
    }

    #[test]
    fn connections_last_as_their_version_and_options_say() {
        let keeps = |text: &str| check(text, |head| head.unwrap().unwrap().keep_alive);
        assert!(!keeps("HTTP/1.1 204 x\r\nConnection: close\r\n\r\n"));
        assert!(!keeps("HTTP/1.0 204 x\r\n\r\n"));
        assert!(keeps("HTTP/1.0 204 x\r\nConnection: keep-alive\r\n\r\n"));
    }

    #[test]
    fn only_what_is_exactly_ours_is_passed_verbatim() {
        let verbatim = |text: &str| check(text, |head| head.unwrap().unwrap().verbatim);
        assert!(verbatim("HTTP/1.1 204 No Content\r\nx: y\r\n\r\n"));
        for text in [
            "HTTP/1.0 204 x\r\n\r\n",
            "HTTP/1.1 204 x\n\n",
            "\r\nHTTP/1.1 204 x\r\n\r\n",
            "HTTP/1.1 204 x\r\nx: y\n\r\n",
            "HTTP/1.1 204 x\r\nKeep-Alive: 5\r\n\r\n",
            "HTTP/1.1 204 x\r\nConnection: x\r\n\r\n",
            "HTTP/1.1 204 x\r\nUpgrade: h2\r\n\r\n",
        ] {
            assert!(!verbatim(text), "{text:?}");
        }
    }

    #[test]
    fn heads_that_make_no_sense_are_errors() {
        for wrong in ["HTTP/2.0 200 OK\r\n\r\n", "HTTP/1.1 20 OK\r\n\r\n", "HTTP/1.1 099 x\r\n\r\n", "200 OK\r\n\r\n"] {
            assert!(check(wrong, |head| head.is_err()), "{wrong:?}");
        }
        let long = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(MAX_HEAD));
        assert!(check(&long, |head| head.is_err()));
        assert!(check("HTTP/1.1 200 OK\r\nx: y", |head| matches!(head, Ok(None))));
    }
}
