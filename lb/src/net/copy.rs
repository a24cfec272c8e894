//! Bytes from one connection to another and back, as they come.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};

use super::buffers::{Buffer, Buffers, SMALL};
use super::pipe::Pipe;
use super::stream::Stream;

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the client to the replica.
    Up,
    /// From the replica to the client.
    Down,
}

/// One side of a relayed connection, and what it has sent that was not passed on yet.
#[derive(Debug)]
pub struct Side<'a> {
    /// Its connection.
    pub stream: &'a Stream,
    /// What has come from it.
    pub buffer: &'a mut Buffer,
}

/// One direction.
struct Half<'a> {
    way: Way,
    from: &'a Stream,
    to: &'a Stream,
    buffer: &'a mut Buffer,
    /// Its sender has ended; what came before that may still be in the buffer.
    ended: bool,
    /// And nothing is left to do.
    over: bool,
    /// It brings so much at a time that it need not be copied.
    splices: bool,
    /// What it has brought that way.
    pipe: Option<Pipe>,
}

/// Passes bytes on until both sides have ended, or one has failed. A side that ends leaves the other direction open.
///
/// `moved` is told of everything that went; `alarm` is asked whenever nothing moves, and ends the relay with its error.
pub async fn both_ways(
    client: Side<'_>,
    replica: Side<'_>,
    buffers: &Buffers,
    moved: impl Fn(Way, usize),
    mut alarm: impl FnMut(&mut Context<'_>) -> Poll<io::Error>,
) -> io::Result<()> {
    let (to_client, to_replica) = (client.stream, replica.stream);
    let mut up = Half::new(Way::Up, to_client, to_replica, client.buffer);
    let mut down = Half::new(Way::Down, to_replica, to_client, replica.buffer);
    poll_fn(|cx| {
        for way in [Way::Up, Way::Down] {
            let (half, other_over) = match way {
                Way::Up => (&mut up, down.over),
                Way::Down => (&mut down, up.over),
            };
            if !half.over && half.poll(cx, buffers, &moved)?.is_ready() {
                half.over = true;
                // With both over, closing the connections says the same.
                if !other_over {
                    half.to.shutdown()?;
                }
            }
        }
        match up.over && down.over {
            true => Poll::Ready(Ok(())),
            false => alarm(cx).map(Err),
        }
    })
    .await
}

impl<'a> Half<'a> {
    fn new(way: Way, from: &'a Stream, to: &'a Stream, buffer: &'a mut Buffer) -> Self {
        Self { way, from, to, buffer, ended: false, over: false, splices: false, pipe: None }
    }

    /// Ready when its sender has ended, and everything was passed on.
    #[inline]
    fn poll(&mut self, cx: &mut Context<'_>, buffers: &Buffers, moved: &impl Fn(Way, usize)) -> Poll<io::Result<()>> {
        loop {
            while !self.buffer.is_empty() {
                let written = ready!(self.to.poll_send(cx, self.buffer.filled(), self.ended))?;
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                moved(self.way, written);
                self.buffer.consume(written);
            }
            if let Some(pipe) = &mut self.pipe {
                while !pipe.is_empty() {
                    let gone = ready!(pipe.poll_empty(cx, self.to))?;
                    if gone == 0 {
                        return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                    }
                    moved(self.way, gone);
                }
            }
            if self.ended {
                self.buffer.lend_back(buffers);
                self.put_pipe(buffers);
                return Poll::Ready(Ok(()));
            }
            if self.splices
                && let Some(mut pipe) = self.pipe.take().or_else(|| buffers.pipes.take())
            {
                self.buffer.lend_back(buffers);
                let filled = pipe.poll_fill(cx, self.from);
                match filled {
                    Poll::Ready(Ok(count)) => {
                        self.pipe = Some(pipe);
                        self.ended = count == 0;
                        self.splices = count >= SMALL;
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    // Who waits holds none.
                    Poll::Pending => {
                        buffers.pipes.put(pipe);
                        return Poll::Pending;
                    }
                }
                continue;
            }
            self.put_pipe(buffers);
            let (read, ended) = ready!(self.buffer.poll_fill_on(cx, self.from, buffers))?;
            self.ended = ended;
            if read >= SMALL {
                // More than fits in a small one: long pieces cost less, and those that are not copied the least.
                self.splices = read > SMALL;
                self.buffer.read_long_next();
            } else {
                self.buffer.read_short();
            }
        }
    }

    fn put_pipe(&mut self, buffers: &Buffers) {
        if let Some(pipe) = self.pipe.take() {
            buffers.pipes.put(pipe);
        }
    }
}
