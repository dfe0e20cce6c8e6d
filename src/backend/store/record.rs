//! What the store keeps of one instance.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::{
    BuildId, CommitId, ExecutionId, Lane, MessageId, Payload, RunId, StallReason, Status, Timestamp, WaitingView,
    is_default,
};
use crate::wire::{Outcome, ParentLink, TaskRef};

/// What is fixed when an instance is created.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// The workflow's name.
    pub workflow: String,
    /// Who called it, if it is a child.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<ParentLink>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it is to start, if later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_at: Option<Timestamp>,
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// The request that created it; of a child, derived from its parent's call.
    pub request: MessageId,
}

/// What commits change and people see.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct View {
    /// When the first turn ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// How many executions of the run came before this one.
    #[serde(default, skip_serializing_if = "is_default")]
    pub generation: u32,
    /// The workflow's own status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom_status: Option<Payload>,
    /// What it waits for.
    #[serde(default, skip_serializing_if = "is_default")]
    pub waiting: WaitingView,
    /// When the last suspend or resume that came in time was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commanded_at: Option<Timestamp>,
    /// Why it is stalled, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stall: Option<Stall>,
    /// Events in the history of the execution.
    #[serde(default, skip_serializing_if = "is_default")]
    pub history_events: u64,
    /// Bytes of the history of the execution.
    #[serde(default, skip_serializing_if = "is_default")]
    pub history_bytes: u64,
}

/// Why an instance cannot go on here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stall {
    /// Which sort of reason.
    pub reason: StallReason,
    /// For a person: both sides, and the way out.
    pub message: String,
    /// The build with which it stalled last; another one is tried when it comes.
    pub build: BuildId,
    /// The builds with which it had stalled before that, without having gone on: the latest [`Stall::TRIED`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tried: Vec<BuildId>,
    /// Since when.
    pub since: Timestamp,
}

impl Stall {
    /// Builds that are remembered.
    pub const TRIED: usize = 16;

    /// True if the instance has stalled with this build.
    pub fn has_tried(&self, build: &BuildId) -> bool {
        self.build == *build || self.tried.contains(build)
    }
}

/// What stands between an instance and its deletion: effects that may not have been made yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Mark {
    /// The start may not have been published.
    Start,
    /// The effects of the turn of this version may not have been made.
    Turn(u64),
    /// The next execution has not begun (continue-as-new).
    Run,
}

impl fmt::Display for Mark {
    /// `start`, `run`, or the turn's version: the stored form.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mark::Start => f.write_str("start"),
            Mark::Run => f.write_str("run"),
            Mark::Turn(version) => write!(f, "{version}"),
        }
    }
}

impl std::str::FromStr for Mark {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "start" => Ok(Mark::Start),
            "run" => Ok(Mark::Run),
            _ => text
                .parse()
                .map(Mark::Turn)
                .map_err(|_| format!("{text:?} is not a mark: `start`, `run` or a version")),
        }
    }
}

/// The record of an instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The current execution.
    pub execution: ExecutionId,
    /// The run, kept across continue-as-new.
    pub run: RunId,
    /// Turns committed in this execution; 0 before the first.
    pub version: u64,
    /// The last commit, `None` before the first.
    pub commit: Option<CommitId>,
    /// Where it is in its life.
    pub status: Status,
    /// Where it is at home, from the first turn on.
    pub lane: Option<Lane>,
    /// What was fixed at creation.
    pub origin: Origin,
    /// The input, until the history holds it.
    pub input: Option<Payload>,
    /// What people see.
    pub view: View,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// When the record was last changed by a commit (or created), by the store's clock. Grows with every commit, even within one millisecond.
    pub updated_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Effects that may be outstanding, in order.
    pub marks: Vec<Mark>,
}

impl Record {
    /// True if this call has made it: an instance ID may have been taken by another.
    pub fn is_child_of(&self, task: &TaskRef) -> bool {
        self.origin.parent.as_ref().is_some_and(|parent| parent.task == *task)
    }

    /// What settling its end takes, of an instance that is over: all but what may be large, its labels among that.
    pub(crate) fn end(&self) -> Box<Self> {
        Box::new(Self {
            execution: self.execution,
            run: self.run,
            version: self.version,
            commit: self.commit,
            status: self.status,
            lane: self.lane,
            origin: Origin {
                workflow: self.origin.workflow.clone(),
                parent: self.origin.parent.clone(),
                created_at: self.origin.created_at,
                start_at: self.origin.start_at,
                tags: Default::default(),
                request: self.origin.request.clone(),
            },
            input: None,
            view: View::default(),
            outcome: None,
            updated_at: self.updated_at,
            ended_at: self.ended_at,
            marks: Vec::new(),
        })
    }

    /// What the next commit has to be guarded by.
    pub fn guard(&self) -> Guard {
        Guard {
            execution: self.execution,
            version: self.version,
            commit: self.commit,
        }
    }
}

/// What a commit expects to find (I1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard {
    /// The execution.
    pub execution: ExecutionId,
    /// Turns committed so far.
    pub version: u64,
    /// The last commit.
    pub commit: Option<CommitId>,
}
