//! A client that sends any bytes, and reads responses by the rules.

use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::wire::{dechunk, field, fields, head_end};
use super::{LIMIT, Lb};

/// A client's connection.
pub struct Client {
    pub stream: TcpStream,
    /// What has come and was not taken yet.
    pub buffer: Vec<u8>,
}

/// One response.
#[derive(Debug)]
pub struct Response {
    /// Heads of the 1xx responses before it.
    pub interim: Vec<String>,
    pub head: String,
    pub body: Vec<u8>,
    pub trailers: Vec<String>,
}

impl Response {
    pub fn status(&self) -> u16 {
        status(&self.head)
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        field(&self.head, name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Does `Connection` have this option?
    pub fn connection(&self, option: &str) -> bool {
        let options = fields(&self.head, "connection");
        options.iter().flat_map(|value| value.split(',')).any(|given| given.trim().eq_ignore_ascii_case(option))
    }
}

fn status(head: &str) -> u16 {
    let line = head.lines().next().unwrap_or_default();
    let version = line.starts_with("HTTP/1.1 ") || line.starts_with("HTTP/1.0 ");
    let status = line.split(' ').nth(1).filter(|status| version && status.len() == 3);
    status.and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("no status line: {head}"))
}

impl Client {
    pub async fn connect(lb: &Lb) -> Self {
        Self::connect_from(lb, Ipv4Addr::LOCALHOST).await
    }

    /// Connects from another address of this host.
    pub async fn connect_from(lb: &Lb, from: Ipv4Addr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        let stream = socket.connect(lb.addr).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: Vec::new() }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let written = tokio::time::timeout(LIMIT, self.stream.write_all(bytes.as_ref())).await;
        written.expect("it is taken in time").expect("it is taken");
    }

    /// Sends as much as is taken before the other side closes.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = tokio::time::timeout(LIMIT, self.stream.write_all(bytes.as_ref())).await;
    }

    /// Sends bytes one by one, each as a packet of its own.
    pub async fn dribble(&mut self, bytes: impl AsRef<[u8]>) {
        for byte in bytes.as_ref() {
            self.send([*byte]).await;
            tokio::task::yield_now().await;
        }
    }

    /// Says that nothing more comes.
    pub async fn shut(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    /// Reads on. False when the connection has ended.
    pub async fn fill(&mut self) -> bool {
        let read = tokio::time::timeout(LIMIT, self.stream.read_buf(&mut self.buffer)).await;
        read.unwrap_or_else(|_| panic!("nothing comes behind {}", self.shown())).is_ok_and(|bytes| bytes > 0)
    }

    fn shown(&self) -> String {
        format!("{:?}", String::from_utf8_lossy(&self.buffer[..self.buffer.len().min(2000)]))
    }

    /// Reads until this has come, and takes all up to its end.
    pub async fn until(&mut self, text: &str) -> String {
        loop {
            if let Some(at) = self.buffer.windows(text.len()).position(|window| window == text.as_bytes()) {
                return String::from_utf8_lossy(&self.take(at + text.len())).into_owned();
            }
            assert!(self.fill().await, "closed before {text:?}: {}", self.shown());
        }
    }

    fn take(&mut self, bytes: usize) -> Vec<u8> {
        self.buffer.drain(..bytes).collect()
    }

    /// The next head, interim or final.
    pub async fn head(&mut self) -> String {
        loop {
            if let Some(end) = head_end(&self.buffer) {
                return String::from_utf8(self.take(end)).expect("a head is text");
            }
            assert!(self.fill().await, "closed before a head: {}", self.shown());
        }
    }

    /// The next final response, to a request of this method.
    pub async fn response_to(&mut self, method: &str) -> Response {
        let mut interim = Vec::new();
        let mut head = self.head().await;
        while (100..200).contains(&status(&head)) && status(&head) != 101 {
            interim.push(std::mem::replace(&mut head, self.head().await));
        }
        let mut response = Response { interim, head, body: Vec::new(), trailers: Vec::new() };
        if method == "HEAD" || matches!(response.status(), 101 | 204 | 304) {
            return response;
        }
        let encodings = fields(&response.head, "transfer-encoding");
        let lengths = fields(&response.head, "content-length");
        assert!(encodings.len() + lengths.len() <= 1, "framed twice: {}", response.head);
        if let [encoding] = encodings[..] {
            assert_eq!(encoding, "chunked", "{}", response.head);
            loop {
                if let Some(chunked) = dechunk(&self.buffer) {
                    self.take(chunked.length);
                    (response.body, response.trailers) = (chunked.body, chunked.trailers);
                    return response;
                }
                assert!(self.fill().await, "closed in a chunked body: {}", self.shown());
            }
        }
        if let [length] = lengths[..] {
            let length = length.parse().expect("a length");
            while self.buffer.len() < length {
                assert!(self.fill().await, "closed in a body of {length} bytes: {}", self.shown());
            }
            response.body = self.take(length);
        } else {
            response.body = self.rest().await;
        }
        response
    }

    /// The next final response, to any request but a HEAD.
    pub async fn response(&mut self) -> Response {
        self.response_to("GET").await
    }

    /// Sends a request, and gives its response.
    pub async fn ask(&mut self, request: &str) -> Response {
        self.send(request).await;
        self.response().await
    }

    /// Sends a plain GET, and gives its response.
    pub async fn get(&mut self, target: &str) -> Response {
        self.ask(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")).await
    }

    /// All that comes until the connection ends.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.fill().await {}
        std::mem::take(&mut self.buffer)
    }

    /// The connection must end without another byte.
    #[track_caller]
    pub fn closed(&mut self) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let rest = self.rest().await;
            assert!(rest.is_empty(), "{caller}: not just closed: {:?}", String::from_utf8_lossy(&rest));
        }
    }

    /// Nothing has come that was not taken, and the connection is open, as far as the system knows at this moment.
    pub fn is_quiet(&self) -> bool {
        let nothing =
            self.stream.try_read(&mut [0; 1]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
        self.buffer.is_empty() && nothing
    }

    /// The balancer refuses the request: this status, its JSON with one of these words in the message, and the connection
    /// ends.
    pub async fn refused(&mut self, expected: u16, words: &[&str]) -> Response {
        let response = self.response().await;
        let text = response.text();
        assert_eq!(response.status(), expected, "{}{text}", response.head);
        assert!(text.starts_with(r#"{"message":"<Error> "#) && text.ends_with(r#"","status":"failure"}"#), "{text}");
        assert_eq!(response.field("content-type"), Some("application/json"), "{}", response.head);
        assert!(words.iter().any(|word| text.to_lowercase().contains(word)), "it should name one of {words:?}: {text}");
        assert!(response.connection("close"), "{}", response.head);
        self.closed().await;
        response
    }
}
