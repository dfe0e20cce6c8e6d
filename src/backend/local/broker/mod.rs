//! The broker: queues in the engine, leases in memory.
//!
//! A message is stored under its queue and position and deleted when its acknowledgement reaches the engine. Acknowledgements are not awaited, so a
//! crash may bring back what was acknowledged last; nothing that was published is ever lost.

mod consumer;
mod leases;
mod queue;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use self::consumer::{LocalBrowse, LocalConsumer};
use self::leases::Leases;
use super::engine::Engine;
use super::kv::Transaction;
use super::open::Shared;
use super::store::trash;
use crate::backend::{Broker, Browse, Consumer, Error, Message, Queue, QueueDepth, Result};
use crate::model::{AppId, Namespace};

/// The live side of all queues of an engine; every broker on it shares them.
#[derive(Default)]
pub(super) struct LiveQueues {
    queues: Mutex<HashMap<(Namespace, Queue), Arc<LiveQueue>>>,
}

/// The live side of one queue.
struct LiveQueue {
    namespace: Namespace,
    queue: Queue,
    leases: Mutex<Leases>,
    /// Told when there may be something to take: a message, room under a prefetch, a turn as the active consumer, an end.
    changed: Notify,
}

impl LiveQueue {
    fn leases(&self) -> MutexGuard<'_, Leases> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LiveQueues {
    fn lock(&self) -> MutexGuard<'_, HashMap<(Namespace, Queue), Arc<LiveQueue>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The queue, if anybody has ever subscribed to it in this process.
    fn known(&self, namespace: &Namespace, queue: &Queue) -> Option<Arc<LiveQueue>> {
        self.lock().get(&(namespace.clone(), queue.clone())).cloned()
    }

    /// The queue, with leases as the store has them if this is the first subscription.
    fn join(&self, namespace: &Namespace, queue: &Queue, state: &queue::State) -> Arc<LiveQueue> {
        let fresh = || {
            let single_active = matches!(queue, Queue::Events(..));
            Arc::new(LiveQueue {
                namespace: namespace.clone(),
                queue: queue.clone(),
                leases: Mutex::new(Leases::new(single_active, state.floor, state.delivered)),
                changed: Notify::new(),
            })
        };
        let mut queues = self.lock();
        queues
            .entry((namespace.clone(), queue.clone()))
            .or_insert_with(fresh)
            .clone()
    }
}

/// [`Broker`] on an engine.
pub(super) struct LocalBroker {
    shared: Arc<Shared>,
    namespace: Namespace,
}

impl LocalBroker {
    pub(super) fn new(shared: Arc<Shared>, namespace: Namespace) -> Self {
        Self { shared, namespace }
    }

    fn engine(&self) -> &Engine {
        &self.shared.engine
    }

    /// The live side of a queue that exists.
    fn join(&self, queue: &Queue) -> Result<Arc<LiveQueue>> {
        let state = self.engine().read(|from| queue::state(from, &self.namespace, queue))?;
        let state = state.ok_or_else(|| {
            Error::permanent(format!(
                "queue {}.{queue} does not exist: no worker of the app has declared it",
                self.namespace
            ))
        })?;
        Ok(self.shared.queues.join(&self.namespace, queue, &state))
    }
}

#[async_trait::async_trait]
impl Broker for LocalBroker {
    async fn declare(&self, app: &AppId, lanes: u16) -> Result<()> {
        let (namespace, queues) = (self.namespace.clone(), queues_of(app, lanes));
        let declare = move |to: &mut Transaction<'_>| {
            queues
                .iter()
                .try_for_each(|queue| queue::declare(to, &namespace, queue))
        };
        self.engine().write(declare, |_| ()).await
    }

    async fn publish(&self, message: Message) -> Result<()> {
        let stored = queue::Stored {
            to: message.queue,
            body: message.body,
            content_type: message.properties.content_type,
            message_id: message.properties.message_id,
            headers: message.properties.headers,
        };
        let namespace = self.namespace.clone();
        let live = Arc::clone(&self.shared.queues);
        let woken = namespace.clone();
        let append = move |to: &mut Transaction<'_>| queue::append(to, &namespace, &stored);
        let wake = move |queue: &Queue| {
            if let Some(live) = live.known(&woken, queue) {
                live.changed.notify_waiters();
            }
        };
        self.engine().write(append, wake).await.map(drop)
    }

    async fn consume(&self, queue: &Queue, prefetch: u16) -> Result<Box<dyn Consumer>> {
        let live = self.join(queue)?;
        Ok(Box::new(LocalConsumer::subscribe(
            Arc::clone(&self.shared),
            live,
            prefetch,
        )))
    }

    async fn browse(&self, queue: &Queue) -> Result<Box<dyn Browse>> {
        let live = self.join(queue)?;
        Ok(Box::new(LocalBrowse::begin(Arc::clone(&self.shared), live)))
    }

    async fn depth(&self, queue: &Queue) -> Result<Option<QueueDepth>> {
        let state = self.engine().read(|from| queue::state(from, &self.namespace, queue))?;
        let live = self.shared.queues.known(&self.namespace, queue);
        let (consumers, unsettled) = live.map_or((0, 0), |live| {
            let leases = live.leases();
            (leases.consumers(), leases.unsettled())
        });
        Ok(state.map(|state| QueueDepth {
            messages: state.count.saturating_sub(unsettled),
            consumers,
        }))
    }

    async fn remove(&self, app: &AppId, lanes: u16) -> Result<()> {
        for queue in queues_of(app, lanes) {
            let (namespace, removed) = (self.namespace.clone(), queue.clone());
            let live = self.shared.queues.known(&self.namespace, &queue);
            let remove = move |to: &mut Transaction<'_>| {
                let Some((messages, floor)) = queue::remove(to, &namespace, &removed)? else {
                    return Ok(None);
                };
                trash::throw(to, &namespace, messages)?;
                Ok(Some(floor))
            };
            let end = move |floor: &Option<u64>| {
                if let (Some(live), Some(floor)) = (live, floor) {
                    live.leases().remove(*floor);
                    live.changed.notify_waiters();
                }
            };
            self.engine().write(remove, end).await?;
        }
        trash::empty_soon(self.engine(), &self.namespace);
        Ok(())
    }

    fn readiness(&self) -> std::result::Result<(), String> {
        self.engine().readiness()
    }
}

/// All queues of an app.
fn queues_of(app: &AppId, lanes: u16) -> Vec<Queue> {
    let own = [
        Queue::Workflows(app.clone()),
        Queue::Activities(app.clone()),
        Queue::Dead(app.clone()),
    ];
    let events = (0..lanes).map(|lane| Queue::Events(app.clone(), lane));
    own.into_iter().chain(events).collect()
}
