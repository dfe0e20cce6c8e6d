//! The broker as a process reaches it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::process::State;
use super::world::{Observed, Shared};
use crate::backend::{Acknowledge, Broker, Consumer, Delivery, Error, Message, Queue, QueueDepth, Result};
use crate::model::AppId;

pub(super) struct SimulatedBroker {
    pub(super) world: Arc<Shared>,
    pub(super) process: Arc<State>,
}

#[async_trait::async_trait]
impl Broker for SimulatedBroker {
    async fn declare(&self, app: &AppId, lanes: u16) -> Result<()> {
        let operation = self.world.broker().declare(app, lanes);
        self.process.request(&self.world, operation).await
    }

    async fn publish(&self, message: Message) -> Result<()> {
        let world = &self.world;
        let operation = async {
            world.unblocked().await;
            self.process.goes_on().await;
            let faults = world.faults();
            if world.dice.happens(faults.late) {
                publish_later(world.clone(), message, world.dice.duration(faults.lateness));
                return Err(Error::unknown("simulated: the message is still on its way"));
            }
            if world.dice.happens(faults.doubled) {
                world.publish(message.clone()).await?;
            }
            world.publish(message).await
        };
        self.process.request(world, operation).await
    }

    async fn consume(&self, queue: &Queue, prefetch: u16) -> Result<Box<dyn Consumer>> {
        let link = self.process.link();
        let operation = self.world.broker().consume(queue, prefetch);
        let consumer = self.process.request(&self.world, operation).await?;
        let (sender, mirrored) = mpsc::unbounded_channel();
        self.world.mirrors.join(queue, &self.process, sender);
        Ok(Box::new(SimulatedConsumer {
            inner: Some(consumer),
            queue: queue.clone(),
            world: self.world.clone(),
            process: self.process.clone(),
            link,
            mirrored,
            overtaken: VecDeque::new(),
        }))
    }

    async fn depth(&self, queue: &Queue) -> Result<Option<QueueDepth>> {
        let operation = self.world.broker().depth(queue);
        self.process.request(&self.world, operation).await
    }

    async fn remove(&self, app: &AppId, lanes: u16) -> Result<()> {
        let operation = self.world.broker().remove(app, lanes);
        self.process.request(&self.world, operation).await
    }

    fn readiness(&self) -> std::result::Result<(), String> {
        Ok(())
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the network owns the message now, not the process"
)]
fn publish_later(world: Arc<Shared>, message: Message, time: Duration) {
    tokio::spawn(async move {
        tokio::time::sleep(time).await;
        // A memory broker takes everything.
        let _ = world.publish(message).await;
    });
}

struct SimulatedConsumer {
    /// None once the connection is broken or the subscription cancelled.
    inner: Option<Box<dyn Consumer>>,
    queue: Queue,
    world: Arc<Shared>,
    process: Arc<State>,
    link: CancellationToken,
    /// What another consumer has got as well.
    mirrored: mpsc::UnboundedReceiver<Delivery>,
    /// What was overtaken.
    overtaken: VecDeque<Delivery>,
}

/// How long a delivery waits for one that overtakes it.
const OVERTAKING: Duration = Duration::from_millis(50);

#[async_trait::async_trait]
impl Consumer for SimulatedConsumer {
    async fn next(&mut self) -> Option<Delivery> {
        self.process.goes_on().await;
        if let Some(delivery) = self.overtaken.pop_front() {
            return Some(delivery);
        }
        let inner = self.inner.as_mut()?;
        let delivery = tokio::select! {
            biased;
            () = self.link.cancelled() => None,
            Some(mirrored) = self.mirrored.recv() => return Some(mirrored),
            delivery = inner.next() => delivery,
        };
        let Some(delivery) = delivery else {
            // With it everything goes back that was not acknowledged.
            self.inner = None;
            self.process.goes_on().await;
            return None;
        };
        let faults = self.world.faults();
        if self.world.dice.happens(faults.to_two) {
            self.world
                .mirrors
                .copy(&self.world, &self.queue, &self.process, &delivery);
        }
        let delivery = self.wrap(delivery);
        if self.world.dice.happens(faults.overtaken) {
            // Kept where a caller who goes away in the middle does not lose it.
            self.overtaken.push_back(delivery);
            let inner = self.inner.as_mut()?;
            if let Ok(Some(next)) = tokio::time::timeout(OVERTAKING, inner.next()).await {
                let next = self.wrap(next);
                return Some(next);
            }
            return self.overtaken.pop_front();
        }
        Some(delivery)
    }

