//! The effects of a turn: everything that has to happen outside the instance's own state because the turn is in its history.
//!
//! [`effects_of`] is a function of the stored turn, so whoever finds a marked turn can make its effects. Each effect may be made any number of times.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::future::{join_all, join3};
use tracing::{debug, warn};

use super::{Engine, NewInstance, encode, ended_by, persist, timer_entry, timer_key};
use crate::backend::{Created, Deliver, Delivered, DueEntry, DueKey, Queue, Record, Result, When};
use crate::fault::{Defect, fault_point, planted};
use crate::model::{ExecutionId, Failure, InstanceRef, Lane, Payload, RunId, Sequence, Timestamp, kinds};
use crate::replay::history::{HistoryEvent, TimeLimits, Turn};
use crate::wire::{CompletionItem, EventItem, Item, Outcome, ParentLink, TaskItem, TaskRef, TimerItem, WakeItem};

/// One effect.
#[derive(Clone, Debug)]
pub(crate) enum Effect {
    /// Publish an item.
    Send(Queue, Box<Item>),
    /// Create a child and start it, or tell the caller that its ID is taken.
    Child(Box<NewInstance>),
    /// Deliver an event to wherever the instance is.
    Raise(EventItem),
    /// Terminate the child of this call.
    TerminateChild(InstanceRef, TaskRef),
    /// Add an entry to the instance's app's due-set.
    Schedule(DueEntry),
    /// Remove an entry from it.
    Unschedule(DueKey),
    /// Show the status in the index.
    Index,
}

/// The effects of a turn, in no particular order. `lane` is where the instance is at home after the turn. That an end is noted is none of them: see
/// [`Engine::settle_end`].
pub(crate) fn effects_of(
    instance: &InstanceRef,
    execution: ExecutionId,
    lane: Option<Lane>,
    parent: Option<&ParentLink>,
    turn: &Turn,
) -> Vec<Effect> {
    let mut effects = Vec::new();
    let task = |sequence: Sequence| TaskRef {
        instance: instance.clone(),
        execution,
        sequence,
    };
    let cancelled: HashSet<Sequence> = turn.events.iter().filter_map(cancelled_timer).collect();
    let mut created = HashSet::new();
    let mut schedule = |sequence: Sequence, due: Timestamp, deadline: bool, effects: &mut Vec<Effect>| {
        created.insert(sequence);
        // Created and cancelled in one turn: nobody has seen it.
        if !cancelled.contains(&sequence) {
            let task = task(sequence);
            effects.push(Effect::Schedule(timer_entry(&TimerItem { task, deadline }, due)));
        }
    };
    for event in &turn.events {
        match event {
            HistoryEvent::TaskScheduled {
                sequence,
                app,
                name,
                input,
                task_execution_id,
                attempt,
                limits,
                retried,
            } => {
                if let Some(first) = limits.first_check() {
                    schedule(*sequence, turn.at + first, true, &mut effects);
                }
                let item = TaskItem {
                    caller: task(*sequence),
                    reply_to: lane.unwrap_or_default(),
                    app: app.clone(),
                    name: name.clone(),
                    input: input.clone(),
                    task_execution_id: *task_execution_id,
                    attempt: *attempt,
                    scheduled_at: turn.at,
                    claimed: !limits.is_empty(),
                    timeout: limits.timeout,
                    heartbeat: limits.heartbeat,
                    retried: *retried,
                    misses: 0,
                };
                effects.push(Effect::Send(Queue::Activities(app.clone()), Box::new(Item::Task(item))));
            }
            HistoryEvent::ChildScheduled {
                sequence,
                instance: child,
                workflow,
                input,
                limits,
                retried,
                detached,
                ..
            } => {
                if let Some(first) = limits.first_check() {
                    schedule(*sequence, turn.at + first, true, &mut effects);
                }
                let link = ParentLink {
                    task: task(*sequence),
                    lane: lane.unwrap_or_default(),
                    detached: *detached,
                    retried: *retried,
                };
                effects.push(Effect::Child(Box::new(NewInstance::child(
                    child.clone(),
                    workflow.clone(),
                    input.clone(),
                    link,
                ))));
            }
            HistoryEvent::TimerCreated { sequence, due, .. } => schedule(*sequence, *due, false, &mut effects),
            HistoryEvent::TimerCancelled { .. } => {}
            HistoryEvent::EventSent {
                sequence,
                instance: target,
                name,
                payload,
            } => effects.push(Effect::Raise(EventItem {
                instance: target.clone(),
                name: name.clone(),
                payload: payload.clone(),
                message_id: task(*sequence).message_id("event"),
            })),
            HistoryEvent::ChildFailed {
                terminate: Some(child), ..
            } => {
                effects.push(Effect::TerminateChild(child.instance.clone(), task(child.sequence)));
            }
            HistoryEvent::ExecutionTerminated { children, .. } => {
                effects.extend(
                    children
                        .iter()
                        .map(|child| Effect::TerminateChild(child.instance.clone(), task(child.sequence))),
                );
            }
            HistoryEvent::ExecutionSuspended { .. } | HistoryEvent::ExecutionResumed { .. } => {
                effects.push(Effect::Index)
            }
            _ => {}
        }
        if let Some((_, outcome)) = ended_by(event) {
            effects.extend(answer(instance, parent, outcome));
        }
    }
    effects.extend(
        cancelled
            .into_iter()
            .filter(|sequence| !created.contains(sequence))
            .map(|sequence| Effect::Unschedule(timer_key(&task(sequence)))),
    );
    effects
}

