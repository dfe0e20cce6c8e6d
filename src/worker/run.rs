//! One run of an activity attempt.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{Notify, Semaphore, SemaphorePermit, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::ActivityContext;
use super::hold::Hold;
use super::in_hand::Held;
use super::room::Waiting;
use super::runtime::Runtime;
use super::starts::{PASS_ON_AFTER, bury_item};
use crate::backend::{Claim, Error, Queue, Result};
use crate::engine::lease_key;
use crate::fault::{Defect, fault_point, planted};
use crate::model::{Failure, Payload, RunToken, kinds};
use crate::replay::panic_text;
use crate::wire::{CompletionItem, Item, Outcome, Ran, TaskItem};

/// Before a task is handed back that cannot be seen through here.
pub(super) const PAUSE_BEFORE_HANDING_BACK: Duration = Duration::from_secs(1);
/// What a task that may be deadly waits, at most, for its turn in this worker.
const LONGEST_SUSPICION: Duration = Duration::from_secs(60);

/// See [`Run::wait`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    No,
    Waiting,
    /// Its turn has come: the lease is looked at once more.
    Over,
}

/// A task on its way through this worker.
pub(super) struct Run {
    pub(super) runtime: Arc<Runtime>,
    pub(super) task: Arc<TaskItem>,
    pub(super) is_redelivered: bool,
    /// Whether it waits for its turn to be the one that may be deadly.
    pub(super) wait: watch::Sender<Wait>,
    /// Told once the wait is over and the lease is seen to be ours still.
    pub(super) confirmed: Notify,
    /// Fires when another worker has the task's lease.
    pub(super) lost: CancellationToken,
    /// True once it has a run token of its own.
    has_token: AtomicBool,
    /// Tells that it is here for as long as it is.
    held: Held,
}

impl Run {
    pub(super) fn new(runtime: Arc<Runtime>, task: TaskItem, is_redelivered: bool) -> Self {
        Self {
            held: runtime.in_hand.take_task(&task, runtime.now()),
            runtime,
            task: Arc::new(task),
            is_redelivered,
            wait: watch::Sender::new(Wait::No),
            confirmed: Notify::new(),
            lost: CancellationToken::new(),
            has_token: AtomicBool::new(false),
        }
    }

    /// Sees the task through; then settles its message or its lease. On an error both are handed back, and the task comes again.
    ///
    /// There are as many of these at a time as there are tasks, and each takes as much room as its largest branch: what is rare is boxed.
    pub(super) async fn attend(self, mut hold: Hold, waiting: Option<Waiting>) {
        // Its child tokens fire when the worker drains; it fires by itself when nobody wants the result.
        let cancelled = self.runtime.cancel_activities.child_token();
        let is_leased = hold.is_leased();
        if planted(Defect::AcknowledgedFirst) {
            hold.let_go_of_message();
        }
        // Before we write a lease of our own: it would be taken for another's.
        match self.is_leased_elsewhere(is_leased).await {
            Ok(false) => {}
            Ok(true) => {
                self.drop_for("the task is leased");
                return hold.settle().await;
            }
            Err(error) => {
                debug!(%error, "a task is handed back");
                return Box::pin(self.hand_back(hold, &error)).await;
            }
        }
        let outcome = tokio::select! {
            biased;
            outcome = self.work(&cancelled, is_leased, waiting) => outcome,
            () = hold.keep(&self, &cancelled) => Ok(()),
            () = self.runtime.engine.stop.cancelled() => Err(Error::transient("the worker stops")),
        };
        match outcome {
            Ok(()) => hold.settle().await,
            Err(error) => Box::pin(self.come_to_nothing(hold, &error)).await,
        }
    }

