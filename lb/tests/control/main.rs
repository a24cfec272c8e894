//! The control channel, letter by letter as the contract has it, with real servers and clients.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "tests fail by panicking, and say what they measured"
)]
#![allow(clippy::disallowed_methods, reason = "tests read the environment that they pass on")]

mod frames;
mod health;
mod limits;
mod python;
mod refusals;
mod shown;
#[path = "../support/mod.rs"]
mod support;
