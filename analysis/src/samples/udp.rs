//! The UDP server: it echoes a datagram; `who` is answered with its name, `work 50` as well, after 50 ms of work.

use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::watch;

use super::work::{burn, milliseconds};

/// The longest datagram that IPv4 has.
const MAX_DATAGRAM: usize = 65_507;
/// For the datagrams that come while it works; the system gives as much of it as it allows.
const RECEIVE_BUFFER: usize = 4 << 20;

/// A socket of the system's, which the server's thread takes over.
pub(super) fn bind(addr: SocketAddr) -> Result<std::net::UdpSocket, String> {
    let bind = || {
        let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, None)?;
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        socket.set_nonblocking(true)?;
        socket.bind(&addr.into())?;
        Ok::<_, std::io::Error>(socket.into())
    };
    bind().map_err(|error| format!("listening on {addr}: {error}"))
}

/// Serves until `stopped`.
pub(super) async fn serve(
    socket: std::net::UdpSocket,
    name: String,
    stopped: watch::Receiver<bool>,
) -> Result<u64, String> {
    let socket = UdpSocket::from_std(socket).map_err(|error| error.to_string())?;
    let mut stop = std::pin::pin!(super::stop(stopped));
    let mut buffer = vec![0; MAX_DATAGRAM];
    let mut answered = 0;
    loop {
        let (length, client) = tokio::select! {
            () = &mut stop => return Ok(answered),
            received = socket.recv_from(&mut buffer) => match received {
                Ok(received) => received,
                // A client that is gone refuses an earlier answer; the next one may be there.
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => continue,
                Err(error) => return Err(format!("receiving: {error}")),
            },
        };
        let datagram = &buffer[..length];
        let answer = match order(datagram) {
            Order::Echo => datagram,
            Order::Who => name.as_bytes(),
            Order::Work(work) => {
                burn(work)?;
                name.as_bytes()
            }
        };
        // An answer that can't be sent is as good as a lost one.
        if socket.send_to(answer, client).await.is_ok() {
            answered += 1;
        }
    }
}

/// What a datagram asks for.
#[derive(Debug, PartialEq, Eq)]
enum Order {
    Echo,
    Who,
    Work(Duration),
}

/// What can't be done is echoed.
fn order(datagram: &[u8]) -> Order {
    let Ok(text) = std::str::from_utf8(datagram) else { return Order::Echo };
    let text = text.trim_end();
    if text == "who" {
        return Order::Who;
    }
    let ms = text.strip_prefix("work ").and_then(|ms| ms.parse().ok());
    ms.and_then(|ms| milliseconds(ms).ok()).map_or(Order::Echo, Order::Work)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_told_from_what_is_echoed() {
        assert_eq!([order(b"who"), order(b"who\n")], [Order::Who, Order::Who]);
        assert_eq!(order(b"work 50"), Order::Work(Duration::from_millis(50)));
        for echoed in [&b""[..], b"whoever", b"work", b"work -1", b"work 60001", b"\xff\xfe"] {
            assert_eq!(order(echoed), Order::Echo);
        }
    }

    #[tokio::test]
    async fn it_echoes_the_longest_datagram_and_says_its_name() {
        let socket = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let addr = socket.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let server = tokio::spawn(serve(socket, "S1".into(), stopped));
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut buffer = vec![0; MAX_DATAGRAM];
        for (asked, answer) in [(vec![7; MAX_DATAGRAM], vec![7; MAX_DATAGRAM]), (b"work 1".to_vec(), b"S1".to_vec())] {
            client.send_to(&asked, addr).await.unwrap();
            let (length, _) = client.recv_from(&mut buffer).await.unwrap();
            assert!(buffer[..length] == answer);
        }
        stop.send_replace(true);
        assert_eq!(server.await.unwrap(), Ok(2));
    }
}
