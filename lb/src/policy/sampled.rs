//! Policies that leave a part to chance: `random`, `least-requests`, `peak-ewma`.
//!
//! Members are drawn by weight. `random` takes the first drawn; the others draw two and take the better one, which comes close
//! to the best of all without looking at all, and does not send everybody to the same one at once (M. Mitzenmacher, "The
//! Power of Two Choices in Randomized Load Balancing", IEEE TPDS 2001). Of two equals it is the first drawn, so that weights
//! are honoured when there is nothing else to go by.
//!
//! - `least-requests` compares requests in flight, divided by weight.
//! - `peak-ewma` compares what a request is expected to take: the latency as [`crate::ewma`] has it, times 1 + requests in
//!   flight (as Finagle's and linkerd's balancer of that name). Latencies within a factor of two count as equal, and then
//!   requests in flight decide. One that was never measured is worth a try while it holds
//!   no request, and the last choice while it holds one.
//!
//! Drawing takes the same time for any number of members: an alias table (M. Vose, "A Linear Algorithm for Generating
//! Random Numbers with a Given Distribution", IEEE TSE 1991).

use std::sync::Arc;
use std::time::Duration;

use super::explain::{Explanation, Why, Witness};
use super::tiers::{Kind, Scope};
use super::{PickCx, Picker};
use crate::replica::Replica;

/// What decides between two that were drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum By {
    /// Nothing: only one is drawn.
    Chance,
    /// Requests in flight.
    Requests,
    /// Expected latency; peaks fade in this time.
    Latency(Duration),
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Sampled(pub(super) By);

impl Kind for Sampled {
    fn build(&self, members: Arc<[Arc<Replica>]>, _: Scope) -> Arc<dyn Picker> {
        let weights: Vec<u16> = members.iter().map(|member| member.weight()).collect();
        let mean = weights.iter().map(|weight| f32::from(*weight)).sum::<f32>() / weights.len().max(1) as f32;
        Arc::new(Drawn { by: self.0, mean, table: Alias::new(&weights), weights: weights.into(), members })
    }

    fn decay(&self) -> Option<Duration> {
        match self.0 {
            By::Latency(decay) => Some(decay),
            By::Chance | By::Requests => None,
        }
    }
}

/// Random numbers from one: SplitMix64 (G. Steele, D. Lea, C. Flood, OOPSLA 2014).
struct Chance(u64);

impl Chance {
    #[inline]
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// Draws a number in proportion to its weight, in constant time.
#[derive(Debug)]
struct Alias {
    /// By number: up to which fraction (of 2^32) it is itself, and who it is beyond that.
    columns: Box<[(u32, u32)]>,
}

impl Alias {
    fn new(weights: &[u16]) -> Self {
        let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
        let count = weights.len() as u64;
        // In units of which each column holds `total`.
        let mut left: Vec<u64> = weights.iter().map(|weight| u64::from(*weight) * count).collect();
        let mut columns: Box<[(u32, u32)]> = (0..weights.len() as u32).map(|at| (u32::MAX, at)).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..left.len()).partition(|at| left[*at] < total);
        while let (Some(less), Some(more)) = (small.pop(), large.last().copied()) {
            columns[less] = (((u128::from(left[less]) << 32) / u128::from(total)) as u32, more as u32);
            left[more] -= total - left[less];
            if left[more] < total {
                large.pop();
                small.push(more);
            }
        }
        Self { columns }
    }

    #[inline]
    fn draw(&self, chance: &mut Chance) -> usize {
        let random = chance.next();
        let at = ((random >> 32) * self.columns.len() as u64) >> 32;
        // The other half decides within the column.
        match self.columns[at as usize] {
            (own, _) if (random as u32) < own => at as usize,
            (_, other) => other as usize,
        }
    }
}

/// Members that can't be picked are drawn again, so often; after that all are looked at.
const DRAWS: usize = 8;

struct Drawn {
    by: By,
    members: Arc<[Arc<Replica>]>,
    weights: Box<[u16]>,
    table: Alias,
    /// The mean weight.
    mean: f32,
}

