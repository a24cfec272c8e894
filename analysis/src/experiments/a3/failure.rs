//! Replicas fail under load: what clients see, and what the balancer says of its replicas meanwhile.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::{RATE, REPLICAS};
use crate::bench::paced::{Connections, Done};
use crate::experiments::stage::{Balancer, Harm, Member, Stage};
use crate::load::replica;

const CONNECTIONS: usize = 64;
/// From one question for the replicas' state to the next: what times can't be finer than.
const LOOK: Duration = Duration::from_millis(1);
/// Before the harm, and after all replicas are ready again.
const BEFORE: Duration = Duration::from_millis(300);
const AFTER: Duration = Duration::from_millis(500);
/// For all replicas to be ready again.
const RECOVERY: Duration = Duration::from_secs(60);
/// A replacement must have been ready for longer than this before it is harmed: what fails again and again within 5 s is
/// started with growing delays.
const CALM: Duration = Duration::from_millis(5500);

/// What became of a request: when it was due, in seconds; how long it took; who answered, if anybody.
type Request = (f64, Duration, Result<String, String>);

/// One failure, in milliseconds from the harm's beginning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Run {
    pub(super) harm: Harm,
    pub(super) victim: String,
    pub(super) replacement: String,
    /// Until the harm was done.
    pub(super) done_ms: f64,
    /// Until the victim was no longer listed as ready.
    pub(super) out_ms: f64,
    /// Until its replacement was listed.
    pub(super) listed_ms: f64,
    /// Until as many replicas as before were ready.
    pub(super) ready_ms: f64,
    /// Requests that were due from a little before the harm to a little after the recovery.
    pub(super) requests: u64,
    pub(super) failed: u64,
    pub(super) slowest_ms: f64,
}

/// All requests of one run, for a plot. Times are seconds from the harm, and milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Trace {
    pub(super) harm: Option<Harm>,
    /// Who answers, in the order of their first answers; the last one stands for failures.
    pub(super) names: Vec<String>,
    /// By request: when it was due, how long it took, and by whom it was answered.
    pub(super) due_s: Vec<f64>,
    pub(super) took_ms: Vec<f64>,
    pub(super) by: Vec<usize>,
}

/// What the load of all runs of one kind came to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Load {
    pub(super) requests: u64,
    pub(super) failed: u64,
    /// By what went wrong.
    pub(super) failures: BTreeMap<String, u64>,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) slowest_ms: f64,
}

