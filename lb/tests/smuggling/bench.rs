//! Carries out vectors: sends their bytes, waits for what must come, and judges what came and what replicas got.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::recorder::{Act, HEARTBEAT, Member, Recorder, Seen, connect_from, own_answer};
use crate::support::strict::{Response, responses, show, value, values};
use crate::support::{Lb, eventually};
use crate::vector::{Answer, Outcome, Step, Vector, Want};

/// Whatever works takes far less.
const DEADLINE: Duration = Duration::from_secs(10);
/// Once this many were late the run has failed, and the rest of its report need not take for ever.
const PATIENCE: usize = 3;
const IMPATIENT: Duration = Duration::from_secs(1);

/// How a client's bytes go out.
#[derive(Clone, Copy)]
pub(crate) enum Style {
    Whole,
    /// In as many writes as there are bytes, a few hundred at most.
    Pieces,
}

type Scripts = HashMap<String, Vec<(&'static str, Vec<Act>)>>;

/// A balancer before recording replicas.
pub(crate) struct Bench {
    pub(crate) lb: Lb,
    recorder: Arc<Recorder>,
    _members: Vec<Member>,
    scripts: Arc<Mutex<Scripts>>,
    known: Mutex<Vec<Known>>,
    /// Connections of innocent clients after each vector.
    innocents: usize,
    /// Vectors that were late so far.
    late: AtomicUsize,
}

/// A sender so far.
struct Known {
    from: String,
    name: String,
    /// How much was seen from it when it was judged.
    judged: usize,
    /// What may still come: requests that were cut off are noticed when their connection ends.
    cuts: Vec<Want>,
}

/// What a client saw.
struct Got {
    responses: Result<Vec<Response>, String>,
    bytes: Vec<u8>,
    closed: bool,
    /// Something that was waited for did not come.
    late: bool,
    /// The answer to the request that was sent to see whether the connection is still good.
    tail: Option<Response>,
}

impl Bench {
    pub(crate) async fn start(members: usize, workers: usize, args: &[&str]) -> Self {
        let scripts = Arc::<Mutex<Scripts>>::default();
        let scripted = Arc::clone(&scripts);
        let recorder = Recorder::new(move |from, head| {
            let scripts = scripted.lock().unwrap();
            let script =
                scripts.get(from).and_then(|all| all.iter().find(|(target, _)| target.as_bytes() == head.target));
            script.map_or_else(|| vec![Act::Body, Act::Write(own_answer(from, head))], |(_, acts)| acts.clone())
        });
        let started: Vec<Member> = (0..members).map(|_| recorder.member()).collect();
        let list = started.iter().map(|member| member.addr.to_string()).collect::<Vec<_>>().join(",");
        let innocents = members + workers - 1;
        let workers = workers.to_string();
        let mut all = vec!["--runtime", "static", "--members", &list, "--workers", &workers, "--not-found", "pass"];
        all.extend(["--heartbeat-path", HEARTBEAT, "--heartbeat-timeout", "10s"]);
        all.extend(args);
        let lb = Lb::ready(&all).await;
        let known = Mutex::default();
        Self { lb, recorder, _members: started, scripts, known, innocents, late: AtomicUsize::new(0) }
    }

    /// An address that nobody else has.
    fn source(&self, name: &str, cuts: Vec<Want>) -> Ipv4Addr {
        let mut known = self.known.lock().unwrap();
        let number = known.len() as u32 + 1;
        let [_, high, middle, low] = number.to_be_bytes();
        let source = Ipv4Addr::new(127, 1 + high, middle, low);
        known.push(Known { from: source.to_string(), name: name.to_owned(), judged: 0, cuts });
        source
    }

    fn judged(&self, source: Ipv4Addr, seen: usize) {
        let from = source.to_string();
        let mut known = self.known.lock().unwrap();
        known.iter_mut().find(|known| known.from == from).expect("it is known").judged = seen;
    }

    /// Sends a vector. What is wrong about its outcome, one line each.
    pub(crate) async fn run(&self, vector: &Vector, style: Style) -> Vec<String> {
        let source =
            self.source(&vector.name, vector.outcomes.iter().filter_map(|outcome| outcome.cut.clone()).collect());
        let from = source.to_string();
        self.scripts.lock().unwrap().insert(from.clone(), vector.scripts.clone());
        let got = self.exchange(vector, source, style).await;
        let mut wrong = Vec::new();
        if !self.settled().await {
            wrong.push(format!("{} requests are still under way on replicas", self.recorder.busy()));
        }
        self.recorder.shut_gate();
        let mut seen = self.recorder.seen_from(&from);
        self.judged(source, seen.len());
        if got.tail.is_some() {
            seen.retain(|seen| seen.request.target != b"/tail");
        }
        let judgements: Vec<_> = vector.outcomes.iter().map(|outcome| judge(outcome, &got, &seen)).collect();
        if !judgements.iter().any(Vec::is_empty) {
            wrong.extend(judgements.into_iter().next().unwrap_or_default());
            if vector.outcomes.len() > 1 {
                wrong.push(format!("(nor is it one of the {} other right outcomes)", vector.outcomes.len() - 1));
            }
        }
        wrong
    }

    fn deadline(&self) -> Duration {
        if self.late.load(Ordering::Relaxed) < PATIENCE { DEADLINE } else { IMPATIENT }
    }

    /// Waits until no request is under way. False if that takes too long.
    async fn settled(&self) -> bool {
        let idle = eventually("replicas are idle", async || (self.recorder.busy() == 0).then_some(()));
        tokio::time::timeout(self.deadline(), idle).await.is_ok()
    }

    /// Requests of clients that have done nothing must arrive as they are, and get their own answers. Faults that the
    /// replicas found meanwhile are told as well.
    pub(crate) async fn innocents(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for _ in 0..self.innocents {
            let source = self.source("an innocent client", Vec::new());
            if let Err(trouble) = self.innocent(source).await {
                wrong.push(format!("an innocent client: {trouble}"));
            }
        }
        wrong.extend(self.recorder.faults());
        wrong
    }

    async fn innocent(&self, source: Ipv4Addr) -> Result<(), String> {
        let mut client = Client::new(connect_from(source, self.lb.addr).await, self.deadline());
        let mut wanted = Vec::new();
        for n in 0..2 {
            client.bytes.clear();
            let target = format!("/innocent/{}/{n}", u32::from(source));
            let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\nX-Marker: {source}-{n}\r\n\r\n");
            client.write(request.as_bytes(), Style::Whole).await;
            let is_whole =
                |bytes: &[u8]| responses(bytes, |_| false, false).is_ok_and(|all| all.iter().any(|one| one.whole));
            client.read_until(is_whole).await;
            let answers = responses(&client.bytes, |_| false, client.closed)?;
            let own = |answer: &Response| {
                answer.status == 200
                    && value(&answer.fields, "x-marker") == Some(format!("{source}-{n}"))
                    && answer.body == format!("{source} GET {target}").as_bytes()
            };
            if answers.len() != 1 || !own(&answers[0]) {
                return Err(format!("asked {target} and was answered {}", show(&client.bytes)));
            }
            wanted.push(target);
        }
        let seen = self.recorder.seen_from(&source.to_string());
        self.judged(source, seen.len());
        let targets: Vec<_> =
            seen.iter().map(|seen| String::from_utf8_lossy(&seen.request.target).into_owned()).collect();
        if targets != wanted || seen.iter().any(|seen| !seen.request.whole || !seen.request.body.is_empty()) {
            return Err(format!("asked {wanted:?}, and the replicas saw {seen:?}"));
        }
        Ok(())
    }

    /// What can be said only when all is over: requests from nobody, and such as came late.
    pub(crate) async fn end(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let idle = async || self.lb.replicas().await.iter().all(|replica| replica["in_flight"] == 0).then_some(());
        let idle = eventually("nothing is in flight", idle);
        if tokio::time::timeout(DEADLINE, idle).await.is_err() {
            wrong.push(format!("requests are in flight for ever: {:?}", self.lb.replicas().await));
        }
        let known = self.known.lock().unwrap();
        for Known { from, name, judged, cuts } in known.iter() {
            let late = self.recorder.seen_from(from).split_off(*judged);
            let wrongly = late.iter().filter(|seen| seen.request.whole || !cuts.iter().any(|cut| is_part(seen, cut)));
            wrong.extend(wrongly.map(|seen| format!("{name}: this came when it was over: {seen:?}")));
        }
        let strangers = self.recorder.take(|from| known.iter().any(|known| known.from == from));
        wrong.extend(strangers.iter().map(|seen| format!("from nobody: {seen:?}")));
        wrong.extend(self.recorder.faults());
        wrong.extend(self.lb.log().into_iter().filter(|line| line.contains("panicked")));
        wrong
    }

    async fn exchange(&self, vector: &Vector, source: Ipv4Addr, style: Style) -> Got {
        let mut client = Client::new(connect_from(source, self.lb.addr).await, self.deadline());
        let outcome = &vector.outcomes[0];
        let is_head = |n: usize| outcome.forwarded.get(n).is_some_and(|want| want.method == "HEAD");
        let finals = |bytes: &[u8], n: usize| {
            let is_final = |one: &&Response| (one.whole && one.status >= 200) || one.status == 101;
            responses(bytes, is_head, false).is_ok_and(|all| all.iter().filter(is_final).count() >= n)
        };
        let interim =
            |bytes: &[u8]| responses(bytes, is_head, false).is_ok_and(|all| all.iter().any(|one| one.status < 200));
        for step in &vector.steps {
            match step {
                Step::Send(sent) => client.write(sent, style).await,
                Step::HalfClose => drop(client.stream.shutdown().await),
                Step::Await(n) => client.read_until(|bytes| finals(bytes, *n)).await,
                Step::AwaitInterim => client.read_until(interim).await,
                Step::OpenGate => {
                    self.recorder.open_gate();
                    self.settled().await;
                }
            }
        }
        if outcome.closed {
            client.read_until(|_| false).await;
        } else {
            client.read_until(|bytes| finals(bytes, outcome.answers.len())).await;
            client.write(b"GET /tail HTTP/1.1\r\nHost: a\r\nX-Marker: tail\r\n\r\n", Style::Whole).await;
            client.read_until(|bytes| finals(bytes, outcome.answers.len() + 1)).await;
        }
        let Client { bytes, closed, late, .. } = client;
        self.late.fetch_add(usize::from(late), Ordering::Relaxed);
        let mut responses = responses(&bytes, is_head, closed);
        let is_tail = |last: &mut Response| value(&last.fields, "x-marker").as_deref() == Some("tail");
        let tail = responses.as_mut().ok().and_then(|all| all.pop_if(is_tail));
        Got { responses, bytes, closed, late, tail }
    }
}

struct Client {
    stream: TcpStream,
    deadline: Duration,
    bytes: Vec<u8>,
    closed: bool,
    late: bool,
}

impl Client {
    fn new(stream: TcpStream, deadline: Duration) -> Self {
        Self { stream, deadline, bytes: Vec::new(), closed: false, late: false }
    }

    /// The balancer may have closed the connection meanwhile. What it has said before can still be read.
    async fn write(&mut self, bytes: &[u8], style: Style) {
        let size = match style {
            Style::Whole => bytes.len().max(1),
            Style::Pieces => bytes.len().div_ceil(300).max(1),
        };
        for piece in bytes.chunks(size) {
            if self.stream.write_all(piece).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Reads until there is enough, or the connection has ended, or time is up.
    async fn read_until(&mut self, enough: impl Fn(&[u8]) -> bool) {
        let read = async {
            while !self.closed && !enough(&self.bytes) {
                self.closed = !self.stream.read_buf(&mut self.bytes).await.is_ok_and(|read| read > 0);
            }
        };
        // Whoever was late once will not be waited for again.
        let deadline = self.deadline;
        self.late = self.late || tokio::time::timeout(deadline, read).await.is_err();
    }
}

fn judge(outcome: &Outcome, got: &Got, seen: &[Seen]) -> Vec<String> {
    let mut wrong = Vec::new();
    let answered = || format!("{}{}", show(&got.bytes), if got.late { ", then nothing" } else { "" });
    match &got.responses {
        Err(trouble) => wrong.push(format!("the client can't read its answers: {trouble}: {}", answered())),
        Ok(all) => {
            let finals: Vec<_> = all.iter().filter(|one| one.status >= 200 || one.status == 101).collect();
            let interim: Vec<_> =
                all.iter().map(|one| one.status).filter(|status| *status < 200 && *status != 101).collect();
            let right = finals.len() == outcome.answers.len()
                && finals.iter().zip(&outcome.answers).all(|(given, wanted)| is_answer(given, wanted));
            if !right {
                wrong.push(format!("answers should be {:?}, and are {}", outcome.answers, answered()));
            }
            if outcome.interim.as_ref().is_some_and(|wanted| *wanted != interim) {
                wrong.push(format!("interim answers should be {:?}, and are {interim:?}", outcome.interim));
            }
        }
    }
    match (outcome.closed, got.closed, &got.tail) {
        (true, false, _) => wrong.push("the connection is not closed".into()),
        (false, _, None) => wrong.push(format!("the connection serves no further request: {}", answered())),
        _ => {}
    }
    let mut wanted = outcome.forwarded.iter();
    for seen in seen {
        if seen.request.whole {
            match wanted.next() {
                None => wrong.push(format!("this should not have got to a replica: {:?}", seen.request)),
                Some(want) => wrong.extend(differences(want, seen)),
            }
        } else {
            if !outcome.cut.as_ref().is_some_and(|cut| is_part(seen, cut)) {
                wrong.push(format!("this should not have got to a replica, not even in part: {:?}", seen.request));
            }
        }
    }
    wrong.extend(wanted.map(|want| format!("this did not get to a replica: {} {}", want.method, show(&want.target))));
    wrong
}

/// Is this a part of that?
fn is_part(seen: &Seen, whole: &Want) -> bool {
    let request = &seen.request;
    whole.method == request.method && whole.target == request.target && whole.body.starts_with(&request.body)
}

fn is_answer(given: &Response, wanted: &Answer) -> bool {
    let field = |name| value(&given.fields, name).unwrap_or_default().to_ascii_lowercase();
    match wanted {
        Answer::Status(status) => given.whole && given.status == *status && field("x-marker") != "poison",
        Answer::Body(body) => given.whole && given.status == 200 && given.body == body.as_bytes(),
        Answer::Broken(status) => !given.whole && given.status == *status,
        Answer::Refused(status) => {
            let says_so = String::from_utf8_lossy(&given.body).contains(r#""status":"failure""#);
            given.whole && given.status == *status && field("connection") == "close" && says_so
        }
    }
}

fn differences(want: &Want, seen: &Seen) -> Vec<String> {
    let request = &seen.request;
    let mut wrong = Vec::new();
    if (want.method, &want.target, &want.body) != (request.method.as_str(), &request.target, &request.body) {
        let (target, body) = (show(&want.target), show(&want.body));
        wrong.push(format!("a replica should have got {} {target} with {body}, and got {request:?}", want.method));
    }
    for (name, wanted) in &want.fields {
        let given = values(&request.fields, name);
        let same = match (&given[..], wanted) {
            ([given], Some(wanted)) => given.eq_ignore_ascii_case(wanted.as_bytes()),
            ([], None) => true,
            _ => false,
        };
        if !same {
            wrong.push(format!(
                "{name} should be {wanted:?}, and is {}",
                given.iter().map(|value| show(value)).collect::<Vec<_>>().join(" and ")
            ));
        }
    }
    wrong
}