impl Drawn {
    /// A member that is admitted, by weight; not `other`.
    #[inline]
    fn draw(
        &self,
        cx: &PickCx<'_>,
        chance: &mut Chance,
        other: Option<usize>,
        witness: &mut impl Witness,
    ) -> Option<usize> {
        if self.members.is_empty() {
            return None;
        }
        for _ in 0..DRAWS {
            let at = self.table.draw(chance);
            if Some(at) == other {
                continue;
            }
            match cx.admits(&self.members[at]) {
                Ok(()) => return Some(at),
                Err(why) => witness.passed(&self.members[at], why),
            }
        }
        // A heavy one hides the others, or few are left: exactly, then. Counts may change between the two looks.
        let admitted = |at: usize, witness: &mut _| {
            let replica = &self.members[at];
            Some(at) != other && cx.admits(replica).map_err(|why| Witness::passed(witness, replica, why)).is_ok()
        };
        let mut total = 0;
        let mut last = None;
        for at in 0..self.members.len() {
            if admitted(at, witness) {
                total += u64::from(self.weights[at]);
                last = Some(at);
            }
        }
        let mut left = chance.next() % total.max(1);
        for at in 0..self.members.len() {
            if admitted(at, witness) {
                match left.checked_sub(u64::from(self.weights[at])) {
                    Some(rest) => left = rest,
                    None => return Some(at),
                }
            }
        }
        last
    }

    fn choose(&self, cx: &PickCx<'_>, witness: &mut impl Witness) -> Option<&Arc<Replica>> {
        let mut chance = Chance(cx.random);
        let first = self.draw(cx, &mut chance, None, witness)?;
        if self.by == By::Chance || self.members.len() < 2 {
            return Some(&self.members[first]);
        }
        let Some(second) = self.draw(cx, &mut chance, Some(first), witness) else {
            return Some(&self.members[first]);
        };
        let (chosen, other) = if self.is_better(cx, second, first) { (second, first) } else { (first, second) };
        witness.passed(&self.members[other], self.why(cx, other));
        Some(&self.members[chosen])
    }

    /// Is `one` strictly better than `two`?
    #[inline]
    fn is_better(&self, cx: &PickCx<'_>, one: usize, two: usize) -> bool {
        match self.by {
            By::Chance => false,
            By::Requests => self.is_idler(one, two),
            By::Latency(decay) => {
                let latency = |at: usize| self.members[at].latency(cx.now, decay);
                let is_alike = match (latency(one), latency(two)) {
                    (Some(one), Some(two)) => one <= two * ALIKE && two <= one * ALIKE,
                    (None, None) => true,
                    _ => false,
                };
                match is_alike {
                    true => self.is_idler(one, two),
                    false => self.expected(cx, decay, one) < self.expected(cx, decay, two),
                }
            }
        }
    }

    /// Has `one` fewer requests in flight for its weight, both now and with one more? Of a heavy one with a request and a
    /// light one without, each has more room in its own way: there, as between equals, it is the draw that decides.
    #[inline]
    fn is_idler(&self, one: usize, two: usize) -> bool {
        let load = |at: usize, more: u64| u64::from(self.members[at].in_flight()) + more;
        let (weight_one, weight_two) = (u64::from(self.weights[one]), u64::from(self.weights[two]));
        let is_less = |more: u64| load(one, more) * weight_two < load(two, more) * weight_one;
        is_less(0) && is_less(1)
    }

    /// What a request to it may take, microseconds.
    #[inline]
    fn expected(&self, cx: &PickCx<'_>, decay: Duration, at: usize) -> f32 {
        let replica = &self.members[at];
        let held = replica.in_flight() as f32 * self.mean / f32::from(self.weights[at]);
        match replica.latency(cx.now, decay) {
            Some(micros) => micros * (1.0 + held),
            None if held > 0.0 => UNKNOWN * (1.0 + held),
            None => 0.0,
        }
    }

    fn why(&self, cx: &PickCx<'_>, at: usize) -> Why {
        let replica = &self.members[at];
        match self.by {
            By::Latency(decay) => {
                Why::Slower { expected: replica.latency(cx.now, decay).map(|_| self.expected(cx, decay, at)) }
            }
            By::Chance | By::Requests => Why::Busier { in_flight: replica.in_flight() },
        }
    }
}

/// Latencies that differ by no more than this factor are taken to be the same, and load decides: an average that follows
/// every peak is not more exact than that.
const ALIKE: f32 = 2.0;

/// What one that was never measured is expected to take once it holds a request: longer than any that was.
const UNKNOWN: f32 = 1e12;

impl Picker for Drawn {
    fn pick(&self, cx: &PickCx<'_>) -> Option<&Arc<Replica>> {
        self.choose(cx, &mut ())
    }

    fn explain(&self, cx: &PickCx<'_>) -> Explanation {
        let mut explanation = Explanation::default();
        let chosen = self.choose(cx, &mut explanation);
        explanation.choose(chosen)
    }
}

#[cfg(test)]
mod tests;
