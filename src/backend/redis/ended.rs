//! Waking whoever waits for an instance to end.
//!
//! The commit that ends an instance publishes its ID on one of its app's channels. One connection listens for all watchers, to the channels that they
//! need and no others. Whatever may have been missed, because the connection broke or a message was late, wakes everybody concerned: a watcher reads
//! the record anyway.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use deadpool_redis::redis::aio::{PubSub, PubSubSink};
use deadpool_redis::redis::{Client, Msg, RedisError};
use futures_util::StreamExt;
use tokio::sync::{Notify, watch};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::config::RedisConfig;
use super::link::{PAUSES, pauses};
use super::problem::Problem;
use crate::backend::{Error, Result, Watch};

/// How often a silent connection is tried.
const TRIED_EVERY: Duration = Duration::from_secs(10);

/// Who waits on a channel.
#[derive(Default)]
struct Channel {
    /// By instance ID, then by the number of the watcher.
    watchers: HashMap<String, HashMap<u64, Arc<Notify>>>,
    /// True while Redis tells us what is published there.
    is_active: bool,
}

/// What watchers and the listening task share.
struct Shared {
    channels: Mutex<HashMap<String, Channel>>,
    /// A channel was added, or is not needed any more.
    changed: Notify,
    /// Counts how often the subscriptions have changed or failed to; with why, if they failed.
    rounds: watch::Sender<(u64, Option<Problem>)>,
}

impl Shared {
    fn channels(&self) -> MutexGuard<'_, HashMap<String, Channel>> {
        // Nothing panics while it holds the lock, and a map is whole after every line.
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_round(&self, problem: Option<Problem>) {
        self.rounds.send_modify(|(round, last)| {
            *round += 1;
            *last = problem;
        });
    }

    /// Those who wait for the instance look at it.
    fn wake(&self, message: &Msg) {
        let id = String::from_utf8_lossy(message.get_payload_bytes());
        if let Some(watchers) = self
            .channels()
            .get(message.get_channel_name())
            .and_then(|channel| channel.watchers.get(id.as_ref()))
        {
            watchers.values().for_each(|watcher| watcher.notify_one());
        }
    }

    /// No channel is listened to any more; everybody looks for himself.
    fn interrupted(&self, problem: Option<Problem>) {
        for channel in self.channels().values_mut() {
            channel.is_active = false;
            wake_all(channel);
        }
        self.next_round(problem);
    }
}

fn wake_all(channel: &Channel) {
    let watchers = channel.watchers.values().flat_map(|of_instance| of_instance.values());
    watchers.for_each(|watcher| watcher.notify_one());
}

/// The subscriptions of a store.
pub(super) struct Ended {
    shared: Arc<Shared>,
    /// Listens; ends with the store.
    _listener: AbortOnDropHandle<()>,
    /// How long a subscription may take, a new connection included.
    patience: Duration,
}

impl Ended {
    /// Starts the task that listens. It connects when the first watcher comes.
    ///
    /// # Errors
    /// Permanent if the URL cannot be used.
    pub(super) fn start(config: &RedisConfig, tasks: &TaskTracker) -> Result<Self> {
        let endpoint = config.parse()?;
        let client = Client::open(endpoint.logged_in())
            .map_err(|error| Problem::of_setup(&endpoint.address, "the URL", &error).error())?;
        let shared = Arc::new(Shared {
            channels: Mutex::default(),
            changed: Notify::new(),
            rounds: watch::Sender::new((0, None)),
        });
        let listener = Listener {
            shared: shared.clone(),
            client,
            address: endpoint.address,
            connect_timeout: config.connect_timeout,
            response_timeout: config.response_timeout,
        };
        Ok(Self {
            shared,
            _listener: AbortOnDropHandle::new(tasks.spawn(listener.run())),
            patience: config.connect_timeout + config.response_timeout,
        })
    }

    /// Returns once the subscription is active, so that whoever reads the record after that misses nothing.
    pub(super) async fn watch(&self, number: u64, channel: String, id: &str) -> Result<Box<dyn Watch>> {
        let mut rounds = self.shared.rounds.subscribe();
        let woken = Arc::new(Notify::new());
        let watcher = Watcher {
            shared: self.shared.clone(),
            channel,
            id: id.to_owned(),
            number,
            woken: woken.clone(),
        };
        {
            let mut channels = self.shared.channels();
            let channel = channels.entry(watcher.channel.clone()).or_default();
            channel
                .watchers
                .entry(watcher.id.clone())
                .or_default()
                .insert(number, woken);
            if channel.is_active {
                drop(channels);
                return Ok(Box::new(watcher));
            }
        }
        self.shared.changed.notify_one();
        let active = async {
            loop {
                // A failure before this watcher came is no answer to it.
                if rounds.changed().await.is_err() {
                    return Err(Error::transient("the store is being closed"));
                }
                if self
                    .shared
                    .channels()
                    .get(&watcher.channel)
                    .is_some_and(|channel| channel.is_active)
                {
                    return Ok(());
                }
                if let (_, Some(problem)) = &*rounds.borrow_and_update() {
                    return Err(problem.error());
                }
            }
        };
        match tokio::time::timeout(self.patience, active).await {
            Ok(result) => result.map(|()| Box::new(watcher) as Box<dyn Watch>),
            Err(_) => Err(Error::transient("Redis did not confirm a subscription in time")),
        }
    }
}

