//! How runs end, and ending one that has not begun.

use super::due::retention_entry;
use super::effects::{effects_of, started, terminated};
use super::{Engine, check_key};
use crate::backend::{Commit, Committed, Mark, Record, Result, When};
use crate::fault::fault_point;
use crate::model::{CommitId, Failure, InstanceRef, Payload, Status};
use crate::replay::history::{HistoryEvent, Turn};
use crate::wire::{Outcome, StartItem};

/// Status and outcome of the run, if the event ends it.
pub(crate) fn ended_by(event: &HistoryEvent) -> Option<(Status, Outcome)> {
    match event {
        HistoryEvent::ExecutionCompleted { output } => Some((Status::Completed, Outcome::Completed(output.clone()))),
        HistoryEvent::ExecutionFailed { failure } => Some((Status::Failed, Outcome::Failed(failure.clone()))),
        HistoryEvent::ExecutionTerminated { reason, .. } => {
            Some((Status::Terminated, Outcome::Failed(terminated(reason))))
        }
        _ => None,
    }
}

/// How an instance is ended before its first turn.
pub(crate) enum EarlyEnd {
    /// By an operator or its parent.
    Terminated(String),
    /// It could not be started.
    Failed(Failure),
}

impl Engine {
    /// Ends an instance that no code has run for. False if it is not `Pending` any more (or not as the record says): read it again.
    pub(crate) async fn end_early(&self, instance: &InstanceRef, record: &Record, end: EarlyEnd) -> Result<bool> {
        let now = self.now().await?;
        let input = record.input.clone().unwrap_or_else(Payload::null);
        let ending = match end {
            EarlyEnd::Terminated(reason) => HistoryEvent::ExecutionTerminated {
                reason,
                recursive: false,
                children: Vec::new(),
            },
            EarlyEnd::Failed(failure) => HistoryEvent::ExecutionFailed { failure },
        };
        let events = vec![started(record, input, record.run), ending];
        self.commit_plain(instance, record, now, events).await
    }

    /// Ends an instance whose start nobody can take: its end is the answer to whoever waits. Nothing happens if it has begun, or is another's.
    pub(crate) async fn fail_start(&self, start: &StartItem, failure: Failure) -> Result<()> {
        let instance = &start.instance;
        loop {
            let Some(record) = self.retrying("record", || self.store().record(instance)).await? else {
                return Ok(());
            };
            if record.execution != start.execution || record.status != Status::Pending {
                return self.drive_marks_of_another(instance, &record).await;
            }
            if self
                .end_early(instance, &record, EarlyEnd::Failed(failure.clone()))
                .await?
            {
                return Ok(());
            }
        }
    }

    /// Appends a turn without running code and makes its effects: for instances that have not begun, or whose code may not run. What else changes about
    /// the record stands in its view already. False on a conflict.
    pub(crate) async fn commit_plain(
        &self,
        instance: &InstanceRef,
        record: &Record,
        now: crate::model::Timestamp,
        events: Vec<HistoryEvent>,
    ) -> Result<bool> {
        let turn = Turn {
            version: record.version + 1,
            commit: CommitId::generate(),
            at: now,
            build: None,
            events,
        };
        let ended = turn.events.iter().find_map(ended_by);
        let status = match (&ended, turn.events.last()) {
            (Some((status, _)), _) => *status,
            (None, Some(HistoryEvent::ExecutionSuspended { .. })) => Status::Suspended,
            (None, Some(HistoryEvent::ExecutionResumed { .. })) => Status::Pending,
            _ => record.status,
        };
        let encoded = turn.encode();
        let mut view = record.view.clone();
        view.history_events += turn.events.len() as u64;
        view.history_bytes += encoded.len() as u64;
        let parent = record.origin.parent.as_ref();
        let effects = effects_of(instance, record.execution, record.lane, parent, &turn);
        let mut marks = Vec::new();
        marks.extend((!effects.is_empty()).then_some(Mark::Turn(turn.version)));
        if status == Status::Pending && record.status != Status::Pending {
            // Resumed before it had begun: its start is sent again.
            marks.push(Mark::Start);
        }
        let commit = Commit {
            instance: instance.clone(),
            guard: record.guard(),
            id: turn.commit,
            turn: encoded,
            next_execution: None,
            status,
            lane: record.lane,
            view,
            outcome: ended.map(|(_, outcome)| outcome),
            drop_input: status.is_terminal(),
            inbox_taken: 0,
            inbox_kept: Vec::new(),
            marks,
            // Neither its start nor its next execution is wanted any more: nobody may run what is over.
            cleared: if status == Status::Pending {
                Vec::new()
            } else {
                vec![Mark::Start, Mark::Run]
            },
            claims_opened: Vec::new(),
            claims_closed: Vec::new(),
        };
        match self.retrying("commit", || self.store().commit(&commit)).await? {
            Committed::Applied { .. } => {}
            Committed::Conflict | Committed::Absent => return Ok(false),
        }
        // A crash here: the turn is marked, and the instance's check makes its effects.
        fault_point("ending-committed");
        let stored = self.retrying("record", || self.store().record(instance)).await?;
        let Some(record) = stored.filter(|stored| stored.execution == commit.execution()) else {
            // Whoever replaced or deleted it has made its effects first.
            return Ok(true);
        };
        self.make(instance, &record, effects).await?;
        fault_point("ending-effects-made");
        let mark = Mark::Turn(turn.version);
        if commit.marks.contains(&mark) {
            self.clear_mark(instance, commit.execution(), mark).await?;
        }
        // Only an earlier turn that cannot be read is still marked: its check stays.
        if status.is_terminal() && record.marks.iter().all(|left| *left == mark) {
            self.settle_end(instance, &record).await?;
        }
        Ok(true)
    }

    /// Notes in the index that an instance is over that has no marks left, has it deleted when its time has come, and lets go of its check: nobody needs to
    /// look at it any more. The check sees to all of this if nobody else does.
    pub(crate) async fn settle_end(&self, instance: &InstanceRef, record: &Record) -> Result<()> {
        // First: once it is deleted, nobody is to note it any more.
        self.retrying("index", || self.store().index(instance, record)).await?;
        self.retain(instance, record).await?;
        // A crash here: its check does this once more.
        fault_point("end-noted");
        let key = check_key(instance, &record.origin.request);
        let was_there = self
            .retrying("unschedule", || {
                self.store().unschedule(&instance.app, std::slice::from_ref(&key))
            })
            .await?;
        if was_there {
            return Ok(());
        }
        // Its check has settled it, or whoever has purged it has removed that: then what we have written came too late, and goes again.
        match self.retrying("record", || self.store().record(instance)).await? {
            Some(stored) if stored.execution == record.execution => Ok(()),
            _ => self.sweep(instance, record.execution).await,
        }
    }

    /// Has the instance deleted when it was over for as long as those of its status are kept. A purge meanwhile has brought that forward, and is not undone.
    async fn retain(&self, instance: &InstanceRef, record: &Record) -> Result<()> {
        let Some(keep) = self.retention.of(record.status) else {
            return Ok(());
        };
        let due = record.ended_at.unwrap_or(record.updated_at) + keep;
        let entry = retention_entry(instance, record.execution, due);
        self.schedule(instance, &[entry], When::Sooner).await
    }
}
