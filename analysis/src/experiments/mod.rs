//! `analysis a1` to `a4`, `moves`, `peers`, `autoscale` and `all`: the assignment's experiments, on a real balancer with real replicas.
//!
//! Each measures, compares with what is predicted, and writes `NAME.json`, `NAME.md` and plots to a folder of its own.
//! `docs/experiments.md` says how, and what came of it.

mod a1;
mod a2;
mod a3;
mod a4;
mod all;
mod autoscale;
mod cx;
mod moves;
mod peers;
mod record;
mod spread;
pub(crate) mod stage;
mod subject;
mod table;

use std::path::PathBuf;

pub(crate) use all::run as all;
use cx::{Cx, Settings};
use record::{Experiment, Summary};
use stage::{Runtime, Stage};

/// What every experiment is told.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// What replicas are [default: docker if an engine answers; `autoscale` always has processes]
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
    /// Seed of the keys of `moves` and `peers`, and of simulations; the IDs of other requests are the balancer's own
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
    Peers,
    Autoscale,
}

impl Which {
    /// In the order in which they are run.
    const ALL: [Self; 7] = [Self::A1, Self::A2, Self::A3, Self::A4, Self::Moves, Self::Peers, Self::Autoscale];

    /// What its replicas are, if it does not matter what others' are.
    fn runtime(self) -> Option<Runtime> {
        match self {
            Self::Autoscale => autoscale::Autoscale::RUNTIME,
            _ => None,
        }
    }

    async fn run(self, cx: Option<&Cx>, args: &Args) -> Result<Summary, String> {
        match self {
            Self::A1 => record::run::<a1::A1>(cx, &args.out).await,
            Self::A2 => record::run::<a2::A2>(cx, &args.out).await,
            Self::A3 => record::run::<a3::A3>(cx, &args.out).await,
            Self::A4 => record::run::<a4::A4>(cx, &args.out).await,
            Self::Moves => record::run::<moves::Moves>(cx, &args.out).await,
            Self::Peers => record::run::<peers::Peers>(cx, &args.out).await,
            Self::Autoscale => record::run::<autoscale::Autoscale>(cx, &args.out).await,
        }
    }
}

/// Runs one and writes what it found; false if something does not hold.
pub(crate) async fn one(which: Which, args: &Args) -> Result<bool, String> {
    let cx = match args.redraw {
        true => None,
        false => {
            let runtime = which.runtime().or(args.runtime);
            Some(Cx::new(Stage::open(runtime, &args.lb).await?, args.settings(), &args.lb))
        }
    };
    Ok(which.run(cx.as_ref(), args).await?.holds)
}

#[cfg(test)]
mod tests {
    use super::record::tests::{kept, kept_but};
    use super::*;

    /// The rows of a page's table under this heading.
    fn rows<'a>(page: &'a str, heading: &str) -> Vec<&'a str> {
        let (_, section) = page.split_once(heading).unwrap();
        section.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|')).collect()
    }

    #[test]
    fn the_records_hold_and_the_readme_has_their_tables() {
        let (a3, peers) = (kept::<a3::A3>(), kept::<peers::Peers>());
        let others = [
            kept::<a1::A1>(),
            kept::<a2::A2>(),
            kept::<a4::A4>(),
            kept::<moves::Moves>(),
            kept_but::<autoscale::Autoscale>(&["news: a delta before 1000 members, median"]),
        ];
        assert!(others.iter().all(|page| page.contains(" 0 |")));
        let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
        for rows in [rows(&a3, "## Recovery"), rows(&peers, "## Failures")] {
            assert!(rows.len() > 4 && readme.contains(&rows.join("\n")), "{}", rows.join("\n"));
        }
    }
}
