//! `lb relays`: asks a running balancer on this host which ports it relays.

use std::process::ExitCode;

use comfy_table::{CellAlignment, Table, presets};

use lb::admin::relays::{RelayItem, RelayReplica};
use lb::config::Config;

use super::ask::ask;

/// Prints all ports and their replicas: as a table for people, as JSON like `/api/v1/relays`.
pub(super) fn show(config: &Config, json: bool) -> ExitCode {
    let answer = match ask(config, "GET", "/api/v1/relays", "") {
        Ok(answer) => answer,
        Err(error) => return super::failure(&error),
    };
    if json {
        return super::print(&answer);
    }
    let relays: Vec<RelayItem> = match serde_json::from_str(&answer) {
        Ok(relays) => relays,
        Err(error) => return super::failure(&format_args!("the balancer answers something else than relays: {error}")),
    };
    if relays.is_empty() {
        super::print(&"No port is relayed: no server is registered (control channel: --control-listen).")
    } else {
        super::print(&table(&relays).trim_fmt())
    }
}

const HEADER: [&str; 9] = ["RELAY", "STATE", "REPLICA", "RING", "STATE", "WEIGHT", "IN FLIGHT", "SERVED", "FAILED"];
/// Columns with numbers.
const NUMBERS: [usize; 5] = [3, 5, 6, 7, 8];

fn table(relays: &[RelayItem]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(HEADER);
    for relay in relays {
        let affinity = relay.affinity.as_deref().map(|affinity| format!(", by {affinity}")).unwrap_or_default();
        for (at, replica) in relay.replicas.iter().enumerate() {
            // The port's own columns stand once.
            let (name, state) = match at {
                0 => (format!("{}/{}", relay.protocol, relay.relay_port), format!("{}{affinity}", relay.state)),
                _ => (String::new(), String::new()),
            };
            let RelayReplica { id, addr, state: its, weight, priority, in_flight, served, failed, .. } = replica;
            let weight = if *priority == 0 { weight.to_string() } else { format!("{weight} (priority {priority})") };
            let numbers = [in_flight.to_string(), served.to_string(), failed.to_string()];
            let row = [name, state, addr.clone(), id.to_string(), its.clone(), weight];
            table.add_row(row.into_iter().chain(numbers));
        }
    }
    for column in NUMBERS {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ports_name_stands_once() {
        let replica = |id: u32| RelayReplica {
            id,
            addr: format!("10.0.0.{id}:53"),
            state: "ready".into(),
            reason: None,
            in_flight: 0,
            served: 5,
            failed: 0,
            weight: 1,
            priority: 0,
            registered_at: String::new(),
            generation: 1,
        };
        let relay = RelayItem {
            protocol: "udp".into(),
            relay_port: 53,
            addr: "0.0.0.0:53".into(),
            state: "open".into(),
            affinity: Some("flow".into()),
            connections: 0,
            flows: 0,
            accepted: 0,
            unserved: 0,
            bytes_up: 0,
            bytes_down: 0,
            datagrams_up: 0,
            datagrams_down: 0,
            dropped: 0,
            evicted: 0,
            replicas: vec![replica(1), replica(2)],
        };
        let lines: Vec<String> = table(&[relay]).lines().collect();
        assert!(lines[1].trim_start().starts_with("udp/53  open, by flow  10.0.0.1:53"), "{}", lines[1]);
        assert!(lines[2].trim_start().starts_with("10.0.0.2:53"), "{}", lines[2]);
    }
}
