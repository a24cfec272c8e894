//! Who owns what on the ring, or in the table, and what a change would move: of the fleet as it is, or of any other.
//!
//! `GET /api/v1/ring` shows the policy's own layout. With parameters it shows what they describe, and changes nothing: a
//! dry run before `/add`. `replicas=N` is a fleet of 1 to N with weight 1 instead of the one that there is; `policy`
//! (`consistent`, `maglev`, `rendezvous`), `slots`, `vnodes`, `hash`, `probing` and `table_slots` are the settings of those
//! names, as configured if they are not given.
//!
//! Shares are those of all replicas by weight, whatever their priorities.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{RawQuery, State};
use serde::Serialize;

use super::api::Api;
use super::error::ApiError;
use super::query::Query;
use crate::placement::ownership::Ownership;
use crate::placement::ring::{MAX_SLOTS, RingConfig};
use crate::placement::{Place, maglev};
use crate::policy::{self, Layout, PolicyConfig, PolicyKind};

/// A layout, its shares, and what changes would move.
#[derive(Debug, Serialize)]
pub struct RingView {
    /// `consistent`, `maglev` or `rendezvous`.
    pub policy: String,
    /// Slots of the ring or the table.
    pub slots: u32,
    /// Of the ring only.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub ring: Option<RingParts>,
    /// Exact fraction of all six-digit request IDs by host name.
    pub shares: BTreeMap<String, f64>,
    /// The largest share, as a multiple of what its replica's weight promises.
    pub max_mean: f64,
    /// How many different slots the request IDs hash to.
    pub reachable_slots: usize,
    /// What fraction of all six-digit request IDs would get another owner.
    pub moves: Moves,
}

/// What only a ring has.
#[derive(Debug, Serialize)]
pub struct RingParts {
    /// Virtual nodes of a replica of weight 1.
    pub vnodes: u32,
    /// Hash functions.
    pub hash: String,
    /// Collision rule.
    pub probing: String,
    /// `[slot, ring number]` of every virtual node, by slot.
    pub occupied: Vec<(u32, u32)>,
}

/// What fraction of the keys a change would move.
#[derive(Debug, Serialize)]
pub struct Moves {
    /// One more replica of weight 1; `null` if there is no room for it.
    pub add: Option<f64>,
    /// One less, by host name.
    pub remove: BTreeMap<String, f64>,
}

impl RingView {
    /// The view of `layout`, which holds `places`, with the host names of their ring numbers. `capacity` is the most that
    /// fit. Goes through all request IDs, and through the table once for each replica.
    pub fn new(layout: &Layout, places: &[Place], names: &BTreeMap<u32, String>, capacity: usize) -> Self {
        let ownership = layout.ownership();
        let keys = ownership.keys();
        let ids: Vec<u32> = places.iter().map(|place| place.id).collect();
        let shares = ownership.shares_of(&keys, &ids);
        let name = |id: u32| names.get(&id).cloned().unwrap_or_else(|| id.to_string());
        let total: f64 = places.iter().map(|place| f64::from(place.weight)).sum();
        let excess = shares.iter().zip(places).filter(|(_, place)| place.weight > 0);
        let max_mean = excess.map(|(share, place)| share * total / f64::from(place.weight)).fold(0.0, f64::max);
        let moved = |places: &[Place]| ownership.moved_if(&layout.clone().hold(places).ownership(), &keys, |_, _| true);
        let remove = places.iter().map(|gone| {
            let rest: Vec<Place> = places.iter().copied().filter(|place| place.id != gone.id).collect();
            (name(gone.id), moved(&rest))
        });
        let free = (1..).find(|id| !ids.contains(id)).filter(|_| places.len() < capacity);
        let add = free.map(|id| moved(&[places, &[Place::new(id, 1)]].concat()));
        let ring = match layout {
            Layout::Ring(ring) => {
                let RingConfig { vnodes, hash, probing, .. } = ring.config();
                let (hash, probing) = (hash.to_string(), probing.to_string());
                Some(RingParts { vnodes, hash, probing, occupied: ring.occupied().collect() })
            }
            Layout::Maglev(_) | Layout::Rendezvous(_) => None,
        };
        Self {
            policy: match layout {
                Layout::Ring(_) => PolicyKind::Consistent,
                Layout::Maglev(_) => PolicyKind::Maglev,
                Layout::Rendezvous(_) => PolicyKind::Rendezvous,
            }
            .to_string(),
            slots: slots_of(&ownership),
            ring,
            max_mean,
            reachable_slots: keys.iter().filter(|keys| **keys > 0).count(),
            moves: Moves { add, remove: remove.collect() },
            shares: ids.iter().map(|id| name(*id)).zip(shares).collect(),
        }
    }
}

