//! Policies that go by the request's key: `consistent`, `maglev`, `rendezvous`.
//!
//! Their tables hold every replica of the fleet, ready or not, by ring number, and whoever can't take a request is passed
//! over: a replica that flaps moves its own keys and no others, and a replacement, which takes over the ring number, gets
//! them back.
//!
//! With bounded loads a replica whose requests in flight would exceed `ceil(c × (in flight + 1) × its weight / weight of all
//! ready ones)` passes the request on to the next (V. Mirrokni, M. Thorup, M. Zadimoghaddam, "Consistent Hashing with Bounded
//! Loads", arXiv 1608.01350).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::explain::{Explanation, Why, Witness};
use super::tiers::{Kind, Scope};
use super::{PickCx, Picker, PolicyConfig, PolicyKind};
use crate::placement::maglev::{Maglev, MaglevTable};
use crate::placement::ownership::Ownership;
use crate::placement::rendezvous::{Rendezvous, RendezvousTable};
use crate::placement::ring::{Ring, RingTable};
use crate::placement::{Lookup, Place};
use crate::replica::{Replica, ReplicaId};

/// Where keys belong.
#[derive(Debug, Clone)]
pub enum Layout {
    /// On the ring.
    Ring(Ring),
    /// In Maglev's table.
    Maglev(Maglev),
    /// With whoever has won the slot.
    Rendezvous(Rendezvous),
}

impl Layout {
    /// Who owns which slot, by ring number.
    pub fn ownership(&self) -> Ownership {
        match self {
            Self::Ring(ring) => ring.ownership(),
            Self::Maglev(table) => table.ownership(),
            Self::Rendezvous(table) => table.ownership(),
        }
    }

    /// The same for another set of places.
    #[must_use]
    pub fn hold(mut self, places: &[Place]) -> Self {
        match &mut self {
            Self::Ring(ring) => ring.hold(places),
            Self::Maglev(table) => Placed::hold(table, places),
            Self::Rendezvous(table) => table.hold(places),
        }
        self
    }
}

/// What a policy of this configuration would make of these places; `None` if it does not go by keys.
pub fn layout(config: &PolicyConfig, places: &[Place]) -> Option<Layout> {
    let empty = match config.kind {
        PolicyKind::Consistent => Layout::Ring(Ring::new(config.ring)),
        PolicyKind::Maglev => Layout::Maglev(Maglev::new(config.table_slots, &[])),
        PolicyKind::Rendezvous => Layout::Rendezvous(Rendezvous::new(config.table_slots)),
        _ => return None,
    };
    Some(empty.hold(places))
}

/// A layout under construction.
pub(super) trait Placed: Clone + Send + 'static {
    type Table: Lookup + 'static;
    fn hold(&mut self, places: &[Place]);
    fn freeze(&self, index: impl Fn(u32) -> u32) -> Self::Table;
    fn slots(&self) -> u32;
    fn layout(self) -> Layout;
}

impl Placed for Ring {
    type Table = RingTable;
    fn hold(&mut self, places: &[Place]) {
        Self::hold(self, places);
    }
    fn freeze(&self, index: impl Fn(u32) -> u32) -> RingTable {
        Self::freeze(self, index)
    }
    fn slots(&self) -> u32 {
        self.config().slots
    }
    fn layout(self) -> Layout {
        Layout::Ring(self)
    }
}

impl Placed for Maglev {
    type Table = MaglevTable;
    fn hold(&mut self, places: &[Place]) {
        *self = Self::new(self.slots(), places);
    }
    fn freeze(&self, index: impl Fn(u32) -> u32) -> MaglevTable {
        Self::freeze(self, index)
    }
    fn slots(&self) -> u32 {
        Self::slots(self)
    }
    fn layout(self) -> Layout {
        Layout::Maglev(self)
    }
}

impl Placed for Rendezvous {
    type Table = RendezvousTable;
    fn hold(&mut self, places: &[Place]) {
        Self::hold(self, places);
    }
    fn freeze(&self, index: impl Fn(u32) -> u32) -> RendezvousTable {
        Self::freeze(self, index)
    }
    fn slots(&self) -> u32 {
        Self::slots(self)
    }
    fn layout(self) -> Layout {
        Layout::Rendezvous(self)
    }
}

/// See the module's documentation.
pub(super) struct Hashed<L> {
    bound: Option<f64>,
    held: Mutex<Held<L>>,
}

