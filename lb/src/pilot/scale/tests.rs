//! The scaler's rules, one by one; `lb/tests/scaler_simulation/` has them all at once.

use super::*;

const STEP: Duration = Duration::from_millis(100);

/// A scaler, its clock, and the sample that it is shown every 100 ms.
struct Bench {
    scaler: Scaler,
    now: Instant,
    sample: Sample,
}

impl Bench {
    fn new(config: ScaleConfig, n: usize) -> Self {
        let sample = Sample { desired: n, ready: n, ..Sample::default() };
        Self { scaler: Scaler::new(config), now: Instant::now(), sample }
    }

    fn step(&mut self) -> Option<Decision> {
        self.now += STEP;
        self.scaler.observe(&self.sample, self.now)
    }

    /// What is decided within so many seconds, with the seconds until then; the first only.
    fn within(&mut self, seconds: u32) -> Option<(f64, Decision)> {
        let begin = self.now;
        (0..seconds * 10).find_map(|_| self.step()).map(|decision| ((self.now - begin).as_secs_f64(), decision))
    }

    fn n(&mut self, n: usize) {
        (self.sample.desired, self.sample.ready) = (n, n);
    }
}

fn config() -> ScaleConfig {
    ScaleConfig { min: 1, max: 20, in_flight: Some(10.0), ..ScaleConfig::default() }
}

#[test]
fn a_jump_is_answered_after_its_window_by_a_whole_step_and_the_reason_says_so() {
    let mut bench = Bench::new(config(), 3);
    bench.sample.in_flight = 300;
    let (after, decision) = bench.within(5).unwrap();
    assert!((1.0..1.3).contains(&after), "{after}");
    assert_eq!((decision.from, decision.to), (3, 7));
    assert_eq!(decision.reason, "+4: 100 in flight per replica > 10 for 1 s");
    let mut bench = Bench::new(config(), 3);
    bench.sample.in_flight = 38;
    assert_eq!(bench.within(5).unwrap().1.to, 4, "no more than are needed");
}

#[test]
fn what_does_not_last_moves_nothing() {
    let mut bench = Bench::new(ScaleConfig { smoothing: Duration::ZERO, ..config() }, 3);
    for _ in 0..50 {
        for (in_flight, steps) in [(300, 9), (10, 1)] {
            bench.sample.in_flight = in_flight;
            assert!((0..steps).all(|_| bench.step().is_none()));
        }
    }
}

#[test]
fn around_the_border_there_is_a_dead_band() {
    for (in_flight, n, to) in [(33, 3, None), (34, 3, Some(4)), (28, 4, None), (27, 4, Some(3)), (19, 3, None)] {
        let mut bench = Bench::new(config(), n);
        bench.sample.in_flight = in_flight;
        assert_eq!(bench.within(70).map(|(_, decision)| decision.to), to, "{in_flight} in flight, N = {n}");
    }
}

#[test]
fn one_is_taken_away_after_a_minute_and_more_only_if_there_are_far_too_many() {
    let mut bench = Bench::new(config(), 3);
    bench.sample.in_flight = 12;
    let (after, decision) = bench.within(100).unwrap();
    assert!((60.0..60.3).contains(&after), "{after}");
    assert_eq!((decision.to, decision.reason.as_str()), (2, "-1: 4 in flight per replica, 2 are enough for 60 s"));
    bench.n(2);
    bench.sample.in_flight = 1;
    let (after, _) = bench.within(100).unwrap();
    assert!((60.0..60.3).contains(&after), "{after} s after the last");
    let mut bench = Bench::new(config(), 20);
    bench.sample.in_flight = 12;
    assert_eq!(bench.within(100).unwrap().1.to, 16, "at most a step");
    let mut bench = Bench::new(ScaleConfig { min: 4, ..config() }, 4);
    assert_eq!(bench.within(100), None, "not below the least");
}

