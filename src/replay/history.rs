//! The history: the ordered events of an execution, stored turn by turn.
//!
//! Events come in two sorts. *Arrived* events happened to the workflow (it started, a task completed, a timer fired); *decided* events are what its
//! code asked for when it saw them (a task scheduled, a timer created, its end). Within a turn they stand in the order in which they took place, so
//! replay applies one arrived event at a time and compares what the code then asks for with the decided events that follow.
//!
//! They map one to one onto durabletask's history events (`TaskScheduled`, `SubOrchestrationInstanceCreated`, …); the docs hold the table.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::{
    AppId, BuildId, CommitId, Failure, InstanceRef, MessageId, Payload, RunId, Sequence, TaskExecutionId, Timestamp,
    is_default,
};
use crate::wire::{ParentLink, read};

/// One turn: what happened between loading the state and committing it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Turn {
    /// Its number within the execution, from 1: the version of the record once it is committed.
    pub version: u64,
    /// Names the commit.
    pub commit: CommitId,
    /// When it ran: what `ctx.now()` says throughout the turn.
    pub at: Timestamp,
    /// The code that ran it; none if no code ran: the instance was ended, held or let go before its first turn, or while its code could not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<BuildId>,
    /// What happened, in order.
    pub events: Vec<HistoryEvent>,
}

impl Turn {
    /// Writes the turn as MessagePack.
    pub fn encode(&self) -> bytes::Bytes {
        rmp_serde::to_vec_named(self)
            .expect("a turn holds only values that MessagePack can write")
            .into()
    }

    /// Reads a turn.
    ///
    /// # Errors
    /// The text says what could not be read.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        read(bytes).map_err(|error| format!("the stored turn cannot be read: {error}"))
    }
}

/// The time limits of an activity call, in milliseconds on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct TimeLimits {
    /// The call must have started this long after it was scheduled.
    #[serde(default, with = "crate::wire::millis", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<u64>")]
    pub schedule_to_start: Option<Duration>,
    /// An attempt must be over this long after it started.
    #[serde(default, with = "crate::wire::millis", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<u64>")]
    pub timeout: Option<Duration>,
    /// A running attempt must report progress this often.
    #[serde(default, with = "crate::wire::millis", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<u64>")]
    pub heartbeat: Option<Duration>,
}

impl TimeLimits {
    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The first moment at which one of the limits can be broken, counted from scheduling.
    pub fn first_check(&self) -> Option<Duration> {
        [self.schedule_to_start, self.timeout, self.heartbeat]
            .into_iter()
            .flatten()
            .min()
    }
}

/// What a timer is for; shown to people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TimerPurpose {
    /// The workflow's own timer.
    Timer,
    /// The time limit of a wait for an event.
    EventTimeout {
        /// The event's name.
        name: String,
    },
    /// The pause before a call's next attempt.
    Retry {
        /// The app called.
        app: AppId,
        /// What is called.
        name: String,
        /// The attempt that comes next, from 2.
        attempt: u32,
    },
}

/// What was refused on the spot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Refused {
    /// An activity or a child call.
    Call,
    /// An event for another instance.
    Event,
    /// A custom status.
    CustomStatus,
    /// The input of the next execution (continue-as-new).
    NextInput,
    /// The workflow's output.
    Output,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Refused::Call => "call",
            Refused::Event => "event",
            Refused::CustomStatus => "custom status",
            Refused::NextInput => "input of the next execution",
            Refused::Output => "output",
        })
    }
}

/// An instance that a call started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ChildRef {
    /// The child.
    pub instance: InstanceRef,
    /// The number of the call.
    pub sequence: Sequence,
}

