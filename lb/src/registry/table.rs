//! Who is registered for what. Pure: it opens nothing, and knows no clock.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use super::{Affinity, Peer, PeerId, Refusal, Registration, RegistryConfig};
use crate::relay::{PortKey, Protocol};
use crate::replica::{Generation, ReplicaId};

/// One registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) peer: PeerId,
    /// Where its traffic goes.
    pub(super) addr: SocketAddr,
    /// Is that on this host?
    pub(super) is_local: bool,
    pub(super) registration: Registration,
    pub(super) id: ReplicaId,
    pub(super) generation: Generation,
    /// What its server says instead of "good".
    pub(super) state: Option<String>,
    /// Live traffic has not found its port closed.
    pub(super) reachable: bool,
}

impl Member {
    pub(super) fn in_rotation(&self) -> bool {
        self.reachable && self.state.is_none()
    }

    pub(super) fn reason(&self) -> Option<String> {
        match (&self.state, self.reachable) {
            (Some(state), _) => Some(format!("its server says that it is '{state}'")),
            (None, false) => Some("nobody answers at its port".into()),
            (None, true) => None,
        }
    }
}

/// A member that was registered until now.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Left {
    pub(super) key: PortKey,
    pub(super) member: Member,
    /// Those that remain on its port.
    pub(super) remaining: usize,
}

/// All registrations, by port and age.
#[derive(Debug, Default)]
pub(super) struct Table {
    ports: BTreeMap<PortKey, Vec<Member>>,
    generations: u64,
}

impl Table {
    pub(super) fn members(&self, key: PortKey) -> &[Member] {
        self.ports.get(&key).map_or(&[], Vec::as_slice)
    }

    /// May this be registered? True if its port must be opened for it.
    pub(super) fn admit(
        &self,
        peer: Peer,
        registration: &Registration,
        config: &RegistryConfig,
    ) -> Result<bool, Refusal> {
        let (key, addr) = (registration.key(), SocketAddr::new(peer.ip, registration.port));
        let members = self.members(key);
        if members.iter().any(|member| member.addr == addr) {
            return Err(Refusal::Registered(addr, key));
        }
        if self.of_peer(peer.id).count() >= config.max_registrations {
            return Err(Refusal::TooMany(config.max_registrations));
        }
        let cannot_bind = |why: &str| Err(Refusal::CannotBind(key, why.into()));
        if config.reserved.contains(&key) {
            return cannot_bind("the balancer itself uses this port");
        }
        if !config.allowed.iter().any(|range| range.contains(&key.port)) {
            let allowed: Vec<_> =
                config.allowed.iter().map(|range| format!("{}-{}", range.start(), range.end())).collect();
            return cannot_bind(&format!("relay ports may be {}", allowed.join(", ")));
        }
        if self.would_loop(peer, registration, config) {
            return cannot_bind(
                "its traffic would come back to the balancer's own ports; on one host these must differ from the servers'",
            );
        }
        let fits = config.policy.capacity();
        if config.policy.kind.is_hashing() && members.len() >= fits {
            return Err(Refusal::Full(key, fits));
        }
        let used = members.iter().find_map(|member| member.registration.affinity);
        if let (Some(wanted), Some(used)) = (registration.affinity, used)
            && wanted != used
        {
            return Err(Refusal::Affinity(key, wanted, used));
        }
        Ok(members.is_empty())
    }

    /// Would a relay, this one or another, pass traffic on to a relay's port?
    fn would_loop(&self, peer: Peer, registration: &Registration, config: &RegistryConfig) -> bool {
        let is_relays =
            |ip: IpAddr, is_local: bool| is_local && (config.address.is_unspecified() || config.address == ip);
        let own = PortKey { protocol: registration.protocol, port: registration.port };
        let to_a_relay = own == registration.key() || self.ports.contains_key(&own);
        let opens_a_replicas = || {
            self.ports.values().flatten().any(|member| {
                let theirs = PortKey { protocol: member.registration.protocol, port: member.addr.port() };
                theirs == registration.key() && is_relays(member.addr.ip(), member.is_local)
            })
        };
        (to_a_relay && is_relays(peer.ip, peer.is_local)) || opens_a_replicas()
    }

    /// Takes in what was admitted. The lowest ring number that is free at its port is its own.
    pub(super) fn join(&mut self, peer: Peer, registration: Registration) -> &Member {
        self.generations += 1;
        let members = self.ports.entry(registration.key()).or_default();
        let taken: BTreeSet<u32> = members.iter().map(|member| member.id.0).collect();
        let id = (1..).find(|id| !taken.contains(id)).unwrap_or(u32::MAX);
        members.push(Member {
            peer: peer.id,
            addr: SocketAddr::new(peer.ip, registration.port),
            is_local: peer.is_local,
            registration,
            id: ReplicaId(id),
            generation: Generation(self.generations),
            state: None,
            reachable: true,
        });
        // It was just pushed.
        &members[members.len() - 1]
    }

