//! What the bytes of a client connection mean by RFC 9112, read as strictly as it allows.
//!
//! The balancer may forward what is read here, in this order, and nothing else. Where this stops, nothing more may be
//! forwarded; the balancer may stop earlier, as it has limits that this has not.

/// A request that may be forwarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Allowed {
    pub(crate) method: String,
    /// The target in origin form. Two if both are right.
    pub(crate) targets: Vec<Vec<u8>>,
    pub(crate) host: Vec<u8>,
    /// Decoded. Of a request that is not whole: as far as it came.
    pub(crate) body: Vec<u8>,
    /// The balancer answers it by itself.
    pub(crate) own: bool,
    /// The connection may end with its answer: it comes from the balancer, which need not read the body, or the client
    /// speaks HTTP/1.0, or asks for another protocol.
    pub(crate) may_be_last: bool,
}

/// All that a connection's bytes say.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    pub(crate) whole: Vec<Allowed>,
    /// The one whose body has not come to its end, or is broken.
    pub(crate) part: Option<Allowed>,
    /// Why nothing more was read; `None` if there is nothing more.
    pub(crate) stopped: Option<&'static str>,
}

/// Why there is no more to read, for now or for ever.
type Stop = &'static str;
const MORE: Stop = "more has to come";

struct Head {
    request: Allowed,
    framing: Framing,
    persists: bool,
}

enum Framing {
    None,
    Length(u64),
    Chunked,
}

pub(crate) fn read(bytes: &[u8]) -> Reading {
    let mut reading = Reading::default();
    let mut rest = Cursor { bytes, at: 0 };
    loop {
        while rest.skip(b"\r\n") {}
        if rest.at == bytes.len() {
            return reading;
        }
        let mut head = match head(&mut rest) {
            Ok(head) => head,
            Err(stop) => return Reading { stopped: Some(stop), ..reading },
        };
        match body(&mut rest, &head.framing, &mut head.request.body) {
            Ok(()) => reading.whole.push(head.request),
            Err(stop) => return Reading { part: Some(head.request), stopped: Some(stop), ..reading },
        }
        if !head.persists {
            reading.stopped = Some("the client asked to close");
            return reading;
        }
    }
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn skip(&mut self, what: &[u8]) -> bool {
        let is_next = self.bytes[self.at..].starts_with(what);
        self.at += if is_next { what.len() } else { 0 };
        is_next
    }

    /// The bytes up to the next CRLF, which is skipped.
    fn line(&mut self) -> Result<&'a [u8], Stop> {
        let rest = &self.bytes[self.at..];
        let Some(end) = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else { return Err(MORE) };
        match rest[end..] {
            [b'\r', b'\n', ..] => {
                self.at += end + 2;
                Ok(&rest[..end])
            }
            [b'\r'] => Err(MORE),
            _ => Err("a line end that is no CRLF"),
        }
    }

    fn take(&mut self, length: u64, into: &mut Vec<u8>) -> Result<(), Stop> {
        let rest = &self.bytes[self.at..];
        let there = usize::try_from(length).map_or(rest.len(), |length| length.min(rest.len()));
        into.extend_from_slice(&rest[..there]);
        self.at += there;
        if there as u64 == length { Ok(()) } else { Err(MORE) }
    }
}

fn head(rest: &mut Cursor<'_>) -> Result<Head, Stop> {
    let line = rest.line()?;
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err("a request line that is not made of three parts");
    };
    let old = match version {
        b"HTTP/1.1" => false,
        b"HTTP/1.0" => true,
        _ => return Err("a version that is not spoken here"),
    };
    if method.is_empty() || !method.iter().all(is_token) {
        return Err("a method that is no token");
    }
    let fields = fields(rest)?;
    let all = |name: &str| values(&fields, name);
    let tokens = |name: &str| -> Vec<Vec<u8>> {
        let values = values(&fields, name).into_iter();
        let tokens = values.flat_map(|value| value.split(|byte| *byte == b','));
        tokens.map(|token| token.trim_ascii().to_ascii_lowercase()).collect()
    };

    let given = match all("host")[..] {
        [host] if host.iter().all(is_host) => host,
        [] if old => b"",
        [_] => return Err("a Host that is none"),
        _ => return Err("not exactly one Host"),
    };
    let (targets, host) = route(method, target, given)?;
    let path = targets[0].split(|byte| *byte == b'?').next().unwrap_or_default();
    let own = [b"/rep".as_slice(), b"/add", b"/rm"].contains(&path);

    let (lengths, codings) = (all("content-length"), all("transfer-encoding"));
    let framing = match (&lengths[..], &codings[..]) {
        ([], []) => Framing::None,
        ([length], []) => Framing::Length(number(length).ok_or("a Content-Length that is no number")?),
        ([], [_]) if old => return Err("chunks in HTTP/1.0"),
        ([], [coding]) if is_chunked(coding) => Framing::Chunked,
        _ => return Err("framed twice, or in an unknown way"),
    };

    if !old && tokens("expect").iter().any(|token| !token.is_empty() && token != b"100-continue") {
        return Err("an expectation that can't be met");
    }
    let connection = tokens("connection");
    let names = |token: &[u8]| connection.iter().any(|given| given == token);
    let persists = !names(b"close") && (!old || names(b"keep-alive"));
    let upgrade = names(b"upgrade") && !all("upgrade").is_empty();
    let method = String::from_utf8_lossy(method).into_owned();
    let request = Allowed { method, targets, host, body: Vec::new(), own, may_be_last: own || old || upgrade };
    Ok(Head { request, framing, persists })
}

