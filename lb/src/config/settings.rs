//! The table of settings: one line for each, from which flags, environment variables, file keys, help, and the README's
//! table all come.

/// One setting. Its flag is `--key` with dashes, its file key is `key`.
#[derive(Debug)]
pub struct Setting {
    /// Key in the file.
    pub key: &'static str,
    /// Environment variable.
    pub env: &'static str,
    /// Value if nothing else is said; empty for none.
    pub default: &'static str,
    /// What stands for the value in help.
    pub value: &'static str,
    /// Heading in help.
    pub group: &'static str,
    /// One line of help.
    pub help: &'static str,
}

const fn setting(
    group: &'static str,
    key: &'static str,
    env: &'static str,
    default: &'static str,
    value: &'static str,
    help: &'static str,
) -> Setting {
    Setting { key, env, default, value, group, help }
}

const PROFILE: &str = "Profile";
const LISTENERS: &str = "Listeners";
const FLEET: &str = "Fleet";
const RUNTIMES: &str = "Runtimes";
const PLACEMENT: &str = "Placement";
const AGENT: &str = "Agent";
const SCALING: &str = "Scaling";
const HEARTBEATS: &str = "Heartbeats";
const PROXY: &str = "Proxy";
const LIMITS: &str = "Limits";
const RELAYS: &str = "TCP and UDP";
const LOGS: &str = "Logs";

