//! The HTTP data path: takes a request, leases a replica for it, and streams both ways.
//!
//! Each core runs one [`worker`] with its own listener, clock and connections to replicas. Nothing here can start or stop a
//! replica; what it finds out about one goes to the pool as a suspicion.
//!
//! | module | what it is |
//! |---|---|
//! | [`worker`] | a core's listener, its shared state, shutdown |
//! | `session` | one client's connection: request after request |
//! | `forward` | one request: tries, retries, the verdict |
//! | `upload`, `respond` | the two directions of one try, which run at the same time |
//! | `tunnel` | a connection after a switch of protocols |
//! | `own` | requests for the balancer itself |
//! | `connections`, `addresses` | what these stand on, besides [`crate::net`] and [`crate::watchdog`] |
//! | `key`, `sticky`, `rewrite`, `forwarded`, `retry` | pure decisions |
//! | `error` | failures as statuses |

mod addresses;
mod connections;
mod error;
mod forward;
mod forwarded;
mod key;
mod own;
mod respond;
mod retry;
mod rewrite;
mod session;
mod sticky;
mod tunnel;
mod upload;
pub mod worker;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

pub use forwarded::TrustedProxies;
pub use key::{HashKey, HashKeys};
pub use own::OwnRoutes;
pub use retry::{Percent, RetryBudget};
pub use sticky::StickyCookie;

use crate::http1::HeadLimits;

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
    pub hash_keys: HashKeys,
    /// What keeps a client at its replica.
    pub sticky: Option<StickyCookie>,
    /// What a 404 becomes.
    pub not_found: NotFound,
    /// What a request's header may measure.
    pub head: HeadLimits,
    /// Bytes of a request's body.
    pub max_body: Option<u64>,
    /// Requests under way at one time, of all workers together.
    pub max_in_flight: Option<u32>,
    /// Connections of one client address at one time, of all workers together.
    pub max_client_connections: Option<u32>,
    /// From the first byte of a client's header to its last.
    pub header_timeout: Duration,
    /// Between two requests on a client's connection.
    pub client_timeout: Duration,
    /// For a connection to a replica to be made.
    pub connect_timeout: Duration,
    /// From a request's last byte to its response's header, all tries together.
    pub response_timeout: Duration,
    /// The same for one try.
    pub try_timeout: Option<Duration>,
    /// For the next piece of a body, either way, and for a client that reads nothing.
    pub idle_timeout: Duration,
    /// Tries of a request that may have reached a replica, the first included.
    pub tries: u32,
    /// How many retries there may be.
    pub retry_budget: RetryBudget,
    /// Bytes of a body that are kept for a retry.
    pub retry_body: usize,
    /// Peers whose word about a request's origin is believed.
    pub trusted_proxies: TrustedProxies,
    /// How long an idle connection to a replica is kept.
    pub keepalive: Duration,
}
