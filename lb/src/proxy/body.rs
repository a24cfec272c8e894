//! Bodies on their way through: they stream, keep deadlines, and hold what must be held until their end.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::connections::Sender;
use super::watchdog::Watch;
use super::worker::Shared;
use crate::pool::Lease;

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The connection it came on failed.
    #[error("{0}")]
    Broken(#[from] hyper::Error),
    /// Nothing moved for too long.
    #[error("the body stalled")]
    Stalled,
    /// The body of one of the balancer's own answers.
    #[error("{0}")]
    Own(#[from] axum::Error),
}

/// The body of a request to a replica.
#[derive(Debug)]
pub(super) enum ReplicaBody {
    Empty,
    Upload(Box<Upload>),
}

/// A client's body. Each piece that arrives renews the deadline of the exchange.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) inner: Incoming,
    pub(super) watch: Arc<Watch>,
    /// For the next piece.
    pub(super) idle_ticks: u64,
    /// For the response, once the last piece has gone.
    pub(super) response_ticks: u64,
    pub(super) progress: Arc<UploadProgress>,
}

/// What the exchange wants to know of an upload that it has given away.
#[derive(Debug, Default)]
pub(super) struct UploadProgress {
    waits_for_client: AtomicBool,
    broken: AtomicBool,
}

impl UploadProgress {
    /// The next move is the client's.
    pub(super) fn waits_for_client(&self) -> bool {
        self.waits_for_client.load(Ordering::Relaxed)
    }

    /// The client broke off.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }
}

impl Body for ReplicaBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Self::Upload(upload) = self.get_mut() else { return Poll::Ready(None) };
        let polled = Pin::new(&mut upload.inner).poll_frame(cx);
        upload.progress.waits_for_client.store(polled.is_pending(), Ordering::Relaxed);
        let frame = ready!(polled);
        if matches!(frame, Some(Err(_))) {
            upload.progress.broken.store(true, Ordering::Relaxed);
        }
        let over = frame.is_none() || upload.inner.is_end_stream();
        upload.watch.renew(if over { upload.response_ticks } else { upload.idle_ticks });
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Upload(upload) => upload.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Upload(upload) => upload.inner.size_hint(),
        }
    }
}

/// The body of a response to a client.
#[derive(Debug)]
pub struct ProxyBody {
    kind: Kind,
    /// What is renewed, by how many ticks, when this body is done with.
    at_end: Option<(Arc<Watch>, u64)>,
}

impl Drop for ProxyBody {
    fn drop(&mut self) {
        if let Some((watch, ticks)) = &self.at_end {
            watch.renew(*ticks);
        }
    }
}

#[derive(Debug)]
enum Kind {
    Full(Option<Bytes>),
    Leased(Box<LeasedBody>),
    Own(axum::body::Body),
}

impl ProxyBody {
    pub(super) fn full(bytes: Bytes) -> Self {
        Self { kind: Kind::Full((!bytes.is_empty()).then_some(bytes)), at_end: None }
    }

    pub(super) fn leased(body: LeasedBody) -> Self {
        Self { kind: Kind::Leased(Box::new(body)), at_end: None }
    }

    pub(super) fn own(body: axum::body::Body) -> Self {
        Self { kind: Kind::Own(body), at_end: None }
    }

    /// Gives `watch` these ticks once the body is done with.
    pub(super) fn at_end_renew(&mut self, watch: Arc<Watch>, ticks: u64) {
        self.at_end = Some((watch, ticks));
    }
}

impl Body for ProxyBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.get_mut().kind {
            Kind::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Kind::Leased(body) => body.poll_frame(cx),
            Kind::Own(body) => Pin::new(body).poll_frame(cx).map_err(BodyError::Own),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Full(bytes) => bytes.is_none(),
            Kind::Leased(body) => body.inner.is_end_stream(),
            Kind::Own(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Kind::Leased(body) => body.inner.size_hint(),
            Kind::Own(body) => body.size_hint(),
        }
    }
}

/// A replica's body. It holds the lease and the connection: the lease is given back at the end or when dropped, the
/// connection is kept for the next request only if the body was read to its end.
#[derive(Debug)]
pub(super) struct LeasedBody {
    pub(super) inner: Incoming,
    pub(super) held: Option<Held>,
    pub(super) idle_ticks: u64,
}

#[derive(Debug)]
pub(super) struct Held {
    pub(super) lease: Lease,
    pub(super) sender: Sender,
    pub(super) watch: Arc<Watch>,
    pub(super) shared: Arc<Shared>,
}

impl Held {
    /// The exchange is over and was seen to its end.
    pub(super) fn release(self) {
        let Self { lease, sender, shared, .. } = self;
        shared.connections.put(lease.replica(), sender, shared.watchdog.now());
    }
}

impl LeasedBody {
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        let Some(held) = &self.held else { return polled.map_err(BodyError::from) };
        match polled {
            Poll::Ready(None) => {
                self.finish();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Ok(frame))) => {
                if self.inner.is_end_stream() {
                    self.finish();
                } else {
                    held.watch.renew(self.idle_ticks);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => self.fail(error.into()),
            Poll::Pending => match held.watch.poll(cx) {
                Poll::Ready(_) => self.fail(BodyError::Stalled),
                Poll::Pending => Poll::Pending,
            },
        }
    }

    fn finish(&mut self) {
        if let Some(held) = self.held.take() {
            held.release();
        }
    }

    fn fail(&mut self, error: BodyError) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(Held { lease, .. }) = self.held.take() {
            lease.failed();
            tracing::debug!(hostname = %lease.replica().hostname, "a response broke off: {error}");
        }
        Poll::Ready(Some(Err(error)))
    }
}
