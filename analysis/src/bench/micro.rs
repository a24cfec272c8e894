//! Pieces of `lb`, called directly: what a pick takes, and what a change of membership.

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lb::placement::hash::RingHash;
use lb::placement::ring::RingConfig;
use lb::placement::{Place, REQUEST_IDS};
use lb::policy::{PickCx, PolicyConfig, PolicyKind};
use lb::pool::pool;
use lb::replica::{Generation, Health, Hostname, PoolLoad, Replica, ReplicaId, ReplicaSpec};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::report::Timing;
use super::ring_slots;
use super::workload::{GROWTH, PICK, REBUILD};

/// Replicas of the rows that rebuild the ring.
const FLEETS: [u32; 4] = [10, 100, 1000, 10_000];
const BOUND: f64 = 1.25;
/// Requests that are held while picks are timed: with none in flight a bound is never reached.
const IN_FLIGHT: usize = 64;
const PICKS: u32 = 20_000;
const KEYS: usize = 4096;
const PICK_BATCHES: usize = 101;
/// A change is timed until there are so many, or this time is over (five at least).
const CHANGES: usize = 101;
const CHANGES_TAKE: Duration = Duration::from_secs(2);
const FEWEST_CHANGES: usize = 5;
const SEED: u64 = 17;

/// How one pick or change is configured.
fn config(kind: PolicyKind, hash: RingHash, bound: Option<f64>, members: u32) -> PolicyConfig {
    let ring = RingConfig { slots: ring_slots(members), hash, ..RingConfig::default() };
    PolicyConfig { kind, ring, bound, ..PolicyConfig::default() }
}

fn members(count: u32, load: &Arc<PoolLoad>) -> Result<Arc<[Arc<Replica>]>, String> {
    let member = |id: u32| {
        let hostname = Hostname::new(&format!("S{id}")).ok_or("a host name")?;
        let spec = ReplicaSpec { id: ReplicaId(id), generation: Generation(u64::from(id)), hostname };
        let replica = Replica::new(&spec, SocketAddr::from((Ipv4Addr::LOCALHOST, 1)), Arc::clone(load));
        replica.set_health(Health::Ready);
        Ok(Arc::new(replica))
    };
    (1..=count).map(member).collect()
}

fn timing(row: &str, case: String, members: u32, mut nanos: Vec<f64>) -> Result<Timing, String> {
    nanos.sort_by(f64::total_cmp);
    let at = |part: f64| nanos.get((part * nanos.len() as f64) as usize).copied().ok_or("nothing was timed");
    let (lower_ns, median_ns, upper_ns) = (at(0.25)?, at(0.5)?, at(0.75)?);
    Ok(Timing { row: row.into(), case, members, median_ns, lower_ns, upper_ns, batches: nanos.len() })
}

/// The time of one pick, by policy, hash function and size of the fleet, with requests in flight.
pub(crate) fn picks() -> Result<Vec<Timing>, String> {
    let mut timings = Vec::new();
    for kind in [PolicyKind::Consistent, PolicyKind::RoundRobin] {
        for (bound, what) in [(None, "bare"), (Some(BOUND), "bound 1.25")] {
            for hash in [RingHash::Assignment, RingHash::Xxh3] {
                for count in GROWTH.map(u32::from) {
                    let nanos = pick(&config(kind, hash, bound, count), count)?;
                    timings.push(timing(PICK, format!("{kind} {what}, {hash}"), count, nanos)?);
                }
            }
        }
    }
    Ok(timings)
}

fn cx(key: u64) -> PickCx<'static> {
    PickCx { key, ..PickCx::default() }
}

fn pick(config: &PolicyConfig, count: u32) -> Result<Vec<f64>, String> {
    let (pool, reader, _suspected) = pool(config.policy());
    let members = members(count, &pool.load())?;
    pool.publish(Arc::clone(&members), &Place::first(count));
    let picker = pool.policy().build(members);
    let mut rng = StdRng::seed_from_u64(SEED);
    let keys: Vec<u64> = (0..KEYS).map(|_| rng.random_range(REQUEST_IDS)).collect();
    let leases: Vec<_> = keys.iter().take(IN_FLIGHT).filter_map(|key| reader.acquire(&cx(*key))).collect();
    if leases.len() != IN_FLIGHT {
        return Err("not all requests found a replica".into());
    }
    let batch = || {
        let began = Instant::now();
        for key in keys.iter().cycle().take(PICKS as usize) {
            black_box(picker.pick(&cx(black_box(*key))));
        }
        began.elapsed().as_secs_f64() * 1e9 / f64::from(PICKS)
    };
    batch();
    Ok((0..PICK_BATCHES).map(|_| batch()).collect())
}

/// The time from a new list of members to a picker that can be published: one replica comes or goes, and the whole fleet at
/// once. The ring grows with the fleet.
pub(crate) fn rebuilds() -> Result<Vec<Timing>, String> {
    let mut timings = Vec::new();
    for hash in [RingHash::Assignment, RingHash::Xxh3] {
        for count in FLEETS {
            let config = config(PolicyKind::Consistent, hash, Some(BOUND), count);
            let all = members(count, &Arc::default())?;
            let ids = Place::first(count);
            let whole = changes(|| {
                let policy = config.policy();
                policy.place(&ids);
                black_box(policy.build(Arc::clone(&all)));
            });
            timings.push(timing(REBUILD, format!("whole ring, {hash}"), count, whole)?);
            let fewer: Arc<[Arc<Replica>]> = all.iter().skip(1).cloned().collect();
            let policy = config.policy();
            let mut leaves = false;
            let one = changes(|| {
                leaves = !leaves;
                policy.place(&ids[usize::from(leaves)..]);
                black_box(policy.build(Arc::clone(if leaves { &fewer } else { &all })));
            });
            timings.push(timing(REBUILD, format!("one replica more or less, {hash}"), count, one)?);
        }
    }
    Ok(timings)
}

fn changes(mut change: impl FnMut()) -> Vec<f64> {
    change();
    let (began, mut nanos) = (Instant::now(), Vec::new());
    while nanos.len() < FEWEST_CHANGES || (nanos.len() < CHANGES && began.elapsed() < CHANGES_TAKE) {
        let one = Instant::now();
        change();
        nanos.push(one.elapsed().as_secs_f64() * 1e9);
    }
    nanos
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_has_room_for_every_fleet() {
        for count in FLEETS.into_iter().chain(GROWTH.map(u32::from)) {
            let ring = config(PolicyKind::Consistent, RingHash::Xxh3, None, count).ring;
            assert!(ring.capacity() >= count as usize, "{count}");
        }
        assert_eq!(ring_slots(3), 512, "the default holds 56");
        assert_eq!(ring_slots(500), 32_768);
    }
}
