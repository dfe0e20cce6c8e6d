//! Publishing: items for one destination go out together.
//!
//! While a message to a destination is unconfirmed, further items for it gather and form the next message; when nothing is in flight an item goes out
//! at once. So bundles grow with the load and nothing is held back when there is none.
//!
//! A queue may take nothing although the broker is there. What a worker sends there is parked, as what is sent to an app that does not exist is: in a
//! due-set, from where it is tried again. So nobody waits for such a queue.

mod items;
mod pace;
mod stuck;
mod told;

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{join, join_all};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use self::items::{stand_in, weight};
use self::pace::{Company, Pace};
use self::stuck::{Confirms, LEFT_ALONE, Stuck, Way};
use self::told::Told;
use super::due::parked_entry;
use super::persist;
use crate::backend::{Backend, DueEntry, Error, Message, Queue, Result, Retryable, When};
use crate::model::{AppId, Limits, Map, MessageId};
use crate::wire::{Bundle, CompletionItem, Item};

/// An item, and who is told what became of it.
type Sent = (Item, Told);

/// See the module. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Outbox(Arc<Inner>);

struct Inner {
    backend: Backend,
    /// The worker's app; a client has none, and parks nothing.
    home: Option<AppId>,
    limits: Arc<Limits>,
    tracker: TaskTracker,
    stop: CancellationToken,
    stuck: Stuck,
    confirms: Confirms,
    pace: Pace,
    /// Destinations with a message in flight, and what gathers behind it.
    destinations: Mutex<Map<Queue, VecDeque<Sent>>>,
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
            stuck: Stuck::default(),
            confirms: Confirms::default(),
            pace: Pace::default(),
            destinations: Mutex::default(),
        }))
    }

    /// Items that wait for a message that is on its way.
    pub(crate) fn waiting(&self) -> usize {
        let destinations = self.0.destinations.lock().unwrap_or_else(PoisonError::into_inner);
        destinations.values().map(VecDeque::len).sum()
    }

    /// Sends an item and returns once the broker has stored it, or it is parked. Repeats until then: receivers drop duplicates. In place of a task or a
    /// completion that is larger than the broker takes its caller gets a failure that says so: only that call fails.
    ///
    /// # Errors
    /// If the broker refuses it for good, or the process stops: the item may or may not have arrived. Transient for a wake or a probe whose queue takes
    /// nothing: they are of no use later.
    pub(crate) async fn send(&self, queue: Queue, item: Item) -> Result<()> {
        match self.way(&queue) {
            Way::Free if self.0.travels_with_others(&item) => {}
            // Boxed, as what is rare is in every future of which there are many at a time: each takes as much room as its largest branch.
            way => return Box::pin(self.send_by(way, queue, item)).await,
        }
        self.hand_over(queue, std::iter::once(item)).await
    }

    /// The same for items of one destination: a wide fan-out has thousands of them. All are sent, whatever becomes of some.
    ///
    /// # Errors
    /// As [`send`](Self::send): the first one that came up.
    pub(crate) async fn send_all(&self, queue: Queue, items: Vec<Item>) -> Result<()> {
        match self.way(&queue) {
            Way::Free => {}
            way => return Box::pin(self.send_all_by(way, queue, items)).await,
        }
        let (together, alone): (Vec<_>, Vec<_>) = items.into_iter().partition(|item| self.0.travels_with_others(item));
        let alone = alone
            .into_iter()
            .map(|item| self.send_by(Way::Free, queue.clone(), item));
        let alone = join_all(alone);
        let together = async {
            match together.is_empty() {
                true => Ok(()),
                false => self.hand_over(queue.clone(), together.into_iter()).await,
            }
        };
        let (alone, together) = join(alone, together).await;
        alone.into_iter().chain([together]).collect()
    }

    /// To a queue that has taken nothing: one of them tries it.
    async fn send_all_by(&self, way: Way, queue: Queue, items: Vec<Item>) -> Result<()> {
        if way == Way::Closed {
            return self.0.park(&queue, items).await.into_iter().collect();
        }
        let mut items = items.into_iter();
        let Some(first) = items.next() else {
            return Ok(());
        };
        let tried = self.send_by(way, queue.clone(), first).await;
        // What it came to decides how the others go.
        let others = self.send_all(queue, items.collect()).await;
        tried.and(others)
    }

    /// Has items go out with what gathers for their destination.
    async fn hand_over(&self, queue: Queue, items: impl ExactSizeIterator<Item = Item>) -> Result<()> {
        let (told, outcome) = Told::of(items.len());
        let is_first = {
            let mut destinations = self.0.destinations.lock().unwrap_or_else(PoisonError::into_inner);
            let is_first = !destinations.contains_key(&queue);
            let waiting = destinations.entry(queue.clone()).or_default();
            waiting.extend(items.map(|item| (item, told.clone())));
            is_first
        };
        // Only items tell: if all are dropped, nobody waits in vain.
        drop(told);
        if is_first {
            self.0.tracker.spawn(flush(self.0.clone(), queue));
        }
        outcome
            .await
            .unwrap_or_else(|_| Err(Error::unknown("the process stops")))
    }

    /// The same; it shares no message.
    pub(crate) async fn send_alone(&self, queue: Queue, item: Item) -> Result<()> {
        self.send_by(self.way(&queue), queue, item).await
    }

    async fn send_by(&self, way: Way, queue: Queue, item: Item) -> Result<()> {
        match way {
            Way::Closed => self.0.park(&queue, vec![item]).await.pop().unwrap_or(Ok(())),
            Way::Free | Way::Tries => self.0.publish_or_park(&queue, item).await,
        }
    }

    /// True if an item may be sent to the queue with [`try_once`](Self::try_once): it is well, or is to be tried again and whoever asks is the one to try.
    pub(crate) fn may_try(&self, queue: &Queue) -> bool {
        self.way(queue) != Way::Closed
    }

    fn way(&self, queue: &Queue) -> Way {
        self.0.stuck.way(queue, self.0.backend.clock().now())
    }

    /// Tries whether the queue takes an item that has an entry in a due-set. False if it does not.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub(crate) async fn try_once(&self, queue: &Queue, item: Item) -> Result<bool> {
        let left = self.0.publish_alone(queue, item).await?;
        Ok(left.is_none())
    }

    /// A result has come: how long did it take?
    pub(crate) fn learn(&self, completion: &CompletionItem) {
        self.0.pace.learn(completion);
    }

    /// True if the queue has taken nothing lately, and is not to be tried now.
    pub(crate) fn leaves_alone(&self, queue: &Queue) -> bool {
        self.0.stuck.is_left_alone(queue, self.0.backend.clock().now())
    }
}

