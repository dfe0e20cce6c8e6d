//! A batch of due entries that this worker has claimed. While it is handled the claim is renewed; when the worker dies it lapses within a second, and
//! another worker takes the entries.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::debug;

use super::runtime::Runtime;
use crate::backend::{DueEntry, DueOutcome};
use crate::model::Timestamp;

/// A claimed entry comes again after this, unless its claim was renewed. Not a round number: an entry that its handler re-times is told from a claimed
/// one by its time alone.
pub(super) const CLAIM: Duration = Duration::from_millis(809);
const RENEW_EVERY: Duration = Duration::from_millis(250);

/// See the module.
pub(super) struct Batch(Mutex<Vec<Held>>);

struct Held {
    entry: DueEntry,
    /// The times of which the entry has one if it is still ours: more than one while it is not known whether a renewal came through.
    times: Vec<Timestamp>,
    /// False once somebody else sees to it.
    is_ours: bool,
}

impl Held {
    /// Once for each time that the entry may have; each counts only if it is the right one.
    fn settled(&self, outcome: DueOutcome) -> impl Iterator<Item = (DueEntry, DueOutcome)> + '_ {
        let at = |due| DueEntry {
            due,
            ..self.entry.clone()
        };
        self.times.iter().map(move |due| (at(*due), outcome))
    }
}

impl Batch {
    pub(super) fn new(entries: &[DueEntry]) -> Self {
        let held = entries.iter().map(|entry| Held {
            entry: entry.clone(),
            times: vec![entry.due],
            is_ours: true,
        });
        Self(Mutex::new(held.collect()))
    }

    /// This entry's claim is not renewed any more: somebody else sees to it, or nobody does for now.
    pub(super) fn let_go(&self, place: usize) {
        self.held()[place].is_ours = false;
    }

    /// What settles the entry.
    pub(super) fn settled(&self, place: usize, outcome: DueOutcome) -> Vec<(DueEntry, DueOutcome)> {
        self.held()[place].settled(outcome).collect()
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
                Ok(()) => self.has_moved_to(due),
                // It may have come through all the same.
                Err(error) => debug!(%error, "claims of due entries were not renewed"),
            }
        }
    }

    fn move_to(&self, due: Timestamp) -> Vec<(DueEntry, DueOutcome)> {
        let mut moved = Vec::new();
        for held in self.held().iter_mut().filter(|held| held.is_ours) {
            moved.extend(held.settled(DueOutcome::Again(due)));
            if !held.times.contains(&due) {
                held.times.push(due);
            }
        }
        moved
    }

    fn has_moved_to(&self, due: Timestamp) {
        let mut held = self.held();
        let renewed = held.iter_mut().filter(|held| held.times.contains(&due));
        renewed.for_each(|held| held.times = vec![due]);
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

    fn times(settled: &[(DueEntry, DueOutcome)]) -> Vec<u64> {
        settled.iter().map(|(entry, _)| entry.due.as_millis()).collect()
    }

    #[test]
    fn an_entry_is_settled_at_every_time_that_it_may_have() {
        let key = DueKey {
            kind: DueKind::Timer,
            subject: "a".into(),
        };
        let entry = DueEntry {
            key,
            due: at(10),
            payload: "".into(),
        };
        let batch = Batch::new(&[entry]);
        assert_eq!(times(&batch.settled(0, DueOutcome::Remove)), [10]);
        assert_eq!(times(&batch.move_to(at(20))), [10]);
        assert_eq!(times(&batch.settled(0, DueOutcome::Remove)), [10, 20]);
        // That renewal's answer was lost.
        assert_eq!(times(&batch.move_to(at(30))), [10, 20]);
        batch.has_moved_to(at(30));
        assert_eq!(times(&batch.settled(0, DueOutcome::Remove)), [30]);
        batch.let_go(0);
        assert!(batch.move_to(at(40)).is_empty());
    }
}
