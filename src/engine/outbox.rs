//! Publishing: items for one destination go out together.
//!
//! While a message to a destination is unconfirmed, further items for it gather and form the next message; when nothing is in flight an item goes out
//! at once. So bundles grow with the load and nothing is held back when there is none.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::persist;
use crate::backend::{Backend, Error, Message, Queue, Result};
use crate::model::{Limits, MessageId};
use crate::wire::{Bundle, Item};

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

    /// Sends an item and returns once the broker has stored it. Repeats until it has: receivers drop duplicates.
    ///
    /// # Errors
    /// If the broker refuses it for good, or the process stops: the item may or may not have arrived.
    pub(crate) async fn send(&self, queue: Queue, item: Item) -> Result<()> {
        if !travels_with_others(&item) {
            return self.0.publish(&queue, vec![item]).await;
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
        let result = inner.publish(&queue, items).await;
        for sender in senders {
            let answer = match &result {
                Ok(()) => Ok(()),
                Err(error) if error.is_permanent() => Err(Error::permanent(error.to_string())),
                Err(error) => Err(Error::unknown(error.to_string())),
            };
            // Whoever waited may have been cancelled; the item is published all the same.
            let _ = sender.send(answer);
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
        let mut bytes = 0;
        let fitting = waiting.iter().take(self.limits.bundle_items).take_while(|(item, _)| {
            let fits = bytes < self.limits.bundle_bytes;
            bytes += weight(item);
            fits
        });
        let count = fitting.count();
        if count == 0 {
            destinations.remove(queue);
            return Waiting::new();
        }
        let rest = waiting.split_off(count);
        std::mem::replace(waiting, rest)
    }

    async fn publish(&self, queue: &Queue, items: Vec<Item>) -> Result<()> {
        let id = items.first().map_or_else(MessageId::generate, message_id);
        let body = Bundle::new(items).encode();
        persist(&**self.backend.clock(), &self.stop, "publish", || {
            self.backend
                .broker()
                .publish(Message::bundle(queue.clone(), body.clone(), &id))
        })
        .await
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
            Outcome::Failed(failure) => {
                failure.message.len() + failure.details.as_ref().map_or(0, |details| details.len())
            }
        },
        _ => 0,
    }
}