/// One who waits. Dropping it ends its subscription, and its channel's if it was the last.
struct Watcher {
    shared: Arc<Shared>,
    channel: String,
    id: String,
    number: u64,
    woken: Arc<Notify>,
}

#[async_trait::async_trait]
impl Watch for Watcher {
    async fn changed(&mut self) {
        // No timeout: the caller has one, and an interruption wakes it too. A wake-up that nobody awaited is kept.
        self.woken.notified().await;
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let mut channels = self.shared.channels();
        if let Some(channel) = channels.get_mut(&self.channel) {
            if let Some(watchers) = channel.watchers.get_mut(&self.id) {
                watchers.remove(&self.number);
                if watchers.is_empty() {
                    channel.watchers.remove(&self.id);
                }
            }
            if channel.watchers.is_empty() {
                drop(channels);
                self.shared.changed.notify_one();
            }
        }
    }
}

/// The task that listens.
struct Listener {
    shared: Arc<Shared>,
    client: Client,
    address: String,
    connect_timeout: Duration,
    response_timeout: Duration,
}

impl Listener {
    async fn run(self) {
        let mut waits = pauses();
        loop {
            // Without anybody to listen for, no connection is held.
            while self.shared.channels().is_empty() {
                self.shared.changed.notified().await;
            }
            let began = Instant::now();
            let problem = match tokio::time::timeout(self.connect_timeout, self.client.get_async_pubsub()).await {
                Ok(Ok(connection)) => match self.listen(connection).await {
                    Ok(()) => continue,
                    Err(problem) => problem,
                },
                Ok(Err(error)) => Problem::of_setup(&self.address, "the login", &error),
                Err(_) => Problem::transient(format!("Redis at {} does not answer", self.address)),
            };
            if began.elapsed() > PAUSES.1 {
                // It has worked for a while: this is a new break, and not the last one going on.
                waits = pauses();
            }
            tracing::warn!(problem = problem.message, "no subscription at Redis");
            self.shared.interrupted(Some(problem));
            tokio::time::sleep(waits.next().unwrap_or(PAUSES.1)).await;
            self.shared.channels().retain(|_, channel| !channel.watchers.is_empty());
        }
    }

    /// Until nobody waits any more (`Ok`), or the connection breaks.
    async fn listen(&self, connection: PubSub) -> std::result::Result<(), Problem> {
        let (mut sink, mut messages) = connection.split();
        let mut tick = tokio::time::interval(TRIED_EVERY);
        self.shared.changed.notify_one();
        loop {
            tokio::select! {
                message = messages.next() => match message {
                    Some(message) => self.shared.wake(&message),
                    None => return Err(Problem::transient(format!("Redis at {} closed the subscription", self.address))),
                },
                () = self.shared.changed.notified() => {
                    self.adjust(&mut sink).await?;
                    if self.shared.channels().is_empty() {
                        return Ok(());
                    }
                }
                _ = tick.tick() => self.bounded(sink.ping::<()>()).await?,
            }
        }
    }

    /// Subscribes to what is needed, and to nothing else.
    async fn adjust(&self, sink: &mut PubSubSink) -> std::result::Result<(), Problem> {
        let (mut wanted, mut unwanted) = (Vec::new(), Vec::new());
        self.shared.channels().retain(|name, channel| {
            if channel.watchers.is_empty() {
                if channel.is_active {
                    unwanted.push(name.clone());
                }
                return false;
            }
            if !channel.is_active {
                wanted.push(name.clone());
            }
            true
        });
        if !unwanted.is_empty() {
            self.bounded(sink.unsubscribe(&unwanted)).await?;
        }
        if !wanted.is_empty() {
            self.bounded(sink.subscribe(&wanted)).await?;
            for name in &wanted {
                if let Some(channel) = self.shared.channels().get_mut(name) {
                    channel.is_active = true;
                    // What was published since they last looked has gone by unheard.
                    wake_all(channel);
                }
            }
            self.shared.next_round(None);
        }
        Ok(())
    }

    async fn bounded<T>(
        &self,
        reply: impl Future<Output = std::result::Result<T, RedisError>>,
    ) -> std::result::Result<T, Problem> {
        match tokio::time::timeout(self.response_timeout, reply).await {
            Ok(reply) => reply.map_err(|error| Problem::of_setup(&self.address, "a subscription", &error)),
            Err(_) => Err(Problem::transient(format!("Redis at {} does not answer", self.address))),
        }
    }
}
