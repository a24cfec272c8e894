//! A client of the balancer's control channel: it registers a server's ports and answers health messages.
//!
//! The connection belongs to a task of its own, so health messages are answered whatever the server is busy with on other
//! threads. When [`Control`] is dropped the connection is closed, and the balancer unregisters all that was registered.

mod codec;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tokio_util::bytes::Bytes;
use tokio_util::codec::Framed;

use codec::Codec;

/// For a connection, a reply, and for bytes to be taken.
const REPLY: Duration = Duration::from_secs(5);
/// Commands that may wait for the connection's task.
const QUEUE: usize = 16;

/// How messages are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Encoding {
    /// One object by line
    Json,
    /// Maps, each behind its length in four bytes
    #[value(name = "msgpack")]
    MessagePack,
}

impl Encoding {
    fn write(self, message: &impl Serialize) -> Result<Bytes, String> {
        let bytes = match self {
            Self::Json => serde_json::to_vec(message).map_err(|error| error.to_string()),
            Self::MessagePack => rmp_serde::to_vec_named(message).map_err(|error| error.to_string()),
        };
        bytes.map(Bytes::from)
    }

    fn read(self, bytes: &[u8]) -> Result<Said, String> {
        let said = match self {
            Self::Json => serde_json::from_slice(bytes).map_err(|error| error.to_string()),
            Self::MessagePack => rmp_serde::from_slice(bytes).map_err(|error| error.to_string()),
        };
        said.map_err(|error| format!("the balancer sends what is no message: {error}"))
    }
}

/// What a server speaks on its port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// Does each datagram go to the next server, or do all of one client to the same?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Affinity {
    /// Each datagram
    Datagram,
    /// All of one client
    Flow,
}

/// A port of this server, and the port that the balancer opens for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Registration {
    pub(crate) protocol: Protocol,
    /// The server's own.
    pub(crate) port: u16,
    /// The balancer's; `None` for the same number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) relay_port: Option<u16>,
    /// For UDP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) affinity: Option<Affinity>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) weight: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) priority: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<String>,
}

impl Registration {
    /// `port` behind `relay_port`, all else as by default.
    pub(crate) fn new(protocol: Protocol, port: u16, relay_port: u16) -> Self {
        let relay_port = Some(relay_port);
        Self { protocol, port, relay_port, affinity: None, weight: None, priority: None, token: None }
    }
}

/// What has come from the balancer without being asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Health messages that were answered.
    pub(crate) health: u64,
    /// Why the connection has ended.
    pub(crate) closed: Option<String>,
}

/// A connection to the balancer's control channel. It lives in the runtime that it was made in.
pub(crate) struct Control {
    commands: mpsc::Sender<Asked>,
    seen: watch::Receiver<Seen>,
    local: SocketAddr,
    /// For a reply; less in tests.
    deadline: Duration,
}

/// A command on its way, and who waits for the reply.
struct Asked {
    message: Value,
    reply: oneshot::Sender<Result<(), String>>,
}

impl Control {
    pub(crate) async fn connect(addr: SocketAddr, encoding: Encoding) -> Result<Self, String> {
        let failed = |why: &dyn std::fmt::Display| format!("control channel at {addr}: {why}");
        let stream = match timeout(REPLY, TcpStream::connect(addr)).await {
            Ok(stream) => stream.map_err(|error| failed(&error))?,
            Err(_) => return Err(failed(&format!("no connection within {REPLY:?}"))),
        };
        stream.set_nodelay(true).map_err(|error| failed(&error))?;
        let local = stream.local_addr().map_err(|error| failed(&error))?;
        let (commands, asked) = mpsc::channel(QUEUE);
        let (seeing, seen) = watch::channel(Seen::default());
        let frames = Framed::new(stream, Codec::new(encoding));
        tokio::spawn(async move {
            let why = match talk(frames, encoding, asked, &seeing).await {
                Ok(()) => "ended".into(),
                Err(why) => why,
            };
            seeing.send_modify(|seen| seen.closed = Some(why));
        });
        Ok(Self { commands, seen, local, deadline: REPLY })
    }

    /// Has the balancer open the relay port; the error is the balancer's, with its number.
    pub(crate) async fn register(&self, registration: &Registration) -> Result<(), String> {
        self.ask("register", registration).await
    }

    /// Takes it back.
    pub(crate) async fn unregister(&self, registration: &Registration) -> Result<(), String> {
        self.ask("unregister", registration).await
    }