    async fn come_to_nothing(&self, hold: Hold, error: &Error) {
        // A body that was stopped by us is no crash; those before it were.
        let ended = match self.has_token.load(Ordering::Relaxed) {
            true => self.end_run().await,
            false => Ok(()),
        };
        self.hand_back(hold, error).await;
        if !self.runtime.draining.is_cancelled() {
            warn!(activity = %self.task.name, caller = %self.task.caller.instance, %error, ?ended, "a task could not be seen through; it is handed back");
        }
    }

    async fn hand_back(&self, hold: Hold, error: &Error) {
        // What cannot be done here would come back at once, for ever.
        if error.is_permanent() {
            self.runtime.pause(PAUSE_BEFORE_HANDING_BACK).await;
        }
        self.held.comes_again(self.runtime.now());
        hold.hand_back().await;
    }

    /// It has not begun, and comes again.
    pub(super) fn goes_back(&self) {
        self.held.comes_again(self.runtime.now());
    }

    /// Whether its activity is registered in this worker.
    pub(super) fn is_known_here(&self) -> bool {
        self.runtime.registry.find_activity(&self.task.name).is_some()
    }

    /// True if another run of the task, whose message is this one too or a copy of it, goes on under a lease.
    async fn is_leased_elsewhere(&self, is_leased: bool) -> Result<bool> {
        if is_leased || self.is_young() || planted(Defect::LeaseIsIgnored) {
            return Ok(false);
        }
        Box::pin(self.has_live_lease()).await
    }

    /// `waiting` is dropped once it waits for a slot no more.
    async fn work(&self, cancelled: &CancellationToken, is_leased: bool, waiting: Option<Waiting>) -> Result<()> {
        let runtime = &self.runtime;
        let engine = &runtime.engine;
        let Some(code) = runtime.registry.find_activity(&self.task.name).cloned() else {
            drop(waiting);
            return Box::pin(self.pass_on(is_leased)).await;
        };
        let mut suspect = None;
        // Side by side, copies of a task that come again would each be counted as a death of the others. What the first came to, the next one finds.
        let _turn = match self.held.turns() {
            Some(turns) if self.is_redelivered => Box::pin(self.wait_for_turn(turns, None)).await?,
            turns => turns.and_then(|turns| turns.try_acquire().ok()),
        };
        if self.lost.is_cancelled() {
            self.drop_for("another worker has the task");
            return Ok(());
        }
        if self.is_redelivered {
            if Box::pin(self.is_settled()).await? {
                self.drop_for("already in history");
                return self.end_run().await;
            }
            let runs = Box::pin(self.runs()).await?;
            if runs >= runtime.settings.limits.crashes {
                return Box::pin(self.give_up(runs)).await;
            }
            if runs > 0 {
                let turn = self.wait_for_turn(&runtime.suspect, Some(LONGEST_SUSPICION));
                suspect = Box::pin(turn).await?;
            }
        }
        // Waiting for a slot has no limit: the broker holds the rest, and a slot comes free when a body ends.
        let Ok(slot) = runtime.slots.clone().acquire_owned().await else {
            return Ok(());
        };
        drop(waiting);
        if self.lost.is_cancelled() {
            self.drop_for("another worker has the task");
            return Ok(());
        }
        if self.is_unwanted().await? {
            self.drop_for("nobody waits for the task");
            return self.end_run().await;
        }
        // Only now: whoever waits for it, waits while it may be deadly.
        let apart = match &suspect {
            Some(_) => Box::pin(runtime.apart()).await,
            None => None,
        };
        if self.lost.is_cancelled() {
            self.drop_for("another worker has the task");
            return Ok(());
        }
        if self.is_redelivered {
            Box::pin(self.begin_run()).await?;
        }
        if self.task.claimed && Box::pin(self.claim()).await? == Claim::Closed {
            self.drop_for("the call is over");
            return self.end_run().await;
        }
        fault_point("activity-claimed");
        runtime.counters.activities.add();
        let ctx = ActivityContext::new(self.task.clone(), engine.clone(), cancelled.clone());
        let begun = runtime.now();
        let result = body(code.begin(ctx.clone(), self.task.input.clone())).await;
        let took = runtime.now().since(begun);
        fault_point("activity-ended");
        debug!(activity = %self.task.name, caller = %self.task.caller.instance, sequence = self.task.caller.sequence, attempt = self.task.attempt, failed = result.is_err(), "activity ended");
        if result.is_err() && runtime.draining.is_cancelled() {
            // It may have failed only because its token fired: another worker runs it.
            return Err(Error::transient("the worker stops"));
        }
        if result.is_err() && self.lost.is_cancelled() {
            // For the same reason: what counts is what the other worker comes to.
            runtime.counters.dropped("another worker has the task");
            // Nobody has died here: servers that were away too long for our lease are no crash.
            return self.end_run().await;
        }
        // Before the answer: whatever takes the process down from here on, it is not the body.
        self.end_run().await?;
        drop((slot, suspect, apart));
        self.answer(result, ctx.has_reported() || self.is_redelivered, Some(took))
            .await?;
        fault_point("activity-answered");
        Ok(())
    }

