//! One request: choosing a replica, trying it, going to another, and the answer in the end.
//!
//! A try runs both directions at once (`upload`, `respond`) under one watch. Whoever ends first says how the try has ended;
//! what that means for the client, for the replica, and for another try is decided here.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::task::Poll;
use std::time::Instant;

use super::error::ProxyError;
use super::respond::{Answer, Asked, Respond};
use super::retry::{Progress, may_retry};
use super::session::{After, Client, Plan};
use super::tunnel;
use super::upload::{Deadlines, Flow, Upload, UploadEnd, Way};
use super::worker::Worker;
use crate::net::buffers::Buffer;
use crate::net::is_own_trouble;
use crate::net::stream::Stream;
use crate::policy::PickCx;
use crate::pool::Lease;
use crate::replica::{Generation, Health};
use crate::watchdog::{Alarm, Watch};
use rand::Rng;

/// Why nobody waits for a replica any longer.
const LOST: &str = "it does not answer any more";

/// Why a try gave no response.
#[derive(Debug)]
struct Failure {
    progress: Progress,
    error: ProxyError,
    /// A connection that had been used before was closed: as idle, perhaps.
    reused: bool,
    /// Whatever may be tried, the client can't be asked for more.
    is_final: bool,
}

impl Failure {
    fn new(progress: Progress, error: ProxyError) -> Self {
        Self { progress, error, reused: false, is_final: false }
    }
}

/// How a try has ended.
enum Tried {
    /// The request is over, for better or worse.
    Over(After),
    /// Nothing has been said to the client.
    Failed(Failure),
}

/// How the two directions of a try have ended.
enum End {
    Answer(Answer),
    Upload(UploadEnd),
    Alarm(Alarm),
}

/// One request on its way.
struct Exchange<'p> {
    plan: &'p Plan,
    upload: Upload,
    deadlines: Deadlines,
    began: Instant,
}

impl Exchange<'_> {
    fn is_repeatable(&self) -> bool {
        self.plan.repeatable && self.upload.is_kept()
    }
}

impl Worker {
    /// Answers a client's request, one way or the other. What it said is at the start of the client's buffer no more; its
    /// body is.
    pub(super) async fn forward(&self, client: &mut Client, plan: &Plan) -> After {
        let config = &self.config;
        let mut exchange = Exchange {
            plan,
            upload: Upload::new(plan.framing, if plan.repeatable { config.retry_body } else { 0 }, config.max_body),
            deadlines: Deadlines::new(self.ticks.idle, self.ticks.response, self.ticks.one_try),
            began: Instant::now(),
        };
        self.retries.count_request();
        let error = match self.exchange(client, &mut exchange).await {
            Ok(after) => return after,
            Err(error) => error,
        };
        if error == ProxyError::NoReplica {
            self.metrics.unserved.inc();
        }
        self.metrics.response(error.status().as_u16());
        self.metrics.duration.observe(exchange.began.elapsed().as_secs_f64());
        // What came behind a request for another protocol was not meant for this one.
        let in_doubt = plan.upgrade && !(client.input.is_empty() && client.stream.is_quiet());
        let goes_on = error.keeps_connection() && plan.keep_alive && !in_doubt;
        let keep_alive = goes_on && exchange.upload.finish(&mut client.input) && !self.draining.get();
        client.refuse(self, &error, (plan.to_head, plan.is_1_1), keep_alive).await
    }

