//! The admin listener: health, metrics, and what the fleet and the ring look like.
//!
//! | request | answer |
//! |---|---|
//! | `GET /healthz` | 200 while the process lives |
//! | `GET /readyz` | 200 when every desired replica is ready, else 503 with the reason |
//! | `GET /metrics` | Prometheus text |
//! | `GET /api/v1/replicas` | list of replicas, oldest first, leaving ones included |
//! | `GET /api/v1/ring` | layout and exact shares |
//! | `GET /api/v1/relays` | list of L4 relays |

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use prometheus::Registry;
use serde::Serialize;

use super::page;
use super::relays::RelayItem;
use crate::policy::Policy;
use crate::registry::{self, RegistryHandle};
use crate::replica::{Generation, Hostname, ReplicaId};
use crate::ring::Ring;
use crate::supervisor::{MemberStatus, SupervisorHandle};

/// What the admin listener can be asked.
#[derive(Clone)]
pub struct Api {
    supervisor: SupervisorHandle,
    policy: Arc<dyn Policy>,
    metrics: Registry,
    relays: Option<RegistryHandle>,
}

impl Api {
    /// Answers from these; `relays` is there if TCP and UDP are relayed.
    pub fn new(
        supervisor: SupervisorHandle,
        policy: Arc<dyn Policy>,
        metrics: Registry,
        relays: Option<RegistryHandle>,
    ) -> Self {
        Self { supervisor, policy, metrics, relays }
    }

    /// The admin listener's router.
    pub fn router(self) -> Router {
        Router::new()
            .route("/healthz", get(async || "ok\n"))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .route("/api/v1/replicas", get(replicas))
            .route("/api/v1/ring", get(ring))
            .route("/api/v1/relays", get(relays))
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
    match api.supervisor.status().unready_reason() {
        None => "ready\n".into_response(),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

async fn metrics(State(api): State<Api>) -> Response {
    match page::render(&api.metrics, &api.supervisor.status(), &api.relays()) {
        Ok(page) => ([(CONTENT_TYPE, prometheus::TEXT_FORMAT)], page).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// One replica. Numbers of the data path are 0 until it is in the pool.
#[derive(Debug, Serialize)]
struct ReplicaItem {
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
    /// RFC 3339.
    started_at: Option<String>,
    generation: Generation,
    /// Counted in N?
    desired: bool,
    /// Failures in a row that led to this launch.
    crashes: u32,
    /// RFC 3339; set while its launch is put off because of these.
    launch_at: Option<String>,
    last_error: Option<String>,
}

impl From<&MemberStatus> for ReplicaItem {
    fn from(MemberStatus { view, replica }: &MemberStatus) -> Self {
        let time = |time| humantime::format_rfc3339_millis(time).to_string();
        // Between two heartbeats the data path may know better.
        let suspected =
            view.state == crate::supervisor::State::Ready && replica.as_ref().is_some_and(|r| !r.is_ready());
        Self {
            id: view.spec.id,
            hostname: view.spec.hostname.clone(),
            addr: view.instance.as_ref().and_then(|instance| instance.addr).map(|addr| addr.to_string()),
            runtime_id: view.instance.as_ref().map(|instance| instance.id.to_string()),
            state: if suspected { "unready".into() } else { view.state.to_string() },
            in_flight: replica.as_ref().map_or(0, |replica| replica.in_flight()),
            served: replica.as_ref().map_or(0, |replica| replica.served()),
            failed: replica.as_ref().map_or(0, |replica| replica.failed()),
            weight: replica.as_ref().map_or(1, |replica| replica.weight.get()),
            priority: replica.as_ref().map_or(0, |replica| replica.priority),
            started_at: view.instance.as_ref().map(|instance| time(instance.started_at)),
            generation: view.spec.generation,
            desired: view.desired,
            crashes: view.crashes,
            launch_at: view.launch_at.map(time),
            last_error: view.last_error.clone(),
        }
    }
}

async fn replicas(State(api): State<Api>) -> Json<Vec<ReplicaItem>> {
    Json(api.supervisor.status().members.iter().map(ReplicaItem::from).collect())
}

/// A ring's layout and shares.
#[derive(Debug, Serialize)]
pub struct RingView {
    /// Slots on the ring.
    pub slots: u32,
    /// Virtual nodes per replica.
    pub vnodes: u32,
    /// Hash functions.
    pub hash: String,
    /// Collision rule.
    pub probing: String,
    /// `[slot, ring number]` of every virtual node, by slot.
    pub occupied: Vec<(u32, u32)>,
    /// Exact fraction of all six-digit request IDs by host name.
    pub shares: BTreeMap<String, f64>,
}

impl RingView {
    /// The view of `ring`, with the host names of its numbers.
    pub fn new(ring: &Ring, names: &BTreeMap<u32, String>) -> Self {
        let ids: Vec<u32> = names.keys().copied().collect();
        let config = ring.config();
        Self {
            slots: config.slots,
            vnodes: config.vnodes,
            hash: config.hash.to_string(),
            probing: config.probing.to_string(),
            occupied: ring.occupied().collect(),
            shares: names.values().cloned().zip(ring.shares(&ids)).collect(),
        }
    }
}

async fn ring(State(api): State<Api>) -> Response {
    let Some(ring) = api.policy.ring() else {
        return (StatusCode::NOT_FOUND, "the configured policy has no ring\n").into_response();
    };
    let status = api.supervisor.status();
    let desired = status.members.iter().filter(|member| member.view.desired).map(|member| &member.view.spec);
    let names: BTreeMap<_, _> = desired.map(|spec| (spec.id.0, spec.hostname.to_string())).collect();
    // Shares are counted over 900,000 keys: not on the thread that supervises.
    match tokio::task::spawn_blocking(move || RingView::new(&ring, &names)).await {
        Ok(view) => Json(view).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
