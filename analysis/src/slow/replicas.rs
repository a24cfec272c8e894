//! The replicas: HTTP servers of this very process that answer after a delay, any number of requests at the same time.
//!
//! | request | answer |
//! |---|---|
//! | `GET /heartbeat` | 200 without a body, at once |
//! | `GET /` | the replica's number, after its delay |
//!
//! The delay of the last one can be changed while they serve.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use axum::serve::ListenerExt;
use tokio::task::JoinSet;

use crate::replica::listen;

/// What is asked of a replica.
pub(super) const PATH: &str = "/";

/// All of them; they end when this is dropped.
pub(super) struct Replicas {
    all: Vec<(SocketAddr, Arc<Replica>)>,
    _serving: JoinSet<()>,
}

struct Replica {
    number: u8,
    delay_us: AtomicU64,
    served: AtomicU64,
}

impl Replicas {
    /// Starts `count` on free ports, all with this delay; their numbers begin with 1.
    pub(super) fn start(count: u8, delay: Duration) -> Result<Self, String> {
        let (mut all, mut serving) = (Vec::new(), JoinSet::new());
        for number in 1..=count {
            let failed = |error| format!("replica {number}: {error}");
            let listener = listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).map_err(failed)?;
            let addr = listener.local_addr().map_err(failed)?;
            let replica = Replica { number, delay_us: AtomicU64::new(micros(delay)), served: AtomicU64::new(0) };
            let replica = Arc::new(replica);
            let routes = Router::new().route("/heartbeat", get(|| async {})).route(PATH, get(answer));
            let routes = routes.with_state(Arc::clone(&replica));
            // A connection that is gone already shows when it is read.
            let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
            serving.spawn(async move { drop(axum::serve(listener, routes).await) });
            all.push((addr, replica));
        }
        Ok(Self { all, _serving: serving })
    }

    /// What `lb serve --members` takes.
    pub(super) fn members(&self) -> String {
        self.all.iter().map(|(addr, _)| addr.to_string()).collect::<Vec<_>>().join(",")
    }

    /// The last one answers after this delay from now on; what waits already is not hurried.
    pub(super) fn delay_last(&self, delay: Duration) {
        if let Some((_, last)) = self.all.last() {
            last.delay_us.store(micros(delay), Ordering::Relaxed);
        }
    }

    /// How many requests each has answered since this was asked before.
    pub(super) fn take_served(&mut self) -> Vec<u64> {
        self.all.iter().map(|(_, replica)| replica.served.swap(0, Ordering::Relaxed)).collect()
    }

    /// Where the last one listens.
    #[cfg(test)]
    pub(super) fn last(&self) -> SocketAddr {
        self.all[self.all.len() - 1].0
    }
}

async fn answer(State(replica): State<Arc<Replica>>) -> String {
    tokio::time::sleep(Duration::from_micros(replica.delay_us.load(Ordering::Relaxed))).await;
    replica.served.fetch_add(1, Ordering::Relaxed);
    replica.number.to_string()
}

fn micros(delay: Duration) -> u64 {
    u64::try_from(delay.as_micros()).unwrap_or(u64::MAX)
}
