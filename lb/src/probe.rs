//! Heartbeats: asking a replica whether it answers, and counting what it said.
//!
//! [`Prober`] does one probe over HTTP/1.1 on a connection of its own. [`Streak`] is the pure counter of rises and falls.
//! Neither decides what follows from a failure; the fleet does.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

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
    path: Uri,
    timeout: Duration,
}

impl Prober {
    /// A prober for `config`; its path must be a valid origin-form target.
    pub fn new(config: &HeartbeatConfig) -> Result<Self, http::uri::InvalidUri> {
        Ok(Self { path: config.path.parse()?, timeout: config.timeout })
    }

    /// One heartbeat: any 2xx status within the timeout is good. The error says what went wrong instead.
    pub async fn probe(&self, addr: SocketAddr) -> Result<(), ProbeError> {
        match tokio::time::timeout(self.timeout, self.exchange(addr)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(ProbeError::Bad(format!("no answer within {}", humantime::format_duration(self.timeout)))),
        }
    }

    async fn exchange(&self, addr: SocketAddr) -> Result<(), ProbeError> {
        let stream = match TcpStream::connect(addr).await {
            Ok(stream) => stream,
            Err(error) if is_own_trouble(&error) => return Err(ProbeError::NotAsked(error.to_string())),
            Err(error) => return Err(ProbeError::Bad(format!("connect: {error}"))),
        };
        self.ask(stream, addr).await.map_err(ProbeError::Bad)
    }

    async fn ask(&self, stream: TcpStream, addr: SocketAddr) -> Result<(), String> {
        let _ = stream.set_nodelay(true);
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = self.path.clone();
        let host = HeaderValue::from_str(&addr.to_string()).map_err(|error| error.to_string())?;
        request.headers_mut().insert(header::HOST, host);
        request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static("ringkeeper-heartbeat"));
        request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        let answer = async {
            let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
            let status = response.status();
            // Read to its end, so that a replica logs no broken connection.
            let _ = Limited::new(response.into_body(), BODY_LIMIT).collect().await;
            if status.is_success() { Ok(()) } else { Err(format!("status {}", status.as_u16())) }
        };
        // The connection is driven here and ends with this exchange.
        let drive = async {
            let _ = connection.await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            answer = answer => answer,
            () = drive => Err("connection closed".into()),
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
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
