//! Connections that heal themselves.
//!
//! The client library's own `ConnectionManager` gives up for good when a reconnect ends in anything but an I/O error, for instance while Redis loads
//! its file, or after a password was changed there and back. So each [`Link`] has a task that owns one multiplexed connection, looks whether it is
//! alive, and replaces it for as long as the store lives. Nothing is sent twice here: what was under way when a connection broke is
//! [`Retryable::Unknown`](crate::backend::Retryable), and the caller decides.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use deadpool_redis::redis::aio::MultiplexedConnection;
use deadpool_redis::redis::{AsyncConnectionConfig, Client, Cmd, Pipeline, RedisError, RedisResult, Value, cmd};
use secrecy::ExposeSecret;
use tokio::sync::watch;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::config::{Endpoint, RedisConfig};
use super::problem::Problem;
use super::together::{Answer, Together};
use crate::backend::Result;

/// How often an idle connection is tried, so that a dead one is found before somebody needs it.
const TRIED_EVERY: Duration = Duration::from_secs(10);

/// Commands that may wait in a connection's queue before callers wait for room.
const QUEUED: usize = 1024;

/// First and longest pause between two attempts to connect.
pub(super) const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// The pauses between attempts to connect, without an end.
pub(super) fn pauses() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default()
        .with_min_delay(PAUSES.0)
        .with_max_delay(PAUSES.1)
        .without_max_times()
        .with_jitter()
        .build()
}

/// What opens connections.
#[derive(Clone)]
pub(super) struct Opener {
    endpoint: Endpoint,
    client: Client,
    settings: AsyncConnectionConfig,
    connect_timeout: Duration,
}

impl Opener {
    /// Reads the configuration; opens nothing yet.
    pub(super) fn new(config: &RedisConfig) -> Result<Self> {
        let endpoint = config.parse()?;
        let client = Client::open(endpoint.anonymous())
            .map_err(|error| Problem::of_setup(&endpoint.address, "the URL", &error).error())?;
        let settings = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(config.connect_timeout))
            .set_response_timeout(Some(config.response_timeout))
            .set_pipeline_buffer_size(QUEUED);
        Ok(Self {
            endpoint,
            client,
            settings,
            connect_timeout: config.connect_timeout,
        })
    }

    /// Connects, logs in and sees whether Redis answers.
    pub(super) async fn open(&self) -> std::result::Result<MultiplexedConnection, Problem> {
        let address = &self.endpoint.address;
        match tokio::time::timeout(self.connect_timeout, self.log_in()).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(Problem::of_setup(address, "the login", &error)),
            Err(_) => Err(Problem::transient(format!(
                "Redis at {address} did not answer within {:?}",
                self.connect_timeout
            ))),
        }
    }

    async fn log_in(&self) -> std::result::Result<MultiplexedConnection, RedisError> {
        let client = &self.client;
        let mut connection = client
            .get_multiplexed_async_connection_with_config(&self.settings)
            .await?;
        if let Some(password) = &self.endpoint.password {
            let mut login = cmd("AUTH");
            login.arg(self.endpoint.username.as_deref());
            login
                .arg(password.expose_secret())
                .query_async::<()>(&mut connection)
                .await?;
        }
        if self.endpoint.database != 0 {
            cmd("SELECT")
                .arg(self.endpoint.database)
                .query_async::<()>(&mut connection)
                .await?;
        }
        cmd("PING").query_async::<()>(&mut connection).await?;
        Ok(connection)
    }
}

/// Where a link is.
#[derive(Clone)]
enum State {
    /// The first attempt after a break is under way: worth waiting for.
    Connecting,
    Up(Live),
    /// Attempts go on, but nobody waits for them.
    Down(Problem),
}

/// A connection, and which one of its link it is.
#[derive(Clone)]
struct Live {
    connection: MultiplexedConnection,
    generation: u64,
}

/// One connection at a time, for ever.
pub(super) struct Link {
    state: watch::Receiver<State>,
    /// The latest generation that somebody found broken.
    broken: watch::Sender<u64>,
    /// Keeps the connection; ends with the link.
    _keeper: AbortOnDropHandle<()>,
}

