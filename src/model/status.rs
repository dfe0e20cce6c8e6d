//! Where an instance is in its life.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The status of an instance. Continue-as-new keeps an instance `Running`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
pub enum Status {
    /// Created; no worker has run its first turn yet.
    Pending,
    /// Its code runs whenever something that it waits for happens.
    Running,
    /// Held by an operator: what arrives is kept, no code runs.
    Suspended,
    /// Its code cannot go on here (it does not fit the history, or it takes workers down); nothing is lost, and fitting code lets it go on.
    Stalled,
    /// Over, with an output.
    Completed,
    /// Over, with a failure.
    Failed,
    /// Over, ended by an operator or by its parent.
    Terminated,
}

impl Status {
    /// All of them.
    pub const ALL: [Status; 7] = [
        Status::Pending,
        Status::Running,
        Status::Suspended,
        Status::Stalled,
        Status::Completed,
        Status::Failed,
        Status::Terminated,
    ];

    /// True once nothing more will happen to the run.
    pub fn is_terminal(self) -> bool {
        matches!(self, Status::Completed | Status::Failed | Status::Terminated)
    }

    /// True while what arrives for the instance is handed to its code and not kept in the inbox.
    pub fn runs_code(self) -> bool {
        self == Status::Running
    }

    /// The name, as stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Pending => "Pending",
            Status::Running => "Running",
            Status::Suspended => "Suspended",
            Status::Stalled => "Stalled",
            Status::Completed => "Completed",
            Status::Failed => "Failed",
            Status::Terminated => "Terminated",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Status {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Status::ALL
            .into_iter()
            .find(|status| status.as_str().eq_ignore_ascii_case(text))
            .ok_or_else(|| format!("{text:?} is not a status: use one of Pending, Running, Suspended, Stalled, Completed, Failed, Terminated"))
    }
}
