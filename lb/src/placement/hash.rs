//! The functions that say where on the ring a key and a virtual node belong, and how a taken slot is avoided. Pure.

use std::fmt;
use std::str::FromStr;

use xxhash_rust::xxh3::xxh3_64;

/// The pair of hash functions that place keys (`H`) and virtual nodes (`Φ`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RingHash {
    /// `H(i) = i² + 2i + 17`, `Φ(i, j) = i² + j² + 2j + 25`: those of the CS60002 assignment that this project grew from.
    Assignment,
    /// `H(i) = ⌊slots × frac(i / φ)⌋`, φ the golden ratio, and `Φ(i, j) = H(vnodes × i + j)`: Fibonacci hashing (D. Knuth,
    /// TAOCP vol. 3, §6.4). Multiples of the golden ratio, taken in order, divide a circle into parts of at most three
    /// different lengths, so a few virtual nodes already lie evenly.
    Modified,
    /// XXH3 (64 bit) of the key, and of the pair (ring number, virtual node).
    Xxh3,
}

/// 2^64 divided by the golden ratio, made odd.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
/// Ring numbers are below this, so that a weighted replica's further virtual nodes get numbers that nobody else has.
const FURTHER: u64 = 1 << 24;

/// A number of slots to find a remainder by. A division takes longer than all else in a look-up, and most rings need none;
/// whether it is needed is found out once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Modulus {
    slots: u32,
    is_power_of_two: bool,
}

impl Modulus {
    pub(super) fn new(slots: u32) -> Self {
        Self { slots, is_power_of_two: slots.is_power_of_two() }
    }

    #[inline]
    fn remainder(self, number: u64) -> u32 {
        let slots = u64::from(self.slots);
        if self.is_power_of_two { (number & (slots - 1)) as u32 } else { (number % slots) as u32 }
    }
}

/// The same part of `slots` that `hash` is of 2^64 (D. Lemire, "Fast Random Integer Generation in an Interval", 2019).
#[inline]
pub(super) fn part(hash: u64, slots: u32) -> u32 {
    ((u128::from(hash) * u128::from(slots)) >> 64) as u32
}

impl RingHash {
    /// The slot where the search for `key`'s virtual node begins, in `0..slots`.
    #[inline]
    pub fn key_slot(self, key: u64, slots: u32) -> u32 {
        self.slot(key, Modulus::new(slots))
    }

    /// The same for a number of slots that many keys are asked for.
    #[inline]
    pub(super) fn slot(self, key: u64, slots: Modulus) -> u32 {
        match self {
            // A polynomial may be reduced before it is evaluated, so no key can overflow.
            Self::Assignment => {
                let i = u64::from(slots.remainder(key));
                slots.remainder(i * i + 2 * i + 17)
            }
            Self::Modified => part(key.wrapping_mul(GOLDEN), slots.slots),
            Self::Xxh3 => slots.remainder(xxh3_64(&key.to_le_bytes())),
        }
    }

    /// The slot that virtual node `vnode` of ring number `id` would like, in `0..slots`. A replica of weight 1 has `vnodes`
    /// of them.
    pub fn vnode_slot(self, id: u32, vnode: u32, vnodes: u32, slots: u32) -> u32 {
        let number = u64::from(slots);
        match self {
            Self::Assignment => {
                let (i, j) = (u64::from(id) % number, u64::from(vnode) % number);
                ((i * i + j * j + 2 * j + 25) % number) as u32
            }
            Self::Modified => {
                let (vnode, vnodes) = (u64::from(vnode), u64::from(vnodes.max(1)));
                let block = u64::from(id) + vnode / vnodes * FURTHER;
                self.key_slot(block.wrapping_mul(vnodes).wrapping_add(vnode % vnodes), slots)
            }
            Self::Xxh3 => (xxh3_64(&((u64::from(id) << 32) | u64::from(vnode)).to_le_bytes()) % number) as u32,
        }
    }
}

/// How a virtual node finds a free slot when the one it wants is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probing {
    /// The next slot clockwise, and so on.
    Linear,
    /// `home + k²` for `k = 1, 2, …, slots - 1`. Squares don't reach every slot, so a search that comes to the end of them
    /// goes on linearly from home: it finds a free slot whenever there is one.
    Quadratic,
}

macro_rules! words {
    ($type:ty { $($word:literal => $value:expr),+ $(,)? }) => {
        impl $type {
            /// The words that select a value, in configuration and output.
            pub const WORDS: &'static [&'static str] = &[$($word),+];
        }
        impl FromStr for $type {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok($value),)+
                    _ => Err(Self::WORDS.join(", ")),
                }
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                $(if *self == $value { return f.write_str($word); })+
                Ok(())
            }
        }
    };
}
words!(RingHash { "assignment" => RingHash::Assignment, "modified" => RingHash::Modified, "xxh3" => RingHash::Xxh3 });
words!(Probing { "linear" => Probing::Linear, "quadratic" => Probing::Quadratic });

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::ring::MAX_SLOTS;

    #[test]
    fn assignment_functions_are_those_of_the_assignment() {
        for (i, h) in [(0_u64, 17), (1, 20), (132_574, (132_574_u64 * 132_574 + 2 * 132_574 + 17) % 512)] {
            assert_eq!(u64::from(RingHash::Assignment.key_slot(i, 512)), h % 512);
        }
        assert_eq!(RingHash::Assignment.vnode_slot(3, 8, 9, 512), 9 + 64 + 16 + 25);
        assert_eq!(RingHash::Assignment.vnode_slot(56, 8, 9, 512), (3136 + 64 + 16 + 25) % 512);
    }

    #[test]
    fn modified_functions_are_multiples_of_the_golden_ratio() {
        let golden = (5_f64.sqrt() - 1.0) / 2.0;
        for i in [1_u64, 2, 9, 17, 999, 132_574] {
            let slot = ((i as f64 * golden).fract() * 512.0) as u32;
            assert_eq!(RingHash::Modified.key_slot(i, 512), slot, "{i}");
        }
        assert_eq!(RingHash::Modified.vnode_slot(3, 4, 9, 512), RingHash::Modified.key_slot(31, 512));
        // The tenth of a heavier replica is not the first of the next.
        assert_ne!(RingHash::Modified.vnode_slot(3, 9, 9, 512), RingHash::Modified.vnode_slot(4, 0, 9, 512));
    }

    #[test]
    fn no_key_overflows() {
        assert_eq!(RingHash::Assignment.key_slot(u64::MAX, 512), ((511_u64 * 511 + 2 * 511 + 17) % 512) as u32);
        for hash in [RingHash::Assignment, RingHash::Modified, RingHash::Xxh3] {
            assert!(hash.vnode_slot(u32::MAX, u32::MAX, u32::MAX, MAX_SLOTS) < MAX_SLOTS);
            assert!(hash.key_slot(u64::MAX, MAX_SLOTS) < MAX_SLOTS);
            assert_eq!(hash.key_slot(u64::MAX, 1), 0);
        }
    }
}
