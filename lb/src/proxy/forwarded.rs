//! Who a client is, and what replicas are told about it. Pure.
//!
//! Fields such as `X-Forwarded-For` can be made up by anybody, so they are believed only of peers in `trusted_proxies`, and
//! overwritten otherwise.

use std::fmt;
use std::io::Write;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use crate::http1::Field;
use crate::http1::fields::{Known, known, list};

/// Peers whose word about a request's origin is believed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// What a list may be, for messages.
    pub const ALLOWED: &'static str = "IP addresses and networks, separated by commas, such as 10.0.0.0/8,192.0.2.7";

    /// Is it one of them?
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.0.iter().any(|net| net.contains(&ip))
    }
}

impl FromStr for TrustedProxies {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let net = |item: &str| {
            let parsed = item.parse::<IpNet>().or_else(|_| item.parse::<IpAddr>().map(IpNet::from));
            parsed.map_err(|_| format!("{}; '{item}' is not", Self::ALLOWED))
        };
        text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(net).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for TrustedProxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let items: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&items.join(","))
    }
}

/// Who sends the requests of a connection.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    /// Its address; one of IPv4 even if it came in the guise of IPv6.
    pub(super) ip: IpAddr,
    /// Is it in `trusted_proxies`?
    pub(super) is_trusted: bool,
    /// The address as text.
    text: Box<str>,
}

impl Peer {
    pub(super) fn new(ip: IpAddr, trusted: &TrustedProxies) -> Self {
        let ip = ip.to_canonical();
        Self { ip, is_trusted: trusted.contains(ip), text: ip.to_string().into() }
    }

