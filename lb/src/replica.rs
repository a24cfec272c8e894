//! A replica as the data path sees it: its identity, and the cells for health and load that all threads share.
//!
//! Owns the words of the project: ring number, generation, host name, state. Does *not* decide anything: the supervisor
//! sets health, leases count load.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::sync::Notify;

use crate::ewma::PeakEwma;

/// A replica's number on the ring, 1 or more; free again once its replica has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReplicaId(pub u32);

/// Counts the replicas that a fleet has ever launched: two replicas never share one, so a late result can't be taken for
/// that of a successor. Higher means younger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A name that is good as container name, host name and network alias at once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hostname(Arc<str>);

impl Hostname {
    /// What a host name may be, for messages.
    pub const ALLOWED: &'static str =
        "2 to 63 characters: letters, digits, '_', '.' and '-', the first a letter or a digit";

    /// Checks `text` against what container engines take (`[a-zA-Z0-9][a-zA-Z0-9_.-]+`) and the 63 octets of a DNS label
    /// (RFC 1035, section 2.3.4).
    pub fn new(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let fits = (2..=63).contains(&bytes.len())
            && bytes[0].is_ascii_alphanumeric()
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(b));
        fits.then(|| Self(text.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Hostname {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Hostname {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Self::new(&text).ok_or_else(|| {
            let expected: &str = Self::ALLOWED;
            serde::de::Error::invalid_value(serde::de::Unexpected::Str(&text), &expected)
        })
    }
}

/// What a runtime is asked to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaSpec {
    /// Ring number.
    pub id: ReplicaId,
    /// Of this very launch.
    pub generation: Generation,
    /// Passed to the replica as `SERVER_ID`.
    pub hostname: Hostname,
}

/// Whether new requests may go to a replica, and what those that wait for it shall do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Health {
    /// In rotation.
    Ready = 0,
    /// Out of rotation until it answers a probe; requests under way go on.
    Unready = 1,
    /// Out of rotation and not expected to answer: requests that wait for it and may be repeated go elsewhere now.
    Lost = 2,
    /// Leaving: takes no new request, finishes those under way.
    Draining = 3,
}

impl Health {
    fn from_u8(value: u8) -> Self {
        match value {
            0 => Self::Ready,
            1 => Self::Unready,
            2 => Self::Lost,
            _ => Self::Draining,
        }
    }
}

/// Load of the whole pool, shared by its replicas: what bounded loads compare a single replica with.
#[derive(Debug, Default)]
pub struct PoolLoad {
    in_flight: AtomicU32,
    ready: AtomicU32,
    ready_weight: AtomicU64,
    changes: AtomicU32,
}

impl PoolLoad {
    /// Requests held by leases on any replica.
    #[inline]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Replicas in rotation.
    #[inline]
    pub fn ready(&self) -> u32 {
        self.ready.load(Ordering::Relaxed)
    }

    /// The sum of their weights.
    #[inline]
    pub fn ready_weight(&self) -> u64 {
        self.ready_weight.load(Ordering::Relaxed)
    }

    /// Counts changes of health and weight, so that what was found out of all replicas need not be found out again.
    #[inline]
    pub fn changes(&self) -> u32 {
        self.changes.load(Ordering::Acquire)
    }
}

/// What is counted of a replica.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// Requests that it holds.
    pub in_flight: u32,
    /// Responses it gave.
    pub served: u64,
    /// Tries on it that failed.
    pub failed: u64,
    /// For how long its responses had to be waited for, in all.
    pub waited: Duration,
}

/// How much of the requests a replica shall get, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Twice the weight, twice the requests; 0 for no new ones.
    pub weight: u16,
    /// The highest that has ready replicas goes first.
    pub priority: u16,
}

impl Default for Share {
    fn default() -> Self {
        Self { weight: 1, priority: 0 }
    }
}

/// Health and weight, which change together what the pool counts, in one cell.
#[derive(Debug, Clone, Copy)]
struct Standing {
    health: Health,
    weight: u16,
}

impl Standing {
    fn pack(self) -> u32 {
        u32::from(self.weight) << 8 | self.health as u32
    }

