//! A balancer that relays, and servers' ends of its control channel.
//!
//! Ports in a registration are fixed numbers, so each balancer opens its ports on an address of its own, and each server
//! has one as well: tests that run at the same time don't meet.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;

use super::{LIMIT, Lb, eventually};

/// An address of this host that no other test uses, in this process or in another one.
pub fn own_ip() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    assert!(next < 256, "a test program has 256 addresses");
    // 127.1.0.0 to 127.235.255.255
    Ipv4Addr::from(0x7f01_0000 + std::process::id() % 60_000 * 256 + next)
}

impl Lb {
    /// Starts one without replicas, that opens ports on an address of its own.
    pub fn relaying(args: &[&str]) -> Self {
        let ip = own_ip().to_string();
        let control = format!("{ip}:0");
        let mut all = vec!["--replicas", "0", "--control-listen", &control, "--relay-address", &ip];
        all.extend(args);
        Self::start(&all)
    }

    /// Where servers register.
    pub fn control(&self) -> SocketAddr {
        self.control.expect("it was started with a control channel")
    }

    /// Where clients find this port.
    pub fn relay(&self, port: u16) -> SocketAddr {
        (self.control().ip(), port).into()
    }

    /// `/api/v1/relays`.
    pub async fn relays(&self) -> Vec<Value> {
        let response = self.client.get(self.admin_url("/api/v1/relays")).send().await.expect("an answer");
        response.json().await.expect("a list")
    }

    /// One port of it.
    pub async fn port(&self, protocol: &str, port: u16) -> Option<Value> {
        self.relays().await.into_iter().find(|relay| relay["protocol"] == protocol && relay["relay_port"] == port)
    }

    /// What it says of one replica of a port.
    pub async fn member(&self, protocol: &str, port: u16, addr: SocketAddr) -> Option<Value> {
        let port = self.port(protocol, port).await?;
        port["replicas"].as_array()?.iter().find(|replica| replica["addr"] == addr.to_string()).cloned()
    }

    /// Waits until a replica of a port is in this state.
    pub async fn until_state(&self, protocol: &str, port: u16, addr: SocketAddr, state: &str) {
        let same = async || self.member(protocol, port, addr).await.filter(|member| member["state"] == state);
        eventually(&format!("{addr} is {state}"), same).await;
    }

    /// Waits until one number of a port's is this.
    pub async fn until_counted(&self, protocol: &str, port: u16, what: &str, count: u64) {
        let same = async || self.port(protocol, port).await.filter(|port| port[what] == count);
        eventually(&format!("{count} {what} of {protocol}/{port}"), same).await;
    }
}

/// How a server writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Json,
    MessagePack,
}

impl Encoding {
    pub const BOTH: [Self; 2] = [Self::Json, Self::MessagePack];

    /// A message as bytes: a line, or a map behind its length.
    pub fn encode(self, message: &Value) -> Vec<u8> {
        match self {
            Self::Json => format!("{message}\n").into_bytes(),
            Self::MessagePack => frame(&rmp_serde::to_vec_named(message).expect("it can be written")),
        }
    }

    /// Takes the next message, if all of it is there.
    fn decode(self, bytes: &mut Vec<u8>) -> Option<Value> {
        match self {
            Self::Json => {
                let end = bytes.iter().position(|byte| *byte == b'\n')? + 1;
                let line: Vec<u8> = bytes.drain(..end).collect();
                Some(serde_json::from_slice(&line).expect("JSON"))
            }
            Self::MessagePack => {
                let length = u32::from_le_bytes(*bytes.first_chunk::<4>()?) as usize;
                let message = rmp_serde::from_slice(bytes.get(4..4 + length)?).expect("MessagePack");
                bytes.drain(..4 + length);
                Some(message)
            }
        }
    }

    /// The word that the balancer asks with whether a server lives.
    pub fn question(self) -> &'static str {
        match self {
            Self::Json => "hello",
            Self::MessagePack => "healthcheck",
        }
    }
}

/// Puts the length in front.
pub fn frame(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_le_bytes(), bytes].concat()
}

pub fn registration(protocol: &str, port: u16, relay_port: u16) -> Value {
    json!({"cmd": "register", "protocol": protocol, "port": port, "relay_port": relay_port})
}