/// A ring's layout depends on its history, so it is kept.
struct Held<L> {
    layout: L,
    places: Vec<Place>,
}

impl<L: Placed> Held<L> {
    fn hold(&mut self, places: Vec<Place>) {
        if self.places != places {
            self.layout.hold(&places);
            self.places = places;
        }
    }
}

impl<L: Placed> Hashed<L> {
    /// `layout` is an empty one; `bound` is the factor of bounded loads.
    pub(super) fn new(layout: L, bound: Option<f64>) -> Self {
        Self { bound, held: Mutex::new(Held { layout, places: Vec::new() }) }
    }

    fn held(&self) -> MutexGuard<'_, Held<L>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Marks a ring number without a member in a table: the ring number is in the other bits.
const ABSENT: u32 = 1 << 31;

impl<L: Placed> Kind for Hashed<L> {
    fn place(&self, places: &[Place]) {
        let mut places = places.to_vec();
        places.sort_unstable();
        self.held().hold(places);
    }

    fn build(&self, members: Arc<[Arc<Replica>]>, scope: Scope) -> Arc<dyn Picker> {
        let index: BTreeMap<u32, u32> = members.iter().zip(0..).map(|(member, at)| (member.id.0, at)).collect();
        let mut held = self.held();
        let has_place = |id: &u32| held.places.binary_search_by_key(id, |place| place.id).is_ok();
        if !index.keys().all(has_place) {
            // Nobody has said who else there is.
            let places = members.iter().map(|member| Place::new(member.id.0, member.weight()));
            let mut places: Vec<Place> = places.collect();
            places.sort_unstable();
            held.hold(places);
        }
        let table = held.layout.freeze(|id| index.get(&id).copied().unwrap_or(ABSENT | id));
        Arc::new(HashPicker { bound: self.bound, slots: held.layout.slots(), table, members, scope })
    }

    fn layout(&self) -> Option<Layout> {
        Some(self.held().layout.clone().layout())
    }
}

struct HashPicker<T> {
    bound: Option<f64>,
    slots: u32,
    table: T,
    members: Arc<[Arc<Replica>]>,
    scope: Scope,
}

/// The most that a walk goes on for each member, before all members are looked at one by one: somebody who is ready may be
/// far away while most are not.
const STEPS_PER_MEMBER: usize = 8;
const FEWEST_STEPS: usize = 64;

impl<T: Lookup> HashPicker<T> {
    fn choose(&self, cx: &PickCx<'_>, witness: &mut impl Witness) -> Option<&Arc<Replica>> {
        let mut room = Room { picker: self, ramps: true, limit: None, full: None, newcomer: None };
        let found = self.look(cx, &mut room, witness);
        if found.is_some() || room.full.is_some() || room.newcomer.is_none() {
            return found.or(room.full);
        }
        // There are newcomers only, so nobody else can hold the rest: they go by the bound of all.
        let mut room = Room { ramps: false, ..room };
        self.look(cx, &mut room, &mut ()).or(room.full).or(room.newcomer)
    }

    /// The first with room: by the table, then of all.
    fn look<'p>(
        &'p self,
        cx: &PickCx<'_>,
        room: &mut Room<'p, T>,
        witness: &mut impl Witness,
    ) -> Option<&'p Arc<Replica>> {
        let steps = STEPS_PER_MEMBER * self.members.len() + FEWEST_STEPS;
        let mut seen = Seen::default();
        for at in self.table.walk(cx.key).take(steps) {
            let Some(replica) = self.members.get(at as usize) else { continue };
            if seen.is_new(at) && room.has(cx, replica, witness) {
                return Some(replica);
            }
        }
        let from = cx.key as usize % self.members.len().max(1);
        let (before, from) = self.members.split_at(from);
        from.iter().chain(before).find(|replica| room.has(cx, replica, witness))
    }

    /// Apart, so that a pick that ends early does not pay for what it does not need.
    #[inline(never)]
    fn pick_slowly(&self, cx: &PickCx<'_>) -> Option<&Arc<Replica>> {
        self.choose(cx, &mut ())
    }

    /// Requests in flight, and the weight that is ready, of all that this picker chooses from.
    fn load(&self, replica: &Replica) -> (u32, u64) {
        match self.scope {
            Scope::Whole => (replica.pool_load().in_flight(), replica.pool_load().ready_weight()),
            Scope::Tier => self.members.iter().fold((0, 0), |(in_flight, ready), member| {
                let weight = if member.is_ready() { u64::from(member.weight()) } else { 0 };
                (in_flight + member.in_flight(), ready + weight)
            }),
        }
    }
}

