//! One client: a connection, and requests of all sorts on it, one after the other.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::answer::{Answer, Method, parse};

/// A request that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Different failures that are told apart.
const KEPT: usize = 20;
/// Lengths of bodies, in turn: nothing at all, one packet, several, and as much as is kept for a retry.
const BODIES: [usize; 5] = [0, 1, 1000, 16 * 1024, 64 * 1024];
pub(super) const LONGEST: usize = 64 * 1024;
static BODY: [u8; LONGEST] = [b'b'; LONGEST];

/// What all clients have done together.
#[derive(Debug, Serialize)]
pub(super) struct Progress {
    total: u64,
    begun: u64,
    done: u64,
    failed: u64,
    /// Right answers by kind of request.
    pub(super) by_kind: BTreeMap<&'static str, u64>,
    /// Right answers by status.
    by_status: BTreeMap<u16, u64>,
    /// Failures by what went wrong.
    pub(super) failures: BTreeMap<String, u64>,
    #[serde(skip)]
    mix: Mix,
}

/// What requests with a body are like.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mix {
    /// PUT, which may be repeated, instead of POST.
    pub(super) repeatable: bool,
    /// The longest body.
    pub(super) max_body: usize,
}

impl Progress {
    pub(super) fn new(total: u64, mix: Mix) -> Self {
        Self {
            total,
            begun: 0,
            done: 0,
            failed: 0,
            by_kind: BTreeMap::new(),
            by_status: BTreeMap::new(),
            failures: BTreeMap::new(),
            mix,
        }
    }

    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Requests that are done, and those of them that failed.
    pub(super) fn done(&self) -> (u64, u64) {
        (self.done, self.failed)
    }

    /// Right answers of classes 2xx to 5xx.
    pub(super) fn by_class(&self) -> [u64; 4] {
        [2, 3, 4, 5].map(|class| self.by_status.range(class * 100..(class + 1) * 100).map(|(_, count)| count).sum())
    }

    /// The number of the next request; `None` once all are begun.
    fn next(&mut self) -> Option<u64> {
        let number = self.begun;
        (number < self.total).then(|| {
            self.begun += 1;
            number
        })
    }

    fn note(&mut self, kind: &'static str, outcome: Result<u16, String>) {
        self.done += 1;
        match outcome {
            Ok(status) => {
                *self.by_kind.entry(kind).or_default() += 1;
                *self.by_status.entry(status).or_default() += 1;
            }
            Err(why) => {
                self.failed += 1;
                // Texts may differ in each, so that not all can be kept.
                let what = format!("{kind}: {why}");
                let what = if self.failures.len() < KEPT || self.failures.contains_key(&what) {
                    what
                } else {
                    "others".into()
                };
                *self.failures.entry(what).or_default() += 1;
            }
        }
    }
}

/// What a request is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kind {
    name: &'static str,
    method: Method,
    /// On a connection of its own.
    fresh: bool,
    /// Asks for the connection to be closed.
    close: bool,
    body: Option<Body>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Body {
    Length(usize),
    Chunked(usize),
}

/// Twenty in a row have all kinds; a prime stride spreads them over the clients.
fn kind(number: u64, mix: Mix) -> Kind {
    let get = Kind { name: "GET", method: Method::Get, fresh: false, close: false, body: None };
    let length = BODIES[(number / 20) as usize % BODIES.len()].min(mix.max_body);
    let method = if mix.repeatable { Method::Put } else { Method::Post };
    match number * 7 % 20 {
        0 => Kind { name: "GET on a new connection", fresh: true, ..get },
        1 => Kind { name: "GET with Connection: close", close: true, ..get },
        2 | 3 => Kind { name: "HEAD", method: Method::Head, ..get },
        4 | 5 => Kind { name: "body with a length", method, body: Some(Body::Length(length)), ..get },
        6 => Kind { name: "body in chunks", method, body: Some(Body::Chunked(length)), ..get },
        _ => get,
    }
}

