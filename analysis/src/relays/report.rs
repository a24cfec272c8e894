//! What the experiments have found, as it is written to `relays.json`, and what the source document has.

use serde::{Deserialize, Serialize};

use crate::bench::machine::Machine;
use crate::bench::report::Spread;
use crate::burst::Outcome;
use crate::control::Protocol;

/// The document's servers for work of a fixed size.
pub(super) const WORK_SERVERS: [usize; 3] = [1, 2, 4];
/// Its clients, one request each.
pub(super) const WORK_CLIENTS: [usize; 2] = [10, 100];
/// Its servers for the burst.
pub(super) const BURST_SERVERS: [usize; 4] = [1, 2, 3, 4];
/// Its connections in one burst.
pub(super) const BURST: usize = 1000;
/// Its percentage of the burst that succeeded, by servers.
const DOCUMENT_BURST: [f64; 4] = [72.8, 87.6, 95.1, 95.3];

/// Seconds that the document's program took, by servers.
fn document_seconds(protocol: Protocol, clients: usize) -> Option<[f64; 3]> {
    match (protocol, clients) {
        (Protocol::Tcp, 10) => Some([25.0, 13.0, 14.0]),
        (Protocol::Tcp, 100) => Some([316.0, 163.0, 171.0]),
        (Protocol::Udp, 10) => Some([26.0, 15.0, 14.0]),
        (Protocol::Udp, 100) => Some([270.0, 165.0, 161.0]),
        _ => None,
    }
}

/// What was asked of the servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Experiment {
    /// Work of a fixed size for each client.
    Work,
    /// 20 KB over each of many connections.
    Burst,
}

/// One run of one experiment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Run {
    pub(super) experiment: Experiment,
    pub(super) protocol: Protocol,
    pub(super) servers: usize,
    pub(super) clients: usize,
    pub(super) round: u32,
    pub(super) outcome: Outcome,
    /// Cores that others on this machine had meanwhile, on average.
    pub(super) others: f64,
}

/// Everything.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Report {
    pub(super) machine: Machine,
    pub(super) rounds: u32,
    /// CPU time of a request for work.
    pub(super) work_ms: u64,
    /// Runs that were made again, as others had disturbed them; what came of them is not kept.
    pub(super) repeated: u32,
    pub(super) runs: Vec<Run>,
}

/// A row of a table: what was measured, and what the document has.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Row {
    pub(super) servers: usize,
    pub(super) measured: Spread,
    pub(super) document: f64,
}

impl Report {
    fn runs(
        &self,
        experiment: Experiment,
        protocol: Protocol,
        clients: usize,
        servers: usize,
    ) -> impl Iterator<Item = &Run> {
        let wanted = move |run: &&Run| {
            (run.experiment, run.protocol, run.clients, run.servers) == (experiment, protocol, clients, servers)
        };
        self.runs.iter().filter(wanted)
    }

    /// Seconds for the work of all clients, by servers.
    pub(super) fn seconds(&self, protocol: Protocol, clients: usize) -> Vec<Row> {
        let document = document_seconds(protocol, clients).into_iter().flatten();
        let row = |(servers, document): (usize, f64)| {
            let runs = self.runs(Experiment::Work, protocol, clients, servers);
            let measured = Spread::of(runs.map(|run| run.outcome.seconds))?;
            Some(Row { servers, measured, document })
        };
        WORK_SERVERS.into_iter().zip(document).filter_map(row).collect()
    }

    /// How much faster than with one server, by servers. The rounds' own ratios, as the machine may be slower in another.
    pub(super) fn speed_up(&self, protocol: Protocol, clients: usize) -> Vec<Row> {
        let seconds = |servers, round| {
            let mut runs = self.runs(Experiment::Work, protocol, clients, servers);
            runs.find(|run| run.round == round).map(|run| run.outcome.seconds)
        };
        let document = document_seconds(protocol, clients);
        let row = |(index, servers): (usize, usize)| {
            let document = document?;
            let ratios = (1..=self.rounds).filter_map(|round| Some(seconds(1, round)? / seconds(servers, round)?));
            Some(Row { servers, measured: Spread::of(ratios)?, document: document[0] / document[index] })
        };
        WORK_SERVERS.into_iter().enumerate().filter_map(row).collect()
    }

