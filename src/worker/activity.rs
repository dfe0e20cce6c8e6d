//! What an activity's code sees.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::engine::Engine;
use crate::model::{AppId, InstanceRef, Payload, Result, TaskExecutionId, Timestamp};
use crate::wire::TaskItem;

/// An activity's view of its call.
///
/// An activity runs at least once: after a crash it may run again, with the same [`task_execution_id`](Self::task_execution_id). Use that as the
/// idempotency key towards the outside world.
#[derive(Clone)]
pub struct ActivityContext {
    inner: Arc<Inner>,
}

struct Inner {
    task: Arc<TaskItem>,
    engine: Engine,
    cancelled: CancellationToken,
    reported: Mutex<Option<Timestamp>>,
}

impl ActivityContext {
    pub(super) fn new(task: Arc<TaskItem>, engine: Engine, cancelled: CancellationToken) -> Self {
        Self {
            inner: Arc::new(Inner {
                task,
                engine,
                cancelled,
                reported: Mutex::default(),
            }),
        }
    }

    /// The same for every attempt of the call, and for every run of an attempt: the idempotency key.
    pub fn task_execution_id(&self) -> TaskExecutionId {
        self.inner.task.task_execution_id
    }

    /// Which attempt of the call this is, from 1. (A run after a crash is the same attempt.)
    pub fn attempt(&self) -> u32 {
        self.inner.task.attempt
    }

    /// The workflow that called.
    pub fn caller(&self) -> &InstanceRef {
        &self.inner.task.caller.instance
    }

    /// The app that runs it.
    pub fn app_id(&self) -> &AppId {
        &self.inner.task.app
    }

    /// The activity's name.
    pub fn name(&self) -> &str {
        &self.inner.task.name
    }

    /// When the call was scheduled.
    pub fn scheduled_at(&self) -> Timestamp {
        self.inner.task.scheduled_at
    }

    /// How long an attempt may take, if the call says so.
    pub fn timeout(&self) -> Option<Duration> {
        self.inner.task.timeout
    }

    /// Fires when nobody wants the result any more (the caller was terminated, the call is over) or the worker shuts down. Long activities should
    /// look at it.
    pub fn cancelled(&self) -> &CancellationToken {
        &self.inner.cancelled
    }

    /// True once [`cancelled`](Self::cancelled) has fired.
    pub fn is_cancelled(&self) -> bool {
        self.inner.cancelled.is_cancelled()
    }

    /// Reports progress: the details are shown in the caller's status, and the call's heartbeat is renewed. Reports that come faster than a quarter of
    /// the heartbeat interval (a second, if there is none) are left out, so it may be called as often as is convenient.
    ///
    /// # Errors
    /// A fatal failure if the details cannot be written or are over the payload limit. That the store could not be reached is no error: it is a
    /// missed beat.
    pub async fn heartbeat(&self, details: impl Serialize) -> Result<()> {
        let details = Payload::encode(&details)?;
        let limit = self.inner.engine.limits.payload_bytes;
        if details.len() > limit {
            let message = format!(
                "the progress details have {} bytes and the limit is {limit}: report less",
                details.len()
            );
            return Err(crate::model::Failure::new(crate::model::kinds::PAYLOAD_TOO_LARGE, message).fatal());
        }
        if !self.is_due() {
            return Ok(());
        }
        let caller = &self.inner.task.caller;
        let details = bytes::Bytes::copy_from_slice(details.as_bytes());
        match self
            .inner
            .engine
            .store()
            .progress(
                &caller.instance,
                caller.execution,
                caller.sequence,
                self.inner.task.claimed,
                Some(details),
            )
            .await
        {
            Ok(true) => {}
            Ok(false) => self.inner.cancelled.cancel(),
            Err(error) => debug!(%error, "progress was not stored"),
        }
        Ok(())
    }

    /// True if progress was reported.
    pub(super) fn has_reported(&self) -> bool {
        self.inner
            .reported
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some()
    }

    fn is_due(&self) -> bool {
        let interval = self
            .inner
            .task
            .heartbeat
            .map_or(Duration::from_secs(1), |heartbeat| heartbeat / 4);
        let now = self.inner.engine.backend.clock().now();
        let mut reported = self.inner.reported.lock().unwrap_or_else(PoisonError::into_inner);
        if reported.is_some_and(|last| now.since(last) < interval) {
            return false;
        }
        *reported = Some(now);
        true
    }
}
