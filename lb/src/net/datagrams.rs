//! Datagrams many at a time: one system call receives or sends up to [`BATCH`] of them (`recvmmsg`, `sendmmsg`).
//!
//! A [`Batch`] belongs to a worker, and is used for one socket after the other. Its memory is only touched as far as
//! datagrams reach.

use std::io::{self, IoSlice};
use std::mem::{MaybeUninit, size_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};

/// Datagrams in one go.
pub const BATCH: usize = 64;
/// Payload of the longest datagram over IPv4 (RFC 768; 65,535 less two headers). IPv6 without jumbograms has 20 more.
pub const LONGEST: usize = 65_527;
/// Room for one datagram.
const SLOT: usize = 65_536;
/// Room for one control message that tells the address a datagram was sent to, of the larger kind, and one with a length.
const CONTROL: usize = 64;
/// Datagrams of at most this length are handed over together: longer ones may not fit in a packet of the way.
const SEGMENT: usize = 1200;
/// As many of them at a time; the kernel takes 64 and 64 KiB.
pub const SEGMENTS: usize = 32;

/// Where a datagram goes, and from where.
type Ends = (SocketAddr, Option<IpAddr>);

/// Aligned as control messages want it.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

/// Room for a batch of datagrams, their addresses, and the kernel's headers for them.
///
/// The headers point into the other boxes, whose places never change.
pub struct Batch {
    bytes: Box<[u8]>,
    addrs: Box<[libc::sockaddr_storage]>,
    controls: Box<[Control]>,
    parts: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
    /// Where those that are to be sent go, and where they are to come from.
    peers: Box<[Option<Ends>]>,
    /// Parts and headers of what is sent together.
    joined_parts: Box<[libc::iovec]>,
    joined_headers: Box<[libc::mmsghdr]>,
    /// How many of the headers are not as [`Batch::receive`] wants them.
    used: usize,
    /// The others tell local addresses.
    with_local: bool,
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch").finish_non_exhaustive()
    }
}

impl Default for Batch {
    #[allow(unsafe_code)]
    fn default() -> Self {
        // SAFETY: for these plain structures of the C library all zeroes are a valid value.
        let (addr, part, header) = unsafe {
            (
                MaybeUninit::<libc::sockaddr_storage>::zeroed().assume_init(),
                MaybeUninit::<libc::iovec>::zeroed().assume_init(),
                MaybeUninit::<libc::mmsghdr>::zeroed().assume_init(),
            )
        };
        Self {
            bytes: vec![0; BATCH * SLOT].into_boxed_slice(),
            addrs: vec![addr; BATCH].into_boxed_slice(),
            controls: vec![Control([0; CONTROL]); BATCH].into_boxed_slice(),
            parts: vec![part; BATCH].into_boxed_slice(),
            headers: vec![header; BATCH].into_boxed_slice(),
            peers: vec![None; BATCH].into_boxed_slice(),
            joined_parts: vec![part; BATCH].into_boxed_slice(),
            joined_headers: vec![header; BATCH].into_boxed_slice(),
            used: BATCH,
            with_local: false,
        }
    }
}

impl Batch {
    /// Points a header at all of its slot, or at so many bytes of it.
    fn point(&mut self, at: usize, len: usize, addr_len: usize, control_len: usize) {
        let header = &mut self.headers[at];
        self.parts[at] =
            libc::iovec { iov_base: self.bytes[at * SLOT..(at + 1) * SLOT].as_mut_ptr().cast(), iov_len: len };
        header.msg_len = 0;
        header.msg_hdr.msg_name = (&raw mut self.addrs[at]).cast();
        header.msg_hdr.msg_namelen = addr_len as u32;
        header.msg_hdr.msg_iov = &raw mut self.parts[at];
        header.msg_hdr.msg_iovlen = 1;
        header.msg_hdr.msg_control =
            if control_len == 0 { std::ptr::null_mut() } else { (&raw mut self.controls[at]).cast() };
        header.msg_hdr.msg_controllen = control_len as _;
        header.msg_hdr.msg_flags = 0;
    }

