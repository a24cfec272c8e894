//! The four that are compared: how each is configured, started, and known to be ready.
//!
//! What they are told to do is the same: HTTP/1.1 and kept connections on both sides, the same four fields added to each
//! request, no access log, one thread. The relay is the exception: it is the floor, and does not read HTTP.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio::process::Command;

use super::ring_slots;
use super::{PROXY_CORE, pinned};
use crate::child::Running;
use crate::loopback;

/// Connections that a proxy must be able to hold on either side.
pub(crate) const CONNECTIONS: u32 = 4096;
/// Fields that every proxy, the relay apart, adds to a request.
const FIELDS: [&str; 4] = ["x-forwarded-for:", "x-forwarded-proto:", "x-forwarded-host:", "x-request-id:"];

/// Which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Lb,
    Nginx,
    Haproxy,
    Relay,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Lb, Self::Nginx, Self::Haproxy, Self::Relay];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Lb => "lb",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Relay => "relay",
        }
    }
}

/// The programs of this run.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    pub(crate) lb: PathBuf,
    /// This very program, which has the relay in it.
    pub(crate) analysis: PathBuf,
}

/// A proxy that answers.
pub(crate) struct Proxy {
    pub(crate) kind: Kind,
    /// `http://127.0.0.1:port`
    pub(crate) base: String,
    pub(crate) running: Running,
}

impl Proxy {
    /// Starts `kind` before `members` (ports of replicas) and waits until it serves. `name` is for its files in `dir`.
    pub(crate) async fn start(
        kind: Kind,
        name: &str,
        programs: &Programs,
        members: &[u16],
        dir: &Path,
    ) -> Result<Self, String> {
        let (port, admin) = (loopback::free_port()?, loopback::free_port()?);
        let file = dir.join(format!("{name}.conf"));
        let write = |text: String| std::fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()));
        let mut command: Command;
        match kind {
            Kind::Lb => {
                command = pinned(PROXY_CORE, &programs.lb);
                command.args(["serve", "--runtime", "static", "--workers", "1", "--not-found", "pass"]);
                command.args(["--listen", &format!("127.0.0.1:{port}")]);
                command.args(["--admin-listen", &format!("127.0.0.1:{admin}")]);
                let slots = ring_slots(members.len() as u32);
                command.args(["--members", &addresses(members), "--slots", &slots.to_string()]);
            }
            Kind::Nginx => {
                write(nginx_conf(port, members, dir))?;
                command = pinned(PROXY_CORE, Path::new("nginx"));
                command.arg("-p").arg(dir).arg("-c").arg(&file).args(["-e", "stderr"]);
            }
            Kind::Haproxy => {
                write(haproxy_conf(port, members))?;
                command = pinned(PROXY_CORE, Path::new("haproxy"));
                command.arg("-f").arg(&file);
            }
            Kind::Relay => {
                command = pinned(PROXY_CORE, &programs.analysis);
                command.args(["relay", "--listen", &format!("127.0.0.1:{port}"), "--members", &addresses(members)]);
            }
        }
        let log = dir.join(format!("{name}.log"));
        let running = Running::start(command, log).map_err(|error| format!("{name} can't be started: {error}"))?;
        let mut proxy = Self { kind, base: format!("http://127.0.0.1:{port}"), running };
        let ready = match kind {
            // Of 500 members the first answers long before the last is known to be ready.
            Kind::Lb => format!("http://127.0.0.1:{admin}/readyz"),
            _ => format!("{}/54", proxy.base),
        };
        loopback::until_ready(&ready, kind.name(), &mut proxy.running).await?;
        proxy.check().await?;
        Ok(proxy)
    }

    /// Does it pass bodies on whole, and add what all of them are to add? Else the comparison would not be fair.
    async fn check(&self) -> Result<(), String> {
        self.check_bodies().await?;
        let name = self.kind.name();
        let failed = |error: reqwest::Error| format!("{name}: {error}");
        let head = loopback::client()?.get(format!("{}/echo", self.base)).send().await.map_err(failed)?.text().await;
        let head = head.map_err(failed)?.to_ascii_lowercase();
        let missing: Vec<_> = FIELDS.iter().filter(|field| !head.contains(**field)).collect();
        if self.kind != Kind::Relay && !missing.is_empty() {
            return Err(format!("{name} does not add {missing:?}; a replica sees:\n{head}"));
        }
        Ok(())
    }

    /// Does it pass bodies on whole?
    pub(crate) async fn check_bodies(&self) -> Result<(), String> {
        let (client, name) = (loopback::client()?, self.kind.name());
        let failed = |error: reqwest::Error| format!("{name}: {error}");
        for (path, length) in [("/54", 54), ("/10k", 10 * 1024), ("/1m", 1024 * 1024)] {
            let body = client.get(format!("{}{path}", self.base)).send().await.map_err(failed)?.bytes().await;
            let got = body.map_err(failed)?.len();
            if got != length {
                return Err(format!("{name}: {path} has {got} bytes, not {length}"));
            }
        }
        Ok(())
    }
}

