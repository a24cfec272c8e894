//! The deployment agent and its balancers, over WebSocket.
//!
//! An agent keeps the fleet: it has the runtime and the supervisor, and nobody's requests. A balancer has the requests, and
//! no runtime. The agent tells its balancers which replicas there are; they tell it what they see of them, and pass on what
//! people ask them for.
//!
//! | module | side | what it is |
//! |---|---|---|
//! | [`wire`] | both | the messages (pure) |
//! | [`ledger`] | agent | the fleet's states by epoch, and the way from one to another (pure) |
//! | [`tally`] | agent | what balancers report, added up; who still holds what (pure) |
//! | [`hub`] | agent | ledger and tally, shared by the sessions |
//! | [`server`], `session` | agent | the listener, and one balancer's connection |
//! | [`link`] | balancer | the connection to the agent |
//! | [`tls`] | both | `wss://` |

pub mod hub;
pub mod ledger;
pub mod link;
pub mod server;
mod session;
pub mod tally;
pub mod tls;
pub mod wire;

use std::time::Duration;

use subtle::ConstantTimeEq;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

/// From one ping to the next, and for how long nothing may be heard before the other side is taken to be gone.
const PING: Duration = Duration::from_secs(1);
const SILENCE: Duration = Duration::from_secs(5);
/// For a connection, its handshakes and the hello, all together.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// For one message to be taken by the other side.
const SEND: Duration = Duration::from_secs(10);
/// Longest message to a balancer: a snapshot of some ten thousand replicas.
const TO_BALANCER: usize = 16 * 1024 * 1024;
/// Longest message to an agent: a report of as many; before its sender is known, a hello.
const TO_AGENT: usize = 16 * 1024 * 1024;
const HELLO: usize = 16 * 1024;
/// Commands of one balancer that may be under way.
const COMMANDS: usize = 64;

/// Limits of a side that takes messages of this length.
fn limits(longest: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(longest))
        .max_frame_size(Some(longest))
        .write_buffer_size(0)
        .max_write_buffer_size(2 * TO_BALANCER)
}

/// Are these the same? Takes as long for one wrong byte as for another.
fn is_token(wanted: Option<&str>, given: Option<&str>) -> bool {
    match wanted {
        None => true,
        Some(wanted) => given.is_some_and(|given| bool::from(wanted.as_bytes().ct_eq(given.as_bytes()))),
    }
}

/// Says what a newer version's message held that this one does not know, once for each.
#[derive(Debug, Default)]
struct Ignored(std::collections::BTreeSet<String>);

impl Ignored {
    /// Others are not told apart any more.
    const MOST: usize = 64;

    fn note(&mut self, whose: &str, what: Vec<String>) {
        for what in what {
            if self.0.len() < Self::MOST && self.0.insert(what.clone()) {
                tracing::info!("the {whose} sends '{what}', which this version does not know: ignored");
            }
        }
    }
}
