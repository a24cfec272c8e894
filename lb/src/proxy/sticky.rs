//! Sticky sessions: the cookie that keeps a client at one replica. Pure.
//!
//! Its value is the replica's pin ([`crate::pin`]), so all there is to a session is in the client's hands. Whether a pin is
//! that of a replica which can be used is the pool's business.

use std::fmt;
use std::io::Write;
use std::str::FromStr;

use super::key::cookies;
use crate::http1::Field;
use crate::pin;

/// The cookie, by its name: a token (RFC 6265, section 4.1.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StickyCookie(Box<str>);

impl StickyCookie {
    /// What a name may be, for messages.
    pub const ALLOWED: &'static str = "a cookie's name: letters, digits and !#$%&'*+-.^_`|~";

    /// The pin that a request brings along; 0 if none, or nothing that could be one.
    pub(super) fn pin(&self, fields: &[Field<'_>]) -> u128 {
        cookies(fields, &self.0).next().map_or(0, pin::parse)
    }

    /// The field of a response that pins its client. `secure`: its request came over HTTPS.
    pub(super) fn field(&self, pin: u128, secure: bool) -> Vec<u8> {
        let mut field = Vec::with_capacity(128);
        // Without Domain and Expires: for this host, until the browser is closed. Writing to a vector does not fail.
        let _ = write!(field, "set-cookie: {}={pin:032x}; Path=/; HttpOnly; SameSite=Lax", self.0);
        if secure || self.must_be_secure() {
            field.extend_from_slice(b"; Secure");
        }
        field.extend_from_slice(b"\r\n");
        field
    }

    /// Browsers take cookies of such names only if they are marked so (RFC 6265bis, section 4.1.3).
    fn must_be_secure(&self) -> bool {
        let begins = |prefix: &str| self.0.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
        begins("__Host-") || begins("__Secure-")
    }
}

impl FromStr for StickyCookie {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        let valid = !text.is_empty() && text.bytes().all(is_token);
        if valid { Ok(Self(text.into())) } else { Err(Self::ALLOWED.into()) }
    }
}

impl fmt::Display for StickyCookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIN: &str = "0123456789abcdef0123456789abcdef";

    fn pin(cookies: &[&[u8]]) -> u128 {
        let fields: Vec<_> = cookies.iter().map(|value| Field { name: "Cookie", value }).collect();
        "lb".parse::<StickyCookie>().unwrap().pin(&fields)
    }

    #[test]
    fn the_first_cookie_of_that_name_counts() {
        let (cookie, other) = (format!("lb={PIN}"), "lb=fedcba9876543210fedcba9876543210");
        let expected = pin::parse(PIN.as_bytes());
        assert_ne!(expected, 0);
        assert_eq!(pin(&[cookie.as_bytes()]), expected);
        assert_eq!(pin(&[b"a=1", format!("b=2;  {cookie} ;{other}").as_bytes(), other.as_bytes()]), expected);
        assert_eq!(pin(&[&[b"a=\xe4; ", cookie.as_bytes()].concat()]), expected, "beside one that is no UTF-8");
        for none in ["", "lb", "lb=", "LB=0123456789abcdef0123456789abcdef", "xlb=0123456789abcdef0123456789abcdef"] {
            assert_eq!(pin(&[none.as_bytes()]), 0, "{none}");
        }
        assert_eq!(pin(&[format!("lb=S1; {cookie}").as_bytes()]), 0, "only the first");
        assert_eq!(pin(&[]), 0);
    }

    #[test]
    fn the_field_is_for_this_host_and_no_script() {
        let field = |name: &str, secure| {
            let field = name.parse::<StickyCookie>().unwrap().field(0x1f, secure);
            String::from_utf8(field).unwrap()
        };
        let plain = "set-cookie: lb=0000000000000000000000000000001f; Path=/; HttpOnly; SameSite=Lax";
        assert_eq!(field("lb", false), format!("{plain}\r\n"));
        assert_eq!(field("lb", true), format!("{plain}; Secure\r\n"));
        for name in ["__Host-lb", "__secure-lb"] {
            assert!(field(name, false).ends_with("; Secure\r\n"), "{name}");
        }
    }

    #[test]
    fn a_name_is_a_token() {
        for good in ["lb", "__Host-session", "a.b-c_d", "!#$%&'*+-.^_`|~"] {
            assert_eq!(good.parse::<StickyCookie>().unwrap().to_string(), good);
        }
        for bad in ["", "a b", "a=b", "a;b", "a,b", "\"a\"", "a\r\n", "a/b", "ä", "a:b", "a(b)"] {
            assert!(bad.parse::<StickyCookie>().is_err(), "{bad:?}");
        }
    }
}
