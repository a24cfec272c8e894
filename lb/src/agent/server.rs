//! The agent's listener: takes balancers in, each of which has a session of its own.

use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use super::hub::Hub;
use super::session::Session;
use super::tls::Socket;
use super::{HANDSHAKE, TO_AGENT, limits};
use crate::pilot::Journal;
use crate::pool::PoolReader;
use crate::supervisor::SupervisorHandle;

/// Balancers at one time; others wait.
const SESSIONS: usize = 256;

/// What all sessions need.
#[derive(Clone)]
pub struct Server {
    /// The fleet's states, and what is reported of them.
    pub hub: Hub,
    /// Carries commands out.
    pub supervisor: SupervisorHandle,
    /// The agent's own view of the replicas.
    pub pool: PoolReader,
    /// Decisions so far.
    pub journal: Journal,
    /// The fleet's name.
    pub fleet: String,
    /// What a balancer must bring along.
    pub token: Option<String>,
    /// TLS, if it is on.
    pub tls: Option<TlsAcceptor>,
}

impl Server {
    /// Takes balancers in for as long as the agent lives.
    pub async fn serve(self, listener: TcpListener) {
        let turns = Arc::new(Semaphore::new(SESSIONS));
        loop {
            let Ok(turn) = Arc::clone(&turns).acquire_owned().await else { return };
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // For want of descriptors, most likely; what ends gives some back.
                    tracing::warn!("a balancer could not be taken in: {error}");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    continue;
                }
            };
            let server = self.clone();
            tokio::spawn(async move {
                server.session(stream).await;
                drop(turn);
            });
        }
    }

    async fn session(self, stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        let Ok(peer) = stream.peer_addr() else { return };
        let handshake = async {
            let stream: Box<dyn Socket> = match &self.tls {
                Some(tls) => Box::new(tls.accept(stream).await.map_err(|error| format!("TLS: {error}"))?),
                None => Box::new(stream),
            };
            let accepted = tokio_tungstenite::accept_async_with_config(stream, Some(limits(TO_AGENT))).await;
            accepted.map_err(|error| error.to_string())
        };
        let socket = match tokio::time::timeout(HANDSHAKE, handshake).await {
            Ok(Ok(socket)) => socket,
            Ok(Err(error)) => return tracing::warn!(%peer, "no session with {peer}: {error}"),
            Err(_) => return tracing::warn!(%peer, "no session with {peer}: its handshake did not come in time"),
        };
        Session::new(self, socket, peer).run().await;
    }
}
