//! Where a request would go now, and why.
//!
//! `GET /api/v1/explain?key=132574` answers for a key as it is configured (`hash_key`): a request ID if requests are placed
//! by a random number, else the text that a request would bring along, such as a user's name. `source=client-ip` says which
//! of several hash keys it is for; `tried=S1,S2` whom a retry may not go to again. Nothing is leased and no turn is taken.
//! Where chance decides, it is drawn anew each time.

use axum::Json;
use axum::extract::{self, RawQuery};
use serde::{Deserialize, Serialize};

use super::api::Api;
use super::error::ApiError;
use super::query::Query;
use crate::policy::{Explanation, PickCx};
use crate::proxy::HashKey;
use crate::replica::{Generation, Replica, Share};
use crate::supervisor::{MemberStatus, State, Status};

/// How a choice comes about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExplainView {
    /// The policy.
    pub policy: String,
    /// What it goes by.
    pub goes_by: String,
    /// The key, as it was given.
    pub key: String,
    /// Which hash key it is one for.
    pub source: String,
    /// The request's ID: the key itself or its hash. A text, as it may have 64 bits.
    pub id: String,
    /// The key's slot; `null` if the policy does not go by keys.
    pub slot: Option<u32>,
    /// Of so many.
    pub slots: Option<u32>,
    /// Who owns that slot.
    pub owner: Option<Who>,
    /// Who was passed over, in order, then those that were not even looked at.
    pub skipped: Vec<Skipped>,
    /// Who gets the request; `null` if nobody can take it.
    pub chosen: Option<Who>,
}

/// A replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// Its ring number.
    pub id: u32,
    /// Its name.
    pub hostname: String,
    /// Where it listens, if it has come so far.
    pub addr: Option<String>,
}

/// One that was passed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Its ring number.
    pub id: u32,
    /// Its name.
    pub hostname: String,
    /// `unready`, `draining`, `tried`, `at bound`, `full`, `busier`, `slower`, `weight 0` or `lower priority`.
    pub reason: String,
    /// The reason with its numbers.
    pub detail: String,
}

impl From<&Replica> for Who {
    fn from(replica: &Replica) -> Self {
        Self { id: replica.id.0, hostname: replica.hostname.to_string(), addr: Some(replica.addr.to_string()) }
    }
}

/// Why a replica was not even looked at by the policy: it is no member yet, gets no new requests, or comes after others.
fn left_out(member: &MemberStatus, chosen: Option<&Replica>) -> Option<(&'static str, String)> {
    let Share { weight, priority } = member.view.share;
    let highest = chosen.map_or(0, Replica::priority);
    match member.view.state {
        State::Ready if weight == 0 => Some(("weight 0", "weight 0: takes no new requests".into())),
        State::Ready if priority < highest => {
            Some(("lower priority", format!("lower priority: {priority}, while {highest} serves")))
        }
        State::Ready => None,
        state => Some(("unready", format!("unready: {state}"))),
    }
}

/// The slot's owner, and those whom the policy did not look at.
fn others(explanation: &Explanation, status: &Status) -> (Option<Who>, Vec<Skipped>) {
    let looked_at = |id: u32| {
        let mut members = explanation.passed.iter().map(|passed| &passed.replica).chain(&explanation.chosen);
        members.any(|replica| replica.id.0 == id)
    };
    let owns = |id: u32| explanation.owner.is_some_and(|owner| owner.0 == id);
    let desired = || status.members.iter().filter(|member| member.view.desired);
    let who = |member: &MemberStatus| Who {
        id: member.view.spec.id.0,
        hostname: member.view.spec.hostname.to_string(),
        addr: member.view.instance.as_ref().and_then(|instance| instance.addr).map(|addr| addr.to_string()),
    };
    let owner = desired().find(|member| owns(member.view.spec.id.0)).map(who);
    let skipped = desired().filter(|member| !looked_at(member.view.spec.id.0)).filter_map(|member| {
        let (reason, detail) = left_out(member, explanation.chosen.as_deref())?;
        let Who { id, hostname, .. } = who(member);
        Some(Skipped { id, hostname, reason: reason.into(), detail })
    });
    (owner, skipped.collect())
}

/// `GET /api/v1/explain`.
pub(super) async fn show(
    extract::State(api): extract::State<Api>,
    RawQuery(query): RawQuery,
) -> Result<Json<ExplainView>, ApiError> {
    let query = Query::read(query.as_deref(), &["key", "source", "tried"])?;
    let Some(key) = query.text("key") else {
        return Err(ApiError::Bad("key is missing; allowed: a request's key, such as key=132574".into()));
    };
    let source = query.parse("source", str::parse::<HashKey>)?;
    let (source, id) = api.hash_keys.key_of(key, source.as_ref()).map_err(ApiError::Bad)?;
    let snapshot = api.pool.snapshot();
    let generation = |name: &str| -> Result<Generation, ApiError> {
        let member = snapshot.members.iter().find(|member| member.hostname.as_str() == name);
        let names = || snapshot.members.iter().map(|member| member.hostname.as_str()).collect::<Vec<_>>().join(", ");
        let unknown = || ApiError::Bad(format!("tried names '{name}'; allowed: {}", names()));
        member.map(|member| member.generation).ok_or_else(unknown)
    };
    let tried = query.text("tried").unwrap_or_default().split(',').map(str::trim).filter(|name| !name.is_empty());
    let tried: Vec<Generation> = tried.map(generation).collect::<Result<_, _>>()?;
    let cx = PickCx { key: id, tried: &tried, random: rand::random(), now: api.pool.now(), limit: None };
    let explanation = api.pool.explain(&cx);
    let (owner, left_out) = others(&explanation, &api.supervisor.status());
    let is_owner = |skipped: &&Skipped| owner.as_ref().is_some_and(|owner| owner.id == skipped.id);
    let (first, last): (Vec<_>, Vec<_>) = left_out.iter().cloned().partition(|skipped| is_owner(&skipped));
    let skipped = explanation.passed.iter().map(|passed| Skipped {
        id: passed.replica.id.0,
        hostname: passed.replica.hostname.to_string(),
        reason: passed.why.word().into(),
        detail: passed.why.to_string(),
    });
    Ok(Json(ExplainView {
        policy: api.config.kind.to_string(),
        goes_by: api.config.kind.goes_by().into(),
        key: key.to_owned(),
        source: source.to_string(),
        id: id.to_string(),
        slot: explanation.slot,
        slots: explanation.slots,
        owner,
        skipped: first.into_iter().chain(skipped).chain(last).collect(),
        chosen: explanation.chosen.as_deref().map(Who::from),
    }))
}
