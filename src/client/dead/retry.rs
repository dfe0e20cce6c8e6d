//! Sending a letter again, if anybody waits for what is in it.

use std::fmt;

use serde::Serialize;

use super::DeadLetter;
use super::letter::Found;
use crate::backend::{Message, Queue};
use crate::client::{Client, Error};
use crate::model::InstanceRef;
use crate::wire::{Item, RawStart};

/// What became of a letter that was to be retried.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RetriedLetter {
    /// The letter.
    pub letter: DeadLetter,
    /// What became of it.
    pub outcome: Retried,
}

/// See [`RetriedLetter`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Retried {
    /// It is in these queues again, and no letter any more. If it cannot be processed this time either, it comes back as another letter.
    Sent(Vec<String>),
    /// Nobody waits for it any more, as the text says. It is left where it is: drop it.
    Settled(String),
    /// It cannot be sent, as the text says. It is left where it is.
    Impossible(String),
}

impl fmt::Display for Retried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Retried::Sent(queues) => write!(f, "sent to {}", queues.join(" and ")),
            Retried::Settled(why) => write!(f, "settled: {why}; drop it"),
            Retried::Impossible(why) => write!(f, "not sent: {why}"),
        }
    }
}

/// Why nobody waits for what is in the letter, if that is known.
pub(super) async fn settled(client: &Client, found: &Found) -> Result<Option<String>, Error> {
    if found.letter.kind == "raw start" {
        return started_already(client, found).await;
    }
    let mut reasons = Vec::new();
    for item in &found.items {
        match client.reach(client.engine().settled(item)).await? {
            Some(reason) => reasons.push(reason),
            None => return Ok(None),
        }
    }
    reasons.dedup();
    Ok((!reasons.is_empty()).then(|| reasons.join("; ")))
}

async fn started_already(client: &Client, found: &Found) -> Result<Option<String>, Error> {
    let (kind, id) = (&found.properties.content_type, &found.properties.message_id);
    let Ok((_, id, request)) = RawStart::decode(&found.body, kind.as_deref(), id.as_deref()) else {
        return Ok(None);
    };
    let instance = InstanceRef::new(found.home().clone(), id);
    let record = client.record(&instance).await?;
    let ours = record.filter(|record| record.origin.request == request);
    Ok(ours.map(|record| format!("it has started {instance}, which is {}", record.status)))
}

pub(super) async fn send(client: &Client, found: &Found) -> Result<Retried, Error> {
    if let Some(why) = settled(client, found).await? {
        return Ok(Retried::Settled(why));
    }
    if let Some(origin) = found.origin() {
        let message = Message {
            queue: origin.clone(),
            body: found.body.clone(),
            properties: found.former_properties(),
        };
        let broker = client.engine().broker();
        client.ask("publish", || broker.publish(message.clone())).await?;
        return Ok(Retried::Sent(vec![origin.local_name()]));
    }
    if found.items.is_empty() {
        return Ok(Retried::Impossible(format!(
            "it came from {:?}, which is no queue that it could go back to",
            found.letter.origin
        )));
    }
    // It was in the wrong place, or nobody knows in which: each of its items goes to where it belongs.
    let mut queues = Vec::new();
    for item in &found.items {
        let Some(queue) = home_of(client, item).await? else {
            continue;
        };
        client
            .reach(client.engine().outbox.send(queue.clone(), item.clone()))
            .await?;
        queues.push(queue.local_name());
    }
    queues.dedup();
    Ok(Retried::Sent(queues))
}

/// The queue that the item belongs into.
async fn home_of(client: &Client, item: &Item) -> Result<Option<Queue>, Error> {
    Ok(match item {
        Item::Start(start) => Some(Queue::Workflows(start.instance.app.clone())),
        Item::Task(task) => Some(Queue::Activities(task.app.clone())),
        item => match item.instance() {
            None => None,
            Some(instance) => {
                let record = client.record(instance).await?;
                let lane = record.and_then(|record| record.lane).unwrap_or_default();
                Some(Queue::Events(instance.app.clone(), lane))
            }
        },
    })
}
