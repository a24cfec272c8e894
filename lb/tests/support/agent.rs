//! A deployment agent as a process of its own.

use std::net::SocketAddr;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::{Lb, Program, eventually, logged_at, messages};

/// It ends with the test.
pub struct Agent {
    child: Child,
    pub addr: SocketAddr,
    pub admin: SocketAddr,
    log: Arc<Mutex<Vec<Value>>>,
}

impl Agent {
    /// Starts one on free ports with these further arguments, and waits until it listens.
    pub fn start(args: &[&str]) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), args)
    }

    /// The same at this address, where another has been.
    pub fn start_at(addr: SocketAddr, args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lb"));
        let addr = addr.to_string();
        command
            .args(["agent", "--agent-listen", &addr, "--admin-listen", "127.0.0.1:0", "--log-format", "json"])
            .args(args);
        let Program { child, log, addrs } = Program::start(command, &["agent listening on ", "admin listening on "]);
        Self { child, addr: addrs[0], admin: addrs[1], log }
    }

    pub fn url(&self) -> String {
        format!("ws://{}", self.addr)
    }

    /// A balancer that follows it, with these further arguments.
    pub fn balancer(&self, args: &[&str]) -> Lb {
        let url = self.url();
        let mut all = vec!["--runtime", "agent", "--agent", &url];
        all.extend(args);
        Lb::start(&all)
    }

    /// The same, once all its replicas are ready.
    pub async fn ready_balancer(&self, args: &[&str]) -> Lb {
        let lb = self.balancer(args);
        lb.until_ready().await;
        lb
    }

    pub fn log(&self) -> Vec<String> {
        messages(&self.log)
    }

    /// When the log has said a line that begins and ends so.
    pub fn logged_at(&self, begins: &str, ends: &str) -> Option<(std::time::SystemTime, String)> {
        logged_at(&self.log, begins, ends)
    }

    /// Waits for a line of the log.
    pub async fn until_logged(&self, text: &str) {
        eventually(text, async || self.log().iter().any(|line| line.contains(text)).then_some(())).await;
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("it lives");
    }

    /// Ends it at once, and waits for that.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.child.wait().expect("waitable");
    }

    /// Answer of its admin listener.
    pub async fn ask(&self, path: &str) -> Value {
        let client = reqwest::Client::builder().no_proxy().timeout(super::LIMIT).build().expect("a client");
        let response = client.get(format!("http://{}{path}", self.admin)).send().await.expect("an answer");
        response.json().await.expect("JSON")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for line in self.log() {
                println!("agent: {line}");
            }
        }
        let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}
