//! The state of the model: what store and broker hold, what each process is about to do, and what only the checker knows.
//!
//! The names are those of the code: `Record`, `Guard`, `Commit`, `Mark`, `Live`, `Draft`. Payloads, time and lanes are left out, because the protocol
//! is right whatever they are: a message may be taken by any worker, and a due entry at any moment.

use super::sets::{Mark, Set};

/// An execution. The request `r` creates `2 * r`; continue-as-new begins `2 * r + 1`.
pub(crate) type ExecutionId = u8;
/// A start's request: its receipt is what a start counts once by.
pub(crate) type RequestId = u8;
pub(crate) type CommitId = u8;
/// A process: the client is 0, workers are 1 and up.
pub(crate) type ProcessId = u8;

pub(crate) const CLIENT: ProcessId = 0;

pub(crate) fn request_of(execution: ExecutionId) -> RequestId {
    execution / 2
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Status {
    Pending,
    Running,
    Completed,
    Terminated,
}

impl Status {
    pub(crate) fn is_terminal(self) -> bool {
        matches!(self, Status::Completed | Status::Terminated)
    }
}

/// What a commit has to find (I1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Guard {
    pub(crate) execution: ExecutionId,
    pub(crate) version: u8,
    pub(crate) commit: Option<CommitId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Record {
    pub(crate) execution: ExecutionId,
    pub(crate) version: u8,
    pub(crate) commit: Option<CommitId>,
    pub(crate) status: Status,
    pub(crate) marks: Set,
    pub(crate) request: RequestId,
}

impl Record {
    pub(crate) fn guard(&self) -> Guard {
        Guard {
            execution: self.execution,
            version: self.version,
            commit: self.commit,
        }
    }
}

/// A turn in the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Turn {
    /// The execution that it was drawn up for.
    pub(crate) execution: ExecutionId,
    pub(crate) version: u8,
    pub(crate) events: Set,
}

/// What travels, or waits in the inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Item {
    Start(ExecutionId),
    Task(ExecutionId),
    Completion {
        execution: ExecutionId,
        /// From the app that the task was sent to, with the task's execution ID.
        is_genuine: bool,
    },
    Timer(ExecutionId),
    /// Raised under one message ID.
    Event,
    /// For the run of this request alone.
    Terminate(RequestId),
    Wake,
}

/// A message in a queue; held by whoever it was delivered to and has not acknowledged it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Message {
    pub(crate) item: Item,
    pub(crate) holder: Option<ProcessId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum DueKey {
    Check(RequestId),
    Timer(ExecutionId),
    Retention(ExecutionId),
}

/// An entry of the due-set; claimed by whoever handles it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct DueEntry {
    pub(crate) key: DueKey,
    pub(crate) holder: Option<ProcessId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Receipt {
    Created(ExecutionId),
    Refused,
}

/// Redis, or the embedded file.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Store {
    pub(crate) record: Option<Record>,
    pub(crate) history: Vec<Turn>,
    pub(crate) inbox: Vec<Item>,
    pub(crate) receipts: [Option<Receipt>; 2],
    /// Sorted, so that equal due-sets are equal.
    pub(crate) due: Vec<DueEntry>,
}

/// An instance as a worker holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Live {
    pub(crate) record: Record,
    /// All events of the execution, up to the record's version.
    pub(crate) events: Set,
}

/// A commit on its way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Commit {
    pub(crate) guard: Guard,
    pub(crate) id: CommitId,
    pub(crate) next_execution: Option<ExecutionId>,
    pub(crate) events: Set,
    pub(crate) status: Status,
    pub(crate) marks: Set,
    pub(crate) cleared: Set,
    pub(crate) inbox_taken: u8,
    pub(crate) inbox_kept: Vec<Item>,
    /// The turn has dealt with the activation's item (`Draft::consumed`).
    pub(crate) consumed: bool,
}

