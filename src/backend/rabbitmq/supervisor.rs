//! Keeps a link to the server alive: whenever one is lost, builds the next.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::address::Address;
use super::config::RabbitMqConfig;
use super::link::{Link, Watcher};
use super::names::Names;
use crate::backend::{Clock, Error, Result, SystemClock};
use crate::model::{AppId, Timestamp};

/// Longest time to send the acknowledgements that are left.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// What all parts of one [`RabbitMq`](super::RabbitMq) share.
pub(super) struct Shared {
    pub(super) config: RabbitMqConfig,
    pub(super) address: Address,
    pub(super) names: Names,
    pub(super) state: watch::Sender<LinkState>,
    /// Apps that this process declared, with their number of lanes: a broker that comes back empty gets their queues again.
    declared: Mutex<BTreeMap<AppId, u16>>,
    /// Largest body in bytes; lowered to the server's limit when that shows.
    pub(super) message_bytes: Arc<AtomicUsize>,
    /// Ends the supervisor, and with it the subscriptions and the link, in this order.
    pub(super) stop: CancellationToken,
    /// The supervisor, publishers, and links on their way out.
    pub(super) tasks: TaskTracker,
    /// Ends the subscriptions: they send the acknowledgements that they have, and close.
    pub(super) stop_subscriptions: CancellationToken,
    /// The settling task of each subscription.
    pub(super) subscriptions: TaskTracker,
}

/// Where the link stands.
#[derive(Clone)]
pub(super) enum LinkState {
    /// It works, as far as is known.
    Up(Arc<Link>),
    /// It is being built again.
    Down {
        /// When it was lost.
        since: Timestamp,
        /// The latest error.
        reason: String,
    },
    /// This process ended it.
    Closed,
}

impl Shared {
    pub(super) fn new(config: RabbitMqConfig) -> Result<Self> {
        let reason = "not connected yet".into();
        Ok(Self {
            address: Address::read(&config)?,
            names: Names::new(config.namespace.clone()),
            state: watch::Sender::new(LinkState::Down {
                since: SystemClock.now(),
                reason,
            }),
            declared: Mutex::default(),
            message_bytes: Arc::new(AtomicUsize::new(config.message_bytes)),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            stop_subscriptions: CancellationToken::new(),
            subscriptions: TaskTracker::new(),
            config,
        })
    }

    /// Waits for a link that is not known to be lost.
    ///
    /// # Errors
    /// Permanent if this process closed the connection.
    pub(super) async fn link(&self) -> Result<Arc<Link>> {
        let mut states = self.state.subscribe();
        let state = states.wait_for(|state| match state {
            // Between a loss and the supervisor's notice of it the state still says that the link is up.
            LinkState::Up(link) => link.loss.reason().is_none(),
            LinkState::Down { .. } => false,
            LinkState::Closed => true,
        });
        match state.await.as_deref() {
            Ok(LinkState::Up(link)) => Ok(link.clone()),
            _ => Err(Error::permanent(
                "the connection to the broker was closed by this process",
            )),
        }
    }

    /// `Ok` while the broker can be used, else why not.
    pub(super) fn readiness(&self) -> std::result::Result<(), String> {
        let away = |reason: &str, since: Option<Timestamp>| {
            // The error of an attempt to connect begins with the same words.
            let reason = reason
                .rsplit_once(&format!("{}: ", self.address))
                .map_or(reason, |(_, reason)| reason);
            let since = since.map(|since| format!(" since {since}")).unwrap_or_default();
            format!("not connected to the broker at {}{since}: {reason}", self.address)
        };
        match &*self.state.borrow() {
            LinkState::Up(link) => match (link.loss.reason(), link.blocked()) {
                (Some(reason), _) => Err(away(reason, None)),
                (None, Some(reason)) => Err(format!("the broker blocks publishers: {reason}")),
                (None, None) => Ok(()),
            },
            LinkState::Down { since, reason } => Err(away(reason, Some(*since))),
            LinkState::Closed => Err(away("closed by this process", None)),
        }
    }

    pub(super) fn remember(&self, app: &AppId, lanes: u16) {
        self.declared().insert(app.clone(), lanes);
    }

    pub(super) fn forget(&self, app: &AppId) {
        self.declared().remove(app);
    }

    pub(super) fn declared_apps(&self) -> BTreeMap<AppId, u16> {
        self.declared().clone()
    }

    /// Has the subscriptions send the acknowledgements that they have, and close.
    async fn end_subscriptions(&self) {
        self.stop_subscriptions.cancel();
        self.subscriptions.close();
        // What is not out by then comes again: as after any lost acknowledgement.
        let _ = timeout(CLOSE_TIMEOUT, self.subscriptions.wait()).await;
    }

    fn declared(&self) -> MutexGuard<'_, BTreeMap<AppId, u16>> {
        self.declared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs until the stop token fires.
pub(super) async fn supervise(shared: Arc<Shared>, mut link: Arc<Link>, mut watcher: Watcher) {
    let mut pauses = pauses(&shared.config);
    loop {
        let born = Instant::now();
        tokio::select! {
            () = shared.stop.cancelled() => break,
            () = watcher.watch() => {}
        }
        let reason = link.loss.reason().unwrap_or("lost").to_owned();
        tracing::warn!(broker = %shared.address, %reason, generation = link.generation, "the connection to the broker is lost");
        let since = SystemClock.now();
        shared.state.send_replace(LinkState::Down { since, reason });
        let (lost, generation) = (link.clone(), link.generation + 1);
        shared.tasks.spawn(async move { lost.close().await });

        // A link that breaks as soon as it stands must not be built in a tight loop.
        if born.elapsed() > shared.config.reconnect_cap {
            pauses = self::pauses(&shared.config);
        }
        (link, watcher) = tokio::select! {
            () = shared.stop.cancelled() => break,
            built = rebuild(&shared, generation, since, &mut pauses) => built,
        };
        tracing::info!(broker = %shared.address, generation, "connected to the broker again");
        shared.state.send_replace(LinkState::Up(link.clone()));
    }
    // Before the connection, so that each of their channels is closed on one that is open.
    shared.end_subscriptions().await;
    shared.state.send_replace(LinkState::Closed);
    link.loss.report("closed by this process");
    link.close().await;
}

/// Tries until it succeeds. Errors that look permanent are tried again too: a person may correct the broker without restarting this process.
async fn rebuild(
    shared: &Shared,
    generation: u64,
    since: Timestamp,
    pauses: &mut impl Iterator<Item = Duration>,
) -> (Arc<Link>, Watcher) {
    loop {
        sleep(pauses.next().unwrap_or(shared.config.reconnect_cap)).await;
        match Link::open(shared, generation).await {
            Ok(built) => return built,
            Err(error) => {
                tracing::warn!(%error, "cannot connect to the broker");
                let reason = error.to_string();
                shared.state.send_replace(LinkState::Down { since, reason });
            }
        }
    }
}

/// The pauses between attempts: doubling from the first to the cap, with jitter so that a fleet does not come back in step.
fn pauses(config: &RabbitMqConfig) -> impl Iterator<Item = Duration> + use<> {
    ExponentialBuilder::default()
        .with_min_delay(config.reconnect_first)
        .with_max_delay(config.reconnect_cap)
        .with_jitter()
        .without_max_times()
        .build()
}
