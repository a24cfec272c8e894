//! The way of a request to a replica: its head, then its body as it arrives.
//!
//! It outlives a try: what was read of a body and kept can be sent again to another replica.

use std::cell::Cell;
use std::future::pending;
use std::io::IoSlice;
use std::time::Instant;

use crate::http1::chunked::{CRLF, Decoder, SizeLine};
use crate::http1::{Framing, Refusal};
use crate::net::buffers::{Buffer, Buffers, LONG};
use crate::net::stream::Stream;
use crate::watchdog::Watch;

/// Ticks until a client that waits for its response is listened to.
const LISTEN: u64 = 2;

/// What both directions of a try know of each other.
#[derive(Debug, Default)]
pub(super) struct Flow {
    /// Something of the request has gone to the replica.
    pub(super) sent: Cell<bool>,
    /// All of it has.
    pub(super) uploaded: Cell<bool>,
    /// When that was.
    pub(super) uploaded_at: Cell<Option<Instant>>,
    /// Something of a response has come.
    pub(super) answered: Cell<bool>,
    /// Something of a response may have gone to the client.
    pub(super) responding: Cell<bool>,
    /// The client takes the end of its connection for the end of the response.
    pub(super) until_close: Cell<bool>,
    /// Tick at which the response's head is due, once all has gone.
    pub(super) response_due: Cell<u64>,
    /// More of the body is to come from the client.
    pub(super) waits_for_body: Cell<bool>,
    /// The client is to take more of the response.
    pub(super) waits_for_taker: Cell<bool>,
}

/// Why an upload is over before the response is.
#[derive(Debug)]
pub(super) enum UploadEnd {
    /// The client has gone.
    ClientGone,
    /// The body is bad.
    Refused(Refusal),
    /// The replica takes no more. It may have answered all the same.
    ReplicaDeaf,
}

/// Deadlines of one request, in ticks.
#[derive(Debug)]
pub(super) struct Deadlines {
    /// For the next piece of a body.
    pub(super) idle: u64,
    /// For a response's head, once a request has gone.
    pub(super) response: u64,
    /// The same for one try.
    pub(super) one_try: u64,
    /// When the response's head is due, whatever the number of tries; known once the first has gone.
    overall: Cell<Option<u64>>,
}

impl Deadlines {
    pub(super) fn new(idle: u64, response: u64, one_try: u64) -> Self {
        Self { idle, response, one_try, overall: Cell::new(None) }
    }

    /// When the response's head is due of a request that has gone by `now`.
    pub(super) fn response_due(&self, now: u64) -> u64 {
        let overall = self.overall.get().unwrap_or_else(|| now.saturating_add(self.response));
        self.overall.set(Some(overall));
        overall.min(now.saturating_add(self.one_try))
    }

    /// Is there no time left for another try?
    pub(super) fn is_over(&self, now: u64) -> bool {
        self.overall.get().is_some_and(|overall| overall <= now)
    }
}

/// What both directions of a try share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way<'a> {
    pub(super) flow: &'a Flow,
    pub(super) watch: &'a Watch,
    pub(super) deadlines: &'a Deadlines,
    pub(super) buffers: &'a Buffers,
}

/// The body of one request.
#[derive(Debug)]
pub(super) struct Upload {
    framing: Framing,
    /// Bytes that are still to be read of a body with a length.
    left: u64,
    decoder: Decoder,
    /// Payload at the start of the client's buffer that is to be sent, and framing behind it that is not.
    ready: usize,
    behind: usize,
    /// The last of it is among what is ready, or has been sent.
    over: bool,
    /// What was read so far, if it may have to be sent again.
    kept: Option<Vec<u8>>,
    keep_at_most: usize,
    /// Payload so far.
    received: u64,
    max_body: Option<u64>,
}

impl Upload {
    /// An upload that has not begun. `keep_at_most`: bytes that are kept for another try.
    pub(super) fn new(framing: Framing, keep_at_most: usize, max_body: Option<u64>) -> Self {
        let left = if let Framing::Length(length) = framing { length } else { 0 };
        let keeps = framing == Framing::None || (keep_at_most > 0 && left <= keep_at_most as u64);
        Self {
            framing,
            left,
            decoder: Decoder::default(),
            ready: 0,
            behind: 0,
            over: framing == Framing::None,
            kept: keeps.then(Vec::new),
            keep_at_most,
            received: 0,
            max_body,
        }
    }

    /// Can all that was taken from the client be sent once more?
    pub(super) fn is_kept(&self) -> bool {
        self.kept.is_some()
    }

    /// Drops what is left of the body if all of it has arrived. False if more is to come.
    pub(super) fn finish(&mut self, input: &mut Buffer) -> bool {
        let arrived = self.take(input).is_ok() && self.over;
        if arrived {
            input.consume(self.ready + self.behind);
            (self.ready, self.behind) = (0, 0);
        }
        arrived
    }

