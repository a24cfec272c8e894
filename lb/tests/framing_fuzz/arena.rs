//! Where cases are carried out: a balancer (or something worse) before recording replicas, clients, and the verdict.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::generate::{Case, Ending};
use crate::naive::Naive;
use crate::oracle::{self, Allowed, Reading};
use crate::support::recorder::{Act, HEARTBEAT, Member, Recorder, Seen, connect_from};
use crate::support::strict::{Request, Response, response, show, value};
use crate::support::{Lb, eventually};

/// Whatever works takes far less.
const DEADLINE: Duration = Duration::from_secs(20);
/// What does not work need not take longer, where that is expected.
const NAIVE_DEADLINE: Duration = Duration::from_millis(200);
/// Clients at one time.
const CLIENTS: usize = 16;

/// Who is tried.
enum Tried {
    Lb(Lb),
    Naive(Naive),
}

pub(crate) struct Arena {
    tried: Tried,
    addr: SocketAddr,
    recorder: Arc<Recorder>,
    _members: Vec<Member>,
    counts: Counts,
    /// Clients so far.
    clients: u32,
    /// For all that a client does.
    deadline: Duration,
}

/// What is known of a case when it is over.
struct Played {
    case: Case,
    source: Ipv4Addr,
    reading: Reading,
    /// What the client read, and what is wrong about that.
    answers: Vec<u8>,
    wrong: Option<String>,
}

impl Arena {
    pub(crate) async fn of_lb() -> Self {
        let (recorder, members, counts) = replicas(2);
        let list = members.iter().map(|member| member.addr.to_string()).collect::<Vec<_>>().join(",");
        let args = [
            "--runtime",
            "static",
            "--members",
            &list,
            "--workers",
            "2",
            "--not-found",
            "pass",
            "--heartbeat-timeout",
            "10s",
            "--heartbeat-path",
            HEARTBEAT,
        ];
        let lb = Lb::ready(&args).await;
        Self {
            addr: lb.addr,
            tried: Tried::Lb(lb),
            recorder,
            _members: members,
            counts,
            clients: 0,
            deadline: DEADLINE,
        }
    }

    pub(crate) async fn of_naive() -> Self {
        let (recorder, members, counts) = replicas(1);
        let naive = Naive::start(members[0].addr).await;
        Self {
            addr: naive.addr,
            tried: Tried::Naive(naive),
            recorder,
            _members: members,
            counts,
            clients: 0,
            deadline: NAIVE_DEADLINE,
        }
    }

    /// Carries out cases side by side. What went wrong, told in full.
    pub(crate) async fn play(&mut self, cases: Vec<Case>) -> Vec<String> {
        let (addr, deadline) = (self.addr, self.deadline);
        let with_sources: Vec<_> = cases.into_iter().map(|case| (case, self.source())).collect();
        let played = futures_util::stream::iter(
            with_sources.into_iter().map(|(case, source)| play(case, source, addr, deadline)),
        );
        let played: Vec<Played> = played.buffer_unordered(CLIENTS).collect().await;
        self.settle().await;
        self.counts.lock().unwrap().clear();
        let mut faults = self.recorder.faults();
        let mut told = Vec::new();
        let mut seen = HashMap::<String, Vec<Seen>>::new();
        for one in self.recorder.take(|_| false) {
            seen.entry(one.from.clone()).or_default().push(one);
        }
        for played in played {
            let seen = seen.remove(&played.source.to_string()).unwrap_or_default();
            let by_this = |fault: &mut String| {
                let sender = format!("x-forwarded-for: {}", played.source);
                fault.split_once(&sender).is_some_and(|(_, rest)| rest.starts_with(['\\', ',']))
            };
            let fault = faults.extract_if(.., by_this).next();
            faults.retain_mut(|fault| !by_this(fault));
            let wrong = fault.or(deviation(&played.reading, &seen)).or(played.wrong.clone());
            told.extend(wrong.map(|wrong| played.tell(&wrong, &seen)));
        }
        told.extend(faults);
        told.extend(seen.into_values().flatten().map(|seen| format!("a request from nobody: {seen:?}")));
        told
    }

    /// An address that no other client has.
    fn source(&mut self) -> Ipv4Addr {
        self.clients += 1;
        let [_, high, middle, low] = self.clients.to_be_bytes();
        Ipv4Addr::new(127, 1 + high % 250, middle, low)
    }

    /// Waits until nothing is under way.
    async fn settle(&self) {
        let idle = async || {
            let quiet = match &self.tried {
                Tried::Lb(lb) => {
                    lb.metric("ringkeeper_client_connections").await == 0.0
                        && lb.replicas().await.iter().all(|replica| replica["in_flight"] == 0)
                }
                Tried::Naive(naive) => naive.clients() == 0,
            };
            (quiet && self.recorder.busy() == 0).then_some(())
        };
        eventually("all clients' connections are over, and nothing is in flight", idle).await;
    }

