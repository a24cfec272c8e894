//! HTTP/1.1 messages read by the letter, independently of the balancer: what a replica must be sent, and what a client.
//!
//! Lines end with CRLF, there is one framing, chunks have a bare size. Whatever deviates by a byte is an error: the
//! balancer writes its messages itself, so it has no reason to.

use std::fmt;

/// Field names in lower case, with their values.
pub type Fields = Vec<(String, Vec<u8>)>;

/// A request as a replica got it.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    pub target: Vec<u8>,
    pub fields: Fields,
    /// Decoded.
    pub body: Vec<u8>,
    pub trailers: Fields,
    /// Its body was there to the end.
    pub whole: bool,
}

/// A response as a client got it.
#[derive(Clone, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub fields: Fields,
    /// Decoded. After a 101: everything that came behind it.
    pub body: Vec<u8>,
    /// Its body was there to the end.
    pub whole: bool,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.target.escape_ascii())?;
        write_rest(f, self.fields.iter().chain(&self.trailers), &self.body, self.whole)
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        write_rest(f, self.fields.iter(), &self.body, self.whole)
    }
}

fn write_rest<'a>(
    f: &mut fmt::Formatter<'_>,
    fields: impl Iterator<Item = &'a (String, Vec<u8>)>,
    body: &[u8],
    whole: bool,
) -> fmt::Result {
    for (name, value) in fields {
        write!(f, ", {name}: {}", value.escape_ascii())?;
    }
    write!(f, ", {} {}", if whole { "body" } else { "part of a body" }, show(body))
}

/// All values of a field.
pub fn values<'a>(fields: &'a Fields, name: &str) -> Vec<&'a [u8]> {
    fields.iter().filter(|(given, _)| given == name).map(|(_, value)| value.as_slice()).collect()
}

/// The first value of a field.
pub fn value(fields: &Fields, name: &str) -> Option<String> {
    values(fields, name).first().map(|value| String::from_utf8_lossy(value).into_owned())
}

/// Reads the request that `bytes` begin with, and says where it ends. `None` if its head is not whole.
pub fn request(bytes: &[u8]) -> Result<Option<(Request, usize)>, String> {
    let Some((start, at)) = line(bytes, 0)? else { return Ok(None) };
    let parts: Vec<&[u8]> = start.split(|byte| *byte == b' ').collect();
    let [method, target, b"HTTP/1.1"] = parts[..] else { return Err(format!("request line {}", show(start))) };
    if !is_token(method) || target.is_empty() {
        return Err(format!("request line {}", show(start)));
    }
    let Some((fields, at)) = field_lines(bytes, at)? else { return Ok(None) };
    if values(&fields, "host").len() != 1 {
        return Err(format!("no one Host in {}", show(&bytes[..at])));
    }
    let framing = framing(&fields)?.unwrap_or(Framing::Length(0));
    let Body { body, trailers, end } = body(bytes, at, &framing)?;
    let method = String::from_utf8_lossy(method).into_owned();
    let request = Request { method, target: target.to_vec(), fields, body, trailers, whole: end.is_some() };
    Ok(Some((request, end.unwrap_or(bytes.len()))))
}

/// Reads the response that `bytes` begin with, and says where it ends. `None` if its head is not whole. `to_head`: it
/// answers a HEAD; `closed`: nothing comes behind `bytes`.
pub fn response(bytes: &[u8], to_head: bool, closed: bool) -> Result<Option<(Response, usize)>, String> {
    let Some((start, at)) = line(bytes, 0)? else { return Ok(None) };
    let version = start.starts_with(b"HTTP/1.1 ") || start.starts_with(b"HTTP/1.0 ");
    let status = start.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<u16>().ok());
    let (Some(status), true, Some(b' ')) = (status, version, start.get(12)) else {
        return Err(format!("status line {}", show(start)));
    };
    let Some((fields, at)) = field_lines(bytes, at)? else { return Ok(None) };
    let given = framing(&fields)?;
    let bodiless = status == 204 || (100..200).contains(&status);
    if bodiless && given.is_some() {
        return Err(format!("a {status} can have neither a length nor chunks: {}", show(&bytes[..at])));
    }
    let framing = match given {
        _ if status == 101 => Framing::Close,
        _ if bodiless || status == 304 || to_head => Framing::Length(0),
        Some(framing) => framing,
        None => Framing::Close,
    };
    let Body { body, end, .. } = body(bytes, at, &framing)?;
    let whole = end.is_some() || (framing == Framing::Close && closed);
    Ok(Some((Response { status, fields, body, whole }, end.unwrap_or(bytes.len()))))
}

