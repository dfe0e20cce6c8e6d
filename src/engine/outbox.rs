//! Publishing: items for one destination go out together.
//!
//! While a message to a destination is unconfirmed, further items for it gather and form the next message; when nothing is in flight an item goes out
//! at once. So bundles grow with the load and nothing is held back when there is none.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::persist;
use crate::backend::{Backend, Error, Message, Queue, Result};
use crate::model::{Failure, Limits, MessageId, kinds};
use crate::wire::{Bundle, CompletionItem, Item, Outcome};

type Waiting = Vec<(Item, oneshot::Sender<Result<()>>)>;

/// See the module. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Outbox(Arc<Inner>);

struct Inner {
    backend: Backend,
    limits: Arc<Limits>,
    tracker: TaskTracker,
    stop: CancellationToken,
    /// Destinations with a message in flight, and what gathers behind it.
    destinations: Mutex<HashMap<Queue, Waiting>>,
}

impl Outbox {
    pub(super) fn new(backend: Backend, limits: Arc<Limits>, tracker: TaskTracker, stop: CancellationToken) -> Self {
        Self(Arc::new(Inner {
            backend,
            limits,
            tracker,
            stop,
            destinations: Mutex::default(),
        }))
    }

    /// Items that wait for a message that is on its way.
    pub(crate) fn waiting(&self) -> usize {
        let destinations = self.0.destinations.lock().unwrap_or_else(PoisonError::into_inner);
        destinations.values().map(Vec::len).sum()
    }

    /// Sends an item and returns once the broker has stored it. Repeats until it has: receivers drop duplicates. In place of a task or a completion that
    /// is larger than the broker takes its caller gets a failure that says so: only that call fails.
    ///
    /// # Errors
    /// If the broker refuses it for good, or the process stops: the item may or may not have arrived.
    pub(crate) async fn send(&self, queue: Queue, item: Item) -> Result<()> {
        if !travels_with_others(&item) {
            let mut results = self.0.publish(&queue, vec![item]).await;
            return results.pop().unwrap_or(Ok(()));
        }
        let (sender, receiver) = oneshot::channel();
        let is_first = {
            let mut destinations = self.0.destinations.lock().unwrap_or_else(PoisonError::into_inner);
            let is_first = !destinations.contains_key(&queue);
            destinations.entry(queue.clone()).or_default().push((item, sender));
            is_first
        };
        if is_first {
            self.0.tracker.spawn(flush(self.0.clone(), queue));
        }
        receiver
            .await
            .unwrap_or_else(|_| Err(Error::unknown("the process stops")))
    }
}

/// Activity tasks travel alone: a message is acknowledged as a whole, and a long activity would hold up those that came with it.
fn travels_with_others(item: &Item) -> bool {
    !matches!(item, Item::Task(_))
}

/// Publishes what has gathered for a destination until nothing has.
async fn flush(inner: Arc<Inner>, queue: Queue) {
    loop {
        let batch = inner.gather(&queue);
        if batch.is_empty() {
            return;
        }
        let (items, senders): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
        let results = inner.publish(&queue, items).await;
        for (sender, result) in senders.into_iter().zip(results) {
            // Whoever waited may have been cancelled; the item is published all the same.
            let _ = sender.send(result);
        }
    }
}

impl Inner {
    /// Takes the next bundle's items; forgets the destination if there are none.
    fn gather(&self, queue: &Queue) -> Waiting {
        let mut destinations = self.destinations.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(waiting) = destinations.get_mut(queue) else {
            return Waiting::new();
        };
        // Whoever has given up waiting sends it again, or has left it to others: a queue that takes nothing must not gather it for ever.
        waiting.retain(|(_, sender)| !sender.is_closed());
        let mut bytes = 0;
        let fitting = waiting.iter().take(self.limits.bundle_items).take_while(|(item, _)| {
            // One that fills a message by itself travels alone.
            let is_first = bytes == 0;
            bytes += weight(item);
            is_first || bytes <= self.limits.bundle_bytes
        });
        let count = fitting.count();
        if count == 0 {
            destinations.remove(queue);
            return Waiting::new();
        }
        let rest = waiting.split_off(count);
        std::mem::replace(waiting, rest)
    }

