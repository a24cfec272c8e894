//! Load at a fixed rate, and how long its requests take.
//!
//! Requests become due on a fixed schedule, whatever the proxy does, and wait for a free connection if there is none. Their
//! time counts from when they were due: a stall shows in all requests that it delayed, not just in those that were under
//! way (G. Tene calls its neglect "coordinated omission").

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::LocalSet;

/// A minute, the longest time that is told apart.
const LONGEST: u64 = 60_000_000_000;
/// A request that takes longer, from when it is sent, has failed.
const ANSWER: Duration = Duration::from_secs(30);
/// For what is still under way when the last request became due.
const REST: Duration = Duration::from_secs(40);

/// One request that is done.
pub(crate) struct Done<'a> {
    /// Which one, from 0: it was due so many intervals after the first.
    pub(crate) number: u32,
    /// From when it was due to the answer's last byte, or to the failure.
    pub(crate) took: Duration,
    /// The answer's body.
    pub(crate) body: io::Result<&'a [u8]>,
}

/// Told of each request that is done; its error ends the run.
type Note = dyn Fn(Done<'_>) -> io::Result<()>;

/// What is asked for.
pub(crate) enum Paths {
    One(&'static str),
    /// Made of a request's number.
    Each(Box<dyn Fn(u32) -> String>),
}

impl From<&'static str> for Paths {
    fn from(path: &'static str) -> Self {
        Self::One(path)
    }
}

/// Requests as they are written: one for all that is ready, or one that is made each time.
enum Requests {
    One(String),
    Each(Box<dyn Fn(u32) -> String>),
}

/// Requests that are due, and those who may take them.
struct Schedule {
    addr: SocketAddr,
    requests: Requests,
    due: RefCell<VecDeque<(u32, Instant)>>,
    some: Notify,
    /// Nothing further will become due.
    over: Cell<bool>,
    note: Box<Note>,
}

/// Sends `rate` requests a second over `connections` for `seconds`. Nanoseconds from when they were due to the answer's last
/// byte. A failed request is an error.
pub(crate) async fn run(
    addr: SocketAddr,
    path: &'static str,
    rate: f64,
    connections: usize,
    seconds: u64,
) -> Result<Histogram<u64>, String> {
    let latency = Histogram::new_with_bounds(1, LONGEST, 3).map_err(|error| error.to_string())?;
    let latency = Rc::new(RefCell::new(latency));
    let recorded = Rc::clone(&latency);
    let note = move |done: Done<'_>| {
        done.body?;
        let nanos = u64::try_from(done.took.as_nanos()).unwrap_or(LONGEST).clamp(1, LONGEST);
        recorded.borrow_mut().saturating_record(nanos);
        Ok(())
    };
    let connections = Connections::open(addr, path, connections).await?;
    connections.run(rate, (rate * seconds as f64) as u32, note).await?;
    let latency = latency.borrow().clone();
    Ok(latency)
}

/// Connections that are open already: what they cost is no part of the first requests' time.
pub(crate) struct Connections {
    addr: SocketAddr,
    paths: Paths,
    streams: Vec<TcpStream>,
}

impl Connections {
    pub(crate) async fn open(addr: SocketAddr, paths: impl Into<Paths>, count: usize) -> Result<Self, String> {
        let mut streams = Vec::with_capacity(count);
        for _ in 0..count {
            streams.push(connect(addr).await.map_err(|error| format!("connect: {error}"))?);
        }
        Ok(Self { addr, paths: paths.into(), streams })
    }

