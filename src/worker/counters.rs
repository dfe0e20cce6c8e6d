//! Counts of what a worker did, and of what it dropped and why: what is dropped is never dropped silently.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// One count.
#[derive(Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) turns: Counter,
    pub(super) replays: Counter,
    pub(super) conflicts: Counter,
    pub(super) live_hits: Counter,
    pub(super) activities: Counter,
    pub(super) dead: Counter,
    dropped: Mutex<BTreeMap<&'static str, u64>>,
}

/// A snapshot of a worker's counts since it started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkerCounts {
    /// Turns committed.
    pub turns: u64,
    /// Histories replayed because the workflow was not live; the first turn of an execution has none.
    pub replays: u64,
    /// Commits that another worker was quicker with.
    pub conflicts: u64,
    /// Activations that found their workflow live.
    pub live_hits: u64,
    /// Activity bodies run.
    pub activities: u64,
    /// Messages put into the dead queue.
    pub dead: u64,
    /// Items dropped, by reason.
    pub dropped: BTreeMap<&'static str, u64>,
}

impl Counters {
    pub(super) fn dropped(&self, reason: &'static str) {
        *self
            .dropped
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(reason)
            .or_default() += 1;
    }

    pub(super) fn snapshot(&self) -> WorkerCounts {
        WorkerCounts {
            turns: self.turns.get(),
            replays: self.replays.get(),
            conflicts: self.conflicts.get(),
            live_hits: self.live_hits.get(),
            activities: self.activities.get(),
            dead: self.dead.get(),
            dropped: self.dropped.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}
