//! One run: the load's course before an agent and a balancer of its own.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use indicatif::ProgressBar;
use lb::pilot::Kind;
use serde::{Deserialize, Serialize};

use super::judge::{self, TOO_MUCH};
use super::pair::{Fleet, Pair, Told, since};
use super::wave::{Span, Wave};
use crate::bench::paced::{Connections, Done};

/// Connections of the load: more than are in flight, unless N is far too small for long.
const CONNECTIONS: usize = 256;
/// From one look at the fleet to the next.
const LOOK: Duration = Duration::from_millis(50);
const PATH: &str = "/home";

/// What is to be run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Case {
    pub(super) name: String,
    pub(super) wave: Wave,
    pub(super) told: Told,
    /// Of the agent's.
    pub(super) spares: u32,
}

/// How the fleet has stood from a moment on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Stand {
    /// Seconds from the beginning.
    pub(super) at: f64,
    pub(super) n: u32,
    pub(super) ready: u32,
    pub(super) spares: u32,
}

/// A decision of the agent's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Decision {
    /// Seconds from the beginning.
    pub(super) at: f64,
    pub(super) decision: String,
    pub(super) reason: String,
    pub(super) outcome: String,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Run {
    pub(super) case: Case,
    /// From when it was due to the answer's last byte, or to the failure, by request; when each was due is the wave's.
    pub(super) took_us: Vec<u32>,
    pub(super) failures: BTreeMap<String, u64>,
    /// Whenever it had changed.
    pub(super) fleet: Vec<Stand>,
    pub(super) decisions: Vec<Decision>,
}

/// What one of its waves was like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Verdict {
    pub(super) span: Span,
    /// N at the jump, the most it became, and at the end.
    pub(super) before: u32,
    pub(super) most: u32,
    pub(super) end: u32,
    /// Changes of N's direction.
    pub(super) turns: usize,
    /// For so many seconds p99 was above its limit.
    pub(super) excess: f64,
    /// Of all requests from the jump on.
    pub(super) slowest_ms: f64,
    /// From the jump to the first decision, and until the most replicas were in rotation.
    pub(super) decided: Option<f64>,
    pub(super) reached: Option<f64>,
}

/// Makes the run.
pub(super) async fn run(lb: &Path, case: &Case, dir: &Path, bar: &ProgressBar) -> Result<Run, String> {
    let fail = |error: String| format!("{}: {error}", case.name);
    std::fs::create_dir_all(dir).map_err(|error| fail(format!("{}: {error}", dir.display())))?;
    let mut pair = Pair::start(lb, &case.told, case.spares, dir).await.map_err(fail)?;
    let run = measure(&pair, case, bar).await.map_err(fail)?;
    pair.check().map_err(fail)?;
    Ok(run)
}

