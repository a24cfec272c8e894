//! `lb ring`: what the ring would look like, without starting anything.

use std::collections::BTreeMap;
use std::process::ExitCode;

use comfy_table::{CellAlignment, Table, presets};

use lb::admin::ring::RingView;
use lb::config::Config;
use lb::placement::Place;
use lb::placement::ring::RingConfig;
use lb::policy::{self, Layout, PolicyConfig, PolicyKind};

/// More slots than these are counted, not named.
const NAMED: usize = 40;

/// Prints what replicas 1 to N would own: as a table for people, as JSON like `/api/v1/ring`.
pub(super) fn show(config: &Config, json: bool) -> ExitCode {
    let replicas = config.fleet.replicas as u32;
    let policy = match config.policy.kind {
        kind if kind.is_hashing() => config.policy,
        _ => PolicyConfig { kind: PolicyKind::Consistent, ..config.policy },
    };
    let fits = policy.capacity();
    if replicas as usize > fits {
        return super::failure(&format_args!(
            "replicas is {replicas}; the policy {} has places for {fits}",
            policy.kind
        ));
    }
    let places = Place::first(replicas);
    let Some(layout) = policy::layout(&policy, &places) else {
        return super::failure(&format_args!("the policy {} has no ring", policy.kind));
    };
    let names: BTreeMap<u32, String> = (1..=replicas).map(|id| (id, format!("S{id}"))).collect();
    let view = RingView::new(&layout, &places, &names, fits);
    if json {
        return match serde_json::to_string(&view) {
            Ok(text) => super::print(&text),
            Err(error) => super::failure(&error),
        };
    }
    let bound = if config.policy.bound.is_some() { " (without bounded loads, which even this out)" } else { "" };
    let max_mean = if replicas > 0 { format!("max/mean {:.2}{bound}\n", view.max_mean) } else { String::new() };
    let add = match view.moves.add {
        Some(moved) => format!("one more replica would move {:.2} % of the keys", moved * 100.0),
        None => "there is no room for one more replica".into(),
    };
    let table = table(&layout, &names, &view);
    super::print(&format_args!(
        "{}\n\n{}\n\n{max_mean}{add}",
        heading(&policy, config.policy.kind, &view),
        table.trim_fmt()
    ))
}

fn heading(policy: &PolicyConfig, configured: PolicyKind, view: &RingView) -> String {
    let remark = if configured.is_hashing() {
        String::new()
    } else {
        format!("the policy {configured} has no ring; this is what consistent would do\n")
    };
    let RingConfig { slots, vnodes, hash, probing } = policy.ring;
    let reached = view.reachable_slots;
    match policy.kind {
        PolicyKind::Consistent => format!(
            "{remark}{slots} slots, {vnodes} virtual nodes per replica, hash {hash}, {probing} probing; \
             request IDs reach {reached} slots"
        ),
        kind => format!("{kind}, {} slots; request IDs reach {reached} slots", view.slots),
    }
}

fn table(layout: &Layout, names: &BTreeMap<u32, String>, view: &RingView) -> Table {
    let mut held: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    match layout {
        Layout::Ring(ring) => ring.occupied().for_each(|(slot, id)| held.entry(id).or_default().push(slot)),
        _ => {
            let ownership = layout.ownership();
            (0..).zip(ownership.by_slot()).for_each(|(slot, id)| held.entry(*id).or_default().push(slot));
        }
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(["RING", "HOSTNAME", "SHARE", "MOVES IF REMOVED", "SLOTS"]);
    for (id, name) in names {
        let slots = held.get(id).map(Vec::as_slice).unwrap_or_default();
        let slots = match slots.len() {
            count if count > NAMED => format!("{count} slots"),
            _ => slots.iter().map(u32::to_string).collect::<Vec<_>>().join(" "),
        };
        let percent =
            |parts: &BTreeMap<String, f64>| format!("{:.2} %", parts.get(name).copied().unwrap_or_default() * 100.0);
        table.add_row([id.to_string(), name.clone(), percent(&view.shares), percent(&view.moves.remove), slots]);
    }
    for right in [0, 2, 3] {
        if let Some(column) = table.column_mut(right) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    // The terminal's width is not asked for: lines of slots are only broken where they are very long.
    table.set_content_arrangement(comfy_table::ContentArrangement::Dynamic).set_width(120);
    table
}
