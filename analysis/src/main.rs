//! Load runs and experiments for a running balancer. `analysis --help` shows what there is.

mod load;
mod spread;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Load runs and experiments for Ringkeeper.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:\n  analysis spread                                   10,000 requests on a balancer that `make run` started\n  analysis spread --requests 1000 --concurrency 10  fewer of them"
)]
struct Cli {
    #[command(subcommand)]
    command: Cmd,
}

#[derive(Subcommand)]
enum Cmd {
    /// Send requests to /home, and count how many each replica answered
    Spread(spread::Args),
}

#[allow(clippy::print_stderr, reason = "a program for the command line")]
fn main() -> ExitCode {
    let Cli { command: Cmd::Spread(args) } = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("analysis: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(spread::run(&args)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("analysis: {error}");
            ExitCode::FAILURE
        }
    }
}
