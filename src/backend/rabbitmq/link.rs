//! One generation of the connection to the server: two connections and the publishing channel.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use lapin::options::ConfirmSelectOptions;
use lapin::{Channel, Connection, ConnectionProperties, Event};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::fault;
use super::publisher::Publisher;
use super::supervisor::Shared;
use super::topology;
use crate::backend::{Error, Result};

/// How often the connections' state is looked at, should one of the client library's events be missed.
const LOOK: Duration = Duration::from_secs(1);
/// Longest time to say good-bye.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Tells everything that belongs to a link that it is lost. Reported once, with the first reason.
#[derive(Clone, Default)]
pub(super) struct Loss {
    token: CancellationToken,
    reason: Arc<OnceLock<String>>,
}

impl Loss {
    pub(super) fn report(&self, reason: impl Into<String>) {
        let _ = self.reason.set(reason.into());
        self.token.cancel();
    }

    pub(super) async fn happened(&self) {
        self.token.cancelled().await;
    }

    pub(super) fn reason(&self) -> Option<&str> {
        self.reason.get().map(String::as_str)
    }
}

/// A working pair of connections.
pub(super) struct Link {
    /// Counts links, from 1.
    pub(super) generation: u64,
    pub(super) publisher: Publisher,
    pub(super) loss: Loss,
    /// Why the broker blocks publishers, while it does.
    blocked: watch::Sender<Option<String>>,
    publish: Connection,
    /// Held until its connection is closed: dropping the last handle of an open channel makes the client library close it, and when that meets a
    /// closing connection it is logged as the connection's error.
    _publishing: Channel,
    /// For everything but publishing: the broker may block a connection that publishes, and requests on it would hang.
    consume: Connection,
}

/// Notices that a link is lost or blocked.
pub(super) struct Watcher {
    link: Arc<Link>,
    publish: BoxStream<'static, Event>,
    consume: BoxStream<'static, Event>,
}

impl Link {
    /// Connects, makes the namespace's exchanges and the queues that this process declared before, and opens the publishing channel.
    pub(super) async fn open(shared: &Shared, generation: u64) -> Result<(Arc<Link>, Watcher)> {
        let limit = shared.config.connect_timeout;
        let connected = timeout(limit, async {
            tokio::try_join!(connect(shared, "publish"), connect(shared, "consume"))
        });
        let (publish, consume) = connected.await.map_err(|_| {
            Error::transient(format!(
                "not connected to the broker at {}: no answer within {limit:?}",
                shared.address
            ))
        })??;
        let (publish_events, consume_events) = (publish.events_listener().boxed(), consume.events_listener().boxed());

        let limit = shared.config.request_timeout;
        let channel = timeout(limit, async {
            restore_topology(&consume, shared).await?;
            let channel = publish
                .create_channel()
                .await
                .map_err(|error| fault::connecting(&shared.address, error))?;
            let confirms = channel.confirm_select(ConfirmSelectOptions::default()).await;
            confirms.map_err(|error| fault::connecting(&shared.address, error))?;
            Ok::<_, Error>(channel)
        });
        let channel = channel.await.map_err(|_| {
            Error::transient(format!(
                "the broker at {} does not answer within {limit:?}",
                shared.address
            ))
        })??;

        let loss = Loss::default();
        let (publisher, task) = Publisher::new(
            channel.clone(),
            shared.names.exchange().to_owned(),
            shared.config.unconfirmed,
            shared.message_bytes.clone(),
            loss.clone(),
        );
        shared.tasks.spawn(task);
        let link = Arc::new(Link {
            generation,
            publisher,
            loss,
            blocked: watch::Sender::new(None),
            publish,
            _publishing: channel,
            consume,
        });
        let watcher = Watcher {
            link: link.clone(),
            publish: publish_events,
            consume: consume_events,
        };
        Ok((link, watcher))
    }

    /// A new channel for anything but publishing.
    pub(super) async fn channel(&self) -> lapin::Result<Channel> {
        self.consume.create_channel().await
    }

    /// Why the broker blocks publishers, if it does.
    pub(super) fn blocked(&self) -> Option<String> {
        self.blocked.borrow().clone()
    }

    /// Returns while publishers are not blocked.
    pub(super) async fn unblocked(&self) {
        // The sender is a field: waiting cannot fail.
        let _ = self.blocked.subscribe().wait_for(Option::is_none).await;
    }

    /// Closes both connections, politely where they still listen.
    pub(super) async fn close(&self) {
        let publish = self.publish.close(200, "bye".into());
        let consume = self.consume.close(200, "bye".into());
        let closed = timeout(CLOSE_TIMEOUT, futures_util::future::join(publish, consume)).await;
        tracing::trace!(?closed, generation = self.generation, "link closed");
    }
}

impl Watcher {
    /// Runs until the link is lost.
    pub(super) async fn watch(&mut self) {
        let Link {
            blocked,
            publish,
            consume,
            loss,
            ..
        } = &*self.link;
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = None;
        loop {
            let event = tokio::select! {
                () = loss.happened() => return,
                event = self.publish.next() => event,
                event = self.consume.next() => event,
                _ = looks.tick() => None,
            };
            match event {
                // Only a connection that publishes is ever blocked.
                Some(Event::ConnectionBlocked(reason)) => drop(blocked.send_replace(Some(reason))),
                Some(Event::ConnectionUnblocked) => drop(blocked.send_replace(None)),
                // A channel's error comes here as well: what it means is for the channel's owner to say.
                Some(Event::Error(error)) => last = Some(error.to_string()),
                _ => {}
            }
            if !publish.status().connected() || !consume.status().connected() {
                loss.report(last.unwrap_or_else(|| "the connection was closed".into()));
                return;
            }
        }
    }
}

async fn connect(shared: &Shared, purpose: &str) -> Result<Connection> {
    let name = format!("{} ({purpose})", shared.config.connection_name);
    // No automatic recovery: with it, a consumer whose channel ends yields one error and then waits for ever.
    let properties = ConnectionProperties::default()
        .with_connection_name(name.into())
        .with_client_property("product".into(), "leveret".into())
        .with_client_property("version".into(), env!("CARGO_PKG_VERSION").into());
    Connection::connect_uri(shared.address.uri(), properties)
        .await
        .map_err(|error| fault::connecting(&shared.address, error))
}

/// The broker may have been replaced by an empty one: everything that this process relies on is declared again.
async fn restore_topology(connection: &Connection, shared: &Shared) -> Result<()> {
    let open = async || {
        connection
            .create_channel()
            .await
            .map_err(|error| fault::connecting(&shared.address, error))
    };
    let kind = shared.config.queue_type;
    let mut channel = open().await?;
    topology::declare_shared(&channel, &shared.names, kind).await?;
    for (app, lanes) in shared.declared_apps() {
        if let Err(error) = topology::declare_app(&channel, &shared.names, kind, &app, lanes).await {
            if !error.is_permanent() {
                return Err(error);
            }
            // One app's queues must not keep everything else from working.
            tracing::error!(%error, %app, "the app's queues cannot be declared");
            channel = open().await?;
        }
    }
    // It is closed here and not by its drop, which the client library would do behind our back.
    let closed = channel.close(200, "done".into()).await;
    closed.map_err(|error| fault::connecting(&shared.address, error))
}
