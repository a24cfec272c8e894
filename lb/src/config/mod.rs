//! Flags, environment and file become each module's own configuration. The only reader of the environment.
//!
//! Whatever is wrong stops the start, and everything that is wrong is said at once.

mod agent;
mod file;
mod layers;
mod profile;
mod relays;
mod runtime;
mod scaling;
mod settings;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

pub use agent::{AgentConfig, FollowConfig};
pub use layers::{Environment, Layers, Origin, Problem, Value};
pub use profile::{PROFILES, Profile};
pub use relays::L4Config;
pub use runtime::{DockerConfig, RuntimeConfig};
pub use settings::{SETTINGS, Setting};

use crate::http1::{HeadLimits, MAX_FIELDS};
use crate::pilot::PilotConfig;
use crate::placement::hash::{Probing, RingHash};
use crate::placement::maglev;
use crate::placement::ring::{MAX_SLOTS, RingConfig};
use crate::policy::{PolicyConfig, PolicyKind, Spill};
use crate::probe::HeartbeatConfig;
use crate::proxy::{HashKeys, NotFound, Percent, ProxyConfig, RetryBudget, StickyCookie, TrustedProxies};
use crate::supervisor::{Backoff, FleetConfig};

/// How often the runtime's list is compared.
const RELIST: Duration = Duration::from_secs(5);
/// Every duration lies between these.
const TIMES: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(24 * 3600);

/// The whole configuration, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Public listener.
    pub listen: SocketAddr,
    /// Admin listener.
    pub admin_listen: Option<SocketAddr>,
    /// Relayed TCP and UDP, if it is on.
    pub l4: Option<L4Config>,
    /// Threads of the data path.
    pub workers: usize,
    /// What starts replicas.
    pub runtime: RuntimeConfig,
    /// The fleet.
    pub fleet: FleetConfig,
    /// Its name.
    pub fleet_name: String,
    /// Where `lb agent` listens, and how.
    pub agent: AgentConfig,
    /// What is decided by the load.
    pub pilot: PilotConfig,
    /// Are replicas removed when the balancer stops?
    pub remove_on_exit: bool,
    /// How a replica is chosen.
    pub policy: PolicyConfig,
    /// What the cookies of sticky sessions are signed with, if something was said.
    pub sticky_secret: Option<String>,
    /// The data path.
    pub proxy: ProxyConfig,
    /// Client connections at one time; half of the open files if nothing is said.
    pub max_connections: Option<i64>,
    /// What is logged, and how.
    pub log: LogConfig,
}

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// A tracing filter.
    pub filter: String,
    /// JSON instead of text?
    pub json: bool,
}

/// Everything that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadConfig(pub Vec<Problem>);

