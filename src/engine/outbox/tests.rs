//! What shares a message, seen at a broker that is slow to confirm.

mod stuck;

use std::sync::{Arc, Mutex};

use futures_util::future::join_all;
use futures_util::poll;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::*;
use crate::backend::{Broker, Browse, Clock, Consumer, DueKind, QueueDepth};
use crate::model::{AppId, InstanceRef, Namespace, Payload, Timestamp};
use crate::wire::{CompletionItem, Outcome, Ran, TaskItem, TaskRef};

/// Stores a message when it is let through.
#[derive(Clone)]
struct Slow {
    stored: Arc<Mutex<Vec<(Queue, Bundle)>>>,
    permits: Arc<Semaphore>,
    /// The queue of each message that came, taken or not.
    tries: Arc<Mutex<Vec<Queue>>>,
    /// A queue that takes nothing; true if it refuses.
    stuck: Arc<Mutex<Option<(Queue, bool)>>>,
    /// Bytes of the largest message that it takes, if it minds.
    largest: Arc<Mutex<Option<usize>>>,
}

/// Virtual time, as tokio's.
struct PausedClock(tokio::time::Instant);

#[async_trait::async_trait]
impl Clock for PausedClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_000_000) + self.0.elapsed()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

impl Slow {
    /// A broker that lets no message through for now, and a client's outbox on it.
    fn with_outbox(limits: Limits) -> (Self, Outbox) {
        Self::with_outbox_of(None, limits)
    }

    fn with_outbox_of(home: Option<AppId>, limits: Limits) -> (Self, Outbox) {
        let slow = Self {
            stored: Arc::default(),
            permits: Arc::new(Semaphore::new(0)),
            tries: Arc::default(),
            stuck: Arc::default(),
            largest: Arc::default(),
        };
        let namespace = Namespace::new("n").unwrap();
        let memory = Backend::memory(namespace.clone());
        let store = memory.store().clone();
        let clock = Arc::new(PausedClock(tokio::time::Instant::now()));
        let backend = Backend::new(namespace, Arc::new(slow.clone()), store, clock, "slow");
        let outbox = Outbox::new(
            backend,
            home,
            Arc::new(limits),
            TaskTracker::new(),
            CancellationToken::new(),
        );
        (slow, outbox)
    }

    fn let_all_through(&self) {
        self.permits.add_permits(Semaphore::MAX_PERMITS / 2);
    }

    fn hold_all(&self) {
        self.permits.forget_permits(Semaphore::MAX_PERMITS);
    }

    fn tries_of(&self, app: &str) -> usize {
        let tries = self.tries.lock().unwrap();
        tries.iter().filter(|queue| **queue == lane(app)).count()
    }

    /// How many items each message has brought, by its queue's app.
    fn items(&self) -> Vec<(String, usize)> {
        let stored = self.stored.lock().unwrap();
        let app = |queue: &Queue| queue.app().unwrap().to_string();
        stored
            .iter()
            .map(|(queue, bundle)| (app(queue), bundle.items.len()))
            .collect()
    }
}

#[async_trait::async_trait]
impl Broker for Slow {
    async fn publish(&self, message: Message) -> Result<()> {
        self.tries.lock().unwrap().push(message.queue.clone());
        let stuck = self.stuck.lock().unwrap().clone();
        match stuck.filter(|(queue, _)| *queue == message.queue) {
            Some((_, true)) => return Err(Error::transient("the queue is full")),
            Some((_, false)) => std::future::pending().await,
            None => {}
        }
        if self
            .largest
            .lock()
            .unwrap()
            .is_some_and(|largest| message.body.len() > largest)
        {
            return Err(Error::too_large("the message is too large"));
        }
        self.permits.acquire().await.unwrap().forget();
        let bundle = Bundle::decode(&message.body).unwrap();
        self.stored.lock().unwrap().push((message.queue, bundle));
        Ok(())
    }

    async fn declare(&self, _: &AppId, _: u16) -> Result<()> {
        unreachable!("an outbox only publishes")
    }

    async fn consume(&self, _: &Queue, _: u16) -> Result<Box<dyn Consumer>> {
        unreachable!("an outbox only publishes")
    }

    async fn browse(&self, _: &Queue) -> Result<Box<dyn Browse>> {
        unreachable!("an outbox only publishes")
    }

