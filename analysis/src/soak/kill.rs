//! Kills replicas of the balancer now and then.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::seq::IndexedRandom;

use crate::cpu::parent;
use crate::loopback;

/// Kills one every `seconds` for as long as it is polled; never ends by itself without `seconds`.
pub(super) async fn run(seconds: Option<u64>, admin: &str, lb: u32, kills: &mut u64) -> String {
    let Some(seconds) = seconds else { return std::future::pending().await };
    let mut ticks = tokio::time::interval(Duration::from_secs(seconds));
    ticks.tick().await;
    loop {
        ticks.tick().await;
        match kill_one(admin, lb).await {
            Ok(killed) => *kills += u64::from(killed),
            Err(error) => return format!("killing a replica: {error}"),
        }
    }
}

/// Kills a ready one at random; false if fewer than two are: with none left nobody could answer.
async fn kill_one(admin: &str, lb: u32) -> Result<bool, String> {
    let answer = loopback::client()?.get(format!("{admin}/api/v1/replicas")).send().await;
    let list: serde_json::Value = match answer {
        Ok(answer) => answer.json().await.map_err(|error| error.to_string())?,
        Err(error) => return Err(error.to_string()),
    };
    let pids = ready(&list);
    if pids.len() < 2 {
        return Ok(false);
    }
    let Some(pid) = pids.choose(&mut rand::rng()) else { return Ok(false) };
    // A number of a process that has ended may be somebody else's by now.
    if parent(*pid).ok() != Some(lb) {
        return Ok(false);
    }
    Ok(kill(Pid::from_raw(*pid as i32), Signal::SIGKILL).is_ok())
}

/// The process numbers of the ready replicas.
fn ready(list: &serde_json::Value) -> Vec<u32> {
    let ready = list.as_array().into_iter().flatten().filter(|item| item["state"] == "ready");
    ready.filter_map(|item| item["runtime_id"].as_str()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ready_replicas_are_killed() {
        let list = serde_json::json!([
            {"state": "ready", "runtime_id": "41"},
            {"state": "starting", "runtime_id": "42"},
            {"state": "ready", "runtime_id": null},
            {"state": "ready", "runtime_id": "44"},
        ]);
        assert_eq!(ready(&list), [41, 44]);
    }
}
