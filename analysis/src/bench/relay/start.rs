//! The relays: how each is started, and known to work.
//!
//! All of them pass bytes on without a look at them, in turn to three replicas. nginx and lb relay datagrams, too.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use tokio::process::Command;
use tokio::time::timeout;

use super::peers::{Stream, haproxy_conf, nginx_conf};
use super::udp::LENGTH;
use crate::bench::proxies::{Kind, Proxy, addresses};
use crate::bench::session::{MEMBERS, Session, replicas};
use crate::bench::wrk::Load;
use crate::bench::{PROXY_CORE, pinned};
use crate::child::Running;
use crate::control::{Affinity, Control, Encoding, Protocol, Registration};
use crate::loopback;

/// What lb says when its control channel is open.
const CONTROL: &str = "control channel listening on ";
const START: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);
/// For a datagram to come back, and how many are tried.
const ECHO: Duration = Duration::from_secs(1);
const TRIES: u32 = 5;
/// The path of a long answer.
const LONG: &str = "/1m";
/// Datagrams that must come back as they are.
const LENGTHS: [usize; 3] = [1, LENGTH, 1400];

/// The UDP replicas' process.
pub(crate) struct Echoes {
    _running: Running,
    /// Of each, two ports: a server's port is registered once, and lb has two relays for datagrams.
    ports: Vec<u16>,
}

impl Echoes {
    pub(crate) async fn start(session: &Session) -> Result<Self, String> {
        let (running, ports) = replicas(&session.programs.analysis, "udp-replica", 2 * MEMBERS, session.dir()).await?;
        Ok(Self { _running: running, ports })
    }

    fn of(&self, affinity: Affinity) -> &[u16] {
        match affinity {
            Affinity::Datagram => &self.ports[..MEMBERS],
            Affinity::Flow => &self.ports[MEMBERS..],
        }
    }
}

/// A relay that works.
pub(crate) struct Relay {
    pub(crate) proxy: Proxy,
    /// Another one for long answers, where that does better.
    long: Option<Proxy>,
    /// Where each datagram goes to the next replica, and where all of a client go to the same one.
    udp: Option<(SocketAddr, SocketAddr)>,
    /// Without it lb would close what it has opened.
    _control: Option<Control>,
}

impl Relay {
    /// Starts `kind` before three replicas and waits until it relays. `name` is for its files; `more` is what lb is told besides.
    pub(crate) async fn start(
        kind: Kind,
        name: &str,
        session: &Session,
        echoes: &Echoes,
        more: &[&str],
    ) -> Result<Self, String> {
        let members = &session.members[..MEMBERS];
        let (port, udp) = (loopback::free_port()?, loopback::free_udp_port()?);
        let file = session.dir().join(format!("{name}.conf"));
        let write = |text: String| std::fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()));
        let mut command: Command;
        match kind {
            Kind::Lb => {
                command = pinned(PROXY_CORE, &session.programs.lb);
                command.args(["serve", "--runtime", "static", "--workers", "1", "--listen", "127.0.0.1:0"]);
                command.args(["--admin-listen", "off", "--control-listen", "127.0.0.1:0"]);
                command.args(["--members", &addresses(&members[..1])]).args(more);
            }
            Kind::Nginx => {
                let module = Stream::look().load()?;
                write(nginx_conf(&module, (port, members), (udp, echoes.of(Affinity::Flow)), session.dir()))?;
                command = pinned(PROXY_CORE, Path::new("nginx"));
                command.arg("-p").arg(session.dir()).arg("-c").arg(&file).args(["-e", "stderr"]);
            }
            Kind::Haproxy => {
                write(haproxy_conf(port, members, false))?;
                command = haproxy(&file);
            }
            Kind::Relay => {
                command = pinned(PROXY_CORE, &session.programs.analysis);
                command.args(["relay", "--listen", &format!("127.0.0.1:{port}"), "--members", &addresses(members)]);
            }
        }
        let mut proxy = run(kind, name, command, port, session)?;
        let udp = SocketAddr::from(([127, 0, 0, 1], udp));
        let (udp, control) = match kind {
            Kind::Lb => {
                let flow = SocketAddr::from(([127, 0, 0, 1], loopback::free_udp_port()?));
                let control = register(&mut proxy, port, members, (udp, flow), echoes).await?;
                (Some((udp, flow)), Some(control))
            }
            Kind::Nginx => (Some((udp, udp)), None),
            Kind::Haproxy | Kind::Relay => (None, None),
        };
        until_ready(name, &mut proxy).await?;
        let mut long = None;
        if kind == Kind::Haproxy {
            let (port, name) = (loopback::free_port()?, format!("{name}-splice"));
            write(haproxy_conf(port, members, true))?;
            let mut proxy = run(kind, &name, haproxy(&file), port, session)?;
            until_ready(&name, &mut proxy).await?;
            long = Some(proxy);
        }
        if let Some((datagram, flow)) = udp {
            for addr in [datagram, flow] {
                check_echo(addr).await.map_err(|error| format!("{name}: {error}\n{}", proxy.running.last_words()))?;
            }
        }
        Ok(Self { proxy, long, udp, _control: control })
    }

    /// What serves this load.
    pub(crate) fn proxy(&self, load: &Load) -> &Proxy {
        let long = self.long.as_ref().filter(|_| load.path == LONG);
        long.unwrap_or(&self.proxy)
    }

    /// Where it takes datagrams, if it does. nginx knows one way only.
    pub(crate) fn udp(&self, affinity: Affinity) -> Option<SocketAddr> {
        self.udp.map(|(datagram, flow)| match affinity {
            Affinity::Datagram => datagram,
            Affinity::Flow => flow,
        })
    }
}

