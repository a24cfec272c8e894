//! `analysis replica`: a replica as cheap as can be, so that what is measured is the balancer before it.
//!
//! | request | answer |
//! |---|---|
//! | `GET /54`, `/10k`, `/1m` | so many bytes, rendered once at the start |
//! | `GET /heartbeat` | 200 without a body |
//! | `GET /echo` | the request's own head, to see what a balancer added |
//! | `POST` anywhere | reads the body to its end, then answers shortly |
//!
//! One thread, any number of ports. Not a server for anything else: what it can't parse, it hangs up on.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::LocalSet;

/// Connections that may wait to be accepted: a burst of 512 must not be dropped.
pub(crate) const BACKLOG: u32 = 4096;
/// Room for a head, and for reading bodies.
const BUFFER: usize = 64 * 1024;
const MAX_FIELDS: usize = 64;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many ports to listen on; free ones are taken, and printed on one line
    #[arg(long, default_value = "3", value_parser = clap::value_parser!(u16).range(1..=2000))]
    ports: u16,
}

/// Serves until it is killed.
#[allow(clippy::print_stdout, reason = "whoever started it reads the ports")]
pub(crate) async fn run(args: &Args) -> io::Result<()> {
    let listeners: Vec<TcpListener> =
        (0..args.ports).map(|_| listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))).collect::<Result<_, _>>()?;
    let ports = listeners.iter().map(|listener| Ok(listener.local_addr()?.port().to_string()));
    println!("{}", ports.collect::<io::Result<Vec<_>>>()?.join(","));
    io::stdout().flush()?;
    let answers = Rc::new(Answers::new());
    let local = LocalSet::new();
    for listener in listeners {
        let answers = Rc::clone(&answers);
        local.spawn_local(async move {
            loop {
                // An accept error (no descriptors left) shows as failed requests, which fail the run.
                let Ok((stream, _)) = listener.accept().await else {
                    tokio::task::yield_now().await;
                    continue;
                };
                let answers = Rc::clone(&answers);
                tokio::task::spawn_local(async move {
                    // A connection that breaks off is the balancer's business.
                    let _ = serve(stream, &answers).await;
                });
            }
        });
    }
    local.await;
    Ok(())
}

/// A listener with a long backlog.
pub(crate) fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv6() { TcpSocket::new_v6() } else { TcpSocket::new_v4() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

struct Answers {
    small: Vec<u8>,
    medium: Vec<u8>,
    large: Vec<u8>,
    posted: Vec<u8>,
    alive: Vec<u8>,
    unknown: Vec<u8>,
}

impl Answers {
    fn new() -> Self {
        let bytes = |count| answer("200 OK", &vec![b'x'; count]);
        Self {
            small: bytes(54),
            medium: bytes(10 * 1024),
            large: bytes(1024 * 1024),
            posted: answer("200 OK", b"read"),
            alive: answer("200 OK", b""),
            unknown: answer("404 Not Found", b"unknown"),
        }
    }

    fn of(&self, path: &str) -> &[u8] {
        match path {
            "/54" => &self.small,
            "/10k" => &self.medium,
            "/1m" => &self.large,
            "/heartbeat" => &self.alive,
            _ => &self.unknown,
        }
    }
}

fn answer(status: &str, body: &[u8]) -> Vec<u8> {
    let mut answer =
        format!("HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    answer.extend_from_slice(body);
    answer
}

/// The answer to one who asked for the connection to be closed: it says so, else the close looks like a failure.
fn closing(answer: &[u8]) -> Vec<u8> {
    let line = answer.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    [&answer[..line], b"Connection: close\r\n", &answer[line..]].concat()
}

/// How a request's body ends.
#[derive(Debug, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Chunked,
}

#[derive(Debug, PartialEq, Eq)]
struct Head {
    bytes: usize,
    post: bool,
    path: String,
    framing: Framing,
    close: bool,
}

/// The head at the front of `bytes`; `None` if it is not whole yet.
fn head(bytes: &[u8]) -> io::Result<Option<Head>> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let httparse::Status::Complete(length) = request.parse(bytes).map_err(|error| bad(&error.to_string()))? else {
        return Ok(None);
    };
    let mut head = Head {
        bytes: length,
        post: request.method == Some("POST"),
        path: request.path.unwrap_or_default().to_owned(),
        framing: Framing::Length(0),
        close: request.version == Some(0),
    };
    for field in request.headers.iter() {
        if field.name.eq_ignore_ascii_case("content-length") {
            let length = std::str::from_utf8(field.value).ok().and_then(|text| text.trim().parse().ok());
            head.framing = Framing::Length(length.ok_or_else(|| bad("content-length"))?);
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            head.framing = Framing::Chunked;
        } else if field.name.eq_ignore_ascii_case("connection") {
            head.close |= field.value.eq_ignore_ascii_case(b"close");
        }
    }
    Ok(Some(head))
}

