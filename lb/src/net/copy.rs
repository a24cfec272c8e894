//! Bytes from one connection to another and back, as they come.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};

use super::buffers::{Buffer, Buffers, SMALL};
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
    let mut up =
        Half { way: Way::Up, from: to_client, to: to_replica, buffer: client.buffer, ended: false, over: false };
    let mut down =
        Half { way: Way::Down, from: to_replica, to: to_client, buffer: replica.buffer, ended: false, over: false };
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

impl Half<'_> {
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
            if self.ended {
                self.buffer.lend_back(buffers);
                return Poll::Ready(Ok(()));
            }
            let (read, ended) = ready!(self.buffer.poll_fill_on(cx, self.from, buffers))?;
            self.ended = ended;
            if read >= SMALL {
                // More than fits in a small one: long pieces cost less.
                self.buffer.read_long_next();
            } else {
                self.buffer.read_short();
            }
        }
    }
}
