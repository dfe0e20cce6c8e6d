//! The writer: the one thread that changes the file.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};

use redb::{Database, Durability};

use super::super::kv::{Transaction, Writes};
use super::file;
use super::jobs::{Finish, Jobs, Run};
use super::slot::{Pages, Slot};
use crate::backend::{Error, Result};

/// A batch ends when it has written so many bytes; what is left goes into the next.
const BATCH_BYTES: usize = 32 << 20;

/// Writes batch after batch until the queue stops.
pub(super) fn run(jobs: &Jobs, slot: &Slot) {
    while let Some(mut queued) = jobs.take() {
        while !queued.is_empty() {
            if slot.has_failed() {
                reopen(slot);
            }
            write_batch(slot, &mut queued);
        }
    }
}

/// Runs operations, makes what they wrote durable, and answers them. If the process dies before that, nobody has been told; if it dies after, the
/// file has it.
fn write_batch(slot: &Slot, queued: &mut VecDeque<Run>) {
    let mut finishes = Vec::with_capacity(queued.len());
    let written = slot.read(|database, pages| {
        let writes = run_operations(pages, queued, &mut finishes);
        commit(database, writes)
    });
    match written {
        Ok(()) => finishes.into_iter().for_each(|finish| finish(Ok(()))),
        // The file could not even be read, so none has run.
        Err(error) if finishes.is_empty() => {
            for run in queued.drain(..) {
                run(Err(Error::transient(error.to_string())));
            }
        }
        Err(error) => {
            tracing::error!(%error, operations = finishes.len(), "the file could not be written");
            for finish in finishes {
                finish(Err(Error::unknown(error.to_string())));
            }
            reopen(slot);
        }
    }
}

/// Runs operations until the batch is full. Each sees what those before it wrote.
fn run_operations(pages: &Pages<'_>, queued: &mut VecDeque<Run>, finishes: &mut Vec<Finish>) -> Writes {
    let mut batch = Transaction::on(pages);
    let mut bytes = 0;
    while bytes < BATCH_BYTES
        && let Some(run) = queued.pop_front()
    {
        let mut transaction = Transaction::on(&batch);
        // A panic must not take the others' answers with it. What it had written is dropped, so nobody sees anything half-done.
        let finish = catch_unwind(AssertUnwindSafe(|| run(Ok(&mut transaction))));
        let writes = transaction.into_writes();
        if let Ok(Some(finish)) = finish {
            bytes += size(&writes);
            batch.absorb(writes);
            finishes.push(finish);
        }
    }
    batch.into_writes()
}

fn size(writes: &Writes) -> usize {
    let sizes = writes
        .iter()
        .map(|(key, value)| key.len() + value.as_ref().map_or(0, |value| value.len()));
    sizes.sum()
}

/// Makes the writes durable. Without any there is nothing to wait for.
fn commit(database: &Database, writes: Writes) -> Result<()> {
    if writes.is_empty() {
        return Ok(());
    }
    write(database, writes).map_err(|cause| {
        let message =
            format!("the file could not be written, and whether the operation took effect is not known: {cause}");
        Error::unknown(message).caused_by(cause)
    })
}

fn write(database: &Database, writes: Writes) -> std::result::Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    {
        let mut data = transaction.open_table(file::DATA)?;
        for (key, value) in &writes {
            match value {
                Some(value) => data.insert(&key[..], &value[..])?,
                None => data.remove(&key[..])?,
            };
        }
    }
    transaction.commit()?;
    Ok(())
}

