//! The compose files pass each setting on to the service that it belongs to.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::collections::BTreeMap;

use lb::config::{SETTINGS, Setting};

/// What a service's environment says of a variable: its value, or none if it is passed on.
type Variables = BTreeMap<String, Option<String>>;

/// The variables of each service. Knows only as much YAML as the files have.
fn variables(file: &str) -> BTreeMap<String, Variables> {
    let path = format!("{}/../{file}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    let mut services: BTreeMap<String, Variables> = BTreeMap::new();
    let (mut section, mut service, mut key) = ("", "", "");
    for line in text.lines().filter(|line| !line.trim().is_empty() && !line.trim().starts_with('#')) {
        let word = line.trim().split(':').next().unwrap();
        match line.len() - line.trim_start().len() {
            0 => section = word,
            2 => service = word,
            4 => key = word,
            6 if section == "services" && key == "environment" => {
                let item = line.trim().trim_start_matches("- ").trim_matches('"');
                let (name, value) = item.split_once('=').map_or((item, None), |(name, value)| (name, Some(value)));
                let known = services.entry(service.into()).or_default();
                let twice = known.insert(name.into(), value.map(Into::into));
                assert!(twice.is_none(), "{file}: {service} has {name} twice");
                assert!(SETTINGS.iter().any(|setting| setting.env == name), "{file}: {name} is no setting");
            }
            _ => {}
        }
    }
    services
}

/// The services that a setting is of use to: agent, balancer.
fn wanted(setting: &Setting) -> (bool, bool) {
    match (setting.group, setting.key) {
        // What concerns other runtimes, where things are inside the container, or files that are not in there.
        (_, "listen" | "docker_host" | "server_command" | "members" | "agent_ca" | "agent_cert" | "agent_key") => {
            (false, false)
        }
        (_, "runtime" | "fleet" | "drain_timeout" | "agent_token" | "admin_listen") => (true, true),
        (_, "agent" | "sticky" | "sticky_secret" | "slow_start") => (false, true),
        ("Profile" | "Placement" | "Heartbeats" | "Logs", _) => (true, true),
        ("Fleet" | "Runtimes" | "Agent" | "Scaling", _) => (true, false),
        _ => (false, true),
    }
}

#[test]
fn each_setting_is_passed_on_to_the_service_that_it_belongs_to() {
    let services = variables("docker-compose.yml");
    for setting in SETTINGS {
        let has = |service: &str| services[service].contains_key(setting.env);
        assert_eq!((has("agent"), has("lb")), wanted(setting), "{} (agent, lb)", setting.env);
    }
}

#[test]
fn the_one_container_of_the_slim_environment_gets_what_is_the_agents_otherwise() {
    let (base, slim) = (variables("docker-compose.yml"), variables("docker-compose.slim.yml"));
    assert!(!slim.contains_key("agent"));
    for setting in SETTINGS.iter().filter(|setting| wanted(setting).0 && setting.key != "agent_listen") {
        let there = slim["lb"].get(setting.env).or_else(|| base["lb"].get(setting.env));
        assert!(there.is_some(), "{}", setting.env);
        let is_passed_on = base["agent"][setting.env].is_none();
        assert!(!is_passed_on || there.unwrap().is_none(), "{} is not passed on", setting.env);
    }
}

#[test]
fn each_environment_has_its_profile() {
    for (file, profile) in [
        ("docker-compose.yml", "production"),
        ("docker-compose.dev.yml", "development"),
        ("docker-compose.slim.yml", "slim"),
    ] {
        for variables in variables(file).values() {
            assert_eq!(variables["LB_PROFILE"], Some(format!("${{LB_PROFILE:-{profile}}}")), "{file}");
        }
    }
}
