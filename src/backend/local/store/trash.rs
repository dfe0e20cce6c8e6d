//! Ranges of keys that nothing refers to any more. An operation that ends an execution or removes a queue throws the range away whole, at the cost
//! of one key; it is emptied afterwards, a bounded step at a time.

use super::super::engine::Engine;
use super::super::key::{Key, KeyRange, Table};
use super::super::kv::{Snapshot, Transaction, decode, get_as};
use crate::backend::Result;
use crate::model::Namespace;

/// Most keys that one step deletes.
const STEP: usize = 512;

/// Throws away all keys of the range. No key of it may be written again.
pub(in super::super) fn throw(to: &mut Transaction<'_>, namespace: &Namespace, range: KeyRange) -> Result<()> {
    if to.scan(&range, 1)?.is_empty() {
        return Ok(());
    }
    let number = next_number(to, namespace)?;
    to.put_as(Key::new(Table::Trash, namespace).number(number).end(), &range);
    Ok(())
}

/// A number that no other call of this namespace gets.
pub(super) fn next_number(to: &mut Transaction<'_>, namespace: &Namespace) -> Result<u64> {
    let key = Key::new(Table::Counter, namespace).end();
    let number: u64 = get_as(to, &key)?.unwrap_or_default();
    to.put_as(key, &(number + 1));
    Ok(number)
}

/// True if there is something to delete.
pub(super) fn is_there(from: &dyn Snapshot, namespace: &Namespace) -> Result<bool> {
    Ok(!from.scan(&Key::new(Table::Trash, namespace).range(), 1)?.is_empty())
}

/// Deletes some of it.
pub(super) fn empty_some(to: &mut Transaction<'_>, namespace: &Namespace) -> Result<()> {
    let Some((thrown, range)) = to.scan(&Key::new(Table::Trash, namespace).range(), 1)?.pop() else {
        return Ok(());
    };
    let pairs = to.scan(&decode(&range)?, STEP)?;
    if pairs.len() < STEP {
        to.delete(thrown.to_vec());
    }
    for (key, _) in pairs {
        to.delete(key.to_vec());
    }
    Ok(())
}

/// Deletes some of it soon, if there is any. Most executions are gone with that; the due loop does the rest of long ones.
pub(in super::super) fn empty_soon(engine: &Engine, namespace: &Namespace) {
    // If this cannot be read, the due loop finds it.
    if engine.read(|from| is_there(from, namespace)).unwrap_or_default() {
        let namespace = namespace.clone();
        engine.post(move |to| empty_some(to, &namespace), |()| ());
    }
}
