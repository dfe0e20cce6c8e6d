//! Taking activity tasks: what arrives in the app's `activities` queue.

use std::sync::Arc;

use futures_util::future::join_all;
use tracing::debug;

use super::consume::{consume, open};
use super::delivery::Ticket;
use super::hold::Hold;
use super::run::Run;
use super::runtime::Runtime;
use super::starts::bury_item;
use crate::backend::{Delivery, DueEntry, Queue, Result};
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
    // The broker would take away what is neither opened nor leased after the whole of it.
    let longest = runtime.settings.delivery_timeout / 2;
    tokio::select! {
        biased;
        () = runtime.slot_room.for_the_next() => {}
        () = runtime.draining.cancelled() => return delivery.requeue(),
        () = runtime.engine.backend.clock().sleep(longest) => return delivery.requeue(),
    }
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
            Err(_) => delivery.requeue(),
        }
        return;
    }
    let tickets = Ticket::split(delivery, bundle.items.len());
    for (item, ticket) in bundle.items.into_iter().zip(tickets) {
        match item {
            Item::Probe(probe) => {
                probe.marker.into_iter().for_each(|marker| runtime.in_hand.note(marker));
                ticket.done();
            }
            Item::Task(task) => {
                // One that was passed on may have copies, as one that comes again has.
                let has_been_here = is_redelivered || task.misses > 0;
                // What has been here may have to wait for other things than a slot, and for long.
                let waiting = (!has_been_here).then(|| runtime.slot_room.enter());
                let run = Run::new(runtime.clone(), task, has_been_here);
                let hold = Hold::message(&runtime, ticket);
                // Boxed, as activations are.
                runtime.tracker.spawn(Box::pin(run.attend(hold, waiting)));
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
}

/// Sends each item by itself. What has its result in history was done with when the message came before.
async fn split(runtime: &Arc<Runtime>, bundle: Bundle) -> Result<()> {
    let sent = bundle.items.into_iter().map(async |mut item| {
        if let Item::Task(task) = &mut item {
            let run = Run::new(runtime.clone(), task.clone(), true);
            if run.is_settled().await? {
                run.drop_for("already in history");
                return run.end_run().await;
            }
            // Whoever takes it knows that it has been here.
            task.misses += 1;
        }
        let queue = Queue::Activities(runtime.app.clone());
        runtime.engine.outbox.send_alone(queue, item).await
    });
    join_all(sent).await.into_iter().collect()
}

/// A lapsed lease: the worker that had the task is gone, or frozen. The entry, as the due loop has claimed it, is ours now.
pub(super) async fn take_over(runtime: Arc<Runtime>, task: TaskItem, entry: DueEntry) {
    let hold = Hold::lease(&runtime, entry);
    Run::new(runtime, task, true).attend(hold, None).await;
}