fn reopen(slot: &Slot) {
    match slot.reopen() {
        Ok(()) => tracing::info!("the file was opened again after a failure"),
        Err(error) => tracing::error!(%error, "the file cannot be opened again; the next operation tries"),
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::sync::{Arc, Condvar, Mutex};

    use futures_util::future::join_all;
    use futures_util::poll;
    use redb::StorageBackend;
    use redb::backends::InMemoryBackend;

    use super::super::Embedded;
    use crate::backend::{Error, Result, Retryable};

    /// A disk that can break. What is written to it outlives the database that writes.
    #[derive(Clone, Debug)]
    struct Disk {
        kept: Arc<InMemoryBackend>,
        broken: Arc<AtomicBool>,
        /// How often it was waited for.
        waits: Arc<AtomicUsize>,
        /// While it is, waits for it do not end.
        busy: Arc<(Mutex<bool>, Condvar)>,
    }

    impl Disk {
        fn new() -> Self {
            Self {
                kept: Arc::new(InMemoryBackend::new()),
                broken: Arc::default(),
                waits: Arc::default(),
                busy: Arc::default(),
            }
        }

        fn set_busy(&self, busy: bool) {
            *self.busy.0.lock().unwrap() = busy;
            self.busy.1.notify_all();
        }

        fn waits(&self) -> usize {
            self.waits.load(Ordering::Relaxed)
        }

        fn check(&self) -> io::Result<()> {
            match self.broken.load(Ordering::Relaxed) {
                true => Err(io::Error::new(io::ErrorKind::StorageFull, "no space left on device")),
                false => Ok(()),
            }
        }

        fn engine(&self) -> Embedded {
            let disk = self.clone();
            let opener = move || {
                let opened = redb::Builder::new().create_with_backend(disk.clone());
                let database = opened.map_err(|cause| Error::transient("the disk is broken").caused_by(cause))?;
                super::super::file::format(&database).map_err(|cause| Error::transient(cause.to_string()))?;
                Ok(database)
            };
            Embedded::open(Box::new(opener)).expect("opened")
        }
    }

    impl StorageBackend for Disk {
        fn len(&self) -> io::Result<u64> {
            self.kept.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.kept.read(offset, out)
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.check()?;
            self.kept.set_len(len)
        }

        fn sync_data(&self) -> io::Result<()> {
            self.waits.fetch_add(1, Ordering::Relaxed);
            let busy = self.busy.0.lock().unwrap();
            drop(self.busy.1.wait_while(busy, |busy| *busy).unwrap());
            self.check()
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.check()?;
            self.kept.write(offset, data)
        }
    }

    async fn put(engine: &Embedded, key: &'static str) -> Result<()> {
        let operation = move |to: &mut super::Transaction<'_>| {
            to.put(key.into(), "value");
            Ok(())
        };
        engine.write(operation, |()| ()).await
    }

    fn is_there(engine: &Embedded, key: &str) -> bool {
        let found = engine.read(|from| from.get(key.as_bytes()));
        found.expect("the file can be read").is_some()
    }

    #[tokio::test]
    async fn operations_that_come_while_the_disk_is_busy_share_its_next_wait() {
        const CALLERS: usize = 40;
        let disk = Disk::new();
        let engine = disk.engine();
        put(&engine, "once").await.expect("written");
        let before = disk.waits();
        put(&engine, "alone").await.expect("written");
        let alone = disk.waits() - before;
        assert!(alone > 0, "a write is durable before it is answered");
        disk.set_busy(true);
        let mut all = Box::pin(join_all((0..CALLERS).map(|_| put(&engine, "together"))));
        assert!(poll!(&mut all).is_pending(), "nobody is told before the disk has it");
        disk.set_busy(false);
        assert!(all.await.into_iter().all(|put| put.is_ok()));
        let together = disk.waits() - before - alone;
        // Those that the writer took first, and the rest.
        assert!(
            together <= 2 * alone,
            "{CALLERS} callers waited for the disk {together} times, one alone {alone} times"
        );
    }

    #[tokio::test]
    async fn an_operation_that_fails_spoils_no_other() {
        let engine = Disk::new().engine();
        let failing = engine.write(
            |to| {
                to.put("failed".into(), "value");
                Err::<(), _>(Error::permanent("refused"))
            },
            |()| (),
        );
        let panicking = engine.write(
            |to| {
                to.put("panicked".into(), "value");
                panic!("in an operation, on purpose");
            },
            |()| (),
        );
        let (before, failed, panicked, after) =
            tokio::join!(put(&engine, "before"), failing, panicking, put(&engine, "after"));
        assert!(before.is_ok() && after.is_ok());
        assert_eq!(failed.expect_err("failed").to_string(), "refused");
        assert!(panicked.expect_err("panicked").is_permanent());
        let stored = ["before", "failed", "panicked", "after"].map(|key| is_there(&engine, key));
        assert_eq!(stored, [true, false, false, true]);
    }

    #[tokio::test]
    async fn a_disk_that_was_full_is_written_to_again_when_it_has_room() {
        let disk = Disk::new();
        let engine = disk.engine();
        put(&engine, "before").await.expect("written");
        disk.broken.store(true, Ordering::Relaxed);
        let full = put(&engine, "meanwhile").await.expect_err("no room");
        assert_eq!(full.retryable(), Retryable::Unknown, "{full}");
        put(&engine, "still").await.expect_err("no room");
        disk.broken.store(false, Ordering::Relaxed);
        put(&engine, "after").await.expect("written");
        assert!(engine.readiness().is_ok());
        assert!(is_there(&engine, "before") && is_there(&engine, "after"));
    }

    #[tokio::test]
    async fn what_was_handed_over_is_written_before_the_engine_ends() {
        let disk = Disk::new();
        let engine = disk.engine();
        engine.post(
            |to| {
                to.put("posted".into(), "value");
                Ok(())
            },
            |()| (),
        );
        drop(engine);
        assert!(is_there(&disk.engine(), "posted"));
    }
}
