//! `lb set`: changes a replica's weight and priority at a running balancer on this host.

use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command, value_parser};
use serde_json::{Map, Value};

use lb::config::Config;

use super::ask::{ask, encoded};

/// The subcommand's own arguments.
pub(super) fn command() -> Command {
    let number = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name("N").value_parser(value_parser!(u16)).help(help)
    };
    Command::new("set")
        .about("Change a replica's weight or priority at a running balancer on this host")
        .arg(Arg::new("hostname").required(true).help("the replica's host name"))
        .arg(number("weight", "twice the weight, twice the requests (on the ring: virtual nodes); 0 for no new ones"))
        .arg(number("priority", "the highest that has ready replicas goes first"))
}

/// Has it changed, and prints what it is now.
pub(super) fn run(config: &Config, matches: &ArgMatches) -> ExitCode {
    let hostname = matches.get_one::<String>("hostname").map(String::as_str).unwrap_or_default();
    let given = |name: &str| Some((name.to_owned(), Value::from(*matches.get_one::<u16>(name)?)));
    let changes: Map<String, Value> = ["weight", "priority"].into_iter().filter_map(given).collect();
    if changes.is_empty() {
        return super::failure(&"nothing is to be changed: give --weight, --priority or both, each from 0 to 65535");
    }
    // A path takes what a query takes, but for the blank.
    let path = format!("/api/v1/replicas/{}", encoded(hostname).replace('+', "%20"));
    let answer = match ask(config, "PATCH", &path, &Value::Object(changes).to_string()) {
        Ok(answer) => answer,
        Err(error) => return super::failure(&error),
    };
    let item: Value = serde_json::from_str(&answer).unwrap_or_default();
    super::print(&format_args!(
        "{} (ring {}): weight {}, priority {}, {}, {} in flight",
        item["hostname"].as_str().unwrap_or(hostname),
        item["id"],
        item["weight"],
        item["priority"],
        item["state"].as_str().unwrap_or_default(),
        item["in_flight"]
    ))
}
