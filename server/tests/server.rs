//! The sample replica as a process, over real sockets.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// What the tests set, and nobody else.
const VARIABLES: [&str; 7] =
    ["SERVER_ID", "PORT", "BIND", "RUST_LOG", "SERVICE_TIME", "SERVICE_CONCURRENCY", "CRASH_PATH"];
/// `SIGABRT` on Linux.
const ABORTED: i32 = 6;

struct Server {
    child: Child,
    addr: String,
}

impl Server {
    fn start(environment: &[(&str, &str)]) -> Self {
        let (mut server, line) = Self::launch(environment);
        server.addr = line.trim().strip_prefix("listening on ").unwrap_or_else(|| panic!("{line}")).to_owned();
        server
    }

    /// Starts it with just these of its variables. Gives its first line, too, which is empty if it ends before it listens.
    fn launch(environment: &[(&str, &str)]) -> (Self, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_server"));
        for variable in VARIABLES {
            command.env_remove(variable);
        }
        command.envs([("PORT", "0"), ("BIND", "127.0.0.1")]).envs(environment.iter().copied());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let server = Self { child, addr: String::new() };
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        (server, line)
    }

    /// How it ends, and what it has logged.
    fn ended(&mut self) -> (ExitStatus, String) {
        let mut log = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        (self.child.wait().unwrap(), log)
    }

    async fn ask(&self, method: &str, path: &str) -> (u16, String, reqwest::header::HeaderMap) {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = client.request(method.parse().unwrap(), format!("http://{}{path}", self.addr));
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        (status, response.text().await.unwrap(), headers)
    }

