//! Replicas for the static runtime that answer byte by byte what a test wants, and keep what they were sent.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::Lb;
use super::conn::{Conn, Record, Records};
pub use super::wire::field;

/// What a replica does with a request that is not a heartbeat.
#[derive(Clone)]
pub enum Answer {
    /// These bytes.
    Bytes(String),
    /// Nothing, for as long as the client waits.
    Silence,
    /// Closes the connection.
    Close,
    /// These bytes, and closes the connection.
    BytesAndClose(String),
    /// Echoes what comes behind the header, piece by piece, as a chunked body, until the request's last chunk.
    Echo,
    /// Whatever this does with each connection.
    Script(Arc<dyn Fn(Conn) -> BoxFuture<'static, ()> + Send + Sync>),
}

/// A replica whose heartbeats are always good.
pub struct Replica {
    pub addr: SocketAddr,
    /// Headers of the requests it got, heartbeats left out.
    pub requests: Arc<Mutex<Vec<String>>>,
    records: Records,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A whole response.
pub fn response(status: &str, headers: &str, body: &str) -> Answer {
    Answer::Bytes(format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n{body}", body.len()))
}

impl Replica {
    pub async fn start(answer: Answer) -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into(), answer).await
    }

    pub async fn start_at(addr: SocketAddr, answer: Answer) -> Self {
        // The usual backlog of 128 overflows in a burst.
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.set_reuseaddr(true).expect("a socket");
        socket.bind(addr).expect("a port");
        let listener = socket.listen(4096).expect("it listens");
        let addr = listener.local_addr().expect("bound");
        let records = Records::default();
        let kept = records.clone();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let conn = Conn::new(stream, kept.clone());
                match &answer {
                    Answer::Script(script) => connections.spawn(script(conn)),
                    answer => connections.spawn(serve(conn, answer.clone())),
                };
            }
        });
        Self { addr, requests: Arc::clone(&records.heads), records, task }
    }

    /// One whose connections do as this says.
    pub async fn scripted<F, Fut>(script: F) -> Self
    where
        F: Fn(Conn) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        Self::start(Answer::Script(Arc::new(move |conn| Box::pin(script(conn))))).await
    }

    /// One that answers with the request's method, target and body.
    pub async fn mirror() -> Self {
        Self::scripted(|mut conn| async move {
            while let Some(head) = conn.request().await {
                let Some(body) = conn.body(&head).await else { return };
                let (request, _) = head.split_once(" HTTP/1.1").expect("a request line");
                let text = format!("{request} {}", String::from_utf8_lossy(&body.bytes));
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", text.len());
                let text = if request.starts_with("HEAD ") { "" } else { &text };
                if !conn.send(head + text).await {
                    return;
                }
            }
        })
        .await
    }

    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    /// Every byte of each connection that brought any, those for heartbeats left out.
    pub fn connections(&self) -> Vec<Record> {
        self.records.connections.lock().unwrap().clone()
    }

    /// Waits until connection number `n` has been closed by the balancer.
    pub async fn until_ended(&self, n: usize) -> Record {
        let ended = async || self.connections().get(n).filter(|record| record.ended).cloned();
        super::eventually(&format!("connection {n} ends"), ended).await.0
    }

    /// Waits until it has got so many requests.
    pub async fn until_asked(&self, n: usize) {
        super::eventually("requests arrive", async || (self.requests.lock().unwrap().len() >= n).then_some(())).await;
    }
}

async fn serve(mut conn: Conn, answer: Answer) {
    while let Some(head) = conn.request().await {
        match &answer {
            Answer::Close | Answer::Script(_) => return,
            Answer::Silence => return conn.until_closed().await,
            Answer::Echo => {
                if !echo(&mut conn).await {
                    return;
                }
            }
            Answer::Bytes(bytes) | Answer::BytesAndClose(bytes) => {
                let length = field(&head, "content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
                while conn.buffer.len() < length {
                    if !conn.fill().await {
                        return;
                    }
                }
                conn.buffer.drain(..length);
                if !conn.send(bytes).await || matches!(answer, Answer::BytesAndClose(_)) {
                    return;
                }
            }
        }
    }
}

/// Chunks come and go as they are: their framing is echoed along. False when the connection has ended.
async fn echo(conn: &mut Conn) -> bool {
    if !conn.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await {
        return false;
    }
    loop {
        let piece = std::mem::take(&mut conn.buffer);
        if !conn.send(&piece).await {
            return false;
        }
        if piece.ends_with(b"0\r\n\r\n") {
            return true;
        }
        if !conn.fill().await {
            return false;
        }
    }
}

/// An address where nothing listens.
pub async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    listener.local_addr().expect("bound")
}

/// A balancer over these members. They live in the test's own process, which a busy machine may keep waiting: that shall not
/// take them out of rotation, unless a test says otherwise.
pub async fn balance(members: &[SocketAddr], args: &[&str]) -> Lb {
    let list = members.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let mut all = vec!["--runtime", "static", "--members", &list];
    if !args.contains(&"--heartbeat-timeout") {
        all.extend(["--heartbeat-timeout", "10s"]);
    }
    all.extend(args);
    Lb::start(&all)
}

pub async fn ready(members: &[&Replica], args: &[&str]) -> Lb {
    let lb = balance(&members.iter().map(|member| member.addr).collect::<Vec<_>>(), args).await;
    lb.until_ready().await;
    lb
}

/// Sends bytes, and gives back all that comes until the connection is closed or `end` was seen.
pub async fn raw(lb: &Lb, request: &str, end: &str) -> String {
    let mut stream = TcpStream::connect(lb.addr).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = async {
        while stream.read_buf(&mut answer).await.is_ok_and(|bytes| bytes > 0) {
            if !end.is_empty() && String::from_utf8_lossy(&answer).contains(end) {
                break;
            }
        }
    };
    tokio::time::timeout(super::LIMIT, read).await.expect("an answer in time");
    String::from_utf8(answer).unwrap()
}
