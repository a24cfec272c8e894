//! One member of the fleet: where it stands, which phase it is in, and when it wants to be looked at again.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::probe::Streak;
use crate::replica::{Hostname, ReplicaSpec, Share};
use crate::runtime::Instance;

/// Whether a member counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// One of N.
    Desired,
    /// Part of an `/add` under way: counts once all of that call are ready.
    Adding,
    /// Ready to take over a ring number at once; neither part of N nor in the pool.
    Spare,
    /// Started by a rolling update, to take over the ring number of the one whose place it is to take.
    Updating,
    /// On its way out; only remembered until the runtime has removed it.
    Leaving,
}

/// What is being done with a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Waits for its turn to be launched: back-off.
    Waiting { until: Instant },
    /// The runtime was asked to launch it.
    Launching { since: Instant, deadline: Instant },
    /// It runs, and has not answered enough probes yet.
    Starting { since: Instant, deadline: Instant },
    /// In rotation, or for one of an `/add` under way: ready to be.
    Ready { since: Instant },
    /// In the pool but out of rotation until it answers; `since` is when it became ready first.
    Unready { since: Instant },
    /// Out of the pool, finishes its requests.
    Draining { deadline: Instant },
    /// The runtime was asked to stop it, for the `attempts`th time; asked again at the deadline.
    Stopping { attempts: u32, deadline: Instant },
    /// Given up while its launch was under way: stopped as soon as the launch gives a result.
    Aborting { deadline: Instant },
}

/// The probe of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProbeState {
    Off,
    Due(Instant),
    /// Sent; a result that has not come by the deadline is lost and counts as bad.
    Sent {
        at: Instant,
        deadline: Instant,
    },
}

#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) spec: ReplicaSpec,
    /// Place in the list of replicas; a launch that is repeated keeps it.
    pub(super) order: u64,
    pub(super) standing: Standing,
    pub(super) share: Share,
    pub(super) phase: Phase,
    pub(super) instance: Option<Instance>,
    /// When its launch was asked for; `None` for one that was adopted.
    pub(super) launched_at: Option<Instant>,
    /// When its launch was reported done.
    pub(super) up_at: Option<Instant>,
    pub(super) streak: Streak,
    pub(super) probe: ProbeState,
    /// Counts probes; a result with another number is stale.
    pub(super) probe_seq: u64,
    /// Replicas in a row, up to the one this replaces, that failed soon after their start.
    pub(super) crashes: u32,
    /// A spare once, it has a ring number that it was not launched with.
    pub(super) promoted: bool,
    /// Which of the fleet's releases it was launched as; `None` for one that was adopted.
    pub(super) release: Option<u64>,
    pub(super) last_error: Option<String>,
}

impl Member {
    pub(super) fn new(spec: ReplicaSpec, order: u64, standing: Standing, phase: Phase) -> Self {
        Self {
            spec,
            order,
            standing,
            share: Share::default(),
            phase,
            instance: None,
            launched_at: None,
            up_at: None,
            streak: Streak::default(),
            probe: ProbeState::Off,
            probe_seq: 0,
            crashes: 0,
            promoted: false,
            release: None,
            last_error: None,
        }
    }

    /// When it needs a tick next.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let phase = match self.phase {
            Phase::Waiting { until } => Some(until),
            Phase::Launching { deadline, .. }
            | Phase::Starting { deadline, .. }
            | Phase::Draining { deadline }
            | Phase::Stopping { deadline, .. }
            | Phase::Aborting { deadline } => Some(deadline),
            Phase::Ready { .. } | Phase::Unready { .. } => None,
        };
        let probe = match self.probe {
            ProbeState::Off => None,
            ProbeState::Due(at) => Some(at),
            ProbeState::Sent { deadline, .. } => Some(deadline),
        };
        phase.into_iter().chain(probe).min()
    }

    /// Is its ring number its own? A spare has none, and one of a rolling update waits for that of another.
    pub(super) fn holds_a_number(&self) -> bool {
        matches!(self.standing, Standing::Desired | Standing::Adding)
    }

    /// Part of the published membership?
    pub(super) fn is_published(&self) -> bool {
        self.standing == Standing::Desired && matches!(self.phase, Phase::Ready { .. } | Phase::Unready { .. })
    }

    /// For how long it had been ready when it failed at `now`; `None` if it never was.
    pub(super) fn ready_for(&self, now: Instant) -> Option<Duration> {
        match self.phase {
            Phase::Ready { since } | Phase::Unready { since } => Some(now - since),
            _ => None,
        }
    }

    pub(super) fn state(&self) -> State {
        match self.phase {
            Phase::Waiting { .. } | Phase::Launching { .. } | Phase::Starting { .. } => State::Starting,
            Phase::Ready { .. } if matches!(self.standing, Standing::Adding | Standing::Updating) => State::Starting,
            Phase::Ready { .. } => State::Ready,
            Phase::Unready { .. } => State::Unready,
            Phase::Draining { .. } | Phase::Stopping { .. } | Phase::Aborting { .. } => State::Draining,
        }
    }
}

/// A member's state in status output and logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Launched, to be launched, or not answering yet.
    Starting,
    /// In rotation.
    Ready,
    /// Out of rotation until it answers.
    Unready,
    /// Leaving.
    Draining,
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Unready => "unready",
            Self::Draining => "draining",
        })
    }
}

/// What status output says of a member.
#[derive(Debug, Clone)]
pub struct MemberView {
    /// Ring number, generation and host name.
    pub spec: ReplicaSpec,
    /// What the runtime started, once it has.
    pub instance: Option<Instance>,
    /// Its state.
    pub state: State,
    /// Its weight and priority.
    pub share: Share,
    /// Counted in N?
    pub desired: bool,
    /// Waits to take over for one that fails?
    pub spare: bool,
    /// Place in the list of replicas.
    pub order: u64,
    /// Failures in a row that led to this launch.
    pub crashes: u32,
    /// When its launch is due, if it waits for that.
    pub launch_at: Option<SystemTime>,
    /// The last thing that went wrong with it or its predecessor.
    pub last_error: Option<String>,
}

/// N and the host names, oldest first: what `/rep`, `/add` and `/rm` answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// The desired number of replicas; the length of `replicas`.
    #[serde(rename = "N")]
    pub n: usize,
    /// Host names.
    pub replicas: Vec<Hostname>,
}
