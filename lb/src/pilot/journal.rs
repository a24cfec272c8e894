//! The decisions of late, for whoever wants to know why.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// Decisions that are kept; the oldest makes room.
const KEPT: usize = 256;

/// What was decided on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// N.
    Scale,
    /// A replica that is out of its peers' range.
    Eject,
    /// A replica's weight or priority.
    Weigh,
}

/// One decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Counts them.
    pub seq: u64,
    /// RFC 3339.
    pub at: String,
    /// What it was about.
    pub kind: Kind,
    /// What was decided: `3 -> 4 replicas`, `replace S2`, `S2: weight 10 -> 5`.
    pub decision: String,
    /// Why, with the figure and its limit.
    pub reason: String,
    /// Only told, not carried out?
    pub dry_run: bool,
    /// How often a dry run has said the same again.
    #[serde(default)]
    pub repeated: u32,
    /// What came of it: `done`, or why not; `null` while it is being carried out.
    pub outcome: Option<String>,
}

/// See the module's documentation. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Journal(Arc<Mutex<(u64, VecDeque<Entry>)>>);

impl Journal {
    fn entries(&self) -> MutexGuard<'_, (u64, VecDeque<Entry>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a decision, and gives its number.
    pub fn enter(&self, kind: Kind, decision: String, reason: String, dry_run: bool) -> u64 {
        let mut entries = self.entries();
        let (count, kept) = &mut *entries;
        // What a dry run says again and again is one entry, with its latest reason.
        let is_same = |last: &&mut Entry| dry_run && last.dry_run && last.kind == kind && last.decision == decision;
        if let Some(last) = kept.back_mut().filter(is_same) {
            (last.reason, last.repeated) = (reason, last.repeated + 1);
            return last.seq;
        }
        *count += 1;
        let at = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        let outcome = dry_run.then(|| "not carried out: dry run".to_owned());
        kept.push_back(Entry { seq: *count, at, kind, decision, reason, dry_run, repeated: 0, outcome });
        if kept.len() > KEPT {
            kept.pop_front();
        }
        *count
    }

    /// Was the entry made before, and is only repeated?
    pub fn is_repeated(&self, seq: u64) -> bool {
        self.entries().1.iter().any(|entry| entry.seq == seq && entry.repeated > 0)
    }

    /// Says what came of a decision.
    pub fn settle(&self, seq: u64, outcome: String) {
        let mut entries = self.entries();
        if let Some(entry) = entries.1.iter_mut().find(|entry| entry.seq == seq) {
            entry.outcome = Some(outcome);
        }
    }

    /// Those that are kept, the oldest first.
    pub fn list(&self) -> Vec<Entry> {
        self.entries().1.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_makes_room() {
        let journal = Journal::default();
        for number in 0..KEPT + 10 {
            journal.enter(Kind::Scale, format!("{number}"), String::new(), number % 2 == 1);
        }
        journal.settle(1, "nobody remembers".into());
        journal.settle(11, "done".into());
        let list = journal.list();
        assert_eq!((list.len(), list[0].seq, list[0].decision.as_str()), (KEPT, 11, "10"));
        assert_eq!(list[0].outcome.as_deref(), Some("done"));
        assert!(list[1].dry_run && list[1].outcome.is_some());
        assert_eq!(list[2].outcome, None);
    }

    #[test]
    fn a_dry_run_that_repeats_itself_pushes_nobody_out() {
        let journal = Journal::default();
        let enter = |reason: &str| journal.enter(Kind::Scale, "1 -> 2 replicas".into(), reason.into(), true);
        assert_eq!((enter("a"), enter("b"), enter("c")), (1, 1, 1));
        let list = journal.list();
        assert_eq!((list.len(), list[0].reason.as_str(), list[0].repeated), (1, "c", 2));
        assert!(journal.is_repeated(1));
        journal.enter(Kind::Scale, "1 -> 3 replicas".into(), String::new(), true);
        assert_eq!((enter("d"), journal.is_repeated(3)), (3, false), "something else came in between");
    }
}
