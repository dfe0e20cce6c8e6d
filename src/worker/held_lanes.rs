//! The lanes that a worker believes to hold.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::model::Lane;

/// See the module.
#[derive(Default)]
pub(super) struct HeldLanes {
    held: Mutex<BTreeSet<Lane>>,
    changed: Notify,
    next: AtomicUsize,
    /// Lanes to which a probe is on its way.
    probed: Mutex<BTreeSet<Lane>>,
}

impl HeldLanes {
    pub(super) fn set(&self, lane: Lane, is_held: bool) {
        let has_changed = {
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            if is_held { held.insert(lane) } else { held.remove(&lane) }
        };
        if has_changed {
            self.changed.notify_waiters();
        }
    }

    pub(super) fn holds(&self, lane: Lane) -> bool {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).contains(&lane)
    }

    pub(super) fn all(&self) -> Vec<Lane> {
        self.held
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .copied()
            .collect()
    }

    /// A lane for a new instance: each in turn.
    pub(super) fn pick(&self) -> Option<Lane> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        held.iter().nth(turn % held.len().max(1)).copied()
    }

    /// Returns when the number of held lanes is one that the predicate accepts.
    pub(super) async fn wait_until(&self, accepts: impl Fn(usize) -> bool) {
        loop {
            // Registered before looking, so that no change in between is missed.
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if accepts(self.held.lock().unwrap_or_else(PoisonError::into_inner).len()) {
                return;
            }
            changed.await;
        }
    }

    /// True if no probe is on its way to the lane: the caller sends one.
    pub(super) fn begin_probe(&self, lane: Lane) -> bool {
        self.probed().insert(lane)
    }

    pub(super) fn end_probe(&self, lane: Lane) {
        self.probed().remove(&lane);
    }

    fn probed(&self) -> MutexGuard<'_, BTreeSet<Lane>> {
        self.probed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
