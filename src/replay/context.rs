//! What a workflow's code sees of the system.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::calls::{Call, Child, EventWait, Request, Timer};
use super::handle::Shared;
use super::history::Refused;
use super::scheduling::unit;
use crate::model::{
    Activity, AppId, Event, ExecutionId, Failure, InstanceId, InstanceRef, Payload, Result, Timestamp, Workflow, kinds,
};

/// A workflow's view of the world. Everything in it is deterministic: replay sees what the first run saw.
///
/// Between its calls, workflow code may compute whatever it likes from its input and from results; it must not look at clocks, random numbers, files
/// or the network, nor await anything that is not made by this context. `tracing` events of workflow code appear once: not on replay.
#[derive(Clone)]
pub struct WorkflowContext {
    machine: Shared,
}

impl WorkflowContext {
    pub(super) fn new(machine: Shared) -> Self {
        Self { machine }
    }

    // --- calls

    /// Calls an activity on the app that owns it.
    pub fn call<I: Serialize, O: DeserializeOwned>(&self, activity: Activity<I, O>, input: I) -> Call<O> {
        let request = Request::new(activity.app(), "activity", activity.name(), Payload::encode(&input));
        Call::new(self.machine.clone(), request)
    }

    /// Calls an activity by a name known only at run time, on this app unless [`Call::app_id`] says otherwise.
    pub fn call_named<O: DeserializeOwned>(&self, name: impl AsRef<str>, input: impl Serialize) -> Call<O> {
        let request = Request::new(
            self.app_id().as_str(),
            "activity",
            name.as_ref(),
            Payload::encode(&input),
        );
        Call::new(self.machine.clone(), request)
    }

    /// Calls a child workflow on the app that owns it.
    pub fn child<I: Serialize, O: DeserializeOwned>(&self, workflow: Workflow<I, O>, input: I) -> Child<O> {
        let request = Request::new(workflow.app(), "workflow", workflow.name(), Payload::encode(&input));
        Child::new(self.machine.clone(), request)
    }

    /// Calls a child workflow by a name known only at run time, on this app unless [`Child::app_id`] says otherwise.
    pub fn child_named<O: DeserializeOwned>(&self, name: impl AsRef<str>, input: impl Serialize) -> Child<O> {
        let request = Request::new(
            self.app_id().as_str(),
            "workflow",
            name.as_ref(),
            Payload::encode(&input),
        );
        Child::new(self.machine.clone(), request)
    }

    // --- time and events

    /// A durable timer.
    pub fn timer(&self, wait: Duration) -> Timer {
        Timer::after(self.machine.clone(), wait)
    }

    /// A durable timer that fires at a point in time.
    pub fn timer_until(&self, due: Timestamp) -> Timer {
        Timer::at(self.machine.clone(), due)
    }

    /// Waits for an external event. Events are kept until somebody waits; the first to wait gets the first to come.
    pub fn event<T: DeserializeOwned>(&self, event: Event<T>) -> EventWait<T> {
        EventWait::new(self.machine.clone(), event.name())
    }

    /// Waits for an event by a name known only at run time.
    pub fn event_named<T: DeserializeOwned>(&self, name: impl AsRef<str>) -> EventWait<T> {
        EventWait::new(self.machine.clone(), name.as_ref())
    }

    /// Raises an event on another instance, of any app. It is sent when the turn is committed; an instance that does not exist yet finds it if it
    /// starts within the de-duplication window (1 h).
    ///
    /// Nobody answers: an event for an instance that is over by then, or whose inbox is full ([`Limits::inbox_events`](crate::Limits)), is dropped, and
    /// only the worker's log tells. Whoever has to know calls an activity or a child and waits for its result.
    ///
    /// # Errors
    /// A [`Failure`] if the payload cannot be written or is over the limit.
    pub fn raise<T: Serialize>(&self, instance: &InstanceRef, event: Event<T>, payload: T) -> Result<()> {
        let payload = Payload::encode(&payload)?;
        self.machine
            .lock()
            .send_event(instance.clone(), event.name().to_owned(), payload)
    }

    // --- what replays the same

