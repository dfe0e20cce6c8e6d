//! Running activities: at least once each, as many at a time as there are slots.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::ActivityContext;
use super::consume::{consume, open};
use super::delivery::Ticket;
use super::runtime::Runtime;
use super::starts::{PASS_ON_AFTER, bury_item};
use crate::backend::{Claim, Delivery, DueEntry, DueOutcome, Loaded, Queue, Result, When};
use crate::engine::{LeaseEntry, encode, lease_key};
use crate::fault::fault_point;
use crate::model::{Failure, Payload, WaitingFor, kinds};
use crate::replay::history::Turn;
use crate::replay::panic_text;
use crate::wire::{Bundle, CompletionItem, Item, Outcome, TaskItem};

/// A task older than this is run only if its caller still wants it.
const STALE_AFTER: Duration = Duration::from_secs(5);
/// How often a running activity's caller is asked whether it still wants the result.
const ASK_EVERY: Duration = Duration::from_secs(5);

/// Takes tasks until the worker drains.
pub(super) async fn run(runtime: Arc<Runtime>) {
    let queue = Queue::Activities(runtime.app.clone());
    let prefetch = u16::try_from(runtime.settings.activities).unwrap_or(u16::MAX);
    while !runtime.draining.is_cancelled() {
        consume(&runtime, &queue, prefetch, runtime.draining.cancelled(), |delivery| {
            let work = take(runtime.clone(), delivery);
            runtime.tracker.spawn(work);
        })
        .await;
    }
}

async fn take(runtime: Arc<Runtime>, delivery: Delivery) {
    let origin = Queue::Activities(runtime.app.clone());
    let (bundle, delivery) = match open(&runtime, delivery, &origin).await {
        Ok(Some(opened)) => opened,
        Ok(None) => return,
        Err(error) => return debug!(%error, "a message that cannot be read stays with the broker"),
    };
    let is_redelivered = delivery.redelivered;
    if is_redelivered && bundle.items.len() > 1 {
        // One of them may be deadly: each gets a message, and a count, of its own.
        match split(&runtime, bundle).await {
            Ok(()) => delivery.ack(),
            Err(_) => delivery.requeue(),
        }
        return;
    }
    let tickets = Ticket::split(delivery, bundle.items.len());
    for (item, ticket) in bundle.items.into_iter().zip(tickets) {
        match item {
            Item::Task(task) => {
                let run = Run { runtime: runtime.clone(), task, is_redelivered, lease: None };
                runtime.tracker.spawn(run.attend(Some(ticket)));
            }
            other => {
                if bury_item(&runtime, &other, "only tasks belong into an activities queue").await.is_ok() {
                    ticket.done();
                }
            }
        }
    }
}

async fn split(runtime: &Runtime, bundle: Bundle) -> Result<()> {
    for item in bundle.items {
        runtime.engine.outbox.send(Queue::Activities(runtime.app.clone()), item).await?;
    }
    Ok(())
}

/// A lapsed lease: the worker that had the task is gone, or frozen. The entry, as the due loop has claimed it, is ours now.
pub(super) async fn take_over(runtime: Arc<Runtime>, task: TaskItem, entry: DueEntry) {
    Run { runtime, task, is_redelivered: true, lease: Some(entry) }.attend(None).await;
}

/// One run of an activity attempt.
struct Run {
    runtime: Arc<Runtime>,
    task: TaskItem,
    is_redelivered: bool,
    /// The task's lease as we last wrote it: the message is acknowledged, the lease stands for it.
    lease: Option<DueEntry>,
}

impl Run {
    /// Sees the task through; then settles its message and its lease. On an error both stay as they are, and the task comes again.
    async fn attend(mut self, mut ticket: Option<Ticket>) {
        match self.work(&mut ticket).await {
            Ok(()) => {
                if let Err(error) = self.drop_lease().await {
                    debug!(%error, "a finished lease was not removed; it lapses, and its result is known then");
                }
                if let Some(ticket) = ticket {
                    ticket.done();
                }
            }
            Err(error) => {
                self.lapse_lease().await;
                if !self.runtime.draining.is_cancelled() {
                    warn!(activity = %self.task.name, caller = %self.task.caller.instance, %error, "a task could not be seen through; it is handed back");
                }
            }
        }
    }

