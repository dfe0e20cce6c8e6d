//! What was sent to an app that does not exist: answered if the caller has a retry policy, else kept and tried again.

use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, info, warn};

use super::consume::{consume, open};
use super::delivery::Ticket;
use super::lanes::is_of_another_user;
use super::parked::next_try;
use super::runtime::Runtime;
use crate::backend::{BUNDLE_TYPE, Delivery, Error, Message, Queue, Result, When};
use crate::engine::parked_entry;
use crate::fault::fault_point;
use crate::model::{AppId, Failure, kinds};
use crate::wire::{CompletionItem, Item, Outcome};

const PAUSE_BEFORE_SENDING_ON: Duration = Duration::from_millis(500);

/// Takes unrouted messages until the worker drains.
pub(super) async fn run(runtime: Arc<Runtime>) {
    while !runtime.draining.is_cancelled() {
        consume(
            &runtime,
            &Queue::Unrouted,
            runtime.settings.prefetch,
            runtime.draining.cancelled(),
            |delivery| {
                let work = take(runtime.clone(), delivery);
                runtime.tracker.spawn(work);
            },
        )
        .await;
    }
}

async fn take(runtime: Arc<Runtime>, delivery: Delivery) {
    if let Err(error) = handle(&runtime, delivery).await {
        debug!(%error, "an unrouted message stays with the broker");
    }
}

async fn handle(runtime: &Arc<Runtime>, delivery: Delivery) -> Result<()> {
    let Some(target) = delivery.routed_to.clone() else {
        return dismiss(
            runtime,
            delivery,
            "unrouted",
            "the routing key names no queue of this namespace",
        )
        .await;
    };
    if delivery.properties.content_type.as_deref() != Some(BUNDLE_TYPE) {
        let Queue::Workflows(_) = target else {
            let reason = format!("a raw start belongs into an app's workflows queue, not into {target}");
            return dismiss(runtime, delivery, &target.local_name(), &reason).await;
        };
        return match send_on(runtime, &delivery, &target).await {
            Ok(true) => {
                // A crash before this line: it comes twice, and counts once by its instance ID or message ID.
                delivery.ack();
                Ok(())
            }
            Ok(false) => {
                let reason = format!("queue {target} does not exist: no worker of the app has ever started");
                dismiss(runtime, delivery, &target.local_name(), &reason).await
            }
            Err(error) => {
                delivery.requeue();
                Err(error)
            }
        };
    }
    let Some((bundle, delivery)) = open(runtime, delivery, &Queue::Unrouted).await? else {
        return Ok(());
    };
    let Some(app) = target.app().cloned() else {
        return dismiss(
            runtime,
            delivery,
            "unrouted",
            "the message was sent to the unrouted queue itself",
        )
        .await;
    };
    let user = delivery.user.clone();
    let tickets = Ticket::split(delivery, bundle.items.len());
    for (item, ticket) in bundle.items.into_iter().zip(tickets) {
        if let Item::Completion(completion) = &item
            && is_of_another_user(runtime, completion, user.as_deref())
        {
            // Its caller's worker would send it on as its own.
            warn!(app = %completion.from, user, caller = %completion.task.instance, "a result was dropped: its broker user is not its app's");
            runtime.counters.dropped("another user than its app's");
            ticket.done();
            continue;
        }
        if let Err(error) = answer_or_park(runtime, item, &target, &app).await {
            // It comes back at once: one that can never be dealt with would be all that anybody does.
            runtime.pause(PAUSE_BEFORE_SENDING_ON).await;
            return Err(error);
        }
        fault_point("unrouted-handled");
        ticket.done();
    }
    Ok(())
}

/// A raw start came before its app did, or while the app's queue had no way to it yet. If the queue is there now, that is where it goes. False if not.
async fn send_on(runtime: &Runtime, delivery: &Delivery, target: &Queue) -> Result<bool> {
    let engine = &runtime.engine;
    if engine
        .retrying("depth", || engine.broker().depth(target))
        .await?
        .is_none()
    {
        return Ok(false);
    }
    // A queue is bound just after it is declared. One whose worker died in between brings the message back here, again and again until a worker starts.
    runtime.pause(PAUSE_BEFORE_SENDING_ON).await;
    let message = Message {
        queue: target.clone(),
        body: delivery.body.clone(),
        properties: delivery.properties.clone(),
    };
    engine
        .retrying("publish", || engine.broker().publish(message.clone()))
        .await?;
    Ok(true)
}

/// Puts a message that is nobody's among the dead.
async fn dismiss(runtime: &Runtime, delivery: Delivery, origin: &str, reason: &str) -> Result<()> {
    let buried = runtime
        .bury(delivery.body.clone(), &delivery.properties, origin, reason)
        .await;
    if buried.is_ok() {
        delivery.ack()
    } else {
        delivery.requeue()
    }
    buried
}

async fn answer_or_park(runtime: &Arc<Runtime>, item: Item, target: &Queue, app: &AppId) -> Result<()> {
    if matches!(item, Item::Probe(_)) || answer(runtime, &item, app).await? {
        return Ok(());
    }
    park(runtime, item, target, app).await
}

/// Tells the caller that there is no such app, if it has a policy for that. False if the item is to wait for the app.
pub(super) async fn answer(runtime: &Runtime, item: &Item, app: &AppId) -> Result<bool> {
    match item {
        // An app that is here does not say of itself that it is not: its queue has not been bound yet, and is tried again.
        _ if *app == runtime.app => Ok(false),
        Item::Task(task) if task.retried => {
            let answer = CompletionItem {
                task: task.caller.clone(),
                task_execution_id: Some(task.task_execution_id),
                from: runtime.app.clone(),
                outcome: Outcome::Failed(not_found(app)),
                progressed: false,
                ran: None,
            };
            let queue = Queue::Events(task.caller.instance.app.clone(), task.reply_to);
            // An answer that is itself unrouted comes back here as a completion, which is never answered.
            let answered = runtime.engine.outbox.send(queue, Item::Completion(answer)).await;
            answered.map(|()| true)
        }
        Item::Start(start) if start.parent.as_ref().is_some_and(|parent| parent.retried) => {
            runtime.engine.fail_start(start, not_found(app)).await.map(|()| true)
        }
        _ => Ok(false),
    }
}

fn not_found(app: &AppId) -> Failure {
    Failure::new(
        kinds::APP_NOT_FOUND,
        format!("app `{app}` does not exist: no worker of it has ever started in this namespace; is the name right?"),
    )
}

/// Keeps the item in the due-set of whoever waits for it, and tries again; the wait is visible in the caller's status.
async fn park(runtime: &Runtime, item: Item, target: &Queue, app: &AppId) -> Result<()> {
    let engine = &runtime.engine;
    if !engine.may_be_wanted(&item).await? {
        runtime.counters.dropped("unrouted, and nobody waits for it");
        return Ok(());
    }
    let since = runtime.now();
    info!(%app, kind = item.kind(), instance = item.instance().map(tracing::field::display), "waiting for an app that does not exist (yet)");
    let parked = parked_entry(&runtime.app, target, item, since, next_try(runtime, since));
    let (owner, entry) = parked.ok_or_else(|| Error::permanent(format!("queue {target} is no app's")))?;
    let result = engine
        .retrying("schedule", || {
            engine.store().schedule(&owner, std::slice::from_ref(&entry), When::Set)
        })
        .await;
    if let Err(error) = &result {
        warn!(%error, "an unrouted item was not kept; its message is handed back");
    }
    result
}
