//! The client itself: a backend, limits, and the requests that every operation is made of.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Audit, DeadLetters, Error, Filter, Instance, LetterFilter, List, PurgeMany, RemoveApp, Start};
use crate::backend::{self, App, Backend, Clock, Record, Store, WorkerInfo};
use crate::engine::{Engine, Retention};
use crate::model::{AppId, InstanceId, InstanceRef, Limits, Payload, Workflow};

/// How long one request to the servers may take unless the builder says otherwise.
const PATIENCE: Duration = Duration::from_secs(30);

/// Starts workflows on any app of the backend's namespace, and manages their instances.
///
/// Cheap to clone; clones share everything. When the last clone is dropped, what is being sent is still sent, but not tried again if that fails; an
/// operation that has returned has nothing left to send.
///
/// ```
/// use leveret::backend::Backend;
/// use leveret::{Client, Namespace, Workflow};
///
/// const GREET: Workflow<String, String> = Workflow::new("hello", "greet");
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::new(Backend::memory(Namespace::new("shop")?));
/// let run = client.start(GREET, "Ada".into()).id("greet-ada").await?;
/// assert_eq!(run.instance().to_string(), "hello/greet-ada");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    engine: Engine,
    patience: Duration,
    /// The tasks that publish.
    tracker: TaskTracker,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Ends retries; a publish that is under way finishes.
        self.engine.stop.cancel();
    }
}

/// Settings of a [`Client`]. All have defaults.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct ClientBuilder {
    backend: Backend,
    limits: Limits,
    retention: Retention,
    patience: Duration,
}

impl ClientBuilder {
    /// The bounds; use the ones that the workers have. Default: those of the backend's settings.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// How long instances are kept that this client ends before any worker has run them. Default: that of the backend's settings.
    pub fn retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// How long one request to the servers may take, reconnects and repetitions included, before [`Error::Unavailable`]. Default: 30 s.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The client. Nothing is sent yet.
    pub fn build(self) -> Client {
        let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
        let engine = Engine::new(self.backend, None, self.limits, self.retention, tracker.clone(), stop);
        Client(Arc::new(Inner {
            engine,
            patience: self.patience,
            tracker,
        }))
    }
}

impl Client {
    /// A client with default settings.
    pub fn new(backend: Backend) -> Self {
        Self::builder(backend).build()
    }

    /// A client with settings of its own.
    pub fn builder(backend: Backend) -> ClientBuilder {
        ClientBuilder {
            limits: backend.settings().limits.clone(),
            retention: backend.settings().retention.clone(),
            backend,
            patience: PATIENCE,
        }
    }

    /// Starts a workflow on the app that its contract names. Await the builder; see [`Start`].
    pub fn start<I: Serialize, O>(&self, workflow: Workflow<I, O>, input: I) -> Start<O> {
        Start::new(self, workflow.app(), workflow.name(), Payload::encode(&input))
    }

    /// Starts a workflow by names that are known only at run time: `client.start_named::<Summary>("orders", "checkout", order)`.
    pub fn start_named<O>(&self, app: impl AsRef<str>, workflow: impl AsRef<str>, input: impl Serialize) -> Start<O> {
        Start::new(self, app.as_ref(), workflow.as_ref(), Payload::encode(&input))
    }

    /// A handle to an instance, whether or not there is one.
    ///
    /// # Errors
    /// [`Error::Id`] if one of the IDs is not valid.
    pub fn instance(&self, app: impl AsRef<str>, id: impl AsRef<str>) -> Result<Instance, Error> {
        // Not `chosen`: a derived child ID may be longer than what a person may choose.
        let instance = InstanceRef::new(AppId::new(app)?, InstanceId::new(id)?);
        Ok(self.handle(instance))
    }

    /// A handle to an instance whose IDs are valid already: one from a list, a child, a parent.
    pub fn handle(&self, instance: InstanceRef) -> Instance {
        Instance::new(self.clone(), instance, None)
    }

    /// Instances that match, in pages. Await the builder for one page; see [`List`].
    pub fn list(&self, filter: Filter) -> List {
        List::new(self.clone(), filter)
    }

