//! What is compared: policies with their hash functions and sizes.

use lb::placement::hash::RingHash;
use lb::placement::ring::RingConfig;
use lb::policy::{PolicyConfig, PolicyKind};

/// A policy, as it is configured here, and its name in tables.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) config: PolicyConfig,
}

/// The ring of the defaults.
pub(crate) const SMALL: (u32, u32) = (512, 9);
/// One that has room for 500 replicas.
pub(crate) const ROOMY: (u32, u32) = (65_536, 100);
/// One that is even, for some dozen replicas.
pub(crate) const EVEN: (u32, u32) = (65_536, 1000);
/// One on which weights show.
pub(crate) const FINE: (u32, u32) = (1 << 20, 2000);

impl Case {
    /// A ring with so many slots and virtual nodes; without a bound.
    pub(crate) fn ring(hash: RingHash, (slots, vnodes): (u32, u32)) -> Self {
        let ring = RingConfig { slots, vnodes, hash, ..RingConfig::default() };
        let config = PolicyConfig { ring, bound: None, ..PolicyConfig::default() };
        Self { name: format!("consistent, {hash}, {} × {vnodes}", grouped(slots)), config }
    }

    /// Any other policy, with its defaults but for the bound.
    pub(crate) fn of(kind: PolicyKind) -> Self {
        let config = PolicyConfig { kind, bound: None, ..PolicyConfig::default() };
        let name = match kind.is_hashing() {
            true => format!("{kind}, {}", grouped(config.table_slots)),
            false => kind.to_string(),
        };
        Self { name, config }
    }

    /// Does the request's key decide?
    pub(crate) fn is_hashing(&self) -> bool {
        self.config.kind.is_hashing()
    }

    /// The same with this factor of bounded loads.
    pub(crate) fn bounded(&self, bound: Option<f64>) -> PolicyConfig {
        PolicyConfig { bound, ..self.config }
    }

    /// Is there room for so many replicas?
    pub(crate) fn holds(&self, replicas: u32) -> bool {
        let places = match self.config.kind {
            PolicyKind::Maglev | PolicyKind::Rendezvous => self.config.table_slots as usize,
            _ => self.config.ring.capacity(),
        };
        places >= replicas as usize
    }
}

/// Every way of going by keys.
pub(crate) fn hashing() -> Vec<Case> {
    vec![
        Case::ring(RingHash::Assignment, SMALL),
        Case::ring(RingHash::Modified, SMALL),
        Case::ring(RingHash::Xxh3, SMALL),
        Case::ring(RingHash::Modified, EVEN),
        Case::ring(RingHash::Xxh3, EVEN),
        Case::of(PolicyKind::Maglev),
        Case::of(PolicyKind::Rendezvous),
    ]
}

/// The policies that don't look at keys.
pub(crate) fn keyless() -> Vec<Case> {
    PolicyKind::ALL.iter().filter(|kind| !kind.is_hashing()).map(|kind| Case::of(*kind)).collect()
}

/// Those of which moves are counted: with a ring that has room for the largest fleet.
pub(crate) fn moving() -> Vec<Case> {
    let mut cases = hashing();
    cases.insert(4, Case::ring(RingHash::Xxh3, ROOMY));
    cases
}

/// Those whose weights are tried: the default ring, where they say little, and one where they show.
pub(crate) fn weighted() -> Vec<Case> {
    let rings = vec![Case::ring(RingHash::Assignment, SMALL), Case::ring(RingHash::Xxh3, FINE)];
    let tables = [PolicyKind::Maglev, PolicyKind::Rendezvous].map(Case::of);
    rings.into_iter().chain(tables).chain(keyless()).collect()
}

/// Thousands apart.
pub(crate) fn grouped(number: u32) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!([9, 512, 1000, 65_537, 1 << 20].map(grouped), ["9", "512", "1,000", "65,537", "1,048,576"]);
    }

    #[test]
    fn no_policy_is_left_out_and_names_tell_them_apart() {
        let cases = [hashing(), keyless()].concat();
        let kinds: Vec<PolicyKind> = cases.iter().map(|case| case.config.kind).collect();
        assert!(PolicyKind::ALL.iter().all(|kind| kinds.contains(kind)), "{kinds:?}");
        let names: BTreeSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
        assert_eq!(names.len(), cases.len());
        assert_eq!(cases[0].name, "consistent, assignment, 512 × 9");
        assert_eq!(Case::of(PolicyKind::Maglev).name, "maglev, 65,537");
    }

    #[test]
    fn the_largest_fleet_fits_where_it_should() {
        let fits: Vec<String> = moving().into_iter().filter(|case| case.holds(501)).map(|case| case.name).collect();
        assert_eq!(fits, ["consistent, xxh3, 65,536 × 100", "maglev, 65,537", "rendezvous, 65,537"]);
        assert!(moving().iter().all(|case| case.holds(51)));
    }
}
