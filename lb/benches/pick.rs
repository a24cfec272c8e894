//! One choice of a replica: every policy, by the size of the fleet, beside `pingora-ketama`.
//!
//! `cargo bench -p lb --bench pick`, or `make bench-pick`, which makes a table of it. A policy that joins
//! [`PolicyKind::WORDS`] joins here. Keys are random six-digit request IDs, one after the other, so a case also pays for
//! what its table needs in the caches. The case `loop` has the keys and the clock alone, which all cases pay for.

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkGroup, BenchmarkId, Criterion, SamplingMode, measurement::WallTime};
use lb::placement::hash::RingHash;
use lb::placement::ring::{MAX_SLOTS, RingConfig};
use lb::placement::{Place, REQUEST_IDS};
use lb::policy::{PickCx, Picker, PolicyConfig, PolicyKind};
use lb::pool::{Lease, Pool, PoolReader, pool};
use lb::replica::{Generation, Health, Hostname, PoolLoad, Replica, ReplicaId, ReplicaSpec};
use pingora_ketama::{Bucket, Continuum, DEFAULT_POINT_MULTIPLE};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const FLEETS: [u32; 3] = [3, 50, 500];
const BOUND: f64 = 1.25;
/// Requests that are held while picks with a bound, or by load, are timed: with none in flight a bound is never reached.
const IN_FLIGHT: usize = 64;
/// A power of two, so that the next one is found with a mask.
const KEYS: usize = 4096;
const SEED: u64 = 17;

/// One way to configure a policy, and how many requests are held.
struct Case {
    name: String,
    config: PolicyConfig,
    in_flight: usize,
}

/// `ring` and `bound` mean something to some kinds only.
fn config(kind: PolicyKind, ring: RingConfig, bound: Option<f64>) -> PolicyConfig {
    PolicyConfig { kind, ring, bound, ..PolicyConfig::default() }
}

/// What a picker is told of the request; all else as for a first try.
fn request(key: u64) -> PickCx<'static> {
    // Chance that differs with the key, as cheap as can be.
    PickCx { key, random: key.wrapping_mul(0x9e37_79b9_7f4a_7c15), ..PickCx::default() }
}

/// A ring that holds `members`, in the proportion that the default ring has when it is full.
fn ring(members: u32, hash: RingHash) -> RingConfig {
    let default = RingConfig::default();
    let each = default.slots.div_ceil(default.vnodes);
    let slots = members.saturating_mul(each).next_power_of_two().clamp(default.slots, MAX_SLOTS);
    RingConfig { slots, hash, ..default }
}

/// As many points for each member as `pingora-ketama` has, and eight slots for each point, so that they are as even.
fn fine_ring(members: u32) -> RingConfig {
    let slots = members.saturating_mul(8 * DEFAULT_POINT_MULTIPLE).next_power_of_two().min(MAX_SLOTS);
    RingConfig { slots, vnodes: DEFAULT_POINT_MULTIPLE, hash: RingHash::Xxh3, ..RingConfig::default() }
}

/// The cases of one policy.
fn cases(kind: PolicyKind, members: u32) -> Vec<Case> {
    let case = |name: &str, ring, bound, in_flight| {
        let config = config(kind, ring, bound);
        Case { name: name.into(), config, in_flight }
    };
    let xxh3 = ring(members, RingHash::Xxh3);
    match kind {
        PolicyKind::Consistent => {}
        kind if kind.is_hashing() => {
            let bound = format!("bound {BOUND}");
            return vec![case("bare", xxh3, None, 0), case(&bound, xxh3, Some(BOUND), IN_FLIGHT)];
        }
        _ => return vec![case(&format!("{IN_FLIGHT} in flight"), xxh3, None, IN_FLIGHT)],
    }
    let mut cases = Vec::new();
    for hash in [RingHash::Assignment, RingHash::Xxh3] {
        cases.push(case(&format!("bare {hash}"), ring(members, hash), None, 0));
    }
    for hash in [RingHash::Assignment, RingHash::Xxh3] {
        cases.push(case(&format!("bound {BOUND} {hash}"), ring(members, hash), Some(BOUND), IN_FLIGHT));
    }
    cases.push(case(&format!("{DEFAULT_POINT_MULTIPLE} points"), fine_ring(members), None, 0));
    cases
}

