//! A server in another language: a Python program that speaks MessagePack, written from the description of the channel.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

use crate::support::control::own_ip;
use crate::support::server::{is_refused, names};
use crate::support::{LIMIT, Lb};

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/register.py");

#[tokio::test]
async fn a_python_program_registers_stays_and_leaves() {
    // It has to answer some of the questions to be there after the last.
    let lb = Lb::relaying(&["--control-interval", "100ms", "--control-timeout", "1s"]);
    let control = lb.control();
    let mut python = Command::new("python3")
        .args([PROGRAM, &control.ip().to_string(), &control.port().to_string(), "50000", "15"])
        .env("SERVER_HOST", own_ip().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| {
            panic!("python3 does not run ({error}); install it: apt-get install python3 python3-msgpack")
        });
    let mut lines = BufReader::new(python.stdout.take().unwrap()).lines();
    let mut next = async || tokio::time::timeout(LIMIT, lines.next_line()).await.expect("it goes on").unwrap();
    let Some(first) = next().await else {
        let output = python.wait_with_output().await.unwrap();
        panic!("the program in Python has failed: {}", String::from_utf8_lossy(&output.stderr));
    };
    assert_eq!(first, "registered");
    assert_eq!(names(lb.relay(50_000), 3).await, ["python"; 3]);
    assert_eq!(next().await.as_deref(), Some("asked 15 times"));
    assert_eq!(names(lb.relay(50_000), 3).await, ["python"; 3]);
    python.stdin.take().unwrap().write_all(b"\n").await.unwrap();
    assert_eq!(next().await.as_deref(), Some("unregistered"));
    assert!(is_refused(lb.relay(50_000)).await);
    let output = tokio::time::timeout(LIMIT, python.wait_with_output()).await.expect("it ends").unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
