//! Lanes: which of the app's event queues this worker works on.
//!
//! Every worker subscribes to every lane; the broker lets one of them be active and hands over when it goes. AMQP does not tell a consumer that it is
//! active, so a worker learns it from what arrives, and sends probes so that something does. To balance, a worker with more than its share cancels
//! some and subscribes again, last in line. All of this is for speed: a wrong belief about a lane costs time, nothing else (I1 guards the state).
//!
//! A lane is let go with nothing in hand: what is under way ends first, and the rest goes back as one, in its order and before anybody else is active.
//! That keeps the order of an instance's events when its lane moves.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::{debug, info, warn};

use super::activation::arrive;
use super::consume::{consume_and_keep, open};
use super::delivery::{Arrival, Ticket};
use super::runtime::Runtime;
use super::starts::bury_item;
use crate::backend::{Delivery, Queue, WorkerInfo};
use crate::model::{BuildId, Lane, WorkerId};
use crate::wire::{CompletionItem, Item, ProbeItem};

/// One lane's subscription, for as long as the worker runs. `give_up` asks it to go to the end of the line.
pub(super) async fn run(runtime: Arc<Runtime>, lane: Lane, give_up: Arc<tokio::sync::Notify>) {
    let queue = Queue::Events(runtime.app.clone(), lane);
    while !runtime.draining.is_cancelled() {
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
        let in_hand = TaskTracker::new();
        let let_go = runtime.draining.child_token();
        let handler = handle_all(runtime.clone(), lane, receiver, in_hand.clone(), let_go.clone());
        let handler = runtime.tracker.spawn(handler);
        probe(&runtime, lane);
        let until = async {
            tokio::select! {
                biased;
                () = give_up.notified() => {}
                () = runtime.draining.cancelled() => {}
            }
        };
        // The channel is bounded by the prefetch: the broker sends no more until these are settled.
        let consumer = consume_and_keep(&runtime, &queue, runtime.settings.prefetch, until, |delivery| {
            drop(sender.send(delivery))
        })
        .await;
        drop(sender);
        let_go.cancel();
        let _ = handler.await;
        if let Some(consumer) = consumer {
            in_hand.close();
            tokio::select! {
                biased;
                () = in_hand.wait() => {}
                () = runtime.engine.backend.clock().sleep(runtime.settings.shutdown_grace) => {}
                () = runtime.engine.stop.cancelled() => {}
            }
            // Whoever has the lane next makes the effects of every marked turn that it meets.
            tokio::select! {
                biased;
                () = runtime.engine.clear_confirmed() => {}
                () = runtime.engine.stop.cancelled() => {}
            }
            // Not cancelled: that would make another worker active before what came meanwhile is back in the queue.
            drop(consumer);
        }
        // After the handler, which believes in the lane with each message that it still has.
        runtime.lanes.set(lane, false);
        // Back in line only when others had the chance to be first.
        runtime.pause(Duration::from_millis(100)).await;
    }
}

/// Opens a lane's messages in their order, and hands on what they bring as there is room for it. Once the lane is let go it opens no more: what it has not
/// opened goes back with the subscription.
async fn handle_all(
    runtime: Arc<Runtime>,
    lane: Lane,
    mut deliveries: tokio::sync::mpsc::UnboundedReceiver<Delivery>,
    in_hand: TaskTracker,
    let_go: CancellationToken,
) {
    while let Some(delivery) = deliveries.recv().await {
        if !runtime.draining.is_cancelled() {
            runtime.lanes.set(lane, true);
        }
        tokio::select! {
            biased;
            () = let_go.cancelled() => return,
            () = runtime.room.for_a_lane() => {}
        }
        if let Err(error) = handle(&runtime, lane, delivery, in_hand.token(), &let_go).await {
            debug!(lane, %error, "a message of the lane is handed back");
        }
    }
}

async fn handle(
    runtime: &Arc<Runtime>,
    lane: Lane,
    delivery: Delivery,
    in_hand: TaskTrackerToken,
    let_go: &CancellationToken,
) -> crate::backend::Result<()> {
    let origin = Queue::Events(runtime.app.clone(), lane);
    let Some((bundle, delivery)) = open(runtime, delivery, &origin).await? else {
        return Ok(());
    };
    let (is_redelivered, user) = (delivery.redelivered, delivery.user.clone());
    let tickets = Ticket::split_held(delivery, bundle.items.len(), in_hand);
    for (item, ticket) in bundle.items.into_iter().zip(tickets) {
        if let Item::Completion(completion) = &item {
            runtime.engine.outbox.learn(completion);
        }
        match item {
            Item::Probe(probe) => {
                if let Some(marker) = probe.marker {
                    runtime.in_hand.note(marker);
                }
                if probe.worker == runtime.id {
                    debug!(lane, "this worker holds the lane");
                }
                ticket.done();
            }
            Item::Completion(completion) if is_of_another_user(runtime, &completion, user.as_deref()) => {
                warn!(app = %completion.from, user, caller = %completion.task.instance, "a result was dropped: its broker user is not its app's");
                runtime.counters.dropped("another user than its app's");
                ticket.done();
            }
            Item::Start(_) | Item::Task(_) => {
                bury_item(runtime, &item, &origin, "starts and tasks do not belong into a lane").await?;
                ticket.done();
            }
            item => match item.instance().filter(|instance| instance.app == runtime.app).cloned() {
                Some(instance) => {
                    let held = runtime.in_hand.take(&item, runtime.now());
                    tokio::select! {
                        biased;
                        () = runtime.room.for_a_lane() => {}
                        // The rest of an opened message is dealt with here all the same.
                        () = let_go.cancelled() => {}
                    }
                    let arrival = Arrival {
                        held,
                        item,
                        ticket,
                        is_redelivered,
                        lane: Some(lane),
                    };
                    arrive(runtime, &instance, arrival);
                }
                None => {
                    bury_item(runtime, &item, &origin, "the item is for an instance of another app").await?;
                    ticket.done();
                }
            },
        }
    }
    Ok(())
}

