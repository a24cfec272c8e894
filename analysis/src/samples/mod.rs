//! `analysis serve-http` and `serve-udp`: servers that register themselves with a running balancer.
//!
//! Each serves on one thread of its own, so it does one thing at a time; the control channel has the main thread, and is
//! answered however busy the server is. On SIGINT and SIGTERM a server unregisters, finishes what is under way, and ends.

mod http;
pub(crate) mod process;
mod udp;
mod work;

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use crate::control::{Affinity, Control, Encoding, Protocol, Registration, Seen};
use crate::loopback::{more_open_files, resolve};

/// For what is under way, once the server is unregistered.
const DRAIN: Duration = Duration::from_secs(5);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The balancer's control channel, HOST:PORT
    #[arg(long, default_value = "127.0.0.1:9988")]
    control: String,
    /// Port to listen on; 0 for any free one
    #[arg(long, default_value = "0")]
    port: u16,
    /// Port that the balancer opens for clients [default: the same number]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    relay_port: Option<u16>,
    /// IP to listen on [default: the one that the control connection has on this side]
    #[arg(long, value_name = "IP")]
    listen: Option<IpAddr>,
    /// How control messages are written
    #[arg(long, value_enum, default_value = "json")]
    encoding: Encoding,
    /// What it calls itself [default: http-PORT or udp-PORT]
    #[arg(long)]
    name: Option<String>,
    /// The balancer's shared secret
    #[arg(long)]
    token: Option<String>,
    /// Its part of the traffic beside other servers of the same port [default: the balancer's]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    weight: Option<u16>,
    /// Its priority among other servers of the same port [default: the balancer's]
    #[arg(long)]
    priority: Option<u16>,
}

#[derive(clap::Args)]
pub(crate) struct UdpArgs {
    #[command(flatten)]
    server: Args,
    /// Does each datagram go to the next server, or do all of one client to the same? [default: the balancer's]
    #[arg(long, value_enum)]
    affinity: Option<Affinity>,
}

/// Serves HTTP until a signal comes.
pub(crate) async fn http(args: &Args) -> Result<(), String> {
    let (control, ip) = connect(args).await?;
    let (stop, stopped) = watch::channel(false);
    let listener = http::listen(SocketAddr::new(ip, args.port))?;
    let addr = listener.local_addr().map_err(|error| error.to_string())?;
    let name = name(args, "http", addr);
    let done = on_its_own_thread(http::serve(listener, name.clone(), stopped))?;
    registered(args, Protocol::Tcp, None, &control, (&name, addr), (stop, done)).await
}

/// Serves UDP until a signal comes.
pub(crate) async fn udp(args: &UdpArgs) -> Result<(), String> {
    let server = &args.server;
    let (control, ip) = connect(server).await?;
    let (stop, stopped) = watch::channel(false);
    let socket = udp::bind(SocketAddr::new(ip, server.port))?;
    let addr = socket.local_addr().map_err(|error| error.to_string())?;
    let name = name(server, "udp", addr);
    let done = on_its_own_thread(udp::serve(socket, name.clone(), stopped))?;
    registered(server, Protocol::Udp, args.affinity, &control, (&name, addr), (stop, done)).await
}

/// The control channel, and the IP to listen on.
async fn connect(args: &Args) -> Result<(Control, IpAddr), String> {
    more_open_files();
    let control = Control::connect(resolve(&args.control).await?, args.encoding).await?;
    let ip = args.listen.unwrap_or(control.local_addr().ip());
    Ok((control, ip))
}

fn name(args: &Args, kind: &str, addr: SocketAddr) -> String {
    args.name.clone().unwrap_or_else(|| format!("{kind}-{}", addr.port()))
}

/// What became of a server: how many it has answered.
type Done = oneshot::Receiver<Result<u64, String>>;

/// Runs `server` on a thread of its own.
fn on_its_own_thread(server: impl Future<Output = Result<u64, String>> + Send + 'static) -> Result<Done, String> {
    let (ended, done) = oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let run = move || drop(ended.send(runtime.block_on(server)));
    thread::Builder::new().name("serve".into()).spawn(run).map_err(|error| format!("no thread: {error}"))?;
    Ok(done)
}

/// Registers a server, tells what happens, and unregisters it when a signal comes.
#[allow(clippy::print_stdout, reason = "a program for the command line")]
async fn registered(
    args: &Args,
    protocol: Protocol,
    affinity: Option<Affinity>,
    control: &Control,
    (name, addr): (&str, SocketAddr),
    (stop, mut done): (watch::Sender<bool>, Done),
) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| error.to_string();
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| failed(&error))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| failed(&error))?;
    let Args { relay_port, token, weight, priority, .. } = args;
    let relay_port = relay_port.unwrap_or(addr.port());
    let registration = Registration {
        affinity,
        weight: *weight,
        priority: *priority,
        token: token.clone(),
        ..Registration::new(protocol, addr.port(), relay_port)
    };
    let protocol = protocol.name();
    println!("{name}: listening on {addr} ({protocol})");
    control.register(&registration).await?;
    println!("{name}: registered, the balancer relays {protocol} port {relay_port} to it");
    let mut seen = control.seen();
    loop {
        tokio::select! {
            () = either(&mut interrupt, &mut terminate) => break,
            changed = seen.changed() => {
                let Seen { health, closed } = seen.borrow_and_update().clone();
                if let (Some(why), _) | (None, Err(why)) = (closed, changed.map_err(|error| error.to_string())) {
                    return Err(format!("{name}: {why}"));
                }
                println!("{name}: health message {health} answered");
            }
            ended = &mut done => {
                return Err(format!("{name}: {}", answered(ended).err().unwrap_or_else(|| "ended by itself".into())));
            }
        }
    }
    control.unregister(&registration).await?;
    println!("{name}: unregistered");
    stop.send_replace(true);
    let ended = timeout(DRAIN, done).await.map_err(|_| format!("{name}: requests are under way after {DRAIN:?}"))?;
    println!("{name}: ends, {} answered", answered(ended)?);
    Ok(())
}

async fn either(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

fn answered(ended: Result<Result<u64, String>, oneshot::error::RecvError>) -> Result<u64, String> {
    ended.unwrap_or_else(|_| Err("its thread is gone".into()))
}

/// Ready once `stopped` says so, or can't any more.
async fn stop(mut stopped: watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stopped| *stopped).await;
}