fn slots_of(ownership: &Ownership) -> u32 {
    ownership.by_slot().len() as u32
}

/// Replicas times slots, the most that a dry run goes through.
const MOST_WORK: u64 = 1 << 26;
const PARAMETERS: &[&str] = &["replicas", "policy", "slots", "vnodes", "hash", "probing", "table_slots"];

/// What a dry run asks for: the policy's configuration, and how many replicas instead of those that there are.
fn dry_run(query: &Query, configured: &PolicyConfig) -> Result<(PolicyConfig, Option<u32>), ApiError> {
    let hashing = |text: &str| match text.parse::<PolicyKind>() {
        Ok(kind) if kind.is_hashing() => Ok(kind),
        _ => Err("consistent, maglev, rendezvous".to_owned()),
    };
    let mut config = *configured;
    if !config.kind.is_hashing() {
        config.kind = PolicyKind::Consistent;
    }
    config.kind = query.parse("policy", hashing)?.unwrap_or(config.kind);
    let ring = &mut config.ring;
    ring.slots = query.number("slots", 1..=MAX_SLOTS)?.unwrap_or(ring.slots);
    ring.vnodes = query.number("vnodes", 1..=ring.slots)?.unwrap_or(ring.vnodes);
    ring.hash = query.parse("hash", str::parse)?.unwrap_or(ring.hash);
    ring.probing = query.parse("probing", str::parse)?.unwrap_or(ring.probing);
    if ring.vnodes > ring.slots {
        let RingConfig { slots, vnodes, .. } = ring;
        return Err(ApiError::Bad(format!(
            "slots is {slots}; allowed: {vnodes}, the number of virtual nodes, or more"
        )));
    }
    config.table_slots =
        query.number("table_slots", maglev::MIN_SLOTS..=maglev::MAX_SLOTS)?.unwrap_or(config.table_slots);
    if config.kind == PolicyKind::Maglev && !maglev::is_prime(config.table_slots) {
        let slots = config.table_slots;
        return Err(ApiError::Bad(format!("table_slots is {slots}; maglev needs a prime number, such as 65537")));
    }
    let most = u32::try_from(config.capacity()).unwrap_or(u32::MAX);
    Ok((config, query.number("replicas", 0..=most)?))
}

/// `GET /api/v1/ring`.
pub(super) async fn show(State(api): State<Api>, RawQuery(query): RawQuery) -> Result<Json<RingView>, ApiError> {
    let query = Query::read(query.as_deref(), PARAMETERS)?;
    let (config, replicas) = dry_run(&query, &api.config)?;
    let status = api.supervisor.status();
    let desired = || status.members.iter().map(|member| &member.view).filter(|view| view.desired);
    let (places, names): (Vec<Place>, BTreeMap<u32, String>) = match replicas {
        Some(count) => (Place::first(count), (1..=count).map(|id| (id, format!("S{id}"))).collect()),
        None => (
            desired().map(|view| Place::new(view.spec.id.0, view.share.weight)).collect(),
            desired().map(|view| (view.spec.id.0, view.spec.hostname.to_string())).collect(),
        ),
    };
    let (count, most) = (places.len(), config.capacity());
    if count > most {
        return Err(ApiError::Bad(format!("there are {count} replicas; these settings have places for {most}")));
    }
    let slots = if config.kind == PolicyKind::Consistent { config.ring.slots } else { config.table_slots };
    let work = count as u64 * u64::from(slots);
    if !query.is_empty() && work > MOST_WORK {
        let message =
            format!("{count} replicas on {slots} slots are too much to work out; allowed: a product up to {MOST_WORK}");
        return Err(ApiError::Bad(message));
    }
    // One at a time, and no thread of the data path's.
    let Ok(_turn) = api.ring_turn.acquire().await else {
        return Err(ApiError::Failed("the balancer is stopping".into()));
    };
    let layout = if query.is_empty() { api.policy.layout() } else { None };
    if query.is_empty() && layout.is_none() {
        let kind = api.config.kind;
        let message =
            format!("the policy {kind} has no ring; a parameter such as policy=consistent asks for a dry run");
        return Err(ApiError::NotFound(message));
    }
    // All request IDs are gone through: not on the thread that supervises.
    let view = tokio::task::spawn_blocking(move || {
        let layout = layout.or_else(|| policy::layout(&config, &places));
        layout.map(|layout| RingView::new(&layout, &places, &names, config.capacity()))
    });
    match view.await {
        Ok(Some(view)) => Ok(Json(view)),
        _ => Err(ApiError::Failed("the ring could not be worked out".into())),
    }
}
