//! Suspend, resume, terminate.

use std::future::IntoFuture;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::wait::settled;
use super::{Client, Error, Instance};
use crate::backend::{Record, When};
use crate::engine::{Commanded, FIRST_CHECK, check_of};
use crate::model::{InstanceRef, Status};
use crate::wire::{Command, CommandItem};

/// What became of a command. In every case it is durable: no crash undoes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandState {
    /// It is in the queue of the worker that holds the instance, and takes effect when that worker comes to it.
    Sent,
    /// It has taken effect.
    Done,
    /// Nothing was to be done: the instance was over.
    AlreadyOver(Status),
}

/// A suspend or a resume, ready to be awaited.
///
/// # Errors
/// [`Error::NotFound`], or [`Error::RunGone`] if a run was meant that is not the current one; [`Error::InstanceOver`]; [`Error::NotYet`] after
/// [`and_wait`](Self::and_wait); [`Error::Unavailable`] or [`Error::Backend`], after which it may take effect: repeat it.
/// Of a suspend and a resume the one that was asked for last holds, in whatever order they arrive.
#[derive(Debug)]
#[must_use = "nothing happens until it is awaited"]
pub struct StatusChange {
    handle: Instance,
    command: Command,
    wait: Option<Duration>,
}

/// A terminate, ready to be awaited. Repeating it is harmless: an instance that is over already answers [`CommandState::AlreadyOver`].
///
/// # Errors
/// As [`StatusChange`], without [`Error::InstanceOver`].
#[derive(Debug)]
#[must_use = "nothing happens until it is awaited"]
pub struct Terminate {
    handle: Instance,
    reason: String,
    recursive: bool,
    wait: Option<Duration>,
}

impl StatusChange {
    pub(super) fn suspend(handle: Instance, reason: String) -> Self {
        Self {
            handle,
            command: Command::Suspend { reason },
            wait: None,
        }
    }

    pub(super) fn resume(handle: Instance, reason: String) -> Self {
        Self {
            handle,
            command: Command::Resume { reason },
            wait: None,
        }
    }

    /// Returns only when the instance has the status (or is over), and fails with [`Error::NotYet`] if that takes longer than this.
    pub fn and_wait(mut self, longest: Duration) -> Self {
        self.wait = Some(longest);
        self
    }
}

impl Terminate {
    pub(super) fn new(handle: Instance, reason: String) -> Self {
        Self {
            handle,
            reason,
            recursive: true,
            wait: None,
        }
    }

    /// Leaves the children running. Without this they end too, and theirs, wherever their apps are and whenever those come up.
    pub fn not_recursive(mut self) -> Self {
        self.recursive = false;
        self
    }

    /// Returns only when the instance is over, and fails with [`Error::NotYet`] if that takes longer than this. Its children may take longer.
    pub fn and_wait(mut self, longest: Duration) -> Self {
        self.wait = Some(longest);
        self
    }
}

impl IntoFuture for StatusChange {
    type Output = Result<CommandState, Error>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let is_suspend = matches!(self.command, Command::Suspend { .. });
            let has_it = |record: &Record| (record.status == Status::Suspended) == is_suspend;
            match carry_out(&self.handle, self.command, self.wait, has_it).await? {
                CommandState::AlreadyOver(status) => Err(Error::InstanceOver {
                    instance: self.handle.instance().clone(),
                    status,
                }),
                state => Ok(state),
            }
        })
    }
}

impl IntoFuture for Terminate {
    type Output = Result<CommandState, Error>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let command = Command::Terminate {
                reason: self.reason,
                recursive: self.recursive,
            };
            let is_over = |record: &Record| record.status.is_terminal();
            carry_out(&self.handle, command, self.wait, is_over).await
        })
    }
}

/// Sends the command to the run that is meant, or that is current, and waits if that is wanted.
async fn carry_out(
    handle: &Instance,
    command: Command,
    wait: Option<Duration>,
    has_it: impl Fn(&Record) -> bool,
) -> Result<CommandState, Error> {
    let (client, instance) = (handle.client(), handle.instance());
    // A command that waits in a queue must not meet a later run of the same ID.
    let run = handle.current().await?.run;
    let issued_at = client.ask("time", || client.store().now()).await?;
    let ends = matches!(command, Command::Terminate { .. });
    let item = CommandItem {
        instance: instance.clone(),
        command,
        issued_at,
        run: Some(run),
        parent: None,
    };
    let state = send(client, item).await?;
    let (CommandState::Sent, Some(longest)) = (state, wait) else {
        return Ok(state);
    };
    match settled(client, instance, run, longest, has_it).await? {
        Some(status) if status.is_terminal() && !ends => Ok(CommandState::AlreadyOver(status)),
        None if !ends => Err(Error::RunGone {
            instance: instance.clone(),
            run,
        }),
        _ => Ok(CommandState::Done),
    }
}

/// Sends a command and returns once it is durable.
pub(super) async fn send(client: &Client, item: CommandItem) -> Result<CommandState, Error> {
    let instance = item.instance.clone();
    if matches!(item.command, Command::Terminate { .. }) {
        forewarn_parent(client, &instance).await?;
    }
    match client.reach(client.engine().command(item)).await? {
        Commanded::Sent => Ok(CommandState::Sent),
        Commanded::Done => Ok(CommandState::Done),
        Commanded::Over(status) => Ok(CommandState::AlreadyOver(status)),
        Commanded::Absent => Err(Error::NotFound { instance }),
    }
}

/// This process ends a child that no worker has, and tells its parent. If it dies in between, the child's app, which may not even be up, would be the
/// only one to notice: so the parent's own check is brought forward first.
async fn forewarn_parent(client: &Client, instance: &InstanceRef) -> Result<(), Error> {
    let Some(record) = client.record(instance).await? else {
        return Ok(());
    };
    let Some(parent) = record.origin.parent.filter(|parent| !parent.detached) else {
        return Ok(());
    };
    let parent = parent.task.instance;
    if record.status.is_terminal() || record.lane.is_some() || parent.app == instance.app {
        return Ok(());
    }
    let Some(record) = client.record(&parent).await? else {
        return Ok(());
    };
    let now = client.ask("time", || client.store().now()).await?;
    let check = check_of(&parent, &record, now + FIRST_CHECK);
    client
        .ask("schedule", || {
            client
                .store()
                // Not only sooner: of a check that is under way it must not be taken for later.
                .schedule(&parent.app, std::slice::from_ref(&check), When::Set)
        })
        .await
}
