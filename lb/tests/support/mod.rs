//! What the integration tests share: a balancer as a real process, load on it, and replicas that misbehave as told.
//!
//! Nothing here waits for a time: it waits for a condition, up to a limit.

#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of this, as a module of its own")]

pub mod agent;
pub mod client;
pub mod conn;
pub mod control;
pub mod engine;
pub mod harm;
pub mod load;
pub mod recorder;
pub mod replica;
pub mod server;
pub mod strict;
pub mod wire;

use std::future::Future;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// Nothing that works takes longer, even on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(30);

/// What is required within 100 ms: five times that, as the tests share the machine with each other. A deadline or a timer
/// that helps in the end would take seconds.
pub const SOON: Duration = Duration::from_millis(500);

/// How long there is between two looks at a condition.
const LOOK: Duration = Duration::from_millis(2);

/// Waits until `condition` gives something, and says how long that took.
pub async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut condition: impl FnMut() -> F,
) -> (T, Duration) {
    let began = Instant::now();
    let mut look = tokio::time::interval(LOOK);
    loop {
        if let Some(value) = condition().await {
            return (value, began.elapsed());
        }
        assert!(began.elapsed() < LIMIT, "still not after {LIMIT:?}: {what}");
        look.tick().await;
    }
}

/// The `server` binary beside `lb`.
pub fn server() -> PathBuf {
    let server = PathBuf::from(env!("CARGO_BIN_EXE_lb")).with_file_name("server");
    assert!(server.is_file(), "{} is not built: run cargo build --workspace first", server.display());
    server
}

/// A process of `lb` that has said where it listens.
pub struct Program {
    pub child: Child,
    pub log: Arc<Mutex<Vec<Value>>>,
    pub addrs: Vec<SocketAddr>,
}

impl Program {
    /// Starts it, and waits until its log has said each of these, followed by an address.
    pub fn start(mut command: Command, said: &[&str]) -> Self {
        server();
        let mut child = command
            .env_clear()
            .envs(std::env::vars().filter(|(name, _)| !name.starts_with("LB_") && name != "RUST_LOG"))
            .stderr(Stdio::piped())
            .spawn()
            .expect("lb runs");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let log = Arc::<Mutex<Vec<Value>>>::default();
        let mut addrs = vec![None; said.len()];
        while addrs.contains(&None) {
            let line = lines.next().expect("lb ended before it listened").expect("readable");
            let event: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("no JSON: {line}"));
            let message = event["fields"]["message"].as_str().unwrap_or_default().to_owned();
            log.lock().unwrap().push(event);
            for (prefix, addr) in said.iter().zip(&mut addrs) {
                if let Some(text) = message.strip_prefix(prefix) {
                    *addr = text.split(' ').next().and_then(|text| text.parse().ok());
                }
            }
        }
        let kept = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                kept.lock().unwrap().push(serde_json::from_str(&line).unwrap_or(Value::String(line)));
            }
        });
        Self { child, log, addrs: addrs.into_iter().flatten().collect() }
    }
}

/// A balancer as a process of its own. It ends with the test.
pub struct Lb {
    child: Child,
    pub addr: SocketAddr,
    pub admin: SocketAddr,
    control: Option<SocketAddr>,
    log: Arc<Mutex<Vec<Value>>>,
    pub client: reqwest::Client,
}

impl Lb {
    /// Starts one on free ports with these further arguments, and waits until it listens.
    pub fn start(args: &[&str]) -> Self {
        Self::start_by(Command::new(env!("CARGO_BIN_EXE_lb")), args)
    }