    async fn work(&mut self, ticket: &mut Option<Ticket>) -> Result<()> {
        let runtime = self.runtime.clone();
        let Some(code) = runtime.registry.find_activity(&self.task.name).cloned() else { return self.pass_on().await };
        // Waiting for a slot has no limit: the broker holds the rest, and a slot comes free when a body ends.
        let Ok(slot) = runtime.slots.clone().acquire_owned().await else { return Ok(()) };
        if self.is_unwanted().await? {
            runtime.counters.dropped("nobody waits for the task");
            return Ok(());
        }
        let mut suspect = None;
        if self.is_redelivered {
            if self.lease.is_none() && self.has_live_lease().await? {
                runtime.counters.dropped("the task is leased");
                return Ok(());
            }
            if self.is_settled().await? {
                runtime.counters.dropped("already in history");
                return self.end_run().await;
            }
            let item = self.task.message_id();
            let runs = runtime.engine.retrying("runs", || runtime.engine.store().runs(&runtime.app, &item)).await?;
            if runs >= runtime.settings.limits.crashes {
                return self.give_up(runs).await;
            }
            if runs > 0 {
                // One of these may be the one that kills. One at a time, only that one is charged with the next crash.
                let Ok(alone) = runtime.suspect.acquire().await else { return Ok(()) };
                suspect = Some(alone);
            }
            runtime.engine.retrying("begin run", || runtime.engine.store().begin_run(&runtime.app, &item)).await?;
        }
        if self.task.claimed {
            let caller = &self.task.caller;
            let claim = runtime.engine.retrying("claim", || runtime.engine.store().claim(&caller.instance, caller.execution, caller.sequence)).await?;
            if claim == Claim::Closed {
                runtime.counters.dropped("the call is over");
                return self.end_run().await;
            }
        }
        fault_point("activity-claimed");
        runtime.counters.activities.add();
        let cancelled = runtime.cancel_activities.child_token();
        let ctx = ActivityContext::new(self.task.clone(), runtime.engine.clone(), cancelled.clone());
        let body = body(code.begin(ctx.clone(), self.task.input.clone()));
        let Some(result) = self.watch_over(body, &cancelled, ticket).await else {
            // Handed back: the worker stops. A body that was stopped by us is no crash.
            self.end_run().await?;
            return Err(crate::backend::Error::transient("the worker stops"));
        };
        fault_point("activity-ended");
        // Before the answer: whatever takes the process down from here on, it is not the body.
        self.end_run().await?;
        drop((slot, suspect));
        self.answer(result, ctx.has_reported() || self.is_redelivered).await?;
        fault_point("activity-answered");
        Ok(())
    }

    /// Waits for the body; meanwhile keeps a lease if it takes long, and fires the token when nobody wants the result. `None` if the worker stops first.
    async fn watch_over(&mut self, body: impl Future<Output = Result<Payload, Failure>>, cancelled: &CancellationToken, ticket: &mut Option<Ticket>) -> Option<Result<Payload, Failure>> {
        let runtime = self.runtime.clone();
        let clock = runtime.engine.backend.clock().clone();
        let lease_time = runtime.settings.delivery_timeout / 2;
        let tick = ASK_EVERY.min(lease_time / 3).max(Duration::from_millis(1));
        let began = clock.now();
        tokio::pin!(body);
        loop {
            tokio::select! {
                result = &mut body => return Some(result),
                () = runtime.engine.stop.cancelled() => return None,
                () = clock.sleep(tick) => {}
            }
            match self.is_unwanted().await {
                Ok(true) => cancelled.cancel(),
                Ok(false) => {}
                Err(_) => continue,
            }
            if self.lease.is_some() || clock.now().since(began) >= lease_time {
                match self.renew(lease_time).await {
                    // The lease stands for the message from here on; a crash before this line leaves both, and the lease tells the copy off.
                    Ok(()) => {
                        if let Some(ticket) = ticket.take() {
                            ticket.done();
                        }
                    }
                    Err(error) => warn!(%error, activity = %self.task.name, "a long activity's lease was not renewed; it may be run again"),
                }
            }
        }
    }

    /// Writes or moves the lease.
    async fn renew(&mut self, lease_time: Duration) -> Result<()> {
        let store = self.runtime.engine.store();
        let due = self.runtime.now() + lease_time;
        match &mut self.lease {
            Some(entry) => {
                store.settle_due(&self.runtime.app, &[(entry.clone(), DueOutcome::Again(due))]).await?;
                entry.due = due;
            }
            none => {
                let entry = DueEntry { key: lease_key(&self.task.message_id()), due, payload: encode(&LeaseEntry { task: self.task.clone() }) };
                store.schedule(&self.runtime.app, std::slice::from_ref(&entry), When::Set).await?;
                *none = Some(entry);
            }
        }
        Ok(())
    }

    async fn drop_lease(&mut self) -> Result<()> {
        let Some(entry) = self.lease.take() else { return Ok(()) };
        // Only if it is still ours: whoever took over has moved its time.
        let engine = &self.runtime.engine;
        let settled = [(entry, DueOutcome::Remove)];
        engine.retrying("settle due", || engine.store().settle_due(&self.runtime.app, &settled)).await
    }

    /// Hands a leased task back: its lease lapses now, and not when its time is over.
    async fn lapse_lease(&mut self) {
        let Some(entry) = self.lease.take() else { return };
        let now = self.runtime.now();
        if let Err(error) = self.runtime.engine.store().settle_due(&self.runtime.app, &[(entry, DueOutcome::Again(now))]).await {
            debug!(%error, "a lease was not handed back; it lapses by itself");
        }
    }

    async fn has_live_lease(&self) -> Result<bool> {
        let engine = &self.runtime.engine;
        let key = lease_key(&self.task.message_id());
        Ok(engine.retrying("due entry", || engine.store().due_entry(&self.runtime.app, &key)).await?.is_some())
    }

