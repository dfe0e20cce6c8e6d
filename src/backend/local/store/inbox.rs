//! The inbox of an instance: items in order, outside the record, so that a push does not rewrite the record.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::super::key::{Key, Table};
use super::super::kv::{Snapshot, Transaction};
use super::{expiry, trash};
use crate::backend::Result;
use crate::model::{InstanceRef, Namespace, Timestamp};

/// The state of an inbox. It has a number of its own, so that a discarded inbox and its successor share no keys.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Inbox {
    number: u64,
    /// The position of the first item.
    head: u64,
    /// Items.
    len: u64,
}

/// Where the first item of an inbox stands: in the middle, since items are put back at the front.
const MIDDLE: u64 = 1 << 63;

/// How many items wait.
pub(super) fn len(from: &dyn Snapshot, namespace: &Namespace, instance: &InstanceRef, now: Timestamp) -> Result<usize> {
    Ok(read(from, namespace, instance, now)?.map_or(0, |(inbox, _)| inbox.len as usize))
}

/// The first `most` items.
pub(super) fn items(
    from: &dyn Snapshot,
    namespace: &Namespace,
    instance: &InstanceRef,
    now: Timestamp,
    most: usize,
) -> Result<Vec<Bytes>> {
    let Some((inbox, _)) = read(from, namespace, instance, now)? else {
        return Ok(Vec::new());
    };
    let pairs = from.scan(&inbox.items(namespace).range(), most)?;
    Ok(pairs.into_iter().map(|(_, item)| item).collect())
}

/// Up to `most` items after the first `passed`.
pub(super) fn page(
    from: &dyn Snapshot,
    namespace: &Namespace,
    instance: &InstanceRef,
    now: Timestamp,
    passed: usize,
    most: usize,
) -> Result<Vec<Bytes>> {
    let Some((inbox, _)) = read(from, namespace, instance, now)? else {
        return Ok(Vec::new());
    };
    let end = inbox.head + inbox.len;
    let first = inbox.head.saturating_add(passed as u64).min(end);
    let pairs = from.scan(&inbox.items(namespace).range_of_numbers(first..end), most)?;
    Ok(pairs.into_iter().map(|(_, item)| item).collect())
}

/// An item to push.
pub(super) struct Push {
    pub(super) item: Bytes,
    /// The inbox takes no more than this many.
    pub(super) bound: Option<usize>,
    /// Without a record: the whole inbox lapses, but no sooner than after this time.
    pub(super) keep: Option<Duration>,
}

/// Appends an item, unless it is the last one already: then it is a repeat. False if the inbox is full.
pub(super) fn push(
    to: &mut Transaction<'_>,
    namespace: &Namespace,
    instance: &InstanceRef,
    push: Push,
    now: Timestamp,
) -> Result<bool> {
    let (mut inbox, until) = match read(to, namespace, instance, now)? {
        Some(found) => found,
        None => {
            discard(to, namespace, instance)?;
            let number = trash::next_number(to, namespace)?;
            let (head, len) = (MIDDLE, 0);
            (Inbox { number, head, len }, None)
        }
    };
    if inbox.len > 0 && to.get(&inbox.last(namespace))?.as_ref() == Some(&push.item) {
        return Ok(true);
    }
    if push.bound.is_some_and(|bound| inbox.len >= bound as u64) {
        return Ok(false);
    }
    to.put(inbox.items(namespace).number(inbox.head + inbox.len).end(), push.item);
    inbox.len += 1;
    let until = push.keep.map(|keep| (now + keep).max(until.unwrap_or_default()));
    expiry::put(to, namespace, key(namespace, instance), &inbox, until);
    Ok(true)
}

/// Takes `taken` items from the front and puts `kept` back there. Returns how many there are then.
pub(super) fn take(
    to: &mut Transaction<'_>,
    namespace: &Namespace,
    instance: &InstanceRef,
    taken: usize,
    kept: &[Bytes],
    now: Timestamp,
) -> Result<usize> {
    let Some((mut inbox, until)) = read(to, namespace, instance, now)? else {
        return Ok(0);
    };
    if taken == 0 && kept.is_empty() {
        return Ok(inbox.len as usize);
    }
    let taken = (taken as u64).min(inbox.len);
    for position in inbox.head..inbox.head + taken {
        to.delete(inbox.items(namespace).number(position).end());
    }
    inbox.head = inbox.head + taken - kept.len() as u64;
    inbox.len = inbox.len - taken + kept.len() as u64;
    for (position, item) in (inbox.head..).zip(kept) {
        to.put(inbox.items(namespace).number(position).end(), item.clone());
    }
    if inbox.len == 0 {
        to.delete(key(namespace, instance));
    } else {
        expiry::put(to, namespace, key(namespace, instance), &inbox, until);
    }
    Ok(inbox.len as usize)
}

/// A record has come: what was kept for it lapses no more.
pub(super) fn adopt(
    to: &mut Transaction<'_>,
    namespace: &Namespace,
    instance: &InstanceRef,
    now: Timestamp,
) -> Result<()> {
    match read(to, namespace, instance, now)? {
        Some((_, None)) => Ok(()),
        Some((inbox, Some(_))) => {
            expiry::put(to, namespace, key(namespace, instance), &inbox, None);
            Ok(())
        }
        None => discard(to, namespace, instance),
    }
}

/// Throws the inbox away with all its items, even if it has lapsed.
pub(super) fn discard(to: &mut Transaction<'_>, namespace: &Namespace, instance: &InstanceRef) -> Result<()> {
    discard_at(to, namespace, key(namespace, instance))
}

/// Throws away the inbox with this key.
pub(super) fn discard_at(to: &mut Transaction<'_>, namespace: &Namespace, key: Vec<u8>) -> Result<()> {
    if let Some(inbox) = expiry::get_even_lapsed::<Inbox>(to, &key)? {
        trash::throw(to, namespace, inbox.items(namespace).range())?;
        to.delete(key);
    }
    Ok(())
}

impl Inbox {
    /// The key of its last item, if it has one.
    fn last(&self, namespace: &Namespace) -> Vec<u8> {
        self.items(namespace).number(self.head + self.len - 1).end()
    }

    /// The beginning of its items' keys.
    fn items(&self, namespace: &Namespace) -> Key {
        Key::new(Table::InboxItem, namespace).number(self.number)
    }
}

/// The inbox and the time at which it lapses.
fn read(
    from: &dyn Snapshot,
    namespace: &Namespace,
    instance: &InstanceRef,
    now: Timestamp,
) -> Result<Option<(Inbox, Option<Timestamp>)>> {
    expiry::get_with_time(from, &key(namespace, instance), now)
}

fn key(namespace: &Namespace, instance: &InstanceRef) -> Vec<u8> {
    Key::of_instance(Table::Inbox, namespace, instance).end()
}
