//! `lb agent`: keeps the fleet, and tells balancers of it. It has the runtime, and nobody's requests.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::{AppError, Signals, control, serve_admin};
use crate::admin::api::Api;
use crate::agent::hub::Hub;
use crate::agent::server::Server;
use crate::agent::tls;
use crate::config::Config;
use crate::pilot::{Board, Journal};
use crate::pool::pool;
use crate::supervisor::SupervisorHandle;

/// Where its admin listener is, unless something else is said: a balancer on the same host has the usual one.
pub const ADMIN_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 5003);

/// Keeps the fleet until SIGTERM or SIGINT. A second signal ends at once.
pub async fn run(config: Config) -> Result<(), AppError> {
    let mut signals = Signals::new()?;
    let remove = config.remove_on_exit;
    let mut agent = tokio::select! {
        agent = Agent::start(config) => agent?,
        name = signals.next() => {
            tracing::info!(signal = name, "{name}: ending before the start was done");
            return Ok(());
        }
    };
    let name = tokio::select! {
        name = signals.next() => name,
        ended = &mut agent.supervising => {
            let why = ended.err().map(|error| format!(": {error}")).unwrap_or_default();
            return Err(AppError::Broken(format!("the supervisor has ended{why}")));
        }
    };
    tracing::info!(signal = name, "{name}: ending; replicas are {}", if remove { "removed" } else { "kept" });
    tokio::select! {
        () = agent.supervisor.close(remove) => tracing::info!("stopped"),
        name = signals.next() => tracing::warn!(signal = name, "a second signal, {name}: ending at once"),
    }
    Ok(())
}

struct Agent {
    supervisor: SupervisorHandle,
    supervising: tokio::task::JoinHandle<()>,
}

impl Agent {
    async fn start(config: Config) -> Result<Self, AppError> {
        let listen_error = |addr, setting| move |error| AppError::Listen { addr, setting, error };
        let addr = config.agent.listen;
        let listener = TcpListener::bind(addr).await.map_err(listen_error(addr, "agent_listen"))?;
        let addr = listener.local_addr()?;
        let admin = match config.admin_listen {
            Some(addr) => Some(TcpListener::bind(addr).await.map_err(listen_error(addr, "admin_listen"))?),
            None => None,
        };
        let tls = config.agent.tls.as_ref().map(|(certificate, key)| tls::acceptor(certificate, key)).transpose();
        let tls = tls.map_err(|error| AppError::Tls { setting: "agent_cert, agent_key", error })?;

        let policy = config.policy.policy();
        let (pool, reader, suspicions) = pool(Arc::clone(&policy));
        let instance = format!("{:016x}", rand::random::<u64>());
        let hub = Hub::new(instance, config.fleet.drain_timeout);
        let (journal, board) = (Journal::default(), Board::default());
        let (seen, watched) = (hub.clone(), hub.clone());
        let pilot = control::PilotSeat {
            journal: journal.clone(),
            board: board.clone(),
            // It is what it is there for.
            measures: true,
            latencies: Arc::new(move || seen.latencies()),
            sees: Arc::new(move || watched.connected().0 > 0),
        };
        let holders = Arc::new(hub.clone());
        let control::Started { supervisor, supervising } =
            control::start(&config, pool, suspicions, Some(holders), pilot).await?;
        tokio::spawn(hub.clone().follow(supervisor.clone()));
        let server = Server {
            hub: hub.clone(),
            supervisor: supervisor.clone(),
            pool: reader.clone(),
            journal: journal.clone(),
            fleet: config.fleet_name.clone(),
            token: config.agent.token.clone(),
            tls,
        };
        let (is_open, is_secure) = (server.token.is_none(), server.tls.is_some());
        tokio::spawn(server.serve(listener));
        if let Some(listener) = admin {
            let admin_addr = listener.local_addr()?;
            let api = Api {
                supervisor: supervisor.clone(),
                policy,
                config: config.policy,
                hash_keys: config.proxy.hash_keys.clone(),
                pool: reader,
                metrics: Registry::new(),
                relays: None,
                journal,
                board,
                balancers: Some(hub),
                ring_turn: Arc::new(Semaphore::new(1)),
            };
            serve_admin(listener, api);
            tracing::info!(addr = %admin_addr, "admin listening on {admin_addr}");
        }
        if is_open && !addr.ip().is_loopback() {
            tracing::warn!("balancers need no token (agent_token): whoever reaches {addr} can change the fleet");
        }
        let scheme = if is_secure { "wss" } else { "ws" };
        tracing::info!(%addr, "agent listening on {addr} ({scheme})");
        Ok(Self { supervisor, supervising })
    }
}
