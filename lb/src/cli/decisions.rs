//! `lb decisions`: what was decided by the load, and why.

use std::process::ExitCode;

use comfy_table::{Table, presets};

use lb::config::Config;
use lb::pilot::{Entry, Kind};

use super::ask::ask;

/// Prints those that are kept: as a table for people, as JSON like `/api/v1/decisions`.
pub(super) fn show(config: &Config, json: bool) -> ExitCode {
    let answer = match ask(config, "GET", "/api/v1/decisions", "") {
        Ok(answer) => answer,
        Err(error) => return super::failure(&error),
    };
    if json {
        return super::print(&answer);
    }
    match serde_json::from_str::<Vec<Entry>>(&answer) {
        Ok(entries) if entries.is_empty() => {
            super::print(&"Nothing was decided yet (--autoscale, --outliers, --weights).")
        }
        Ok(entries) => super::print(&table(&entries).trim_fmt()),
        Err(error) => super::failure(&format_args!("the balancer answers something else than decisions: {error}")),
    }
}

fn table(entries: &[Entry]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(["TIME", "ABOUT", "DECISION", "REASON", "OUTCOME"]);
    for Entry { at, kind, decision, reason, outcome, .. } in entries {
        let about = match kind {
            Kind::Scale => "scale",
            Kind::Eject => "outlier",
            Kind::Weigh => "weight",
        };
        // The day is of no interest, and the zone is always the same.
        let time = at.split('T').nth(1).and_then(|time| time.split('Z').next()).unwrap_or(at);
        table.add_row([time, about, decision, reason, outcome.as_deref().unwrap_or("under way")]);
    }
    table
}
