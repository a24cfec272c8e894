//! Whether a request that failed on one replica may go to another. Pure.

use http::Method;

/// How far a failed try had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// Nothing of the request has reached the replica.
    NotSent,
    /// Some or all of it may have; no byte of a response was seen.
    Sent,
    /// It answered, but not in a way that can be passed on.
    Answered,
}

/// May be repeated without the client noticing (RFC 9110, section 9.2.2: idempotent methods).
pub(super) fn is_repeatable(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE)
}

/// The verdict on one more try. `repeatable`: the method is, and the body can be sent again. `sent` counts the tries that
/// may have reached a replica, this one included if it did.
///
/// A request that never reached a replica goes on as long as there are replicas left: each that refuses is out of
/// rotation by then, so this ends.
pub(super) fn may_retry(progress: Progress, repeatable: bool, sent: u32, tries: u32) -> bool {
    match progress {
        Progress::NotSent => true,
        Progress::Sent => repeatable && sent < tries,
        Progress::Answered => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_do_no_harm_is_repeated() {
        for method in [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE] {
            assert!(is_repeatable(&method), "{method}");
        }
        for method in [Method::POST, Method::PATCH, Method::CONNECT, Method::from_bytes(b"PURGE").unwrap()] {
            assert!(!is_repeatable(&method), "{method}");
        }
        assert!(may_retry(Progress::NotSent, false, 0, 3));
        assert!(!may_retry(Progress::Sent, false, 1, 3));
        assert!(may_retry(Progress::Sent, true, 2, 3));
        assert!(!may_retry(Progress::Sent, true, 3, 3));
        assert!(!may_retry(Progress::Answered, true, 1, 3));
    }
}
