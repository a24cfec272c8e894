//! `lb deploy`: begins a rolling update at a running balancer or agent on this host, and shows how it goes.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::{Arg, ArgMatches, Command};
use serde_json::{Value, json};

use lb::config::Config;
use lb::supervisor::{Progress, Rollout};

use super::ask::ask;

/// From one look to the next.
const LOOK: Duration = Duration::from_millis(200);
/// It may take so long in all: each replica has its own deadlines, so it ends by itself long before.
const PATIENCE: Duration = Duration::from_secs(3600);

/// The subcommand's own arguments.
pub(super) fn command() -> Command {
    let text = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    Command::new("deploy")
        .about(
            "Replace all replicas one by one by ones of another image or command, and go back if they don't get ready",
        )
        .after_help("The new image is that of --image. Example: lb deploy --image my-server:2")
        .arg(text("new-command", "COMMAND", "the new program and its arguments"))
        .arg(text("new-env", "LIST", "the new environment, NAME=value,NAME=value"))
        .arg(Arg::new("no-wait").long("no-wait").action(clap::ArgAction::SetTrue).help("only begin it"))
}

fn body(matches: &ArgMatches) -> Result<Value, String> {
    let given = |name: &str| matches.get_one::<String>(name);
    let mut body = json!({});
    if let Some(image) = given("image") {
        body["image"] = json!(image);
    }
    if let Some(command) = given("new-command") {
        let words = shlex::split(command).filter(|words| !words.is_empty());
        body["command"] = json!(words.ok_or("--new-command is no program and its arguments, quoted as in a shell")?);
    }
    if let Some(env) = given("new-env") {
        let pair = |item: &str| item.split_once('=').map(|(name, value)| (name.trim().to_owned(), json!(value)));
        let pairs: Option<serde_json::Map<_, _>> = env.split(',').map(pair).collect();
        body["env"] = Value::Object(pairs.ok_or("--new-env is not NAME=value,NAME=value")?);
    }
    if body.as_object().is_some_and(serde_json::Map::is_empty) {
        return Err("nothing is to be changed: give --image, --new-command, --new-env or several of them".into());
    }
    Ok(body)
}

/// Begins it, and prints each step. Exit status 1 if it was rolled back.
pub(super) fn run(config: &Config, matches: &ArgMatches) -> ExitCode {
    let body = match body(matches) {
        Ok(body) => body,
        Err(error) => return super::failure(&error),
    };
    let began = Instant::now();
    let progress = || {
        let answer = ask(config, "GET", "/api/v1/deploy", "")?;
        serde_json::from_str::<Option<Progress>>(&answer).map_err(|error| error.to_string())
    };
    // The one before may still be shown while this one waits for its turn.
    let before = match progress() {
        Ok(progress) => progress.map_or(0, |progress| progress.seq),
        Err(error) => return super::failure(&error),
    };
    if let Err(error) = ask(config, "POST", "/api/v1/deploy", &body.to_string()) {
        return super::failure(&error);
    }
    if matches.get_flag("no-wait") {
        return super::print(&"The rolling update has begun; GET /api/v1/deploy says how it stands.");
    }
    let mut said = String::new();
    while began.elapsed() < PATIENCE {
        match progress() {
            Ok(Some(progress)) if progress.seq > before => {
                let line = line(&progress);
                if line != said {
                    step(&line, began);
                    said = line;
                }
                match progress.state {
                    Rollout::Done => return ExitCode::SUCCESS,
                    Rollout::RolledBack => {
                        let reason = progress.reason.unwrap_or_default();
                        return super::failure(&format_args!("the update was rolled back, all is as before: {reason}"));
                    }
                    Rollout::RollingOut | Rollout::RollingBack => {}
                }
            }
            Ok(None) if before > 0 || !said.is_empty() => {
                return super::failure(&"the fleet knows of no rolling update any more: its agent was restarted");
            }
            Ok(_) => {}
            // The agent may be away for a moment.
            Err(error) => step(&error, began),
        }
        wait();
    }
    super::failure(&"the update has not come to an end")
}

fn line(Progress { template, state, done, total, starting, .. }: &Progress) -> String {
    let starting = if starting.is_empty() { String::new() } else { format!(", starting {}", starting.join(", ")) };
    match state {
        Rollout::RollingOut => format!("{done} of {total} replicas run {template}{starting}"),
        Rollout::RollingBack => format!("rolling back: {done} of {total} replicas are as before{starting}"),
        Rollout::Done => format!("done: {done} of {total} replicas run {template}"),
        Rollout::RolledBack => format!("rolled back: {done} of {total} replicas are as before"),
    }
}

fn step(line: &str, began: Instant) {
    let mut out = std::io::stdout().lock();
    let passed = began.elapsed().as_secs_f64();
    let dim = if out.is_terminal() { ("\x1b[2m", "\x1b[0m") } else { ("", "") };
    // Whoever does not read any more does not stop the update.
    let _ = writeln!(out, "{}{passed:6.1} s{}  {line}", dim.0, dim.1);
}

#[allow(clippy::disallowed_methods, reason = "a program that does nothing but wait")]
fn wait() {
    thread::sleep(LOOK);
}
