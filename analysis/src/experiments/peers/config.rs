//! How HAProxy and nginx are configured: as near to the balancer's defaults as they can be.

use std::fmt::Write as _;
use std::path::Path;

use super::super::stage::Member;

/// Connections on either side, at most.
const CONNECTIONS: u32 = 4096;
/// On nginx's side of its replicas, unused.
const KEPT: u32 = 256;

fn addr(member: &Member) -> &str {
    member.addr.as_deref().unwrap_or_default()
}

/// Learns from live traffic that a replica fails, not just from checks.
const OBSERVE: &str = " observe layer4 error-limit 3 on-error mark-down on-marked-down shutdown-sessions";

/// A request's `id` decides, by the function that is the default; with `factor`, a replica holds at most so many percent of
/// the mean. Checks, tries (the first and two more) and time limits are those of the balancer's defaults.
pub(super) fn haproxy(port: u16, members: &[Member], (factor, observes): (Option<u32>, bool)) -> String {
    let observe = if observes { OBSERVE } else { "" };
    let factor = factor.map_or_else(String::new, |factor| format!("  hash-balance-factor {factor}\n"));
    let mut servers = String::new();
    for member in members {
        let _ = writeln!(servers, "  server {} {}", member.hostname, addr(member));
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
  timeout check 500ms
  retries 2
  option redispatch 1
  retry-on all-retryable-errors
frontend public
  bind 127.0.0.1:{port} backlog {CONNECTIONS}
  maxconn {CONNECTIONS}
  default_backend replicas
backend replicas
  balance url_param id
  hash-type consistent
{factor}  http-reuse always
  option httpchk
  http-check send meth GET uri /heartbeat ver HTTP/1.1 hdr Host replica
  default-server check inter 500ms fall 3 rise 1{observe}
{servers}"
    )
}

/// The same as far as it goes: it has no checks of its own, and counts failures in whole seconds. One worker, so that what
/// has been learnt of a replica is known to all.
pub(super) fn nginx(port: u16, members: &[Member], dir: &Path) -> String {
    let user = if nix::unistd::geteuid().is_root() { "user root;\n" } else { "" };
    let dir = dir.display();
    let mut servers = String::new();
    for member in members {
        let _ = writeln!(servers, "    server {} max_fails=3 fail_timeout=2s;", addr(member));
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
  client_body_temp_path {dir}/nginx-body;
  proxy_temp_path {dir}/nginx-proxy;
  fastcgi_temp_path {dir}/nginx-fastcgi;
  uwsgi_temp_path {dir}/nginx-uwsgi;
  scgi_temp_path {dir}/nginx-scgi;
  upstream replicas {{
    hash $arg_id consistent;
{servers}    keepalive {KEPT};
    keepalive_requests 1000000000;
  }}
  server {{
    listen 127.0.0.1:{port} backlog={CONNECTIONS};
    location / {{
      proxy_pass http://replicas;
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_set_header Connection '';
      proxy_connect_timeout 2s;
      proxy_read_timeout 30s;
      proxy_next_upstream error timeout;
      proxy_next_upstream_tries 3;
    }}
  }}
}}
",
        files = CONNECTIONS * 2,
    )
}

/// For `--members`.
pub(super) fn members(members: &[Member]) -> String {
    members.iter().map(|member| format!("{}={}", member.hostname, addr(member))).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> Vec<Member> {
        let member = |id: u32| Member {
            id,
            hostname: format!("S{id}"),
            state: "ready".into(),
            runtime_id: None,
            addr: Some(format!("10.0.0.{id}:5000")),
        };
        [1, 2].map(member).into()
    }

    #[test]
    fn every_replica_is_in_every_configuration() {
        let haproxy = haproxy(80, &two(), (None, false));
        assert!(haproxy.ends_with("\n  server S1 10.0.0.1:5000\n  server S2 10.0.0.2:5000\n"), "{haproxy}");
        let nginx = nginx(80, &two(), Path::new("/tmp/x"));
        let of = |id| format!("    server 10.0.0.{id}:5000 max_fails=3 fail_timeout=2s;\n");
        assert!(nginx.contains(&format!("    hash $arg_id consistent;\n{}{}    keepalive", of(1), of(2))), "{nginx}");
        assert_eq!(members(&two()), "S1=10.0.0.1:5000,S2=10.0.0.2:5000");
    }

    #[test]
    fn a_factor_and_a_look_at_traffic_are_there_only_if_they_are_wanted() {
        let bounded = haproxy(80, &two(), (Some(125), false));
        assert!(bounded.contains("  hash-type consistent\n  hash-balance-factor 125\n  http-reuse always\n"));
        let observing = haproxy(80, &two(), (Some(125), true));
        assert!(observing.contains(" rise 1 observe layer4 "), "{observing}");
        assert_eq!(observing.replace(OBSERVE, ""), bounded);
        assert_eq!(bounded.replace("  hash-balance-factor 125\n", ""), haproxy(80, &two(), (None, false)));
    }
}
