//! The key that a request is placed by. Pure but for the random number, which comes in.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use http::header::HeaderName;
use xxhash_rust::xxh3::xxh3_64;

use crate::http1::Field;
use crate::http1::request::RequestHead;

/// What of a request decides its place on the ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKey {
    /// Nothing: a random six-digit number, as the assignment has it.
    Random,
    /// The client's address.
    ClientIp,
    /// The path without its query.
    Path,
    /// The value of a header.
    Header(HeaderName),
    /// The value of a cookie.
    Cookie(String),
    /// The value of a query parameter, as it stands in the URL.
    Query(String),
}

impl HashKey {
    /// What a hash key may be, for messages.
    pub const ALLOWED: &'static str = "random, client-ip, path, header:NAME, cookie:NAME, query:NAME";

    /// The key of a request; `random` is drawn only if nothing else decides, because it is configured or because the
    /// request lacks what is.
    #[inline]
    pub(super) fn of(
        &self,
        request: &RequestHead<'_, '_>,
        client: impl FnOnce() -> IpAddr,
        random: impl FnOnce() -> u64,
    ) -> u64 {
        let hash = |bytes: &[u8]| Some(xxh3_64(bytes));
        let key = match self {
            Self::Random => None,
            Self::ClientIp => match client() {
                IpAddr::V4(ip) => hash(&ip.octets()),
                IpAddr::V6(ip) => hash(&ip.octets()),
            },
            Self::Path => hash(request.target.path().as_bytes()),
            Self::Header(name) => values(request.fields, name.as_str()).next().and_then(hash),
            Self::Cookie(name) => cookie(request.fields, name).and_then(|value| hash(value.as_bytes())),
            Self::Query(name) => request
                .target
                .query()
                .and_then(|query| query_value(query, name))
                .and_then(|value| hash(value.as_bytes())),
        };
        key.unwrap_or_else(random)
    }
}

impl HashKey {
    /// TEMPORARY
    pub fn key_of(&self, text: &str, _source: Option<&Self>) -> Result<(Self, u64), String> {
        match self {
            Self::Random => text.parse().map(|key| (Self::Random, key)).map_err(|_| "key: a whole number".to_owned()),
            other => Ok((other.clone(), xxh3_64(text.as_bytes()))),
        }
    }
}

fn values<'b>(fields: &[Field<'b>], name: &str) -> impl Iterator<Item = &'b [u8]> {
    fields.iter().filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
}

/// The first value of cookie `name` (RFC 6265, section 4.2.1).
fn cookie<'b>(fields: &[Field<'b>], name: &str) -> Option<&'b str> {
    values(fields, "cookie")
        .filter_map(|value| std::str::from_utf8(value).ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(key, value)| (key == name).then_some(value))
}

fn query_value<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .find_map(|(key, v)| (key == name).then_some(v))
}

impl FromStr for HashKey {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let named = |prefix| text.strip_prefix(prefix).filter(|name: &&str| !name.is_empty());
        match text {
            "random" => Ok(Self::Random),
            "client-ip" => Ok(Self::ClientIp),
            "path" => Ok(Self::Path),
            _ => {
                if let Some(name) = named("header:").and_then(|name| name.parse().ok()) {
                    Ok(Self::Header(name))
                } else if let Some(name) = named("cookie:") {
                    Ok(Self::Cookie(name.into()))
                } else if let Some(name) = named("query:") {
                    Ok(Self::Query(name.into()))
                } else {
                    Err(Self::ALLOWED.into())
                }
            }
        }
    }
}

impl fmt::Display for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Random => f.write_str("random"),
            Self::ClientIp => f.write_str("client-ip"),
            Self::Path => f.write_str("path"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
            Self::Query(name) => write!(f, "query:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::{HeadLimits, field_slots, request};

    fn key(hash_key: &str) -> Option<u64> {
        let text = "GET /a/b?user=7&user=8&flag HTTP/1.1\r\nHost: a\r\nX-User: 7\r\nX-User: 9\r\n\
                    Cookie: a=1; sid=7\r\nCookie: b=2\r\n\r\n";
        let mut slots = field_slots();
        let head = request::parse(text.as_bytes(), &HeadLimits::default(), &mut slots).unwrap().unwrap();
        let key = hash_key.parse::<HashKey>().unwrap().of(&head, || [127, 0, 0, 1].into(), || 0);
        (key != 0).then_some(key)
    }

    #[test]
    fn each_key_reads_what_it_names() {
        let seven = Some(xxh3_64(b"7"));
        assert_eq!(key("header:X-User"), seven);
        assert_eq!(key("cookie:sid"), seven);
        assert_eq!(key("cookie:b"), Some(xxh3_64(b"2")));
        assert_eq!(key("query:user"), seven);
        assert_eq!(key("path"), Some(xxh3_64(b"/a/b")));
        assert_eq!(key("client-ip"), Some(xxh3_64(&[127, 0, 0, 1])));
        for missing in ["random", "header:x-other", "cookie:other", "query:other"] {
            assert_eq!(key(missing), None, "{missing}");
        }
    }

    #[test]
    fn what_is_parsed_is_what_is_shown() {
        for text in ["random", "client-ip", "path", "header:x-user", "cookie:sid", "query:user"] {
            assert_eq!(text.parse::<HashKey>().unwrap().to_string(), text);
        }
        for bad in ["", "Random", "header:", "header:a b", "cookie:", "query:", "ip"] {
            assert!(bad.parse::<HashKey>().is_err(), "{bad}");
        }
    }
}
