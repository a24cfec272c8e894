//! `lb explain`: asks a running balancer on this host where a request would go, and why.

use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command};

use lb::admin::explain::{ExplainView, Who};
use lb::config::Config;

use super::ask::{ask, encoded};

/// The subcommand's own arguments.
pub(super) fn command() -> Command {
    Command::new("explain")
        .about("Show where a running balancer on this host would send a request, and why")
        .arg(
            Arg::new("key").required(true).help("a request's key, such as 132574 or, with --hash-key, what that names"),
        )
        .arg(Arg::new("source").long("source").value_name("KEY").help("which of several hash keys it is one for"))
        .arg(Arg::new("tried").long("tried").value_name("HOSTNAMES").help("replicas that a retry may not go to again"))
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("as JSON"))
}

/// Prints the choice: as text for people, as JSON like `/api/v1/explain`.
pub(super) fn show(config: &Config, matches: &ArgMatches) -> ExitCode {
    let given = |name: &str| matches.get_one::<String>(name).map(String::as_str);
    let mut path = format!("/api/v1/explain?key={}", encoded(given("key").unwrap_or_default()));
    for name in ["source", "tried"] {
        if let Some(value) = given(name) {
            path.push_str(&format!("&{name}={}", encoded(value)));
        }
    }
    let answer = match ask(config, "GET", &path, "") {
        Ok(answer) => answer,
        Err(error) => return super::failure(&error),
    };
    if matches.get_flag("json") {
        return super::print(&answer);
    }
    match serde_json::from_str::<ExplainView>(&answer) {
        Ok(view) => super::print(&text(&view)),
        Err(error) => super::failure(&format_args!("the balancer answers something else: {error}")),
    }
}

fn text(view: &ExplainView) -> String {
    let mut lines = vec![];
    let id = if view.id == view.key { String::new() } else { format!(", hashed to {}", view.id) };
    match (view.slot, view.slots) {
        (Some(slot), Some(slots)) => {
            lines.push(format!("key      {} ({}{id}): slot {slot} of {slots}", view.key, view.source));
            let owner = view
                .owner
                .as_ref()
                .map_or("nobody".into(), |Who { id, hostname, .. }| format!("{hostname} (ring {id})"));
            lines.push(format!("owner    {owner}"));
        }
        _ => lines.push(format!(
            "key      {}: not looked at, as the policy {} goes by {}",
            view.key, view.policy, view.goes_by
        )),
    }
    let width = view.skipped.iter().map(|skipped| skipped.hostname.len()).max().unwrap_or(0);
    for (at, skipped) in view.skipped.iter().enumerate() {
        let label = if at == 0 { "skipped" } else { "" };
        lines.push(format!("{label:<9}{:<width$}  {}", skipped.hostname, skipped.detail));
    }
    lines.push(match &view.chosen {
        Some(Who { id, hostname, addr }) => {
            format!("goes to  {hostname} (ring {id}), {}", addr.as_deref().unwrap_or("which has no address"))
        }
        None => "goes to  nobody: no replica can take it (503)".into(),
    });
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb::admin::explain::Skipped;

    #[test]
    fn a_choice_reads_from_key_to_replica() {
        let who = |id: u32| Who { id, hostname: format!("S{id}"), addr: Some(format!("127.0.0.1:{id}")) };
        let skipped = |id: u32, detail: &str| Skipped {
            id,
            hostname: format!("S{id}"),
            reason: String::new(),
            detail: detail.into(),
        };
        let view = ExplainView {
            policy: "consistent".into(),
            goes_by: "the key".into(),
            key: "anna".into(),
            source: "cookie:sid".into(),
            id: "77".into(),
            slot: Some(5),
            slots: Some(512),
            owner: Some(who(2)),
            skipped: vec![skipped(2, "at bound: 2 in flight, limit 1"), skipped(10, "unready")],
            chosen: Some(who(3)),
        };
        let expected = "key      anna (cookie:sid, hashed to 77): slot 5 of 512\nowner    S2 (ring 2)\n\
                        skipped  S2   at bound: 2 in flight, limit 1\n         S10  unready\n\
                        goes to  S3 (ring 3), 127.0.0.1:3";
        assert_eq!(text(&view), expected);
        let nobody = ExplainView { slot: None, chosen: None, skipped: vec![], ..view };
        assert!(text(&nobody).contains("not looked at") && text(&nobody).ends_with("(503)"), "{}", text(&nobody));
    }
}
