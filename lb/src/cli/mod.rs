//! The command line: `lb serve` (also plain `lb`), `agent`, `check`, `ring`, `explain`, `set`, `deploy`, `decisions`, `relays`,
//! `health`.
//!
//! Exit status: 0 done; 1 failed (start, health check); 64 bad configuration (`EX_USAGE`).

mod ask;
mod decisions;
mod deploy;
mod explain;
mod relays;
mod ring;
mod set;

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use comfy_table::{Table, presets};

use lb::app;
use lb::config::{self, BadConfig, Config, Layers, LogConfig, SETTINGS};
use lb::probe::{HeartbeatConfig, Prober};

const BAD_CONFIGURATION: u8 = 64;
/// A container's health check has its own time limit; this is for people.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(3);

const EXAMPLES: &str = "Examples:
  lb                                                3 replicas as local processes, on port 5000
  lb --replicas 5 --listen 127.0.0.1:8080           five of them, on another port
  lb --server-command 'python3 app.py {port}'       any server as a replica
  lb --runtime docker --image my-server             replicas as containers
  lb --runtime static --members 10.0.0.1:80,b=10.0.0.2:80
  lb check --config ringkeeper.toml                 is this configuration good?
  lb check --profile production                     what does that profile set?
  lb ring --replicas 5 --hash xxh3                  how would five replicas share the ring?
  lb explain 132574                                 where does this request go, and why?
  lb set S2 --weight 3                              three times the requests for S2; 0 for none
  lb --control-listen 0.0.0.0:9988                  let servers register TCP and UDP ports
  lb --autoscale on --max-replicas 8 --spares 1     as many replicas as the load needs, and one that waits
  lb agent --runtime docker                         keep the fleet here, and …
  lb --runtime agent --agent ws://10.0.0.2:5002     … take the requests there
  lb deploy --image my-server:2                     replace the replicas one by one
  lb decisions                                      what was decided by the load, and why
  lb relays                                         which ports are relayed, and to whom?

Each setting can be given as a flag, in the environment, or as a key (with '_') in a TOML file,
there also for one profile only, under [profile.NAME]. A flag beats the environment, which beats
the file's profile, the file, what a profile has built in, and the default, in this order.
What is not known stops the start with exit status 64.";

fn command() -> Command {
    let mut command = Command::new("lb")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Ringkeeper: a load balancer that keeps its replicas alive")
        .after_help(EXAMPLES)
        .subcommand(Command::new("serve").about("Balance (the default)"))
        .subcommand(Command::new("agent").about("Keep the fleet for balancers elsewhere (lb serve --runtime agent)"))
        .subcommand(Command::new("check").about("Check the configuration and show what is in force"))
        .subcommand(
            Command::new("ring")
                .about("Show who would own what with --replicas, the exact shares, and what a change would move")
                .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("as JSON")),
        )
        .subcommand(explain::command())
        .subcommand(set::command())
        .subcommand(deploy::command())
        .subcommand(
            Command::new("decisions")
                .about("Show what a running balancer or agent on this host has decided by the load, and why")
                .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("as JSON")),
        )
        .subcommand(
            Command::new("relays")
                .about("Show which TCP and UDP ports a running balancer on this host relays")
                .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("as JSON")),
        )
        .subcommand(
            Command::new("health").about("Ask a running balancer on this host whether it lives; exit status 0 or 1"),
        )
        .arg(
            Arg::new("config")
                .long("config")
                .global(true)
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("configuration file (TOML) [env: LB_CONFIG]"),
        );
    for setting in SETTINGS {
        let default =
            if setting.default.is_empty() { String::new() } else { format!(" [default: {}]", setting.default) };
        command = command.arg(
            Arg::new(setting.key)
                .long(setting.flag())
                .global(true)
                .value_name(setting.value)
                .allow_hyphen_values(true)
                .help_heading(setting.group)
                .help(format!("{}{default} [env: {}]", setting.help, setting.env)),
        );
    }
    command
}

