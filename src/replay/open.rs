//! What the machine keeps of each call and timer while it is open.

use std::collections::BTreeMap;

use super::history::{TimeLimits, TimerPurpose};
use super::slots::SlotId;
use crate::model::{AppId, InstanceId, InstanceRef, Payload, Retry, Sequence, TaskExecutionId, Timestamp};

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

    /// True for the time limit of a wait for an event: it is no thing of its own to people.
    pub(super) fn is_event_limit(&self) -> bool {
        let Open::Timer { purpose, .. } = self else {
            return false;
        };
        matches!(purpose, TimerPurpose::EventTimeout { .. })
    }
}

/// All that is open, by number, with the slot that waits for it: none for a call that the code has given up.
///
/// It counts as it goes, because each turn asks how many there are of a sort.
#[derive(Default)]
pub(super) struct OpenSet {
    all: BTreeMap<Sequence, (Option<SlotId>, Open)>,
    given_up: usize,
    event_limits: usize,
}

impl OpenSet {
    pub(super) fn insert(&mut self, sequence: Sequence, slot: SlotId, open: Open) {
        self.event_limits += usize::from(open.is_event_limit());
        self.all.insert(sequence, (Some(slot), open));
    }

    pub(super) fn get(&self, sequence: Sequence) -> Option<&Open> {
        self.all.get(&sequence).map(|(_, open)| open)
    }

    /// It is over.
    pub(super) fn remove(&mut self, sequence: Sequence) -> Option<(Option<SlotId>, Open)> {
        let (slot, open) = self.all.remove(&sequence)?;
        self.event_limits -= usize::from(open.is_event_limit());
        self.given_up -= usize::from(slot.is_none());
        Some((slot, open))
    }

    /// The code does not wait for it any more, and it goes on.
    pub(super) fn give_up(&mut self, sequence: Sequence) {
        if let Some((slot, _)) = self.all.get_mut(&sequence) {
            self.given_up += usize::from(slot.take().is_some());
        }
    }

    /// Moves a timer.
    pub(super) fn set_due(&mut self, sequence: Sequence, to: Timestamp) {
        if let Some((_, Open::Timer { due, .. })) = self.all.get_mut(&sequence) {
            *due = to;
        }
    }

    /// Everything, when the execution ends.
    pub(super) fn take(&mut self) -> impl Iterator<Item = (Sequence, Open)> + use<> {
        let all = std::mem::take(self).all;
        all.into_iter().map(|(sequence, (_, open))| (sequence, open))
    }

    /// In order of their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Sequence, Option<SlotId>, &Open)> {
        self.all.iter().map(|(sequence, (slot, open))| (*sequence, *slot, open))
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// How many the code has given up.
    pub(super) fn given_up(&self) -> usize {
        self.given_up
    }

    /// How many are the time limit of a wait for an event.
    pub(super) fn event_limits(&self) -> usize {
        self.event_limits
    }
}
