//! Whose doing a change of N was, and what may follow it when. Pure: time comes in.
//!
//! Owns the scaler's own order until it is done, the cooldowns, the pause after an order that failed, and the hold after
//! somebody else has changed N.

use std::time::Duration;

use tokio::time::Instant;

use super::{Sample, ScaleConfig};

/// For so long an order may take, and its newcomers may take to be ready, before the scaler no longer waits for them.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longer holds are as good as for ever.
const LONGEST_HOLD: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Order {
    from: usize,
    to: usize,
    at: Instant,
}

impl Order {
    /// May N be so much while it is carried out, or taken back?
    fn passes(self, n: usize) -> bool {
        (self.from.min(self.to)..=self.from.max(self.to)).contains(&n)
    }

    fn is_young(self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) < PATIENCE
    }
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// N as it is if nobody else touches it; `None` before the first sample.
    expected: Option<usize>,
    /// An order of the scaler's that N does not show yet.
    open: Option<Order>,
    /// The last one, open or done.
    last: Option<Order>,
    /// One that failed, as of the moment when that was said: N may still be on its way back.
    failed: Option<Order>,
    /// How many have to be ready before the next addition, and since when that is waited for.
    newcomers: Option<(usize, Instant)>,
    added: Option<Instant>,
    changed: Option<Instant>,
    /// When an order has failed.
    paused: Option<Instant>,
    /// Until when, and what N was when it began.
    hold: Option<(Instant, usize)>,
}

impl Ledger {
    /// Takes in what N is. True if newcomers of the scaler's have just become ready.
    pub(super) fn observe(&mut self, sample: &Sample, config: &ScaleConfig, now: Instant) -> bool {
        self.hold = self.hold.filter(|(until, _)| now < *until);
        self.failed = self.failed.filter(|order| order.is_young(now));
        // What N is during a change under way need not be what it will be.
        if !sample.busy {
            self.compare(sample.desired, config, now);
        }
        let Some((ready, since)) = self.newcomers else { return false };
        let arrived = sample.ready >= ready;
        if arrived || now.saturating_duration_since(since) >= PATIENCE {
            self.newcomers = None;
        }
        arrived
    }

    fn compare(&mut self, n: usize, config: &ScaleConfig, now: Instant) {
        let by_hand = match self.open {
            Some(order) if n == order.to => {
                self.open = None;
                self.changed = Some(now);
                false
            }
            Some(order) if order.passes(n) => {
                if order.is_young(now) {
                    return;
                }
                // Forgotten, or done in part.
                self.open = None;
                false
            }
            Some(_) => true,
            None => {
                let taken_back = self.failed.is_some_and(|order| order.passes(n));
                self.expected.is_some_and(|expected| expected != n) && !taken_back
            }
        };
        self.expected = Some(n);
        if by_hand {
            (self.open, self.newcomers, self.failed) = (None, None, None);
            self.changed = Some(now);
            self.hold = (!config.hold.is_zero()).then(|| (now + config.hold.min(LONGEST_HOLD), n));
        }
    }

    /// May anything be decided at all?
    pub(super) fn free(&self, config: &ScaleConfig, now: Instant) -> bool {
        self.open.is_none() && self.hold.is_none() && passed(self.paused, config.up_cooldown, now)
    }

    /// May some be added? Not before those that were are ready, so that one load is never answered twice.
    pub(super) fn may_add(&self, config: &ScaleConfig, now: Instant) -> bool {
        self.newcomers.is_none() && passed(self.added, config.up_cooldown, now)
    }

    /// May some be taken away?
    pub(super) fn may_remove(&self, config: &ScaleConfig, now: Instant) -> bool {
        passed(self.changed, config.down_cooldown, now)
    }

    pub(super) fn ordered(&mut self, from: usize, to: usize, now: Instant) {
        let order = Order { from, to, at: now };
        (self.open, self.last, self.failed) = (Some(order), Some(order), None);
        self.changed = Some(now);
        if to > from {
            self.added = Some(now);
            self.newcomers = Some((to, now));
        } else {
            self.newcomers = None;
        }
    }

    /// The last order was refused, or failed later. If N going back was taken for somebody else's doing, it was not.
    pub(super) fn failed(&mut self, now: Instant) {
        self.paused = Some(now);
        (self.open, self.newcomers) = (None, None);
        let Some(last) = self.last.take() else { return };
        self.hold = self.hold.filter(|(_, n)| *n != last.from);
        self.failed = Some(Order { at: now, ..last });
    }

    pub(super) fn holds_until(&self) -> Option<Instant> {
        self.hold.map(|(until, _)| until)
    }
}

fn passed(since: Option<Instant>, cooldown: Duration, now: Instant) -> bool {
    since.is_none_or(|at| now.saturating_duration_since(at) >= cooldown)
}