/// Causes `harm` so many times under a steady load, and calls `done` after each.
pub(super) async fn series(
    stage: &Stage,
    balancer: &mut Balancer,
    (harm, rounds): (Harm, u32),
    calm: &mut Calm,
    done: impl Fn(),
) -> Result<(Vec<Run>, Load, Trace), String> {
    let all = Rc::new(RefCell::new(Vec::<Request>::new()));
    let (noted, over) = (Rc::clone(&all), Rc::new(Cell::new(false)));
    let note = move |request: Done<'_>| {
        let answer = match request.body {
            Ok(body) => replica(body).map(str::to_owned).ok_or_else(|| "an answer that is no replica's".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        noted.borrow_mut().push((f64::from(request.number) / RATE, request.took, answer));
        Ok::<_, io::Error>(())
    };
    let connections = Connections::open(balancer.addr, "/home", CONNECTIONS).await?;
    let (began, ends) = (Instant::now(), Rc::clone(&over));
    let load = connections.run_while(RATE, move |_| !ends.get(), note);
    let failures = async {
        let mut runs = Vec::new();
        for _ in 0..rounds {
            match run(stage, balancer, harm, calm).await {
                Ok(run) => runs.push(run),
                Err(error) => {
                    over.set(true);
                    return Err(error);
                }
            }
            done();
        }
        over.set(true);
        Ok(runs)
    };
    let (loaded, runs) = tokio::join!(load, failures);
    let mut runs = runs?;
    loaded.map_err(|error| format!("the load: {error}"))?;
    let all = all.take();
    let seconds = |at: Instant| at.saturating_duration_since(began).as_secs_f64();
    for (run, at) in &mut runs {
        let to = seconds(*at) + run.ready_ms / 1e3 + AFTER.as_secs_f64();
        let from = seconds(*at) - BEFORE.as_secs_f64();
        let within: Vec<&Request> = all.iter().filter(|(due, ..)| (from..to).contains(due)).collect();
        run.requests = within.len() as u64;
        run.failed = within.iter().filter(|(.., answer)| answer.is_err()).count() as u64;
        run.slowest_ms = within.iter().map(|(_, took, _)| took.as_secs_f64() * 1e3).fold(0.0, f64::max);
    }
    let trace = runs.first().map(|(run, at)| trace(harm, &all, seconds(*at), run.ready_ms / 1e3));
    Ok((runs.into_iter().map(|(run, _)| run).collect(), Load::of(&all), trace.unwrap_or_default()))
}

/// When each ring number was last given to a new replica.
#[derive(Debug, Default)]
pub(super) struct Calm(BTreeMap<u32, Instant>);

impl Calm {
    /// The one that was left alone for the longest, once that is long enough.
    async fn victim(&self, balancer: &Balancer) -> Result<Member, String> {
        let members = balancer.members().await?;
        let since = |member: &Member| self.0.get(&member.id).copied();
        let victim =
            members.into_iter().min_by_key(|member| (since(member), member.id)).ok_or("there is no replica")?;
        if let Some(since) = since(&victim) {
            tokio::time::sleep(CALM.saturating_sub(since.elapsed())).await;
        }
        Ok(victim)
    }
}

/// One failure and the recovery from it; and when it began.
async fn run(stage: &Stage, balancer: &mut Balancer, harm: Harm, calm: &mut Calm) -> Result<(Run, Instant), String> {
    let victim = calm.victim(balancer).await?;
    let id = victim.id;
    let run = harmed(stage, balancer, harm, victim).await?;
    calm.0.insert(id, Instant::now());
    tokio::time::sleep(AFTER).await;
    balancer.check()?;
    Ok(run)
}

/// The failure of this one.
async fn harmed(stage: &Stage, balancer: &mut Balancer, harm: Harm, victim: Member) -> Result<(Run, Instant), String> {
    tokio::time::sleep(BEFORE).await;
    let began = Instant::now();
    let since = || began.elapsed().as_secs_f64() * 1e3;
    let harmed = async {
        stage.harm(harm, &victim).await?;
        Ok::<f64, String>(since())
    };
    let watched = async {
        let (mut out, mut listed) = (None, None);
        loop {
            let members = balancer.members().await?;
            let now = since();
            let old = members.iter().find(|member| member.hostname == victim.hostname);
            if old.is_none_or(|member| !member.is_ready()) {
                out.get_or_insert(now);
            }
            let new = members.iter().find(|member| member.id == victim.id && member.hostname != victim.hostname);
            if let Some(new) = new {
                let listed = *listed.get_or_insert(now);
                // The old one is listed beside it, as draining, until its container is gone.
                let mut lasting = members.iter().filter(|member| member.hostname != victim.hostname);
                if lasting.clone().count() == REPLICAS as usize && lasting.all(Member::is_ready) {
                    return Ok::<_, String>((out.unwrap_or(listed), listed, now, new.hostname.clone()));
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    let Ok(both) = timeout(RECOVERY, async { tokio::try_join!(harmed, watched) }).await else {
        let (members, words) = (balancer.members().await, balancer.last_words().await);
        return Err(format!("no recovery of {victim:?} in {RECOVERY:?}: {members:?}\n{words}"));
    };
    let (done_ms, (out_ms, listed_ms, ready_ms, replacement)) = both?;
    let run = Run {
        harm,
        victim: victim.hostname,
        replacement,
        done_ms,
        out_ms,
        listed_ms,
        ready_ms,
        requests: 0,
        failed: 0,
        slowest_ms: 0.0,
    };
    Ok((run, began))
}

impl Load {
    fn of(all: &[Request]) -> Self {
        let mut took: Vec<Duration> =
            all.iter().filter(|(.., answer)| answer.is_ok()).map(|(_, took, _)| *took).collect();
        took.sort_unstable();
        let mut failures = BTreeMap::new();
        for (.., answer) in all {
            if let Err(failure) = answer {
                *failures.entry(failure.clone()).or_default() += 1;
            }
        }
        let quantile = |part| crate::load::quantile(&took, part);
        Self {
            requests: all.len() as u64,
            failed: failures.values().sum(),
            failures,
            p50_ms: quantile(0.5),
            p99_ms: quantile(0.99),
            slowest_ms: quantile(1.0),
        }
    }
}

/// The requests around a recovery, which began at `at` and took so many seconds.
fn trace(harm: Harm, all: &[Request], at: f64, recovery: f64) -> Trace {
    let (from, to) = (-BEFORE.as_secs_f64(), recovery + AFTER.as_secs_f64());
    let mut within: Vec<&Request> = all.iter().filter(|(due, ..)| (from..to).contains(&(due - at))).collect();
    within.sort_by(|one, other| one.0.total_cmp(&other.0));
    let mut trace = Trace { harm: Some(harm), ..Trace::default() };
    for (.., answer) in &within {
        if let Ok(name) = answer
            && !trace.names.contains(name)
        {
            trace.names.push(name.clone());
        }
    }
    // Digits that a plot shows.
    let round = |value: f64| (value * 1e4).round() / 1e4;
    for (due, took, answer) in within {
        let name = answer.as_ref().ok().and_then(|name| trace.names.iter().position(|known| known == name));
        trace.due_s.push(round(due - at));
        trace.took_ms.push(round(took.as_secs_f64() * 1e3));
        trace.by.push(name.unwrap_or(trace.names.len()));
    }
    trace.names.push("failed".into());
    trace
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn replicas_fail_under_load_and_no_request_does() {
        let stage = crate::experiments::stage::tests::stage().await;
        let plan = crate::experiments::stage::Plan { replicas: REPLICAS, args: Vec::new(), service: None };
        let mut balancer = stage.balancer(&plan).await.unwrap();
        for harm in [Harm::Kill, Harm::Crash] {
            let done = Cell::new(0);
            let mut calm = Calm::default();
            let series = series(&stage, &mut balancer, (harm, 1), &mut calm, || done.set(done.get() + 1)).await;
            let (runs, load, trace) = series.unwrap();
            let [run] = &*runs else { panic!("{runs:?}") };
            assert_eq!((done.get(), load.failed, run.failed, calm.0.len()), (1, 0, 0, 1), "{load:?}");
            assert!(load.requests >= run.requests && run.requests > 200, "{} {run:?}", load.requests);
            assert!(run.out_ms <= run.listed_ms && run.listed_ms <= run.ready_ms, "{run:?}");
            assert!(trace.names.contains(&run.victim) && trace.names.contains(&run.replacement), "{:?}", trace.names);
        }
    }

    #[tokio::test]
    async fn a_harm_that_fails_is_told_at_once() {
        let stage = crate::experiments::stage::tests::stage().await;
        let plan = crate::experiments::stage::Plan { replicas: 1, args: Vec::new(), service: None };
        let mut balancer = stage.balancer(&plan).await.unwrap();
        // No such process: its number is above all that there can be.
        let victim = Member { runtime_id: Some("999999999".into()), ..balancer.members().await.unwrap()[0].clone() };
        let error = harmed(&stage, &mut balancer, Harm::Kill, victim).await.unwrap_err();
        assert!(error.contains("SIGKILL to S1: ESRCH"), "{error}");
    }

    fn requests() -> Vec<Request> {
        let by = |name: &str| Ok(name.to_owned());
        let ms = Duration::from_millis;
        vec![
            (0.1, ms(1), by("S1")),
            (1.9, ms(2), by("S2")),
            (2.0, ms(300), by("S1")),
            (2.2, ms(4), Err("refused".into())),
            (2.4, ms(5), by("new")),
            (9.0, ms(6), by("S1")),
        ]
    }

    #[test]
    fn a_load_counts_all_and_times_what_was_answered() {
        let load = Load::of(&requests());
        assert_eq!((load.requests, load.failed, load.failures["refused"]), (6, 1, 1));
        assert_eq!((load.p50_ms, load.slowest_ms), (5.0, 300.0));
        assert_eq!(Load::of(&[]), Load::default());
    }

    #[test]
    fn a_trace_has_the_requests_around_a_recovery() {
        let trace = trace(Harm::Kill, &requests(), 2.0, 0.1);
        assert_eq!(trace.names, ["S2", "S1", "new", "failed"]);
        assert_eq!(trace.due_s, [-0.1, 0.0, 0.2, 0.4]);
        assert_eq!(trace.by, [0, 1, 3, 2]);
        assert_eq!(trace.took_ms, [2.0, 300.0, 4.0, 5.0]);
    }
}
