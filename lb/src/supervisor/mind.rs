//! Who decides: the fleet itself, or one that follows an agent. The shell around them is the same.

use std::time::SystemTime;

use tokio::time::Instant;

use super::LinkStatus;
use super::fleet::{Action, Event, Fleet, Listing, MemberView, Progress};
use super::follower::Follower;
use crate::placement::Place;
use crate::replica::{Generation, Share};
use crate::runtime::Instance;

pub(super) enum Mind {
    Fleet(Box<Fleet>),
    Follower(Box<Follower>),
}

impl Mind {
    pub(super) fn handle(&mut self, event: Event, now: Instant) -> Vec<Action> {
        match self {
            Self::Fleet(fleet) => fleet.handle(event, now),
            Self::Follower(follower) => follower.handle(event, now),
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Fleet(fleet) => fleet.deadline(),
            Self::Follower(follower) => follower.deadline(),
        }
    }

    pub(super) fn published(&self) -> Vec<(&Instance, Share)> {
        match self {
            Self::Fleet(fleet) => fleet.published().collect(),
            Self::Follower(follower) => follower.published().collect(),
        }
    }

    /// Is it in rotation from the moment that it is published?
    pub(super) fn starts_ready(&self, generation: Generation) -> bool {
        match self {
            Self::Fleet(fleet) => fleet.starts_ready(generation),
            Self::Follower(follower) => follower.starts_ready(generation),
        }
    }

    pub(super) fn places(&self) -> Vec<Place> {
        match self {
            Self::Fleet(fleet) => fleet.places().collect(),
            Self::Follower(follower) => follower.places().collect(),
        }
    }

    pub(super) fn listing(&self) -> Listing {
        match self {
            Self::Fleet(fleet) => fleet.listing(),
            Self::Follower(follower) => follower.listing(),
        }
    }

    pub(super) fn view(&self, now: Instant, wall: SystemTime) -> Vec<MemberView> {
        match self {
            Self::Fleet(fleet) => fleet.view(now, wall),
            Self::Follower(follower) => follower.view(),
        }
    }

    pub(super) fn progress(&self) -> Option<Progress> {
        match self {
            Self::Fleet(fleet) => fleet.progress().cloned(),
            Self::Follower(_) => None,
        }
    }

    pub(super) fn is_busy(&self) -> bool {
        matches!(self, Self::Fleet(fleet) if fleet.is_busy())
    }

    pub(super) fn link(&self) -> Option<LinkStatus> {
        match self {
            Self::Fleet(_) => None,
            Self::Follower(follower) => Some(follower.link()),
        }
    }

    /// Nothing is left that would have to be stopped.
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Fleet(fleet) => fleet.is_empty(),
            Self::Follower(_) => true,
        }
    }

    pub(super) fn check_invariants(&self) {
        match self {
            Self::Fleet(fleet) => fleet.check_invariants(),
            Self::Follower(follower) => follower.check_invariants(),
        }
    }
}
