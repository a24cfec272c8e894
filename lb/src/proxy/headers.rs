//! What changes in the headers of a request on its way to a replica, and of a response on its way back. Pure.

use http::header::{
    CONNECTION, CONTENT_LENGTH, Entry, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED: HeaderName = HeaderName::from_static("forwarded");
/// The header that carries a request's ID.
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest request ID that is taken from a client.
const REQUEST_ID_LENGTH: usize = 128;

/// Fields that concern one connection only (RFC 9110, section 7.6.1, and those that older senders use so).
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

fn is_hop_by_hop(name: &HeaderName) -> bool {
    // Their lengths tell most others apart.
    matches!(name.as_str().len(), 2 | 7 | 10 | 16 | 17 | 18 | 19) && HOP_BY_HOP.contains(name)
}

/// Removes the fields of one connection, those that `Connection` names included. What frames or routes the message can't
/// be removed by naming it there.
fn strip_hop_by_hop(headers: &mut HeaderMap) {
    // Most messages have none of them: one look at each name, where a removal would hash all nine.
    if !headers.keys().any(is_hop_by_hop) {
        return;
    }
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().parse().ok())
            .filter(|name| *name != CONTENT_LENGTH && *name != HOST)
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Prepares a response's headers for a client. Of two framings the length is the one that does not count (RFC 9112,
/// section 6.3).
pub(super) fn for_client(headers: &mut HeaderMap) {
    if headers.contains_key(TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
    }
    strip_hop_by_hop(headers);
}

/// Says that a body of unknown length follows: for some methods a client would take it that there is none.
pub(super) fn frame_body(headers: &mut HeaderMap) {
    if !headers.contains_key(CONTENT_LENGTH) {
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

/// Prepares a request's headers for a replica. Forwarding fields say what this hop has seen; whatever the client put there
/// is replaced, as it can be made up.
pub(super) fn for_replica(headers: &mut HeaderMap, client: &HeaderValue, request_id: impl FnOnce() -> HeaderValue) {
    strip_hop_by_hop(headers);
    headers.remove(FORWARDED);
    headers.insert(X_FORWARDED_FOR, client.clone());
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("http"));
    match headers.get(HOST).cloned() {
        Some(host) => headers.insert(X_FORWARDED_HOST, host),
        None => headers.remove(X_FORWARDED_HOST),
    };
    match headers.entry(X_REQUEST_ID) {
        Entry::Occupied(mut given) if !is_request_id(given.get()) => {
            given.insert(request_id());
        }
        Entry::Occupied(_) => {}
        Entry::Vacant(vacant) => {
            vacant.insert(request_id());
        }
    }
}

/// A client's own ID is kept if it can't do harm in a log.
fn is_request_id(value: &HeaderValue) -> bool {
    let bytes = value.as_bytes();
    (1..=REQUEST_ID_LENGTH).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    fn forwarded(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = headers(fields);
        for_replica(&mut headers, &HeaderValue::from_static("192.0.2.7"), || HeaderValue::from_static("fresh"));
        headers
    }

    #[test]
    fn fields_of_one_connection_go() {
        let headers = forwarded(&[
            ("connection", "keep-alive, X-Secret"),
            ("connection", "content-length, host"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("proxy-connection", "close"),
            ("x-secret", "1"),
            ("content-length", "3"),
            ("host", "a"),
            ("accept", "*/*"),
        ]);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        let added = ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-request-id"];
        assert_eq!(left[..3], ["accept", "content-length", "host"]);
        assert_eq!(left[3..], added);
    }

    #[test]
    fn made_up_forwarding_fields_are_replaced_and_cannot_be_stripped() {
        let headers = forwarded(&[
            ("connection", "x-forwarded-for, x-request-id"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-for", "10.0.0.2"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil"),
            ("forwarded", "for=10.0.0.1"),
            ("host", "shop.example"),
        ]);
        assert_eq!(headers.get_all("x-forwarded-for").iter().collect::<Vec<_>>(), ["192.0.2.7"]);
        assert_eq!(headers["x-forwarded-proto"], "http");
        assert_eq!(headers["x-forwarded-host"], "shop.example");
        assert_eq!(headers["x-request-id"], "fresh");
        assert!(!headers.contains_key("forwarded"));
    }

    #[test]
    fn every_field_of_one_connection_is_known_by_its_length() {
        assert!(HOP_BY_HOP.iter().all(is_hop_by_hop));
        assert!(!is_hop_by_hop(&CONTENT_LENGTH));
    }

    #[test]
    fn a_response_with_two_framings_keeps_the_one_that_counts() {
        let mut both = headers(&[("transfer-encoding", "chunked"), ("content-length", "5")]);
        for_client(&mut both);
        assert!(both.is_empty(), "{both:?}");
        let mut one = headers(&[("content-length", "5"), ("keep-alive", "1")]);
        for_client(&mut one);
        assert_eq!(one, headers(&[("content-length", "5")]));
    }

    #[test]
    fn a_sound_request_id_is_kept() {
        assert_eq!(forwarded(&[("x-request-id", "abc-1")])["x-request-id"], "abc-1");
        assert_eq!(forwarded(&[("x-request-id", "")])["x-request-id"], "fresh");
        assert_eq!(forwarded(&[("x-request-id", "a b")])["x-request-id"], "fresh");
        assert!(!forwarded(&[("x-forwarded-host", "evil")]).contains_key("x-forwarded-host"));
    }
}
