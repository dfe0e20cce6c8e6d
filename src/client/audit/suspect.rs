//! What may be missing, and how it is told and recognized.

use super::report::Trouble;
use crate::backend::Queue;
use crate::model::{AppId, ExecutionId, InstanceRef, MessageId, Sequence, Timestamp};
use crate::wire::TaskRef;

/// Something that is not where it ought to be, as one look found it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Suspect {
    pub(super) instance: InstanceRef,
    pub(super) execution: ExecutionId,
    pub(super) what: Missing,
}

/// See [`Suspect`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Missing {
    Check,
    NextExecution,
    Start,
    /// A timer's entry. `is_past` if it was due already, so that its message may be on its way.
    Timer {
        sequence: Sequence,
        turn: u64,
        is_past: bool,
    },
    Task {
        sequence: Sequence,
        turn: u64,
        app: AppId,
        name: String,
    },
    /// A child without a record, or whose ID is another's.
    Child {
        sequence: Sequence,
        turn: u64,
        child: InstanceRef,
        /// When it was called.
        at: Timestamp,
    },
    /// The answer of a child that is over. `is_marked` if it was never told.
    Answer {
        sequence: Sequence,
        child: InstanceRef,
        is_marked: bool,
    },
}

impl Suspect {
    fn task(&self, sequence: Sequence) -> TaskRef {
        TaskRef {
            instance: self.instance.clone(),
            execution: self.execution,
            sequence,
        }
    }

    /// True if a message that is under way would explain it.
    pub(super) fn may_be_on_its_way(&self) -> bool {
        match &self.what {
            Missing::Check | Missing::NextExecution => false,
            Missing::Timer { is_past, .. } => *is_past,
            Missing::Answer { is_marked, .. } => !is_marked,
            Missing::Start | Missing::Task { .. } | Missing::Child { .. } => true,
        }
    }

    /// The queue in which its own message would be. Answers and timers are in the lanes; and so are the answers to tasks.
    pub(super) fn queue(&self) -> Option<Queue> {
        match &self.what {
            Missing::Start => Some(Queue::Workflows(self.instance.app.clone())),
            Missing::Task { app, .. } => Some(Queue::Activities(app.clone())),
            _ => None,
        }
    }

    /// By what a worker would tell that it has it in hand.
    pub(super) fn identities(&self) -> Vec<MessageId> {
        match &self.what {
            Missing::Check | Missing::NextExecution => Vec::new(),
            Missing::Start => vec![self.execution.derive("start", 0).into()],
            Missing::Timer { sequence, .. } => vec![self.task(*sequence).message_id("timer")],
            Missing::Task { sequence, .. } | Missing::Child { sequence, .. } | Missing::Answer { sequence, .. } => {
                let task = self.task(*sequence);
                vec![task.message_id("task"), task.message_id("completion")]
            }
        }
    }

    pub(super) fn sequence(&self) -> Option<Sequence> {
        match &self.what {
            Missing::Check | Missing::NextExecution | Missing::Start => None,
            Missing::Timer { sequence, .. }
            | Missing::Task { sequence, .. }
            | Missing::Child { sequence, .. }
            | Missing::Answer { sequence, .. } => Some(*sequence),
        }
    }

    pub(super) fn trouble(&self) -> Trouble {
        match &self.what {
            Missing::Check => Trouble::NoCheck,
            Missing::NextExecution => Trouble::LostExecution,
            Missing::Start => Trouble::LostStart,
            Missing::Timer { .. } => Trouble::LostTimer,
            Missing::Task { .. } => Trouble::LostTask,
            Missing::Child { .. } => Trouble::LostChild,
            Missing::Answer { .. } => Trouble::LostAnswer,
        }
    }

    pub(super) fn reason(&self) -> String {
        match &self.what {
            Missing::Check => "no entry of the due-set has it looked at again".into(),
            Missing::NextExecution => {
                "it continues as new, and its record does not say that the next execution is to begin".into()
            }
            Missing::Start => "its start is neither in the queue nor in a worker's hands".into(),
            Missing::Timer {
                sequence,
                is_past: false,
                ..
            } => format!("timer {sequence} has no entry in the due-set"),
            Missing::Timer { sequence, .. } => {
                format!("timer {sequence} was due, and is neither in the due-set nor on its way")
            }
            Missing::Task {
                sequence, app, name, ..
            } => format!(
                "call {sequence} of activity `{name}` on app `{app}`: the task is neither in the queue, nor leased, nor in a worker's hands, and there is no result"
            ),
            Missing::Child { sequence, child, .. } => {
                format!("call {sequence}: child {child} is not there, and there is no result")
            }
            Missing::Answer {
                sequence,
                child,
                is_marked: true,
            } => {
                format!("call {sequence}: child {child} is over and has not told so")
            }
            Missing::Answer { sequence, child, .. } => {
                format!(
                    "call {sequence}: child {child} is over, and what it told is neither in a lane nor in a worker's hands"
                )
            }
        }
    }
}
