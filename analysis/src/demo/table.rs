//! The balancer's own table of what it relays: `lb relays`.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use crate::child::PATH;

/// For the table.
const ANSWER: Duration = Duration::from_secs(5);

/// Asks the balancer whose admin listener is `admin` by the program `lb`.
pub(super) async fn show(lb: &Path, admin: &str) -> Result<String, String> {
    let mut command = Command::new(lb);
    command.args(["relays", "--admin-listen", admin]);
    // Settings of the shell are those of the balancer, not of this question.
    command.env_clear().env("PATH", PATH).stdin(Stdio::null()).kill_on_drop(true);
    let failed = |why: &dyn std::fmt::Display| format!("{} relays: {why}", lb.display());
    let output = match timeout(ANSWER, command.output()).await {
        Ok(output) => output.map_err(|error| failed(&error))?,
        Err(_) => return Err(failed(&format!("no table within {ANSWER:?}"))),
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(failed(&format!("{}: {}", output.status, text(&output.stderr))))
    }
}

/// Is every one of `addrs` in the table?
pub(super) fn holds(table: &str, addrs: &[SocketAddr]) -> bool {
    addrs.iter().all(|addr| mentions(table, *addr))
}

/// As a word of its own: another port may begin with the same digits.
pub(super) fn mentions(table: &str, addr: SocketAddr) -> bool {
    let addr = addr.to_string();
    table.split(|letter: char| letter.is_whitespace() || letter == ',').any(|word| word == addr)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_whole_words() {
        let table = " PORT  SERVERS\n 50000  127.0.0.1:4000, 127.0.0.1:3000";
        let addr = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        assert!(holds(table, &[addr(4000), addr(3000)]));
        assert!(!holds(table, &[addr(4000), addr(300)]));
    }
}
