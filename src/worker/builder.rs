//! Building a worker.

use std::future::Future;
use std::sync::OnceLock;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::registry::Registry;
use super::{ActivityContext, RunningWorker};
use crate::backend::{self, Backend};
use crate::model::{Activity, AppId, BuildId, Failure, Result, Settings, Workflow};
use crate::replay::WorkflowContext;

/// Why a worker did not start, or could not go on.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The worker was put together wrongly; the text names each mistake.
    #[error("the worker of app {app:?} cannot start: {problem}")]
    Invalid {
        /// The app ID, as given.
        app: String,
        /// What is wrong.
        problem: String,
    },
    /// A server refused for good.
    #[error("the worker cannot go on: {0}")]
    Backend(#[from] backend::Error),
}

/// A worker of an app: what it hosts, and how.
///
/// ```no_run
/// use leveret::{Activity, ActivityContext, Result, Worker, Workflow, WorkflowContext, backend::Backend};
///
/// const GREET: Activity<String, String> = Activity::new("hello", "greet");
/// const HELLO: Workflow<String, String> = Workflow::new("hello", "hello");
///
/// async fn greet(_: ActivityContext, name: String) -> Result<String> {
///     Ok(format!("Hello, {name}!"))
/// }
/// async fn hello(ctx: WorkflowContext, name: String) -> Result<String> {
///     ctx.call(GREET, name).await
/// }
/// # async fn main_() -> Result<()> {
/// let backend = Backend::memory("demo".parse()?);
/// Worker::new("hello", backend).workflow(HELLO, hello).activity(GREET, greet).run_until(leveret::shutdown_signal()).await?;
/// # Ok(()) }
/// ```
#[must_use = "a worker does nothing until it runs"]
pub struct Worker {
    app: String,
    backend: Backend,
    registry: Registry,
    settings: Settings,
    build: Option<String>,
}

impl Worker {
    /// A worker of this app, hosting nothing yet, with the backend's [`settings`](Backend::settings): those of the environment if it comes from
    /// [`Backend::from_env`]. A bad app ID is reported when the worker starts.
    pub fn new(app: impl Into<String>, backend: Backend) -> Self {
        let settings = backend.settings().clone();
        Self {
            app: app.into(),
            backend,
            registry: Registry::default(),
            settings,
            build: None,
        }
    }

    /// Hosts a workflow: an async function of a [`WorkflowContext`] and the contract's input.
    pub fn workflow<I, O, E, F, Fut>(mut self, contract: Workflow<I, O>, code: F) -> Self
    where
        I: DeserializeOwned + Send + 'static,
        O: Serialize + 'static,
        E: Into<Failure> + 'static,
        F: Fn(WorkflowContext, I) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<O, E>> + Send + 'static,
    {
        self.registry.workflow(&self.app, contract, code);
        self
    }

    /// Hosts an activity: an async function of an [`ActivityContext`] and the contract's input.
    pub fn activity<I, O, E, F, Fut>(mut self, contract: Activity<I, O>, code: F) -> Self
    where
        I: DeserializeOwned + Send + 'static,
        O: Serialize + 'static,
        E: Into<Failure> + 'static,
        F: Fn(ActivityContext, I) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<O, E>> + Send + 'static,
    {
        self.registry.activity(&self.app, contract, code);
        self
    }

    /// Uses these settings, and not the backend's. `Settings { activities: 8, ..backend.settings().clone() }` changes one.
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Names the code that this worker runs. By default a name is derived from the executable file. A stalled instance waits for another build.
    pub fn build_id(mut self, build: impl Into<String>) -> Self {
        self.build = Some(build.into());
        self
    }

    /// Runs until the future is ready, then stops in order: takes nothing new, ends turns, gives activities the grace of the settings, hands back the
    /// rest.
    ///
    /// # Errors
    /// [`WorkerError::Invalid`] if a registration or a setting is wrong, [`WorkerError::Backend`] if a server refuses for good at start-up.
    pub async fn run_until(self, shutdown: impl Future<Output = ()>) -> Result<(), WorkerError> {
        tokio::pin!(shutdown);
        let running = tokio::select! {
            biased;
            running = self.start() => running?,
            () = &mut shutdown => return Ok(()),
        };
        shutdown.await;
        running.stop().await;
        Ok(())
    }

    /// Starts, and gives a handle. Waits for servers that are away.
    ///
    /// # Errors
    /// As [`run_until`](Self::run_until).
    pub async fn start(self) -> Result<RunningWorker, WorkerError> {
        let Self {
            app,
            backend,
            registry,
            settings,
            build,
        } = self;
        let invalid = |problem: String| WorkerError::Invalid {
            app: app.clone(),
            problem,
        };
        let app_id = AppId::new(&app).map_err(|error| invalid(error.to_string()))?;
        let build = match build {
            Some(build) => BuildId::new(build).map_err(|error| invalid(error.to_string()))?,
            None => build_of_executable(),
        };
        if let Some(problem) = registry.problem().or_else(|| settings.problem()) {
            return Err(invalid(problem));
        }
        RunningWorker::start(app_id, build, backend, registry, settings).await
    }
}

/// A name for the running executable: a hash of its size and modification time.
fn build_of_executable() -> BuildId {
    static BUILD: OnceLock<BuildId> = OnceLock::new();
    let compute = || {
        let facts = std::env::current_exe()
            .and_then(std::fs::metadata)
            .and_then(|file| Ok((file.len(), file.modified()?)));
        let text = match facts {
            Ok(facts) => format!("{facts:?}"),
            Err(_) => env!("CARGO_PKG_VERSION").to_owned(),
        };
        let hash = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, text.as_bytes());
        BuildId::new(hash.simple().to_string()).expect("a uuid is printable")
    };
    BUILD.get_or_init(compute).clone()
}
