//! Which part of the requests each replica gets from a real balancer, beside what the assignment's formulas say. They are
//! worked out here once more, without the balancer's code.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "tests fail by panicking, and say what they measured"
)]
#![allow(clippy::disallowed_methods, reason = "tests read the environment that they pass on")]

mod support;

use std::collections::BTreeMap;

use serde_json::Value;
use support::Lb;
use support::client::Client;

const REQUESTS: usize = 30_000;
const CONNECTIONS: usize = 64;
/// How many standard deviations a share may be off by chance; more happens once in 500 million. One is 0.23 points at most.
const DEVIATIONS: f64 = 6.0;

const SLOTS: usize = 512;
const VNODES: usize = 9;

/// The slot of request `i`.
fn h(i: usize) -> usize {
    (i * i + 2 * i + 17) % SLOTS
}

/// The slot that virtual server `j` of server `i` would like.
fn phi(i: usize, j: usize) -> usize {
    (i * i + j * j + 2 * j + 25) % SLOTS
}

/// The percentage of the six-digit request IDs that each of the servers 1, 2, … owns: linear probing in the order of servers
/// and then of virtual servers; clockwise from a request's slot, which counts itself.
fn shares(servers: usize) -> Vec<f64> {
    let clockwise = |slot: usize| (slot + 1) % SLOTS;
    let mut ring = [None; SLOTS];
    for server in 0..servers {
        for j in 0..VNODES {
            let mut slot = phi(server + 1, j);
            while ring[slot].is_some() {
                slot = clockwise(slot);
            }
            ring[slot] = Some(server);
        }
    }
    let owner = |mut slot: usize| loop {
        match ring[slot] {
            Some(server) => return server,
            None => slot = clockwise(slot),
        }
    };
    let owners: Vec<usize> = (0..SLOTS).map(owner).collect();
    let mut owned = vec![0_u32; servers];
    for id in 100_000..=999_999 {
        owned[owners[h(id)]] += 1;
    }
    owned.into_iter().map(|ids| f64::from(ids) / 9_000.0).collect()
}

/// How many requests each replica answers, by what its `/home` says, of many clients at once. None may fail.
async fn answered(lb: &Lb) -> BTreeMap<String, usize> {
    let clients = (0..CONNECTIONS).map(async |client| {
        let mut connection = Client::connect(lb).await;
        let mut counts = BTreeMap::<String, usize>::new();
        for _ in (client..REQUESTS).step_by(CONNECTIONS) {
            let response = connection.get("/home").await;
            let body: Value = serde_json::from_slice(&response.body).expect("JSON");
            assert_eq!((response.status(), &body["status"]), (200, &"successful".into()), "{body}");
            let name = body["message"].as_str().and_then(|text| text.strip_prefix("Hello from Server: "));
            *counts.entry(name.expect("a greeting").to_owned()).or_default() += 1;
        }
        counts
    });
    let mut all = BTreeMap::new();
    for (name, count) in futures_util::future::join_all(clients).await.into_iter().flatten() {
        *all.entry(name).or_default() += count;
    }
    all
}

/// The balancer's replicas, S1 and so on, get the shares that the formulas give, and those are these, to two places.
async fn assert_shares(lb: &Lb, known: &[f64]) {
    let expected = shares(known.len());
    let agrees = |(share, known): (&f64, &f64)| (share - known).abs() < 0.0051;
    assert!(expected.iter().zip(known).all(agrees), "{expected:?}, not {known:?}");
    let counts = answered(lb).await;
    println!("{} replicas: {counts:?} of {REQUESTS}, expected are {expected:.2?} %", expected.len());
    let names: Vec<String> = (1..=expected.len()).map(|number| format!("S{number}")).collect();
    assert_eq!(counts.keys().collect::<Vec<_>>(), names.iter().collect::<Vec<_>>());
    assert_eq!(counts.values().sum::<usize>(), REQUESTS);
    for (name, expected) in names.iter().zip(&expected) {
        let share = counts[name] as f64 * 100.0 / REQUESTS as f64;
        let allowed = DEVIATIONS * (expected * (100.0 - expected) / REQUESTS as f64).sqrt();
        assert!(allowed < 1.5 && (share - expected).abs() <= allowed, "{name}: {share:.2} %, not {expected:.2} %");
    }
}

#[tokio::test]
async fn replicas_get_the_shares_that_the_formulas_give() {
    let lb = Lb::ready(&["--bound", "off"]).await;
    assert_shares(&lb, &[84.37, 4.69, 10.94]).await;
    let (status, body) = lb.change("POST", "/add", r#"{"n":2,"hostnames":["S4","S5"]}"#).await;
    assert_eq!(status, 200, "{body}");
    assert_shares(&lb, &[79.69, 3.12, 9.38, 3.12, 4.69]).await;
}