    #[inline]
    fn unpack(packed: u32) -> Self {
        Self { health: Health::from_u8(packed as u8), weight: (packed >> 8) as u16 }
    }

    /// What the pool counts of it: is it ready, and the weight that is.
    fn counts(self) -> (u32, u64) {
        if self.health == Health::Ready { (1, u64::from(self.weight)) } else { (0, 0) }
    }
}

/// The ramp of a replica that is no newcomer.
const FULL_RAMP: u16 = 1000;

/// One replica of the pool.
#[derive(Debug)]
pub struct Replica {
    /// Ring number.
    pub id: ReplicaId,
    /// Which launch it is.
    pub generation: Generation,
    /// Its name.
    pub hostname: Hostname,
    /// Where it listens.
    pub addr: SocketAddr,
    /// What clients that are kept at it bring along; 0 for none.
    pub pin: u128,
    standing: AtomicU32,
    priority: AtomicU16,
    /// Thousandths.
    ramp: AtomicU16,
    idle: Notify,
    pool: Arc<PoolLoad>,
    load: Load,
}

/// What changes with every request: on cache lines of its own, as a choice reads the rest of many replicas.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Load {
    in_flight: AtomicU32,
    served: AtomicU64,
    failed: AtomicU64,
    /// Microseconds that its responses had to be waited for.
    waited: AtomicU64,
    latency: PeakEwma,
}

impl Replica {
    /// A replica that is out of rotation until [`Replica::set_health`] says otherwise.
    pub fn new(spec: &ReplicaSpec, addr: SocketAddr, pool: Arc<PoolLoad>) -> Self {
        Self {
            id: spec.id,
            generation: spec.generation,
            hostname: spec.hostname.clone(),
            addr,
            pin: 0,
            standing: AtomicU32::new(Standing { health: Health::Unready, weight: Share::default().weight }.pack()),
            priority: AtomicU16::new(Share::default().priority),
            ramp: AtomicU16::new(FULL_RAMP),
            idle: Notify::new(),
            pool,
            load: Load::default(),
        }
    }

    /// The same with a share of its own.
    #[must_use]
    pub fn with_share(self, share: Share) -> Self {
        self.set_share(share);
        self
    }

    #[inline]
    fn standing(&self) -> Standing {
        Standing::unpack(self.standing.load(Ordering::SeqCst))
    }