fn addr(member: u32) -> SocketAddr {
    let [_, a, b, c] = member.to_be_bytes();
    SocketAddr::from((Ipv4Addr::new(10, a, b, c), 80))
}

fn members(count: u32, load: &Arc<PoolLoad>) -> Result<Arc<[Arc<Replica>]>, String> {
    let member = |id: u32| {
        let hostname = Hostname::new(&format!("S{id}")).ok_or("a host name")?;
        let spec = ReplicaSpec { id: ReplicaId(id), generation: Generation(u64::from(id)), hostname };
        let replica = Replica::new(&spec, addr(id), Arc::clone(load));
        replica.set_health(Health::Ready);
        Ok(Arc::new(replica))
    };
    (1..=count).map(member).collect()
}

/// Makes `count` ready replicas the pool's members, and gives a picker over them.
fn publish(pool: &Pool, count: u32) -> Result<Arc<dyn Picker>, String> {
    let members = members(count, &pool.load())?;
    pool.publish(Arc::clone(&members), &Place::first(count));
    Ok(pool.policy().build(members))
}

fn hold(reader: &PoolReader, keys: &[u64]) -> Result<Vec<Lease>, String> {
    let leases: Vec<Lease> = keys.iter().filter_map(|key| reader.acquire(&request(*key))).collect();
    if leases.len() == keys.len() { Ok(leases) } else { Err("not all requests found a replica".into()) }
}

/// Times `look_up` with one key after the other.
fn time<T>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    members: u32,
    keys: &[u64; KEYS],
    look_up: impl Fn(u64) -> T,
) {
    group.bench_function(BenchmarkId::new(name, members), |bencher| {
        let mut at = 0;
        bencher.iter(|| {
            at = (at + 1) % KEYS;
            look_up(keys[at])
        });
    });
}

fn group<'a>(criterion: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    // Samples of one length: their quartiles are compared.
    group.sampling_mode(SamplingMode::Flat);
    group
}

fn all(criterion: &mut Criterion) -> Result<(), String> {
    let mut rng = StdRng::seed_from_u64(SEED);
    let keys: [u64; KEYS] = std::array::from_fn(|_| rng.random_range(REQUEST_IDS));
    time(&mut group(criterion, "loop"), "keys alone", 0, &keys, |key| key);
    for word in PolicyKind::WORDS {
        let kind: PolicyKind = word.parse()?;
        let mut group = group(criterion, word);
        for count in FLEETS {
            for Case { name, config, in_flight } in cases(kind, count) {
                let (pool, reader, _suspected) = pool(config.policy());
                let picker = publish(&pool, count)?;
                let _leases = hold(&reader, &keys[..in_flight])?;
                for member in reader.snapshot().members.iter() {
                    // Not all alike, for a policy that goes by latency.
                    reader.measure(member, || Duration::from_millis(u64::from(member.id.0 % 7 + 1)));
                }
                time(&mut group, &name, count, &keys, |key| {
                    black_box(picker.pick(&request(key)));
                });
            }
        }
    }
    let mut group = group(criterion, "pingora-ketama");
    for count in FLEETS {
        let buckets: Vec<Bucket> = (1..=count).map(|member| Bucket::new(addr(member), 1)).collect();
        let continuum = Continuum::new(&buckets);
        let name = format!("{DEFAULT_POINT_MULTIPLE} points");
        time(&mut group, &name, count, &keys, |key| continuum.node(&key.to_le_bytes()));
    }
    Ok(())
}

fn main() -> Result<(), String> {
    let criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(50)
        .nresamples(10_000);
    let mut criterion = criterion.configure_from_args();
    all(&mut criterion)?;
    criterion.final_summary();
    Ok(())
}
