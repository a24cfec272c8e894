//! One balancer's connection, seen from the agent.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};

use super::ledger::Update;
use super::server::Server;
use super::tls::Socket;
use super::wire::{Failure, Hello, Message, Op, Outcome, Ping, VERSION};
use super::{COMMANDS, HANDSHAKE, Ignored, PING, SEND, SILENCE, TO_AGENT, is_token, limits};
use crate::supervisor::{Order, Refusal, RefusalKind};

/// Why a session ends.
type End = String;

pub(super) struct Session {
    server: Server,
    socket: WebSocketStream<Box<dyn Socket>>,
    peer: SocketAddr,
    ignored: Ignored,
}

impl Session {
    /// A session with whoever is at the other end, if that is a balancer of this fleet.
    pub(super) async fn greet(
        server: Server,
        socket: WebSocketStream<Box<dyn Socket>>,
        peer: SocketAddr,
    ) -> Result<(Self, Hello), End> {
        let mut session = Self { server, socket, peer, ignored: Ignored::default() };
        let hello = match session.greeted().await {
            Ok(hello) => hello,
            Err(end) => {
                session.close(CloseCode::Policy, &end).await;
                return Err(end);
            }
        };
        // It may say more from now on. It is silent until it is answered, so nothing of it is lost here.
        let Self { server, socket, peer, ignored } = session;
        let socket = WebSocketStream::from_raw_socket(socket.into_inner(), Role::Server, Some(limits(TO_AGENT))).await;
        let mut session = Self { server, socket, peer, ignored };
        let hub = &session.server.hub;
        let (fleet, instance) = (session.server.fleet.clone(), hub.instance());
        session.send(&Message::Hello(Hello { version: VERSION, fleet, instance, ..Hello::default() })).await?;
        Ok((session, hello))
    }

    pub(super) async fn run(mut self, hello: Hello) {
        let peer = self.peer;
        let balancer = hello.balancer.clone().unwrap_or_else(|| peer.to_string());
        tracing::info!(%peer, balancer, "balancer {balancer} at {peer} is connected");
        let number = self.server.hub.join(&balancer);
        let end = self.talk(&balancer, number, &hello).await.err().unwrap_or_else(|| "it has ended".into());
        self.server.hub.leave(&balancer, number, &self.server.supervisor);
        tracing::warn!(%peer, balancer, "balancer {balancer} at {peer} is gone: {end}");
        self.close(CloseCode::Error, &end).await;
    }

    async fn greeted(&mut self) -> Result<Hello, End> {
        let Some(text) = self.next().await? else { return Err("it said nothing".into()) };
        let Message::Hello(hello) = self.decode(&text)? else { return Err("its first message is no hello".into()) };
        if !is_token(self.server.token.as_deref(), hello.token.as_deref()) {
            return Err("its token is wrong".into());
        }
        if hello.version == 0 {
            return Err(format!("its version is 0; expected {VERSION} or later"));
        }
        if hello.fleet != self.server.fleet {
            return Err(format!("its fleet is '{}', this one is '{}'", hello.fleet, self.server.fleet));
        }
        Ok(hello)
    }

