//! The least or greatest value of the last so many seconds, over values that hold until the next one. Pure: time comes in.
//!
//! A monotonic queue: what a later value outdoes for the rest of its time is forgotten, so a window keeps at most as many
//! entries as there are different values, and each is moved once.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Which value of the window is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extreme {
    Least,
    Greatest,
}

/// See the module's documentation.
#[derive(Debug, Clone)]
pub(super) struct Window {
    length: Duration,
    extreme: Extreme,
    /// Since when values have come in.
    since: Option<Instant>,
    /// A value, and until when it held; the last one still does.
    kept: VecDeque<(usize, Instant)>,
}

impl Window {
    pub(super) fn new(length: Duration, extreme: Extreme) -> Self {
        Self { length, extreme, since: None, kept: VecDeque::new() }
    }

    /// Takes in a value that holds from `now` on. Gives the extreme of all that held within the window's length; `None`
    /// until values have come in for so long.
    pub(super) fn observe(&mut self, value: usize, now: Instant) -> Option<usize> {
        let since = *self.since.get_or_insert(now);
        if let Some(last) = self.kept.back_mut() {
            last.1 = now;
        }
        let outdone = |old: usize| match self.extreme {
            Extreme::Least => old >= value,
            Extreme::Greatest => old <= value,
        };
        while self.kept.back().is_some_and(|(old, _)| outdone(*old)) {
            self.kept.pop_back();
        }
        self.kept.push_back((value, now));
        // What held at this very moment last is over, unless it is the newest.
        while self.kept.len() > 1 && now.saturating_duration_since(self.kept[0].1) >= self.length {
            self.kept.pop_front();
        }
        let full = now.saturating_duration_since(since) >= self.length;
        full.then(|| self.kept.front().map(|(value, _)| *value)).flatten()
    }

    /// Forgets all: the length has to pass again.
    pub(super) fn clear(&mut self) {
        self.since = None;
        self.kept.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    const MILLI: Duration = Duration::from_millis(1);

    #[test]
    fn it_gives_what_a_search_of_all_values_gives_and_stays_small() {
        for seed in 0..20 {
            let (mut rng, begin) = (StdRng::seed_from_u64(seed), Instant::now());
            let extreme = if seed % 2 == 0 { Extreme::Least } else { Extreme::Greatest };
            let length = rng.random_range(0..200);
            let mut window = Window::new(MILLI * length, extreme);
            let (mut all, mut at) = (Vec::<(u32, usize)>::new(), 0);
            for _ in 0..500 {
                at += rng.random_range(1..60);
                all.push((at, rng.random_range(0..8)));
                // A value holds until the next one comes, which ends it at that moment.
                let holding = (0..all.len())
                    .filter(|one| all.get(one + 1).is_none_or(|next| next.0 + length > at))
                    .map(|one| all[one].1);
                let searched = if extreme == Extreme::Least { holding.min() } else { holding.max() };
                let expected = if at - all[0].0 >= length { searched } else { None };
                assert_eq!(window.observe(all[all.len() - 1].1, begin + MILLI * at), expected, "seed {seed} at {at}");
                assert!(window.kept.len() <= 8, "{} kept", window.kept.len());
            }
        }
    }

    #[test]
    fn samples_further_apart_than_the_window_count_each_for_its_own_time() {
        let (mut window, begin) = (Window::new(100 * MILLI, Extreme::Least), Instant::now());
        assert_eq!(window.observe(1, begin), None);
        assert_eq!(window.observe(5, begin + 1000 * MILLI), Some(1), "the 1 held until now");
        assert_eq!(window.observe(6, begin + 2000 * MILLI), Some(5));
        window.clear();
        assert_eq!(window.observe(6, begin + 3000 * MILLI), None);
    }
}
