//! The due loop: whatever was lost, it is looked at again (I4).

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::sync::Semaphore;
use tracing::{debug, warn};

use super::activities::take_over;
use super::batch::{Batch, CLAIM};
use super::parked;
use super::runtime::Runtime;
use crate::backend::{DueEntry, DueOutcome, Error, Mark, Queue, Record, Result};
use crate::engine::{CheckEntry, Due, RetentionEntry, What};
use crate::fault::{Defect, fault_point, planted};
use crate::model::{InstanceRef, StallReason, Status, WaitingFor};
use crate::wire::{Item, TimerItem, WakeItem};

/// Entries claimed at a time.
const BATCH: usize = 256;
/// Batches under way at a time.
const BATCHES: usize = 8;
/// What a handler may take. An entry that hangs each time would else keep what became of the rest of its batch from being settled.
const HANDLING: Duration = Duration::from_secs(7);
/// An entry that was not handled comes again after this.
const FAILED_AGAIN: Duration = Duration::from_secs(3);
/// Bounds of the wait between two checks of an instance.
const CHECK_AGAIN: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));
/// A published start is published again when nobody has taken it for this long.
const START_AGAIN: Duration = Duration::from_secs(300);

/// Claims and handles due entries until the worker drains.
pub(super) async fn run(runtime: Arc<Runtime>) {
    let batches = Arc::new(Semaphore::new(BATCHES));
    let mut answered_at = runtime.now();
    // Before the claim: what is claimed must be renewed from then on.
    while let Ok(permit) = batches.clone().acquire_owned().await {
        match runtime.engine.store().claim_due(&runtime.app, BATCH, CLAIM).await {
            Ok(entries) if entries.is_empty() => {
                answered_at = runtime.now();
                if !runtime.pause(runtime.settings.due_interval).await {
                    return;
                }
            }
            Ok(entries) => {
                answered_at = runtime.now();
                // Beside the loop: a server that refuses one entry's message must not keep the other timers from firing.
                let runtime = runtime.clone();
                runtime.clone().tracker.spawn(async move {
                    handle_all(&runtime, entries).await;
                    drop(permit);
                });
            }
            Err(error) => {
                debug!(%error, "the due-set was not read");
                if !runtime.pause(runtime.settings.due_interval * 10).await {
                    return;
                }
                if runtime.now().since(answered_at) > runtime.settings.heartbeat && !leave_leases_alone(&runtime).await
                {
                    return;
                }
            }
        }
        if runtime.draining.is_cancelled() {
            return;
        }
    }
}

/// After the store was away for long, leases have lapsed whose holders are there, and renew them with their next try. Waits for that. False if the worker
/// is stopping.
async fn leave_leases_alone(runtime: &Runtime) -> bool {
    /// Longer than a holder waits between two tries.
    const RENEWING: Duration = Duration::from_millis(1_500);
    while runtime.engine.store().now().await.is_err() {
        if !runtime.pause(RENEWING / 10).await {
            return false;
        }
    }
    runtime.pause(RENEWING).await
}

/// Handles a batch side by side, and settles what is dealt with.
async fn handle_all(runtime: &Arc<Runtime>, entries: Vec<DueEntry>) {
    let batch = Batch::new(&entries);
    let (batch, entries) = (&batch, &entries);
    let handled = futures_util::future::join_all(entries.iter().enumerate().map(|(place, entry)| async move {
        let clock = runtime.engine.backend.clock();
        let handled = tokio::select! {
            biased;
            handled = handle(runtime, entry) => handled,
            () = clock.sleep(HANDLING) => Err(Error::transient("it took too long")),
        };
        match handled {
            Ok(Some(outcome)) => batch.done(place, outcome),
            Ok(None) => batch.let_go(place),
            Err(error) => {
                debug!(%error, kind = ?entry.key.kind, "a due entry was not handled; it comes again");
                let wait = if error.is_permanent() {
                    CHECK_AGAIN.1
                } else {
                    FAILED_AGAIN
                };
                batch.done(place, DueOutcome::Again(runtime.now() + wait));
            }
        }
    }));
    tokio::select! {
        biased;
        _ = handled => {}
        () = batch.keep(runtime) => return,
    }
    let (_, settled) = batch.settled();
    if settled.is_empty() {
        return;
    }
    // A crash before this line: the entries come again and their handlers run twice.
    fault_point("due-handled");
    let engine = &runtime.engine;
    if let Err(error) = engine
        .retrying("settle due", || engine.store().settle_due(&runtime.app, &settled))
        .await
    {
        debug!(%error, "due entries were not settled; they come again");
    }
}

