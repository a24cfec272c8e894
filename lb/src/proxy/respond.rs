//! The way of a response to a client: its head, then its body as it arrives.

use std::io::{self, IoSlice};

use super::rewrite::{Delivery, for_client};
use super::upload::Way;
use crate::http1::chunked::{CRLF, Decoder, LAST_CHUNK, SizeLine};
use crate::http1::{Framing, field_slots, response};
use crate::net::buffers::{Buffer, LONG};
use crate::net::stream::Stream;

/// A body that is not passed on is still read to its end if it is no longer than this, so that its connection can be kept.
const UNWANTED_BODY: u64 = 64 * 1024;
/// Interim responses to one request; more make no sense.
const MAX_INTERIM: usize = 32;

/// What decides how a response is passed on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    /// By a `HEAD` request.
    pub(super) to_head: bool,
    /// By a client of HTTP/1.1.
    pub(super) is_1_1: bool,
    /// The client's connection may be kept.
    pub(super) keep_alive: bool,
    /// For another protocol.
    pub(super) upgrade: bool,
    /// With a body that the client holds back until it is told to go on.
    pub(super) expects_continue: bool,
    /// A 404 is not passed on.
    pub(super) hides_not_found: bool,
}

/// How a response has ended.
#[derive(Debug)]
pub(super) enum Answer {
    /// Passed on, whole. `reusable`: the replica's connection, as far as the response is concerned; `keep_alive`: the
    /// client's.
    /// `to_be_looked_at`: before it is used again, the system must be asked whether something has come.
    Whole { reusable: bool, to_be_looked_at: bool, keep_alive: bool },
    /// A 404 that was kept back.
    NotFound { reusable: bool },
    /// Both sides switch protocols; the client has been told.
    Switched,
    /// There was no whole head.
    None { reason: String },
    /// There was one, but it can't be passed on.
    Bad { reason: &'static str },
    /// The head was good, but the body can't be passed on; the client has seen nothing yet.
    BadBody { reason: &'static str },
    /// It broke off within its body.
    Broken { reason: String },
    /// The client takes no more.
    ClientGone,
}

/// The parts of a response's head that are needed after it was written.
struct Taken {
    status: u16,
    len: usize,
    framing: Framing,
    delivery: Delivery,
    reusable: bool,
    keep_alive: bool,
    verbatim: bool,
}

/// One response on its way.
pub(super) struct Respond<'a> {
    pub(super) asked: Asked,
    /// Fields that the client gets on top of the replica's, as lines.
    pub(super) added: &'a [u8],
    pub(super) buffer: &'a mut Buffer,
    pub(super) way: Way<'a>,
    /// Told the status, once there is one that counts.
    pub(super) on_status: &'a dyn Fn(u16),
}

impl Respond<'_> {
    /// Reads the response and passes it on.
    pub(super) async fn run(&mut self, replica: &Stream, client: &Stream) -> Answer {
        let mut head = self.way.buffers.head();
        let answer = match self.respond(&mut head, replica, client).await {
            Ok(answer) | Err(answer) => answer,
        };
        self.way.buffers.put_head(head);
        answer
    }

    async fn respond(&mut self, head: &mut Vec<u8>, replica: &Stream, client: &Stream) -> Result<Answer, Answer> {
        let mut interim = 0;
        let taken = loop {
            head.clear();
            let taken = self.head(head, replica, client).await?;
            match taken.status {
                101 if self.asked.upgrade => {
                    (self.on_status)(taken.status);
                    self.buffer.consume(taken.len);
                    self.begin();
                    self.write(client, &[head]).await?;
                    return Ok(Answer::Switched);
                }
                101 => return Err(Answer::Bad { reason: "it changed the protocol without being asked to" }),
                100..=199 => {
                    interim += 1;
                    // Told to go on: from now on the body counts as any other.
                    self.asked.expects_continue &= taken.status != 100;
                    if interim > MAX_INTERIM {
                        return Err(Answer::Bad { reason: "it sends interim responses without end" });
                    }
                    self.buffer.consume(taken.len);
                    if self.asked.is_1_1 {
                        self.write(client, &[head]).await?;
                        if self.way.flow.uploaded.get() {
                            // It was no progress towards the final response.
                            self.way.watch.renew_until(self.way.flow.response_due.get());
                        }
                    }
                }
                _ => break taken,
            }
        };
        if taken.framing != Framing::Chunked || (taken.status == 404 && self.asked.hides_not_found) {
            (self.on_status)(taken.status);
        }
        if taken.status == 404 && self.asked.hides_not_found {
            self.buffer.consume(taken.len);
            return Ok(Answer::NotFound { reusable: self.discard(&taken, replica).await });
        }
        self.begin();
        self.way.flow.until_close.set(taken.delivery == Delivery::UntilClose);
        self.pass_on(&taken, head, replica, client).await?;
        let reusable = taken.reusable && self.buffer.is_empty();
        // What a confused replica sends as the body of such a response may come later than its head.
        let to_be_looked_at = taken.framing == Framing::None;
        Ok(Answer::Whole { reusable, to_be_looked_at, keep_alive: taken.keep_alive })
    }