    /// This side's address. Traffic goes to its IP.
    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// To wait for health messages, and for the end of the connection.
    pub(crate) fn seen(&self) -> watch::Receiver<Seen> {
        self.seen.clone()
    }

    async fn ask(&self, cmd: &'static str, registration: &Registration) -> Result<(), String> {
        #[derive(Serialize)]
        struct Command<'a> {
            cmd: &'a str,
            #[serde(flatten)]
            registration: &'a Registration,
        }
        let message = serde_json::to_value(Command { cmd, registration }).map_err(|error| error.to_string())?;
        let (reply, replied) = oneshot::channel();
        let asked = async {
            if self.commands.send(Asked { message, reply }).await.is_err() {
                return None;
            }
            replied.await.ok()
        };
        let what = format!("{cmd} {} {}", registration.protocol.name(), registration.port);
        match timeout(self.deadline, asked).await {
            Ok(Some(reply)) => reply.map_err(|why| format!("{what}: {why}")),
            Ok(None) => Err(format!("{what}: {}", self.why_closed().await)),
            Err(_) => Err(format!("{what}: no reply within {:?}", self.deadline)),
        }
    }

    /// The task says why once it has let go of the command.
    async fn why_closed(&self) -> String {
        let mut seen = self.seen.clone();
        let closed = timeout(REPLY, seen.wait_for(|seen| seen.closed.is_some())).await;
        let why = closed.ok().and_then(|seen| seen.ok()?.closed.clone());
        why.unwrap_or_else(|| "the control connection has ended".into())
    }
}

/// The answer to a health message: the balancer's own word, and that all is well.
#[derive(Serialize)]
struct Health<'a> {
    cmd: &'a str,
    state: &'a str,
}

/// What the balancer says: the reply to a command, or a command of its own.
#[derive(Deserialize)]
struct Said {
    cmd: Option<String>,
    ack: Option<String>,
    msg: Option<String>,
    error: Option<i64>,
}

impl Said {
    fn reply(self) -> Result<(), String> {
        match self.ack.as_deref() {
            Some("successful") => Ok(()),
            _ => Err(format!(
                "the balancer refuses: {} (error {})",
                self.msg.as_deref().unwrap_or("no reason given"),
                self.error.map_or_else(|| "missing".into(), |error| error.to_string())
            )),
        }
    }
}

/// Serves the connection until `asked` is closed; the error says why it ended before.
async fn talk(
    mut frames: Framed<TcpStream, Codec>,
    encoding: Encoding,
    mut asked: mpsc::Receiver<Asked>,
    seen: &watch::Sender<Seen>,
) -> Result<(), String> {
    // Replies come in the order of the commands.
    let mut waiting: VecDeque<oneshot::Sender<Result<(), String>>> = VecDeque::new();
    // What the balancer complains about without being asked; it then closes.
    let mut complaint = None;
    loop {
        tokio::select! {
            said = frames.next() => {
                let Some(said) = said else {
                    return Err(complaint.unwrap_or_else(|| "the balancer has closed the control connection".into()));
                };
                let said = said.map_err(|error| format!("control connection: {error}"))?;
                let said = encoding.read(&said)?;
                match said.cmd.as_deref() {
                    Some(cmd @ ("hello" | "healthcheck")) => {
                        send(&mut frames, encoding.write(&Health { cmd, state: "good" })?).await?;
                        seen.send_modify(|seen| seen.health += 1);
                    }
                    Some(cmd) => return Err(format!("the balancer sends a command that is not known here: {cmd:?}")),
                    None => match waiting.pop_front() {
                        // Whoever has given up waiting has told so already.
                        Some(reply) => drop(reply.send(said.reply())),
                        None => complaint = said.reply().err(),
                    },
                }
            }
            command = asked.recv() => {
                let Some(Asked { message, reply }) = command else { return Ok(()) };
                waiting.push_back(reply);
                send(&mut frames, encoding.write(&message)?).await?;
            }
        }
    }
}

async fn send(frames: &mut Framed<TcpStream, Codec>, message: Bytes) -> Result<(), String> {
    match timeout(REPLY, frames.send(message)).await {
        Ok(sent) => sent.map_err(|error| format!("control connection: {error}")),
        Err(_) => Err(format!("control connection: the balancer takes nothing for {REPLY:?}")),
    }
}
