//! Listening sockets of the data path: one for each worker, all on the same address, so that the kernel spreads what comes.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Socket, Type};

/// Connections that may wait to be accepted, per worker.
const BACKLOG: i32 = 4096;
/// Bytes of datagrams that may wait, per worker and way. The kernel doubles it for what it keeps beside each.
const DATAGRAMS_WAITING: usize = 2 * 1024 * 1024;

/// One listener for each of `workers`, all on the same address.
///
/// A listener without `SO_REUSEPORT` is tried first: two balancers on one port would otherwise share its connections
/// without anybody noticing.
///
/// Accepted connections inherit the listener's options: nothing waits to be sent in larger pieces, and a peer that takes
/// nothing for `write_timeout` is given up by the kernel.
pub fn tcp(addr: SocketAddr, workers: usize, write_timeout: Duration) -> io::Result<Vec<TcpListener>> {
    let probe = bound(addr, Type::STREAM, false)?;
    probe.listen(1)?;
    let addr = TcpListener::from(probe).local_addr()?;
    (0..workers.max(1))
        .map(|_| {
            let socket = bound(addr, Type::STREAM, true)?;
            socket.set_tcp_nodelay(true)?;
            socket.set_tcp_user_timeout(Some(write_timeout))?;
            socket.listen(BACKLOG)?;
            Ok(socket.into())
        })
        .collect()
}

/// One socket for datagrams for each of `workers`, all on the same address. The kernel gives what comes from one client to
/// the same one of them.
pub fn udp(addr: SocketAddr, workers: usize) -> io::Result<Vec<UdpSocket>> {
    // Alone at first, as with TCP.
    let addr = UdpSocket::from(bound(addr, Type::DGRAM, false)?).local_addr()?;
    (0..workers.max(1))
        .map(|_| {
            let socket = UdpSocket::from(bound(addr, Type::DGRAM, true)?);
            if addr.ip().is_unspecified() {
                tell_local(&socket)?;
            }
            // More than the system's limit takes a privilege; without it that limit is what there is.
            if setsockopt(&socket.as_fd(), sockopt::RcvBufForce, &DATAGRAMS_WAITING).is_err() {
                let _ = setsockopt(&socket.as_fd(), sockopt::RcvBuf, &DATAGRAMS_WAITING);
            }
            let _ = setsockopt(&socket.as_fd(), sockopt::SndBuf, &DATAGRAMS_WAITING);
            Ok(socket)
        })
        .collect()
}

/// Has each datagram come with the address that it was sent to.
pub(crate) fn tell_local(socket: &UdpSocket) -> io::Result<()> {
    match socket.local_addr()? {
        SocketAddr::V4(_) => setsockopt(&socket.as_fd(), sockopt::Ipv4PacketInfo, &true)?,
        SocketAddr::V6(_) => setsockopt(&socket.as_fd(), sockopt::Ipv6RecvPacketInfo, &true)?,
    }
    Ok(())
}

fn bound(addr: SocketAddr, kind: Type, reuse_port: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), kind, None)?;
    // For datagrams it would let two programs have the same port.
    socket.set_reuse_address(kind == Type::STREAM)?;
    socket.set_reuse_port(reuse_port)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    Ok(socket)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    /// Waits until something has arrived.
    pub(crate) fn until_readable(socket: &impl AsFd) {
        let mut waiting = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut waiting, PollTimeout::from(10_000_u16)), Ok(1));
    }

    #[test]
    fn a_port_that_somebody_has_is_not_shared() {
        let local = "127.0.0.1:0".parse().unwrap();
        let ours = tcp(local, 2, Duration::from_secs(1)).unwrap();
        let taken = ours[0].local_addr().unwrap();
        assert_eq!(ours[1].local_addr().unwrap(), taken);
        assert_eq!(tcp(taken, 2, Duration::from_secs(1)).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let ours = udp(local, 2).unwrap();
        let taken = ours[0].local_addr().unwrap();
        assert_eq!(udp(taken, 2).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(ours);
        assert!(udp(taken, 2).is_ok());
    }
}
