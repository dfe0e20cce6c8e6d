//! Publishing: items for one destination go out together.
//!
//! While a message to a destination is unconfirmed, further items for it gather and form the next message; when nothing is in flight an item goes out
//! at once. So bundles grow with the load and nothing is held back when there is none.
//!
//! A queue may take nothing although the broker is there: it has lost its majority, or is full and rejects. What a worker sends there is parked, as what is
//! sent to an app that does not exist is: in the due-set of its own app, from where it is tried again. So nobody waits for such a queue, and until it takes
//! something it is tried with one message at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::due::parked_entry;
use super::persist;
use crate::backend::{Backend, Error, Message, Queue, Result, When};
use crate::model::{AppId, Failure, Limits, MessageId, Timestamp, kinds};
use crate::wire::{Bundle, CompletionItem, Item, Outcome};

type Waiting = Vec<(Item, oneshot::Sender<Result<()>>)>;

/// See the module. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Outbox(Arc<Inner>);

struct Inner {
    backend: Backend,
    /// The worker's app, in whose due-set items wait; a client has none, and waits itself.
    home: Option<AppId>,
    limits: Arc<Limits>,
    tracker: TaskTracker,
    stop: CancellationToken,
    /// Queues that took nothing when they were last tried, and when they are tried again.
    stuck: Mutex<HashMap<Queue, Timestamp>>,
    /// Destinations with a message in flight, and what gathers behind it.
    destinations: Mutex<HashMap<Queue, Waiting>>,
}

impl Outbox {
    pub(super) fn new(
        backend: Backend,
        home: Option<AppId>,
        limits: Arc<Limits>,
        tracker: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        Self(Arc::new(Inner {
            backend,
            home,
            limits,
            tracker,
            stop,
            stuck: Mutex::default(),
            destinations: Mutex::default(),
        }))
    }

    /// Items that wait for a message that is on its way.
    pub(crate) fn waiting(&self) -> usize {
        let destinations = self.0.destinations.lock().unwrap_or_else(PoisonError::into_inner);
        destinations.values().map(Vec::len).sum()
    }

    /// Sends an item and returns once the broker has stored it, or it is parked. Repeats until then: receivers drop duplicates. In place of a task or a
    /// completion that is larger than the broker takes its caller gets a failure that says so: only that call fails.
    ///
    /// # Errors
    /// If the broker refuses it for good, or the process stops; transient if its queue takes nothing and the item has an entry in the due-set already (a
    /// timer), or is of no use later (a wake, a probe). The item may or may not have arrived.
    pub(crate) async fn send(&self, queue: Queue, item: Item) -> Result<()> {
        if !travels_with_others(&item) {
            return match self.0.publish_alone(&queue, item).await? {
                None => Ok(()),
                Some(item) => self.0.park(&queue, item).await,
            };
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

    /// Tries whether the queue takes a parked item now. False if it does not.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub(crate) async fn try_again(&self, queue: &Queue, item: Item) -> Result<bool> {
        let left = self.0.publish_alone(queue, item).await?;
        Ok(left.is_none())
    }
}

/// What a queue gets to take a message while the broker is well.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long it is left alone when it took none. What is parked is first tried again after as long.
const LEFT_ALONE: Duration = Duration::from_secs(1);

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

/// Why a message is not in its queue.
enum Unpublished {
    /// It was refused for good, or the process stops.
    Refused(Error),
    /// The queue takes nothing.
    Stuck,
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

    /// Publishes items in one message, or parks them. Gives the result of each.
    async fn publish(&self, queue: &Queue, items: Vec<Item>) -> Vec<Result<()>> {
        let bundle = Bundle::new(items);
        let mut results = Vec::with_capacity(bundle.items.len());
        match self.publish_bundle(queue, &bundle).await {
            Ok(()) => results.extend(bundle.items.iter().map(|_| Ok(()))),
            Err(Unpublished::Stuck) => {
                for item in bundle.items {
                    results.push(self.park(queue, item).await);
                }
            }
            Err(Unpublished::Refused(error)) if error.is_too_large() => {
                for item in bundle.items {
                    results.push(match self.publish_alone(queue, item).await {
                        Ok(None) => Ok(()),
                        Ok(Some(item)) => self.park(queue, item).await,
                        Err(error) => Err(error),
                    });
                }
            }
            Err(Unpublished::Refused(error)) => results.extend(bundle.items.iter().map(|_| Err(error.share()))),
        }
        results
    }

