//! How many replicas a sample asks for, by each signal, and the words for it. Pure: time comes in.
//!
//! Load is counted in replicas: the smoothed total of a signal divided by what one replica shall bear. That does not change
//! when N does, so what was asked for before a change is still comparable after it.

use std::time::Duration;

use tokio::time::Instant;

use super::{Sample, ScaleConfig};
use crate::pilot::holt::Holt;
use crate::pilot::smooth::Smooth;
use crate::pilot::{figure, percent, time};

/// How far above its target a replica's load may be before it asks for another, and below it after one was taken away. In
/// between is the dead band.
const TOLERANCE: f64 = 0.1;
/// For so long the last known CPU counts.
const CPU_AGE: Duration = Duration::from_secs(10);
/// A trend is one if it makes more of the rate than this many standard deviations of what chance alone makes.
const CLEAR: f64 = 5.0;
/// Of fewer requests a second no trend is made.
const LEAST_RATE: f64 = 1.0;

/// Which signal asks, with its total.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Signal {
    None,
    InFlight(f64),
    Cpu(f64),
    Latency(Duration),
}

/// What a sample asks for: the most of what its signals do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asks {
    /// Fewer are overloaded.
    pub(super) need: usize,
    /// So many are right, once there has to be a change.
    pub(super) want: usize,
    /// More are too many.
    pub(super) enough: usize,
    /// As `need`, by the forecast.
    pub(super) need_ahead: usize,
    /// As `want`, by the forecast.
    pub(super) want_ahead: usize,
    needs: Signal,
    suffices: Signal,
    /// Requests a second and requests in flight, as they are foreseen.
    ahead: (f64, f64),
}

/// Averages of what was sampled.
#[derive(Debug)]
pub(super) struct Demand {
    in_flight: Smooth,
    cpu: Smooth,
    cpu_at: Option<Instant>,
    rate: Smooth,
    forecast: Option<Holt>,
    /// When the first sample came.
    begin: Option<Instant>,
    /// Requests a second by ready replica, now.
    per_replica: f64,
    /// The same when latency last asked for one more, and when that was.
    strain: Option<(f64, Instant)>,
}

impl Demand {
    pub(super) fn new(config: &ScaleConfig) -> Self {
        let smooth = || Smooth::new(config.smoothing);
        Self {
            in_flight: smooth(),
            cpu: smooth(),
            cpu_at: None,
            rate: smooth(),
            forecast: config.forecast.map(|ahead| Holt::new(ahead / 3, ahead)),
            begin: None,
            per_replica: 0.0,
            strain: None,
        }
    }

    pub(super) fn observe(&mut self, sample: &Sample, config: &ScaleConfig, now: Instant) -> Asks {
        self.begin.get_or_insert(now);
        self.in_flight.observe(sample.in_flight as f64, now);
        self.rate.observe(sample.rate, now);
        if let Some(forecast) = &mut self.forecast {
            forecast.observe(sample.rate, now);
        }
        self.per_replica = self.rate.get().unwrap_or(0.0) / sample.ready.max(1) as f64;
        // No more than can be told from the most, which bounds the windows' memory.
        let cap = config.max.saturating_add(1);
        let mut asks = Asks::none();
        if let (Some(target), Some(total)) = (config.in_flight, self.in_flight.get()) {
            asks.take(total / target, Signal::InFlight(total), cap);
            self.foresee((total, target), config, now, &mut asks);
        }
        if let Some(target) = config.cpu {
            self.ask_cpu(sample, target, cap, now, &mut asks);
        }
        if let Some(limit) = config.p99 {
            self.ask_latency(sample, limit, config, now, &mut asks);
        }
        if asks.suffices == Signal::None {
            asks.enough = cap;
        }
        asks
    }

    /// By Little's law, requests in flight grow as their rate does while each takes as long as now.
    fn foresee(&self, (total, target): (f64, f64), config: &ScaleConfig, now: Instant, asks: &mut Asks) {
        let (Some(holt), Some(ahead)) = (&self.forecast, config.forecast) else { return };
        let (Some(level), Some(rate)) = (holt.level(), holt.forecast(ahead)) else { return };
        // If requests come by chance (Poisson), the standard deviation of what the trend makes of it; 0.7 was simulated.
        let chance = 0.7 * (level / (ahead.as_secs_f64() / 3.0)).max(0.0).sqrt();
        let rise = rate - level;
        // The first sample may have been far off, which looks like a trend for a while.
        let warm = self.begin.is_some_and(|begin| now.saturating_duration_since(begin) >= ahead.saturating_mul(3));
        if !warm || level < LEAST_RATE || rise < CLEAR * chance || rise < TOLERANCE * level {
            return;
        }
        let foreseen = total * rate / level;
        asks.ahead = (rate, foreseen);
        let cap = config.max.saturating_add(1);
        asks.need_ahead = whole(foreseen / target / (1.0 + TOLERANCE), cap);
        asks.want_ahead = whole(foreseen / target, cap);
    }

