//! Waking whoever waits for an instance to end.
//!
//! The commit that ends an instance says so on one of its app's channels, with the outcome if that is short. One connection listens for all watchers,
//! to the channels that they need, and for some seconds to those that they needed: who waits for one instance after the other subscribes once.
//! Whatever may have been missed, because the connection broke or a message was late, wakes everybody concerned: who is told nothing reads the record.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use deadpool_redis::redis::aio::{PubSub, PubSubSink};
use deadpool_redis::redis::{Client, Msg, RedisError};
use futures_util::{FutureExt, StreamExt};
use tokio::sync::{Notify, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::config::RedisConfig;
use super::end::End;
use super::link::{PAUSES, pauses};
use super::problem::Problem;
use crate::backend::{Ending, Error, Result, Watch};

/// How often the connection is tried, and channels that nobody has needed since the last time are let go.
const TRIED_EVERY: Duration = Duration::from_secs(5);

/// How a watcher is woken.
#[derive(Default)]
struct Bell {
    rung: Notify,
    /// What it was told along with it, last.
    told: Mutex<Option<Ending>>,
}

impl Bell {
    fn told(&self) -> MutexGuard<'_, Option<Ending>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self, ending: Option<Ending>) {
        if ending.is_some() {
            *self.told() = ending;
        }
        self.rung.notify_one();
    }
}

/// Who waits on a channel.
#[derive(Default)]
struct Channel {
    /// By instance ID, then by the number of the watcher.
    watchers: HashMap<String, HashMap<u64, Arc<Bell>>>,
    /// True while Redis tells us what is published there.
    is_active: bool,
    /// Nobody has begun to wait on it since that was last looked at.
    is_unused: bool,
}

/// What watchers and the listening task share.
struct Shared {
    channels: Mutex<HashMap<String, Channel>>,
    /// A channel was added.
    added: Notify,
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

    /// Those who wait for the instance are told. A message that another version wrote wakes everybody.
    fn wake(&self, message: &Msg) {
        let channels = self.channels();
        let Some(channel) = channels.get(message.get_channel_name()) else {
            return;
        };
        let Some(end) = End::read(message.get_payload_bytes()) else {
            return wake_all(channel);
        };
        if let Some(watchers) = channel.watchers.get(end.id) {
            let ending = end.ending();
            watchers.values().for_each(|watcher| watcher.ring(ending.clone()));
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
    watchers.for_each(|watcher| watcher.ring(None));
}

/// The subscriptions of a store.
pub(super) struct Ended {
    shared: Arc<Shared>,
    /// Listens; ends with the store.
    _listener: AbortOnDropHandle<()>,
    /// How long a subscription may take, a new connection included.
    patience: Duration,
    next_watcher: AtomicU64,
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
            added: Notify::new(),
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
            next_watcher: AtomicU64::new(0),
        })
    }

    /// Returns once the subscription is active, so that whoever reads the record after that misses nothing. What rang until then is over: it
    /// would have the record read twice.
    pub(super) async fn watch(&self, channel: String, id: &str) -> Result<Watcher> {
        let mut rounds = self.shared.rounds.subscribe();
        let (watcher, is_active) = {
            let mut channels = self.shared.channels();
            let of_name = channels.entry(channel.clone()).or_default();
            of_name.is_unused = false;
            (self.add(of_name, channel, id), of_name.is_active)
        };
        if is_active {
            return Ok(watcher);
        }
        self.shared.added.notify_one();
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
            Ok(result) => result?,
            Err(_) => return Err(Error::transient("Redis did not confirm a subscription in time")),
        }
        let _ = watcher.bell.rung.notified().now_or_never();
        Ok(watcher)
    }

    /// The same, if Redis tells us already what happens there. It does not go on doing so for this: whoever starts many and waits for none would hear of
    /// all for ever.
    pub(super) fn listen(&self, name: String, id: &str) -> Option<Watcher> {
        let mut channels = self.shared.channels();
        let channel = channels.get_mut(&name).filter(|channel| channel.is_active)?;
        Some(self.add(channel, name, id))
    }

    fn add(&self, channel: &mut Channel, name: String, id: &str) -> Watcher {
        let watcher = Watcher {
            shared: self.shared.clone(),
            channel: name,
            id: id.to_owned(),
            number: self.next_watcher.fetch_add(1, Ordering::Relaxed),
            bell: Arc::new(Bell::default()),
        };
        let of_instance = channel.watchers.entry(watcher.id.clone()).or_default();
        of_instance.insert(watcher.number, watcher.bell.clone());
        watcher
    }
}

/// One who waits, until it is dropped.
pub(super) struct Watcher {
    shared: Arc<Shared>,
    channel: String,
    id: String,
    number: u64,
    bell: Arc<Bell>,
}

#[async_trait::async_trait]
impl Watch for Watcher {
    async fn changed(&mut self) -> Option<Ending> {
        if let Some(channel) = self.shared.channels().get_mut(&self.channel) {
            channel.is_unused = false;
        }
        // No timeout: the caller has one, and an interruption wakes it too. A wake-up that nobody awaited is kept.
        self.bell.rung.notified().await;
        self.bell.told().take()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let mut channels = self.shared.channels();
        if let Some(channel) = channels.get_mut(&self.channel)
            && let Some(watchers) = channel.watchers.get_mut(&self.id)
        {
            watchers.remove(&self.number);
            if watchers.is_empty() {
                channel.watchers.remove(&self.id);
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
                self.shared.added.notified().await;
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

    /// Until nobody has waited for a while (`Ok`), or the connection breaks.
    async fn listen(&self, connection: PubSub) -> std::result::Result<(), Problem> {
        let (mut sink, mut messages) = connection.split();
        let mut tick = tokio::time::interval(TRIED_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.shared.added.notify_one();
        loop {
            tokio::select! {
                message = messages.next() => match message {
                    Some(message) => self.shared.wake(&message),
                    None => return Err(Problem::transient(format!("Redis at {} closed the subscription", self.address))),
                },
                () = self.shared.added.notified() => self.subscribe(&mut sink).await?,
                _ = tick.tick() => {
                    self.bounded(sink.ping::<()>()).await?;
                    self.let_go(&mut sink).await?;
                    if self.shared.channels().is_empty() {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Subscribes to what has been added.
    async fn subscribe(&self, sink: &mut PubSubSink) -> std::result::Result<(), Problem> {
        let mut wanted = Vec::new();
        for (name, channel) in &*self.shared.channels() {
            if !channel.is_active {
                wanted.push(name.clone());
            }
        }
        if wanted.is_empty() {
            return Ok(());
        }
        self.bounded(sink.subscribe(&wanted)).await?;
        for name in &wanted {
            if let Some(channel) = self.shared.channels().get_mut(name) {
                channel.is_active = true;
                // What was published since they last looked has gone by unheard.
                wake_all(channel);
            }
        }
        self.shared.next_round(None);
        Ok(())
    }

    /// Ends the subscription to what nobody has needed since the last time.
    async fn let_go(&self, sink: &mut PubSubSink) -> std::result::Result<(), Problem> {
        let mut unwanted = Vec::new();
        self.shared.channels().retain(|name, channel| {
            let was_unused = std::mem::replace(&mut channel.is_unused, true);
            let is_needed = !was_unused || !channel.watchers.is_empty();
            if !is_needed && channel.is_active {
                unwanted.push(name.clone());
            }
            is_needed
        });
        match unwanted.is_empty() {
            true => Ok(()),
            false => self.bounded(sink.unsubscribe(&unwanted)).await,
        }
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