    /// Publishes one item, or what stands in for it. Gives it back if the queue takes nothing.
    async fn publish_alone(&self, queue: &Queue, item: Item) -> Result<Option<Item>> {
        let mut bundle = Bundle::new(vec![item]);
        let refused = match self.publish_bundle(queue, &bundle).await {
            Ok(()) => return Ok(None),
            Err(Unpublished::Stuck) => return Ok(bundle.items.pop()),
            Err(Unpublished::Refused(error)) => error,
        };
        let item = bundle.items.pop().filter(|_| refused.is_too_large());
        let Some((queue, stand_in)) = item.and_then(|item| stand_in(queue, item, &refused)) else {
            return Err(refused);
        };
        warn!(%queue, error = %refused, "a call fails: its message is too large");
        bundle.items.push(stand_in);
        match self.publish_bundle(&queue, &bundle).await {
            Ok(()) => Ok(None),
            Err(Unpublished::Stuck) => match bundle.items.pop() {
                Some(stand_in) => self.park(&queue, stand_in).await.map(|()| None),
                None => Ok(None),
            },
            Err(Unpublished::Refused(error)) => Err(error),
        }
    }

    async fn publish_bundle(&self, queue: &Queue, bundle: &Bundle) -> Result<(), Unpublished> {
        if self.is_left_alone(queue) {
            return Err(Unpublished::Stuck);
        }
        let id = bundle.items.first().map_or_else(MessageId::generate, Item::message_id);
        let body = bundle.encode();
        let (broker, clock) = (self.backend.broker(), self.backend.clock());
        let mut publishing = std::pin::pin!(persist(&**clock, &self.stop, "publish", || {
            broker.publish(Message::bundle(queue.clone(), body.clone(), &id))
        }));
        loop {
            tokio::select! {
                biased;
                published = &mut publishing => {
                    self.stuck().remove(queue);
                    return published.map_err(Unpublished::Refused);
                }
                () = clock.sleep(PATIENCE), if self.home.is_some() => {
                    // A broker that is away takes nothing at all, and everything when it is back.
                    if broker.readiness().is_ok() && !self.stop.is_cancelled() {
                        self.stuck().insert(queue.clone(), clock.now() + LEFT_ALONE);
                        return Err(Unpublished::Stuck);
                    }
                }
            }
        }
    }

    /// True if the queue took nothing when it was last tried, and whoever asks is not the next to try.
    fn is_left_alone(&self, queue: &Queue) -> bool {
        let now = self.backend.clock().now();
        match self.stuck().get_mut(queue) {
            Some(at) if now < *at => true,
            Some(at) => {
                *at = now + PATIENCE;
                false
            }
            None => false,
        }
    }

    fn stuck(&self) -> MutexGuard<'_, HashMap<Queue, Timestamp>> {
        self.stuck.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the item tried again later: it is in the due-set when this returns. A crash before that leaves whatever the item follows from undone.
    async fn park(&self, queue: &Queue, item: Item) -> Result<()> {
        let is_for_later = matches!(
            item,
            Item::Task(_) | Item::Completion(_) | Item::Event(_) | Item::Start(_) | Item::Command(_)
        );
        let Some(home) = self.home.as_ref().filter(|_| is_for_later) else {
            return Err(Error::transient(format!("queue {queue} takes no messages")));
        };
        let (store, clock) = (self.backend.store(), self.backend.clock());
        let now = persist(&**clock, &self.stop, "time", || store.now()).await?;
        warn!(%queue, kind = item.kind(), instance = item.instance().map(tracing::field::display), "queue takes no messages, although the broker is there; what is sent to it waits and is tried again");
        let Some(entry) = parked_entry(queue, item, now, now + LEFT_ALONE) else {
            return Err(Error::transient(format!("queue {queue} takes no messages")));
        };
        persist(&**clock, &self.stop, "schedule", || {
            store.schedule(home, std::slice::from_ref(&entry), When::Absent)
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