/// All responses on a connection: their number may still grow unless it is `closed`. `is_head` says of the request that
/// an answer belongs to, by its number, whether it was a HEAD.
pub fn responses(bytes: &[u8], is_head: impl Fn(usize) -> bool, closed: bool) -> Result<Vec<Response>, String> {
    let (mut found, mut at, mut answered) = (Vec::new(), 0, 0);
    while at < bytes.len() {
        match response(&bytes[at..], is_head(answered), closed)? {
            Some((response, length)) => {
                answered += usize::from(response.status >= 200 || response.status == 101);
                at += length;
                found.push(response);
            }
            None if closed => return Err(format!("half a head: {}", show(&bytes[at..]))),
            None => break,
        }
    }
    Ok(found)
}

#[derive(Debug, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Chunks,
    Close,
}

fn framing(fields: &Fields) -> Result<Option<Framing>, String> {
    let (lengths, codings) = (values(fields, "content-length"), values(fields, "transfer-encoding"));
    match (&lengths[..], &codings[..]) {
        ([], []) => Ok(None),
        ([], [b"chunked"]) => Ok(Some(Framing::Chunks)),
        ([digits], []) if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => {
            let length = std::str::from_utf8(digits).map_err(|error| error.to_string())?.parse();
            Ok(Some(Framing::Length(length.map_err(|error| format!("{error}: {}", show(digits)))?)))
        }
        _ => {
            let all = |values: &[&[u8]]| values.iter().map(|value| show(value)).collect::<Vec<_>>().join(" | ");
            Err(format!("framed by lengths ({}) and codings ({})", all(&lengths), all(&codings)))
        }
    }
}

struct Body {
    body: Vec<u8>,
    trailers: Fields,
    end: Option<usize>,
}

fn body(bytes: &[u8], mut at: usize, framing: &Framing) -> Result<Body, String> {
    let part = |body: Vec<u8>| Ok(Body { body, trailers: Vec::new(), end: None });
    match framing {
        Framing::Close => part(bytes[at..].to_vec()),
        Framing::Length(length) => match usize::try_from(*length).ok().and_then(|length| at.checked_add(length)) {
            Some(end) if end <= bytes.len() => {
                Ok(Body { body: bytes[at..end].to_vec(), trailers: Vec::new(), end: Some(end) })
            }
            _ => part(bytes[at..].to_vec()),
        },
        Framing::Chunks => {
            let mut body = Vec::new();
            loop {
                let Some((size, data)) = line(bytes, at)? else { return part(body) };
                let digits = std::str::from_utf8(size).unwrap_or_default();
                if !(1..=16).contains(&size.len()) || !size.iter().all(u8::is_ascii_hexdigit) {
                    return Err(format!("chunk size {}", show(size)));
                }
                let size = usize::from_str_radix(digits, 16).map_err(|error| error.to_string())?;
                if size == 0 {
                    let Some((trailers, end)) = field_lines(bytes, data)? else { return part(body) };
                    return Ok(Body { body, trailers, end: Some(end) });
                }
                let end = data.saturating_add(size);
                body.extend_from_slice(&bytes[data..end.min(bytes.len())]);
                match bytes.get(end..end.saturating_add(2)) {
                    Some(b"\r\n") => at = end + 2,
                    Some(other) => return Err(format!("{} behind a chunk", show(other))),
                    None => return part(body),
                }
            }
        }
    }
}

/// A line without its CRLF, and where the next begins.
fn line(bytes: &[u8], at: usize) -> Result<Option<(&[u8], usize)>, String> {
    let Some(length) = bytes[at..].iter().position(|byte| *byte == b'\n') else { return Ok(None) };
    let whole = &bytes[at..at + length];
    let Some(text) = whole.strip_suffix(b"\r") else { return Err(format!("a bare LF ends {}", show(whole))) };
    if text.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
        return Err(format!("a control byte in {}", show(text)));
    }
    Ok(Some((text, at + length + 1)))
}

/// Field lines and the empty line behind them.
fn field_lines(bytes: &[u8], mut at: usize) -> Result<Option<(Fields, usize)>, String> {
    let mut fields = Vec::new();
    loop {
        let Some((text, next)) = line(bytes, at)? else { return Ok(None) };
        at = next;
        if text.is_empty() {
            return Ok(Some((fields, at)));
        }
        let colon = text.iter().position(|byte| *byte == b':').ok_or(format!("no colon in {}", show(text)))?;
        let (name, value) = (&text[..colon], text[colon + 1..].trim_ascii());
        if !is_token(name) {
            return Err(format!("field name {}", show(name)));
        }
        fields.push((String::from_utf8_lossy(name).to_lowercase(), value.to_vec()));
    }
}

fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

/// Bytes as a person can read them, the first few thousand.
pub fn show(bytes: &[u8]) -> String {
    const MOST: usize = 3000;
    match bytes.get(..MOST) {
        Some(first) => format!("\"{}\" and {} more", first.escape_ascii(), bytes.len() - MOST),
        None => format!("\"{}\"", bytes.escape_ascii()),
    }
}
