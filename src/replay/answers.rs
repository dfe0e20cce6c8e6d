//! Answers that code gets on the spot, without waiting: whether it may go a patched way, and refusals.
//!
//! The first run finds them out and records them. On replay the history gives them: the payload limit, or the code, may have been another then.

use std::collections::{HashMap, HashSet};

use super::history::{HistoryEvent, Refused};
use crate::model::{Failure, Sequence};

/// See the module.
#[derive(Default)]
pub(super) struct Answers {
    /// What the code was told about each patch: the same for the whole execution.
    patches: HashMap<String, bool>,
    recorded_patches: HashSet<String>,
    recorded_refusals: HashMap<(Sequence, Refused), Failure>,
}

impl Answers {
    /// Learns from a turn's events, before they are replayed, what the code was told then.
    pub(super) fn learn(&mut self, events: &[HistoryEvent]) {
        for event in events {
            match event {
                HistoryEvent::PatchMarked { name } => {
                    self.recorded_patches.insert(name.clone());
                }
                HistoryEvent::CallRefused {
                    sequence,
                    what,
                    failure,
                } => {
                    self.recorded_refusals.insert((*sequence, *what), failure.clone());
                }
                _ => {}
            }
        }
    }

    /// Whether the code may go the patched way, and whether this is the first time that it asks.
    pub(super) fn patched(&mut self, name: &str, is_replaying: bool) -> (bool, bool) {
        if let Some(known) = self.patches.get(name) {
            return (*known, false);
        }
        let answer = !is_replaying || self.recorded_patches.contains(name);
        self.patches.insert(name.to_owned(), answer);
        (answer, true)
    }

    /// The refusal that the history has for this number.
    pub(super) fn refusal(&self, sequence: Sequence, what: Refused) -> Option<&Failure> {
        self.recorded_refusals.get(&(sequence, what))
    }

    /// The same, for the last time.
    pub(super) fn take_refusal(&mut self, sequence: Sequence, what: Refused) -> Option<Failure> {
        self.recorded_refusals.remove(&(sequence, what))
    }
}
