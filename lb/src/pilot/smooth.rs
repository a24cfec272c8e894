//! A moving average for samples that come at irregular intervals. Pure: time comes in.
//!
//! Exponential smoothing whose factor follows from the time that has passed: `1 - exp(-passed / time constant)`, so the
//! average is the same however often it is asked to look. Source: Wright, "Forecasting data published at irregular time
//! intervals using an extension of Holt's method", Management Science 32 (1986), without its correction for the start.

use std::time::Duration;

use tokio::time::Instant;

/// What part a sample has that comes so long after the last one: 0 for no time, 1 without a time constant.
pub(super) fn part(passed: Duration, time_constant: Duration) -> f64 {
    if time_constant.is_zero() { 1.0 } else { -(-passed.as_secs_f64() / time_constant.as_secs_f64()).exp_m1() }
}

/// See the module's documentation.
#[derive(Debug, Clone)]
pub struct Smooth {
    time_constant: Duration,
    last: Option<(f64, Instant)>,
}

impl Smooth {
    /// An average that has gone 63 % of the way to a new value after `time_constant`; zero follows at once.
    pub fn new(time_constant: Duration) -> Self {
        Self { time_constant, last: None }
    }

    /// Takes in a sample; the first one is the average. One that is no number is ignored.
    pub fn observe(&mut self, value: f64, now: Instant) {
        if !value.is_finite() {
            return;
        }
        let next = match self.last {
            None => value,
            Some((old, at)) => old + (value - old) * part(now.saturating_duration_since(at), self.time_constant),
        };
        self.last = Some((next, now));
    }

    /// The average; `None` before the first sample.
    pub fn get(&self) -> Option<f64> {
        self.last.map(|(value, _)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn after_its_time_constant_it_has_gone_63_percent_of_the_way_however_often_it_looked() {
        for steps in [1, 2, 7, 100] {
            let (mut smooth, begin) = (Smooth::new(SECOND), Instant::now());
            assert_eq!(smooth.get(), None);
            smooth.observe(10.0, begin);
            assert_eq!(smooth.get(), Some(10.0), "the first is the average");
            for step in 1..=steps {
                smooth.observe(20.0, begin + SECOND * step / steps);
            }
            let expected = 20.0 - 10.0 / std::f64::consts::E;
            assert!((smooth.get().unwrap() - expected).abs() < 1e-6, "{steps} steps: {:?}", smooth.get());
        }
    }

    #[test]
    fn without_a_time_constant_it_follows_at_once_and_nonsense_is_ignored() {
        let (mut smooth, now) = (Smooth::new(Duration::ZERO), Instant::now());
        smooth.observe(1.0, now);
        smooth.observe(5.0, now);
        smooth.observe(f64::NAN, now + SECOND);
        smooth.observe(f64::INFINITY, now + SECOND);
        assert_eq!(smooth.get(), Some(5.0));
    }

    #[test]
    fn a_clock_that_steps_back_counts_as_no_time() {
        let (mut smooth, now) = (Smooth::new(SECOND), Instant::now() + SECOND);
        smooth.observe(1.0, now);
        smooth.observe(5.0, now - SECOND);
        assert_eq!(smooth.get(), Some(1.0));
    }
}