    /// Until one side has had enough.
    async fn talk(&mut self, balancer: &str, number: u64, hello: &Hello) -> Result<(), End> {
        let mut epochs = self.server.hub.epochs();
        let (answers, mut answered) = mpsc::channel::<Outcome>(COMMANDS);
        let mut pings = tokio::time::interval(PING);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut heard, mut pinged) = (Instant::now(), 0);
        let mut told = (hello.instance.clone(), hello.epoch);
        epochs.mark_changed();
        loop {
            tokio::select! {
                _ = epochs.changed() => self.update(&mut told).await?,
                text = self.next() => {
                    heard = Instant::now();
                    let Some(text) = text? else { continue };
                    match self.decode(&text)? {
                        Message::Report(report) => {
                            let Server { hub, supervisor, pool, .. } = &self.server;
                            hub.report(balancer, number, report, supervisor, pool);
                        }
                        Message::Command(command) => {
                            // Each holds a place, so that its answer finds one.
                            let Ok(place) = answers.clone().try_reserve_owned() else {
                                let message = format!("{COMMANDS} commands are under way already; try again later");
                                let error = Some(Failure { kind: RefusalKind::Later, message });
                                let outcome = Outcome { id: command.id, ok: None, error };
                                self.send(&Message::Result(outcome)).await?;
                                continue;
                            };
                            let server = self.server.clone();
                            tokio::spawn(async move { place.send(carry_out(&server, command.id, command.op).await) });
                        }
                        Message::Ping(ping) => self.send(&Message::Pong(ping)).await?,
                        Message::Pong(_) => {}
                        Message::Unknown(kind) => self.unknown(&kind, &text).await?,
                        Message::Hello(_) | Message::Snapshot(_) | Message::Delta(_) | Message::Result(_) => {
                            return Err("it sent what only an agent sends".into());
                        }
                    }
                }
                Some(outcome) = answered.recv() => {
                    // Whoever hears that something was done must not see it undone.
                    self.update(&mut told).await?;
                    self.send(&Message::Result(outcome)).await?;
                }
                _ = pings.tick() => {
                    if heard.elapsed() > SILENCE {
                        return Err(format!("nothing was heard for {} s", SILENCE.as_secs()));
                    }
                    pinged += 1;
                    self.send(&Message::Ping(Ping { seq: pinged })).await?;
                }
            }
        }
    }

    /// Brings the balancer from the state of the run that it has to the present one.
    async fn update(&mut self, told: &mut (String, u64)) -> Result<(), End> {
        let (update, epoch) = self.server.hub.since(&told.0, told.1);
        match update {
            Update::None => {}
            Update::Delta(delta) => self.send(&Message::Delta(delta)).await?,
            Update::Snapshot(snapshot) => self.send(&Message::Snapshot(snapshot)).await?,
        }
        if epoch > 0 {
            *told = (self.server.hub.instance(), epoch);
        }
        Ok(())
    }

    async fn unknown(&mut self, kind: &str, text: &str) -> Result<(), End> {
        self.ignored.note("balancer", vec![kind.to_owned()]);
        // A command of a newer version is answered: somebody waits.
        let id = serde_json::from_str::<serde_json::Value>(text).ok().and_then(|command| command["id"].as_u64());
        if let Some(id) = id.filter(|_| kind.starts_with("command.")) {
            let message = format!("the agent does not know the command '{kind}'; it is older than the balancer");
            let error = Some(Failure { kind: RefusalKind::Failed, message });
            self.send(&Message::Result(Outcome { id, ok: None, error })).await?;
        }
        Ok(())
    }

    fn decode(&mut self, text: &str) -> Result<Message, End> {
        let (message, ignored) = Message::decode(text).map_err(|error| error.to_string())?;
        if !matches!(message, Message::Unknown(_)) {
            self.ignored.note("balancer", ignored);
        }
        Ok(message)
    }

    /// The next text; `None` for what is none of ours. Nothing is lost if it is not waited for to the end.
    async fn next(&mut self) -> Result<Option<String>, End> {
        match self.socket.next().await {
            Some(Ok(Frame::Text(text))) => Ok(Some(text.to_string())),
            Some(Ok(Frame::Binary(_))) => Err("a malformed message: binary".into()),
            Some(Ok(Frame::Close(_))) | None => Err("it has closed the connection".into()),
            Some(Ok(_)) => Ok(None),
            Some(Err(error)) => Err(error.to_string()),
        }
    }

    async fn send(&mut self, message: &Message) -> Result<(), End> {
        let sent = tokio::time::timeout(SEND, self.socket.send(Frame::text(message.encode()))).await;
        sent.map_err(|_| format!("it takes nothing for {} s", SEND.as_secs()))?.map_err(|error| error.to_string())
    }

    async fn close(mut self, code: CloseCode, reason: &str) {
        // A control frame holds 125 bytes.
        let reason: String = reason.chars().take(60).collect();
        let close = self.socket.close(Some(CloseFrame { code, reason: reason.into() }));
        let _ = tokio::time::timeout(HANDSHAKE, close).await;
    }
}

async fn carry_out(server: &Server, id: u64, op: Op) -> Outcome {
    let order = match op {
        Op::Add { n, hostnames } => Order::Add { n, hostnames },
        Op::Remove { n, hostnames } => Order::Remove { n, hostnames },
        Op::Set { hostname, weight, priority } => Order::Set { hostname, weight, priority },
        Op::Eject { generation, reason } => Order::Eject { generation, reason },
        Op::Deploy(change) => Order::Deploy(change),
        Op::Decisions => {
            return Outcome { id, ok: serde_json::to_value(server.journal.list()).ok(), error: None };
        }
        Op::Deployment => {
            return Outcome { id, ok: serde_json::to_value(&server.supervisor.status().progress).ok(), error: None };
        }
    };
    let done = server.supervisor.order(order).await;
    server.hub.advance(&server.supervisor.status());
    match done {
        Ok(listing) => Outcome { id, ok: serde_json::to_value(listing).ok(), error: None },
        Err(refusal) => Outcome { id, ok: None, error: Some(failure(&refusal)) },
    }
}

fn failure(refusal: &Refusal) -> Failure {
    Failure { kind: refusal.kind(), message: refusal.to_string() }
}
