//! Servers whose ports are relayed, and their clients: TCP and UDP of any kind, nothing that a balancer could read.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};

use super::control::{Control, own_ip};
use super::{LIMIT, Lb, eventually};

/// A TCP server on an address of its own. It ends when dropped, and its connections with it.
pub struct TcpServer {
    pub addr: SocketAddr,
    accepted: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for TcpServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl TcpServer {
    /// One whose connections do as this says.
    pub async fn start<F, Fut>(serve: F) -> Self
    where
        F: Fn(TcpStream) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        Self::start_at((own_ip(), 0).into(), serve).await
    }

    pub async fn start_at<F, Fut>(addr: SocketAddr, serve: F) -> Self
    where
        F: Fn(TcpStream) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(addr).unwrap();
        // The usual backlog of 128 overflows in a burst.
        let listener = socket.listen(4096).unwrap();
        let addr = listener.local_addr().unwrap();
        let accepted = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&accepted);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                let _ = stream.set_nodelay(true);
                connections.spawn(serve(stream));
            }
        });
        Self { addr, accepted, task }
    }

    /// One that greets with its name, then echoes.
    pub async fn named(name: &str) -> Self {
        Self::named_at((own_ip(), 0).into(), name).await
    }

    pub async fn named_at(addr: SocketAddr, name: &str) -> Self {
        let greeting = format!("{name}\n");
        Self::start_at(addr, move |stream| greet_and_echo(stream, greeting.clone())).await
    }

    /// The same, registered for this port.
    pub async fn registered(lb: &Lb, name: &str, relay_port: u16) -> (Self, Control) {
        let server = Self::named(name).await;
        let mut control = Control::connect(lb, server.ip()).await;
        control.register("tcp", server.addr.port(), relay_port).await;
        (server, control)
    }

    /// Ends it, and waits until nobody is at its port: a process that another test starts has copies of all sockets for a
    /// moment.
    pub async fn stop(self) {
        let addr = self.addr;
        drop(self);
        until_refused(addr).await;
    }

    pub fn ip(&self) -> Ipv4Addr {
        ip(self.addr)
    }

    /// Connections that came so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}

fn ip(addr: SocketAddr) -> Ipv4Addr {
    match addr.ip() {
        std::net::IpAddr::V4(ip) => ip,
        std::net::IpAddr::V6(_) => unreachable!("all tests are on IPv4 loopback"),
    }
}

pub async fn greet_and_echo(mut stream: TcpStream, greeting: String) {
    if stream.write_all(greeting.as_bytes()).await.is_ok() {
        let (mut reader, mut writer) = stream.split();
        let _ = tokio::io::copy(&mut reader, &mut writer).await;
        let _ = writer.shutdown().await;
    }
}

/// A client's connection to a relayed port.
pub struct Visit {
    /// The name that its server has greeted with.
    pub name: String,
    pub stream: TcpStream,
}

impl Visit {
    /// Connects, and waits for the greeting of a server.
    pub async fn to(addr: SocketAddr) -> std::io::Result<Self> {
        Self::by(TcpSocket::new_v4()?, addr).await
    }

    /// The same from this address.
    pub async fn from(ip: Ipv4Addr, addr: SocketAddr) -> std::io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((ip, 0).into())?;
        Self::by(socket, addr).await
    }

    async fn by(socket: TcpSocket, addr: SocketAddr) -> std::io::Result<Self> {
        let visit = async {
            let mut stream = socket.connect(addr).await?;
            let mut name = Vec::new();
            loop {
                match stream.read_u8().await? {
                    b'\n' => return Ok(Self { name: String::from_utf8_lossy(&name).into_owned(), stream }),
                    byte => name.push(byte),
                }
            }
        };
        tokio::time::timeout(LIMIT, visit).await.expect("a greeting in time")
    }

    /// Sends a few bytes, and waits for their echo.
    pub async fn is_alive(&mut self) -> bool {
        let mut echo = [0; 4];
        let echoed = async {
            self.stream.write_all(b"ping").await?;
            self.stream.read_exact(&mut echo).await
        };
        tokio::time::timeout(LIMIT, echoed).await.expect("an echo in time").is_ok() && &echo == b"ping"
    }

    /// How the connection ends: what else came, and how.
    pub async fn end(&mut self) -> (Vec<u8>, std::io::Result<()>) {
        let mut rest = Vec::new();
        let end = tokio::time::timeout(LIMIT, self.stream.read_to_end(&mut rest)).await.expect("an end in time");
        (rest, end.map(drop))
    }
}

/// Who serves so many clients that come one after the other.
pub async fn names(addr: SocketAddr, visits: usize) -> Vec<String> {
    let mut names = Vec::new();
    for _ in 0..visits {
        names.push(Visit::to(addr).await.expect("a server").name);
    }
    names
}

