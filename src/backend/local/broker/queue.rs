//! A queue as it is stored: messages by position, and one small state.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::super::key::{Key, KeyRange, Table, leading_number};
use super::super::kv::{Snapshot, Transaction, decode, get_as};
use crate::backend::{Properties, Queue, Result};
use crate::model::{AppId, Lane, Namespace};

/// What is stored of a queue beside its messages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// True while the queue exists.
    pub(super) declared: bool,
    /// The position of the next message. Never goes back, not even when the queue is removed: a position names one message for ever.
    pub(super) tail: u64,
    /// Messages before this position went with a removed queue.
    pub(super) floor: u64,
    /// Messages stored.
    pub(super) count: u64,
    /// Messages from this position on have certainly not been delivered by any process.
    pub(super) delivered: u64,
}

/// A message as it is stored.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Stored {
    /// Where it was published to.
    #[serde(with = "QueueForm")]
    pub(super) to: Queue,
    pub(super) body: Bytes,
    pub(super) content_type: Option<String>,
    pub(super) message_id: Option<String>,
    pub(super) headers: Vec<(String, String)>,
}

/// The stored form of [`Queue`].
#[derive(Serialize, Deserialize)]
#[serde(remote = "Queue")]
enum QueueForm {
    Workflows(AppId),
    Activities(AppId),
    Events(AppId, Lane),
    Unrouted,
    Dead(AppId),
}

impl Stored {
    pub(super) fn properties(&mut self) -> Properties {
        Properties {
            content_type: self.content_type.take(),
            message_id: self.message_id.take(),
            headers: std::mem::take(&mut self.headers),
        }
    }
}

/// The queue's state; `None` if it does not exist. The unrouted queue always does.
pub(super) fn state(from: &dyn Snapshot, namespace: &Namespace, queue: &Queue) -> Result<Option<State>> {
    let state = stored_state(from, namespace, queue)?;
    Ok((state.declared || *queue == Queue::Unrouted).then_some(state))
}

fn stored_state(from: &dyn Snapshot, namespace: &Namespace, queue: &Queue) -> Result<State> {
    Ok(get_as(from, &state_key(namespace, queue))?.unwrap_or_default())
}

/// Makes the queue exist.
pub(super) fn declare(to: &mut Transaction<'_>, namespace: &Namespace, queue: &Queue) -> Result<()> {
    let mut state = stored_state(to, namespace, queue)?;
    if !state.declared {
        state.declared = true;
        to.put_as(state_key(namespace, queue), &state);
    }
    Ok(())
}

/// Appends a message to its queue, or to the unrouted queue if its queue does not exist. Returns the queue that took it.
pub(super) fn append(to: &mut Transaction<'_>, namespace: &Namespace, message: &Stored) -> Result<Queue> {
    let (queue, mut state) = match state(to, namespace, &message.to)? {
        Some(state) => (message.to.clone(), state),
        None => (Queue::Unrouted, stored_state(to, namespace, &Queue::Unrouted)?),
    };
    to.put_as(message_key(namespace, &queue, state.tail), message);
    state.tail += 1;
    state.count += 1;
    to.put_as(state_key(namespace, &queue), &state);
    Ok(queue)
}

/// Deletes a message that was acknowledged.
pub(super) fn remove_message(
    to: &mut Transaction<'_>,
    namespace: &Namespace,
    queue: &Queue,
    position: u64,
) -> Result<()> {
    let mut state = stored_state(to, namespace, queue)?;
    // One from before the floor is deleted with the removed queue and no longer counted.
    if position >= state.floor {
        state.count = state.count.saturating_sub(1);
        to.put_as(state_key(namespace, queue), &state);
        to.delete(message_key(namespace, queue, position));
    }
    Ok(())
}

/// Notes that messages before this position may have been delivered.
pub(super) fn mark_delivered(
    to: &mut Transaction<'_>,
    namespace: &Namespace,
    queue: &Queue,
    before: u64,
) -> Result<()> {
    let mut state = stored_state(to, namespace, queue)?;
    if state.delivered < before {
        state.delivered = before;
        to.put_as(state_key(namespace, queue), &state);
    }
    Ok(())
}

/// Ends the queue and counts its messages as gone. Returns the range that still holds them, to be thrown away.
pub(super) fn remove(
    to: &mut Transaction<'_>,
    namespace: &Namespace,
    queue: &Queue,
) -> Result<Option<(KeyRange, u64)>> {
    let mut state = stored_state(to, namespace, queue)?;
    if !state.declared {
        return Ok(None);
    }
    let messages = messages(namespace, queue).range_of_numbers(0..state.tail);
    state.declared = false;
    state.floor = state.tail;
    state.count = 0;
    to.put_as(state_key(namespace, queue), &state);
    Ok(Some((messages, state.floor)))
}

/// The first message at or after a position, encoded, with its own position.
pub(super) fn next(from: &dyn Snapshot, namespace: &Namespace, queue: &Queue, at: u64) -> Result<Option<(u64, Bytes)>> {
    let prefix = messages(namespace, queue);
    let skip = prefix.len();
    let found = from.scan(&prefix.range_of_numbers(at..u64::MAX), 1)?;
    Ok(found
        .into_iter()
        .next()
        .and_then(|(key, message)| Some((leading_number(&key[skip..])?, message))))
}

/// The message of a position, encoded.
pub(super) fn message(
    from: &dyn Snapshot,
    namespace: &Namespace,
    queue: &Queue,
    position: u64,
) -> Result<Option<Bytes>> {
    from.get(&message_key(namespace, queue, position))
}

/// Reads a message. What cannot be read is handed on as it is, so that whoever receives it can put it aside; the queue goes on.
pub(super) fn read(message: Bytes, queue: &Queue) -> Stored {
    decode(&message).unwrap_or_else(|_| Stored {
        to: queue.clone(),
        body: message,
        content_type: None,
        message_id: None,
        headers: Vec::new(),
    })
}

fn messages(namespace: &Namespace, queue: &Queue) -> Key {
    Key::of_queue(Table::Message, namespace, queue)
}

fn message_key(namespace: &Namespace, queue: &Queue, position: u64) -> Vec<u8> {
    messages(namespace, queue).number(position).end()
}

fn state_key(namespace: &Namespace, queue: &Queue) -> Vec<u8> {
    Key::of_queue(Table::Queue, namespace, queue).end()
}
