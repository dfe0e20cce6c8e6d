//! Who waits for an instance to end, in this process. No other process can end it: the engine is this one's alone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::backend::Watch;
use crate::model::{InstanceRef, Namespace};

/// The watchers of an engine, by instance. An instance that nobody watches takes no room.
#[derive(Default)]
pub(in super::super) struct Watchers {
    watched: Mutex<HashMap<Watched, watch::Sender<()>>>,
}

type Watched = (Namespace, InstanceRef);

impl Watchers {
    /// What happens from now on wakes the result, even while nobody waits on it.
    pub(super) fn watch(self: &Arc<Self>, namespace: &Namespace, instance: &InstanceRef) -> LocalWatch {
        let watched = (namespace.clone(), instance.clone());
        let receiver = {
            let mut all = self.lock();
            let sender = all.entry(watched.clone()).or_insert_with(|| watch::channel(()).0);
            sender.subscribe()
        };
        LocalWatch {
            watchers: Arc::clone(self),
            watched,
            receiver: Some(receiver),
        }
    }

    /// The instance may have ended.
    pub(super) fn wake(&self, namespace: &Namespace, instance: &InstanceRef) {
        if let Some(sender) = self.lock().get(&(namespace.clone(), instance.clone())) {
            sender.send_replace(());
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Watched, watch::Sender<()>>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One who waits.
pub(super) struct LocalWatch {
    watchers: Arc<Watchers>,
    watched: Watched,
    /// Present until it is dropped.
    receiver: Option<watch::Receiver<()>>,
}

#[async_trait::async_trait]
impl Watch for LocalWatch {
    async fn changed(&mut self) {
        if let Some(receiver) = &mut self.receiver {
            // The sender lives as long as a receiver does, so this ends with a change. No timeout: the caller has one.
            let _ = receiver.changed().await;
        }
    }
}

impl Drop for LocalWatch {
    fn drop(&mut self) {
        let mut all = self.watchers.lock();
        self.receiver = None;
        if all
            .get(&self.watched)
            .is_some_and(|sender| sender.receiver_count() == 0)
        {
            all.remove(&self.watched);
        }
    }
}
