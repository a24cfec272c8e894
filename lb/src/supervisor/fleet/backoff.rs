//! How long to wait before a replica that keeps failing is launched again.

use std::time::Duration;

use rand::{Rng, RngExt};

/// Exponential back-off with jitter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// From one launch to the next, for the first replacement that has to wait: the third launch in a row.
    pub base: Duration,
    /// It never gets longer than this, jitter aside.
    pub max: Duration,
    /// A replica that was ready for this long has not crashed at its start: counting begins anew.
    pub calm: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { base: Duration::from_millis(200), max: Duration::from_secs(30), calm: Duration::from_secs(5) }
    }
}

impl Backoff {
    /// The time between two launches after `crashes` failures in a row: none for the first two (a replica may just have been killed, and its
    /// successor too), then doubling from `base` to `max`, each 75 to 125 % of that.
    pub(super) fn delay(&self, crashes: u32, rng: &mut impl Rng) -> Duration {
        let Some(doublings) = crashes.checked_sub(2) else { return Duration::ZERO };
        let delay = self.base.saturating_mul(1 << doublings.min(20)).min(self.max);
        delay.mul_f64(rng.random_range(0.75..=1.25))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{SeedableRng, rngs::StdRng};

    #[test]
    fn delays_double_from_the_third_launch_on_and_stay_bounded() {
        let (backoff, mut rng) = (Backoff::default(), StdRng::seed_from_u64(1));
        assert_eq!(backoff.delay(0, &mut rng), Duration::ZERO);
        assert_eq!(backoff.delay(1, &mut rng), Duration::ZERO);
        for (crashes, millis) in [(2, 200.0), (3, 400.0), (4, 800.0), (10, 30_000.0), (u32::MAX, 30_000.0)] {
            let delay = backoff.delay(crashes, &mut rng).as_secs_f64() * 1000.0;
            assert!((millis * 0.75..=millis * 1.25).contains(&delay), "{crashes}: {delay}");
        }
    }
}