    /// Percentage of the burst's connections that had their answer, by servers.
    pub(super) fn success(&self) -> Vec<Row> {
        self.burst(|outcome| outcome.answered() as f64 * 100.0 / (outcome.answered() + outcome.failed()).max(1) as f64)
    }

    /// Seconds for a burst; the document has none.
    pub(super) fn burst_seconds(&self) -> Vec<Row> {
        self.burst(|outcome| outcome.seconds)
    }

    fn burst(&self, value: impl Fn(&Outcome) -> f64) -> Vec<Row> {
        let row = |(servers, document): (usize, f64)| {
            let runs = self.runs(Experiment::Burst, Protocol::Tcp, BURST, servers);
            let measured = Spread::of(runs.map(|run| value(&run.outcome)))?;
            Some(Row { servers, measured, document })
        };
        BURST_SERVERS.into_iter().zip(DOCUMENT_BURST).filter_map(row).collect()
    }

    /// How much faster `servers` could be on this machine: they share its cores with the balancer and the clients.
    pub(super) fn possible(&self, servers: usize) -> usize {
        servers.min(self.machine.cores.max(1))
    }

    /// Cores that others had during the work of `clients` clients on `servers` servers.
    pub(super) fn others(&self, protocol: Protocol, clients: usize, servers: usize) -> Option<Spread> {
        Spread::of(self.runs(Experiment::Work, protocol, clients, servers).map(|run| run.others))
    }

    /// Requests without an answer, in all runs together, by what went wrong.
    pub(super) fn failures(&self) -> Vec<(String, u64)> {
        let of_run = |run: &Run| {
            let what = format!("{} {}, {} servers", run.clients, run.protocol.name(), run.servers);
            let failures = run.outcome.failures.iter();
            failures.map(|(why, count)| (format!("{what}, round {}: {why}", run.round), *count)).collect::<Vec<_>>()
        };
        self.runs.iter().flat_map(of_run).collect()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// A run of 10 TCP clients' work, or of the burst.
    pub(crate) fn run(experiment: Experiment, servers: usize, round: u32, seconds: f64, failed: u64) -> Run {
        let clients = if experiment == Experiment::Work { 10 } else { BURST };
        let failures = if failed > 0 { BTreeMap::from([("reset".to_owned(), failed)]) } else { BTreeMap::new() };
        let by_server = BTreeMap::from([("S1".to_owned(), clients as u64 - failed)]);
        let outcome = Outcome { by_server, failures, seconds };
        Run { experiment, protocol: Protocol::Tcp, servers, clients, round, outcome, others: 0.5 }
    }

    pub(crate) fn report() -> Report {
        use Experiment::{Burst, Work};
        let runs = vec![
            run(Work, 1, 1, 0.5, 0),
            run(Work, 2, 1, 0.25, 0),
            run(Work, 1, 2, 1.0, 0),
            run(Work, 2, 2, 0.4, 0),
            run(Burst, 1, 1, 0.2, 0),
            run(Burst, 1, 2, 0.4, 10),
        ];
        Report { machine: Machine { cores: 2, ..Machine::default() }, rounds: 2, work_ms: 50, repeated: 3, runs }
    }

    #[test]
    fn speed_up_is_that_of_the_same_round() {
        let rows = report().speed_up(Protocol::Tcp, 10);
        assert_eq!(rows.len(), 2, "nothing was measured with four servers");
        assert_eq!(rows[1].measured, Spread { median: 2.25, min: 2.0, max: 2.5 });
        assert!((rows[1].document - 25.0 / 13.0).abs() < 1e-9);
        assert_eq!(report().seconds(Protocol::Tcp, 10)[0].measured.max, 1.0);
        assert!(report().seconds(Protocol::Udp, 10).is_empty());
    }

    #[test]
    fn success_counts_what_was_answered() {
        let rows = report().success();
        assert_eq!((rows.len(), rows[0].measured.min, rows[0].measured.max), (1, 99.0, 100.0));
        assert_eq!(rows[0].document, 72.8);
        assert_eq!(report().failures(), [("1000 tcp, 1 servers, round 2: reset".to_owned(), 10)]);
        assert_eq!([1, 2, 4].map(|servers| report().possible(servers)), [1, 2, 2]);
    }
}