fn cancelled_timer(event: &HistoryEvent) -> Option<Sequence> {
    match event {
        HistoryEvent::TimerCancelled { sequence } => Some(*sequence),
        _ => None,
    }
}

/// A child's outcome, to its parent's lane; nothing if nobody waits for it.
pub(crate) fn answer(child: &InstanceRef, parent: Option<&ParentLink>, outcome: Outcome) -> Option<Effect> {
    let parent = parent.filter(|parent| !parent.detached)?;
    let queue = Queue::Events(parent.task.instance.app.clone(), parent.lane);
    let item = CompletionItem {
        task: parent.task.clone(),
        task_execution_id: None,
        from: child.app.clone(),
        outcome,
        progressed: false,
        ran: None,
    };
    Some(Effect::Send(queue, Box::new(Item::Completion(item))))
}

/// The claim terms of a limited activity call, scheduled at `at`.
pub(crate) fn claim_terms(limits: &TimeLimits, at: Timestamp) -> crate::backend::ClaimTerms {
    /// What an attempt that ended just in time may take for its answer to arrive.
    const GRACE: Duration = Duration::from_millis(500);
    crate::backend::ClaimTerms {
        start_by: limits.schedule_to_start.map(|limit| at + limit),
        timeout: limits.timeout.map(|limit| limit + GRACE),
        heartbeat: limits.heartbeat.map(|limit| limit + GRACE),
    }
}

impl Engine {
    /// Makes effects, those of the due-set that an answer may undo before all others; returns when all of them are durable. What cannot be made keeps
    /// nothing else from being made.
    pub(crate) async fn make(&self, instance: &InstanceRef, record: &Record, effects: Vec<Effect>) -> Result<()> {
        let (mut scheduled, mut unscheduled, mut others) = (Vec::new(), Vec::new(), Vec::new());
        // A wide fan-out sends one queue thousands of items in a row.
        let mut sent: Vec<(Queue, Vec<Item>)> = Vec::new();
        for effect in effects {
            match effect {
                Effect::Schedule(entry) => scheduled.push(entry),
                Effect::Unschedule(key) => unscheduled.push(key),
                Effect::Send(queue, item) => match sent.last_mut() {
                    Some((last, items)) if *last == queue => items.push(*item),
                    _ => sent.push((queue, vec![*item])),
                },
                other => others.push(other),
            }
        }
        if !scheduled.is_empty() {
            self.schedule(instance, &scheduled, When::Set).await?;
            fault_point("effects-scheduled");
        }
        let unscheduling = async {
            if !unscheduled.is_empty() {
                let unschedule = || self.store().unschedule(&instance.app, &unscheduled);
                self.retrying("unschedule", unschedule).await?;
            }
            Ok(())
        };
        let sending = join_all(
            sent.into_iter()
                .map(|(queue, items)| self.outbox.send_all(queue, items)),
        );
        let others = join_all(others.into_iter().map(|effect| self.make_one(instance, record, effect)));
        let (unscheduled, made, sent) = join3(unscheduling, others, sending).await;
        made.into_iter().chain(sent).chain([unscheduled]).collect()
    }

    pub(crate) async fn schedule(&self, instance: &InstanceRef, entries: &[DueEntry], when: When) -> Result<()> {
        let schedule = || self.store().schedule(&instance.app, entries, when);
        self.retrying("schedule", schedule).await
    }

    /// Makes effects, as far as that can be done. `None`: some are left, because they cannot be made: a record is damaged, say. Their turn stays marked,
    /// and the instance's check tries again; meanwhile they hold up nothing.
    ///
    /// # Errors
    /// Those that are not about the effects themselves: that the process stops.
    pub(crate) async fn as_far_as_possible<T>(
        &self,
        instance: &InstanceRef,
        making: impl Future<Output = Result<T>>,
    ) -> Result<Option<T>> {
        match making.await {
            Err(error) if error.is_permanent() => {
                warn!(%instance, %error, "effects of a turn cannot be made; its instance goes on without them, and they are tried again with its checks");
                Ok(None)
            }
            made => made.map(Some),
        }
    }

