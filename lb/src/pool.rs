//! The published members of the fleet, and leases on them.
//!
//! [`Pool`] is the supervisor's side: it publishes [`Snapshot`]s, one atomic swap each. [`PoolReader`] is the data path's:
//! it takes leases from the current snapshot and reports replicas that could not be reached. The data path can't start or
//! stop anything, and takes no lock that the control side holds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use rustc_hash::FxHashMap;
use tokio::sync::{mpsc, watch};

use crate::pin::PinKey;
use crate::placement::Place;
use crate::policy::{Explanation, PickCx, Picker, Policy};
use crate::replica::{Generation, Hostname, PoolLoad, Replica};

/// Suspicions that may wait for the supervisor. One that finds no room is dropped: the replica is out of rotation already,
/// and its next regular probe brings it back or fails it.
const SUSPICIONS: usize = 256;

/// What a failure counts as, at least, where latencies count.
const FAILURE: Duration = Duration::from_secs(1);

/// What live traffic found out about a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suspicion {
    /// It refused a connection, and is out of rotation.
    Refused(Generation),
    /// It broke off without an answer.
    Broken(Generation),
}

/// An immutable membership with its picker.
pub struct Snapshot {
    /// Counts publications.
    pub epoch: u64,
    /// The members, ready or not.
    pub members: Arc<[Arc<Replica>]>,
    picker: Arc<dyn Picker>,
    /// Members by their pins; empty unless clients are kept at replicas.
    pinned: FxHashMap<u128, Arc<Replica>>,
}

/// The supervisor's side of the pool.
pub struct Pool {
    policy: Arc<dyn Policy>,
    load: Arc<PoolLoad>,
    pins: Option<PinKey>,
    reader: PoolReader,
    changes: watch::Sender<u64>,
}

/// The data path's side of the pool; cheap to clone.
#[derive(Clone)]
pub struct PoolReader {
    snapshot: Arc<ArcSwap<Snapshot>>,
    suspicions: mpsc::Sender<Suspicion>,
    changes: watch::Receiver<u64>,
    clock: Clock,
}

/// The pool's clock, for a policy that goes by latency.
#[derive(Debug, Clone, Copy)]
struct Clock {
    began: Instant,
    decay: Option<Duration>,
}

impl Clock {
    /// Milliseconds; 0 if nobody wants to know.
    #[inline]
    fn now(&self) -> u64 {
        if self.decay.is_none() { 0 } else { u64::try_from(self.began.elapsed().as_millis()).unwrap_or(0) }
    }
}

/// A new, empty pool: the side that writes, the side that reads, and what the data path suspects.
pub fn pool(policy: Arc<dyn Policy>) -> (Pool, PoolReader, mpsc::Receiver<Suspicion>) {
    let members: Arc<[Arc<Replica>]> = Arc::new([]);
    let picker = policy.build(Arc::clone(&members));
    let snapshot =
        Arc::new(ArcSwap::from_pointee(Snapshot { epoch: 0, members, picker, pinned: FxHashMap::default() }));
    let (suspicions, suspected) = mpsc::channel(SUSPICIONS);
    let (changes, changed) = watch::channel(0);
    let clock = Clock { began: Instant::now(), decay: policy.decay() };
    let reader = PoolReader { snapshot, suspicions, changes: changed, clock };
    (Pool { policy, load: Arc::default(), pins: None, reader: reader.clone(), changes }, reader, suspected)
}

impl Pool {
    /// The same with pins by `key`, instead of none.
    #[must_use]
    pub fn with_pins(self, key: PinKey) -> Self {
        Self { pins: Some(key), ..self }
    }

    /// The pin of a new replica, by its host name and its runtime's name for it; 0 unless there are pins.
    pub fn pin(&self, hostname: &Hostname, runtime_id: &str) -> u128 {
        self.pins.as_ref().map_or(0, |key| key.pin(hostname, runtime_id))
    }

    /// Load cell that new replicas share.
    pub fn load(&self) -> Arc<PoolLoad> {
        Arc::clone(&self.load)
    }

    /// The policy that chooses.
    pub fn policy(&self) -> Arc<dyn Policy> {
        Arc::clone(&self.policy)
    }

    /// Makes `members` the membership; `places` are those of the whole fleet, members or not yet.
    pub fn publish(&self, members: Arc<[Arc<Replica>]>, places: &[Place]) {
        self.policy.place(places);
        let picker = self.policy.build(Arc::clone(&members));
        let epoch = self.reader.snapshot.load().epoch + 1;
        let pinned = members.iter().filter(|member| member.pin != 0).map(|member| (member.pin, Arc::clone(member)));
        let pinned = pinned.collect();
        self.reader.snapshot.store(Arc::new(Snapshot { epoch, members, picker, pinned }));
        self.announce();
    }

