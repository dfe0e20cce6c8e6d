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
    state: State,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    InWork,
    /// What it has come to, and the store is yet to be told.
    Done(DueOutcome),
    /// Told, or somebody else sees to it.
    Over,
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
            state: State::InWork,
        });
        Self(Mutex::new(held.collect()))
    }

    /// Somebody else sees to this entry.
    pub(super) fn let_go(&self, place: usize) {
        self.held()[place].state = State::Over;
    }

    /// What the entry has come to. The store is told with the next renewal of the others: the entry may be made anew meanwhile, and must not be held.
    pub(super) fn done(&self, place: usize, outcome: DueOutcome) {
        self.held()[place].state = State::Done(outcome);
    }

    /// What settles those that are done and of which the store was not told yet.
    pub(super) fn settled(&self) -> Vec<(DueEntry, DueOutcome)> {
        let held = self.held();
        held.iter()
            .filter_map(|held| match held.state {
                State::Done(outcome) => Some(held.settled(outcome)),
                _ => None,
            })
            .flatten()
            .collect()
    }

    /// Renews the claims of what is in work, and settles what is done. Never returns; it may be dropped at any moment.
    pub(super) async fn keep(&self, runtime: &Runtime) {
        let engine = &runtime.engine;
        loop {
            engine.backend.clock().sleep(RENEW_EVERY).await;
            let due = runtime.now() + CLAIM;
            let settled = self.settled();
            let mut told = self.move_to(due);
            told.extend(settled.iter().cloned());
            if told.is_empty() {
                continue;
            }
            match engine.store().settle_due(&runtime.app, &told).await {
                Ok(()) => self.has_told(due, &settled),
                // It may have come through all the same.
                Err(error) => debug!(%error, "claims of due entries were not renewed"),
            }
        }
    }

    fn move_to(&self, due: Timestamp) -> Vec<(DueEntry, DueOutcome)> {
        let mut moved = Vec::new();
        for held in self.held().iter_mut().filter(|held| held.state == State::InWork) {
            moved.extend(held.settled(DueOutcome::Again(due)));
            if !held.times.contains(&due) {
                held.times.push(due);
            }
        }
        moved
    }

    fn has_told(&self, due: Timestamp, settled: &[(DueEntry, DueOutcome)]) {
        for held in self.held().iter_mut() {
            if held.times.contains(&due) {
                held.times = vec![due];
            } else if settled.iter().any(|(entry, _)| entry.key == held.entry.key) {
                held.state = State::Over;
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
        assert!(batch.settled().is_empty());
        assert_eq!(times(&batch.move_to(at(20))), [10]);
        // That renewal's answer was lost.
        assert_eq!(times(&batch.move_to(at(30))), [10, 20]);
        batch.done(0, DueOutcome::Remove);
        assert_eq!(times(&batch.settled()), [10, 20, 30]);
        batch.has_told(at(30), &[]);
        assert_eq!(times(&batch.settled()), [30]);
    }

    #[test]
    fn an_entry_that_is_done_is_settled_beside_others_and_never_held_again() {
        let entry = |subject: &'static str| DueEntry {
            key: DueKey {
                kind: DueKind::Timer,
                subject: subject.into(),
            },
            due: at(10),
            payload: "".into(),
        };
        let batch = Batch::new(&[entry("a"), entry("b")]);
        batch.done(0, DueOutcome::Remove);
        assert_eq!(batch.move_to(at(20)).len(), 1, "the other's");
        let settled = batch.settled();
        assert_eq!(times(&settled), [10]);
        batch.has_told(at(20), &settled);
        // Somebody has made it anew by now: whatever time that one has, it is not ours.
        assert!(batch.settled().is_empty());
        assert_eq!(times(&batch.move_to(at(30))), [20]);
    }
}
