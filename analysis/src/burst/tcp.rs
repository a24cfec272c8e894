//! HTTP requests, each on a new connection.

use std::net::SocketAddr;

use super::{Burst, NAME, Outcome, all};
use crate::load::cause;

/// Asks the server at `addr` for `path`.
pub(crate) async fn tcp(addr: SocketAddr, path: &str, burst: Burst) -> Result<Outcome, String> {
    // Nothing is kept, so no request can ride on another's connection.
    let client = reqwest::Client::builder().no_proxy().timeout(burst.timeout).pool_max_idle_per_host(0);
    let client = client.tcp_nodelay(true).build().map_err(|error| error.to_string())?;
    let url = format!("http://{addr}{path}");
    Ok(all(burst, || ask(&client, &url)).await)
}

async fn ask(client: &reqwest::Client, url: &str) -> Result<String, String> {
    let answer = client.get(url).header("connection", "close").send().await.map_err(|error| cause(&error))?;
    let status = answer.status();
    let name = answer.headers().get(NAME).and_then(|name| name.to_str().ok());
    let name = name.unwrap_or("(no name)").to_owned();
    // An answer that breaks off is none.
    answer.bytes().await.map_err(|error| cause(&error))?;
    if status.is_success() { Ok(name) } else { Err(format!("{name} answers {status}")) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn answers_are_told_from_those_that_break_off() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(async move {
            for answer in [
                "HTTP/1.1 200 OK\r\nx-server: S1\r\ncontent-length: 2\r\n\r\nok",
                "HTTP/1.1 200 OK\r\nx-server: S1\r\ncontent-length: 20000\r\n\r\nok",
                "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n",
                "",
            ] {
                let (mut stream, _) = listener.accept().await.unwrap();
                assert!(stream.read(&mut [0; 1000]).await.unwrap() > 0);
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let burst = Burst { requests: 5, at_once: 1, timeout: Duration::from_secs(5) };
        let outcome = tcp(addr, "/", burst).await.unwrap();
        assert_eq!((outcome.answered(), outcome.by_server["S1"], outcome.failed()), (1, 1, 4), "{outcome:?}");
        assert!(outcome.failures.contains_key("(no name) answers 502 Bad Gateway"), "{outcome:?}");
        assert!(outcome.failures.keys().any(|why| why.contains("refused")), "{outcome:?}");
    }
}