    /// The time of the current turn, by the store's clock. It stands still between awaits.
    pub fn now(&self) -> Timestamp {
        self.machine.lock().now
    }

    /// A uuid that is the same on replay.
    pub fn uuid(&self) -> uuid::Uuid {
        self.machine.lock().draw()
    }

    /// A number in 0..1 that is the same on replay.
    pub fn random(&self) -> f64 {
        unit(self.machine.lock().draw())
    }

    /// True while the code is only catching up with its history.
    pub fn is_replaying(&self) -> bool {
        self.machine.lock().is_replaying
    }

    /// Lets code change under running instances: true in executions that reach this point with the new code for the first time, false in those
    /// that had passed it with the old code. The answer is recorded.
    ///
    /// ```no_run
    /// # use leveret::{Activity, Result, WorkflowContext};
    /// # const OLD: Activity<(), ()> = Activity::new("a", "old");
    /// # const NEW: Activity<(), ()> = Activity::new("a", "new");
    /// # async fn example(ctx: WorkflowContext) -> Result<()> {
    /// if ctx.patched("use-new") {
    ///     ctx.call(NEW, ()).await
    /// } else {
    ///     ctx.call(OLD, ()).await
    /// }
    /// # }
    /// ```
    pub fn patched(&self, name: &str) -> bool {
        self.machine.lock().patched(name)
    }

    // --- about itself

    /// This instance.
    pub fn instance(&self) -> InstanceRef {
        self.machine.lock().identity.instance.clone()
    }

    /// This instance's ID.
    pub fn instance_id(&self) -> InstanceId {
        self.machine.lock().identity.instance.id.clone()
    }

    /// The app that hosts it.
    pub fn app_id(&self) -> AppId {
        self.machine.lock().identity.instance.app.clone()
    }

    /// This execution.
    pub fn execution_id(&self) -> ExecutionId {
        self.machine.lock().identity.execution
    }

    /// The workflow's name.
    pub fn workflow(&self) -> String {
        self.machine.lock().identity.workflow.clone()
    }

    /// How many executions of this run came before (continue-as-new).
    pub fn generation(&self) -> u32 {
        self.machine.lock().identity.generation
    }

    /// Who called it, if it is a child.
    pub fn parent(&self) -> Option<InstanceRef> {
        self.machine
            .lock()
            .identity
            .parent
            .as_ref()
            .map(|parent| parent.task.instance.clone())
    }

    /// The labels that it was started with.
    pub fn tags(&self) -> BTreeMap<String, String> {
        self.machine.lock().identity.tags.clone()
    }

    /// Shows a status of the workflow's own to whoever looks at the instance.
    ///
    /// # Errors
    /// A [`Failure`] if the value cannot be written or is over the payload limit.
    pub fn set_custom_status(&self, status: impl Serialize) -> Result<()> {
        let status = Payload::encode(&status)?;
        let mut machine = self.machine.lock();
        if let Some(failure) = machine.refusal(Refused::CustomStatus, &status) {
            return Err(failure);
        }
        machine.custom_status = Some(status);
        Ok(())
    }

    /// Begins anew with another input and an empty history: `return ctx.continue_as_new(input);`. Events that nobody has taken are carried over;
    /// results that are still to come are dropped.
    ///
    /// Children that are still open go on, and nobody waits for them any more: they are the earlier execution's, and neither the end of this instance
    /// nor a [`terminate`](https://docs.rs/leveret/latest/leveret/struct.Instance.html#method.terminate) reaches them. Await them first, or end them by
    /// their own IDs.
    ///
    /// # Errors
    /// Always: the error is what ends this execution. It has the type of the workflow's result, so that it can be returned.
    pub fn continue_as_new<T>(&self, input: impl Serialize) -> Result<T> {
        let input = Payload::encode(&input)?;
        let mut machine = self.machine.lock();
        if let Some(failure) = machine.refusal(Refused::NextInput, &input) {
            return Err(failure);
        }
        machine.continue_as_new = Some(input);
        Err(Failure::new(
            kinds::CONTINUED_AS_NEW,
            "return this error from the workflow to begin anew",
        ))
    }
}
