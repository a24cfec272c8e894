//! The agent's listener: takes balancers in, each of which has a session of its own.

use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::accept_hdr_async_with_config;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::StatusCode;

use super::hub::Hub;
use super::session::Session;
use super::tls::Socket;
use super::wire::Hello;
use super::{HANDSHAKE, HELLO, limits};
use crate::pilot::Journal;
use crate::pool::PoolReader;
use crate::supervisor::SupervisorHandle;

/// Balancers at one time.
const SESSIONS: usize = 256;
/// Those that have not said yet who they are; others wait.
const STRANGERS: usize = 64;

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
        let (strangers, sessions) = (Arc::new(Semaphore::new(STRANGERS)), Arc::new(Semaphore::new(SESSIONS)));
        loop {
            let Ok(stranger) = Arc::clone(&strangers).acquire_owned().await else { return };
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // For want of descriptors, most likely; what ends gives some back.
                    tracing::warn!("a balancer could not be taken in: {error}");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (server, sessions) = (self.clone(), Arc::clone(&sessions));
            tokio::spawn(async move {
                let Some((session, hello)) = server.greet(stream).await else { return };
                drop(stranger);
                match sessions.try_acquire() {
                    Ok(_turn) => session.run(hello).await,
                    Err(_) => tracing::warn!("a balancer is refused: {SESSIONS} are connected already"),
                }
            });
        }
    }

    /// All that a stranger may do, with one deadline: the handshakes, and a hello that is good.
    async fn greet(self, stream: TcpStream) -> Option<(Session, Hello)> {
        let _ = stream.set_nodelay(true);
        let peer = stream.peer_addr().ok()?;
        let greeting = async {
            let stream: Box<dyn Socket> = match &self.tls {
                Some(tls) => Box::new(tls.accept(stream).await.map_err(|error| format!("TLS: {error}"))?),
                None => Box::new(stream),
            };
            let accepted = accept_hdr_async_with_config(stream, no_browser, Some(limits(HELLO))).await;
            let socket = accepted.map_err(|error| error.to_string())?;
            Session::greet(self, socket, peer).await
        };
        match tokio::time::timeout(HANDSHAKE, greeting).await {
            Ok(Ok(session)) => Some(session),
            Ok(Err(error)) => {
                tracing::warn!(%peer, "the balancer at {peer} is refused: {error}");
                None
            }
            Err(_) => {
                tracing::warn!(%peer, "no session with {peer}: its hello did not come in time");
                None
            }
        }
    }
}

/// A web page that somebody on this host looks at can connect to loopback, too. Browsers say where it comes from; balancers
/// have nothing to say there.
#[allow(clippy::result_large_err, reason = "the library wants it so")]
fn no_browser(request: &Request, response: Response) -> Result<Response, ErrorResponse> {
    if request.headers().contains_key("origin") {
        let mut refusal = ErrorResponse::new(Some("web pages are not welcome here".into()));
        *refusal.status_mut() = StatusCode::FORBIDDEN;
        return Err(refusal);
    }
    Ok(response)
}