    /// The same with so many open files at most.
    pub fn with_files(files: u32, args: &[&str]) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit -n {files}; exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_lb")]);
        Self::start_by(shell, args)
    }

    fn start_by(mut command: Command, args: &[&str]) -> Self {
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--log-format", "json"])
            .args(args);
        let mut said = vec!["listening on ", "admin listening on "];
        if args.contains(&"--control-listen") {
            said.push("control channel listening on ");
        }
        let Program { child, log, addrs } = Program::start(command, &said);
        let client = reqwest::Client::builder().no_proxy().timeout(LIMIT).build().expect("a client");
        Self { child, addr: addrs[0], admin: addrs[1], control: addrs.get(2).copied(), log, client }
    }

    /// Starts one, and waits until all its replicas are ready.
    pub async fn ready(args: &[&str]) -> Self {
        let lb = Self::start(args);
        lb.until_ready().await;
        lb
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    pub fn admin_url(&self, path: &str) -> String {
        format!("http://{}{path}", self.admin)
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    pub async fn get(&self, path: &str) -> (u16, String) {
        let response = self.client.get(self.url(path)).send().await.expect("an answer");
        (response.status().as_u16(), response.text().await.expect("a body"))
    }

    /// Calls `/add` or `/rm`.
    pub async fn change(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let method = method.parse().expect("a method");
        let request = self.client.request(method, self.url(path)).body(body.to_owned());
        let response = request.send().await.expect("an answer");
        (response.status().as_u16(), response.text().await.expect("a body"))
    }

    /// Host names in `/rep`.
    pub async fn rep(&self) -> Vec<String> {
        let (status, body) = self.get("/rep").await;
        assert_eq!(status, 200, "{body}");
        names(&body)
    }

    /// `/api/v1/replicas`.
    pub async fn replicas(&self) -> Vec<Value> {
        let response = self.client.get(self.admin_url("/api/v1/replicas")).send().await.expect("an answer");
        response.json().await.expect("a list")
    }

    pub async fn is_ready(&self) -> bool {
        let response = self.client.get(self.admin_url("/readyz")).send().await.expect("an answer");
        response.status() == 200
    }

    pub async fn until_ready(&self) -> Duration {
        eventually("all replicas are ready", async || self.is_ready().await.then_some(())).await.1
    }

    /// One number of the metrics page.
    pub async fn metric(&self, name: &str) -> f64 {
        let response = self.client.get(self.admin_url("/metrics")).send().await.expect("an answer");
        let page = response.text().await.expect("a page");
        let line = page.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_else(|| panic!("no {name} in {page}"))
    }

    /// Messages of the log so far.
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
        kill(self.pid(), signal).expect("it lives");
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> ExitStatus {
        let child = &mut self.child;
        let began = Instant::now();
        let mut look = tokio::time::interval(LOOK);
        loop {
            if let Some(status) = child.try_wait().expect("waitable") {
                return status;
            }
            assert!(began.elapsed() < LIMIT, "the balancer does not end");
            look.tick().await;
        }
    }
}

impl Drop for Lb {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for line in self.log() {
                println!("lb: {line}");
            }
        }
        let _ = kill(self.pid(), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

/// When a log has said a line that begins and ends so, and the line.
pub fn logged_at(log: &Mutex<Vec<Value>>, begins: &str, ends: &str) -> Option<(std::time::SystemTime, String)> {
    let log = log.lock().unwrap();
    log.iter().find_map(|event| {
        let message = event["fields"]["message"].as_str()?;
        let at = humantime::parse_rfc3339(event["timestamp"].as_str()?).expect("a time");
        (message.starts_with(begins) && message.ends_with(ends)).then(|| (at, message.to_owned()))
    })
}

/// Messages of a log so far.
pub fn messages(log: &Mutex<Vec<Value>>) -> Vec<String> {
    let log = log.lock().unwrap();
    // What is no event (a panic, say) is shown as it is.
    log.iter()
        .map(|event| event["fields"]["message"].as_str().map_or_else(|| event.to_string(), str::to_owned))
        .collect()
}

/// Host names in an answer of `/rep`, `/add` or `/rm`; N must be their number.
pub fn names(body: &str) -> Vec<String> {
    let body: Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("no JSON: {body}"));
    assert_eq!(body["status"], "successful", "{body}");
    let names: Vec<String> = serde_json::from_value(body["message"]["replicas"].clone()).expect("a list");
    assert_eq!(body["message"]["N"], names.len(), "{body}");
    names
}

/// Is this process alive? A zombie is not.
pub fn lives(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with('Z')))
}
