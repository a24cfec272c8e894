//! One connection of a replica, for scripts: requests as they come, answers byte by byte, and a record of all that came.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::wire::{dechunk, field, head_end};

/// Holds something back until the test lets it go.
#[derive(Clone)]
pub struct Gate(Arc<Semaphore>);

impl Gate {
    pub fn closed() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    /// Waits to be let through.
    pub async fn pass(&self) {
        self.0.acquire().await.expect("never closed").forget();
    }

    /// Lets one through.
    pub fn let_one(&self) {
        self.0.add_permits(1);
    }

    /// Lets everybody through, whoever comes later included.
    pub fn open(&self) {
        self.0.add_permits(1 << 20);
    }
}

/// What one connection has brought.
#[derive(Debug, Clone, Default)]
pub struct Record {
    pub bytes: Vec<u8>,
    /// The other side has closed it, or broken it off.
    pub ended: bool,
}

impl Record {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

/// What a replica keeps of its connections, those for heartbeats left out.
#[derive(Clone, Default)]
pub struct Records {
    /// Headers of requests.
    pub heads: Arc<Mutex<Vec<String>>>,
    pub connections: Arc<Mutex<Vec<Record>>>,
}

const HEARTBEAT: &[u8] = b"GET /heartbeat ";

/// A connection to a replica.
pub struct Conn {
    pub stream: TcpStream,
    /// What has come and was not taken yet.
    pub buffer: Vec<u8>,
    records: Records,
    number: Option<usize>,
}

/// A request's body.
#[derive(Debug)]
pub struct Body {
    pub bytes: Vec<u8>,
    pub trailers: Vec<String>,
}

impl Conn {
    pub fn new(stream: TcpStream, records: Records) -> Self {
        let _ = stream.set_nodelay(true);
        Self { stream, buffer: Vec::new(), records, number: None }
    }

    /// Counts the connections that brought a request, from 0.
    pub fn number(&self) -> usize {
        self.number.expect("it has brought something")
    }

    fn record(&mut self, change: impl FnOnce(&mut Record)) {
        let mut connections = self.records.connections.lock().unwrap();
        let number = *self.number.get_or_insert_with(|| {
            connections.push(Record::default());
            connections.len() - 1
        });
        change(&mut connections[number]);
    }

    /// Reads on. False when the connection has ended.
    pub async fn fill(&mut self) -> bool {
        let before = self.buffer.len();
        let alive = self.stream.read_buf(&mut self.buffer).await.is_ok_and(|bytes| bytes > 0);
        // On a connection that is no request's yet, only what can't become a heartbeat makes it one.
        let compared = self.buffer.len().min(HEARTBEAT.len());
        let new = if self.number.is_some() { before } else { 0 };
        let counts = self.number.is_some() || self.buffer[..compared] != HEARTBEAT[..compared];
        if counts {
            let bytes = self.buffer[new..].to_vec();
            self.record(|record| {
                record.bytes.extend(bytes);
                record.ended |= !alive;
            });
        }
        alive
    }

    /// The head of the next request; heartbeats are answered on the way. `None` when the connection has ended.
    pub async fn request(&mut self) -> Option<String> {
        loop {
            let end = loop {
                if let Some(end) = head_end(&self.buffer) {
                    break end;
                }
                if !self.fill().await {
                    return None;
                }
            };
            let head: Vec<u8> = self.buffer.drain(..end).collect();
            if self.number.is_none() && head.starts_with(HEARTBEAT) {
                self.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
                continue;
            }
            let head = String::from_utf8_lossy(&head).into_owned();
            self.records.heads.lock().unwrap().push(head.clone());
            return Some(head);
        }
    }

    /// The body that `head` announces. `None` when the connection has ended before it did.
    pub async fn body(&mut self, head: &str) -> Option<Body> {
        if field(head, "transfer-encoding").is_some() {
            loop {
                if let Some(chunked) = dechunk(&self.buffer) {
                    self.buffer.drain(..chunked.length);
                    return Some(Body { bytes: chunked.body, trailers: chunked.trailers });
                }
                if !self.fill().await {
                    return None;
                }
            }
        }
        let length = field(head, "content-length").map_or(0, |length| length.parse().expect("a length"));
        while self.buffer.len() < length {
            if !self.fill().await {
                return None;
            }
        }
        Some(Body { bytes: self.buffer.drain(..length).collect(), trailers: Vec::new() })
    }

    /// Sends bytes. False when the connection has ended.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).await.is_ok()
    }

    /// Sends bytes one by one, each as a packet of its own.
    pub async fn dribble(&mut self, bytes: impl AsRef<[u8]>) {
        for byte in bytes.as_ref() {
            self.send([*byte]).await;
            tokio::task::yield_now().await;
        }
    }

    /// Answers with this body.
    pub async fn answer(&mut self, body: impl AsRef<[u8]>) -> bool {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.as_ref().len());
        self.send([head.as_bytes(), body.as_ref()].concat()).await
    }

    /// Takes and records what comes, until the other side closes.
    pub async fn until_closed(&mut self) {
        while self.fill().await {
            self.buffer.clear();
        }
    }

    /// Breaks the connection off, rather than closing it.
    pub fn reset(self) {
        let _ = self.stream.set_zero_linger();
    }
}
