//! Commands to an instance: through its lane while code may run for it, directly in the store before its first turn.

use super::Engine;
use super::ending::EarlyEnd;
use super::start::child_request;
use crate::backend::{Queue, Record, Result};
use crate::fault::{Defect, planted};
use crate::model::{InstanceRef, Status, Timestamp};
use crate::replay::history::HistoryEvent;
use crate::wire::{Command, CommandItem, Item, TaskRef};

/// What became of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Commanded {
    /// It is on its way to the worker that holds the instance.
    Sent,
    /// It has taken effect.
    Done,
    /// The instance is over.
    Over(Status),
    /// There is no such instance (or it is not the run, or not the child, that was meant).
    Absent,
}

impl Engine {
    /// Carries out a command, or sends it to where it will be.
    pub(crate) async fn command(&self, item: CommandItem) -> Result<Commanded> {
        let instance = item.instance.clone();
        loop {
            let Some(record) = self.retrying("record", || self.store().record(&instance)).await? else {
                return Ok(Commanded::Absent);
            };
            let other_run = item.run.is_some_and(|run| run != record.run);
            let parent = record.origin.parent.as_ref().map(|parent| &parent.task);
            let other_parent = item.parent.as_ref().is_some_and(|wanted| parent != Some(wanted));
            if other_run || other_parent {
                return Ok(Commanded::Absent);
            }
            if record.status.is_terminal() {
                self.drive_marks_of_another(&instance, &record).await?;
                return Ok(Commanded::Over(record.status));
            }
            if let Some(lane) = record.lane {
                self.outbox
                    .send(Queue::Events(instance.app.clone(), lane), Item::Command(item))
                    .await?;
                return Ok(Commanded::Sent);
            }
            // No worker has it yet, and none is needed.
            let applied = match &item.command {
                Command::Terminate { reason, .. } => {
                    self.end_early(&instance, &record, EarlyEnd::Terminated(reason.clone()))
                        .await?
                }
                Command::Suspend { .. } | Command::Resume { .. } if record.view.commanded_at > Some(item.issued_at) => {
                    true
                }
                Command::Suspend { reason } => {
                    let event = (record.status == Status::Pending)
                        .then(|| HistoryEvent::ExecutionSuspended { reason: reason.clone() });
                    self.tell_early(&instance, record, item.issued_at, event).await?
                }
                Command::Resume { reason } => {
                    let event = (record.status == Status::Suspended)
                        .then(|| HistoryEvent::ExecutionResumed { reason: reason.clone() });
                    self.tell_early(&instance, record, item.issued_at, event).await?
                }
            };
            if applied {
                return Ok(Commanded::Done);
            }
        }
    }

    /// Suspends or resumes an instance before its first turn. Without an event it is so already, and only the time is noted, for what was asked for
    /// earlier and comes later. False if the record has changed: read it again.
    async fn tell_early(
        &self,
        instance: &InstanceRef,
        mut record: Record,
        asked_at: Timestamp,
        event: Option<HistoryEvent>,
    ) -> Result<bool> {
        let is_resumed = matches!(event, Some(HistoryEvent::ExecutionResumed { .. }));
        let now = self.now().await?;
        record.view.commanded_at = Some(asked_at);
        let applied = self
            .commit_plain(instance, &record, now, event.into_iter().collect())
            .await?;
        if is_resumed && let Some(record) = self.retrying("record", || self.store().record(instance)).await? {
            // Its start.
            self.drive_marks(instance, &record).await?;
        }
        Ok(applied)
    }

    /// Terminates the child of a call, whether it exists already or not.
    pub(crate) async fn terminate_child(&self, child: &InstanceRef, task: TaskRef) -> Result<()> {
        let request = child_request(&task);
        let command = Command::Terminate {
            reason: format!("its parent {} ended", task.instance),
            recursive: true,
        };
        let item = CommandItem {
            instance: child.clone(),
            command,
            issued_at: self.now().await?,
            run: None,
            parent: Some(task),
        };
        let is_absent = self.command(item.clone()).await? == Commanded::Absent;
        if !is_absent || planted(Defect::EarlyTerminateIsLost) {
            return Ok(());
        }
        // It may be on its way: a receipt with the parent's call refuses it when it comes. If it came meanwhile, it is there to be commanded.
        let keep = self.limits.dedup_window;
        if !self
            .retrying("refuse", || self.store().refuse(child, &request, keep))
            .await?
        {
            self.command(item).await?;
        }
        Ok(())
    }
}
