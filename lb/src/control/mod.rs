//! The L4 control channel: servers connect over TCP, register their ports, and say that they live.
//!
//! | message of a server | answer |
//! |---|---|
//! | `{"cmd":"register","protocol":"tcp","port":30000,"relay_port":50000}` | `{"ack":"successful","error":0}` or `{"ack":"failed","msg":"…","error":N}` |
//! | `{"cmd":"unregister", …}` with the same fields | the same |
//! | `{"cmd":"hello"}` or `{"cmd":"healthcheck"}`, optionally with `"state"` | none: it is the answer to the balancer's own |
//!
//! [`frame`] is how messages are written, [`message`] what they say, `session` one server's connection. What is registered
//! is the registry's business.

pub mod frame;
pub mod message;
mod session;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::metrics::ControlMetrics;
use crate::registry::RegistryHandle;
use crate::shutdown::Shutdown;
use message::Dialect;

/// An accept error (say, no descriptors left) is not cured by trying again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How servers are treated.
#[derive(Debug, Clone)]
pub struct ControlConfig {
    /// Which of the two ports is which.
    pub dialect: Dialect,
    /// What a registration must bring along.
    pub token: Option<String>,
    /// Who may connect; everybody, if it is empty.
    pub networks: Vec<IpNet>,
    /// Connections at one time.
    pub max_connections: usize,
    /// From one question whether a server lives to the next.
    pub interval: Duration,
    /// For an answer to it, for the rest of a message that has begun, and for the first.
    pub timeout: Duration,
}

impl ControlConfig {
    fn admits(&self, ip: IpAddr) -> bool {
        self.networks.is_empty() || self.networks.iter().any(|network| network.contains(&ip))
    }
}

/// Takes in servers until the balancer stops. Those that are connected then stay.
pub async fn serve(
    listener: TcpListener,
    config: ControlConfig,
    registry: RegistryHandle,
    metrics: ControlMetrics,
    shutdown: Shutdown,
) {
    let connections = Arc::new(Semaphore::new(config.max_connections));
    let config = Arc::new(config);
    let refuse = |peer: SocketAddr, reason: &str, why: &str| {
        metrics.refused(reason);
        tracing::warn!(%peer, "control connection from {peer} refused: {why}");
    };
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.begun() => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("cannot accept a control connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if !config.admits(peer.ip().to_canonical()) {
            refuse(peer, "network", "its address is in none of the networks that may connect (control_networks)");
            continue;
        }
        let Ok(permit) = Arc::clone(&connections).try_acquire_owned() else {
            let most = config.max_connections;
            refuse(peer, "full", &format!("there are {most}, as many as are allowed (control_connections)"));
            continue;
        };
        let (config, shutdown) = (Arc::clone(&config), shutdown.clone());
        let session = session::Session::new(stream, peer, config, registry.clone(), metrics.clone(), shutdown);
        tokio::spawn(async move {
            let _permit = permit;
            session.run().await;
        });
    }
}
