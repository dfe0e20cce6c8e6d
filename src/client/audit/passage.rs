//! Whether messages come out of a queue: the one way to know what is not in it, because AMQP cannot peek.
//!
//! A marker is sent through the queue. Whoever receives it says so with its next sign of life; what was in the queue before the marker has come out by
//! then. Then every live worker of the app is waited for until it has told what it has in hand. What was sent before the marker, and is neither told
//! nor found anywhere else, is not there.

use std::collections::HashSet;
use std::time::Duration;

use crate::backend::{Queue, WorkerInfo};
use crate::client::{Client, Error};
use crate::model::{AppId, MessageId, Timestamp, WorkerId};
use crate::wire::{Item, ProbeItem};

/// Between two looks at the workers' signs of life.
const POLL: Duration = Duration::from_millis(100);
/// By how much two workers' ideas of the store's time may differ.
const SKEW: Duration = Duration::from_millis(250);

/// What is known of a queue.
pub(super) enum Passage {
    /// All that was sent to it before has come out; of that, this is in hand.
    Through(HashSet<MessageId>),
    /// Why nothing is known.
    Blocked(String),
}

/// Sends a marker through the queue and waits for it, and for the workers' word.
pub(super) async fn pass(client: &Client, queue: &Queue, app: &AppId, patience: Duration) -> Result<Passage, Error> {
    let broker = client.engine().broker();
    let depth = client.ask("depth", || broker.depth(queue)).await?;
    let marker = match depth {
        None => {
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
        Some(_) => Some(send(client, queue).await?),
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
    told(client, app, came_out, deadline).await
}

async fn send(client: &Client, queue: &Queue) -> Result<MessageId, Error> {
    let marker = MessageId::generate();
    let item = Item::Probe(ProbeItem {
        worker: WorkerId::generate(),
        marker: Some(marker.clone()),
    });
    client.reach(client.engine().outbox.send(queue.clone(), item)).await?;
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
async fn told(client: &Client, app: &AppId, since: Timestamp, deadline: Timestamp) -> Result<Passage, Error> {
    loop {
        let workers = client.ask("workers", || client.store().workers(app)).await?;
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