/// Bytes read and not used yet, from `start` to `end`.
struct Buffer {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Buffer {
    fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Reads more; false at the end of the stream.
    async fn fill(&mut self, stream: &mut TcpStream) -> io::Result<bool> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.bytes.len() {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == self.bytes.len() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "head too long"));
        }
        let read = stream.read(&mut self.bytes[self.end..]).await?;
        self.end += read;
        Ok(read > 0)
    }

    /// Drops `count` bytes of the stream.
    async fn skip(&mut self, stream: &mut TcpStream, mut count: u64) -> io::Result<()> {
        loop {
            let here = count.min(self.filled().len() as u64);
            self.start += here as usize;
            count -= here;
            if count == 0 {
                return Ok(());
            }
            if !self.fill(stream).await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Drops a chunked body without trailers.
    async fn skip_chunks(&mut self, stream: &mut TcpStream) -> io::Result<()> {
        loop {
            match httparse::parse_chunk_size(self.filled()) {
                Ok(httparse::Status::Complete((line, size))) => {
                    self.skip(stream, line as u64 + size + 2).await?;
                    if size == 0 {
                        return Ok(());
                    }
                }
                Ok(httparse::Status::Partial) => {
                    if !self.fill(stream).await? {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(_) => return Err(io::Error::new(io::ErrorKind::InvalidData, "chunk size")),
            }
        }
    }
}

async fn serve(mut stream: TcpStream, answers: &Answers) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Buffer { bytes: vec![0; BUFFER].into_boxed_slice(), start: 0, end: 0 };
    loop {
        let Some(head) = head(buffer.filled())? else {
            if buffer.fill(&mut stream).await? {
                continue;
            }
            return Ok(());
        };
        let echo = (head.path == "/echo").then(|| answer("200 OK", &buffer.filled()[..head.bytes]));
        buffer.start += head.bytes;
        match head.framing {
            Framing::Length(length) => buffer.skip(&mut stream, length).await?,
            Framing::Chunked => buffer.skip_chunks(&mut stream).await?,
        }
        let answer = match &echo {
            Some(echo) => echo,
            None if head.post => answers.posted.as_slice(),
            None => answers.of(&head.path),
        };
        if head.close {
            stream.write_all(&closing(answer)).await?;
            return stream.shutdown().await;
        }
        stream.write_all(answer).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_says_how_its_body_ends_and_whether_the_connection_goes_on() {
        let get = head(b"GET /54 HTTP/1.1\r\nHost: a\r\n\r\nGET").unwrap().unwrap();
        assert_eq!(get, Head { bytes: 29, post: false, path: "/54".into(), framing: Framing::Length(0), close: false });
        let post = head(b"POST / HTTP/1.1\r\nContent-length: 65536\r\nConnection: close\r\n\r\n").unwrap().unwrap();
        assert!(post.post && post.close && post.framing == Framing::Length(65536));
        let chunked = head(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap().unwrap();
        assert!(chunked.close && chunked.framing == Framing::Chunked);
        assert_eq!(head(b"GET /54 HTTP/1.1\r\nHost").unwrap(), None);
        assert!(head(b"nonsense\r\n\r\n").is_err());
    }

    #[tokio::test]
    async fn it_reads_bodies_to_their_end_and_answers_on_one_connection() {
        let listener = listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let addr = listener.local_addr().unwrap();
        let server = async {
            let (stream, _) = listener.accept().await.unwrap();
            serve(stream, &Answers::new()).await.unwrap();
        };
        let client = async {
            let mut stream = TcpStream::connect(addr).await.unwrap();
            let requests = [
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n".to_owned(),
                format!("POST / HTTP/1.1\r\nContent-Length: 200000\r\n\r\n{}", "y".repeat(200_000)),
                "GET /54 HTTP/1.1\r\nConnection: close\r\n\r\n".to_owned(),
            ];
            stream.write_all(requests.concat().as_bytes()).await.unwrap();
            let mut all = String::new();
            stream.read_to_string(&mut all).await.unwrap();
            all
        };
        let ((), all) = tokio::join!(server, client);
        assert_eq!(all.matches("HTTP/1.1 200 OK\r\n").count(), 3);
        assert_eq!(all.matches("200 OK\r\nConnection: close\r\nContent").count(), 1, "the last answer says it");
        assert_eq!(all.matches("\r\n\r\nread").count(), 2);
        assert!(all.ends_with(&"x".repeat(54)));
    }
}
