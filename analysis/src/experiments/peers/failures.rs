//! A replica fails under load, before each program.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_util::future::{join_all, try_join_all};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::super::stage::{Harm, Member, Plan, Stage};
use super::front::{Front, Program};
use super::seen::{Figures, Marks, Seen};
use crate::bench::paced::{Connections, Done, Paths};
use crate::load;

/// Those that the balancer and the others have in common; what is removed is gone for good before the others.
pub(super) const HARMS: [Harm; 3] = [Harm::Kill, Harm::Pause, Harm::Crash];
pub(super) const REPLICAS: u32 = 3;
/// The load before each program: requests a second, and connections.
pub(super) const RATE: f64 = 500.0;
pub(super) const CONNECTIONS: usize = 64;
/// The balancer with its default settings, in tables.
pub(super) const OURS: &str = "lb";
/// The load before the harm.
const BEFORE: Duration = Duration::from_millis(500);

/// From the harm to the end of a round. Others' checks need some three seconds to find what does not answer: each waits for
/// its time limit first.
pub(super) fn length(harm: Harm) -> Duration {
    Duration::from_secs(if harm == Harm::Crash { 4 } else { 5 })
}

/// One program in one round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Round {
    pub(super) program: String,
    pub(super) harm: Harm,
    pub(super) victim: String,
    pub(super) figures: Figures,
}

/// The balancer starts replicas, and others in their place: one balancer for all rounds of a harm.
pub(super) async fn ours(
    stage: &Stage,
    harm: Harm,
    rounds: u32,
    keys: &Rc<[u64]>,
    mut done: impl FnMut(),
) -> Result<Vec<Round>, String> {
    let plan = Plan { replicas: REPLICAS, args: Vec::new(), service: None };
    let mut balancer = stage.balancer(&plan).await?;
    let mut found = Vec::new();
    for round in 0..rounds {
        let mut members = balancer.members().await?;
        members.sort_by_key(|member| member.id);
        found.extend(measure(stage, &[(OURS, balancer.addr)], &members, (harm, round), keys).await?);
        balancer.check()?;
        balancer.until_ready(REPLICAS).await?;
        done();
    }
    Ok(found)
}

/// The others stand before the same replicas, which are new in each round, and see the same failures, each under a load of
/// its own.
pub(super) async fn others(
    stage: &Stage,
    programs: &[Program],
    (harm, round): (Harm, u32),
    keys: &Rc<[u64]>,
) -> Result<Vec<Round>, String> {
    let plain = stage.plain(REPLICAS, None).await?;
    let starts = programs.iter().map(|program| Front::start(stage, program, &plain.members));
    let mut fronts = try_join_all(starts).await?;
    let addrs: Vec<(&str, SocketAddr)> = fronts.iter().map(|front| (&*front.name, front.addr)).collect();
    let found = measure(stage, &addrs, &plain.members, (harm, round), keys).await?;
    fronts.iter_mut().try_for_each(Front::check)?;
    Ok(found)
}

/// Harms one of `members` while each of `fronts` is under load: in each round the next one, as not all have the same share.
async fn measure(
    stage: &Stage,
    fronts: &[(&str, SocketAddr)],
    members: &[Member],
    (harm, round): (Harm, u32),
    keys: &Rc<[u64]>,
) -> Result<Vec<Round>, String> {
    let victim = members.get(round as usize % members.len().max(1)).ok_or("there is no replica")?;
    let is_victim = |member: &&Member| member.hostname == victim.hostname;
    let survivors: Vec<String> =
        members.iter().filter(|member| !is_victim(member)).map(|member| member.hostname.clone()).collect();
    let over = Cell::new(false);
    let all: Vec<_> = fronts.iter().map(|_| Rc::new(RefCell::new(Vec::new()))).collect();
    let mut connections = Vec::new();
    for (_, addr) in fronts {
        let keys = Rc::clone(keys);
        let path = move |number: u32| format!("/home?id={}", keys[number as usize % keys.len()]);
        connections.push(Connections::open(*addr, Paths::Each(Box::new(path)), CONNECTIONS).await?);
    }
    let began = Instant::now();
    let loads = connections.into_iter().zip(&all).map(|(connections, seen)| {
        let (seen, over) = (Rc::clone(seen), &over);
        let note = move |done: Done<'_>| {
            let answer = done.body.map_err(|error| error.to_string()).and_then(|body| {
                load::replica(body).map(str::to_owned).ok_or_else(|| "an answer that is no replica's".to_owned())
            });
            seen.borrow_mut().push(Seen { ended: began.elapsed(), took: done.took, answer });
            Ok(())
        };
        async move {
            let due = Cell::new(0);
            let more = |count| {
                due.set(count);
                !over.get()
            };
            let load = connections.run_while(RATE, more, note).await;
            load.err().map(|error| (format!("no answer: {error}"), due.get()))
        }
    });
    let happened = async {
        sleep(BEFORE).await;
        let harmed = began.elapsed();
        stage.harm(harm, victim).await?;
        let done = began.elapsed();
        sleep((harmed + length(harm)).saturating_sub(done)).await;
        Ok::<_, String>(Marks { harm: harmed, done, over: began.elapsed() })
    };
    let happens = async {
        let marks = happened.await;
        // Whatever came of it: without this the loads would go on for ever.
        over.set(true);
        // The balancer has removed it by now.
        if harm == Harm::Pause && fronts.iter().all(|(name, _)| *name != OURS) {
            stage.resume(victim).await?;
        }
        marks
    };
    let (ends, marks) = tokio::join!(join_all(loads), happens);
    let marks = marks?;
    let found = fronts.iter().zip(&all).zip(ends).map(|(((name, _), seen), end)| {
        let mut figures = Figures::of(&seen.borrow(), marks, &victim.hostname, &survivors);
        if let Some((why, due)) = end {
            figures.lack(why, u64::from(due));
        }
        Round { program: (*name).to_owned(), harm, victim: victim.hostname.clone(), figures }
    });
    Ok(found.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_harm_that_fails_ends_the_load_and_is_told() {
        let stage = super::super::super::stage::tests::stage().await;
        let plain = stage.plain(1, None).await.unwrap();
        let addr: SocketAddr = plain.members[0].addr.as_deref().unwrap().parse().unwrap();
        // No such process: its number is above all that there can be.
        let gone = Member { runtime_id: Some("999999999".into()), ..plain.members[0].clone() };
        let keys: Rc<[u64]> = [123_456].into();
        let told = measure(&stage, &[("it", addr)], &[gone], (Harm::Kill, 0), &keys).await.unwrap_err();
        assert!(told.contains("SIGKILL to S1: ESRCH"), "{told}");
    }

    #[tokio::test]
    async fn a_replica_that_nobody_replaces_is_missed() {
        let stage = super::super::super::stage::tests::stage().await;
        let keys: Rc<[u64]> = (100_000..100_100).collect();
        let programs = [Program::Lb(super::super::super::subject::Subject::bounded())];
        let rounds = others(&stage, &programs, (Harm::Crash, 0), &keys).await.unwrap();
        let [round] = &*rounds else { panic!("{rounds:?}") };
        assert_eq!((&*round.victim, round.figures.failed(), round.figures.again), ("S1", 0, None), "{round:?}");
        assert!(round.figures.requests > 1000, "{round:?}");
    }
}
