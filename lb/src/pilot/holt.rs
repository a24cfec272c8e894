//! Level and trend of a series whose samples come at irregular intervals, and where it will be. Pure: time comes in.
//!
//! Sources: Holt, "Forecasting seasonals and trends by exponentially weighted moving averages" (1957; International Journal
//! of Forecasting 20, 2004) for double exponential smoothing; Wright, Management Science 32 (1986), for intervals that
//! differ: both factors follow from the time that has passed, and the trend is by unit of time. Wright's correction for the
//! start is left out: the trend begins at 0 and needs evidence, as a forecast from two samples would be mere noise.

use std::time::Duration;

use tokio::time::Instant;

use super::smooth::part;

/// See the module's documentation.
#[derive(Debug, Clone)]
pub struct Holt {
    level_constant: Duration,
    trend_constant: Duration,
    last: Option<State>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    level: f64,
    /// By second.
    trend: f64,
    at: Instant,
}

impl Holt {
    /// Time constants: after so long, a new level or a new trend has been taken over by 63 %.
    pub fn new(level: Duration, trend: Duration) -> Self {
        Self { level_constant: level, trend_constant: trend, last: None }
    }

    /// Takes in a sample. The first is the level. One that is no number, or at the time of the last one, is ignored.
    pub fn observe(&mut self, value: f64, now: Instant) {
        if !value.is_finite() {
            return;
        }
        let Some(old) = self.last else {
            self.last = Some(State { level: value, trend: 0.0, at: now });
            return;
        };
        let passed = now.saturating_duration_since(old.at);
        if passed.is_zero() {
            return;
        }
        let expected = old.level + old.trend * passed.as_secs_f64();
        let level = expected + (value - expected) * part(passed, self.level_constant);
        let slope = (level - old.level) / passed.as_secs_f64();
        let trend = old.trend + (slope - old.trend) * part(passed, self.trend_constant);
        self.last = Some(State { level, trend, at: now });
    }

    /// Where the series is; `None` before the first sample.
    pub fn level(&self) -> Option<f64> {
        self.last.map(|state| state.level)
    }

    /// How much it rises in a second; 0 before the second sample.
    pub fn trend(&self) -> f64 {
        self.last.map_or(0.0, |state| state.trend)
    }

    /// Where it will be so long after the last sample, if the trend lasts; never below 0.
    pub fn forecast(&self, ahead: Duration) -> Option<f64> {
        self.last.map(|state| (state.level + state.trend * ahead.as_secs_f64()).max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn fed(samples: impl Iterator<Item = (f64, f64)>) -> Holt {
        let (mut holt, begin) = (Holt::new(SECOND, 2 * SECOND), Instant::now());
        samples.for_each(|(at, value)| holt.observe(value, begin + Duration::from_secs_f64(at)));
        holt
    }

    #[test]
    fn it_finds_a_line_at_regular_and_irregular_intervals_and_sees_it_ahead() {
        let uneven = |step: u32| f64::from(step) / 10.0 + if step.is_multiple_of(3) { 0.05 } else { 0.0 };
        let (regular, irregular) = (|step: u32| f64::from(step) / 10.0, uneven);
        for holt in [
            fed((0..400).map(|step| (regular(step), 50.0 + 20.0 * regular(step)))),
            fed((0..400).map(|step| (irregular(step), 50.0 + 20.0 * irregular(step)))),
        ] {
            let end = 50.0 + 20.0 * irregular(399);
            assert!((holt.trend() - 20.0).abs() < 0.2, "{holt:?}");
            assert!((holt.level().unwrap() - end).abs() < 3.0, "{holt:?}");
            assert!((holt.forecast(3 * SECOND).unwrap() - end - 60.0).abs() < 3.0, "{holt:?}");
        }
    }

    #[test]
    fn a_constant_has_no_trend_and_a_fall_no_forecast_below_zero() {
        let flat = fed((0..100).map(|step| (f64::from(step), 7.0)));
        assert_eq!((flat.level(), flat.trend(), flat.forecast(SECOND)), (Some(7.0), 0.0, Some(7.0)));
        let falling = fed((0..100).map(|step| (f64::from(step) / 10.0, 100.0 - f64::from(step))));
        assert!(falling.trend() < -9.0);
        assert_eq!(falling.forecast(100 * SECOND), Some(0.0));
    }

    #[test]
    fn the_first_samples_make_no_trend_out_of_nothing() {
        assert_eq!(Holt::new(SECOND, SECOND).forecast(SECOND), None);
        let once = fed([(0.0, 5.0)].into_iter());
        assert_eq!((once.level(), once.trend(), once.forecast(SECOND)), (Some(5.0), 0.0, Some(5.0)));
        let twice = fed([(0.0, 5.0), (0.0, 500.0), (0.1, f64::NAN)].into_iter());
        assert_eq!((twice.level(), twice.trend()), (Some(5.0), 0.0));
        let jump = fed([(0.0, 10.0), (0.1, 200.0)].into_iter());
        assert!(jump.level().unwrap() < 30.0 && jump.trend() < 10.0, "{jump:?}");
    }
}