    /// Deletes the finished instances that match, with their children. Await the builder; see [`PurgeMany`].
    pub fn purge(&self, filter: Filter) -> PurgeMany {
        PurgeMany::new(self.clone(), filter)
    }

    /// The messages that apps could not process: to list, show, retry or drop; see [`DeadLetters`].
    pub fn dead_letters(&self, filter: LetterFilter) -> DeadLetters {
        DeadLetters::new(self.clone(), filter)
    }

    /// Proves that every instance that is not over will go on, finds those that nothing would move, and repairs them if that is asked for. Await the
    /// builder; see [`Audit`].
    pub fn audit(&self) -> Audit {
        Audit::new(self.clone())
    }

    /// All apps that ever registered a worker, in order of their IDs.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::Backend`].
    pub async fn apps(&self) -> Result<Vec<App>, Error> {
        let mut apps = self.ask("apps", || self.store().apps()).await?;
        apps.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(apps)
    }

    /// The live workers of an app, with what they have registered.
    ///
    /// # Errors
    /// [`Error::Id`] for a bad app ID; [`Error::Unavailable`] or [`Error::Backend`].
    pub async fn workers(&self, app: impl AsRef<str>) -> Result<Vec<WorkerInfo>, Error> {
        let app = AppId::new(app)?;
        self.ask("workers", || self.store().workers(&app)).await
    }

    /// Removes an app that is retired. Await the builder; see [`RemoveApp`].
    pub fn remove_app(&self, app: impl Into<String>) -> RemoveApp {
        RemoveApp::new(self.clone(), app.into())
    }

    /// Ends retries and returns when nothing is being sent any more. Operations of other clones that still wait for a server end with its last error.
    pub async fn close(self) {
        self.0.engine.stop.cancel();
        self.0.tracker.close();
        // No timeout: what is left is one attempt to publish per destination, which the broker's own timeouts bound.
        self.0.tracker.wait().await;
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.0.engine
    }

    pub(super) fn store(&self) -> &Arc<dyn Store> {
        self.0.engine.store()
    }

    pub(super) fn clock(&self) -> &Arc<dyn Clock> {
        self.0.engine.backend.clock()
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.0.engine.limits
    }

    pub(super) fn patience(&self) -> Duration {
        self.0.patience
    }

    /// Waits for an operation of the engine, as long as the client's patience lasts. Giving up is like a crash at that point: safe.
    pub(super) async fn reach<T>(&self, operation: impl Future<Output = backend::Result<T>>) -> Result<T, Error> {
        tokio::select! {
            biased;
            result = operation => result.map_err(Error::Backend),
            () = self.clock().sleep(self.patience()) => Err(self.unavailable()),
        }
    }

    /// One request to the store, repeated until it has an answer or the patience is at its end.
    pub(super) async fn ask<T, F, Fut>(&self, what: &'static str, request: F) -> Result<T, Error>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = backend::Result<T>>,
    {
        self.reach(self.engine().retrying(what, request)).await
    }

    pub(super) async fn record(&self, instance: &InstanceRef) -> Result<Option<Record>, Error> {
        self.ask("record", || self.store().record(instance)).await
    }

    /// Refuses a payload over the limit. `what` names it: `the input of workflow ...`.
    pub(super) fn check_size(&self, payload: &Payload, what: impl FnOnce() -> String) -> Result<(), Error> {
        let limit = self.limits().payload_bytes;
        if payload.len() <= limit {
            return Ok(());
        }
        Err(Error::PayloadTooLarge {
            what: what(),
            bytes: payload.len(),
            limit,
        })
    }

    fn unavailable(&self) -> Error {
        let backend = &self.engine().backend;
        let problems = [backend.store().readiness().err(), backend.broker().readiness().err()];
        let said: Vec<String> = problems.into_iter().flatten().collect();
        let reason = if said.is_empty() {
            format!("{backend} is slow, or was away until now")
        } else {
            said.join("; ")
        };
        Error::Unavailable {
            waited: self.patience(),
            reason,
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({:?})", self.engine().backend)
    }
}
