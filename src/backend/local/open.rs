//! How these backends are opened, and what all that are open on one engine share.

use std::sync::Arc;

use super::broker::{LiveQueues, LocalBroker};
use super::engine::Engine;
use super::memory::Memory;
use super::store::{LocalStore, Watchers};
use crate::backend::{Backend, Clock, SystemClock};
use crate::model::Namespace;

/// An engine, and what is known only to this process.
pub(super) struct Shared {
    pub(super) engine: Engine,
    pub(super) queues: Arc<LiveQueues>,
    pub(super) watchers: Arc<Watchers>,
}

impl Shared {
    pub(super) fn new(engine: Engine) -> Arc<Self> {
        Arc::new(Self {
            engine,
            queues: Arc::default(),
            watchers: Arc::default(),
        })
    }

    /// Broker and store on this engine, for one namespace.
    pub(super) fn backend(self: &Arc<Self>, namespace: Namespace, clock: Arc<dyn Clock>, description: &str) -> Backend {
        let broker = LocalBroker::new(Arc::clone(self), namespace.clone());
        let store = LocalStore::new(Arc::clone(self), namespace.clone(), Arc::clone(&clock));
        Backend::new(namespace, Arc::new(broker), Arc::new(store), clock, description)
    }
}

impl Backend {
    /// A backend that keeps everything in this process and forgets it with its last clone: for tests and examples. Clones share it, so that
    /// several apps of one process can call each other.
    ///
    /// ```
    /// use leveret::Namespace;
    /// use leveret::backend::Backend;
    /// let backend = Backend::memory(Namespace::new("shop").unwrap());
    /// assert_eq!(backend.to_string(), "memory");
    /// ```
    pub fn memory(namespace: Namespace) -> Backend {
        Self::memory_with_clock(namespace, Arc::new(SystemClock))
    }

    /// Like [`Backend::memory`], by another clock: due times, claims and everything that lapses go by it.
    pub fn memory_with_clock(namespace: Namespace, clock: Arc<dyn Clock>) -> Backend {
        Shared::new(Engine::Memory(Memory::default())).backend(namespace, clock, "memory")
    }
}