#[test]
fn nobody_is_taken_away_while_another_one_is_missing_or_something_is_under_way() {
    let mut bench = Bench::new(config(), 3);
    bench.sample.ready = 2;
    assert_eq!(bench.within(100), None);
    bench.n(3);
    bench.sample.busy = true;
    assert_eq!(bench.within(100), None);
    bench.sample.busy = false;
    assert!(bench.step().is_some(), "it was observed all the time");
}

#[test]
fn what_was_ordered_has_to_be_ready_before_more_is_and_is_waited_for_30_s() {
    let mut bench = Bench::new(config(), 2);
    bench.sample.in_flight = 60;
    assert_eq!(bench.within(5).unwrap().1.to, 6);
    bench.sample = Sample { desired: 6, ready: 2, in_flight: 400, ..Sample::default() };
    let (after, _) = bench.within(60).unwrap();
    assert!((30.0..30.3).contains(&after), "{after}");
    bench.sample = Sample { desired: 10, ready: 10, in_flight: 400, ..Sample::default() };
    let (after, _) = bench.within(60).unwrap();
    assert!((3.0..3.3).contains(&after), "{after}: the cooldown");
}

#[test]
fn who_changes_n_by_hand_is_left_alone_and_what_failed_was_nobodys_hand() {
    let mut bench = Bench::new(config(), 3);
    bench.step();
    assert_eq!(bench.scaler.holds_until(), None, "the first N is as it is");
    bench.n(6);
    bench.step();
    assert_eq!(bench.scaler.holds_until(), Some(bench.now + Duration::from_secs(300)));
    bench.sample.in_flight = 200;
    let (after, _) = bench.within(400).unwrap();
    assert!((300.0..300.3).contains(&after), "{after}");

    for said_before_seen in [true, false] {
        let mut bench = Bench::new(config(), 3);
        bench.sample.in_flight = 60;
        assert_eq!(bench.within(5).unwrap().1.to, 6);
        bench.n(6);
        bench.step();
        if said_before_seen {
            bench.scaler.failed(bench.now);
            bench.step();
            bench.n(3);
            bench.step();
        } else {
            bench.n(3);
            bench.step();
            assert!(bench.scaler.holds_until().is_some(), "not known yet");
            bench.scaler.failed(bench.now);
        }
        assert_eq!(bench.scaler.holds_until(), None);
        let (after, decision) = bench.within(20).unwrap();
        assert!((2.7..3.3).contains(&after), "{after}: the pause");
        assert_eq!(decision.from, 3);
        // Undone by hand once it was done.
        bench.n(decision.to);
        bench.step();
        bench.n(3);
        bench.step();
        assert!(bench.scaler.holds_until().is_some());
    }
}

#[test]
fn an_order_that_nobody_carries_out_is_forgotten() {
    let mut bench = Bench::new(config(), 3);
    bench.sample.in_flight = 60;
    assert!(bench.within(5).is_some());
    let (after, decision) = bench.within(60).unwrap();
    assert!((30.0..30.3).contains(&after), "{after}");
    assert_eq!((decision.from, bench.scaler.holds_until()), (3, None));
}

#[test]
fn an_n_out_of_bounds_is_brought_within() {
    let mut bench = Bench::new(ScaleConfig { min: 3, step: 1, ..config() }, 1);
    let decision = bench.step().unwrap();
    assert_eq!((decision.to, decision.reason.as_str()), (2, "+1: 1 is below the least, 3"));
    let mut bench = Bench::new(ScaleConfig { max: 5, in_flight: None, ..config() }, 7);
    let decision = bench.step().unwrap();
    assert_eq!((decision.to, decision.reason.as_str()), (5, "-2: 7 is above the most, 5"));
    let mut bench = Bench::new(ScaleConfig { max: 5, in_flight: Some(0.0), ..config() }, 5);
    bench.sample.in_flight = 1000;
    assert_eq!(bench.within(100), None, "a target of 0 is none, and without any there is nothing to decide");
    let mut bench = Bench::new(ScaleConfig { max: 5, ..config() }, 5);
    bench.sample.in_flight = 1000;
    assert_eq!(bench.within(100), None, "not above the most");
}

