//! What is made of a run: for how long requests were slow, and how often N changed its mind. Pure.

/// Of so many seconds of requests, by when they were due, p99 is taken.
pub(super) const WINDOW: f64 = 1.0;
/// From one look at that window to the next, in seconds.
pub(super) const STEP: f64 = 0.1;
/// So many times its calm value is too much.
pub(super) const TOO_MUCH: f64 = 2.0;

/// p99 by the nearest rank; `None` of none.
pub(super) fn p99(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() as f64 * 0.99).ceil() as usize;
    sorted.get(rank.checked_sub(1)?).copied()
}

/// p99 of a sliding window over requests in the order in which they were due: when it ends, and the value. Windows without
/// requests are left out, and so are those that began before the first of them.
pub(super) fn sliding(requests: &[(f64, f64)], until: f64) -> Vec<(f64, f64)> {
    let looks = ((until - WINDOW) / STEP).floor().max(-1.0) as i64 + 1;
    let ends = (0..looks.max(0)).map(|look| WINDOW + look as f64 * STEP);
    let at = |time: f64| requests.partition_point(|(due, _)| *due <= time);
    let value = |end: f64| Some((end, p99(requests[at(end - WINDOW)..at(end)].iter().map(|(_, took)| *took))?));
    ends.filter_map(value).collect()
}

/// For how many seconds from `from` to `to` the values were above `limit`.
pub(super) fn excess(values: &[(f64, f64)], limit: f64, (from, to): (f64, f64)) -> f64 {
    let above = values.iter().filter(|(at, value)| *at > from && *at <= to + STEP / 2.0 && *value > limit);
    above.count() as f64 * STEP
}

/// How often these values turn from rising to falling or back.
pub(super) fn turns(values: impl IntoIterator<Item = u32>) -> usize {
    let (mut before, mut rising, mut turns) = (None, None, 0);
    for value in values {
        if let Some(old) = before.replace(value).filter(|old| *old != value) {
            let rises = value > old;
            turns += usize::from(rising.is_some_and(|rising| rising != rises));
            rising = Some(rises);
        }
    }
    turns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_a_hundred_may_be_slow() {
        let calm = || (0..99).map(|_| 50.0);
        assert_eq!(p99(calm().chain([900.0])), Some(50.0));
        assert_eq!(p99(calm().chain([900.0, 900.0])), Some(900.0));
        assert_eq!(p99([7.0]), Some(7.0), "one of a few may not");
        assert_eq!(p99([]), None);
    }

    /// Ten requests a second for so many seconds; those that are due in `slow` take 500 ms.
    fn requests(seconds: u32, slow: (f64, f64)) -> Vec<(f64, f64)> {
        let due = (0..seconds * 10).map(|number| f64::from(number) / 10.0);
        due.map(|due| (due, if due >= slow.0 && due < slow.1 { 500.0 } else { 50.0 })).collect()
    }

    #[test]
    fn slow_requests_count_while_they_are_in_the_window() {
        let p99 = sliding(&requests(10, (3.05, 4.95)), 10.0);
        assert_eq!(p99.len(), 91, "from the first whole second to the last, every tenth");
        assert!(p99.first().unwrap().0 == 1.0 && (p99.last().unwrap().0 - 10.0).abs() < 1e-9);
        // Slow ones are due from 3.1 to 4.9, and the last is in the window until 5.8.
        let slow: Vec<f64> = p99.iter().filter(|(_, value)| *value > 100.0).map(|(at, _)| *at).collect();
        let near = |at: Option<&f64>, wanted: f64| (at.unwrap() - wanted).abs() < 0.11;
        assert!(near(slow.first(), 3.1) && near(slow.last(), 5.8), "{slow:?}");
        assert!((excess(&p99, 100.0, (2.0, 10.0)) - 2.8).abs() < 0.11);
        assert!((excess(&p99, 100.0, (2.0, 4.0)) - 1.0).abs() < 0.11, "no further than the end");
        assert!((excess(&p99, 100.0, (5.0, 10.0)) - 0.8).abs() < 0.11, "not before the beginning");
        assert_eq!(excess(&p99, 500.0, (2.0, 10.0)), 0.0, "as much as the limit is allowed");
        assert_eq!(sliding(&[], 5.0), []);
        assert_eq!(sliding(&requests(1, (0.0, 0.0)), 0.5), []);
    }

    #[test]
    fn up_then_down_is_one_turn() {
        assert_eq!(turns([1, 5, 5, 8, 6, 6, 2, 1]), 1);
        assert_eq!(turns([1, 5, 4, 5, 1]), 3, "it wavers");
        assert_eq!(turns([1, 1, 3, 4]), 0);
        assert_eq!(turns([3, 2, 3]), 1, "down first is a turn, too");
        assert_eq!(turns([]), 0);
    }
}
