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

/// See the module.
pub(super) struct Batch(Mutex<Vec<Held>>);

/// An entry of a batch.
enum Held {
    InWork(Claimed),
    /// What it has come to, and the store is yet to be told.
    Done(Claimed, DueOutcome),
    /// The store was told, or somebody else sees to it.
    Over,
}

impl Batch {
    pub(super) fn new(entries: &[DueEntry]) -> Self {
        let held = entries.iter().cloned().map(Claimed::new).map(Held::InWork);
        Self(Mutex::new(held.collect()))
    }

    /// Somebody else sees to this entry.
    pub(super) fn let_go(&self, place: usize) {
        self.held()[place] = Held::Over;
    }

    /// What the entry has come to. The store is told with the next renewal of the others: the entry may be made anew meanwhile, and must not be held.
    pub(super) fn done(&self, place: usize, outcome: DueOutcome) {
        let held = &mut self.held()[place];
        if let Held::InWork(claimed) = std::mem::replace(held, Held::Over) {
            *held = Held::Done(claimed, outcome);
        }
    }

    /// The places of those that are done and of which the store was not told yet, and what settles them.
    pub(super) fn settled(&self) -> (Vec<usize>, Vec<(DueEntry, DueOutcome)>) {
        let (mut places, mut settled) = (Vec::new(), Vec::new());
        for (place, held) in self.held().iter().enumerate() {
            if let Held::Done(claimed, outcome) = held {
                places.push(place);
                settled.extend(claimed.settled(*outcome));
            }
        }
        (places, settled)
    }

    /// Renews the claims of what is in work, and settles what is done. Never returns; it may be dropped at any moment.
    pub(super) async fn keep(&self, runtime: &Runtime) {
        let engine = &runtime.engine;
        loop {
            engine.backend.clock().sleep(RENEW_EVERY).await;
            let due = runtime.now() + CLAIM;
            let (places, mut told) = self.settled();
            told.extend(self.move_to(due));
            if told.is_empty() {
                continue;
            }
            match engine.store().settle_due(&runtime.app, &told).await {
                Ok(()) => self.has_told(due, &places),
                // It may have come through all the same.
                Err(error) => debug!(%error, "claims of due entries were not renewed"),
            }
        }
    }

    fn move_to(&self, due: Timestamp) -> Vec<(DueEntry, DueOutcome)> {
        let mut moved = Vec::new();
        for held in self.held().iter_mut() {
            if let Held::InWork(claimed) = held {
                moved.extend(claimed.move_to(due));
            }
        }
        moved
    }

    fn has_told(&self, due: Timestamp, settled: &[usize]) {
        let mut held = self.held();
        settled.iter().for_each(|place| held[*place] = Held::Over);
        for held in held.iter_mut() {
            if let Held::InWork(claimed) | Held::Done(claimed, _) = held {
                claimed.has_moved_to(due);
            }
        }
    }

    fn held(&self) -> MutexGuard<'_, Vec<Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{DueKey, DueKind};

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn entry(subject: &'static str) -> DueEntry {
        DueEntry {
            key: DueKey {
                kind: DueKind::Timer,
                subject: subject.into(),
            },
            due: at(10),
            payload: "".into(),
        }
    }

    #[test]
    fn an_entry_that_is_done_is_settled_beside_others_and_never_held_again() {
        let batch = Batch::new(&[entry("a"), entry("b"), entry("c")]);
        batch.let_go(2);
        batch.done(0, DueOutcome::Remove);
        assert_eq!(batch.move_to(at(20)).len(), 1, "the second's");
        let (places, settled) = batch.settled();
        assert_eq!((&places[..], settled.len()), (&[0][..], 1));
        batch.has_told(at(20), &places);
        // Somebody has made it anew by now: whatever time that one has, it is not ours.
        assert!(batch.settled().1.is_empty());
        let moved = batch.move_to(at(30));
        assert_eq!(moved.len(), 1);
        assert_eq!(moved[0].0.due, at(20));
    }

    #[test]
    fn an_entry_that_is_done_while_its_claim_is_renewed_is_settled_at_either_time() {
        let batch = Batch::new(&[entry("a")]);
        batch.move_to(at(20));
        batch.done(0, DueOutcome::Remove);
        let times = |batch: &Batch| batch.settled().1.iter().map(|(entry, _)| entry.due).collect::<Vec<_>>();
        assert_eq!(times(&batch), [at(10), at(20)]);
        batch.has_told(at(20), &[]);
        assert_eq!(times(&batch), [at(20)]);
    }
}
