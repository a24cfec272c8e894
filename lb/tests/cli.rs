//! The command line: precedence, messages, exit statuses.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "tests fail by panicking, and say what they measured"
)]
#![allow(clippy::disallowed_methods, reason = "tests read the environment that they pass on")]

mod support;

use std::process::{Command, Output};

use support::{Lb, server};

fn lb(args: &[&str], environment: &[(&str, &str)]) -> Output {
    server();
    let clean = std::env::vars().filter(|(name, _)| !name.starts_with("LB_") && name != "RUST_LOG");
    let mut command = Command::new(env!("CARGO_BIN_EXE_lb"));
    command.args(args).env_clear().envs(clean).envs(environment.iter().copied());
    command.output().expect("lb runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The value and origin that `lb check` shows for a setting.
fn checked(output: &Output, key: &str) -> (String, String) {
    assert!(output.status.success(), "{}", text(&output.stderr));
    let table = text(&output.stdout);
    let line =
        table.lines().find(|line| line.split_whitespace().next() == Some(key)).unwrap_or_else(|| panic!("{table}"));
    let words: Vec<_> = line.split_whitespace().collect();
    (words[1].to_owned(), words[2..].join(" "))
}

#[test]
fn a_flag_beats_the_environment_which_beats_the_file_which_beats_the_default() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lb.toml");
    std::fs::write(&file, "slots = 1000\nvnodes = 5\nlisten = \"127.0.0.1:1\"\nbound = 1.5\n").unwrap();
    let path = file.to_str().unwrap();
    let output = lb(&["check", "--config", path, "--slots", "2000"], &[("LB_SLOTS", "3000"), ("LB_VNODES", "7")]);
    assert_eq!(checked(&output, "slots"), ("2000".into(), "flag".into()));
    assert_eq!(checked(&output, "vnodes"), ("7".into(), "environment".into()));
    assert_eq!(checked(&output, "listen"), ("127.0.0.1:1".into(), path.into()));
    assert_eq!(checked(&output, "bound"), ("1.5".into(), path.into()));
    assert_eq!(checked(&output, "hash"), ("assignment".into(), "default".into()));
    let output = lb(&["check"], &[("LB_CONFIG", path)]);
    assert_eq!(checked(&output, "slots"), ("1000".into(), path.into()));
}

/// `lb check` must refuse with exit status 64, and say all of these.
fn refused(args: &[&str], environment: &[(&str, &str)], says: &[&str]) {
    for command in ["check", "serve"] {
        let mut all = vec![command];
        all.extend(args);
        let output = lb(&all, environment);
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{all:?}: {message}");
        for part in says {
            assert!(message.contains(part), "{all:?} {environment:?} should say '{part}': {message}");
        }
    }
}

#[test]
fn bad_values_name_key_value_and_what_is_allowed() {
    refused(&["--slots", "0"], &[], &["--slots is '0'", "1 to 1048576"]);
    refused(&["--slots", "4", "--vnodes", "5"], &[], &["--vnodes is '5'", "1 to 4"]);
    refused(&[], &[("LB_HASH", "md5")], &["LB_HASH is 'md5'", "assignment, modified, xxh3"]);
    refused(
        &["--policy", "best"],
        &[],
        &[
            "--policy is 'best'",
            "consistent, maglev, rendezvous, round-robin, priority, random, least-requests, peak-ewma",
        ],
    );
    refused(&["--policy", "round-robin", "--slow-start", "5s"], &[], &["--slow-start is '5s'", "round-robin has none"]);
    refused(&["--policy", "maglev", "--table-slots", "65536"], &[], &["--table-slots is '65536'", "a prime number"]);
    refused(&["--table-slots", "1"], &[], &["--table-slots is '1'", "2 to 5000011"]);
    refused(
        &["--policy", "priority", "--spill-share", "0%"],
        &[],
        &["--spill-share is '0%'", "above 0% and up to 100%"],
    );
    refused(
        &["--spill-in-flight", "5"],
        &[],
        &["--spill-in-flight is '5'", "policy priority, and policy is consistent"],
    );
    refused(
        &["--policy", "random", "--ewma-decay", "5s"],
        &[],
        &["--ewma-decay is '5s'", "belongs to the policy peak-ewma"],
    );
    refused(&["--policy", "rendezvous", "--table-slots", "5", "--replicas", "6"], &[], &["has places for 5 at most"]);
    refused(&["--runtime", "static", "--members", "a=b:1;weight=x"], &[], &["--members is", ";weight=N"]);
    assert!(lb(&["check", "--relay-policy", "priority", "--spill-in-flight", "5"], &[]).status.success());
    refused(&["--relay-policy", "maglev", "--table-slots", "9"], &[], &["--table-slots is '9'", "a prime number"]);
    refused(&["--bound", "1"], &[], &["--bound is '1'", "above 1", "or off"]);
    refused(&["--heartbeat-interval", "5"], &[], &["--heartbeat-interval is '5'", "500ms"]);
    refused(&["--listen", "localhost"], &[], &["--listen is 'localhost'", "0.0.0.0:5000"]);
    refused(&["--hash-key", "ip"], &[], &["--hash-key is 'ip'", "client-ip"]);
    refused(&["--hash-key", "path,header:x"], &[], &["'header:x' stands behind 'path', which always decides"]);
    refused(&["--sticky", "a b"], &[], &["--sticky is 'a b'", "a cookie's name", "or off"]);
    refused(&["--runtime", "podman"], &[], &["--runtime is 'podman'", "docker, process, static"]);
    refused(&["--runtime", "static"], &[], &["--runtime is 'static'", "--members"]);
    refused(&["--runtime", "static", "--members", "a=b"], &[], &["--members is 'a=b'", "host:port"]);
    refused(&["--replicas", "57"], &[], &["--replicas is '57'", "56 at most"]);
    refused(&["--replicas", "5", "--max-replicas", "4"], &[], &["--replicas is '5'", "max_replicas is 4"]);
    refused(&["--on-exit", "keep"], &[], &["--on-exit is 'keep'", "remove only"]);
    refused(&["--log", "a=b=c"], &[], &["--log is 'a=b=c'"]);
    refused(&[], &[("RUST_LOG", "verbose")], &["RUST_LOG is 'verbose'", "off, error, warn", "'verbose' is no level"]);
    refused(
        &["--runtime", "static", "--members", "a:1,b:2", "--max-replicas", "1"],
        &[],
        &["--members is", "max_replicas is 1"],
    );
    refused(&["--server-command", "'unbalanced"], &[], &["--server-command is", "quoted"]);
    // Everything that is wrong at once.
    refused(&["--slots", "x", "--tries", "0"], &[("LB_BOUND", "y")], &["--slots", "--tries", "LB_BOUND"]);
}

#[test]
fn a_secret_is_neither_shown_nor_told_in_a_message() {
    let (short, long) = ("too short", "long enough for this");
    refused(&["--sticky-secret", short], &[], &["--sticky-secret is '(not shown)'", "16 characters or more"]);
    refused(&[], &[("LB_STICKY_SECRET", "")], &["LB_STICKY_SECRET", "16 characters or more"]);
    for (args, environment) in
        [(&["check", "--sticky-secret", long][..], short), (&["check"], short), (&["check"], long)]
    {
        let output = lb(args, &[("LB_STICKY_SECRET", environment)]);
        let said = text(&output.stdout) + &text(&output.stderr);
        assert!(said.contains("(not shown)") && !said.contains(long) && !said.contains(short), "{said}");
    }
}

#[test]
fn unknown_names_are_refused_with_a_suggestion() {
    refused(&[], &[("LB_SLOT", "5")], &["LB_SLOT=5", "did you mean 'LB_SLOTS'?"]);
    refused(&["--slotz", "5"], &[], &["--slotz"]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lb.toml");
    let path = file.to_str().unwrap();
    std::fs::write(&file, "heartbeat_intervall = \"1s\"\nprobing = \"cubic\"\n").unwrap();
    let said = [
        path,
        "unknown key 'heartbeat_intervall' = \"1s\"",
        "did you mean 'heartbeat_interval'?",
        "probing is 'cubic'",
        "linear, quadratic",
    ];
    refused(&["--config", path], &[], &said);
    std::fs::write(&file, "slots = [").unwrap();
    refused(&["--config", path], &[], &[path, "is not TOML"]);
    refused(&["--config", "/nowhere.toml"], &[], &["/nowhere.toml: cannot be read"]);
}

#[test]
fn ring_shows_layout_and_exact_shares() {
    let output = lb(&["ring", "--replicas", "3"], &[]);
    assert!(output.status.success());
    let shown = text(&output.stdout);
    for part in [
        "512 slots, 9 virtual nodes",
        "reach 87 slots",
        "max/mean 2.53",
        "one more replica would move 3.12 %",
        "84.37 %",
        "4.69 %",
        "10.94 %",
        "26 29 34 41 50 61 74 89 106",
    ] {
        assert!(shown.contains(part), "{shown}");
    }
    let output = lb(&["ring", "--json", "--slots", "1024", "--hash", "xxh3", "--probing", "quadratic"], &[]);
    let ring: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&ring["slots"], &ring["hash"], &ring["probing"]), (&1024.into(), &"xxh3".into(), &"quadratic".into()));
    assert_eq!(ring["occupied"].as_array().unwrap().len(), 27);
    let shares: f64 = ring["shares"].as_object().unwrap().values().map(|share| share.as_f64().unwrap()).sum();
    assert!((shares - 1.0).abs() < 1e-9);
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    use std::process::{Command, Stdio};
    let (reader, writer) = std::io::pipe().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_lb"));
    command.args(["ring", "--json"]).env_clear().stdout(writer).stderr(Stdio::piped());
    drop(reader);
    let output = command.spawn().unwrap().wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", text(&output.stderr));
}

