//! `wrk`, the load generator of the rows that saturate: how it is called, and what it says.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::{LOAD_CORE, pinned};
use crate::child::Running;

/// Marks the line that the script prints.
const MARK: &str = "SUMMARY ";
/// A request that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) path: &'static str,
    pub(crate) connections: u32,
    /// Bytes of a POST body; none for a GET.
    pub(crate) body: usize,
    /// A connection serves one request.
    pub(crate) close: bool,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Summary {
    pub(crate) requests: u64,
    pub(crate) micros: u64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    connect: u64,
    read: u64,
    write: u64,
    status: u64,
    timeout: u64,
}

impl Summary {
    /// Refuses a run in which anything failed.
    fn check(self) -> Result<Self, String> {
        let failures = [
            ("connections refused", self.connect),
            ("reads failed", self.read),
            ("writes failed", self.write),
            ("answers not 2xx or 3xx", self.status),
            ("requests timed out", self.timeout),
        ];
        let failures: Vec<String> =
            failures.iter().filter(|(_, count)| *count > 0).map(|(what, count)| format!("{count} {what}")).collect();
        match (failures.is_empty(), self.requests) {
            (true, 0) => Err("no request was answered".into()),
            (true, _) => Ok(self),
            (false, requests) => Err(format!("{} (of {requests} requests)", failures.join(", "))),
        }
    }
}

/// A script without `request` and `response` functions, which would be called for each: wrk renders the request once.
fn script(load: &Load) -> String {
    let mut script = String::new();
    if load.body > 0 {
        script.push_str(&format!("wrk.method = 'POST'\nwrk.body = string.rep('x', {})\n", load.body));
    }
    if load.close {
        script.push_str("wrk.headers['Connection'] = 'close'\n");
    }
    script.push_str(
        "function done(summary, latency)\n  local errors = summary.errors\n  io.write(string.format(\n    \
         'SUMMARY {\"requests\":%d,\"micros\":%d,\"p50_us\":%f,\"p99_us\":%f,' ..\n    \
         '\"connect\":%d,\"read\":%d,\"write\":%d,\"status\":%d,\"timeout\":%d}\\n',\n    \
         summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),\n    \
         errors.connect, errors.read, errors.write, errors.status, errors.timeout))\nend\n",
    );
    script
}

/// What the script printed.
fn parse(output: &str) -> Result<Summary, String> {
    let line = output.lines().find_map(|line| line.strip_prefix(MARK));
    let line = line.ok_or_else(|| format!("wrk printed no summary:\n{output}"))?;
    serde_json::from_str::<Summary>(line).map_err(|error| format!("wrk's summary: {error}: {line}"))?.check()
}

/// Loads `url` for `seconds`; any failed request is an error.
pub(crate) async fn run(base: &str, load: &Load, seconds: u64, dir: &Path) -> Result<Summary, String> {
    let file: PathBuf = dir.join("load.lua");
    std::fs::write(&file, script(load)).map_err(|error| format!("{}: {error}", file.display()))?;
    let mut command = pinned(LOAD_CORE, Path::new("wrk"));
    command.args(["-t1", &format!("-c{}", load.connections), &format!("-d{seconds}s"), "--latency"]);
    command.arg(format!("--timeout={}s", TIMEOUT.as_secs())).arg("-s").arg(&file).arg(format!("{base}{}", load.path));
    let mut running = Running::start(command, dir.join("wrk.log")).map_err(|error| format!("wrk: {error}"))?;
    let status = running.wait().await.map_err(|error| format!("wrk: {error}"))?;
    let said = running.output();
    if !status.success() {
        return Err(format!("wrk ended with {status}:\n{said}"));
    }
    parse(&said)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"Running 1s test @ http://127.0.0.1:1/54
  1 threads and 64 connections
SUMMARY {"requests":12345,"micros":1000123,"p50_us":512.000000,"p99_us":2048.500000,"connect":0,"read":0,"write":0,"status":0,"timeout":0}
"#;

    #[test]
    fn a_summary_is_read() {
        let summary = parse(GOOD).unwrap();
        assert_eq!(
            (summary.requests, summary.micros, summary.p50_us, summary.p99_us),
            (12345, 1_000_123, 512.0, 2048.5)
        );
    }

    #[test]
    fn any_failure_is_an_error_that_says_which() {
        let status = parse(&GOOD.replace("\"status\":0", "\"status\":3")).unwrap_err();
        assert_eq!(status, "3 answers not 2xx or 3xx (of 12345 requests)");
        let two =
            parse(&GOOD.replace("\"read\":0", "\"read\":1").replace("\"timeout\":0", "\"timeout\":2")).unwrap_err();
        assert_eq!(two, "1 reads failed, 2 requests timed out (of 12345 requests)");
        assert!(parse(&GOOD.replace("12345", "0")).unwrap_err().contains("no request"));
        assert!(parse("unable to connect").unwrap_err().contains("unable to connect"));
    }

    #[test]
    fn the_script_sends_what_the_load_says() {
        let load = Load { path: "/54", connections: 1, body: 0, close: false };
        assert!(script(&load).starts_with("function done"));
        assert!(script(&Load { body: 65536, ..load }).contains("'POST'\nwrk.body = string.rep('x', 65536)"));
        assert!(script(&Load { close: true, ..load }).contains("'Connection'] = 'close'"));
    }
}
