//! The balancers that are compared, and what is predicted of each.

use lb::placement::hash::RingHash;
use lb::policy::PolicyKind;

use super::stage::Plan;
use crate::placement::case::{Case, EVEN, SMALL};
use crate::placement::{count, fleet::Fleet};

/// The factor of bounded loads that is the balancer's default.
const BOUND: f64 = 1.25;

/// A policy with its settings, with or without a bound.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    case: Case,
    bound: Option<f64>,
}

impl Subject {
    /// The assignment's ring as it is written.
    pub(super) fn bare() -> Self {
        Self { case: Case::ring(RingHash::Assignment, SMALL), bound: None }
    }

    /// The same with bounded loads: the balancer's default.
    pub(super) fn bounded() -> Self {
        Self::bare().bounded_too()
    }

    /// Other functions and placements, none of them bounded.
    pub(super) fn others() -> Vec<Self> {
        let cases = vec![
            Case::ring(RingHash::Modified, SMALL),
            Case::ring(RingHash::Xxh3, SMALL),
            Case::ring(RingHash::Xxh3, EVEN),
            Case::of(PolicyKind::Maglev),
            Case::of(PolicyKind::Rendezvous),
        ];
        cases.into_iter().map(|case| Self { case, bound: None }).collect()
    }

    /// Policies that don't look at keys.
    pub(super) fn keyless() -> Vec<Self> {
        let kinds = [PolicyKind::RoundRobin, PolicyKind::Random, PolicyKind::LeastRequests, PolicyKind::PeakEwma];
        kinds.into_iter().map(|kind| Self { case: Case::of(kind), bound: None }).collect()
    }

    /// The same with the balancer's default bound.
    pub(super) fn bounded_too(&self) -> Self {
        Self { bound: Some(BOUND), ..self.clone() }
    }

    /// In tables and plots.
    pub(super) fn name(&self) -> String {
        match self.bound {
            None => self.case.name.clone(),
            Some(bound) => format!("{}, bound {bound}", self.case.name),
        }
    }

    pub(super) fn case(&self) -> &Case {
        &self.case
    }

    /// Are its shares known exactly?
    pub(super) fn is_exact(&self) -> bool {
        self.case.is_hashing() && self.bound.is_none()
    }

    /// A balancer of this kind before so many replicas.
    pub(super) fn plan(&self, replicas: u32) -> Plan {
        let config = self.case.config;
        let mut args = vec!["--policy".to_owned(), config.kind.to_string()];
        if config.kind == PolicyKind::Consistent {
            let ring = config.ring;
            let (slots, vnodes) = (ring.slots.to_string(), ring.vnodes.to_string());
            args.extend([
                "--hash".to_owned(),
                ring.hash.to_string(),
                "--slots".into(),
                slots,
                "--vnodes".into(),
                vnodes,
            ]);
        }
        if self.case.is_hashing() {
            args.extend(["--bound".into(), self.bound.map_or_else(|| "off".into(), |bound| bound.to_string())]);
        }
        Plan { replicas, args, service: None }
    }

    /// The share of each of so many replicas, by ring number: exact for placement by keys alone, 1/N for a policy that does
    /// not look at them, and what random requests get while `in_flight` are held for bounded loads.
    pub(super) fn predicted(&self, replicas: u32, in_flight: usize, seed: u64) -> Result<Vec<f64>, String> {
        /// So many that chance does not show.
        const SIMULATED: u32 = 200_000;
        if !self.case.is_hashing() {
            return Ok(vec![1.0 / f64::from(replicas); replicas as usize]);
        }
        if self.is_exact() {
            return Ok(count::shares(&self.case, replicas)?.shares);
        }
        let fleet = Fleet::new(&self.case.bounded(self.bound), &vec![1; replicas as usize])?;
        let counts = fleet.counts(SIMULATED, in_flight, seed)?;
        Ok(counts.into_iter().map(|count| count as f64 / f64::from(SIMULATED)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_balancer_is_told_what_the_prediction_is_about() {
        let args = |subject: &Subject| subject.plan(3).args.join(" ");
        assert_eq!(
            args(&Subject::bounded()),
            "--policy consistent --hash assignment --slots 512 --vnodes 9 --bound 1.25"
        );
        assert!(args(&Subject::bare()).ends_with("--bound off"));
        assert_eq!(args(&Subject::others()[3]), "--policy maglev --bound off");
        assert_eq!(args(&Subject::keyless()[0]), "--policy round-robin");
        assert_eq!(Subject::bounded().name(), "consistent, assignment, 512 × 9, bound 1.25");
    }

    #[test]
    fn predictions_are_exact_for_bare_rings_and_near_even_for_the_rest() {
        let percent = |subject: &Subject| -> Vec<String> {
            let shares = subject.predicted(3, 100, 1).unwrap();
            shares.iter().map(|share| format!("{:.1}", share * 100.0)).collect()
        };
        assert_eq!(percent(&Subject::bare()), ["84.4", "4.7", "10.9"]);
        assert_eq!(percent(&Subject::keyless()[1]), ["33.3"; 3]);
        let bounded = Subject::bounded().predicted(3, 100, 1).unwrap();
        assert!(bounded[0] > 0.40 && bounded[0] < 0.43, "{bounded:?}");
        assert!((bounded.iter().sum::<f64>() - 1.0).abs() < 1e-9);
    }
}
