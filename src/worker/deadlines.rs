//! Deadlines: what a call's time limit means when it is due, and calls that somebody says cannot be made.

use std::time::Duration;

use tracing::warn;

use super::activation::Activation;
use super::turn::Draft;
use crate::backend::{ClaimVerdict, Record, Result, When};
use crate::engine::{EarlyEnd, Effect, effects_of, timer_entry, timer_key};
use crate::model::{Failure, InstanceRef, Sequence, Timestamp, kinds};
use crate::replay::history::{ChildRef, HistoryEvent, TimeLimits, Turn};
use crate::wire::{CompletionItem, Item, TaskRef};

impl Activation<'_> {
    /// A time limit of an activity call is due. Its claim decides, once; `None` if the call goes on or is over.
    pub(super) async fn settle_deadline(
        &self,
        draft: &Draft,
        sequence: Sequence,
        item: &Item,
    ) -> Result<Option<HistoryEvent>> {
        let engine = &self.runtime.engine;
        let execution = draft.execution_id;
        let settle = || {
            engine.retrying("settle claim", || {
                engine.store().settle_claim(self.instance, execution, sequence)
            })
        };
        let mut verdict = settle().await?;
        if let ClaimVerdict::Again(due) = verdict {
            self.look_again(due, item).await?;
            // Whoever has ended the call meanwhile may have removed the entry before it was made again.
            verdict = settle().await?;
            if verdict == ClaimVerdict::Closed {
                let key = timer_key(&TaskRef {
                    instance: self.instance.clone(),
                    execution,
                    sequence,
                });
                engine
                    .retrying("unschedule", || {
                        let key = std::slice::from_ref(&key);
                        engine.store().unschedule(&self.instance.app, key)
                    })
                    .await?;
            }
        }
        let failure = match verdict {
            ClaimVerdict::NotStarted => Failure::new(
                kinds::TARGET_UNAVAILABLE,
                "the call did not start within its schedule-to-start time; its body will not run",
            ),
            ClaimVerdict::TimedOut => Failure::new(
                kinds::TIMED_OUT,
                "the attempt started and did not finish within its timeout",
            ),
            ClaimVerdict::HeartbeatMissed => Failure::new(
                kinds::HEARTBEAT_MISSED,
                "the attempt started and then did not report progress in time",
            ),
            ClaimVerdict::Again(_) | ClaimVerdict::Closed => return Ok(None),
        };
        Ok(Some(HistoryEvent::TaskFailed { sequence, failure }))
    }

    /// A time limit of a child call is due: what the child's record says decides.
    pub(super) async fn settle_child_deadline(
        &self,
        draft: &Draft,
        sequence: Sequence,
        child: InstanceRef,
        limits: TimeLimits,
        since: Timestamp,
        item: &Item,
    ) -> Result<Option<HistoryEvent>> {
        /// How long a child may take to come into being before its limits are looked at again.
        const SOON: Duration = Duration::from_millis(500);
        /// The longest wait between two looks at a child that has not started.
        const SELDOM: Duration = Duration::from_secs(30);
        let engine = &self.runtime.engine;
        let task = TaskRef {
            instance: self.instance.clone(),
            execution: draft.execution_id,
            sequence,
        };
        let record = engine.retrying("record", || engine.store().record(&child)).await;
        if let Err(error) = &record
            && error.is_permanent()
        {
            // That cannot be known now, and is no reason to hold up the rest of the turn.
            warn!(%child, %error, "a child's time limit is due, and its record cannot be read");
            self.look_again(draft.now + SELDOM, item).await?;
            return Ok(None);
        }
        let record = record?;
        let ours = record.filter(|record| record.is_child_of(&task));
        let Some(record) = ours else {
            self.look_again(draft.now + SOON, item).await?;
            return Ok(None);
        };
        let again = match (record.view.started_at, limits.schedule_to_start, limits.timeout) {
            _ if record.status.is_terminal() => {
                // Its end is on its way to us, unless whoever ended it died first; its own app may never come.
                engine.drive_marks_of_another(&child, &record).await?;
                return Ok(None);
            }
            (None, Some(limit), _) if draft.now >= since + limit => {
                let failure = Failure::new(
                    kinds::TARGET_UNAVAILABLE,
                    "the child did not start within its schedule-to-start time; it will not run",
                );
                // If it has begun after all, it goes on. Its end, either way, is the answer to this call.
                engine.end_early(&child, &record, EarlyEnd::Failed(failure)).await?;
                draft.now + SOON
            }
            (None, Some(limit), _) => since + limit,
            (None, None, _) => draft.now + (draft.now.since(since) / 4).clamp(SOON, SELDOM),
            (Some(started), _, Some(limit)) if draft.now >= started + limit => {
                let failure = Failure::new(
                    kinds::TIMED_OUT,
                    format!("child {child} did not finish within its timeout and is terminated"),
                );
                return Ok(Some(HistoryEvent::ChildFailed {
                    sequence,
                    failure,
                    terminate: Some(ChildRef {
                        instance: child,
                        sequence,
                    }),
                }));
            }
            (Some(started), _, Some(limit)) => started + limit,
            (Some(_), _, None) => return Ok(None),
        };
        self.look_again(again, item).await?;
        Ok(None)
    }

    pub(super) async fn look_again(&self, due: Timestamp, item: &Item) -> Result<()> {
        let Item::Timer(timer) = item else { return Ok(()) };
        let entry = timer_entry(timer, due);
        let engine = &self.runtime.engine;
        engine
            .retrying("schedule", || {
                engine
                    .store()
                    .schedule(&self.instance.app, std::slice::from_ref(&entry), When::Set)
            })
            .await
    }

    /// Somebody says that a call's app does not exist. If we find its queue, the app has come meanwhile: the task is sent again. True if it was.
    pub(super) async fn resend(&self, record: &Record, completion: &CompletionItem) -> Result<bool> {
        let engine = &self.runtime.engine;
        let sequence = completion.task.sequence;
        let execution = record.execution;
        let mut after = 0;
        loop {
            let page = engine
                .retrying("turns", || engine.store().turns(self.instance, execution, after, 100))
                .await?;
            if page.is_empty() {
                return Ok(false);
            }
            after += page.len() as u64;
            for turn in page.iter().filter_map(|bytes| Turn::decode(bytes).ok()) {
                for effect in effects_of(
                    self.instance,
                    execution,
                    record.lane,
                    record.origin.parent.as_ref(),
                    &turn,
                ) {
                    let Effect::Send(queue, item) = effect else {
                        continue;
                    };
                    let Item::Task(task) = &*item else { continue };
                    if task.caller.sequence != sequence {
                        continue;
                    }
                    if task.app == completion.from {
                        // The app itself does not say that it is not there: its code has a failure of that name.
                        return Ok(false);
                    }
                    if engine
                        .retrying("depth", || engine.broker().depth(&queue))
                        .await?
                        .is_none()
                    {
                        return Ok(false);
                    }
                    engine.outbox.send(queue, *item).await?;
                    return Ok(true);
                }
            }
        }
    }
}