    /// Receives what has arrived, at most [`BATCH`] datagrams; how many. Never waits. With `with_local`, each comes with the
    /// address that it was sent to, if the socket tells it.
    #[allow(unsafe_code)]
    pub fn receive(&mut self, socket: BorrowedFd<'_>, with_local: bool) -> io::Result<usize> {
        if std::mem::replace(&mut self.with_local, with_local) != with_local {
            self.used = BATCH;
        }
        for at in 0..self.used {
            self.point(at, SLOT, size_of::<libc::sockaddr_storage>(), if with_local { CONTROL } else { 0 });
        }
        // SAFETY: `BATCH` headers, each of which points to a slot, an address and, if at all, a control buffer of the
        // lengths it says, all of which live as long as `self`.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                BATCH as u32,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        if received < 0 {
            self.used = 0;
            return Err(io::Error::last_os_error());
        }
        self.used = received as usize;
        Ok(self.used)
    }

    /// Receives up to `most` datagrams into the places from `first` on, from a socket whose sender is known; how many. Never
    /// waits.
    #[allow(unsafe_code)]
    pub fn receive_at(&mut self, socket: BorrowedFd<'_>, first: usize, most: usize) -> io::Result<usize> {
        self.used = BATCH;
        let most = most.min(BATCH - first);
        for at in first..first + most {
            self.point(at, SLOT, 0, 0);
        }
        let headers = &mut self.headers[first..first + most];
        // SAFETY: the headers point to slots of the lengths they say, which live as long as `self`.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                headers.len() as u32,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        if received < 0 { Err(io::Error::last_os_error()) } else { Ok(received as usize) }
    }

    /// How long the datagram at place `at` is that was received.
    pub fn received_len(&self, at: usize) -> usize {
        (self.headers[at].msg_len as usize).min(SLOT)
    }

    /// The datagram at place `at` of those received, and who has sent it; `None` if it was no IP address.
    pub fn datagram(&self, at: usize) -> Option<(&[u8], SocketAddr)> {
        let len = (self.headers[at].msg_len as usize).min(SLOT);
        Some((&self.bytes[at * SLOT..at * SLOT + len], to_addr(&self.addrs[at])?))
    }

    /// The address that it was sent to.
    pub fn local(&self, at: usize) -> Option<IpAddr> {
        let len = self.headers[at].msg_hdr.msg_controllen;
        local_of(&self.controls[at].0[..len.min(CONTROL)])
    }

    /// The room at place `at`, to be filled with a datagram to send.
    pub fn slot(&mut self, at: usize) -> &mut [u8] {
        &mut self.bytes[at * SLOT..(at + 1) * SLOT]
    }

    /// Addresses the `len` bytes at place `at` to `to`; they are to come from `from` if that is given.
    pub fn address(&mut self, at: usize, len: usize, to: SocketAddr, from: Option<IpAddr>) {
        self.peers[at] = Some((to, from));
        let addr_len = from_addr(to, &mut self.addrs[at]);
        let control = from.map_or(0, |from| control_for(from, &mut self.controls[at].0));
        self.point(at, len.min(SLOT), addr_len, control);
        self.used = self.used.max(at + 1);
    }

    /// Sends the first `count` datagrams, each of which was addressed. Those of one length to one peer are handed over together
    /// (`UDP_SEGMENT`, udp(7)), as the way through the kernel costs more than all else. `sent` is told of each, with its length,
    /// whether it went. Never waits.
    #[allow(unsafe_code)]
    pub fn send_all(&mut self, socket: BorrowedFd<'_>, count: usize, mut sent: impl FnMut(usize, bool)) {
        // Where each group's parts begin, and the places of all, group by group.
        let (mut places, mut groups) = ([0_u8; BATCH], 0);
        let mut begins = [0_u8; BATCH + 1];
        let (mut taken, mut next) = (0_u64, 0);
        for at in 0..count {
            if taken & (1 << at) != 0 {
                continue;
            }
            let (first, len) = (next, self.parts[at].iov_len);
            begins[groups] = first as u8;
            for other in at..count {
                let joins = other == at
                    || (taken & (1 << other) == 0
                        && (1..=SEGMENT).contains(&len)
                        && next - first < SEGMENTS
                        && self.parts[other].iov_len == len
                        && self.peers[other] == self.peers[at]);
                if joins {
                    taken |= 1 << other;
                    places[next] = other as u8;
                    self.joined_parts[next] = self.parts[other];
                    next += 1;
                }
            }
            let mut header = self.headers[at];
            header.msg_hdr.msg_iov = &raw mut self.joined_parts[first];
            header.msg_hdr.msg_iovlen = (next - first) as _;
            if next - first > 1 {
                let used = header.msg_hdr.msg_controllen;
                header.msg_hdr.msg_controllen = (used + segment_control(len, &mut self.controls[at].0[used..])) as _;
                header.msg_hdr.msg_control = (&raw mut self.controls[at]).cast();
            }
            self.joined_headers[groups] = header;
            groups += 1;
        }
        begins[groups] = next as u8;
        self.used = BATCH;
        let mut done = 0;
        while done < groups {
            let headers = &mut self.joined_headers[done..groups];
            // SAFETY: the headers point to parts that point to slots, to addresses and to control buffers, with the lengths of
            // what these hold, all of which live as long as `self`.
            let went = unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    headers.as_mut_ptr(),
                    headers.len() as u32,
                    libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
                )
            };
            let of = |group: usize| usize::from(begins[group])..usize::from(begins[group + 1]);
            if went > 0 {
                let all = of(done).start..usize::from(begins[done + went as usize]);
                places[all].iter().for_each(|at| sent(self.parts[usize::from(*at)].iov_len, true));
                done += went as usize;
            } else if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
                // The first can't be sent. Where a group is not taken, its datagrams may be, one by one.
                let alone = of(done).len() == 1;
                for at in &places[of(done)] {
                    let at = usize::from(*at);
                    let went = !alone && {
                        // The header may say that it is one of several.
                        if let Some((to, from)) = self.peers[at] {
                            self.address(at, self.parts[at].iov_len, to, from);
                        }
                        self.send(socket, at, at + 1).is_ok_and(|went| went == 1)
                    };
                    sent(self.parts[at].iov_len, went);
                }
                done += 1;
            }
        }
    }

    /// Sends the datagrams at the places `from` to `to`, and says how many went; an error is that of the first. Never waits.
    #[allow(unsafe_code)]
    pub fn send(&mut self, socket: BorrowedFd<'_>, from: usize, to: usize) -> io::Result<usize> {
        self.used = BATCH;
        let headers = &mut self.headers[from..to];
        // SAFETY: the headers were pointed at their slots, addresses and control buffers by `address`, with the lengths of
        // what these hold, and all live as long as `self`.
        let sent = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                headers.len() as u32,
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(sent as usize) }
    }
}

