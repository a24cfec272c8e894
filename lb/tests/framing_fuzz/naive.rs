//! A proxy with the faults of many: it takes bare LF for line ends, believes a length before chunks, and passes on what it
//! has read without a look. Here to show that the fuzzer finds such faults.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub(crate) struct Naive {
    pub(crate) addr: SocketAddr,
    clients: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Naive {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Naive {
    pub(crate) async fn start(replica: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("bound");
        let clients = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&clients);
        let task = tokio::spawn(async move {
            while let Ok((stream, peer)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                let counted = Arc::clone(&counted);
                tokio::spawn(async move {
                    serve(stream, peer.ip(), replica).await;
                    counted.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { addr, clients, task }
    }

    pub(crate) fn clients(&self) -> usize {
        self.clients.load(Ordering::SeqCst)
    }
}

async fn serve(mut client: TcpStream, from: IpAddr, replica: SocketAddr) -> Option<()> {
    let mut buffer = Vec::new();
    loop {
        let head = loop {
            let text = String::from_utf8_lossy(&buffer).replace('\r', " ");
            if let Some(end) = text.find("\n \n").or(text.find("\n\n")) {
                let lines: Vec<String> = text[..end].lines().map(|line| line.trim().to_owned()).collect();
                let length = if text[end..].starts_with("\n\n") { 2 } else { 3 };
                buffer.drain(..(end + length).min(buffer.len()));
                break lines;
            }
            read(&mut client, &mut buffer).await?;
        };
        let mut words = head.first()?.split_whitespace();
        let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
        let field = |name: &str| head.iter().find_map(|line| line.to_lowercase().strip_prefix(name).map(str::to_owned));
        let length: usize = field("content-length:").and_then(|digits| digits.trim().parse().ok()).unwrap_or(0);
        while buffer.len() < length {
            read(&mut client, &mut buffer).await?;
        }
        let body: Vec<u8> = buffer.drain(..length).collect();
        let mut request = format!(
            "{method} {target} HTTP/1.1\r\nhost: a\r\nx-forwarded-for: {from}\r\ncontent-length: {length}\r\n\r\n"
        )
        .into_bytes();
        request.extend(body);
        let mut upstream = TcpStream::connect(replica).await.ok()?;
        upstream.write_all(&request).await.ok()?;
        let mut answer = Vec::new();
        read(&mut upstream, &mut answer).await?;
        client.write_all(&answer).await.ok()?;
    }
}

async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<()> {
    stream.read_buf(buffer).await.ok().filter(|read| *read > 0).map(drop)
}