pub(crate) fn addresses(members: &[u16]) -> String {
    members.iter().map(|port| format!("127.0.0.1:{port}")).collect::<Vec<_>>().join(",")
}

/// Buffering as by default, but for one thing: a request body that does not fit in 16 KiB goes to a file by default, which
/// would make the POST row a measurement of the file system.
fn nginx_conf(port: u16, members: &[u16], dir: &Path) -> String {
    let user = if nix::unistd::geteuid().is_root() { "user root;\n" } else { "" };
    let dir = dir.display();
    let mut servers = String::new();
    for member in members {
        let _ = writeln!(servers, "    server 127.0.0.1:{member};");
    }
    format!(
        "{user}daemon off;
worker_processes 1;
worker_rlimit_nofile {files};
pid {dir}/nginx.pid;
error_log stderr crit;
events {{
  worker_connections {files};
}}
http {{
  access_log off;
  keepalive_requests 1000000000;
  client_body_buffer_size 128k;
  client_body_temp_path {dir}/nginx-body;
  proxy_temp_path {dir}/nginx-proxy;
  fastcgi_temp_path {dir}/nginx-fastcgi;
  uwsgi_temp_path {dir}/nginx-uwsgi;
  scgi_temp_path {dir}/nginx-scgi;
  upstream replicas {{
{servers}    keepalive 1024;
    keepalive_requests 1000000000;
  }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://replicas;
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_set_header Connection '';
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Forwarded-Host $http_host;
      proxy_set_header X-Request-ID $request_id;
    }}
  }}
}}
",
        files = CONNECTIONS * 2,
    )
}

/// `http-reuse always`, as it suits HAProxy better than its default: with `safe` the first request of each client
/// connection opens a connection to a replica, which neither lb nor nginx does.
fn haproxy_conf(port: u16, members: &[u16]) -> String {
    let mut servers = String::new();
    for (member, number) in members.iter().zip(1..) {
        let _ = writeln!(servers, "  server S{number} 127.0.0.1:{member} check inter 500ms");
    }
    format!(
        "global
  nbthread 1
  maxconn {CONNECTIONS}
defaults
  mode http
  timeout connect 2s
  timeout client 60s
  timeout server 30s
frontend public
  bind 127.0.0.1:{port} backlog 4096
  maxconn {CONNECTIONS}
  option forwardfor
  unique-id-format %{{+X}}o\\ %ci:%cp_%fi:%fp_%Ts_%rt:%pid
  unique-id-header X-Request-ID
  http-request set-header X-Forwarded-Proto http
  http-request set-header X-Forwarded-Host %[req.hdr(Host)]
  default_backend replicas
backend replicas
  balance roundrobin
  http-reuse always
  option httpchk
  http-check send meth GET uri /heartbeat ver HTTP/1.1 hdr Host replica
{servers}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_member_is_in_every_configuration() {
        let nginx = nginx_conf(80, &[1001, 1002], Path::new("/tmp/x"));
        let haproxy = haproxy_conf(80, &[1001, 1002]);
        assert!(nginx.contains("server 127.0.0.1:1001;\n    server 127.0.0.1:1002;\n    keepalive 1024;"));
        assert!(haproxy.contains("S1 127.0.0.1:1001 check") && haproxy.contains("S2 127.0.0.1:1002 check"));
        assert_eq!(addresses(&[1001, 1002]), "127.0.0.1:1001,127.0.0.1:1002");
        for field in FIELDS {
            let name = field.trim_end_matches(':');
            assert!(nginx.to_ascii_lowercase().contains(name), "{name}");
            assert!(haproxy.to_ascii_lowercase().contains(name) || name == "x-forwarded-for", "{name}");
        }
    }
}
