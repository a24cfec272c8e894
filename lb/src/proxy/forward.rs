//! One request: choosing a replica, trying it, going to another, and handing back the answer.

use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Instant;

use http::header::{HOST, HeaderValue};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rand::rngs::SmallRng;
use rand::{Rng, RngExt};
use tokio::net::TcpStream;

use super::body::{Held, LeasedBody, ProxyBody, ReplicaBody, Upload, UploadProgress};
use super::connections::Sender;
use super::error::ProxyError;
use super::headers::{X_REQUEST_ID, for_client, for_replica, frame_body};
use super::retry::{Progress, is_repeatable, may_retry};
use super::watchdog::{Alarm, Watch, ticks};
use super::worker::Shared;
use super::{NotFound, ProxyConfig};
use crate::metrics::ProxyMetrics;
use crate::net::is_own_trouble;
use crate::policy::PickCx;
use crate::pool::{Lease, PoolReader};
use crate::replica::Generation;
use crate::ring::REQUEST_IDS;

/// A body that is not passed on is still read to its end if it is no longer than this, so that its connection can be kept.
const UNWANTED_BODY: u64 = 64 * 1024;

/// Who sends the requests of a connection.
#[derive(Debug, Clone)]
pub(super) struct Client {
    ip: IpAddr,
    /// The same as a header's value.
    header: HeaderValue,
}

impl Client {
    pub(super) fn new(ip: IpAddr) -> Self {
        let ip = ip.to_canonical();
        // An address is made of digits, letters, dots and colons.
        let header = HeaderValue::from_str(&ip.to_string()).unwrap_or(HeaderValue::from_static("unknown"));
        Self { ip, header }
    }
}

/// The proxy of one worker.
pub(super) struct Forwarder {
    config: Arc<ProxyConfig>,
    pool: PoolReader,
    shared: Arc<Shared>,
    metrics: ProxyMetrics,
    rng: Mutex<SmallRng>,
    connect_ticks: u64,
    response_ticks: u64,
    idle_ticks: u64,
}

/// Why a try gave no response.
struct Failure {
    progress: Progress,
    error: ProxyError,
    /// On a connection that had been used before: it may just have been closed as idle.
    reused: bool,
}

/// One request on its way.
struct Exchange {
    head: Parts,
    body: Option<Incoming>,
    repeatable: bool,
}

impl Forwarder {
    pub(super) fn new(
        config: Arc<ProxyConfig>,
        pool: PoolReader,
        shared: Arc<Shared>,
        metrics: ProxyMetrics,
        rng: SmallRng,
    ) -> Self {
        let connect_ticks = ticks(config.connect_timeout);
        let response_ticks = ticks(config.response_timeout);
        let idle_ticks = ticks(config.idle_timeout);
        Self { config, pool, shared, metrics, rng: Mutex::new(rng), connect_ticks, response_ticks, idle_ticks }
    }

