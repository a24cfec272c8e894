//! What an experiment has found, as it is written and read.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::cx::{Cx, Settings};
use super::stage::Runtime;
use crate::bench::machine::Machine;
use crate::bench::table::markdown;
use crate::json;
use crate::plot::Drawn;

/// An experiment is what it has found.
pub(super) trait Experiment: Serialize + DeserializeOwned {
    /// Of its command, folder and files.
    const NAME: &'static str;
    const TITLE: &'static str;
    /// What replicas are, whatever those of other experiments are.
    const RUNTIME: Option<Runtime> = None;

    /// Makes all of its runs.
    async fn measure(cx: &Cx) -> Result<Self, String>;

    /// What must hold of what it has found.
    fn checks(&self) -> Vec<Check>;

    /// Its sections in Markdown, each under a heading of the second level.
    fn sections(&self) -> String;

    /// Its plots, with the text for those who don't see them.
    fn plots(&self) -> Vec<(&'static str, &'static str)>;

    /// Draws them into this folder.
    fn draw(&self, out: &Path) -> Drawn;

    /// In short, how much was asked for.
    fn load(&self, settings: Settings) -> String {
        format!("{} requests a load, seed {}", settings.requests, settings.seed)
    }
}

/// One thing that must hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Check {
    pub(super) what: String,
    pub(super) limit: String,
    pub(super) found: String,
    pub(super) holds: bool,
}

impl Check {
    /// Nothing may have failed.
    pub(super) fn none_failed(what: &str, requests: u64, failed: u64) -> Self {
        let what = format!("{what}: failed of {requests} requests");
        Self { what, limit: "0".into(), found: failed.to_string(), holds: failed == 0 && requests > 0 }
    }

    /// A difference of shares, as a part of one, may be this large, in percentage points.
    pub(super) fn near(what: &str, off: f64, limit: f64) -> Self {
        let points = |value: f64| format!("{value:.2} points");
        Self { what: what.into(), limit: points(limit), found: points(off * 100.0), holds: off * 100.0 <= limit }
    }
}

/// An experiment's findings, with how and where they were made.
#[derive(Debug, Serialize, Deserialize)]
struct Record<E> {
    machine: Machine,
    runtime: Runtime,
    settings: Settings,
    /// How long all of it took, in seconds.
    took: f64,
    checks: Vec<Check>,
    found: E,
}

/// What came of an experiment, in short.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Summary {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    /// Seconds.
    pub(super) took: f64,
    pub(super) holds: bool,
}

/// Makes all runs, or without a stage takes those that are written in `out`; judges and writes them.
#[allow(clippy::print_stdout, reason = "a program for the command line")]
pub(super) async fn run<E: Experiment>(cx: Option<&Cx>, out: &Path) -> Result<Summary, String> {
    let record = match cx {
        Some(cx) => measure::<E>(cx).await?,
        None => read::<E>(out)?,
    };
    let record = Record { checks: record.found.checks(), ..record };
    println!("{}\nWritten to {}\n", record.page(), record.write(out)?.display());
    Ok(Summary {
        name: E::NAME,
        title: E::TITLE,
        took: record.took,
        holds: record.checks.iter().all(|check| check.holds),
    })
}

/// Makes all of its runs.
async fn measure<E: Experiment>(cx: &Cx) -> Result<Record<E>, String> {
    let began = Instant::now();
    let runtime = E::RUNTIME.unwrap_or(cx.stage.runtime);
    let (machine, settings) = (cx.machine(runtime).await?, cx.settings);
    let found = E::measure(cx).await.map_err(|error| format!("{}: {error}", E::NAME))?;
    Ok(Record { machine, runtime, settings, took: began.elapsed().as_secs_f64(), checks: Vec::new(), found })
}

/// What was written before.
fn read<E: Experiment>(out: &Path) -> Result<Record<E>, String> {
    let file = out.join(E::NAME).join(format!("{}.json", E::NAME));
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let text = std::fs::read_to_string(&file).map_err(|error| failed(&error))?;
    serde_json::from_str(&text).map_err(|error| failed(&error))
}