    /// What can be said in the end.
    pub(crate) async fn end(self) {
        let Tried::Lb(lb) = self.tried else { return };
        let panics: Vec<_> = lb.log().into_iter().filter(|line| line.contains("panicked")).collect();
        assert!(panics.is_empty(), "{panics:#?}");
        assert!(lb.is_ready().await, "a replica was given up: {:?}", lb.replicas().await);
        let (status, body) = lb.get("/rep").await;
        assert_eq!(status, 200, "it still serves: {body}");
    }
}

/// How many requests came from each client.
type Counts = Arc<Mutex<HashMap<String, usize>>>;

fn replicas(n: usize) -> (Arc<Recorder>, Vec<Member>, Counts) {
    let counts = Counts::default();
    let counted = Arc::clone(&counts);
    let recorder = Recorder::new(move |from, head| {
        let mut counts = counted.lock().unwrap();
        let number = counts.entry(from.to_owned()).or_default();
        *number += 1;
        answer(from, *number - 1, head)
    });
    let members = (0..n).map(|_| recorder.member()).collect();
    (recorder, members, counts)
}

/// A response says which request it belongs to. There are several shapes, as each ends in its own way.
fn answer(from: &str, number: usize, head: &Request) -> Vec<Act> {
    let seen = format!("x-seen: {from} {number}\r\n");
    let (head_only, shape) = (head.method == "HEAD", (head.target.len() + number) % 5);
    let body = if head_only { "" } else { "answer" };
    let bytes = match shape {
        0 => format!("HTTP/1.1 204 No Content\r\n{seen}\r\n"),
        1 if !head_only => {
            format!("HTTP/1.1 200 OK\r\n{seen}transfer-encoding: chunked\r\n\r\n3\r\nans\r\n3;x=y\r\nwer\r\n0\r\n\r\n")
        }
        2 => format!("HTTP/1.1 200 OK\r\n{seen}content-length: 6\r\nconnection: close\r\n\r\n{body}"),
        3 => format!("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n{seen}content-length: 6\r\n\r\n{body}"),
        _ => format!("HTTP/1.1 200 OK\r\n{seen}content-length: 6\r\n\r\n{body}"),
    };
    let mut acts = vec![Act::Body, Act::Write(bytes.into_bytes())];
    if shape == 2 {
        acts.push(Act::Close);
    }
    if value(&head.fields, "expect").is_some() {
        acts.insert(0, Act::Write(b"HTTP/1.1 100 Continue\r\n\r\n".to_vec()));
    }
    acts
}

/// How what replicas got differs from what may be forwarded.
fn deviation(reading: &Reading, seen: &[Seen]) -> Option<String> {
    let mut allowed = reading.whole.iter().filter(|allowed| !allowed.own);
    for (number, seen) in seen.iter().enumerate() {
        let request = &seen.request;
        let same = |allowed: &Allowed| {
            allowed.method == request.method
                && allowed.targets.contains(&request.target)
                && value(&request.fields, "host")
                    .is_some_and(|host| host.as_bytes().eq_ignore_ascii_case(&allowed.host))
        };
        match allowed.next() {
            Some(allowed) if request.whole && same(allowed) && allowed.body == request.body => {}
            Some(allowed) if !request.whole && same(allowed) && allowed.body.starts_with(&request.body) => {}
            None if !request.whole
                && reading.part.as_ref().is_some_and(|part| same(part) && part.body.starts_with(&request.body)) => {}
            _ => return Some(format!("request {number} at the replicas is not what the client sent: {request:?}")),
        }
    }
    None
}

async fn play(case: Case, source: Ipv4Addr, addr: SocketAddr, deadline: Duration) -> Played {
    let bytes = case.bytes();
    let reading = oracle::read(&bytes);
    let mut client = Client { stream: connect_from(source, addr).await, answers: Vec::new(), closed: false };
    let wrong = match tokio::time::timeout(deadline, client.act(&case, &bytes, &reading)).await {
        Ok(()) if matches!(case.ending, Ending::Stay) => client.judge(source, &reading, true),
        Ok(()) => client.judge(source, &reading, false),
        Err(_) => Some("the client waits for an answer, or for the end of its connection".to_owned()),
    };
    Played { case, source, reading, answers: client.answers, wrong }
}

struct Client {
    stream: TcpStream,
    answers: Vec<u8>,
    closed: bool,
}

impl Client {
    async fn act(&mut self, case: &Case, bytes: &[u8], reading: &Reading) {
        let mut sent = 0;
        for segment in &case.segments {
            // It may have been closed on a bad request: what was answered is read below.
            if self.stream.write_all(&segment.bytes).await.is_err() {
                break;
            }
            sent += segment.bytes.len();
            if segment.await_answers && sent < bytes.len() {
                self.read_answers(oracle::read(&bytes[..sent]).whole.len(), reading).await;
            }
            for _ in 0..segment.yields {
                tokio::task::yield_now().await;
            }
        }
        match case.ending {
            Ending::Close => return,
            Ending::Reset => {
                // What is unread or unsent is dropped, and the balancer is told so.
                let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
                return;
            }
            Ending::Stay => self.read_answers(reading.whole.len(), reading).await,
            Ending::HalfClose => {}
        }
        let _ = self.stream.shutdown().await;
        self.read_answers(usize::MAX, reading).await;
    }

