//! Whether messages come out of a queue: the one way to know what is not in it, because AMQP cannot peek.
//!
//! A marker is sent through the queue. Whoever receives it says so with its next sign of life; what was in the queue before the marker has come out by
//! then. Then every live worker of the app is waited for until it has told what it has in hand. What was sent before the marker, and is neither told
//! nor found anywhere else, is not there.
//!
//! A worker that gives no sign of life may still have something in hand: it may be cut off from the store alone. So nothing is known of a queue that has
//! more consumers than its app has live workers, or while a worker goes without a farewell.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use crate::backend::{Message, Queue, QueueDepth, WorkerInfo};
use crate::client::{Client, Error};
use crate::model::{AppId, MessageId, Timestamp, WorkerId};
use crate::wire::{Bundle, Item, ProbeItem};

/// Between two looks at the workers' signs of life.
const POLL: Duration = Duration::from_millis(100);
/// By how much two workers' ideas of the store's time may differ.
const SKEW: Duration = Duration::from_millis(250);
/// How often a queue with too many consumers is looked at: one of them may just be going.
const LOOKS: usize = 50;

/// What is known of a queue.
pub(super) enum Passage {
    /// All that was sent to it before has come out; of that, this is in hand.
    Through(HashSet<MessageId>),
    /// Why nothing is known.
    Blocked(String),
}

/// Sends a marker through the queue and waits for it, and for the workers' word.
pub(super) async fn pass(client: &Client, queue: &Queue, app: &AppId, patience: Duration) -> Result<Passage, Error> {
    let (depth, known) = match consumers(client, queue, app).await? {
        Ok(found) => found,
        Err(reason) => return Ok(Passage::Blocked(reason)),
    };
    let marker = match depth {
        None => {
            let broker = client.engine().broker();
            let unrouted = client.ask("depth", || broker.depth(&Queue::Unrouted)).await?;
            let waiting = unrouted.map_or(0, |unrouted| unrouted.messages);
            if waiting > 0 {
                return Ok(Passage::Blocked(format!(
                    "it does not exist, and {waiting} messages wait to be told so: no worker is up that could"
                )));
            }
            None
        }
        // Nobody takes from it, and there is nothing to take.
        Some(depth) if depth.consumers == 0 && depth.messages == 0 => None,
        Some(depth) if depth.consumers == 0 => {
            return Ok(Passage::Blocked(format!(
                "{} messages wait for the app, which is away",
                depth.messages
            )));
        }
        Some(_) => match send(client, queue, patience).await {
            Ok(marker) => Some(marker),
            Err(problem) => return Ok(Passage::Blocked(format!("it takes no marker: {problem}"))),
        },
    };
    let deadline = client.clock().now() + patience;
    let came_out = loop {
        let workers = client.ask("workers", || client.store().workers(app)).await?;
        let Some(marker) = &marker else {
            break client.ask("time", || client.store().now()).await?;
        };
        if let Some(at) = seen(&workers, marker) {
            break at;
        }
        if client.clock().now() > deadline {
            let waiting = depth.map_or(0, |depth| depth.messages);
            return Ok(Passage::Blocked(format!(
                "a marker has not come out of it within {patience:?} ({waiting} messages were before it): its workers are busy, or stand still"
            )));
        }
        client.clock().sleep(POLL).await;
    };
    told(client, app, known, came_out, deadline).await
}

/// The queue's depth, and the app's live workers; or that somebody consumes who is none of them.
async fn consumers(
    client: &Client,
    queue: &Queue,
    app: &AppId,
) -> Result<Result<(Option<QueueDepth>, Vec<WorkerInfo>), String>, Error> {
    let broker = client.engine().broker();
    let mut looks = 0;
    loop {
        let depth = client.ask("depth", || broker.depth(queue)).await?;
        // In this order: a worker gives a sign of life before it consumes.
        let workers = client.ask("workers", || client.store().workers(app)).await?;
        let consumers = depth.map_or(0, |depth| depth.consumers);
        if consumers <= workers.len() as u64 {
            return Ok(Ok((depth, workers)));
        }
        looks += 1;
        if looks == LOOKS {
            return Ok(Err(format!(
                "{consumers} workers consume it, and only {} give a sign of life: what the others have in hand is not known",
                workers.len()
            )));
        }
        client.clock().sleep(POLL).await;
    }
}

/// Sends a marker, in one try: a queue that an operator's policy keeps full takes none, however often it is asked.
async fn send(client: &Client, queue: &Queue, patience: Duration) -> Result<MessageId, String> {
    let marker = MessageId::generate();
    let item = Item::Probe(ProbeItem {
        worker: WorkerId::generate(),
        marker: Some(marker.clone()),
    });
    let message = Message::bundle(queue.clone(), Bundle::new(vec![item]).encode(), &marker);
    let patience = patience.min(client.patience());
    tokio::select! {
        biased;
        sent = client.engine().broker().publish(message) => sent.map_err(|error| error.to_string())?,
        () = client.clock().sleep(patience) => return Err(format!("the broker has not stored it within {patience:?}")),
    }
    Ok(marker)
}

fn seen(workers: &[WorkerInfo], marker: &MessageId) -> Option<Timestamp> {
    let has_it = |worker: &&WorkerInfo| {
        let holds = worker.holds.as_ref();
        holds.is_some_and(|holds| holds.markers.contains(marker))
    };
    workers.iter().find(has_it).map(|worker| worker.beat_at)
}

/// What the app's workers have in hand of what they had at that time, once all have said so.
async fn told(
    client: &Client,
    app: &AppId,
    known: Vec<WorkerInfo>,
    since: Timestamp,
    deadline: Timestamp,
) -> Result<Passage, Error> {
    let mut known: BTreeMap<WorkerId, bool> = known.iter().map(|worker| (worker.id, worker.is_draining)).collect();
    loop {
        let workers = client.ask("workers", || client.store().workers(app)).await?;
        let is_live = |id: &WorkerId| workers.iter().any(|worker| worker.id == *id);
        // One that stops in order has handed back what it had.
        if let Some((gone, _)) = known.iter().find(|(id, is_draining)| !**is_draining && !is_live(id)) {
            return Ok(Passage::Blocked(format!(
                "worker {gone} gives no sign of life any more: what it has in hand is not known"
            )));
        }
        known.extend(workers.iter().map(|worker| (worker.id, worker.is_draining)));
        let mut in_hand = HashSet::new();
        let mut all_told = true;
        for worker in workers {
            let Some(holds) = worker.holds else {
                return Ok(Passage::Blocked(format!(
                    "worker {} is of a release that does not tell what it has in hand",
                    worker.id
                )));
            };
            let least = Duration::from_millis(holds.for_millis) + SKEW;
            all_told &= worker.beat_at.since(since) >= least;
            if all_told && holds.more > 0 {
                return Ok(Passage::Blocked(format!(
                    "worker {} has {} items more in hand than it tells of",
                    worker.id, holds.more
                )));
            }
            in_hand.extend(holds.items);
        }
        if all_told {
            return Ok(Passage::Through(in_hand));
        }
        if client.clock().now() > deadline + SKEW {
            return Ok(Passage::Blocked(
                "a worker of its app has given no sign of life since the marker".into(),
            ));
        }
        client.clock().sleep(POLL).await;
    }
}
