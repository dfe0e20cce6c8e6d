//! Whether a task is still wanted: asked of its caller's record, and only if there is a reason to ask.

use std::time::Duration;

use tracing::warn;

use super::run::Run;
use crate::backend::{Record, Result};
use crate::model::{WaitingFor, WaitingView};

/// A task older than this is run only if its caller still wants it.
const STALE_AFTER: Duration = Duration::from_secs(5);

impl Run {
    /// True if nobody can have run it before, or be over it by now.
    pub(super) fn is_young(&self) -> bool {
        !self.is_redelivered && self.runtime.now().since(self.task.scheduled_at) < STALE_AFTER
    }

    /// The caller's record. One that cannot be read says nothing against the task: its result waits for whoever can.
    async fn caller_record(&self) -> Result<Option<Option<Record>>> {
        let engine = &self.runtime.engine;
        let caller = &self.task.caller.instance;
        match engine.retrying("record", || engine.store().record(caller)).await {
            Err(error) if error.is_permanent() => {
                warn!(%caller, activity = %self.task.name, %error, "the record of a task's caller cannot be read; the task is run");
                Ok(None)
            }
            record => record.map(Some),
        }
    }

    /// True if the caller's execution is over, or its record shows that the call is. Young tasks are not asked about.
    pub(super) async fn is_unwanted(&self) -> Result<bool> {
        if self.is_young() {
            return Ok(false);
        }
        let caller = &self.task.caller;
        let Some(record) = Box::pin(self.caller_record()).await? else {
            return Ok(false);
        };
        Ok(record.is_none_or(|record| {
            record.status.is_terminal()
                || record.execution != caller.execution
                || self.is_shown_open(&record.view.waiting) == Some(false)
        }))
    }

    /// True if the call's result is in the caller's history: the message came again although its work was done. Asked only of redelivered tasks.
    pub(super) async fn is_settled(&self) -> Result<bool> {
        let engine = &self.runtime.engine;
        let caller = &self.task.caller;
        let Some(record) = self.caller_record().await? else {
            return Ok(false);
        };
        let Some(record) = record else { return Ok(true) };
        if let Some(is_open) = self.is_shown_open(&record.view.waiting) {
            return Ok(!is_open);
        }
        if record.execution != caller.execution {
            return Ok(false);
        }
        // The record names only the first few calls; the history names them all.
        let outline = engine.outline(&caller.instance, &record).await?;
        Ok(outline.is_some_and(|outline| outline.is_over(caller.sequence)))
    }

    /// Whether the call is open, as far as the record shows; `None` if it shows only some of what is open.
    fn is_shown_open(&self, waiting: &WaitingView) -> Option<bool> {
        let is_it = |entry: &WaitingFor| matches!(entry, WaitingFor::Activity { sequence, .. } if *sequence == self.task.caller.sequence);
        (waiting.shown.len() == waiting.total).then(|| waiting.shown.iter().any(is_it))
    }
}
