//! A port's UDP datagrams.
//!
//! Clients talk to one socket, from which many datagrams are read and to which many are written at once. Each flow has a
//! socket of its own towards its replica, connected, so that replies find their client and ICMP errors their flow. These
//! sockets are watched by one epoll descriptor, which the runtime watches in turn: ten thousand flows are neither tasks nor
//! registrations of the runtime's.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{self as sys, AddressFamily, SendFlags, SocketFlags, SocketType};

use super::flow::{FlowId, FlowKey, Flows};
use super::port::{Port, add};
use super::tcp::key_of;
use super::worker::Worker;
use crate::net::datagrams::{BATCH, Batch, SEGMENTS, may_be_joined, send_together};
use crate::net::watch_readable;
use crate::policy::PickCx;
use crate::pool::{Lease, PoolReader};
use crate::replica::{Generation, Health};
use crate::shutdown::Shutdown;
use crate::watchdog::ticks;

/// Replies that are read from a flow in one go.
const AT_ONCE: usize = 4;
/// Batches that are worked on before others have their turn.
const ROUNDS: usize = 4;
/// Between two looks for idle flows.
const SWEEP: Duration = Duration::from_secs(1);

/// A flow's socket, and whose replies come from it.
struct Flow {
    socket: OwnedFd,
    lease: Lease,
    client: SocketAddr,
    /// The address that the client has asked, if that must be said.
    local: Option<IpAddr>,
    /// Counts it until dropped.
    _counted: Counted,
}

/// One flow more, of the worker's and of the port's.
struct Counted {
    worker: Rc<Worker>,
    port: Arc<Port>,
}

