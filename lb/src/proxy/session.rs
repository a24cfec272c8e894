//! One client's connection: it is read request by request, and each is answered before the next is looked at.

use std::future::{Future, poll_fn};
use std::io::IoSlice;
use std::net::SocketAddr;
use std::ops::Range;
use std::rc::Rc;
use std::task::Poll;

use rand::{Rng, RngExt};

use super::error::ProxyError;
use super::forwarded::Peer;
use super::own::OwnRequest;
use super::retry::is_repeatable;
use super::rewrite::for_replica;
use super::worker::Worker;
use crate::http1::request::{self, RequestHead};
use crate::http1::{Framing, Refusal, field_slots};
use crate::net::buffers::{Buffer, SMALL};
use crate::net::stream::Stream;
use crate::placement::REQUEST_IDS;
use crate::watchdog::{Watch, ticks};

/// How long a connection that is being closed is listened to. Closed with something unread it would be reset, and the last
/// answer might be lost with it (RFC 9112, section 9.6).
const LINGER: std::time::Duration = std::time::Duration::from_secs(2);

/// A client's connection.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) stream: Stream,
    pub(super) watch: Watch,
    /// What it has sent, and was not looked at yet.
    pub(super) input: Buffer,
    /// The head of the current request, as replicas get it.
    pub(super) head: Vec<u8>,
    peer: Peer,
}

/// What becomes of a client's connection after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    /// The next request.
    Keep,
    /// It is closed.
    Close,
    /// It is closed, but the client may be sending still.
    Linger,
    /// It is broken off, so that the client can't take a part for the whole.
    Reset,
}

/// What is to be done with a request that goes to a replica.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) framing: Framing,
    /// What places it.
    pub(super) key: u64,
    /// The pin of the replica that its client is kept at; 0 if it has none.
    pub(super) pin: u128,
    /// It came over HTTPS, as far as is known; only asked for where it matters.
    pub(super) secure: bool,
    /// It may be sent twice.
    pub(super) repeatable: bool,
    pub(super) to_head: bool,
    pub(super) is_1_1: bool,
    pub(super) keep_alive: bool,
    pub(super) upgrade: bool,
    pub(super) expects_continue: bool,
    /// Where its path is in the head that replicas get.
    path: Range<usize>,
}

impl Plan {
    /// The request's path.
    pub(super) fn path(&self, head: &[u8]) -> String {
        String::from_utf8_lossy(head.get(self.path.clone()).unwrap_or_default()).into_owned()
    }
}

/// What was read of a connection.
enum Next {
    Forward(Plan),
    Own(Box<OwnRequest>),
    Refused(ProxyError),
    /// There is no further request.
    End,
}

/// Reads the head at the start of what a client has sent, and prepares what comes of it. `None`: more has to arrive.
fn read_head(worker: &Worker, input: &mut Buffer, peer: &Peer, out: &mut Vec<u8>) -> Result<Option<Next>, Refusal> {
    let mut slots = field_slots();
    let bytes = input.filled();
    let Some(head) = request::parse(bytes, &worker.config.head, &mut slots)? else { return Ok(None) };
    let len = head.len;
    let next = if worker.own.paths.contains(&head.target.path()) {
        Next::Own(Box::new(OwnRequest::new(&head)))
    } else {
        if let (Framing::Length(length), Some(limit)) = (head.framing, worker.config.max_body)
            && length > limit
        {
            return Err(Refusal::BodyTooLarge { limit });
        }
        *out = worker.buffers.head();
        for_replica(&head, bytes, peer, || worker.random(|rng| rng.next_u64()), out);
        Next::Forward(plan(worker, &head, peer))
    };
    input.consume(len);
    Ok(Some(next))
}

fn plan(worker: &Worker, head: &RequestHead<'_, '_>, peer: &Peer) -> Plan {
    let client = || peer.client(head.fields, &worker.config.trusted_proxies);
    let random = || worker.random(|rng| rng.random_range(REQUEST_IDS));
    let (pin, secure) = match &worker.config.sticky {
        Some(sticky) => (sticky.pin(head.fields), peer.is_secure(head.fields)),
        None => (0, false),
    };
    let start = head.method.len() + 1;
    let whole = head.target.path_and_query;
    let path = whole.find('?').unwrap_or(whole.len()) + usize::from(head.target.rootless);
    Plan {
        framing: head.framing,
        key: worker.config.hash_keys.of(head, client, random),
        pin,
        secure,
        repeatable: is_repeatable(head.method),
        to_head: head.method == "HEAD",
        is_1_1: head.is_1_1,
        keep_alive: head.keep_alive,
        upgrade: head.upgrade,
        expects_continue: head.expects_continue,
        path: start..start + path,
    }
}

/// Serves a connection to its end.
pub(super) async fn serve(worker: Rc<Worker>, stream: Stream, peer: SocketAddr) {
    let peer = Peer::new(peer.ip(), &worker.config.trusted_proxies);
    let watch = worker.watchdog.watch(worker.ticks.client);
    let mut client = Client { stream, watch, input: Buffer::default(), head: Vec::new(), peer };
    let after = loop {
        let next = client.next(&worker).await;
        let after = match next {
            Next::Forward(plan) => worker.forward(&mut client, &plan).await,
            Next::Own(request) => request.answer(&worker, &mut client).await,
            Next::Refused(error) => {
                worker.metrics.response(error.status().as_u16());
                let to_head = client.input.filled().starts_with(b"HEAD ");
                client.refuse(&worker, &error, (to_head, true), false).await
            }
            Next::End => After::Close,
        };
        worker.buffers.put_head(std::mem::take(&mut client.head));
        client.input.read_short();
        client.input.lend_back(&worker.buffers);
        if after != After::Keep {
            break after;
        }
        client.watch.set(worker.ticks.client);
    };
    match after {
        After::Keep | After::Close => {}
        After::Linger => client.linger(&worker).await,
        After::Reset => client.stream.reset_on_close(),
    }
    client.input.drop_into(&worker.buffers);
}

