//! What the machine keeps of each call and timer while it is open.

use super::history::{TimeLimits, TimerPurpose};
use crate::model::{AppId, InstanceId, InstanceRef, Payload, Retry, TaskExecutionId, Timestamp};

/// Whom a call is for.
#[derive(Clone, Debug)]
pub(super) enum Target {
    Activity {
        app: AppId,
        name: String,
    },
    Child {
        app: AppId,
        workflow: String,
        id: Option<InstanceId>,
    },
}

/// A call as the code made it: what its attempts have in common.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) target: Target,
    pub(super) input: Payload,
    pub(super) limits: TimeLimits,
    pub(super) retry: Option<Retry>,
    pub(super) attempt: u32,
    pub(super) first_at: Timestamp,
    pub(super) task_execution_id: TaskExecutionId,
}

/// Something that has been scheduled and is not over.
#[derive(Clone, Debug)]
pub(super) enum Open {
    Activity {
        app: AppId,
        name: String,
        attempt: u32,
        since: Timestamp,
        task_execution_id: TaskExecutionId,
        limited: bool,
        retried: bool,
    },
    Child {
        instance: InstanceRef,
        workflow: String,
        attempt: u32,
        since: Timestamp,
        limits: TimeLimits,
    },
    Timer {
        due: Timestamp,
        purpose: TimerPurpose,
    },
}

impl Open {
    /// True for a call with time limits: it has an entry in the due-set.
    pub(super) fn has_deadline(&self) -> bool {
        match self {
            Open::Activity { limited, .. } => *limited,
            Open::Child { limits, .. } => !limits.is_empty(),
            Open::Timer { .. } => false,
        }
    }
}
