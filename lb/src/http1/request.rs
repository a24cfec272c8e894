//! A client's head: its syntax, its target, and where its body ends.

use super::fields::{Known, known, list};
use super::{Field, FieldSlots, Framing, HeadLimits, MAX_FIELDS, Refusal, content_length};

/// A request's head.
#[derive(Debug)]
pub struct RequestHead<'h, 'b> {
    /// As it stands in the request line.
    pub method: &'b str,
    /// What is asked for.
    pub target: Target<'b>,
    /// HTTP/1.1 rather than 1.0?
    pub is_1_1: bool,
    /// All fields, in their order.
    pub fields: &'h [Field<'b>],
    /// Value of `Host`; of the target's authority, if it has one.
    pub host: &'b [u8],
    /// Where its body ends.
    pub framing: Framing,
    /// Does the connection outlive the answer, as far as the client is concerned?
    pub keep_alive: bool,
    /// Does the client wait for a 100 before it sends the body?
    pub expects_continue: bool,
    /// Is another protocol asked for that may be passed on?
    pub upgrade: bool,
    /// Does `Connection` name fields besides the words that this proxy knows?
    pub names_fields: bool,
    /// Bytes of the head.
    pub len: usize,
}

/// A target in origin form (RFC 9112, section 3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target<'b> {
    /// Path and query; `*` for the server itself. Lacks its slash if `rootless`.
    pub path_and_query: &'b str,
    /// A slash belongs in front: the target was absolute and had no path.
    pub rootless: bool,
}

impl<'b> Target<'b> {
    /// The path, without the query.
    pub fn path(&self) -> &'b str {
        let path = self.path_and_query.split_once('?').map_or(self.path_and_query, |(path, _)| path);
        if path.is_empty() { "/" } else { path }
    }

    /// The query, if there is one.
    pub fn query(&self) -> Option<&'b str> {
        self.path_and_query.split_once('?').map(|(_, query)| query)
    }
}

/// How long the head at the start of `bytes` is; `None` if its end has not arrived. Lines end in CRLF, or else.
fn end_of_head(bytes: &[u8]) -> Result<Option<usize>, Refusal> {
    for at in memchr::memchr_iter(b'\n', bytes) {
        if at == 0 || bytes[at - 1] != b'\r' {
            return Err(Refusal::Malformed("a line of the header does not end in CRLF"));
        }
        if at >= 3 && bytes[at - 3..at] == *b"\r\n\r" {
            return Ok(Some(at + 1));
        }
    }
    Ok(None)
}

/// Bytes of empty lines in front of a request, which are skipped (RFC 9112, section 2.2).
pub fn empty_lines(bytes: &[u8]) -> usize {
    bytes.chunks_exact(2).take_while(|line| line == b"\r\n").count() * 2
}

/// Reads the head at the start of `bytes`; `None` if its end has not arrived yet.
pub fn parse<'h, 'b>(
    bytes: &'b [u8],
    limits: &HeadLimits,
    slots: &'h mut FieldSlots<'b, MAX_FIELDS>,
) -> Result<Option<RequestHead<'h, 'b>>, Refusal> {
    let end = end_of_head(bytes)?;
    if end.unwrap_or(bytes.len()) > limits.bytes || (end.is_none() && bytes.len() == limits.bytes) {
        return Err(too_large(bytes, limits));
    }
    let Some(end) = end else {
        // What is wrong already will not become right, and its sender need not wait for more.
        return match read(bytes, limits, slots) {
            Err(Refusal::Malformed(_)) if is_partial_target(bytes, limits) => Err(too_large(bytes, limits)),
            Err(refusal) => Err(refusal),
            Ok(_) if is_partial_target(bytes, limits) => Err(too_large(bytes, limits)),
            Ok(_) => Ok(None),
        };
    };
    let Some(request) = read(&bytes[..end], limits, slots)? else {
        return Err(Refusal::Malformed("the request's header is malformed"));
    };
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version) else {
        return Err(Refusal::Malformed("the request line is malformed"));
    };
    if target.len() > limits.target {
        return Err(Refusal::TargetTooLong { limit: limits.target });
    }
    interpret(method, target, minor == 1, request.headers, end).map(Some)
}

