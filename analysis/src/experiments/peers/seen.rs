//! What clients see of a failure.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A request that takes longer is slow.
pub(super) const SLOW: Duration = Duration::from_millis(100);

/// One request; times count from the load's begin.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) ended: Duration,
    /// From when it was due.
    pub(super) took: Duration,
    /// The replica that answered, or what went wrong.
    pub(super) answer: Result<String, String>,
}

/// What was done in the course of a load.
#[derive(Debug, Clone, Copy)]
pub(super) struct Marks {
    /// A replica was about to be harmed.
    pub(super) harm: Duration,
    /// The harm was done.
    pub(super) done: Duration,
    /// The round was over: one that was paused could go on.
    pub(super) over: Duration,
}

/// What came of a round.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Figures {
    pub(super) requests: u64,
    /// By what went wrong.
    pub(super) failures: BTreeMap<String, u64>,
    pub(super) slow: u64,
    pub(super) slowest_ms: f64,
    /// From the harm to the end of the last request that failed or was slow, in seconds.
    pub(super) disturbed: Option<f64>,
    /// From the harm to the first answer of a replica that is none of the survivors, in seconds.
    pub(super) again: Option<f64>,
}

impl Figures {
    /// Of a round in which `victim` was harmed, and `survivors` were not.
    pub(super) fn of(seen: &[Seen], marks: Marks, victim: &str, survivors: &[String]) -> Self {
        let mut figures = Self { requests: seen.len() as u64, ..Self::default() };
        let (mut disturbed, mut again) = (None, None);
        for Seen { ended, took, answer } in seen {
            let slow = *took > SLOW;
            figures.slow += u64::from(slow && answer.is_ok());
            figures.slowest_ms = figures.slowest_ms.max(took.as_secs_f64() * 1e3);
            if let Err(why) = answer {
                *figures.failures.entry(why.clone()).or_default() += 1;
            }
            if *ended < marks.harm {
                continue;
            }
            if slow || answer.is_err() {
                disturbed = disturbed.max(Some(*ended));
            }
            if let Ok(name) = answer
                && *ended <= marks.over
                && !survivors.contains(name)
                // Its own last answers may be read after its end.
                && (name != victim || ended.saturating_sub(*took) > marks.done)
            {
                again = Some(again.map_or(*ended, |first: Duration| first.min(*ended)));
            }
        }
        let since = |time: Option<Duration>| time.map(|time| time.saturating_sub(marks.harm).as_secs_f64());
        Self { disturbed: since(disturbed), again: since(again), ..figures }
    }

    /// So many were due, and nobody has told of the rest.
    pub(super) fn lack(&mut self, why: String, due: u64) {
        let rest = due.saturating_sub(self.requests);
        self.requests += rest;
        *self.failures.entry(why).or_default() += rest;
    }

    pub(super) fn failed(&self) -> u64 {
        self.failures.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARKS: Marks =
        Marks { harm: Duration::from_millis(500), done: Duration::from_millis(600), over: Duration::from_millis(3500) };

    fn seen(ended: u64, took: u64, answer: Result<&str, &str>) -> Seen {
        Seen {
            ended: Duration::from_millis(ended),
            took: Duration::from_millis(took),
            answer: answer.map(str::to_owned).map_err(str::to_owned),
        }
    }

    fn figures(seen: &[Seen]) -> Figures {
        Figures::of(seen, MARKS, "S2", &["S1".into(), "S3".into()])
    }

    #[test]
    fn failed_and_slow_requests_are_counted_and_the_last_of_them_ends_the_disturbance() {
        let all = [
            seen(200, 150, Ok("S1")),
            seen(400, 1, Ok("S2")),
            seen(700, 100, Ok("S3")),
            seen(900, 350, Ok("S1")),
            seen(1200, 5, Err("status 502")),
            seen(1100, 400, Err("status 502")),
            seen(1300, 2, Ok("S1")),
        ];
        let figures = figures(&all);
        assert_eq!((figures.requests, figures.failed(), figures.slow, figures.slowest_ms), (7, 2, 2, 400.0));
        assert_eq!(figures.failures, BTreeMap::from([("status 502".into(), 2)]));
        assert_eq!((figures.disturbed, figures.again), (Some(0.7), None));
    }

    #[test]
    fn nothing_that_was_before_the_harm_disturbs() {
        let figures = figures(&[seen(499, 300, Ok("S1")), seen(800, 1, Ok("S1"))]);
        assert_eq!((figures.slow, figures.disturbed), (1, None));
    }

    #[test]
    fn what_nobody_has_told_of_has_failed() {
        let mut figures = figures(&[seen(400, 1, Ok("S1"))]);
        figures.lack("no answer".into(), 3);
        assert_eq!((figures.requests, figures.failed(), &figures.failures["no answer"]), (3, 2, &2));
    }

    #[test]
    fn three_replicas_work_again_when_a_new_one_answers_or_the_old_one_does_anew() {
        let again = |all: &[Seen]| figures(all).again;
        assert_eq!(again(&[seen(1500, 1, Ok("S4")), seen(1400, 1, Ok("S4")), seen(550, 1, Ok("S1"))]), Some(0.9));
        // A newcomer may answer before the harm has been reported as done, the victim may not.
        assert_eq!(again(&[seen(590, 1, Ok("S4"))]), Some(0.09));
        assert_eq!(again(&[seen(590, 1, Ok("S2"))]), None);
        assert_eq!(again(&[seen(1000, 450, Ok("S2"))]), None, "it was due before, so it was answered before");
        assert_eq!(again(&[seen(1000, 1, Ok("S2"))]), Some(0.5));
        assert_eq!(again(&[seen(3600, 1, Ok("S2"))]), None, "it was let go on");
    }
}
