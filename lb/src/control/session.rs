//! One server's control connection: messages in turn, a question whether it lives from time to time, and the end of all its
//! registrations when it ends.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};
use subtle::ConstantTimeEq;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};

use super::ControlConfig;
use super::frame::{Decoder, encode};
use super::message::{GOOD, Hello, Problem, Reply, Request};
use crate::metrics::ControlMetrics;
use crate::registry::{Leaving, Peer, Refusal, RegistryHandle};
use crate::shutdown::Shutdown;

/// Bytes that are read at once.
const READ: usize = 4096;
/// What is read away of a server that was rejected, and for how long.
const LINGERING_BYTES: u64 = 1024 * 1024;
const LINGERING: Duration = Duration::from_secs(1);

/// See the module's documentation.
pub(super) struct Session {
    stream: TcpStream,
    addr: SocketAddr,
    peer: Peer,
    config: Arc<ControlConfig>,
    registry: RegistryHandle,
    metrics: ControlMetrics,
    shutdown: Shutdown,
    decoder: Decoder,
    /// When its last message was whole. One that takes long to come is no sign of life.
    heard: Instant,
}

/// Why a connection is over.
enum End {
    /// The server has closed it, or it broke.
    Closed(Option<io::Error>),
    /// What came was no message, or one that is not forgiven.
    Rejected(String),
    /// It said nothing for too long.
    Silent,
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Closed(Some(error))
    }
}

impl Session {
    pub(super) fn new(
        stream: TcpStream,
        addr: SocketAddr,
        config: Arc<ControlConfig>,
        registry: RegistryHandle,
        metrics: ControlMetrics,
        shutdown: Shutdown,
    ) -> Self {
        let ip = addr.ip().to_canonical();
        let is_local = stream.local_addr().is_ok_and(|local| local.ip().to_canonical() == ip);
        let peer = Peer { id: registry.new_peer(), ip, is_local };
        let decoder = Decoder::default();
        Self { stream, addr, peer, config, registry, metrics, shutdown, decoder, heard: Instant::now() }
    }

    /// Serves it to its end.
    pub(super) async fn run(mut self) {
        let _counted = self.metrics.count_connection();
        // Short messages, each of which is waited for.
        let _ = self.stream.set_nodelay(true);
        let addr = self.addr;
        tracing::debug!(peer = %addr, "control connection from {addr}");
        let Err(end) = self.exchange().await;
        let rejected = matches!(end, End::Rejected(_));
        let leaving = match end {
            End::Closed(None) => {
                tracing::debug!(peer = %addr, "control connection from {addr} has ended");
                Leaving::Closed
            }
            End::Closed(Some(error)) => {
                tracing::debug!(peer = %addr, "control connection from {addr} broke: {error}");
                Leaving::Closed
            }
            End::Rejected(why) => {
                tracing::warn!(peer = %addr, "control connection from {addr} closed: {why}");
                Leaving::Closed
            }
            End::Silent => {
                let time = humantime::format_duration(self.config.timeout);
                let half = if self.decoder.is_partial() { ", in the middle of a message" } else { "" };
                tracing::warn!(peer = %addr, "control connection from {addr} closed: it was silent for {time}{half}");
                Leaving::Silent(self.config.timeout)
            }
        };
        self.registry.leave(self.peer, leaving).await;
        if rejected {
            self.linger().await;
        }
    }

    async fn exchange(&mut self) -> Result<std::convert::Infallible, End> {
        let mut asking = interval_at(Instant::now() + self.config.interval, self.config.interval);
        asking.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut bytes = [0; READ];
        loop {
            let due = self.heard + self.config.timeout;
            tokio::select! {
                read = self.stream.read(&mut bytes) => match read? {
                    0 => return Err(End::Closed(None)),
                    count => {
                        self.decoder.push(&bytes[..count]);
                        self.take_messages().await?;
                    }
                },
                _ = asking.tick() => if let Some(encoding) = self.decoder.encoding() {
                    self.say(&Hello::new(encoding)).await?;
                },
                () = sleep_until(due) => return Err(End::Silent),
            }
        }
    }

    async fn take_messages(&mut self) -> Result<(), End> {
        loop {
            match self.decoder.next_message() {
                Ok(Some(message)) => {
                    self.heard = Instant::now();
                    self.take(&message).await?;
                }
                Ok(None) => return Ok(()),
                Err(error) => {
                    let why = error.to_string();
                    self.reply(Err(Problem::invalid(&why))).await?;
                    return Err(End::Rejected(why));
                }
            }
        }
    }

    async fn take(&mut self, message: &Map<String, Value>) -> Result<(), End> {
        match Request::parse(message, self.config.dialect) {
            Ok(Request::Register { registration, token }) => {
                if !self.is_trusted(token.as_deref()) {
                    let why = "token is missing or wrong";
                    self.reply(Err(Problem::invalid(why))).await?;
                    // Nobody shall try one after another.
                    return Err(End::Rejected(why.into()));
                }
                // Ports are closed by then, those that others have registered as well.
                if self.shutdown.has_begun() {
                    return self.reply(Err(Refusal::Stopping.into())).await;
                }
                let registered = self.registry.register(self.peer, registration).await;
                self.reply(registered.map_err(Problem::from)).await
            }
            Ok(Request::Unregister { registration }) => {
                let unregistered = self.registry.unregister(self.peer, registration).await;
                self.reply(unregistered.map_err(Problem::from)).await
            }
            Ok(Request::Health { of, state }) => {
                // Without a word about its state it lives, and all is as before.
                if let Some(state) = state {
                    let state = (state != GOOD).then_some(state);
                    self.registry.set_state(self.peer, of, state).await;
                }
                Ok(())
            }
            Err(problem) => self.reply(Err(problem)).await,
        }
    }

    /// Compared in a time that does not depend on where the difference is.
    fn is_trusted(&self, token: Option<&str>) -> bool {
        match &self.config.token {
            None => true,
            Some(secret) => bool::from(secret.as_bytes().ct_eq(token.unwrap_or_default().as_bytes())),
        }
    }

    async fn reply(&mut self, reply: Result<(), Problem>) -> Result<(), End> {
        match &reply {
            Ok(()) => self.metrics.message("0"),
            Err(problem) => {
                self.metrics.message(&problem.code.to_string());
                tracing::warn!(
                    peer = %self.addr, code = problem.code as u8,
                    "request of {} refused: {}", self.addr, problem.message
                );
            }
        }
        self.say(&Reply(reply)).await
    }

    /// Reads away what still comes: a connection that is closed with something unread is reset, and the reply is lost.
    async fn linger(&mut self) {
        let Self { stream, .. } = self;
        let rest = async {
            stream.shutdown().await?;
            let mut rest = stream.take(LINGERING_BYTES);
            tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
        };
        let _ = timeout(LINGERING, rest).await;
    }

    async fn say(&mut self, message: &impl Serialize) -> Result<(), End> {
        // Whoever is answered has said something before.
        let Some(encoding) = self.decoder.encoding() else { return Ok(()) };
        match timeout(self.config.timeout, self.stream.write_all(&encode(encoding, message))).await {
            Ok(written) => Ok(written?),
            Err(_) => Err(End::Silent),
        }
    }
}
