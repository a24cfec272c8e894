//! Checks each decision against the rules, with averages and a history of its own.

use std::collections::VecDeque;

use lb::pilot::scale::{Decision, Sample, ScaleConfig};

/// What was seen at a sample.
struct Seen {
    at: f64,
    in_flight: f64,
    rate: f64,
}

pub(crate) struct Watch {
    config: ScaleConfig,
    history: VecDeque<Seen>,
    last_up: Option<f64>,
    last_change: Option<f64>,
    /// The most in flight, smoothed, in the window before the last reduction.
    at_down: Option<f64>,
    held_until: f64,
    /// N was once within its bounds, and nobody has touched it since.
    within: bool,
}

impl Watch {
    pub(crate) fn new(config: ScaleConfig) -> Self {
        Self {
            config,
            history: VecDeque::new(),
            last_up: None,
            last_change: None,
            at_down: None,
            held_until: 0.0,
            within: false,
        }
    }

    pub(crate) fn by_hand(&mut self, at: f64) {
        self.held_until = at + self.config.hold.as_secs_f64();
        self.within = false;
        self.at_down = None;
    }

    fn last(&self, seconds: f64, at: f64) -> impl Iterator<Item = &Seen> {
        self.history.iter().filter(move |seen| seen.at > at - seconds - 1e-6)
    }

    pub(crate) fn check(&mut self, sample: &Sample, decision: Option<&Decision>, at: f64) {
        let old = self.history.back();
        let smoothing = self.config.smoothing.as_secs_f64();
        let in_flight = old.map_or(sample.in_flight as f64, |old| {
            let left = (-(at - old.at) / smoothing).exp();
            old.in_flight * left + sample.in_flight as f64 * (1.0 - left)
        });
        self.history.push_back(Seen { at, in_flight, rate: sample.rate });
        let longest = self.config.down_window.max(self.config.up_window).as_secs_f64() + 10.0;
        while self.history.front().is_some_and(|seen| seen.at < at - longest) {
            self.history.pop_front();
        }
        let bounds = self.config.min..=self.config.max;
        assert!(!self.within || bounds.contains(&sample.desired), "N = {} at {at} s", sample.desired);
        self.within |= bounds.contains(&sample.desired);
        let Some(decision) = decision else { return };
        let context = format!("{decision:?} at {at} s");
        assert!(!sample.busy, "{context}: while busy");
        assert!(at >= self.held_until, "{context}: held until {}", self.held_until);
        assert_eq!(decision.from, sample.desired, "{context}");
        assert_ne!(decision.to, decision.from, "{context}");
        assert!(decision.to.abs_diff(decision.from) <= self.config.step, "{context}: step");
        if decision.to > decision.from {
            self.check_up(decision, at);
        } else {
            self.check_down(decision, at);
        }
        self.last_change = Some(at);
    }

    fn check_up(&mut self, decision: &Decision, at: f64) {
        let (config, context) = (&self.config, format!("{decision:?} at {at} s"));
        let cooled = self.last_up.is_none_or(|up| at - up > config.up_cooldown.as_secs_f64() - 1e-6);
        assert!(cooled, "{context}: the last was at {:?}", self.last_up);
        self.last_up = Some(at);
        let by = decision.to - decision.from;
        if decision.from < config.min {
            assert_eq!(decision.reason, format!("+{by}: {} is below the least, {}", decision.from, config.min));
            return;
        }
        assert!(decision.to <= config.max, "{context}");
        let (n, window) = (decision.from as f64, config.up_window.as_secs_f64());
        let begin = self.history.front().unwrap().at;
        assert!(at - begin > window - 1e-6, "{context}: seen since {begin}");
        let now = self.history.back().unwrap();
        if decision.reason.contains("in flight") {
            let target = config.in_flight.unwrap();
            if decision.reason.contains("forecast") {
                assert!(decision.to <= decision.from + (decision.from / 2).max(1), "{context}: more than half more");
                // It has to be seen that more come than did.
                let before = self.history.iter().map(|seen| seen.rate).fold(f64::MAX, f64::min);
                let recent: Vec<_> = self.last(1.0, at).map(|seen| seen.rate).collect();
                assert!(recent.iter().sum::<f64>() / recent.len() as f64 > before, "{context}: {before} -> {recent:?}");
            } else {
                let least = self.last(window, at).map(|seen| seen.in_flight).fold(f64::MAX, f64::min);
                assert!(least > 1.1 * target * n - 1e-6, "{context}: {least} in flight");
                let enough = (decision.to as f64 - 1.0) * target < least + 1e-6;
                assert!(enough, "{context}: more than were asked for, with {least} in flight");
                if let Some(before) = self.at_down {
                    assert!(now.in_flight > 1.1 * before, "{context}: flaps, {before} -> {}", now.in_flight);
                }
                let figure = named(&decision.reason);
                assert!((figure - now.in_flight / n).abs() <= 0.06 * figure, "{context}: {}", now.in_flight / n);
            }
            assert!(decision.reason.contains(&format!(" in flight per replica > {target}")), "{context}");
        } else if decision.reason.contains("CPU") {
            let limit = format!(" % per replica > {:.0} % for ", config.cpu.unwrap() * 100.0);
            assert!(decision.reason.contains(&limit), "{context}");
        } else {
            assert!(decision.reason.contains("p99 of ") && decision.reason.contains(" > "), "{context}");
            assert_eq!(by, 1, "{context}");
        }
    }

    fn check_down(&mut self, decision: &Decision, at: f64) {
        let (config, context) = (&self.config, format!("{decision:?} at {at} s"));
        let cooled = self.last_change.is_none_or(|change| at - change > config.down_cooldown.as_secs_f64() - 1e-6);
        assert!(cooled, "{context}: the last change was at {:?}", self.last_change);
        if decision.from > config.max {
            assert!(decision.reason.ends_with(&format!("{} is above the most, {}", decision.from, config.max)));
            return;
        }
        assert!(decision.to >= config.min, "{context}");
        let window = config.down_window.as_secs_f64();
        let begin = self.history.front().unwrap().at;
        assert!(at - begin > window - 1e-6, "{context}: seen since {begin}");
        assert!(decision.reason.ends_with(&format!(" enough for {}", seconds(window))), "{context}");
        if let Some(target) = config.in_flight {
            let most = self.last(window, at).map(|seen| seen.in_flight).fold(0.0, f64::max);
            assert!(most < 0.9 * target * decision.to as f64 + 1e-6, "{context}: {most} in flight");
            self.at_down = Some(most);
        }
    }
}

/// The figure after the sign: of `+1: 38 in flight per replica > 30`.
fn named(reason: &str) -> f64 {
    reason.split(' ').nth(1).and_then(|figure| figure.parse().ok()).unwrap_or_else(|| panic!("no figure in {reason}"))
}

fn seconds(window: f64) -> String {
    if window < 10.0 { format!("{} s", (window * 10.0).round() / 10.0) } else { format!("{window:.0} s") }
}
