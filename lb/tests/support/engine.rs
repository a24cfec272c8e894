//! The Docker engine, for the tests that need one: a network and a fleet of their own, removed at the end.
//!
//! Without an engine each test says that it did not run. `RINGKEEPER_REQUIRE_DOCKER=1` makes that a failure.

use std::io::Write;
use std::process::{Command, Output};

/// A network, and a fleet name. Everything that carries the name is removed when this is dropped.
pub struct Engine {
    pub fleet: String,
}

/// Runs the docker client.
pub fn docker(args: &[&str]) -> Output {
    Command::new("docker").args(args).output().expect("the docker client runs")
}

/// What it prints; it must succeed.
pub fn docker_ok(args: &[&str]) -> String {
    let output = docker(args);
    assert!(output.status.success(), "docker {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

impl Engine {
    /// `None`, said aloud, if no engine answers.
    pub fn for_test(test: &str) -> Option<Self> {
        let answers = Command::new("docker").arg("info").output().is_ok_and(|output| output.status.success());
        if !answers {
            let required = std::env::var("RINGKEEPER_REQUIRE_DOCKER").is_ok_and(|value| value == "1");
            assert!(!required, "{test} needs a Docker engine, and none answers");
            println!("NOT RUN: {test} (no Docker engine answers)");
            return None;
        }
        let images = docker(&["image", "inspect", "ringkeeper-server"]);
        assert!(images.status.success(), "the image ringkeeper-server is missing: run make images first");
        println!("RAN: {test}");
        if let Some(ran) = std::env::var_os("RINGKEEPER_RAN") {
            // Whoever set this counts the names.
            let file = std::fs::OpenOptions::new().append(true).create(true).open(ran);
            writeln!(file.expect("a file to write to"), "{test}").expect("written");
        }
        let fleet = format!("rk-test-{}-{test}", std::process::id());
        docker_ok(&["network", "create", &fleet]);
        Some(Self { fleet })
    }

    /// Arguments of a balancer over this fleet.
    pub fn args(&self) -> [&str; 6] {
        ["--runtime", "docker", "--fleet", &self.fleet, "--network", &self.fleet]
    }

    /// Names of the fleet's containers, in any state.
    pub fn containers(&self) -> Vec<String> {
        let filter = format!("label=ringkeeper.fleet={}", self.fleet);
        let names = docker_ok(&["ps", "-a", "--filter", &filter, "--format", "{{.Names}}"]);
        names.lines().map(str::to_owned).collect()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let left = self.containers();
        if !left.is_empty() {
            let mut args = vec!["rm", "-f"];
            args.extend(left.iter().map(String::as_str));
            docker(&args);
        }
        docker(&["network", "rm", &self.fleet]);
    }
}
