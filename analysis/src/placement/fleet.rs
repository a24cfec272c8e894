//! Replicas that nobody listens behind, and requests that only are placed.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use lb::placement::{Place, REQUEST_IDS};
use lb::policy::{PickCx, PolicyConfig};
use lb::pool::{Pool, PoolReader, pool};
use lb::replica::{Generation, Health, Hostname, Replica, ReplicaId, ReplicaSpec, Share};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

/// Requests with random six-digit IDs and chance of their own, the same for the same seed.
struct Requests(StdRng);

impl Requests {
    fn new(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }

    fn next(&mut self) -> PickCx<'static> {
        PickCx { key: self.0.random_range(REQUEST_IDS), random: self.0.next_u64(), ..PickCx::default() }
    }
}

/// A pool of ready replicas, numbered from 1.
pub(crate) struct Fleet {
    reader: PoolReader,
    members: Arc<[Arc<Replica>]>,
    _pool: Pool,
}

impl Fleet {
    /// One replica for each of `weights`.
    pub(crate) fn new(config: &PolicyConfig, weights: &[u16]) -> Result<Self, String> {
        let (pool, reader, _suspected) = pool(config.policy());
        let load = pool.load();
        let member = |(id, weight): (u32, &u16)| {
            let hostname = Hostname::new(&format!("S{id}")).ok_or("a host name")?;
            let spec = ReplicaSpec { id: ReplicaId(id), generation: Generation(u64::from(id)), hostname };
            let replica = Replica::new(&spec, SocketAddr::from((Ipv4Addr::LOCALHOST, 1)), Arc::clone(&load))
                .with_share(Share { weight: *weight, priority: 0 });
            replica.set_health(Health::Ready);
            Ok(Arc::new(replica))
        };
        let members: Arc<[Arc<Replica>]> = (1..).zip(weights).map(member).collect::<Result<_, String>>()?;
        let places: Vec<Place> = (1..).zip(weights).map(|(id, weight)| Place::new(id, *weight)).collect();
        pool.publish(Arc::clone(&members), &places);
        Ok(Self { reader, members, _pool: pool })
    }

    /// How many of so many random requests each replica gets, by ring number, while `in_flight` are held at any time: each
    /// is as likely to end next as the others. With 0 a request has ended before the next comes.
    pub(crate) fn counts(&self, requests: u32, in_flight: usize, seed: u64) -> Result<Vec<u64>, String> {
        let mut random = Requests::new(seed);
        let mut counts = vec![0; self.members.len()];
        let mut held = Vec::with_capacity(in_flight);
        for _ in 0..requests {
            if in_flight > 0 && held.len() == in_flight {
                let ends = random.0.random_range(0..held.len());
                drop(held.swap_remove(ends));
            }
            let lease = self.reader.acquire(&random.next()).ok_or("no replica was found for a request")?;
            counts[lease.replica().id.0 as usize - 1] += 1;
            if in_flight > 0 {
                held.push(lease);
            }
        }
        Ok(counts)
    }

    /// The ring number that each of the six-digit request IDs goes to now.
    pub(crate) fn owners(&self) -> Result<Vec<u32>, String> {
        let owner = |key| {
            let lease = self.reader.acquire(&PickCx { key, ..PickCx::default() });
            lease.map(|lease| lease.replica().id.0).ok_or_else(|| format!("no replica was found for {key}"))
        };
        REQUEST_IDS.map(owner).collect()
    }

    /// Takes the replica out of rotation, or back in.
    pub(crate) fn set_ready(&self, id: u32, ready: bool) {
        if let Some(member) = self.members.get(id as usize - 1) {
            member.set_health(if ready { Health::Ready } else { Health::Unready });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb::policy::PolicyKind;

    fn fleet(kind: PolicyKind) -> Fleet {
        Fleet::new(&PolicyConfig { kind, ..PolicyConfig::default() }, &[1, 1, 1]).unwrap()
    }

    #[test]
    fn the_same_seed_gives_the_same_counts_and_every_request_counts_once() {
        for kind in PolicyKind::ALL {
            for in_flight in [0, 1, 30] {
                let count = |seed| fleet(*kind).counts(2000, in_flight, seed).unwrap();
                assert_eq!(count(7), count(7), "{kind}");
                assert_eq!(count(7).iter().sum::<u64>(), 2000);
            }
        }
    }

    #[test]
    fn nobody_holds_a_request_afterwards() {
        let fleet = fleet(PolicyKind::Random);
        fleet.counts(500, 40, 1).unwrap();
        assert!(fleet.members.iter().all(|member| member.in_flight() == 0));
    }

    #[test]
    fn a_replica_out_of_rotation_owns_nothing_until_it_is_back() {
        let fleet = fleet(PolicyKind::Maglev);
        let before = fleet.owners().unwrap();
        assert_eq!(before.len(), 900_000);
        fleet.set_ready(2, false);
        assert!(fleet.owners().unwrap().iter().all(|owner| *owner != 2));
        fleet.set_ready(2, true);
        assert_eq!(fleet.owners().unwrap(), before);
        (1..=3).for_each(|id| fleet.set_ready(id, false));
        assert!(fleet.owners().is_err() && fleet.counts(1, 0, 1).is_err());
    }
}
