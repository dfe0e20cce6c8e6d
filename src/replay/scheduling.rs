//! What workflow code asks for: calls, timers, waits for events, events for others.
//!
//! Each request takes a sequence number and becomes a decision; one that the code can wait on also gets a slot. A retried call asks again here, attempt
//! by attempt, so that retries go on while the code looks elsewhere.

use std::time::Duration;

use super::events::EventQueue;
use super::history::{CarriedEvent, HistoryEvent, Refused, TimeLimits, TimerPurpose};
use super::machine::Machine;
use super::open::{Open, Plan, Target};
use super::slots::SlotId;
use crate::model::{AppId, Failure, InstanceId, InstanceRef, Payload, Sequence, Timestamp, derived_child_id, kinds};

impl Machine {
    /// Calls an activity or a child; the slot is filled when its last attempt is over.
    pub(super) fn call(&mut self, plan: Plan) -> SlotId {
        let slot = self.slots.open();
        if let Some(failure) = self.refusal(Refused::Call, &plan.input) {
            self.slots.fill(slot, Err(failure));
            return slot;
        }
        self.attempt(slot, plan);
        slot
    }

    /// A call that is not valid: it takes its number all the same, so that the calls after it keep theirs.
    pub(super) fn refused_call(&mut self, failure: Failure) -> SlotId {
        let slot = self.slots.open();
        let failure = self.refuse(Refused::Call, failure);
        self.slots.fill(slot, Err(failure));
        slot
    }

    /// Starts a child that nobody waits for.
    pub(super) fn detach(
        &mut self,
        app: AppId,
        workflow: String,
        id: Option<InstanceId>,
        input: Payload,
    ) -> Result<InstanceRef, Failure> {
        if let Some(failure) = self.refusal(Refused::Call, &input) {
            return Err(failure);
        }
        let sequence = self.take_sequence();
        let instance = InstanceRef::new(
            app,
            id.unwrap_or_else(|| derived_child_id(&self.identity.instance.id, sequence)),
        );
        self.decided.push_back(HistoryEvent::ChildScheduled {
            sequence,
            instance: instance.clone(),
            workflow,
            input,
            attempt: 1,
            limits: TimeLimits::default(),
            retried: false,
            detached: true,
        });
        Ok(instance)
    }

    /// A timer; the slot is filled when it fires.
    pub(super) fn timer(&mut self, due: Timestamp) -> SlotId {
        let slot = self.slots.open();
        self.set_timer(slot, due, TimerPurpose::Timer);
        slot
    }

    /// Waits for an event; with a time limit, the slot may be filled with `None`.
    pub(super) fn wait_event(&mut self, name: &str, within: Option<Duration>) -> SlotId {
        let slot = self.slots.open();
        let folded = EventQueue::fold(name);
        if let Some((place, event)) = self.events.take(&folded) {
            self.slots.at(slot).event = Some((folded, Some((place, event.name))));
            self.slots.fill(slot, Ok(Some(event.payload)));
            return slot;
        }
        self.slots.at(slot).event = Some((folded, None));
        self.events.wait(name, slot, self.now);
        if let Some(within) = within {
            self.set_timer(
                slot,
                self.now + within,
                TimerPurpose::EventTimeout { name: name.to_owned() },
            );
        }
        slot
    }

    /// Raises an event on another instance.
    pub(super) fn send_event(&mut self, instance: InstanceRef, name: String, payload: Payload) -> Result<(), Failure> {
        if let Some(failure) = self.refusal(Refused::Event, &payload) {
            return Err(failure);
        }
        let sequence = self.take_sequence();
        self.decided.push_back(HistoryEvent::EventSent {
            sequence,
            instance,
            name,
            payload,
        });
        Ok(())
    }

    /// True if the code after this point may follow the new way; the answer is recorded, and stays the same for the execution.
    pub(super) fn patched(&mut self, name: &str) -> bool {
        let (answer, is_first) = self.answers.patched(name, self.is_replaying);
        if answer && is_first {
            self.decided
                .push_back(HistoryEvent::PatchMarked { name: name.to_owned() });
        }
        answer
    }

    /// 128 bits that are the same on every replay: a uuid (version 5) of the execution ID and a count of draws.
    pub(super) fn draw(&mut self) -> uuid::Uuid {
        let drawn = self.identity.execution.derive("draw", self.draws);
        self.draws += 1;
        drawn
    }

    /// Nobody waits on the slot any more. A call goes on, its result is recorded and then ignored, and it is not retried; a timer is cancelled; an
    /// event that was not taken goes back to its place.
    pub(super) fn abandon(&mut self, id: SlotId) {
        let Some(mut slot) = self.slots.remove(id) else { return };
        if self.is_closed {
            return;
        }
        let (event, open) = (slot.event.take(), slot.open);
        match (event, slot.into_filling()) {
            (Some((folded, Some((place, name)))), Some(Ok(Some(payload)))) => {
                self.give_back(&folded, place, CarriedEvent { name, payload });
            }
            (Some((folded, _)), None) => self.events.stop_waiting(&folded, id),
            _ => {}
        }
        let Some(sequence) = open else { return };
        match self.open.get(sequence) {
            Some(Open::Timer { .. }) => self.cancel_timer(sequence),
            _ => self.open.give_up(sequence),
        }
    }

