//! Who waits for an instance to end, in this process. No other process can end it: the engine is this one's alone.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::backend::{Ending, Watch};
use crate::model::{InstanceRef, Namespace};

/// The watchers of an engine, by instance. An instance that nobody watches takes no room.
#[derive(Default)]
pub(in super::super) struct Watchers {
    watched: Mutex<HashMap<Watched, Arc<Changes>>>,
}

type Watched = (Namespace, InstanceRef);

/// What happened to an instance, as far as those who wait for it need to know.
#[derive(Default)]
struct Changes {
    count: AtomicU64,
    changed: Notify,
}

impl Watchers {
    /// What happens from now on wakes the result, even while nobody waits on it.
    pub(super) fn watch(self: &Arc<Self>, namespace: &Namespace, instance: &InstanceRef) -> LocalWatch {
        let watched = (namespace.clone(), instance.clone());
        let changes = Arc::clone(self.lock().entry(watched.clone()).or_default());
        LocalWatch {
            watchers: Arc::clone(self),
            watched,
            seen: changes.count.load(Ordering::Acquire),
            changes,
        }
    }

    /// The instance may have ended.
    pub(super) fn wake(&self, namespace: &Namespace, instance: &InstanceRef) {
        if let Some(changes) = self.lock().get(&(namespace.clone(), instance.clone())) {
            changes.count.fetch_add(1, Ordering::Release);
            changes.changed.notify_waiters();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Watched, Arc<Changes>>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One who waits.
pub(super) struct LocalWatch {
    watchers: Arc<Watchers>,
    watched: Watched,
    changes: Arc<Changes>,
    /// Changes that it was told of.
    seen: u64,
}

#[async_trait::async_trait]
impl Watch for LocalWatch {
    async fn changed(&mut self) -> Option<Ending> {
        loop {
            // Registered before looking. No timeout: the caller has one.
            let changed = self.changes.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let count = self.changes.count.load(Ordering::Acquire);
            if count != self.seen {
                self.seen = count;
                return None;
            }
            changed.await;
        }
    }
}

impl Drop for LocalWatch {
    fn drop(&mut self) {
        let mut all = self.watchers.lock();
        // One is ours, one the map's.
        if Arc::strong_count(&self.changes) == 2 {
            all.remove(&self.watched);
        }
    }
}
