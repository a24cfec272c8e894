//! Weights and tiers, one rule at a time.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// Replicas that have whatever share was set, observed each second.
struct Bench {
    weigher: Weigher,
    now: Instant,
    measures: Vec<Measure>,
}

fn newborn(number: u64, millis: u64) -> Measure {
    Measure {
        generation: Generation(number),
        ready: true,
        latency: Some(Duration::from_millis(millis)),
        failures: 0.0,
        cpu: None,
        memory: None,
        share: Share::default(),
    }
}

impl Bench {
    fn new(millis: &[u64]) -> Self {
        let measures = (1..).zip(millis).map(|(number, millis)| newborn(number, *millis)).collect();
        Self { weigher: Weigher::new(WeighConfig::default()), now: Instant::now(), measures }
    }

    fn ask(&mut self) -> Vec<Reweigh> {
        self.now += SECOND;
        self.weigher.observe(&self.measures, self.now)
    }

    fn second(&mut self) -> Vec<Reweigh> {
        let changes = self.ask();
        for change in &changes {
            let one = self.measures.iter_mut().find(|one| one.generation == change.generation).unwrap();
            one.share = change.share;
        }
        changes
    }

    fn seconds(&mut self, seconds: u32) -> usize {
        (0..seconds).map(|_| self.second().len()).sum()
    }

    fn shares(&self) -> Vec<(u16, u16)> {
        self.measures.iter().map(|one| (one.share.weight, one.share.priority)).collect()
    }
}

#[test]
fn the_first_step_lifts_all_at_once() {
    let mut bench = Bench::new(&[20, 80, 20]);
    bench.measures[0].latency = None;
    bench.measures[1].ready = false;
    let changes = bench.second();
    assert_eq!(changes.len(), 3);
    assert_eq!(changes[0].reason, "weight 10: the neutral one, to begin with");
    assert_eq!(bench.shares(), [(10, 1); 3]);
    bench.measures.push(newborn(9, 20));
    assert_eq!(bench.second().len(), 1, "a newcomer later, too");
}

#[test]
fn who_is_slower_or_fails_or_is_short_of_cpu_gets_less() {
    let mut bench = Bench::new(&[20, 20, 20, 40, 10]);
    assert_eq!(bench.seconds(5), 5);
    let changes = bench.second();
    let reasons: Vec<_> = changes.iter().map(|change| change.reason.as_str()).collect();
    assert_eq!(
        reasons,
        [
            "weight 10 -> 5: answers after 40 ms, the median is 20 ms",
            "weight 10 -> 20: answers after 10 ms, the median is 20 ms"
        ]
    );
    bench.measures[0].failures = 0.5;
    (bench.measures[1].failures, bench.measures[1].cpu) = (0.1, Some(0.88));
    // Costs are 60, 30.8, 20, 40 and 10 ms.
    bench.seconds(10);
    assert_eq!(bench.shares(), [(5, 1), (10, 1), (15, 1), (8, 1), (31, 1)]);
    assert_eq!(bench.seconds(60), 0, "and stays so");
}

#[test]
fn weights_go_to_their_bounds_by_factors_of_two_one_in_an_interval() {
    let mut bench = Bench::new(&[1000, 100, 100, 1]);
    bench.second();
    let mut seen = vec![bench.shares()];
    for _ in 0..30 {
        let now = (bench.now, bench.second().len());
        if now.1 > 0 {
            seen.push(bench.shares());
        }
    }
    let of = |place: usize| seen.iter().map(|shares| shares[place].0).collect::<Vec<_>>();
    assert_eq!(of(0), [10, 5, 3, 2]);
    assert_eq!(of(3), [10, 20, 40, 40]);
    assert_eq!(of(1), [10; 4]);
}

#[test]
fn small_differences_and_few_samples_and_common_troubles_change_nothing() {
    for millis in [&[20, 24, 17][..], &[20], &[]] {
        let mut bench = Bench::new(millis);
        bench.second();
        assert_eq!(bench.seconds(30), 0, "{millis:?}");
    }
    let mut bench = Bench::new(&[20, 20, 20]);
    bench.second();
    for one in &mut bench.measures {
        (one.failures, one.cpu) = (0.9, Some(0.89));
    }
    assert_eq!(bench.seconds(30), 0, "all alike");
    let mut bench = Bench::new(&[20, 80]);
    bench.second();
    bench.measures[0].latency = None;
    assert_eq!(bench.seconds(30), 0, "nothing to compare with");
    let mut bench = Bench::new(&[0, 0, 0]);
    for (one, micros) in bench.measures.iter_mut().zip([200, 900, 300]) {
        one.latency = Some(Duration::from_micros(micros));
    }
    bench.second();
    assert_eq!(bench.seconds(30), 0, "less than a millisecond is chance");
}

