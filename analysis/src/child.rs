//! Programs that a run has started, by this one. All of them end with the run, however it ends.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

/// Where programs are looked for: some users' path lacks the folders of nginx and HAProxy.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How often it is looked whether a child has ended, and how long between two looks: a second in all.
const GRACE_LOOKS: u32 = 200;
const LOOK: Duration = Duration::from_millis(5);
/// How much of a child's log is shown when it failed.
const LAST_WORDS: usize = 2000;

/// A program that leads a process group, which is ended when this is dropped.
pub(crate) struct Running {
    child: Child,
    pub(crate) pid: u32,
    log: PathBuf,
}

/// A command for `program`. Should this process die without a chance to end it, the kernel ends it (`setpriv`); it has a
/// process group of its own, so Ctrl-C in a terminal comes to this process alone.
pub(crate) fn command(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM"]).arg(program);
    // Settings of the shell (LB_LISTEN, RUST_LOG) would make two runs differ.
    command.env_clear().env("PATH", PATH);
    command.stdin(Stdio::null()).process_group(0).kill_on_drop(true);
    command
}

impl Running {
    /// Starts `command`; what it prints goes to `log`.
    pub(crate) fn start(mut command: Command, log: PathBuf) -> io::Result<Self> {
        let file = File::create(&log)?;
        command.stdout(file.try_clone()?).stderr(file);
        let child = command.spawn()?;
        let pid = child.id().ok_or_else(|| io::Error::other("it has ended already"))?;
        Ok(Self { child, pid, log })
    }

    /// Starts `command`, which shows what it prints.
    pub(crate) fn shown(mut command: Command) -> io::Result<Self> {
        let child = command.spawn()?;
        let pid = child.id().ok_or_else(|| io::Error::other("it has ended already"))?;
        Ok(Self { child, pid, log: PathBuf::new() })
    }

    /// What it has printed.
    pub(crate) fn output(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// An error with its last words, if it has ended.
    pub(crate) fn check(&mut self, name: &str) -> Result<(), String> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(format!("{name} has ended ({status}):\n{}", self.last_words())),
            Err(error) => Err(format!("{name}: {error}")),
        }
    }

    /// The end of its log.
    pub(crate) fn last_words(&self) -> String {
        let output = self.output();
        let from = output.len().saturating_sub(LAST_WORDS);
        String::from_utf8_lossy(&output.as_bytes()[from..]).trim().to_owned()
    }

    /// Waits until it has ended by itself.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Has it been waited for, or can it be now?
    fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Gives it the time to end.
    #[allow(clippy::disallowed_methods, reason = "a drop can't be asynchronous, and the run is over by then")]
    fn give_time(&mut self) {
        for _ in 0..GRACE_LOOKS {
            if self.has_ended() {
                return;
            }
            std::thread::sleep(LOOK);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let group = Pid::from_raw(self.pid as i32);
        if !self.has_ended() {
            // By itself at first: nginx's master sees its worker off.
            let _ = kill(group, Signal::SIGTERM);
            self.give_time();
        }
        // The group, not the process: nginx's worker would outlive a master that was killed.
        let _ = killpg(group, Signal::SIGKILL);
        self.give_time();
    }
}