/// What becomes of the entry; `None` if somebody else settles it.
async fn handle(runtime: &Arc<Runtime>, entry: &DueEntry) -> Result<Option<DueOutcome>> {
    let due = match Due::read(&runtime.app, entry) {
        Ok(due) => due,
        Err(problem) => {
            warn!(kind = ?entry.key.kind, %problem, "a due entry cannot be read");
            // A later release's, perhaps: left for it.
            return Ok(Some(DueOutcome::Again(runtime.now() + CHECK_AGAIN.1)));
        }
    };
    match due {
        Due::Timer(timer) => {
            if planted(Defect::TimerIsRemovedFirst) {
                let removed = [(entry.clone(), DueOutcome::Remove)];
                runtime.engine.store().settle_due(&runtime.app, &removed).await?;
            }
            fire(runtime, timer).await.map(Some)
        }
        Due::Check(check) => look_at(runtime, check).await.map(Some),
        Due::Parked(entry) => parked::try_again(runtime, *entry).await.map(Some),
        Due::Retention(retention) => retire(runtime, retention).await.map(Some),
        Due::Lease(lease) => {
            warn!(activity = %lease.task.name, caller = %lease.task.caller.instance, "a long activity's lease has lapsed; it is run again");
            runtime
                .tracker
                .spawn(take_over(runtime.clone(), lease.task, entry.clone()));
            Ok(None)
        }
    }
}

/// A timer is due: its instance's lane hears of it.
async fn fire(runtime: &Runtime, timer: TimerItem) -> Result<DueOutcome> {
    let engine = &runtime.engine;
    let instance = timer.task.instance.clone();
    let Some(record) = engine.retrying("record", || engine.store().record(&instance)).await? else {
        return Ok(DueOutcome::Remove);
    };
    if record.status.is_terminal() || record.execution != timer.task.execution {
        return Ok(DueOutcome::Remove);
    }
    let Some(lane) = record.lane else {
        return Ok(DueOutcome::Again(runtime.now() + CHECK_AGAIN.0));
    };
    let lane = Queue::Events(instance.app, lane);
    if engine.outbox.leaves_alone(&lane) {
        return Ok(DueOutcome::Again(runtime.now() + FAILED_AGAIN));
    }
    engine.outbox.send(lane, Item::Timer(timer)).await?;
    // The message is stored: only now may the entry go.
    Ok(DueOutcome::Remove)
}

/// A check is due: drive, wake, or let go.
async fn look_at(runtime: &Arc<Runtime>, check: CheckEntry) -> Result<DueOutcome> {
    let engine = &runtime.engine;
    let (instance, request) = (&check.instance, &check.request);
    let record = engine.retrying("record", || engine.store().record(instance)).await?;
    let Some(record) = record.filter(|record| record.origin.request == *request) else {
        if let Some(parent) = &check.parent
            && is_marked(runtime, &parent.instance, parent.execution).await?
        {
            // Its parent's effects are still being made: the child may be on its way.
            return Ok(DueOutcome::Again(runtime.now() + CHECK_AGAIN.0));
        }
        // Whoever meant to create it is too late now, and learns so; unless it was created since we looked.
        let keep = engine.limits.dedup_window;
        if engine
            .retrying("refuse", || engine.store().refuse(instance, request, keep))
            .await?
        {
            return Ok(DueOutcome::Remove);
        }
        let record = engine.retrying("record", || engine.store().record(instance)).await?;
        let is_there = record.is_some_and(|record| record.origin.request == *request);
        return Ok(if is_there {
            DueOutcome::Again(runtime.now() + CHECK_AGAIN.0)
        } else {
            DueOutcome::Remove
        });
    };
    let now = runtime.now();
    if record.status.is_terminal() {
        let settling = async {
            // Whoever drives the last mark settles the end; of one that left none that may still have to be done.
            match engine.drive_marks(instance, &record).await? {
                true => Ok(()),
                false if planted(Defect::EndIsNotSettled) => Ok(()),
                false => engine.settle_end(instance, &record).await,
            }
        };
        return Ok(match engine.as_far_as_possible(instance, settling).await? {
            Some(_) => DueOutcome::Remove,
            // What cannot be made by us a later release's worker may be able to make.
            None => DueOutcome::Again(now + now.since(record.updated_at).clamp(CHECK_AGAIN.0, CHECK_AGAIN.1)),
        });
    }
    let age = now.since(record.updated_at);
    let again = now + age.clamp(CHECK_AGAIN.0, CHECK_AGAIN.1);
    if let Some(at) = record
        .origin
        .start_at
        .filter(|at| *at > now && record.status == Status::Pending)
    {
        return Ok(DueOutcome::Again(at));
    }
    // Marks of the last seconds belong to a worker that is making their effects right now. A delayed start has nobody but us.
    let is_settled = age >= CHECK_AGAIN.0 || record.origin.start_at.is_some();
    if is_settled {
        let driving = engine.drive_marks(instance, &record);
        engine.as_far_as_possible(instance, driving).await?;
    }
    drive_children(runtime, instance, &record).await?;
    match record.status {
        Status::Pending if !record.marks.contains(&Mark::Start) && age >= START_AGAIN => {
            engine.drive_start(instance, &record).await?
        }
        Status::Running if is_settled && needs_a_turn(runtime, instance, &record).await? => {
            wake(runtime, instance, &record).await
        }
        Status::Stalled if has_fitting_worker(runtime, &record).await? => wake(runtime, instance, &record).await,
        _ => {}
    }
    Ok(DueOutcome::Again(again))
}

