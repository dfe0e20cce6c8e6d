//! What a start gives.

use std::fmt;
use std::marker::PhantomData;

use serde::Serialize;

use super::wait::EarlyWatch;
use super::{Client, Error, Instance, InstanceInfo, Raise, ResultWait, StatusChange, Terminate};
use crate::model::{Event, InstanceRef, RunId};

/// One run of a workflow whose output is an `O`: from its start, across continue-as-new, to its end.
///
/// A later start of the same instance ID is another run: what is asked of this one never touches it.
///
/// ```no_run
/// # async fn example(run: leveret::Run<String>) -> Result<(), leveret::client::Error> {
/// use std::time::Duration;
/// use leveret::client::Error;
/// match run.result().within(Duration::from_secs(60)).await {
///     Ok(summary) => println!("{summary}"),
///     Err(Error::Failed(failure)) if failure.is("CardDeclined") => println!("no money"),
///     Err(Error::ResultPending { .. }) => println!("{}", run.get().await?.waiting),
///     Err(error) => return Err(error),
/// }
/// # Ok(())
/// # }
/// ```
pub struct Run<O> {
    handle: Instance,
    run: RunId,
    /// True if the start found it there.
    is_existing: bool,
    watch: EarlyWatch,
    output: PhantomData<fn() -> O>,
}

impl<O> Run<O> {
    pub(super) fn new(client: Client, instance: InstanceRef, run: RunId, is_existing: bool) -> Self {
        Self {
            handle: Instance::new(client, instance, Some(run)),
            run,
            is_existing,
            watch: EarlyWatch::default(),
            output: PhantomData,
        }
    }

    pub(super) fn with_watch(mut self, watch: EarlyWatch) -> Self {
        self.watch = watch;
        self
    }

    /// The instance.
    pub fn instance(&self) -> &InstanceRef {
        self.handle.instance()
    }

    /// The instance ID.
    pub fn id(&self) -> &str {
        self.instance().id.as_str()
    }

    /// The run's ID.
    pub fn run_id(&self) -> RunId {
        self.run
    }

    /// True if the start created nothing because the instance was there: [`OnConflict::UseExisting`](super::OnConflict::UseExisting).
    pub fn is_existing(&self) -> bool {
        self.is_existing
    }

    /// The untyped handle, bound to this run, for everything else that can be done.
    pub fn handle(&self) -> &Instance {
        &self.handle
    }

    /// Waits for the output. Await the builder; see [`ResultWait`].
    pub fn result(&self) -> ResultWait<O> {
        self.handle.result_as().with_watch(EarlyWatch::new(self.watch.take()))
    }

    /// Where it is and what it waits for; see [`Instance::get`].
    ///
    /// # Errors
    /// As [`Instance::get`].
    pub async fn get(&self) -> Result<InstanceInfo, Error> {
        self.handle.get().await
    }

    /// Raises an event on the instance; see [`Instance::raise`].
    pub fn raise<T: Serialize>(&self, event: Event<T>, payload: T) -> Raise {
        self.handle.raise(event, payload)
    }

    /// See [`Instance::suspend`].
    pub fn suspend(&self, reason: impl Into<String>) -> StatusChange {
        self.handle.suspend(reason)
    }

    /// See [`Instance::resume`].
    pub fn resume(&self, reason: impl Into<String>) -> StatusChange {
        self.handle.resume(reason)
    }

    /// See [`Instance::terminate`].
    pub fn terminate(&self, reason: impl Into<String>) -> Terminate {
        self.handle.terminate(reason)
    }
}

impl<O> Clone for Run<O> {
    fn clone(&self) -> Self {
        Self {
            handle: self.handle.clone(),
            run: self.run,
            is_existing: self.is_existing,
            watch: EarlyWatch::default(),
            output: PhantomData,
        }
    }
}

impl<O> fmt::Debug for Run<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Run({}, run {})", self.instance(), self.run)
    }
}
