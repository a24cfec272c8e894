//! Replicas as JSON, and their shares by request.
//!
//! `PATCH /api/v1/replicas/{hostname}` takes `{"weight":3,"priority":1}`, one of them or both, each from 0 to 65535, and
//! answers with the replica as `GET /api/v1/replicas` shows it. Weight 0: no new requests, those under way and pinned
//! sessions go on. All or nothing: 400 says which value is wrong, 404 which replicas there are.

use axum::body::Body;
use axum::{Json, extract};
use serde::Serialize;
use serde_json::Value;

use super::api::Api;
use super::body::{self, shown};
use super::error::ApiError;
use crate::pilot::Board;
use crate::pool::PoolReader;
use crate::replica::{Generation, Hostname, ReplicaId};
use crate::supervisor::{MemberStatus, Order, RefusalKind, State};

/// One replica. Numbers of the data path are 0 until it is in the pool.
#[derive(Debug, Serialize)]
pub(super) struct ReplicaItem {
    id: ReplicaId,
    hostname: Hostname,
    /// `null` until it was launched, as are `runtime_id` and `started_at`.
    addr: Option<String>,
    runtime_id: Option<String>,
    state: String,
    in_flight: u32,
    served: u64,
    failed: u64,
    weight: u16,
    priority: u16,
    /// What the policy peak-ewma takes its latency to be; `null` with other policies, and until it was measured.
    latency_ms: Option<f64>,
    /// Cores in use; `null` unless replicas are measured here (by an agent, or with autoscale, outliers or weights).
    cpu: Option<f64>,
    /// Bytes in use; the same.
    memory: Option<u64>,
    /// RFC 3339.
    started_at: Option<String>,
    generation: Generation,
    /// Counted in N?
    desired: bool,
    /// Waits to take over for one that fails?
    spare: bool,
    /// Failures in a row that led to this launch.
    crashes: u32,
    /// RFC 3339; set while its launch is put off because of these.
    launch_at: Option<String>,
    last_error: Option<String>,
}

impl ReplicaItem {
    fn new(MemberStatus { view, replica }: &MemberStatus, pool: &PoolReader, board: &Board) -> Self {
        let figures = board.get(view.spec.generation);
        let time = |time| humantime::format_rfc3339_millis(time).to_string();
        // Between two heartbeats the data path may know better.
        let suspected = view.state == State::Ready && replica.as_ref().is_some_and(|r| !r.is_ready());
        Self {
            id: view.spec.id,
            hostname: view.spec.hostname.clone(),
            addr: view.instance.as_ref().and_then(|instance| instance.addr).map(|addr| addr.to_string()),
            runtime_id: view.instance.as_ref().map(|instance| instance.id.to_string()),
            state: match view.state {
                State::Ready if suspected => State::Unready.to_string(),
                // It gets no new requests, as one that leaves.
                State::Ready if view.share.weight == 0 => State::Draining.to_string(),
                state => state.to_string(),
            },
            in_flight: replica.as_ref().map_or(0, |replica| replica.in_flight()),
            served: replica.as_ref().map_or(0, |replica| replica.served()),
            failed: replica.as_ref().map_or(0, |replica| replica.failed()),
            weight: view.share.weight,
            priority: view.share.priority,
            latency_ms: replica.as_ref().and_then(|replica| pool.latency(replica)).map(|latency| {
                // Microseconds are fine enough.
                (latency.as_secs_f64() * 1e6).round() / 1e3
            }),
            cpu: figures.and_then(|figures| figures.cpu).map(|cores| (cores * 1e4).round() / 1e4),
            memory: figures.map(|figures| figures.memory),
            started_at: view.instance.as_ref().map(|instance| time(instance.started_at)),
            generation: view.spec.generation,
            desired: view.desired,
            spare: view.spare,
            crashes: view.crashes,
            launch_at: view.launch_at.map(time),
            last_error: view.last_error.clone(),
        }
    }
}

