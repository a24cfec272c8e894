//! A replica that keeps every request exactly as it came, reads it by the letter, and takes any deviation as a fault.
//!
//! Requests are told apart by the client's address in `x-forwarded-for`: a client may bind to any address of
//! 127.0.0.0/8, so each test case has its own. A request that came in by a trick has none, or a wrong one.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;

use super::strict::{self, Request, show, value, values};

/// The path of heartbeats; no client asks for it.
pub const HEARTBEAT: &str = "/heartbeat-of-the-test";

/// What a replica does about a request, step by step, from the moment that it has the head.
#[derive(Debug, Clone)]
pub enum Act {
    /// Reads the request's body to its end.
    Body,
    Write(Vec<u8>),
    /// Waits until the test lets it go on.
    Gate,
    /// Reads on until the connection ends, and makes sure that it was sent this.
    Tunnel(&'static [u8]),
    Close,
}

/// What a replica has been sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Who sent it, in the balancer's word.
    pub from: String,
    pub request: Request,
}

/// Decides what is done about a request, given its sender and head.
pub type Answers = Arc<dyn Fn(&str, &Request) -> Vec<Act> + Send + Sync>;

#[derive(Default)]
struct Record {
    seen: Vec<Seen>,
    faults: Vec<String>,
}

/// What the replicas of a test keep, together.
pub struct Recorder {
    answers: Answers,
    record: Mutex<Record>,
    busy: AtomicUsize,
    gate: Semaphore,
}

/// One of them.
pub struct Member {
    pub addr: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Member {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Counts a connection as busy, from the first byte of a request until everything about it is done.
struct Busy<'a>(&'a AtomicUsize);
impl<'a> Busy<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}
impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Recorder {
    pub fn new(answers: impl Fn(&str, &Request) -> Vec<Act> + Send + Sync + 'static) -> Arc<Self> {
        let (record, busy) = (Mutex::default(), AtomicUsize::new(0));
        Arc::new(Self { answers: Arc::new(answers), record, busy, gate: Semaphore::new(0) })
    }

    /// A replica that keeps its record here.
    pub fn member(self: &Arc<Self>) -> Member {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(([127, 0, 0, 1], 0).into()).expect("a port");
        let listener = socket.listen(4096).expect("it listens");
        let addr = listener.local_addr().expect("bound");
        let recorder = Arc::clone(self);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                tokio::select! {
                    Ok((stream, _)) = listener.accept() => {
                        let recorder = Arc::clone(&recorder);
                        connections.spawn(async move { recorder.serve(stream).await });
                    }
                    Some(_) = connections.join_next(), if !connections.is_empty() => {}
                }
            }
        });
        Member { addr, task }
    }

    /// What has been seen from a sender.
    pub fn seen_from(&self, from: &str) -> Vec<Seen> {
        self.record.lock().unwrap().seen.iter().filter(|seen| seen.from == from).cloned().collect()
    }

    /// Forgets the senders that are known, and gives back what else was seen.
    pub fn take(&self, is_known: impl Fn(&str) -> bool) -> Vec<Seen> {
        let seen = std::mem::take(&mut self.record.lock().unwrap().seen);
        seen.into_iter().filter(|seen| !is_known(&seen.from)).collect()
    }

    /// Takes what was not as it must be.
    pub fn faults(&self) -> Vec<String> {
        std::mem::take(&mut self.record.lock().unwrap().faults)
    }

    /// Requests under way.
    pub fn busy(&self) -> usize {
        self.busy.load(Ordering::SeqCst)
    }

    /// Lets one [`Act::Gate`] go on.
    pub fn open_gate(&self) {
        self.gate.add_permits(1);
    }

    /// Takes back what no gate has used.
    pub fn shut_gate(&self) {
        self.gate.forget_permits(usize::MAX);
    }

    fn fault(&self, fault: String) {
        self.record.lock().unwrap().faults.push(fault);
    }

    fn keep(&self, from: &str, request: Request) {
        self.record.lock().unwrap().seen.push(Seen { from: from.to_owned(), request });
    }

    async fn serve(&self, mut stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        let mut buffer = Vec::new();
        loop {
            if buffer.is_empty() && !read(&mut stream, &mut buffer).await {
                return;
            }
            let _busy = Busy::new(&self.busy);
            let head = loop {
                match strict::request(&buffer) {
                    Ok(Some((head, _))) => break head,
                    Ok(None) if read(&mut stream, &mut buffer).await => {}
                    Ok(None) => return self.fault(format!("half a head: {}", show(&buffer))),
                    Err(fault) => return self.fault(format!("{fault}, in {}", show(&buffer))),
                }
            };
            let is_client = head.fields.iter().any(|(name, _)| name == "x-forwarded-for");
            let from = if head.target == HEARTBEAT.as_bytes() && !is_client {
                None
            } else {
                match sender(&head) {
                    Ok(from) => Some(from),
                    Err(fault) => return self.fault(format!("{fault}, in {}", show(&buffer))),
                }
            };
            let acts = match &from {
                Some(from) => (self.answers)(from, &head),
                None => vec![Act::Body, Act::Write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_vec())],
            };
            if !self.act(&mut stream, &mut buffer, from.as_deref(), head, acts).await {
                return;
            }
        }
    }

    /// Does what is to be done about a request. False when the connection has ended.
    async fn act(
        &self,
        stream: &mut TcpStream,
        buffer: &mut Vec<u8>,
        from: Option<&str>,
        head: Request,
        acts: Vec<Act>,
    ) -> bool {
        let mut read_whole = false;
        for act in acts {
            let goes_on = match act {
                Act::Write(bytes) => stream.write_all(&bytes).await.is_ok(),
                Act::Close => false,
                Act::Gate => {
                    self.gate.acquire().await.expect("never closed").forget();
                    true
                }
                Act::Tunnel(expected) => {
                    while read(stream, buffer).await {}
                    if buffer != expected {
                        self.fault(format!("in a tunnel: {} instead of {}", show(buffer), show(expected)));
                    }
                    false
                }
                Act::Body => match self.whole(stream, buffer, from).await {
                    Ok(()) => {
                        read_whole = true;
                        true
                    }
                    Err(()) => return false,
                },
            };
            if !goes_on {
                if let (false, Some(from)) = (read_whole, from) {
                    // However much of it has come: it was not read.
                    self.keep(from, Request { whole: false, ..head });
                }
                return false;
            }
        }
        assert!(read_whole, "a replica that goes on must have read the whole request");
        true
    }

    /// Reads a request to its end, keeps it, and removes it from the buffer.
    async fn whole(&self, stream: &mut TcpStream, buffer: &mut Vec<u8>, from: Option<&str>) -> Result<(), ()> {
        loop {
            match strict::request(buffer) {
                Ok(Some((request, end))) if request.whole => {
                    if end < buffer.len() {
                        // Nobody sends a second request before the first is answered.
                        self.fault(format!("bytes behind a request: {}", show(buffer)));
                        return Err(());
                    }
                    buffer.clear();
                    let bad: Vec<_> = improper(&request);
                    if !bad.is_empty() && from.is_some() {
                        self.fault(format!("improper fields {bad:?} in {request:?}"));
                    }
                    if let Some(from) = from {
                        self.keep(from, request);
                    }
                    return Ok(());
                }
                Ok(Some((part, _))) => {
                    if !read(stream, buffer).await {
                        if let Some(from) = from {
                            self.keep(from, part);
                        }
                        return Err(());
                    }
                }
                Ok(None) => unreachable!("its head was whole"),
                Err(fault) => {
                    self.fault(format!("{fault}, in {}", show(buffer)));
                    return Err(());
                }
            }
        }
    }
}

