//! Looking through a queue: messages are got one by one on a channel of its own and stay unacknowledged. When the channel closes, in whatever way, the
//! broker puts them back. A quorum queue (3.10.8) puts what a closing channel had back in any order, so that an orderly end hands each back first.

use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::try_join_all;
use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicGetOptions, BasicNackOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::link::{Link, Loss};
use super::supervisor::Shared;
use super::{fault, properties};
use crate::backend::{Browse, Browsed, Error, Queue, Result};

/// See the module.
pub(super) struct Browsing {
    channel: Channel,
    /// The queue's name on the server.
    name: String,
    /// What was found and not removed.
    found: BTreeSet<u64>,
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
            found: BTreeSet::new(),
            loss: link.loss.clone(),
            limit: shared.config.request_timeout,
            tasks: shared.tasks.clone(),
        };
        // A get from a missing queue would say so too; but it is said here, before anything is done.
        let options = QueueDeclareOptions {
            passive: true,
            ..Default::default()
        };
        browsing
            .channel
            .queue_declare(name.as_str().into(), options, FieldTable::default())
            .await
            .map_err(failed)?;
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
        self.found.insert(message.delivery.delivery_tag);
        Ok(Some(Browsed {
            properties: properties::from_amqp(&message.delivery.properties),
            tag: message.delivery.delivery_tag,
            body: Bytes::from(message.delivery.data),
        }))
    }

    async fn remove(&mut self, tag: u64) -> Result<()> {
        if !self.found.remove(&tag) {
            return Ok(());
        }
        self.request(self.channel.basic_ack(tag, BasicAckOptions::default()))
            .await
    }

    async fn close(mut self: Box<Self>) -> Result<()> {
        let found = std::mem::take(&mut self.found);
        self.request(hand_back(&self.channel, found)).await
    }
}

/// Hands back what was found, in its order, and closes the channel. The broker answers that after it has dealt with all that came before.
async fn hand_back(channel: &Channel, found: BTreeSet<u64>) -> lapin::Result<()> {
    /// Frames that are on their way at a time.
    const BATCH: usize = 1000;
    let options = BasicNackOptions {
        multiple: false,
        requeue: true,
    };
    let found: Vec<u64> = found.into_iter().collect();
    for batch in found.chunks(BATCH) {
        try_join_all(batch.iter().map(|tag| channel.basic_nack(*tag, options))).await?;
    }
    channel.close(200, "done".into()).await
}

impl Drop for Browsing {
    fn drop(&mut self) {
        if self.channel.status().connected() {
            let (channel, found) = (self.channel.clone(), std::mem::take(&mut self.found));
            self.tasks.spawn(async move {
                let closed = hand_back(&channel, found).await;
                tracing::trace!(?closed, "a look through a queue was dropped");
            });
        }
    }
}
