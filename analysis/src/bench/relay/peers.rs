//! How nginx and HAProxy are configured as relays, each as suits it best.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::bench::proxies::CONNECTIONS;
use crate::child::PATH;

/// nginx's part for TCP and UDP, which many builds have as a module or not at all.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    BuiltIn,
    Module(PathBuf),
    Missing,
}

impl Stream {
    pub(crate) fn look() -> Self {
        let said = std::process::Command::new("nginx").arg("-V").env("PATH", PATH).output();
        let said = said.map(|output| String::from_utf8_lossy(&output.stderr).into_owned()).unwrap_or_default();
        match Self::of(&said) {
            Self::Module(file) if !file.is_file() => Self::Missing,
            stream => stream,
        }
    }

    /// As the arguments of its build tell.
    fn of(arguments: &str) -> Self {
        let arguments = || arguments.split_whitespace();
        let folder = arguments().find_map(|argument| argument.strip_prefix("--modules-path="));
        if arguments().any(|argument| argument == "--with-stream") {
            Self::BuiltIn
        } else if arguments().any(|argument| argument == "--with-stream=dynamic") {
            Self::Module(Path::new(folder.unwrap_or("/usr/lib/nginx/modules")).join("ngx_stream_module.so"))
        } else {
            Self::Missing
        }
    }

    /// The line that loads it.
    pub(crate) fn load(&self) -> Result<String, String> {
        match self {
            Self::BuiltIn => Ok(String::new()),
            Self::Module(file) => Ok(format!("load_module {};\n", file.display())),
            Self::Missing => Err("nginx has no stream module".into()),
        }
    }
}

/// With larger buffers than by default (16k): 1 MiB takes a third less CPU time then, and short answers no more.
pub(crate) fn nginx_conf(
    module: &str,
    (tcp, members): (u16, &[u16]),
    (udp, echoes): (u16, &[u16]),
    dir: &Path,
) -> String {
    let user = if nix::unistd::geteuid().is_root() { "user root;\n" } else { "" };
    let servers = |ports: &[u16]| {
        ports.iter().fold(String::new(), |mut servers, port| {
            let _ = write!(servers, " server 127.0.0.1:{port};");
            servers
        })
    };
    format!(
        "{module}{user}daemon off;
worker_processes 1;
worker_rlimit_nofile {files};
pid {dir}/nginx-stream.pid;
error_log stderr crit;
events {{
  worker_connections {files};
}}
stream {{
  upstream replicas {{{tcp_servers} }}
  upstream echoes {{{udp_servers} }}
  server {{
    listen 127.0.0.1:{tcp} backlog=4096;
    proxy_pass replicas;
    proxy_buffer_size 64k;
  }}
  server {{
    listen 127.0.0.1:{udp} udp;
    proxy_pass echoes;
    proxy_timeout 60s;
  }}
}}
",
        files = CONNECTIONS * 2,
        dir = dir.display(),
        tcp_servers = servers(members),
        udp_servers = servers(echoes),
    )
}

/// With `splice` for long answers: 1 MiB takes a third of the CPU time that it takes without, but short ones a twentieth more.
/// `splice-auto` chooses not to splice either.
pub(crate) fn haproxy_conf(port: u16, members: &[u16], splice: bool) -> String {
    let splice = if splice { "  option splice-response\n" } else { "" };
    let mut servers = String::new();
    for (member, number) in members.iter().zip(1..) {
        let _ = writeln!(servers, "  server S{number} 127.0.0.1:{member} check inter 5s");
    }
    format!(
        "global
  nbthread 1
  maxconn {CONNECTIONS}
defaults
  mode tcp
{splice}  timeout connect 2s
  timeout client 60s
  timeout server 60s
frontend public
  bind 127.0.0.1:{port} backlog 4096
  maxconn {CONNECTIONS}
  default_backend replicas
backend replicas
  balance roundrobin
{servers}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nginx_tells_where_its_module_is() {
        let debian = "configure arguments: --modules-path=/usr/lib/nginx/modules --with-stream=dynamic --with-x";
        let module = Stream::of(debian);
        assert_eq!(module, Stream::Module("/usr/lib/nginx/modules/ngx_stream_module.so".into()));
        assert_eq!(module.load().unwrap(), "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\n");
        assert_eq!(Stream::of("--with-stream --with-stream_ssl_module"), Stream::BuiltIn);
        assert_eq!(Stream::of("--with-stream_ssl_module"), Stream::Missing);
        assert!(Stream::BuiltIn.load().unwrap().is_empty() && Stream::Missing.load().is_err());
    }

    #[test]
    fn every_replica_is_in_every_configuration() {
        let nginx = nginx_conf("", (80, &[1001, 1002]), (53, &[2001, 2002]), Path::new("/tmp/x"));
        assert!(nginx.contains("upstream replicas { server 127.0.0.1:1001; server 127.0.0.1:1002; }"), "{nginx}");
        assert!(nginx.contains("upstream echoes { server 127.0.0.1:2001; server 127.0.0.1:2002; }"), "{nginx}");
        assert!(nginx.contains("listen 127.0.0.1:53 udp;"), "{nginx}");
        let haproxy = haproxy_conf(80, &[1001, 1002], false);
        assert!(haproxy.contains("S1 127.0.0.1:1001 check") && haproxy.contains("S2 127.0.0.1:1002 check"));
        assert!(!haproxy.contains("splice"));
        assert!(haproxy_conf(80, &[1001], true).contains("\n  option splice-response\n  timeout"));
    }
}