    /// A client of its own that has asked for this, and takes no answer yet.
    fn asked(&self, method: &str, path: &str) -> TcpStream {
        let mut client = TcpStream::connect(&self.addr).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        write!(client, "{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        client
    }
}

/// All that the client gets.
fn answer(mut client: TcpStream) -> String {
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    answer
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn home_and_heartbeat_answer_as_written() {
    let server = Server::start(&[("SERVER_ID", "S\"7")]);
    let (status, body, headers) = server.ask("GET", "/home").await;
    assert_eq!((status, body.as_str()), (200, r#"{"message":"Hello from Server: S\"7","status":"successful"}"#));
    assert_eq!(headers["content-type"], "application/json");
    for path in ["/heartbeat", "/heatbeat"] {
        let (status, body, _) = server.ask("GET", path).await;
        assert_eq!((status, body.as_str()), (200, ""), "{path}");
    }
    let (status, body, _) = server.ask("GET", "/other").await;
    assert_eq!(status, 404);
    assert!(body.starts_with(r#"{"message":"<Error> "#) && body.ends_with(r#","status":"failure"}"#), "{body}");
    let (status, _, headers) = server.ask("POST", "/home").await;
    assert_eq!((status, &headers["allow"]), (405, &"GET, HEAD".parse().unwrap()));
    assert_eq!(server.ask("HEAD", "/home").await.0, 200);
}

#[tokio::test]
async fn without_a_server_id_it_is_the_host_name() {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let server = Server::start(&[]);
    let (_, body, _) = server.ask("GET", "/home").await;
    assert!(body.contains(&format!("Hello from Server: {}\"", host.trim())), "{body}");
}

#[test]
fn a_signal_ends_it_at_once() {
    let mut server = Server::start(&[]);
    // A client that stays connected holds nothing up.
    let _idle = std::net::TcpStream::connect(&server.addr).unwrap();
    let began = Instant::now();
    let sent = Command::new("kill").args(["-TERM", &server.child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    assert!(server.child.wait().unwrap().success());
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

#[test]
fn home_takes_as_long_as_it_is_told() {
    let server = Server::start(&[("SERVICE_TIME", "50ms")]);
    let began = Instant::now();
    let answer = answer(server.asked("GET", "/home"));
    assert!(began.elapsed() >= Duration::from_millis(50), "{:?}", began.elapsed());
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("Hello from Server"), "{answer}");
}

#[test]
fn those_beyond_the_concurrency_wait() {
    let server = Server::start(&[("SERVICE_TIME", "50ms"), ("SERVICE_CONCURRENCY", "1")]);
    let began = Instant::now();
    let asked: Vec<TcpStream> = (0..3).map(|_| server.asked("GET", "/home")).collect();
    for client in asked {
        let answer = answer(client);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    assert!(began.elapsed() >= Duration::from_millis(150), "{:?}", began.elapsed());
}

#[test]
fn heartbeats_do_not_wait() {
    // So long that whatever waits for a place or a service gets no answer here.
    let server = Server::start(&[("SERVICE_TIME", "60s"), ("SERVICE_CONCURRENCY", "1")]);
    let asked: Vec<TcpStream> = (0..3).map(|_| server.asked("GET", "/home")).collect();
    for path in ["/heartbeat", "/heatbeat"] {
        assert!(answer(server.asked("GET", path)).starts_with("HTTP/1.1 200 "));
    }
    for client in asked {
        client.set_nonblocking(true).unwrap();
        let read = (&client).read(&mut [0; 1]);
        assert!(read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock), "it is served or waits");
    }
}

#[test]
fn a_client_that_leaves_frees_its_place() {
    let server = Server::start(&[("SERVICE_TIME", "1s"), ("SERVICE_CONCURRENCY", "1")]);
    let asked: Vec<TcpStream> = (0..60).map(|_| server.asked("GET", "/home")).collect();
    // They are all in line: the server takes who comes in order.
    assert!(answer(server.asked("GET", "/heartbeat")).starts_with("HTTP/1.1 200 "));
    drop(asked);
    let began = Instant::now();
    assert!(answer(server.asked("GET", "/home")).starts_with("HTTP/1.1 200 "));
    assert!(began.elapsed() < Duration::from_secs(20), "behind those that left: {:?}", began.elapsed());
}

#[test]
fn a_request_to_the_crash_path_crashes_it_and_no_other_does() {
    for method in ["GET", "POST"] {
        let mut server = Server::start(&[("CRASH_PATH", "/crash")]);
        for path in ["/crash/", "/crash2", "/other?/crash"] {
            assert!(answer(server.asked("GET", path)).starts_with("HTTP/1.1 404 "), "{path}");
        }
        assert!(server.child.try_wait().unwrap().is_none(), "it lives");
        assert_eq!(answer(server.asked(method, "/crash?why=not")), "");
        let (status, log) = server.ended();
        assert_eq!(status.signal(), Some(ABORTED));
        let expected = format!("crashing, as {method} /crash is a request to CRASH_PATH");
        assert!(log.contains("WARN") && log.contains(&expected) && log.lines().count() == 1, "{log}");
    }
}

#[tokio::test]
async fn without_a_crash_path_nothing_crashes() {
    let server = Server::start(&[]);
    assert_eq!(server.ask("GET", "/crash").await.0, 404);
    assert_eq!(server.ask("GET", "/heartbeat").await.0, 200);
}

#[test]
fn a_value_that_cannot_be_used_is_refused() {
    for (name, value, allowed) in [
        ("PORT", "http", "a whole number from 0 (any free one) to 65535"),
        ("PORT", "70000", "a whole number from 0 (any free one) to 65535"),
        ("BIND", "here", "an IP address"),
        ("SERVICE_TIME", "10", "a time from 0s to 60s with its unit"),
        ("SERVICE_TIME", "61s", "a time from 0s to 60s with its unit"),
        ("SERVICE_CONCURRENCY", "0", "a whole number from 1 to 10000"),
        ("SERVICE_CONCURRENCY", "10001", "a whole number from 1 to 10000"),
        ("CRASH_PATH", "crash", "a path that begins with /"),
        ("CRASH_PATH", "/home", "but not /home, /heartbeat or /heatbeat"),
    ] {
        let (mut server, line) = Server::launch(&[(name, value)]);
        assert_eq!(line, "", "it starts with {name} '{value}'");
        let (status, message) = server.ended();
        assert_eq!(status.code(), Some(64));
        assert!(message.contains(&format!("{name} is '{value}': ")) && message.contains(allowed), "{message}");
    }
}