/// What a queue gets to take a message while the broker is well. Less than an instance's check waits before it takes over the effects of a turn: what was
/// made of them is not made again then.
const PATIENCE: Duration = Duration::from_secs(3);
/// So many times that, if nothing tells whether it is the queue or the broker that stands still.
const LONGEST_PATIENCE: u32 = 4;

/// Publishes what has gathered for a destination until nothing has.
async fn flush(inner: Arc<Inner>, queue: Queue) {
    loop {
        let batch = inner.gather(&queue);
        if batch.is_empty() {
            return;
        }
        let (items, told): (Vec<_>, Vec<Told>) = batch.into_iter().unzip();
        let results = inner.publish(&queue, items).await;
        for (told, result) in told.into_iter().zip(results) {
            told.tell(result);
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
    fn travels_with_others(&self, item: &Item) -> bool {
        match item {
            Item::Task(task) => self.pace.company(task) != Company::None,
            _ => true,
        }
    }

    /// How much of a message an item takes: workers share starts and tasks among them by the message, so what takes its time leaves room for fewer.
    fn share(&self, queue: &Queue, item: &Item) -> usize {
        match (queue, item) {
            (Queue::Events(..), _) => 1,
            (_, Item::Task(task)) if self.pace.company(task) == Company::Many => 1,
            _ => Limits::MANY,
        }
    }

    /// Takes the next bundle's items; forgets the destination if there are none. Looks at no others: a wide fan-out has many more of them waiting.
    fn gather(&self, queue: &Queue) -> Vec<Sent> {
        let mut destinations = self.destinations.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(waiting) = destinations.get_mut(queue) else {
            return Vec::new();
        };
        let room = self.limits.bundle_items.saturating_mul(Limits::MANY);
        let (mut batch, mut taken, mut bytes) = (Vec::with_capacity(waiting.len().min(room)), 0, 0);
        while let Some((item, told)) = waiting.pop_front() {
            // Whoever has given up waiting sends it again, or has left it to others: a queue that takes nothing must not gather it for ever.
            if told.is_closed() {
                continue;
            }
            taken += self.share(queue, &item);
            bytes += weight(&item);
            // One that fills a message by itself travels alone.
            if (taken > room || bytes > self.limits.bundle_bytes) && !batch.is_empty() {
                waiting.push_front((item, told));
                break;
            }
            batch.push((item, told));
        }
        if batch.is_empty() {
            destinations.remove(queue);
        }
        batch
    }

    /// Publishes items in one message, or parks them. Gives the result of each.
    async fn publish(&self, queue: &Queue, items: Vec<Item>) -> Vec<Result<()>> {
        if self.stuck.contains(queue) {
            // The message before them has found out.
            return self.park(queue, items).await;
        }
        let bundle = Bundle::new(items);
        match self.publish_bundle(queue, &bundle).await {
            Ok(()) => bundle.items.iter().map(|_| Ok(())).collect(),
            Err(Unpublished::Stuck) => self.park(queue, bundle.items).await,
            Err(Unpublished::Refused(error)) if error.is_too_large() => {
                let mut results = Vec::with_capacity(bundle.items.len());
                for item in bundle.items {
                    results.push(self.publish_or_park(queue, item).await);
                }
                results
            }
            Err(Unpublished::Refused(error)) => bundle.items.iter().map(|_| Err(error.share())).collect(),
        }
    }

    async fn publish_or_park(&self, queue: &Queue, item: Item) -> Result<()> {
        match self.publish_alone(queue, item).await? {
            None => Ok(()),
            Some(item) => self.park(queue, vec![item]).await.pop().unwrap_or(Ok(())),
        }
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
            Err(Unpublished::Stuck) => {
                let parked = self.park(&queue, bundle.items).await.pop();
                parked.unwrap_or(Ok(())).map(|()| None)
            }
            Err(Unpublished::Refused(error)) => Err(error),
        }
    }

    async fn publish_bundle(&self, queue: &Queue, bundle: &Bundle) -> Result<(), Unpublished> {
        let id = bundle.items.first().map_or_else(MessageId::generate, Item::message_id);
        let body = bundle.encode();
        let (broker, clock) = (self.backend.broker(), self.backend.clock());
        let is_refused = &AtomicBool::new(false);
        let mut publishing = std::pin::pin!(persist(&**clock, &self.stop, "publish", || {
            let publishing = broker.publish(Message::bundle(queue.clone(), body.clone(), &id));
            async move {
                let published = publishing.await;
                if let Err(error) = &published {
                    let is_refusal = error.retryable() == Retryable::Transient && broker.readiness().is_ok();
                    is_refused.fetch_or(is_refusal, Ordering::Relaxed);
                }
                published
            }
        }));
        let (mut ticket, mut waits) = (self.confirms.hand_over(queue), 0);
        loop {
            tokio::select! {
                biased;
                published = &mut publishing => {
                    if published.is_ok() {
                        self.confirms.confirm(queue, &ticket);
                        self.stuck.took_a_message(queue);
                    }
                    return published.map_err(Unpublished::Refused);
                }
                () = clock.sleep(PATIENCE), if self.home.is_some() => {
                    let goes_on = self.confirms.goes_on(queue, &mut ticket);
                    // A broker that is away takes nothing at all, and everything when it is back.
                    if broker.readiness().is_err() || self.stop.is_cancelled() {
                        is_refused.store(false, Ordering::Relaxed);
                        waits = 0;
                        continue;
                    }
                    waits += 1;
                    let stands_still = !goes_on && (waits >= LONGEST_PATIENCE || self.confirms.others_go_on(queue, &ticket));
                    if stands_still || is_refused.load(Ordering::Relaxed) {
                        self.stuck.took_nothing(queue, clock.now());
                        return Err(Unpublished::Stuck);
                    }
                }
            }
        }
    }

    /// Has items tried again later: those whose result is `Ok` are in a due-set when this returns. A crash before that leaves whatever they follow from
    /// undone.
    async fn park(&self, queue: &Queue, items: Vec<Item>) -> Vec<Result<()>> {
        let clock = &**self.backend.clock();
        let store = self.backend.store();
        let now = match persist(clock, &self.stop, "time", || store.now()).await {
            Ok(now) => now,
            Err(error) => return items.iter().map(|_| Err(error.share())).collect(),
        };
        let mut results = Vec::with_capacity(items.len());
        let mut entries: BTreeMap<AppId, (Vec<usize>, Vec<DueEntry>)> = BTreeMap::new();
        for (place, item) in items.into_iter().enumerate() {
            debug!(%queue, kind = item.kind(), instance = item.instance().map(tracing::field::display), "parked");
            let is_for_later = !matches!(item, Item::Wake(_) | Item::Probe(_));
            let home = self.home.as_ref().filter(|_| is_for_later);
            match home.and_then(|home| parked_entry(home, queue, item, now, now + LEFT_ALONE)) {
                Some((owner, entry)) => {
                    let (places, owned) = entries.entry(owner).or_default();
                    places.push(place);
                    owned.push(entry);
                    results.push(Ok(()));
                }
                None => results.push(Err(Error::transient(format!("queue {queue} takes no messages")))),
            }
        }
        for (owner, (places, entries)) in entries {
            // Not only where there is none: one that is being tried just now would be removed with what was tried.
            let parked = persist(clock, &self.stop, "schedule", || {
                store.schedule(&owner, &entries, When::Set)
            });
            if let Err(error) = parked.await {
                for place in places {
                    results[place] = Err(error.share());
                }
            }
        }
        results
    }
}

#[cfg(test)]
mod tests;
