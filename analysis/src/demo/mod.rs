//! `analysis demo`: the demonstrations of the source documents, step by step, against a running balancer.
//!
//! Two HTTP servers behind one TCP port, UDP echo servers behind another; requests spread over them; servers that
//! unregister, come back, and are killed. Each step says what is expected and what was seen.

mod look;
mod steps;
mod table;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use crate::control::{Control, Encoding, Protocol};
use crate::loopback::{free_port, resolve};
use crate::samples::process::{Plan, Server};
use look::{PROMPT, REQUESTS, closed, open, requests};
use steps::Steps;
use table::{holds, mentions};

/// Ports of the documents: two HTTP servers, a UDP server and another one, and the two ports that clients use.
const DOCUMENTS: Ports = Ports { http: [40000, 30000], udp: [15000, 17000], tcp_relay: 50000, udp_relay: 20000 };

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The balancer's control channel, HOST:PORT
    #[arg(long, default_value = "127.0.0.1:9988")]
    control: String,
    /// Where it opens the ports for clients
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    relay_ip: IpAddr,
    /// The balancer's program, whose subcommand `relays` prints the table
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/x86_64-unknown-linux-gnu/release/lb"))]
    lb: PathBuf,
    /// Its admin listener, HOST:PORT
    #[arg(long, default_value = "127.0.0.1:5001")]
    admin: String,
    /// The documents' own ports (40000, 30000, 15000, 17000, 50000, 20000) instead of free ones
    #[arg(long)]
    documents_ports: bool,
}

/// The servers' own ports, and those that the balancer opens.
#[derive(Debug, Clone, Copy)]
struct Ports {
    http: [u16; 2],
    udp: [u16; 2],
    tcp_relay: u16,
    udp_relay: u16,
}

impl Ports {
    fn free() -> Result<Self, String> {
        Ok(Self { http: [0; 2], udp: [0; 2], tcp_relay: free_port()?, udp_relay: free_port()? })
    }
}

/// What all steps need.
struct Stage<'a> {
    control: SocketAddr,
    tcp: SocketAddr,
    udp: SocketAddr,
    ports: Ports,
    dir: &'a Path,
    lb: &'a Path,
    admin: &'a str,
    steps: Steps,
}

/// Goes through all steps; false if any of them saw something else than was expected.
#[allow(clippy::print_stdout, reason = "a program for the command line")]
pub(crate) async fn run(args: &Args) -> Result<bool, String> {
    let dir = tempfile::Builder::new().prefix("ringkeeper-demo-").tempdir();
    let dir = dir.map_err(|error| format!("no temporary folder: {error}"))?;
    let ports = if args.documents_ports { DOCUMENTS } else { Ports::free()? };
    let mut stage = Stage {
        control: resolve(&args.control).await?,
        tcp: SocketAddr::new(args.relay_ip, ports.tcp_relay),
        udp: SocketAddr::new(args.relay_ip, ports.udp_relay),
        ports,
        dir: dir.path(),
        lb: &args.lb,
        admin: &args.admin,
        steps: Steps::default(),
    };
    reachable(stage.control).await?;
    println!("TCP and UDP servers behind the balancer whose control channel is {}", stage.control);
    let played = play(&mut stage).await;
    let (steps, failed) = stage.steps.count();
    match played {
        Ok(()) => println!("\n{steps} steps, {failed} FAILED"),
        // What follows needs the server.
        Err(_) => println!("\nBroken off after {steps} steps"),
    }
    played.map(|()| failed == 0)
}

/// Without a control channel there is nothing to show.
async fn reachable(control: SocketAddr) -> Result<(), String> {
    let start = format!("start the balancer with LB_CONTROL_LISTEN={control} make run");
    Control::connect(control, Encoding::Json).await.map(drop).map_err(|error| format!("{error}: {start}"))
}

