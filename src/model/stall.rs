//! Why an instance cannot go on.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Sorts of reasons for a stall.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StallReason {
    /// The code's decisions differ from the history.
    Nondeterminism,
    /// No live worker has registered the workflow.
    NotRegistered,
    /// The code waits on a future that is not Leveret's.
    ForeignFuture,
    /// Its turns have taken down workers.
    Crashed,
    /// Its stored history cannot be read.
    Unreadable,
}

impl StallReason {
    /// True if other code may well go on where this code could not.
    pub(crate) fn is_of_the_code(self) -> bool {
        match self {
            StallReason::Nondeterminism | StallReason::ForeignFuture | StallReason::Unreadable => true,
            StallReason::NotRegistered | StallReason::Crashed => false,
        }
    }
}

impl fmt::Display for StallReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StallReason::Nondeterminism => "nondeterminism",
            StallReason::NotRegistered => "workflow not registered",
            StallReason::ForeignFuture => "foreign future",
            StallReason::Crashed => "crashed",
            StallReason::Unreadable => "unreadable history",
        })
    }
}
