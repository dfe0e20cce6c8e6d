//! Ordered keys and values: what an engine offers, and what an operation sees of it.

use std::collections::{BTreeMap, btree_map};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::key::KeyRange;
use crate::backend::{Error, Result};

/// Key and value, as a scan yields them.
pub(super) type Pair = (Bytes, Bytes);

/// Keys and values as of one moment.
pub(super) trait Snapshot {
    /// The value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>>;

    /// The first `limit` pairs of a range, in order of their keys.
    fn scan(&self, range: &KeyRange, limit: usize) -> Result<Vec<Pair>>;
}

/// What an operation has written, by key; `None` is a deletion.
pub(super) type Writes = BTreeMap<Vec<u8>, Option<Bytes>>;

/// A snapshot and what has been written on top of it. Nothing reaches the engine before the operation has succeeded, so one that fails leaves no
/// trace. Transactions nest: a batch is a transaction on the stored state, each of its operations one on the batch.
pub(super) struct Transaction<'a> {
    base: &'a dyn Snapshot,
    writes: Writes,
}

impl<'a> Transaction<'a> {
    pub(super) fn on(base: &'a dyn Snapshot) -> Self {
        Self {
            base,
            writes: Writes::new(),
        }
    }

    pub(super) fn put(&mut self, key: Vec<u8>, value: impl Into<Bytes>) {
        self.writes.insert(key, Some(value.into()));
    }

    pub(super) fn delete(&mut self, key: Vec<u8>) {
        self.writes.insert(key, None);
    }

    /// Puts a value in its stored form (MessagePack with names, so that a later release may add fields).
    pub(super) fn put_as<T: Serialize>(&mut self, key: Vec<u8>, value: &T) {
        self.put(key, encode(value));
    }

    /// What has been written.
    pub(super) fn into_writes(self) -> Writes {
        self.writes
    }

    /// Takes over what a nested transaction has written.
    #[cfg(any(feature = "embedded", test))]
    pub(super) fn absorb(&mut self, writes: Writes) {
        self.writes.extend(writes);
    }
}

impl Snapshot for Transaction<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        match self.writes.get(key) {
            Some(written) => Ok(written.clone()),
            None => self.base.get(key),
        }
    }

    fn scan(&self, range: &KeyRange, limit: usize) -> Result<Vec<Pair>> {
        let written = || self.writes.range::<[u8], _>(range.bounds());
        let deleted = written().filter(|(_, value)| value.is_none()).count();
        // What is deleted here may hide as many pairs of the base.
        let base = self.base.scan(range, limit.saturating_add(deleted))?;
        let mut merged = Vec::with_capacity(limit.min(base.len()));
        let mut base = base.into_iter().peekable();
        let mut written = written().peekable();
        while merged.len() < limit {
            match (base.peek(), written.peek()) {
                (None, None) => break,
                (Some((stored, _)), Some((key, _))) if stored[..] < key[..] => merged.extend(base.next()),
                (Some(_), None) => merged.extend(base.next()),
                (stored, Some((key, _))) => {
                    if stored.is_some_and(|(stored, _)| stored[..] == key[..]) {
                        base.next();
                    }
                    merged.extend(written.next().and_then(present));
                }
            }
        }
        Ok(merged)
    }
}

fn present((key, value): (&Vec<u8>, &Option<Bytes>)) -> Option<Pair> {
    value.as_ref().map(|value| (Bytes::copy_from_slice(key), value.clone()))
}

impl Snapshot for BTreeMap<Vec<u8>, Bytes> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(BTreeMap::get(self, key).cloned())
    }

    fn scan(&self, range: &KeyRange, limit: usize) -> Result<Vec<Pair>> {
        let pairs: btree_map::Range<'_, _, _> = self.range::<[u8], _>(range.bounds());
        Ok(pairs
            .take(limit)
            .map(|(key, value)| (Bytes::copy_from_slice(key), value.clone()))
            .collect())
    }
}

/// Reads a value in its stored form.
pub(super) fn get_as<T: DeserializeOwned>(from: &dyn Snapshot, key: &[u8]) -> Result<Option<T>> {
    from.get(key)?.map(|stored| decode(&stored)).transpose()
}

/// A value's stored form.
pub(super) fn encode<T: Serialize>(value: &T) -> Bytes {
    rmp_serde::to_vec_named(value)
        .expect("what is stored holds only values that MessagePack can write")
        .into()
}

/// Reads the stored form.
pub(super) fn decode<'a, T: Deserialize<'a>>(stored: &'a [u8]) -> Result<T> {
    rmp_serde::from_slice(stored).map_err(|cause| {
        Error::permanent(format!(
            "a stored {} cannot be read: the data is damaged or was written by a later release",
            std::any::type_name::<T>()
        ))
        .caused_by(cause)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(keys: &[u8]) -> BTreeMap<Vec<u8>, Bytes> {
        keys.iter()
            .map(|key| (vec![*key], Bytes::from_static(b"base")))
            .collect()
    }

    fn keys(from: &dyn Snapshot, limit: usize) -> Vec<u8> {
        let pairs = from.scan(&KeyRange::all(), limit).expect("memory does not fail");
        pairs.iter().map(|(key, _)| key[0]).collect()
    }

    #[test]
    fn a_scan_sees_what_the_transaction_wrote_and_not_what_it_deleted() {
        let base = map(&[1, 2, 3, 5, 7]);
        let mut transaction = Transaction::on(&base);
        transaction.put(vec![4], "new");
        transaction.put(vec![5], "over");
        transaction.put(vec![9], "new");
        transaction.delete(vec![1]);
        transaction.delete(vec![6]);
        assert_eq!(keys(&transaction, 10), [2, 3, 4, 5, 7, 9]);
        assert_eq!(keys(&transaction, 3), [2, 3, 4]);
        let value = |key: u8| transaction.get(&[key]).expect("memory does not fail");
        assert_eq!(value(5).expect("it is there"), "over");
        assert_eq!(value(1), None);
    }

    #[test]
    fn transactions_nest_and_one_that_is_dropped_leaves_no_trace() {
        let base = map(&[1]);
        let mut batch = Transaction::on(&base);
        let mut kept = Transaction::on(&batch);
        kept.put(vec![2], "kept");
        let writes = kept.into_writes();
        batch.absorb(writes);
        let mut failed = Transaction::on(&batch);
        failed.delete(vec![2]);
        assert_eq!(keys(&failed, 10), [1]);
        drop(failed);
        assert_eq!(keys(&batch, 10), [1, 2]);
    }
}