impl Link {
    /// The live connection; waits while a fresh break is being mended, which the opener's timeout bounds.
    async fn live(&self) -> std::result::Result<Live, Problem> {
        let mut state = self.state.clone();
        let settled = state.wait_for(|state| !matches!(state, State::Connecting)).await;
        match settled.as_deref() {
            Ok(State::Up(live)) => Ok(live.clone()),
            Ok(State::Down(problem)) => Err(problem.clone()),
            Ok(State::Connecting) | Err(_) => Err(Problem::transient("the store is being closed")),
        }
    }

    /// Sends commands that have nothing to do with each other in one go; the reply of each, in order.
    pub(super) async fn send(&self, commands: Vec<Cmd>) -> Vec<Answer> {
        let count = commands.len();
        let mut live = match self.live().await {
            Ok(live) => live,
            Err(problem) => return (0..count).map(|_| Err(Failed::NotSent(problem.clone()))).collect(),
        };
        if let [command] = commands.as_slice() {
            let reply = command.query_async(&mut live.connection).await;
            return vec![reply.map_err(|error| failed(self, &live, error))];
        }
        let mut pipeline = Pipeline::with_capacity(count);
        for command in commands {
            pipeline.add_command(command);
        }
        let replies = pipeline
            .ignore_errors()
            .query_async::<Vec<RedisResult<Value>>>(&mut live.connection)
            .await;
        match replies {
            Ok(replies) => replies.into_iter().map(|reply| reply.map_err(Failed::Sent)).collect(),
            Err(error) => {
                let failed = failed(self, &live, error);
                (0..count).map(|_| Err(failed.clone())).collect()
            }
        }
    }

    fn is_up(&self) -> bool {
        matches!(*self.state.borrow(), State::Up(_))
    }

    fn report(&self, generation: u64) {
        self.broken.send_if_modified(|broken| {
            let newer = *broken < generation;
            *broken = generation.max(*broken);
            newer
        });
    }
}

/// Keeps a link's connection alive until the store is gone.
async fn keep(
    opener: Arc<Opener>,
    mut first: Option<MultiplexedConnection>,
    state: watch::Sender<State>,
    mut broken: watch::Receiver<u64>,
) {
    for generation in 1.. {
        let mut waits = pauses();
        let connection = loop {
            if let Some(connection) = first.take() {
                break connection;
            }
            match opener.open().await {
                Ok(connection) => break connection,
                Err(problem) => {
                    tracing::warn!(problem = problem.message, "no connection to Redis");
                    state.send_replace(State::Down(problem));
                    tokio::time::sleep(waits.next().unwrap_or(PAUSES.1)).await;
                }
            }
        };
        let live = Live { connection, generation };
        state.send_replace(State::Up(live.clone()));
        tokio::select! {
            _ = broken.wait_for(|broken| *broken >= generation) => {}
            () = until_it_fails(live.connection) => {}
        }
        state.send_replace(State::Connecting);
    }
}

/// Tries the connection now and then; its response timeout bounds each try.
async fn until_it_fails(mut connection: MultiplexedConnection) {
    loop {
        tokio::time::sleep(TRIED_EVERY).await;
        if let Err(error) = cmd("PING").query_async::<()>(&mut connection).await {
            tracing::warn!(%error, "the connection to Redis does not answer");
            return;
        }
    }
}

/// The connections for commands.
pub(super) struct Links {
    links: Vec<(Arc<Link>, Together)>,
    next: AtomicUsize,
    address: String,
}

