//! The engine that keeps everything in one file, with [redb](https://docs.rs/redb).
//!
//! **Commit.** Operations gather in a queue. One writer thread takes all that wait, runs each as a transaction nested in the batch (one that fails
//! leaves no trace in it), writes the batch in one redb transaction, waits for the disk, and then answers them all. While the disk is busy the next
//! batch gathers, so throughput grows with the number of callers. Operations that nobody waits for (acknowledgements) ride along, or go on their
//! own after a moment.
//!
//! **Recovery.** redb writes pages beside the old ones and switches over with one checksummed page, so a process or a machine that dies leaves the
//! state of the last batch that was answered, or of the one after. Opening a file that was not closed checks it first, which reads it once through.
//!
//! **Memory.** A page cache of fixed size, and what is in the queue; histories and messages stay in the file. The file does not shrink: what is
//! deleted makes room for what comes.

mod file;
mod jobs;
mod open;
mod slot;
mod writer;

use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use self::jobs::{Finish, Jobs};
use self::slot::{Opener, Slot};
use super::kv::{Snapshot, Transaction};
use crate::backend::{Error, Result};

/// One file.
pub(super) struct Embedded {
    jobs: Arc<Jobs>,
    slot: Arc<Slot>,
    writer: Option<JoinHandle<()>>,
}

impl Embedded {
    fn open(opener: Opener) -> Result<Self> {
        let slot = Arc::new(Slot::open(opener)?);
        let jobs = Arc::new(Jobs::default());
        let writer = {
            let (jobs, slot) = (Arc::clone(&jobs), Arc::clone(&slot));
            std::thread::Builder::new()
                .name("leveret-writer".into())
                .spawn(move || writer::run(&jobs, &slot))
                .map_err(|cause| Error::transient("cannot start the thread that writes the file").caused_by(cause))?
        };
        Ok(Self {
            jobs,
            slot,
            writer: Some(writer),
        })
    }

    pub(super) async fn write<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&mut Transaction<'_>) -> Result<T> + Send + 'static,
        after: impl FnOnce(&T) + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let run = move |to: Result<&mut Transaction<'_>>| match to.and_then(operation) {
            Ok(value) => {
                let finish = move |durable: Result<()>| {
                    let answer = durable.map(|()| {
                        after(&value);
                        value
                    });
                    // A caller that has gone away does not need its answer.
                    let _ = reply.send(answer);
                };
                Some(Box::new(finish) as Finish)
            }
            Err(error) => {
                let _ = reply.send(Err(error));
                None
            }
        };
        self.jobs.submit(Box::new(run)).await;
        // No timeout: the writer answers whatever it has taken, and a disk that hangs has to be waited for.
        let lost = || Error::permanent("an operation on the file has panicked: please report it with the log");
        answer.await.unwrap_or_else(|_| Err(lost()))
    }

    pub(super) fn post(
        &self,
        operation: impl FnOnce(&mut Transaction<'_>) -> Result<()> + Send + 'static,
        after: impl FnOnce(&()) + Send + 'static,
    ) {
        let failed = |error: &Error| tracing::warn!(%error, "an operation that nobody waits for has failed");
        let run = move |to: Result<&mut Transaction<'_>>| match to.and_then(operation) {
            Ok(()) => Some(Box::new(move |durable: Result<()>| match durable {
                Ok(()) => after(&()),
                Err(error) => failed(&error),
            }) as Finish),
            Err(error) => {
                failed(&error);
                None
            }
        };
        self.jobs.post(Box::new(run));
    }

    /// Reads where it is called: a page that is cached costs microseconds, less than asking another thread would.
    pub(super) fn read<T>(&self, operation: impl FnOnce(&dyn Snapshot) -> Result<T>) -> Result<T> {
        let read = self.slot.read(|_, pages| operation(pages));
        if read.is_err() && self.slot.has_failed() {
            // Makes the writer look at the file, and open it again.
            self.jobs.post(Box::new(|_| None));
        }
        read
    }

    pub(super) async fn catch_up(&self) -> Result<()> {
        if self.jobs.is_behind() {
            self.write(|_| Ok(()), |()| ()).await?;
        }
        Ok(())
    }

    pub(super) fn readiness(&self) -> std::result::Result<(), String> {
        self.slot.read(|_, _| Ok(())).map_err(|error| error.to_string())
    }
}

impl Drop for Embedded {
    /// Writes what was handed over, and closes the file before it returns: whoever opens it next finds it free.
    fn drop(&mut self) {
        self.jobs.stop();
        if let Some(writer) = self.writer.take()
            && writer.thread().id() != std::thread::current().id()
            && writer.join().is_err()
        {
            tracing::error!("the thread that writes the file has panicked");
        }
    }
}