    async fn make_one(&self, instance: &InstanceRef, record: &Record, effect: Effect) -> Result<()> {
        match effect {
            Effect::Child(child) => Box::pin(self.make_child(*child)).await,
            Effect::Raise(event) => Box::pin(self.raise(event)).await.map(drop),
            Effect::TerminateChild(child, task) => Box::pin(self.terminate_child(&child, task)).await,
            // Notes are ordered by the times that the store has given to the records.
            Effect::Index => self.retrying("index", || self.store().index(instance, record)).await,
            // Made together with others of their kind.
            Effect::Send(..) | Effect::Schedule(_) | Effect::Unschedule(_) => Ok(()),
        }
    }

    async fn make_child(&self, child: NewInstance) -> Result<()> {
        let Some(link) = child.parent.clone() else {
            return Ok(());
        };
        let mut child = child;
        if planted(Defect::SecondAttemptIsDuplicate) {
            let call = format!("{}/{}", link.task.execution, child.instance.id);
            child.request = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, call.as_bytes()).into();
        }
        match self.begin(&child).await? {
            Created::Created(_) | Created::Repeated { .. } => Ok(()),
            // Its parent was terminated before it came to be: nobody waits for an answer.
            Created::Refused => Ok(()),
            Created::Exists(_) if link.detached => {
                warn!(child = %child.instance, parent = %link.task.instance, "a detached child was not started: its instance ID is taken");
                Ok(())
            }
            Created::Exists(occupant) => {
                let message = format!(
                    "instance {} is {} and was not started by this call: choose another ID, or wait until it is over",
                    child.instance, occupant.status
                );
                let failure = Failure::new(kinds::INSTANCE_ALREADY_EXISTS, message);
                let item = CompletionItem {
                    task: link.task.clone(),
                    task_execution_id: None,
                    from: link.task.instance.app.clone(),
                    outcome: Outcome::Failed(failure),
                    progressed: false,
                    ran: None,
                };
                self.outbox
                    .send(
                        Queue::Events(link.task.instance.app.clone(), link.lane),
                        Item::Completion(item),
                    )
                    .await
            }
        }
    }

    /// Takes an event to its instance: to the lane, or into the inbox.
    pub(crate) async fn raise(&self, event: EventItem) -> Result<Delivered> {
        let deliver = self.deliver_event(&event);
        let instance = event.instance.clone();
        let delivered = self.retrying("deliver", || self.store().deliver(&deliver)).await?;
        match &delivered {
            Delivered::ToLane(lane) => {
                let queue = Queue::Events(instance.app.clone(), *lane);
                match self.outbox.send(queue.clone(), Item::Event(event.clone())).await {
                    // The store takes what the broker does not.
                    Err(error) if error.is_too_large() => return self.keep(&event, queue).await,
                    sent => sent?,
                }
            }
            Delivered::Full => warn!(%instance, "an event was dropped: the instance's inbox is full"),
            other => debug!(%instance, ?other, "event delivered"),
        }
        Ok(delivered)
    }

    /// Takes an event that is larger than the broker takes into its instance's inbox, and has the lane look there.
    pub(crate) async fn keep(&self, event: &EventItem, lane: Queue) -> Result<Delivered> {
        let kept = Deliver {
            park: true,
            ..self.deliver_event(event)
        };
        let instance = event.instance.clone();
        let delivered = self.retrying("deliver", || self.store().deliver(&kept)).await?;
        if matches!(delivered, Delivered::Full) {
            warn!(%instance, "an event was dropped: the instance's inbox is full");
        } else if let Err(error) = self.outbox.send(lane, Item::Wake(WakeItem { instance })).await {
            debug!(%error, "the event is found with the instance's next check");
        }
        Ok(delivered)
    }

    fn deliver_event(&self, event: &EventItem) -> Deliver {
        Deliver {
            instance: event.instance.clone(),
            item: encode(&Item::Event(event.clone())),
            bound: Some(self.limits.inbox_events),
            park: false,
            keep_absent: (!planted(Defect::EarlyEventIsLost)).then_some(self.limits.dedup_window),
        }
    }

    /// [`persist`] with this engine's clock and stop signal.
    pub(crate) async fn retrying<T, F, Fut>(&self, what: &'static str, operation: F) -> Result<T>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        persist(&**self.backend.clock(), &self.stop, what, operation).await
    }
}

/// What a terminated run shows as its outcome.
pub(crate) fn terminated(reason: &str) -> Failure {
    let message = if reason.is_empty() {
        "the workflow was terminated".to_owned()
    } else {
        format!("the workflow was terminated: {reason}")
    };
    Failure::new(kinds::TERMINATED, message).fatal()
}

/// The first event of an execution.
pub(crate) fn started(record: &Record, input: Payload, run: RunId) -> HistoryEvent {
    HistoryEvent::ExecutionStarted {
        workflow: record.origin.workflow.clone(),
        input,
        run,
        generation: record.view.generation,
        parent: record.origin.parent.clone(),
        tags: record.origin.tags.clone(),
        carried: Vec::new(),
        seen: Vec::new(),
    }
}