/// Who was looked at on a walk already, as far as that can be said at once: the first 64 members.
#[derive(Default)]
struct Seen(u64);

impl Seen {
    #[inline]
    fn is_new(&mut self, at: u32) -> bool {
        let bit = 1_u64.checked_shl(at).unwrap_or(0);
        let is_new = self.0 & bit == 0;
        self.0 |= bit;
        is_new
    }
}

/// The limit of bounded loads for one request.
#[derive(Clone, Copy)]
struct Limit {
    /// Of weight 1, not rounded up yet.
    each: f64,
    /// The same, rounded up: the limit of nearly everyone.
    rounded: u32,
}

impl Limit {
    fn new(each: f64) -> Self {
        Self { each, rounded: rounded_up(each) }
    }

    #[inline]
    fn of(self, weight: u16) -> u32 {
        if weight == 1 { self.rounded } else { rounded_up(self.each * f64::from(weight)) }
    }
}

/// As `ceil`, but without a call of the C library's.
#[inline]
fn rounded_up(number: f64) -> u32 {
    let whole = number as u32;
    whole.saturating_add(u32::from(f64::from(whole) < number))
}

/// Looks for somebody with room.
struct Room<'p, T> {
    picker: &'p HashPicker<T>,
    /// Does a newcomer's limit count?
    ramps: bool,
    /// Once it was needed.
    limit: Option<Limit>,
    /// The first that was admitted but for the bound. All are full only if counts changed during the walk, or if the others
    /// were tried, or while a newcomer takes less than its part: better the first than none, and better any other than the
    /// newcomer.
    full: Option<&'p Arc<Replica>>,
    newcomer: Option<&'p Arc<Replica>>,
}

impl<'p, T: Lookup> Room<'p, T> {
    #[inline]
    fn has(&mut self, cx: &PickCx<'_>, replica: &'p Arc<Replica>, witness: &mut impl Witness) -> bool {
        if let Err(why) = cx.admits(replica) {
            witness.passed(replica, why);
            return false;
        }
        let Some(bound) = self.picker.bound else { return true };
        let limit = *self.limit.get_or_insert_with(|| {
            let (in_flight, ready_weight) = self.picker.load(replica);
            Limit::new(limit_of(bound, in_flight, ready_weight))
        });
        let limit = limit.of(replica.weight());
        let (limit, fallback) = match replica.ramp().filter(|_| self.ramps) {
            None => (limit, &mut self.full),
            Some(part) => (((f64::from(limit) * part).ceil() as u32).max(1), &mut self.newcomer),
        };
        let in_flight = replica.in_flight();
        if in_flight < limit {
            return true;
        }
        fallback.get_or_insert(replica);
        witness.passed(replica, Why::AtBound { in_flight, limit });
        false
    }
}

impl<T: Lookup> Picker for HashPicker<T> {
    #[inline]
    fn pick(&self, cx: &PickCx<'_>) -> Option<&Arc<Replica>> {
        // Without a bound nearly every request ends here.
        if self.bound.is_none() {
            let owner = self.table.owner(cx.key).and_then(|at| self.members.get(at as usize));
            let is_tried = |owner: &Replica| !cx.tried.is_empty() && cx.tried.contains(&owner.generation);
            if let Some(owner) = owner.filter(|owner| owner.is_ready() && !is_tried(owner)) {
                return Some(owner);
            }
        }
        self.pick_slowly(cx)
    }

    fn explain(&self, cx: &PickCx<'_>) -> Explanation {
        let mut explanation = Explanation {
            slots: Some(self.slots),
            slot: Some(self.table.slot(cx.key)),
            owner: self.table.owner(cx.key).map(|at| match self.members.get(at as usize) {
                Some(member) => member.id,
                None => ReplicaId(at & !ABSENT),
            }),
            ..Explanation::default()
        };
        let chosen = self.choose(cx, &mut explanation);
        explanation.choose(chosen)
    }
}

/// The most requests a replica of weight 1 may hold while all hold `in_flight` and one more arrives; not rounded up yet.
fn limit_of(bound: f64, in_flight: u32, ready_weight: u64) -> f64 {
    bound * (f64::from(in_flight) + 1.0) / ready_weight.max(1) as f64
}

#[cfg(test)]
mod tests;
