//! A subscription, and how its deliveries are settled.

use std::sync::Arc;

use super::super::kv::Transaction;
use super::super::open::Shared;
use super::leases::{SubscriptionId, Turn};
use super::{LiveQueue, queue};
use crate::backend::{Acknowledge, Browse, Browsed, Consumer, Delivery, Result};

/// A subscription to a queue of this process.
pub(super) struct LocalConsumer {
    settle: Arc<Settle>,
    cancelled: bool,
}

/// A look through a queue of this process: a subscription that does not wait.
pub(super) struct LocalBrowse(Arc<Settle>);

impl LocalBrowse {
    pub(super) fn begin(shared: Arc<Shared>, live: Arc<LiveQueue>) -> Self {
        // 0 is no limit.
        let id = live.leases().subscribe(0);
        Self(Arc::new(Settle { shared, live, id }))
    }
}

#[async_trait::async_trait]
impl Browse for LocalBrowse {
    async fn next(&mut self) -> Result<Option<Browsed>> {
        loop {
            self.0.shared.engine.catch_up().await?;
            match self.0.step(true)? {
                Step::Deliver(delivery) => {
                    return Ok(Some(Browsed {
                        body: delivery.body,
                        properties: delivery.properties,
                        tag: delivery.tag,
                    }));
                }
                Step::Mark(before) => self.0.mark(before).await?,
                Step::LetOthersGo => tokio::task::yield_now().await,
                Step::Wait | Step::Over => return Ok(None),
            }
        }
    }

    async fn remove(&mut self, tag: u64) -> Result<()> {
        let position = self.0.live.leases().position(self.0.id, tag);
        let Some(position) = position else { return Ok(()) };
        let live = Arc::clone(&self.0.live);
        let remove = move |to: &mut Transaction<'_>| queue::remove_message(to, &live.namespace, &live.queue, position);
        // Settled only when it is gone: a removal that fails leaves it to be put back with the rest.
        let (live, id) = (Arc::clone(&self.0.live), self.0.id);
        let settle = move |(): &()| {
            live.leases().settle(id, tag);
        };
        self.0.shared.engine.write(remove, settle).await
    }

    async fn close(self: Box<Self>) -> Result<()> {
        // What is left goes back with the last handle.
        Ok(())
    }
}

/// Settles the deliveries of one subscription. Lives as long as one of them, or the consumer, does.
struct Settle {
    shared: Arc<Shared>,
    live: Arc<LiveQueue>,
    id: SubscriptionId,
}

/// One step of [`LocalConsumer::next`].
enum Step {
    Deliver(Delivery),
    /// There is something to take, and it is others' turn if they want it.
    LetOthersGo,
    /// This note has to be durable first.
    Mark(u64),
    Wait,
    Over,
}

impl LocalConsumer {
    pub(super) fn subscribe(shared: Arc<Shared>, live: Arc<LiveQueue>, prefetch: u16) -> Self {
        let id = live.leases().subscribe(prefetch);
        let settle = Arc::new(Settle { shared, live, id });
        Self {
            settle,
            cancelled: false,
        }
    }
}

#[async_trait::async_trait]
impl Consumer for LocalConsumer {
    async fn next(&mut self) -> Option<Delivery> {
        let live = Arc::clone(&self.settle.live);
        let mut has_let_others_go = false;
        loop {
            // Registered before looking, so that nothing that happens in between is missed.
            let changed = live.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let step = match self.settle.shared.engine.catch_up().await {
                Ok(()) => self.settle.step(has_let_others_go),
                Err(error) => Err(error),
            };
            match step {
                Ok(Step::Deliver(delivery)) => return Some(delivery),
                Ok(Step::LetOthersGo) => {
                    tokio::task::yield_now().await;
                    has_let_others_go = true;
                }
                // No timeout: an idle queue waits as long as it is idle.
                Ok(Step::Wait) => changed.await,
                Ok(Step::Mark(before)) => {
                    if let Err(error) = self.settle.mark(before).await {
                        return self.settle.broken(&error);
                    }
                }
                Ok(Step::Over) => return None,
                Err(error) => return self.settle.broken(&error),
            }
        }
    }

    async fn cancel(&mut self) -> Result<()> {
        self.cancelled = true;
        self.settle.live.leases().cancel(self.settle.id);
        self.settle.live.changed.notify_waiters();
        Ok(())
    }
}