fn haproxy(file: &Path) -> Command {
    let mut command = pinned(PROXY_CORE, Path::new("haproxy"));
    command.arg("-f").arg(file);
    command
}

fn run(kind: Kind, name: &str, command: Command, port: u16, session: &Session) -> Result<Proxy, String> {
    let log = session.dir().join(format!("{name}.log"));
    let running = Running::start(command, log).map_err(|error| format!("{name} can't be started: {error}"))?;
    Ok(Proxy { kind, base: format!("http://127.0.0.1:{port}"), running })
}

/// Waits until it relays, and looks at bodies of all sizes.
async fn until_ready(name: &str, proxy: &mut Proxy) -> Result<(), String> {
    loopback::until_ready(&format!("{}/54", proxy.base), name, &mut proxy.running).await?;
    proxy.check_bodies().await
}

/// Has lb open its ports, as the replicas would.
async fn register(
    lb: &mut Proxy,
    tcp: u16,
    members: &[u16],
    (datagram, flow): (SocketAddr, SocketAddr),
    echoes: &Echoes,
) -> Result<Control, String> {
    let control = Control::connect(control_addr(&mut lb.running).await?, Encoding::MessagePack).await?;
    for member in members {
        control.register(&Registration::new(Protocol::Tcp, *member, tcp)).await?;
    }
    for (addr, affinity) in [(datagram, Affinity::Datagram), (flow, Affinity::Flow)] {
        for member in echoes.of(affinity) {
            let registration = Registration::new(Protocol::Udp, *member, addr.port());
            control.register(&Registration { affinity: Some(affinity), ..registration }).await?;
        }
    }
    Ok(control)
}

/// Where lb has opened its control channel, from its log.
async fn control_addr(lb: &mut Running) -> Result<SocketAddr, String> {
    let began = Instant::now();
    loop {
        lb.check("lb")?;
        if let Some(addr) = listening_on(&lb.output()) {
            return Ok(addr);
        }
        if began.elapsed() > START {
            return Err(format!("lb does not say {CONTROL:?} after {START:?}:\n{}", lb.last_words()));
        }
        tokio::time::sleep(POLL).await;
    }
}

fn listening_on(log: &str) -> Option<SocketAddr> {
    let (_, rest) = log.split_once(CONTROL)?;
    // Not before the line is whole.
    let (line, _) = rest.split_once('\n')?;
    line.split(|letter: char| !matches!(letter, '0'..='9' | '.' | ':')).next()?.parse().ok()
}

/// Do datagrams come back as they are?
async fn check_echo(addr: SocketAddr) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("datagrams to {addr}: {error}");
    let socket = UdpSocket::bind("127.0.0.1:0").await.map_err(failed)?;
    socket.connect(addr).await.map_err(failed)?;
    for length in LENGTHS {
        let (sent, mut got) = (vec![length as u8; length], vec![0; 2 * length]);
        let mut tries = 0;
        loop {
            socket.send(&sent).await.map_err(failed)?;
            match timeout(ECHO, socket.recv(&mut got)).await {
                Ok(count) => {
                    if got[..count.map_err(failed)?] == sent {
                        break;
                    }
                    return Err(format!("a datagram of {length} bytes to {addr} comes back changed"));
                }
                Err(_) if tries == TRIES => return Err(format!("{length} bytes sent to {addr} don't come back")),
                Err(_) => tries += 1,
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_control_channels_address_is_read_from_a_whole_line() {
        let line = "INFO control channel listening on 127.0.0.1:9988 addr=127.0.0.1:9988";
        assert_eq!(listening_on(line), None);
        assert_eq!(listening_on(&format!("INFO x\n{line}\n")), Some(SocketAddr::from(([127, 0, 0, 1], 9988))));
        assert_eq!(listening_on("control channel listening on 127.0.0.1:9988\x1b[0m\n").unwrap().port(), 9988);
    }
}
