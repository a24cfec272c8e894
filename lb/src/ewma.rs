//! A latency as a moving average that follows peaks at once and forgets them slowly. Pure: time comes in.
//!
//! Source: the "Peak EWMA" balancer of Finagle and linkerd. A sample above the average becomes the average; one below pulls it
//! down, by more the more time has passed. Without samples it sinks towards zero as well, so that a replica that was slow
//! once is asked again some day.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The average and when it was last changed, in one cell that all threads share.
#[derive(Debug, Default)]
pub struct PeakEwma(AtomicU64);

#[derive(Debug, Clone, Copy)]
struct Average {
    /// Microseconds; 0 for one that was never measured.
    micros: f32,
    /// Milliseconds, the last 32 bits.
    at: u32,
}

impl Average {
    fn unpack(packed: u64) -> Self {
        Self { micros: f32::from_bits((packed >> 32) as u32), at: packed as u32 }
    }

    fn pack(self) -> u64 {
        u64::from(self.micros.to_bits()) << 32 | u64::from(self.at)
    }

    /// What is left of a weight of 1 at `now`. A clock that is a little behind another thread's counts as no time.
    fn left(self, now: u64, decay: Duration) -> f32 {
        let passed = (now as u32).wrapping_sub(self.at) as i32;
        if passed <= 0 { 1.0 } else { (-(passed as f32) / decay.as_millis().max(1) as f32).exp() }
    }
}

impl PeakEwma {
    /// The average at `now`, microseconds, above 0; `None` if there was no sample yet. `now` is in milliseconds since any
    /// moment that is always the same; after `decay` a peak is down to 1/e, without new samples.
    #[inline]
    pub fn get(&self, now: u64, decay: Duration) -> Option<f32> {
        let average = Average::unpack(self.0.load(Ordering::Relaxed));
        (average.micros > 0.0).then(|| average.micros * average.left(now, decay))
    }

    /// Takes in a sample.
    pub fn observe(&self, sample: Duration, now: u64, decay: Duration) {
        self.update(
            now,
            |old, left| {
                let sample = micros(sample);
                let average = old.micros * left;
                if sample > average { sample } else { average + sample * (1.0 - left) }
            },
            decay,
        );
    }

    /// Takes in that nothing came for so long: a peak, or nothing new.
    pub fn observe_failure(&self, waited: Duration, now: u64, decay: Duration) {
        self.update(now, |old, left| micros(waited).max(old.micros * left), decay);
    }

    fn update(&self, now: u64, next: impl Fn(Average, f32) -> f32, decay: Duration) {
        let update = |packed| {
            let old = Average::unpack(packed);
            let micros = next(old, old.left(now, decay)).max(f32::MIN_POSITIVE);
            Some(Average { micros, at: now as u32 }.pack())
        };
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, update);
    }
}

fn micros(time: Duration) -> f32 {
    time.as_secs_f32() * 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    const DECAY: Duration = Duration::from_secs(10);
    const MILLI: Duration = Duration::from_millis(1);

    fn near(value: Option<f32>, expected: f32) -> bool {
        value.is_some_and(|value| (value - expected).abs() <= expected * 0.01)
    }

    #[test]
    fn a_peak_counts_at_once_and_fades() {
        let ewma = PeakEwma::default();
        assert_eq!(ewma.get(5, DECAY), None);
        ewma.observe(2 * MILLI, 5, DECAY);
        assert!(near(ewma.get(5, DECAY), 2_000.0));
        ewma.observe(200 * MILLI, 6, DECAY);
        assert!(near(ewma.get(6, DECAY), 200_000.0));
        assert!(near(ewma.get(10_006, DECAY), 200_000.0 / std::f32::consts::E));
        // A tenth of the decay time later a tenth of the way to the sample has been gone.
        ewma.observe(2 * MILLI, 1_006, DECAY);
        let left = (-0.1_f32).exp();
        assert!(near(ewma.get(1_006, DECAY), 200_000.0 * left + 2_000.0 * (1.0 - left)));
    }

    #[test]
    fn a_failure_never_makes_it_look_better() {
        let ewma = PeakEwma::default();
        ewma.observe(50 * MILLI, 0, DECAY);
        ewma.observe_failure(MILLI, 0, DECAY);
        assert!(near(ewma.get(0, DECAY), 50_000.0));
        ewma.observe_failure(100 * MILLI, 0, DECAY);
        assert!(near(ewma.get(0, DECAY), 100_000.0));
    }

    #[test]
    fn clocks_wrap_and_differ() {
        let ewma = PeakEwma::default();
        ewma.observe(MILLI, u64::from(u32::MAX), DECAY);
        assert!(near(ewma.get(u64::from(u32::MAX) + 10_000, DECAY), 1_000.0 / std::f32::consts::E));
        ewma.observe(MILLI, 100, DECAY);
        assert!(near(ewma.get(98, DECAY), 1_000.0), "a thread that is behind");
    }
}