// SAFETY: the pointers in the headers point to what the batch itself owns.
#[allow(unsafe_code)]
unsafe impl Send for Batch {}

#[allow(unsafe_code)]
fn to_addr(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says which structure the storage, which is large and aligned enough for all, holds.
            let addr = unsafe { &*(&raw const *storage).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(addr.sin_addr.s_addr));
            Some(SocketAddrV4::new(ip, u16::from_be(addr.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let addr = unsafe { &*(&raw const *storage).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(addr.sin6_addr.s6_addr);
            Some(SocketAddrV6::new(ip, u16::from_be(addr.sin6_port), addr.sin6_flowinfo, addr.sin6_scope_id).into())
        }
        _ => None,
    }
}

#[allow(unsafe_code)]
fn from_addr(addr: SocketAddr, storage: &mut libc::sockaddr_storage) -> usize {
    match addr {
        SocketAddr::V4(addr) => {
            // SAFETY: the storage is large and aligned enough for every structure of an address.
            let to = unsafe { &mut *(&raw mut *storage).cast::<libc::sockaddr_in>() };
            to.sin_family = libc::AF_INET as u16;
            to.sin_port = addr.port().to_be();
            to.sin_addr.s_addr = u32::from(*addr.ip()).to_be();
            size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(addr) => {
            // SAFETY: as above.
            let to = unsafe { &mut *(&raw mut *storage).cast::<libc::sockaddr_in6>() };
            to.sin6_family = libc::AF_INET6 as u16;
            to.sin6_port = addr.port().to_be();
            to.sin6_flowinfo = addr.flowinfo();
            to.sin6_addr.s6_addr = addr.ip().octets();
            to.sin6_scope_id = addr.scope_id();
            size_of::<libc::sockaddr_in6>()
        }
    }
}

// A control message: a header of 16 bytes (length, level, type; cmsg(3)), then its data.
const HEADER: usize = size_of::<libc::cmsghdr>();

/// The address in `in_pktinfo` (ip(7): index, local address, destination) or `in6_pktinfo` (RFC 3542, section 6.2: address,
/// index). Both sockets that serve IPv4 as well as IPv6 and those of one family are understood.
fn local_of(control: &[u8]) -> Option<IpAddr> {
    let word = |at: usize| Some(i32::from_ne_bytes(control.get(at..at + 4)?.try_into().ok()?));
    let (level, kind) = (word(size_of::<usize>())?, word(size_of::<usize>() + 4)?);
    let data = control.get(HEADER..)?;
    match (level, kind) {
        (libc::IPPROTO_IP, libc::IP_PKTINFO) => Some(<[u8; 4]>::try_from(data.get(8..12)?).ok()?.into()),
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => Some(<[u8; 16]>::try_from(data.get(..16)?).ok()?.into()),
        _ => None,
    }
}

/// Writes the control message that has a datagram leave from `from`; its length in all.
fn control_for(from: IpAddr, control: &mut [u8; CONTROL]) -> usize {
    let (level, kind, data) = match from {
        IpAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_PKTINFO, 12),
        IpAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, 20),
    };
    *control = [0; CONTROL];
    control[..size_of::<usize>()].copy_from_slice(&(HEADER + data).to_ne_bytes());
    control[size_of::<usize>()..size_of::<usize>() + 4].copy_from_slice(&level.to_ne_bytes());
    control[size_of::<usize>() + 4..HEADER].copy_from_slice(&kind.to_ne_bytes());
    match from {
        // The local address of the interface, which for one that is sent is the source.
        IpAddr::V4(ip) => control[HEADER + 4..HEADER + 8].copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => control[HEADER..HEADER + 16].copy_from_slice(&ip.octets()),
    }
    // Whole words.
    (HEADER + data).next_multiple_of(size_of::<usize>())
}

/// Writes the control message that has the kernel cut what is sent into datagrams of `len` bytes; its length in all.
fn segment_control(len: usize, control: &mut [u8]) -> usize {
    let data = size_of::<u16>();
    let whole = (HEADER + data).next_multiple_of(size_of::<usize>());
    control[..whole].fill(0);
    control[..size_of::<usize>()].copy_from_slice(&(HEADER + data).to_ne_bytes());
    control[size_of::<usize>()..size_of::<usize>() + 4].copy_from_slice(&libc::SOL_UDP.to_ne_bytes());
    control[size_of::<usize>() + 4..HEADER].copy_from_slice(&libc::UDP_SEGMENT.to_ne_bytes());
    control[HEADER..HEADER + data].copy_from_slice(&(len as u16).to_ne_bytes());
    whole
}

/// Sends datagrams of one length over a connected socket; the last may be shorter. Together, if the kernel takes them so.
pub fn send_together(socket: BorrowedFd<'_>, datagrams: &[IoSlice<'_>]) -> io::Result<()> {
    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    let len = datagrams.first().map_or(0, |datagram| datagram.len() as u16);
    sendmsg::<()>(socket.as_raw_fd(), datagrams, &[ControlMessage::UdpGsoSegments(&len)], flags, None)?;
    Ok(())
}

