//! `analysis functions`: what makes a good pair of hash functions for the ring of 512 slots and nine virtual nodes.
//!
//! Nothing runs and nothing is timed: all 900,000 six-digit IDs are placed by pairs of functions, and thousands of other
//! functions are tried in their place. The same program gives the same figures everywhere. They are written to
//! `functions.json`, `functions.md` and plots; `docs/hash-functions.md` says what they mean.

mod count;
#[cfg(test)]
mod docs;
mod figures;
mod function;
mod report;
mod ring;
mod search;
mod table;

use std::fs;
use std::path::{Path, PathBuf};

use function::{NODES, PAIRS, SHOWN, SLOTS, key_functions};
use report::{Report, Settings};

/// Quadratics that are drawn at random, unless another number is asked for.
pub(crate) const SAMPLE: u32 = 200_000;
/// The seed of the record that the documentation quotes.
pub(crate) const SEED: u64 = 17;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Quadratics to draw at random for virtual nodes
    #[arg(long, default_value_t = SAMPLE, value_parser = clap::value_parser!(u32).range(100..=10_000_000))]
    pub(crate) sample: u32,
    /// Seed of the random numbers: the same one gives the same figures
    #[arg(long, default_value_t = SEED)]
    pub(crate) seed: u64,
    /// Where results go
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/results/functions"))]
    pub(crate) out: PathBuf,
    /// Write tables and plots anew from the figures in the results
    #[arg(long)]
    pub(crate) redraw: bool,
}

/// Works all of it out and writes it.
#[allow(clippy::print_stdout, reason = "a program for the command line")]
pub(crate) async fn run(args: &Args) -> Result<(), String> {
    let report = if args.redraw { read(&args.out)? } else { work_out(args).await? };
    write(&args.out, &report)?;
    println!("{}\nWritten to {}", table::page(&report), args.out.display());
    Ok(())
}

async fn work_out(args: &Args) -> Result<Report, String> {
    let settings = Settings { slots: SLOTS, nodes: NODES, sample: args.sample, seed: args.seed };
    let keys: Vec<report::Keys> = key_functions().iter().map(count::keys).collect();
    let pair = |pair: &function::Pair| {
        let keys = keys.iter().find(|keys| keys.name == pair.keys);
        keys.map(|keys| count::pair(pair, keys)).ok_or_else(|| format!("there is no H named {}", pair.keys))
    };
    let pairs = PAIRS.iter().map(pair).collect::<Result<_, String>>()?;
    let known = search::known();
    let nodes = SHOWN.map(count::nodes).into();
    begins("all quadratics as H").await;
    let classes = search::quadratics();
    begins("all multipliers as Φ").await;
    let multiples = search::multiples(&known);
    begins("random quadratics as Φ").await;
    let sample = search::sample(args.sample, args.seed, &known);
    let families: Vec<report::Family> = [multiples, sample].into_iter().flatten().collect();
    let found = |family: &report::Family| [Some(family.few.best), Some(family.all.best), family.best_in_both];
    let found = families.iter().flat_map(found).flatten();
    let elsewhere = known.first().map(|known| known.function).into_iter().chain(found).map(search::elsewhere).collect();
    Ok(Report { settings, keys, nodes, pairs, classes, known, families, elsewhere })
}

/// The next search begins; here a signal can end the run.
#[allow(clippy::print_stderr, reason = "progress of a program for the command line")]
async fn begins(what: &str) {
    eprintln!("{what}");
    tokio::task::yield_now().await;
}

fn read(out: &Path) -> Result<Report, String> {
    let file = out.join("functions.json");
    let text = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", file.display()))
}

fn write(out: &Path, report: &Report) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", out.display());
    fs::create_dir_all(out).map_err(|error| failed(&error))?;
    let json = serde_json::to_string_pretty(report).map_err(|error| failed(&error))?;
    fs::write(out.join("functions.json"), json + "\n").map_err(|error| failed(&error))?;
    fs::write(out.join("functions.md"), table::page(report)).map_err(|error| failed(&error))?;
    figures::draw(report, out).map_err(|error| failed(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn recorded() -> Report {
        read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("results/functions")).unwrap()
    }

    #[test]
    fn results_are_read_as_they_were_written() {
        let dir = tempfile::tempdir().unwrap();
        let report = report::tests::report();
        write(dir.path(), &report).unwrap();
        assert!(read(dir.path()).unwrap() == report);
        let page = fs::read_to_string(dir.path().join("functions.md")).unwrap();
        assert_eq!(page, table::page(&report));
        assert!(read(&dir.path().join("none")).unwrap_err().contains("functions.json"));
    }

    #[test]
    fn the_record_is_what_the_program_works_out() {
        let report = recorded();
        let keys = key_functions().map(|function| count::keys(&function));
        assert_eq!(report.keys, keys);
        for (pair, recorded) in PAIRS.iter().zip(&report.pairs) {
            let keys = keys.iter().find(|keys| keys.name == pair.keys).unwrap();
            assert_eq!(count::pair(pair, keys), *recorded);
        }
        assert_eq!(report.nodes, SHOWN.map(count::nodes));
        assert_eq!(report.known, search::known());
        assert_eq!(report.families[0], search::multiples(&report.known).unwrap());
        // Of the sample, which takes long, only what it has found.
        for row in &report.elsewhere {
            assert_eq!(search::elsewhere(row.function), *row);
        }
        let [ours, _, _, few, all, both] = &*report.elsewhere else { panic!("{:?}", report.elsewhere) };
        assert_eq!(ours.worst, report.known[0].worst);
        let found = &report.families[1];
        assert_eq!((few.function, few.worst.few), (found.few.best, found.few.percentiles[0]));
        assert_eq!((all.function, all.worst.all), (found.all.best, found.all.percentiles[0]));
        assert_eq!(Some(both.function), found.best_in_both);
        assert!(both.worst.few < ours.worst.few && both.worst.all < ours.worst.all);
    }

    #[test]
    fn the_record_has_its_tables() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("results/functions/functions.md");
        assert_eq!(fs::read_to_string(page).unwrap(), table::page(&recorded()), "run analysis functions --redraw");
    }
}