impl Links {
    /// Opens the first connection, so that a store that cannot work is known at once, and keeps all of them from then on.
    ///
    /// # Errors
    /// Transient if Redis is away, permanent if it refuses the credentials or the URL cannot be used.
    pub(super) async fn connect(config: &RedisConfig, tasks: &TaskTracker) -> Result<Self> {
        let opener = Arc::new(Opener::new(config)?);
        let mut first = Some(opener.open().await.map_err(|problem| problem.error())?);
        let links = (0..config.connections.max(1)).map(|_| {
            let (state, seen) = watch::channel(State::Connecting);
            let (broken, breaks) = watch::channel(0);
            let keeper = tasks.spawn(keep(opener.clone(), first.take(), state, breaks));
            let link = Arc::new(Link {
                state: seen,
                broken,
                _keeper: AbortOnDropHandle::new(keeper),
            });
            (link.clone(), Together::start(link, tasks))
        });
        Ok(Self {
            links: links.collect(),
            next: AtomicUsize::new(0),
            address: opener.endpoint.address.clone(),
        })
    }

    /// Host, port and database, for people.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// `Ok` if a command would find a connection.
    pub(super) fn readiness(&self) -> std::result::Result<(), String> {
        let mut why = None;
        for (link, _) in &self.links {
            match &*link.state.borrow() {
                State::Up(_) => return Ok(()),
                State::Connecting => why = why.or(Some(format!("connecting to Redis at {}", self.address))),
                State::Down(problem) => why = Some(problem.message.clone()),
            }
        }
        why.map_or(Ok(()), Err)
    }

    /// In turn, but one that works rather than one that does not.
    fn pick(&self) -> &(Arc<Link>, Together) {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let nth = |n: usize| &self.links[(turn.wrapping_add(n)) % self.links.len()];
        (0..self.links.len())
            .map(nth)
            .find(|(link, _)| link.is_up())
            .unwrap_or(nth(0))
    }

    /// Sends one command.
    pub(super) async fn send(&self, what: &str, command: &Cmd) -> Result<Value> {
        self.try_send(command)
            .await
            .map_err(|failed| failed.problem(&self.address, what).error())
    }

    /// Like [`Links::send`], for callers who look at the server's error first.
    pub(super) async fn try_send(&self, command: &Cmd) -> Answer {
        let (link, _) = self.pick();
        let mut live = link.live().await.map_err(Failed::NotSent)?;
        let reply = command.query_async(&mut live.connection).await;
        reply.map_err(|error| failed(link, &live, error))
    }

    /// The same as [`Links::send`], of a small command with a small reply: in one go with others that are there.
    pub(super) async fn send_small(&self, what: &str, command: Cmd) -> Result<Value> {
        self.try_send_small(command)
            .await
            .map_err(|failed| failed.problem(&self.address, what).error())
    }

    /// The same, for callers who look at the server's error first.
    pub(super) async fn try_send_small(&self, command: Cmd) -> Answer {
        let (_, together) = self.pick();
        together.send(command).await
    }

    /// Sends commands in one go; their replies in order. What a transaction (`pipe.atomic()`) gives is one reply each, too.
    pub(super) async fn send_all(&self, what: &str, commands: &Pipeline) -> Result<Vec<Value>> {
        let (link, _) = self.pick();
        let mut live = link.live().await.map_err(|problem| problem.error())?;
        let reply = commands.query_async(&mut live.connection).await;
        reply.map_err(|error| failed(link, &live, error).problem(&self.address, what).error())
    }
}

/// Why a command has no reply.
#[derive(Clone)]
pub(super) enum Failed {
    /// There is no connection.
    NotSent(Problem),
    /// The store is being closed.
    Closed(Problem),
    /// Redis refused it, or the connection broke.
    Sent(RedisError),
}

impl Failed {
    pub(super) fn problem(&self, address: &str, what: &str) -> Problem {
        match self {
            Failed::NotSent(problem) | Failed::Closed(problem) => problem.clone(),
            Failed::Sent(error) => Problem::of_command(address, what, error),
        }
    }
}

fn failed(link: &Link, live: &Live, error: RedisError) -> Failed {
    // A timeout too: either the connection is dead, or Redis hangs, and then a new one finds that out for everybody.
    if error.is_io_error() || error.is_unrecoverable_error() {
        link.report(live.generation);
    }
    Failed::Sent(error)
}
