//! The sample replica as a process, over real sockets.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

struct Server {
    child: Child,
    addr: String,
}

impl Server {
    fn start(environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_server"));
        command.env_remove("SERVER_ID").envs([("PORT", "0"), ("BIND", "127.0.0.1")]).envs(environment.iter().copied());
        let mut child = command.stdout(Stdio::piped()).spawn().expect("it runs");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let addr = line.trim().strip_prefix("listening on ").unwrap_or_else(|| panic!("{line}")).to_owned();
        Self { child, addr }
    }

    async fn ask(&self, method: &str, path: &str) -> (u16, String, reqwest::header::HeaderMap) {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = client.request(method.parse().unwrap(), format!("http://{}{path}", self.addr));
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        (status, response.text().await.unwrap(), headers)
    }
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
fn a_port_that_is_none_is_refused() {
    for (name, value) in [("PORT", "http"), ("PORT", "70000"), ("BIND", "here")] {
        let output = Command::new(env!("CARGO_BIN_EXE_server")).env(name, value).output().unwrap();
        assert_eq!(output.status.code(), Some(64));
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(message.contains(&format!("{name} is '{value}'")), "{message}");
    }
}
