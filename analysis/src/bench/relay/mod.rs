//! The rows of what is passed on without a look at it, TCP and UDP: lb beside nginx `stream` and HAProxy `mode tcp`.

mod idle;
mod peers;
mod start;
mod udp;

use std::net::SocketAddr;
use std::time::Duration;

use super::proxies::{Kind, Proxy};
use super::report::{Report, Sample};
use super::session::{Answer, Session, charge, cpu, resident};
use super::turn;
use super::workload::{Datagrams, RELAY_IDLE, RELAYED, UDP, Workload};
use peers::Stream;
use start::{Echoes, Relay};

pub(crate) use idle::{CONNECTIONS, megabytes};

/// What of it is to be measured, and who takes part.
pub(crate) struct Plan {
    kinds: Vec<Kind>,
    tcp: Vec<&'static Workload>,
    udp: Vec<&'static Datagrams>,
    /// With so many flows.
    idle: Option<usize>,
}

impl Plan {
    /// The rows that are wanted, and what of them must be left out.
    pub(crate) fn of(wants: impl Fn(&str) -> bool, kinds: &[Kind]) -> (Self, Vec<String>) {
        let mut skipped = Vec::new();
        let mut plan = Self {
            kinds: kinds.to_vec(),
            tcp: RELAYED.iter().filter(|row| wants(row.id)).collect(),
            udp: UDP.iter().filter(|row| wants(row.id)).collect(),
            idle: None,
        };
        if plan.compares() && kinds.contains(&Kind::Nginx) && Stream::look() == Stream::Missing {
            plan.kinds.retain(|kind| *kind != Kind::Nginx);
            skipped.push("nginx's stream module is not installed: apt-get install libnginx-mod-stream".into());
        }
        if wants(RELAY_IDLE) {
            match idle::flows() {
                Ok(flows) => plan.idle = Some(flows),
                Err(error) => skipped.push(error),
            }
        }
        (plan, skipped)
    }

    fn compares(&self) -> bool {
        !self.tcp.is_empty() || !self.udp.is_empty()
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.compares() && self.idle.is_none()
    }

    /// How many samples a round has, at most.
    pub(crate) fn turns(&self) -> usize {
        let udp = self.kinds.iter().filter(|kind| matches!(kind, Kind::Lb | Kind::Nginx)).count();
        self.tcp.len() * self.kinds.len() + self.udp.len() * udp + usize::from(self.idle.is_some())
    }

    pub(crate) async fn measure(&self, rounds: u32, report: &mut Report, session: &Session) -> Result<(), String> {
        let echoes = Echoes::start(session).await?;
        let mut relays = Vec::new();
        for kind in self.kinds.iter().filter(|_| self.compares()) {
            let name = kind.name();
            let relay = Relay::start(*kind, &format!("{name}-stream"), session, &echoes, &[]).await?;
            relays.push((name.to_owned(), relay));
        }
        for round in 1..=rounds {
            for workload in &self.tcp {
                let (row, load) = (workload.id, &workload.load);
                for (name, relay) in turn(report, row, round, &relays) {
                    let sample = session.sample(row, round, name, relay.proxy(load), load).await?;
                    report.samples.push(sample);
                }
            }
            for row in &self.udp {
                let mut places = Vec::new();
                for (name, relay) in &relays {
                    places.extend(relay.udp(row.affinity).map(|addr| (name.clone(), (&relay.proxy, addr))));
                }
                for (name, (proxy, addr)) in turn(report, row.id, round, &places) {
                    report.samples.push(datagrams(session, row.id, round, name, proxy, *addr).await?);
                }
            }
        }
        drop(relays);
        if let Some(flows) = self.idle {
            for round in 1..=rounds {
                report.samples.push(idle::sample(session, &echoes, flows, round).await?);
            }
        }
        Ok(())
    }
}

/// A warm-up, then a measured run of datagrams. What counts as a request is one that came back.
async fn datagrams(session: &Session, row: &str, round: u32, name: &str, proxy: &Proxy, addr: SocketAddr) -> Answer {
    session.say(&format!("{row}, round {round}, {name}"));
    let fail = |error: String| format!("{row}, round {round}, {name}: {error}");
    udp::run(addr, Duration::from_secs(session.warm_up)).await.map_err(fail)?;
    let before = cpu(proxy).map_err(fail)?;
    let outcome = udp::run(addr, Duration::from_secs(session.seconds)).await.map_err(fail)?;
    let used = cpu(proxy).map_err(fail)?.since(before);
    let micros = |quantile| outcome.latency.value_at_quantile(quantile) as f64 / 1e3;
    let mut sample = Sample {
        row: row.into(),
        subject: name.into(),
        round,
        requests: outcome.echoes,
        seconds: outcome.seconds,
        per_second: outcome.echoes as f64 / outcome.seconds,
        p50_us: micros(0.50),
        p99_us: micros(0.99),
        rss_kib: resident(proxy).map_err(fail)?,
        lost: Some(outcome.lost),
        ..Sample::default()
    };
    charge(&mut sample, used);
    session.done(&sample);
    Ok(sample)
}
