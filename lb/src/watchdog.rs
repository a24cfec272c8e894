//! Deadlines and wake-ups of everything a worker waits for, without a timer for each.
//!
//! A [`Watch`] belongs to one connection of a client, and watches over whatever that waits for now: until a tick of the
//! worker's coarse clock, or until its replica is lost. Setting it costs a store to memory that only this worker's thread
//! touches; all of them are looked through every [`TICK`].

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use slab::Slab;

use crate::replica::{Health, Replica};

/// The grain of all deadlines.
pub const TICK: Duration = Duration::from_millis(50);

/// Why a wait is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alarm {
    /// Its time is up.
    Late,
    /// The replica it waits for will not answer.
    Lost,
}

#[derive(Debug)]
struct Entry {
    due: Cell<u64>,
    /// When to wake it without an alarm.
    look: Cell<u64>,
    alarm: Cell<Option<Alarm>>,
    replica: RefCell<Option<Arc<Replica>>>,
    waker: RefCell<Option<Waker>>,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Watchdog {
    /// Ticks since the worker began.
    now: Cell<u64>,
    entries: RefCell<Slab<Rc<Entry>>>,
}

/// Ticks in `time`, at least one more than it takes.
pub fn ticks(time: Duration) -> u64 {
    time.as_millis().div_ceil(TICK.as_millis()) as u64 + 1
}

impl Watchdog {
    /// The coarse time.
    pub fn now(&self) -> u64 {
        self.now.get()
    }

    /// A new watch, with `ticks` until it is late.
    pub fn watch(self: &Rc<Self>, ticks: u64) -> Watch {
        let due = Cell::new(self.now().saturating_add(ticks));
        let entry = Rc::new(Entry {
            due,
            look: Cell::new(u64::MAX),
            alarm: Cell::default(),
            replica: RefCell::default(),
            waker: RefCell::default(),
        });
        let key = self.entries.borrow_mut().insert(Rc::clone(&entry));
        Watch { dog: Rc::clone(self), entry, key }
    }

    /// One more tick has passed.
    pub fn tick(&self) {
        let now = self.now.get() + 1;
        self.now.set(now);
        self.raise(Alarm::Late, |entry| entry.due.get() <= now);
        self.wake(|entry| entry.look.get() <= now && entry.look.replace(u64::MAX) <= now);
    }

    /// Ends the waits for replicas that are lost.
    pub fn abandon_lost(&self) {
        self.raise(Alarm::Lost, |entry| {
            entry.replica.borrow().as_ref().is_some_and(|replica| replica.health() == Health::Lost)
        });
    }

    /// Wakes everybody, to look at something else that has changed.
    pub fn wake_all(&self) {
        self.wake(|_| true);
    }

    fn raise(&self, alarm: Alarm, concerns: impl Fn(&Entry) -> bool) {
        self.wake(|entry| {
            let rings = entry.alarm.get().is_none() && concerns(entry);
            if rings {
                entry.alarm.set(Some(alarm));
            }
            rings
        });
    }

    fn wake(&self, concerns: impl Fn(&Entry) -> bool) {
        // None is woken while the table is borrowed.
        let mut wakers = Vec::new();
        for (_, entry) in self.entries.borrow().iter() {
            if concerns(entry) {
                wakers.extend(entry.waker.borrow_mut().take());
            }
        }
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// One connection's deadline; gone when dropped.
#[derive(Debug)]
pub struct Watch {
    dog: Rc<Watchdog>,
    entry: Rc<Entry>,
    key: usize,
}

impl Watch {
    /// Ready when the wait is over before its time.
    #[inline]
    pub fn poll(&self, cx: &Context<'_>) -> Poll<Alarm> {
        if let Some(alarm) = self.entry.alarm.get() {
            return Poll::Ready(alarm);
        }
        let mut waker = self.entry.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// The coarse time.
    #[inline]
    pub fn now(&self) -> u64 {
        self.dog.now()
    }

    /// Another wait: until the tick `due`, whatever becomes of any replica.
    #[inline]
    pub fn until(&self, due: u64) {
        self.entry.due.set(due);
        self.entry.alarm.set(None);
        if self.entry.replica.borrow().is_some() {
            *self.entry.replica.borrow_mut() = None;
        }
    }

    /// Another wait: `ticks` from now on.
    #[inline]
    pub fn set(&self, ticks: u64) {
        self.until(self.dog.now().saturating_add(ticks));
    }

    /// Lets a few ticks pass. Only for tasks that poll this watch besides.
    pub async fn some_ticks(&self, ticks: u64) {
        let due = self.dog.now().saturating_add(ticks);
        self.entry.look.set(due);
        poll_fn(|_| if self.dog.now() >= due { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    /// The wait is also over when `replica` is lost.
    #[inline]
    pub fn also_for(&self, replica: &Arc<Replica>) {
        *self.entry.replica.borrow_mut() = Some(Arc::clone(replica));
    }

    /// Something moved: the same wait, `ticks` from now on.
    #[inline]
    pub fn renew(&self, ticks: u64) {
        self.entry.due.set(self.dog.now().saturating_add(ticks));
        if self.entry.alarm.get() == Some(Alarm::Late) {
            self.entry.alarm.set(None);
        }
    }

    /// The same wait, until the tick `due`.
    #[inline]
    pub fn renew_until(&self, due: u64) {
        self.entry.due.set(due);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.dog.entries.borrow_mut().try_remove(self.key);
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
        let dog = Rc::new(Watchdog::default());
        let (short, long) = (dog.watch(2), dog.watch(u64::MAX));
        dog.tick();
        assert!(poll(&short).is_pending());
        short.renew(2);
        dog.tick();
        assert!(poll(&short).is_pending());
        dog.tick();
        assert_eq!(poll(&short), Poll::Ready(Alarm::Late));
        short.set(1);
        assert!(poll(&short).is_pending(), "another wait");
        assert!(poll(&long).is_pending());
        drop((short, long));
        assert!(dog.entries.borrow().is_empty());
    }

    #[test]
    fn a_lost_replica_ends_the_waits_for_it_alone() {
        let dog = Rc::new(Watchdog::default());
        let replica = |id| {
            let hostname = Hostname::new(&format!("S{id}")).unwrap();
            let spec = ReplicaSpec { id: ReplicaId(id), generation: Generation(u64::from(id)), hostname };
            Arc::new(Replica::new(&spec, ([127, 0, 0, 1], 1).into(), Arc::default()))
        };
        let (one, two) = (replica(1), replica(2));
        let (first, second, nobody) = (dog.watch(100), dog.watch(100), dog.watch(100));
        first.also_for(&one);
        second.also_for(&two);
        one.set_health(Health::Lost);
        two.set_health(Health::Unready);
        dog.abandon_lost();
        assert_eq!(poll(&first), Poll::Ready(Alarm::Lost));
        assert!(poll(&second).is_pending() && poll(&nobody).is_pending());
        first.set(100);
        dog.abandon_lost();
        assert!(poll(&first).is_pending(), "it waits for something else now");
    }

    #[test]
    fn ticks_cover_the_whole_time() {
        assert_eq!((ticks(Duration::from_millis(1)), ticks(TICK), ticks(TICK * 2)), (2, 2, 3));
    }
}
