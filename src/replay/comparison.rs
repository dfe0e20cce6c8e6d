//! Comparing what the code asks for with what the history has: which two decisions are the same, and each side in words when they are not.

use super::history::{HistoryEvent, TimerPurpose};

impl HistoryEvent {
    /// What the event is, in words for a person: the two sides of a nondeterminism message are made of these.
    pub fn describe(&self) -> String {
        use HistoryEvent::*;
        match self {
            ExecutionStarted { workflow, .. } => format!("the start of workflow `{workflow}`"),
            TaskCompleted { sequence, .. } => format!("the completion of call {sequence}"),
            TaskFailed { sequence, failure } => format!("the failure of call {sequence} ({})", failure.kind),
            ChildCompleted { sequence, .. } => format!("the completion of child {sequence}"),
            ChildFailed { sequence, failure, .. } => format!("the failure of child {sequence} ({})", failure.kind),
            TimerFired { sequence } => format!("the firing of timer {sequence}"),
            EventRaised { name, .. } => format!("the event `{name}`"),
            ExecutionSuspended { .. } => "a suspension".into(),
            ExecutionResumed { .. } => "a resumption".into(),
            ExecutionTerminated { .. } => "the termination".into(),
            TaskScheduled {
                app,
                name,
                sequence,
                attempt,
                ..
            } => format!("call {sequence} to activity `{name}` on app `{app}` (attempt {attempt})"),
            ChildScheduled {
                instance,
                workflow,
                sequence,
                ..
            } => format!("call {sequence} to child workflow `{workflow}` as `{instance}`"),
            TimerCreated {
                sequence,
                purpose: TimerPurpose::Timer,
                ..
            } => format!("timer {sequence}"),
            TimerCreated {
                sequence,
                purpose: TimerPurpose::EventTimeout { name },
                ..
            } => format!("timer {sequence} for the wait for event `{name}`"),
            TimerCreated {
                sequence,
                purpose: TimerPurpose::Retry { name, attempt, .. },
                ..
            } => format!("timer {sequence} before attempt {attempt} of `{name}`"),
            TimerCancelled { sequence } => format!("the cancellation of timer {sequence}"),
            EventSent {
                instance,
                name,
                sequence,
                ..
            } => format!("event {sequence} `{name}` to `{instance}`"),
            CallRefused {
                sequence,
                what,
                failure,
            } => format!("{what} {sequence}, refused ({})", failure.kind),
            PatchMarked { name } => format!("the patch `{name}`"),
            ExecutionCompleted { .. } => "the end of the workflow".into(),
            ExecutionFailed { failure } => format!("the workflow's failure ({})", failure.kind),
            ContinuedAsNew { .. } => "continue-as-new".into(),
        }
    }

    /// True if the two are the same decision: same sort, number, target and attempt. Inputs, due times and failure texts may differ: they can hold
    /// what a new build words differently, and what is in history is what counts.
    pub fn same_decision(&self, other: &HistoryEvent) -> bool {
        use HistoryEvent::*;
        match (self, other) {
            (
                TaskScheduled {
                    sequence: a,
                    app: b,
                    name: c,
                    attempt: d,
                    ..
                },
                TaskScheduled {
                    sequence: w,
                    app: x,
                    name: y,
                    attempt: z,
                    ..
                },
            ) => (a, b, c, d) == (w, x, y, z),
            (
                ChildScheduled {
                    sequence: a,
                    instance: b,
                    workflow: c,
                    ..
                },
                ChildScheduled {
                    sequence: x,
                    instance: y,
                    workflow: z,
                    ..
                },
            ) => (a, b, c) == (x, y, z),
            (
                TimerCreated {
                    sequence: a,
                    purpose: b,
                    ..
                },
                TimerCreated {
                    sequence: x,
                    purpose: y,
                    ..
                },
            ) => (a, b) == (x, y),
            (TimerCancelled { sequence: a }, TimerCancelled { sequence: x }) => a == x,
            (
                EventSent {
                    sequence: a,
                    instance: b,
                    name: c,
                    ..
                },
                EventSent {
                    sequence: x,
                    instance: y,
                    name: z,
                    ..
                },
            ) => (a, b, c) == (x, y, z),
            (
                CallRefused {
                    sequence: a, what: b, ..
                },
                CallRefused {
                    sequence: x, what: y, ..
                },
            ) => (a, b) == (x, y),
            (PatchMarked { name: a }, PatchMarked { name: x }) => a == x,
            (ExecutionCompleted { .. }, ExecutionCompleted { .. })
            | (ExecutionFailed { .. }, ExecutionFailed { .. })
            | (ContinuedAsNew { .. }, ContinuedAsNew { .. }) => true,
            _ => false,
        }
    }
}