/// An event that waits for code to take it, carried over by continue-as-new.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct CarriedEvent {
    /// Its name, as sent.
    pub name: String,
    /// What it carries.
    pub payload: Payload,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum HistoryEvent {
    // --- arrived
    /// The execution begins.
    ExecutionStarted {
        /// The workflow's name.
        workflow: String,
        /// Its input.
        input: Payload,
        /// The run, kept across continue-as-new.
        run: RunId,
        /// How many executions of the run came before.
        #[serde(default, skip_serializing_if = "is_default")]
        generation: u32,
        /// Who called it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        parent: Option<ParentLink>,
        /// Labels.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        tags: BTreeMap<String, String>,
        /// Events that the execution before had not taken.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        carried: Vec<CarriedEvent>,
        /// Message IDs of events that executions before have seen, with the time.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        seen: Vec<(MessageId, Timestamp)>,
    },
    /// An activity attempt succeeded.
    TaskCompleted {
        /// Which.
        sequence: Sequence,
        /// Its output.
        output: Payload,
    },
    /// An activity attempt failed.
    TaskFailed {
        /// Which.
        sequence: Sequence,
        /// Why.
        failure: Failure,
    },
    /// A child succeeded.
    ChildCompleted {
        /// Which.
        sequence: Sequence,
        /// Its output.
        output: Payload,
    },
    /// A child failed, was terminated, or could not be started.
    ChildFailed {
        /// Which.
        sequence: Sequence,
        /// Why.
        failure: Failure,
        /// The child, if it is to be terminated because its time is up.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        terminate: Option<ChildRef>,
    },
    /// A timer fired.
    TimerFired {
        /// Which.
        sequence: Sequence,
    },
    /// An external event came.
    EventRaised {
        /// Its name, as sent.
        name: String,
        /// What it carries.
        payload: Payload,
        /// It counts once by this.
        message_id: MessageId,
    },
    /// An operator suspended the instance.
    ExecutionSuspended {
        /// Why.
        reason: String,
    },
    /// An operator let it go on.
    ExecutionResumed {
        /// Why.
        reason: String,
    },
    /// An operator, or the parent, ended it.
    ExecutionTerminated {
        /// Why.
        reason: String,
        /// True if its children end with it.
        #[serde(default)]
        recursive: bool,
        /// The children that end with it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        children: Vec<ChildRef>,
    },
    // --- decided
    /// The code called an activity.
    TaskScheduled {
        /// Its number.
        sequence: Sequence,
        /// The app called.
        app: AppId,
        /// The activity called.
        name: String,
        /// Its input.
        input: Payload,
        /// The same for all attempts.
        task_execution_id: TaskExecutionId,
        /// Which attempt, from 1.
        attempt: u32,
        /// Time limits.
        #[serde(default, skip_serializing_if = "TimeLimits::is_empty")]
        limits: TimeLimits,
        /// True if the call has a retry policy.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        retried: bool,
    },
    /// The code called a child workflow.
    ChildScheduled {
        /// Its number.
        sequence: Sequence,
        /// The child.
        instance: InstanceRef,
        /// The workflow called.
        workflow: String,
        /// Its input.
        input: Payload,
        /// Which attempt, from 1.
        attempt: u32,
        /// Time limits (no heartbeat).
        #[serde(default, skip_serializing_if = "TimeLimits::is_empty")]
        limits: TimeLimits,
        /// True if the call has a retry policy.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        retried: bool,
        /// True if the code does not wait for it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        detached: bool,
    },
    /// The code asked for a timer.
    TimerCreated {
        /// Its number.
        sequence: Sequence,
        /// When it fires.
        due: Timestamp,
        /// What it is for.
        purpose: TimerPurpose,
    },
    /// The code lost interest in a timer.
    TimerCancelled {
        /// Which.
        sequence: Sequence,
    },
    /// The code raised an event on another instance.
    EventSent {
        /// Its number.
        sequence: Sequence,
        /// For whom.
        instance: InstanceRef,
        /// The event's name.
        name: String,
        /// What it carries.
        payload: Payload,
    },
    /// The code asked for something that was refused on the spot: it was not valid, or its payload was too large.
    CallRefused {
        /// Its number.
        sequence: Sequence,
        /// What was refused.
        what: Refused,
        /// Why.
        failure: Failure,
    },
    /// The code asked for a patch and got it.
    PatchMarked {
        /// The patch's name.
        name: String,
    },
    /// The code returned.
    ExecutionCompleted {
        /// Its output.
        output: Payload,
    },
    /// The code failed.
    ExecutionFailed {
        /// Why.
        failure: Failure,
    },
    /// The code began anew.
    ContinuedAsNew {
        /// The next execution's input.
        input: Payload,
        /// Events that nobody had taken.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        carried: Vec<CarriedEvent>,
        /// Message IDs of events seen, with the time.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        seen: Vec<(MessageId, Timestamp)>,
    },
}

impl HistoryEvent {
    /// True for what happened *to* the workflow, false for what its code decided.
    pub fn is_arrived(&self) -> bool {
        use HistoryEvent::*;
        match self {
            ExecutionStarted { .. }
            | TaskCompleted { .. }
            | TaskFailed { .. }
            | ChildCompleted { .. }
            | ChildFailed { .. }
            | TimerFired { .. }
            | EventRaised { .. } => true,
            ExecutionSuspended { .. } | ExecutionResumed { .. } | ExecutionTerminated { .. } => true,
            TaskScheduled { .. }
            | ChildScheduled { .. }
            | TimerCreated { .. }
            | TimerCancelled { .. }
            | EventSent { .. }
            | CallRefused { .. }
            | PatchMarked { .. } => false,
            ExecutionCompleted { .. } | ExecutionFailed { .. } | ContinuedAsNew { .. } => false,
        }
    }

    /// The number of the call or timer that begins with the event and that its workflow waits for.
    pub fn schedules(&self) -> Option<Sequence> {
        match self {
            Self::TaskScheduled { sequence, .. }
            | Self::ChildScheduled {
                sequence,
                detached: false,
                ..
            }
            | Self::TimerCreated { sequence, .. } => Some(*sequence),
            _ => None,
        }
    }
}
