//! `analysis spread`: how evenly requests fall on the replicas, beside what the bare ring predicts.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;

use comfy_table::{CellAlignment, Table, presets};

use crate::load;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The balancer's public listener
    #[arg(long, default_value = "http://127.0.0.1:5000")]
    url: String,
    /// Its admin listener, which knows the ring; "off" to do without
    #[arg(long, default_value = "http://127.0.0.1:5001")]
    admin_url: String,
    /// How many requests
    #[arg(long, default_value = "10000")]
    requests: NonZeroU64,
    /// How many at a time
    #[arg(long, default_value = "100", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    concurrency: u32,
}

/// Runs the load and prints a table; false if any request failed.
#[allow(clippy::print_stdout, reason = "a program for the command line")]
pub(crate) async fn run(args: &Args) -> Result<bool, String> {
    let predicted = match &*args.admin_url {
        "off" => BTreeMap::new(),
        admin => predicted(admin).await.map_err(|error| error.to_string())?,
    };
    let outcome = load::run(&format!("{}/home", args.url), args.requests.get(), args.concurrency as usize).await?;
    let answered = outcome.answered();
    let names: BTreeSet<&String> = predicted.keys().chain(outcome.by_replica.keys()).collect();
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(["REPLICA", "REQUESTS", "SHARE", "BARE RING"]);
    for name in &names {
        let requests = outcome.by_replica.get(*name).copied().unwrap_or_default();
        let share = percent(requests as f64 / answered.max(1) as f64);
        let bare = predicted.get(*name).map_or_else(|| "?".into(), |share| percent(*share));
        table.add_row([(*name).clone(), requests.to_string(), share, bare]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("{table}\n");
    let failed = outcome.failed();
    let most = outcome.by_replica.values().max().copied().unwrap_or_default();
    println!(
        "{answered} answered, {failed} failed, in {:.2} s ({:.0} a second); max/mean {:.2}",
        outcome.seconds,
        outcome.per_second(),
        most as f64 * names.len() as f64 / answered.max(1) as f64
    );
    for (failure, count) in &outcome.failures {
        println!("  {count} x {failure}");
    }
    Ok(failed == 0)
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// The exact share of each replica on the bare ring.
async fn predicted(admin_url: &str) -> Result<BTreeMap<String, f64>, reqwest::Error> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let ring: serde_json::Value = client.get(format!("{admin_url}/api/v1/ring")).send().await?.json().await?;
    let shares = ring["shares"].as_object().into_iter().flatten();
    Ok(shares.filter_map(|(name, share)| Some((name.clone(), share.as_f64()?))).collect())
}
