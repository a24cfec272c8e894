//! The assignment's endpoints on the public listener.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `GET /rep` | | 200 `{"message":{"N":3,"replicas":["S1","S2","S3"]},"status":"successful"}` |
//! | `POST /add` | `{"n":2,"hostnames":["S4"]}` | the same, once the new replicas answered a heartbeat |
//! | `DELETE /rm`, `POST /rm` | `{"n":2,"hostnames":["S4"]}` | the same, once the removed ones have finished and gone |
//!
//! `hostnames` may be shorter than `n`, empty or missing. Errors are described in the README; they change nothing.

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::Value;

use super::body;
use super::body::shown;
use super::error::ApiError;
use crate::replica::Hostname;
use crate::supervisor::{Listing, Order, SupervisorHandle};

/// Paths of the public listener that are the balancer's own.
pub const PATHS: &[&str] = &["/rep", "/add", "/rm"];

#[derive(Clone)]
struct Fleet {
    supervisor: SupervisorHandle,
    /// The most replicas there can be, for messages.
    capacity: usize,
}

/// The router for [`PATHS`].
pub fn router(supervisor: SupervisorHandle, capacity: usize) -> Router {
    Router::new()
        .route("/rep", get(rep).fallback(|| refuse_method("GET, HEAD")))
        .route("/add", post(add).fallback(|| refuse_method("POST")))
        .route("/rm", post(rm).delete(rm).fallback(|| refuse_method("DELETE, POST")))
        .with_state(Fleet { supervisor, capacity })
}

async fn refuse_method(allowed: &'static str) -> ApiError {
    ApiError::Method(allowed)
}

fn successful(listing: &Listing) -> Response {
    let message = serde_json::to_string(listing).unwrap_or_default();
    let body = format!(r#"{{"message":{message},"status":"successful"}}"#);
    ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
}

async fn rep(State(fleet): State<Fleet>) -> Response {
    successful(&fleet.supervisor.status().listing)
}

async fn add(State(fleet): State<Fleet>, body: Body) -> Result<Response, ApiError> {
    let Change { n, hostnames } = Change::read(body, fleet.capacity).await?;
    fleet.order(Order::Add { n, hostnames }).await
}

async fn rm(State(fleet): State<Fleet>, body: Body) -> Result<Response, ApiError> {
    let Change { n, hostnames } = Change::read(body, fleet.capacity).await?;
    fleet.order(Order::Remove { n, hostnames }).await
}

impl Fleet {
    async fn order(&self, order: Order) -> Result<Response, ApiError> {
        self.supervisor.order(order).await.map(|listing| successful(&listing)).map_err(ApiError::Refused)
    }
}

/// The body of `/add` and `/rm`.
#[derive(Debug, PartialEq, Eq)]
struct Change {
    n: usize,
    hostnames: Vec<Hostname>,
}

impl Change {
    async fn read(body: Body, capacity: usize) -> Result<Self, ApiError> {
        Self::parse(&body::read(body).await?, capacity).map_err(ApiError::Bad)
    }

    fn parse(bytes: &[u8], capacity: usize) -> Result<Self, String> {
        let body: Value = serde_json::from_slice(bytes).map_err(|error| {
            format!(r#"the body is not JSON ({error}); expected an object such as {{"n":2,"hostnames":["S4"]}}"#)
        })?;
        let Value::Object(fields) = body else {
            return Err(format!(
                r#"the body is {}; expected an object such as {{"n":2,"hostnames":["S4"]}}"#,
                shown(&body)
            ));
        };
        if let Some(unknown) = fields.keys().find(|key| !["n", "hostnames"].contains(&key.as_str())) {
            return Err(format!("unknown field '{unknown}'; allowed: n, hostnames"));
        }
        let expected = format!("expected a whole number from 1 to {}", capacity.max(1));
        let n = match fields.get("n") {
            None => return Err(format!("n is missing; {expected}")),
            Some(n) => match n.as_u64().filter(|n| *n > 0) {
                Some(n) => usize::try_from(n).unwrap_or(usize::MAX),
                None => return Err(format!("n is {}; {expected}", shown(n))),
            },
        };
        let names = match fields.get("hostnames") {
            None | Some(Value::Null) => &[],
            Some(Value::Array(names)) => names.as_slice(),
            Some(other) => return Err(format!("hostnames is {}; expected a list of host names", shown(other))),
        };
        let hostname = |name: &Value| {
            let hostname = name.as_str().and_then(Hostname::new);
            hostname.ok_or_else(|| format!("{} is no host name; expected {}", shown(name), Hostname::ALLOWED))
        };
        Ok(Self { n, hostnames: names.iter().map(hostname).collect::<Result<_, _>>()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &str) -> Result<Change, String> {
        Change::parse(body.as_bytes(), 56)
    }

    #[test]
    fn hostnames_may_be_missing_empty_or_null() {
        for body in [r#"{"n":2}"#, r#"{"n":2,"hostnames":[]}"#, r#"{"hostnames":null,"n":2}"#] {
            assert_eq!(parse(body), Ok(Change { n: 2, hostnames: vec![] }), "{body}");
        }
    }

    #[test]
    fn messages_say_what_is_wrong_and_what_is_allowed() {
        for (body, wrong, allowed) in [
            ("", "not JSON", "object"),
            ("[1]", "the body is [1]", "object"),
            (r#"{"hostnames":[]}"#, "n is missing", "from 1 to 56"),
            (r#"{"n":0}"#, "n is 0", "from 1 to 56"),
            (r#"{"n":-1}"#, "n is -1", "from 1 to 56"),
            (r#"{"n":1.5}"#, "n is 1.5", "whole number"),
            (r#"{"n":"2"}"#, r#"n is "2""#, "whole number"),
            (r#"{"n":99999999999999999999}"#, "n is 1e+20", "whole number"),
            (r#"{"n":1,"hostnames":"S4"}"#, r#"hostnames is "S4""#, "list"),
            (r#"{"n":1,"hostnames":[4]}"#, "4 is no host name", "2 to 63"),
            (r#"{"n":1,"hostnames":["a b"]}"#, r#""a b" is no host name"#, "2 to 63"),
            (r#"{"n":1,"host":["S4"]}"#, "unknown field 'host'", "n, hostnames"),
        ] {
            let message = parse(body).unwrap_err();
            assert!(message.contains(wrong) && message.contains(allowed), "{body}: {message}");
        }
        let long = format!(r#"{{"n":1,"hostnames":["{}"]}}"#, "ä".repeat(1000));
        assert!(parse(&long).unwrap_err().len() < 400);
    }
}