    fn give_back(&mut self, folded: &str, place: u64, event: CarriedEvent) {
        match self.events.next_waiter(folded) {
            Some(waiter) => self.hand_over(waiter, place, event),
            None => self.events.put_back(folded, place, event),
        }
    }

    // --- decisions

    fn take_sequence(&mut self) -> Sequence {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        sequence
    }

    /// Records the refusal. It takes a number, so that what is asked for after it keeps its own. A recorded failure stands as it was worded then.
    fn refuse(&mut self, what: Refused, failure: Failure) -> Failure {
        let sequence = self.take_sequence();
        let failure = self.answers.take_refusal(sequence, what).unwrap_or(failure);
        self.decided.push_back(HistoryEvent::CallRefused {
            sequence,
            what,
            failure: failure.clone(),
        });
        failure
    }

    /// Why the code's next request cannot be granted with this payload; a refusal is recorded. On replay the history decides, because the limit may
    /// have been another one then.
    pub(super) fn refusal(&mut self, what: Refused, payload: &Payload) -> Option<Failure> {
        let failure = if self.is_replaying {
            self.answers.refusal(self.next_sequence, what).cloned()
        } else {
            too_large(what, payload, self.payload_limit)
        }?;
        Some(self.refuse(what, failure))
    }

    /// Schedules the plan's next attempt.
    pub(super) fn attempt(&mut self, slot: SlotId, mut plan: Plan) {
        let sequence = self.take_sequence();
        let (retried, attempt, limits, since) = (plan.retry.is_some(), plan.attempt, plan.limits, self.now);
        let input = plan.input.clone();
        let (event, open) = match plan.target.clone() {
            Target::Activity { app, name } => {
                let task_execution_id = plan.task_execution_id;
                let open = Open::Activity {
                    app: app.clone(),
                    name: name.clone(),
                    attempt,
                    since,
                    task_execution_id,
                    limited: !limits.is_empty(),
                    retried,
                };
                (
                    HistoryEvent::TaskScheduled {
                        sequence,
                        app,
                        name,
                        input,
                        task_execution_id,
                        attempt,
                        limits,
                        retried,
                    },
                    open,
                )
            }
            Target::Child { app, workflow, id } => {
                let instance = InstanceRef::new(
                    app,
                    id.unwrap_or_else(|| derived_child_id(&self.identity.instance.id, sequence)),
                );
                let open = Open::Child {
                    instance: instance.clone(),
                    workflow: workflow.clone(),
                    attempt,
                    since,
                    limits,
                };
                (
                    HistoryEvent::ChildScheduled {
                        sequence,
                        instance,
                        workflow,
                        input,
                        attempt,
                        limits,
                        retried,
                        detached: false,
                    },
                    open,
                )
            }
        };
        self.decided.push_back(event);
        self.open.insert(sequence, slot, open);
        if plan.retry.is_none() {
            plan.input = Payload::null();
        }
        let slot = self.slots.at(slot);
        slot.open = Some(sequence);
        slot.plan = Some(Box::new(plan));
    }

    /// Sets a timer that the slot waits for, or that a call waits for before its next attempt.
    pub(super) fn set_timer(&mut self, slot: SlotId, due: Timestamp, purpose: TimerPurpose) {
        let sequence = self.take_sequence();
        self.decided.push_back(HistoryEvent::TimerCreated {
            sequence,
            due,
            purpose: purpose.clone(),
        });
        self.open.insert(sequence, slot, Open::Timer { due, purpose });
        self.slots.at(slot).open = Some(sequence);
    }

    /// Nobody is interested in the timer any more.
    pub(super) fn cancel_timer(&mut self, sequence: Sequence) {
        self.open.remove(sequence);
        self.decided.push_back(HistoryEvent::TimerCancelled { sequence });
    }
}

fn too_large(what: Refused, payload: &Payload, limit: usize) -> Option<Failure> {
    (payload.len() > limit).then(|| {
        let message = format!(
            "the {what} has {} bytes and the limit is {limit}: raise `payload_bytes` (LEVERET_PAYLOAD_BYTES) on every app that handles it, or pass a reference",
            payload.len()
        );
        Failure::new(kinds::PAYLOAD_TOO_LARGE, message).fatal()
    })
}

/// The first 48 bits of a uuid's hash as a number in 0..1.
pub(super) fn unit(id: uuid::Uuid) -> f64 {
    // Version and variant bits stand in the middle of a uuid; the first 48 bits are free of them.
    let bits = id.as_u128() >> 80;
    bits as f64 / (1u64 << 48) as f64
}
