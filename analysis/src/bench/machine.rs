//! Where and on what a run was made.

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::child::PATH;
use serde::{Deserialize, Serialize};

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    pub(crate) date: String,
    /// Of this program; `lb` may have been built from another.
    pub(crate) commit: String,
    /// The working tree had changes.
    pub(crate) dirty: bool,
    /// Empty where none was run.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) lb: String,
    /// Empty in results from before it was asked.
    #[serde(default)]
    pub(crate) rustc: String,
    /// `None` where it is not installed.
    pub(crate) nginx: Option<String>,
    pub(crate) haproxy: Option<String>,
    pub(crate) wrk: Option<String>,
}

/// What pages begin with: the machine, the commit, and when.
impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cpu, cores, kernel, commit, date, .. } = self;
        let dirty = if self.dirty { " with changes" } else { "" };
        write!(f, "{cpu}, {cores} cores, Linux {kernel}. Commit {commit}{dirty}, {date}")
    }
}

impl Machine {
    /// With the balancer's program, and those it is compared with.
    pub(crate) fn look(lb: &Path) -> Self {
        Self {
            lb: program(lb),
            nginx: version("nginx", "-v"),
            haproxy: version("haproxy", "-v"),
            wrk: version("wrk", "-v"),
            ..Self::here()
        }
    }

    /// Without any program.
    pub(crate) fn here() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let git = |args: &[&str]| said(Command::new("git").current_dir(env!("CARGO_MANIFEST_DIR")).args(args));
        Self {
            cpu: model.map_or("?", |(_, model)| model).into(),
            cores: cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().into(),
            date: humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string(),
            commit: git(&["rev-parse", "HEAD"]).unwrap_or_else(|| "?".into()),
            dirty: git(&["status", "--porcelain", "--untracked-files=no"]).is_some(),
            rustc: said(Command::new("rustc").arg("--version")).unwrap_or_else(|| "?".into()),
            ..Self::default()
        }
    }
}

/// Version, place and age: programs of one version may differ.
fn program(lb: &Path) -> String {
    let version = version(&lb.to_string_lossy(), "--version").unwrap_or_else(|| "?".into());
    let built = fs::metadata(lb).and_then(|file| file.modified());
    let built = built.map_or_else(|_| "?".into(), |time| humantime::format_rfc3339_seconds(time).to_string());
    format!("{version} ({}, of {built})", lb.display())
}

/// The first line of what a program says of itself; `None` if it is not there.
fn version(program: &str, flag: &str) -> Option<String> {
    said(Command::new(program).arg(flag).env("PATH", PATH))
}

/// Some programs name their version on standard error, and wrk with an exit status of 1.
fn said(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    String::from_utf8_lossy(&text).lines().next().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty())
}
