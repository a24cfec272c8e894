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

    /// Does it decide for every request, so that none behind it is ever asked?
    fn always_decides(&self) -> bool {
        matches!(self, Self::Random | Self::ClientIp | Self::Path)
    }

    /// The key of a request that has what is configured. An empty value is none: a cookie that was emptied at a logout, say,
    /// would put all its owners at one replica.
    #[inline]
    fn of(&self, request: &RequestHead<'_, '_>, client: impl Fn() -> IpAddr) -> Option<u64> {
        match self {
            Self::Random => None,
            Self::ClientIp => Some(hash_ip(client())),
            Self::Path => Some(xxh3_64(request.target.path().as_bytes())),
            Self::Header(name) => values(request.fields, name.as_str()).find(|value| !value.is_empty()).map(xxh3_64),
            Self::Cookie(name) => cookies(request.fields, name).find(|value| !value.is_empty()).map(xxh3_64),
            Self::Query(name) => {
                request.target.query().and_then(|query| query_value(query, name)).map(|value| xxh3_64(value.as_bytes()))
            }
        }
    }

    /// The key that `text` stands for as a value of this one.
    fn of_text(&self, text: &str) -> Result<u64, String> {
        match self {
            Self::Random => text
                .parse()
                .map_err(|_| format!("'{text}' is no key: with 'random' it is a whole number from 0 to {}", u64::MAX)),
            Self::ClientIp => text.parse().map(hash_ip).map_err(|_| {
                format!("'{text}' is no key: with 'client-ip' it is an IP address, such as 192.0.2.7 or 2001:db8::7")
            }),
            _ if text.is_empty() => Err(format!(
                "'' is no key: with '{self}' it is a text of one character or more, as empty values do not count"
            )),
            _ => Ok(xxh3_64(text.as_bytes())),
        }
    }
}

fn hash_ip(ip: IpAddr) -> u64 {
    match ip.to_canonical() {
        IpAddr::V4(ip) => xxh3_64(&ip.octets()),
        IpAddr::V6(ip) => xxh3_64(&ip.octets()),
    }
}

/// What decides a request's place: the first of these keys that it has. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashKeys(Box<[HashKey]>);

impl HashKeys {
    /// The keys, first choice first.
    pub fn keys(&self) -> &[HashKey] {
        &self.0
    }

    /// The key of a request; `random` is drawn only if nothing else decides, because that is configured or because the
    /// request lacks what is.
    #[inline]
    pub(super) fn of(
        &self,
        request: &RequestHead<'_, '_>,
        client: impl Fn() -> IpAddr,
        random: impl FnOnce() -> u64,
    ) -> u64 {
        self.0.iter().find_map(|key| key.of(request, &client)).unwrap_or_else(random)
    }

    /// The key that `text` stands for, and the entry of the list that it was taken for a value of: where would a request
    /// go whose header, cookie, address or the like is this?
    ///
    /// `source` picks the entry. Without it, an IP address is taken for a client's if the list has `client-ip`, anything
    /// else for a value of the first entry that is neither `client-ip` nor `random`; with `random` alone, it is the key
    /// itself, as a whole number.
    ///
    /// # Errors
    ///
    /// Says what is allowed: `source` is not in the list, or `text` can't be a value of the entry.
    pub fn key_of(&self, text: &str, source: Option<&HashKey>) -> Result<(HashKey, u64), String> {
        let key = match source {
            Some(source) if self.0.contains(source) => source,
            Some(source) => {
                return Err(format!("'{source}' is not what requests are placed by here; allowed: {}", self.listed()));
            }
            None => self.taken_for(text),
        };
        Ok((key.clone(), key.of_text(text)?))
    }

    fn taken_for(&self, text: &str) -> &HashKey {
        let is_address = text.parse::<IpAddr>().is_ok();
        let by_address = self.0.iter().find(|key| is_address && **key == HashKey::ClientIp);
        let by_text = || self.0.iter().find(|key| !matches!(key, HashKey::ClientIp | HashKey::Random));
        by_address.or_else(by_text).or(self.0.first()).unwrap_or(&HashKey::Random)
    }

