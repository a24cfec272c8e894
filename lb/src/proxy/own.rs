//! Requests for the balancer itself that come in on the public listener. They are few and short, so they are read whole, and
//! an axum router answers them.

use std::future::poll_fn;
use std::io::Write;
use std::task::Poll;

use axum::body::{Body, Bytes, to_bytes};
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri};
use tower::ServiceExt;

use super::error::ProxyError;
use super::rewrite::connection;
use super::session::{After, Client};
use super::worker::Worker;
use crate::http1::chunked::Decoder;
use crate::http1::fields::{Known, known};
use crate::http1::request::RequestHead;
use crate::http1::{Framing, Refusal};

/// Bytes that are read of a body: one more than the longest that any of the routes takes.
const BODY: usize = 64 * 1024 + 1;
/// Longest answer.
const ANSWER: usize = 16 * 1024 * 1024;

/// The balancer's own paths on the public listener, and what answers them.
#[derive(Debug, Clone)]
pub struct OwnRoutes {
    /// Exact paths.
    pub paths: &'static [&'static str],
    /// Their answers.
    pub router: axum::Router,
}

/// A request for the balancer itself, but for its body.
#[derive(Debug)]
pub(super) struct OwnRequest {
    /// `None` if it is none that the router would understand.
    request: Option<Request<()>>,
    framing: Framing,
    to_head: bool,
    is_1_1: bool,
    keep_alive: bool,
    expects_continue: bool,
}

impl OwnRequest {
    pub(super) fn new(head: &RequestHead<'_, '_>) -> Self {
        let slash = if head.target.rootless { "/" } else { "" };
        let uri = format!("{slash}{}", head.target.path_and_query).parse::<Uri>();
        let request = Method::from_bytes(head.method.as_bytes()).ok().zip(uri.ok()).map(|(method, uri)| {
            let mut request = Request::new(());
            *request.method_mut() = method;
            *request.uri_mut() = uri;
            *request.headers_mut() = fields(head);
            request
        });
        Self {
            request,
            framing: head.framing,
            to_head: head.method == "HEAD",
            is_1_1: head.is_1_1,
            // What comes behind a request for another protocol is not meant for this one.
            keep_alive: head.keep_alive && !head.upgrade,
            expects_continue: head.expects_continue,
        }
    }

    /// Reads the body, has the request answered, and passes the answer on.
    pub(super) async fn answer(self, worker: &Worker, client: &mut Client) -> After {
        if self.expects_continue && !client.say(worker, b"HTTP/1.1 100 Continue\r\n\r\n").await {
            return After::Close;
        }
        let (body, whole) = match read_body(worker, client, self.framing).await {
            Ok(body) => body,
            Err(Some(error)) => return client.refuse(worker, &error, (self.to_head, self.is_1_1), false).await,
            Err(None) => return After::Close,
        };
        let Some(request) = self.request else {
            let error = ProxyError::Refused(Refusal::Malformed("the request line is malformed"));
            return client.refuse(worker, &error, (self.to_head, self.is_1_1), false).await;
        };
        // It has a deadline of its own for whatever it does.
        client.watch.set(u64::MAX);
        let response = match worker.own.router.clone().oneshot(request.map(|()| Body::from(body))).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        let keep_alive = whole && self.keep_alive && !worker.draining.get();
        let bytes = serialize(response, self.to_head, self.is_1_1, keep_alive).await;
        match (client.say(worker, &bytes).await, keep_alive) {
            (true, true) => After::Keep,
            (true, false) => After::Linger,
            (false, _) => After::Close,
        }
    }
}

fn fields(head: &RequestHead<'_, '_>) -> HeaderMap {
    let kept = head.fields.iter().filter(|field| known(field.name.as_bytes()) == Known::Other);
    let parsed = kept.filter_map(|field| {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        Some((name, HeaderValue::from_bytes(field.value).ok()?))
    });
    parsed.collect()
}

/// The body, and whether that is all of it: a long one is not read to its end. An error without a word means that nobody is
/// left to hear one.
async fn read_body(
    worker: &Worker,
    client: &mut Client,
    framing: Framing,
) -> Result<(Bytes, bool), Option<ProxyError>> {
    let mut left = match framing {
        Framing::Length(length) => length,
        Framing::Chunked => u64::MAX,
        Framing::None | Framing::UntilClose => 0,
    };
    let (mut body, mut decoder) = (Vec::new(), (framing == Framing::Chunked).then(Decoder::default));
    // For the whole body, as it is a short one.
    client.watch.set(worker.ticks.header);
    loop {
        let input = &mut client.input;
        match &mut decoder {
            Some(decoder) => {
                let refused = |refusal| Some(ProxyError::Refused(refusal));
                let decoded = decoder.decode(input.filled_mut()).map_err(refused)?;
                body.extend_from_slice(&input.filled()[..decoded.payload]);
                input.consume(decoded.consumed);
                if decoded.done {
                    left = 0;
                }
            }
            None => {
                let here = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                body.extend_from_slice(&input.filled()[..here]);
                input.consume(here);
                left -= here as u64;
            }
        }
        if left == 0 || body.len() >= BODY {
            body.truncate(BODY);
            return Ok((body.into(), left == 0));
        }
        input.borrow_from(&worker.buffers);
        let filled = poll_fn(|cx| match input.poll_fill(cx, &client.stream) {
            Poll::Ready(filled) => Poll::Ready(Some(filled)),
            Poll::Pending => client.watch.poll(cx).map(|_| None),
        })
        .await;
        match filled {
            Some(Ok(1..)) => {}
            Some(_) => return Err(None),
            None => return Err(Some(ProxyError::SlowBody)),
        }
    }
}

/// An answer as bytes.
async fn serialize(response: Response<Body>, to_head: bool, is_1_1: bool, keep_alive: bool) -> Vec<u8> {
    let (head, body) = response.into_parts();
    let body = to_bytes(body, ANSWER).await.unwrap_or_default();
    // Writing to a vector does not fail.
    let mut bytes = Vec::with_capacity(256 + body.len());
    let _ = write!(bytes, "HTTP/1.1 {}\r\n", head.status);
    for (name, value) in &head.headers {
        if ![CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING].contains(name) {
            bytes.extend_from_slice(name.as_str().as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
    }
    // An answer to HEAD has the length of what it leaves out.
    match head.headers.get(CONTENT_LENGTH).filter(|_| to_head) {
        Some(length) => {
            bytes.extend_from_slice(b"content-length: ");
            bytes.extend_from_slice(length.as_bytes());
        }
        None => {
            let _ = write!(bytes, "content-length: {}", body.len());
        }
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(connection(is_1_1, keep_alive));
    bytes.extend_from_slice(b"\r\n");
    if !to_head {
        bytes.extend_from_slice(&body);
    }
    bytes
}
