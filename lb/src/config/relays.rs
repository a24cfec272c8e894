//! Settings of relayed TCP and UDP, and of the channel that servers register over.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::IpNet;

use super::{Layers, number, or_off, time};
use crate::control::ControlConfig;
use crate::control::message::Dialect;
use crate::placement::hash::{Probing, RingHash};
use crate::placement::ring::RingConfig;
use crate::policy::{PolicyConfig, PolicyKind};

/// The ring of a port whose clients are placed by their addresses: an even one, for up to 1024 replicas.
const RING: RingConfig = RingConfig { slots: 65_536, vnodes: 64, hash: RingHash::Xxh3, probing: Probing::Linear };

/// Everything about relayed TCP and UDP.
#[derive(Debug, Clone)]
pub struct L4Config {
    /// Where servers register.
    pub listen: SocketAddr,
    /// How they are treated.
    pub control: ControlConfig,
    /// Ports that may be opened.
    pub ports: Vec<RangeInclusive<u16>>,
    /// Registrations of one control connection.
    pub max_registrations: usize,
    /// Where ports are opened.
    pub address: IpAddr,
    /// How a replica is chosen.
    pub policy: PolicyConfig,
    /// For a connection to a replica to be made.
    pub connect_timeout: Duration,
    /// For the next byte of a connection.
    pub idle_timeout: Duration,
    /// For the next datagram of a flow.
    pub flow_idle: Duration,
    /// For connections under way when a replica leaves or the balancer stops.
    pub drain_timeout: Duration,
    /// Connections at one time; an eighth of the open files if nothing is said.
    pub max_connections: Option<i64>,
    /// Flows at one time; a quarter of the open files if nothing is said.
    pub max_flows: Option<usize>,
    /// Are replicas told who the client is?
    pub proxy_protocol: bool,
}

impl L4Config {
    pub(super) fn with(self, listen: SocketAddr, drain_timeout: Duration) -> Self {
        Self { listen, drain_timeout, ..self }
    }
}

fn networks(text: &str) -> Result<Vec<IpNet>, String> {
    let network = |text: &str| text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    text.split(',')
        .map(str::trim)
        .filter(|text| !text.is_empty())
        .map(|text| {
            network(text).map_err(|_| {
                format!("addresses and networks such as 127.0.0.1,10.0.0.0/8,fd00::/8; '{text}' is neither")
            })
        })
        .collect()
}

fn ports(text: &str) -> Result<Vec<RangeInclusive<u16>>, String> {
    let range = |text: &str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (first.trim().parse::<u16>().ok()?, last.trim().parse::<u16>().ok()?);
        (first > 0 && first <= last).then_some(first..=last)
    };
    text.split(',')
        .map(|text| {
            range(text).ok_or_else(|| {
                format!("ports from 1 to 65535 and ranges of them, such as 53,20000-29999; '{text}' is neither")
            })
        })
        .collect()
}

/// Reads them all; `listen` is the public listener. Where servers register comes later.
pub(super) fn read(l: &mut Layers, listen: Option<SocketAddr>, policy: Option<PolicyConfig>) -> Option<L4Config> {
    let dialect = l.parse("control_dialect", str::parse::<Dialect>);
    let token = l.parse("control_token", |text| match text {
        "" => Err("a text that is not empty".into()),
        text => Ok(text.to_owned()),
    });
    let networks = l.parse("control_networks", networks);
    let ports = l.parse("control_ports", ports);
    let max_connections = l.parse("control_connections", number(1..=1_000_000));
    let max_registrations = l.parse("control_registrations", number(1..=65_535));
    let interval = l.parse("control_interval", time);
    let timeout = l.parse("control_timeout", time);
    if let (Some(interval), Some(timeout)) = (interval, timeout)
        && timeout <= interval
    {
        l.refuse("control_timeout", "it must be longer than control_interval, or no server could answer in time");
    }
    let address = l.parse("relay_address", |text| {
        text.parse::<IpAddr>().map_err(|_| "an IP address, such as 0.0.0.0 or ::".into())
    });
    let kind = l.parse("relay_policy", str::parse::<PolicyKind>);
    let connect_timeout = l.parse("relay_connect_timeout", time);
    let idle_timeout = l.parse("relay_idle_timeout", time);
    let flow_idle = l.parse("relay_flow_idle", time);
    let relay_connections = l.parse("relay_max_connections", number(1..=i64::MAX));
    let max_flows = l.parse("relay_max_flows", number(1..=usize::MAX));
    let proxy_protocol = l.parse(
        "relay_proxy_protocol",
        or_off(|text| match text {
            "v2" => Ok(()),
            _ => Err("v2".into()),
        }),
    );
    Some(L4Config {
        listen: listen?,
        control: ControlConfig {
            dialect: dialect?,
            token,
            networks: networks.unwrap_or_default(),
            max_connections: max_connections?,
            interval: interval?,
            timeout: timeout?,
        },
        ports: ports?,
        max_registrations: max_registrations?,
        address: address.unwrap_or(listen?.ip()),
        // Bounded loads would part a client's connections.
        policy: PolicyConfig { kind: kind?, ring: RING, bound: None, ..policy? },
        connect_timeout: connect_timeout?,
        idle_timeout: idle_timeout?,
        flow_idle: flow_idle?,
        drain_timeout: Duration::ZERO,
        max_connections: relay_connections,
        max_flows,
        proxy_protocol: proxy_protocol?.is_some(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_whole_or_not_at_all() {
        assert_eq!(ports("53,20000-29999").unwrap(), [53..=53, 20_000..=29_999]);
        for wrong in ["", "0", "1-", "9-8", "1-65536", "80;81", "-5"] {
            assert!(ports(wrong).unwrap_err().contains("is neither"), "{wrong}");
        }
        let list = networks("127.0.0.1, 10.0.0.0/8,fd00::/8").unwrap();
        assert!(list[0].contains(&"127.0.0.1".parse::<IpAddr>().unwrap()) && list.len() == 3);
        assert!(networks("10.0.0.0/33").is_err() && networks("host").is_err());
    }
}
