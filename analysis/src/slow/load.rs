//! The load of one run: requests at a fixed rate, who answered each, and how long that took.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use indicatif::ProgressBar;
use tokio::time::{Instant, sleep_until};

use super::replicas::{PATH, Replicas};
use super::report::{Outcome, Phase, REPLICAS, Settings};
use crate::bench::paced::{Connections, Done};

/// Sends the load of `phase` to `addr`, after a warm-up; the last of `replicas` is slow when the phase says so. An error if
/// nothing could be measured; a request that failed is a part of the outcome.
pub(super) async fn measure(
    addr: SocketAddr,
    replicas: &mut Replicas,
    settings: &Settings,
    phase: Phase,
    bar: &ProgressBar,
) -> Result<Outcome, String> {
    let (fast, slow) = (settings.fast(), settings.slow());
    replicas.delay_last(if phase == Phase::Steady { slow } else { fast });
    let (rate, requests) = (f64::from(settings.rate), settings.requests(phase));
    let open = || Connections::open(addr, PATH, settings.connections);
    let warm_up = open().await?.run(rate, settings.rate * settings.warm_up, |done| done.body.map(drop));
    warm_up.await.map_err(|error| format!("warm-up: {error}"))?;
    replicas.take_served();
    let outcome = Rc::new(RefCell::new(Outcome::new(requests)));
    let (noted, bar) = (Rc::clone(&outcome), bar.clone());
    let note = move |done: Done<'_>| {
        record(&mut noted.borrow_mut(), done);
        bar.inc(1);
        Ok(())
    };
    let (connections, changed) = (open().await?, &*replicas);
    let began = Instant::now();
    let change = async {
        if phase == Phase::Midway {
            for (part, delay) in [(1, slow), (2, fast)] {
                sleep_until(began + settings.third() * part).await;
                changed.delay_last(delay);
            }
        }
    };
    let (done, ()) = tokio::join!(connections.run(rate, requests, note), change);
    let mut outcome = outcome.take();
    outcome.served = replicas.take_served();
    if let Err(error) = done {
        // Those that nobody has told of.
        let told = outcome.answered() + outcome.failures.values().sum::<u64>();
        outcome.failures.insert(format!("no answer: {error}"), u64::from(requests).saturating_sub(told));
    }
    Ok(outcome)
}

fn record(outcome: &mut Outcome, done: Done<'_>) {
    let at = done.number as usize;
    match done.body.and_then(number) {
        Ok(number) => {
            outcome.answered_by[at] = number;
            outcome.took_us[at] = u32::try_from(done.took.as_micros()).unwrap_or(u32::MAX);
        }
        Err(error) => *outcome.failures.entry(error.to_string()).or_default() += 1,
    }
}

/// The number of the replica that gave this answer.
fn number(body: &[u8]) -> io::Result<u8> {
    let number = std::str::from_utf8(body).ok().and_then(|text| text.parse().ok());
    let number = number.filter(|number| (1..=REPLICAS).contains(number));
    number.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "an answer that is no replica's"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::slow::report::Run;

    /// Without a balancer: the last replica itself is asked.
    #[tokio::test]
    async fn a_replica_is_slow_in_the_middle_third() {
        let settings = Settings { rate: 50, seconds: 3, warm_up: 0, connections: 40, ..Settings::example() };
        let mut replicas = Replicas::start(REPLICAS, settings.fast()).unwrap();
        let addr = replicas.last();
        let outcome = measure(addr, &mut replicas, &settings, Phase::Midway, &ProgressBar::hidden()).await.unwrap();
        assert_eq!((outcome.answered(), outcome.failures.len()), (150, 0));
        assert_eq!(outcome.served, [0, 0, 0, 150]);
        let run = Run::new("none", Phase::Midway, outcome);
        let middle: Vec<f64> = run.thirds().iter().map(|third| third.latency.unwrap().p50_ms).collect();
        assert!(middle[0] < 100.0 && middle[1] >= 200.0 && middle[2] < 100.0, "{middle:?}");
        assert!(run.thirds().iter().all(|third| third.slow_share == Some(1.0)));
    }

    #[tokio::test]
    async fn a_refused_connection_is_a_failed_run_and_a_strange_answer_a_failed_request() {
        let settings = Settings { rate: 50, seconds: 1, warm_up: 0, connections: 1, ..Settings::example() };
        let mut replicas = Replicas::start(1, settings.fast()).unwrap();
        let nobody = SocketAddr::from(([127, 0, 0, 1], crate::loopback::free_port().unwrap()));
        let bar = ProgressBar::hidden();
        let failed = measure(nobody, &mut replicas, &settings, Phase::Steady, &bar).await;
        assert!(failed.unwrap_err().starts_with("connect: "));
        let mut outcome = Outcome::new(2);
        record(&mut outcome, Done { number: 1, took: settings.fast(), body: Ok(b"5") });
        assert_eq!(outcome.failures, BTreeMap::from([("an answer that is no replica's".to_owned(), 1)]));
        assert_eq!((outcome.answered(), number(b"4").unwrap()), (0, 4));
    }
}