async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> bool {
    stream.read_buf(buffer).await.is_ok_and(|bytes| bytes > 0)
}

/// The one address in `x-forwarded-for`.
fn sender(head: &Request) -> Result<String, String> {
    let [from] = values(&head.fields, "x-forwarded-for")[..] else { return Err("not one x-forwarded-for".into()) };
    let from = String::from_utf8_lossy(from).into_owned();
    match from.parse::<Ipv4Addr>() {
        Ok(_) => Ok(from),
        Err(error) => Err(format!("x-forwarded-for {from}: {error}")),
    }
}

/// Fields that no replica may get: those of another connection, those in a trailer that frame, route or tell who asks,
/// and look-alikes of either, which some servers take for the real ones.
fn improper(request: &Request) -> Vec<String> {
    const ONE_HOP: [&str; 4] = ["keep-alive", "proxy-connection", "te", "proxy-authorization"];
    const MANAGED: [&str; 10] = [
        "connection",
        "content-length",
        "forwarded",
        "host",
        "transfer-encoding",
        "upgrade",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-request-id",
    ];
    let managed = |name: &str| MANAGED.contains(&name.replace('_', "-").as_str());
    let is_upgrade = value(&request.fields, "connection").is_some_and(|value| value.eq_ignore_ascii_case("upgrade"));
    let in_head = request.fields.iter().filter(|(name, _)| {
        ONE_HOP.contains(&name.as_str())
            || (name.contains('_') && managed(name))
            || (["connection", "upgrade"].contains(&name.as_str()) && !is_upgrade)
            || name == "forwarded"
    });
    let in_trailers = request.trailers.iter().filter(|(name, _)| managed(name) || ONE_HOP.contains(&name.as_str()));
    in_head.chain(in_trailers).map(|(name, _)| name.clone()).collect()
}

/// The answer of a replica that knows whom it answers what: its body names the sender, method and target, and the
/// request's own marker comes back.
pub fn own_answer(from: &str, head: &Request) -> Vec<u8> {
    let marker = value(&head.fields, "x-marker").unwrap_or_default();
    let body = format!("{from} {} {}", head.method, head.target.escape_ascii());
    let mut answer =
        format!("HTTP/1.1 200 OK\r\nx-marker: {marker}\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
    if head.method != "HEAD" {
        answer.extend(body.as_bytes());
    }
    answer
}

/// A connection from an address of one's own.
pub async fn connect_from(source: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((source, 0).into()).expect("a loopback address");
    let stream = socket.connect(to).await.expect("a connection");
    stream.set_nodelay(true).expect("an option");
    stream
}
