//! Rolling updates, and decisions by the load. A balancer asks its agent.
//!
//! `POST /api/v1/deploy` takes `{"image":"my-server:2"}`, `{"command":["my-server","--port","{port}"]}`, `{"env":{"A":"1"}}`, or
//! several of them; what is not named stays. It answers 202 with how the update stands, as `GET` does (`null` before the
//! first one); 200 if it is done already; 503 while another one is under way.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::ORIGIN;
use axum::http::{HeaderMap, StatusCode};
use serde_json::Value;

use super::api::Api;
use super::body::{self, shown};
use super::error::ApiError;
use crate::supervisor::{Change, Order, Question, Rollout};

/// An order that is refused is refused within this time.
const AT_ONCE: Duration = Duration::from_millis(250);

/// `GET /api/v1/decisions`.
pub(super) async fn decisions(State(api): State<Api>) -> Result<Json<Value>, ApiError> {
    match api.supervisor.forward() {
        Some(agent) => agent.ask(Question::Decisions).await.map(Json).map_err(ApiError::Refused),
        None => Ok(Json(serde_json::to_value(api.journal.list()).unwrap_or_default())),
    }
}

/// `GET /api/v1/deploy`.
pub(super) async fn show(State(api): State<Api>) -> Result<Json<Value>, ApiError> {
    progress(&api).await.map(Json)
}

async fn progress(api: &Api) -> Result<Value, ApiError> {
    match api.supervisor.forward() {
        Some(agent) => agent.ask(Question::Deployment).await.map_err(ApiError::Refused),
        None => Ok(serde_json::to_value(&api.supervisor.status().progress).unwrap_or_default()),
    }
}

/// `POST /api/v1/deploy`.
pub(super) async fn begin(
    State(api): State<Api>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    // A web page that somebody on this host looks at can send such a request, too; browsers say where it comes from.
    if headers.contains_key(ORIGIN) {
        return Err(ApiError::Bad("web pages are not welcome here: the request has an Origin".into()));
    }
    let change = parse(&body::read(body).await?).map_err(ApiError::Bad)?;
    let before = progress(&api).await?;
    let under_way =
        [Rollout::RollingOut, Rollout::RollingBack].map(|state| serde_json::to_value(state).unwrap_or_default());
    if under_way.contains(&before["state"]) {
        let template = before["template"].as_str().unwrap_or_default();
        return Err(ApiError::Busy(format!("a rolling update to {template} is under way; try again when it is done")));
    }
    let supervisor = api.supervisor.clone();
    // It goes on, whether or not somebody waits.
    let mut order = tokio::spawn(async move { supervisor.order(Order::Deploy(change)).await });
    let status = match tokio::time::timeout(AT_ONCE, &mut order).await {
        Ok(Ok(Ok(_))) => StatusCode::OK,
        Ok(Ok(Err(refusal))) => return Err(ApiError::Refused(refusal)),
        Ok(Err(_)) => return Err(ApiError::Failed("the update broke off".into())),
        Err(_) => StatusCode::ACCEPTED,
    };
    Ok((status, Json(progress(&api).await?)))
}

fn parse(bytes: &[u8]) -> Result<Change, String> {
    const EXPECTED: &str =
        r#"expected an object such as {"image":"my-server:2"}, with image, command, env or several of them"#;
    let body: Value =
        serde_json::from_slice(bytes).map_err(|error| format!("the body is not JSON ({error}); {EXPECTED}"))?;
    let Value::Object(fields) = body else { return Err(format!("the body is {}; {EXPECTED}", shown(&body))) };
    if let Some(unknown) = fields.keys().find(|key| !["image", "command", "env"].contains(&key.as_str())) {
        return Err(format!("unknown field '{unknown}'; allowed: image, command, env"));
    }
    if fields.is_empty() {
        return Err(format!("nothing is to be changed; {EXPECTED}"));
    }
    let mut change = Change::default();
    for (key, value) in fields {
        match key.as_str() {
            "image" => {
                let image = value.as_str().filter(|image| !image.is_empty() && !image.contains(char::is_whitespace));
                let image = image.ok_or_else(|| format!("image is {}; expected an image's name", shown(&value)))?;
                change.image = Some(image.to_owned());
            }
            "command" => {
                let words = value.as_array().map(|words| words.iter().filter_map(Value::as_str).map(str::to_owned));
                let words = words
                    .map(Iterator::collect::<Vec<_>>)
                    .filter(|words| !words.is_empty() && value.as_array().is_some_and(|all| all.len() == words.len()));
                let expected =
                    || format!("command is {}; expected a program and its arguments, as a list", shown(&value));
                change.command = Some(words.ok_or_else(expected)?);
            }
            _ => {
                let env = serde_json::from_value::<BTreeMap<String, String>>(value.clone()).ok();
                let is_good =
                    |name: &String| !name.is_empty() && !name.contains('=') && name != "SERVER_ID" && name != "PORT";
                let env = env.filter(|env| env.keys().all(is_good));
                let expected = || {
                    format!(
                        "env is {}; expected an object of names and texts, without SERVER_ID and PORT",
                        shown(&value)
                    )
                };
                change.env = Some(env.ok_or_else(expected)?);
            }
        }
    }
    Ok(change)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_say_what_is_wrong_and_what_is_allowed() {
        let parse = |body: &str| parse(body.as_bytes());
        let change = parse(r#"{"image":"a:2","command":["a","b c"],"env":{"A":""}}"#).unwrap();
        assert_eq!((change.image.as_deref(), change.command.unwrap().len()), (Some("a:2"), 2));
        assert_eq!(change.env.unwrap()["A"], "");
        for (body, wrong, allowed) in [
            ("", "not JSON", "image"),
            ("[1]", "the body is [1]", "object"),
            ("{}", "nothing is to be changed", "image, command, env"),
            (r#"{"image":""}"#, r#"image is """#, "image's name"),
            (r#"{"image":7}"#, "image is 7", "image's name"),
            (r#"{"command":"a b"}"#, r#"command is "a b""#, "as a list"),
            (r#"{"command":["a",1]}"#, r#"command is ["a",1]"#, "as a list"),
            (r#"{"env":{"PORT":"1"}}"#, "env is", "without SERVER_ID and PORT"),
            (r#"{"env":["A=1"]}"#, "env is", "object"),
            (r#"{"imgae":"a"}"#, "unknown field 'imgae'", "image, command, env"),
        ] {
            let message = parse(body).unwrap_err();
            assert!(message.contains(wrong) && message.contains(allowed), "{body}: {message}");
        }
    }
}
