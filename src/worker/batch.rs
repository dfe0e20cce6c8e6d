//! A batch of due entries that this worker has claimed. While it is handled the claim is renewed; when the worker dies it lapses within a second, and
//! another worker takes the entries.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::debug;

use super::claimed::Claimed;
use super::runtime::Runtime;
use crate::backend::{DueEntry, DueOutcome};
use crate::model::Timestamp;

/// A claimed entry comes again after this, unless its claim was renewed. Not a round number: an entry that its handler re-times is told from a claimed
/// one by its time alone.
pub(super) const CLAIM: Duration = Duration::from_millis(809);
const RENEW_EVERY: Duration = Duration::from_millis(250);

/// See the module. An entry that somebody else sees to is `None`.
pub(super) struct Batch(Mutex<Vec<Option<Claimed>>>);

impl Batch {
    pub(super) fn new(entries: &[DueEntry]) -> Self {
        let held = entries.iter().cloned().map(Claimed::new).map(Some);
        Self(Mutex::new(held.collect()))
    }

    /// This entry's claim is not renewed any more: somebody else sees to it, or nobody does for now.
    pub(super) fn let_go(&self, place: usize) {
        self.held()[place] = None;
    }

    /// What settles the entry.
    pub(super) fn settled(&self, place: usize, outcome: DueOutcome) -> Vec<(DueEntry, DueOutcome)> {
        let held = self.held();
        held[place]
            .as_ref()
            .map_or_else(Vec::new, |entry| entry.settled(outcome))
    }

    /// Renews the claims. Never returns; it may be dropped at any moment.
    pub(super) async fn keep(&self, runtime: &Runtime) {
        let engine = &runtime.engine;
        loop {
            engine.backend.clock().sleep(RENEW_EVERY).await;
            let due = runtime.now() + CLAIM;
            let moved = self.move_to(due);
            if moved.is_empty() {
                continue;
            }
            match engine.store().settle_due(&runtime.app, &moved).await {
                Ok(()) => self
                    .held()
                    .iter_mut()
                    .flatten()
                    .for_each(|entry| entry.has_moved_to(due)),
                // It may have come through all the same.
                Err(error) => debug!(%error, "claims of due entries were not renewed"),
            }
        }
    }

    fn move_to(&self, due: Timestamp) -> Vec<(DueEntry, DueOutcome)> {
        let mut held = self.held();
        held.iter_mut().flatten().flat_map(|entry| entry.move_to(due)).collect()
    }

    fn held(&self) -> MutexGuard<'_, Vec<Option<Claimed>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
