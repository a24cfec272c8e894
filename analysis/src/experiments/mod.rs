//! `analysis a1` to `a4`, `moves`, `peers` and `all`: the assignment's experiments, on a real balancer with real replicas.
//!
//! Each measures, compares with what is predicted, and writes `NAME.json`, `NAME.md` and plots to a folder of its own.
//! `docs/experiments.md` says how, and what came of it.

mod a1;
mod a2;
mod a3;
mod a4;
mod all;
mod cx;
mod moves;
mod record;
mod spread;
pub(crate) mod stage;
mod subject;
mod table;

use std::path::PathBuf;

pub(crate) use all::run as all;
use cx::{Cx, Settings};
use record::Experiment;
use stage::{Runtime, Stage};

/// What every experiment is told.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// What replicas are [default: docker if an engine answers]
    #[arg(long, value_enum)]
    runtime: Option<Runtime>,
    /// The balancer's program, with the program 'server' beside it
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/x86_64-unknown-linux-gnu/release/lb"))]
    lb: PathBuf,
    /// Requests of each load
    #[arg(long, default_value = "10000", value_parser = clap::value_parser!(u64).range(1000..=1_000_000))]
    requests: u64,
    /// How often each failure is caused [default: 20, beside others 3]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,
    /// Seed of the random numbers
    #[arg(long, default_value = "17")]
    seed: u64,
    /// Where results go, a folder for each experiment
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/results"))]
    out: PathBuf,
    /// Judge the results again, and write tables and plots anew
    #[arg(long)]
    redraw: bool,
}

impl Args {
    fn settings(&self) -> Settings {
        Settings { requests: self.requests, rounds: self.rounds, seed: self.seed }
    }
}

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    A1,
    A2,
    A3,
    A4,
    Moves,
}

/// Runs one and writes what it found; false if something does not hold.
pub(crate) async fn one(which: Which, args: &Args) -> Result<bool, String> {
    match which {
        Which::A1 => run::<a1::A1>(args).await,
        Which::A2 => run::<a2::A2>(args).await,
        Which::A3 => run::<a3::A3>(args).await,
        Which::A4 => run::<a4::A4>(args).await,
        Which::Moves => run::<moves::Moves>(args).await,
    }
}

#[allow(clippy::print_stdout, reason = "a program for the command line")]
async fn run<E: Experiment>(args: &Args) -> Result<bool, String> {
    let record = if args.redraw {
        record::read::<E>(&args.out)?
    } else {
        let stage = Stage::open(args.runtime, &args.lb).await?;
        record::measure::<E>(&Cx::new(stage, args.settings(), &args.lb)).await?
    };
    let record = record.judged();
    println!("{}\nWritten to {}", record.page(), record.write(&args.out)?.display());
    Ok(record.holds())
}
