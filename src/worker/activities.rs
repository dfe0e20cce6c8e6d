//! Taking activity tasks: what arrives in the app's `activities` queue.

use std::sync::Arc;

use futures_util::future::join_all;
use tracing::debug;

use super::consume::{consume, open};
use super::delivery::Ticket;
use super::hold::Hold;
use super::run::{PAUSE_BEFORE_HANDING_BACK, Run};
use super::runtime::Runtime;
use super::starts::bury_item;
use crate::backend::{Delivery, DueEntry, Error, Queue, Result};
use crate::wire::{Bundle, Item, TaskItem};

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
        Err(error) => return debug!(%error, "a message that cannot be read is handed back"),
    };
    let is_redelivered = delivery.redelivered;
    if is_redelivered && bundle.items.len() > 1 {
        // One of them may be deadly: each gets a message, and a count, of its own.
        match split(&runtime, bundle).await {
            Ok(()) => delivery.ack(),
            Err(error) => {
                debug!(%error, "a message that came again is handed back");
                runtime.pause(PAUSE_BEFORE_HANDING_BACK).await;
                delivery.requeue();
            }
        }
        return;
    }
    let tickets = Ticket::split(delivery, bundle.items.len());
    let mut tasks = Vec::with_capacity(tickets.len());
    // All of them before any has to wait: a marker that comes behind them must find them in hand.
    for (item, ticket) in bundle.items.into_iter().zip(tickets) {
        match item {
            Item::Probe(probe) => {
                probe.marker.into_iter().for_each(|marker| runtime.in_hand.note(marker));
                ticket.done();
            }
            Item::Task(task) => {
                // One that was passed on may have copies, as one that comes again has.
                let has_been_here = is_redelivered || task.misses > 0;
                let run = Run::new(runtime.clone(), task, has_been_here);
                tasks.push((run, Hold::message(&runtime, ticket)));
            }
            other => {
                if bury_item(&runtime, &other, &origin, "only tasks belong into an activities queue")
                    .await
                    .is_ok()
                {
                    ticket.done();
                }
            }
        }
    }
    attend_all(&runtime, tasks).await;
}

/// Begins on the tasks of a message, as there is room for those that wait for a slot: an idle one takes less memory than one that somebody attends to.
async fn attend_all(runtime: &Arc<Runtime>, tasks: Vec<(Run, Hold)>) {
    // Boxed, as activations are.
    let attend = |run: Run, hold, waiting| runtime.tracker.spawn(Box::pin(run.attend(hold, waiting)));
    // What has been here may have to wait for other things than a slot, and for long.
    let (tasks, others): (Vec<_>, Vec<_>) = tasks
        .into_iter()
        .partition(|(run, _)| !run.is_redelivered && run.is_known_here());
    for (run, hold) in others {
        attend(run, hold, None);
    }
    let clock = runtime.engine.backend.clock();
    // Later the broker would take the message for lost, and all these tasks would need leases. What has not begun goes back: other workers may have room.
    let begin_by = clock.now() + runtime.settings.delivery_timeout / 2;
    let mut line = None;
    let mut tasks = tasks.into_iter();
    while let Some((run, hold)) = tasks.next() {
        let room = async {
            if line.is_none() {
                line = Some(runtime.slot_room.first_in_line().await);
            }
            runtime.slot_room.for_another().await;
        };
        tokio::select! {
            biased;
            () = runtime.draining.cancelled() => {}
            () = room => {
                attend(run, hold, Some(runtime.slot_room.enter()));
                continue;
            }
            () = clock.sleep(begin_by.since(clock.now())) => {}
        }
        run.goes_back();
        tasks.by_ref().for_each(|(run, _)| run.goes_back());
        return;
    }
}

/// Tasks of a message that comes again that are looked at side by side.
const SPLIT_AT_ONCE: usize = 32;

/// Sends each item by itself. What has its result in history was done with when the message came before.
async fn split(runtime: &Arc<Runtime>, bundle: Bundle) -> Result<()> {
    // Before it waits: a marker that comes behind them must find them in hand.
    let items: Vec<(Item, Option<Run>)> = bundle.items.into_iter().map(|item| in_hand(runtime, item)).collect();
    // After a crash there may be as many such messages as may be in hand, of a thousand tasks each.
    let _permit = tokio::select! {
        biased;
        () = runtime.draining.cancelled() => return Err(Error::transient("the worker stops")),
        permit = runtime.splits.acquire() => permit,
    };
    let mut items = items.into_iter().peekable();
    while items.peek().is_some() {
        let some: Vec<_> = items.by_ref().take(SPLIT_AT_ONCE).collect();
        let sent = some.into_iter().map(async |(mut item, run)| {
            if let (Item::Task(task), Some(run)) = (&mut item, &run) {
                if run.is_settled().await? {
                    run.drop_for("already in history");
                    return run.end_run().await;
                }
                // Whoever takes it knows that it has been here.
                task.misses += 1;
                run.goes_back();
            }
            let queue = Queue::Activities(runtime.app.clone());
            runtime.engine.outbox.send_alone(queue, item).await
        });
        join_all(sent).await.into_iter().collect::<Result<()>>()?;
    }
    Ok(())
}

fn in_hand(runtime: &Arc<Runtime>, item: Item) -> (Item, Option<Run>) {
    let run = match &item {
        Item::Task(task) => Some(Run::new(runtime.clone(), task.clone(), true)),
        _ => None,
    };
    (item, run)
}

/// A lapsed lease: the worker that had the task is gone, or frozen. The entry, as the due loop has claimed it, is ours now.
pub(super) async fn take_over(runtime: Arc<Runtime>, task: TaskItem, entry: DueEntry) {
    let hold = Hold::lease(&runtime, entry);
    Run::new(runtime, task, true).attend(hold, None).await;
}
