//! Calls with their options, as they are written in workflow code: `ctx.call(CHARGE, order).retry(..).timeout(..).await`.

use std::future::IntoFuture;
use std::marker::PhantomData;
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::handle::{Handle, Shared};
use super::history::TimeLimits;
use super::machine::Machine;
use super::open::{Plan, Target};
use super::slots::SlotId;
use crate::model::{
    AppId, Failure, InstanceId, InstanceRef, Payload, Result, Retry, TaskExecutionId, Timestamp, kinds,
};

fn decode<T: DeserializeOwned>(filling: Option<Payload>) -> Result<T> {
    filling.unwrap_or_else(Payload::null).decode()
}

fn decode_unit(_: Option<Payload>) -> Result<()> {
    Ok(())
}

fn decode_within<T: DeserializeOwned>(filling: Option<Payload>) -> Result<Option<T>> {
    filling.map(|payload| payload.decode()).transpose()
}

fn invalid(error: impl std::fmt::Display) -> Failure {
    Failure::new(kinds::INVALID_CALL, error.to_string()).fatal()
}

fn check_name(what: &str, name: &str) -> Result<String> {
    if name.is_empty() || name.len() > 255 {
        return Err(invalid(format!(
            "{what} name {name:?} has {} bytes: it needs 1 to 255",
            name.len()
        )));
    }
    Ok(name.to_owned())
}

/// What every call has: a target's app and name, an input, options. An error in any of them is kept until the call is made, and is its result.
pub(super) struct Request {
    pub(super) app: Result<AppId>,
    pub(super) name: Result<String>,
    pub(super) input: Result<Payload>,
    limits: TimeLimits,
    retry: Option<Retry>,
}

impl Request {
    pub(super) fn new(app: &str, what: &str, name: &str, input: Result<Payload>) -> Self {
        Self {
            app: AppId::new(app).map_err(invalid),
            name: check_name(what, name),
            input,
            limits: TimeLimits::default(),
            retry: None,
        }
    }

    fn make(self, machine: &mut Machine, target: impl FnOnce(AppId, String) -> Result<Target>) -> SlotId {
        let Request {
            app,
            name,
            input,
            limits,
            retry,
        } = self;
        let made = app.and_then(|app| Ok((target(app, name?)?, input?)));
        match made {
            Ok((target, input)) => {
                let task_execution_id =
                    TaskExecutionId::from(machine.identity.execution.derive("call", machine.next_sequence));
                let plan = Plan {
                    target,
                    input,
                    limits,
                    retry,
                    attempt: 1,
                    first_at: machine.now,
                    task_execution_id,
                };
                machine.call(plan)
            }
            Err(failure) => machine.refused_call(failure),
        }
    }
}

/// An activity call: await it, or add options first.
///
/// Lazy: it is scheduled when it is first awaited; [`start`](Self::start) schedules it at once. Both replay the same.
#[must_use = "a call does nothing until it is awaited or started"]
pub struct Call<O> {
    machine: Shared,
    request: Request,
    output: PhantomData<fn() -> O>,
}

impl<O: DeserializeOwned> Call<O> {
    pub(super) fn new(machine: Shared, request: Request) -> Self {
        Self {
            machine,
            request,
            output: PhantomData,
        }
    }

    /// Runs it on this app and not on the contract's (staging, another region's twin). A bad name is the call's result.
    pub fn app_id(mut self, app: impl AsRef<str>) -> Self {
        self.request.app = AppId::new(app).map_err(invalid);
        self
    }

    /// Tries failed attempts again. Without a policy there is one attempt, and a call to an app that does not exist waits for it.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.request.retry = Some(retry);
        self
    }

    /// Fails an attempt that is not over this long after it started, with `TimedOut`.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.request.limits.timeout = Some(timeout);
        self
    }

    /// Fails an attempt that has not started this long after it was scheduled, with `TargetUnavailable`; its body then never runs.
    pub fn schedule_to_start(mut self, limit: Duration) -> Self {
        self.request.limits.schedule_to_start = Some(limit);
        self
    }

    /// Fails a running attempt that does not report progress this often, with `HeartbeatMissed`.
    pub fn heartbeat(mut self, interval: Duration) -> Self {
        self.request.limits.heartbeat = Some(interval);
        self
    }

    /// Schedules it now; await the handle later.
    pub fn start(self) -> Handle<O> {
        self.into_future().start()
    }
}

impl<O: DeserializeOwned> IntoFuture for Call<O> {
    type Output = Result<O>;
    type IntoFuture = Handle<O>;

    fn into_future(self) -> Handle<O> {
        let request = self.request;
        Handle::new(self.machine, decode::<O>, move |machine| {
            request.make(machine, |app, name| Ok(Target::Activity { app, name }))
        })
    }
}

/// A child workflow call: await it, add options first, or [`detach`](Self::detach) it.
///
/// A child without a chosen [`id`](Self::id) has one that is derived from its parent's. If the parent's instance ID is used again (its last run is over
/// and a new one is started), the new run's children come to have the same IDs as the last one's. A child of the last run may be active still: one that
/// was detached, or whose parent was terminated without its children. Then the new run's call fails with `InstanceAlreadyExists`, and a new detached
/// child is not started. The way out is to choose an ID that differs from run to run, made with [`ctx.uuid()`](super::WorkflowContext::uuid) for
/// instance; a [`retry`](Self::retry) policy helps too, as each attempt derives an ID of its own.
#[must_use = "a call does nothing until it is awaited or started"]
pub struct Child<O> {
    machine: Shared,
    request: Request,
    id: Option<Result<InstanceId>>,
    output: PhantomData<fn() -> O>,
}

