//! A connection after a switch of protocols: bytes go both ways as they come, until both sides have ended.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::pin;
use std::task::Poll;

use super::session::{After, Client};
use super::worker::Worker;
use crate::net::buffers::{Buffer, Buffers};
use crate::net::stream::Stream;
use crate::pool::Lease;

/// Relays until both sides have ended, one has failed, or nothing has moved for the idle time. `behind` is what the replica
/// sent behind its head. The lease is held until then, so the replica counts as busy.
pub(super) async fn run(
    worker: &Worker,
    client: &mut Client,
    lease: Lease,
    replica: Stream,
    behind: &mut Buffer,
) -> After {
    client.watch.set(worker.ticks.idle);
    let moved = || client.watch.renew(worker.ticks.idle);
    let mut up = pin!(copy(&mut client.input, &client.stream, &replica, &worker.buffers, &moved));
    let mut down = pin!(copy(behind, &replica, &client.stream, &worker.buffers, &moved));
    let (mut up_over, mut down_over) = (false, false);
    let ended = poll_fn(|cx| {
        for (way, over) in
            [(up.as_mut() as std::pin::Pin<&mut dyn Future<Output = _>>, &mut up_over), (down.as_mut(), &mut down_over)]
        {
            if !*over && let Poll::Ready(end) = way.poll(cx) {
                *over = true;
                if end.is_err() {
                    return Poll::Ready(end);
                }
            }
        }
        match up_over && down_over {
            true => Poll::Ready(Ok(())),
            false => client.watch.poll(cx).map(|_| Err(io::ErrorKind::TimedOut.into())),
        }
    })
    .await;
    tracing::debug!(hostname = %lease.replica().hostname, "a tunnel has ended: {ended:?}");
    if ended.is_ok() { After::Close } else { After::Reset }
}

/// One way: what is in `buffer`, then what arrives, then the end.
async fn copy(buffer: &mut Buffer, from: &Stream, to: &Stream, buffers: &Buffers, moved: &impl Fn()) -> io::Result<()> {
    loop {
        if !buffer.is_empty() {
            to.write_all(&mut [IoSlice::new(buffer.filled())], moved).await?;
            buffer.consume(buffer.len());
        }
        // Most tunnels are silent most of the time: they hold no memory then.
        if buffer.fill(from, buffers).await? == 0 {
            return to.shutdown();
        }
        moved();
    }
}