/// All settings, in the order of help.
#[rustfmt::skip]
pub const SETTINGS: &[Setting] = &[
    setting(PROFILE, "profile", "LB_PROFILE", "", "NAME", "values that suit an environment: production, development, slim, or one of the file's"),
    setting(LISTENERS, "listen", "LB_LISTEN", "0.0.0.0:5000", "ADDR:PORT", "public listener; port 0 takes any free port, which is logged"),
    setting(LISTENERS, "admin_listen", "LB_ADMIN_LISTEN", "127.0.0.1:5001", "ADDR:PORT|off", "admin listener"),
    setting(LISTENERS, "control_listen", "LB_CONTROL_LISTEN", "off", "ADDR:PORT|off", "control channel, where servers register TCP and UDP ports"),
    setting(LISTENERS, "workers", "LB_WORKERS", "0", "N", "threads of the data path; 0 for one per core"),
    setting(FLEET, "runtime", "LB_RUNTIME", "process", "KIND", "what starts replicas: docker, process, static; agent: lb agent elsewhere"),
    setting(FLEET, "replicas", "LB_REPLICAS", "3", "N", "replicas at the start"),
    setting(FLEET, "min_replicas", "LB_MIN_REPLICAS", "", "N", "replicas at least [default: 0, with autoscale 1]"),
    setting(FLEET, "max_replicas", "LB_MAX_REPLICAS", "", "N", "replicas at most, besides the ring's slots / vnodes [default: none, with autoscale 10]"),
    setting(FLEET, "spares", "LB_SPARES", "0", "N", "replicas that wait, started and probed, to take over for one that fails"),
    setting(FLEET, "max_surge", "LB_MAX_SURGE", "1", "N", "replicas that a rolling update starts at one time"),
    setting(FLEET, "settle", "LB_SETTLE", "1s", "TIME", "for which a replica of a rolling update must stay ready before the next one's turn"),
    setting(FLEET, "fleet", "LB_FLEET", "ringkeeper", "NAME", "name that tells this fleet's containers from others'"),
    setting(FLEET, "drain_timeout", "LB_DRAIN_TIMEOUT", "10s", "TIME", "for requests under way, when a replica leaves or the balancer stops"),
    setting(FLEET, "stop_grace", "LB_STOP_GRACE", "5s", "TIME", "for a replica to end by itself before it is killed"),
    setting(FLEET, "start_timeout", "LB_START_TIMEOUT", "30s", "TIME", "for a replica to be started, and again to answer"),
    setting(FLEET, "on_exit", "LB_ON_EXIT", "", "remove|keep", "replicas when the balancer stops [default: process: remove, docker: keep]"),
    setting(RUNTIMES, "server_command", "LB_SERVER_COMMAND", "", "COMMAND", "process: what to run, {port} and {hostname} are replaced [default: the 'server' beside lb]"),
    setting(RUNTIMES, "image", "LB_IMAGE", "ringkeeper-server", "IMAGE", "docker: image of the replicas"),
    setting(RUNTIMES, "network", "LB_NETWORK", "net1", "NETWORK", "docker: network of the replicas"),
    setting(RUNTIMES, "replica_command", "LB_REPLICA_COMMAND", "", "COMMAND", "docker: what is run instead of the image's own command"),
    setting(RUNTIMES, "replica_env", "LB_REPLICA_ENV", "", "LIST", "docker, process: environment of the replicas, NAME=value,NAME=value"),
    setting(RUNTIMES, "replica_cpus", "LB_REPLICA_CPUS", "off", "N|off", "docker: cores that a replica may use at most, such as 0.5"),
    setting(RUNTIMES, "replica_memory", "LB_REPLICA_MEMORY", "off", "SIZE|off", "docker: memory that a replica may use at most, such as 256m"),
    setting(RUNTIMES, "replica_port", "LB_REPLICA_PORT", "5000", "PORT", "docker: where a replica listens; passed to it as PORT"),
    setting(RUNTIMES, "docker_host", "LB_DOCKER_HOST", "unix:///var/run/docker.sock", "URL", "docker: the engine's socket"),
    setting(RUNTIMES, "members", "LB_MEMBERS", "", "LIST", "static: host:port,name=host:port;weight=3;priority=1,…"),
    setting(PLACEMENT, "policy", "LB_POLICY", "consistent", "POLICY", "how a replica is chosen: consistent, maglev, rendezvous, round-robin, priority, random, least-requests, peak-ewma"),
    setting(PLACEMENT, "slots", "LB_SLOTS", "512", "N", "slots on the ring, 1 to 1048576"),
    setting(PLACEMENT, "vnodes", "LB_VNODES", "9", "N", "virtual nodes per replica"),
    setting(PLACEMENT, "hash", "LB_HASH", "assignment", "HASH", "hash functions of the ring: assignment, modified, xxh3"),
    setting(PLACEMENT, "probing", "LB_PROBING", "linear", "PROBING", "search for a free slot: linear, quadratic"),
    setting(PLACEMENT, "table_slots", "LB_TABLE_SLOTS", "65537", "N", "slots of the table of maglev (a prime number) and rendezvous"),
    setting(PLACEMENT, "bound", "LB_BOUND", "1.25", "FACTOR|off", "bounded loads, if the key decides: no replica holds more than this times its part"),
    setting(PLACEMENT, "slow_start", "LB_SLOW_START", "0s", "TIME", "for a newcomer's bound to rise to the others'"),
    setting(PLACEMENT, "spill_share", "LB_SPILL_SHARE", "100%", "SHARE", "priority: the next tier helps once so many of a tier's replicas are not ready"),
    setting(PLACEMENT, "spill_in_flight", "LB_SPILL_IN_FLIGHT", "off", "N|off", "priority: the next tier helps once all of a tier hold so many requests each"),
    setting(PLACEMENT, "ewma_decay", "LB_EWMA_DECAY", "10s", "TIME", "peak-ewma: for a peak of latency to fade to 1/e"),
    setting(PLACEMENT, "hash_key", "LB_HASH_KEY", "random", "LIST", "what places a request, the first of a list that it has: random, client-ip, path, header:NAME, cookie:NAME, query:NAME"),
    setting(PLACEMENT, "sticky", "LB_STICKY", "off", "NAME|off", "keep a client at one replica, by a cookie of this name"),
    setting(PLACEMENT, "sticky_secret", "LB_STICKY_SECRET", "", "TEXT", "what that cookie is signed with [default: process, static: drawn at the start, docker: not needed, agent: its token]"),
    setting(AGENT, "agent", "LB_AGENT", "ws://127.0.0.1:5002", "URL", "runtime agent: where the agent listens, ws:// or wss://"),
    setting(AGENT, "agent_listen", "LB_AGENT_LISTEN", "127.0.0.1:5002", "ADDR:PORT", "lb agent: where it listens for balancers"),
    setting(AGENT, "agent_token", "LB_AGENT_TOKEN", "", "TEXT", "secret that balancers and agent share"),
    setting(AGENT, "agent_ca", "LB_AGENT_CA", "", "FILE", "runtime agent: certificates (PEM) to believe with wss://"),
    setting(AGENT, "agent_cert", "LB_AGENT_CERT", "", "FILE", "lb agent: its certificate (PEM), which makes it speak TLS"),
    setting(AGENT, "agent_key", "LB_AGENT_KEY", "", "FILE", "lb agent: the key of that certificate (PEM)"),
    setting(SCALING, "autoscale", "LB_AUTOSCALE", "off", "off|on|dry-run", "change N by the load, or only say what would be done"),
    setting(SCALING, "target_in_flight", "LB_TARGET_IN_FLIGHT", "30", "N|off", "requests in flight that each replica shall have"),
    setting(SCALING, "target_cpu", "LB_TARGET_CPU", "off", "SHARE|off", "CPU that each replica shall use, of one core or of replica_cpus"),
    setting(SCALING, "target_p99", "LB_TARGET_P99", "off", "TIME|off", "latency that 99 % of the requests shall stay under"),
    setting(SCALING, "scale_step", "LB_SCALE_STEP", "4", "N", "replicas that are added or removed at one time, at most"),
    setting(SCALING, "scale_up_window", "LB_SCALE_UP_WINDOW", "1s", "TIME", "how long there must be too few replicas before some are added"),
    setting(SCALING, "scale_down_window", "LB_SCALE_DOWN_WINDOW", "60s", "TIME", "how long there must be too many before some are removed"),
    setting(SCALING, "scale_up_cooldown", "LB_SCALE_UP_COOLDOWN", "3s", "TIME", "from one addition to the next, at least"),
    setting(SCALING, "scale_down_cooldown", "LB_SCALE_DOWN_COOLDOWN", "60s", "TIME", "from any change to the next removal, at least"),
    setting(SCALING, "scale_hold", "LB_SCALE_HOLD", "5min", "TIME", "for which nothing is changed after somebody else has changed N"),
    setting(SCALING, "forecast", "LB_FORECAST", "3s", "TIME|off", "how far the rate of requests is extrapolated"),
    setting(SCALING, "outliers", "LB_OUTLIERS", "off", "off|on|dry-run", "replace replicas that are slower, or fail more, than their peers"),
    setting(SCALING, "outlier_latency", "LB_OUTLIER_LATENCY", "3", "FACTOR", "how many times its peers' latency makes an outlier"),
    setting(SCALING, "outlier_failures", "LB_OUTLIER_FAILURES", "20%", "SHARE", "how many more of its requests than its peers' must fail"),
    setting(SCALING, "outlier_share", "LB_OUTLIER_SHARE", "34%", "SHARE", "of the fleet that may be replaced so within 30 s"),
    setting(SCALING, "weights", "LB_WEIGHTS", "fixed", "fixed|auto", "weights and priorities by latency, failures, CPU and memory"),
    setting(HEARTBEATS, "heartbeat_interval", "LB_HEARTBEAT_INTERVAL", "500ms", "TIME", "from one heartbeat to the next"),
    setting(HEARTBEATS, "heartbeat_timeout", "LB_HEARTBEAT_TIMEOUT", "500ms", "TIME", "for one heartbeat"),
    setting(HEARTBEATS, "heartbeat_falls", "LB_HEARTBEAT_FALLS", "3", "N", "failures in a row that fail a replica"),
    setting(HEARTBEATS, "heartbeat_rises", "LB_HEARTBEAT_RISES", "1", "N", "successes in a row that make a replica ready"),
    setting(HEARTBEATS, "heartbeat_path", "LB_HEARTBEAT_PATH", "/heartbeat", "PATH", "path that is asked for"),
    setting(PROXY, "not_found", "LB_NOT_FOUND", "assignment", "assignment|pass", "a replica's 404: 400 with the assignment's message, or as it is"),
    setting(PROXY, "trusted_proxies", "LB_TRUSTED_PROXIES", "", "LIST", "peers whose X-Forwarded-* are believed: addresses and networks"),
    setting(PROXY, "tries", "LB_TRIES", "3", "N", "tries of a request that may be repeated, the first included"),
    setting(PROXY, "connect_timeout", "LB_CONNECT_TIMEOUT", "2s", "TIME", "for a connection to a replica; a lost first packet alone costs 1 s"),
    setting(PROXY, "response_timeout", "LB_RESPONSE_TIMEOUT", "30s", "TIME", "for the start of a response, all tries together (504)"),
    setting(PROXY, "try_timeout", "LB_TRY_TIMEOUT", "off", "TIME|off", "for the start of a response, each try"),
    setting(PROXY, "retry_budget", "LB_RETRY_BUDGET", "20%", "SHARE|off", "retries as a share of the requests of the last 10 s"),
    setting(PROXY, "retry_budget_min", "LB_RETRY_BUDGET_MIN", "3", "N", "retries a second, on top of that share"),
    setting(PROXY, "retry_body", "LB_RETRY_BODY", "65536", "BYTES", "a request's body that is kept for a retry, at most"),
    setting(PROXY, "idle_timeout", "LB_IDLE_TIMEOUT", "60s", "TIME", "for the next piece of a body, either way"),
    setting(PROXY, "replica_keepalive", "LB_REPLICA_KEEPALIVE", "4s", "TIME", "for an unused connection to a replica to be kept"),
    setting(LIMITS, "max_headers", "LB_MAX_HEADERS", "100", "N", "fields of a request's header, at most 256 (431)"),
    setting(LIMITS, "max_header_bytes", "LB_MAX_HEADER_BYTES", "32768", "BYTES", "a request's whole header (431)"),
    setting(LIMITS, "max_target_bytes", "LB_MAX_TARGET_BYTES", "8192", "BYTES", "a request's target: its path and query (414)"),
    setting(LIMITS, "max_body", "LB_MAX_BODY", "off", "BYTES|off", "a request's body (413)"),
    setting(LIMITS, "max_connections", "LB_MAX_CONNECTIONS", "", "N", "client connections, others wait [default: half of the open files]"),
    setting(LIMITS, "max_client_connections", "LB_MAX_CLIENT_CONNECTIONS", "off", "N|off", "connections of one client address (429)"),
    setting(LIMITS, "max_in_flight", "LB_MAX_IN_FLIGHT", "off", "N|off", "requests under way (503)"),
    setting(LIMITS, "header_timeout", "LB_HEADER_TIMEOUT", "10s", "TIME", "from a request header's first byte to its last (408)"),
    setting(LIMITS, "client_timeout", "LB_CLIENT_TIMEOUT", "60s", "TIME", "for a client's next request on its connection"),
    setting(RELAYS, "control_dialect", "LB_CONTROL_DIALECT", "standard", "DIALECT", "which port is which in a registration: standard, lander"),
    setting(RELAYS, "control_token", "LB_CONTROL_TOKEN", "", "TEXT", "secret that a registration must bring along"),
    setting(RELAYS, "control_networks", "LB_CONTROL_NETWORKS", "", "LIST", "addresses and networks that may connect to the control channel [default: all]"),
    setting(RELAYS, "control_ports", "LB_CONTROL_PORTS", "1-65535", "LIST", "ports that may be opened for servers, such as 53,20000-29999"),
    setting(RELAYS, "control_connections", "LB_CONTROL_CONNECTIONS", "256", "N", "control connections"),
    setting(RELAYS, "control_registrations", "LB_CONTROL_REGISTRATIONS", "64", "N", "registrations of one control connection"),
    setting(RELAYS, "control_interval", "LB_CONTROL_INTERVAL", "5s", "TIME", "from one question whether a server lives to the next"),
    setting(RELAYS, "control_timeout", "LB_CONTROL_TIMEOUT", "10s", "TIME", "for a server to answer; then its connections are closed"),
    setting(RELAYS, "relay_address", "LB_RELAY_ADDRESS", "", "IP", "where ports are opened [default: that of listen]"),
    setting(RELAYS, "relay_policy", "LB_RELAY_POLICY", "round-robin", "POLICY", "how a replica is chosen, as with policy; the key is the client's address"),
    setting(RELAYS, "relay_connect_timeout", "LB_RELAY_CONNECT_TIMEOUT", "10s", "TIME", "for a connection to a replica; then another is tried"),
    setting(RELAYS, "relay_idle_timeout", "LB_RELAY_IDLE_TIMEOUT", "10min", "TIME", "for the next byte of a TCP connection, either way"),
    setting(RELAYS, "relay_flow_idle", "LB_RELAY_FLOW_IDLE", "60s", "TIME", "for the next datagram of a UDP flow, either way"),
    setting(RELAYS, "relay_max_connections", "LB_RELAY_MAX_CONNECTIONS", "", "N", "TCP connections, others wait [default: an eighth of the open files]"),
    setting(RELAYS, "relay_max_flows", "LB_RELAY_MAX_FLOWS", "", "N", "UDP flows, the oldest idle one makes room [default: a quarter of the open files]"),
    setting(RELAYS, "relay_proxy_protocol", "LB_RELAY_PROXY_PROTOCOL", "off", "off|v2", "TCP: tell replicas who the client is"),
    setting(LOGS, "log", "RUST_LOG", "info", "FILTER", "what is logged: error, warn, info, debug, trace, or a tracing filter"),
    setting(LOGS, "log_format", "LB_LOG_FORMAT", "text", "text|json", "how it is logged"),
];

/// The setting with this key.
pub(super) fn find(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

/// What a setting's value is made of, where a file can say that better than a text can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// One text; several are separated by commas.
    Text,
    /// A program and its arguments.
    Words,
    /// Names and values.
    Pairs,
}

impl Setting {
    pub(super) fn shape(&self) -> Shape {
        match self.key {
            "server_command" | "replica_command" => Shape::Words,
            "replica_env" => Shape::Pairs,
            _ => Shape::Text,
        }
    }

    /// Is its value to be kept out of sight?
    pub fn is_secret(&self) -> bool {
        matches!(self.key, "agent_token" | "control_token" | "replica_env" | "sticky_secret")
    }

    /// Its flag, without the dashes in front.
    pub fn flag(&self) -> String {
        self.key.replace('_', "-")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_regular() {
        for setting in SETTINGS {
            if setting.key != "log" {
                assert_eq!(setting.env, format!("LB_{}", setting.key.to_uppercase()));
            }
            assert_eq!(SETTINGS.iter().filter(|other| other.key == setting.key).count(), 1, "{}", setting.key);
        }
    }
}
