//! Memory for bytes under way. A connection that waits has none of it: buffers belong to the worker, and are lent to
//! whoever has something to read.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};

use super::pipe::Pipes;
use super::stream::Stream;

/// Size of a buffer for heads and short bodies, bytes.
pub const SMALL: usize = 16 * 1024;
/// Size of a buffer for long bodies, bytes.
pub const LARGE: usize = 128 * 1024;
/// A body with more than this to come, bytes, is read into a large one.
pub const LONG: u64 = 32 * 1024;
/// Unused buffers that a worker keeps.
const SMALL_KEPT: usize = 256;
const LARGE_KEPT: usize = 32;
/// A head that is being written is not expected to be larger.
const HEAD: usize = 1024;

/// A worker's unused buffers.
#[derive(Debug, Default)]
pub struct Buffers {
    small: RefCell<Vec<Vec<u8>>>,
    large: RefCell<Vec<Vec<u8>>>,
    heads: RefCell<Vec<Vec<u8>>>,
    /// For what need not be looked at.
    pub pipes: Pipes,
}

impl Buffers {
    fn take(&self, size: usize) -> Vec<u8> {
        let kept = match size {
            SMALL => self.small.borrow_mut().pop(),
            LARGE => self.large.borrow_mut().pop(),
            _ => None,
        };
        kept.unwrap_or_else(|| vec![0; size])
    }

    fn put(&self, bytes: Vec<u8>) {
        let (kept, most) = match bytes.len() {
            SMALL => (&self.small, SMALL_KEPT),
            LARGE => (&self.large, LARGE_KEPT),
            _ => return,
        };
        let mut kept = kept.borrow_mut();
        if kept.len() < most {
            kept.push(bytes);
        }
    }

    /// An empty vector to write a head into.
    pub fn head(&self) -> Vec<u8> {
        self.heads.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(HEAD))
    }

    /// Takes it back.
    pub fn put_head(&self, mut head: Vec<u8>) {
        let mut heads = self.heads.borrow_mut();
        if head.capacity() <= 4 * HEAD && heads.len() < SMALL_KEPT {
            head.clear();
            heads.push(head);
        }
    }

    /// Gives back to the allocator half of what nobody has needed.
    pub fn shrink(&self) {
        for kept in [&self.small, &self.large, &self.heads] {
            let mut kept = kept.borrow_mut();
            let half = kept.len() / 2;
            kept.truncate(half);
        }
        self.pipes.shrink();
    }
}

/// Bytes that were read and not used yet.
#[derive(Debug, Default)]
pub struct Buffer {
    /// Of the size of the buffer; empty if it has no memory now.
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// It shall be a large one.
    long: bool,
}