    async fn exchange(&self, client: &mut Client, exchange: &mut Exchange<'_>) -> Result<After, ProxyError> {
        let Plan { key, pin, .. } = *exchange.plan;
        let (mut tried, mut sent, mut stale) = (Vec::<Generation>::new(), 0, false);
        let mut free_retry = true;
        let mut last = ProxyError::NoReplica;
        loop {
            let random = self.random(|rng| rng.next_u64());
            let cx = PickCx { key, tried: &tried, random, now: self.pool.now(), limit: None };
            let pinned = if pin == 0 { None } else { self.pool.acquire_pinned(pin, &cx) };
            let lease = match pinned.or_else(|| self.pool.acquire(&cx)) {
                Some(lease) => lease,
                // Nobody else is left, but a replica closed an idle connection under the request: a new one may do.
                None if std::mem::take(&mut stale) => {
                    tried.clear();
                    continue;
                }
                None => return Err(last),
            };
            if let Some(limit) = self.config.max_in_flight
                && tried.is_empty()
                && lease.replica().pool_load().in_flight() > limit
            {
                return Err(ProxyError::Busy { limit });
            }
            let generation = lease.replica().generation;
            // Once a try went wrong, no connection is trusted that might be as old.
            let trust_idle = last == ProxyError::NoReplica;
            let failure = match self.attempt(client, exchange, lease, trust_idle).await {
                Tried::Over(after) => return Ok(after),
                Tried::Failed(failure) => failure,
            };
            tried.push(generation);
            tracing::debug!(generation = generation.0, "try {} failed: {:?}", tried.len(), failure.error);
            let repeatable = exchange.is_repeatable();
            // A connection that was closed as idle under a request says nothing about the replica, nor about the request.
            let is_free = failure.reused && failure.progress == Progress::Sent && repeatable && free_retry;
            sent += u32::from(failure.progress != Progress::NotSent && !is_free);
            stale = failure.reused;
            let goes_on = match failure.progress {
                _ if failure.is_final => false,
                _ if is_free => {
                    free_retry = false;
                    true
                }
                Progress::Sent if may_retry(Progress::Sent, repeatable, sent, self.config.tries) => {
                    let paid = self.retries.pay(self.second());
                    if !paid {
                        self.metrics.retries_denied.inc();
                    }
                    paid
                }
                progress => may_retry(progress, repeatable, sent, self.config.tries) && progress != Progress::Sent,
            };
            if !goes_on {
                return Err(failure.error);
            }
            last = failure.error;
            self.metrics.retries.inc();
        }
    }

    async fn attempt(&self, client: &mut Client, exchange: &mut Exchange<'_>, lease: Lease, trust_idle: bool) -> Tried {
        let repeatable = exchange.is_repeatable();
        let replica = lease.replica();
        let idle = trust_idle.then(|| self.connections.take(replica.generation, !repeatable)).flatten();
        let reused = idle.is_some();
        let stream = match idle {
            Some(stream) => stream,
            None => match self.connect(&lease, &client.watch).await {
                Ok(stream) => stream,
                Err(error) => return Tried::Failed(Failure::new(Progress::NotSent, error)),
            },
        };
        client.watch.set(exchange.deadlines.idle);
        if repeatable {
            // One that can't go elsewhere once it was sent waits for a lost replica: it may come back.
            client.watch.also_for(replica);
            if replica.health() == Health::Lost {
                // It was found out while the connection was being made.
                let error = ProxyError::BadGateway { hostname: replica.hostname.to_string(), reason: LOST.into() };
                return Tried::Failed(Failure::new(Progress::NotSent, error));
            }
        }
        let mut buffer = Buffer::default();
        let flow = Flow::default();
        let end = self.both_ways(client, exchange, &lease, &stream, &mut buffer, &flow).await;
        let closed = matches!(end, End::Answer(Answer::None { .. }));
        let tried = self.verdict(client, exchange, lease, stream, &flow, end);
        let tried = match tried {
            Verdict::Tunnel(lease, stream) => {
                let _counted = self.metrics.count_upgrade();
                Tried::Over(tunnel::run(self, client, lease, stream, &mut buffer).await)
            }
            Verdict::Tried(Tried::Failed(failure)) => Tried::Failed(Failure { reused: reused && closed, ..failure }),
            Verdict::Tried(over) => over,
        };
        buffer.drop_into(&self.buffers);
        tried
    }