impl<O: DeserializeOwned> Child<O> {
    pub(super) fn new(machine: Shared, request: Request) -> Self {
        Self {
            machine,
            request,
            id: None,
            output: PhantomData,
        }
    }

    /// Chooses the child's instance ID: 1 to 200 printable bytes. Without it, it is `<parent>:<sequence number, 4 hex digits>`, a new one for each
    /// attempt, and the same in each run of the parent.
    pub fn id(mut self, id: impl AsRef<str>) -> Self {
        self.id = Some(InstanceId::chosen(id).map_err(invalid));
        self
    }

    /// Runs it on this app and not on the contract's.
    pub fn app_id(mut self, app: impl AsRef<str>) -> Self {
        self.request.app = AppId::new(app).map_err(invalid);
        self
    }

    /// Starts it again when it fails.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.request.retry = Some(retry);
        self
    }

    /// Terminates a child that is not over this long after it started; the call fails with `TimedOut`.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.request.limits.timeout = Some(timeout);
        self
    }

    /// Ends a child that has not started this long after it was scheduled; the call fails with `TargetUnavailable`.
    pub fn schedule_to_start(mut self, limit: Duration) -> Self {
        self.request.limits.schedule_to_start = Some(limit);
        self
    }

    /// Schedules it now; await the handle later.
    pub fn start(self) -> Handle<O> {
        self.into_future().start()
    }

    /// Starts it and forgets it: nobody waits for its result, and it is not terminated with its parent. Gives the child's name.
    ///
    /// It may outlive its parent. If the parent's ID is then used for a new run that detaches a child in its turn, choose an [`id`](Self::id) that
    /// differs from run to run: a derived one is the same in both, and while the first child is active the second is not started, which only the
    /// worker's log tells.
    ///
    /// It takes no other option than [`id`](Self::id) and [`app_id`](Self::app_id): a retry policy or a time limit is about what the caller makes of the
    /// child's end, and here nobody does. A child that is to have them can give them to its own calls.
    ///
    /// # Errors
    /// A [`Failure`] if the call is not valid: a bad name, an option that it does not take, or an input over the limit. No child is started then.
    pub fn detach(self) -> Result<InstanceRef> {
        let Request {
            app,
            name,
            input,
            limits,
            retry,
        } = self.request;
        let given = [
            ("retry", retry.is_some()),
            ("timeout", limits.timeout.is_some()),
            ("schedule_to_start", limits.schedule_to_start.is_some()),
        ];
        if let Some((option, _)) = given.into_iter().find(|(_, is_given)| *is_given) {
            return Err(invalid(format!(
                "a detached child takes no `{option}`, because nobody waits for its end: leave it out, or await the child"
            )));
        }
        self.machine.lock().detach(app?, name?, self.id.transpose()?, input?)
    }
}

impl<O: DeserializeOwned> IntoFuture for Child<O> {
    type Output = Result<O>;
    type IntoFuture = Handle<O>;

    fn into_future(self) -> Handle<O> {
        let (request, id) = (self.request, self.id);
        Handle::new(self.machine, decode::<O>, move |machine| {
            request.make(machine, |app, workflow| {
                Ok(Target::Child {
                    app,
                    workflow,
                    id: id.transpose()?,
                })
            })
        })
    }
}

/// A timer: await it.
#[must_use = "a timer does nothing until it is awaited or started"]
pub struct Timer {
    machine: Shared,
    due: Due,
}

enum Due {
    After(Duration),
    At(Timestamp),
}

impl Timer {
    pub(super) fn after(machine: Shared, wait: Duration) -> Self {
        Self {
            machine,
            due: Due::After(wait),
        }
    }

    pub(super) fn at(machine: Shared, due: Timestamp) -> Self {
        Self {
            machine,
            due: Due::At(due),
        }
    }

    /// Sets it now; await the handle later.
    pub fn start(self) -> Handle<()> {
        self.into_future().start()
    }
}

impl IntoFuture for Timer {
    type Output = Result<()>;
    type IntoFuture = Handle<()>;

    fn into_future(self) -> Handle<()> {
        let due = self.due;
        Handle::new(self.machine, decode_unit, move |machine| {
            let due = match due {
                Due::After(wait) => machine.now + wait,
                Due::At(due) => due,
            };
            machine.timer(due)
        })
    }
}

/// A wait for an external event: await it, or bound it with [`within`](Self::within).
#[must_use = "a wait does nothing until it is awaited or started"]
pub struct EventWait<T> {
    machine: Shared,
    name: String,
    payload: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> EventWait<T> {
    pub(super) fn new(machine: Shared, name: &str) -> Self {
        Self {
            machine,
            name: name.to_owned(),
            payload: PhantomData,
        }
    }

    /// Gives `None` if no event came within this time.
    pub fn within(self, limit: Duration) -> Handle<Option<T>> {
        Handle::new(self.machine, decode_within::<T>, move |machine| {
            machine.wait_event(&self.name, Some(limit))
        })
    }

    /// Begins to wait now; await the handle later.
    pub fn start(self) -> Handle<T> {
        self.into_future().start()
    }
}

impl<T: DeserializeOwned> IntoFuture for EventWait<T> {
    type Output = Result<T>;
    type IntoFuture = Handle<T>;

    fn into_future(self) -> Handle<T> {
        Handle::new(self.machine, decode::<T>, move |machine| {
            machine.wait_event(&self.name, None)
        })
    }
}