async fn measure(pair: &Pair, case: &Case, bar: &ProgressBar) -> Result<Run, String> {
    let wave = &case.wave;
    let seen = Rc::new(RefCell::new((vec![0; wave.requests() as usize], BTreeMap::<String, u64>::new())));
    let (noted, bar) = (Rc::clone(&seen), bar.clone());
    let note = move |done: Done<'_>| {
        let (took, failures) = &mut *noted.borrow_mut();
        took[done.number as usize] = u32::try_from(done.took.as_micros()).unwrap_or(u32::MAX);
        if let Err(error) = done.body {
            *failures.entry(error.to_string()).or_default() += 1;
        }
        bar.inc(1);
        Ok(())
    };
    let connections = Connections::open(pair.addr, PATH, CONNECTIONS).await?;
    let (began, wall) = (Instant::now(), SystemTime::now());
    let load = connections.run_by(wave.tick(), |number| wave.due(number), note);
    let mut fleet: Vec<Stand> = Vec::new();
    let watch = async {
        loop {
            let Fleet { n, ready, spares } = match pair.look().await {
                Ok(fleet) => fleet,
                Err(error) => return error,
            };
            let stand = Stand { at: began.elapsed().as_secs_f64(), n, ready, spares };
            let same = |last: &Stand| (last.n, last.ready, last.spares) == (n, ready, spares);
            if !fleet.last().is_some_and(same) {
                fleet.push(stand);
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    // Waves end with a low stretch, which outlasts the last request by one interval.
    let whole = Duration::from_secs(u64::from(wave.seconds()));
    let load = async {
        load.await?;
        tokio::time::sleep(whole.saturating_sub(began.elapsed())).await;
        Ok::<_, String>(())
    };
    tokio::select! {
        done = load => done?,
        broken = watch => return Err(broken),
    }
    let entries = pair.decisions().await?.into_iter().filter(|entry| entry.kind == Kind::Scale);
    let decisions = entries.map(|entry| Decision {
        at: since(wall, &entry.at),
        decision: entry.decision,
        reason: entry.reason,
        outcome: entry.outcome.unwrap_or_else(|| "under way".into()),
    });
    let decisions = decisions.collect();
    let (took_us, failures) = seen.take();
    Ok(Run { case: case.clone(), took_us, failures, fleet, decisions })
}

impl Run {
    /// Requests in the order in which they were due: when that was, in seconds, and how long they took, in milliseconds.
    pub(super) fn requests(&self) -> Vec<(f64, f64)> {
        let due = |number| self.case.wave.due(number).map(|due| due.as_secs_f64());
        (0..).zip(&self.took_us).filter_map(|(number, us)| Some((due(number)?, f64::from(*us) / 1e3))).collect()
    }

    pub(super) fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    /// p99 before the first jump, in milliseconds.
    pub(super) fn calm(&self) -> f64 {
        let calm = self.case.wave.spans().first().map_or(f64::INFINITY, |span| f64::from(span.jump));
        let before = self.requests().into_iter().filter(|(due, _)| *due < calm);
        judge::p99(before.map(|(_, took)| took)).unwrap_or_default()
    }

    /// What p99 may be.
    pub(super) fn limit(&self) -> f64 {
        self.calm() * TOO_MUCH
    }

    /// p99 of the sliding window, over time.
    pub(super) fn p99(&self) -> Vec<(f64, f64)> {
        judge::sliding(&self.requests(), f64::from(self.case.wave.seconds()))
    }

    /// How the fleet stood at a time.
    pub(super) fn stand(&self, at: f64) -> Option<&Stand> {
        self.fleet.iter().take_while(|stand| stand.at <= at).last().or(self.fleet.first())
    }

    /// What its waves were like.
    pub(super) fn verdicts(&self) -> Vec<Verdict> {
        let (p99, limit, requests) = (self.p99(), self.limit(), self.requests());
        let verdict = |span: Span| {
            let (jump, end) = (f64::from(span.jump), f64::from(span.end));
            let n = |at| self.stand(at).map_or(0, |stand| stand.n);
            let within = || self.fleet.iter().filter(|stand| stand.at > jump && stand.at <= end);
            let most = within().map(|stand| stand.n).fold(n(jump), u32::max);
            let mut decided = self.decisions.iter().map(|decision| decision.at - jump);
            let reached = within().find(|stand| stand.ready >= most).map(|stand| stand.at - jump);
            let slowest = requests.iter().filter(|(due, _)| *due >= jump && *due < end);
            Verdict {
                span,
                before: n(jump),
                most,
                end: n(end),
                turns: judge::turns([n(jump)].into_iter().chain(within().map(|stand| stand.n))),
                excess: judge::excess(&p99, limit, (jump, end)),
                slowest_ms: slowest.map(|(_, took)| *took).fold(0.0, f64::max),
                decided: decided.find(|after| *after >= 0.0 && jump + after <= f64::from(span.fall)),
                reached: reached.filter(|_| most > n(jump)),
            }
        };
        self.case.wave.spans().into_iter().map(verdict).collect()
    }
}
