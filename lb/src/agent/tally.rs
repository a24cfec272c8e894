//! What balancers report, added up, and who may still hold requests on a replica that leaves. Pure: time comes in.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use super::wire::{Report, ReportItem};
use crate::replica::{Generation, Seen};

/// Balancers that are remembered after their session has ended, so that what they have counted does not vanish.
const REMEMBERED: usize = 64;

/// One run of one balancer.
#[derive(Debug, Default)]
struct Balancer {
    session: u64,
    /// Since when its session has ended.
    left: Option<Instant>,
    epoch: u64,
    replicas: HashMap<Generation, ReportItem>,
    latencies: Vec<u64>,
    /// What it had counted when it was heard first: that is not of this agent's time.
    before: Option<(HashMap<Generation, ReportItem>, Vec<u64>)>,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Tally {
    balancers: BTreeMap<String, Balancer>,
    sessions: u64,
    grace: Duration,
    /// Until when there may be balancers that have not come back yet.
    expects_until: Option<Instant>,
}

impl Tally {
    /// One without balancers. One that has left may hold requests for `grace`.
    pub fn new(grace: Duration) -> Self {
        Self { balancers: BTreeMap::new(), sessions: 0, grace, expects_until: None }
    }

    /// Balancers of an agent before this one will be back by then. Until they are, they may hold requests on anything.
    pub fn expect(&mut self, until: Instant) {
        self.expects_until = Some(until);
    }

    /// A session of a balancer begins; gives its number. An older session of the same balancer counts no more.
    pub fn join(&mut self, balancer: &str) -> u64 {
        self.sessions += 1;
        let known = self.balancers.entry(balancer.to_owned()).or_default();
        // Whatever it serves, it has yet to say so.
        (known.session, known.left, known.epoch) = (self.sessions, None, 0);
        self.sessions
    }

    /// A session has ended.
    pub fn leave(&mut self, balancer: &str, session: u64, now: Instant) {
        if let Some(known) = self.balancers.get_mut(balancer).filter(|known| known.session == session) {
            known.left = Some(now);
        }
        let mut gone: Vec<_> = self.balancers.iter().filter_map(|(name, it)| Some((it.left?, name.clone()))).collect();
        gone.sort_unstable();
        let excess = gone.len().saturating_sub(REMEMBERED);
        gone.into_iter().take(excess).for_each(|(_, name)| drop(self.balancers.remove(&name)));
    }

    /// Takes in a report. Gives the replicas that the balancer has taken out of rotation since its last one.
    pub fn report(&mut self, balancer: &str, session: u64, report: Report) -> Vec<Generation> {
        let Some(known) = self.balancers.get_mut(balancer).filter(|known| known.session == session) else {
            return Vec::new();
        };
        known.epoch = report.epoch;
        known.latencies = report.latencies;
        if known.before.is_none() {
            let counted = report.replicas.iter().map(|item| (item.generation, *item)).collect();
            known.before = Some((counted, known.latencies.clone()));
        }
        let before = std::mem::take(&mut known.replicas);
        known.replicas = report.replicas.into_iter().map(|item| (item.generation, item)).collect();
        let was_good = |generation| before.get(generation).is_none_or(|item| item.good);
        let bad = known.replicas.iter().filter(|(generation, item)| !item.good && was_good(generation));
        bad.map(|(generation, _)| *generation).collect()
    }

    /// All that is seen of a replica, counted since balancers were first heard.
    pub fn seen(&self, generation: Generation) -> Seen {
        let mut sum = Seen::default();
        for balancer in self.balancers.values() {
            let Some(item) = balancer.replicas.get(&generation) else { continue };
            if balancer.left.is_none() {
                sum.in_flight = sum.in_flight.saturating_add(item.in_flight);
            }
            let before = balancer.before.as_ref().and_then(|(counted, _)| counted.get(&generation));
            let since = |now: u64, before: Option<u64>| now.saturating_sub(before.unwrap_or_default());
            sum.served += since(item.served, before.map(|item| item.served));
            sum.failed += since(item.failed, before.map(|item| item.failed));
            sum.waited += Duration::from_micros(since(item.waited_us, before.map(|item| item.waited_us)));
        }
        sum
    }

