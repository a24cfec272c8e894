//! What replicas are started from: the part of a launch that a rolling update changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::replica::{Generation, ReplicaId, ReplicaSpec};

/// What a replica is started from. What a runtime has no use for, it leaves alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Template {
    /// docker: the image.
    pub image: String,
    /// process: program and arguments, in which `{port}` and `{hostname}` are replaced; none for the sample server.
    /// docker: what is run instead of the image's own command; none for that.
    pub command: Vec<String>,
    /// Environment variables besides `SERVER_ID` and `PORT`.
    pub env: BTreeMap<String, String>,
    /// docker: the most CPU time it may take, billionths of a core.
    pub nano_cpus: Option<i64>,
    /// docker: the most memory it may take, bytes.
    pub memory: Option<i64>,
}

/// A replica that is to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// Its identity.
    pub spec: ReplicaSpec,
    /// What it is started from.
    pub template: Arc<Template>,
    /// Spares that have taken over ring numbers since they were launched. A runtime that keeps identities keeps these with
    /// the new replica: who has the list of the youngest one knows all numbers that others have not been launched with.
    pub promoted: Vec<(Generation, ReplicaId)>,
    /// Whose place it is to take once it has answered, if a rolling update starts it beside that one.
    pub instead_of: Option<Generation>,
}

/// The mark of a rolling update on what it has started, so that a restarted agent goes on with the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployed {
    /// What it was started from.
    pub template: Template,
    /// What the configuration said at that time. Once that says something else, it is right again.
    pub instead_of: Template,
}

impl std::fmt::Display for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.image.as_str(), self.command.as_slice()) {
            ("", []) => f.write_str("the sample server"),
            ("", command) => f.write_str(&command.join(" ")),
            (image, _) => f.write_str(image),
        }
    }
}