    /// True if the caller's execution is over. Young tasks are not asked about.
    async fn is_unwanted(&self) -> Result<bool> {
        if !self.is_redelivered && self.runtime.now().since(self.task.scheduled_at) < STALE_AFTER {
            return Ok(false);
        }
        let engine = &self.runtime.engine;
        let caller = &self.task.caller;
        let record = engine.retrying("record", || engine.store().record(&caller.instance)).await?;
        Ok(record.is_none_or(|record| record.status.is_terminal() || record.execution != caller.execution))
    }

    /// True if the call's result is in the caller's history: the message came again although its work was done. Asked only of redelivered tasks.
    async fn is_settled(&self) -> Result<bool> {
        let engine = &self.runtime.engine;
        let caller = &self.task.caller;
        let Some(record) = engine.retrying("record", || engine.store().record(&caller.instance)).await? else { return Ok(true) };
        let waiting = &record.view.waiting;
        let is_open = |entry: &WaitingFor| matches!(entry, WaitingFor::Activity { sequence, .. } if *sequence == caller.sequence);
        if waiting.shown.len() == waiting.total {
            return Ok(!waiting.shown.iter().any(is_open));
        }
        // The record names only the first few calls; the history names them all.
        let mut after = 0;
        loop {
            let page = engine.retrying("turns", || engine.store().turns(&caller.instance, caller.execution, after, Loaded::TURNS)).await?;
            if page.is_empty() {
                return Ok(false);
            }
            after += page.len() as u64;
            let turns = page.iter().filter_map(|bytes| Turn::decode(bytes).ok());
            if turns.flat_map(|turn| turn.events).any(|event| event.settles_call(caller.sequence)) {
                return Ok(true);
            }
        }
    }

    /// The activity is not registered here: a live worker of the app that knows it gets the task; if there is none, the caller is told.
    async fn pass_on(&mut self) -> Result<()> {
        let runtime = self.runtime.clone();
        let engine = &runtime.engine;
        let workers = engine.retrying("workers", || engine.store().workers(&runtime.app)).await?;
        if workers.iter().any(|worker| worker.id != runtime.id && worker.activities.contains(&self.task.name)) {
            runtime.pause(PASS_ON_AFTER).await;
            self.task.misses += 1;
            return engine.outbox.send(Queue::Activities(runtime.app.clone()), Item::Task(self.task.clone())).await;
        }
        let message = format!("activity `{}` is not registered by any live worker of app {}", self.task.name, runtime.app);
        self.answer(Err(Failure::new(kinds::ACTIVITY_NOT_REGISTERED, message)), false).await
    }

    /// It has taken down its process too often.
    async fn give_up(&mut self, runs: u32) -> Result<()> {
        let message = format!("the activity was begun {} times and its process died each time; the task is among the dead letters of app {}", runs + 1, self.runtime.app);
        warn!(activity = %self.task.name, caller = %self.task.caller.instance, "{message}");
        bury_item(&self.runtime, &Item::Task(self.task.clone()), &message).await?;
        // A crash here: it is counted once more and ends here again.
        self.answer(Err(Failure::new(kinds::ACTIVITY_CRASHED, message).fatal()), true).await?;
        self.end_run().await
    }

    async fn end_run(&self) -> Result<()> {
        if !self.is_redelivered {
            return Ok(());
        }
        let engine = &self.runtime.engine;
        let item = self.task.message_id();
        engine.retrying("end run", || engine.store().end_run(&self.runtime.app, &item)).await
    }

    /// Sends the result to where the caller is at home; returns when the broker has stored it.
    async fn answer(&self, result: Result<Payload, Failure>, progressed: bool) -> Result<()> {
        let limit = self.runtime.settings.limits.payload_bytes;
        let result = result.map_err(|failure| failure.at(&self.runtime.app)).and_then(|output| {
            if output.len() <= limit {
                return Ok(output);
            }
            let message = format!("the result has {} bytes and the limit is {limit}: raise `payload_bytes` (LEVERET_PAYLOAD_BYTES) or return a reference", output.len());
            Err(Failure::new(kinds::PAYLOAD_TOO_LARGE, message).fatal().at(&self.runtime.app))
        });
        let item = CompletionItem {
            task: self.task.caller.clone(),
            task_execution_id: Some(self.task.task_execution_id),
            from: self.runtime.app.clone(),
            outcome: Outcome::from(result),
            progressed,
        };
        let queue = Queue::Events(self.task.caller.instance.app.clone(), self.task.reply_to);
        self.runtime.engine.outbox.send(queue, Item::Completion(item)).await
    }
}

/// Runs the body; a panic in it is a failed attempt.
async fn body(future: super::registry::ActivityFuture) -> Result<Payload, Failure> {
    match AssertUnwindSafe(future).catch_unwind().await {
        Ok(result) => result,
        Err(panic) => Err(Failure::new(kinds::PANIC, format!("the activity panicked: {}", panic_text(panic.as_ref())))),
    }
}
