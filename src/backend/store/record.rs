//! What the store keeps of one instance, and the operations on it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::model::{
    BuildId, CommitId, ExecutionId, InstanceRef, Lane, MessageId, Payload, RunId, Sequence, StallReason, Status,
    Timestamp, WaitingView,
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

/// What holds nothing is not stored: a view is written with each commit.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
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

    /// What the next commit has to be guarded by.
    pub fn guard(&self) -> Guard {
        Guard {
            execution: self.execution,
            version: self.version,
            commit: self.commit,
        }
    }
}

/// What to do when the instance ID is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConflictPolicy {
    /// Refuse if there is an instance at all, even a finished one.
    Reject,
    /// Refuse if there is an active instance; replace a finished one.
    #[default]
    RejectActive,
}

/// A new instance.
#[derive(Clone, Debug)]
pub struct Create {
    /// Whom to create.
    pub instance: InstanceRef,
    /// Its first execution.
    pub execution: ExecutionId,
    /// Its run.
    pub run: RunId,
    /// What is fixed; `origin.request` is what it counts once by.
    pub origin: Origin,
    /// Its input.
    pub input: Payload,
    /// What to do when the ID is taken.
    pub policy: ConflictPolicy,
    /// How long the receipt of a replaced instance's requests is kept.
    pub keep: Duration,
}

impl Create {
    /// What is there once it is created: `Pending`, with its start to be published.
    pub fn record(&self, created_at: Timestamp) -> Record {
        Record {
            execution: self.execution,
            run: self.run,
            version: 0,
            commit: None,
            status: Status::Pending,
            lane: None,
            origin: self.origin.clone(),
            input: Some(self.input.clone()),
            view: View::default(),
            outcome: None,
            updated_at: created_at,
            ended_at: None,
            marks: vec![Mark::Start],
        }
    }
}

/// What [`super::Store::create`] did.
#[derive(Clone, Debug, PartialEq)]
pub enum Created {
    /// It is there: [`Create::record`], as of this time of the store's.
    Created(Timestamp),
    /// The request had created this execution before; nothing was done. The instance may have moved on since, or be gone.
    Repeated {
        /// The execution that the request created.
        execution: ExecutionId,
        /// Its run.
        run: RunId,
    },
    /// The ID is taken.
    Exists(Box<Record>),
    /// The request was refused for good before it came (its check, or its parent's end, was quicker).
    Refused,
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

/// The time limits of a call, as its claim keeps them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimTerms {
    /// The call must be claimed before this time.
    pub start_by: Option<Timestamp>,
    /// How long after it was claimed it must be over; grace included.
    pub timeout: Option<Duration>,
    /// How long after its last progress it must report again; grace included.
    pub heartbeat: Option<Duration>,
}

/// A turn to append.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Whose.
    pub instance: InstanceRef,
    /// What must be so.
    pub guard: Guard,
    /// The name of this commit.
    pub id: CommitId,
    /// The turn, encoded. Its version is the guard's plus 1, or 1 if `next_execution` is given.
    pub turn: Bytes,
    /// Begin this execution: the history so far and all claims are removed (continue-as-new). Refused (`Conflict`) while a mark other than
    /// [`Mark::Run`] and those in `cleared` is set; removes that one.
    pub next_execution: Option<ExecutionId>,
    /// The status from now on. A terminal one sets `ended_at`, removes claims and wakes watchers.
    pub status: Status,
    /// Where the instance is at home.
    pub lane: Option<Lane>,
    /// What people see.
    pub view: View,
    /// How it ended, if it did.
    pub outcome: Option<Outcome>,
    /// True if the turn holds the input, so that the record need not.
    pub drop_input: bool,
    /// How many items, from the front, the turn has taken out of the inbox.
    pub inbox_taken: usize,
    /// Of these, the ones that have to wait on; put back at the front, in this order.
    pub inbox_kept: Vec<Bytes>,
    /// Marks to set.
    pub marks: Vec<Mark>,
    /// Marks whose effects this worker saw confirmed.
    pub cleared: Vec<Mark>,
    /// Claims to open.
    pub claims_opened: Vec<(Sequence, ClaimTerms)>,
    /// Claims and progress to forget.
    pub claims_closed: Vec<Sequence>,
}

