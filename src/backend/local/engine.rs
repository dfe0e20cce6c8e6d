//! The engine: runs an operation atomically and answers when it is durable.

#[cfg(feature = "embedded")]
use super::embedded::Embedded;
use super::kv::{Snapshot, Transaction};
use super::memory::Memory;
use crate::backend::Result;

/// Where keys and values are kept.
pub(super) enum Engine {
    /// In this process.
    Memory(Memory),
    /// In a file.
    #[cfg(feature = "embedded")]
    Embedded(Embedded),
}

impl Engine {
    /// Runs an operation: it sees all that was written before it and nothing else; what it writes is stored wholly, or not at all if it fails.
    /// Then, once that is durable, `after` runs, even if the caller has gone away by then: a wake-up is never lost. Both are short, and neither
    /// holds the engine.
    ///
    /// # Errors
    /// The operation's own; or unknown if it could not be made durable.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&mut Transaction<'_>) -> Result<T> + Send + 'static,
        after: impl FnOnce(&T) + Send + 'static,
    ) -> Result<T> {
        match self {
            Engine::Memory(memory) => {
                // Nothing here ever waits, so a caller in a loop would never let other tasks run.
                tokio::task::consume_budget().await;
                memory.write(operation, after)
            }
            #[cfg(feature = "embedded")]
            Engine::Embedded(embedded) => embedded.write(operation, after).await,
        }
    }

    /// Hands an operation over without waiting for it; it runs soon, and is lost if the process ends first. `after` runs once it is durable.
    pub(super) fn post(
        &self,
        operation: impl FnOnce(&mut Transaction<'_>) -> Result<()> + Send + 'static,
        after: impl FnOnce(&()) + Send + 'static,
    ) {
        match self {
            Engine::Memory(memory) => {
                if let Err(error) = memory.write(operation, after) {
                    tracing::warn!(%error, "an operation that nobody waits for has failed");
                }
            }
            #[cfg(feature = "embedded")]
            Engine::Embedded(embedded) => embedded.post(operation, after),
        }
    }

    /// Reads the state as of now: all that has been answered.
    pub(super) fn read<T>(&self, operation: impl FnOnce(&dyn Snapshot) -> Result<T>) -> Result<T> {
        match self {
            Engine::Memory(memory) => memory.read(operation),
            #[cfg(feature = "embedded")]
            Engine::Embedded(embedded) => embedded.read(operation),
        }
    }

    /// Returns at once unless very many posted operations wait; then after they have run. Lets other tasks run now and then.
    pub(super) async fn catch_up(&self) -> Result<()> {
        tokio::task::consume_budget().await;
        match self {
            Engine::Memory(_) => Ok(()),
            #[cfg(feature = "embedded")]
            Engine::Embedded(embedded) => embedded.catch_up().await,
        }
    }

    /// `Ok` while operations can succeed.
    pub(super) fn readiness(&self) -> std::result::Result<(), String> {
        match self {
            Engine::Memory(_) => Ok(()),
            #[cfg(feature = "embedded")]
            Engine::Embedded(embedded) => embedded.readiness(),
        }
    }
}