#[test]
fn who_is_at_its_limit_for_an_interval_goes_to_the_reserve_and_comes_back() {
    let mut bench = Bench::new(&[20, 20, 20]);
    bench.seconds(10);
    bench.measures[1].memory = Some(0.93);
    assert_eq!(bench.seconds(5), 0, "not yet");
    assert_eq!(bench.second()[0].reason, "into the reserve: memory at 93 % of its limit, 90 % is too much");
    assert_eq!(bench.shares()[1], (10, 0));
    bench.measures[1].memory = Some(0.76);
    assert_eq!(bench.seconds(20), 0, "not well below");
    bench.measures[1].memory = Some(0.7);
    assert_eq!(bench.second()[0].reason, "out of the reserve: memory at 70 % of its limit");
    // Not without a pause.
    bench.measures[1].cpu = Some(0.95);
    assert_eq!(bench.seconds(5), 0);
    assert_eq!(bench.second()[0].reason, "into the reserve: CPU at 95 % of its limit, 90 % is too much");
    // Two observations that are an interval apart, with a better one between.
    let mut bench = Bench::new(&[20, 20, 20]);
    for second in 0..60 {
        bench.measures[1].memory = Some(if second % 5 == 0 { 0.5 } else { 0.99 });
        bench.second();
        assert_eq!(bench.shares()[1].1, 1);
    }
}

#[test]
fn the_reserve_has_a_third_at_most_the_worst_first_and_never_all() {
    let mut bench = Bench::new(&[20; 7]);
    for (one, memory) in bench.measures.iter_mut().zip([0.91, 0.99, 0.95, 0.96, 0.98, 0.97, 0.92]) {
        one.memory = Some(memory);
    }
    bench.seconds(30);
    let reserve = |bench: &Bench| {
        let shares = bench.shares();
        (0..shares.len()).filter(|place| shares[*place].1 == 0).collect::<Vec<_>>()
    };
    assert_eq!(reserve(&bench), [1, 4]);
    // Of five ready ones only one may be in reserve.
    bench.measures[0].ready = false;
    bench.measures[2].ready = false;
    let changes = bench.second();
    assert_eq!(changes[0].reason, "out of the reserve: it may have 1 of 5 ready replicas");
    assert_eq!(reserve(&bench), [1]);
    for one in &mut bench.measures[2..] {
        one.ready = false;
    }
    bench.seconds(30);
    assert_eq!(reserve(&bench), [0; 0], "none of two");
}

#[test]
fn what_was_set_by_hand_stays_until_it_is_neutral_again() {
    let mut bench = Bench::new(&[20, 80, 20, 20]);
    bench.seconds(3);
    bench.measures[1].share = Share { weight: 7, priority: 1 };
    bench.measures[2].share = Share { weight: 10, priority: 3 };
    bench.measures[2].memory = Some(0.99);
    assert_eq!(bench.seconds(30), 0);
    bench.measures[1].share = Share::default();
    assert_eq!(bench.second()[0].share, Share { weight: 10, priority: 1 });
    bench.seconds(20);
    assert_eq!(bench.shares()[1..3], [(3, 1), (10, 3)]);
    // Back to what it was before the last change, by hand.
    bench.measures[1].share.weight = 5;
    assert_eq!(bench.seconds(30), 0);
}

#[test]
fn a_change_that_is_not_carried_out_at_once_is_not_taken_for_somebodys_doing() {
    let mut bench = Bench::new(&[20, 80, 20]);
    assert_eq!(bench.ask().len(), 3);
    assert_eq!(bench.ask().len(), 3, "births are asked for until they are done");
    bench.seconds(6);
    let order = bench.ask();
    assert_eq!(order.len(), 0, "10 -> 5 was done within: {:?}", bench.shares());
    bench.measures[1].latency = Some(Duration::from_millis(20));
    bench.now += 10 * SECOND;
    let order = bench.ask();
    assert_eq!(order[0].share.weight, 10, "{order:?}");
    assert_eq!(bench.ask(), [], "on its way");
    bench.now += 4 * SECOND;
    assert_eq!(bench.second().len(), 1, "asked for again");
    assert_eq!(bench.seconds(20), 0);
    bench.measures[1].latency = Some(Duration::from_millis(60));
    assert_eq!(bench.second().len(), 1, "still ours");
}
