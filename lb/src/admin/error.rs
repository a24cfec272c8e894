//! Errors of the endpoints: `{"message":"<Error> …","status":"failure"}`.

use axum::http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::supervisor::{Refusal, RefusalKind};

/// Why a request was not carried out; it has changed nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ApiError {
    /// The request says something that can't be done.
    Bad(String),
    /// What it names is not there.
    NotFound(String),
    /// It should have been possible.
    Failed(String),
    /// Something else has to be done first.
    Busy(String),
    /// Its body is too long.
    TooLarge(usize),
    /// Its body did not come.
    Stalled,
    /// The path has other methods.
    Method(&'static str),
    /// The fleet would not.
    Refused(Refusal),
}

impl ApiError {
    fn status(&self) -> StatusCode {
        match self {
            Self::Bad(_) => StatusCode::BAD_REQUEST,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Busy(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Stalled => StatusCode::REQUEST_TIMEOUT,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Refused(refusal) => match refusal.kind() {
                RefusalKind::Failed => StatusCode::INTERNAL_SERVER_ERROR,
                RefusalKind::Later => StatusCode::SERVICE_UNAVAILABLE,
                // `/rm` of an unknown name is a bad request by the assignment.
                RefusalKind::Bad | RefusalKind::Unknown => StatusCode::BAD_REQUEST,
            },
        }
    }

    fn message(&self) -> String {
        match self {
            Self::Bad(message) | Self::NotFound(message) | Self::Failed(message) | Self::Busy(message) => {
                message.clone()
            }
            Self::TooLarge(limit) => format!("the body is over {limit} bytes, the most that is taken"),
            Self::Stalled => "the request's body did not arrive in time".into(),
            Self::Method(allowed) => format!("this path allows {allowed} only"),
            Self::Refused(refusal) => refusal.to_string(),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let message = serde_json::Value::from(format!("<Error> {}", self.message()));
        let mut response = (self.status(), format!(r#"{{"message":{message},"status":"failure"}}"#)).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Self::Method(allowed) = self {
            headers.insert(ALLOW, HeaderValue::from_static(allowed));
        } else if response.status() == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