    /// Reads until there are so many final answers, or the connection has ended.
    async fn read_answers(&mut self, n: usize, reading: &Reading) {
        while !self.closed && finals(&self.answers, reading, false).0.len() < n {
            self.closed = !self.stream.read_buf(&mut self.answers).await.is_ok_and(|read| read > 0);
        }
    }

    /// What is wrong about the answers. `stayed`: nothing of what is missing was given up by the client.
    fn judge(&self, source: Ipv4Addr, reading: &Reading, stayed: bool) -> Option<String> {
        let (finals, trouble) = finals(&self.answers, reading, self.closed);
        if let Some(trouble) = trouble.filter(|_| self.closed && stayed) {
            return Some(format!("the client can't read its answers: {trouble}"));
        }
        let mut number = 0;
        for (at, answer) in finals.iter().enumerate() {
            let from_replica = value(&answer.fields, "x-seen");
            let allowed =
                reading.whole.get(at).or(reading.part.as_ref().filter(|part| part.own && at == reading.whole.len()));
            let is_own = allowed.is_some_and(|allowed| allowed.own);
            let right = match (&from_replica, answer.status) {
                (Some(seen), _) => allowed.is_some() && !is_own && *seen == format!("{source} {number}"),
                (None, 400..=499 | 501 | 505) => is_own || at + 1 == finals.len(),
                (None, _) => is_own,
            };
            if !right {
                return Some(format!("answer {at} is not for this request: {answer:?}"));
            }
            number += usize::from(from_replica.is_some());
        }
        let answered = finals.len();
        let refused = finals.last().is_some_and(|last| last.status >= 400);
        let may_end = answered > 0 && reading.whole.get(answered - 1).is_some_and(|last| last.may_be_last);
        let missing = answered < reading.whole.len() && !refused && !may_end;
        (missing && stayed).then(|| format!("{answered} of {} requests were answered", reading.whole.len()))
    }
}

/// The final answers so far, and what can't be read behind them. A refusal is the last one.
fn finals(bytes: &[u8], reading: &Reading, closed: bool) -> (Vec<Response>, Option<String>) {
    let (mut finals, mut at) = (Vec::<Response>::new(), 0);
    while at < bytes.len() {
        let asked = reading.whole.iter().chain(&reading.part).nth(finals.len());
        let is_head = asked.is_some_and(|asked| asked.method == "HEAD");
        match response(&bytes[at..], is_head, closed) {
            Ok(Some((response, length))) => {
                let is_final = response.status >= 200;
                let by_whom = value(&response.fields, "x-seen");
                let is_own = asked.is_some_and(|asked| asked.own);
                if is_final && response.status >= 400 && by_whom.is_none() && !is_own {
                    finals.push(response);
                    return (finals, None);
                }
                if is_final && !response.whole {
                    return (finals, closed.then(|| format!("an answer breaks off: {}", show(&bytes[at..]))));
                }
                if is_final {
                    finals.push(response);
                }
                at += length;
            }
            Ok(None) => return (finals, closed.then(|| format!("half a head: {}", show(&bytes[at..])))),
            Err(trouble) => return (finals, Some(trouble)),
        }
    }
    (finals, None)
}

impl Played {
    fn tell(&self, wrong: &str, seen: &[Seen]) -> String {
        let mut told = format!(
            "{wrong}\n  replay with RINGKEEPER_SEED={} ({}, {:?})\n  sent:",
            self.case.seed, self.source, self.case.ending
        );
        for segment in &self.case.segments {
            let pause = if segment.await_answers { " and waited for answers" } else { "" };
            told += &format!("\n    {}{pause}", show(&segment.bytes));
        }
        told += "\n  may be forwarded:";
        for (what, allowed) in self
            .reading
            .whole
            .iter()
            .map(|one| ("", one))
            .chain(self.reading.part.iter().map(|one| ("not to its end: ", one)))
        {
            let own = if allowed.own { "by the balancer itself: " } else { "" };
            told += &format!(
                "\n    {what}{own}{} {}, host {}, body {}",
                allowed.method,
                show(&allowed.targets[0]),
                show(&allowed.host),
                show(&allowed.body)
            );
        }
        told += &format!("\n    then: {}", self.reading.stopped.unwrap_or("nothing"));
        told += "\n  replicas got:";
        for seen in seen {
            told += &format!("\n    {:?}", seen.request);
        }
        told + &format!("\n  the client got: {}\n", show(&self.answers))
    }
}
