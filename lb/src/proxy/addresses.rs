//! How many connections each client address has. Only looked at if there is a limit.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Connections by address, of all workers together.
#[derive(Debug)]
pub(super) struct Addresses {
    limit: u32,
    open: Mutex<HashMap<IpAddr, u32>>,
}

/// One connection that counts; until dropped.
#[derive(Debug)]
pub(super) struct Counted {
    addresses: Arc<Addresses>,
    ip: IpAddr,
}

impl Addresses {
    /// Nobody is connected yet; `limit` is what one address may have.
    pub(super) fn new(limit: u32) -> Self {
        Self { limit, open: Mutex::default() }
    }

    pub(super) fn limit(&self) -> u32 {
        self.limit
    }

    fn open(&self) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one more connection, unless there are as many as may be.
    pub(super) fn enter(self: &Arc<Self>, ip: IpAddr) -> Option<Counted> {
        let ip = ip.to_canonical();
        let mut open = self.open();
        let count = open.entry(ip).or_default();
        if *count >= self.limit {
            return None;
        }
        *count += 1;
        Some(Counted { addresses: Arc::clone(self), ip })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut open = self.addresses.open();
        if let Some(count) = open.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_its_own_count() {
        let addresses = Arc::new(Addresses::new(2));
        let (one, other): (IpAddr, IpAddr) = ([127, 0, 0, 1].into(), [127, 0, 0, 2].into());
        let first = addresses.enter(one).unwrap();
        let second = addresses.enter("::ffff:127.0.0.1".parse().unwrap());
        assert!(second.is_some() && addresses.enter(one).is_none());
        assert!(addresses.enter(other).is_some());
        drop(first);
        assert!(addresses.enter(one).is_some());
        drop(second);
        assert!(addresses.open().is_empty());
    }
}