    /// Changes its standing to what `next` makes of it, and what the pool counts with it. Gives what it was before; `None`
    /// if `next` would not change it.
    fn change(&self, next: impl Fn(Standing) -> Option<Standing>) -> Option<Standing> {
        let packed = |old: u32| next(Standing::unpack(old)).map(Standing::pack);
        let before = Standing::unpack(self.standing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, packed).ok()?);
        if let Some(after) = next(before) {
            let ((was, had), (is, has)) = (before.counts(), after.counts());
            // These wrap around, so that the order of two changes does not matter.
            self.pool.ready.fetch_add(is.wrapping_sub(was), Ordering::Relaxed);
            self.pool.ready_weight.fetch_add(has.wrapping_sub(had), Ordering::Relaxed);
            self.pool.changes.fetch_add(1, Ordering::Release);
        }
        Some(before)
    }

    /// The same with a pin, instead of none.
    #[must_use]
    pub fn with_pin(self, pin: u128) -> Self {
        Self { pin, ..self }
    }

    /// Its health as last set.
    #[inline]
    pub fn health(&self) -> Health {
        self.standing().health
    }

    /// In rotation?
    #[inline]
    pub fn is_ready(&self) -> bool {
        self.health() == Health::Ready
    }

    /// Sets its health; the supervisor's word.
    pub fn set_health(&self, health: Health) {
        // Said again with every good heartbeat; mostly that is no change.
        self.change(|before| (before.health != health).then_some(Standing { health, ..before }));
        if health == Health::Draining && self.load.in_flight.load(Ordering::SeqCst) == 0 {
            self.idle.notify_waiters();
        }
    }

    /// Takes a ready replica out of rotation because live traffic could not reach it. True for the caller whose word it
    /// was, who should have it probed.
    pub fn suspect(&self) -> bool {
        let health = Health::Unready;
        self.change(|before| (before.health == Health::Ready).then_some(Standing { health, ..before })).is_some()
    }

    /// Its weight among the others: twice the weight, twice the requests, and none for 0. A picker goes by what it was when
    /// the picker was built.
    #[inline]
    pub fn weight(&self) -> u16 {
        self.standing().weight
    }

    /// Its priority among the others: the highest goes first. A picker goes by what it was when the picker was built.
    #[inline]
    pub fn priority(&self) -> u16 {
        self.priority.load(Ordering::Relaxed)
    }

    /// Weight and priority.
    pub fn share(&self) -> Share {
        Share { weight: self.weight(), priority: self.priority() }
    }

    /// Sets them; the supervisor's word, before it publishes the membership anew.
    pub fn set_share(&self, share: Share) {
        self.change(|before| (before.weight != share.weight).then_some(Standing { weight: share.weight, ..before }));
        self.priority.store(share.priority, Ordering::Relaxed);
    }

    /// Its latency as a moving average that follows peaks at once, microseconds; `None` if it was never measured. `now` is
    /// in milliseconds of the pool's clock.
    #[inline]
    pub fn latency(&self, now: u64, decay: Duration) -> Option<f32> {
        self.load.latency.get(now, decay)
    }

    /// Takes in how long it took to answer.
    pub(crate) fn measure(&self, latency: Duration, now: u64, decay: Duration) {
        self.load.latency.observe(latency, now, decay);
    }

    /// Takes in for how long it has not answered: that can only make it look worse.
    pub(crate) fn measure_failure(&self, latency: Duration, now: u64, decay: Duration) {
        self.load.latency.observe_failure(latency, now, decay);
    }

    /// What a newcomer may hold as a part of what the others may, above 0 to 1; `None` for one that is no newcomer.
    #[inline]
    pub fn ramp(&self) -> Option<f64> {
        let ramp = self.ramp.load(Ordering::Relaxed);
        (ramp < FULL_RAMP).then(|| f64::from(ramp) / f64::from(FULL_RAMP))
    }

    /// Sets that part; the supervisor's word.
    pub fn set_ramp(&self, part: f64) {
        let ramp = (part.clamp(0.0, 1.0) * f64::from(FULL_RAMP)).ceil() as u16;
        self.ramp.store(ramp.max(1), Ordering::Relaxed);
    }

    /// Requests held by leases on this replica.
    #[inline]
    pub fn in_flight(&self) -> u32 {
        self.load.in_flight.load(Ordering::SeqCst)
    }

    /// Responses it gave.
    pub fn served(&self) -> u64 {
        self.load.served.load(Ordering::Relaxed)
    }

    /// Tries on it that failed.
    pub fn failed(&self) -> u64 {
        self.load.failed.load(Ordering::Relaxed)
    }

    /// For how long its responses had to be waited for, in all: from a request's last byte to its response's head.
    pub fn waited(&self) -> Duration {
        Duration::from_micros(self.load.waited.load(Ordering::Relaxed))
    }

    /// Shows what balancers elsewhere count of it, instead of what passes here: nothing does.
    pub fn mirror(&self, seen: Seen) {
        self.load.in_flight.store(seen.in_flight, Ordering::SeqCst);
        self.load.served.store(seen.served, Ordering::Relaxed);
        self.load.failed.store(seen.failed, Ordering::Relaxed);
        self.load.waited.store(u64::try_from(seen.waited.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Load of the pool it belongs to.
    #[inline]
    pub fn pool_load(&self) -> &PoolLoad {
        &self.pool
    }

    /// Counts a request in, unless the replica is leaving.
    ///
    /// The order matters: in first, then the look at its health. The supervisor sets `Draining` first, then looks at the
    /// count. So whichever comes second sees the other, and no request is begun on a replica that was found idle.
    pub(crate) fn enter(&self) -> bool {
        self.load.in_flight.fetch_add(1, Ordering::SeqCst);
        self.pool.in_flight.fetch_add(1, Ordering::Relaxed);
        if matches!(self.health(), Health::Draining | Health::Lost) {
            self.leave();
            return false;
        }
        true
    }

    /// Counts a request out.
    pub(crate) fn leave(&self) {
        self.pool.in_flight.fetch_sub(1, Ordering::Relaxed);
        if self.load.in_flight.fetch_sub(1, Ordering::SeqCst) == 1 && self.health() == Health::Draining {
            self.idle.notify_waiters();
        }
    }

    #[inline]
    pub(crate) fn count_waited(&self, waited: Duration) {
        self.load.waited.fetch_add(waited.as_micros() as u64, Ordering::Relaxed);
    }

    pub(crate) fn count_served(&self) {
        self.load.served.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_failed(&self) {
        self.load.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits until a draining replica holds no request.
    pub async fn drained(&self) {
        loop {
            let idle = self.idle.notified();
            tokio::pin!(idle);
            // Registered before the look, so that a notification in between is not missed.
            idle.as_mut().enable();
            if self.in_flight() == 0 {
                return;
            }
            idle.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(pool: &Arc<PoolLoad>) -> Replica {
        let hostname = Hostname::new("S1").unwrap();
        let spec = ReplicaSpec { id: ReplicaId(1), generation: Generation(1), hostname };
        Replica::new(&spec, ([127, 0, 0, 1], 1).into(), Arc::clone(pool))
    }

    #[test]
    fn hostnames_are_what_an_engine_takes() {
        for good in ["S1", "s1", "a.b", "web_1", "0x", &"a".repeat(63)] {
            assert!(Hostname::new(good).is_some(), "{good}");
        }
        for bad in ["", "S", "-a", ".a", "_a", "a b", "a/b", "ä1", "a\n", &"a".repeat(64)] {
            assert!(Hostname::new(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn ready_count_follows_every_transition() {
        let pool = Arc::new(PoolLoad::default());
        let replica = replica(&pool);
        assert_eq!(pool.ready(), 0);
        replica.set_health(Health::Ready);
        replica.set_health(Health::Ready);
        assert_eq!(pool.ready(), 1);
        assert!(replica.suspect());
        assert!(!replica.suspect(), "only the first suspicion counts");
        assert_eq!(pool.ready(), 0);
        replica.set_health(Health::Ready);
        replica.set_health(Health::Draining);
        assert!(!replica.suspect());
        assert_eq!((pool.ready(), replica.health()), (0, Health::Draining));
    }

    #[test]
    fn the_pool_knows_the_weight_that_is_ready() {
        let pool = Arc::new(PoolLoad::default());
        let replica = replica(&pool).with_share(Share { weight: 3, priority: 7 });
        assert_eq!((pool.ready_weight(), replica.share()), (0, Share { weight: 3, priority: 7 }));
        replica.set_health(Health::Ready);
        assert_eq!((pool.ready(), pool.ready_weight()), (1, 3));
        let changes = pool.changes();
        replica.set_share(Share { weight: 0, priority: 7 });
        assert_eq!((pool.ready(), pool.ready_weight(), replica.is_ready()), (1, 0, true));
        assert_ne!(pool.changes(), changes);
        replica.set_share(Share { weight: 5, priority: 0 });
        assert!(replica.suspect());
        assert_eq!((pool.ready(), pool.ready_weight(), replica.weight()), (0, 0, 5));
    }

    #[tokio::test]
    async fn a_draining_replica_takes_nothing_and_reports_when_it_is_idle() {
        let pool = Arc::new(PoolLoad::default());
        let replica = Arc::new(replica(&pool));
        replica.set_health(Health::Ready);
        assert!(replica.enter());
        replica.set_health(Health::Draining);
        assert!(!replica.enter());
        assert_eq!((replica.in_flight(), pool.in_flight()), (1, 1));
        let waiter = tokio::spawn({
            let replica = Arc::clone(&replica);
            async move { replica.drained().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        replica.leave();
        waiter.await.unwrap();
        assert_eq!(pool.in_flight(), 0);
    }
}