    fn random<T>(&self, draw: impl FnOnce(&mut SmallRng) -> T) -> T {
        draw(&mut self.rng.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Answers a client's request, one way or the other.
    pub(super) async fn forward(&self, request: Request<Incoming>, client: &Client) -> Response<ProxyBody> {
        let began = Instant::now();
        let path = match self.config.not_found {
            NotFound::Assignment => request.uri().path_and_query().cloned(),
            NotFound::Pass => None,
        };
        let response = match self.exchange(request, client).await {
            Ok(response)
                if response.status() == StatusCode::NOT_FOUND && self.config.not_found == NotFound::Assignment =>
            {
                read_to_end(response.into_body()).await;
                let path = path.as_ref().map_or("/", PathAndQuery::path).to_owned();
                ProxyError::NotFound { path }.into_response()
            }
            Ok(response) => response.map(ProxyBody::leased),
            Err(error) => {
                if error == ProxyError::NoReplica {
                    self.metrics.unserved.inc();
                }
                error.into_response()
            }
        };
        self.metrics.response(response.status());
        self.metrics.duration.observe(began.elapsed().as_secs_f64());
        response
    }

    async fn exchange(&self, request: Request<Incoming>, client: &Client) -> Result<Response<LeasedBody>, ProxyError> {
        let (mut head, body) = request.into_parts();
        if head.method == Method::CONNECT {
            return Err(ProxyError::Connect);
        }
        let key = self.config.hash_key.of(&head, client.ip, || self.random(|rng| rng.random_range(REQUEST_IDS)));
        to_origin_form(&mut head);
        for_replica(&mut head.headers, &client.header, || request_id(self.random(|rng| rng.next_u64())));
        head.version = Version::HTTP_11;
        let body = (!body.is_end_stream()).then_some(body);
        if body.is_some() {
            frame_body(&mut head.headers);
        }
        let repeatable = body.is_none() && is_repeatable(&head.method);
        let mut exchange = Exchange { head, body, repeatable };

        let (mut tried, mut sent, mut stale) = (Vec::<Generation>::new(), 0, false);
        let mut last = ProxyError::NoReplica;
        loop {
            let lease = match self.pool.acquire(&PickCx { key, tried: &tried }) {
                Some(lease) => lease,
                // Nobody else is left, but a replica closed an idle connection under the request: a new one may do.
                None if std::mem::take(&mut stale) => {
                    tried.clear();
                    continue;
                }
                None => return Err(last),
            };
            let generation = lease.replica().generation;
            // Once a try went wrong, no connection is trusted that might be as old.
            let trust_idle = tried.is_empty() && last == ProxyError::NoReplica;
            let failure = match self.attempt(&mut exchange, lease, trust_idle).await {
                Ok(response) => return Ok(response),
                Err(failure) => failure,
            };
            tried.push(generation);
            sent += u32::from(failure.progress != Progress::NotSent);
            stale = failure.reused && sent <= 1;
            tracing::debug!(
                request_id = ?exchange.head.headers.get(X_REQUEST_ID),
                generation = generation.0,
                "try {} failed: {:?}", tried.len(), failure.error
            );
            let final_word = matches!(failure.error, ProxyError::Timeout { .. } | ProxyError::ClientBody);
            if final_word || !may_retry(failure.progress, exchange.repeatable, sent, self.config.tries) {
                return Err(failure.error);
            }
            last = failure.error;
            self.metrics.retries.inc();
        }
    }

    async fn attempt(
        &self,
        exchange: &mut Exchange,
        lease: Lease,
        trust_idle: bool,
    ) -> Result<Response<LeasedBody>, Failure> {
        let replica = Arc::clone(lease.replica());
        if trust_idle && !exchange.repeatable {
            // An idle connection that was closed should be known as such before something is sent that can't be sent
            // twice: the runtime looks at its sockets once in between.
            tokio::task::yield_now().await;
        }
        let mut idle = trust_idle.then(|| self.shared.connections.take(replica.generation)).flatten();
        loop {
            let reused = idle.is_some();
            let watch = Arc::new(self.shared.watchdog.watch(self.connect_ticks, Some(&replica)));
            let mut sender = match idle.take() {
                Some(sender) => sender,
                None => self.connect(&lease, &watch).await?,
            };
            let ticks = if exchange.body.is_some() { self.idle_ticks } else { self.response_ticks };
            if exchange.repeatable {
                watch.renew(ticks);
            } else {
                // It can't go elsewhere once it was sent, so a lost replica is waited for: it may come back.
                watch.only_deadline(ticks);
            }
            let progress = Arc::<UploadProgress>::default();
            let request = exchange.request(|inner| {
                let (watch, progress) = (Arc::clone(&watch), Arc::clone(&progress));
                let (idle_ticks, response_ticks) = (self.idle_ticks, self.response_ticks);
                Upload { inner, watch, idle_ticks, response_ticks, progress }
            });
            let outcome = guarded(&watch, sender.try_send_request(request)).await;
            let failed = |progress, error| Failure { progress, error, reused };
            let error = match outcome {
                Ok(Ok(response)) => return self.accept(response, lease, sender, watch),
                Ok(Err(mut error)) => {
                    if let Some(request) = error.take_message() {
                        exchange.take_back(request);
                        if reused {
                            // It was closed while idle. The replica itself may be fine.
                            continue;
                        }
                        lease.failed();
                        let reason = error.into_error().to_string();
                        return Err(failed(Progress::NotSent, bad_gateway(&lease, reason)));
                    }
                    if progress.is_broken() {
                        return Err(failed(Progress::Sent, ProxyError::ClientBody));
                    }
                    self.pool.doubt(&replica);
                    bad_gateway(&lease, error.into_error().to_string())
                }
                Err(Alarm::Lost) => bad_gateway(&lease, "it does not answer any more".into()),
                Err(Alarm::Late) if progress.waits_for_client() => {
                    return Err(failed(Progress::Sent, ProxyError::ClientBody));
                }
                Err(Alarm::Late) => ProxyError::Timeout { hostname: replica.hostname.to_string() },
            };
            lease.failed();
            return Err(failed(Progress::Sent, error));
        }
    }

    /// A new connection to the leased replica.
    async fn connect(&self, lease: &Lease, watch: &Watch) -> Result<Sender, Failure> {
        let replica = lease.replica();
        let reason = match guarded(watch, TcpStream::connect(replica.addr)).await {
            Ok(Ok(stream)) => {
                let _ = stream.set_nodelay(true);
                match http1::handshake(TokioIo::new(stream)).await {
                    Ok((sender, connection)) => {
                        tokio::spawn(async move {
                            if let Err(error) = connection.await {
                                tracing::trace!("connection to a replica: {error}");
                            }
                        });
                        self.metrics.connects.inc();
                        return Ok(sender);
                    }
                    Err(error) => error.to_string(),
                }
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
            Err(Alarm::Lost) => "it does not answer any more".into(),
        };
        lease.failed();
        Err(Failure { progress: Progress::NotSent, error: bad_gateway(lease, reason), reused: false })
    }

    fn accept(
        &self,
        response: Response<Incoming>,
        lease: Lease,
        sender: Sender,
        watch: Arc<Watch>,
    ) -> Result<Response<LeasedBody>, Failure> {
        let (mut head, inner) = response.into_parts();
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            lease.failed();
            let error = bad_gateway(&lease, "it changed the protocol without being asked to".into());
            return Err(Failure { progress: Progress::Answered, error, reused: false });
        }
        for_client(&mut head.headers);
        head.version = Version::HTTP_11;
        lease.served();
        let held = Held { lease, sender, watch, shared: Arc::clone(&self.shared) };
        let held = if inner.is_end_stream() {
            held.release();
            None
        } else {
            held.watch.only_deadline(self.idle_ticks);
            Some(held)
        };
        Ok(Response::from_parts(head, LeasedBody { inner, held, idle_ticks: self.idle_ticks }))
    }
}

impl Exchange {
    /// The request to send: a copy if it may have to be sent again, or else itself.
    fn request(&mut self, upload: impl FnOnce(Incoming) -> Upload) -> Request<ReplicaBody> {
        let body = self.body.take().map_or(ReplicaBody::Empty, |body| ReplicaBody::Upload(Box::new(upload(body))));
        let mut request = Request::new(body);
        *request.method_mut() = self.head.method.clone();
        *request.uri_mut() = self.head.uri.clone();
        *request.headers_mut() =
            if self.repeatable { self.head.headers.clone() } else { std::mem::take(&mut self.head.headers) };
        request
    }

    /// Takes back a request that was not sent.
    fn take_back(&mut self, request: Request<ReplicaBody>) {
        let (head, body) = request.into_parts();
        self.head.headers = head.headers;
        if let ReplicaBody::Upload(upload) = body {
            self.body = Some(upload.inner);
        }
    }
}

/// `future`'s outcome, or the alarm that ends the wait for it.
async fn guarded<F: Future>(watch: &Watch, future: F) -> Result<F::Output, Alarm> {
    let mut future = pin!(future);
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Ok(output)),
        Poll::Pending => watch.poll(cx).map(Err),
    })
    .await
}

fn bad_gateway(lease: &Lease, reason: String) -> ProxyError {
    ProxyError::BadGateway { hostname: lease.replica().hostname.to_string(), reason }
}

/// Turns an absolute-form target into origin form; its authority takes the place of `Host` (RFC 9112, section 3.2.2). A
/// request without `Host`, as HTTP/1.0 allows, gets an empty one.
fn to_origin_form(head: &mut Parts) {
    if let Some(authority) = head.uri.authority() {
        if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
            head.headers.insert(HOST, host);
        }
        let path = head.uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
        head.uri = Uri::from(path);
    }
    if !head.headers.contains_key(HOST) {
        head.headers.insert(HOST, HeaderValue::from_static(""));
    }
}

/// 16 hexadecimal digits.
fn request_id(random: u64) -> HeaderValue {
    HeaderValue::from_str(&format!("{random:016x}")).unwrap_or(HeaderValue::from_static("0"))
}

/// Reads a body that nobody wants, so that its connection can be used again.
async fn read_to_end(mut body: LeasedBody) {
    if body.inner.size_hint().upper().is_none_or(|bytes| bytes > UNWANTED_BODY) {
        return;
    }
    while let Some(Ok(_)) = poll_fn(|cx| body.poll_frame(cx)).await {}
}
