//! Request smuggling: what happens to requests that the balancer and a replica could read differently.
//!
//! Each vector is the bytes of one client connection, with all that must come of them: what replicas get, what the client
//! is answered, and whether the connection stays. The replicas read by the letter and keep everything; after each vector
//! clients that have done nothing must get their own answers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "tests fail by panicking, and say what they measured"
)]
#![allow(clippy::disallowed_methods, reason = "tests read the environment that they pass on")]

mod bench;
mod chunks;
mod codings;
mod lengths;
mod lines;
mod protocols;
mod responses;
mod routing;
#[path = "../support/mod.rs"]
mod support;
mod vector;
mod waiting;

use std::collections::BTreeSet;

use bench::{Bench, Style};
use vector::Vector;

/// All that need no time to pass.
fn quick() -> Vec<Vector> {
    let mut all = lengths::vectors();
    all.extend(codings::vectors());
    all.extend(chunks::vectors());
    all.extend(lines::vectors());
    all.extend(routing::vectors());
    all.extend(protocols::vectors());
    all.extend(responses::vectors());
    all.extend(waiting::broken_off());
    all
}

/// One after the other, so that a connection that was led astray is the next one's.
async fn run(bench: &Bench, vectors: &[Vector], style: Style) {
    let (mut wrong, mut failed) = (Vec::new(), 0);
    for vector in vectors {
        let mut troubles = bench.run(vector, style).await;
        troubles.extend(bench.innocents().await);
        failed += usize::from(!troubles.is_empty());
        tell(vector, &troubles, &mut wrong);
    }
    report(bench, wrong, failed, vectors.len()).await;
}

fn tell(vector: &Vector, troubles: &[String], wrong: &mut Vec<String>) {
    if !troubles.is_empty() {
        wrong.push(format!("{}\n    ({})\n    {}", vector.name, vector.why, troubles.join("\n    ")));
    }
}

async fn report(bench: &Bench, mut wrong: Vec<String>, failed: usize, all: usize) {
    wrong.extend(bench.end().await);
    assert!(wrong.is_empty(), "{failed} of {all} vectors failed:\n{}", wrong.join("\n"));
}

#[tokio::test]
async fn nothing_is_smuggled_by_one_worker_to_one_replica() {
    // Each request uses the connection that the one before has left.
    let bench = Bench::start(1, 1, &[]).await;
    run(&bench, &quick(), Style::Whole).await;
}

#[tokio::test]
async fn nothing_is_smuggled_in_pieces_by_two_workers_to_three_replicas() {
    let bench = Bench::start(3, 2, &[]).await;
    let vectors: Vec<_> = quick().into_iter().filter(|vector| !vector.at_once).collect();
    run(&bench, &vectors, Style::Pieces).await;
}

#[tokio::test]
async fn what_stops_in_the_middle_is_not_taken_for_whole() {
    let times = short_timeouts();
    let bench = Bench::start(1, 1, &times).await;
    let vectors = waiting::vectors();
    // Time is what ends them, so they wait side by side.
    let runs = vectors.iter().map(|vector| bench.run(vector, Style::Whole));
    let mut wrong = Vec::new();
    let troubles = futures_util::future::join_all(runs).await;
    for (vector, troubles) in vectors.iter().zip(&troubles) {
        tell(vector, troubles, &mut wrong);
    }
    let failed = wrong.len();
    wrong.extend(bench.innocents().await);
    report(&bench, wrong, failed, vectors.len()).await;
}

/// Arguments that let an incomplete message wait no longer than a moment.
fn short_timeouts() -> Vec<&'static str> {
    let mut args = vec!["--idle-timeout", "500ms", "--client-timeout", "1500ms"];
    let help = std::process::Command::new(env!("CARGO_BIN_EXE_lb")).arg("--help").output().expect("lb runs");
    if String::from_utf8_lossy(&help.stdout).contains("--header-timeout") {
        args.extend(["--header-timeout", "500ms"]);
    }
    args
}

#[test]
fn each_vector_has_a_name_of_its_own_and_a_reason() {
    let (quick, waiting) = (quick(), waiting::vectors());
    let mut names = BTreeSet::new();
    for vector in quick.iter().chain(&waiting) {
        assert!(names.insert(&vector.name), "two vectors are called {}", vector.name);
        assert!(vector.why.len() > 20, "{} has no reason", vector.name);
    }
    println!("figure: {} vectors", names.len());
    assert!(names.len() >= 400, "only {}", names.len());
}

/// What the other tests stand on: a replica that took these for requests would hide what they must show.
#[test]
fn the_replicas_read_by_the_letter() {
    use support::strict::request;
    let whole = |bytes: &str| request(bytes.as_bytes()).unwrap().is_some_and(|(request, _)| request.whole);
    assert!(whole("POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi"));
    assert!(whole("POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"));
    assert!(!whole("POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nhi"));
    assert!(!whole("POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n"));
    for bad in [
        "GET /x HTTP/1.1\nhost: a\n\n",
        "GET /x HTTP/1.0\r\nhost: a\r\n\r\n",
        "GET /x y HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET /x HTTP/1.1\r\n\r\n",
        "GET /x HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n",
        "GET /x HTTP/1.1\r\nhost: a\r\nx: b\r\n c\r\n\r\n",
        "GET /x HTTP/1.1\r\nhost: a\r\nx : b\r\n\r\n",
        "GET /x HTTP/1.1\r\nhost: a\r\nx: b\rc\r\n\r\n",
        "GET /x HTTP/1.1\r\nhost: a\r\ncontent-length: +2\r\n\r\nhi",
        "GET /x HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nhi",
        "GET /x HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2;x\r\nhi\r\n0\r\n\r\n",
        "GET /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi!\r\n0\r\n\r\n",
        "GET /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\nhi\r\n0\r\n\r\n",
    ] {
        assert!(request(bad.as_bytes()).is_err(), "{bad:?}");
    }
}