type Fields<'a> = Vec<(&'a [u8], &'a [u8])>;

fn values<'a>(fields: &Fields<'a>, name: &str) -> Vec<&'a [u8]> {
    let named = fields.iter().filter(|(given, _)| given.eq_ignore_ascii_case(name.as_bytes()));
    named.map(|(_, value)| *value).collect()
}

/// Field lines up to and with the empty line.
fn fields<'a>(rest: &mut Cursor<'a>) -> Result<Fields<'a>, Stop> {
    let mut fields = Vec::new();
    loop {
        let line = rest.line()?;
        if line.is_empty() {
            return Ok(fields);
        }
        let colon = line.iter().position(|byte| *byte == b':').ok_or("a field line without a colon")?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        if name.is_empty() || !name.iter().all(is_token) {
            return Err("a field name that is no token");
        }
        if value.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
            return Err("a control byte in a field");
        }
        fields.push((name, value.trim_ascii()));
    }
}

/// The target in origin form, and the host.
fn route(method: &[u8], target: &[u8], host: &[u8]) -> Result<(Vec<Vec<u8>>, Vec<u8>), Stop> {
    if target.iter().any(|byte| byte.is_ascii_control() || *byte == b'#') {
        return Err("a byte that no target has");
    }
    if method == b"CONNECT" {
        return Err("a tunnel");
    }
    if target.starts_with(b"/") || (target == b"*" && method == b"OPTIONS") {
        return Ok((vec![target.to_vec()], host.to_vec()));
    }
    let lower = target.to_ascii_lowercase();
    let scheme = [b"http://".as_slice(), b"https://"].into_iter().find(|scheme| lower.starts_with(scheme));
    let rest = &target[scheme.ok_or("a target in no known form")?.len()..];
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if authority.is_empty() || authority.starts_with(b":") || !authority.iter().all(is_host) {
        return Err("an authority that is none");
    }
    let targets = match path.first() {
        Some(b'/') => vec![path.to_vec()],
        Some(_) => vec![[b"/", path].concat()],
        None if method == b"OPTIONS" => vec![b"*".to_vec(), b"/".to_vec()],
        None => vec![b"/".to_vec()],
    };
    Ok((targets, authority.to_vec()))
}

fn body(rest: &mut Cursor<'_>, framing: &Framing, into: &mut Vec<u8>) -> Result<(), Stop> {
    match framing {
        Framing::None => Ok(()),
        Framing::Length(length) => rest.take(*length, into),
        Framing::Chunked => loop {
            let line = rest.line()?;
            let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
            let (size, extensions) = line.split_at(digits);
            let bare = extensions.is_empty() || extensions.starts_with(b";");
            // A tab is white space, which may stand around an extension (RFC 9112, section 7.1.1).
            let odd = |byte: &u8| byte.is_ascii_control() && *byte != b'\t';
            if !(1..=16).contains(&digits) || !bare || extensions.iter().any(odd) {
                return Err("a chunk size that is none");
            }
            let size = std::str::from_utf8(size).ok().and_then(|size| u64::from_str_radix(size, 16).ok());
            let size = size.ok_or("a chunk size that is none")?;
            if size == 0 {
                return fields(rest).map(drop);
            }
            rest.take(size, into)?;
            if !rest.skip(b"\r\n") {
                let is_part = b"\r\n".starts_with(&rest.bytes[rest.at..]);
                return Err(if is_part { MORE } else { "no CRLF behind a chunk" });
            }
        },
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    let only_digits = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    if only_digits { std::str::from_utf8(digits).ok()?.parse().ok() } else { None }
}

/// Chunked and nothing else; empty elements of a list do not count (RFC 9110, section 5.6.1).
fn is_chunked(coding: &[u8]) -> bool {
    let mut elements = coding.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|element| !element.is_empty());
    elements.next().is_some_and(|first| first.eq_ignore_ascii_case(b"chunked")) && elements.next().is_none()
}

fn is_token(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}

/// Bytes of host and port (RFC 3986, section 3.2), without the comma, which would make a list of it.
fn is_host(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=%:[]".contains(byte)
}
