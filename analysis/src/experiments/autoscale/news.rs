//! How long news takes from an agent to a balancer's data path: this program plays the agent, before a real balancer.
//!
//! A balancer tells with each report which of the agent's states it serves, so the time ends with the first report that names
//! the new one. It begins before the message is put into words. So it holds a little more than the way to the data path: the
//! report is made, sent and read, too.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use lb::agent::wire::{Delta, Hello, Message, Report, Snapshot, VERSION};
use lb::replica::{Generation, Hostname, ReplicaId, Share};
use lb::runtime::remote::{RemoteMember, Standing};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Frame;

use crate::child::{Running, command};
use crate::loopback::free_port;

/// Replicas of the fleets that are told.
pub(super) const MEMBERS: [u32; 2] = [1000, 3];
/// Balancers that are told everything, and changes that the last one is told of.
pub(super) const SNAPSHOTS: u32 = 20;
pub(super) const DELTAS: u32 = 100;
/// Between two changes, so that each finds a balancer with nothing to do.
const PAUSE: Duration = Duration::from_millis(23);
/// For a balancer to connect, and to take in what it is told.
const PATIENCE: Duration = Duration::from_secs(20);

/// What every balancer is told. The ring's slots bound the number of replicas, and heartbeats are another matter. A line of
/// log for each new replica is written when all are in the data path, but before the report that tells of it.
pub(super) const ARGS: &str =
    "serve --runtime agent --policy round-robin --slots 16384 --heartbeat-interval 60s --log warn";

/// Times in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct News {
    pub(super) members: u32,
    /// Of the message.
    pub(super) snapshot_bytes: usize,
    /// Each to a balancer that has just been started.
    pub(super) snapshot_ms: Vec<f64>,
    pub(super) delta_bytes: usize,
    /// One replica is replaced by another.
    pub(super) delta_ms: Vec<f64>,
}

type Socket = WebSocketStream<TcpStream>;

/// Measures with fleets of all sizes.
pub(super) async fn measure(lb: &Path, dir: &Path, mut done: impl FnMut()) -> Result<Vec<News>, String> {
    let mut all = Vec::new();
    for members in MEMBERS {
        all.push(of(lb, dir, members, &mut done).await.map_err(|error| format!("news of {members} members: {error}"))?);
    }
    Ok(all)
}

async fn of(lb: &Path, dir: &Path, count: u32, mut done: impl FnMut()) -> Result<News, String> {
    let members: Vec<RemoteMember> = (1..=count).map(|id| member(id, u64::from(id))).collect::<Result<_, _>>()?;
    let mut news =
        News { members: count, snapshot_bytes: 0, snapshot_ms: Vec::new(), delta_bytes: 0, delta_ms: Vec::new() };
    let mut last = None;
    for _ in 0..SNAPSHOTS {
        drop(last.take());
        let (running, mut socket) = follower(lb, dir).await?;
        tokio::time::sleep(PAUSE).await;
        let snapshot = Message::Snapshot(Snapshot { epoch: 1, members: members.clone() });
        let (ms, bytes) = tell(&mut socket, &snapshot, 1, count).await?;
        news.snapshot_ms.push(ms);
        news.snapshot_bytes = bytes;
        last = Some((running, socket));
        done();
    }
    let Some((mut running, mut socket)) = last else { return Ok(news) };
    for change in 0..DELTAS {
        tokio::time::sleep(PAUSE).await;
        let (from, id) = (1 + u64::from(change), 1 + change % count);
        let (old, new) = (u64::from(change + 1), u64::from(count + change + 1));
        let delta = Delta { from, epoch: from + 1, changed: vec![member(id, new)?], removed: vec![Generation(old)] };
        let (ms, bytes) = tell(&mut socket, &Message::Delta(delta), from + 1, count).await?;
        news.delta_ms.push(ms);
        news.delta_bytes = bytes;
        done();
    }
    running.check("lb serve")?;
    Ok(news)
}

