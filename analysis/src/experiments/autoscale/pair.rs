//! An agent that keeps a fleet of processes, and a balancer that follows it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use lb::pilot::Entry;
use reqwest::Client;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::child::{Running, command};
use crate::load::cause;
use crate::loopback::{free_port, until_ready};

/// For an answer.
const ANSWER: Duration = Duration::from_secs(10);
/// For all spares to be ready.
const SPARES: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(10);

/// What the two are told, besides where they listen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Told {
    /// Arguments of `lb agent`.
    pub(super) agent: Vec<String>,
    /// Arguments of `lb serve`.
    pub(super) balancer: Vec<String>,
    /// The replicas' environment.
    pub(super) replicas: Vec<(String, String)>,
}

/// How the fleet stands at a moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Fleet {
    /// Replicas that there shall be.
    pub(super) n: u32,
    /// Those that the balancer has in rotation.
    pub(super) ready: u32,
    /// Ready spares.
    pub(super) spares: u32,
}

/// An item of `/api/v1/replicas`, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Item {
    state: String,
    desired: bool,
    spare: bool,
}

impl Item {
    fn is_ready(&self) -> bool {
        self.state == "ready"
    }
}

/// Both end when this is dropped, and the replicas with them.
pub(super) struct Pair {
    balancer: Running,
    agent: Running,
    /// Where the balancer takes requests.
    pub(super) addr: SocketAddr,
    agent_admin: SocketAddr,
    balancer_admin: SocketAddr,
    client: Client,
}

impl Pair {
    /// Starts both, and waits until all replicas are ready, and so many spares.
    pub(super) async fn start(lb: &Path, told: &Told, spares: u32, dir: &Path) -> Result<Self, String> {
        let port = || Ok::<_, String>(SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?)));
        let (addr, link, agent_admin, balancer_admin) = (port()?, port()?, port()?, port()?);
        let mut agent = command(lb);
        agent.args(["agent", "--runtime", "process", "--agent-listen", &link.to_string()]);
        agent.args(["--admin-listen", &agent_admin.to_string()]).args(&told.agent);
        // Replicas get what their agent has.
        agent.envs(told.replicas.iter().map(|(name, value)| (name, value)));
        let mut balancer = command(lb);
        balancer.args(["serve", "--runtime", "agent", "--agent", &format!("ws://{link}")]);
        balancer.args(["--listen", &addr.to_string(), "--admin-listen", &balancer_admin.to_string()]);
        balancer.args(&told.balancer);
        let start = |command, name: &str| {
            Running::start(command, dir.join(format!("{name}.log"))).map_err(|error| format!("lb {name}: {error}"))
        };
        let agent = start(agent, "agent")?;
        let balancer = start(balancer, "serve")?;
        let client = Client::builder().no_proxy().timeout(ANSWER).build().map_err(|error| error.to_string())?;
        let mut pair = Self { balancer, agent, addr, agent_admin, balancer_admin, client };
        until_ready(&format!("http://{agent_admin}/readyz"), "lb agent", &mut pair.agent).await?;
        until_ready(&format!("http://{balancer_admin}/readyz"), "lb serve", &mut pair.balancer).await?;
        let began = Instant::now();
        while pair.look().await?.spares < spares {
            pair.check()?;
            if began.elapsed() > SPARES {
                return Err(format!("{spares} spares are not ready after {SPARES:?}:\n{}", pair.agent.last_words()));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(pair)
    }

    /// How the fleet stands now.
    pub(super) async fn look(&self) -> Result<Fleet, String> {
        let all: Vec<Item> = self.ask(self.agent_admin, "/api/v1/replicas").await?;
        let followed: Vec<Item> = self.ask(self.balancer_admin, "/api/v1/replicas").await?;
        let count = |items: &[Item], counts: fn(&Item) -> bool| items.iter().filter(|item| counts(item)).count() as u32;
        Ok(Fleet {
            n: count(&all, |item| item.desired),
            ready: count(&followed, |item| item.desired && item.is_ready()),
            spares: count(&all, |item| item.spare && item.is_ready()),
        })
    }

    /// All decisions so far.
    pub(super) async fn decisions(&self) -> Result<Vec<Entry>, String> {
        self.ask(self.agent_admin, "/api/v1/decisions").await
    }

    async fn ask<T: DeserializeOwned>(&self, admin: SocketAddr, path: &str) -> Result<T, String> {
        let answer = self.client.get(format!("http://{admin}{path}")).send().await.map_err(|error| cause(&error))?;
        answer.json().await.map_err(|error| format!("{path}: {error}"))
    }

    /// An error if one of the two has ended.
    pub(super) fn check(&mut self) -> Result<(), String> {
        self.agent.check("lb agent")?;
        self.balancer.check("lb serve")
    }
}

/// Seconds from `began` to a time as decisions tell it.
pub(super) fn since(began: SystemTime, at: &str) -> f64 {
    let Ok(at) = humantime::parse_rfc3339(at) else { return 0.0 };
    match at.duration_since(began) {
        Ok(after) => after.as_secs_f64(),
        Err(before) => -before.duration().as_secs_f64(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_are_placed_in_time() {
        let began = humantime::parse_rfc3339("2026-01-02T03:04:05Z").unwrap();
        assert!((since(began, "2026-01-02T03:04:06.250Z") - 1.25).abs() < 1e-9);
        assert!((since(began, "2026-01-02T03:04:04.500Z") + 0.5).abs() < 1e-9);
    }
}
