//! When an instance that has ended is deleted.

use std::time::Duration;

use super::Status;

/// How long finished instances are kept, by how they ended. `None` keeps them for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Completed instances: 7 days.
    pub completed: Option<Duration>,
    /// Failed instances: 30 days.
    pub failed: Option<Duration>,
    /// Terminated instances: 30 days.
    pub terminated: Option<Duration>,
}

impl Default for Retention {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(86_400);
        Self {
            completed: Some(7 * DAY),
            failed: Some(30 * DAY),
            terminated: Some(30 * DAY),
        }
    }
}

impl Retention {
    pub(crate) fn of(&self, status: Status) -> Option<Duration> {
        match status {
            Status::Completed => self.completed,
            Status::Failed => self.failed,
            Status::Terminated => self.terminated,
            _ => None,
        }
    }
}