impl Commit {
    pub(crate) fn execution(&self) -> ExecutionId {
        self.next_execution.unwrap_or(self.guard.execution)
    }

    pub(crate) fn version(&self) -> u8 {
        if self.next_execution.is_some() {
            1
        } else {
            self.guard.version + 1
        }
    }
}

/// Marks that are being driven, one await after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Driving {
    /// The record as it was read.
    pub(crate) record: Record,
    pub(crate) marks: Set,
    /// The mark whose effects are being made, and those that are left.
    pub(crate) now: Option<(Mark, Set)>,
    pub(crate) is_cleared: bool,
    /// Of an end that is being settled: its retention is set.
    pub(crate) is_retained: bool,
}

/// What a worker does for an item. `at` is the await that comes next.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Activation {
    pub(crate) at: At,
    /// The message's item.
    pub(crate) came: Item,
    /// The same, until it is taken care of.
    pub(crate) item: Option<Item>,
    pub(crate) is_current: bool,
    pub(crate) live: Option<Live>,
    /// What the inbox held when the state was read.
    pub(crate) inbox: Vec<Item>,
}

/// Where an activation stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum At {
    Load,
    Drive(Driving),
    /// Read the record again, before something is dropped because of the state.
    Confirm,
    StartAgain,
    Deliver {
        park: bool,
    },
    Commit(Commit),
    Effects {
        commit: Commit,
        left: Set,
        inbox_left: u8,
    },
    /// Only by mistake: it is done with the next commit, or by the way.
    ClearMark {
        commit: Commit,
        inbox_left: u8,
    },
    Acknowledge,
}

/// What a worker does for a due entry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Handling {
    pub(crate) key: DueKey,
    pub(crate) at: Due,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Due {
    /// A check without its record: refuse the request.
    Refuse,
    /// The request was not refused: look again.
    ReadAgain,
    Drive(Driving, AfterDrive),
    StartAgain(ExecutionId),
    /// Look at the inbox.
    Inbox,
    Wake,
    Fire,
    /// Retention: delete the record, then its entries.
    Delete,
    Unschedule(RequestId),
    Settle {
        remove: bool,
    },
}

/// What the handler goes on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum AfterDrive {
    Settle,
    Look,
    Delete,
}

/// What the client does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Asking {
    /// Start: check entry, record, publish.
    ScheduleCheck,
    Create,
    /// An occupant that is over but marked is driven first, so that it can be replaced.
    DriveOccupant(Driving),
    PublishStart,
    /// Only by mistake: it is done by the way, later.
    ClearStart,
    /// Raise the event.
    Deliver,
    Publish(Item),
    /// Terminate: read, then as the status has it.
    Command,
    DriveEnded(Driving),
    CommitPlain(Commit),
    EndEffects(Commit, Set),
    ClearEnd(Commit),
    Retain(ExecutionId),
    ForgetCheck,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Wish {
    Start(RequestId),
    Raise,
    Terminate,
}

/// A process between two awaits.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Job {
    #[default]
    Idle,
    Turn(Activation),
    Due(Handling),
    Ask(Wish, Asking),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Process {
    pub(crate) job: Job,
    /// The live instance between turns.
    pub(crate) cache: Option<Live>,
    /// Marks whose effects it saw confirmed and that are yet to be cleared, by execution.
    pub(crate) confirmed: [Set; 4],
}

impl Process {
    /// The next mark that it clears by itself.
    pub(crate) fn first_confirmed(&self) -> Option<(ExecutionId, Mark)> {
        (0..)
            .zip(&self.confirmed)
            .find_map(|(execution, marks)| Some((execution, marks.first()?)))
    }

    pub(crate) fn confirm(&mut self, execution: ExecutionId, mark: Mark) {
        let marks = &mut self.confirmed[usize::from(execution)];
        *marks = marks.with(mark);
    }