#[test]
fn help_and_version_are_there_and_help_names_every_setting() {
    let help = text(&lb(&["--help"], &[]).stdout);
    for setting in lb::config::SETTINGS {
        assert!(help.contains(&format!("--{} ", setting.flag())) && help.contains(setting.env), "{}", setting.key);
    }
    assert!(help.contains("Examples:"));
    assert_eq!(text(&lb(&["--version"], &[]).stdout), format!("lb {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn the_readmes_table_names_every_setting_with_its_default() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    for setting in lb::config::SETTINGS {
        let row = format!("| `--{}` | `{}` |", setting.flag(), setting.env);
        let line = readme.lines().find(|line| line.starts_with(&row)).unwrap_or_else(|| panic!("no row {row}"));
        assert!(setting.default.is_empty() || line.contains(&format!("| `{}` |", setting.default)), "{line}");
    }
}

#[tokio::test]
async fn health_tells_a_living_balancer_from_a_dead_one() {
    let mut balancer = Lb::ready(&["--replicas", "1"]).await;
    let admin = balancer.admin.to_string();
    let ask = || lb(&["health", "--admin-listen", &admin], &[]);
    let alive = ask();
    assert!(alive.status.success(), "{}", text(&alive.stderr));
    balancer.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(balancer.ended().await.success());
    let dead = ask();
    assert_eq!(dead.status.code(), Some(1));
    assert!(text(&dead.stderr).contains(&format!("no balancer at {admin}/healthz")), "{}", text(&dead.stderr));
}

#[tokio::test]
async fn a_port_that_is_taken_is_a_failed_start() {
    let balancer = Lb::ready(&["--replicas", "1"]).await;
    let addr = balancer.addr.to_string();
    let output = lb(&["--listen", &addr, "--admin-listen", "off"], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains(&format!("cannot listen on {addr} (listen): Address already in use")),
        "{}",
        text(&output.stderr)
    );
    let output = lb(
        &[
            "--runtime",
            "docker",
            "--docker-host",
            "unix:///nowhere.sock",
            "--listen",
            "127.0.0.1:0",
            "--admin-listen",
            "off",
        ],
        &[],
    );
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("cannot reach the Docker engine at unix:///nowhere.sock"),
        "{}",
        text(&output.stderr)
    );
}
