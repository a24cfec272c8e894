//! Every endpoint, with right and with wrong input.

use std::time::Instant;

use reqwest::Method;
use serde::{Deserialize, Serialize};

use crate::experiments::stage::Balancer;

/// What is asked, the status that is due, and what the answer must hold. The steps build upon each other: they begin and end with three replicas.
const STEPS: [(&str, &str, &str, u16, &str); 26] = [
    ("GET", "/home", "", 200, r#""Hello from Server: S"#),
    ("POST", "/home", "", 405, "POST is not allowed on '/home'"),
    ("GET", "/heartbeat", "", 200, ""),
    ("POST", "/heartbeat", "", 405, "POST is not allowed on '/heartbeat'"),
    ("GET", "/rep", "", 200, r#"{"N":3,"replicas":["S1","S2","S3"]}"#),
    ("POST", "/add", r#"{"n":2,"hostnames":["S4"]}"#, 200, r#"{"N":5,"replicas":["S1","S2","S3","S4",""#),
    ("GET", "/rep", "", 200, r#"{"N":5,"#),
    ("POST", "/add", r#"{"n":2,"hostnames":["S5","S6","S10","S11"]}"#, 400, "more than newly added instances"),
    ("POST", "/add", r#"{"n":1,"hostnames":["S4"]}"#, 400, "'S4'"),
    ("POST", "/add", r#"{"n":2,"hostnames":["S7","S7"]}"#, 400, "'S7'"),
    ("POST", "/add", r#"{"n":1,"hostnames":["no name"]}"#, 400, "no name"),
    ("POST", "/add", r#"{"n":0}"#, 400, "n is 0"),
    ("POST", "/add", r#"{"n":-1}"#, 400, "n is -1"),
    ("POST", "/add", r#"{"hostnames":["S7"]}"#, 400, "n is missing"),
    ("POST", "/add", r#"{"n":1,"host":["S7"]}"#, 400, "'host'"),
    ("POST", "/add", r#"{"n":1000}"#, 400, "n is 1000"),
    ("POST", "/add", "n=1", 400, "not JSON"),
    ("GET", "/add", "", 405, "POST"),
    ("DELETE", "/rm", r#"{"n":2,"hostnames":["S5","S4","S10"]}"#, 400, "more than removable instances"),
    ("DELETE", "/rm", r#"{"n":9}"#, 400, "n is 9"),
    ("DELETE", "/rm", r#"{"n":1,"hostnames":["S99"]}"#, 400, "'S99'"),
    ("DELETE", "/rm", r#"{"n":2,"hostnames":["S4"]}"#, 200, r#"{"N":3,"replicas":["#),
    ("PUT", "/rm", r#"{"n":1}"#, 405, "DELETE"),
    ("POST", "/rep", "", 405, "GET"),
    ("GET", "/other", "", 400, "'/other' endpoint does not exist in server replicas"),
    ("GET", "/rep", "", 200, r#"{"N":3,"#),
];
/// What an error's message begins with.
const ERROR: &str = r#"{"message":"<Error> "#;

/// One step and its answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Endpoint {
    pub(super) request: String,
    pub(super) due: u16,
    /// What the answer must hold.
    pub(super) holds: String,
    pub(super) status: u16,
    pub(super) body: String,
    pub(super) took_ms: f64,
}

impl Endpoint {
    /// Is it the answer that is due, in its shape?
    pub(super) fn is_right(&self) -> bool {
        let wrong = self.body.starts_with(ERROR) && self.body.ends_with(r#""status":"failure"}"#);
        self.status == self.due && (self.due == 200) != wrong && self.body.contains(&self.holds)
    }
}

/// How many there are.
pub(super) fn count() -> u64 {
    STEPS.len() as u64
}

/// Takes all the steps, and calls `done` after each.
pub(super) async fn all(balancer: &Balancer, done: impl Fn()) -> Result<Vec<Endpoint>, String> {
    let mut answers = Vec::new();
    for (method, path, body, due, holds) in STEPS {
        let request = format!("{method} {path} {body}").trim().to_owned();
        let known = Method::from_bytes(method.as_bytes()).map_err(|error| format!("{request}: {error}"))?;
        let began = Instant::now();
        let answer = balancer.ask(known, path, body).await;
        let (status, body) = answer.map_err(|error| format!("{request}: {error}"))?;
        answers.push(Endpoint {
            request,
            due,
            holds: holds.into(),
            status,
            body,
            took_ms: began.elapsed().as_secs_f64() * 1e3,
        });
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
            let (request, holds) = ("GET /x".into(), String::new());
            Endpoint { request, due, holds, status, body: body.into(), took_ms: 1.0 }
        };
        let told = |holds: &str| Endpoint { holds: holds.into(), ..endpoint(200, 200, r#"{"N":3}"#) }.is_right();
        assert!(told(r#""N":3"#) && !told(r#""N":5"#));
        let endpoint = |due, status, body: &str| endpoint(due, status, body).is_right();
        let error = r#"{"message":"<Error> no","status":"failure"}"#;
        assert!(endpoint(400, 400, error) && endpoint(200, 200, "") && endpoint(200, 200, r#"{"message":{}}"#));
        assert!(!endpoint(400, 405, error) && !endpoint(400, 400, "no") && !endpoint(200, 200, error));
    }

    #[test]
    fn every_endpoint_is_asked_rightly_and_wrongly() {
        for path in ["/home", "/heartbeat", "/rep", "/add", "/rm"] {
            let due = |wanted: fn(u16) -> bool| STEPS.iter().any(|(_, at, _, due, _)| *at == path && wanted(*due));
            assert!(due(|status| status == 200) && due(|status| status >= 400), "{path}");
        }
    }
}
