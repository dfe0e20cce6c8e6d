//! A subscription: one channel on the consuming connection.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use lapin::Channel;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::link::{Link, Loss};
use super::names::Names;
use super::settle::{Settler, Settling};
use super::supervisor::Shared;
use super::{fault, properties};
use crate::backend::{Acknowledge, Consumer, Delivery, Error, Queue, Result};

/// Deliveries of one queue. Its channel lives on after a cancel until everything that was handed out is settled or dropped; when the subscription
/// itself is dropped without a cancel, the channel closes and what is unsettled goes back to the queue.
pub(super) struct Subscription {
    stream: lapin::Consumer,
    channel: Channel,
    names: Names,
    settler: Arc<Settler>,
    loss: Loss,
    /// Closes the channel.
    stop: CancellationToken,
    stage: Stage,
    cancel_timeout: Duration,
}

#[derive(PartialEq)]
enum Stage {
    /// Deliveries come.
    Open,
    /// A cancel is under way or was given up: nothing is handed out any more.
    Cancelling,
    /// Nothing comes any more, and what was handed out can be settled.
    Ended,
}

impl Subscription {
    /// Subscribes on a new channel of the link.
    pub(super) async fn open(shared: &Shared, link: &Link, queue: &Queue, prefetch: u16) -> Result<Self> {
        let name = shared.names.queue(queue);
        let failed = |error| fault::request(&format!("cannot consume from queue {name}"), error);
        let channel = link.channel().await.map_err(failed)?;
        // AMQP reads 0 as "without bound".
        channel
            .basic_qos(prefetch.max(1), BasicQosOptions::default())
            .await
            .map_err(failed)?;
        let stream = channel
            .basic_consume(
                name.as_str().into(),
                "".into(),
                BasicConsumeOptions::default(),
                FieldTable::default(),
            )
            .await
            .map_err(failed)?;
        let stop = shared.stop_subscriptions.child_token();
        let (settler, settling) = Settling::new(channel.clone(), stream.clone(), link.loss.clone(), stop.clone());
        shared.subscriptions.spawn(settling.run());
        Ok(Self {
            stream,
            channel,
            names: shared.names.clone(),
            settler: Arc::new(settler),
            loss: link.loss.clone(),
            stop,
            stage: Stage::Open,
            cancel_timeout: shared.config.request_timeout,
        })
    }

    fn delivery(&self, message: lapin::message::Delivery) -> Delivery {
        let amqp = &message.properties;
        Delivery {
            properties: properties::from_amqp(amqp),
            routed_to: self.names.read(message.routing_key.as_str()),
            redelivered: message.redelivered || properties::was_delivered(amqp),
            user: amqp.user_id().as_ref().map(|user| user.as_str().to_owned()),
            tag: message.delivery_tag,
            acknowledge: self.settler.clone(),
            body: Bytes::from(message.data),
        }
    }
}

#[async_trait::async_trait]
impl Consumer for Subscription {
    async fn next(&mut self) -> Option<Delivery> {
        if self.stage != Stage::Open {
            return None;
        }
        // The loss first: the deliveries that the client library still holds of a dead link cannot be settled any more.
        let message = tokio::select! {
            biased;
            () = self.loss.happened() => None,
            () = self.stop.cancelled() => None,
            message = self.stream.next() => Some(message),
        };
        match message {
            Some(Some(Ok(message))) => return Some(self.delivery(message)),
            // The broker cancelled it, because the queue is gone or moves: what was handed out can still be settled.
            Some(None) => self.stage = Stage::Ended,
            Some(Some(Err(error))) => {
                tracing::warn!(%error, queue = %self.stream.queue(), "a subscription ended");
                if !error.is_amqp_soft_error() {
                    // More than this channel is gone: who subscribes again at once waits for the next link.
                    self.loss.report(error.to_string());
                }
                self.stage = Stage::Cancelling;
                self.stop.cancel();
            }
            None => self.stage = Stage::Cancelling,
        }
        None
    }

    async fn cancel(&mut self) -> Result<()> {
        if self.stage != Stage::Open {
            return Ok(());
        }
        self.stage = Stage::Cancelling;
        let hand_back = async {
            self.channel
                .basic_cancel(self.stream.tag(), BasicCancelOptions::default())
                .await?;
            // The broker sends nothing behind its answer: what is here now is all there is.
            while let Some(Ok(message)) = self.stream.next().await {
                self.settler.requeue(message.delivery_tag);
            }
            Ok::<_, lapin::Error>(())
        };
        let cancelled = tokio::select! {
            biased;
            // Everything went back with the connection.
            () = self.loss.happened() => return Ok(()),
            cancelled = timeout(self.cancel_timeout, hand_back) => cancelled,
        };
        let what = format!("cannot cancel the subscription to {}", self.stream.queue());
        match cancelled {
            Ok(Ok(())) => {
                self.stage = Stage::Ended;
                return Ok(());
            }
            Ok(Err(error)) => {
                self.stop.cancel();
                Err(fault::request(&what, error))
            }
            Err(_) => {
                self.stop.cancel();
                Err(Error::unknown(format!(
                    "{what}: no answer within {:?}; its channel is closed",
                    self.cancel_timeout
                )))
            }
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if self.stage != Stage::Ended {
            self.stop.cancel();
        }
    }
}
