//! The items that messages carry.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::{
    AppId, ExecutionId, Failure, InstanceRef, Lane, MessageId, Payload, RunId, Sequence, TaskExecutionId, Timestamp,
    WorkerId,
};

/// One thing that a message says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Item {
    /// Run the first turn of an instance whose record exists. Queue: workflows.
    Start(StartItem),
    /// Run an activity. Queue: activities.
    Task(TaskItem),
    /// An activity or a child is over. Queue: the caller's lane.
    Completion(CompletionItem),
    /// An external event. Queue: the instance's lane.
    Event(EventItem),
    /// Terminate, suspend or resume. Queue: the instance's lane.
    Command(CommandItem),
    /// A timer or a deadline is due. Queue: the instance's lane.
    Timer(TimerItem),
    /// Look at the instance: it has an inbox to read, a mark to drive or code that fits again. Queue: the instance's lane.
    Wake(WakeItem),
    /// Tells the worker that receives it that it holds the lane; or, with a marker, asks for a word that it came out. Queue: a lane, or any.
    Probe(ProbeItem),
}

/// Which kind of item; for logs, counters and dead letters.
pub type ItemKind = &'static str;

impl Item {
    /// The kind's name, as in the schema.
    pub fn kind(&self) -> ItemKind {
        match self {
            Item::Start(_) => "start",
            Item::Task(_) => "task",
            Item::Completion(_) => "completion",
            Item::Event(_) => "event",
            Item::Command(_) => "command",
            Item::Timer(_) => "timer",
            Item::Wake(_) => "wake",
            Item::Probe(_) => "probe",
        }
    }

    /// The ID by which an item is known that a worker has in hand: derived from the call, the timer or the execution. The others have none.
    pub fn identity(&self) -> Option<MessageId> {
        match self {
            Item::Start(start) => Some(start.execution.derive("start", 0).into()),
            Item::Task(task) => Some(task.message_id()),
            Item::Completion(completion) => Some(completion.task.message_id("completion")),
            Item::Timer(timer) => Some(timer.task.message_id("timer")),
            Item::Event(_) | Item::Command(_) | Item::Wake(_) | Item::Probe(_) => None,
        }
    }

    /// What a message with it is known by: derived where the item has an identity, so that what is published again is the same message.
    pub(crate) fn message_id(&self) -> MessageId {
        match self {
            Item::Event(event) => event.message_id.clone(),
            item => item.identity().unwrap_or_else(MessageId::generate),
        }
    }

    /// The users' values in it, each with the name of its field.
    pub(crate) fn payloads(&self) -> Vec<(&'static str, &Payload)> {
        match self {
            Item::Task(task) => vec![("input", &task.input)],
            Item::Event(event) => vec![("payload", &event.payload)],
            Item::Completion(completion) => match &completion.outcome {
                Outcome::Completed(output) => vec![("outcome.completed", output)],
                Outcome::Failed(failure) => std::iter::successors(Some(failure), |failure| failure.cause.as_deref())
                    .filter_map(|failure| failure.details.as_ref())
                    .map(|details| ("outcome.failed.details", details))
                    .collect(),
            },
            Item::Start(start) => start.fresh.iter().map(|fresh| ("fresh.input", &fresh.input)).collect(),
            Item::Command(_) | Item::Timer(_) | Item::Wake(_) | Item::Probe(_) => Vec::new(),
        }
    }

    /// The instance that the item is for; a task's is its caller; a probe has none.
    pub fn instance(&self) -> Option<&InstanceRef> {
        match self {
            Item::Start(item) => Some(&item.instance),
            Item::Task(item) => Some(&item.caller.instance),
            Item::Completion(item) => Some(&item.task.instance),
            Item::Event(item) => Some(&item.instance),
            Item::Command(item) => Some(&item.instance),
            Item::Timer(item) => Some(&item.task.instance),
            Item::Wake(item) => Some(&item.instance),
            Item::Probe(_) => None,
        }
    }

    /// The execution that it is about, if it is about one and not about whichever is current.
    pub(crate) fn execution(&self) -> Option<ExecutionId> {
        match self {
            Item::Start(item) => Some(item.execution),
            Item::Task(item) => Some(item.caller.execution),
            Item::Completion(item) => Some(item.task.execution),
            Item::Timer(item) => Some(item.task.execution),
            Item::Event(_) | Item::Command(_) | Item::Wake(_) | Item::Probe(_) => None,
        }
    }
}

/// One task (or timer) of one execution: what a completion counts by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
pub struct TaskRef {
    /// The workflow that scheduled it.
    pub instance: InstanceRef,
    /// The execution that scheduled it.
    pub execution: ExecutionId,
    /// Its number within the execution.
    pub sequence: Sequence,
}

impl TaskRef {
    /// The derived ID of the message about this task: what is published again is the same message.
    pub fn message_id(&self, kind: &str) -> MessageId {
        self.execution.derive(kind, self.sequence).into()
    }
}

/// From a child to the call that started it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ParentLink {
    /// The call in the parent's history. A child's start counts once by it.
    pub task: TaskRef,
    /// Where the parent was at home when it made the call. If it has moved since, the worker there sends the completion on.
    pub lane: Lane,
    /// True if nobody waits for the child: it then reports nothing and is not terminated with its parent.
    #[serde(default)]
    pub detached: bool,
    /// True if the call has a retry policy.
    #[serde(default)]
    pub retried: bool,
}

