//! Why a message is refused.

use http::StatusCode;

/// A message that is not passed on. Nothing behind it on its connection is read as a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It breaks the syntax, or could be read in two ways.
    #[error("{0}")]
    Malformed(&'static str),
    /// Its target is longer than the limit.
    #[error("the request's target is longer than {limit} bytes (max_target_bytes)")]
    TargetTooLong {
        /// Bytes.
        limit: usize,
    },
    /// Its head is larger than the limit.
    #[error("the request's header is larger than {limit} bytes (max_header_bytes)")]
    HeadTooLarge {
        /// Bytes.
        limit: usize,
    },
    /// It has more fields than the limit.
    #[error("the request has more than {limit} header fields (max_headers)")]
    TooManyFields {
        /// Fields.
        limit: usize,
    },
    /// Its trailers are larger than the limit.
    #[error("the request's trailers are larger than {limit} bytes")]
    TrailersTooLarge {
        /// Bytes.
        limit: usize,
    },
    /// Its body is larger than the limit.
    #[error("the request's body is larger than {limit} bytes (max_body)")]
    BodyTooLarge {
        /// Bytes.
        limit: u64,
    },
    /// A version that is not spoken here.
    #[error("only HTTP/1.0 and HTTP/1.1 are spoken here")]
    Version,
    /// A transfer coding that is not known here.
    #[error("the only transfer coding that is known here is chunked")]
    Coding,
    /// An expectation that is not known here.
    #[error("the only expectation that is known here is 100-continue")]
    Expectation,
    /// `CONNECT` asks for a tunnel.
    #[error("CONNECT is not supported")]
    Connect,
}

impl Refusal {
    /// The status that tells the client.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::TargetTooLong { .. } => StatusCode::URI_TOO_LONG,
            Self::HeadTooLarge { .. } | Self::TooManyFields { .. } | Self::TrailersTooLarge { .. } => {
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
            }
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::Coding => StatusCode::NOT_IMPLEMENTED,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            Self::Connect => StatusCode::METHOD_NOT_ALLOWED,
        }
    }
}
