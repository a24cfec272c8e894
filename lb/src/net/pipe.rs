//! Bytes from socket to socket without a copy: `splice(2)` moves pages through a pipe.
//!
//! A pipe belongs to a worker, and is lent to whoever has much to pass on. There are only so many, as each takes two
//! descriptors and, while it is full, memory of the kernel's; who gets none uses a buffer.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use rustix::pipe::{PipeFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with};

use super::stream::Stream;

/// Bytes that a pipe holds, if the system allows it.
const ROOM: usize = 256 * 1024;
/// Pipes of a worker.
const MOST: usize = 64;

/// A worker's unused pipes.
#[derive(Debug, Default)]
pub struct Pipes {
    unused: RefCell<Vec<Pipe>>,
    /// Lent ones included.
    alive: Rc<Cell<usize>>,
}

/// A pipe, and how much is in it.
#[derive(Debug)]
pub struct Pipe {
    entrance: OwnedFd,
    exit: OwnedFd,
    room: usize,
    held: usize,
    alive: Rc<Cell<usize>>,
}

impl Pipes {
    /// An empty one, unless all are lent or the system gives none.
    pub fn take(&self) -> Option<Pipe> {
        let unused = self.unused.borrow_mut().pop();
        unused.or_else(|| if self.alive.get() < MOST { Pipe::new(&self.alive).ok() } else { None })
    }

    /// Takes one back. What is in it is lost.
    pub fn put(&self, pipe: Pipe) {
        if pipe.is_empty() {
            self.unused.borrow_mut().push(pipe);
        }
    }

    /// Gives back to the system half of what nobody has needed.
    pub fn shrink(&self) {
        let mut unused = self.unused.borrow_mut();
        let half = unused.len() / 2;
        unused.truncate(half);
    }
}

impl Pipe {
    fn new(alive: &Rc<Cell<usize>>) -> io::Result<Self> {
        let (exit, entrance) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // Without a privilege there may be less room for all of a user's pipes together.
        let room = fcntl_setpipe_size(&entrance, ROOM).or_else(|_| fcntl_getpipe_size(&entrance))?;
        alive.set(alive.get() + 1);
        Ok(Self { entrance, exit, room, held: 0, alive: Rc::clone(alive) })
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

impl Drop for Pipe {
    fn drop(&mut self) {
        self.alive.set(self.alive.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_only_so_many_and_they_come_back() {
        let pipes = Pipes::default();
        let mut lent: Vec<_> = std::iter::from_fn(|| pipes.take()).collect();
        assert_eq!((lent.len(), pipes.alive.get()), (MOST, MOST));
        pipes.put(lent.pop().unwrap());
        lent.push(pipes.take().unwrap());
        assert!(pipes.take().is_none());
        // One that still holds something can't be used for anybody else.
        let mut full = lent.pop().unwrap();
        full.held = 1;
        pipes.put(full);
        assert_eq!((pipes.alive.get(), pipes.unused.borrow().len()), (MOST - 1, 0));
        lent.into_iter().for_each(|pipe| pipes.put(pipe));
        pipes.shrink();
        assert_eq!(pipes.alive.get(), (MOST - 1) / 2);
    }
}
