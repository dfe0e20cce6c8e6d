//! The untyped handle to one instance.

use std::fmt;

use serde::Serialize;

use super::{ChildInfo, Client, Error, InstanceInfo, Purge, Raise, ResultWait, StatusChange, Terminate, history, info};
use crate::backend::Record;
use crate::model::{Event, InstanceRef, Payload, RunId};
use crate::replay::history::Turn;

/// A handle to an instance of any app, by its IDs. It may exist or not; each operation looks.
///
/// A handle from [`Client::instance`] means whichever run is current when an operation begins. [`of_run`](Self::of_run), and the handle of a
/// [`Run`](super::Run), mean that one run: a later start of the same ID is then [`Error::RunGone`].
///
/// ```no_run
/// # async fn example(client: leveret::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use leveret::Event;
/// const APPROVED: Event<bool> = Event::new("approved");
/// let order = client.instance("orders", "order-17")?;
/// order.raise(APPROVED, true).message_id("mail-4711").await?;
/// order.suspend("the warehouse is closed").await?;
/// println!("{}", order.get().await?.waiting);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Instance {
    client: Client,
    instance: InstanceRef,
    /// The one run that is meant, if not the current one.
    run: Option<RunId>,
}

impl Instance {
    pub(super) fn new(client: Client, instance: InstanceRef, run: Option<RunId>) -> Self {
        Self { client, instance, run }
    }

    /// The app and the ID.
    pub fn instance(&self) -> &InstanceRef {
        &self.instance
    }

    /// The same, bound to one run.
    pub fn of_run(mut self, run: RunId) -> Self {
        self.run = Some(run);
        self
    }

    /// Where it is in its life, and what it waits for.
    ///
    /// # Errors
    /// [`Error::NotFound`] or [`Error::RunGone`]; [`Error::Unavailable`] or [`Error::Backend`].
    pub async fn get(&self) -> Result<InstanceInfo, Error> {
        info::get(self).await
    }

    /// Waits for the output, as JSON text. Await the builder; see [`ResultWait`].
    pub fn result(&self) -> ResultWait<Payload> {
        self.result_as()
    }

    /// Waits for the output as an `O`. Await the builder; see [`ResultWait`].
    pub fn result_as<O>(&self) -> ResultWait<O> {
        ResultWait::new(self.client.clone(), self.instance.clone(), self.run)
    }

    /// Raises an event. Await the builder; see [`Raise`].
    pub fn raise<T: Serialize>(&self, event: Event<T>, payload: T) -> Raise {
        Raise::new(self.clone(), event.name(), Payload::encode(&payload))
    }

    /// Raises an event by a name that is known only at run time.
    pub fn raise_named(&self, name: impl AsRef<str>, payload: impl Serialize) -> Raise {
        Raise::new(self.clone(), name.as_ref(), Payload::encode(&payload))
    }

    /// Holds it: what arrives is kept, and no code runs until it is resumed. Activities that run already finish. Await the builder.
    pub fn suspend(&self, reason: impl Into<String>) -> StatusChange {
        StatusChange::suspend(self.clone(), reason.into())
    }

    /// Lets it go on, with all that has arrived. Await the builder.
    pub fn resume(&self, reason: impl Into<String>) -> StatusChange {
        StatusChange::resume(self.clone(), reason.into())
    }

    /// Ends it, whatever it does, and its children with it. Await the builder; see [`Terminate`].
    ///
    /// Its children are those that its current execution waits for, and theirs in turn. Those that were detached, and those that an earlier execution had
    /// open when it continued as new, go on: they are ended by their own IDs.
    pub fn terminate(&self, reason: impl Into<String>) -> Terminate {
        Terminate::new(self.clone(), reason.into())
    }

    /// Deletes it, and its children, if all of them are over. Await the builder; see [`Purge`].
    pub fn purge(&self) -> Purge {
        Purge::new(self.clone())
    }

    /// The history of its current execution, turn by turn: what happened, and what its code did about it.
    ///
    /// # Errors
    /// As [`get`](Self::get), and [`Error::UnreadableHistory`].
    pub async fn history(&self) -> Result<Vec<Turn>, Error> {
        history::all(self).await
    }

    /// Up to `count` turns after turn number `after` of the current execution: for histories that do not fit into memory.
    ///
    /// # Errors
    /// As [`history`](Self::history).
    pub async fn turns(&self, after: u64, count: usize) -> Result<Vec<Turn>, Error> {
        history::page(self, after, count).await
    }

    /// The child workflows that its current execution has called, in order, each with its status now.
    ///
    /// # Errors
    /// As [`history`](Self::history).
    pub async fn children(&self) -> Result<Vec<ChildInfo>, Error> {
        history::children(self).await
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn run(&self) -> Option<RunId> {
        self.run
    }

    /// The record, of the run that is meant.
    pub(super) async fn current(&self) -> Result<Record, Error> {
        let record = self.client.record(&self.instance).await?;
        match (record, self.run) {
            (Some(record), None) => Ok(record),
            (Some(record), Some(run)) if record.run == run => Ok(record),
            (_, Some(run)) => Err(Error::RunGone {
                instance: self.instance.clone(),
                run,
            }),
            (None, None) => Err(Error::NotFound {
                instance: self.instance.clone(),
            }),
        }
    }
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Instance({})", self.instance)
    }
}