    fn listed(&self) -> String {
        self.0.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }
}

impl FromStr for HashKeys {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |what: String| format!("{}, or several of them, separated by commas; {what}", HashKey::ALLOWED);
        let mut keys = Vec::<HashKey>::new();
        for item in text.split(',').map(str::trim) {
            let key: HashKey = item.parse().map_err(|_| wrong(format!("'{item}' is not")))?;
            if keys.contains(&key) {
                return Err(wrong(format!("'{key}' is listed twice")));
            }
            if let Some(last) = keys.last().filter(|last| last.always_decides()) {
                return Err(wrong(format!("'{key}' stands behind '{last}', which always decides")));
            }
            keys.push(key);
        }
        Ok(Self(keys.into()))
    }
}

impl fmt::Display for HashKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, key) in self.0.iter().enumerate() {
            write!(f, "{}{key}", if at == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

fn values<'b>(fields: &[Field<'b>], name: &str) -> impl Iterator<Item = &'b [u8]> {
    fields.iter().filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
}

/// The values of cookie `name` (RFC 6265, section 4.2.1).
pub(super) fn cookies<'b>(fields: &[Field<'b>], name: &str) -> impl Iterator<Item = &'b [u8]> {
    values(fields, "cookie")
        .flat_map(|value| value.split(|byte| *byte == b';'))
        .filter_map(move |pair| pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

/// The first value of a query's parameter that is not empty.
fn query_value<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find_map(|(key, value)| (key == name && !value.is_empty()).then_some(value))
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

    fn key(hash_keys: &str) -> Option<u64> {
        let text = "GET /a/b?user=&user=7&user=8&flag HTTP/1.1\r\nHost: a\r\nX-User: 7\r\nX-User: 9\r\nX-Empty:\r\n\
                    X-Late: \r\nX-Late: 7\r\nCookie: a=1; sid=7; gone=\r\nCookie: b=2; gone=7\r\n\r\n";
        let mut slots = field_slots();
        let head = request::parse(text.as_bytes(), &HeadLimits::default(), &mut slots).unwrap().unwrap();
        let key = hash_keys.parse::<HashKeys>().unwrap().of(&head, || [127, 0, 0, 1].into(), || 0);
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
        for missing in ["random", "header:x-other", "header:x-empty", "cookie:other", "query:other", "query:flag"] {
            assert_eq!(key(missing), None, "{missing}");
        }
        for late in ["header:x-late", "cookie:gone"] {
            assert_eq!(key(late), seven, "{late}: the first that is not empty");
        }
    }

    #[test]
    fn the_first_key_that_a_request_has_decides() {
        for (keys, value) in [
            ("header:x-user,cookie:b,client-ip", "7"),
            ("header:x-other,cookie:b,client-ip", "2"),
            ("header:x-empty,query:flag,cookie:b,random", "2"),
            ("header:x-other,cookie:other,path", "/a/b"),
        ] {
            assert_eq!(key(keys), Some(xxh3_64(value.as_bytes())), "{keys}");
        }
        assert_eq!(key("header:x-other,client-ip"), Some(xxh3_64(&[127, 0, 0, 1])));
        for none in ["header:x-other,cookie:other", "query:other,random"] {
            assert_eq!(key(none), None, "{none}");
        }
    }

    #[test]
    fn what_is_parsed_is_what_is_shown() {
        for text in [
            "random",
            "client-ip",
            "path",
            "header:x-user",
            "cookie:sid",
            "query:user",
            "header:x-user,cookie:sid,client-ip",
            "header:a,header:b,random",
        ] {
            assert_eq!(text.parse::<HashKeys>().unwrap().to_string(), text);
        }
        assert_eq!(" header:X-User , path ".parse::<HashKeys>().unwrap().to_string(), "header:x-user,path");
        for bad in ["", "Random", "header:", "header:a b", "cookie:", "query:", "ip", "path,", ",path", "path,,random"]
        {
            assert!(bad.parse::<HashKeys>().is_err(), "{bad}");
        }
    }

    #[test]
    fn keys_that_never_decide_are_refused_with_a_reason() {
        for (text, why) in [
            ("header:a,cookie:b,header:A", "'header:a' is listed twice"),
            ("path,path", "'path' is listed twice"),
            ("path,cookie:b", "'cookie:b' stands behind 'path', which always decides"),
            ("client-ip,random", "'random' stands behind 'client-ip', which always decides"),
            ("header:a,random,query:q", "'query:q' stands behind 'random', which always decides"),
            ("header:a,ip", "'ip' is not"),
        ] {
            let error = text.parse::<HashKeys>().unwrap_err();
            assert!(error.starts_with(HashKey::ALLOWED) && error.ends_with(why), "{text}: {error}");
        }
    }

    fn asked(keys: &str, text: &str, source: Option<&str>) -> Result<(String, u64), String> {
        let source = source.map(|source| source.parse::<HashKey>().unwrap());
        let key = keys.parse::<HashKeys>().unwrap().key_of(text, source.as_ref());
        key.map(|(key, number)| (key.to_string(), number))
    }

    #[test]
    fn a_text_stands_for_the_key_of_a_request_that_has_it() {
        let is = |key: &str, bytes: &[u8]| Ok((key.to_owned(), xxh3_64(bytes)));
        assert_eq!(asked("random", "132574", None), Ok(("random".into(), 132_574)));
        assert_eq!(asked("random", "18446744073709551615", None), Ok(("random".into(), u64::MAX)));
        // Just as requests are placed.
        assert_eq!(asked("header:x-user", "7", None).unwrap().1, key("header:x-user").unwrap());
        assert_eq!(asked("path", "/a/b", None).unwrap().1, key("path").unwrap());
        assert_eq!(asked("client-ip", "127.0.0.1", None).unwrap().1, key("client-ip").unwrap());
        let list = "header:x-user,cookie:sid,client-ip";
        assert_eq!(asked(list, "anna", None), is("header:x-user", b"anna"));
        assert_eq!(asked(list, "anna", Some("cookie:sid")), is("cookie:sid", b"anna"));
        assert_eq!(asked(list, "192.0.2.7", None), is("client-ip", &[192, 0, 2, 7]));
        assert_eq!(asked(list, "::ffff:192.0.2.7", None), is("client-ip", &[192, 0, 2, 7]));
        assert_eq!(asked(list, "192.0.2.7", Some("header:X-User")), is("header:x-user", b"192.0.2.7"));
        assert_eq!(asked("header:a,path", "192.0.2.7", None), is("header:a", b"192.0.2.7"));
        assert_eq!(asked("cookie:sid,random", "132574", None), is("cookie:sid", b"132574"));
        assert_eq!(asked("cookie:sid,random", "132574", Some("random")), Ok(("random".into(), 132_574)));
    }

    #[test]
    fn a_text_that_is_no_key_is_refused_with_what_is_allowed() {
        let list = "header:x-user,client-ip";
        for (keys, text, source, says) in [
            ("random", "anna", None, "a whole number from 0 to 18446744073709551615"),
            ("random", "-1", None, "a whole number"),
            ("random", "18446744073709551616", None, "a whole number"),
            ("client-ip", "anna", None, "an IP address, such as 192.0.2.7"),
            (list, "anna", Some("client-ip"), "'anna' is no key: with 'client-ip' it is an IP address"),
            (list, "", None, "with 'header:x-user' it is a text of one character or more"),
            (
                list,
                "anna",
                Some("path"),
                "'path' is not what requests are placed by here; allowed: header:x-user, client-ip",
            ),
            (list, "7", Some("random"), "allowed: header:x-user, client-ip"),
        ] {
            let error = asked(keys, text, source).unwrap_err();
            assert!(error.contains(says), "{keys} {text:?} {source:?}: {error}");
        }
    }
}