    /// Ends one registration of a peer.
    pub(super) fn leave(&mut self, peer: Peer, registration: &Registration) -> Result<Left, Refusal> {
        let (key, addr) = (registration.key(), SocketAddr::new(peer.ip, registration.port));
        let members = self.ports.entry(key).or_default();
        let at = members.iter().position(|member| member.addr == addr && member.peer == peer.id);
        let left = at.map(|at| members.remove(at));
        let remaining = members.len();
        if remaining == 0 {
            self.ports.remove(&key);
        }
        left.map(|member| Left { key, member, remaining }).ok_or(Refusal::NotRegistered(addr, key))
    }

    /// All registrations of a peer.
    pub(super) fn of_peer(&self, peer: PeerId) -> impl Iterator<Item = &Member> {
        self.ports.values().flatten().filter(move |member| member.peer == peer)
    }

    /// Keeps what a peer says of itself: of the member that `of` names, or of all. Gives those for which that is news.
    pub(super) fn set_state(
        &mut self,
        peer: PeerId,
        of: Option<(Protocol, u16)>,
        state: Option<&str>,
    ) -> Vec<(PortKey, Member)> {
        let names = |member: &Member, (protocol, port): (Protocol, u16)| {
            let Registration { protocol: its, port: own, relay_port, .. } = member.registration;
            its == protocol && (own == port || relay_port == port)
        };
        // A name that fits none of them says nothing about which is meant.
        let of = of.filter(|of| self.of_peer(peer).any(|member| names(member, *of)));
        let mut news = Vec::new();
        for (key, members) in &mut self.ports {
            for member in members.iter_mut().filter(|member| member.peer == peer) {
                if of.is_none_or(|of| names(member, of)) && member.state.as_deref() != state {
                    member.state = state.map(str::to_owned);
                    news.push((*key, member.clone()));
                }
            }
        }
        news
    }

    /// Keeps whether anybody answers at a replica's port; the member if that is news.
    pub(super) fn set_reachable(&mut self, key: PortKey, generation: Generation, reachable: bool) -> Option<Member> {
        let member = self.ports.get_mut(&key)?.iter_mut().find(|member| member.generation == generation)?;
        (std::mem::replace(&mut member.reachable, reachable) != reachable).then(|| member.clone())
    }

