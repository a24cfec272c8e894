//! How many replicas there shall be. Pure: samples and time come in, decisions come out.
//!
//! Owns the rules: when a need has lasted long enough, what may follow what, how far one decision goes. Does *not* own what a
//! sample needs (`demand`), nor whose doing a change of N was (`ledger`).
//!
//! The rules are those of the Kubernetes horizontal pod autoscaler (the largest of all signals' recommendations, a tolerance
//! of a tenth, stabilisation windows), with requests in flight as first signal: they are what the load asks for at once, by
//! Little's law the rate times the latency, while CPU lags behind and latency tells of trouble only when it is there.

mod demand;
mod ledger;
#[cfg(test)]
mod tests;

use std::time::Duration;

use tokio::time::Instant;

use self::demand::{Asks, Demand};
use self::ledger::Ledger;
use super::time;
use super::window::{Extreme, Window};

/// What the scaler goes by. A target that is off is not looked at; without any, N is only kept within its bounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScaleConfig {
    /// Fewest replicas. Default 1.
    pub min: usize,
    /// Most replicas; `min` if that is more. Default 10.
    pub max: usize,
    /// Requests in flight that each replica shall have, on average. Default off.
    pub in_flight: Option<f64>,
    /// CPU that each replica shall use, as a share of one core or of its limit. Default off.
    pub cpu: Option<f64>,
    /// Latency that 99 % of the requests shall stay under. Default off.
    pub p99: Option<Duration>,
    /// Most replicas that one decision adds, or takes away; 1 or more. Default 4.
    pub step: usize,
    /// How long there have to be too few before some are added. Default 1 s.
    pub up_window: Duration,
    /// How long there have to be too many before one is taken away. Default 60 s.
    pub down_window: Duration,
    /// From one addition to the next, at least; also the pause after an order that was refused. Default 3 s.
    pub up_cooldown: Duration,
    /// From any change of N to the next reduction, at least. Default 60 s.
    pub down_cooldown: Duration,
    /// No decisions for so long after somebody else changed N. Default 5 min.
    pub hold: Duration,
    /// How far ahead the forecast of the request rate looks; `None` for no forecast. Default 3 s.
    pub forecast: Option<Duration>,
    /// Time constant of the averages of requests in flight and CPU. Default 500 ms.
    pub smoothing: Duration,
}

impl Default for ScaleConfig {
    fn default() -> Self {
        Self {
            min: 1,
            max: 10,
            in_flight: None,
            cpu: None,
            p99: None,
            step: 4,
            up_window: Duration::from_secs(1),
            down_window: Duration::from_secs(60),
            up_cooldown: Duration::from_secs(3),
            down_cooldown: Duration::from_secs(60),
            hold: Duration::from_secs(300),
            forecast: Some(Duration::from_secs(3)),
            smoothing: Duration::from_millis(500),
        }
    }
}

/// What was measured at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sample {
    /// N: replicas that there shall be, those that are starting included.
    pub desired: usize,
    /// Replicas in rotation.
    pub ready: usize,
    /// Requests in flight, of all replicas together.
    pub in_flight: u64,
    /// Requests a second since the last sample.
    pub rate: f64,
    /// Latency that 99 % of the latest requests stayed under; `None` if there were none.
    pub p99: Option<Duration>,
    /// CPU that a ready replica uses on average, as a share of one core or of its limit; `None` if it is not known.
    pub cpu: Option<f64>,
    /// A change or a rolling update is under way: the sample counts, but nothing is decided.
    pub busy: bool,
}

/// A change of N.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// N as it is.
    pub from: usize,
    /// N as it shall be.
    pub to: usize,
    /// Why, with the figure and its limit: `+1: 38 in flight per replica > 30 for 10 s`.
    pub reason: String,
}

/// See the module's documentation. Whoever calls it carries out each decision before it asks for the next one, or says that
/// it [failed](Scaler::failed).
#[derive(Debug)]
pub struct Scaler {
    config: ScaleConfig,
    demand: Demand,
    ledger: Ledger,
    windows: Windows,
}

/// What samples have asked for lately.
#[derive(Debug)]
struct Windows {
    need: Window,
    want: Window,
    need_ahead: Window,
    want_ahead: Window,
    enough: Window,
}

/// What all of a window's samples have asked for: `None` before it is full.
#[derive(Debug, Clone, Copy)]
struct Lasting {
    need: Option<usize>,
    want: Option<usize>,
    need_ahead: Option<usize>,
    want_ahead: Option<usize>,
    enough: Option<usize>,
}

impl Windows {
    fn new(config: &ScaleConfig) -> Self {
        let up = Window::new(config.up_window, Extreme::Least);
        let down = Window::new(config.down_window, Extreme::Greatest);
        Self { need: up.clone(), want: up.clone(), need_ahead: up.clone(), want_ahead: up, enough: down }
    }

    fn observe(&mut self, asks: &Asks, now: Instant) -> Lasting {
        Lasting {
            need: self.need.observe(asks.need, now),
            want: self.want.observe(asks.want, now),
            need_ahead: self.need_ahead.observe(asks.need_ahead, now),
            want_ahead: self.want_ahead.observe(asks.want_ahead, now),
            enough: self.enough.observe(asks.enough, now),
        }
    }