    /// Those that are not ready yet use none that requests have caused, so the total is that of the ready ones.
    fn ask_cpu(&mut self, sample: &Sample, target: f64, cap: usize, now: Instant, asks: &mut Asks) {
        if let Some(cpu) = sample.cpu.filter(|cpu| cpu.is_finite() && sample.ready > 0) {
            self.cpu.observe(cpu * sample.ready as f64, now);
            self.cpu_at = Some(now);
        }
        let known = self.cpu_at.is_some_and(|at| now.saturating_duration_since(at) <= CPU_AGE);
        match self.cpu.get().filter(|_| known) {
            Some(total) => asks.take(total / target, Signal::Cpu(total), cap),
            // What is not known may be much: nobody is taken away.
            None => asks.enough = cap,
        }
    }

    /// Too slow asks for one more, once all that were ordered are there. How few are enough can't be read from a latency: it
    /// has to be below half of the limit, and the rate by replica clearly below the one at which it was last too slow.
    fn ask_latency(&mut self, sample: &Sample, limit: Duration, config: &ScaleConfig, now: Instant, asks: &mut Asks) {
        let n = sample.desired;
        let p99 = sample.p99.unwrap_or_default();
        let calm = p99 <= limit / 2;
        let look_again = config.down_window.saturating_mul(10);
        let learnt_anew = |strain: f64| sample.p99.is_some() && calm && self.per_replica >= strain;
        self.strain =
            self.strain.filter(|(strain, at)| !learnt_anew(*strain) && now.saturating_duration_since(*at) < look_again);
        if p99 > limit && sample.ready >= n {
            asks.need(n + 1, n + 1, Signal::Latency(p99));
        }
        let only = config.in_flight.is_none() && config.cpu.is_none();
        let enough = match self.strain {
            _ if p99 > limit => n + 1,
            _ if !calm => n,
            Some((strain, _)) if strain > 0.0 => {
                let rate = self.per_replica * sample.ready as f64;
                whole(rate / strain / (1.0 - TOLERANCE), n.max(1))
            }
            _ if only => n.saturating_sub(1).max(1),
            _ => 1,
        };
        asks.suffice(enough, Signal::Latency(p99));
    }

    /// Latency has asked for one more: at the present rate by replica.
    pub(super) fn strained(&mut self, now: Instant) {
        self.strain = Some((self.per_replica, now));
    }
}

/// The next whole number, at most `cap`. What is a rounding error above a whole number is that number.
fn whole(replicas: f64, cap: usize) -> usize {
    ((replicas - 1e-9).ceil().max(0.0) as usize).min(cap)
}

impl Asks {
    fn none() -> Self {
        let (needs, suffices) = (Signal::None, Signal::None);
        Self { need: 0, want: 0, enough: 0, need_ahead: 0, want_ahead: 0, needs, suffices, ahead: (0.0, 0.0) }
    }

    /// Takes in a signal whose load is that of so many replicas at their target.
    fn take(&mut self, load: f64, signal: Signal, cap: usize) {
        self.need(whole(load / (1.0 + TOLERANCE), cap), whole(load, cap), signal);
        self.suffice(whole(load / (1.0 - TOLERANCE), cap).max(1), signal);
    }

    fn need(&mut self, need: usize, want: usize, signal: Signal) {
        if need >= self.need {
            self.needs = signal;
        }
        self.need = self.need.max(need);
        self.want = self.want.max(want);
    }

    fn suffice(&mut self, enough: usize, signal: Signal) {
        if enough > self.enough || self.suffices == Signal::None {
            self.suffices = signal;
        }
        self.enough = self.enough.max(enough);
    }

    /// Is it the latency that asks for more?
    pub(super) fn is_slow(&self) -> bool {
        matches!(self.needs, Signal::Latency(_))
    }

    /// Why `n` are too few: `38 in flight per replica > 30`.
    pub(super) fn too_few(&self, n: usize, config: &ScaleConfig) -> String {
        let limit = match self.needs {
            Signal::InFlight(_) => config.in_flight.map(|target| target.to_string()),
            Signal::Cpu(_) => config.cpu.map(percent),
            Signal::Latency(_) => config.p99.map(time),
            Signal::None => None,
        };
        format!("{} > {}", self.needs.by_replica(n), limit.unwrap_or_default())
    }

    /// How it is with `n`, which are too many: `3.2 in flight per replica`.
    pub(super) fn too_many(&self, n: usize) -> String {
        self.suffices.by_replica(n)
    }

    /// Why `n` will be too few: `forecast of 180 requests/s in 3 s needs 45 in flight per replica > 30`.
    pub(super) fn foreseen(&self, n: usize, config: &ScaleConfig) -> String {
        let (rate, in_flight) = self.ahead;
        format!(
            "forecast of {} requests/s in {} needs {} > {}",
            figure(rate),
            time(config.forecast.unwrap_or_default()),
            Signal::InFlight(in_flight).by_replica(n),
            config.in_flight.unwrap_or_default(),
        )
    }
}

impl Signal {
    fn by_replica(self, n: usize) -> String {
        let by = n.max(1) as f64;
        match self {
            Self::None => "nothing".to_owned(),
            Self::InFlight(total) => format!("{} in flight per replica", figure(total / by)),
            Self::Cpu(total) => format!("CPU of {} per replica", percent(total / by)),
            Self::Latency(p99) => format!("p99 of {}", time(p99)),
        }
    }
}
