//! What the proxy answers by itself: the one place that maps a failure to a status.

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};

use super::body::ProxyBody;

/// Why a request got no answer from a replica, or not the replica's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ProxyError {
    /// The replica has no such path.
    NotFound { path: String },
    /// Nobody to ask.
    NoReplica,
    /// A replica failed, and no retry was allowed or left.
    BadGateway { hostname: String, reason: String },
    /// A replica was too slow.
    Timeout { hostname: String },
    /// The client's own body broke off or stalled.
    ClientBody,
    /// `CONNECT` asks for a tunnel.
    Connect,
}

impl ProxyError {
    fn status(&self) -> StatusCode {
        match self {
            Self::NotFound { .. } => StatusCode::BAD_REQUEST,
            Self::NoReplica => StatusCode::SERVICE_UNAVAILABLE,
            Self::BadGateway { .. } => StatusCode::BAD_GATEWAY,
            Self::Timeout { .. } => StatusCode::GATEWAY_TIMEOUT,
            Self::ClientBody => StatusCode::REQUEST_TIMEOUT,
            Self::Connect => StatusCode::METHOD_NOT_ALLOWED,
        }
    }

    fn message(&self) -> String {
        match self {
            Self::NotFound { path } => format!("'{path}' endpoint does not exist in server replicas"),
            Self::NoReplica => "no server replica is ready".into(),
            Self::BadGateway { hostname, reason } => format!("replica {hostname} failed: {reason}"),
            Self::Timeout { hostname } => format!("replica {hostname} did not answer in time"),
            Self::ClientBody => "the request's body did not arrive in time".into(),
            Self::Connect => "CONNECT is not supported".into(),
        }
    }

    pub(super) fn into_response(self) -> Response<ProxyBody> {
        let message = serde_json::Value::from(format!("<Error> {}", self.message()));
        let body = Bytes::from(format!(r#"{{"message":{message},"status":"failure"}}"#));
        let mut response = Response::new(ProxyBody::full(body));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        match self {
            Self::NoReplica => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            Self::Connect => {
                headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS"));
            }
            _ => {}
        }
        response
    }
}