/// Answers a connection that is one too many, and closes it.
pub(super) async fn turn_away(worker: Rc<Worker>, stream: Stream, peer: SocketAddr, error: ProxyError) {
    let peer = Peer::new(peer.ip(), &worker.config.trusted_proxies);
    let watch = worker.watchdog.watch(ticks(LINGER));
    let mut client = Client { stream, watch, input: Buffer::default(), head: Vec::new(), peer };
    worker.metrics.response(error.status().as_u16());
    client.refuse(&worker, &error, (false, true), false).await;
    client.linger(&worker).await;
}

impl Client {
    /// Reads the next request's head, and prepares what comes of it.
    async fn next(&mut self, worker: &Worker) -> Next {
        let (stream, input, watch) = (&self.stream, &mut self.input, &self.watch);
        let (mut looked, mut begun) = (false, false);
        loop {
            let empty_lines = request::empty_lines(input.filled());
            input.consume(empty_lines);
            // Another look is worth it only when a line has ended since the last one.
            if !input.is_empty() && !std::mem::replace(&mut looked, true) {
                match read_head(worker, input, &self.peer, &mut self.head) {
                    Ok(Some(next)) => return next,
                    Ok(None) => {}
                    Err(refusal) => return Next::Refused(ProxyError::Refused(refusal)),
                }
            }
            if !input.is_empty() && !std::mem::replace(&mut begun, true) {
                watch.set(worker.ticks.header);
            }
            let before = input.len();
            let filled = poll_fn(|cx| {
                // What has arrived is read before anything else is looked at, and memory is taken only for that.
                if input.is_empty() && stream.poll_readable(cx).is_pending() {
                    if worker.draining.get() {
                        return Poll::Ready(None);
                    }
                    return watch.poll(cx).map(|_| None);
                }
                input.borrow_from(&worker.buffers);
                input.make_room(&worker.buffers, worker.config.head.bytes.max(SMALL));
                match input.poll_fill(cx, stream) {
                    Poll::Ready(filled) => Poll::Ready(Some(filled)),
                    Poll::Pending => {
                        input.lend_back(&worker.buffers);
                        if input.is_empty() && worker.draining.get() {
                            return Poll::Ready(None);
                        }
                        watch.poll(cx).map(|_| None)
                    }
                }
            })
            .await;
            match filled {
                Some(Ok(1..)) => {
                    let line_ended = input.filled()[before..].contains(&b'\n');
                    looked = !line_ended && !request::is_too_long(input.filled(), &worker.config.head);
                }
                None if begun => return Next::Refused(ProxyError::SlowHead),
                Some(Ok(0) | Err(_)) | None => return Next::End,
            }
        }
    }

    /// Says that a request will not be answered by a replica.
    pub(super) async fn refuse(
        &mut self,
        worker: &Worker,
        error: &ProxyError,
        (to_head, is_1_1): (bool, bool),
        keep_alive: bool,
    ) -> After {
        tracing::debug!(peer = %self.peer.ip, "{} {error:?}", error.status());
        let mut bytes = worker.buffers.head();
        error.write(to_head, is_1_1, keep_alive, &mut bytes);
        let said = self.say(worker, &bytes).await;
        worker.buffers.put_head(bytes);
        match said {
            true if keep_alive => After::Keep,
            true => After::Linger,
            false => After::Close,
        }
    }

    /// Writes what the balancer has to say itself. False if the client doesn't take it.
    pub(super) async fn say(&mut self, worker: &Worker, bytes: &[u8]) -> bool {
        self.watch.set(worker.ticks.idle);
        let mut slices = [IoSlice::new(bytes)];
        let mut writing = std::pin::pin!(self.stream.write_all(&mut slices, || {}));
        poll_fn(|cx| match writing.as_mut().poll(cx) {
            Poll::Ready(written) => Poll::Ready(written.is_ok()),
            Poll::Pending => self.watch.poll(cx).map(|_| false),
        })
        .await
    }

    /// Sends the end, and reads what still comes until the client has closed its side too, or for a while.
    async fn linger(&mut self, worker: &Worker) {
        if self.stream.shutdown().is_err() {
            return;
        }
        self.watch.set(ticks(LINGER));
        let (stream, input, watch) = (&self.stream, &mut self.input, &self.watch);
        poll_fn(|cx| {
            loop {
                input.consume(input.len());
                input.borrow_from(&worker.buffers);
                match input.poll_fill(cx, stream) {
                    Poll::Ready(Ok(1..)) => {}
                    Poll::Ready(_) => return Poll::Ready(()),
                    Poll::Pending => {
                        input.lend_back(&worker.buffers);
                        return watch.poll(cx).map(|_| ());
                    }
                }
            }
        })
        .await;
    }
}
