//! [`RabbitMq`]: the broker trait on top of a link that heals.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use lapin::Channel;
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use tokio::time::{Instant, timeout_at};

use super::browse::Browsing;
use super::config::RabbitMqConfig;
use super::consumer::Subscription;
use super::link::Link;
use super::publisher::Outgoing;
use super::supervisor::{LinkState, Shared, supervise};
use super::{fault, properties, topology};
use crate::backend::{Broker, Browse, Consumer, Error, Message, Queue, QueueDepth, Result};
use crate::model::AppId;

/// The queues of one namespace on a RabbitMQ server. Dropping it closes its connections.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use leveret::backend::{Broker, RabbitMq, RabbitMqConfig};
/// use leveret::{AppId, Namespace};
///
/// let config = RabbitMqConfig::new("amqp://guest:guest@localhost:5672/%2f", Namespace::new("shop")?);
/// let broker = RabbitMq::connect(config).await?;
/// broker.declare(&AppId::new("orders")?, 8).await?;
/// # Ok(()) }
/// ```
pub struct RabbitMq {
    shared: Arc<Shared>,
}

impl RabbitMq {
    /// Connects and declares what the namespace shares: two exchanges and the unrouted queue. Tries once; afterwards the connection heals by
    /// itself for as long as the object lives. Needs a tokio runtime with I/O and time, whose tasks it lives on.
    ///
    /// # Errors
    /// - Permanent for a URL that cannot be read, a user or password that the broker refuses, and a virtual host that does not exist or may not
    ///   be used: the message says which. No message ever contains the password.
    /// - Permanent if the namespace exists with another queue type.
    /// - Transient if the broker is away: try again.
    pub async fn connect(config: RabbitMqConfig) -> Result<Arc<Self>> {
        let shared = Arc::new(Shared::new(config)?);
        let (link, watcher) = Link::open(&shared, 1).await?;
        shared.state.send_replace(LinkState::Up(link.clone()));
        shared.tasks.spawn(supervise(shared.clone(), link, watcher));
        Ok(Arc::new(Self { shared }))
    }

    /// Host, port and virtual host as a URL, for people: no user and no password.
    pub fn address(&self) -> String {
        self.shared.address.to_string()
    }

    /// Sends the acknowledgements that are left, closes the connections and returns when nothing of it runs any more. Publishes in flight end as
    /// unknown, subscriptions end.
    pub async fn close(&self) {
        let Shared { stop, tasks, .. } = &*self.shared;
        stop.cancel();
        tasks.close();
        // No timeout: every task ends with its link, and what the supervisor does before has timeouts of its own.
        tasks.wait().await;
    }

    /// Runs a request on a channel of its own, because an error closes the channel and must not disturb anybody else. The channel is closed after
    /// it, whatever came.
    async fn on_channel<T, F>(&self, what: &str, request: impl FnOnce(Channel) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        self.on_link(what, async |link| {
            let channel = link.channel().await.map_err(|error| fault::request(what, error))?;
            let result = request(channel.clone()).await;
            if channel.status().connected() {
                let closed = channel.close(200, "done".into()).await;
                tracing::trace!(?closed, "channel closed");
            }
            result
        })
        .await
    }

    /// Waits for a link and runs a request on it, within the time for requests.
    async fn on_link<T>(&self, what: &str, request: impl AsyncFnOnce(&Link) -> Result<T>) -> Result<T> {
        let limit = self.shared.config.request_timeout;
        let deadline = Instant::now() + limit;
        let link = timeout_at(deadline, self.shared.link())
            .await
            .map_err(|_| self.away(what))??;
        timeout_at(deadline, request(&link))
            .await
            .map_err(|_| Error::unknown(format!("{what}: the broker does not answer within {limit:?}")))?
    }

    /// Nothing was done, for want of a broker.
    fn away(&self, what: &str) -> Error {
        let reason = self
            .shared
            .readiness()
            .err()
            .unwrap_or_else(|| "the broker is overloaded".into());
        Error::transient(format!("{what}: {reason}"))
    }