/// Is it clear without another line's end that this is more than any good head?
pub fn is_too_long(bytes: &[u8], limits: &HeadLimits) -> bool {
    bytes.len() >= limits.bytes || is_partial_target(bytes, limits)
}

/// Is the request line still open, and longer than any good one?
fn is_partial_target(bytes: &[u8], limits: &HeadLimits) -> bool {
    const AROUND: usize = 64;
    bytes.len() > limits.target.saturating_add(AROUND) && !bytes.contains(&b'\n')
}

fn too_large(bytes: &[u8], limits: &HeadLimits) -> Refusal {
    let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let target = line.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    if target.len() > limits.target {
        return Refusal::TargetTooLong { limit: limits.target };
    }
    Refusal::HeadTooLarge { limit: limits.bytes }
}

fn read<'h, 'b>(
    bytes: &'b [u8],
    limits: &HeadLimits,
    slots: &'h mut FieldSlots<'b, MAX_FIELDS>,
) -> Result<Option<httparse::Request<'h, 'b>>, Refusal> {
    let most = limits.fields.min(slots.len());
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(bytes, &mut slots[..most]) {
        Ok(httparse::Status::Complete(_)) => Ok(Some(request)),
        Ok(httparse::Status::Partial) => Ok(None),
        Err(httparse::Error::TooManyHeaders) => Err(Refusal::TooManyFields { limit: most }),
        Err(httparse::Error::Version) => Err(version(bytes)),
        Err(httparse::Error::HeaderName) => Err(Refusal::Malformed("a header field's name is malformed")),
        Err(httparse::Error::HeaderValue) => Err(Refusal::Malformed("a header field's value is malformed")),
        Err(_) => Err(Refusal::Malformed("the request line is malformed")),
    }
}

/// Another version, or none at all?
fn version(bytes: &[u8]) -> Refusal {
    let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ').skip(2);
    match (words.next(), words.next()) {
        (Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor]), None)
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Refusal::Version
        }
        _ => Refusal::Malformed("the request line is malformed"),
    }
}

fn interpret<'h, 'b>(
    method: &'b str,
    target: &'b str,
    is_1_1: bool,
    fields: &'h [Field<'b>],
    len: usize,
) -> Result<RequestHead<'h, 'b>, Refusal> {
    let (mut length, mut coding, mut host) = (None, None, None);
    let (mut close, mut keep_alive, mut upgrade_option, mut names_fields) = (false, false, false, false);
    let (mut upgrade, mut expects, mut odd_expectation) = (None, false, false);
    for field in fields {
        match known(field.name.as_bytes()) {
            Known::ContentLength => {
                const BAD: Refusal = Refusal::Malformed("Content-Length is not one number of bytes");
                if length.is_some() {
                    return Err(BAD);
                }
                length = Some(content_length(field.value).ok_or(BAD)?);
            }
            Known::TransferEncoding if coding.is_some() => {
                return Err(Refusal::Malformed("there is more than one Transfer-Encoding"));
            }
            Known::TransferEncoding => coding = Some(field.value),
            Known::Host if host.is_some() => return Err(Refusal::Malformed("there is more than one Host")),
            Known::Host => host = Some(field.value),
            Known::Connection => {
                for option in list(field.value) {
                    if option.eq_ignore_ascii_case(b"close") {
                        close = true;
                    } else if option.eq_ignore_ascii_case(b"keep-alive") {
                        keep_alive = true;
                    } else if option.eq_ignore_ascii_case(b"upgrade") {
                        upgrade_option = true;
                    } else {
                        names_fields = true;
                    }
                }
            }
            Known::Upgrade => {
                // `h2c` would take everything behind it out of this proxy's sight.
                let known_here = !list(field.value).any(|protocol| protocol.eq_ignore_ascii_case(b"h2c"));
                upgrade = Some(known_here && upgrade.unwrap_or(true));
            }
            // Each line counts: whoever looks at another one than we did would wait for a body that does not come.
            Known::Expect => {
                expects = true;
                odd_expectation |= !field.value.eq_ignore_ascii_case(b"100-continue");
            }
            _ => {}
        }
    }
    let framing = framing(length, coding, is_1_1)?;
    let (target, authority) = origin_form(method, target)?;
    let host = match (authority, host) {
        (_, Some(host)) if !is_host(host) => return Err(Refusal::Malformed("Host is malformed")),
        (_, None) if is_1_1 => return Err(Refusal::Malformed("there is no Host")),
        (Some(authority), _) => authority.as_bytes(),
        (None, host) => host.unwrap_or_default(),
    };
    if odd_expectation && is_1_1 {
        return Err(Refusal::Expectation);
    }
    Ok(RequestHead {
        method,
        target,
        is_1_1,
        fields,
        host,
        framing,
        keep_alive: !close && (is_1_1 || keep_alive),
        expects_continue: expects && is_1_1 && framing != Framing::None,
        upgrade: is_1_1 && framing == Framing::None && upgrade_option && upgrade == Some(true),
        names_fields,
        len,
    })
}