    async fn depth(&self, _: &Queue) -> Result<Option<QueueDepth>> {
        unreachable!("an outbox only publishes")
    }

    async fn remove(&self, _: &AppId, _: u16) -> Result<()> {
        unreachable!("an outbox only publishes")
    }

    fn readiness(&self) -> std::result::Result<(), String> {
        Ok(())
    }
}

/// Items that wait in the due-set of `orders`.
async fn parked(outbox: &Outbox) -> Vec<crate::engine::ParkedEntry> {
    let store = outbox.0.backend.store();
    let entries = store
        .due_entries(&AppId::new("orders").unwrap(), DueKind::Parked, 100)
        .await
        .unwrap();
    let items = entries
        .iter()
        .map(|entry| crate::engine::decode(&entry.payload).unwrap());
    items.collect()
}

fn lane(app: &str) -> Queue {
    Queue::Events(AppId::new(app).unwrap(), 0)
}

fn task_ref(sequence: u64) -> TaskRef {
    let instance: InstanceRef = serde_json::from_str(r#"{"app": "orders", "id": "one"}"#).unwrap();
    TaskRef {
        instance,
        execution: "00000000000000000000000000000001".parse().unwrap(),
        sequence,
    }
}

/// An answer whose payload has so many bytes.
pub(super) fn answer(sequence: u64, bytes: usize) -> Item {
    Item::Completion(CompletionItem {
        task: task_ref(sequence),
        task_execution_id: None,
        from: AppId::new("payments").unwrap(),
        outcome: Outcome::Completed(Payload::encode(&"x".repeat(bytes)).unwrap()),
        progressed: false,
        ran: None,
    })
}

pub(super) fn task(sequence: u64) -> Item {
    let task: TaskItem = serde_json::from_value(serde_json::json!({
        "caller": task_ref(sequence),
        "reply_to": 0,
        "app": "payments",
        "name": "work",
        "task_execution_id": uuid::Uuid::new_v4(),
        "attempt": 1,
        "input": null,
        "scheduled_at": 0,
    }))
    .unwrap();
    Item::Task(task)
}

/// An event whose payload has so many bytes: nothing stands in for one that is too large.
fn event(bytes: usize) -> Item {
    Item::Event(crate::wire::EventItem {
        instance: task_ref(0).instance,
        name: "closed".to_owned(),
        payload: Payload::encode(&"x".repeat(bytes)).unwrap(),
        message_id: MessageId::generate(),
    })
}

/// Sends what is given, one after the other, to a broker that lets nothing through until all of it was handed over.
async fn send_all(slow: &Slow, outbox: &Outbox, items: Vec<(Queue, Item)>) {
    let mut sent = Box::pin(join_all(
        items.into_iter().map(|(queue, item)| outbox.send(queue, item)),
    ));
    assert!(poll!(&mut sent).is_pending());
    assert!(slow.items().is_empty());
    slow.let_all_through();
    for result in sent.await {
        result.unwrap();
    }
}

fn limits(bundle_items: usize, bundle_bytes: usize) -> Limits {
    Limits {
        bundle_items,
        bundle_bytes,
        ..Limits::default()
    }
}

#[tokio::test]
async fn an_item_that_nothing_is_in_flight_before_goes_out_at_once() {
    let (slow, outbox) = Slow::with_outbox(Limits::default());
    slow.let_all_through();
    for sequence in 0..3 {
        outbox.send(lane("orders"), answer(sequence, 1)).await.unwrap();
    }
    assert_eq!(slow.items(), vec![("orders".to_owned(), 1); 3]);
}

#[tokio::test]
async fn items_that_wait_for_one_destination_share_a_message_in_their_order() {
    let (slow, outbox) = Slow::with_outbox(Limits::default());
    let items = (0..10).map(|sequence| {
        let app = if sequence % 5 == 4 { "billing" } else { "orders" };
        (lane(app), answer(sequence, 1))
    });
    send_all(&slow, &outbox, items.collect()).await;
    let mut messages = slow.items();
    messages.sort();
    assert_eq!(messages, [("billing".to_owned(), 2), ("orders".to_owned(), 8)]);
    for (queue, bundle) in slow.stored.lock().unwrap().iter() {
        let sequences: Vec<u64> = bundle
            .items
            .iter()
            .map(|item| match item {
                Item::Completion(completion) => completion.task.sequence,
                other => panic!("{other:?}"),
            })
            .collect();
        let expected: &[u64] = match queue.app().unwrap().as_str() {
            "billing" => &[4, 9],
            _ => &[0, 1, 2, 3, 5, 6, 7, 8],
        };
        assert_eq!(sequences, expected);
    }
}

#[tokio::test]
async fn a_message_takes_no_more_items_than_the_limit() {
    let (slow, outbox) = Slow::with_outbox(limits(4, usize::MAX));
    let counts = || -> Vec<usize> { slow.items().into_iter().map(|(_, items)| items).collect() };
    let starts = Queue::Workflows(AppId::new("orders").unwrap());
    let items = (0..10).map(|sequence| (starts.clone(), answer(sequence, 1)));
    send_all(&slow, &outbox, items.collect()).await;
    assert_eq!(counts(), [4, 4, 2]);
    slow.hold_all();
    slow.stored.lock().unwrap().clear();
    // A lane has one reader: nobody could have taken the others.
    let items = (0..50).map(|sequence| (lane("orders"), answer(sequence, 1)));
    send_all(&slow, &outbox, items.collect()).await;
    assert_eq!(counts(), [32, 18]);
}

#[tokio::test]
async fn items_that_are_sent_together_are_all_sent_whatever_becomes_of_one() {
    let (slow, outbox) = Slow::with_outbox(limits(4, 10_000));
    *slow.largest.lock().unwrap() = Some(50_000);
    slow.let_all_through();
    let items = [1, 60_000, 1].map(event).to_vec();
    let sent = outbox.send_all(lane("orders"), items).await;
    assert!(sent.unwrap_err().is_too_large());
    assert_eq!(slow.items().iter().map(|(_, items)| items).sum::<usize>(), 2);
}

#[tokio::test]
async fn a_message_takes_no_item_that_would_bring_it_past_its_bytes() {
    let (slow, outbox) = Slow::with_outbox(limits(128, 10_000));
    // Two of 4,000 bytes fit and a third does not; one of 50,000 travels all the same, and takes nobody along.
    let sizes = [4_000, 4_000, 4_000, 50_000, 1, 1, 1];
    let items = (0..).zip(sizes);
    let items = items.map(|(sequence, bytes)| (lane("orders"), answer(sequence, bytes)));
    send_all(&slow, &outbox, items.collect()).await;
    let counts: Vec<usize> = slow.items().into_iter().map(|(_, items)| items).collect();
    assert_eq!(counts, [2, 1, 1, 3]);
}

#[tokio::test]
async fn tasks_travel_alone_until_their_activity_is_known_to_be_short() {
    let (slow, outbox) = Slow::with_outbox(Limits::default());
    let queue = Queue::Activities(AppId::new("payments").unwrap());
    let items = || (0..5).map(|sequence| (queue.clone(), task(sequence))).collect();
    send_all(&slow, &outbox, items()).await;
    assert_eq!(slow.items(), vec![("payments".to_owned(), 1); 5]);
    learn(&outbox, 1);
    slow.hold_all();
    slow.stored.lock().unwrap().clear();
    send_all(&slow, &outbox, items()).await;
    assert_eq!(slow.items(), [("payments".to_owned(), 5)]);
}

#[tokio::test]
async fn more_tasks_share_a_message_if_their_activity_is_known_to_be_over_at_once() {
    let (slow, outbox) = Slow::with_outbox(limits(4, usize::MAX));
    let queue = Queue::Activities(AppId::new("payments").unwrap());
    for (millis, expected) in [(1, vec![4, 4, 4, 4, 4, 4, 4, 4, 4, 4]), (0, vec![32, 8])] {
        learn(&outbox, millis);
        let items = (0..40).map(|sequence| (queue.clone(), task(sequence)));
        send_all(&slow, &outbox, items.collect()).await;
        let counts: Vec<usize> = slow.items().into_iter().map(|(_, items)| items).collect();
        assert_eq!(counts, expected);
        slow.hold_all();
        slow.stored.lock().unwrap().clear();
    }
}

/// Three results of `work` that have taken so long.
fn learn(outbox: &Outbox, millis: u64) {
    for _ in 0..3 {
        let Item::Completion(mut completion) = answer(0, 1) else {
            panic!("it is one")
        };
        completion.ran = Some(Ran {
            activity: "work".into(),
            millis,
        });
        outbox.learn(&completion);
    }
}