/// Children that were ended before their first turn, by a process that died before it told us: their own app may never come.
async fn drive_children(runtime: &Runtime, instance: &InstanceRef, record: &Record) -> Result<()> {
    /// Children looked at in one check, and side by side. Which they are changes from check to check.
    const CHILDREN: (usize, usize) = (512, 32);
    let engine = &runtime.engine;
    let mut children = open_children(runtime, instance, record).await?;
    if children.len() > CHILDREN.0 {
        let first = runtime.now().as_millis() as usize % children.len();
        children.rotate_left(first);
        children.truncate(CHILDREN.0);
    }
    for some in children.chunks(CHILDREN.1) {
        try_join_all(some.iter().map(async |instance| {
            let child = match engine.retrying("record", || engine.store().record(instance)).await {
                Err(error) if error.is_permanent() => {
                    warn!(child = %instance, %error, "a child's record cannot be read");
                    return Ok(());
                }
                child => child?,
            };
            match child.filter(|child| child.status.is_terminal() && !child.marks.is_empty()) {
                Some(child) => engine.drive_marks_of_another(instance, &child).await,
                None => Ok(()),
            }
        }))
        .await?;
    }
    Ok(())
}

/// The children that the instance waits for. The record names only the first few of all that it waits for; the history names them all.
async fn open_children(runtime: &Runtime, instance: &InstanceRef, record: &Record) -> Result<Vec<InstanceRef>> {
    let waiting = &record.view.waiting;
    if waiting.shown.len() < waiting.total
        && let Some(outline) = runtime.engine.outline(instance, record).await?
    {
        let open = outline.open.into_values();
        return Ok(open
            .filter_map(|open| match open.what {
                What::Child { instance } => Some(instance),
                What::Activity { .. } | What::Timer => None,
            })
            .collect());
    }
    let shown = waiting.shown.iter().filter_map(|waiting| match waiting {
        WaitingFor::Child { instance, .. } => Some(instance.clone()),
        _ => None,
    });
    Ok(shown.collect())
}

async fn is_marked(runtime: &Runtime, instance: &InstanceRef, execution: crate::model::ExecutionId) -> Result<bool> {
    let engine = &runtime.engine;
    let record = engine.retrying("record", || engine.store().record(instance)).await?;
    Ok(record.is_some_and(|record| {
        record.execution == execution && record.marks.iter().any(|mark| matches!(mark, Mark::Turn(_)))
    }))
}

/// True if something waits in the instance that no message will announce.
async fn needs_a_turn(runtime: &Runtime, instance: &InstanceRef, record: &Record) -> Result<bool> {
    if record.marks.contains(&Mark::Run) && !planted(Defect::NextExecutionIsForgotten) {
        return Ok(true);
    }
    if planted(Defect::InboxStaysUnread) {
        return Ok(false);
    }
    let engine = &runtime.engine;
    let loaded = engine
        .retrying("load", || engine.store().load(instance, record.version, 1))
        .await?;
    Ok(loaded.is_some_and(|loaded| !loaded.inbox.is_empty()))
}

/// True if a live worker may have code that the stalled instance waits for.
async fn has_fitting_worker(runtime: &Runtime, record: &Record) -> Result<bool> {
    let Some(stall) = &record.view.stall else {
        return Ok(true);
    };
    let engine = &runtime.engine;
    let workers = engine
        .retrying("workers", || engine.store().workers(&runtime.app))
        .await?;
    Ok(workers.iter().any(|worker| {
        let knows = worker.workflows.contains(&record.origin.workflow);
        // What was not registered anywhere fits as soon as it is; what did not fit the history needs another build.
        knows && (stall.reason == StallReason::NotRegistered || !stall.has_tried(&worker.build))
    }))
}

async fn wake(runtime: &Runtime, instance: &InstanceRef, record: &Record) {
    // One that stalled before it had a home: any lane will do.
    let lane = record.lane.unwrap_or_default();
    let item = Item::Wake(WakeItem {
        instance: instance.clone(),
    });
    let queue = Queue::Events(instance.app.clone(), lane);
    if let Err(error) = runtime.engine.outbox.send(queue, item).await {
        debug!(%instance, %error, "it was not woken; its next check tries again");
    }
}

/// A finished instance's time is over.
async fn retire(runtime: &Runtime, entry: RetentionEntry) -> Result<DueOutcome> {
    let deleted = match runtime.engine.delete(&entry.instance, entry.execution).await {
        // Its effects cannot be made: perhaps a later release's worker can.
        Err(error) if error.is_permanent() => return Ok(DueOutcome::Again(runtime.now() + CHECK_AGAIN.1)),
        deleted => deleted?,
    };
    debug!(instance = %entry.instance, ?deleted, "retention");
    Ok(DueOutcome::Remove)
}
