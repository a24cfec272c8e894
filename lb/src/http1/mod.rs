//! HTTP/1.x messages as bytes: heads, framing, chunks. Pure; knows neither sockets nor replicas.
//!
//! Syntax is read by `httparse`; what its result means for framing and routing is decided here, strictly, because two
//! programs that disagree on where a message ends can be played against each other (request smuggling). Whatever could be
//! read in two ways is refused, as RFC 9112, section 11.2, asks for.
//!
//! | module | what it is |
//! |---|---|
//! | [`request`] | a client's head: syntax, target, framing |
//! | [`response`] | a replica's head: syntax, framing |
//! | [`chunked`] | the chunked coding: decoder, and what to write around a piece |
//! | [`fields`] | fields with a meaning for the proxy |
//! | [`refusal`] | why a message is refused, and the status that says so |

pub mod chunked;
pub mod fields;
pub mod refusal;
pub mod request;
pub mod response;

pub use refusal::Refusal;

/// The most fields a request can have, whatever the settings say.
pub const MAX_FIELDS: usize = 256;
/// The most fields a response can have.
pub const MAX_RESPONSE_FIELDS: usize = 1024;

/// One field as it stands in a message.
pub type Field<'b> = httparse::Header<'b>;

/// Where a parser puts the fields it finds.
pub type FieldSlots<'b, const N: usize> = [std::mem::MaybeUninit<Field<'b>>; N];

/// Empty slots; costs nothing.
pub const fn field_slots<'b, const N: usize>() -> FieldSlots<'b, N> {
    [const { std::mem::MaybeUninit::uninit() }; N]
}

/// How the end of a body is found (RFC 9112, section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// So many bytes, at least 1.
    Length(u64),
    /// By its last chunk.
    Chunked,
    /// By the end of the connection; responses only.
    UntilClose,
}

/// What a head may measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    /// Fields, at most [`MAX_FIELDS`].
    pub fields: usize,
    /// Bytes of the whole head.
    pub bytes: usize,
    /// Bytes of the target.
    pub target: usize,
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self { fields: 100, bytes: 32 * 1024, target: 8 * 1024 }
    }
}

/// The value of a `Content-Length` field: digits and nothing else (RFC 9110, section 8.6).
fn content_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    value.iter().try_fold(0_u64, |sum, digit| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_digits_only() {
        for (value, length) in
            [("0", Some(0)), ("5", Some(5)), ("007", Some(7)), ("18446744073709551615", Some(u64::MAX))]
        {
            assert_eq!(content_length(value.as_bytes()), length, "{value}");
        }
        for bad in ["", "+5", "-1", "5 ", "0x5", "5,5", "1e3", "18446744073709551616", "٥"] {
            assert_eq!(content_length(bad.as_bytes()), None, "{bad}");
        }
    }
}