    /// Has a replica of this port asked for flows?
    pub(super) fn by_flow(&self, key: PortKey) -> bool {
        self.members(key).iter().any(|member| member.registration.affinity == Some(Affinity::Flow))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{PolicyConfig, PolicyKind};
    use std::num::NonZeroU16;
    use std::time::Duration;

    fn config() -> RegistryConfig {
        RegistryConfig {
            address: [0, 0, 0, 0].into(),
            allowed: vec![1024..=2000, 5000..=60_000],
            reserved: vec![PortKey { protocol: Protocol::Tcp, port: 5000 }],
            max_registrations: 3,
            policy: PolicyConfig { kind: PolicyKind::RoundRobin, ..PolicyConfig::default() },
            drain_timeout: Duration::from_secs(1),
        }
    }

    fn peer(number: u64) -> Peer {
        Peer { id: PeerId(number), ip: [10, 0, 0, number as u8].into(), is_local: false }
    }

    fn registration(protocol: Protocol, port: u16, relay_port: u16) -> Registration {
        Registration { protocol, port, relay_port, affinity: None, weight: NonZeroU16::MIN, priority: 0 }
    }

    const TCP: Protocol = Protocol::Tcp;
    const UDP: Protocol = Protocol::Udp;

    fn register(table: &mut Table, peer: Peer, registration: Registration) -> Result<bool, Refusal> {
        let opens = table.admit(peer, &registration, &config())?;
        table.join(peer, registration);
        Ok(opens)
    }

    #[test]
    fn a_port_is_opened_for_the_first_and_left_by_the_last() {
        let mut table = Table::default();
        let of = registration(TCP, 30_000, 50_000);
        assert_eq!(register(&mut table, peer(1), of), Ok(true));
        assert_eq!(register(&mut table, peer(2), of), Ok(false));
        assert_eq!(
            register(&mut table, peer(1), of),
            Err(Refusal::Registered("10.0.0.1:30000".parse().unwrap(), of.key()))
        );
        assert_eq!(register(&mut table, peer(1), registration(UDP, 30_000, 50_000)), Ok(true), "another protocol");
        assert_eq!(table.leave(peer(1), &of).unwrap().remaining, 1);
        assert!(matches!(table.leave(peer(1), &of), Err(Refusal::NotRegistered(..))), "not twice");
        assert_eq!(table.leave(peer(2), &of).unwrap().remaining, 0);
        assert!(matches!(table.leave(peer(2), &registration(TCP, 1, 1)), Err(Refusal::NotRegistered(..))));
        assert_eq!(table.ports.len(), 1, "nothing is left of it");
    }

    #[test]
    fn nobody_ends_what_others_have_registered() {
        let mut table = Table::default();
        let of = registration(TCP, 30_000, 50_000);
        register(&mut table, peer(1), of).unwrap();
        let same_host = Peer { id: PeerId(9), ..peer(1) };
        assert!(matches!(table.leave(same_host, &of), Err(Refusal::NotRegistered(..))));
        assert_eq!(table.of_peer(PeerId(1)).count(), 1);
    }

    #[test]
    fn ring_numbers_are_the_lowest_free_ones_and_generations_never_come_again() {
        let mut table = Table::default();
        let of = |port| registration(TCP, port, 50_000);
        for port in 1..=3 {
            register(&mut table, peer(1), of(port)).unwrap();
        }
        table.leave(peer(1), &of(2)).unwrap();
        register(&mut table, peer(1), of(4)).unwrap();
        let found: Vec<_> =
            table.members(of(1).key()).iter().map(|member| (member.id.0, member.generation.0)).collect();
        assert_eq!(found, [(1, 1), (3, 3), (2, 4)]);
    }

    #[test]
    fn ports_that_are_not_free_for_it_are_refused() {
        let mut table = Table::default();
        let refused = |table: &mut Table, peer, of, text: &str| {
            let refusal = register(table, peer, of).unwrap_err().to_string();
            assert!(refusal.contains(text), "{refusal}");
        };
        refused(&mut table, peer(1), registration(TCP, 1, 5000), "tcp/5000 can't be opened: the balancer itself");
        assert_eq!(register(&mut table, peer(1), registration(UDP, 1, 5000)), Ok(true), "its UDP port is free");
        refused(&mut table, peer(1), registration(TCP, 1, 80), "1024-2000, 5000-60000");
        let local = Peer { is_local: true, ..peer(2) };
        refused(&mut table, local, registration(TCP, 6000, 6000), "must differ");
        refused(&mut table, local, registration(UDP, 5000, 6000), "must differ");
        register(&mut table, local, registration(TCP, 6001, 6002)).unwrap();
        refused(&mut table, peer(3), registration(TCP, 6000, 6001), "must differ");
        let elsewhere = RegistryConfig { address: [10, 0, 0, 77].into(), ..config() };
        assert_eq!(table.admit(local, &registration(TCP, 6000, 6000), &elsewhere), Ok(true), "another address");
        assert_eq!(register(&mut table, peer(2), registration(TCP, 6000, 6000)), Ok(true), "on another host");
        for port in [7001, 7002] {
            register(&mut table, peer(1), registration(TCP, port, 7000)).unwrap();
        }
        refused(&mut table, peer(1), registration(TCP, 7003, 7000), "3 registrations");
    }

    #[test]
    fn an_affinity_is_that_of_the_port() {
        let mut table = Table::default();
        let of = |port, affinity| Registration { affinity, ..registration(UDP, port, 50_000) };
        register(&mut table, peer(1), of(1, None)).unwrap();
        assert!(!table.by_flow(of(1, None).key()));
        register(&mut table, peer(1), of(2, Some(Affinity::Flow))).unwrap();
        assert!(table.by_flow(of(1, None).key()));
        assert!(matches!(
            register(&mut table, peer(1), of(3, Some(Affinity::Datagram))),
            Err(Refusal::Affinity(_, Affinity::Datagram, Affinity::Flow))
        ));
        table.leave(peer(1), &of(2, None)).unwrap();
        assert!(!table.by_flow(of(1, None).key()));
    }

    #[test]
    fn a_state_is_that_of_all_or_of_the_one_it_names() {
        let mut table = Table::default();
        register(&mut table, peer(1), registration(TCP, 30_000, 50_000)).unwrap();
        register(&mut table, peer(1), registration(UDP, 30_000, 50_001)).unwrap();
        register(&mut table, peer(2), registration(TCP, 30_000, 50_000)).unwrap();
        let said = |table: &mut Table, of, state| -> Vec<String> {
            let news = table.set_state(PeerId(1), of, state);
            news.into_iter().map(|(key, member)| format!("{key} {}", member.in_rotation())).collect()
        };
        assert_eq!(said(&mut table, None, None), Vec::<String>::new(), "no news");
        assert_eq!(said(&mut table, Some((UDP, 50_001)), Some("busy")), ["udp/50001 false"]);
        assert_eq!(said(&mut table, Some((UDP, 30_000)), None), ["udp/50001 true"]);
        assert_eq!(said(&mut table, None, Some("bad")), ["tcp/50000 false", "udp/50001 false"]);
        assert_eq!(said(&mut table, Some((TCP, 9)), None), ["tcp/50000 true", "udp/50001 true"], "fits none: all");
        let key = PortKey { protocol: TCP, port: 50_000 };
        assert!(!table.set_reachable(key, Generation(1), false).unwrap().in_rotation());
        assert!(table.set_reachable(key, Generation(1), false).is_none(), "no news");
        assert_eq!(said(&mut table, None, Some("bad")).len(), 2);
        assert!(!table.set_reachable(key, Generation(1), true).unwrap().in_rotation(), "its server says otherwise");
    }
}
