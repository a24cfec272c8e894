//! Listening sockets of the data path: one for each worker, all on the same address, so that the kernel spreads what comes.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

/// Connections that may wait to be accepted, per worker.
const BACKLOG: i32 = 4096;

/// One listener for each of `workers`, all on the same address.
///
/// A listener without `SO_REUSEPORT` is tried first: two balancers on one port would otherwise share its connections
/// without anybody noticing.
///
/// Accepted connections inherit the listener's options: nothing waits to be sent in larger pieces, and a peer that takes
/// nothing for `write_timeout` is given up by the kernel.
pub fn tcp(addr: SocketAddr, workers: usize, write_timeout: Duration) -> io::Result<Vec<TcpListener>> {
    let socket = |addr: SocketAddr, reuse_port| {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(reuse_port)?;
        socket.set_nonblocking(true)?;
        socket.bind(&addr.into())?;
        Ok::<_, io::Error>(socket)
    };
    let probe = socket(addr, false)?;
    probe.listen(1)?;
    let addr = TcpListener::from(probe).local_addr()?;
    (0..workers.max(1))
        .map(|_| {
            let socket = socket(addr, true)?;
            socket.set_tcp_nodelay(true)?;
            socket.set_tcp_user_timeout(Some(write_timeout))?;
            socket.listen(BACKLOG)?;
            Ok(socket.into())
        })
        .collect()
}
