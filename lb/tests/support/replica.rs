//! Replicas for the static runtime that answer byte by byte what a test wants, and keep what they were sent.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::Lb;

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
}

/// A replica whose heartbeats are always good.
pub struct Replica {
    pub addr: SocketAddr,
    /// Headers of the requests it got, heartbeats left out.
    pub requests: Arc<Mutex<Vec<String>>>,
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
        // The usual backlog of 128 overflows in a burst.
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.bind(([127, 0, 0, 1], 0).into()).expect("a port");
        let listener = socket.listen(4096).expect("it listens");
        let addr = listener.local_addr().expect("bound");
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let kept = Arc::clone(&requests);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, answer.clone(), Arc::clone(&kept)));
            }
        });
        Self { addr, requests, task }
    }

    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

async fn serve(mut stream: TcpStream, answer: Answer, requests: Arc<Mutex<Vec<String>>>) {
    let mut buffer = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if !read(&mut stream, &mut buffer).await {
                return;
            }
        };
        let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
        buffer.drain(..end);
        if head.starts_with("GET /heartbeat ") {
            if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.is_err() {
                return;
            }
            continue;
        }
        let length = field(&head, "content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        requests.lock().unwrap().push(head);
        match &answer {
            Answer::Silence => {
                while read(&mut stream, &mut buffer).await {}
                return;
            }
            Answer::Close => return,
            Answer::Echo => {
                if !echo(&mut stream, &mut buffer).await {
                    return;
                }
            }
            Answer::Bytes(bytes) | Answer::BytesAndClose(bytes) => {
                while buffer.len() < length {
                    if !read(&mut stream, &mut buffer).await {
                        return;
                    }
                }
                buffer.drain(..length);
                let written = stream.write_all(bytes.as_bytes()).await;
                if written.is_err() || matches!(answer, Answer::BytesAndClose(_)) {
                    return;
                }
            }
        }
    }
}

async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> bool {
    stream.read_buf(buffer).await.is_ok_and(|bytes| bytes > 0)
}

/// Chunks come and go as they are: their framing is echoed along. False when the connection has ended.
async fn echo(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> bool {
    let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    if stream.write_all(head).await.is_err() {
        return false;
    }
    loop {
        if stream.write_all(buffer).await.is_err() {
            return false;
        }
        let last = buffer.ends_with(b"0\r\n\r\n");
        buffer.clear();
        if last {
            return true;
        }
        if !read(stream, buffer).await {
            return false;
        }
    }
}

/// The value of a header field.
pub fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .skip(1)
        .filter_map(|line| line.split_once(':'))
        .find_map(|(field, value)| field.eq_ignore_ascii_case(name).then_some(value.trim()))
}

/// An address where nothing listens.
pub async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    listener.local_addr().expect("bound")
}

/// A balancer over these members, once `ready` of them are.
pub async fn balance(members: &[SocketAddr], args: &[&str]) -> Lb {
    let list = members.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let mut all = vec!["--runtime", "static", "--members", &list];
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
