//! Ringkeeper: a load balancer that keeps its replicas alive.
//!
//! Modules stand on floors; each imports from lower floors only. `docs/architecture.md` draws them.

pub mod admin;
pub mod agent;
pub mod app;
pub mod config;
pub mod control;
pub mod ewma;
pub mod http1;
pub mod memory;
pub mod metrics;
pub mod net;
pub mod pilot;
pub mod pin;
pub mod placement;
pub mod policy;
pub mod pool;
pub mod probe;
pub mod proxy;
pub mod registry;
pub mod relay;
pub mod replica;
pub mod runtime;
pub mod shutdown;
pub mod supervisor;
pub mod watchdog;