/// `GET /api/v1/replicas`.
pub(super) async fn list(extract::State(api): extract::State<Api>) -> Json<Vec<ReplicaItem>> {
    Json(api.supervisor.status().members.iter().map(|member| ReplicaItem::new(member, &api.pool, &api.board)).collect())
}

/// What a `PATCH` asks for.
#[derive(Debug, PartialEq, Eq)]
struct Change {
    weight: Option<u16>,
    priority: Option<u16>,
}

impl Change {
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        const EXPECTED: &str = r#"expected an object such as {"weight":3,"priority":1}, with one of them or both"#;
        let body: Value =
            serde_json::from_slice(bytes).map_err(|error| format!("the body is not JSON ({error}); {EXPECTED}"))?;
        let Value::Object(fields) = body else { return Err(format!("the body is {}; {EXPECTED}", shown(&body))) };
        if let Some(unknown) = fields.keys().find(|key| !["weight", "priority"].contains(&key.as_str())) {
            return Err(format!("unknown field '{unknown}'; allowed: weight, priority"));
        }
        let number = |key: &str| match fields.get(key) {
            None => Ok(None),
            Some(value) => match value.as_u64().and_then(|number| u16::try_from(number).ok()) {
                Some(number) => Ok(Some(number)),
                None => Err(format!("{key} is {}; expected a whole number from 0 to 65535", shown(value))),
            },
        };
        match (number("weight")?, number("priority")?) {
            (None, None) => Err(format!("nothing is to be changed; {EXPECTED}")),
            (weight, priority) => Ok(Self { weight, priority }),
        }
    }
}

/// `PATCH /api/v1/replicas/{hostname}`.
pub(super) async fn set(
    extract::State(api): extract::State<Api>,
    extract::Path(hostname): extract::Path<String>,
    body: Body,
) -> Result<Json<ReplicaItem>, ApiError> {
    let Change { weight, priority } = Change::parse(&body::read(body).await?).map_err(ApiError::Bad)?;
    let hostname = Hostname::new(&hostname)
        .ok_or_else(|| ApiError::Bad(format!("'{hostname}' is no host name; expected {}", Hostname::ALLOWED)))?;
    let order = Order::Set { hostname: hostname.clone(), weight, priority };
    api.supervisor.order(order).await.map_err(|refusal| match refusal {
        refusal if refusal.kind() == RefusalKind::Unknown => ApiError::NotFound(refusal.to_string()),
        refusal => ApiError::Refused(refusal),
    })?;
    let status = api.supervisor.status();
    let members = status.members.iter();
    let item =
        members.map(|member| ReplicaItem::new(member, &api.pool, &api.board)).find(|item| item.hostname == hostname);
    item.map(Json).ok_or_else(|| ApiError::NotFound(format!("{hostname} has just been replaced")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_say_what_is_wrong_and_what_is_allowed() {
        let parse = |body: &str| Change::parse(body.as_bytes());
        assert_eq!(parse(r#"{"weight":0}"#), Ok(Change { weight: Some(0), priority: None }));
        assert_eq!(parse(r#"{"priority":65535,"weight":3}"#), Ok(Change { weight: Some(3), priority: Some(65535) }));
        for (body, wrong, allowed) in [
            ("", "not JSON", "weight"),
            ("[1]", "the body is [1]", "object"),
            ("{}", "nothing is to be changed", "one of them or both"),
            (r#"{"weight":-1}"#, "weight is -1", "0 to 65535"),
            (r#"{"weight":1.5}"#, "weight is 1.5", "whole number"),
            (r#"{"weight":"3"}"#, r#"weight is "3""#, "whole number"),
            (r#"{"weight":1,"priority":65536}"#, "priority is 65536", "0 to 65535"),
            (r#"{"weight":null}"#, "weight is null", "whole number"),
            (r#"{"wieght":1}"#, "unknown field 'wieght'", "weight, priority"),
        ] {
            let message = parse(body).unwrap_err();
            assert!(message.contains(wrong) && message.contains(allowed), "{body}: {message}");
        }
    }
}
