//! The engine that keeps everything in this process. "Durable" then means: as long as the process.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::kv::{Snapshot, Transaction};
use crate::backend::Result;

/// An ordered map; operations run one after the other, where they are called.
#[derive(Default)]
pub(super) struct Memory {
    pairs: Mutex<BTreeMap<Vec<u8>, Bytes>>,
}

impl Memory {
    pub(super) fn write<T>(
        &self,
        operation: impl FnOnce(&mut Transaction<'_>) -> Result<T>,
        after: impl FnOnce(&T),
    ) -> Result<T> {
        let mut pairs = self.lock();
        let mut transaction = Transaction::on(&*pairs);
        let value = operation(&mut transaction)?;
        for (key, written) in transaction.into_writes() {
            match written {
                Some(value) => pairs.insert(key, value),
                None => pairs.remove(&key),
            };
        }
        drop(pairs);
        after(&value);
        Ok(value)
    }

    pub(super) fn read<T>(&self, operation: impl FnOnce(&dyn Snapshot) -> Result<T>) -> Result<T> {
        operation(&*self.lock())
    }

    /// All there is.
    #[cfg(feature = "testing")]
    pub(super) fn copy(&self) -> BTreeMap<Vec<u8>, Bytes> {
        self.lock().clone()
    }

    /// From now on it holds that.
    #[cfg(feature = "testing")]
    pub(super) fn replace(&self, pairs: BTreeMap<Vec<u8>, Bytes>) {
        *self.lock() = pairs;
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Vec<u8>, Bytes>> {
        // An operation that panics has written nothing yet, so the map is whole.
        self.pairs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
