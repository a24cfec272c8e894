//! Writing to sockets, and looking at them.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::WriteHalf;

/// Writes all of `slices`, one behind the other; `moved` is called after each piece that went.
pub(super) async fn write_all(to: &mut WriteHalf<'_>, slices: &mut [IoSlice<'_>], moved: impl Fn()) -> io::Result<()> {
    let mut slices = slices;
    // Drops empty ones in front.
    IoSlice::advance_slices(&mut slices, 0);
    poll_fn(|cx| {
        while !slices.is_empty() {
            let written = ready!(match &*slices {
                [one] => Pin::new(&mut *to).poll_write(cx, one),
                many => Pin::new(&mut *to).poll_write_vectored(cx, many),
            })?;
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

/// Has nothing happened on an idle connection, as far as the runtime has heard? A server that closes it, or sends what
/// nobody asked for, makes it useless.
pub(super) fn seems_quiet(stream: &mut TcpStream) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    if stream.poll_read_ready(&mut cx).is_pending() {
        return true;
    }
    // What filled a buffer to its last byte leaves the runtime in doubt: only a look can tell.
    let mut byte = [MaybeUninit::uninit()];
    let mut byte = ReadBuf::uninit(&mut byte);
    Pin::new(stream).poll_read(&mut cx, &mut byte).is_pending()
}

/// The same, as the system knows it at this moment.
pub(super) fn is_quiet(stream: &TcpStream) -> bool {
    let looked = SockRef::from(stream).peek(&mut [MaybeUninit::uninit()]);
    looked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}