/// A replica of a fleet; nobody ever asks it.
fn member(id: u32, generation: u64) -> Result<RemoteMember, String> {
    Ok(RemoteMember {
        generation: Generation(generation),
        id: ReplicaId(id),
        hostname: Hostname::new(&format!("replica-{generation}")).ok_or("no name")?,
        addr: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 9))),
        // As long as a container's.
        runtime_id: Some(format!("{generation:064x}")),
        state: Standing::Ready,
        desired: true,
        spare: false,
        share: Share::default(),
        order: generation,
        started_at: Some(1_700_000_000_000),
        crashes: 0,
        launch_at: None,
        last_error: None,
    })
}

/// A balancer that has said hello and knows nothing yet.
async fn follower(lb: &Path, dir: &Path) -> Result<(Running, Socket), String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(|error| error.to_string())?;
    let agent = format!("ws://{}", listener.local_addr().map_err(|error| error.to_string())?);
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
    let mut command = command(lb);
    command.args(ARGS.split(' ')).args(["--admin-listen", "off", "--agent", &agent, "--listen", &listen.to_string()]);
    let mut running = Running::start(command, dir.join("news.log")).map_err(|error| format!("lb serve: {error}"))?;
    let greeted = async {
        let (stream, _) = listener.accept().await.map_err(|error| error.to_string())?;
        let _ = stream.set_nodelay(true);
        let mut socket = tokio_tungstenite::accept_async(stream).await.map_err(|error| error.to_string())?;
        let (hello, _) = next(&mut socket).await?;
        let Message::Hello(Hello { fleet, .. }) = hello else { return Err("it says no hello".into()) };
        let instance = format!("{:016x}", rand::random::<u64>());
        send(&mut socket, &Message::Hello(Hello { version: VERSION, fleet, instance, ..Hello::default() })).await?;
        Ok::<_, String>(socket)
    };
    match tokio::time::timeout(PATIENCE, greeted).await {
        Ok(Ok(socket)) => Ok((running, socket)),
        Ok(Err(error)) => Err(error),
        Err(_) => {
            running.check("lb serve")?;
            Err(format!("the balancer does not connect:\n{}", running.last_words()))
        }
    }
}

/// Tells the balancer, and waits until it serves this state with all of its members. Milliseconds, and the message's length.
async fn tell(socket: &mut Socket, message: &Message, epoch: u64, members: u32) -> Result<(f64, usize), String> {
    let began = Instant::now();
    let bytes = send(socket, message).await?;
    let serves = async {
        loop {
            let (message, at) = next(socket).await?;
            match message {
                Message::Report(Report { epoch: served, replicas, .. }) if served == epoch => {
                    return match replicas.len() {
                        there if there >= members as usize => Ok(at - began),
                        there => Err(format!("it serves {there} of {members} members")),
                    };
                }
                Message::Ping(ping) => drop(send(socket, &Message::Pong(ping)).await?),
                _ => {}
            }
        }
    };
    let took = tokio::time::timeout(PATIENCE, serves).await;
    let took = took.unwrap_or_else(|_| Err(format!("state {epoch} is not served after {PATIENCE:?}")))?;
    Ok((took.as_secs_f64() * 1e3, bytes))
}

async fn send(socket: &mut Socket, message: &Message) -> Result<usize, String> {
    let text = message.encode();
    let bytes = text.len();
    socket.send(Frame::text(text)).await.map_err(|error| error.to_string())?;
    Ok(bytes)
}

/// The next message, and when it came: what it takes to read it is not the balancer's.
async fn next(socket: &mut Socket) -> Result<(Message, Instant), String> {
    loop {
        match socket.next().await {
            Some(Ok(Frame::Text(text))) => {
                let at = Instant::now();
                return Message::decode(&text).map(|(message, _)| (message, at)).map_err(|error| error.to_string());
            }
            Some(Ok(Frame::Close(_))) | None => return Err("the balancer has closed the connection".into()),
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(error.to_string()),
        }
    }
}