/// RFC 9112, section 6.3, with every choice that it leaves made in favour of refusal.
fn framing(length: Option<u64>, coding: Option<&[u8]>, is_1_1: bool) -> Result<Framing, Refusal> {
    match (length, coding) {
        (Some(_), Some(_)) => Err(Refusal::Malformed("there are both Content-Length and Transfer-Encoding")),
        (None, Some(_)) if !is_1_1 => Err(Refusal::Malformed("HTTP/1.0 has no Transfer-Encoding")),
        (None, Some(coding)) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Framing::Chunked),
        (None, Some(coding)) => {
            // Parameters and quotes have no place in what is known here.
            let is_token = |coding: &[u8]| coding.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-');
            let chunked = |coding: &&[u8]| coding.eq_ignore_ascii_case(b"chunked");
            let last_only = list(coding).count() > 1
                && list(coding).filter(chunked).count() == 1
                && list(coding).last().as_ref().is_some_and(chunked);
            if last_only && list(coding).all(is_token) {
                return Err(Refusal::Coding);
            }
            Err(Refusal::Malformed("Transfer-Encoding does not end in chunked"))
        }
        (Some(0) | None, None) => Ok(Framing::None),
        (Some(length), None) => Ok(Framing::Length(length)),
    }
}

/// The target without its authority, and that.
fn origin_form<'b>(method: &str, target: &'b str) -> Result<(Target<'b>, Option<&'b str>), Refusal> {
    const BAD: Refusal = Refusal::Malformed("the request's target is neither a path nor an http URL");
    if method == "CONNECT" {
        return Err(Refusal::Connect);
    }
    if target.as_bytes().contains(&b'#') {
        return Err(Refusal::Malformed("the request's target has a fragment"));
    }
    let origin = |path_and_query, rootless| Target { path_and_query, rootless };
    if target.starts_with('/') || (target == "*" && method == "OPTIONS") {
        return Ok((origin(target, false), None));
    }
    let (scheme, rest) = target.split_once("://").ok_or(BAD)?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(BAD);
    }
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    // RFC 9110, section 4.2.1: there is no http URL without a host.
    if authority.is_empty() || authority.starts_with(':') || !is_host(authority.as_bytes()) {
        return Err(BAD);
    }
    let target = match path {
        // RFC 9112, section 3.2.4.
        "" if method == "OPTIONS" => origin("*", false),
        path => origin(path, !path.starts_with('/')),
    };
    Ok((target, Some(authority)))
}

/// Could it be a host, with or without a port (RFC 3986, section 3.2.2)? No userinfo, no list.
fn is_host(value: &[u8]) -> bool {
    value.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=:[]".contains(byte))
}

#[cfg(test)]
mod tests;