    /// Sends `total` requests, `rate` a second, the first at once, and tells `note` of each. An error if `note` has one, or
    /// if not all are done some time after the last was due.
    pub(crate) async fn run(
        self,
        rate: f64,
        total: u32,
        note: impl Fn(Done<'_>) -> io::Result<()> + 'static,
    ) -> Result<(), String> {
        self.run_while(rate, |sent| sent < total, note).await
    }

    /// The same for as long as `more` says so, which is told how many have become due.
    pub(crate) async fn run_while(
        self,
        rate: f64,
        more: impl Fn(u32) -> bool,
        note: impl Fn(Done<'_>) -> io::Result<()> + 'static,
    ) -> Result<(), String> {
        let interval = Duration::from_secs_f64(1.0 / rate);
        self.run_by(interval, |sent| more(sent).then(|| interval * sent), note).await
    }

    /// The same at times of any pattern: `due` says how long after the first the request with a number is due, `None` behind
    /// the last. It is looked at every `tick`.
    pub(crate) async fn run_by(
        self,
        tick: Duration,
        due: impl Fn(u32) -> Option<Duration>,
        note: impl Fn(Done<'_>) -> io::Result<()> + 'static,
    ) -> Result<(), String> {
        let requests = match self.paths {
            Paths::One(path) => Requests::One(request(path)),
            Paths::Each(path) => Requests::Each(path),
        };
        let schedule = Rc::new(Schedule {
            addr: self.addr,
            requests,
            due: RefCell::default(),
            some: Notify::new(),
            over: Cell::new(false),
            note: Box::new(note),
        });
        let local = LocalSet::new();
        let all = local.run_until(async {
            let mut under_way = Vec::new();
            for stream in self.streams {
                let schedule = Rc::clone(&schedule);
                under_way.push(tokio::task::spawn_local(async move { serve(stream, &schedule).await }));
            }
            dispatch(&schedule, tick, due).await?;
            let rest = async {
                for connection in under_way {
                    connection.await.map_err(io::Error::other)??;
                }
                Ok(())
            };
            tokio::time::timeout(REST, rest).await.map_err(io::Error::other)?
        });
        all.await.map_err(|error: io::Error| error.to_string())
    }
}

fn request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n")
}

async fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Makes requests due, on time: a timer of the kernel's, as the runtime's own has a grain of a millisecond.
async fn dispatch(schedule: &Schedule, tick: Duration, due: impl Fn(u32) -> Option<Duration>) -> io::Result<()> {
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
    timer.set(Expiration::Interval(TimeSpec::from_duration(tick)), TimerSetTimeFlags::empty())?;
    let fd: OwnedFd = timer.as_fd().try_clone_to_owned()?;
    let ticks = watched(fd)?;
    let begin = Instant::now();
    let mut sent = 0;
    while due(sent).is_some() {
        let now = begin.elapsed();
        while let Some(at) = due(sent).filter(|at| *at <= now) {
            schedule.due.borrow_mut().push_back((sent, begin + at));
            schedule.some.notify_one();
            sent += 1;
        }
        let mut ready = ticks.readable().await?;
        // How many intervals have passed is of no interest: the clock says it.
        let _ = ready.try_io(|fd| nix::unistd::read(fd.get_ref(), &mut [0; 8]).map_err(io::Error::from));
    }
    schedule.over.set(true);
    schedule.some.notify_waiters();
    Ok(())
}

#[allow(unsafe_code, reason = "the runtime must be told that a descriptor stays what it is")]
fn watched(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` names the same open file until it is dropped, which is after the runtime has let go of it.
    Ok(unsafe { AsyncFd::register(fd) }?)
}

/// One connection: takes what is due, one after the other. Another takes its place after a failure.
async fn serve(stream: TcpStream, schedule: &Schedule) -> io::Result<()> {
    let mut kept = Some(stream);
    let mut buffer = Vec::with_capacity(4096);
    loop {
        let due = schedule.due.borrow_mut().pop_front();
        let Some((number, due)) = due else {
            if schedule.over.get() {
                return Ok(());
            }
            schedule.some.notified().await;
            continue;
        };
        let body = answered(&mut kept, schedule, number, &mut buffer).await;
        let took = due.elapsed();
        if body.is_err() {
            kept = None;
        }
        (schedule.note)(Done { number, took, body: body.map(|body| &buffer[body..]) })?;
    }
}

/// One request and its answer, in time: where in `buffer` its body begins.
async fn answered(
    kept: &mut Option<TcpStream>,
    schedule: &Schedule,
    number: u32,
    buffer: &mut Vec<u8>,
) -> io::Result<usize> {
    let answered = tokio::time::timeout(ANSWER, exchange(kept, schedule, number, buffer)).await;
    answered.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")))
}

/// The same, however long it takes.
async fn exchange(
    kept: &mut Option<TcpStream>,
    schedule: &Schedule,
    number: u32,
    buffer: &mut Vec<u8>,
) -> io::Result<usize> {
    let stream = match kept {
        Some(stream) => stream,
        None => kept.insert(connect(schedule.addr).await?),
    };
    match &schedule.requests {
        Requests::One(request) => stream.write_all(request.as_bytes()).await?,
        Requests::Each(path) => stream.write_all(request(&path(number)).as_bytes()).await?,
    }
    buffer.clear();
    loop {
        if let Some(body) = whole(buffer)? {
            return Ok(body);
        }
        if stream.read_buf(buffer).await? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed before the answer's end"));
        }
    }
}

/// Where its body begins, once this is one whole answer. Anything but a 200 with a Content-Length is an error.
pub(crate) fn whole(bytes: &[u8]) -> io::Result<Option<usize>> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut answer = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(head) = answer.parse(bytes).map_err(|error| bad(&error.to_string()))? else {
        return Ok(None);
    };
    if answer.code != Some(200) {
        return Err(bad(&format!("status {}", answer.code.unwrap_or_default())));
    }
    let length = answer.headers.iter().find(|field| field.name.eq_ignore_ascii_case("content-length"));
    let length: Option<usize> = length.and_then(|field| std::str::from_utf8(field.value).ok()?.parse().ok());
    let end = head + length.ok_or_else(|| bad("no content-length"))?;
    if bytes.len() > end { Err(bad("bytes behind the answer")) } else { Ok((bytes.len() == end).then_some(head)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use tokio::net::TcpListener;

    #[test]
    fn an_answer_is_whole_at_its_last_byte() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        assert_eq!(whole(answer).unwrap(), Some(answer.len() - 2));
        assert!((0..answer.len()).all(|end| whole(&answer[..end]).unwrap().is_none()));
        assert!(whole(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok!").is_err());
        assert!(whole(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n").is_err());
    }

    /// Answers at once, but stalls before the first answer.
    async fn stalling(listener: TcpListener, stall: Duration) {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut buffer = [0; 1024];
        let mut first = true;
        while stream.read(&mut buffer).await.unwrap_or(0) > 0 {
            if std::mem::take(&mut first) {
                tokio::time::sleep(stall).await;
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_stall_counts_for_every_request_that_it_delays() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let server = tokio::spawn(stalling(listener, Duration::from_millis(500)));
        let latency = run(addr, "/", 200.0, 1, 1).await.unwrap();
        server.abort();
        assert_eq!(latency.len(), 200);
        // One request waited for the server itself; the hundred that became due meanwhile waited for that one. Without the
        // correction a single one would be slow.
        let slow = latency.count_between(100_000_000, LONGEST);
        assert!(slow >= 70, "{slow}");
    }

    /// Answers each request with its path.
    async fn echoing(listener: TcpListener) {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut buffer = [0; 1024];
        loop {
            let length = stream.read(&mut buffer).await.unwrap_or(0);
            let Some(path) = std::str::from_utf8(&buffer[..length]).unwrap().split(' ').nth(1) else { return };
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}", path.len());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn each_request_has_the_path_that_is_made_of_its_number() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let server = tokio::spawn(echoing(listener));
        let asked = Rc::new(RefCell::new(Vec::new()));
        let noted = Rc::clone(&asked);
        let note = move |done: Done<'_>| {
            noted.borrow_mut().push(String::from_utf8_lossy(done.body?).into_owned());
            Ok(())
        };
        let paths = Paths::Each(Box::new(|number| format!("/{}", number * 11)));
        Connections::open(addr, paths, 1).await.unwrap().run(500.0, 3, note).await.unwrap();
        server.await.unwrap();
        assert_eq!(*asked.borrow(), ["/0", "/11", "/22"]);
    }

    /// Answers every second request, and hangs up on the others.
    async fn fickle(listener: TcpListener) {
        for answers in (0_u32..).map(|count| count.is_multiple_of(2)) {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 1024];
            if stream.read(&mut buffer).await.unwrap_or(0) > 0 && answers {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
                let _ = stream.read(&mut buffer).await;
            }
        }
    }

    #[tokio::test]
    async fn a_failure_is_told_and_the_next_request_has_a_new_connection() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let server = tokio::spawn(fickle(listener));
        let told = Rc::new(RefCell::new(Vec::new()));
        let noted = Rc::clone(&told);
        let note = move |done: Done<'_>| {
            noted.borrow_mut().push((done.number, done.body.ok().map(<[u8]>::to_vec)));
            Ok(())
        };
        Connections::open(addr, "/", 1).await.unwrap().run(100.0, 7, note).await.unwrap();
        server.abort();
        assert!(server.await.unwrap_err().is_cancelled());
        let ok = || Some(b"ok".to_vec());
        // An answer, the connection's end in place of the next one, a connection that is hung up on, and so on.
        let wanted = [ok(), None, None, ok(), None, None, ok()];
        assert_eq!(*told.borrow(), (0..).zip(wanted).collect::<Vec<_>>());
        let failed = run(addr, "/", 100.0, 1, 1).await.unwrap_err();
        assert!(failed.contains("connect"), "{failed}");
    }
}
