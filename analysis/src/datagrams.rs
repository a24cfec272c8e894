//! Datagrams in batches, at as little cost as the kernel allows.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd};

use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmsg, setsockopt, sockopt};

/// The longest datagram that arrives whole: more than an Ethernet frame holds.
pub(crate) const ROOM: usize = 2048;
/// The most that the kernel takes at once, in datagrams and in bytes.
const MOST: usize = 64;
const MOST_BYTES: usize = 65_507;
/// Room for what has arrived and was not read yet; the kernel gives what it may.
const RECEIVE_BUFFER: usize = 4 * 1024 * 1024;

/// Lets `socket` keep all that may arrive before it is read.
pub(crate) fn much_room(socket: &impl AsFd) -> io::Result<()> {
    Ok(setsockopt(socket, sockopt::RcvBuf, &RECEIVE_BUFFER)?)
}

/// Room for `N` datagrams, and whom they came from.
pub(crate) struct Batch<const N: usize> {
    buffers: Box<[[u8; ROOM]; N]>,
    lengths: [usize; N],
    from: [Option<SockaddrIn>; N],
    headers: MultiHeaders<SockaddrIn>,
}

impl<const N: usize> Batch<N> {
    pub(crate) fn new() -> Self {
        let headers = MultiHeaders::preallocate(N, None);
        Self { buffers: Box::new([[0; ROOM]; N]), lengths: [0; N], from: [None; N], headers }
    }

    /// Takes what has arrived at `socket`, with one call, and says how many that are. If there is none, `WouldBlock`.
    pub(crate) fn receive(&mut self, socket: &impl AsFd) -> io::Result<usize> {
        let mut slices = self.buffers.each_mut().map(|buffer| [IoSliceMut::new(buffer)]);
        let fd = socket.as_fd().as_raw_fd();
        let all = recvmmsg(fd, &mut self.headers, slices.iter_mut(), MsgFlags::MSG_DONTWAIT, None)?;
        let mut count = 0;
        for datagram in all {
            (self.lengths[count], self.from[count]) = (datagram.bytes, datagram.address);
            count += 1;
        }
        Ok(count)
    }

    /// The datagram at this place.
    pub(crate) fn at(&self, place: usize) -> &[u8] {
        &self.buffers[place][..self.lengths[place]]
    }

    /// Room for a datagram of so many bytes at this place.
    pub(crate) fn put(&mut self, place: usize, length: usize) -> &mut [u8] {
        self.lengths[place] = length;
        &mut self.buffers[place][..length]
    }

    /// Sends the first `count` to those that `socket` is connected with.
    pub(crate) fn send(&self, socket: &impl AsFd, count: usize) -> io::Result<()> {
        self.send_all(socket, count, false)
    }

    /// Sends the first `count` back to whom they came from.
    pub(crate) fn send_back(&self, socket: &impl AsFd, count: usize) -> io::Result<()> {
        self.send_all(socket, count, true)
    }

    /// Neighbours of one length that go the same way are handed over as one, which the kernel cuts at the end of that way
    /// ("segmentation offload"): two of them cost a third less, eight cost two thirds less.
    fn send_all(&self, socket: &impl AsFd, count: usize, back: bool) -> io::Result<()> {
        let slices: [_; N] = std::array::from_fn(|place| IoSlice::new(self.at(place)));
        let fd = socket.as_fd().as_raw_fd();
        let mut first = 0;
        while first < count {
            let length = self.lengths[first];
            let to = if back { self.from[first] } else { None };
            let alike = |place: &usize| self.lengths[*place] == length && (!back || self.from[*place] == to);
            let most = MOST.min(MOST_BYTES / length.max(1));
            let last = first + (first..count).take(most).take_while(alike).count();
            let cut = length as u16;
            let cut = [ControlMessage::UdpGsoSegments(&cut)];
            let cut = if last - first > 1 && length > 0 { &cut[..] } else { &[] };
            // Empty ones can't be told apart once they are put together.
            let last = if length == 0 { first + 1 } else { last };
            sendmsg(fd, &slices[first..last], cut, MsgFlags::MSG_DONTWAIT, to.as_ref())?;
            first = last;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, UdpSocket};

    use super::*;

    #[test]
    fn a_batch_goes_to_the_peer_and_each_of_it_back_to_its_sender() {
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        // Some neighbours are alike, some are not.
        let lengths = [3, 3, 3, 0, 0, 7, 3, 1400, 1400];
        let mut clients = Vec::new();
        for name in [b'a', b'b'] {
            let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            client.connect(server.local_addr().unwrap()).unwrap();
            let mut batch = Batch::<16>::new();
            for (place, length) in lengths.into_iter().enumerate() {
                batch.put(place, length).fill(name);
            }
            batch.send(&client, lengths.len()).unwrap();
            clients.push((client, name));
        }
        let mut batch = Batch::<32>::new();
        assert_eq!(batch.receive(&server).unwrap(), 2 * lengths.len(), "loopback delivers at once");
        batch.send_back(&server, 2 * lengths.len()).unwrap();
        for (client, name) in clients {
            assert_eq!(batch.receive(&client).unwrap(), lengths.len());
            for (place, length) in lengths.into_iter().enumerate() {
                assert_eq!(batch.at(place), vec![name; length]);
            }
            assert_eq!(batch.receive(&client).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        }
    }

    #[test]
    fn many_and_long_ones_are_not_handed_over_all_at_once() {
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        much_room(&server).unwrap();
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        client.connect(server.local_addr().unwrap()).unwrap();
        let mut batch = Batch::<100>::new();
        for length in [1, ROOM] {
            for place in 0..100 {
                batch.put(place, length).fill(place as u8);
            }
            batch.send(&client, 100).unwrap();
            assert_eq!(batch.receive(&server).unwrap(), 100);
            assert!((0..100).all(|place| batch.at(place) == vec![place as u8; length]));
        }
    }
}
