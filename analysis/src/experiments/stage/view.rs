//! What the balancer says of its replicas.

use serde::{Deserialize, Serialize};

/// An item of `/api/v1/replicas`, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Member {
    /// Its ring number.
    pub(crate) id: u32,
    pub(crate) hostname: String,
    pub(crate) state: String,
    /// Of its container or process, once there is one.
    pub(crate) runtime_id: Option<String>,
    pub(crate) addr: Option<String>,
}

impl Member {
    pub(crate) fn is_ready(&self) -> bool {
        self.state == "ready"
    }
}