    async fn cancel(&mut self) -> Result<()> {
        self.process.goes_on().await;
        // What was overtaken was not handed out.
        for delivery in self.overtaken.drain(..) {
            delivery.requeue();
        }
        match &mut self.inner {
            Some(inner) => inner.cancel().await,
            None => Ok(()),
        }
    }
}

impl SimulatedConsumer {
    fn wrap(&self, delivery: Delivery) -> Delivery {
        let settle = Settle {
            inner: delivery.acknowledge.clone(),
            queue: self.queue.clone(),
            body: delivery.body.clone(),
            world: self.world.clone(),
            process: self.process.clone(),
            link: self.link.clone(),
        };
        Delivery {
            acknowledge: Arc::new(settle),
            ..delivery
        }
    }
}

/// Settles one delivery, if its connection still stands.
struct Settle {
    inner: Arc<dyn Acknowledge>,
    queue: Queue,
    body: bytes::Bytes,
    world: Arc<Shared>,
    process: Arc<State>,
    link: CancellationToken,
}

impl Settle {
    fn arrives(&self) -> bool {
        if self.world.dice.happens(self.world.faults().cut) {
            self.process.cut();
        }
        self.process.is_alive() && !self.link.is_cancelled()
    }
}

impl Acknowledge for Settle {
    fn ack(&self, tag: u64) {
        // Whether it arrives or not: whoever acknowledges holds that everything is done.
        if self.process.is_alive() {
            let (queue, body) = (&self.queue, &self.body);
            self.world.observed(&Observed::Acknowledged { queue, body });
        }
        if self.arrives() {
            self.inner.ack(tag);
        }
    }

    fn requeue(&self, tag: u64) {
        if self.arrives() {
            self.inner.requeue(tag);
        }
    }
}

/// Who consumes what, so that a delivery can go to two.
#[derive(Default)]
pub(super) struct Mirrors(Mutex<Vec<Mirror>>);

struct Mirror {
    queue: Queue,
    process: Arc<State>,
    sender: mpsc::UnboundedSender<Delivery>,
}

impl Mirrors {
    fn join(&self, queue: &Queue, process: &Arc<State>, sender: mpsc::UnboundedSender<Delivery>) {
        let mut all = self.lock();
        all.retain(|mirror| !mirror.sender.is_closed() && mirror.process.is_alive());
        all.push(Mirror {
            queue: queue.clone(),
            process: process.clone(),
            sender,
        });
    }

    /// Gives a copy to a consumer in another process. Settling it means nothing.
    fn copy(&self, world: &Shared, queue: &Queue, from: &Arc<State>, delivery: &Delivery) {
        let all = self.lock();
        let others: Vec<_> = all
            .iter()
            .filter(|mirror| mirror.queue == *queue && mirror.process.is_alive() && !Arc::ptr_eq(&mirror.process, from))
            .collect();
        if let Some(mirror) = others.get(world.dice.one_of(others.len())) {
            let copy = Delivery {
                body: delivery.body.clone(),
                properties: delivery.properties.clone(),
                routed_to: delivery.routed_to.clone(),
                redelivered: delivery.redelivered,
                user: delivery.user.clone(),
                tag: 0,
                acknowledge: Arc::new(Nothing),
            };
            // One that has just gone misses nothing: the first consumer has it.
            let _ = mirror.sender.send(copy);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Mirror>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Nothing;

impl Acknowledge for Nothing {
    fn ack(&self, _tag: u64) {}

    fn requeue(&self, _tag: u64) {}
}