impl Counted {
    fn begin(worker: &Rc<Worker>, port: &Arc<Port>) -> Self {
        worker.flows.fetch_add(1, Ordering::Relaxed);
        let counts = port.counts(worker.at);
        counts.flows.fetch_add(1, Ordering::Relaxed);
        add(&counts.accepted, 1);
        Self { worker: Rc::clone(worker), port: Arc::clone(port) }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.worker.flows.fetch_sub(1, Ordering::Relaxed);
        self.port.counts(self.worker.at).flows.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A port's sockets and flows on one worker.
struct UdpPort {
    worker: Rc<Worker>,
    port: Arc<Port>,
    pool: PoolReader,
    clients: UdpSocket,
    /// Watches the sockets of flows.
    watched: OwnedFd,
    flows: Flows<Flow>,
    /// Datagrams tell to which of several addresses they were sent.
    with_local: bool,
}

/// Serves a port until it is closed or the balancer stops.
pub(super) async fn serve(
    worker: Rc<Worker>,
    port: Arc<Port>,
    socket: UdpSocket,
    pool: PoolReader,
    closing: Shutdown,
    shutdown: Shutdown,
) -> io::Result<()> {
    let watched = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let clients = watch_readable(socket.try_clone()?.into())?;
    let replicas = watch_readable(watched.try_clone()?)?;
    let with_local = port.addr.ip().is_unspecified();
    let mut changed = pool.clone();
    let mut udp = UdpPort { worker, port, pool, clients: socket, watched, flows: Flows::default(), with_local };
    let (mut closing, mut shutdown) = (pin!(closing.begun()), pin!(shutdown.begun()));
    let mut sweep = tokio::time::interval(SWEEP);
    loop {
        tokio::select! {
            () = &mut closing => return Ok(()),
            () = &mut shutdown => return Ok(()),
            ready = clients.readable() => {
                if udp.take_requests() {
                    ready?.clear_ready();
                }
            }
            ready = replicas.readable() => {
                if udp.take_replies() {
                    ready?.clear_ready();
                }
            }
            () = changed.changed() => udp.end_where(|flow| flow.lease.replica().health() == Health::Lost),
            _ = sweep.tick() => udp.sweep(),
        }
    }
}

/// What became of datagrams that were to be sent.
enum Sent {
    /// The first so many are on their way.
    Gone(usize),
    /// The replica can't be reached: there is nobody at its port.
    Refused,
    Dropped,
}

impl UdpPort {
    /// Passes on what has come from clients. True if there was no more.
    fn take_requests(&mut self) -> bool {
        let worker = Rc::clone(&self.worker);
        let mut batch = worker.batch.borrow_mut();
        for _ in 0..ROUNDS {
            match batch.receive(self.clients.as_fd(), self.with_local) {
                Ok(count) => {
                    self.pass_all_on(&batch, count);
                    if count < BATCH {
                        return true;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    worker.warn(|| tracing::warn!(relay = %self.port.key, "cannot receive datagrams: {error}"));
                    return true;
                }
            }
        }
        false
    }

    /// Passes the first `count` datagrams of the batch on. Of one client that sticks to a replica, those of one length go
    /// together.
    fn pass_all_on(&mut self, batch: &Batch, count: usize) {
        let by_flow = self.port.by_flow();
        let mut taken = 0_u64;
        for at in 0..count {
            let Some((bytes, client)) = batch.datagram(at) else { continue };
            if taken & (1 << at) != 0 {
                continue;
            }
            let local = |at| if self.with_local { batch.local(at) } else { None };
            let here = local(at);
            let mut together = [IoSlice::new(&[]); BATCH];
            together[0] = IoSlice::new(bytes);
            let mut parts = 1;
            if by_flow && may_be_joined(bytes.len()) {
                for other in at + 1..count {
                    if let Some((more, from)) = batch.datagram(other)
                        && from == client
                        && more.len() == bytes.len()
                        && local(other) == here
                    {
                        taken |= 1 << other;
                        together[parts] = IoSlice::new(more);
                        parts += 1;
                    }
                }
            }
            // The kernel takes so many at a time.
            for together in together[..parts].chunks(SEGMENTS) {
                self.pass_on(client, here, together);
            }
        }
    }

    /// Passes datagrams of one client on: to the replica of its flow, or to the next one.
    fn pass_on(&mut self, client: SocketAddr, local: Option<IpAddr>, datagrams: &[IoSlice<'_>]) {
        let port = Arc::clone(&self.port);
        let counts = port.counts(self.worker.at);
        let now = self.worker.watchdog.now();
        let by_flow = port.by_flow();
        let key = if self.worker.config.hashes { key_of(client) } else { 0 };
        let mut tried: Vec<Generation> = Vec::new();
        loop {
            let mut flow_key = FlowKey { client, local, replica: None };
            // A flow's replica is the first choice, as long as it is in rotation.
            let known = if by_flow { self.flows.find(&flow_key) } else { None };
            let known = known.filter(|(_, flow)| flow.lease.replica().is_ready()).map(|(id, _)| id);
            let found = match known {
                Some(id) => Some(id),
                None => {
                    let (random, now_ms) = (self.worker.random(), self.pool.now());
                    let cx = PickCx { key, tried: &tried, random, now: now_ms, limit: None };
                    let Some(lease) = self.pool.acquire(&cx) else {
                        return add(&counts.unserved, datagrams.len() as u64);
                    };
                    if by_flow {
                        self.begin(flow_key, lease, now)
                    } else {
                        flow_key.replica = Some(lease.replica().generation);
                        match self.flows.find(&flow_key) {
                            Some((id, _)) => Some(id),
                            None => self.begin(flow_key, lease, now),
                        }
                    }
                }
            };
            let Some(id) = found else { return add(&counts.dropped, datagrams.len() as u64) };
            let Some((_, flow)) = self.flows.get(id) else { return };
            match send(&flow.socket, datagrams) {
                Sent::Gone(went) => {
                    datagrams[..went].iter().for_each(|_| flow.lease.served());
                    add(&counts.datagrams_up, went as u64);
                    add(&counts.bytes_up, datagrams[..went].iter().map(|datagram| datagram.len() as u64).sum());
                    add(&counts.dropped, (datagrams.len() - went) as u64);
                    return self.flows.touch(id, now);
                }
                Sent::Dropped => return add(&counts.dropped, datagrams.len() as u64),
                Sent::Refused => {
                    tried.push(flow.lease.replica().generation);
                    self.refused(id);
                }
            }
        }
    }

    /// A new flow; `None` if there is no room or no socket for it.
    fn begin(&mut self, key: FlowKey, lease: Lease, now: u64) -> Option<FlowId> {
        if self.worker.flows.load(Ordering::Relaxed) >= self.worker.config.max_flows {
            self.flows.remove_oldest()?;
            add(&self.port.counts(self.worker.at).evicted, 1);
        }
        let socket = match connect(lease.replica().addr) {
            Ok(socket) => socket,
            Err(error) => {
                let relay = self.port.key;
                self.worker.warn(|| tracing::warn!(%relay, "no socket for another flow of {relay}: {error}"));
                return None;
            }
        };
        let counted = Counted::begin(&self.worker, &self.port);
        let flow = Flow { socket, lease, client: key.client, local: key.local, _counted: counted };
        let (id, _before) = self.flows.insert(key, flow, now);
        let (_, flow) = self.flows.get(id)?;
        let data = epoll::EventData::new_u64(id.to_u64());
        if let Err(error) = epoll::add(&self.watched, &flow.socket, data, epoll::EventFlags::IN) {
            self.worker.warn(|| tracing::warn!("a flow can't be watched: {error}"));
            self.flows.remove(id);
            return None;
        }
        Some(id)
    }

    /// The replica of a flow is not there: out of rotation with it, and its flow with it.
    fn refused(&mut self, id: FlowId) {
        if let Some(flow) = self.flows.remove(id) {
            flow.lease.failed();
            self.pool.suspect(flow.lease.replica());
        }
    }

    /// Passes on what has come from replicas. True if there was no more.
    fn take_replies(&mut self) -> bool {
        let worker = Rc::clone(&self.worker);
        let mut batch = worker.batch.borrow_mut();
        let now = worker.watchdog.now();
        for _ in 0..ROUNDS {
            let mut events = [const { std::mem::MaybeUninit::<epoll::Event>::uninit() }; BATCH];
            let looked = epoll::wait(&self.watched, &mut events, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
            let events = match looked {
                Ok(([], _)) => return true,
                Ok((events, _)) => events,
                Err(Errno::INTR) => continue,
                Err(error) => {
                    worker.warn(|| tracing::warn!("cannot look at flows: {error}"));
                    return true;
                }
            };
            let mut replies = 0;
            for event in events.iter() {
                let id = FlowId::from_u64(event.data.u64());
                let Some((_, flow)) = self.flows.get(id) else { continue };
                if replies == BATCH {
                    self.reply(&mut batch, replies);
                    replies = 0;
                }
                match batch.receive_at(flow.socket.as_fd(), replies, AT_ONCE) {
                    Ok(count) => {
                        for at in replies..replies + count {
                            let len = batch.received_len(at);
                            batch.address(at, len, flow.client, flow.local);
                        }
                        replies += count;
                        self.flows.touch(id, now);
                    }
                    Err(error) if is_refusal(&error) => self.refused(id),
                    Err(_) => {}
                }
            }
            self.reply(&mut batch, replies);
        }
        false
    }

    /// Sends the first `count` datagrams of the batch to their clients.
    fn reply(&self, batch: &mut Batch, count: usize) {
        let counts = self.port.counts(self.worker.at);
        let (mut gone, mut bytes) = (0, 0);
        batch.send_all(self.clients.as_fd(), count, |len, went| {
            if went {
                (gone, bytes) = (gone + 1, bytes + len as u64);
            }
        });
        add(&counts.datagrams_down, gone);
        add(&counts.bytes_down, bytes);
        add(&counts.dropped, count as u64 - gone);
    }

    fn end_where(&mut self, ends: impl FnMut(&Flow) -> bool) {
        self.flows.remove_where(ends);
    }

    /// Ends what was idle for too long.
    fn sweep(&mut self) {
        let now = self.worker.watchdog.now();
        let Some(before) = now.checked_sub(self.worker.ticks.flow_idle) else { return };
        let mut ended = 0;
        while self.flows.remove_idle(before).is_some() {
            ended += 1;
        }
        // After a crowd has left.
        if ended >= ticks(SWEEP) && self.flows.is_empty() {
            crate::memory::give_back();
        }
    }
}

fn connect(addr: SocketAddr) -> io::Result<OwnedFd> {
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = sys::socket_with(family, SocketType::DGRAM, flags, None)?;
    sys::connect(&socket, &addr)?;
    Ok(socket)
}

/// The answer to an earlier datagram, by ICMP: the port, the host or its network can't be reached.
fn is_refusal(error: &io::Error) -> bool {
    let kinds = [io::ErrorKind::ConnectionRefused, io::ErrorKind::HostUnreachable, io::ErrorKind::NetworkUnreachable];
    kinds.contains(&error.kind())
}

/// Together, or one by one where they can't be handed over so.
fn send(socket: &OwnedFd, datagrams: &[IoSlice<'_>]) -> Sent {
    if datagrams.len() > 1 {
        match send_together(socket.as_fd(), datagrams) {
            Ok(()) => return Sent::Gone(datagrams.len()),
            Err(error) if is_refusal(&error) => return Sent::Refused,
            Err(_) => {}
        }
    }
    for (at, datagram) in datagrams.iter().enumerate() {
        match send_one(socket, datagram) {
            Sent::Gone(_) => {}
            // What was lost is not sent again.
            _ if at > 0 => return Sent::Gone(at),
            lost => return lost,
        }
    }
    Sent::Gone(datagrams.len())
}

fn send_one(socket: &OwnedFd, bytes: &[u8]) -> Sent {
    loop {
        match sys::send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(_) => return Sent::Gone(1),
            Err(Errno::INTR) => {}
            Err(Errno::CONNREFUSED | Errno::HOSTUNREACH | Errno::NETUNREACH) => return Sent::Refused,
            // No room, or too long for the way to the replica.
            Err(_) => return Sent::Dropped,
        }
    }
}