impl Stage<'_> {
    /// A step that registers a server; an error if there is none after it.
    async fn start(
        &mut self,
        what: &str,
        name: &str,
        protocol: Protocol,
        encoding: Encoding,
    ) -> Result<Server, String> {
        let (addr, own) = match (protocol, name.ends_with("-2")) {
            (Protocol::Tcp, second) => (self.tcp, self.ports.http[usize::from(second)]),
            (Protocol::Udp, second) => (self.udp, self.ports.udp[usize::from(second)]),
        };
        let plan = Plan { protocol, name, port: own, relay_port: addr.port(), encoding };
        let mut server = Err(format!("{name} has not started"));
        let starting = async {
            let started = Server::start(plan, self.control, self.dir).await?;
            let at = started.addr();
            server = Ok(started);
            Ok(format!("{name} listens on {at} and is registered; {}", open(protocol, addr).await?))
        };
        let expected = format!("registered, and {} port {} is open", protocol.name(), addr.port());
        self.steps.step(what, &expected, starting).await;
        server
    }

    /// A step that sends requests, which `names` should answer in turn.
    async fn ask(&mut self, what: &str, protocol: Protocol, names: &[&str]) {
        let addr = self.addr(protocol);
        let expected = match names {
            [name] => format!("{name} answers all"),
            _ => format!("{} take turns, {} and {}", names.join(" and "), REQUESTS.div_ceil(2), REQUESTS / 2),
        };
        self.steps.step(what, &expected, requests(protocol, addr, names)).await;
    }

    /// A step that shows the balancer's table.
    async fn table(&mut self, what: &str, expected: &str, right: impl Fn(&str) -> bool) {
        let Self { lb, admin, steps, .. } = self;
        let showing = async {
            let table = table::show(lb, admin).await?;
            if right(&table) { Ok(table) } else { Err(table) }
        };
        steps.step(what, expected, showing).await;
    }

    /// A step that stops the last server of a port.
    async fn last(&mut self, what: &str, protocol: Protocol, server: Server) {
        let addr = self.addr(protocol);
        let expected = format!("port {} refuses within {} ms of the server's end", addr.port(), PROMPT.as_millis());
        let stopping = async {
            server.stop().await?;
            closed(protocol, addr).await
        };
        self.steps.step(what, &expected, stopping).await;
    }

    fn addr(&self, protocol: Protocol) -> SocketAddr {
        match protocol {
            Protocol::Tcp => self.tcp,
            Protocol::Udp => self.udp,
        }
    }
}

/// All of the documents' scenes, and what their pictures don't show: the last server of a port, and one that is killed.
async fn play(stage: &mut Stage<'_>) -> Result<(), String> {
    use Encoding::{Json, MessagePack};
    use Protocol::{Tcp, Udp};
    let first = stage.start("Register an HTTP server, in JSON", "http-1", Tcp, Json).await?;
    let second = stage.start("Register another on the same port, in MessagePack", "http-2", Tcp, MessagePack).await?;
    let echo = stage.start("Register a UDP echo server", "udp-1", Udp, MessagePack).await?;
    let all = [&first, &second, &echo].map(Server::addr);
    stage.table("The balancer's table of relays: lb relays", "all three servers", |table| holds(table, &all)).await;
    stage.ask("11 HTTP requests", Tcp, &["http-1", "http-2"]).await;
    stage.ask("11 datagrams", Udp, &["udp-1"]).await;
    let other = stage.start("Register a second UDP server", "udp-2", Udp, Json).await?;
    stage.ask("11 datagrams again", Udp, &["udp-1", "udp-2"]).await;

    let stopping = async { second.stop().await.map(|()| "http-2 has unregistered and ended".into()) };
    stage.steps.step("Unregister an HTTP server", "it ends, the port stays open", stopping).await;
    stage.ask("11 HTTP requests", Tcp, &["http-1"]).await;
    stage.last("Unregister the last HTTP server", Tcp, first).await;
    stage.ask("11 datagrams: UDP does not notice", Udp, &["udp-1", "udp-2"]).await;

    let first = stage.start("Register an HTTP server again", "http-1", Tcp, Json).await?;
    let second = stage.start("Register the other one again", "http-2", Tcp, MessagePack).await?;
    stage.ask("11 HTTP requests", Tcp, &["http-1", "http-2"]).await;
    let killing = async {
        second.kill().await?;
        tokio::time::sleep(PROMPT).await;
        requests(Tcp, stage.tcp, &["http-1"]).await
    };
    let expected = format!("{} ms later no request goes to it: http-1 answers all", PROMPT.as_millis());
    stage.steps.step("Kill the other one with SIGKILL, then 11 HTTP requests", &expected, killing).await;

    let all = [&first, &echo, &other].map(Server::addr);
    stage.last("Clean up: unregister the last HTTP server", Tcp, first).await;
    let stopping = async { echo.stop().await.map(|()| "udp-1 has unregistered and ended".into()) };
    stage.steps.step("Unregister a UDP server", "it ends", stopping).await;
    stage.ask("11 datagrams", Udp, &["udp-2"]).await;
    stage.last("Unregister the last UDP server", Udp, other).await;
    let none = |table: &str| !all.iter().any(|addr| mentions(table, *addr));
    stage.table("The balancer's table of relays", "none of these servers", none).await;
    Ok(())
}
