//! What a client sees of a relay port: open or closed, and who answers.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::burst::{Burst, Outcome, tcp, udp};
use crate::control::Protocol;

/// For a port to be open or closed, once it should be.
pub(super) const PROMPT: Duration = Duration::from_millis(100);
const POLL: Duration = Duration::from_millis(2);
/// For one answer.
const ANSWER: Duration = Duration::from_secs(5);
/// For one look at a port.
const LOOK: Duration = Duration::from_millis(500);

/// As many requests as the documents show, one after the other.
pub(super) const REQUESTS: usize = 11;

/// Sends the requests; `names` should answer them in turn, and nobody else.
pub(super) async fn requests(protocol: Protocol, addr: SocketAddr, names: &[&str]) -> Result<String, String> {
    let burst = Burst { requests: REQUESTS, at_once: 1, timeout: ANSWER };
    let outcome = match protocol {
        Protocol::Tcp => tcp(addr, "/", burst).await?,
        Protocol::Udp => udp(addr, b"who", burst).await,
    };
    if in_turn(&outcome, names) { Ok(said(&outcome)) } else { Err(said(&outcome)) }
}

/// Has each of `names` answered its part, give or take the odd one?
fn in_turn(outcome: &Outcome, names: &[&str]) -> bool {
    let part = REQUESTS as u64 / names.len().max(1) as u64;
    let named = |name: &str| outcome.by_server.get(name).is_some_and(|count| (part..=part + 1).contains(count));
    outcome.answered() == REQUESTS as u64
        && outcome.by_server.len() == names.len()
        && names.iter().all(|name| named(name))
}

fn said(outcome: &Outcome) -> String {
    let answers = outcome.by_server.iter().map(|(name, count)| format!("{name} {count}"));
    let failures = outcome.failures.iter().map(|(why, count)| format!("{count} failed: {why}"));
    answers.chain(failures).collect::<Vec<_>>().join(", ")
}

/// Looks whether a port is open; over UDP that takes a server that answers.
pub(super) async fn open(protocol: Protocol, addr: SocketAddr) -> Result<String, String> {
    match look(protocol, addr).await {
        Port::Open => Ok(format!("{addr} is open")),
        Port::Refuses(seen) | Port::Unclear(seen) => Err(seen),
    }
}

/// Waits until connections or datagrams to `addr` are refused.
pub(super) async fn closed(protocol: Protocol, addr: SocketAddr) -> Result<String, String> {
    let began = Instant::now();
    loop {
        let port = look(protocol, addr).await;
        let after = format!("after {} ms", began.elapsed().as_millis());
        let seen = match port {
            Port::Refuses(seen) => return Ok(format!("{seen}, {after}")),
            Port::Open => format!("{addr} is open {after}"),
            Port::Unclear(seen) => format!("{seen} {after}"),
        };
        if began.elapsed() > PROMPT {
            return Err(seen);
        }
        tokio::time::sleep(POLL).await;
    }
}

/// What a look at a port shows.
enum Port {
    Open,
    Refuses(String),
    /// Neither: no answer, or another error.
    Unclear(String),
}

async fn look(protocol: Protocol, addr: SocketAddr) -> Port {
    let looked = match protocol {
        Protocol::Tcp => timeout(LOOK, async { TcpStream::connect(addr).await.map(drop) }).await,
        Protocol::Udp => timeout(LOOK, ask(addr)).await,
    };
    match looked {
        Ok(Ok(())) => Port::Open,
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            Port::Refuses(format!("{addr}: {error}"))
        }
        Ok(Err(error)) => Port::Unclear(format!("{addr}: {error}")),
        Err(_) => Port::Unclear(format!("{addr} says nothing for {LOOK:?}")),
    }
}

/// A closed port answers a datagram with an ICMP message, which shows as a refusal.
async fn ask(addr: SocketAddr) -> std::io::Result<()> {
    let any: SocketAddr = if addr.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(addr).await?;
    socket.send(b"who").await?;
    socket.recv(&mut [0; 64]).await.map(drop)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn eleven_requests_in_turn_are_six_and_five() {
        let outcome = |answers: &[(&str, u64)]| Outcome {
            by_server: answers.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect(),
            ..Outcome::default()
        };
        assert!(in_turn(&outcome(&[("a", 6), ("b", 5)]), &["b", "a"]));
        assert!(in_turn(&outcome(&[("a", 11)]), &["a"]));
        assert!(!in_turn(&outcome(&[("a", 7), ("b", 4)]), &["a", "b"]), "not in turn");
        assert!(!in_turn(&outcome(&[("a", 5), ("b", 5)]), &["a", "b"]), "one is missing");
        assert!(!in_turn(&outcome(&[("a", 6), ("c", 5)]), &["a", "b"]), "somebody else");
        let failed = Outcome { failures: BTreeMap::from([("refused".into(), 11)]), ..Outcome::default() };
        assert!(!in_turn(&failed, &["a"]));
        assert_eq!(said(&failed), "11 failed: refused");
    }

    #[tokio::test]
    async fn ports_are_open_until_they_are_closed() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        assert!(closed(Protocol::Tcp, addr).await.unwrap_err().contains("is open"));
        drop(listener);
        assert!(closed(Protocol::Tcp, addr).await.unwrap().contains("refused"));
        assert!(closed(Protocol::Udp, addr).await.unwrap().contains("refused"));
    }
}