    pub(crate) fn forget(&mut self, execution: ExecutionId, cleared: Set) {
        let marks = &mut self.confirmed[usize::from(execution)];
        *marks = marks.less(cleared);
    }
}

/// What no process knows: the checker's own notes.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Notes {
    /// Events that were ever committed, by execution.
    pub(crate) events: [Set; 4],
    /// Turns that were ever committed, by execution.
    pub(crate) turns: [u8; 4],
    /// Effects of what was committed that nobody has made yet, by execution.
    pub(crate) owed: [Set; 4],
    /// Requests that have created an instance.
    pub(crate) created: [bool; 2],
    /// Items that were ever in a queue, and may come again.
    pub(crate) published: Set,
    /// The first thing that was seen to be wrong in a step.
    pub(crate) wrong: Option<Wrong>,
}

/// What a single step can do wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Wrong {
    /// I1: a turn was appended to a state that its worker had not seen.
    AppendedBlindly,
    /// I2: an effect was made of what is not committed.
    MadeBeforeCommit,
    /// I2: a message was acknowledged, or a due entry removed, that had not had its effect.
    LetGoTooEarly,
    /// I3: something counted twice.
    CountedTwice,
    /// I5: a result counted that was not the call's.
    ForeignResult,
}

/// Everything.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct State {
    pub(crate) store: Store,
    /// All queues. Sorted, so that equal brokers are equal: messages come in any order.
    pub(crate) broker: Vec<Message>,
    pub(crate) processes: Vec<Process>,
    /// How many of its wishes the client has taken up.
    pub(crate) wishes_granted: u8,
    /// A commit that its connection has not delivered yet; its sender may have died, or have sent it again.
    pub(crate) late: Option<Commit>,
    pub(crate) faults_left: u8,
    pub(crate) notes: Notes,
}

impl State {
    pub(crate) fn wrong(&mut self, wrong: Wrong) {
        self.notes.wrong.get_or_insert(wrong);
    }

    /// A name for a commit that nothing refers to any more, so that equal states have equal names.
    pub(crate) fn fresh_commit(&self) -> CommitId {
        let mut used = Names(0);
        used.extend(self.store.record.and_then(|record| record.commit));
        used.extend(self.late.iter().flat_map(commit_names));
        for process in &self.processes {
            used.extend(process.cache.and_then(|live| live.record.commit));
            match &process.job {
                Job::Turn(activation) => {
                    used.extend(activation.live.and_then(|live| live.record.commit));
                    match &activation.at {
                        At::Drive(driving) => used.extend(driving.record.commit),
                        At::Commit(commit) | At::Effects { commit, .. } | At::ClearMark { commit, .. } => {
                            used.extend(commit_names(commit));
                        }
                        _ => {}
                    }
                }
                Job::Due(Handling {
                    at: Due::Drive(driving, _),
                    ..
                })
                | Job::Ask(_, Asking::DriveOccupant(driving) | Asking::DriveEnded(driving)) => {
                    used.extend(driving.record.commit);
                }
                Job::Ask(_, Asking::CommitPlain(commit) | Asking::EndEffects(commit, _) | Asking::ClearEnd(commit)) => {
                    used.extend(commit_names(commit));
                }
                _ => {}
            }
        }
        used.0.trailing_ones() as CommitId
    }

    pub(crate) fn is_quiet(&self) -> bool {
        let is_idle = |process: &Process| process.job == Job::Idle && process.first_confirmed().is_none();
        self.late.is_none() && self.processes.iter().all(is_idle)
    }
}

/// Commit IDs that are in use.
struct Names(u32);

impl Extend<CommitId> for Names {
    fn extend<T: IntoIterator<Item = CommitId>>(&mut self, names: T) {
        names.into_iter().for_each(|name| self.0 |= 1 << name);
    }
}

fn commit_names(commit: &Commit) -> impl Iterator<Item = CommitId> + use<> {
    commit.guard.commit.into_iter().chain([commit.id])
}
