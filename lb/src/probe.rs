//! Heartbeats: asking a replica whether it answers, and counting what it said.
//!
//! [`Prober`] does one probe over HTTP/1.1 on a connection of its own. [`Streak`] is the pure counter of rises and falls.
//! Neither decides what follows from a failure; the fleet does.

use std::net::SocketAddr;
use std::time::Duration;

use http::uri::PathAndQuery;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::http1::chunked::Decoder;
use crate::http1::{Framing, field_slots, response};
use crate::net::is_own_trouble;

/// A heartbeat's body is read to see the exchange to its end, up to this many bytes.
const BODY_LIMIT: usize = 64 * 1024;

/// How heartbeats are done and counted.
#[derive(Debug, Clone)]
pub struct HeartbeatConfig {
    /// From one probe to the next.
    pub interval: Duration,
    /// For the whole exchange, connect included.
    pub timeout: Duration,
    /// Failures in a row that fail a replica, 1 or more.
    pub falls: u32,
    /// Successes in a row that make a replica ready, 1 or more.
    pub rises: u32,
    /// Path asked for.
    pub path: String,
}

impl Default for HeartbeatConfig {
    fn default() -> Self {
        Self {
            interval: Duration::from_millis(500),
            timeout: Duration::from_millis(500),
            falls: 3,
            rises: 1,
            path: "/heartbeat".into(),
        }
    }
}

/// Why a heartbeat was not good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// The replica did not answer as it should.
    #[error("{0}")]
    Bad(String),
    /// It could not be asked: this side has run out of descriptors, ports or memory. Says nothing about the replica.
    #[error("{0}")]
    NotAsked(String),
}

/// Asks one replica.
#[derive(Debug, Clone)]
pub struct Prober {
    path: PathAndQuery,
    timeout: Duration,
}

impl Prober {
    /// A prober for `config`; its path must be a valid origin-form target.
    pub fn new(config: &HeartbeatConfig) -> Result<Self, http::uri::InvalidUri> {
        Ok(Self { path: config.path.parse()?, timeout: config.timeout })
    }

    /// One heartbeat: any 2xx status within the timeout is good. The error says what went wrong instead.
    pub async fn probe(&self, addr: SocketAddr) -> Result<(), ProbeError> {
        let Ok(answered) = tokio::time::timeout(self.timeout, self.exchange(addr)).await else {
            return Err(ProbeError::Bad(format!("no answer within {}", humantime::format_duration(self.timeout))));
        };
        let Answered { status, framing, stream, bytes } = answered?;
        if framing != Framing::None {
            // So that a replica logs no broken connection. The verdict does not depend on it, nor wait for it.
            tokio::spawn(tokio::time::timeout(self.timeout, read_body(stream, bytes, framing)));
        }
        if (200..300).contains(&status) { Ok(()) } else { Err(ProbeError::Bad(format!("status {status}"))) }
    }

    async fn exchange(&self, addr: SocketAddr) -> Result<Answered, ProbeError> {
        let stream = match TcpStream::connect(addr).await {
            Ok(stream) => stream,
            Err(error) if is_own_trouble(&error) => return Err(ProbeError::NotAsked(error.to_string())),
            Err(error) => return Err(ProbeError::Bad(format!("connect: {error}"))),
        };
        self.ask(stream, addr).await.map_err(ProbeError::Bad)
    }

    async fn ask(&self, mut stream: TcpStream, addr: SocketAddr) -> Result<Answered, String> {
        let _ = stream.set_nodelay(true);
        let path = &self.path;
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: {addr}\r\nuser-agent: ringkeeper-heartbeat\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
        let mut bytes = Vec::with_capacity(512);
        loop {
            match head(&bytes)? {
                // An interim response is none yet.
                Some((100..200, _, len)) => drop(bytes.drain(..len)),
                Some((status, framing, len)) => {
                    bytes.drain(..len);
                    return Ok(Answered { status, framing, stream, bytes });
                }
                None if stream.read_buf(&mut bytes).await.map_err(|error| error.to_string())? == 0 => {
                    return Err("connection closed".into());
                }
                None => {}
            }
        }
    }
}

/// A replica's answer, but for what is to come of its body.
struct Answered {
    status: u16,
    framing: Framing,
    stream: TcpStream,
    bytes: Vec<u8>,
}