    /// What goes over the wire for a message.
    fn outgoing(&self, message: Message) -> Result<Outgoing> {
        let Shared {
            config,
            address,
            names,
            message_bytes,
            ..
        } = &*self.shared;
        let (bytes, most) = (message.body.len(), message_bytes.load(Ordering::Relaxed));
        if bytes > most {
            return Err(Error::too_large(format!(
                "a message for {} has {bytes} bytes, and the broker takes at most {most}: send less, or raise the limit on both sides",
                message.queue
            )));
        }
        Ok(Outgoing {
            routing_key: names.queue(&message.queue),
            body: message.body,
            properties: properties::to_amqp(message.properties, config.send_user.then(|| address.user()))?,
        })
    }
}

#[async_trait::async_trait]
impl Broker for RabbitMq {
    async fn declare(&self, app: &AppId, lanes: u16) -> Result<()> {
        let Shared { names, config, .. } = &*self.shared;
        let what = format!("cannot declare the queues of app {app}");
        self.on_channel(&what, async |channel| {
            topology::declare_shared(&channel, names, config.queue_type).await?;
            topology::declare_app(&channel, names, config.queue_type, app, lanes).await
        })
        .await?;
        self.shared.remember(app, lanes);
        Ok(())
    }

    async fn publish(&self, message: Message) -> Result<()> {
        let mut outgoing = self.outgoing(message)?;
        let limit = self.shared.config.publish_timeout;
        let deadline = Instant::now() + limit;
        let handed_over = async {
            loop {
                let link = self.shared.link().await?;
                tokio::select! {
                    // While publishers are blocked nothing is handed to the client library: it would keep it all in memory.
                    () = link.unblocked() => {}
                    () = link.loss.happened() => {}
                }
                match link.publisher.hand_over(outgoing).await {
                    Ok(result) => return Ok::<_, Error>(result),
                    Err(unsent) => outgoing = unsent,
                }
            }
        };
        let result = match timeout_at(deadline, handed_over).await {
            Ok(handed_over) => handed_over?,
            Err(_) => return Err(self.away(&format!("the message was not published within {limit:?}"))),
        };
        match timeout_at(deadline, result).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(Error::unknown(
                "the connection to the broker was lost before the message was confirmed",
            )),
            Err(_) => Err(Error::unknown(format!(
                "the broker does not confirm the message within {limit:?}"
            ))),
        }
    }

    async fn consume(&self, queue: &Queue, prefetch: u16) -> Result<Box<dyn Consumer>> {
        let what = format!("cannot consume from {queue}");
        let open = async |link: &Link| Subscription::open(&self.shared, link, queue, prefetch).await;
        Ok(Box::new(self.on_link(&what, open).await?))
    }

    async fn browse(&self, queue: &Queue) -> Result<Box<dyn Browse>> {
        let what = format!("cannot look through {queue}");
        let open = async |link: &Link| Browsing::open(&self.shared, link, queue).await;
        Ok(Box::new(self.on_link(&what, open).await?))
    }

    async fn depth(&self, queue: &Queue) -> Result<Option<QueueDepth>> {
        let name = self.shared.names.queue(queue);
        let what = format!("cannot look at queue {name}");
        self.on_channel(&what, async |channel| {
            let options = QueueDeclareOptions {
                passive: true,
                ..Default::default()
            };
            match channel
                .queue_declare(name.as_str().into(), options, FieldTable::default())
                .await
            {
                Ok(queue) => Ok(Some(QueueDepth {
                    messages: queue.message_count().into(),
                    consumers: queue.consumer_count().into(),
                })),
                Err(error) if fault::is_missing(&error) => Ok(None),
                Err(error) => Err(fault::request(&what, error)),
            }
        })
        .await
    }

    async fn remove(&self, app: &AppId, lanes: u16) -> Result<()> {
        // First, so that a link that is built meanwhile does not make the queues again.
        self.shared.forget(app);
        let what = format!("cannot remove the queues of app {app}");
        self.on_channel(&what, async |channel| {
            topology::delete_app(&channel, &self.shared.names, app, lanes).await
        })
        .await
    }

    fn readiness(&self) -> std::result::Result<(), String> {
        self.shared.readiness()
    }
}

impl Drop for RabbitMq {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

impl fmt::Debug for RabbitMq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "RabbitMq({}, namespace {})",
            self.shared.address, self.shared.config.namespace
        )
    }
}