/// Does what the command line says.
pub(crate) fn run() -> ExitCode {
    let matches = match command().try_get_matches() {
        Ok(matches) => matches,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(BAD_CONFIGURATION) } else { ExitCode::SUCCESS };
        }
    };
    let (name, matches) = matches.subcommand().unwrap_or(("serve", &matches));
    let mut layers = layers(matches);
    if name == "agent" {
        layers.set_default("admin_listen", &app::agent::ADMIN_LISTEN.to_string());
    }
    let shown: Vec<_> = SETTINGS
        .iter()
        .filter_map(|setting| {
            let (value, origin) = layers.get(setting.key)?;
            let value = if setting.is_secret() { "(not shown)" } else { value };
            Some((setting.key, value.to_owned(), origin.to_string()))
        })
        .collect();
    let program = std::env::current_exe().ok();
    let config = Config::new(layers, program.as_deref()).and_then(|config| match name {
        "ring" | "explain" | "set" | "health" | "relays" | "deploy" | "decisions" => Ok(config),
        _ => config.check_files().map(|()| config),
    });
    match (name, config) {
        ("ring", Ok(config)) => ring::show(&config, matches.get_flag("json")),
        ("check", Ok(_)) => check(&shown),
        ("agent", Ok(config)) => serve(config, true),
        ("explain", Ok(config)) => explain::show(&config, matches),
        ("set", Ok(config)) => set::run(&config, matches),
        ("deploy", Ok(config)) => deploy::run(&config, matches),
        ("decisions", Ok(config)) => decisions::show(&config, matches.get_flag("json")),
        ("relays", Ok(config)) => relays::show(&config, matches.get_flag("json")),
        ("health", Ok(config)) => health(&config),
        (_, Ok(config)) => serve(config, false),
        (_, Err(bad)) => refuse(&bad),
    }
}

fn layers(matches: &ArgMatches) -> Layers {
    let environment = config::environment();
    let flags: BTreeMap<_, _> = SETTINGS
        .iter()
        .filter_map(|setting| Some((setting.key, matches.get_one::<String>(setting.key)?.clone())))
        .collect();
    let file = config::file(matches.get_one::<PathBuf>("config").cloned(), &environment);
    Layers::new(&flags, &environment, file.as_deref())
}

#[allow(clippy::print_stderr)]
fn refuse(bad: &BadConfig) -> ExitCode {
    for problem in &bad.0 {
        eprintln!("lb: {problem}");
    }
    ExitCode::from(BAD_CONFIGURATION)
}

fn check(settings: &[(&str, String, String)]) -> ExitCode {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(["SETTING", "VALUE", "FROM"]);
    for (key, value, origin) in settings {
        table.add_row([*key, value, origin]);
    }
    print(&format_args!("{}\n\nThe configuration is good.", table.trim_fmt()))
}

/// Prints what was asked for. Somebody who has read enough of it (`lb ring | head`) is no failure.
fn print(text: &impl std::fmt::Display) -> ExitCode {
    use std::io::Write;
    match writeln!(std::io::stdout().lock(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => failure(&error),
        _ => ExitCode::SUCCESS,
    }
}

#[allow(clippy::print_stderr)]
fn failure(reason: &impl std::fmt::Display) -> ExitCode {
    eprintln!("lb: {reason}");
    ExitCode::FAILURE
}

/// Whoever asks is on the same host, so an unspecified address means loopback.
fn reachable(mut addr: SocketAddr) -> SocketAddr {
    if addr.ip().is_unspecified() {
        addr.set_ip(if addr.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    addr
}

fn health(config: &Config) -> ExitCode {
    let (addr, path) = match config.admin_listen {
        Some(addr) => (addr, "/healthz"),
        None => (config.listen, "/rep"),
    };
    let addr = reachable(addr);
    let asked = HeartbeatConfig { path: path.into(), timeout: HEALTH_TIMEOUT, ..HeartbeatConfig::default() };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failure(&error),
    };
    match Prober::new(&asked).map(|prober| runtime.block_on(prober.probe(addr))) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => failure(&format_args!("no balancer at {addr}{path}: {error}")),
        Err(error) => failure(&error),
    }
}

fn start_log(log: &LogConfig) {
    let filter = tracing_subscriber::EnvFilter::new(&log.filter);
    let log_to_stderr = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    if log.json {
        log_to_stderr.json().init();
    } else {
        log_to_stderr.init();
    }
}

fn serve(config: Config, is_agent: bool) -> ExitCode {
    start_log(&config.log);
    raise_file_limit();
    // Supervision shares no thread with the data path: it must not wait while that is saturated.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failure(&error),
    };
    let served =
        runtime.block_on(async { if is_agent { app::agent::run(config).await } else { app::run(config).await } });
    // What may still block a thread (a look-up of a name, the wait for a worker that drains) has had its time.
    runtime.shutdown_background();
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// As many descriptors as are allowed: each proxied connection takes two.
fn raise_file_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised =
        getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most));
    if let Err(error) = raised {
        tracing::warn!("the limit of open files stays as it is: {error}");
    }
}