/// Status, framing and length of the head that has arrived, if it has. The parser's room for fields is large, and should not
/// be a part of a task.
fn head(bytes: &[u8]) -> Result<Option<(u16, Framing, usize)>, &'static str> {
    let mut slots = field_slots();
    let head = response::parse(bytes, false, &mut slots)?;
    Ok(head.map(|head| (head.status, head.framing, head.len)))
}

/// Reads a body to its end. `bytes` is what has arrived of it already.
async fn read_body(mut stream: TcpStream, mut bytes: Vec<u8>, framing: Framing) {
    let (mut decoder, mut left) = (Decoder::default(), BODY_LIMIT);
    loop {
        let over = match framing {
            Framing::None => true,
            Framing::Length(length) => bytes.len() as u64 >= length,
            Framing::Chunked => {
                let over = decoder.decode(&mut bytes).map_or(true, |decoded| decoded.done);
                bytes.clear();
                over
            }
            Framing::UntilClose => false,
        };
        if over || left == 0 {
            return;
        }
        match stream.read_buf(&mut bytes).await {
            Ok(read @ 1..) => left = left.saturating_sub(read),
            _ => return,
        }
    }
}

/// Counts equal outcomes in a row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Streak {
    good: u32,
    bad: u32,
}

impl Streak {
    /// Was the last outcome a bad one?
    pub fn is_failing(self) -> bool {
        self.bad > 0
    }

    /// One more good outcome; how many in a row that makes.
    pub fn rise(&mut self) -> u32 {
        self.bad = 0;
        self.good = self.good.saturating_add(1);
        self.good
    }

    /// One more bad outcome; how many in a row that makes.
    pub fn fall(&mut self) -> u32 {
        self.good = 0;
        self.bad = self.bad.saturating_add(1);
        self.bad
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[test]
    fn a_streak_counts_only_what_is_in_a_row() {
        let mut streak = Streak::default();
        assert_eq!((streak.fall(), streak.fall()), (1, 2));
        assert_eq!((streak.rise(), streak.fall(), streak.fall()), (1, 1, 2));
    }

    /// Answers one connection with `bytes`, or never if there are none, and gives back what it was sent.
    async fn replica(bytes: &'static str) -> (SocketAddr, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let seen = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let n = stream.read(&mut request).await.unwrap();
            if bytes.is_empty() {
                let _ = stream.read(&mut [0; 1]).await;
            }
            stream.write_all(bytes.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&request[..n]).into_owned()
        });
        (addr, seen)
    }

    /// Answers one connection, and leaves it open.
    async fn open_replica(bytes: String) -> (SocketAddr, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let open = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(bytes.as_bytes()).await.unwrap();
            std::future::pending::<()>().await;
        });
        (addr, open)
    }

    fn prober() -> Prober {
        Prober::new(&HeartbeatConfig { timeout: Duration::from_millis(200), ..HeartbeatConfig::default() }).unwrap()
    }

    #[tokio::test]
    async fn only_a_2xx_in_time_is_good() {
        let (addr, seen) = replica("HTTP/1.1 204 No Content\r\n\r\n").await;
        assert_eq!(prober().probe(addr).await, Ok(()));
        assert!(seen.await.unwrap().starts_with("GET /heartbeat HTTP/1.1\r\n"));
        let (addr, _seen) = replica("HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!(prober().probe(addr).await, Err(ProbeError::Bad("status 500".into())));
        let (addr, _seen) = replica("").await;
        assert_eq!(prober().probe(addr).await, Err(ProbeError::Bad("no answer within 200ms".into())));
        let interim = "content-length: 0\r\n\r\n";
        let (addr, stays_open) =
            open_replica(format!("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n{interim}")).await;
        assert_eq!(prober().probe(addr).await, Ok(()));
        drop(stays_open);
        for kept_open in [
            "content-length: 9\r\n\r\nshort",
            "x: until close\r\n\r\n",
            "content-length: 2\r\n\r\nok",
            "transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        ] {
            let (addr, stays_open) = open_replica(format!("HTTP/1.1 200 OK\r\n{kept_open}")).await;
            assert_eq!(prober().probe(addr).await, Ok(()), "{kept_open}");
            drop(stays_open);
        }
        let (addr, seen) = replica("rubbish\r\n\r\n").await;
        assert!(prober().probe(addr).await.is_err());
        drop(seen);
    }

    #[tokio::test]
    async fn a_refused_connection_fails_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        drop(listener);
        assert!(matches!(prober().probe(addr).await, Err(ProbeError::Bad(why)) if why.starts_with("connect: ")));
    }
}
