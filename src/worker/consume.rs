//! Subscribing, and opening what comes.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, warn};

use super::runtime::Runtime;
use crate::backend::{Consumer, Delivery, Queue, Result};
use crate::model::{Failure, kinds};
use crate::wire::{Bundle, CompletionItem, DecodeError, Item, Outcome};

const PAUSE_BEFORE_RESUBSCRIBING: Duration = Duration::from_millis(200);

/// Subscribes to a queue and hands over what comes until `until` is ready; then cancels: nothing more comes, and what came can still be settled. Returns
/// as well when the subscription is lost, after a pause.
pub(super) async fn consume(
    runtime: &Runtime,
    queue: &Queue,
    prefetch: u16,
    until: impl Future<Output = ()>,
    handle: impl FnMut(Delivery),
) {
    if let Some(consumer) = consume_and_keep(runtime, queue, prefetch, until, handle).await {
        cancel(consumer, queue).await;
    }
}

/// The same, but gives the subscription back as it is, with what was handed over and what came meanwhile. `None`: it is lost, and the pause is over.
pub(super) async fn consume_and_keep(
    runtime: &Runtime,
    queue: &Queue,
    prefetch: u16,
    until: impl Future<Output = ()>,
    mut handle: impl FnMut(Delivery),
) -> Option<Box<dyn Consumer>> {
    let mut consumer = match runtime.engine.broker().consume(queue, prefetch).await {
        Ok(consumer) => consumer,
        Err(error) => {
            if error.is_permanent() {
                // Somebody removed the queue under a running worker: it is made again.
                warn!(%queue, %error, "cannot subscribe");
                let _ = runtime
                    .engine
                    .broker()
                    .declare(&runtime.app, runtime.lane_count())
                    .await;
            }
            runtime.pause(PAUSE_BEFORE_RESUBSCRIBING * 5).await;
            return None;
        }
    };
    tokio::pin!(until);
    loop {
        tokio::select! {
            biased;
            () = &mut until => return Some(consumer),
            delivery = consumer.next() => match delivery {
                Some(delivery) => handle(delivery),
                None => break,
            }
        }
    }
    debug!(%queue, "the subscription ended; subscribing again");
    runtime.pause(PAUSE_BEFORE_RESUBSCRIBING).await;
    None
}

/// Ends a subscription. What was delivered can still be settled.
pub(super) async fn cancel(mut consumer: Box<dyn Consumer>, queue: &Queue) {
    if let Err(error) = consumer.cancel().await {
        debug!(%queue, %error, "the subscription was not cancelled in order; the broker ends it with the connection");
    }
}

/// Reads a bundle. What cannot be read goes among the dead, with the reason, and is acknowledged; a message of a later release is handed back, after
/// a while, for a worker that knows it. `None`: the delivery is taken care of.
pub(super) async fn open(
    runtime: &Arc<Runtime>,
    delivery: Delivery,
    origin: &Queue,
) -> Result<Option<(Bundle, Delivery)>> {
    /// How long a message of a later release is held before it is handed back.
    const HELD: Duration = Duration::from_secs(1);
    let problem = match Bundle::decode(&delivery.body) {
        Ok(bundle) => return Ok(Some((bundle, delivery))),
        Err(problem) => problem,
    };
    if let DecodeError::Newer { .. } = problem {
        warn!(queue = %origin, %problem, "a message is left for a newer worker");
        let runtime = runtime.clone();
        // Beside the queue, so that what stands behind it is not held up.
        runtime.clone().tracker.spawn(async move {
            runtime.pause(HELD).await;
            delivery.requeue();
        });
        return Ok(None);
    }
    warn!(queue = %origin, %problem, "a message cannot be read; it is put among the dead");
    match dismiss_unreadable(runtime, &delivery, origin, &problem).await {
        Ok(()) => delivery.ack(),
        Err(error) => {
            delivery.requeue();
            return Err(error);
        }
    }
    Ok(None)
}

/// Puts the message among the dead, and tells whoever waits for an answer.
async fn dismiss_unreadable(
    runtime: &Runtime,
    delivery: &Delivery,
    origin: &Queue,
    problem: &DecodeError,
) -> Result<()> {
    runtime
        .bury(
            delivery.body.clone(),
            &delivery.properties,
            &origin.local_name(),
            &problem.to_string(),
        )
        .await?;
    if let Some((caller, lane)) = caller_of(&delivery.body) {
        let failure = Failure::new(
            kinds::UNDELIVERABLE,
            format!("app {} could not read the task: {problem}", runtime.app),
        )
        .fatal();
        let item = CompletionItem {
            task: caller.task,
            task_execution_id: caller.task_execution_id,
            from: runtime.app.clone(),
            outcome: Outcome::Failed(failure),
            progressed: false,
            ran: None,
        };
        let queue = Queue::Events(item.task.instance.app.clone(), lane);
        runtime.engine.outbox.send(queue, Item::Completion(item)).await?;
    }
    Ok(())
}

/// Who waits for an answer.
struct Caller {
    task: crate::wire::TaskRef,
    task_execution_id: Option<crate::model::TaskExecutionId>,
}

/// The caller of a message that cannot be read as a whole, if that much of it can: the first item's `caller` and `reply_to`.
fn caller_of(body: &[u8]) -> Option<(Caller, crate::model::Lane)> {
    #[derive(serde::Deserialize)]
    struct Envelope {
        items: Vec<std::collections::BTreeMap<String, Fields>>,
    }
    #[derive(serde::Deserialize)]
    struct Fields {
        caller: crate::wire::TaskRef,
        reply_to: crate::model::Lane,
        task_execution_id: Option<crate::model::TaskExecutionId>,
    }
    let envelope: Envelope = rmp_serde::from_slice(body).ok()?;
    let fields = envelope.items.into_iter().next()?.into_values().next()?;
    Some((
        Caller {
            task: fields.caller,
            task_execution_id: fields.task_execution_id,
        },
        fields.reply_to,
    ))
}
