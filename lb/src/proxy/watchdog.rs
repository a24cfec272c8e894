//! Deadlines and wake-ups of everything a worker waits for, without a timer for each.
//!
//! A [`Watch`] is one wait: until a tick of the worker's coarse clock, or until its replica is lost. Setting one up costs an
//! entry in a table that only this worker's thread touches; the table is looked through every [`TICK`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use slab::Slab;

use crate::replica::{Health, Replica};

/// The grain of all deadlines.
pub(super) const TICK: Duration = Duration::from_millis(50);

/// Why a wait is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Alarm {
    /// Its time is up.
    Late,
    /// The replica it waits for will not answer.
    Lost,
}

#[derive(Debug)]
struct Entry {
    due: u64,
    replica: Option<Arc<Replica>>,
    alarm: Option<Alarm>,
    waker: Option<Waker>,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Watchdog {
    /// Ticks since the worker began.
    now: AtomicU64,
    entries: Mutex<Slab<Entry>>,
}

/// Ticks in `time`, at least one more than it takes.
pub(super) fn ticks(time: Duration) -> u64 {
    time.as_millis().div_ceil(TICK.as_millis()) as u64 + 1
}

impl Watchdog {
    fn entries(&self) -> MutexGuard<'_, Slab<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The coarse time.
    pub(super) fn now(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    /// Watches for `ticks` to pass, and for `replica` to be lost if one is given.
    pub(super) fn watch(self: &Arc<Self>, ticks: u64, replica: Option<&Arc<Replica>>) -> Watch {
        let due = self.now().saturating_add(ticks);
        let entry = Entry { due, replica: replica.cloned(), alarm: None, waker: None };
        let key = self.entries().insert(entry);
        Watch { dog: Arc::clone(self), key }
    }

    /// One more tick has passed.
    pub(super) fn tick(&self) {
        let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
        self.raise(Alarm::Late, |entry| entry.due <= now);
    }

    /// Ends the waits for replicas that are lost.
    pub(super) fn abandon_lost(&self) {
        self.raise(Alarm::Lost, |entry| entry.replica.as_ref().is_some_and(|replica| replica.health() == Health::Lost));
    }

    /// Wakes everybody, to look at something else that has changed.
    pub(super) fn wake_all(&self) {
        let wakers: Vec<_> = self.entries().iter_mut().filter_map(|(_, entry)| entry.waker.take()).collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    fn raise(&self, alarm: Alarm, concerns: impl Fn(&Entry) -> bool) {
        let mut wakers = Vec::new();
        for (_, entry) in self.entries().iter_mut() {
            if entry.alarm.is_none() && concerns(entry) {
                entry.alarm = Some(alarm);
                wakers.extend(entry.waker.take());
            }
        }
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// One wait; over when dropped.
#[derive(Debug)]
pub(super) struct Watch {
    dog: Arc<Watchdog>,
    key: usize,
}

impl Watch {
    /// Ready when the wait is over before its time.
    pub(super) fn poll(&self, cx: &Context<'_>) -> Poll<Alarm> {
        let mut entries = self.dog.entries();
        let Some(entry) = entries.get_mut(self.key) else { return Poll::Ready(Alarm::Late) };
        if let Some(alarm) = entry.alarm {
            return Poll::Ready(alarm);
        }
        if !entry.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            entry.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// From here on only time counts: `ticks` from now on, whatever becomes of the replica.
    pub(super) fn only_deadline(&self, ticks: u64) {
        let due = self.dog.now().saturating_add(ticks);
        if let Some(entry) = self.dog.entries().get_mut(self.key) {
            entry.due = due;
            entry.alarm = None;
            entry.replica = None;
        }
    }

    /// Something moved: `ticks` from now on.
    pub(super) fn renew(&self, ticks: u64) {
        let due = self.dog.now().saturating_add(ticks);
        if let Some(entry) = self.dog.entries().get_mut(self.key) {
            entry.due = due;
            entry.alarm = entry.alarm.filter(|alarm| *alarm != Alarm::Late);
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.dog.entries().try_remove(self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::{Generation, Hostname, ReplicaId, ReplicaSpec};

    fn poll(watch: &Watch) -> Poll<Alarm> {
        watch.poll(&Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_watch_ends_when_its_ticks_are_over_and_not_before() {
        let dog = Arc::new(Watchdog::default());
        let (short, long) = (dog.watch(2, None), dog.watch(u64::MAX, None));
        dog.tick();
        assert!(poll(&short).is_pending());
        short.renew(2);
        dog.tick();
        assert!(poll(&short).is_pending());
        dog.tick();
        assert_eq!(poll(&short), Poll::Ready(Alarm::Late));
        assert!(poll(&long).is_pending());
        drop((short, long));
        assert!(dog.entries().is_empty());
    }

    #[test]
    fn a_lost_replica_ends_the_waits_for_it_alone() {
        let dog = Arc::new(Watchdog::default());
        let replica = |id| {
            let hostname = Hostname::new(&format!("S{id}")).unwrap();
            let spec = ReplicaSpec { id: ReplicaId(id), generation: Generation(u64::from(id)), hostname };
            Arc::new(Replica::new(&spec, ([127, 0, 0, 1], 1).into(), Arc::default()))
        };
        let (one, two) = (replica(1), replica(2));
        let (first, second, nobody) = (dog.watch(100, Some(&one)), dog.watch(100, Some(&two)), dog.watch(100, None));
        one.set_health(Health::Lost);
        two.set_health(Health::Unready);
        dog.abandon_lost();
        assert_eq!(poll(&first), Poll::Ready(Alarm::Lost));
        assert!(poll(&second).is_pending() && poll(&nobody).is_pending());
    }

    #[test]
    fn ticks_cover_the_whole_time() {
        assert_eq!((ticks(Duration::from_millis(1)), ticks(TICK), ticks(TICK * 2)), (2, 2, 3));
    }
}
