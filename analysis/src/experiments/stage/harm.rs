//! What is done to a replica.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::{CRASH_PATH, Member, Runtime, Stage};
use crate::loopback;

/// A way to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Harm {
    /// Killed.
    Kill,
    /// Frozen: it keeps its connections, and answers nothing.
    Pause,
    /// Removed with its container; a process is asked to end.
    Remove,
    /// The server itself aborts.
    Crash,
}

impl Harm {
    pub(crate) const ALL: [Self; 4] = [Self::Kill, Self::Pause, Self::Remove, Self::Crash];

    /// What one would type.
    pub(crate) fn name(self, runtime: Runtime) -> &'static str {
        match (self, runtime) {
            (Self::Kill, Runtime::Docker) => "docker kill",
            (Self::Pause, Runtime::Docker) => "docker pause",
            (Self::Remove, Runtime::Docker) => "docker rm -f",
            (Self::Kill, Runtime::Process) => "kill -9",
            (Self::Pause, Runtime::Process) => "kill -STOP",
            (Self::Remove, Runtime::Process) => "kill -TERM",
            (Self::Crash, _) => "crash in the server",
        }
    }
}

impl Stage {
    /// Does it to this replica; returns when it is done.
    pub(crate) async fn harm(&self, harm: Harm, member: &Member) -> Result<(), String> {
        if harm == Harm::Crash {
            return crash(member).await;
        }
        let id = member.runtime_id.as_deref().ok_or_else(|| format!("{} does not run", member.hostname))?;
        if let Some(engine) = self.engine() {
            return match harm {
                Harm::Kill => engine.kill(id).await,
                Harm::Pause => engine.pause(id).await,
                _ => engine.remove(id).await,
            };
        }
        let pid = id.parse().map_err(|_| format!("{} has the process number '{id}'", member.hostname))?;
        let signal = match harm {
            Harm::Kill => Signal::SIGKILL,
            Harm::Pause => Signal::SIGSTOP,
            _ => Signal::SIGTERM,
        };
        kill(Pid::from_raw(pid), signal).map_err(|error| format!("{signal} to {}: {error}", member.hostname))
    }
}

/// Asks the replica itself, not the balancer: that would ask another one.
async fn crash(member: &Member) -> Result<(), String> {
    let addr = member.addr.as_deref().ok_or_else(|| format!("{} has no address", member.hostname))?;
    match loopback::client()?.get(format!("http://{addr}{CRASH_PATH}")).send().await {
        // It has no time to answer.
        Err(_) => Ok(()),
        Ok(answer) => Err(format!("{} does not crash, but answers {}", member.hostname, answer.status())),
    }
}