impl Buffer {
    /// What was read and not used yet.
    #[inline]
    pub fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// The same, to be changed in place.
    #[inline]
    pub fn filled_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.end]
    }

    #[inline]
    /// Bytes that were read and not used yet.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    #[inline]
    /// Is there nothing in it?
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The first `count` bytes are used.
    #[inline]
    pub fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Sees to it that there is memory to read into.
    #[inline]
    pub fn borrow_from(&mut self, buffers: &Buffers) {
        if self.bytes.is_empty() {
            self.bytes = buffers.take(if self.long { LARGE } else { SMALL });
        }
    }

    /// Sees to it that a long body is read in long pieces, until the memory is given back for good.
    pub fn read_long(&mut self, buffers: &Buffers) {
        self.long = true;
        if !self.bytes.is_empty() && self.bytes.len() < LARGE {
            self.resize(buffers, LARGE);
        }
    }

    /// The next memory that it borrows shall be for long pieces.
    pub fn read_long_next(&mut self) {
        self.long = true;
    }

    /// The next body may be a short one.
    pub fn read_short(&mut self) {
        self.long = false;
    }

    /// Makes room for more than there is, up to `most` bytes in all. False if it holds these already.
    pub fn make_room(&mut self, buffers: &Buffers, most: usize) -> bool {
        if self.len() < self.bytes.len() {
            return true;
        }
        let size = (self.bytes.len() * 2).clamp(SMALL, most.max(SMALL));
        if size <= self.bytes.len() {
            return false;
        }
        self.resize(buffers, size);
        true
    }

    fn resize(&mut self, buffers: &Buffers, size: usize) {
        let mut bytes = buffers.take(size);
        let len = self.len();
        bytes[..len].copy_from_slice(self.filled());
        (self.start, self.end) = (0, len);
        buffers.put(std::mem::replace(&mut self.bytes, bytes));
    }

    /// Gives its memory back if there is nothing in it.
    #[inline]
    pub fn lend_back(&mut self, buffers: &Buffers) {
        if self.is_empty() && !self.bytes.is_empty() {
            buffers.put(std::mem::take(&mut self.bytes));
        }
    }

    /// Gives its memory back, whatever is in it.
    pub fn drop_into(mut self, buffers: &Buffers) {
        buffers.put(std::mem::take(&mut self.bytes));
    }

    /// Is there no room to read into?
    #[inline]
    pub fn is_full(&self) -> bool {
        self.len() == self.bytes.len()
    }

    /// Reads what has arrived; 0 at the end of the stream. Must not be called when full.
    #[inline]
    pub fn poll_fill(&mut self, cx: &mut Context<'_>, from: &Stream) -> Poll<io::Result<usize>> {
        if self.end == self.bytes.len() {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let read = ready!(from.poll_read(cx, &mut self.bytes[self.end..]))?;
        self.end += read;
        Poll::Ready(Ok(read))
    }

    /// Waits for something to arrive, and reads it; 0 at the end of the stream. While it waits with nothing in it, it holds no
    /// memory, so that the same few buffers serve all who wait, and stay in the processor's cache.
    pub async fn fill(&mut self, from: &Stream, buffers: &Buffers) -> io::Result<usize> {
        poll_fn(|cx| self.poll_fill_lent(cx, from, buffers)).await
    }

    /// The same, to be polled.
    #[inline]
    pub fn poll_fill_lent(
        &mut self,
        cx: &mut Context<'_>,
        from: &Stream,
        buffers: &Buffers,
    ) -> Poll<io::Result<usize>> {
        self.lend_back(buffers);
        if !self.bytes.is_empty() {
            return self.poll_fill(cx, from);
        }
        let read = from.poll_read_into(cx, || {
            self.borrow_from(buffers);
            &mut self.bytes[..]
        });
        if let Poll::Ready(Ok(read)) = read {
            (self.start, self.end) = (0, read);
        } else {
            self.lend_back(buffers);
        }
        read
    }

    /// The same for an empty one, but to the end, if that is known to be there; says whether it was reached.
    #[inline]
    pub fn poll_fill_on(
        &mut self,
        cx: &mut Context<'_>,
        from: &Stream,
        buffers: &Buffers,
    ) -> Poll<io::Result<(usize, bool)>> {
        // Most connections are silent most of the time: they hold no memory then.
        self.lend_back(buffers);
        let read = from.poll_read_on(cx, || {
            self.borrow_from(buffers);
            &mut self.bytes[..]
        });
        match &read {
            Poll::Ready(Ok((read, _))) => (self.start, self.end) = (0, *read),
            _ => self.lend_back(buffers),
        }
        read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(buffer: &mut Buffer, bytes: &[u8]) {
        buffer.bytes[buffer.end..buffer.end + bytes.len()].copy_from_slice(bytes);
        buffer.end += bytes.len();
    }

    #[test]
    fn memory_is_lent_and_comes_back() {
        let (buffers, mut buffer) = (Buffers::default(), Buffer::default());
        assert!(buffer.is_empty() && buffer.is_full());
        buffer.borrow_from(&buffers);
        put(&mut buffer, b"hello");
        buffer.consume(1);
        assert_eq!(buffer.filled(), b"ello");
        buffer.lend_back(&buffers);
        assert_eq!(buffer.filled(), b"ello", "what is in it stays");
        buffer.read_long(&buffers);
        assert_eq!((buffer.filled(), buffer.bytes.len(), buffers.small.borrow().len()), (&b"ello"[..], LARGE, 1));
        buffer.consume(4);
        buffer.lend_back(&buffers);
        assert_eq!((buffer.bytes.len(), buffers.large.borrow().len()), (0, 1));
        buffers.shrink();
        assert_eq!((buffers.small.borrow().len(), buffers.large.borrow().len()), (0, 0));
    }

    #[test]
    fn room_is_made_up_to_a_limit() {
        let (buffers, mut buffer) = (Buffers::default(), Buffer::default());
        assert!(buffer.make_room(&buffers, 20_000));
        put(&mut buffer, &[1; SMALL]);
        assert!(buffer.is_full() && buffer.make_room(&buffers, 20_000));
        put(&mut buffer, &[2; 20_000 - SMALL]);
        assert!(!buffer.make_room(&buffers, 20_000));
        assert_eq!((buffer.len(), buffer.filled()[SMALL]), (20_000, 2));
    }
}