    /// Publishes items in one message. Gives the result of each.
    async fn publish(&self, queue: &Queue, items: Vec<Item>) -> Vec<Result<()>> {
        let bundle = Bundle::new(items);
        match self.publish_bundle(queue, &bundle).await {
            Err(error) if error.is_too_large() => {}
            result => {
                let shared = || result.as_ref().map_err(Error::share).copied();
                return bundle.items.iter().map(|_| shared()).collect();
            }
        }
        let mut results = Vec::with_capacity(bundle.items.len());
        for item in bundle.items {
            results.push(self.publish_alone(queue, item).await);
        }
        results
    }

    async fn publish_alone(&self, queue: &Queue, item: Item) -> Result<()> {
        let bundle = Bundle::new(vec![item]);
        let Err(error) = self.publish_bundle(queue, &bundle).await else {
            return Ok(());
        };
        let stand_in = bundle
            .items
            .into_iter()
            .next()
            .filter(|_| error.is_too_large())
            .and_then(|item| stand_in(queue, item, &error));
        let Some((queue, item)) = stand_in else {
            return Err(error);
        };
        warn!(%queue, %error, "a call fails: its message is too large");
        self.publish_bundle(&queue, &Bundle::new(vec![item])).await
    }

    async fn publish_bundle(&self, queue: &Queue, bundle: &Bundle) -> Result<()> {
        let id = bundle.items.first().map_or_else(MessageId::generate, message_id);
        let body = bundle.encode();
        persist(&**self.backend.clock(), &self.stop, "publish", || {
            self.backend
                .broker()
                .publish(Message::bundle(queue.clone(), body.clone(), &id))
        })
        .await
    }
}

/// What goes out in place of an item that is too large, and where to: the failure of its call.
fn stand_in(queue: &Queue, item: Item, error: &Error) -> Option<(Queue, Item)> {
    let failure = || Failure::new(kinds::PAYLOAD_TOO_LARGE, error.to_string()).fatal();
    match item {
        Item::Task(task) => {
            let queue = Queue::Events(task.caller.instance.app.clone(), task.reply_to);
            let completion = CompletionItem {
                task: task.caller,
                task_execution_id: Some(task.task_execution_id),
                from: task.app,
                outcome: Outcome::Failed(failure()),
                progressed: false,
            };
            Some((queue, Item::Completion(completion)))
        }
        Item::Completion(completion) => {
            let failure = failure().at(&completion.from);
            let completion = CompletionItem {
                outcome: Outcome::Failed(failure),
                ..completion
            };
            Some((queue.clone(), Item::Completion(completion)))
        }
        _ => None,
    }
}

/// Derived where the item has an identity, so that what is published again is the same message.
fn message_id(item: &Item) -> MessageId {
    match item {
        Item::Task(task) => task.message_id(),
        Item::Completion(completion) => completion.task.message_id("completion"),
        Item::Timer(timer) => timer.task.message_id("timer"),
        Item::Event(event) => event.message_id.clone(),
        Item::Start(start) => start.execution.derive("start", 0).into(),
        Item::Command(_) | Item::Wake(_) | Item::Probe(_) => MessageId::generate(),
    }
}

/// Roughly the item's size as bytes: payloads and a constant.
fn weight(item: &Item) -> usize {
    use crate::wire::Outcome;
    const REST: usize = 200;
    REST + match item {
        Item::Task(task) => task.input.len(),
        Item::Event(event) => event.payload.len(),
        Item::Completion(completion) => match &completion.outcome {
            Outcome::Completed(output) => output.len(),
            Outcome::Failed(failure) => failure.bytes(),
        },
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
