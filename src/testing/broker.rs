//! The broker as a process reaches it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::process::State;
use super::world::{Observed, Shared};
use crate::backend::{
    Acknowledge, Broker, Browse, Browsed, Consumer, Delivery, Error, Message, Queue, QueueDepth, Result,
};
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
            world.unblocked(&message).await?;
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
        // From the beginning the subscription ends with its connection, even if nobody hears of it.
        let operation = async {
            let link = self.process.link();
            let consumer = self.world.broker().consume(queue, prefetch).await?;
            Ok((
                Channel::open(self.world.clone(), self.process.clone(), consumer, link.clone()),
                link,
            ))
        };
        let (channel, link) = self.process.request(&self.world, operation).await?;
        let (sender, mirrored) = mpsc::unbounded_channel();
        self.world.mirrors.join(queue, &self.process, sender);
        Ok(Box::new(SimulatedConsumer {
            channel,
            queue: queue.clone(),
            world: self.world.clone(),
            process: self.process.clone(),
            link,
            mirrored,
            overtaken: VecDeque::new(),
        }))
    }

    async fn browse(&self, queue: &Queue) -> Result<Box<dyn Browse>> {
        let operation = self.world.broker().browse(queue);
        let link = self.process.link();
        Ok(Box::new(SimulatedBrowse {
            inner: Some(self.process.request(&self.world, operation).await?),
            world: self.world.clone(),
            process: self.process.clone(),
            link,
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
        match self.world.blocked_until() {
            Some(_) => Err("simulated: the broker blocks publishers".to_owned()),
            None => Ok(()),
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the network owns the message now, not the process"
)]
pub(super) fn publish_later(world: Arc<Shared>, message: Message, time: Duration) {
    tokio::spawn(async move {
        tokio::time::sleep(time).await;
        // A memory broker takes everything.
        let _ = world.publish(message).await;
    });
}

/// The way of the deliveries from the broker to the process. It ends with the connection, whatever the process does: what was not acknowledged
/// goes back then.
struct Channel {
    deliveries: mpsc::UnboundedReceiver<Delivery>,
    cancel: mpsc::UnboundedSender<oneshot::Sender<()>>,
    unsettled: Arc<Unsettled>,
    /// Dropped when nobody can settle anything any more.
    in_use: Arc<DropGuard>,
}

/// What was handed out and is not settled. The broker's, not the process's: the tasks of a dead process keep their deliveries for ever.
#[derive(Default)]
struct Unsettled(Mutex<BTreeMap<u64, Arc<dyn Acknowledge>>>);

impl Unsettled {
    fn hand_out(&self, delivery: &Delivery) {
        self.lock().insert(delivery.tag, delivery.acknowledge.clone());
    }

    fn take(&self, tag: u64) -> Option<Arc<dyn Acknowledge>> {
        self.lock().remove(&tag)
    }

    fn all_go_back(&self) {
        for (tag, acknowledge) in std::mem::take(&mut *self.lock()) {
            acknowledge.requeue(tag);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<dyn Acknowledge>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Channel {
    #[expect(
        clippy::disallowed_methods,
        reason = "the broker's side does not belong to the process"
    )]
    fn open(world: Arc<Shared>, process: Arc<State>, mut consumer: Box<dyn Consumer>, link: CancellationToken) -> Self {
        let (sender, deliveries) = mpsc::unbounded_channel();
        let (cancel, mut cancelled) = mpsc::unbounded_channel::<oneshot::Sender<()>>();
        let (unsettled, unused) = (Arc::<Unsettled>::default(), CancellationToken::new());
        let (handed_out, in_use) = (unsettled.clone(), Arc::new(unused.clone().drop_guard()));
        tokio::spawn(async move {
            let mut is_cancelled = false;
            loop {
                tokio::select! {
                    biased;
                    () = link.cancelled() => break,
                    Some(answer) = cancelled.recv() => {
                        // Ending it twice is no error.
                        let _ = consumer.cancel().await;
                        let _ = answer.send(());
                        is_cancelled = true;
                    }
                    // Dropped without a word, as when a channel is closed.
                    () = sender.closed(), if !is_cancelled => return,
                    delivery = consumer.next() => match delivery {
                        Some(delivery) => {
                            handed_out.hand_out(&delivery);
                            drop(sender.send(delivery.settled_by(Arc::new(Nothing))));
                        }
                        None => break,
                    },
                }
            }
            // Cancelled: what was handed out can still be settled.
            tokio::select! {
                biased;
                () = link.cancelled() => unnoticed(&world, &process).await,
                () = unused.cancelled() => {}
            }
            drop(consumer);
            handed_out.all_go_back();
        });
        Self {
            deliveries,
            cancel,
            unsettled,
            in_use,
        }
    }
}

/// Until the broker has noticed that the connection broke.
async fn unnoticed(world: &Shared, process: &State) {
    if process.is_alive() {
        tokio::time::sleep(world.dice.duration(world.faults().unnoticed)).await;
    }
}

/// A look through a queue. It ends with its connection.
struct SimulatedBrowse {
    inner: Option<Box<dyn Browse>>,
    world: Arc<Shared>,
    process: Arc<State>,
    link: CancellationToken,
}

impl SimulatedBrowse {
    /// The broker's side, while the connection stands.
    fn open(&mut self) -> Result<Box<dyn Browse>> {
        if self.link.is_cancelled() {
            self.inner = None;
        }
        self.inner
            .take()
            .ok_or_else(|| Error::unknown("simulated: the connection was lost"))
    }
}

#[async_trait::async_trait]
impl Browse for SimulatedBrowse {
    async fn next(&mut self) -> Result<Option<Browsed>> {
        let mut inner = self.open()?;
        let found = self.process.request(&self.world, inner.next()).await?;
        self.inner = Some(inner);
        Ok(found)
    }

    async fn remove(&mut self, tag: u64) -> Result<()> {
        let mut inner = self.open()?;
        self.process.request(&self.world, inner.remove(tag)).await?;
        self.inner = Some(inner);
        Ok(())
    }

    async fn close(mut self: Box<Self>) -> Result<()> {
        let inner = self.open()?;
        self.process.request(&self.world, inner.close()).await
    }
}

struct SimulatedConsumer {
    channel: Channel,
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
        let delivery = tokio::select! {
            biased;
            () = self.link.cancelled() => None,
            Some(mirrored) = self.mirrored.recv() => return Some(mirrored),
            delivery = self.channel.deliveries.recv() => delivery,
        }?;
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
            if let Ok(Some(next)) = tokio::time::timeout(OVERTAKING, self.channel.deliveries.recv()).await {
                return Some(self.wrap(next));
            }
            return self.overtaken.pop_front();
        }
        Some(delivery)
    }

    async fn cancel(&mut self) -> Result<()> {
        self.process.goes_on().await;
        let (answer, answered) = oneshot::channel();
        if self.channel.cancel.send(answer).is_ok() {
            // Without an answer the connection is gone, and with it the subscription.
            let _ = answered.await;
        }
        // What was not handed out.
        while let Ok(delivery) = self.channel.deliveries.try_recv() {
            let delivery = self.wrap(delivery);
            self.overtaken.push_back(delivery);
        }
        for delivery in self.overtaken.drain(..) {
            delivery.requeue();
        }
        Ok(())
    }
}

impl SimulatedConsumer {
    fn wrap(&self, delivery: Delivery) -> Delivery {
        let settle = Settle {
            unsettled: self.channel.unsettled.clone(),
            _in_use: self.channel.in_use.clone(),
            queue: self.queue.clone(),
            body: delivery.body.clone(),
            world: self.world.clone(),
            process: self.process.clone(),
            link: self.link.clone(),
        };
        delivery.settled_by(Arc::new(settle))
    }
}

/// Settles one delivery, if its connection still stands.
struct Settle {
    unsettled: Arc<Unsettled>,
    _in_use: Arc<DropGuard>,
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
        self.process.may_die(&self.world);
        if self.arrives()
            && let Some(settle) = self.unsettled.take(tag)
        {
            settle.ack(tag);
        }
        self.process.may_die(&self.world);
    }

    fn requeue(&self, tag: u64) {
        if self.arrives()
            && let Some(settle) = self.unsettled.take(tag)
        {
            settle.requeue(tag);
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

impl Delivery {
    fn settled_by(self, acknowledge: Arc<dyn Acknowledge>) -> Self {
        Self { acknowledge, ..self }
    }
}

struct Nothing;

impl Acknowledge for Nothing {
    fn ack(&self, _tag: u64) {}

    fn requeue(&self, _tag: u64) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::simulate;

    #[test]
    fn what_a_process_had_when_it_died_goes_back_although_it_had_unsubscribed() {
        simulate(1, async |world| {
            let (app, process) = (AppId::new("orders").unwrap(), world.process("dies"));
            let queue = Queue::Activities(app.clone());
            let broker = process.backend().broker().clone();
            broker.declare(&app, 1).await.unwrap();
            let message = Message::bundle(queue.clone(), "body".into(), &crate::model::MessageId::generate());
            broker.publish(message).await.unwrap();
            let mut consumer = broker.consume(&queue, 1).await.unwrap();
            let in_hand = consumer.next().await.unwrap();
            consumer.cancel().await.unwrap();
            drop(consumer);
            process.kill();
            let next = world.process("next").backend().broker().clone();
            let mut consumer = next.consume(&queue, 1).await.unwrap();
            let again = tokio::time::timeout(Duration::from_secs(60), consumer.next()).await;
            let again = again.expect("it is delivered again").unwrap();
            assert!(again.redelivered && again.body == in_hand.body);
        });
    }
}
