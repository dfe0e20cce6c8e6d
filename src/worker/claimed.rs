//! A due entry that is ours for as long as its time is the one that we gave it.

use crate::backend::{DueEntry, DueOutcome};
use crate::model::Timestamp;

/// See the module. A renewal whose answer is lost, or that was given up half-way, may have come through or not, so that there may be several times of
/// which the entry has one.
pub(super) struct Claimed {
    entry: DueEntry,
    times: Vec<Timestamp>,
}

impl Claimed {
    /// Most times that it is looked for under.
    const TIMES: usize = 64;

    pub(super) fn new(entry: DueEntry) -> Self {
        Self {
            times: vec![entry.due],
            entry,
        }
    }

    /// The entry, with the latest time that it may have.
    pub(super) fn entry(&self) -> DueEntry {
        let due = self.times.last().copied().unwrap_or(self.entry.due);
        DueEntry {
            due,
            ..self.entry.clone()
        }
    }

    /// What settles it: once for each time that it may have, of which only the right one counts.
    pub(super) fn settled(&self, outcome: DueOutcome) -> Vec<(DueEntry, DueOutcome)> {
        let at = |due: &Timestamp| DueEntry {
            due: *due,
            ..self.entry.clone()
        };
        self.times.iter().map(|due| (at(due), outcome)).collect()
    }

    /// What renews it. From now on it may have this time.
    pub(super) fn move_to(&mut self, due: Timestamp) -> Vec<(DueEntry, DueOutcome)> {
        let moved = self.settled(DueOutcome::Again(due));
        self.times.retain(|time| *time != due);
        self.times.push(due);
        if self.times.len() > Self::TIMES {
            // The first is the last that was answered, and the one behind it may have come through before the store was away.
            self.times.remove(2);
        }
        moved
    }

    /// That renewal was answered: if the entry is ours, it has no other time.
    pub(super) fn has_moved_to(&mut self, due: Timestamp) {
        if self.times.contains(&due) {
            self.times = vec![due];
        }
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
        let mut claimed = Claimed::new(DueEntry {
            key,
            due: at(10),
            payload: "".into(),
        });
        assert_eq!(times(&claimed.settled(DueOutcome::Remove)), [10]);
        assert_eq!(times(&claimed.move_to(at(20))), [10]);
        assert_eq!(times(&claimed.settled(DueOutcome::Remove)), [10, 20]);
        // The answer to that renewal was lost.
        assert_eq!(times(&claimed.move_to(at(30))), [10, 20]);
        assert_eq!(claimed.entry().due, at(30));
        claimed.has_moved_to(at(30));
        assert_eq!(times(&claimed.settled(DueOutcome::Remove)), [30]);
    }
}
