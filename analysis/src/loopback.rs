//! What all runs need to find and ask programs on this host.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::child::Running;

/// For a program to be ready.
const START: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);
/// For an answer to anything that is no load.
const ANSWER: Duration = Duration::from_secs(10);

/// A port that is free now. Should another take it meanwhile, the start fails and says so.
pub(crate) fn free_port() -> Result<u16, String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|error| format!("no free port: {error}"))?;
    Ok(listener.local_addr().map_err(|error| error.to_string())?.port())
}

/// The same for datagrams.
pub(crate) fn free_udp_port() -> Result<u16, String> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|error| format!("no free UDP port: {error}"))?;
    Ok(socket.local_addr().map_err(|error| error.to_string())?.port())
}

/// As many open files as the system allows; should that fail, a burst says what it lacked.
pub(crate) fn more_open_files() {
    let raise = |(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most);
    let _ = getrlimit(Resource::RLIMIT_NOFILE).and_then(raise);
}

/// The address of HOST:PORT; of several the first of IPv4, which is what the balancer listens on unless told otherwise.
pub(crate) async fn resolve(host: &str) -> Result<SocketAddr, String> {
    let found = tokio::net::lookup_host(host).await.map_err(|error| format!("{host}: {error}"))?;
    found.min_by_key(SocketAddr::is_ipv6).ok_or_else(|| format!("{host}: no address"))
}

/// A client that asks this host directly, each time on a new connection.
pub(crate) fn client() -> Result<reqwest::Client, String> {
    let client = reqwest::Client::builder().no_proxy().timeout(ANSWER).pool_max_idle_per_host(0);
    client.build().map_err(|error| error.to_string())
}

/// Waits until `url` answers with success; the error has the last words of `running`.
pub(crate) async fn until_ready(url: &str, name: &str, running: &mut Running) -> Result<(), String> {
    let (client, began) = (client()?, Instant::now());
    loop {
        running.check(name)?;
        let why = match client.get(url).send().await {
            Ok(answer) if answer.status().is_success() => return Ok(()),
            Ok(answer) => answer.status().to_string(),
            Err(error) => error.to_string(),
        };
        if began.elapsed() > START {
            return Err(format!("{name} is not ready after {START:?}: {why}\n{}", running.last_words()));
        }
        tokio::time::sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn hosts_have_an_address_of_ipv4_if_any() {
        assert_eq!(resolve("localhost:9988").await.unwrap(), SocketAddr::from((Ipv4Addr::LOCALHOST, 9988)));
        assert_eq!(resolve("[::1]:80").await.unwrap().to_string(), "[::1]:80");
        assert!(resolve("localhost").await.unwrap_err().starts_with("localhost: "));
    }
}