    /// The client behind this peer: of the addresses that it reports, the last that is not a trusted proxy itself.
    pub(super) fn client(&self, fields: &[Field<'_>], trusted: &TrustedProxies) -> IpAddr {
        let mut client = self.ip;
        if !self.is_trusted {
            return client;
        }
        let reported = fields.iter().filter(|field| known(field.name.as_bytes()) == Known::XForwardedFor);
        for field in reported.rev() {
            let addresses: Vec<_> = list(field.value).collect();
            for address in addresses.into_iter().rev() {
                let Some(ip) = std::str::from_utf8(address).ok().and_then(|text| text.parse::<IpAddr>().ok()) else {
                    return client;
                };
                client = ip.to_canonical();
                if !trusted.contains(client) {
                    return client;
                }
            }
        }
        client
    }

    /// Did the client of a request use HTTPS, by the word of a trusted proxy?
    pub(super) fn is_secure(&self, fields: &[Field<'_>]) -> bool {
        let mut protocols = fields.iter().filter(|field| known(field.name.as_bytes()) == Known::XForwardedProto);
        // The first of several is the one that the client has used.
        let first = protocols.next().filter(|_| self.is_trusted).and_then(|field| list(field.value).next());
        first.is_some_and(|protocol| protocol.eq_ignore_ascii_case(b"https"))
    }

    /// Writes the fields that tell a replica where a request came from. `dropped` says which fields of it do not count.
    pub(super) fn write(
        &self,
        fields: &[Field<'_>],
        host: &[u8],
        dropped: impl Fn(&Field<'_>) -> bool,
        out: &mut Vec<u8>,
    ) {
        let given = |meaning: Known| {
            let believed = if self.is_trusted { fields } else { &[] };
            let dropped = &dropped;
            believed.iter().filter(move |field| known(field.name.as_bytes()) == meaning && !dropped(field))
        };
        out.extend_from_slice(b"x-forwarded-for: ");
        for field in given(Known::XForwardedFor) {
            out.extend_from_slice(field.value);
            out.extend_from_slice(b", ");
        }
        out.extend_from_slice(self.text.as_bytes());
        match given(Known::XForwardedProto).next() {
            Some(proto) => {
                out.extend_from_slice(b"\r\nx-forwarded-proto: ");
                out.extend_from_slice(proto.value);
            }
            None => out.extend_from_slice(b"\r\nx-forwarded-proto: http"),
        }
        out.extend_from_slice(b"\r\nx-forwarded-host: ");
        out.extend_from_slice(given(Known::XForwardedHost).next().map_or(host, |given| given.value));
        if given(Known::Forwarded).next().is_some() {
            out.extend_from_slice(b"\r\nforwarded: ");
            for field in given(Known::Forwarded) {
                out.extend_from_slice(field.value);
                out.extend_from_slice(b", ");
            }
            // RFC 7239, section 6: an IPv6 address is quoted and in brackets. Writing to a vector does not fail.
            let _ = match self.ip {
                IpAddr::V4(ip) => write!(out, "for={ip};proto=http"),
                IpAddr::V6(ip) => write!(out, "for=\"[{ip}]\";proto=http"),
            };
        }
        out.extend_from_slice(b"\r\n");
        for field in given(Known::Provenance) {
            out.extend_from_slice(field.name.as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(field.value);
            out.extend_from_slice(b"\r\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields<'b>(pairs: &[(&'b str, &'b str)]) -> Vec<Field<'b>> {
        pairs.iter().map(|(name, value)| Field { name, value: value.as_bytes() }).collect()
    }

    fn written(trusted: &str, peer: &str, pairs: &[(&str, &str)]) -> String {
        let peer = Peer::new(peer.parse().unwrap(), &trusted.parse().unwrap());
        let mut out = Vec::new();
        peer.write(&fields(pairs), b"shop", |_| false, &mut out);
        String::from_utf8(out).unwrap()
    }

    const GIVEN: &[(&str, &str)] = &[
        ("X-Forwarded-For", "198.51.100.1"),
        ("x-forwarded-for", "10.0.0.9"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "front"),
        ("Forwarded", "for=198.51.100.1"),
        ("X-Real-IP", "198.51.100.1"),
    ];

    #[test]
    fn strangers_are_not_believed() {
        let expected = "x-forwarded-for: 192.0.2.7\r\nx-forwarded-proto: http\r\nx-forwarded-host: shop\r\n";
        assert_eq!(written("10.0.0.0/8", "192.0.2.7", GIVEN), expected);
        assert_eq!(written("", "::ffff:192.0.2.7", GIVEN), expected, "an IPv4 address in the guise of IPv6");
    }

    #[test]
    fn trusted_proxies_are_quoted_and_added_to() {
        assert_eq!(
            written("10.0.0.0/8", "10.0.0.1", GIVEN),
            "x-forwarded-for: 198.51.100.1, 10.0.0.9, 10.0.0.1\r\nx-forwarded-proto: https\r\n\
             x-forwarded-host: front\r\nforwarded: for=198.51.100.1, for=10.0.0.1;proto=http\r\n\
             X-Real-IP: 198.51.100.1\r\n"
        );
        assert_eq!(
            written("::1", "::1", &[("Forwarded", "for=_a")]),
            "x-forwarded-for: ::1\r\nx-forwarded-proto: http\r\nx-forwarded-host: shop\r\n\
             forwarded: for=_a, for=\"[::1]\";proto=http\r\n"
        );
    }

    #[test]
    fn the_client_is_the_last_one_that_is_not_trusted() {
        let trusted: TrustedProxies = "10.0.0.0/8".parse().unwrap();
        let client = |peer: &str, pairs: &[(&str, &str)]| {
            Peer::new(peer.parse().unwrap(), &trusted).client(&fields(pairs), &trusted).to_string()
        };
        assert_eq!(client("10.0.0.1", &[("x-forwarded-for", "1.1.1.1, 198.51.100.1, 10.2.2.2")]), "198.51.100.1");
        assert_eq!(client("10.0.0.1", &[("x-forwarded-for", "2.2.2.2"), ("x-forwarded-for", "10.3.3.3")]), "2.2.2.2");
        assert_eq!(client("10.0.0.1", &[("x-forwarded-for", "10.3.3.3")]), "10.3.3.3");
        assert_eq!(client("10.0.0.1", &[("x-forwarded-for", "1.1.1.1, junk, 10.3.3.3")]), "10.3.3.3");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(client("192.0.2.1", &[("x-forwarded-for", "1.1.1.1")]), "192.0.2.1");
    }

    #[test]
    fn only_a_trusted_proxy_can_say_that_a_request_was_secure() {
        let is_secure = |peer: &str, protocols: &[&str]| {
            let pairs: Vec<_> = protocols.iter().map(|protocol| ("X-Forwarded-Proto", *protocol)).collect();
            Peer::new(peer.parse().unwrap(), &"10.0.0.0/8".parse().unwrap()).is_secure(&fields(&pairs))
        };
        for secure in [&["https"][..], &["HTTPS"], &["https, http"], &["https", "http"]] {
            assert!(is_secure("10.0.0.1", secure) && !is_secure("192.0.2.1", secure), "{secure:?}");
        }
        for plain in [&[][..], &["http"], &[""], &["http, https"], &["httpsx"]] {
            assert!(!is_secure("10.0.0.1", plain), "{plain:?}");
        }
    }

    #[test]
    fn lists_are_parsed_and_shown() {
        for text in ["", "10.0.0.0/8", "10.0.0.0/8,192.0.2.7/32,::1/128"] {
            assert_eq!(text.parse::<TrustedProxies>().unwrap().to_string(), text);
        }
        let error = "10.0.0.0/8, 10.0.0.0/33".parse::<TrustedProxies>().unwrap_err();
        assert!(error.contains("'10.0.0.0/33' is not"), "{error}");
    }
}
