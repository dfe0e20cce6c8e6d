//! The message IDs of raised events, each with its time: an event counts once by its ID, within the de-duplication window.

use std::collections::HashMap;
use std::time::Duration;

use crate::model::{MessageId, Timestamp};

/// See the module.
pub(super) struct Seen {
    ids: HashMap<MessageId, Timestamp>,
    window: Duration,
}

impl Seen {
    pub(super) fn new(window: Duration) -> Self {
        Self {
            ids: HashMap::new(),
            window,
        }
    }

    pub(super) fn contains(&self, id: &MessageId) -> bool {
        self.ids.contains_key(id)
    }

    /// Remembers an ID, and now and then forgets those whose time is over.
    pub(super) fn insert(&mut self, id: &MessageId, now: Timestamp) {
        const SWEEP_AT: usize = 1024;
        self.ids.insert(id.clone(), now);
        if self.ids.len().is_multiple_of(SWEEP_AT) {
            let window = self.window;
            self.ids.retain(|_, at| now.since(*at) < window);
        }
    }

    /// Takes over what an execution before has seen.
    pub(super) fn extend(&mut self, seen: &[(MessageId, Timestamp)]) {
        self.ids.extend(seen.iter().cloned());
    }

    /// All whose time is not over, in order.
    pub(super) fn drain(&mut self, now: Timestamp) -> Vec<(MessageId, Timestamp)> {
        let window = self.window;
        let mut seen: Vec<_> = self.ids.drain().filter(|(_, at)| now.since(*at) < window).collect();
        seen.sort();
        seen
    }

    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }
}
