//! Whether a request that failed on one replica may go to another. Pure.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// How far a failed try had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// Nothing of the request has reached the replica.
    NotSent,
    /// Some or all of it may have; no byte of a response was seen.
    Sent,
    /// It answered, but not in a way that can be passed on.
    Answered,
}

/// May be repeated without the client noticing (RFC 9110, section 9.2.2: idempotent methods).
pub(super) fn is_repeatable(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
}

/// The verdict on one more try, before its cost is looked at. `repeatable`: the method is, and the body can be sent again.
/// `sent` counts the tries that may have reached a replica, this one included if it did.
///
/// A request that never reached a replica goes on as long as there are replicas left: each that refuses is out of
/// rotation by then, so this ends.
pub(super) fn may_retry(progress: Progress, repeatable: bool, sent: u32, tries: u32) -> bool {
    match progress {
        Progress::NotSent => true,
        Progress::Sent => repeatable && sent < tries,
        Progress::Answered => false,
    }
}

/// How many retries there may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryBudget {
    /// Share of the requests, 0 to 1; `None` for no limit at all.
    pub share: Option<f64>,
    /// A second, on top of the share.
    pub per_second: u32,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self { share: Some(0.2), per_second: 3 }
    }
}

/// A share such as `20%`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Percent(pub f64);

impl FromStr for Percent {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.strip_suffix('%').and_then(|number| number.parse::<f64>().ok());
        match number.filter(|number| (0.0..=100.0).contains(number)) {
            Some(number) => Ok(Self(number / 100.0)),
            None => Err("a percentage from 0% to 100%".into()),
        }
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0 * 100.0)
    }
}

/// Seconds that the budget looks back.
const WINDOW: u64 = 10;

/// Keeps the retries of all workers within a budget, so that replicas in trouble do not get the load of their trouble on
/// top. A request costs it one addition.
#[derive(Debug)]
pub(super) struct Retries {
    budget: RetryBudget,
    requests: AtomicU64,
    past: Mutex<Past>,
}

/// What happened in the window.
#[derive(Debug, Default)]
struct Past {
    /// Second, requests counted until it began, retries in it; oldest first.
    seconds: VecDeque<(u64, u64, u64)>,
}

impl Retries {
    /// A full budget.
    pub(super) fn new(budget: RetryBudget) -> Self {
        Self { budget, requests: AtomicU64::new(0), past: Mutex::default() }
    }

    /// A request has come.
    #[inline]
    pub(super) fn count_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes note of the time, in seconds since some beginning. To be called at least every second.
    pub(super) fn tick(&self, second: u64) {
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        past.advance(second, self.requests.load(Ordering::Relaxed));
    }

    /// Pays for a retry, if there is enough left.
    pub(super) fn pay(&self, second: u64) -> bool {
        let Some(share) = self.budget.share else { return true };
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        // Only looked at with the lock held, so that it never runs backwards.
        let requests = self.requests.load(Ordering::Relaxed);
        past.advance(second, requests);
        let before = past.seconds.front().map_or(0, |(_, before, _)| *before);
        let spent: u64 = past.seconds.iter().map(|(_, _, retries)| retries).sum();
        let allowed = share * (requests - before) as f64 + (u64::from(self.budget.per_second) * WINDOW) as f64;
        if spent as f64 + 1.0 > allowed {
            return false;
        }
        if let Some((_, _, retries)) = past.seconds.back_mut() {
            *retries += 1;
        }
        true
    }
}

impl Past {
    fn advance(&mut self, second: u64, requests: u64) {
        if self.seconds.back().is_none_or(|(last, _, _)| *last < second) {
            // The requests before the very first second belong to it.
            let before = if self.seconds.is_empty() { 0 } else { requests };
            self.seconds.push_back((second, before, 0));
        }
        while self.seconds.front().is_some_and(|(first, _, _)| first + WINDOW <= second) && self.seconds.len() > 1 {
            self.seconds.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_do_no_harm_is_repeated() {
        for method in ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"] {
            assert!(is_repeatable(method), "{method}");
        }
        for method in ["POST", "PATCH", "CONNECT", "PURGE", "get"] {
            assert!(!is_repeatable(method), "{method}");
        }
        assert!(may_retry(Progress::NotSent, false, 0, 3));
        assert!(!may_retry(Progress::Sent, false, 1, 3));
        assert!(may_retry(Progress::Sent, true, 2, 3));
        assert!(!may_retry(Progress::Sent, true, 3, 3));
        assert!(!may_retry(Progress::Answered, true, 1, 3));
    }

    fn paid(retries: &Retries, second: u64) -> u64 {
        (0..1000).take_while(|_| retries.pay(second)).count() as u64
    }

    #[test]
    fn a_budget_is_a_share_of_the_last_requests_and_some_a_second() {
        let retries = Retries::new(RetryBudget { share: Some(0.2), per_second: 3 });
        assert_eq!(paid(&retries, 0), 30, "the window's worth to begin with");
        (0..100).for_each(|_| retries.count_request());
        assert_eq!(paid(&retries, 0), 20);
        for second in 1..10 {
            retries.tick(second);
            assert_eq!(paid(&retries, second), 0);
        }
        // What was spent, and the requests with it, are out of the window now.
        assert_eq!(paid(&retries, 10), 30);
        (0..50).for_each(|_| retries.count_request());
        assert_eq!(paid(&retries, 15), 10);
        assert_eq!(paid(&retries, 60), 30);
    }

    #[test]
    fn no_share_means_no_limit_and_nothing_means_none() {
        assert_eq!(paid(&Retries::new(RetryBudget { share: None, per_second: 0 }), 0), 1000);
        assert_eq!(paid(&Retries::new(RetryBudget { share: Some(0.0), per_second: 0 }), 0), 0);
    }

    #[test]
    fn shares_are_percentages() {
        for text in ["0%", "20%", "12.5%", "100%"] {
            assert_eq!(text.parse::<Percent>().unwrap().to_string(), text);
        }
        for bad in ["", "20", "-1%", "101%", "x%", "NaN%"] {
            assert!(bad.parse::<Percent>().is_err(), "{bad}");
        }
    }
}
