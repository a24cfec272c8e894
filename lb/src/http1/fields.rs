//! Fields that mean something to the proxy.

/// What a field's name says to the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// `Content-Length`.
    ContentLength,
    /// `Transfer-Encoding`.
    TransferEncoding,
    /// `Host`.
    Host,
    /// `Connection`.
    Connection,
    /// `Expect`.
    Expect,
    /// `Upgrade`.
    Upgrade,
    /// `Trailer`: names the trailers of a chunked body.
    Trailer,
    /// Another field that concerns one connection only (RFC 9110, section 7.6.1, and those that older senders use so).
    HopByHop,
    /// `X-Forwarded-For`.
    XForwardedFor,
    /// `X-Forwarded-Proto`.
    XForwardedProto,
    /// `X-Forwarded-Host`.
    XForwardedHost,
    /// `Forwarded`.
    Forwarded,
    /// Another field that says where a request came from, such as `X-Real-IP`; believed of trusted peers only.
    Provenance,
    /// `X-Request-Id`.
    XRequestId,
    /// Nothing: it is passed on.
    Other,
}

const FORWARDED_PREFIX: &[u8] = b"x-forwarded-";

/// What `name` means. Lengths tell most names apart, so few are compared.
#[inline]
pub fn known(name: &[u8]) -> Known {
    let is = |word: &str| name.eq_ignore_ascii_case(word.as_bytes());
    match name.len() {
        2 if is("te") => Known::HopByHop,
        4 if is("host") => Known::Host,
        6 if is("expect") => Known::Expect,
        7 if is("trailer") => Known::Trailer,
        7 if is("upgrade") => Known::Upgrade,
        9 if is("forwarded") => Known::Forwarded,
        9 if is("x-real-ip") => Known::Provenance,
        10 if is("connection") => Known::Connection,
        10 if is("keep-alive") => Known::HopByHop,
        12 if is("x-request-id") => Known::XRequestId,
        14 if is("content-length") => Known::ContentLength,
        14 if is("http2-settings") => Known::HopByHop,
        15 if is("x-forwarded-for") => Known::XForwardedFor,
        16 if is("x-forwarded-host") => Known::XForwardedHost,
        16 if is("proxy-connection") => Known::HopByHop,
        17 if is("transfer-encoding") => Known::TransferEncoding,
        17 if is("x-forwarded-proto") => Known::XForwardedProto,
        18 if is("proxy-authenticate") => Known::HopByHop,
        19 if is("proxy-authorization") => Known::HopByHop,
        13.. if name[..FORWARDED_PREFIX.len()].eq_ignore_ascii_case(FORWARDED_PREFIX) => Known::Provenance,
        _ => Known::Other,
    }
}

/// Is `name` a name that the proxy manages, but for underscores in the place of dashes? Many servers hand both to programs
/// as one variable (RFC 3875, section 4.1.18), so `X_Forwarded_For` would be a way around what the proxy says.
#[inline]
pub fn is_look_alike(name: &[u8]) -> bool {
    const LONGEST: usize = 64;
    if !name.contains(&b'_') {
        return false;
    }
    let mut dashed = [0; LONGEST];
    let Some(dashed) = dashed.get_mut(..name.len()) else { return false };
    for (to, from) in dashed.iter_mut().zip(name) {
        *to = if *from == b'_' { b'-' } else { *from };
    }
    known(dashed) != Known::Other
}

/// The elements of a comma-separated list, without the white space around them; empty ones are left out (RFC 9110, section
/// 5.6.1).
pub fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}

/// May a field come in a trailer and be passed on from there? Those that frame, route, authenticate or modify a message may
/// not (RFC 9110, section 6.5.1).
pub fn may_trail(name: &[u8]) -> bool {
    const NEVER: &[&str] = &[
        "age",
        "authorization",
        "cache-control",
        "content-encoding",
        "content-range",
        "content-type",
        "cookie",
        "date",
        "expires",
        "location",
        "max-forwards",
        "pragma",
        "range",
        "retry-after",
        "set-cookie",
        "vary",
        "warning",
        "www-authenticate",
    ];
    known(name) == Known::Other
        && !is_look_alike(name)
        && !NEVER.iter().any(|never| name.eq_ignore_ascii_case(never.as_bytes()))
        && !name.get(..3).is_some_and(|start| start.eq_ignore_ascii_case(b"if-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_in_any_case() {
        for (name, meaning) in [
            ("TE", Known::HopByHop),
            ("hOsT", Known::Host),
            ("Expect", Known::Expect),
            ("TRAILER", Known::Trailer),
            ("Upgrade", Known::Upgrade),
            ("Forwarded", Known::Forwarded),
            ("X-Real-IP", Known::Provenance),
            ("Connection", Known::Connection),
            ("Keep-Alive", Known::HopByHop),
            ("X-Request-ID", Known::XRequestId),
            ("Content-Length", Known::ContentLength),
            ("HTTP2-Settings", Known::HopByHop),
            ("X-Forwarded-For", Known::XForwardedFor),
            ("X-Forwarded-Host", Known::XForwardedHost),
            ("Proxy-Connection", Known::HopByHop),
            ("Transfer-Encoding", Known::TransferEncoding),
            ("X-Forwarded-Proto", Known::XForwardedProto),
            ("X-Forwarded-Port", Known::Provenance),
            ("Proxy-Authenticate", Known::HopByHop),
            ("Proxy-Authorization", Known::HopByHop),
            ("Accept", Known::Other),
            ("X-Forwarded", Known::Other),
            ("", Known::Other),
        ] {
            assert_eq!(known(name.as_bytes()), meaning, "{name}");
        }
    }

    #[test]
    fn underscores_do_not_hide_a_name() {
        for name in ["X_Forwarded_For", "content_length", "X-Forwarded_Proto", "Transfer_Encoding", "x_forwarded_port"]
        {
            assert!(is_look_alike(name.as_bytes()), "{name}");
        }
        for name in ["X_Custom", "content-length", "_", &"a_".repeat(60)] {
            assert!(!is_look_alike(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn lists_have_no_empty_elements() {
        assert!(list(b" a,, b ,\t,c").eq([b"a", b"b", b"c"]));
        assert_eq!(list(b" , ").count(), 0);
    }

    #[test]
    fn trailers_can_not_change_the_message() {
        for name in ["X-Checksum", "Server-Timing", "grpc-status", "ETag"] {
            assert!(may_trail(name.as_bytes()), "{name}");
        }
        for name in ["Content-Length", "Transfer_Encoding", "Host", "Set-Cookie", "If-Match", "Authorization", "TE"] {
            assert!(!may_trail(name.as_bytes()), "{name}");
        }
    }
}