/// How often this one is among them.
pub fn count(names: &[String], name: &str) -> usize {
    names.iter().filter(|other| *other == name).count()
}

/// Is a connection to this address refused?
pub async fn is_refused(addr: SocketAddr) -> bool {
    let connected = tokio::time::timeout(LIMIT, TcpStream::connect(addr)).await.expect("an answer in time");
    connected.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
}

/// Waits until nobody is at this TCP port; how long that took.
pub async fn until_refused(addr: SocketAddr) -> Duration {
    eventually(&format!("TCP {addr} is closed"), async || is_refused(addr).await.then_some(())).await.1
}

/// A UDP server on an address of its own. It ends when dropped.
pub struct UdpServer {
    pub addr: SocketAddr,
    received: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for UdpServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl UdpServer {
    /// One that answers each datagram with what this makes of it.
    pub async fn start(answer: impl Fn(&[u8]) -> Vec<u8> + Send + 'static) -> Self {
        Self::start_at((own_ip(), 0).into(), answer).await
    }

    pub async fn start_at(addr: SocketAddr, answer: impl Fn(&[u8]) -> Vec<u8> + Send + 'static) -> Self {
        let socket = udp(addr);
        let addr = socket.local_addr().unwrap();
        let received = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&received);
        let task = tokio::spawn(async move {
            let mut bytes = vec![0; 65_536];
            // An ICMP error of an earlier answer is no end.
            loop {
                if let Ok((len, from)) = socket.recv_from(&mut bytes).await {
                    counted.fetch_add(1, Ordering::Relaxed);
                    let _ = socket.send_to(&answer(&bytes[..len]), from).await;
                }
            }
        });
        Self { addr, received, task }
    }

    /// One that answers with its name.
    pub async fn named(name: &'static str) -> Self {
        Self::start(move |_| name.into()).await
    }

    pub async fn echo() -> Self {
        Self::start(<[u8]>::to_vec).await
    }

    /// Ends it, and waits until nobody is at its port.
    pub async fn stop(self) {
        let addr = self.addr;
        drop(self);
        until_udp_is_refused(addr).await;
    }

    pub fn ip(&self) -> Ipv4Addr {
        ip(self.addr)
    }

    /// Datagrams that came so far.
    pub fn received(&self) -> usize {
        self.received.load(Ordering::Relaxed)
    }
}

/// A UDP socket with room for a crowd's datagrams.
pub fn udp(addr: SocketAddr) -> UdpSocket {
    let socket = std::net::UdpSocket::bind(addr).unwrap();
    socket.set_nonblocking(true).unwrap();
    // More than the system's limit takes a privilege; without it that limit is what there is.
    let room = 4 * 1024 * 1024;
    if nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBufForce, &room).is_err() {
        let _ = nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBuf, &room);
    }
    UdpSocket::from_std(socket).unwrap()
}

/// A client's socket that talks to this address only, so it also sees that nobody is there.
pub async fn talker(addr: SocketAddr) -> UdpSocket {
    talker_from((Ipv4Addr::LOCALHOST, 0).into(), addr).await
}

pub async fn talker_from(from: SocketAddr, addr: SocketAddr) -> UdpSocket {
    let socket = udp(from);
    socket.connect(addr).await.unwrap();
    socket
}

/// Sends a datagram, and waits for its answer.
pub async fn exchange(socket: &UdpSocket, datagram: &[u8]) -> std::io::Result<Vec<u8>> {
    socket.send(datagram).await?;
    answer(socket).await
}

pub async fn answer(socket: &UdpSocket) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; 65_536];
    let len = tokio::time::timeout(LIMIT, socket.recv(&mut bytes)).await.expect("an answer in time")?;
    bytes.truncate(len);
    Ok(bytes)
}

/// Who answers so many datagrams, one after the other.
pub async fn voices(socket: &UdpSocket, datagrams: usize) -> Vec<String> {
    let mut voices = Vec::new();
    for number in 0..datagrams {
        let answer = exchange(socket, format!("{number}").as_bytes()).await.expect("an answer");
        voices.push(String::from_utf8(answer).unwrap());
    }
    voices
}

/// Waits until nobody is at this UDP port; how long that took.
pub async fn until_udp_is_refused(addr: SocketAddr) -> Duration {
    let socket = talker(addr).await;
    let refused = async || {
        // The error is that of an earlier datagram.
        let sent = socket.send(b"?").await;
        let refused = sent.err().or_else(|| socket.try_recv(&mut [0; 16]).err());
        refused.filter(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
    };
    eventually(&format!("UDP {addr} is closed"), refused).await.1
}
