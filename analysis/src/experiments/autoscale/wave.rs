//! The load's course: low, high, low, and so on, each at a fixed rate. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A square wave of requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Wave {
    /// Requests a second.
    pub(super) low: u32,
    pub(super) high: u32,
    /// Seconds of each stretch: low, high, low, and so on.
    pub(super) stretches: Vec<u32>,
}

/// One of its waves, in seconds from the beginning: the load jumps up, falls, and stays low until the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) jump: u32,
    pub(super) fall: u32,
    pub(super) end: u32,
}

impl Wave {
    /// Every stretch: where it begins, how long it is, and its rate.
    pub(super) fn parts(&self) -> impl Iterator<Item = (u32, u32, u32)> + '_ {
        let rates = [self.low, self.high].into_iter().cycle();
        self.stretches.iter().zip(rates).scan(0, |begin, (seconds, rate)| {
            let part = (*begin, *seconds, rate);
            *begin += seconds;
            Some(part)
        })
    }

    /// When the request with this number is due, from the beginning; `None` behind the last.
    pub(super) fn due(&self, number: u32) -> Option<Duration> {
        let mut left = number;
        for (begin, seconds, rate) in self.parts() {
            let here = seconds * rate;
            if left < here {
                let nanos = u64::from(left) * 1_000_000_000 / u64::from(rate);
                return Some(Duration::from_secs(u64::from(begin)) + Duration::from_nanos(nanos));
            }
            left -= here;
        }
        None
    }

    /// All requests.
    pub(super) fn requests(&self) -> u32 {
        self.parts().map(|(_, seconds, rate)| seconds * rate).sum()
    }

    /// How long it lasts, in seconds.
    pub(super) fn seconds(&self) -> u32 {
        self.stretches.iter().sum()
    }

    /// The shortest time between two requests.
    pub(super) fn tick(&self) -> Duration {
        Duration::from_secs(1) / self.low.max(self.high).max(1)
    }

    /// Its waves.
    pub(super) fn spans(&self) -> Vec<Span> {
        let begins: Vec<u32> = self.parts().map(|(begin, ..)| begin).chain([self.seconds()]).collect();
        // Each begins with a high stretch, and has a low one behind it unless the load ends before.
        let span = |high: &[u32]| match *high {
            [jump, fall] => Span { jump, fall, end: fall },
            [jump, fall, end] => Span { jump, fall, end },
            _ => Span { jump: 0, fall: 0, end: 0 },
        };
        let at = (1..begins.len().saturating_sub(1)).step_by(2);
        at.map(|at| span(&begins[at..(at + 3).min(begins.len())])).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave() -> Wave {
        Wave { low: 10, high: 200, stretches: vec![2, 3, 4, 1, 1] }
    }

    #[test]
    fn every_stretch_has_its_rate() {
        let wave = wave();
        assert_eq!((wave.requests(), wave.seconds()), (20 + 600 + 40 + 200 + 10, 11));
        let due = |number| wave.due(number).map(|due| due.as_millis());
        assert_eq!([0, 1, 19].map(due), [Some(0), Some(100), Some(1900)]);
        assert_eq!([20, 21, 619].map(due), [Some(2000), Some(2005), Some(4995)], "the high stretch");
        assert_eq!([620, 660, 860, 869].map(due), [Some(5000), Some(9000), Some(10_000), Some(10_900)]);
        assert_eq!(due(870), None);
        assert_eq!(wave.tick(), Duration::from_millis(5));
    }

    #[test]
    fn a_wave_lasts_until_the_next_one() {
        let spans = |stretches: &[u32]| Wave { stretches: stretches.to_vec(), ..wave() }.spans();
        let span = |jump, fall, end| Span { jump, fall, end };
        assert_eq!(spans(&[2, 3, 4, 1, 1]), [span(2, 5, 9), span(9, 10, 11)]);
        assert_eq!(spans(&[2, 3, 4, 1]), [span(2, 5, 9), span(9, 10, 10)], "it ends high");
        assert_eq!(spans(&[2]), []);
    }
}
