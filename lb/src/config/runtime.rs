//! Settings of what starts replicas.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::agent::{self, FollowConfig};
use super::{Layers, Value, number};
use crate::replica::{Hostname, Share};
use crate::runtime::Template;

/// Which runtime, with its own settings.
#[derive(Debug, Clone)]
pub enum RuntimeConfig {
    /// Child processes; without a command they run the sample server.
    Process {
        /// Where that is.
        sample: PathBuf,
    },
    /// Containers.
    Docker(DockerConfig),
    /// Members that somebody else runs: name, host and port.
    Static(Vec<(Hostname, String, Share)>),
    /// Members that an agent elsewhere runs.
    Agent(FollowConfig),
}

/// Settings of the docker runtime.
#[derive(Debug, Clone)]
pub struct DockerConfig {
    /// Where the engine listens.
    pub host: String,
    /// Value of the label that tells this fleet's containers from others'.
    pub fleet: String,
    /// Network of the replicas.
    pub network: String,
    /// Where a replica listens.
    pub port: u16,
}

fn member_list(text: &str) -> Result<Vec<(Hostname, String, Share)>, String> {
    const ALLOWED: &str = "host:port or name=host:port, separated by commas, each name once; \
                           ;weight=N and ;priority=N (0 to 65535) may follow";
    let wrong = |what: &str| format!("{ALLOWED}; '{what}' is not");
    let mut members: Vec<(Hostname, String, Share)> = Vec::new();
    for (number, item) in (1..).zip(text.split(',').map(str::trim)) {
        let generated = format!("S{number}");
        let mut parts = item.split(';').map(str::trim);
        let place = parts.next().unwrap_or_default();
        let (name, addr) = place.split_once('=').unwrap_or((&generated, place));
        let name = Hostname::new(name).ok_or_else(|| wrong(item))?;
        let (host, port) = addr.rsplit_once(':').ok_or_else(|| wrong(item))?;
        if host.is_empty() || port.parse::<u16>().is_err() || members.iter().any(|(other, ..)| *other == name) {
            return Err(wrong(item));
        }
        let mut share = Share::default();
        for part in parts {
            match part.split_once('=').map(|(key, value)| (key.trim(), value.trim().parse())) {
                Some(("weight", Ok(weight))) => share.weight = weight,
                Some(("priority", Ok(priority))) => share.priority = priority,
                _ => return Err(wrong(item)),
            }
        }
        members.push((name, addr.to_owned(), share));
    }
    Ok(members)
}

pub(super) fn read(l: &mut Layers, program: Option<&Path>) -> Option<RuntimeConfig> {
    let kind = l.parse("runtime", |text| match text {
        "docker" | "process" | "static" | "agent" => Ok(text.to_owned()),
        _ => Err("docker, process, static, agent".into()),
    });
    // A list of members is checked even where it is not used.
    let members = l.parse("members", member_list);
    let label = |text: &str| {
        let valid = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
        if valid { Ok(text.to_owned()) } else { Err("letters, digits, '_', '.' and '-'".into()) }
    };
    let any = |text: &str| if text.is_empty() { Err("a name".to_owned()) } else { Ok(text.to_owned()) };
    let fleet = l.parse("fleet", label);
    let network = l.parse("network", any);
    let port = l.parse("replica_port", number(1..=u16::MAX));
    let host = l.parse("docker_host", |text| {
        if text.starts_with("unix://") || text.starts_with("tcp://") || text.starts_with("http://") {
            Ok(text.to_owned())
        } else {
            Err("unix:///path/to/socket, or tcp://host:port".into())
        }
    });
    match kind?.as_str() {
        "docker" => {
            Some(RuntimeConfig::Docker(DockerConfig { host: host?, fleet: fleet?, network: network?, port: port? }))
        }
        "static" => {
            if members.is_none() && l.get("members").is_none() {
                l.refuse("runtime", "it needs a list of members: --members host:port,host:port");
            }
            members.map(RuntimeConfig::Static)
        }
        "agent" => agent::follow(l).map(RuntimeConfig::Agent),
        _ => {
            let folder = program.and_then(Path::parent).unwrap_or(Path::new("."));
            Some(RuntimeConfig::Process { sample: folder.join("server") })
        }
    }
}