    /// Runs both directions until one says that the try is over.
    async fn both_ways(
        &self,
        client: &mut Client,
        exchange: &mut Exchange<'_>,
        lease: &Lease,
        stream: &Stream,
        buffer: &mut Buffer,
        flow: &Flow,
    ) -> End {
        let plan = exchange.plan;
        let way = Way { flow, watch: &client.watch, deadlines: &exchange.deadlines, buffers: &self.buffers };
        let on_status = |status: u16| {
            lease.served();
            if let Some(at) = flow.uploaded_at.get() {
                let waited = at.elapsed();
                lease.waited(waited);
                self.pool.measure(lease.replica(), || waited);
            }
            if status != 404 || !self.hides_not_found() {
                self.metrics.response(status);
                self.metrics.duration.observe(exchange.began.elapsed().as_secs_f64());
            }
        };
        let asked = Asked {
            to_head: plan.to_head,
            is_1_1: plan.is_1_1,
            keep_alive: plan.keep_alive && !self.draining.get(),
            upgrade: plan.upgrade,
            expects_continue: plan.expects_continue,
            hides_not_found: self.hides_not_found(),
        };
        // The client is kept at whoever answers: its own replica may have failed since it was pinned.
        let pin = lease.replica().pin;
        let unpinned = self.config.sticky.as_ref().filter(|_| pin != plan.pin);
        let cookie = unpinned.map(|sticky| sticky.field(pin, plan.secure)).unwrap_or_default();
        let mut respond = Respond { asked, added: &cookie, buffer, way, on_status: &on_status };
        let mut up = pin!(exchange.upload.run(&client.head, &client.stream, &mut client.input, stream, way));
        let mut down = pin!(respond.run(stream, &client.stream));
        let mut refused = false;
        poll_fn(|cx| {
            // Once all has gone, it is the response that is waited for.
            let uploaded = flow.uploaded.get();
            if uploaded && let Poll::Ready(answer) = down.as_mut().poll(cx) {
                return Poll::Ready(End::Answer(answer));
            }
            if !refused {
                match up.as_mut().poll(cx) {
                    // It may have answered before it closed its ear.
                    Poll::Ready(UploadEnd::ReplicaDeaf) => refused = true,
                    Poll::Ready(end) => return Poll::Ready(End::Upload(end)),
                    Poll::Pending => {}
                }
            }
            if !uploaded && flow.uploaded.get() {
                flow.uploaded_at.set(Some(Instant::now()));
            }
            if !uploaded && let Poll::Ready(answer) = down.as_mut().poll(cx) {
                return Poll::Ready(End::Answer(answer));
            }
            client.watch.poll(cx).map(End::Alarm)
        })
        .await
    }
}

enum Verdict {
    Tried(Tried),
    Tunnel(Lease, Stream),
}

