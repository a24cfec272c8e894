//! Starts relayed TCP and UDP: the registry, the control channel, and a seat for each worker.

use std::sync::Arc;

use tokio::net::TcpListener;

use crate::config::L4Config;
use crate::control;
use crate::metrics::ControlMetrics;
use crate::registry::{self, RegistryConfig, RegistryHandle};
use crate::relay::worker::{self, Common};
use crate::relay::{PortKey, Protocol, RelayConfig, Seat, Workers};
use crate::shutdown::Shutdown;

/// What of the rest of the balancer matters here.
pub(super) struct Ports {
    /// Those that it uses itself.
    pub(super) own: Vec<u16>,
    /// Threads of the data path.
    pub(super) workers: usize,
}

/// One worker's part.
pub(super) struct RelaySeat {
    seat: Seat,
    config: Arc<RelayConfig>,
    common: Common,
}

impl RelaySeat {
    /// Serves ports until the balancer stops and connections are done or late.
    pub(super) async fn serve(self, shutdown: Shutdown) {
        worker::serve(self.seat, self.config, self.common, rand::random(), shutdown).await;
    }
}

/// Starts it all on this runtime, apart from the workers.
pub(super) fn start(
    l4: &L4Config,
    listener: TcpListener,
    ports: &Ports,
    metrics: ControlMetrics,
    shutdown: &Shutdown,
) -> (RegistryHandle, Vec<RelaySeat>) {
    let files = files();
    let config = Arc::new(RelayConfig {
        connect_timeout: l4.connect_timeout,
        idle_timeout: l4.idle_timeout,
        flow_idle: l4.flow_idle,
        drain_timeout: l4.drain_timeout,
        // Each takes two, and so do as many of the proxy.
        max_connections: l4.max_connections.unwrap_or_else(|| i64::try_from(files / 8).unwrap_or(i64::MAX).max(1)),
        max_flows: l4.max_flows.unwrap_or_else(|| usize::try_from(files / 4).unwrap_or(usize::MAX).max(1)),
        proxy_protocol: l4.proxy_protocol,
        hashes: l4.policy.kind.is_hashing(),
    });
    let (workers, seats) = Workers::new(l4.address, ports.workers, config.idle_timeout);
    let tcp = |port: &u16| PortKey { protocol: Protocol::Tcp, port: *port };
    let registry = registry::start(
        RegistryConfig {
            address: l4.address,
            allowed: l4.ports.clone(),
            reserved: ports.own.iter().map(tcp).collect(),
            max_registrations: l4.max_registrations,
            policy: l4.policy,
            drain_timeout: l4.drain_timeout,
        },
        workers,
    );
    tokio::spawn(control::serve(listener, l4.control.clone(), registry.clone(), metrics, shutdown.clone()));
    let common = Common::default();
    let seat = |seat| RelaySeat { seat, config: Arc::clone(&config), common: common.clone() };
    (registry, seats.into_iter().map(seat).collect())
}

fn files() -> u64 {
    use nix::sys::resource::{Resource, getrlimit};
    getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(files, _)| files)
}
