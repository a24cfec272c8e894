//! What was measured last of each replica, for whoever wants to see it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::replica::Generation;

/// Of one replica.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Figures {
    /// Cores in use, smoothed; `None` after one reading only.
    pub cpu: Option<f64>,
    /// Bytes of memory in use.
    pub memory: u64,
}

/// See the module's documentation. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Board(Arc<Mutex<HashMap<Generation, Figures>>>);

impl Board {
    fn figures(&self) -> MutexGuard<'_, HashMap<Generation, Figures>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was measured last, if anything was.
    pub fn get(&self, generation: Generation) -> Option<Figures> {
        self.figures().get(&generation).copied()
    }

    pub(super) fn set(&self, generation: Generation, figures: Figures) {
        self.figures().insert(generation, figures);
    }

    pub(super) fn retain(&self, is_there: impl Fn(Generation) -> bool) {
        self.figures().retain(|generation, _| is_there(*generation));
    }
}
