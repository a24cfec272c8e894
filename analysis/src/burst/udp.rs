//! Datagrams, each from a socket of its own, so that each is a client of its own.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::{Burst, Outcome, all};

/// Room for an answer; what is longer is cut.
const ANSWER: usize = 2048;

/// Sends `payload` to `addr`; what comes back names the server. Nothing is sent twice: a lost datagram is a failure.
pub(crate) async fn udp(addr: SocketAddr, payload: &[u8], burst: Burst) -> Outcome {
    all(burst, || ask(addr, payload, burst.timeout)).await
}

async fn ask(addr: SocketAddr, payload: &[u8], deadline: Duration) -> Result<String, String> {
    let any = match addr {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let exchange = async {
        let socket = UdpSocket::bind(any).await?;
        // Connected, it takes nothing from others, and learns of a port that is closed.
        socket.connect(addr).await?;
        socket.send(payload).await?;
        let mut answer = vec![0; ANSWER];
        let length = socket.recv(&mut answer).await?;
        answer.truncate(length);
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&answer).into_owned())
    };
    match timeout(deadline, exchange).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err("no answer in time".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn answers_refusals_and_silence_are_told_apart() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let addr = server.local_addr().unwrap();
        let burst = Burst::of(3, Duration::from_millis(500));
        let answering = async {
            for _ in 0..2 {
                let (_, client) = server.recv_from(&mut [0; 100]).await.unwrap();
                server.send_to(b"S1", client).await.unwrap();
            }
        };
        let ((), outcome) = tokio::join!(answering, udp(addr, b"who", burst));
        assert_eq!((outcome.by_server["S1"], outcome.failures["no answer in time"]), (2, 1));
        drop(server);
        let outcome = udp(addr, b"who", burst).await;
        assert!(outcome.answered() == 0 && outcome.failures.keys().all(|why| why.contains("refused")), "{outcome:?}");
    }
}