impl std::error::Error for BadConfig {}
impl fmt::Display for BadConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.0.iter().enumerate() {
            write!(f, "{}{problem}", if at == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

/// The environment of this process, as far as it is text.
pub fn environment() -> Environment {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// The file to read: the flag's, or that of `LB_CONFIG`.
pub fn file(flag: Option<PathBuf>, environment: &Environment) -> Option<PathBuf> {
    flag.or_else(|| environment.get("LB_CONFIG").map(PathBuf::from))
}

fn number<T: FromStr + PartialOrd + fmt::Display>(range: RangeInclusive<T>) -> impl FnOnce(&str) -> Result<T, String> {
    move |text| {
        let parsed = text.parse().ok().filter(|number| range.contains(number));
        parsed.ok_or_else(|| format!("a whole number from {} to {}", range.start(), range.end()))
    }
}

fn time(text: &str) -> Result<Duration, String> {
    let parsed = humantime::parse_duration(text).ok().filter(|time| TIMES.contains(time));
    parsed.ok_or_else(|| "a time from 1ms to 24h with its unit, such as 500ms, 10s or 2min".into())
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "an IP address and a port, such as 0.0.0.0:5000 or [::]:5000".into())
}

fn or_off<T>(parse: impl FnOnce(&str) -> Result<T, String>) -> impl FnOnce(&str) -> Result<Option<T>, String> {
    move |text| match text {
        "off" => Ok(None),
        text => parse(text).map(Some).map_err(|allowed| format!("{allowed}, or off")),
    }
}

fn secret(text: &str) -> Result<String, String> {
    const SHORTEST: usize = 16;
    let is_long = text.chars().count() >= SHORTEST;
    if is_long { Ok(text.to_owned()) } else { Err(format!("a text of {SHORTEST} characters or more")) }
}

impl Config {
    /// What `lb serve` needs besides a good configuration.
    pub fn check_files(&self) -> Result<(), BadConfig> {
        match &self.runtime {
            RuntimeConfig::Process { sample } if self.fleet.template.command.is_empty() && !sample.is_file() => {
                let server = sample;
                let folder = server.parent().unwrap_or(server).display();
                let problem =
                    format!("there is no 'server' beside lb, in {folder}; say what to run with --server-command");
                Err(BadConfig(vec![Problem(problem)]))
            }
            _ => Ok(()),
        }
    }

    /// The configuration that `layers` describe. `program` is this program, beside which the sample server lies.
    pub fn new(mut layers: Layers, program: Option<&Path>) -> Result<Self, BadConfig> {
        let config = Self::read(&mut layers, program);
        match config {
            Some(config) if layers.problems.is_empty() => Ok(config),
            _ => Err(BadConfig(layers.problems)),
        }
    }

    fn read(l: &mut Layers, program: Option<&Path>) -> Option<Self> {
        // Every setting is looked at before the first `?`, so that all problems are found.
        let listen = l.parse("listen", address);
        let admin_listen = l.parse("admin_listen", or_off(address));
        let control_listen = l.parse("control_listen", or_off(address));
        let workers = l.parse("workers", number(0..=1024));
        let policy = policy(l);
        let sticky_secret = l.parse("sticky_secret", secret);
        let heartbeat = heartbeat(l);
        let proxy = proxy(l);
        let max_connections = l.parse("max_connections", number(1..=i64::MAX));
        let l4 = relays::read(l, listen, policy);
        let log = log(l);
        let replicas = l.parse("replicas", number(0..=MAX_SLOTS as usize));
        let max_replicas = l.parse("max_replicas", number(0..=MAX_SLOTS as usize));
        let drain_timeout = l.parse("drain_timeout", time);
        let stop_grace = l.parse("stop_grace", time);
        let start_timeout = l.parse("start_timeout", time);
        let slow_start = l.parse("slow_start", |text| match text {
            "0" | "0s" => Ok(Duration::ZERO),
            text => time(text).map_err(|allowed| format!("0s, or {allowed}")),
        });
        let runtime = runtime::read(l, program);
        let template = runtime::template(l, runtime.as_ref());
        let remove_on_exit = runtime::remove_on_exit(l, runtime.as_ref());
        let agent = agent::read(l);
        let pilot = scaling::read(l, runtime.as_ref(), policy.map(|policy| policy.kind));
        let min_replicas = l.parse("min_replicas", number(0..=MAX_SLOTS as usize));
        let spares = l.parse("spares", number(0..=1000));
        let max_surge = l.parse("max_surge", number(1..=1000));
        let settle = l.parse("settle", time);
        let (policy, runtime, replicas, mut pilot) = (policy?, runtime?, replicas?, pilot);
        let (min_replicas, max_replicas) = scaling::bounds(l, min_replicas, max_replicas, pilot.as_mut());
        let fleet = FleetConfig {
            replicas,
            min_replicas,
            max_replicas,
            spares: spares?,
            template: template?,
            max_surge: max_surge?,
            settle: settle?,
            places: policy.capacity(),
            ring: policy.ring,
            shares: match &runtime {
                RuntimeConfig::Static(members) => {
                    members.iter().map(|(name, _, share)| (name.clone(), *share)).collect()
                }
                _ => BTreeMap::new(),
            },
            heals: matches!(runtime, RuntimeConfig::Process { .. } | RuntimeConfig::Docker(_)),
            heartbeat: heartbeat?,
            drain_timeout: drain_timeout?,
            stop_grace: stop_grace?,
            slow_start: slow_start?,
            start_timeout: start_timeout?,
            relist: RELIST,
            backoff: Backoff::default(),
        };
        if !fleet.slow_start.is_zero() && !policy.kind.is_hashing() {
            l.refuse("slow_start", &format!("it raises a newcomer's bound, and the policy {} has none", policy.kind));
        } else if !fleet.slow_start.is_zero() && policy.bound.is_none() {
            l.refuse("slow_start", "it raises a newcomer's bound, so it needs bounded loads: bound is off");
        }
        let fits = policy.capacity();
        let (key, wanted) = match &runtime {
            RuntimeConfig::Static(members) => ("members", members.len()),
            _ => ("replicas", replicas),
        };
        if wanted > fits {
            let RingConfig { slots, vnodes, .. } = policy.ring;
            let why = if fits < policy.ring.capacity() {
                format!("the policy {} has places for {fits} at most (table_slots)", policy.kind)
            } else {
                format!("the ring holds {fits} at most ({slots} slots / {vnodes} virtual nodes)")
            };
            l.refuse(key, &why);
        } else if let Some(max) = max_replicas.filter(|max| wanted > *max) {
            l.refuse(key, &format!("max_replicas is {max}"));
        } else if wanted < fleet.min_replicas && fleet.heals {
            l.refuse(key, &format!("min_replicas is {}", fleet.min_replicas));
        }
        let l4 = match (control_listen?, l4) {
            (None, _) => None,
            (Some(listen), l4) => Some(l4?.with(listen, fleet.drain_timeout)),
        };
        Some(Self {
            listen: listen?,
            admin_listen: admin_listen?,
            l4,
            workers: match workers? {
                0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
                workers => workers,
            },
            runtime,
            fleet,
            fleet_name: l.get("fleet").map(|(name, _)| name.to_owned()).unwrap_or_default(),
            agent: agent?,
            pilot: pilot?,
            remove_on_exit: remove_on_exit?,
            policy,
            sticky_secret,
            proxy: proxy?,
            max_connections,
            log: log?,
        })
    }
}

fn policy(l: &mut Layers) -> Option<PolicyConfig> {
    let kind = l.parse("policy", str::parse::<PolicyKind>);
    let slots = l.parse("slots", number(1..=MAX_SLOTS));
    let vnodes = l.parse("vnodes", number(1..=slots.unwrap_or(MAX_SLOTS)));
    let hash = l.parse("hash", str::parse::<RingHash>);
    let probing = l.parse("probing", str::parse::<Probing>);
    let factor = |text: &str| {
        let factor = text.parse::<f64>().ok().filter(|factor| *factor > 1.0 && *factor <= 1000.0);
        factor.ok_or_else(|| "a factor above 1, to 1000".into())
    };
    let bound = l.parse("bound", or_off(factor));
    let table_slots = l.parse("table_slots", number(maglev::MIN_SLOTS..=maglev::MAX_SLOTS));
    let spill_share = l.parse("spill_share", |text| {
        let share = str::parse::<Percent>(text).ok().filter(|Percent(share)| *share > 0.0 && *share <= 1.0);
        share.ok_or_else(|| "a share above 0% and up to 100%, such as 50%".to_owned())
    });
    let spill_in_flight = l.parse("spill_in_flight", or_off(number(1..=u32::MAX)));
    let decay = l.parse("ewma_decay", time);
    // These settings are those of both.
    let relayed = l.get("relay_policy").and_then(|(word, _)| word.parse::<PolicyKind>().ok());
    if let Some(slots) = table_slots
        && [kind, relayed].contains(&Some(PolicyKind::Maglev))
        && !maglev::is_prime(slots)
    {
        l.refuse("table_slots", "maglev needs a prime number of slots, such as 65537 or 1000003");
    }
    for (key, owner) in [
        ("spill_share", PolicyKind::Priority),
        ("spill_in_flight", PolicyKind::Priority),
        ("ewma_decay", PolicyKind::PeakEwma),
    ] {
        if kind.is_some_and(|kind| kind != owner) && relayed != Some(owner) && l.is_given(key) {
            l.refuse(key, &format!("it belongs to the policy {owner}, and policy is {}", kind.unwrap_or(owner)));
        }
    }
    Some(PolicyConfig {
        kind: kind?,
        ring: RingConfig { slots: slots?, vnodes: vnodes?, hash: hash?, probing: probing? },
        table_slots: table_slots?,
        bound: bound?,
        spill: Spill { share: spill_share?.0, in_flight: spill_in_flight? },
        decay: decay?,
    })
}

fn heartbeat(l: &mut Layers) -> Option<HeartbeatConfig> {
    let interval = l.parse("heartbeat_interval", time);
    let timeout = l.parse("heartbeat_timeout", time);
    let falls = l.parse("heartbeat_falls", number(1..=1000));
    let rises = l.parse("heartbeat_rises", number(1..=1000));
    let path = l.parse("heartbeat_path", |text| {
        let valid = text.starts_with('/') && text.parse::<http::uri::PathAndQuery>().is_ok();
        if valid { Ok(text.to_owned()) } else { Err("a path that begins with '/'".into()) }
    });
    Some(HeartbeatConfig { interval: interval?, timeout: timeout?, falls: falls?, rises: rises?, path: path? })
}

fn proxy(l: &mut Layers) -> Option<ProxyConfig> {
    let hash_keys = l.parse("hash_key", str::parse::<HashKeys>);
    let sticky = l.parse("sticky", or_off(str::parse::<StickyCookie>));
    let not_found = l.parse("not_found", str::parse::<NotFound>);
    let fields = l.parse("max_headers", number(1..=MAX_FIELDS));
    let bytes = l.parse("max_header_bytes", number(64..=1024 * 1024));
    let target = l.parse("max_target_bytes", number(16..=1024 * 1024));
    let max_body = l.parse("max_body", or_off(number(1..=u64::MAX)));
    let max_in_flight = l.parse("max_in_flight", or_off(number(1..=u32::MAX)));
    let max_client_connections = l.parse("max_client_connections", or_off(number(1..=u32::MAX)));
    let header_timeout = l.parse("header_timeout", time);
    let client_timeout = l.parse("client_timeout", time);
    let connect_timeout = l.parse("connect_timeout", time);
    let response_timeout = l.parse("response_timeout", time);
    let try_timeout = l.parse("try_timeout", or_off(time));
    let idle_timeout = l.parse("idle_timeout", time);
    let tries = l.parse("tries", number(1..=100));
    let share = l.parse("retry_budget", or_off(str::parse::<Percent>));
    let per_second = l.parse("retry_budget_min", number(0..=1_000_000));
    let retry_body = l.parse("retry_body", number(0..=64 * 1024 * 1024));
    let trusted_proxies = l.parse("trusted_proxies", str::parse::<TrustedProxies>);
    let keepalive = l.parse("replica_keepalive", time);
    Some(ProxyConfig {
        hash_keys: hash_keys?,
        sticky: sticky?,
        not_found: not_found?,
        head: HeadLimits { fields: fields?, bytes: bytes?, target: target? },
        max_body: max_body?,
        max_in_flight: max_in_flight?,
        max_client_connections: max_client_connections?,
        header_timeout: header_timeout?,
        client_timeout: client_timeout?,
        connect_timeout: connect_timeout?,
        response_timeout: response_timeout?,
        try_timeout: try_timeout?,
        idle_timeout: idle_timeout?,
        tries: tries?,
        retry_budget: RetryBudget { share: share?.map(|Percent(share)| share), per_second: per_second? },
        retry_body: retry_body?,
        trusted_proxies: trusted_proxies.unwrap_or_default(),
        keepalive: keepalive?,
    })
}

fn log(l: &mut Layers) -> Option<LogConfig> {
    let filter = l.parse("log", |text| {
        const ALLOWED: &str = "off, error, warn, info, debug, trace, or a tracing filter such as lb=debug";
        // A bare word that is no level would be taken for a module's name, and silence all others.
        let is_level = |word: &str| word.parse::<tracing_subscriber::filter::LevelFilter>().is_ok();
        if let Some(word) = text.split(',').find(|word| !word.contains(['=', ':']) && !is_level(word.trim())) {
            return Err(format!("{ALLOWED} ('{}' is no level)", word.trim()));
        }
        match tracing_subscriber::EnvFilter::try_new(text) {
            Ok(_) => Ok(text.to_owned()),
            Err(error) => Err(format!("{ALLOWED} ({error})")),
        }
    });
    let json = l.parse("log_format", |text| match text {
        "text" => Ok(false),
        "json" => Ok(true),
        _ => Err("text, json".into()),
    });
    Some(LogConfig { filter: filter?, json: json? })
}
