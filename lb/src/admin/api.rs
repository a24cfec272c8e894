//! The admin listener: health, metrics, and what the fleet and the ring look like.
//!
//! | request | answer |
//! |---|---|
//! | `GET /healthz` | 200 while the process lives |
//! | `GET /readyz` | 200 when every desired replica is ready, else 503 with the reason |
//! | `GET /metrics` | Prometheus text |
//! | `GET /api/v1/replicas` | list of replicas, oldest first, leaving ones included |
//! | `PATCH /api/v1/replicas/{hostname}` | changes a replica's weight, priority or both |
//! | `GET /api/v1/ring` | layout, exact shares, what a change would move; with parameters: of another ring |
//! | `GET /api/v1/explain?key=…` | where a request goes, and why |
//! | `GET /api/v1/relays` | list of L4 relays |
//! | `GET /api/v1/decisions` | what was decided by the load, and why |
//! | `GET`, `POST /api/v1/deploy` | how the last rolling update stands; begins one |

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch};
use axum::{Json, Router};
use prometheus::Registry;
use tokio::sync::Semaphore;

use super::error::ApiError;
use super::relays::RelayItem;
use super::{deploy, explain, page, replicas, ring};
use crate::agent::hub::Hub;
use crate::pilot::{Board, Journal};
use crate::policy::{Policy, PolicyConfig};
use crate::pool::PoolReader;
use crate::proxy::HashKeys;
use crate::registry::{self, RegistryHandle};
use crate::supervisor::SupervisorHandle;

/// What the admin listener can be asked.
#[derive(Clone)]
pub struct Api {
    /// The fleet.
    pub supervisor: SupervisorHandle,
    /// How a replica is chosen.
    pub policy: Arc<dyn Policy>,
    /// What that was configured with.
    pub config: PolicyConfig,
    /// What places a request.
    pub hash_keys: HashKeys,
    /// The published members.
    pub pool: PoolReader,
    /// What is counted.
    pub metrics: Registry,
    /// There if TCP and UDP are relayed.
    pub relays: Option<RegistryHandle>,
    /// Decisions of this process.
    pub journal: Journal,
    /// What replicas use of the machine.
    pub board: Board,
    /// There if this is an agent: its balancers.
    pub balancers: Option<Hub>,
    /// For one at a time who asks for shares, which take a while to work out.
    pub ring_turn: Arc<Semaphore>,
}

impl Api {
    /// The admin listener's router.
    pub fn router(self) -> Router {
        Router::new()
            .route("/healthz", get(async || "ok\n"))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .route("/api/v1/replicas", get(replicas::list))
            .route("/api/v1/replicas/{hostname}", patch(replicas::set).fallback(|| refuse_method("PATCH")))
            .route("/api/v1/ring", get(ring::show))
            .route("/api/v1/explain", get(explain::show))
            .route("/api/v1/relays", get(relays))
            .route("/api/v1/decisions", get(deploy::decisions))
            .route("/api/v1/deploy", get(deploy::show).post(deploy::begin).fallback(|| refuse_method("GET, POST")))
            .with_state(self)
    }

    fn relays(&self) -> Arc<registry::Status> {
        self.relays.as_ref().map(RegistryHandle::status).unwrap_or_default()
    }
}

async fn relays(State(api): State<Api>) -> Json<Vec<RelayItem>> {
    Json(api.relays().ports.iter().map(RelayItem::from).collect())
}

async fn readyz(State(api): State<Api>) -> Response {
    let status = api.supervisor.status();
    match status.unready_reason() {
        None => match status.link.as_ref().and_then(|link| link.detached.as_ref()) {
            None => "ready\n".into_response(),
            Some(why) => {
                format!("ready, but the agent is not connected ({why}): its last word is served\n").into_response()
            }
        },
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

async fn metrics(State(api): State<Api>) -> Response {
    let balancers = api.balancers.as_ref().map(Hub::connected);
    let epoch = api.pool.snapshot().epoch;
    match page::render(&api.metrics, &api.supervisor.status(), &api.relays(), balancers, epoch) {
        Ok(page) => ([(CONTENT_TYPE, prometheus::TEXT_FORMAT)], page).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

pub(super) async fn refuse_method(allowed: &'static str) -> ApiError {
    ApiError::Method(allowed)
}
