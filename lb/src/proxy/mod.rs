//! The HTTP data path: takes a request, leases a replica for it, and streams both ways.
//!
//! Each core runs one [`worker`] with its own listener, clock and connections to replicas. Nothing here can start or stop a
//! replica; what it finds out about one goes to the pool as a suspicion.
//!
//! | module | what it is |
//! |---|---|
//! | [`worker`] | listener, connections of clients, shutdown |
//! | `forward` | one request: tries, deadlines, the answer |
//! | `connections` | idle connections to replicas |
//! | `body` | streaming bodies that hold their lease |
//! | `watchdog` | deadlines |
//! | `key`, `headers`, `retry` | pure decisions |
//! | `error` | failures as statuses |

mod body;
mod connections;
mod error;
mod forward;
mod headers;
mod key;
mod retry;
mod watchdog;
pub mod worker;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

pub use body::{BodyError, ProxyBody};
pub use key::HashKey;

/// What a replica's 404 becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotFound {
    /// 400 with the assignment's message.
    Assignment,
    /// The 404 as it is.
    Pass,
}

impl NotFound {
    /// The words that select one.
    pub const WORDS: &'static [&'static str] = &["assignment", "pass"];
}

impl FromStr for NotFound {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "assignment" => Ok(Self::Assignment),
            "pass" => Ok(Self::Pass),
            _ => Err(Self::WORDS.join(", ")),
        }
    }
}

impl fmt::Display for NotFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Assignment => "assignment",
            Self::Pass => "pass",
        })
    }
}

/// How the proxy treats requests.
#[derive(Debug, Clone)]
pub struct ProxyConfig {
    /// What places a request.
    pub hash_key: HashKey,
    /// What a 404 becomes.
    pub not_found: NotFound,
    /// For a connection to a replica to be made.
    pub connect_timeout: Duration,
    /// From the request's last byte to the response's header.
    pub response_timeout: Duration,
    /// For the next piece of a body, either way, and for a client that reads nothing.
    pub idle_timeout: Duration,
    /// For a client's whole header, and between two requests on a connection.
    pub client_timeout: Duration,
    /// Tries of a request that may have reached a replica, the first included.
    pub tries: u32,
    /// How long an idle connection to a replica is kept.
    pub keepalive: Duration,
}
