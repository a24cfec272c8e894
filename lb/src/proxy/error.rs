//! What the proxy answers by itself: the one place that maps a failure to a status.

use std::io::Write;

use http::StatusCode;

use super::rewrite::connection;
use crate::http1::Refusal;

/// Why a request got no answer from a replica, or not the replica's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ProxyError {
    /// The replica has no such path.
    NotFound { path: String },
    /// Nobody to ask.
    NoReplica,
    /// As many requests under way as are allowed.
    Busy { limit: u32 },
    /// As many connections from one address as are allowed.
    TooManyConnections { limit: u32 },
    /// A replica failed, and no retry was allowed or left.
    BadGateway { hostname: String, reason: String },
    /// A replica's body makes no sense from its first byte on.
    BadBody { hostname: String, reason: &'static str },
    /// A replica was too slow.
    Timeout { hostname: String },
    /// The client's header did not arrive in time.
    SlowHead,
    /// The client's own body stalled.
    SlowBody,
    /// The request itself is bad.
    Refused(Refusal),
}

impl ProxyError {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::NotFound { .. } => StatusCode::BAD_REQUEST,
            Self::NoReplica | Self::Busy { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::TooManyConnections { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::BadGateway { .. } | Self::BadBody { .. } => StatusCode::BAD_GATEWAY,
            Self::Timeout { .. } => StatusCode::GATEWAY_TIMEOUT,
            Self::SlowHead | Self::SlowBody => StatusCode::REQUEST_TIMEOUT,
            Self::Refused(refusal) => refusal.status(),
        }
    }

    fn message(&self) -> String {
        match self {
            Self::NotFound { path } => format!("'{path}' endpoint does not exist in server replicas"),
            Self::NoReplica => "no server replica is ready".into(),
            Self::Busy { limit } => format!("{limit} requests are under way, as many as are allowed (max_in_flight)"),
            Self::TooManyConnections { limit } => {
                format!("{limit} connections from this address, as many as are allowed (max_client_connections)")
            }
            Self::BadGateway { hostname, reason } => format!("replica {hostname} failed: {reason}"),
            Self::BadBody { hostname, reason } => format!("replica {hostname} failed: {reason}"),
            Self::Timeout { hostname } => format!("replica {hostname} did not answer in time"),
            Self::SlowHead => "the request's header did not arrive in time (header_timeout)".into(),
            Self::SlowBody => "the request's body did not arrive in time (idle_timeout)".into(),
            Self::Refused(refusal) => refusal.to_string(),
        }
    }

    /// May the client's connection be kept after it, if its request was read to its end?
    pub(super) fn keeps_connection(&self) -> bool {
        !matches!(self, Self::Refused(_) | Self::SlowHead | Self::SlowBody | Self::BadBody { .. })
    }

    /// Fields that belong to this answer alone.
    fn fields(&self) -> &'static str {
        match self {
            Self::NoReplica | Self::Busy { .. } | Self::TooManyConnections { .. } => "retry-after: 1\r\n",
            Self::Refused(Refusal::Connect) => "allow: GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS\r\n",
            _ => "",
        }
    }

    /// Writes the whole response; `to_head`: without its body.
    pub(super) fn write(&self, to_head: bool, client_is_1_1: bool, keep_alive: bool, out: &mut Vec<u8>) {
        let message = serde_json::Value::from(format!("<Error> {}", self.message()));
        let body = format!(r#"{{"message":{message},"status":"failure"}}"#);
        // Writing to a vector does not fail.
        let _ = write!(
            out,
            "HTTP/1.1 {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{}",
            self.status(),
            body.len(),
            self.fields()
        );
        out.extend_from_slice(connection(client_is_1_1, keep_alive));
        out.extend_from_slice(b"\r\n");
        if !to_head {
            out.extend_from_slice(body.as_bytes());
        }
    }
}
