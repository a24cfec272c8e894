//! Replicas that no balancer has started: other programs stand before them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;

use futures_util::future::try_join_all;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::balancer::READY;
use super::engine::{self, LABEL, NAME, docker};
use super::{Engine, LOOK, Member, Plan, Service, Stage};
use crate::child::{Running, command};
use crate::loopback::{client, free_port};

/// Where the sample server listens in its container.
const PORT: u16 = 5000;
/// The first replica's address is this far from its network's: those that the engine gives out begin at the other end.
const FIRST: u32 = 100;

/// Some of them, called S1 and so on; they end when this is dropped if they are processes, else with the next ones, the
/// next balancer, or the stage.
pub(crate) struct Plain {
    pub(crate) members: Vec<Member>,
    _processes: Vec<Running>,
}

impl Stage {
    /// Starts so many in place of all that is there, and waits until they answer. The engine starts one anew that has ended
    /// by itself, as everybody has it who has no balancer for that (`--restart always`), and it keeps its address. Nobody
    /// does that for a process.
    pub(crate) async fn plain(&self, replicas: u32, service: Option<Service>) -> Result<Plain, String> {
        let plan = Plan { replicas, args: Vec::new(), service };
        let plain = match self.engine() {
            Some(engine) => Plain { members: containers(engine, &plan).await?, _processes: Vec::new() },
            None => self.processes(&plan)?,
        };
        try_join_all(plain.members.iter().map(until_answers)).await?;
        Ok(plain)
    }

    fn processes(&self, plan: &Plan) -> Result<Plain, String> {
        let server = self.lb().with_file_name("server");
        if !server.is_file() {
            return Err(format!("{} is missing: `make build` makes it", server.display()));
        }
        let (mut members, mut processes) = (Vec::new(), Vec::new());
        for id in 1..=plan.replicas {
            let (hostname, port) = (format!("S{id}"), free_port()?);
            let mut command = command(&server);
            command.env("SERVER_ID", &hostname).env("BIND", "127.0.0.1").env("PORT", port.to_string());
            command.envs(plan.environment());
            let running = Running::start(command, self.dir().join(format!("{hostname}.log")));
            let running = running.map_err(|error| format!("{}: {error}", server.display()))?;
            let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            members.push(member(id, running.pid.to_string(), addr));
            processes.push(running);
        }
        Ok(Plain { members, _processes: processes })
    }

    /// Lets one go on that was paused.
    pub(crate) async fn resume(&self, member: &Member) -> Result<(), String> {
        let id = member.runtime_id.as_deref().ok_or_else(|| format!("{} does not run", member.hostname))?;
        if let Some(engine) = self.engine() {
            return engine.resume(id).await;
        }
        let pid = id.parse().map_err(|_| format!("{} has the process number '{id}'", member.hostname))?;
        kill(Pid::from_raw(pid), Signal::SIGCONT).map_err(|error| format!("SIGCONT to {}: {error}", member.hostname))
    }
}

async fn containers(engine: &Engine, plan: &Plan) -> Result<Vec<Member>, String> {
    engine.clear().await?;
    let image = engine.replica_image(&plan.environment()).await?;
    let subnet = engine::subnet().await?;
    let start = async |id: u32| {
        let (hostname, ip) = (format!("S{id}"), host(&subnet, id)?);
        let mut args = vec!["run", "-d", "--name", &hostname, "--hostname", &hostname, "--label", LABEL];
        let text = ip.to_string();
        args.extend(["--network", NAME, "--ip", &text, "--restart", "always", &image]);
        let container = docker(&args, "").await?;
        Ok::<_, String>(member(id, container, engine::at(ip, PORT)))
    };
    try_join_all((1..=plan.replicas).map(start)).await
}

/// The address of the replica with this number in a network such as `172.18.0.0/16`.
fn host(subnet: &str, id: u32) -> Result<IpAddr, String> {
    let network = subnet.split_once('/').and_then(|(network, _)| network.parse::<Ipv4Addr>().ok());
    let network =
        network.ok_or_else(|| format!("the network {NAME} has the subnet '{subnet}', which is not of IPv4"))?;
    Ok(Ipv4Addr::from(u32::from(network) + FIRST + id).into())
}

fn member(id: u32, runtime_id: String, addr: SocketAddr) -> Member {
    Member {
        id,
        hostname: format!("S{id}"),
        state: "ready".into(),
        runtime_id: Some(runtime_id),
        addr: Some(addr.to_string()),
    }
}

async fn until_answers(member: &Member) -> Result<(), String> {
    let (client, began) = (client()?, Instant::now());
    let url = format!("http://{}/heartbeat", member.addr.as_deref().unwrap_or_default());
    while let Err(error) = client.get(&url).send().await {
        if began.elapsed() > READY {
            return Err(format!("{} does not answer after {READY:?}: {error}", member.hostname));
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_have_addresses_of_their_own_in_the_network() {
        let address = |subnet, id| host(subnet, id).map(|ip| ip.to_string());
        assert_eq!(address("172.18.0.0/16", 1).unwrap(), "172.18.0.101");
        assert_eq!(address("10.1.2.0/24", 6).unwrap(), "10.1.2.106");
        assert!(address("fd00::/64", 1).unwrap_err().contains("'fd00::/64', which is not of IPv4"));
    }
}
