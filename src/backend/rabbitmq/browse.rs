//! Looking through a queue: messages are got one by one on a channel of its own and stay unacknowledged. When the channel closes, in whatever way, the
//! broker puts them back: a classic queue in their places, a quorum queue (3.10.8) in any order, and not before it has written that down. So an orderly end
//! hands them back first and waits until the queue shows them again.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicGetOptions, BasicNackOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;

use super::link::{Link, Loss};
use super::supervisor::Shared;
use super::{fault, properties};
use crate::backend::{Browse, Browsed, Error, Queue, Result};

/// The tag that means every message of the channel that is not settled.
const ALL: u64 = 0;
/// How long what was handed back may take to be shown, and how often that is looked at.
const SHOWN_WITHIN: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// See the module.
pub(super) struct Browsing {
    channel: Channel,
    /// The queue's name on the server.
    name: String,
    /// How many were found and not removed.
    held: u32,
    loss: Loss,
    /// Longest time for one request.
    limit: Duration,
    /// For the end of a look that is dropped.
    tasks: TaskTracker,
}

impl Browsing {
    /// Opens a channel of the link for it.
    pub(super) async fn open(shared: &Shared, link: &Link, queue: &Queue) -> Result<Self> {
        let name = shared.names.queue(queue);
        let failed = |error| fault::request(&format!("cannot look through queue {name}"), error);
        let channel = link.channel().await.map_err(failed)?;
        let browsing = Self {
            channel,
            name: name.clone(),
            held: 0,
            loss: link.loss.clone(),
            limit: shared.config.request_timeout,
            tasks: shared.tasks.clone(),
        };
        // A get from a missing queue would say so too; but it is said here, before anything is done.
        ask(&browsing.channel, &name).await.map_err(failed)?;
        Ok(browsing)
    }

    async fn request<T>(&self, request: impl Future<Output = lapin::Result<T>>) -> Result<T> {
        let what = format!("cannot look through queue {}", self.name);
        tokio::select! {
            biased;
            () = self.loss.happened() => Err(Error::unknown(format!("{what}: the connection to the broker was lost"))),
            answered = timeout(self.limit, request) => match answered {
                Ok(answer) => answer.map_err(|error| fault::request(&what, error)),
                Err(_) => Err(Error::unknown(format!("{what}: the broker does not answer within {:?}", self.limit))),
            },
        }
    }
}

#[async_trait::async_trait]
impl Browse for Browsing {
    async fn next(&mut self) -> Result<Option<Browsed>> {
        let get = self
            .channel
            .basic_get(self.name.as_str().into(), BasicGetOptions::default());
        let Some(message) = self.request(get).await? else {
            return Ok(None);
        };
        self.held += 1;
        Ok(Some(Browsed {
            properties: properties::from_amqp(&message.delivery.properties),
            tag: message.delivery.delivery_tag,
            body: Bytes::from(message.delivery.data),
        }))
    }

    async fn remove(&mut self, tag: u64) -> Result<()> {
        self.held = self.held.saturating_sub(1);
        self.request(self.channel.basic_ack(tag, BasicAckOptions::default()))
            .await
    }

    async fn close(self: Box<Self>) -> Result<()> {
        if self.held > 0 {
            let options = BasicNackOptions {
                multiple: true,
                requeue: true,
            };
            self.request(self.channel.basic_nack(ALL, options)).await?;
            // Somebody may take them at once: then there are never as many.
            let _ = timeout(SHOWN_WITHIN, self.until_shown()).await;
        }
        // The broker answers after it has dealt with all that came before on the channel.
        self.request(self.channel.close(200, "done".into())).await
    }
}

impl Browsing {
    /// Returns when the queue shows as many messages as were handed back.
    async fn until_shown(&self) -> Result<()> {
        while self.request(ask(&self.channel, &self.name)).await? < self.held {
            sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }
}

/// Asks a queue how many messages wait in it: an error if it does not exist.
async fn ask(channel: &Channel, queue: &str) -> lapin::Result<u32> {
    let options = QueueDeclareOptions {
        passive: true,
        ..Default::default()
    };
    let asked = channel
        .queue_declare(queue.into(), options, FieldTable::default())
        .await;
    asked.map(|queue| queue.message_count())
}

impl Drop for Browsing {
    fn drop(&mut self) {
        if self.channel.status().connected() {
            let channel = self.channel.clone();
            self.tasks.spawn(async move {
                let closed = channel.close(200, "dropped".into()).await;
                tracing::trace!(?closed, "a look through a queue was dropped");
            });
        }
    }
}
