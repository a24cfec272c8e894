//! `lb ring`: what the ring would look like, without starting anything.

use std::collections::BTreeMap;
use std::process::ExitCode;

use comfy_table::{CellAlignment, Table, presets};

use lb::admin::api::RingView;
use lb::config::Config;
use lb::ring::{Ring, RingConfig};

/// Prints the ring of replicas 1 to N: as a table for people, as JSON like `/api/v1/ring`.
#[allow(clippy::print_stdout)]
pub(super) fn show(config: &Config, json: bool) -> ExitCode {
    let replicas = config.fleet.replicas as u32;
    let ring = match Ring::with_replicas(config.policy.ring, replicas) {
        Ok(ring) => ring,
        Err(error) => return super::failure(&error),
    };
    let names: BTreeMap<u32, String> = (1..=replicas).map(|id| (id, format!("S{id}"))).collect();
    let view = RingView::new(&ring, &names);
    if json {
        return match serde_json::to_string(&view) {
            Ok(text) => {
                println!("{text}");
                ExitCode::SUCCESS
            }
            Err(error) => super::failure(&error),
        };
    }
    let RingConfig { slots, vnodes, hash, probing } = config.policy.ring;
    println!(
        "{slots} slots, {vnodes} virtual nodes per replica, hash {hash}, {probing} probing; \
         request IDs reach {} slots\n",
        ring.reachable_slots()
    );
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(["RING", "HOSTNAME", "SHARE", "SLOTS"]);
    for (id, name) in &names {
        let held: Vec<String> =
            view.occupied.iter().filter(|(_, holder)| holder == id).map(|(slot, _)| slot.to_string()).collect();
        let share = view.shares.get(name).copied().unwrap_or_default();
        table.add_row([id.to_string(), name.clone(), format!("{:.2} %", share * 100.0), held.join(" ")]);
    }
    for right in [0, 2] {
        if let Some(column) = table.column_mut(right) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    // The terminal's width is not asked for: lines of slots are only broken where they are very long.
    table.set_content_arrangement(comfy_table::ContentArrangement::Dynamic).set_width(120);
    println!("{table}");
    let largest = view.shares.values().copied().fold(0.0, f64::max);
    if replicas > 0 {
        println!("\nmax/mean {:.2} (bare ring; bounded loads even this out)", largest * f64::from(replicas));
    }
    ExitCode::SUCCESS
}
