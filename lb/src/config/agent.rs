//! Settings of the deployment agent, and of a balancer that follows one.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::{Layers, address, secret};

/// Where `lb agent` listens for balancers, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentConfig {
    /// The listener.
    pub listen: SocketAddr,
    /// What balancers have to bring along.
    pub token: Option<String>,
    /// Certificate and key, for TLS.
    pub tls: Option<(PathBuf, PathBuf)>,
}

/// Where a balancer finds its agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowConfig {
    /// The whole URL.
    pub url: String,
    /// Its host, without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// With `wss://`: the certificates to believe.
    pub ca: Option<PathBuf>,
    /// What it has to bring along.
    pub token: Option<String>,
}

fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("a file".into()) } else { Ok(text.into()) }
}

pub(super) fn read(l: &mut Layers) -> Option<AgentConfig> {
    let listen = l.parse("agent_listen", address);
    let token = l.parse("agent_token", secret);
    let (certificate, key) = (l.parse("agent_cert", path), l.parse("agent_key", path));
    if certificate.is_some() != key.is_some() {
        let (there, missing) = if key.is_some() { ("agent_key", "agent_cert") } else { ("agent_cert", "agent_key") };
        l.refuse(there, &format!("it needs {missing} as well"));
    }
    Some(AgentConfig { listen: listen?, token, tls: certificate.zip(key) })
}

pub(super) fn follow(l: &mut Layers) -> Option<FollowConfig> {
    const ALLOWED: &str = "ws://host:port or wss://host:port";
    let url = l.parse("agent", |text| {
        let uri: http::Uri = text.parse().map_err(|_| ALLOWED.to_owned())?;
        let is_plain = matches!(uri.path(), "" | "/") && uri.query().is_none();
        let is_secure = match uri.scheme_str() {
            Some("ws") => Some(false),
            Some("wss") => Some(true),
            _ => None,
        };
        let (host, port) = (uri.host().map(str::to_owned), uri.port_u16());
        match (is_secure, host, port) {
            (Some(is_secure), Some(host), Some(port)) if is_plain => Ok((text.to_owned(), host, port, is_secure)),
            _ => Err(ALLOWED.to_owned()),
        }
    });
    let ca = l.parse("agent_ca", path);
    let token = l.parse("agent_token", secret);
    let (url, host, port, is_secure) = url?;
    if is_secure && ca.is_none() {
        l.refuse("agent", "wss:// needs agent_ca, the certificates to believe");
    } else if !is_secure && ca.is_some() {
        l.refuse("agent_ca", "it is for wss://, and agent is a ws:// URL");
    }
    Some(FollowConfig {
        url,
        host: host.trim_matches(['[', ']']).to_owned(),
        port,
        ca: ca.filter(|_| is_secure),
        token,
    })
}
