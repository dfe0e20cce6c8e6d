//! A store in memory with a replica that lags behind, for simulating what asynchronous replication can lose.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::broker::LocalBroker;
use super::engine::Engine;
use super::memory::Memory;
use super::open::Shared;
use super::store::LocalStore;
use crate::backend::{Backend, Clock};
use crate::model::Namespace;

/// See the module.
pub(crate) struct Replica {
    primary: Arc<Shared>,
    copy: Mutex<BTreeMap<Vec<u8>, Bytes>>,
}

impl Replica {
    /// A backend in memory whose store, apart from the broker, has a replica, and that replica, empty.
    pub(crate) fn of_new_backend(namespace: Namespace, clock: Arc<dyn Clock>) -> (Backend, Self) {
        let [of_broker, primary] = [(); 2].map(|()| Shared::new(Engine::Memory(Memory::default())));
        let broker = LocalBroker::new(of_broker, namespace.clone());
        let store = LocalStore::new(primary.clone(), namespace.clone(), clock.clone());
        let backend = Backend::new(namespace, Arc::new(broker), Arc::new(store), clock, "memory");
        let copy = Mutex::default();
        (backend, Self { primary, copy })
    }

    /// The replica gets everything that was written up to now.
    pub(crate) fn catch_up(&self) {
        *self.copy.lock().unwrap_or_else(PoisonError::into_inner) = self.memory().copy();
    }

    /// The replica is the primary from now on.
    pub(crate) fn promote(&self) {
        let copy = self.copy.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.memory().replace(copy);
    }

    fn memory(&self) -> &Memory {
        match &self.primary.engine {
            Engine::Memory(memory) => memory,
            #[cfg(feature = "embedded")]
            Engine::Embedded(_) => unreachable!("it was made in memory"),
        }
    }
}
