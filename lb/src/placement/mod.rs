//! Where keys belong: the consistent hash ring, Maglev's table, and rendezvous hashing.
//!
//! Owns how ring numbers are laid out on slots, and how a key finds its slot. Does *not* know replicas, health or load: a
//! look-up gives a place, and the policy that holds the table decides which replica that means. Pure: no clock, no I/O, no
//! randomness.
//!
//! | module | what it is |
//! |---|---|
//! | [`hash`] | hash functions and collision rules of the ring |
//! | [`ring`] | the ring under construction, and its frozen table |
//! | [`maglev`] | Maglev's table |
//! | [`rendezvous`] | highest random weight, by slot |
//! | [`ownership`] | what all of them can be asked: shares, and what a change would move |

pub mod hash;
pub mod maglev;
pub mod ownership;
pub mod rendezvous;
pub mod ring;

/// The six-digit request IDs: the key space of which shares are exact fractions.
pub const REQUEST_IDS: std::ops::RangeInclusive<u64> = 100_000..=999_999;

/// A ring number that shall have its place, whether or not its replica is a member yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The ring number, 1 or more.
    pub id: u32,
    /// Twice the weight, twice the keys; 0 for none.
    pub weight: u16,
    /// Means nothing to a layout: only those of the highest priority are chosen from.
    pub priority: u16,
}

impl Place {
    /// With priority 0.
    pub fn new(id: u32, weight: u16) -> Self {
        Self { id, weight, priority: 0 }
    }

    /// `1..=count`, each of weight 1.
    pub fn first(count: u32) -> Vec<Self> {
        (1..=count).map(|id| Self::new(id, 1)).collect()
    }
}

/// A frozen table: keys have slots, slots have owners. What stands for an owner is up to whoever froze it.
pub trait Lookup: Send + Sync {
    /// The slot of `key`.
    fn slot(&self, key: u64) -> u32;

    /// The owner of the slot of `key`; `None` if the table is empty.
    fn owner(&self, key: u64) -> Option<u32>;

    /// The owner of the slot of `key`, then those that stand in for it, in order. An owner may come more than once, and one
    /// may be missing if the table says so little of it.
    fn walk(&self, key: u64) -> impl Iterator<Item = u32>;
}

/// The key's slot in a table of `slots`, for tables without hash functions of their own: XXH3 (64 bit) of its eight bytes,
/// little endian, and the same part of `slots` that this is of 2^64.
#[inline]
fn table_slot(key: u64, slots: u32) -> u32 {
    hash::part(xxhash_rust::xxh3::xxh3_64(&key.to_le_bytes()), slots)
}