#[test]
fn cpu_counts_over_the_ready_ones_and_what_is_unknown_may_be_much() {
    let cpu = ScaleConfig { cpu: Some(0.7), in_flight: None, ..config() };
    let mut bench = Bench::new(cpu, 4);
    bench.sample.cpu = Some(0.9);
    assert_eq!(bench.within(5).unwrap().1.reason, "+2: CPU of 90 % per replica > 70 % for 1 s");
    let mut bench = Bench::new(cpu, 4);
    bench.sample.ready = 2;
    bench.sample.cpu = Some(1.2);
    assert_eq!(bench.within(5), None, "4 bear at 60 % what 2 do at 120 %");
    let both = ScaleConfig { cpu: Some(0.7), ..config() };
    let mut bench = Bench::new(both, 4);
    assert_eq!(bench.within(100), None, "idle, but CPU is not known");
    bench.sample.cpu = Some(0.1);
    assert_eq!(bench.within(50), None);
    bench.sample.cpu = None;
    assert_eq!(bench.within(100), None, "no longer known");
    bench.sample.cpu = Some(0.1);
    assert!(bench.within(100).is_some());
}

#[test]
fn latency_asks_for_one_more_and_remembers_at_which_rate() {
    let p99 = ScaleConfig { p99: Some(Duration::from_millis(300)), in_flight: None, ..config() };
    let mut bench = Bench::new(p99, 3);
    (bench.sample.p99, bench.sample.rate) = (Some(Duration::from_millis(450)), 300.0);
    assert_eq!(bench.within(5).unwrap().1.reason, "+1: p99 of 450 ms > 300 ms for 1 s");
    bench.n(4);
    bench.sample.p99 = Some(Duration::from_millis(100));
    assert_eq!(bench.within(590), None, "3 were not enough for 300 requests/s");
    assert_eq!(bench.within(100).unwrap().1.reason, "-1: p99 of 100 ms, 3 are enough for 60 s", "tried again");
    bench.n(3);
    bench.sample.p99 = Some(Duration::from_millis(200));
    assert_eq!(bench.within(100), None, "above half of the limit");
}

#[test]
fn a_forecast_adds_before_the_load_is_there_and_half_as_many_at_most() {
    let mut bench = Bench::new(ScaleConfig { min: 4, ..config() }, 4);
    bench.sample.rate = 400.0;
    bench.sample.in_flight = 36;
    assert_eq!(bench.within(30), None);
    let decision = (0..100).find_map(|_| {
        bench.sample.rate += 10.0;
        bench.step()
    });
    let Decision { from, to, reason } = decision.unwrap();
    assert!(reason.starts_with("+1: forecast of ") && reason.contains(" requests/s in 3 s needs "), "{reason}");
    assert!(reason.ends_with(" in flight per replica > 10"), "{reason}");
    assert_eq!((from, to), (4, 5));
    let mut steep = Bench::new(config(), 4);
    (steep.sample.rate, steep.sample.in_flight) = (400.0, 40);
    assert_eq!(steep.within(30), None);
    steep.sample.busy = true;
    for _ in 0..30 {
        steep.sample.rate += 100.0;
        steep.step();
    }
    steep.sample.busy = false;
    let Decision { to, reason, .. } = steep.step().unwrap();
    assert!(reason.starts_with("+2: forecast of "), "as much again as half: {reason}");
    assert_eq!(to, 6);
    let mut odd = Bench::new(config(), 4);
    (odd.sample.rate, odd.sample.in_flight) = (20.0, 40);
    assert_eq!(odd.step(), None);
    odd.sample.rate = 400.0;
    assert_eq!(odd.within(30), None, "a first sample that was far off makes no trend");
    let mut without = Bench::new(ScaleConfig { forecast: None, ..config() }, 4);
    (without.sample.rate, without.sample.in_flight) = (400.0, 36);
    for _ in 0..100 {
        without.sample.rate += 10.0;
        assert_eq!(without.step(), None);
    }
}
