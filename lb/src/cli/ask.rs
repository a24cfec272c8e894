//! Asks a running balancer on this host at its admin listener.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use lb::config::Config;

/// For a connection, and for each piece of the answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// Bytes of an answer at most.
const ANSWER: u64 = 64 * 1024 * 1024;

/// What a balancer answers with a status of success; otherwise why there is no such answer.
pub(super) fn ask(config: &Config, method: &str, path: &str, body: &str) -> Result<String, String> {
    let addr = config.admin_listen.map(super::reachable);
    let addr = addr.ok_or("the balancer is asked at its admin listener: admin_listen is off")?;
    let (status, body) = exchange(addr, method, path, body)
        .map_err(|error| format!("no balancer's admin listener at {addr}: {error}"))?;
    if status.starts_with('2') {
        return Ok(body);
    }
    // It says itself what is wrong.
    let said: Option<serde_json::Value> = serde_json::from_str(&body).ok();
    let said = said.as_ref().and_then(|said| said.get("message")?.as_str()).unwrap_or(body.trim());
    Err(match said.strip_prefix("<Error> ").unwrap_or(said) {
        "" => format!("the balancer at {addr} answers with status {status}"),
        said => said.to_owned(),
    })
}

fn exchange(addr: SocketAddr, method: &str, path: &str, body: &str) -> io::Result<(String, String)> {
    let mut stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // With HTTP/1.0 the answer comes whole, and ends with the connection.
    let length = body.len();
    write!(stream, "{method} {path} HTTP/1.0\r\nHost: {addr}\r\nContent-Length: {length}\r\n\r\n{body}")?;
    let mut answer = String::new();
    stream.take(ANSWER).read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| io::Error::other("the answer is no HTTP"))?;
    let status = head.lines().next().unwrap_or_default().split(' ').nth(1).unwrap_or_default();
    Ok((status.to_owned(), body.to_owned()))
}

/// A text as part of a URL's query.
pub(super) fn encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}
