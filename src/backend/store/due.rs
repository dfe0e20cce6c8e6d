//! The due-set: what has to be looked at, and when. By it nothing is forgotten (I4).

use bytes::Bytes;

use crate::model::Timestamp;

/// Sorts of entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DueKind {
    /// Look at an instance. Every instance that is not terminal, or has a mark, has one.
    Check,
    /// A timer or a deadline.
    Timer,
    /// A long activity whose message is acknowledged already: run it again when the lease lapses.
    Lease,
    /// An item for an app that does not exist, or for a queue that takes no messages: try again.
    Parked,
    /// A finished instance to delete.
    Retention,
}

impl DueKind {
    /// All of them.
    pub const ALL: [DueKind; 5] = [
        DueKind::Check,
        DueKind::Timer,
        DueKind::Lease,
        DueKind::Parked,
        DueKind::Retention,
    ];

    /// One letter: the stored form.
    pub fn letter(self) -> char {
        match self {
            DueKind::Check => 'c',
            DueKind::Timer => 't',
            DueKind::Lease => 'l',
            DueKind::Parked => 'p',
            DueKind::Retention => 'r',
        }
    }

    /// From the stored form.
    pub fn from_letter(letter: char) -> Option<Self> {
        DueKind::ALL.into_iter().find(|kind| kind.letter() == letter)
    }
}

/// Names an entry within an app's due-set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DueKey {
    /// Which sort.
    pub kind: DueKind,
    /// What it is about; unique within the sort. Opaque to the store.
    pub subject: Bytes,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueEntry {
    /// Its name.
    pub key: DueKey,
    /// When it is due, by the store's clock.
    pub due: Timestamp,
    /// What the handler needs beside the subject. May be empty. Opaque to the store.
    pub payload: Bytes,
}

/// What to do with an entry that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Set its time and payload.
    Set,
    /// Bring its time forward, never back; leave its payload. Entries that are not there are added.
    Sooner,
    /// Leave it as it is. Entries that are not there are added.
    Absent,
}

/// What becomes of a claimed entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DueOutcome {
    /// It is done with.
    Remove,
    /// Look again at this time.
    Again(Timestamp),
}
