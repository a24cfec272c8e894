//! What is decided by the load: how many replicas, which one to replace, who gets how much.
//!
//! The parts that decide are pure: measures and time come in, decisions come out. `task` samples the fleet, has decisions
//! carried out, and says how that ended. `docs/autoscaling.md` is the same for operators.
//!
//! | file | what it decides |
//! |---|---|
//! | `scale/` | N, from requests in flight, CPU, latency and a forecast; cooldowns, and the hold after a change by hand |
//! | `scale/demand.rs` | how many replicas a sample needs, and the words for it |
//! | `scale/ledger.rs` | whose doing a change of N was |
//! | `outlier.rs` | which replica is so much worse than its peers that it is to be replaced |
//! | `weigh/` | weights and tiers, from latency, failures, CPU and memory |
//! | `smooth.rs` | moving average for irregular intervals |
//! | `holt.rs` | level and trend for irregular intervals, and a forecast |
//! | `window.rs` | the least or greatest of the last so many seconds |
//! | `journal.rs`, `figures.rs` | nothing: they keep the decisions of late, and what was measured last |

use std::time::Duration;

mod figures;
pub mod holt;
mod journal;
pub mod outlier;
pub mod scale;
pub mod smooth;
mod task;
pub mod weigh;
mod window;

pub use figures::{Board, Figures};
pub use journal::{Entry, Journal, Kind};
pub use task::{Latencies, Pilot, PilotConfig, Sees};

/// A time as reasons name it: `12 ms`, `0.4 ms`, `1.5 s`, `5 min`.
fn time(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match seconds {
        _ if seconds >= 120.0 && time.as_secs().is_multiple_of(60) => format!("{} min", time.as_secs() / 60),
        1.0.. => format!("{} s", figure(seconds)),
        _ => format!("{} ms", figure(seconds * 1000.0)),
    }
}

/// A figure as reasons name it: two or three digits, no more than there is to tell.
fn figure(value: f64) -> String {
    let unit = match value {
        10.0.. => 1.0,
        1.0.. => 10.0,
        _ => 100.0,
    };
    format!("{}", (value * unit).round() / unit)
}

/// A share in percent, as reasons name it.
fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent >= 0.95 { format!("{percent:.0} %") } else { format!("{} %", figure(percent)) }
}

/// The median: of an even number of values, the mean of the two in the middle. `None` of none.
fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    Some(if sorted.len() % 2 == 1 { upper } else { f64::midpoint(sorted[sorted.len() / 2 - 1], upper) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_and_times_are_as_short_as_they_can_be() {
        assert_eq!([0.284, 3.21, 38.04, 180.4, 2.0].map(figure), ["0.28", "3.2", "38", "180", "2"]);
        let micros = [400, 12_000, 1_500_000, 60_000_000, 300_000_000, 301_000_000];
        assert_eq!(
            micros.map(|micros| time(Duration::from_micros(micros))),
            ["0.4 ms", "12 ms", "1.5 s", "60 s", "5 min", "301 s"]
        );
        assert_eq!(percent(0.333), "33 %");
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median([]), None);
        assert_eq!(median([3.0, 9.0, 1.0]), Some(3.0));
        assert_eq!(median([3.0, 9.0, 1.0, 4.0]), Some(3.5));
    }
}
