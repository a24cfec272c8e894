//! Bytes from socket to socket without a copy: `splice(2)` moves pages through a pipe.

use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};

use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

use super::stream::Stream;

/// Bytes that a pipe holds, if the system allows it.
const ROOM: usize = 256 * 1024;

/// A pipe, and how much is in it.
#[derive(Debug)]
pub struct Pipe {
    pub(super) entrance: OwnedFd,
    pub(super) exit: OwnedFd,
    room: usize,
    held: usize,
}

impl Pipe {
    /// An empty one.
    pub fn new() -> io::Result<Self> {
        let (exit, entrance) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let room = fcntl_setpipe_size(&entrance, ROOM).unwrap_or(64 * 1024);
        Ok(Self { entrance, exit, room, held: 0 })
    }

    /// Is nothing in it?
    pub fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Takes in what has arrived; 0 at the end of the stream. Only for an empty one.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>, from: &Stream) -> Poll<io::Result<usize>> {
        let taken = ready!(from.poll_splice_to(cx, &self.entrance, self.room))?;
        self.held += taken;
        Poll::Ready(Ok(taken))
    }

    /// Gives out what there is room for.
    pub fn poll_empty(&mut self, cx: &mut Context<'_>, to: &Stream) -> Poll<io::Result<usize>> {
        let given = ready!(to.poll_splice_from(cx, &self.exit, self.held))?;
        self.held -= given;
        Poll::Ready(Ok(given))
    }
}
