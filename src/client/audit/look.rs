//! One look at an instance: what of all that it waits for is not where it ought to be.

use std::collections::HashSet;
use std::time::Duration;

use crate::backend::{DueKey, Mark, Queue, Record};
use crate::client::{Client, Error};
use crate::engine::{Open, What, check_key, decode, lease_key, parked_key, timer_key};
use crate::model::{AppId, ExecutionId, InstanceRef, MessageId, Sequence, Status, Timestamp};
use crate::wire::{Item, TaskRef};

use super::report::Trouble;

/// An entry of the due-set that is due sooner than this may just be on its way.
const SOON: Duration = Duration::from_secs(2);
/// Items of the inbox that are read.
const INBOX: usize = 100_000;

/// Something that is not where it ought to be, as one look found it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Suspect {
    pub(super) instance: InstanceRef,
    pub(super) execution: ExecutionId,
    pub(super) what: Missing,
}

/// See [`Suspect`].
#[derive(Clone, Debug, PartialEq)]
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

/// Looks at instances.
pub(super) struct Looker<'a> {
    pub(super) client: &'a Client,
    pub(super) now: Timestamp,
    /// What is younger is left alone.
    pub(super) grace: Duration,
}

impl Looker<'_> {
    /// What is not where it ought to be, as of the record. Nothing for an instance whose effects are being made.
    pub(super) async fn look(&self, instance: &InstanceRef, record: &Record) -> Result<Vec<Suspect>, Error> {
        let mut missing = Vec::new();
        if self.lacks_check(instance, record).await? {
            missing.push(Missing::Check);
        }
        let is_marked = record.marks.iter().any(|mark| matches!(mark, Mark::Turn(_)));
        // While a turn is marked its effects may be under way; its check makes them.
        if !record.status.is_terminal() && !is_marked {
            match record.status {
                Status::Pending => missing.extend(self.start(record)),
                _ => self.history(instance, record, &mut missing).await?,
            }
        }
        let suspect = |what| Suspect {
            instance: instance.clone(),
            execution: record.execution,
            what,
        };
        Ok(missing.into_iter().map(suspect).collect())
    }

    /// The entry is there before the record is, and goes when the record is over and unmarked: so the record is read behind it.
    async fn lacks_check(&self, instance: &InstanceRef, record: &Record) -> Result<bool, Error> {
        let needs_one = |record: &Record| !record.status.is_terminal() || !record.marks.is_empty();
        let request = &record.origin.request;
        if !needs_one(record) || self.has_entry(&instance.app, &check_key(instance, request)).await? {
            return Ok(false);
        }
        let behind = self.client.record(instance).await?;
        Ok(behind.is_some_and(|behind| needs_one(&behind) && behind.origin.request == *request))
    }

    fn is_young(&self, since: Timestamp) -> bool {
        self.now.since(since) < self.grace
    }

    fn start(&self, record: &Record) -> Option<Missing> {
        let begins = record.origin.start_at.unwrap_or_default().max(record.updated_at);
        let is_published = !record.marks.contains(&Mark::Start);
        (is_published && !self.is_young(begins)).then_some(Missing::Start)
    }

    async fn history(&self, instance: &InstanceRef, record: &Record, missing: &mut Vec<Missing>) -> Result<(), Error> {
        let engine = self.client.engine();
        // Not readable is for its workers to say: it stalls.
        let Some(outline) = self.client.reach(engine.outline(instance, record)).await? else {
            return Ok(());
        };
        let is_next_forgotten = outline.is_renewed && !record.marks.contains(&Mark::Run);
        if is_next_forgotten && record.status == Status::Running && !self.is_young(record.updated_at) {
            missing.push(Missing::NextExecution);
        }
        let mut found = Vec::new();
        for (sequence, open) in &outline.open {
            if !self.is_young(open.at) {
                self.timer(record, *sequence, open, instance, &mut found).await?;
                self.call(record, *sequence, open, instance, &mut found).await?;
            }
        }
        if !found.is_empty() {
            let inbox = self.inbox(instance, record).await?;
            found.retain(|what| {
                let suspect = Suspect {
                    instance: instance.clone(),
                    execution: record.execution,
                    what: what.clone(),
                };
                !suspect.identities().iter().any(|id| inbox.contains(id))
            });
        }
        missing.append(&mut found);
        Ok(())
    }

    async fn timer(
        &self,
        record: &Record,
        sequence: Sequence,
        open: &Open,
        instance: &InstanceRef,
        missing: &mut Vec<Missing>,
    ) -> Result<(), Error> {
        let Some(due) = open.due else { return Ok(()) };
        let is_past = due < self.now + SOON;
        // A time limit that was due once has told so; whether there is to be another entry is known to the call's claim alone.
        let is_told = is_past && !matches!(open.what, What::Timer);
        if is_told || (is_past && self.is_young(due)) {
            return Ok(());
        }
        if !self
            .has_entry(&instance.app, &timer_key(record.execution, sequence))
            .await?
        {
            missing.push(Missing::Timer {
                sequence,
                turn: open.turn,
                is_past,
            });
        }
        Ok(())
    }

    async fn call(
        &self,
        record: &Record,
        sequence: Sequence,
        open: &Open,
        instance: &InstanceRef,
        missing: &mut Vec<Missing>,
    ) -> Result<(), Error> {
        let turn = open.turn;
        let task = TaskRef {
            instance: instance.clone(),
            execution: record.execution,
            sequence,
        };
        match &open.what {
            What::Timer => {}
            What::Activity { app, name } => {
                let id = task.message_id("task");
                // The lease is the target's, the parked task its caller's.
                let is_kept = self.has_entry(app, &lease_key(&id)).await?
                    || self.has_entry(&instance.app, &parked_key(&id)).await?;
                if !is_kept {
                    missing.push(Missing::Task {
                        sequence,
                        turn,
                        app: app.clone(),
                        name: name.clone(),
                    });
                }
            }
            What::Child { instance: child } => {
                let found = self.client.record(child).await?;
                let ours = found.filter(|child| child.origin.parent.as_ref().is_some_and(|parent| parent.task == task));
                let child = child.clone();
                match ours {
                    None => missing.push(Missing::Child { sequence, turn, child }),
                    Some(record) if record.status.is_terminal() => {
                        if !self.is_young(record.ended_at.unwrap_or(record.updated_at)) {
                            let is_marked = !record.marks.is_empty();
                            missing.push(Missing::Answer {
                                sequence,
                                child,
                                is_marked,
                            });
                        }
                    }
                    // It is looked at for itself.
                    Some(_) => {}
                }
            }
        }
        Ok(())
    }

    /// What has arrived and waits for code to be allowed to run.
    async fn inbox(&self, instance: &InstanceRef, record: &Record) -> Result<HashSet<MessageId>, Error> {
        let store = self.client.store();
        let loaded = self
            .client
            .ask("load", || store.load(instance, record.version, INBOX))
            .await?;
        let items = loaded.into_iter().flat_map(|loaded| loaded.inbox);
        Ok(items
            .filter_map(|bytes| decode::<Item>(&bytes).ok()?.identity())
            .collect())
    }

    async fn has_entry(&self, app: &AppId, key: &DueKey) -> Result<bool, Error> {
        let store = self.client.store();
        let entry = self.client.ask("due entry", || store.due_entry(app, key)).await?;
        Ok(entry.is_some())
    }
}