    /// What was asked for before newcomers could help says nothing about how it is with them.
    fn restart_up(&mut self) {
        for window in [&mut self.need, &mut self.want, &mut self.need_ahead, &mut self.want_ahead] {
            window.clear();
        }
    }
}

impl Scaler {
    /// A scaler that has seen nothing yet, so that it decides nothing before its windows are full. Targets that are not
    /// above 0 count as off.
    pub fn new(config: ScaleConfig) -> Self {
        let above_zero = |target: &f64| *target > 0.0;
        let config = ScaleConfig {
            max: config.max.max(config.min),
            step: config.step.max(1),
            in_flight: config.in_flight.filter(above_zero),
            cpu: config.cpu.filter(above_zero),
            forecast: config.forecast.filter(|ahead| !ahead.is_zero()),
            ..config
        };
        Self { demand: Demand::new(&config), ledger: Ledger::default(), windows: Windows::new(&config), config }
    }

    /// Takes in a sample and says whether N has to change. Samples may come at any interval; several in an `up_window` are
    /// best.
    pub fn observe(&mut self, sample: &Sample, now: Instant) -> Option<Decision> {
        let asks = self.demand.observe(sample, &self.config, now);
        if self.ledger.observe(sample, &self.config, now) {
            self.windows.restart_up();
        }
        let lasting = self.windows.observe(&asks, now);
        if sample.busy || !self.ledger.free(&self.config, now) {
            return None;
        }
        let n = sample.desired;
        let (to, why) = self
            .within_bounds(n, now)
            .or_else(|| self.more(n, &asks, lasting, now))
            .or_else(|| self.fewer(sample, &asks, lasting, now))?;
        self.ledger.ordered(n, to, now);
        let sign = if to > n { '+' } else { '-' };
        Some(Decision { from: n, to, reason: format!("{sign}{}: {why}", to.abs_diff(n)) })
    }

    /// The last decision was not carried out, or not to its end: N is what it was before, and that is nobody's doing. Nothing
    /// is decided for `up_cooldown`.
    pub fn failed(&mut self, now: Instant) {
        self.ledger.failed(now);
    }

    /// Until when nothing is decided because somebody else has changed N; `None` when nobody has, or it is long ago.
    pub fn holds_until(&self) -> Option<Instant> {
        self.ledger.holds_until()
    }

    /// Brings an N that is out of bounds within, `step` by `step`.
    fn within_bounds(&self, n: usize, now: Instant) -> Option<(usize, String)> {
        let ScaleConfig { min, max, step, .. } = self.config;
        if n < min && self.ledger.may_add(&self.config, now) {
            Some((min.min(n.saturating_add(step)), format!("{n} is below the least, {min}")))
        } else if n > max && self.ledger.may_remove(&self.config, now) {
            Some((max.max(n.saturating_sub(step)), format!("{n} is above the most, {max}")))
        } else {
            None
        }
    }

    fn more(&mut self, n: usize, asks: &Asks, lasting: Lasting, now: Instant) -> Option<(usize, String)> {
        let most = self.config.max.min(n.saturating_add(self.config.step));
        if n >= most || !self.ledger.may_add(&self.config, now) {
            return None;
        }
        let measured = lasting.want.filter(|_| lasting.need.is_some_and(|need| need > n)).map(|want| want.min(most));
        let half_more = n + (n / 2).max(1);
        let foreseen = lasting.want_ahead.filter(|_| lasting.need_ahead.is_some_and(|need| need > n));
        let foreseen = foreseen.map(|want| want.min(half_more).min(most));
        // What is measured goes first, unless the forecast asks for more.
        match (measured, foreseen) {
            (Some(to), None) => Some((to, self.why_more(n, asks, now))),
            (Some(to), Some(ahead)) if to >= ahead => Some((to, self.why_more(n, asks, now))),
            (_, Some(to)) => Some((to, asks.foreseen(n, &self.config))),
            (None, None) => None,
        }
    }

    fn why_more(&mut self, n: usize, asks: &Asks, now: Instant) -> String {
        if asks.is_slow() {
            self.demand.strained(now);
        }
        format!("{} for {}", asks.too_few(n, &self.config), time(self.config.up_window))
    }

    fn fewer(&self, sample: &Sample, asks: &Asks, lasting: Lasting, now: Instant) -> Option<(usize, String)> {
        let n = sample.desired;
        let enough = lasting.enough?.max(self.config.min);
        // Nobody is taken away while another one is missing.
        if enough >= n || sample.ready < n || !self.ledger.may_remove(&self.config, now) {
            return None;
        }
        let far_too_many = n / 2 >= enough;
        let fewer = if far_too_many { ((n - enough) / 2).clamp(1, self.config.step) } else { 1 };
        let are = if enough == 1 { "is" } else { "are" };
        let window = time(self.config.down_window);
        Some((n - fewer, format!("{}, {enough} {are} enough for {window}", asks.too_many(n))))
    }
}
