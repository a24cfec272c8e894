//! A connection after a switch of protocols: bytes go both ways as they come, until both sides have ended.

use std::io;

use super::session::{After, Client};
use super::worker::Worker;
use crate::net::buffers::Buffer;
use crate::net::copy::{Side, both_ways};
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
    let ended = both_ways(
        Side { stream: &client.stream, buffer: &mut client.input },
        Side { stream: &replica, buffer: behind },
        &worker.buffers,
        |_, _| client.watch.renew(worker.ticks.idle),
        |cx| client.watch.poll(cx).map(|_| io::ErrorKind::TimedOut.into()),
    )
    .await;
    tracing::debug!(hostname = %lease.replica().hostname, "a tunnel has ended: {ended:?}");
    if ended.is_ok() { After::Close } else { After::Reset }
}