    /// Responses by latency, cumulative, of all balancers.
    pub fn latencies(&self) -> Vec<u64> {
        let longest = self.balancers.values().map(|balancer| balancer.latencies.len()).max().unwrap_or_default();
        let of = |balancer: &Balancer, at: usize| {
            let before = balancer.before.as_ref().and_then(|(_, latencies)| latencies.get(at));
            balancer.latencies.get(at).copied().unwrap_or_default().saturating_sub(before.copied().unwrap_or_default())
        };
        let at = |at| self.balancers.values().map(|balancer| of(balancer, at)).sum();
        (0..longest).map(at).collect()
    }

    /// Has every balancer that is connected taken it out of rotation?
    pub fn is_bad_for_all(&self, generation: Generation) -> bool {
        let connected = self.balancers.values().filter(|balancer| balancer.left.is_none());
        connected.into_iter().all(|balancer| balancer.replicas.get(&generation).is_some_and(|item| !item.good))
    }

    /// Balancers that are connected, and how many of them serve the state `epoch`.
    pub fn connected(&self, epoch: u64) -> (usize, usize) {
        let connected = || self.balancers.values().filter(|balancer| balancer.left.is_none());
        (connected().count(), connected().filter(|balancer| balancer.epoch == epoch).count())
    }

    /// Does no balancer hold a request on `generation` any more, which takes no new ones since `epoch`? One that has left
    /// without saying so may, for a while.
    pub fn is_released(&self, generation: Generation, epoch: u64, now: Instant) -> bool {
        let expects = self.expects_until.is_some_and(|until| now < until);
        !expects
            && self.balancers.values().all(|balancer| match balancer.left {
                Some(left) => now >= left + self.grace,
                None => {
                    let held = balancer.replicas.get(&generation).map_or(0, |item| item.in_flight);
                    balancer.epoch >= epoch && held == 0
                }
            })
    }

