//! What the fleet has to say to an operator: one notice, one line of log.

use std::time::Duration;

use crate::replica::{ReplicaSpec, Share};

/// Something an operator would want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// It answered, and is in rotation.
    Ready {
        /// Who.
        replica: ReplicaSpec,
    },
    /// It is out of rotation until it answers.
    Unready {
        /// Who.
        replica: ReplicaSpec,
        /// Why.
        reason: String,
    },
    /// It failed, and another takes its place.
    Replaced {
        /// Who failed.
        replica: ReplicaSpec,
        /// How, with its subject left out: "failed 3 heartbeats".
        reason: String,
        /// Who comes instead.
        replacement: ReplicaSpec,
        /// How long its launch is put off, if it is.
        delay: Option<Duration>,
    },
    /// It could not be launched, and is tried again.
    LaunchFailed {
        /// Who.
        replica: ReplicaSpec,
        /// The runtime's reason.
        reason: String,
        /// How long the next launch is put off.
        delay: Duration,
    },
    /// It could not be stopped, and is tried again.
    StopFailed {
        /// Who.
        replica: ReplicaSpec,
        /// The runtime's reason.
        reason: String,
    },
    /// It runs since before this balancer started.
    Adopted {
        /// Who.
        replica: ReplicaSpec,
    },
    /// The runtime has it, the fleet doesn't want it: it is removed.
    Stray {
        /// Who.
        replica: ReplicaSpec,
    },
    /// It was removed on demand and takes no more requests.
    Removed {
        /// Who.
        replica: ReplicaSpec,
    },
    /// Its share was changed on demand.
    Shared {
        /// Whose.
        replica: ReplicaSpec,
        /// What it was.
        old: Share,
        /// What it is.
        new: Share,
    },
    /// An `/add` failed; what it had started is removed.
    AddFailed {
        /// Why.
        reason: String,
    },
}
