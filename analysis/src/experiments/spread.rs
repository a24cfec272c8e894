//! One load before a balancer: what each replica has answered, beside what was predicted.

use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};

use super::cx::Settings;
use super::record::Check;
use super::stage::{Balancer, Service};
use super::subject::Subject;
use crate::load::{Outcome, counted};

/// How far a share may be from an exact prediction on the assignment's ring, in percentage points: with 10,000 random
/// requests that is four standard deviations for a share of 84 %.
pub(super) const NEAR: f64 = 1.5;
/// With fewer requests that is no measure.
const ENOUGH: u64 = 10_000;
/// The same for any placement, in standard deviations of random requests.
const DEVIATIONS: f64 = 5.0;

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Spread {
    pub(super) subject: String,
    pub(super) replicas: u32,
    /// Requests that the clients have in flight.
    pub(super) concurrency: u64,
    /// What a request takes; without it replicas answer at once.
    pub(super) service: Option<Service>,
    /// Requests by ring number, from 1.
    pub(super) counts: Vec<u64>,
    /// Shares by ring number; empty where nothing is predicted.
    pub(super) predicted: Vec<f64>,
    /// The prediction is a calculation, no simulation and no expectation.
    pub(super) exact: bool,
    pub(super) outcome: Outcome,
}

impl Spread {
    /// Sends the load. What a bound does depends on how many requests replicas hold, which is known only if each takes a
    /// while, and none waits for another.
    pub(super) async fn measure(
        balancer: &mut Balancer,
        subject: &Subject,
        (concurrency, service): (u64, Option<Service>),
        settings: &Settings,
        bar: &ProgressBar,
    ) -> Result<Self, String> {
        let members = balancer.members().await?;
        let outcome = counted(&balancer.url("/home"), settings.requests, concurrency as usize, bar).await?;
        balancer.check()?;
        let replicas = members.len() as u32;
        let mut counts = vec![0; members.len()];
        for member in &members {
            let count = outcome.by_replica.get(&member.hostname).copied().unwrap_or_default();
            let slot = counts.get_mut((member.id as usize).wrapping_sub(1));
            *slot.ok_or_else(|| format!("{} has the ring number {}", member.hostname, member.id))? += count;
        }
        if counts.iter().sum::<u64>() != outcome.answered() {
            let names: Vec<&String> = outcome.by_replica.keys().collect();
            return Err(format!("a replica was replaced in the course of a load: {names:?} have answered"));
        }
        let holds = service.is_some_and(|service| u64::from(service.at_once) >= concurrency);
        let predicts = !subject.case().is_hashing() || subject.is_exact() || holds;
        let predicted = match predicts {
            true => subject.predicted(replicas, concurrency as usize, settings.seed)?,
            false => Vec::new(),
        };
        Ok(Self {
            subject: subject.name(),
            replicas,
            concurrency,
            service,
            counts,
            predicted,
            exact: subject.is_exact(),
            outcome,
        })
    }