impl Drop for LocalConsumer {
    /// Without a cancellation the subscription ends like a closed AMQP channel: at once, with all that is unsettled.
    fn drop(&mut self) {
        if !self.cancelled {
            self.settle.close();
        }
    }
}

impl Settle {
    fn step(self: &Arc<Self>, has_let_others_go: bool) -> Result<Step> {
        let LiveQueue { namespace, queue, .. } = &*self.live;
        let engine = &self.shared.engine;
        let mut leases = self.live.leases();
        let (position, message) = loop {
            match leases.turn(self.id) {
                Turn::Over => return Ok(Step::Over),
                Turn::Wait => return Ok(Step::Wait),
                Turn::Returned(position) => {
                    match engine.read(|from| queue::message(from, namespace, queue, position))? {
                        Some(message) => break (position, message),
                        None => leases.gone(position),
                    }
                }
                Turn::From(position) => match engine.read(|from| queue::next(from, namespace, queue, position))? {
                    Some(found) => break found,
                    None => return Ok(Step::Wait),
                },
            }
        };
        if !has_let_others_go && leases.goes_last(self.id) {
            return Ok(Step::LetOthersGo);
        }
        if let Some(before) = leases.mark_needed(position) {
            return Ok(Step::Mark(before));
        }
        let wanted = leases.mark_wanted(position);
        let Some((tag, redelivered)) = leases.lease(self.id, position) else {
            return Ok(Step::Over);
        };
        drop(leases);
        if let Some(before) = wanted {
            self.mark_soon(before);
        }
        let mut stored = queue::read(message, queue);
        Ok(Step::Deliver(Delivery {
            properties: stored.properties(),
            body: stored.body,
            routed_to: Some(stored.to),
            redelivered,
            user: None,
            tag,
            acknowledge: Arc::clone(self) as Arc<dyn Acknowledge>,
        }))
    }

    /// Makes the note durable and waits for it.
    async fn mark(&self, before: u64) -> Result<()> {
        let (noting, noted) = (Arc::clone(&self.live), Arc::clone(&self.live));
        let mark = move |to: &mut Transaction<'_>| queue::mark_delivered(to, &noting.namespace, &noting.queue, before);
        let done = move |(): &()| noted.leases().marked(before);
        self.shared.engine.write(mark, done).await
    }

    /// Makes the note durable along with whatever is written next.
    fn mark_soon(&self, before: u64) {
        let (noting, noted) = (Arc::clone(&self.live), Arc::clone(&self.live));
        let mark = move |to: &mut Transaction<'_>| queue::mark_delivered(to, &noting.namespace, &noting.queue, before);
        self.shared.engine.post(mark, move |()| noted.leases().marked(before));
    }

    fn close(&self) {
        let LiveQueue { namespace, queue, .. } = &*self.live;
        let state = self.shared.engine.read(|from| queue::state(from, namespace, queue));
        // A queue that cannot be read just now has no end that is known.
        let tail = state.map_or(u64::MAX, |state| state.map_or(0, |state| state.tail));
        self.live.leases().close(self.id, tail);
        self.live.changed.notify_waiters();
    }

    /// The engine does not work: ends the subscription, as a lost connection would.
    fn broken(&self, error: &crate::backend::Error) -> Option<Delivery> {
        tracing::warn!(queue = %self.live.queue, %error, "the subscription ends: its queue cannot be read");
        self.close();
        None
    }
}

impl Acknowledge for Settle {
    fn ack(&self, tag: u64) {
        let (position, was_full) = {
            let mut leases = self.live.leases();
            let was_full = leases.is_full(self.id);
            (leases.settle(self.id, tag), was_full)
        };
        if let Some(position) = position {
            let live = Arc::clone(&self.live);
            let remove =
                move |to: &mut Transaction<'_>| queue::remove_message(to, &live.namespace, &live.queue, position);
            self.shared.engine.post(remove, |()| ());
        }
        if was_full {
            self.live.changed.notify_waiters();
        }
    }

    fn requeue(&self, tag: u64) {
        self.live.leases().requeue(self.id, tag);
        self.live.changed.notify_waiters();
    }
}

impl Drop for Settle {
    /// Nobody can settle its deliveries any more.
    fn drop(&mut self) {
        self.close();
    }
}
