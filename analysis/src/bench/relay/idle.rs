//! What lb's memory is with thousands of connections and flows that do nothing.

use std::io;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::start::{Echoes, Relay};
use crate::bench::proxies::Kind;
use crate::bench::report::Sample;
use crate::bench::session::{Answer, Session, addr, ask_once, charge, cpu, resident};
use crate::bench::workload::RELAY_IDLE;
use crate::control::Affinity;

pub(crate) const CONNECTIONS: usize = 5000;
pub(crate) const FLOWS: usize = 10_000;
/// Open files of lb besides both sides of each connection and one socket for each flow.
const OTHERS: usize = 200;
/// lb's own limits must be above what is asked of it.
const LIMITS: [&str; 4] = ["--relay-max-connections", "8192", "--relay-max-flows", "16384"];
/// For a datagram to come back.
const ECHO: Duration = Duration::from_secs(5);

/// Raises this program's limit of open files, which those that it starts inherit. How many flows there may be then: the last
/// few can be done without, but not half of them.
pub(crate) fn flows() -> Result<usize, String> {
    let failed = |error| format!("{RELAY_IDLE}: the limit of open files: {error}");
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(failed)?;
    let files = (2 * CONNECTIONS + FLOWS + OTHERS) as u64;
    let soft = soft.max(hard.min(files));
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).map_err(failed)?;
    let flows = usize::try_from(soft.min(files)).unwrap_or(0).saturating_sub(2 * CONNECTIONS + OTHERS);
    match flows > FLOWS / 2 {
        true => Ok(flows),
        false => Err(format!("{RELAY_IDLE}: {files} open files are needed, and {hard} allowed (ulimit -Hn)")),
    }
}

/// Resident memory in millions of bytes. Each flow that there could not be counts as much as one of those that there were,
/// or of the connections, which take more.
pub(crate) fn megabytes(sample: &Sample) -> f64 {
    let missing = ((CONNECTIONS + FLOWS) as u64).saturating_sub(sample.requests);
    (sample.rss_kib as f64 + missing as f64 * sample.idle_kib.unwrap_or_default()) * 1024.0 / 1e6
}

/// A fresh lb's memory when all connections and flows have had one answer each. What it took to open them is the CPU time.
pub(crate) async fn sample(session: &Session, echoes: &Echoes, flows: usize, round: u32) -> Answer {
    session.say(&format!("{RELAY_IDLE}, round {round}, lb"));
    let fail = |error: String| format!("{RELAY_IDLE}, round {round}, lb: {error}");
    let relay = Relay::start(Kind::Lb, "lb-relay-idle", session, echoes, &LIMITS).await.map_err(fail)?;
    let proxy = &relay.proxy;
    let tcp = addr(proxy).map_err(fail)?;
    let udp = relay.udp(Affinity::Flow).ok_or_else(|| fail("no port for flows".into()))?;
    let (memory, used) = (resident(proxy).map_err(fail)?, cpu(proxy).map_err(fail)?);
    let began = std::time::Instant::now();
    let mut connections = Vec::with_capacity(CONNECTIONS);
    for number in 0..CONNECTIONS {
        let connection = ask_once(tcp).await;
        connections.push(connection.map_err(|error| fail(format!("connection {number}: {error}")))?);
    }
    let mut clients = Vec::with_capacity(flows);
    for number in 0..flows {
        let flow = async {
            let socket = UdpSocket::bind("127.0.0.1:0").await?;
            socket.connect(udp).await?;
            exchange(&socket).await.map(|()| socket)
        };
        clients.push(flow.await.map_err(|error| fail(format!("flow {number}: {error}")))?);
    }
    let seconds = began.elapsed().as_secs_f64();
    let used = cpu(proxy).map_err(fail)?.since(used);
    let rss_kib = resident(proxy).map_err(fail)?;
    for (number, stream) in connections.iter().enumerate() {
        if !matches!(stream.try_read(&mut [0; 1]), Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
            return Err(fail(format!("idle connection {number} was closed")));
        }
    }
    let requests = (connections.len() + clients.len()) as u64;
    let mut sample = Sample {
        row: RELAY_IDLE.into(),
        subject: Kind::Lb.name().into(),
        round,
        requests,
        seconds,
        per_second: requests as f64 / seconds,
        rss_kib,
        idle_kib: Some(rss_kib.saturating_sub(memory) as f64 / requests as f64),
        ..Sample::default()
    };
    charge(&mut sample, used);
    session.done(&sample);
    Ok(sample)
}

async fn exchange(socket: &UdpSocket) -> io::Result<()> {
    let mut echo = [0; 8];
    socket.send(b"flow").await?;
    let count = timeout(ECHO, socket.recv(&mut echo)).await.map_err(io::Error::from)??;
    match &echo[..count] {
        b"flow" => Ok(()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "a datagram came back changed")),
    }
}