    /// From here on the client may have seen a part of the response, and only progress counts.
    fn begin(&self) {
        self.way.flow.responding.set(true);
        self.way.watch.set(self.way.deadlines.idle);
    }

    /// Reads a whole head, and writes it for the client unless it can go as it is.
    async fn head(&mut self, out: &mut Vec<u8>, replica: &Stream, client: &Stream) -> Result<Taken, Answer> {
        loop {
            if !self.buffer.is_empty()
                && let Some(taken) = self.parse(out, client).map_err(|reason| Answer::Bad { reason })?
            {
                return Ok(taken);
            }
            if !self.buffer.is_empty() {
                self.buffer.make_room(self.way.buffers, response::MAX_HEAD);
            }
            let reason = match self.buffer.fill(replica, self.way.buffers).await {
                Ok(0) => "it closed the connection without an answer".to_owned(),
                Ok(_) => {
                    self.way.flow.answered.set(true);
                    continue;
                }
                Err(error) => error.to_string(),
            };
            return Err(Answer::None { reason });
        }
    }

    fn parse(&mut self, out: &mut Vec<u8>, client: &Stream) -> Result<Option<Taken>, &'static str> {
        let mut slots = field_slots();
        let bytes = self.buffer.filled();
        let Some(head) = response::parse(bytes, self.asked.to_head, &mut slots)? else { return Ok(None) };
        let delivery = Delivery::of(head.framing, self.asked.is_1_1);
        // A client whose body is not read to its end can't be answered again.
        // And a replica that refused without a word on the body may take it for another request.
        let unread = self.asked.expects_continue && head.status >= 300;
        let read_whole = self.way.flow.uploaded.get() && !unread;
        // And what came behind a request for another protocol was not meant for this one.
        let in_doubt = self.asked.upgrade && head.status >= 200 && !client.is_quiet();
        let keep_alive = self.asked.keep_alive && delivery != Delivery::UntilClose && read_whole && !in_doubt;
        let verbatim = head.verbatim && self.asked.is_1_1 && keep_alive && self.added.is_empty();
        if !verbatim {
            for_client(&head, delivery, self.asked.is_1_1, keep_alive, self.added, out);
        }
        Ok(Some(Taken {
            status: head.status,
            len: head.len,
            framing: head.framing,
            delivery,
            reusable: head.keep_alive && read_whole,
            keep_alive,
            verbatim,
        }))
    }

    /// Writes to the client; time counts against it meanwhile.
    async fn write(&self, client: &Stream, pieces: &[&[u8]]) -> Result<(), Answer> {
        const MOST: usize = 5;
        let mut slices = [IoSlice::new(&[]); MOST];
        for (slice, piece) in slices.iter_mut().zip(pieces) {
            *slice = IoSlice::new(piece);
        }
        let slices = slices.get_mut(..pieces.len()).unwrap_or_default();
        self.way.flow.waits_for_taker.set(true);
        let written = client.write_all(slices, || self.way.watch.renew(self.way.deadlines.idle)).await;
        self.way.flow.waits_for_taker.set(false);
        written.map_err(|_| Answer::ClientGone)
    }

    /// Reads more of the body.
    async fn more(&mut self, replica: &Stream) -> Result<usize, Answer> {
        let read = self.buffer.fill(replica, self.way.buffers).await.map_err(|error| broken(&error))?;
        self.way.watch.renew(self.way.deadlines.idle);
        Ok(read)
    }

    async fn pass_on(&mut self, taken: &Taken, head: &[u8], replica: &Stream, client: &Stream) -> Result<(), Answer> {
        match (taken.framing, taken.delivery) {
            (Framing::None, _) => {
                if taken.verbatim {
                    self.write(client, &[&self.buffer.filled()[..taken.len]]).await?;
                } else {
                    self.write(client, &[head]).await?;
                }
                self.buffer.consume(taken.len);
                Ok(())
            }
            (Framing::Length(length), _) => self.by_length(length, taken, head, replica, client).await,
            (Framing::Chunked, _) => {
                self.buffer.consume(taken.len);
                self.by_chunks(taken, head, replica, client).await
            }
            (Framing::UntilClose, delivery) => {
                self.buffer.consume(taken.len);
                self.until_close(delivery == Delivery::Chunked, head, replica, client).await
            }
        }
    }

    async fn by_length(
        &mut self,
        length: u64,
        taken: &Taken,
        head: &[u8],
        replica: &Stream,
        client: &Stream,
    ) -> Result<(), Answer> {
        let here = |left: u64, len: usize| usize::try_from(left).unwrap_or(usize::MAX).min(len);
        let first = here(length, self.buffer.len() - taken.len);
        let (bytes, both) = (self.buffer.filled(), taken.len + first);
        if taken.verbatim {
            self.write(client, &[&bytes[..both]]).await?;
        } else {
            self.write(client, &[head, &bytes[taken.len..both]]).await?;
        }
        self.buffer.consume(both);
        let mut left = length - first as u64;
        if left > LONG {
            self.buffer.read_long(self.way.buffers);
        }
        while left > 0 {
            if self.more(replica).await? == 0 {
                return Err(broken(&io::ErrorKind::UnexpectedEof.into()));
            }
            let piece = here(left, self.buffer.len());
            self.write(client, &[&self.buffer.filled()[..piece]]).await?;
            self.buffer.consume(piece);
            left -= piece as u64;
        }
        Ok(())
    }

    async fn by_chunks(&mut self, taken: &Taken, head: &[u8], replica: &Stream, client: &Stream) -> Result<(), Answer> {
        let chunked = taken.delivery == Delivery::Chunked;
        let (mut decoder, mut head, mut end, mut pieces) = (Decoder::default(), head, Vec::new(), 0_u32);
        loop {
            let decoded = decoder.decode(self.buffer.filled_mut());
            let decoded = decoded.map_err(|refusal| match head {
                [] => Answer::Broken { reason: refusal.to_string() },
                // Nothing has gone to the client yet.
                _ => Answer::BadBody { reason: "the chunks of its response are malformed" },
            })?;
            if pieces == 0 {
                // Only now is it sure that the client gets this response.
                (self.on_status)(taken.status);
            }
            if decoded.done && chunked {
                decoder.finish(&mut end);
            }
            self.piece(chunked, head, decoded.payload, &end, client).await?;
            head = &[];
            self.buffer.consume(decoded.consumed);
            if decoded.done {
                return Ok(());
            }
            pieces += 1;
            if pieces == 4 {
                self.buffer.read_long(self.way.buffers);
            }
            if self.more(replica).await? == 0 {
                return Err(broken(&io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    async fn until_close(
        &mut self,
        chunked: bool,
        head: &[u8],
        replica: &Stream,
        client: &Stream,
    ) -> Result<(), Answer> {
        let (mut head, mut pieces) = (head, 0_u32);
        loop {
            let len = self.buffer.len();
            self.piece(chunked, head, len, &[], client).await?;
            head = &[];
            self.buffer.consume(len);
            pieces += 1;
            if pieces == 4 {
                self.buffer.read_long(self.way.buffers);
            }
            if self.more(replica).await? == 0 {
                return if chunked { self.write(client, &[LAST_CHUNK]).await } else { Ok(()) };
            }
        }
    }

    /// Writes the head, so many bytes of payload, in a chunk if asked to, and the end.
    async fn piece(&self, chunked: bool, head: &[u8], len: usize, end: &[u8], client: &Stream) -> Result<(), Answer> {
        let payload = &self.buffer.filled()[..len];
        if chunked && len > 0 {
            self.write(client, &[head, SizeLine::new(len).as_bytes(), payload, CRLF, end]).await
        } else {
            self.write(client, &[head, payload, end]).await
        }
    }

    /// Reads a body that nobody gets. True if the connection can be used again.
    async fn discard(&mut self, taken: &Taken, replica: &Stream) -> bool {
        let mut left = match taken.framing {
            Framing::None => 0,
            Framing::Length(length) => length,
            Framing::Chunked => UNWANTED_BODY,
            Framing::UntilClose => return false,
        };
        if left > UNWANTED_BODY {
            return false;
        }
        let mut decoder = (taken.framing == Framing::Chunked).then(Decoder::default);
        self.way.watch.set(self.way.deadlines.idle);
        loop {
            let over = match &mut decoder {
                Some(decoder) => {
                    let Ok(decoded) = decoder.decode(self.buffer.filled_mut()) else { return false };
                    self.buffer.consume(decoded.consumed);
                    let Some(rest) = left.checked_sub(decoded.payload as u64) else { return false };
                    left = rest;
                    decoded.done
                }
                None => {
                    let here = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
                    self.buffer.consume(here);
                    left -= here as u64;
                    left == 0
                }
            };
            if over {
                return taken.reusable && self.buffer.is_empty();
            }
            if !matches!(self.more(replica).await, Ok(1..)) {
                return false;
            }
        }
    }
}

fn broken(error: &io::Error) -> Answer {
    let reason = match error.kind() {
        io::ErrorKind::UnexpectedEof => "it closed the connection within the body".to_owned(),
        _ => error.to_string(),
    };
    Answer::Broken { reason }
}