    /// Wakes those who wait for a change: after a publication, or when a member was found lost.
    pub fn announce(&self) {
        self.changes.send_modify(|count| *count += 1);
    }
}

impl PoolReader {
    /// The current membership.
    pub fn snapshot(&self) -> arc_swap::Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }

    /// A lease on a ready replica that was not tried; `None` if there is none.
    #[inline]
    pub fn acquire(&self, cx: &PickCx<'_>) -> Option<Lease> {
        loop {
            let snapshot = self.snapshot.load();
            let replica = snapshot.picker.pick(cx)?;
            if let Some(lease) = Lease::on(replica) {
                return Some(lease);
            }
            // It began to leave between the look and the lease; it is not ready any more, so the next pick is another.
        }
    }

    /// A lease on the member with this pin, if it is ready and was not tried. Its load and its weight do not matter: a
    /// session can't go elsewhere.
    pub fn acquire_pinned(&self, pin: u128, cx: &PickCx<'_>) -> Option<Lease> {
        let snapshot = self.snapshot.load();
        let replica = snapshot.pinned.get(&pin)?;
        let usable = replica.is_ready() && !cx.tried.contains(&replica.generation);
        if usable { Lease::on(replica) } else { None }
    }

    /// Milliseconds of the pool's clock, for [`PickCx::now`]; 0 if the policy does not go by latency.
    #[inline]
    pub fn now(&self) -> u64 {
        self.clock.now()
    }

    /// Does the policy go by latency?
    #[inline]
    pub fn measures(&self) -> bool {
        self.clock.decay.is_some()
    }

    /// How a request would be placed now. Nothing is leased, and no turn is taken.
    pub fn explain(&self, cx: &PickCx<'_>) -> Explanation {
        self.snapshot.load().picker.explain(cx)
    }

    /// What a replica's latency is taken to be now, if the policy goes by that and it was measured.
    pub fn latency(&self, replica: &Replica) -> Option<Duration> {
        let micros = replica.latency(self.clock.now(), self.clock.decay?)?;
        Some(Duration::from_secs_f32(micros / 1e6))
    }

    /// Takes in how long a replica took to answer, if the policy goes by that.
    #[inline]
    pub fn measure(&self, replica: &Replica, latency: impl FnOnce() -> Duration) {
        if let Some(decay) = self.clock.decay {
            replica.measure(latency(), self.clock.now(), decay);
        }
    }

    /// Takes in for how long it has not answered until nobody waited any more.
    pub fn measure_wait(&self, replica: &Replica, waited: impl FnOnce() -> Duration) {
        if let Some(decay) = self.clock.decay {
            replica.measure_failure(waited(), self.clock.now(), decay);
        }
    }

    /// Takes in that it failed after so long. To fail fast is not to be fast.
    pub fn measure_failure(&self, replica: &Replica, waited: impl FnOnce() -> Duration) {
        self.measure_wait(replica, || waited().max(FAILURE));
    }

    /// Takes a replica that refused a connection out of rotation and has it probed at once.
    pub fn suspect(&self, replica: &Replica) {
        if replica.suspect() {
            let _ = self.suspicions.try_send(Suspicion::Refused(replica.generation));
        }
    }

    /// Has a replica probed at once, without a verdict on it yet.
    pub fn doubt(&self, replica: &Replica) {
        let _ = self.suspicions.try_send(Suspicion::Broken(replica.generation));
    }

    /// Waits until something was announced since this reader last waited. Pends for ever once the pool is gone.
    pub async fn changed(&mut self) {
        if self.changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// One replica held for one request. It counts as load until dropped, so it rides the response's body.
#[derive(Debug)]
pub struct Lease {
    replica: Arc<Replica>,
}

impl Lease {
    /// A further lease on `replica`, `None` if it is leaving.
    #[inline]
    fn on(replica: &Arc<Replica>) -> Option<Self> {
        // Lazily: a lease that is made is also dropped, which counts out what was never counted in.
        replica.enter().then(|| Self { replica: Arc::clone(replica) })
    }

    /// The replica held.
    #[inline]
    pub fn replica(&self) -> &Arc<Replica> {
        &self.replica
    }

    /// Counts a response.
    pub fn served(&self) {
        self.replica.count_served();
    }

    /// Counts for how long its response had to be waited for.
    #[inline]
    pub fn waited(&self, waited: Duration) {
        self.replica.count_waited(waited);
    }

    /// Counts a failed try.
    pub fn failed(&self) {
        self.replica.count_failed();
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.replica.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::PolicyConfig;
    use crate::replica::{Health, ReplicaId, ReplicaSpec};

    fn fixture(n: u32) -> (Pool, PoolReader, mpsc::Receiver<Suspicion>, Arc<[Arc<Replica>]>) {
        let (pool, reader, suspected) = pool(PolicyConfig::default().policy());
        let members: Arc<[_]> = (1..=n)
            .map(|id| {
                let hostname = Hostname::new(&format!("S{id}")).unwrap();
                let spec = ReplicaSpec { id: ReplicaId(id), generation: Generation(u64::from(id)), hostname };
                let replica = Replica::new(&spec, ([127, 0, 0, 1], 5000).into(), pool.load());
                replica.set_health(Health::Ready);
                Arc::new(replica)
            })
            .collect();
        pool.publish(Arc::clone(&members), &Place::first(n));
        (pool, reader, suspected, members)
    }

    const CX: PickCx<'static> = PickCx { key: 132_574, tried: &[], random: 0, now: 0, limit: None };

    #[test]
    fn a_lease_counts_until_it_is_dropped() {
        let (pool, reader, _suspected, members) = fixture(3);
        let lease = reader.acquire(&CX).unwrap();
        assert_eq!((lease.replica().in_flight(), pool.load().in_flight()), (1, 1));
        drop(lease);
        assert!(members.iter().all(|member| member.in_flight() == 0));
        assert_eq!(pool.load().in_flight(), 0);
    }

    #[test]
    fn a_leaving_replica_is_not_leased_from_an_old_snapshot() {
        let (_pool, reader, _suspected, members) = fixture(1);
        members[0].set_health(Health::Draining);
        assert!(reader.acquire(&CX).is_none());
        assert!(Lease::on(&members[0]).is_none());
        assert_eq!((members[0].in_flight(), members[0].pool_load().in_flight()), (0, 0), "nothing was counted");
    }

    #[test]
    fn a_suspect_is_out_of_rotation_at_once_and_reported_once() {
        let (_pool, reader, mut suspected, members) = fixture(2);
        reader.suspect(&members[0]);
        reader.suspect(&members[0]);
        assert_eq!(suspected.try_recv(), Ok(Suspicion::Refused(Generation(1))));
        assert!(suspected.try_recv().is_err());
        assert!((0..1000).all(|key| reader.acquire(&PickCx { key, ..CX }).unwrap().replica().id == ReplicaId(2)));
    }

    #[test]
    fn a_pin_leases_its_member_as_long_as_that_is_ready() {
        let (pool, reader, _suspected, members) = fixture(2);
        assert_eq!(pool.pin(&members[0].hostname, "id"), 0, "there are no pins");
        let pool = pool.with_pins(PinKey::public("fleet"));
        let members: Arc<[_]> = members
            .iter()
            .map(|member| {
                let Replica { id, generation, hostname, .. } = &**member;
                let spec = ReplicaSpec { id: *id, generation: *generation, hostname: hostname.clone() };
                let replica = Replica::new(&spec, member.addr, pool.load()).with_pin(pool.pin(hostname, "id"));
                replica.set_health(Health::Ready);
                Arc::new(replica)
            })
            .collect();
        let pins = [members[0].pin, members[1].pin];
        assert!(pins[0] != 0 && pins[1] != 0 && pins[0] != pins[1]);
        let leased = |pin, cx: &PickCx<'_>| reader.acquire_pinned(pin, cx).map(|lease| lease.replica().id.0);
        assert_eq!(leased(pins[0], &CX), None, "not published yet");
        pool.publish(Arc::clone(&members), &Place::first(2));
        // However much it holds, and wherever the policy would go.
        let held: Vec<_> = (0..100).map(|_| reader.acquire_pinned(pins[1], &CX).unwrap()).collect();
        assert!(held.iter().all(|lease| lease.replica().id.0 == 2) && members[1].in_flight() == 100);
        drop(held);
        assert_eq!((leased(pins[0], &CX), leased(pins[1], &CX)), (Some(1), Some(2)));
        assert_eq!(leased(pins[0], &PickCx { tried: &[members[0].generation], ..CX }), None);
        assert_eq!(leased(pins[0], &PickCx { tried: &[members[1].generation], ..CX }), Some(1));
        for unknown in [0, 1, pins[0] ^ 1] {
            assert_eq!(leased(unknown, &CX), None);
        }
        for health in [Health::Unready, Health::Lost, Health::Draining] {
            members[0].set_health(health);
            assert_eq!(leased(pins[0], &CX), None, "{health:?}");
        }
        pool.publish(members.iter().take(1).cloned().collect(), &Place::first(2));
        assert_eq!(leased(pins[1], &CX), None, "no member any more");
        assert_eq!((members[0].in_flight(), members[1].in_flight(), pool.load().in_flight()), (0, 0, 0));
    }

    #[tokio::test]
    async fn publication_swaps_the_membership_and_wakes_readers() {
        let (pool, mut reader, _suspected, members) = fixture(2);
        reader.changed().await;
        let epoch = reader.snapshot().epoch;
        pool.publish(members.iter().take(1).cloned().collect(), &Place::first(1));
        reader.changed().await;
        assert_eq!((reader.snapshot().epoch, reader.snapshot().members.len()), (epoch + 1, 1));
    }
}
