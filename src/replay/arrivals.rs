//! What arrives: each event of the history, or of the turn that begins, is applied here and fills the slot that waits for it.

use super::events::EventQueue;
use super::history::{CarriedEvent, HistoryEvent, TimerPurpose};
use super::machine::Machine;
use super::open::{Open, Target};
use super::scheduling::unit;
use super::slots::SlotId;
use crate::model::{Failure, Payload, Sequence};

impl Machine {
    /// Applies an arrived event. What the code has to say to it comes out when it is polled next.
    pub(super) fn apply(&mut self, event: &HistoryEvent) {
        match event {
            HistoryEvent::ExecutionStarted {
                workflow,
                run,
                generation,
                parent,
                tags,
                carried,
                seen,
                ..
            } => {
                self.identity.workflow.clone_from(workflow);
                self.identity.run = Some(*run);
                self.identity.generation = *generation;
                self.identity.parent.clone_from(parent);
                self.identity.tags.clone_from(tags);
                for event in carried {
                    self.events.push(event.clone());
                }
                self.seen.extend(seen);
            }
            HistoryEvent::TaskCompleted { sequence, output } | HistoryEvent::ChildCompleted { sequence, output } => {
                if let Some(slot) = self.close(*sequence) {
                    self.slots.fill(slot, Ok(Some(output.clone())));
                }
            }
            HistoryEvent::TaskFailed { sequence, failure } | HistoryEvent::ChildFailed { sequence, failure, .. } => {
                if let Some(slot) = self.close(*sequence) {
                    self.failed(slot, failure);
                }
            }
            HistoryEvent::TimerFired { sequence } => self.fired(*sequence),
            HistoryEvent::EventRaised {
                name,
                payload,
                message_id,
            } => {
                self.seen.insert(message_id, self.now);
                let event = CarriedEvent {
                    name: name.clone(),
                    payload: payload.clone(),
                };
                match self.events.next_waiter(&EventQueue::fold(name)) {
                    Some(waiter) => {
                        let place = self.events.take_place();
                        self.hand_over(waiter, place, event);
                    }
                    None => self.events.push(event),
                }
            }
            // These change who may run the code, not what it sees; decisions are not applied.
            _ => {}
        }
    }

    /// Takes the call out of what is open, and its deadline out of the due-set.
    fn close(&mut self, sequence: Sequence) -> Option<SlotId> {
        let (slot, open) = self.open.remove(sequence)?;
        if open.has_deadline() {
            self.decided.push_back(HistoryEvent::TimerCancelled { sequence });
        }
        slot
    }

    fn failed(&mut self, slot: SlotId, failure: &Failure) {
        let random = unit(self.identity.execution.derive("jitter", self.next_sequence));
        let now = self.now;
        let next = self.slots.at(slot).plan.as_ref().and_then(|plan| {
            let wait = plan
                .retry
                .as_ref()?
                .next_wait(plan.attempt, now.since(plan.first_at), failure, random)?;
            let (Target::Activity { app, name }
            | Target::Child {
                app, workflow: name, ..
            }) = &plan.target;
            Some((
                wait,
                TimerPurpose::Retry {
                    app: app.clone(),
                    name: name.clone(),
                    attempt: plan.attempt + 1,
                },
            ))
        });
        match next {
            Some((wait, purpose)) => self.set_timer(slot, now + wait, purpose),
            None => self.slots.fill(slot, Err(failure.clone())),
        }
    }

    fn fired(&mut self, sequence: Sequence) {
        let Some((Some(slot), Open::Timer { purpose, .. })) = self.open.remove(sequence) else {
            return;
        };
        match purpose {
            TimerPurpose::Timer => self.slots.fill(slot, Ok(Some(Payload::null()))),
            TimerPurpose::EventTimeout { name } => {
                self.events.stop_waiting(&EventQueue::fold(&name), slot);
                self.slots.fill(slot, Ok(None));
            }
            TimerPurpose::Retry { attempt, .. } => {
                let Some(mut plan) = self.slots.at(slot).plan.take() else {
                    return;
                };
                plan.attempt = attempt;
                self.attempt(slot, *plan);
            }
        }
    }

    /// Gives an event to the one who has waited longest; its time limit is off.
    pub(super) fn hand_over(&mut self, waiter: SlotId, place: u64, event: CarriedEvent) {
        let slot = self.slots.at(waiter);
        if let Some((_, taken)) = &mut slot.event {
            *taken = Some((place, event.name));
        }
        if let Some(timer) = slot.open.take() {
            self.cancel_timer(timer);
        }
        self.slots.fill(waiter, Ok(Some(event.payload)));
    }
}