    /// When [`Tally::is_released`] may change without a report.
    pub fn next_release(&self, now: Instant) -> Option<Instant> {
        let left = self.balancers.values().filter_map(|balancer| balancer.left).map(|left| left + self.grace);
        left.chain(self.expects_until).filter(|at| *at > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(10);

    fn item(generation: u64, in_flight: u32, served: u64, good: bool) -> ReportItem {
        let generation = Generation(generation);
        ReportItem { generation, in_flight, served, failed: 1, waited_us: served * 1000, good }
    }

    fn report(epoch: u64, replicas: Vec<ReportItem>) -> Report {
        Report { epoch, replicas, latencies: vec![1, 2] }
    }

    #[test]
    fn reports_add_up_and_counters_outlive_their_sessions() {
        let (mut tally, now) = (Tally::new(GRACE), Instant::now());
        let (a, b) = (tally.join("a"), tally.join("b"));
        // What they have counted before this agent was there is none of its business.
        tally.report("a", a, Report { latencies: vec![5, 9], ..report(1, vec![item(1, 0, 100, true)]) });
        assert_eq!((tally.seen(Generation(1)).served, tally.latencies()), (0, vec![0, 0]));
        tally.report("b", b, Report { latencies: vec![0, 0], ..report(1, vec![]) });
        tally.report("a", a, Report { latencies: vec![6, 11], ..report(1, vec![item(1, 2, 110, true)]) });
        tally.report("b", b, report(1, vec![item(1, 3, 20, true), item(2, 1, 5, true)]));
        let seen = tally.seen(Generation(1));
        assert_eq!((seen.in_flight, seen.served, seen.failed), (5, 30, 1));
        assert_eq!(seen.waited, Duration::from_millis(30));
        assert_eq!((tally.latencies(), tally.connected(1)), (vec![2, 4], (2, 2)));
        tally.leave("b", b, now);
        let seen = tally.seen(Generation(1));
        assert_eq!((seen.in_flight, seen.served), (2, 30), "what it holds is not known, what it has counted is");
        // The same run of the balancer again, and an end of its old session that is heard of late.
        let again = tally.join("b");
        tally.report("b", again, report(1, vec![item(1, 0, 25, true)]));
        tally.leave("b", b, now);
        assert_eq!((tally.seen(Generation(1)).served, tally.connected(1)), (35, (2, 2)));
        assert!(tally.report("b", b, report(1, vec![item(1, 0, 999, false)])).is_empty(), "a session that is over");
        assert_eq!(tally.seen(Generation(1)).served, 35);
    }

    #[test]
    fn whoever_takes_a_replica_out_says_so_once() {
        let mut tally = Tally::new(GRACE);
        let a = tally.join("a");
        assert!(tally.report("a", a, report(1, vec![item(1, 0, 0, true)])).is_empty());
        assert_eq!(tally.report("a", a, report(1, vec![item(1, 0, 0, false)])), [Generation(1)]);
        assert!(tally.report("a", a, report(1, vec![item(1, 0, 0, false)])).is_empty());
        tally.report("a", a, report(1, vec![item(1, 0, 0, true)]));
        assert_eq!(tally.report("a", a, report(1, vec![item(1, 0, 0, false)])), [Generation(1)]);
        assert!(tally.is_bad_for_all(Generation(1)));
        let b = tally.join("b");
        assert!(!tally.is_bad_for_all(Generation(1)), "it may be one balancer's own trouble");
        tally.report("b", b, report(1, vec![item(1, 0, 0, false)]));
        assert!(tally.is_bad_for_all(Generation(1)));
    }

    #[test]
    fn a_replica_is_released_when_nobody_can_hold_it() {
        let (mut tally, now) = (Tally::new(GRACE), Instant::now());
        let one = Generation(1);
        assert!(tally.is_released(one, 5, now), "there is nobody");
        let a = tally.join("a");
        assert!(!tally.is_released(one, 5, now), "it has yet to say what it serves");
        tally.report("a", a, report(4, vec![item(1, 0, 0, true)]));
        assert!(!tally.is_released(one, 5, now), "it does not know yet");
        tally.report("a", a, report(5, vec![item(1, 1, 0, true)]));
        assert!(!tally.is_released(one, 5, now), "it holds a request");
        tally.report("a", a, report(5, vec![item(1, 0, 1, true)]));
        assert!(tally.is_released(one, 5, now));
        tally.leave("a", a, now);
        assert!(!tally.is_released(one, 5, now), "a connection that broke says nothing");
        assert_eq!((tally.next_release(now), tally.next_release(now + GRACE)), (Some(now + GRACE), None));
        assert!(tally.is_released(one, 5, now + GRACE));
    }

    #[test]
    fn after_a_restart_those_that_may_come_back_are_waited_for() {
        let (mut tally, now) = (Tally::new(GRACE), Instant::now());
        tally.expect(now + GRACE);
        assert!(!tally.is_released(Generation(1), 5, now));
        assert_eq!(tally.next_release(now), Some(now + GRACE));
        assert!(tally.is_released(Generation(1), 5, now + GRACE));
    }

    #[test]
    fn those_that_left_are_not_remembered_for_ever() {
        let (mut tally, now) = (Tally::new(GRACE), Instant::now());
        for number in 0..REMEMBERED * 3 {
            let name = format!("b{number}");
            let session = tally.join(&name);
            tally.leave(&name, session, now + Duration::from_millis(number as u64));
        }
        assert_eq!(tally.balancers.len(), REMEMBERED);
        assert!(tally.balancers.contains_key(&format!("b{}", REMEMBERED * 3 - 1)), "the last ones are");
    }
}