    pub(super) fn drop_for(&self, reason: &'static str) {
        debug!(activity = %self.task.name, caller = %self.task.caller.instance, sequence = self.task.caller.sequence, reason, "task dropped");
        self.runtime.counters.dropped(reason);
    }

    /// One of the tasks that come here may be the one that kills. One at a time, only that one is charged with the next crash. Waiting for its turn it
    /// holds no slot, and no message (see [`Hold`]): healthy tasks go on.
    ///
    /// # Errors
    /// Transient after `longest`: another worker may have a turn sooner.
    async fn wait_for_turn<'a>(
        &self,
        turns: &'a Semaphore,
        longest: Option<Duration>,
    ) -> Result<Option<SemaphorePermit<'a>>> {
        if let Ok(permit) = turns.try_acquire() {
            return Ok(Some(permit));
        }
        self.wait.send_replace(Wait::Waiting);
        let clock = self.runtime.engine.backend.clock();
        let is_too_long = async {
            match longest {
                Some(longest) => clock.sleep(longest).await,
                None => std::future::pending().await,
            }
        };
        let permit = tokio::select! {
            biased;
            permit = turns.acquire() => permit.ok(),
            // Whoever has it now runs it: nothing is to be kept for that.
            () = self.lost.cancelled() => return Ok(None),
            () = is_too_long => return Err(Error::transient("tasks that may be deadly run one at a time, and the one before takes long")),
        };
        // A run that began before ours may have written a lease of its own since ours was last looked at.
        self.wait.send_replace(Wait::Over);
        tokio::select! {
            biased;
            () = self.lost.cancelled() => {}
            () = self.confirmed.notified() => {}
        }
        self.wait.send_replace(Wait::No);
        Ok(permit)
    }

    /// How often it was begun by processes that are not known to have come through.
    async fn runs(&self) -> Result<u32> {
        let (engine, app, item) = (&self.runtime.engine, &self.runtime.app, self.task.message_id());
        engine.retrying("runs", || engine.store().runs(app, &item)).await
    }

    async fn begin_run(&self) -> Result<()> {
        let (engine, app) = (&self.runtime.engine, &self.runtime.app);
        let (item, run) = (self.task.message_id(), RunToken::generate());
        self.has_token.store(true, Ordering::Relaxed);
        let begin = || engine.store().begin_run(app, &item, run);
        engine.retrying("begin run", begin).await.map(drop)
    }

    async fn claim(&self) -> Result<Claim> {
        let (engine, caller) = (&self.runtime.engine, &self.task.caller);
        let claim = || {
            engine
                .store()
                .claim(&caller.instance, caller.execution, caller.sequence)
        };
        engine.retrying("claim", claim).await
    }

    async fn has_live_lease(&self) -> Result<bool> {
        let engine = &self.runtime.engine;
        let key = lease_key(&self.task.message_id());
        Ok(engine
            .retrying("due entry", || engine.store().due_entry(&self.runtime.app, &key))
            .await?
            .is_some())
    }

    /// The activity is not registered here: a live worker of the app that knows it gets the task; if there is none, the caller is told.
    async fn pass_on(&self, is_leased: bool) -> Result<()> {
        let runtime = &self.runtime;
        let engine = &runtime.engine;
        // Copies of it come with every connection that breaks while it is passed on, and would do so for ever.
        if self.is_redelivered && self.is_settled().await? {
            self.drop_for("already in history");
            return self.end_run().await;
        }
        let workers = engine
            .retrying("workers", || engine.store().workers(&runtime.app))
            .await?;
        if workers
            .iter()
            .any(|worker| worker.id != runtime.id && worker.activities.contains(&self.task.name))
        {
            runtime.pause(PASS_ON_AFTER * (1 << self.task.misses.min(6))).await;
            if is_leased {
                // A message would be let go by whoever finds that the task is leased. The lease itself goes on.
                return Err(Error::transient(
                    "the activity is not registered here; another worker has it",
                ));
            }
            let task = TaskItem {
                misses: self.task.misses + 1,
                ..TaskItem::clone(&self.task)
            };
            self.held.comes_again(runtime.now());
            return engine
                .outbox
                .send(Queue::Activities(runtime.app.clone()), Item::Task(task))
                .await;
        }
        let message = format!(
            "activity `{}` is not registered by any live worker of app {}",
            self.task.name, runtime.app
        );
        self.answer(Err(Failure::new(kinds::ACTIVITY_NOT_REGISTERED, message)), false, None)
            .await?;
        self.end_run().await
    }

    /// It has taken down its process too often.
    async fn give_up(&self, runs: u32) -> Result<()> {
        let message = format!(
            "the activity was begun {} times and its process died each time; the task is among the dead letters of app {}",
            runs + 1,
            self.runtime.app
        );
        warn!(activity = %self.task.name, caller = %self.task.caller.instance, "{message}");
        let origin = Queue::Activities(self.runtime.app.clone());
        bury_item(
            &self.runtime,
            &Item::Task(TaskItem::clone(&self.task)),
            &origin,
            &message,
        )
        .await?;
        // A crash here: it is counted once more and ends here again.
        self.answer(Err(Failure::new(kinds::ACTIVITY_CRASHED, message).fatal()), true, None)
            .await?;
        self.end_run().await
    }

    /// Takes away the run tokens of one that came again: nobody dies of it any more.
    pub(super) async fn end_run(&self) -> Result<()> {
        if !self.is_redelivered {
            return Ok(());
        }
        let (engine, app, item) = (&self.runtime.engine, &self.runtime.app, self.task.message_id());
        let ending = engine.retrying("end run", || engine.store().end_run(app, &item));
        Box::pin(ending).await
    }

    /// Sends the result to where the caller is at home; returns when the broker has stored it.
    async fn answer(&self, result: Result<Payload, Failure>, progressed: bool, took: Option<Duration>) -> Result<()> {
        let limit = self.runtime.settings.limits.payload_bytes;
        let result = result.map_err(|failure| failure.at(&self.runtime.app).bounded(limit)).and_then(|output| {
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
            ran: took.map(|took| Ran {
                activity: self.task.name.clone(),
                millis: took.as_millis() as u64,
            }),
        };
        let queue = Queue::Events(self.task.caller.instance.app.clone(), self.task.reply_to);
        self.runtime.engine.outbox.send(queue, Item::Completion(item)).await
    }
}

/// Runs the body; a panic in it is a failed attempt.
async fn body(future: super::registry::ActivityFuture) -> Result<Payload, Failure> {
    match AssertUnwindSafe(future).catch_unwind().await {
        Ok(result) => result,
        Err(panic) => Err(Failure::new(
            kinds::PANIC,
            format!("the activity panicked: {}", panic_text(panic.as_ref())),
        )),
    }
}
