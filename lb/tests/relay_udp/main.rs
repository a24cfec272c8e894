//! Relayed UDP with real servers and clients: who gets a datagram, where answers come from, what datagrams carry, flows and
//! their table.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "tests fail by panicking, and say what they measured"
)]
#![allow(clippy::disallowed_methods, reason = "tests read the environment that they pass on")]

mod datagrams;
mod flows;
#[path = "../support/mod.rs"]
mod support;
mod table;

use serde_json::{Value, json};

use support::Lb;
use support::control::Control;
use support::server::UdpServer;

/// The port that clients use.
const PORT: u16 = 20_000;

/// Registers a server, with these further fields.
async fn register(lb: &Lb, server: &UdpServer, further: Value) -> Control {
    let mut control = Control::connect(lb, server.ip()).await;
    control.register_with("udp", server.addr.port(), PORT, further).await;
    control
}

fn by_flow() -> Value {
    json!({"affinity": "flow"})
}
