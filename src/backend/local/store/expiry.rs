//! Values that lapse. Each says itself until when it counts, so that a reader never sees one that has lapsed; an index by time finds those to delete.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::super::key::{Key, KeyRange, Table, leading_number};
use super::super::kv::{Snapshot, Transaction, get_as};
use super::inbox;
use crate::backend::Result;
use crate::model::{Namespace, Timestamp};

/// Most values that one step deletes.
const STEP: usize = 128;

#[derive(Serialize, Deserialize)]
struct Lapsing<T> {
    /// The first moment at which it no longer counts; `None`: it counts until it is deleted.
    until: Option<Timestamp>,
    value: T,
}

/// Only the time of one.
#[derive(Deserialize)]
struct Until {
    until: Option<Timestamp>,
}

/// Puts a value that counts until a time.
pub(super) fn put<T: Serialize>(
    to: &mut Transaction<'_>,
    namespace: &Namespace,
    key: Vec<u8>,
    value: &T,
    until: Option<Timestamp>,
) {
    if let Some(until) = until {
        let order = Key::new(Table::Expiry, namespace).time(until).rest(&key);
        to.put(order, Vec::new());
    }
    to.put_as(key, &Lapsing { until, value });
}

/// The value, if it still counts.
pub(super) fn get<T: DeserializeOwned>(from: &dyn Snapshot, key: &[u8], now: Timestamp) -> Result<Option<T>> {
    Ok(get_with_time(from, key, now)?.map(|(value, _)| value))
}

/// The value with its time, if it still counts.
pub(super) fn get_with_time<T: DeserializeOwned>(
    from: &dyn Snapshot,
    key: &[u8],
    now: Timestamp,
) -> Result<Option<(T, Option<Timestamp>)>> {
    let stored: Option<Lapsing<T>> = get_as(from, key)?;
    Ok(stored
        .filter(|stored| !lapsed(stored.until, now))
        .map(|stored| (stored.value, stored.until)))
}

/// The value, whether it still counts or not.
pub(super) fn get_even_lapsed<T: DeserializeOwned>(from: &dyn Snapshot, key: &[u8]) -> Result<Option<T>> {
    Ok(get_as(from, key)?.map(|stored: Lapsing<T>| stored.value))
}

fn lapsed(until: Option<Timestamp>, now: Timestamp) -> bool {
    until.is_some_and(|until| until <= now)
}

/// True if something has lapsed and can be deleted.
pub(super) fn is_due(from: &dyn Snapshot, namespace: &Namespace, now: Timestamp) -> Result<bool> {
    Ok(!from.scan(&due(namespace, now), 1)?.is_empty())
}

/// Deletes some of what has lapsed.
pub(super) fn sweep(to: &mut Transaction<'_>, namespace: &Namespace, now: Timestamp) -> Result<()> {
    let prefix = Key::new(Table::Expiry, namespace).len();
    for (order, _) in to.scan(&due(namespace, now), STEP)? {
        let remainder = &order[prefix..];
        let key = &remainder[leading_number(remainder).map_or(0, |_| size_of::<u64>())..];
        // The value may have been given more time since; then it has a later place in the index too.
        let stored: Option<Until> = get_as(to, key)?;
        if stored.is_some_and(|stored| lapsed(stored.until, now)) {
            if key.first() == Some(&(Table::Inbox as u8)) {
                inbox::discard_at(to, namespace, key.to_vec())?;
            }
            to.delete(key.to_vec());
        }
        to.delete(order.to_vec());
    }
    Ok(())
}

fn due(namespace: &Namespace, now: Timestamp) -> KeyRange {
    let all = Key::new(Table::Expiry, namespace);
    let end = all.clone().number(now.as_millis().saturating_add(1)).end();
    all.range().until(end)
}
