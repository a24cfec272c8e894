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
    /// A spare has answered, and waits.
    SpareReady {
        /// Who.
        replica: ReplicaSpec,
    },
    /// A spare failed, and another is started.
    SpareFailed {
        /// Who.
        replica: ReplicaSpec,
        /// How, with its subject left out.
        reason: String,
        /// How long the next launch is put off.
        delay: Duration,
    },
    /// It failed, and a spare took its place at once.
    Promoted {
        /// Who failed.
        replica: ReplicaSpec,
        /// How, with its subject left out.
        reason: String,
        /// The spare, with the ring number that it has now.
        replacement: ReplicaSpec,
    },
    /// A rolling update begins.
    Deploying {
        /// What replicas are started from.
        template: String,
        /// How many there are to replace.
        replicas: usize,
    },
    /// A rolling update has replaced it.
    Updated {
        /// Who goes.
        replica: ReplicaSpec,
        /// Who came.
        replacement: ReplicaSpec,
        /// How many are replaced now.
        done: usize,
        /// Of how many.
        total: usize,
    },
    /// A rolling update has replaced all.
    Deployed {
        /// What replicas are started from.
        template: String,
    },
    /// A rolling update failed: what it has brought is replaced by what was before.
    RollingBack {
        /// Why.
        reason: String,
    },
    /// All is as it was before a rolling update, or as near as it gets.
    RolledBack {
        /// Why it failed.
        reason: String,
        /// Replicas of the failed update that are still there.
        left: usize,
    },
    /// An `/add` failed; what it had started is removed.
    AddFailed {
        /// Why.
        reason: String,
    },
}
