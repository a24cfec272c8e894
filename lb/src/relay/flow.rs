//! The table of UDP flows: who talks to which replica, least recently used first. Pure: sockets are values that it holds,
//! time is a number that comes in.
//!
//! A flow is what one client exchanges with one replica. By datagram a client has a flow with each replica that its
//! datagrams went to; by flow it has one in all.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};

use slab::Slab;

use crate::replica::Generation;

/// What datagrams of one flow have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// Who talks.
    pub client: SocketAddr,
    /// To which address of this host, where there are several.
    pub local: Option<IpAddr>,
    /// With whom; `None` where a client sticks to one.
    pub replica: Option<Generation>,
}

/// A flow's place in the table. Not the place of any later flow, even in the same slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowId {
    slot: u32,
    version: u32,
}

impl FlowId {
    /// As one number, and back.
    pub fn to_u64(self) -> u64 {
        u64::from(self.version) << 32 | u64::from(self.slot)
    }

    /// The inverse of [`FlowId::to_u64`].
    pub fn from_u64(number: u64) -> Self {
        Self { slot: number as u32, version: (number >> 32) as u32 }
    }
}

#[derive(Debug)]
struct Entry<K, T> {
    key: K,
    value: T,
    version: u32,
    used: u64,
    older: Option<u32>,
    younger: Option<u32>,
}

/// Flows with a value for each, of at most `capacity`.
#[derive(Debug)]
pub struct Flows<T, K = FlowKey> {
    entries: Slab<Entry<K, T>>,
    by_key: HashMap<K, u32>,
    oldest: Option<u32>,
    youngest: Option<u32>,
    versions: u32,
}

impl<T, K> Default for Flows<T, K> {
    fn default() -> Self {
        Self { entries: Slab::new(), by_key: HashMap::new(), oldest: None, youngest: None, versions: 0 }
    }
}

