//! Every endpoint, with right and with wrong input.

use std::time::Instant;

use reqwest::Method;
use serde::{Deserialize, Serialize};

use crate::experiments::stage::Balancer;

/// What is asked, and the status that is due. The steps build upon each other: they begin and end with three replicas.
const STEPS: [(&str, &str, &str, u16); 24] = [
    ("GET", "/home", "", 200),
    ("GET", "/heartbeat", "", 200),
    ("GET", "/rep", "", 200),
    ("POST", "/add", r#"{"n":2,"hostnames":["S4"]}"#, 200),
    ("GET", "/rep", "", 200),
    ("POST", "/add", r#"{"n":2,"hostnames":["S5","S6","S10","S11"]}"#, 400),
    ("POST", "/add", r#"{"n":1,"hostnames":["S4"]}"#, 400),
    ("POST", "/add", r#"{"n":2,"hostnames":["S7","S7"]}"#, 400),
    ("POST", "/add", r#"{"n":1,"hostnames":["no name"]}"#, 400),
    ("POST", "/add", r#"{"n":0}"#, 400),
    ("POST", "/add", r#"{"n":-1}"#, 400),
    ("POST", "/add", r#"{"hostnames":["S7"]}"#, 400),
    ("POST", "/add", r#"{"n":1,"host":["S7"]}"#, 400),
    ("POST", "/add", r#"{"n":1000}"#, 400),
    ("POST", "/add", "n=1", 400),
    ("GET", "/add", "", 405),
    ("DELETE", "/rm", r#"{"n":2,"hostnames":["S5","S4","S10"]}"#, 400),
    ("DELETE", "/rm", r#"{"n":9}"#, 400),
    ("DELETE", "/rm", r#"{"n":1,"hostnames":["S99"]}"#, 400),
    ("DELETE", "/rm", r#"{"n":2,"hostnames":["S4"]}"#, 200),
    ("PUT", "/rm", r#"{"n":1}"#, 405),
    ("POST", "/rep", "", 405),
    ("GET", "/other", "", 400),
    ("GET", "/rep", "", 200),
];
/// What an error's message begins with.
const ERROR: &str = r#"{"message":"<Error> "#;

/// One step and its answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Endpoint {
    pub(super) request: String,
    pub(super) due: u16,
    pub(super) status: u16,
    pub(super) body: String,
    pub(super) took_ms: f64,
}

impl Endpoint {
    /// Is it the answer that is due, in its shape?
    pub(super) fn is_right(&self) -> bool {
        let wrong = self.body.starts_with(ERROR) && self.body.ends_with(r#""status":"failure"}"#);
        self.status == self.due && (self.due == 200) != wrong
    }
}

/// How many there are.
pub(super) fn count() -> u64 {
    STEPS.len() as u64
}

/// Takes all the steps, and calls `done` after each.
pub(super) async fn all(balancer: &Balancer, done: impl Fn()) -> Result<Vec<Endpoint>, String> {
    let mut answers = Vec::new();
    for (method, path, body, due) in STEPS {
        let request = format!("{method} {path} {body}").trim().to_owned();
        let known = Method::from_bytes(method.as_bytes()).map_err(|error| format!("{request}: {error}"))?;
        let began = Instant::now();
        let answer = balancer.ask(known, path, body).await;
        let (status, body) = answer.map_err(|error| format!("{request}: {error}"))?;
        answers.push(Endpoint { request, due, status, body, took_ms: began.elapsed().as_secs_f64() * 1e3 });
        done();
    }
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_its_status_and_its_shape() {
        let endpoint = |due, status, body: &str| {
            Endpoint { request: "GET /x".into(), due, status, body: body.into(), took_ms: 1.0 }.is_right()
        };
        let error = r#"{"message":"<Error> no","status":"failure"}"#;
        assert!(endpoint(400, 400, error) && endpoint(200, 200, "") && endpoint(200, 200, r#"{"message":{}}"#));
        assert!(!endpoint(400, 405, error) && !endpoint(400, 400, "no") && !endpoint(200, 200, error));
    }

    #[test]
    fn every_endpoint_is_asked_rightly_and_wrongly() {
        for path in ["/rep", "/add", "/rm"] {
            let due = |wanted: fn(u16) -> bool| STEPS.iter().any(|(_, at, _, due)| *at == path && wanted(*due));
            assert!(due(|status| status == 200) && due(|status| status >= 400), "{path}");
        }
    }
}
