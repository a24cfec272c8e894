//! Bodies of requests to the balancer itself: short, and read whole.

use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use http_body_util::LengthLimitError;
use serde_json::Value;

use super::error::ApiError;

/// For the whole body to arrive.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest body that is taken.
const LIMIT: usize = 64 * 1024;

/// The whole body.
pub(super) async fn read(body: Body) -> Result<Bytes, ApiError> {
    let read = tokio::time::timeout(TIMEOUT, to_bytes(body, LIMIT)).await;
    read.map_err(|_| ApiError::Stalled)?.map_err(|error| {
        let too_long = std::error::Error::source(&error).is_some_and(|cause| cause.is::<LengthLimitError>());
        if too_long { ApiError::TooLarge(LIMIT) } else { ApiError::Bad(format!("the body broke off: {error}")) }
    })
}

/// A value as the client wrote it, cut to what fits in a message.
pub(super) fn shown(value: &Value) -> String {
    const LONGEST: usize = 100;
    let text = value.to_string();
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
