//! The operations on one instance: what they are given, and what they say that they did.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::record::{Guard, Mark, Origin, Record, View};
use crate::model::{CommitId, ExecutionId, InstanceRef, Lane, Payload, RunId, Sequence, Status, Timestamp};
use crate::wire::Outcome;

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
    /// The request had created this before; nothing was done. The instance may have moved on since, or be gone.
    Repeated {
        /// The execution that the request created, or a later one of its run.
        execution: ExecutionId,
        /// Its run.
        run: RunId,
    },
    /// The ID is taken.
    Exists(Box<Record>),
    /// The request was refused for good before it came (its check, or its parent's end, was quicker).
    Refused,
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
