//! A sample server as a process of its own, for the demonstration and the experiments.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::timeout;

use crate::child::{Running, command};
use crate::control::{Encoding, Protocol};

/// For it to register, and for it to end.
const DEADLINE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(2);

/// What to start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan<'a> {
    pub(crate) protocol: Protocol,
    pub(crate) name: &'a str,
    /// Its own port; 0 for any.
    pub(crate) port: u16,
    pub(crate) relay_port: u16,
    pub(crate) encoding: Encoding,
}

/// A server that is registered. It unregisters and ends when this is dropped, but [`Server::stop`] looks that it does.
pub(crate) struct Server {
    addr: SocketAddr,
    name: String,
    running: Running,
}

impl Server {
    /// Starts this very program as a server, and waits until it says that it is registered. Its log goes to `dir`.
    pub(crate) async fn start(plan: Plan<'_>, control: SocketAddr, dir: &Path) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|error| format!("this program: {error}"))?;
        let mut command = command(&program);
        command.arg(match plan.protocol {
            Protocol::Tcp => "serve-http",
            Protocol::Udp => "serve-udp",
        });
        command.args(["--control", &control.to_string(), "--name", plan.name, "--port", &plan.port.to_string()]);
        command.args(["--relay-port", &plan.relay_port.to_string(), "--encoding"]);
        command.arg(plan.encoding.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned()));
        let log: PathBuf = dir.join(format!("{}.log", plan.name));
        let mut running = Running::start(command, log).map_err(|error| format!("{}: {error}", plan.name))?;
        let (name, began) = (plan.name.to_owned(), Instant::now());
        loop {
            let output = running.output();
            if let (Some(addr), true) = (listening(&output), output.contains(": registered")) {
                return Ok(Self { addr, name, running });
            }
            running.check(&name)?;
            if began.elapsed() > DEADLINE {
                return Err(format!("{name} is not registered after {DEADLINE:?}:\n{}", running.last_words()));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Has it unregister and end.
    pub(crate) async fn stop(mut self) -> Result<(), String> {
        self.signal(Signal::SIGTERM)?;
        match timeout(DEADLINE, self.running.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(format!("{} has ended ({status}):\n{}", self.name, self.running.last_words())),
            Ok(Err(error)) => Err(format!("{}: {error}", self.name)),
            Err(_) => Err(format!("{} has not ended within {DEADLINE:?}", self.name)),
        }
    }

    /// Ends it without a chance to unregister.
    pub(crate) async fn kill(mut self) -> Result<(), String> {
        self.signal(Signal::SIGKILL)?;
        let ended = timeout(DEADLINE, self.running.wait()).await;
        ended.map(drop).map_err(|_| format!("{} has not ended within {DEADLINE:?}", self.name))
    }

    fn signal(&self, signal: Signal) -> Result<(), String> {
        kill(Pid::from_raw(self.running.pid as i32), signal).map_err(|error| format!("{}: {error}", self.name))
    }
}

/// The address in "NAME: listening on ADDR (tcp)".
fn listening(output: &str) -> Option<SocketAddr> {
    let (_, rest) = output.split_once(": listening on ")?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_found_among_the_lines() {
        let output = "S1: listening on 127.0.0.1:40000 (tcp)\nS1: registered\n";
        assert_eq!(listening(output), Some(SocketAddr::from(([127, 0, 0, 1], 40000))));
        assert_eq!(listening("analysis: no connection"), None);
    }
}
