//! The same beside HAProxy and nginx: how even they are with the same keys, and what a replica's failure costs.

mod config;
mod draw;
mod even;
mod failures;
mod front;
mod seen;
mod table;

use std::path::Path;
use std::rc::Rc;

use lb::placement::REQUEST_IDS;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

use super::a2::{SERVICE, SIZES};
use super::cx::Cx;
use super::record::{Check, Experiment};
use super::spread::{self, Spread};
use super::stage::Runtime;
use super::subject::Subject;
use crate::plot::Drawn;
use failures::{HARMS, OURS, REPLICAS, Round};
use front::Program;
use seen::Figures;

/// How often each failure is caused, if nothing else is said.
const ROUNDS: u32 = 3;

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Peers {
    runtime: Runtime,
    /// What is not installed.
    skipped: Vec<String>,
    /// Replicas as fast as can be.
    spreads: Vec<Spread>,
    /// Replicas that take some time.
    slow: Vec<Spread>,
    rounds: Vec<Round>,
}

impl Experiment for Peers {
    const NAME: &'static str = "peers";
    const TITLE: &'static str = "Beside HAProxy and nginx";

    async fn measure(cx: &Cx) -> Result<Self, String> {
        let (others, skipped) = Program::installed(&cx.machine(cx.stage.runtime).await?);
        let programs = Program::all(&others);
        // The balancer as one of them, too: it stands before given replicas, learns nothing from the engine, and respawns none.
        let harmed: Vec<Program> =
            [Program::Lb(Subject::bounded())].into_iter().chain(others.iter().cloned()).collect();
        let count = cx.settings.rounds.unwrap_or(ROUNDS);
        let mut random = StdRng::seed_from_u64(cx.settings.seed);
        let keys: Rc<[u64]> = (0..cx.settings.requests).map(|_| random.random_range(REQUEST_IDS)).collect();
        let loads = programs.len() * (SIZES.count() + 1);
        let bar = cx.bar(Self::NAME, loads as u64 + u64::from(count) * 2 * HARMS.len() as u64, "steps");
        let (mut spreads, mut slow, mut rounds) = (Vec::new(), Vec::new(), Vec::new());
        let plain = cx.stage.plain(*SIZES.end(), None).await?;
        for program in &programs {
            cx.begins(&bar, &program.name());
            for replicas in SIZES {
                let members = &plain.members[..replicas as usize];
                spreads.push(even::measure(&cx.stage, program, (members, None), &cx.settings, &keys).await?);
                bar.inc(1);
            }
        }
        drop(plain);
        let plain = cx.stage.plain(REPLICAS, Some(SERVICE)).await?;
        for program in &programs {
            cx.begins(&bar, &format!("{}, slow replicas", program.name()));
            let members = (&*plain.members, Some(SERVICE));
            slow.push(even::measure(&cx.stage, program, members, &cx.settings, &keys).await?);
            bar.inc(1);
        }
        drop(plain);
        for harm in HARMS {
            let what = harm.name(cx.stage.runtime);
            cx.begins(&bar, &format!("{OURS}, {what}"));
            rounds.extend(failures::ours(&cx.stage, harm, count, &keys, || bar.inc(1)).await?);
            cx.begins(&bar, &format!("the others, {what}"));
            for round in 0..count {
                rounds.extend(failures::others(&cx.stage, &harmed, (harm, round), &keys).await?);
                bar.inc(1);
            }
        }
        Ok(Self { runtime: cx.stage.runtime, skipped, spreads, slow, rounds })
    }

    fn checks(&self) -> Vec<Check> {
        let ours = |spreads: &'_ [Spread]| -> Vec<Spread> {
            spreads.iter().filter(|spread| spread.subject.starts_with(OURS)).cloned().collect()
        };
        let (fast, slow) = (ours(&self.spreads), ours(&self.slow));
        let mut checks = spread::checks("Beside others, lb", fast.iter());
        checks.extend(spread::checks("Beside others, lb, slow replicas", slow.iter()));
        let rounds = || self.rounds.iter().filter(|round| round.program.starts_with(OURS)).map(|round| &round.figures);
        let requests = rounds().map(|figures| figures.requests).sum();
        let failed = rounds().map(|figures| figures.failed()).sum();
        checks.push(Check::none_failed("Beside others, lb, replicas that fail", requests, failed));
        checks
    }

    fn sections(&self) -> String {
        table::sections(self)
    }

    fn plots(&self) -> Vec<(&'static str, &'static str)> {
        vec![("peers.svg", "evenness by number of replicas, and what failures cost, before lb, HAProxy and nginx")]
    }

    fn draw(&self, out: &Path) -> Drawn {
        draw::draw(self, &out.join("peers.svg"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::stage::Harm;
    use super::*;

    /// Of two rounds, with nginx alone beside lb.
    pub(super) fn peers() -> Peers {
        let calm = Figures { requests: 100, slowest_ms: 12.0, ..Figures::default() };
        let lossy = |failed: u64, disturbed| Figures {
            failures: [("status 502".to_owned(), failed)].into(),
            slow: 7,
            slowest_ms: 900.0,
            disturbed: Some(disturbed),
            ..calm.clone()
        };
        let again = |again: f64| Figures { again: Some(again), ..calm.clone() };
        let round = |(program, harm, figures): (&str, Harm, Figures)| Round {
            program: program.into(),
            harm,
            victim: "S1".into(),
            figures,
        };
        let rounds = [
            (OURS, Harm::Kill, again(0.6)),
            (OURS, Harm::Kill, again(0.8)),
            ("nginx", Harm::Kill, lossy(1, 1.0)),
            ("nginx", Harm::Kill, lossy(2, 1.5)),
            ("nginx", Harm::Crash, again(0.8)),
            ("nginx", Harm::Crash, calm.clone()),
        ];
        Peers {
            runtime: Runtime::Docker,
            skipped: vec!["HAProxy: not installed".into()],
            spreads: Vec::new(),
            slow: Vec::new(),
            rounds: rounds.map(round).into(),
        }
    }

    #[test]
    fn what_fails_before_others_is_no_fault_of_the_balancer() {
        let holds = |peers: &Peers| peers.checks().last().map(|check| check.holds);
        assert_eq!(holds(&peers()), Some(true));
        let mut lossy = peers();
        lossy.rounds[0].figures.failures.insert("status 503".into(), 1);
        assert_eq!(holds(&lossy), Some(false));
    }
}