/// True for an activity's result that does not come from the user of the app that it names. The end of a child is not asked about: whoever may end it
/// in the store may say so.
pub(super) fn is_of_another_user(runtime: &Runtime, completion: &CompletionItem, user: Option<&str>) -> bool {
    let is_its_own = user == Some(completion.from.as_str());
    // A worker of the caller's app has sent it on. It had asked before, or found it in the store, where whoever may write may say anything.
    let is_its_callers = user == Some(completion.task.instance.app.as_str());
    runtime.settings.user_per_app && completion.task_execution_id.is_some() && !is_its_own && !is_its_callers
}

/// Sends something to the lane, so that whoever is active in it notices. While the broker is away one probe for each lane waits, and no more.
fn probe(runtime: &Arc<Runtime>, lane: Lane) {
    /// On its way for as long as it is.
    struct Probe(Arc<Runtime>, Lane);
    impl Drop for Probe {
        fn drop(&mut self) {
            self.0.lanes.end_probe(self.1);
        }
    }
    if !runtime.lanes.begin_probe(lane) {
        return;
    }
    let probe = Probe(runtime.clone(), lane);
    let item = Item::Probe(ProbeItem {
        worker: runtime.id,
        marker: None,
    });
    runtime.tracker.spawn(async move {
        let Probe(runtime, lane) = &probe;
        let queue = Queue::Events(runtime.app.clone(), *lane);
        if let Err(error) = runtime.engine.outbox.send(queue, item).await {
            debug!(lane, %error, "no probe was sent");
        }
    });
}

/// The lanes' tasks, and how to ask each to go to the end of the line.
pub(super) struct Lanes {
    give_up: Vec<Arc<tokio::sync::Notify>>,
}

impl Lanes {
    pub(super) fn start(runtime: &Arc<Runtime>, count: u16) -> Self {
        let give_up: Vec<Arc<tokio::sync::Notify>> = (0..count).map(|_| Arc::default()).collect();
        for (lane, notify) in give_up.iter().enumerate() {
            runtime
                .tracker
                .spawn(run(runtime.clone(), lane as Lane, notify.clone()));
        }
        Self { give_up }
    }

    /// Gives up lanes beyond this worker's fair share among the live workers, and one more if a whole build is without.
    pub(super) fn balance(&self, runtime: &Runtime, workers: &[WorkerInfo]) {
        let held = runtime.lanes.all();
        let share = self.give_up.len().div_ceil(workers.len().max(1));
        let kept = if is_to_make_room(runtime.id, workers) {
            share.min(held.len().saturating_sub(1))
        } else {
            share
        };
        if held.len() <= kept {
            return;
        }
        info!(
            held = held.len(),
            kept,
            workers = workers.len(),
            "giving up lanes that other workers can take"
        );
        for lane in held.into_iter().skip(kept) {
            if let Some(notify) = self.give_up.get(usize::from(lane)) {
                notify.notify_one();
            }
        }
    }

    /// Probes the lanes that nobody is known to hold.
    pub(super) fn probe_missing(&self, runtime: &Arc<Runtime>, known: &[Lane]) {
        for lane in 0..self.give_up.len() as Lane {
            if !known.contains(&lane) {
                probe(runtime, lane);
            }
        }
    }
}

/// True if this worker is the one to make room: a build holds no lane at all, and ours holds more lanes than any other. Instances that only the code
/// of that build fits would wait for ever.
fn is_to_make_room(id: WorkerId, workers: &[WorkerInfo]) -> bool {
    let lanes_of = |build: &BuildId| {
        workers
            .iter()
            .filter(|worker| worker.build == *build)
            .map(|worker| worker.lanes.len())
            .sum::<usize>()
    };
    if workers.iter().all(|worker| lanes_of(&worker.build) > 0) {
        return false;
    }
    // All workers read the same heartbeats, so they agree who it is.
    let richest = workers
        .iter()
        .filter(|worker| !worker.lanes.is_empty())
        .max_by_key(|worker| (lanes_of(&worker.build), worker.lanes.len(), worker.id));
    richest.is_some_and(|worker| worker.id == id && lanes_of(&worker.build) > 1)
}
