//! What a replica uses of the machine.

use std::time::Duration;

use tokio::time::Instant;

use crate::replica::Generation;

/// From one reading of a replica to the next.
pub(super) const INTERVAL: Duration = Duration::from_secs(1);

/// One reading.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Usage {
    /// CPU time since its start.
    pub cpu: Duration,
    /// Memory in use, bytes; caches that can be given back don't count.
    pub memory: u64,
    /// Cores that it may use at most, if it is limited.
    pub cpu_limit: Option<f64>,
    /// Bytes that it may use at most, if it is limited.
    pub memory_limit: Option<u64>,
}

/// Whose, and when it was read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// Whose.
    pub generation: Generation,
    /// When.
    pub at: Instant,
    /// The reading.
    pub usage: Usage,
}
