//! Load runs and experiments for a running balancer. `analysis --help` shows what there is.

mod bench;
mod burst;
mod child;
mod control;
mod cpu;
mod datagrams;
mod demo;
mod experiments;
mod functions;
mod json;
mod load;
mod loopback;
mod pick;
mod placement;
mod plot;
mod relay;
mod relays;
mod replica;
mod samples;
mod slow;
mod soak;
mod spread;
mod udp_replica;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use experiments::Which;
use tokio::signal::unix::{SignalKind, signal};

const EXAMPLES: &str = "Examples:
  analysis spread                                   10,000 requests on a balancer that `make run` started
  analysis spread --requests 1000 --concurrency 10  fewer of them
  analysis bench --quick                            lb beside nginx, HAProxy and a TCP relay, in under a minute
  analysis bench --only 1m-16 --only new-64         two rows of the benchmark
  analysis bench --redraw                           tables and plots anew from the samples that are there
  analysis pick -- round-robin                      one choice of a replica, timed, of one policy only
  analysis placement --redraw                       tables and plots of docs/placement.md anew, from the figures there are
  analysis functions                                pairs of hash functions, exactly, and a search for better ones
  analysis soak --requests 500000 --kill-every 5    half a million requests, a replica killed every five seconds
  analysis relays --rounds 1                        the experiments with TCP and UDP servers, once each
  analysis slow --seconds 6 --policies round-robin,peak-ewma  one slow replica of four, two policies, 30 seconds
  analysis serve-http --port 30000 --relay-port 50000        register an HTTP server with a balancer on this host
  analysis serve-udp --relay-port 20000 --encoding msgpack   register a UDP echo server, in the other encoding
  analysis burst --tcp 127.0.0.1:50000 -n 11                 11 requests at once, and who answered them
  analysis demo --documents-ports                   registered, spread, unregistered, killed: each step is checked
  analysis burst --udp 127.0.0.1:20000 --payload 'work 50'   1000 datagrams at once, 50 ms of work each

`make bench`, `make bench-quick`, `make bench-pick`, `make soak`, `make slow` and `make analysis` build lb, and run this
optimised; `make placement` and `analysis functions` need no lb.";

/// Load runs and experiments for Ringkeeper.
#[derive(Parser)]
#[command(version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Cmd,
}

#[derive(Subcommand)]
enum Cmd {
    /// Send requests to /home, and count how many each replica answered
    Spread(spread::Args),
    /// Measure what a request costs, beside nginx, HAProxy and a plain TCP relay
    Bench(bench::Args),
    /// Time one choice of a replica, by policy and number of replicas
    Pick(pick::Args),
    /// Work out spread and moves of every policy and hash function, for docs/placement.md
    Placement(placement::Args),
    /// Work out what makes a good pair of hash functions for the ring, for docs/hash-functions.md
    Functions(functions::Args),
    /// Send millions of requests: none may fail, and the balancer's memory must stay flat
    Soak(soak::Args),
    /// An HTTP server that registers itself with a balancer's control channel: `/`, `/work?ms=50`, `/20k`
    ServeHttp(samples::Args),
    /// A UDP server that registers itself: echoes, and answers `who` and `work 50` with its name
    ServeUdp(samples::UdpArgs),
    /// Send requests all at once, each on a connection of its own, and count who answers
    Burst(burst::Args),
    /// Repeat the source documents' demonstrations of TCP and UDP step by step, against a running balancer
    Demo(demo::Args),
    /// Repeat the source document's experiments with TCP and UDP servers, beside its figures
    Relays(relays::Args),
    /// Slow one replica of four down, and compare the policies' latencies
    Slow(slow::Args),
    /// 10,000 requests before three replicas, by placement
    A1(experiments::Args),
    /// from two replicas to six
    A2(experiments::Args),
    /// all endpoints, and recovery from failures
    A3(experiments::Args),
    /// A-4: A-1 and A-2 again with other hash functions and placements
    A4(experiments::Args),
    /// What share of keys moves when a replica comes or goes, by placement
    Moves(experiments::Args),
    /// The same before HAProxy and nginx: spread, and what a failure costs
    Peers(experiments::Args),
    /// A square wave of load: N follows it, and nothing is slow for long
    Autoscale(experiments::Args),
    /// All experiments
    All(experiments::Args),
    /// Be the replicas of a benchmark
    #[command(hide = true)]
    Replica(replica::Args),
    /// Be the UDP replicas of a benchmark
    #[command(hide = true)]
    UdpReplica(udp_replica::Args),
    /// Be the TCP relay of a benchmark
    #[command(hide = true)]
    Relay(relay::Args),
}

/// What `command` does; false if it ran but found failures.
async fn run(command: Cmd) -> Result<bool, String> {
    match command {
        Cmd::Spread(args) => spread::run(&args).await,
        Cmd::Bench(args) => bench::run(&args).await.map(|()| true),
        Cmd::Pick(args) => pick::run(&args).await.map(|()| true),
        Cmd::Placement(args) => placement::run(&args).await,
        Cmd::Functions(args) => functions::run(&args).await.map(|()| true),
        Cmd::Soak(args) => soak::run(&args).await,
        Cmd::ServeHttp(args) => samples::http(&args).await.map(|()| true),
        Cmd::ServeUdp(args) => samples::udp(&args).await.map(|()| true),
        Cmd::Burst(args) => burst::run(&args).await,
        Cmd::Demo(args) => demo::run(&args).await,
        Cmd::Relays(args) => relays::run(&args).await,
        Cmd::Slow(args) => slow::run(&args).await,
        Cmd::A1(args) => experiments::one(Which::A1, &args).await,
        Cmd::A2(args) => experiments::one(Which::A2, &args).await,
        Cmd::A3(args) => experiments::one(Which::A3, &args).await,
        Cmd::A4(args) => experiments::one(Which::A4, &args).await,
        Cmd::Moves(args) => experiments::one(Which::Moves, &args).await,
        Cmd::Peers(args) => experiments::one(Which::Peers, &args).await,
        Cmd::Autoscale(args) => experiments::one(Which::Autoscale, &args).await,
        Cmd::All(args) => experiments::all(&args).await,
        Cmd::Replica(args) => replica::run(&args).await.map(|()| true).map_err(|error| error.to_string()),
        Cmd::UdpReplica(args) => udp_replica::run(&args).await.map(|()| true).map_err(|error| error.to_string()),
        Cmd::Relay(args) => relay::run(&args).await.map(|()| true).map_err(|error| error.to_string()),
    }
}

/// Runs `command` until it is done or a signal comes: what it has started ends when its future is dropped.
async fn run_or_stop(command: Cmd) -> Result<bool, String> {
    if let Cmd::ServeHttp(_) | Cmd::ServeUdp(_) = command {
        // These have something to do when a signal comes.
        return run(command).await;
    }
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    tokio::select! {
        done = run(command) => done,
        _ = interrupt.recv() => Err("interrupted".into()),
        _ = terminate.recv() => Err("terminated".into()),
    }
}

#[allow(clippy::print_stderr, reason = "a program for the command line")]
fn main() -> ExitCode {
    let Cli { command } = Cli::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = runtime.map_err(|error| error.to_string()).and_then(|runtime| runtime.block_on(run_or_stop(command)));
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("analysis: {error}");
            ExitCode::FAILURE
        }
    }
}
