//! Relayed TCP with real servers and clients: the source documents' scenario step by step, who gets a connection, how
//! connections end, what they carry, and what becomes of them when a server or the balancer dies.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "tests fail by panicking, and say what they measured"
)]
#![allow(clippy::disallowed_methods, reason = "tests read the environment that they pass on")]

mod deaths;
mod ends;
mod load;
mod placement;
mod scenario;
#[path = "../support/mod.rs"]
mod support;
