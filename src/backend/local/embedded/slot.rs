//! The open file, and what is read from it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};

use bytes::Bytes;
use redb::{Database, ReadOnlyTable, ReadableDatabase};

use super::super::key::KeyRange;
use super::super::kv::{Pair, Snapshot};
use super::file;
use crate::backend::{Error, Result};

/// Opens the file: at first, and again after it has failed.
pub(super) type Opener = Box<dyn Fn() -> Result<Database> + Send + Sync>;

/// The open file. Empty after it has failed, until the writer has opened it again.
pub(super) struct Slot {
    database: RwLock<Option<Database>>,
    /// True once something has failed: redb refuses all further work after an error of the disk, until the file is opened again.
    failed: AtomicBool,
    opener: Opener,
}

impl Slot {
    pub(super) fn open(opener: Opener) -> Result<Self> {
        Ok(Self {
            database: RwLock::new(Some(opener()?)),
            failed: AtomicBool::new(false),
            opener,
        })
    }

    /// Works with the file, and with its state as of now.
    pub(super) fn read<T>(&self, operation: impl FnOnce(&Database, &Pages<'_>) -> Result<T>) -> Result<T> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let Some(database) = &*database else {
            return Err(Error::transient(
                "the file has failed and cannot be opened again yet: the log says why",
            ));
        };
        let table = open_table(database).map_err(|cause| self.fail(cause))?;
        operation(database, &Pages { table, slot: self })
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Closes the file and opens it again.
    pub(super) fn reopen(&self) -> Result<()> {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        self.failed.store(true, Ordering::Relaxed);
        // Closed first: two cannot have it open.
        *database = None;
        *database = Some((self.opener)()?);
        self.failed.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// A read has failed. It had no effect, and works again if the disk does.
    fn fail(&self, cause: impl Into<redb::Error>) -> Error {
        self.failed.store(true, Ordering::Relaxed);
        let cause = cause.into();
        Error::transient(format!("the file cannot be read: {cause}")).caused_by(cause)
    }
}

fn open_table(database: &Database) -> std::result::Result<Table, redb::Error> {
    Ok(database.begin_read()?.open_table(file::DATA)?)
}

type Table = ReadOnlyTable<&'static [u8], &'static [u8]>;

/// The stored keys and values as of one moment.
pub(super) struct Pages<'a> {
    table: Table,
    slot: &'a Slot,
}

impl Snapshot for Pages<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        let value = self.table.get(key).map_err(|cause| self.slot.fail(cause))?;
        Ok(value.map(|value| Bytes::copy_from_slice(value.value())))
    }

    fn scan(&self, range: &KeyRange, limit: usize) -> Result<Vec<Pair>> {
        let fail = |cause| self.slot.fail(cause);
        let pairs = self.table.range::<&[u8]>(range.bounds()).map_err(fail)?;
        let copied = pairs.take(limit).map(|pair| {
            let (key, value) = pair.map_err(fail)?;
            Ok((
                Bytes::copy_from_slice(key.value()),
                Bytes::copy_from_slice(value.value()),
            ))
        });
        copied.collect()
    }
}
