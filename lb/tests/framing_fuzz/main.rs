//! Whatever a client sends, in whatever pieces: replicas get the requests that its bytes mean by RFC 9112, or fewer, and
//! nothing else. An oracle says what the bytes mean, independently of the balancer; replicas read by the letter.
//!
//! A few thousand cases run with the other tests. `RINGKEEPER_FUZZ_SECONDS=600` (or `make fuzz`) goes on for that long with
//! new cases. A failure prints its seed; `RINGKEEPER_SEED=<seed> cargo test -p lb --test framing_fuzz` replays it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "tests fail by panicking, and say what they measured"
)]
#![allow(clippy::disallowed_methods, reason = "tests read the environment that they pass on")]

mod arena;
mod generate;
mod naive;
mod oracle;
#[path = "../support/mod.rs"]
mod support;
mod words;

use std::time::{Duration, Instant, SystemTime};

use arena::Arena;
use generate::Case;

/// Cases of a usual run.
const CASES: u64 = 2000;
/// Cases between two looks at what came of them.
const BATCH: u64 = 250;
/// A replayed case is played so often, as the same bytes may arrive in other pieces.
const REPLAYS: usize = 50;

/// A whole number from the environment.
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name} is no whole number: {value}")))
}

fn assert_right(told: &[String]) {
    assert!(
        told.is_empty(),
        "{} cases went wrong, the first ones:\n{}",
        told.len(),
        told[..told.len().min(3)].join("\n")
    );
}

#[tokio::test]
async fn replicas_get_what_clients_sent_and_nothing_else() {
    let mut arena = Arena::of_lb().await;
    if let Some(seed) = setting("RINGKEEPER_SEED") {
        let told = arena.play(vec![Case::new(seed); REPLAYS]).await;
        assert_right(&told);
        return arena.end().await;
    }
    let began = Instant::now();
    let (first, limit) = match setting("RINGKEEPER_FUZZ_SECONDS") {
        None => (0, None),
        Some(seconds) => {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock");
            (now.as_secs() << 24, Some(Duration::from_secs(seconds)))
        }
    };
    let mut seeds = first;
    while limit.map_or(seeds < CASES, |limit| began.elapsed() < limit) {
        let told = arena.play((seeds..seeds + BATCH).map(Case::new).collect()).await;
        assert_right(&told);
        seeds += BATCH;
    }
    arena.end().await;
    println!("figure: {} cases in {:.1} s", seeds - first, began.elapsed().as_secs_f64());
}

#[tokio::test]
async fn the_faults_of_a_naive_proxy_are_found() {
    let mut arena = Arena::of_naive().await;
    let told = arena.play((0..500).map(Case::new).collect()).await;
    let found = |what: &str| told.iter().filter(|told| told.contains(what)).count();
    let (smuggled, mixed) = (found("is not what the client sent"), found("answer"));
    println!("figure: a naive proxy forwards {smuggled} requests of 500 cases that were never sent");
    assert!(smuggled > 20 && mixed > 0, "{smuggled} requests that were never sent, {mixed} wrong answers");
}

#[test]
fn most_cases_have_requests_and_most_are_not_just_right() {
    let (mut requests, mut stopped, mut bodies) = (0, 0, 0);
    for seed in 0..CASES {
        let reading = oracle::read(&Case::new(seed).bytes());
        requests += reading.whole.len();
        bodies += reading.whole.iter().filter(|request| !request.body.is_empty()).count();
        stopped += usize::from(reading.stopped.is_some());
    }
    println!("figure: {CASES} cases with {requests} requests, {bodies} of them with a body; {stopped} cases end badly");
    let cases = CASES as usize;
    assert!(requests > cases && bodies > cases / 4, "{requests} {bodies}");
    assert!(stopped > cases / 4 && stopped < cases * 3 / 4, "{stopped}");
}