/// Connects to the control channel from this address.
pub async fn connect(lb: &Lb, from: Ipv4Addr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    let stream = socket.connect(lb.control()).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// A control connection that does nothing by itself.
pub struct Raw {
    pub stream: TcpStream,
    pub encoding: Encoding,
    pub buffer: Vec<u8>,
}

impl Raw {
    /// Connects from an address that is no other server's.
    pub async fn connect(lb: &Lb, encoding: Encoding) -> Self {
        Self::connect_from(lb, own_ip(), encoding).await
    }

    pub async fn connect_from(lb: &Lb, from: Ipv4Addr, encoding: Encoding) -> Self {
        Self { stream: connect(lb, from).await, encoding, buffer: Vec::new() }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.expect("it is taken");
    }

    pub async fn say(&mut self, message: &Value) {
        self.send(self.encoding.encode(message)).await;
    }

    async fn fill(&mut self) -> bool {
        let read = tokio::time::timeout(LIMIT, self.stream.read_buf(&mut self.buffer)).await;
        read.expect("something comes").is_ok_and(|bytes| bytes > 0)
    }

    /// So many bytes as they come.
    pub async fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            assert!(self.fill().await, "closed behind {:?}", String::from_utf8_lossy(&self.buffer));
        }
        self.buffer.drain(..count).collect()
    }

    /// What is left of a line.
    pub async fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                return String::from_utf8(self.buffer.drain(..=end).collect()).expect("text");
            }
            assert!(self.fill().await, "closed behind {:?}", String::from_utf8_lossy(&self.buffer));
        }
    }

    /// The next message, whatever it is.
    pub async fn message(&mut self) -> Value {
        loop {
            if let Some(message) = self.encoding.decode(&mut self.buffer) {
                return message;
            }
            assert!(self.fill().await, "closed behind {:?}", String::from_utf8_lossy(&self.buffer));
        }
    }

    /// The next reply.
    pub async fn reply(&mut self) -> Value {
        loop {
            let message = self.message().await;
            if message.get("ack").is_some() {
                return message;
            }
        }
    }

    pub async fn ask(&mut self, message: &Value) -> Value {
        self.say(message).await;
        self.reply().await
    }

    /// It must succeed.
    #[track_caller]
    pub fn done(&mut self, message: &Value) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let reply = self.ask(message).await;
            assert_eq!(reply, json!({"ack": "successful", "error": 0}), "{caller}: {message}");
        }
    }

    /// It must be refused with this code, and a message that says all of these.
    #[track_caller]
    pub fn refused(&mut self, message: &Value, code: u64, says: &[&str]) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let reply = self.ask(message).await;
            let text = reply["msg"].as_str().unwrap_or_default();
            assert!(reply["ack"] == "failed" && reply["error"] == code, "{caller}: {message}: {reply}");
            for part in says {
                assert!(text.contains(part), "{caller}: {message} should say '{part}': {reply}");
            }
        }
    }

    /// Reads on until the connection ends, whatever comes before that.
    pub async fn ended(&mut self) {
        let end = async { while self.fill().await {} };
        tokio::time::timeout(LIMIT, end).await.expect("it ends in time");
    }

    /// The connection must end without another byte.
    #[track_caller]
    pub fn closed(&mut self) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            self.ended().await;
            assert!(self.buffer.is_empty(), "{caller}: {:?}", String::from_utf8_lossy(&self.buffer));
        }
    }
}

/// A control connection that says by itself that its server lives. It ends when dropped.
pub struct Control {
    writer: mpsc::UnboundedSender<Value>,
    replies: mpsc::UnboundedReceiver<Value>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Control {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Control {
    /// Connects from the address that traffic shall go to.
    pub async fn connect(lb: &Lb, from: Ipv4Addr) -> Self {
        Self::connect_as(lb, from, Encoding::Json).await
    }

    pub async fn connect_as(lb: &Lb, from: Ipv4Addr, encoding: Encoding) -> Self {
        let stream = connect(lb, from).await;
        let (writer, messages) = mpsc::unbounded_channel();
        let (replied, replies) = mpsc::unbounded_channel();
        Self { writer, replies, task: tokio::spawn(converse(stream, encoding, messages, replied)) }
    }

    /// Sends a message that gets no reply.
    pub fn say(&self, message: Value) {
        self.writer.send(message).expect("it is connected");
    }

    pub async fn ask(&mut self, message: Value) -> Value {
        self.say(message);
        let reply = tokio::time::timeout(LIMIT, self.replies.recv()).await;
        reply.expect("a reply in time").expect("it is connected")
    }

    #[track_caller]
    fn done(&mut self, message: Value) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let reply = self.ask(message.clone()).await;
            assert_eq!(reply, json!({"ack": "successful", "error": 0}), "{caller}: {message}");
        }
    }

    #[track_caller]
    pub fn register(&mut self, protocol: &str, port: u16, relay_port: u16) -> impl Future<Output = ()> {
        self.done(registration(protocol, port, relay_port))
    }

    /// Registers with these further fields.
    #[track_caller]
    pub fn register_with(
        &mut self,
        protocol: &str,
        port: u16,
        relay_port: u16,
        further: Value,
    ) -> impl Future<Output = ()> {
        let mut message = registration(protocol, port, relay_port);
        let Value::Object(further) = further else { panic!("no fields: {further}") };
        message.as_object_mut().unwrap().extend(further);
        self.done(message)
    }

    #[track_caller]
    pub fn unregister(&mut self, protocol: &str, port: u16, relay_port: u16) -> impl Future<Output = ()> {
        let mut message = registration(protocol, port, relay_port);
        message["cmd"] = json!("unregister");
        self.done(message)
    }
}

async fn converse(
    stream: TcpStream,
    encoding: Encoding,
    mut messages: mpsc::UnboundedReceiver<Value>,
    replied: mpsc::UnboundedSender<Value>,
) {
    let (mut reader, mut writer) = stream.into_split();
    let mut bytes = Vec::new();
    loop {
        let mut heard = VecDeque::new();
        tokio::select! {
            read = reader.read_buf(&mut bytes) => match read {
                Ok(1..) => heard.extend(std::iter::from_fn(|| encoding.decode(&mut bytes))),
                _ => return,
            },
            message = messages.recv() => match message {
                Some(message) => write(&mut writer, encoding, &message).await,
                None => return,
            },
        }
        for message in heard {
            if message.get("cmd").is_some() {
                write(&mut writer, encoding, &message).await;
            } else {
                let _ = replied.send(message);
            }
        }
    }
}

async fn write(writer: &mut OwnedWriteHalf, encoding: Encoding, message: &Value) {
    // If it has ended, the next read says so.
    let _ = writer.write_all(&encoding.encode(message)).await;
}