/// Run the first turn of an instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct StartItem {
    /// Whom to start.
    pub instance: InstanceRef,
    /// The execution that was created; another one's start is dropped.
    pub execution: ExecutionId,
    /// The workflow's name.
    pub workflow: String,
    /// Who called it, if it is a child.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<ParentLink>,
    /// How often a worker that does not know the workflow has passed it on.
    #[serde(default)]
    pub misses: u32,
    /// What the record held when it was created, if that is little: whoever takes the start then need not read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fresh: Option<Box<FreshRecord>>,
}

/// A new instance's record, as far as its start does not say it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct FreshRecord {
    /// The run.
    pub run: RunId,
    /// The request that created it.
    pub request: MessageId,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it was to start, if later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_at: Option<Timestamp>,
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// Its input.
    pub input: Payload,
    /// When the record was written, by the store's clock.
    pub updated_at: Timestamp,
}

/// Run an activity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct TaskItem {
    /// The call in the caller's history.
    pub caller: TaskRef,
    /// Where the caller is at home: the completion goes there.
    pub reply_to: Lane,
    /// The app that is to run it.
    pub app: AppId,
    /// The activity's name.
    pub name: String,
    /// Its input.
    pub input: Payload,
    /// The same for all attempts of the call.
    pub task_execution_id: TaskExecutionId,
    /// Which attempt of the call this is, from 1.
    pub attempt: u32,
    /// When the call was scheduled.
    pub scheduled_at: Timestamp,
    /// True if the body may run only after the caller's record has granted a claim (the call has a time limit).
    #[serde(default)]
    pub claimed: bool,
    /// How long the attempt may take, in milliseconds.
    #[serde(default, with = "crate::wire::millis", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<u64>")]
    pub timeout: Option<Duration>,
    /// How often the attempt must report progress, in milliseconds.
    #[serde(default, with = "crate::wire::millis", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<u64>")]
    pub heartbeat: Option<Duration>,
    /// True if the call has a retry policy: an unknown app is then reported and not waited for.
    #[serde(default)]
    pub retried: bool,
    /// How often a worker that does not know the activity has passed it on.
    #[serde(default)]
    pub misses: u32,
}

impl TaskItem {
    /// The same for every copy of this attempt: leases, run tokens and the message itself are named by it.
    pub fn message_id(&self) -> MessageId {
        self.caller.message_id("task")
    }
}

/// How a task or a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// With an output.
    Completed(Payload),
    /// With a failure.
    Failed(Failure),
}

impl Outcome {
    /// As a result.
    pub fn into_result(self) -> Result<Payload, Failure> {
        match self {
            Outcome::Completed(output) => Ok(output),
            Outcome::Failed(failure) => Err(failure),
        }
    }
}

impl From<Result<Payload, Failure>> for Outcome {
    fn from(result: Result<Payload, Failure>) -> Self {
        match result {
            Ok(output) => Outcome::Completed(output),
            Err(failure) => Outcome::Failed(failure),
        }
    }
}

/// An activity attempt or a child workflow is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct CompletionItem {
    /// The call that is answered.
    pub task: TaskRef,
    /// Of an activity: the ID that the task carried. A completion with another one is ignored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_execution_id: Option<TaskExecutionId>,
    /// The app that answers. Only the app that the task was sent to counts, except for `AppNotFound`.
    pub from: AppId,
    /// How it ended.
    pub outcome: Outcome,
    /// True if the attempt may have reported progress, which the caller's record then has to forget.
    #[serde(default)]
    pub progressed: bool,
    /// Of an activity whose body ran: which, and for how long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ran: Option<Ran>,
}

/// A body that ran: whoever calls it again learns from it whether it is short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Ran {
    /// The activity's name.
    pub activity: String,
    /// How long the body took, in milliseconds, rounded down.
    pub millis: u64,
}

/// An external event for an instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct EventItem {
    /// For whom.
    pub instance: InstanceRef,
    /// The event's name; matched without case.
    pub name: String,
    /// What it carries.
    pub payload: Payload,
    /// It counts once by this.
    pub message_id: MessageId,
}

/// What an operator, or a parent, wants of an instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// End it.
    Terminate {
        /// Why, for a person.
        reason: String,
        /// Its children too.
        recursive: bool,
    },
    /// Keep what arrives and run no code.
    Suspend {
        /// Why, for a person.
        reason: String,
    },
    /// Go on.
    Resume {
        /// Why, for a person.
        reason: String,
    },
}

/// A command for an instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct CommandItem {
    /// For whom.
    pub instance: InstanceRef,
    /// What to do.
    pub command: Command,
    /// When it was asked for, by the store's clock. A suspend or a resume that was asked for before the last one that took effect comes too late.
    pub issued_at: Timestamp,
    /// If given, only this run is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// If given, only the child of this call is meant: another instance that has taken the ID is left alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<TaskRef>,
}

/// A timer is due, or the time limit of a call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct TimerItem {
    /// The timer's or the call's number.
    pub task: TaskRef,
    /// True for the time limit of a call, which is then settled by the call's claim.
    #[serde(default)]
    pub deadline: bool,
}

/// Look at the instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct WakeItem {
    /// Whom to look at.
    pub instance: InstanceRef,
}

/// A worker asks who holds a lane; or an auditor asks whether messages come out of a queue, whichever it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ProbeItem {
    /// Who asks.
    pub worker: WorkerId,
    /// If given, whoever receives it says so with its next sign of life: what was in the queue before it has come out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub marker: Option<MessageId>,
}