/// May datagrams of this length be handed over together?
pub fn may_be_joined(len: usize) -> bool {
    (1..=SEGMENT).contains(&len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    fn pair(bind: &str) -> (UdpSocket, UdpSocket) {
        let (one, two) = (UdpSocket::bind(bind).unwrap(), UdpSocket::bind(bind).unwrap());
        for socket in [&one, &two] {
            socket.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
        }
        (one, two)
    }

    #[test]
    fn datagrams_come_and_go_in_batches() {
        for bind in ["127.0.0.1:0", "[::1]:0"] {
            let (one, two) = pair(bind);
            let mut batch = Batch::default();
            assert_eq!(batch.receive(one.as_fd(), false).unwrap_err().kind(), io::ErrorKind::WouldBlock);
            for number in 0..BATCH + 3 {
                two.send_to(&vec![number as u8; number * 10], one.local_addr().unwrap()).unwrap();
            }
            for (first, count) in [(0, BATCH), (BATCH, 3)] {
                assert_eq!(batch.receive(one.as_fd(), false).unwrap(), count);
                for at in 0..count {
                    let (bytes, from) = batch.datagram(at).unwrap();
                    assert_eq!((bytes.len(), from), ((first + at) * 10, two.local_addr().unwrap()));
                    assert!(bytes.iter().all(|byte| *byte as usize == first + at));
                }
            }
            for at in 0..3 {
                batch.slot(at)[..at + 1].fill(7);
                batch.address(at, at + 1, two.local_addr().unwrap(), None);
            }
            assert_eq!(batch.send(one.as_fd(), 0, 3).unwrap(), 3);
            let mut got = [0; 100];
            for len in 1..=3 {
                assert_eq!(two.recv_from(&mut got).unwrap(), (len, one.local_addr().unwrap()));
                assert_eq!(&got[..len], &vec![7; len]);
            }
        }
    }

    #[test]
    fn the_longest_datagram_fits() {
        let (one, two) = pair("127.0.0.1:0");
        let mut batch = Batch::default();
        // 65,535 less a header of IPv4 and one of UDP.
        let longest = vec![5; 65_507];
        two.send_to(&longest, one.local_addr().unwrap()).unwrap();
        assert_eq!(batch.receive(one.as_fd(), false).unwrap(), 1);
        assert_eq!(batch.datagram(0).unwrap().0, longest);
        batch.address(0, 65_507, two.local_addr().unwrap(), None);
        assert_eq!(batch.send(one.as_fd(), 0, 1).unwrap(), 1);
        let mut got = vec![0; 70_000];
        assert_eq!(two.recv(&mut got).unwrap(), 65_507);
    }

    #[test]
    fn a_reply_leaves_from_the_address_that_was_asked() {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        crate::net::bind::tell_local(&socket).unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
        let asked: IpAddr = [127, 0, 0, 9].into();
        client.send_to(b"x", (asked, socket.local_addr().unwrap().port())).unwrap();
        let mut batch = Batch::default();
        crate::net::bind::tests::until_readable(&socket);
        assert_eq!(batch.receive(socket.as_fd(), true).unwrap(), 1);
        assert_eq!(batch.local(0), Some(asked));
        batch.address(0, 1, client.local_addr().unwrap(), Some(asked));
        assert_eq!(batch.send(socket.as_fd(), 0, 1).unwrap(), 1);
        assert_eq!(client.recv_from(&mut [0; 9]).unwrap().1.ip(), asked);
    }

    #[test]
    fn datagrams_to_one_peer_arrive_each_for_itself() {
        let (one, two) = pair("127.0.0.1:0");
        let (three, _) = pair("127.0.0.1:0");
        let mut batch = Batch::default();
        // Lengths that may be joined, an odd one between, an empty one, one that is too long, and another peer.
        let lens = [100, 100, 7, 100, 0, 0, 3000, 3000, 100];
        for (at, len) in lens.into_iter().enumerate() {
            batch.slot(at)[..len].fill(at as u8);
            let to = if at == 3 { &three } else { &two };
            batch.address(at, len, to.local_addr().unwrap(), None);
        }
        let (mut went, mut bytes) = (0, 0);
        batch.send_all(one.as_fd(), lens.len(), |len, gone| {
            went += usize::from(gone);
            bytes += len;
        });
        assert_eq!((went, bytes), (lens.len(), lens.iter().sum()));
        let mut got = vec![0; 70_000];
        let mut seen: Vec<(usize, Option<u8>)> = (0..lens.len() - 1)
            .map(|_| {
                let len = two.recv(&mut got).unwrap();
                assert!(got[..len].iter().all(|byte| *byte == got[0]));
                (len, (len > 0).then_some(got[0]))
            })
            .collect();
        seen.sort_unstable();
        let expected = [(0, None), (0, None), (7, Some(2)), (100, Some(0)), (100, Some(1)), (100, Some(8))];
        assert_eq!(seen[..6], expected);
        assert_eq!(seen[6..], [(3000, Some(6)), (3000, Some(7))]);
        assert_eq!(three.recv(&mut got).unwrap(), 100);
        // And over a connected socket.
        one.connect(two.local_addr().unwrap()).unwrap();
        send_together(one.as_fd(), &[IoSlice::new(&[1; 50]), IoSlice::new(&[2; 50])]).unwrap();
        for byte in [1, 2] {
            assert_eq!(two.recv(&mut got).unwrap(), 50);
            assert_eq!(got[..50], [byte; 50]);
        }
        assert_eq!(batch.receive_at(two.as_fd(), 5, 4).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn an_unreachable_address_is_the_error_of_its_datagram_alone() {
        let (one, two) = pair("127.0.0.1:0");
        let mut batch = Batch::default();
        batch.address(0, 1, "127.0.0.1:0".parse().unwrap(), None);
        batch.address(1, 1, two.local_addr().unwrap(), None);
        assert!(batch.send(one.as_fd(), 0, 2).is_err());
        assert_eq!(batch.send(one.as_fd(), 1, 2).unwrap(), 1);
        assert_eq!(two.recv(&mut [0; 9]).unwrap(), 1);
    }
}