impl Commit {
    /// The version of the turn.
    pub fn version(&self) -> u64 {
        if self.next_execution.is_some() {
            1
        } else {
            self.guard.version + 1
        }
    }

    /// What the record's guard is afterwards.
    pub fn next_guard(&self) -> Guard {
        Guard {
            execution: self.execution(),
            version: self.version(),
            commit: Some(self.id),
        }
    }

    /// The execution that the record is in afterwards.
    pub fn execution(&self) -> ExecutionId {
        self.next_execution.unwrap_or(self.guard.execution)
    }
}

/// What [`super::Store::commit`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Committed {
    /// It is in the history (now, or because the same commit was sent before and is the last one).
    Applied {
        /// Items left in the inbox, those that were put back (`inbox_kept`) included. If there are others, the next turn runs before anything is
        /// acknowledged.
        inbox_left: usize,
        /// The record's [`updated_at`](Record::updated_at) from now on.
        updated_at: Timestamp,
    },
    /// The record is not what the guard says. Reload; this commit may be in the history all the same, with others on top of it.
    Conflict,
    /// There is no record.
    Absent,
}

/// Record, turns and inbox as of one moment.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The record.
    pub record: Record,
    /// Encoded turns, in order, from the version asked for.
    pub turns: Vec<Bytes>,
    /// Encoded items, oldest first.
    pub inbox: Vec<Bytes>,
}

impl Loaded {
    /// Most turns that one load returns.
    pub const TURNS: usize = 1000;
}

/// What whoever waits for an instance's end has to know of its current run.
#[derive(Clone, Debug, PartialEq)]
pub struct Ending {
    /// The run.
    pub run: RunId,
    /// Its status.
    pub status: Status,
    /// What it came to, once it is over.
    pub outcome: Option<Outcome>,
}

/// An item that looks for its instance.
///
/// An item whose bytes are those of the last one in the inbox is a repeat, and is not added. One that is repeated later is added again: turns drop
/// what they have seen by its ID.
#[derive(Clone, Debug)]
pub struct Deliver {
    /// For whom.
    pub instance: InstanceRef,
    /// The encoded item (an [`crate::wire::Item`] as MessagePack).
    pub item: Bytes,
    /// If given, the inbox takes no more than this many items: for raised events. Completions, timers and commands always fit.
    pub bound: Option<usize>,
    /// True to put it into the inbox even though code may run: it came out of order.
    pub park: bool,
    /// If there is no record: keep it this long for one that may come. `None`: do not.
    pub keep_absent: Option<Duration>,
}

/// What [`super::Store::deliver`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// Code may run: send the item to this lane.
    ToLane(Lane),
    /// It is in the inbox (of an instance that is `Pending`, `Suspended` or `Stalled`, or of one that may come).
    Kept {
        /// The record's status, `None` if there is no record.
        status: Option<Status>,
    },
    /// The inbox holds as many events as it may.
    Full,
    /// The instance is over.
    Over(Status),
    /// There is no record, and the item was not to be kept.
    Absent,
}

/// What [`super::Store::delete`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// It is gone.
    Deleted,
    /// It is not terminal.
    Active,
    /// It is terminal, but effects of its last turns may be outstanding: drive its marks first.
    Marked,
    /// There is no such record, or another execution.
    Absent,
}

/// Whether a body may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Run it.
    Granted,
    /// Do not: the call is over.
    Closed,
}

/// What a due deadline means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClaimVerdict {
    /// Nobody took the claim in time: the body never ran, and never will.
    NotStarted,
    /// It was taken and has run for too long.
    TimedOut,
    /// It was taken and has not reported progress for too long.
    HeartbeatMissed,
    /// All limits hold: look again at this time.
    Again(Timestamp),
    /// The call is over.
    Closed,
}

/// An attempt's progress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The call.
    pub sequence: Sequence,
    /// When the attempt was claimed, if it was.
    pub claimed_at: Option<Timestamp>,
    /// When it last reported.
    pub at: Option<Timestamp>,
    /// What it reported: JSON text.
    pub details: Option<Bytes>,
}
