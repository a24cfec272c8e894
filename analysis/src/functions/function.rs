//! The functions that are compared: `H` for keys, `Φ` for virtual nodes. Pure.

use std::fmt;

use lb::placement::REQUEST_IDS;
use lb::placement::hash::RingHash;
use serde::{Deserialize, Serialize};

/// The ring of the defaults.
pub(super) const SLOTS: u32 = 512;
pub(super) const NODES: u32 = 9;
/// How many replicas fit.
pub(super) const MOST: u32 = SLOTS / NODES;
/// The multiplier of [`QUADRATIC`].
const SQUARE: u64 = 2;

/// An `H`: slots of keys.
pub(super) struct KeyFunction {
    pub(super) name: &'static str,
    pub(super) slot: fn(u64) -> u32,
}

/// The least quadratic that reaches every slot, with the assignment's constant.
pub(super) const QUADRATIC: KeyFunction =
    KeyFunction { name: "2i² + i + 17", slot: |id| ((SQUARE * id * id + id + 17) % u64::from(SLOTS)) as u32 };

/// Every `H` that is compared.
pub(super) fn key_functions() -> [KeyFunction; 4] {
    [
        KeyFunction { name: "assignment", slot: |id| RingHash::Assignment.key_slot(id, SLOTS) },
        QUADRATIC,
        KeyFunction { name: "modified", slot: |id| RingHash::Modified.key_slot(id, SLOTS) },
        KeyFunction { name: "xxh3", slot: |id| RingHash::Xxh3.key_slot(id, SLOTS) },
    ]
}

/// How many of the six-digit IDs that `which` takes each slot has.
pub(super) fn by_slot(slot: impl Fn(u64) -> u32, which: impl Fn(u64) -> bool) -> Vec<u64> {
    let mut keys = vec![0; SLOTS as usize];
    for id in REQUEST_IDS.filter(|id| which(*id)) {
        keys[slot(id) as usize] += 1;
    }
    keys
}

/// A `Φ`: slots of virtual nodes, by ring number and number of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum NodeFunction {
    /// `m(9i + j)`: multiples of one number, taken in order.
    Multiples(u32),
    /// `ai² + bj² + cij + di + ej`. A constant would only turn the ring.
    Quadratic([u32; 5]),
    Assignment,
    Modified,
    Xxh3,
}

impl NodeFunction {
    /// The slot that a node would like on a ring of so many slots and nodes of each replica. No coefficient is above 2^10, nor
    /// is a ring number, so nothing overflows.
    pub(super) fn slot(self, (slots, nodes): (u32, u32), id: u32, node: u32) -> u32 {
        let of = |hash: RingHash| hash.vnode_slot(id, node, nodes, slots);
        match self {
            Self::Multiples(by) => by * (nodes * id + node) % slots,
            Self::Quadratic([a, b, c, d, e]) => {
                (a * id * id + b * node * node + c * id * node + d * id + e * node) % slots
            }
            Self::Assignment => of(RingHash::Assignment),
            Self::Modified => of(RingHash::Modified),
            Self::Xxh3 => of(RingHash::Xxh3),
        }
    }
}

impl fmt::Display for NodeFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Multiples(by) => write!(f, "{by}({NODES}i + j)"),
            Self::Quadratic([a, b, c, d, e]) => write!(f, "{a}i² + {b}j² + {c}ij + {d}i + {e}j"),
            Self::Assignment => f.write_str("assignment"),
            Self::Modified => f.write_str("modified"),
            Self::Xxh3 => f.write_str("xxh3"),
        }
    }
}

/// Both together.
pub(super) struct Pair {
    pub(super) keys: &'static str,
    pub(super) nodes: NodeFunction,
}

/// Every `Φ` that is shown node by node.
pub(super) const SHOWN: [NodeFunction; 3] = [NodeFunction::Assignment, NodeFunction::Modified, NodeFunction::Xxh3];

/// The pairs whose rings are looked at: both as they come, and the assignment's with one of its two mended.
pub(super) const PAIRS: [Pair; 5] = [
    Pair { keys: "assignment", nodes: NodeFunction::Assignment },
    Pair { keys: "modified", nodes: NodeFunction::Assignment },
    Pair { keys: "assignment", nodes: NodeFunction::Modified },
    Pair { keys: "modified", nodes: NodeFunction::Modified },
    Pair { keys: "xxh3", nodes: NodeFunction::Xxh3 },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_what_they_say() {
        let at = |function: NodeFunction| function.slot((SLOTS, NODES), 56, 8);
        assert_eq!(at(NodeFunction::Multiples(511)), 511 * (9 * 56 + 8) % 512);
        let most = NodeFunction::Quadratic([511; 5]);
        assert_eq!(at(most), 511 * (56 * 56 + 8 * 8 + 56 * 8 + 56 + 8) % 512);
        // The assignment's is one of the quadratics, but for a turn of the ring.
        let own = NodeFunction::Quadratic([1, 1, 0, 0, 2]);
        assert_eq!((at(own) + 25) % 512, at(NodeFunction::Assignment));
        assert_eq!(most.to_string(), "511i² + 511j² + 511ij + 511i + 511j");
        assert_eq!(NodeFunction::Multiples(45).to_string(), "45(9i + j)");
        assert_eq!((QUADRATIC.slot)(132_574), ((2 * 132_574_u64 * 132_574 + 132_574 + 17) % 512) as u32);
    }

    #[test]
    fn every_pairs_keys_are_of_a_function_that_there_is() {
        let names = key_functions().map(|function| function.name);
        assert!(PAIRS.iter().all(|pair| names.contains(&pair.keys)));
        let keys = by_slot(QUADRATIC.slot, |id| id < 100_512);
        assert_eq!(keys, [1; 512], "a permutation of any 512 IDs in a row");
    }
}