    pub(super) fn answered(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Shares by ring number.
    pub(super) fn shares(&self) -> Vec<f64> {
        let answered = self.answered().max(1) as f64;
        self.counts.iter().map(|count| *count as f64 / answered).collect()
    }

    pub(super) fn mean(&self) -> f64 {
        self.answered() as f64 / f64::from(self.replicas.max(1))
    }

    pub(super) fn most(&self) -> u64 {
        self.counts.iter().copied().max().unwrap_or_default()
    }

    pub(super) fn least(&self) -> u64 {
        self.counts.iter().copied().min().unwrap_or_default()
    }

    /// The busiest replica's requests as a multiple of the mean.
    pub(super) fn max_mean(&self) -> f64 {
        self.most() as f64 / self.mean().max(f64::MIN_POSITIVE)
    }

    /// The same as it was predicted.
    pub(super) fn predicted_max_mean(&self) -> Option<f64> {
        let most = self.predicted.iter().copied().reduce(f64::max)?;
        Some(most * f64::from(self.replicas))
    }

    /// The standard deviation of the replicas' requests, of all there are.
    pub(super) fn deviation(&self) -> f64 {
        let mean = self.mean();
        let squares: f64 = self.counts.iter().map(|count| (*count as f64 - mean).powi(2)).sum();
        (squares / f64::from(self.replicas.max(1))).sqrt()
    }

    /// The largest difference of a share from its prediction, by the standard deviation that random requests have. A share
    /// that is 0 or 1 for sure has none.
    fn deviations(&self) -> Option<f64> {
        let answered = self.answered().max(1) as f64;
        let shares = self.shares().into_iter().zip(&self.predicted);
        let by_deviation = |(share, due): (f64, &f64)| {
            let deviation = (due * (1.0 - due) / answered).sqrt();
            if share == *due { 0.0 } else { (share - due).abs() / deviation.max(f64::MIN_POSITIVE) }
        };
        shares.map(by_deviation).reduce(f64::max)
    }

    /// The largest difference of a share from its prediction.
    pub(super) fn off(&self) -> Option<f64> {
        self.shares().iter().zip(&self.predicted).map(|(share, due)| (share - due).abs()).reduce(f64::max)
    }
}

/// That nothing has failed, and that shares are those that were predicted exactly.
pub(super) fn checks<'a>(what: &str, all: impl Iterator<Item = &'a Spread> + Clone) -> Vec<Check> {
    let requests = all.clone().map(|spread| spread.outcome.answered() + spread.outcome.failed()).sum();
    let failed = all.clone().map(|spread| spread.outcome.failed()).sum();
    let mut checks = vec![Check::none_failed(what, requests, failed)];
    let exact = all.filter(|spread| spread.exact);
    let ring = exact.clone().filter(|spread| spread.subject.contains("assignment") && spread.answered() >= ENOUGH);
    let off = ring.filter_map(Spread::off).reduce(f64::max);
    checks.extend(off.map(|off| {
        Check::near(&format!("{what}, the assignment's ring: distance of a share from its exact prediction"), off, NEAR)
    }));
    checks.extend(exact.filter_map(Spread::deviations).reduce(f64::max).map(|off| Check {
        what: format!("{what}: distance of a share from its exact prediction"),
        limit: format!("{DEVIATIONS:.1} deviations"),
        found: format!("{off:.1} deviations"),
        holds: off <= DEVIATIONS,
    }));
    checks
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Counts of so many replicas.
    pub(in crate::experiments) fn example(subject: &str, concurrency: u64, counts: &[u64]) -> Spread {
        let all: u64 = counts.iter().sum();
        let by_replica = (1..).zip(counts).map(|(id, count)| (format!("S{id}"), *count)).collect();
        let outcome = Outcome { by_replica, seconds: 0.5, p50_ms: 3.0, p99_ms: 9.0, ..Outcome::default() };
        Spread {
            subject: subject.into(),
            replicas: counts.len() as u32,
            concurrency,
            service: None,
            counts: counts.into(),
            predicted: counts.iter().map(|count| *count as f64 / all as f64).collect(),
            exact: true,
            outcome,
        }
    }

    #[tokio::test]
    async fn a_real_balancer_gives_the_shares_that_are_predicted() {
        let stage = super::super::stage::tests::stage().await;
        let (subject, settings) = (Subject::bare(), Settings { requests: 2000, rounds: None, seed: 1 });
        let mut balancer = stage.balancer(&subject.plan(2)).await.unwrap();
        balancer.add().await.unwrap();
        let bar = ProgressBar::hidden();
        let spread = Spread::measure(&mut balancer, &subject, (50, None), &settings, &bar).await.unwrap();
        assert_eq!((spread.answered(), spread.outcome.failed(), spread.replicas), (2000, 0, 3));
        assert!(spread.deviations().unwrap() < 6.0 && spread.off().unwrap() > 0.0, "{spread:?}");
        balancer.remove("S2").await.unwrap();
        // Ring numbers have a gap now: what stood at the third place is still there.
        let names: Vec<u32> = balancer.members().await.unwrap().iter().map(|member| member.id).collect();
        assert_eq!(names, [1, 3]);
    }

    #[test]
    fn figures_are_those_of_the_counts() {
        let spread = example("ring", 100, &[600, 100, 200]);
        assert_eq!((spread.mean(), spread.most(), spread.least()), (300.0, 600, 100));
        assert_eq!((spread.max_mean(), spread.predicted_max_mean().unwrap()), (2.0, 2.0));
        assert!((spread.deviation() - 216.02).abs() < 0.01);
        assert_eq!(spread.off(), Some(0.0));
        let unknown = Spread { predicted: Vec::new(), ..spread };
        assert_eq!((unknown.off(), unknown.predicted_max_mean()), (None, None));
    }

    #[test]
    fn a_share_that_is_off_or_a_failure_does_not_hold() {
        let good = example("assignment", 100, &[12_000, 2000, 4000]);
        let holds =
            |spread: &Spread| checks("x", [spread].into_iter()).iter().map(|check| check.holds).collect::<Vec<_>>();
        assert_eq!(holds(&good), [true, true, true]);
        let moved = Spread { counts: vec![11_700, 2100, 4200], ..good.clone() };
        assert_eq!(holds(&moved), [true, false, true]);
        assert_eq!(holds(&Spread { subject: "maglev".into(), ..moved.clone() }), [true, true]);
        assert_eq!(
            holds(&Spread { subject: "maglev".into(), counts: vec![10_200, 3800, 4000], ..moved.clone() }),
            [true, false]
        );
        assert_eq!(holds(&Spread { exact: false, ..moved }), [true]);
        assert_eq!(holds(&example("assignment", 100, &[600, 100, 200])), [true, true], "too few for a fixed limit");
        let mut failed = good.clone();
        failed.outcome.failures.insert("503".into(), 1);
        assert_eq!(holds(&failed), [false, true, true]);
        let nothing = Spread { outcome: Outcome::default(), ..good };
        assert_eq!(holds(&nothing), [false, true, true]);
    }
}