/// Writes the request into `bytes`.
fn render(kind: &Kind, bytes: &mut Vec<u8>) {
    bytes.clear();
    let close = if kind.close { "Connection: close\r\n" } else { "" };
    let head = |framing: &str| format!("{} /home HTTP/1.1\r\nHost: soak\r\n{close}{framing}\r\n", kind.method.name());
    match kind.body {
        None => bytes.extend_from_slice(head("").as_bytes()),
        Some(Body::Length(length)) => {
            bytes.extend_from_slice(head(&format!("Content-Length: {length}\r\n")).as_bytes());
            bytes.extend_from_slice(&BODY[..length]);
        }
        Some(Body::Chunked(length)) => {
            bytes.extend_from_slice(head("Transfer-Encoding: chunked\r\n").as_bytes());
            for chunk in BODY[..length].chunks(4000) {
                bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                bytes.extend_from_slice(chunk);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\n\r\n");
        }
    }
}

/// Sends requests until all of `progress` are begun.
pub(super) async fn run(addr: SocketAddr, progress: &RefCell<Progress>) {
    let mut connection: Option<TcpStream> = None;
    let (mut request, mut answer) = (Vec::new(), Vec::new());
    let mix = progress.borrow().mix;
    loop {
        let Some(number) = progress.borrow_mut().next() else { return };
        let kind = kind(number, mix);
        render(&kind, &mut request);
        if kind.fresh {
            connection = None;
        }
        let exchange = exchange(addr, &mut connection, &kind, &request, &mut answer);
        let outcome = match tokio::time::timeout(TIMEOUT, exchange).await {
            Ok(outcome) => outcome,
            Err(_) => Err(format!("no answer within {TIMEOUT:?}")),
        };
        if outcome.is_err() {
            connection = None;
        }
        progress.borrow_mut().note(kind.name, outcome);
    }
}

/// One request and its answer; the connection is kept if both sides keep it.
async fn exchange(
    addr: SocketAddr,
    connection: &mut Option<TcpStream>,
    kind: &Kind,
    request: &[u8],
    bytes: &mut Vec<u8>,
) -> Result<u16, String> {
    let mut stream = match connection.take() {
        Some(stream) => stream,
        None => {
            let stream = TcpStream::connect(addr).await.map_err(|error| format!("connect: {error}"))?;
            stream.set_nodelay(true).map_err(|error| error.to_string())?;
            stream
        }
    };
    // A replica may answer before it has read the body, and whoever has answered may close: what counts is the answer.
    let written = stream.write_all(request).await;
    bytes.clear();
    let answer: Answer = loop {
        if let Some(answer) = parse(bytes, kind.method)? {
            break answer;
        }
        match stream.read_buf(bytes).await {
            Ok(0) => return Err(broken(bytes, &written, "closed")),
            Ok(_) => {}
            Err(error) => return Err(broken(bytes, &written, &error.to_string())),
        }
    };
    if kind.close && !answer.close {
        return Err("asked to close the connection, lb does not say so".into());
    }
    if kind.close {
        let mut rest = [0; 1];
        let end = stream.read(&mut rest).await;
        if !matches!(end, Ok(0)) {
            return Err(format!("asked to close the connection, lb did not: {end:?}"));
        }
    }
    if !answer.close && written.is_ok() {
        *connection = Some(stream);
    }
    Ok(answer.status)
}

fn broken(bytes: &[u8], written: &io::Result<()>, what: &str) -> String {
    let write = written.as_ref().err().map_or_else(String::new, |error| format!(", and before that: {error}"));
    format!("{what} after {} bytes of an answer{write}", bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIX: Mix = Mix { repeatable: false, max_body: LONGEST };

    #[test]
    fn every_kind_has_its_part() {
        let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
        for number in 0..2000 {
            *counts.entry(kind(number, MIX).name).or_default() += 1;
        }
        assert_eq!(counts["GET"], 1300);
        assert_eq!((counts["GET on a new connection"], counts["HEAD"], counts["body in chunks"]), (100, 200, 100));
        let lengths: std::collections::BTreeSet<usize> = (0..200)
            .filter_map(|number| match kind(number, MIX).body? {
                Body::Length(length) | Body::Chunked(length) => Some(length),
            })
            .collect();
        assert_eq!(lengths.len(), BODIES.len());
        let short = Mix { max_body: 10, ..MIX };
        assert!((0..200).all(|number| !matches!(kind(number, short).body, Some(Body::Length(11..)))));
        assert!((0..40).all(|number| kind(number, Mix { repeatable: true, ..MIX }).method != Method::Post));
    }

    #[test]
    fn chunks_add_up() {
        let mut bytes = Vec::new();
        let kind = Kind { name: "", method: Method::Post, fresh: false, close: false, body: Some(Body::Chunked(4001)) };
        render(&kind, &mut bytes);
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.contains("\r\n\r\nfa0\r\nbbb") && text.ends_with("b\r\n1\r\nb\r\n0\r\n\r\n"));
    }

    #[test]
    fn progress_counts_each_request_once_and_keeps_few_failures() {
        let mut progress = Progress::new(100, MIX);
        while progress.next().is_some() {
            progress.note("GET", if progress.begun.is_multiple_of(2) { Ok(200) } else { Err("no".into()) });
        }
        assert_eq!((progress.done(), progress.by_class()), ((100, 50), [50, 0, 0, 0]));
        assert_eq!(progress.failures, BTreeMap::from([("GET: no".to_owned(), 50)]));
        for number in 0..100 {
            progress.note("GET", Err(number.to_string()));
        }
        assert_eq!((progress.failures.len(), progress.failures["others"]), (KEPT + 1, 100 - (KEPT as u64 - 1)));
    }
}