/// What replicas are started from.
pub(super) fn template(l: &mut Layers, runtime: Option<&RuntimeConfig>) -> Option<Template> {
    let words = |text: &str| match shlex::split(text) {
        Some(words) if !words.is_empty() => Ok(words),
        _ => Err("a program and its arguments, quoted as in a shell".to_owned()),
    };
    let own = l.parse("server_command", words);
    let of_container = l.parse("replica_command", words);
    let image = l.parse("image", |text| if text.is_empty() { Err("a name".to_owned()) } else { Ok(text.to_owned()) });
    let env = l.parse_value("replica_env", environment);
    let nano_cpus = l.parse("replica_cpus", or_off_cpus);
    let memory = l.parse("replica_memory", or_off_memory);
    let is_docker = matches!(runtime, Some(RuntimeConfig::Docker(_)) | None);
    // With an agent these are that one's, and may stand in a file for both.
    if !is_docker && !matches!(runtime, Some(RuntimeConfig::Agent(_))) {
        for key in ["replica_command", "replica_cpus", "replica_memory"] {
            if l.is_given(key) && l.get(key).is_some_and(|(value, _)| value != "off") {
                l.refuse(key, "it belongs to the runtime docker");
            }
        }
    }
    Some(Template {
        image: if is_docker { image? } else { String::new() },
        command: if is_docker { of_container } else { own }.unwrap_or_default(),
        env: env.unwrap_or_default(),
        nano_cpus: nano_cpus?,
        memory: memory?,
    })
}

fn environment(value: &Value) -> Result<BTreeMap<String, String>, String> {
    let pair = |item: &str| item.trim().split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    let pairs = value.pairs.clone().or_else(|| value.text.split(',').map(pair).collect());
    let is_sound =
        |(name, value): (&String, &String)| !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0');
    let pairs = pairs.filter(|pairs| pairs.iter().all(is_sound));
    let pairs = pairs.ok_or_else(|| "NAME=value,NAME=value; in a file also { NAME = \"value\" }".to_owned())?;
    match pairs.keys().find(|name| ["SERVER_ID", "PORT"].contains(&name.as_str())) {
        Some(own) => Err(format!("names other than {own}, which the balancer sets itself")),
        None => Ok(pairs),
    }
}

fn or_off_cpus(text: &str) -> Result<Option<i64>, String> {
    if text == "off" {
        return Ok(None);
    }
    let cpus = text.parse::<f64>().ok().filter(|cpus| (0.01..=1024.0).contains(cpus));
    let cpus = cpus.ok_or_else(|| "a number of cores from 0.01 to 1024, such as 0.5, or off".to_owned())?;
    Ok(Some((cpus * 1e9).round() as i64))
}

fn or_off_memory(text: &str) -> Result<Option<i64>, String> {
    const LEAST: i64 = 6 * 1024 * 1024;
    if text == "off" {
        return Ok(None);
    }
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => Some(1),
        "k" | "kb" => Some(1024),
        "m" | "mb" => Some(1024 * 1024),
        "g" | "gb" => Some(1024 * 1024 * 1024_i64),
        _ => None,
    };
    let bytes = digits.parse::<i64>().ok().zip(unit).and_then(|(number, unit)| number.checked_mul(unit));
    let bytes = bytes.filter(|bytes| *bytes >= LEAST);
    bytes.map(Some).ok_or_else(|| "a size of 6m or more, such as 256m or 1g, or off".into())
}

pub(super) fn remove_on_exit(l: &mut Layers, runtime: Option<&RuntimeConfig>) -> Option<bool> {
    let said = l.parse("on_exit", |text| match text {
        "remove" => Ok(true),
        "keep" => Ok(false),
        _ => Err("remove, keep".into()),
    });
    match runtime? {
        RuntimeConfig::Process { .. } => {
            if said == Some(false) {
                l.refuse("on_exit", "child processes end with the balancer, so the process runtime allows remove only");
            }
            Some(true)
        }
        RuntimeConfig::Docker(_) => Some(said.unwrap_or(false)),
        RuntimeConfig::Static(_) | RuntimeConfig::Agent(_) => Some(false),
    }
}
