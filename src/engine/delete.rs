//! Deleting a finished instance: what is marked is driven first; index and check entries go with the record, and so does the retention entry, unless it is
//! to sweep up.

use std::time::Duration;

use tracing::warn;

use super::due::retention_entry;
use super::{Engine, check_key, retention_key};
use crate::backend::{Deleted, Mark, Result, When};
use crate::fault::{Defect, planted};
use crate::model::{ExecutionId, InstanceRef, MessageId, Timestamp};
use crate::wire::TaskRef;

/// What a worker that dies had under way for the end of an instance has reached the store by then. (One that lives finds out that the instance is gone,
/// however late: [`Engine::settle_end`].)
const STRAGGLERS_WITHIN: Duration = Duration::from_secs(30);

impl Engine {
    /// Deletes the instance if it is over, in this execution, with all its effects made.
    pub(crate) async fn delete(&self, instance: &InstanceRef, execution: ExecutionId) -> Result<Deleted> {
        let keep = self.limits.dedup_window;
        loop {
            let Some(record) = self.retrying("record", || self.store().record(instance)).await? else {
                // Purged. Whoever made the effects of its end beside the purge may have noted it afterwards.
                self.unindex(instance).await?;
                return Ok(Deleted::Absent);
            };
            if record.execution != execution {
                // Started anew. Whoever forgot the one before may have died before it noted this one again.
                self.retrying("index", || self.store().index(instance, &record)).await?;
                return Ok(Deleted::Absent);
            }
            if !record.status.is_terminal() {
                return Ok(Deleted::Active);
            }
            if !planted(Defect::MarkedTurnIsRetired) {
                self.drive_marks(instance, &record).await?;
            }
            self.drive_parent(record.origin.parent.as_ref().map(|parent| &parent.task))
                .await?;
            let deleted = self
                .retrying("delete", || self.store().delete(instance, execution, keep))
                .await?;
            match deleted {
                Deleted::Marked => continue,
                Deleted::Active => return Ok(deleted),
                // A crash here leaves entries that name nothing; their handlers, and every reader of the index, find that out.
                Deleted::Deleted | Deleted::Absent => {
                    let keys = [
                        check_key(instance, &record.origin.request),
                        retention_key(instance, execution),
                    ];
                    self.retrying("unschedule", || self.store().unschedule(&instance.app, &keys))
                        .await?;
                    self.unindex(instance).await?;
                    return Ok(deleted);
                }
            }
        }
    }

    /// Removes what lies about a finished instance that somebody has purged, whose request and end these are. An instance that has ended only just may
    /// have its end noted by a worker still: its retention entry comes a little later and sweeps up, instead of being removed and written again.
    pub(crate) async fn tidy_after_purge(
        &self,
        instance: &InstanceRef,
        execution: ExecutionId,
        request: &MessageId,
        ended: Timestamp,
    ) -> Result<()> {
        let (now, mut keys) = (self.now().await?, vec![check_key(instance, request)]);
        if now.since(ended) < STRAGGLERS_WITHIN {
            let sweep = retention_entry(instance, execution, now + STRAGGLERS_WITHIN);
            self.schedule(instance, &[sweep], When::Sooner).await?;
        } else {
            keys.push(retention_key(instance, execution));
        }
        self.retrying("unschedule", || self.store().unschedule(&instance.app, &keys))
            .await?;
        self.unindex(instance).await
    }

    /// Forgets an instance that is gone, unless its ID is in use again.
    pub(crate) async fn unindex(&self, instance: &InstanceRef) -> Result<()> {
        self.confirmed.forget_instance(instance);
        self.retrying("unindex", || self.store().unindex(instance)).await?;
        if let Some(record) = self.retrying("record", || self.store().record(instance)).await? {
            // Started anew in between: what we have just removed may have been its entry.
            self.retrying("index", || self.store().index(instance, &record)).await?;
        }
        Ok(())
    }

    /// Clears a mark whose effects were made; gives how many are left. An instance that is gone by now was deleted by somebody who has made them too, and
    /// then our note in the index, and our entry of its retention, came too late: they go again.
    pub(crate) async fn clear_mark(
        &self,
        instance: &InstanceRef,
        execution: ExecutionId,
        mark: Mark,
    ) -> Result<Option<usize>> {
        let left = self
            .retrying("clear mark", || self.store().clear_mark(instance, execution, mark))
            .await?;
        if left.is_none() {
            self.sweep(instance, execution).await?;
        }
        Ok(left)
    }

    /// Removes what was written of an execution's end after the instance was deleted.
    pub(crate) async fn sweep(&self, instance: &InstanceRef, execution: ExecutionId) -> Result<()> {
        let retention = [retention_key(instance, execution)];
        self.retrying("unschedule", || self.store().unschedule(&instance.app, &retention))
            .await?;
        self.unindex(instance).await
    }

    /// Clears the mark of a start of an instance that was as it had been created when it was published. Another start may have to be published since.
    pub(crate) async fn clear_first_start(&self, instance: &InstanceRef, execution: ExecutionId) -> Result<()> {
        let left = self
            .retrying("clear mark", || self.store().clear_first_start(instance, execution))
            .await?;
        match left {
            Some(_) => Ok(()),
            None => self.unindex(instance).await,
        }
    }

    /// The parent of a child that is to be deleted may still be marked: its process died before it saw the child's start confirmed. Whoever drives that
    /// mark would make the child anew if its receipt has lapsed by then, so it is driven while the child is there.
    pub(crate) async fn drive_parent(&self, call: Option<&TaskRef>) -> Result<()> {
        let Some(call) = call.filter(|_| !planted(Defect::NoReceiptIsLeft)) else {
            return Ok(());
        };
        let parent = match self.retrying("record", || self.store().record(&call.instance)).await {
            Err(error) if error.is_permanent() => {
                warn!(parent = %call.instance, %error, "the record of a child's parent cannot be read; the child goes all the same");
                None
            }
            parent => parent?,
        };
        let Some(parent) = parent.filter(|parent| parent.execution == call.execution) else {
            return Ok(());
        };
        self.drive_marks_of_another(&call.instance, &parent).await
    }
}
