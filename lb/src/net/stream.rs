//! Sockets of the data path: what the runtime watches, read and written by system calls of our own.
//!
//! The C library's calls look for a thread's cancellation before and after each, which costs about a fortieth of a request;
//! `rustix` makes the system calls directly. All methods take `&self`: both directions of a connection are driven at the
//! same time.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{self as sys, AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, sockopt};
use rustix::pipe::{SpliceFlags, splice};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A TCP connection.
#[derive(Debug)]
pub struct Stream(AsyncFd<OwnedFd>);

impl Stream {
    #[allow(unsafe_code)]
    fn new(fd: OwnedFd) -> io::Result<Self> {
        // SAFETY: an `OwnedFd` has one descriptor for life, and closes it when it is dropped.
        Ok(Self(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE | Interest::WRITABLE)? }))
    }

    /// A new connection.
    pub async fn connect(addr: SocketAddr) -> io::Result<Self> {
        let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = sys::socket_with(family, SocketType::STREAM, flags, None)?;
        sockopt::set_tcp_nodelay(&socket, true)?;
        match sys::connect(&socket, &addr) {
            Ok(()) => return Self::new(socket),
            Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        // On the same host it is often made, or refused, by now, and then the second call says so.
        let made = match sys::connect(&socket, &addr) {
            Ok(()) => true,
            Err(Errno::ALREADY | Errno::INPROGRESS | Errno::INTR) => false,
            Err(error) => return Err(error.into()),
        };
        let stream = Self::new(socket)?;
        if !made {
            let writable = stream.0.writable().await?;
            drop(writable);
            sockopt::socket_error(&stream.0)??;
        }
        Ok(stream)
    }

    /// Reads what has arrived; 0 at the end. `buffer` is not empty.
    #[inline]
    pub fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        self.poll_read_into(cx, || buffer)
    }

    /// The same, into a buffer that is only asked for when something has arrived.
    #[inline]
    pub fn poll_read_into<'a>(
        &self,
        cx: &mut Context<'_>,
        buffer: impl FnOnce() -> &'a mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut ready = ready!(self.0.poll_read_ready(cx))?;
        let buffer = buffer();
        loop {
            match sys::recv(&self.0, &mut *buffer, RecvFlags::empty()) {
                Ok((read, _)) => {
                    // All that there was: the next look would find nothing.
                    if read > 0 && read < buffer.len() {
                        ready.clear_ready();
                    }
                    return Poll::Ready(Ok(read));
                }
                Err(Errno::AGAIN) => {
                    ready.clear_ready();
                    ready = ready!(self.0.poll_read_ready(cx))?;
                }
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    /// Reads what has arrived into a buffer that is only asked for then. If the peer is known to have ended already, it reads on
    /// to the end; says how much was read, and whether that was all there ever is.
    #[inline]
    pub fn poll_read_on<'a>(
        &self,
        cx: &mut Context<'_>,
        buffer: impl FnOnce() -> &'a mut [u8],
    ) -> Poll<io::Result<(usize, bool)>> {
        let mut ready = ready!(self.0.poll_read_ready(cx))?;
        let buffer = buffer();
        let mut filled = 0;
        loop {
            match sys::recv(&self.0, &mut buffer[filled..], RecvFlags::empty()) {
                Ok((0, _)) => return Poll::Ready(Ok((filled, true))),
                Ok((read, _)) => {
                    filled += read;
                    let full = filled == buffer.len();
                    if !full && ready.ready().is_read_closed() {
                        continue;
                    }
                    if !full {
                        // All that there was: the next look would find nothing.
                        ready.clear_ready();
                    }
                    return Poll::Ready(Ok((filled, false)));
                }
                Err(Errno::AGAIN) if filled > 0 => return Poll::Ready(Ok((filled, false))),
                Err(Errno::AGAIN) => {
                    ready.clear_ready();
                    ready = ready!(self.0.poll_read_ready(cx))?;
                }
                Err(Errno::INTR) => {}
                // What has come before is passed on first; the error comes again.
                Err(error) if filled == 0 => return Poll::Ready(Err(error.into())),
                Err(_) => return Poll::Ready(Ok((filled, false))),
            }
        }
    }

    /// Is there something to read, or the end?
    #[inline]
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_read_ready(cx).map_ok(drop)
    }

    /// Writes what there is room for. With `last`, the end follows at once, and may go along.
    #[inline]
    pub fn poll_send(&self, cx: &mut Context<'_>, bytes: &[u8], last: bool) -> Poll<io::Result<usize>> {
        let flags = if last { SendFlags::NOSIGNAL | SendFlags::MORE } else { SendFlags::NOSIGNAL };
        loop {
            let mut ready = ready!(self.0.poll_write_ready(cx))?;
            match sys::send(&self.0, bytes, flags) {
                Ok(written) => return Poll::Ready(Ok(written)),
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    #[inline]
    fn poll_write(&self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.0.poll_write_ready(cx))?;
            let written = match slices {
                [one] => sys::send(&self.0, one, SendFlags::NOSIGNAL),
                // Without a flag against SIGPIPE, but that is ignored in programs in Rust.
                many => rustix::io::writev(&self.0, many),
            };
            match written {
                Ok(written) => return Poll::Ready(Ok(written)),
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    /// Moves up to `most` bytes that have arrived into an empty pipe; 0 at the end.
    pub(super) fn poll_splice_to(&self, cx: &mut Context<'_>, pipe: &OwnedFd, most: usize) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(cx))?;
            match splice(&self.0, None, pipe, None, most, SpliceFlags::MOVE | SpliceFlags::NONBLOCK) {
                Ok(moved) => return Poll::Ready(Ok(moved)),
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    /// Moves up to `most` bytes out of a pipe that holds these.
    pub(super) fn poll_splice_from(
        &self,
        cx: &mut Context<'_>,
        pipe: &OwnedFd,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.0.poll_write_ready(cx))?;
            match splice(pipe, None, &self.0, None, most, SpliceFlags::MOVE | SpliceFlags::NONBLOCK) {
                Ok(moved) => return Poll::Ready(Ok(moved)),
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    /// Writes all of `slices`, one behind the other; `moved` is called after each piece that went.
    pub async fn write_all(&self, slices: &mut [IoSlice<'_>], moved: impl Fn()) -> io::Result<()> {
        let mut slices = slices;
        // Drops empty ones in front.
        IoSlice::advance_slices(&mut slices, 0);
        poll_fn(|cx| {
            while !slices.is_empty() {
                let written = ready!(self.poll_write(cx, slices))?;
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                moved();
                IoSlice::advance_slices(&mut slices, written);
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// The address that the connection was made to.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        let addr = sys::getsockname(&self.0)?;
        Ok(SocketAddr::try_from(addr)?)
    }

    /// Tells the peer that nothing more comes.
    pub fn shutdown(&self) -> io::Result<()> {
        Ok(sys::shutdown(&self.0, Shutdown::Write)?)
    }

    /// Has the connection reset when it is closed.
    pub fn reset_on_close(&self) {
        // Best effort: without it the connection is closed in good order, at a place where no message ends.
        let _ = sockopt::set_socket_linger(&self.0, Some(Duration::ZERO));
    }

    /// Has nothing happened on an idle connection, as far as the runtime has heard? A server that closes it, or sends what
    /// nobody asked for, makes it useless.
    pub fn seems_quiet(&self) -> bool {
        let looked = self.0.try_io(Interest::READABLE, |fd| self.peek(fd));
        looked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// The same, as the system knows it at this moment.
    pub fn is_quiet(&self) -> bool {
        self.peek(&self.0).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    fn peek(&self, fd: impl AsFd) -> io::Result<usize> {
        let (read, _) = sys::recv(fd, &mut [0_u8; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT)?;
        Ok(read)
    }
}

/// A listener.
#[derive(Debug)]
pub struct Listener(AsyncFd<TcpListener>);

impl Listener {
    /// Watches a listener that does not block.
    #[allow(unsafe_code)]
    pub fn new(listener: TcpListener) -> io::Result<Self> {
        // SAFETY: a `TcpListener` has one descriptor for life, and closes it when it is dropped.
        Ok(Self(unsafe { AsyncFd::register_with_interest(listener, Interest::READABLE)? }))
    }

    /// The next connection.
    pub async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        poll_fn(|cx| {
            loop {
                let mut ready = ready!(self.0.poll_read_ready(cx))?;
                match self.try_accept() {
                    Ok(Some(accepted)) => return Poll::Ready(Ok(accepted)),
                    Ok(None) => ready.clear_ready(),
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
        })
        .await
    }

    /// A connection that has been made already, if there is one, whatever the runtime has heard.
    pub fn try_accept(&self) -> io::Result<Option<(Stream, SocketAddr)>> {
        loop {
            match sys::acceptfrom_with(&self.0, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok((fd, peer)) => {
                    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
                    // Only a socket of another kind has no IP address.
                    let peer = peer.ok_or(io::ErrorKind::InvalidData)?;
                    return Ok(Some((Stream::new(fd)?, peer)));
                }
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_refused_connection_is_an_error() {
        let gone = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = gone.local_addr().unwrap();
        let (made, _accepted) = (Stream::connect(addr).await, gone.accept().unwrap());
        assert!(made.is_ok());
        drop(gone);
        assert_eq!(Stream::connect(addr).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