impl<E: Experiment> Record<E> {
    /// The whole page.
    fn page(&self) -> String {
        let machine = &self.machine;
        let peers = [&machine.nginx, &machine.haproxy].into_iter().flatten();
        let programs: Vec<&str> = [&machine.lb].into_iter().chain(peers).map(String::as_str).collect();
        let mut page = format!(
            "# {}\n\n{machine}, {:.0} s.\n{}.\nReplicas: {}. {}. \
             How and why: docs/experiments.md.\n",
            E::TITLE,
            self.took,
            programs.join("; "),
            self.runtime.name(),
            self.found.load(self.settings),
        );
        let row = |check: &Check| {
            let holds = if check.holds { "yes" } else { "NO" };
            vec![check.what.clone(), check.limit.clone(), check.found.clone(), holds.into()]
        };
        let rows = self.checks.iter().map(row).collect();
        if let Some(table) = markdown(&["must hold", "at most", "found", "holds"], 1, rows) {
            let _ = write!(page, "\n{table}\n");
        }
        for (file, alt) in self.found.plots() {
            let _ = write!(page, "\n![{alt}]({file})\n");
        }
        let _ = write!(page, "\n{}\n", self.found.sections().trim());
        page
    }

    /// Writes all of it to a folder in `out`, which is returned.
    fn write(&self, out: &Path) -> Result<PathBuf, String> {
        let dir = out.join(E::NAME);
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", dir.display());
        std::fs::create_dir_all(&dir).map_err(|error| failed(&error))?;
        let json = json::lines(self).map_err(|error| failed(&error))?;
        let file = |suffix: &str| dir.join(format!("{}.{suffix}", E::NAME));
        std::fs::write(file("json"), json).map_err(|error| failed(&error))?;
        std::fs::write(file("md"), self.page()).map_err(|error| failed(&error))?;
        self.found.draw(&dir).map_err(|error| failed(&error))?;
        Ok(dir)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Writes it, reads it again, and writes that: all files must be there, and the same. The page, and the plots' text.
    pub(in crate::experiments) fn written<E: Experiment>(found: E) -> (String, String) {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings { requests: 1000, rounds: None, seed: 17 };
        let checks = found.checks();
        let machine = Machine::here();
        let record = Record { machine, runtime: Runtime::Process, settings, took: 1.5, checks, found };
        record.write(dir.path()).unwrap();
        let text = |file: &str| std::fs::read_to_string(dir.path().join(E::NAME).join(file)).unwrap();
        let (json, page) = (text(&format!("{}.json", E::NAME)), text(&format!("{}.md", E::NAME)));
        let again = read::<E>(dir.path()).unwrap();
        again.write(dir.path()).unwrap();
        assert_eq!((text(&format!("{}.json", E::NAME)), text(&format!("{}.md", E::NAME))), (json, page.clone()));
        let plots = record.found.plots().into_iter().map(|(file, _)| text(file)).collect();
        for table in page.split("\n\n").filter(|block| block.starts_with('|')) {
            let widths: Vec<usize> = table.lines().map(|line| line.chars().count()).collect();
            assert!(widths.iter().all(|width| *width == widths[0]), "{table}");
        }
        (page, plots)
    }

    /// The record that is kept: its page, which must be that of the record, and all must hold that must.
    pub(in crate::experiments) fn kept<E: Experiment>() -> String {
        kept_but::<E>(&[])
    }

    /// The same, but for goals that are known to be missed: each of these must be, so that nobody forgets to take it out.
    pub(in crate::experiments) fn kept_but<E: Experiment>(known: &[&str]) -> String {
        let out = Path::new(env!("CARGO_MANIFEST_DIR")).join("results");
        let record = read::<E>(&out).unwrap();
        let page = std::fs::read_to_string(out.join(E::NAME).join(format!("{}.md", E::NAME))).unwrap();
        assert!(page == record.page() && record.checks == record.found.checks(), "run analysis {} --redraw", E::NAME);
        let missed: Vec<_> =
            record.checks.iter().filter(|check| !check.holds).map(|check| check.what.as_str()).collect();
        assert_eq!(missed, known, "{:?}", record.checks);
        for (file, _) in record.found.plots() {
            assert!(out.join(E::NAME).join(file).is_file(), "{file}");
        }
        page
    }

    #[test]
    fn what_does_not_hold_is_told() {
        let near = Check::near("shares", 0.0149, 1.5);
        assert_eq!((near.holds, &*near.found, &*near.limit), (true, "1.49 points", "1.50 points"));
        assert!(!Check::near("shares", 0.0151, 1.5).holds);
        assert!(Check::none_failed("x", 10, 0).holds);
        assert!(!Check::none_failed("x", 10, 1).holds && !Check::none_failed("x", 0, 0).holds, "nothing was tried");
    }
}
