//! Work of a fixed size: CPU time, not time, so that two servers on one core take twice as long.

use std::hint::black_box;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// The most that may be asked for.
pub(super) const MOST: Duration = Duration::from_secs(60);
/// Additions between two looks at the clock: some microseconds.
const BATCH: u64 = 10_000;

/// So many milliseconds, unless that is too much.
pub(super) fn milliseconds(ms: u64) -> Result<Duration, String> {
    let most = MOST.as_millis();
    if u128::from(ms) > most {
        return Err(format!("{ms} ms of work, at most {most} are allowed"));
    }
    Ok(Duration::from_millis(ms))
}

/// Adds numbers until this thread has used so much CPU time; the thread does nothing else meanwhile.
pub(super) fn burn(work: Duration) -> Result<(), String> {
    let until = used()? + work;
    let mut sum = 0_u64;
    while used()? < until {
        for number in 0..BATCH {
            sum = black_box(sum.wrapping_add(number));
        }
    }
    Ok(())
}

/// CPU time of this thread.
fn used() -> Result<Duration, String> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_err(|error| format!("CPU clock: {error}"))?;
    Ok(time.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_takes_what_was_asked_for() {
        let before = used().unwrap();
        burn(Duration::from_millis(20)).unwrap();
        let took = used().unwrap() - before;
        assert!((20..60).contains(&took.as_millis()), "{took:?}");
        assert_eq!(milliseconds(60_000), Ok(MOST));
        assert_eq!(milliseconds(60_001).unwrap_err(), "60001 ms of work, at most 60000 are allowed");
    }
}