impl Worker {
    /// What the end of a try means.
    fn verdict(
        &self,
        client: &Client,
        exchange: &Exchange<'_>,
        lease: Lease,
        stream: Stream,
        flow: &Flow,
        end: End,
    ) -> Verdict {
        let hostname = || lease.replica().hostname.to_string();
        let keep = |stream: Stream, reusable: bool, to_be_looked_at: bool| {
            if reusable && flow.uploaded.get() {
                self.connections.put(lease.replica(), stream, to_be_looked_at, self.watchdog.now());
            }
        };
        let failed = |progress, error, is_final| {
            lease.failed();
            if let Some(at) = flow.uploaded_at.get() {
                self.pool.measure_failure(lease.replica(), || at.elapsed());
            }
            Verdict::Tried(Tried::Failed(Failure { is_final, ..Failure::new(progress, error) }))
        };
        let over = |after| Verdict::Tried(Tried::Over(after));
        // A length or a last chunk that is missing says that this is not all. Where the end of the connection is the end of
        // the body, only a reset does.
        let broken_off = if flow.until_close.get() { After::Reset } else { After::Close };
        match end {
            End::Answer(Answer::Whole { reusable, to_be_looked_at, keep_alive }) => {
                keep(stream, reusable, to_be_looked_at);
                // What came behind a request for another protocol was not meant for this one.
                let in_doubt = exchange.plan.upgrade && !client.input.is_empty();
                over(match keep_alive && !in_doubt {
                    true => After::Keep,
                    // It asked for the end itself, so it sends nothing that could cross with it.
                    false if !exchange.plan.keep_alive && flow.uploaded.get() && client.input.is_empty() => {
                        After::Close
                    }
                    false => After::Linger,
                })
            }
            End::Answer(Answer::NotFound { reusable }) => {
                keep(stream, reusable, false);
                let error = ProxyError::NotFound { path: exchange.plan.path(&client.head) };
                let is_final = !flow.uploaded.get();
                Verdict::Tried(Tried::Failed(Failure { is_final, ..Failure::new(Progress::Answered, error) }))
            }
            End::Answer(Answer::Switched) => Verdict::Tunnel(lease, stream),
            End::Answer(Answer::None { reason }) => {
                let progress = match (flow.answered.get(), flow.sent.get()) {
                    (true, _) => Progress::Answered,
                    (false, true) => Progress::Sent,
                    (false, false) => Progress::NotSent,
                };
                self.pool.doubt(lease.replica());
                failed(progress, ProxyError::BadGateway { hostname: hostname(), reason }, false)
            }
            End::Answer(Answer::Bad { reason }) => {
                let error = ProxyError::BadGateway { hostname: hostname(), reason: reason.into() };
                failed(Progress::Answered, error, false)
            }
            End::Answer(Answer::BadBody { reason }) => {
                failed(Progress::Answered, ProxyError::BadBody { hostname: hostname(), reason }, false)
            }
            End::Answer(Answer::Broken { reason }) => {
                lease.failed();
                tracing::debug!(hostname = %lease.replica().hostname, "a response broke off: {reason}");
                over(broken_off)
            }
            End::Answer(Answer::ClientGone) | End::Upload(UploadEnd::ClientGone | UploadEnd::ReplicaDeaf) => {
                if let Some(at) = flow.uploaded_at.get().filter(|_| !flow.responding.get()) {
                    self.pool.measure_wait(lease.replica(), || at.elapsed());
                }
                over(After::Close)
            }
            End::Upload(UploadEnd::Refused(_)) | End::Alarm(_) if flow.responding.get() => {
                if matches!(end, End::Alarm(_)) && !flow.waits_for_taker.get() {
                    lease.failed();
                    tracing::debug!(hostname = %lease.replica().hostname, "a response broke off: it stalled");
                }
                over(broken_off)
            }
            End::Upload(UploadEnd::Refused(refusal)) => Verdict::Tried(Tried::Failed(Failure {
                is_final: true,
                ..Failure::new(Progress::Sent, ProxyError::Refused(refusal))
            })),
            End::Alarm(Alarm::Late) if flow.waits_for_body.get() || flow.waits_for_taker.get() => {
                Verdict::Tried(Tried::Failed(Failure {
                    is_final: true,
                    ..Failure::new(Progress::Sent, ProxyError::SlowBody)
                }))
            }
            End::Alarm(Alarm::Late) => {
                let no_time = exchange.deadlines.is_over(self.watchdog.now());
                let progress = if flow.answered.get() { Progress::Answered } else { Progress::Sent };
                failed(progress, ProxyError::Timeout { hostname: hostname() }, no_time)
            }
            End::Alarm(Alarm::Lost) => {
                let reason = LOST.to_owned();
                let progress = if flow.answered.get() { Progress::Answered } else { Progress::Sent };
                failed(progress, ProxyError::BadGateway { hostname: hostname(), reason }, false)
            }
        }
    }

    /// A new connection to the leased replica.
    async fn connect(&self, lease: &Lease, watch: &Watch) -> Result<Stream, ProxyError> {
        let replica = lease.replica();
        watch.set(self.ticks.connect);
        watch.also_for(replica);
        let reason = match guarded(watch, Stream::connect(replica.addr)).await {
            Ok(Ok(stream)) => {
                self.metrics.connects.inc();
                return Ok(stream);
            }
            Ok(Err(error)) => {
                if !is_own_trouble(&error) {
                    self.pool.suspect(replica);
                }
                error.to_string()
            }
            Err(Alarm::Late) => {
                self.pool.suspect(replica);
                "it accepted no connection in time".into()
            }
            Err(Alarm::Lost) => LOST.into(),
        };
        lease.failed();
        Err(ProxyError::BadGateway { hostname: replica.hostname.to_string(), reason })
    }
}

/// `future`'s outcome, or the alarm that ends the wait for it.
async fn guarded<T>(watch: &Watch, future: impl Future<Output = io::Result<T>>) -> Result<io::Result<T>, Alarm> {
    let mut future = pin!(future);
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Ok(output)),
        Poll::Pending => watch.poll(cx).map(Err),
    })
    .await
}