impl<T, K: Copy + Eq + Hash> Flows<T, K> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Is there none?
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The flow with this key, and its value.
    pub fn find(&self, key: &K) -> Option<(FlowId, &T)> {
        let slot = *self.by_key.get(key)?;
        let entry = self.entries.get(slot as usize)?;
        Some((FlowId { slot, version: entry.version }, &entry.value))
    }

    /// The flow at this place, if it is still there.
    pub fn get(&self, id: FlowId) -> Option<(&K, &T)> {
        let entry = self.entries.get(id.slot as usize).filter(|entry| entry.version == id.version)?;
        Some((&entry.key, &entry.value))
    }

    /// The flow was used at `now`, which never goes back.
    pub fn touch(&mut self, id: FlowId, now: u64) {
        if self.get(id).is_none() {
            return;
        }
        if self.youngest != Some(id.slot) {
            self.unlink(id.slot);
            self.link(id.slot);
        }
        if let Some(entry) = self.entries.get_mut(id.slot as usize) {
            entry.used = now;
        }
    }

    /// A new flow, used at `now`. What had the same key is handed back.
    pub fn insert(&mut self, key: K, value: T, now: u64) -> (FlowId, Option<T>) {
        let before = self.find(&key).map(|(id, _)| id).and_then(|id| self.remove(id));
        self.versions = self.versions.wrapping_add(1);
        let version = self.versions;
        let entry = Entry { key, value, version, used: now, older: None, younger: None };
        let slot = self.entries.insert(entry) as u32;
        self.by_key.insert(key, slot);
        self.link(slot);
        (FlowId { slot, version }, before)
    }

    /// Ends a flow, and hands back its value.
    pub fn remove(&mut self, id: FlowId) -> Option<T> {
        self.get(id)?;
        self.unlink(id.slot);
        let entry = self.entries.remove(id.slot as usize);
        self.by_key.remove(&entry.key);
        if self.entries.is_empty() {
            // After a crowd has left.
            self.entries.shrink_to_fit();
            self.by_key.shrink_to_fit();
        }
        Some(entry.value)
    }

    /// All flows and when each was last used, from the least recently used on.
    pub fn by_age(&self) -> impl Iterator<Item = (&K, &T, u64)> {
        let mut next = self.oldest;
        std::iter::from_fn(move || {
            let entry = self.entries.get(next? as usize)?;
            next = entry.younger;
            Some((&entry.key, &entry.value, entry.used))
        })
    }

    /// Ends the flow that was not used for the longest time.
    pub fn remove_oldest(&mut self) -> Option<T> {
        self.remove(self.id_of(self.oldest?)?)
    }

    /// Ends a flow that was last used at `before` or earlier, if there is one.
    pub fn remove_idle(&mut self, before: u64) -> Option<T> {
        let oldest = self.oldest?;
        if self.entries.get(oldest as usize)?.used > before { None } else { self.remove_oldest() }
    }

    /// Ends all flows whose value `ends`; how many.
    pub fn remove_where(&mut self, mut ends: impl FnMut(&T) -> bool) -> usize {
        let ending = self.entries.iter().filter(|(_, entry)| ends(&entry.value));
        let ending: Vec<_> = ending.map(|(slot, entry)| FlowId { slot: slot as u32, version: entry.version }).collect();
        ending.into_iter().filter_map(|id| self.remove(id)).count()
    }

    fn id_of(&self, slot: u32) -> Option<FlowId> {
        Some(FlowId { slot, version: self.entries.get(slot as usize)?.version })
    }

    fn entry(&mut self, slot: Option<u32>) -> Option<&mut Entry<K, T>> {
        self.entries.get_mut(slot? as usize)
    }

    /// Puts it at the young end.
    fn link(&mut self, slot: u32) {
        let youngest = self.youngest.replace(slot);
        if let Some(entry) = self.entry(Some(slot)) {
            (entry.older, entry.younger) = (youngest, None);
        }
        match self.entry(youngest) {
            Some(entry) => entry.younger = Some(slot),
            None => self.oldest = Some(slot),
        }
    }

    fn unlink(&mut self, slot: u32) {
        let Some(entry) = self.entry(Some(slot)) else { return };
        let (older, younger) = (entry.older, entry.younger);
        match self.entry(older) {
            Some(entry) => entry.younger = younger,
            None => self.oldest = younger,
        }
        match self.entry(younger) {
            Some(entry) => entry.older = older,
            None => self.youngest = older,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(flows: &mut Flows<u32, u32>) -> Vec<u32> {
        std::iter::from_fn(|| flows.remove_oldest()).collect()
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut flows = Flows::<u32, u32>::default();
        let ids: Vec<_> = (0..4).map(|number| flows.insert(number, number * 10, u64::from(number)).0).collect();
        flows.touch(ids[1], 5);
        flows.touch(ids[0], 6);
        flows.touch(ids[0], 7);
        assert_eq!(flows.remove(ids[3]), Some(30));
        assert_eq!(drain(&mut flows), [20, 10, 0]);
        assert!(flows.is_empty() && flows.oldest.is_none() && flows.youngest.is_none());
    }

    #[test]
    fn a_place_is_not_that_of_a_later_flow() {
        let mut flows = Flows::<u32, u32>::default();
        let (first, _) = flows.insert(1, 1, 0);
        flows.remove(first);
        let (second, _) = flows.insert(2, 2, 0);
        assert_eq!(first.slot, second.slot);
        assert!(flows.get(first).is_none() && flows.remove(first).is_none());
        flows.touch(first, 9);
        assert_eq!(flows.get(second), Some((&2, &2)));
        assert_eq!(FlowId::from_u64(second.to_u64()), second);
        assert_eq!(flows.insert(2, 3, 1).1, Some(2), "the same key once more");
        assert_eq!(flows.len(), 1);
    }

    #[test]
    fn only_what_is_idle_ends_by_time() {
        let mut flows = Flows::<u32, u32>::default();
        for number in 0..5 {
            flows.insert(number, number, u64::from(number));
        }
        let ended: Vec<_> = std::iter::from_fn(|| flows.remove_idle(2)).collect();
        assert_eq!((ended, flows.len()), (vec![0, 1, 2], 2));
    }
}