    /// Sends `head` and the body, then watches over the client until it goes. Never ends well: the response decides when
    /// all is done.
    pub(super) async fn run(
        &mut self,
        head: &[u8],
        client: &Stream,
        input: &mut Buffer,
        replica: &Stream,
        way: Way<'_>,
    ) -> UploadEnd {
        if let Err(end) = self.send(head, client, input, replica, way).await {
            return end;
        }
        let Way { flow, watch, deadlines, buffers } = way;
        flow.uploaded.set(true);
        if !flow.responding.get() {
            flow.response_due.set(deadlines.response_due(watch.now()));
            watch.renew_until(flow.response_due.get());
        }
        input.lend_back(buffers);
        // Most responses come sooner than it is worth to listen to the client.
        watch.some_ticks(LISTEN).await;
        loop {
            if input.is_full() && !input.is_empty() {
                // So much pipelined that it is not looked at until its turn.
                pending::<()>().await;
            }
            match input.fill(client, buffers).await {
                Ok(0) | Err(_) => return UploadEnd::ClientGone,
                Ok(_) => {}
            }
        }
    }

    async fn send(
        &mut self,
        head: &[u8],
        client: &Stream,
        input: &mut Buffer,
        replica: &Stream,
        way: Way<'_>,
    ) -> Result<(), UploadEnd> {
        let Way { flow, watch, deadlines, buffers } = way;
        let sent = || {
            flow.sent.set(true);
            watch.renew(deadlines.idle);
        };
        if self.framing == Framing::None {
            return replica.write_all(&mut [IoSlice::new(head)], sent).await.map_err(|_| UploadEnd::ReplicaDeaf);
        }
        let mut head = head;
        if self.received > 0 && self.kept.is_some() {
            // Another try.
            input.consume(self.ready + self.behind);
            (self.ready, self.behind) = (0, 0);
            let kept = self.kept.as_deref().unwrap_or_default();
            self.write(std::mem::take(&mut head), kept, replica, &sent).await?;
            if self.over {
                return Ok(());
            }
        } else {
            self.take(input)?;
        }
        loop {
            if self.ready > 0 || self.over || !head.is_empty() {
                let piece = &input.filled()[..self.ready];
                self.write(std::mem::take(&mut head), piece, replica, &sent).await?;
                input.consume(self.ready + self.behind);
                (self.ready, self.behind) = (0, 0);
            }
            if self.over {
                return Ok(());
            }
            if self.left > LONG {
                input.read_long(buffers);
            }
            flow.waits_for_body.set(true);
            let read = input.fill(client, buffers).await;
            flow.waits_for_body.set(false);
            if !matches!(read, Ok(1..)) {
                return Err(UploadEnd::ClientGone);
            }
            watch.renew(deadlines.idle);
            self.take(input)?;
        }
    }

    /// Makes what has arrived ready to be sent.
    fn take(&mut self, input: &mut Buffer) -> Result<(), UploadEnd> {
        if self.ready > 0 || self.over {
            return Ok(());
        }
        match self.framing {
            Framing::Length(_) => {
                self.ready = usize::try_from(self.left).unwrap_or(usize::MAX).min(input.len());
                self.left -= self.ready as u64;
                self.over = self.left == 0;
            }
            _ => {
                let decoded = self.decoder.decode(input.filled_mut()).map_err(UploadEnd::Refused)?;
                self.ready = decoded.payload;
                self.behind = decoded.consumed - decoded.payload;
                self.over = decoded.done;
                if self.ready == 0 {
                    input.consume(std::mem::take(&mut self.behind));
                }
            }
        }
        self.received += self.ready as u64;
        if let Some(limit) = self.max_body.filter(|limit| self.received > *limit) {
            return Err(UploadEnd::Refused(Refusal::BodyTooLarge { limit }));
        }
        if let Some(kept) = &mut self.kept {
            if kept.len() + self.ready <= self.keep_at_most {
                kept.extend_from_slice(&input.filled()[..self.ready]);
            } else {
                self.kept = None;
            }
        }
        Ok(())
    }

    /// Writes `head`, a piece of payload in its framing, and the end if this is all.
    async fn write(&self, head: &[u8], piece: &[u8], replica: &Stream, sent: impl Fn()) -> Result<(), UploadEnd> {
        let written = if self.framing == Framing::Chunked {
            let mut end = Vec::new();
            if self.over {
                self.decoder.finish(&mut end);
            }
            let size = SizeLine::new(piece.len());
            let (size, behind) = if piece.is_empty() { (&[][..], &[][..]) } else { (size.as_bytes(), CRLF) };
            let mut slices = [head, size, piece, behind, &end].map(IoSlice::new);
            replica.write_all(&mut slices, sent).await
        } else {
            replica.write_all(&mut [head, piece].map(IoSlice::new), sent).await
        };
        written.map_err(|_| UploadEnd::ReplicaDeaf)
    }
}
