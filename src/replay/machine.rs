//! The state of an execution between its code and its history.
//!
//! Code asks for things (`schedule`, `timer`, `wait_event`): each request takes a sequence number, becomes a *decision* (a history event) and leaves a
//! *slot* to wait on. Arrived events are applied one at a time and fill slots. Retries and time limits are driven here, so they go on while the
//! code looks elsewhere. The lock around a machine is held only inside these methods; no user code runs under it.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::task::Waker;
use std::time::Duration;

use super::events::EventQueue;
use super::history::{CarriedEvent, ChildRef, HistoryEvent, Refused, TimeLimits, TimerPurpose};
use super::open::{Open, Plan, Target};
use crate::model::{
    AppId, ExecutionId, Failure, InstanceId, InstanceRef, MessageId, Payload, RunId, Sequence, Timestamp,
    derived_child_id, kinds,
};
use crate::wire::ParentLink;

/// Names something that code can wait on. Not recorded: it only lives with the future.
pub(super) type SlotId = u64;

/// What a slot is filled with: `None` for a wait for an event that ran out of time.
pub(super) type Filling = Result<Option<Payload>, Failure>;

/// Who the execution is.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) instance: InstanceRef,
    pub(super) execution: ExecutionId,
    pub(super) run: Option<RunId>,
    pub(super) workflow: String,
    pub(super) generation: u32,
    pub(super) parent: Option<ParentLink>,
    pub(super) tags: BTreeMap<String, String>,
}

/// Something that code waits on.
#[derive(Default)]
struct Slot {
    filled: Option<(u64, Filling)>,
    waker: Option<Waker>,
    group: Option<u64>,
    /// Of a call: how its attempts are made.
    plan: Option<Box<Plan>>,
    /// What is open for it: an attempt, a timer, the time limit of a wait for an event.
    open: Option<Sequence>,
    /// Of a wait for an event: its folded name; once filled, the place that the event had in the queue and its name as sent.
    event: Option<(String, Option<(u64, String)>)>,
}

/// Slots that are waited for together.
#[derive(Default)]
struct Group {
    /// Those that were filled and not looked at yet, in history order.
    ready: VecDeque<SlotId>,
    waker: Option<Waker>,
}

/// See the module.
pub(super) struct Machine {
    pub(super) identity: Identity,
    pub(super) now: Timestamp,
    pub(super) is_replaying: bool,
    /// Set while the code is being dropped: futures that go away then mean nothing.
    pub(super) is_closed: bool,
    /// Decisions that are not in the history yet (live) or not compared with it yet (replay).
    pub(super) decided: VecDeque<HistoryEvent>,
    pub(super) open: BTreeMap<Sequence, (Option<SlotId>, Open)>,
    pub(super) custom_status: Option<Payload>,
    pub(super) continue_as_new: Option<Payload>,
    pub(super) events: EventQueue,
    seen: HashMap<MessageId, Timestamp>,
    next_sequence: Sequence,
    draws: u64,
    slots: HashMap<SlotId, Slot>,
    next_slot: SlotId,
    stamps: u64,
    groups: HashMap<u64, Group>,
    to_wake: Vec<Waker>,
    /// Slots that code waits on and that an event can fill.
    waiting: usize,
    /// How often code has polled a slot: what a fan-out costs.
    #[cfg(test)]
    pub(super) looks: u64,
    patches: HashMap<String, bool>,
    recorded_patches: HashSet<String>,
    recorded_refusals: HashMap<(Sequence, Refused), Failure>,
    payload_limit: usize,
    /// How long a raised event's message ID is remembered.
    dedup_window: Duration,
}

impl Machine {
    pub(super) fn new(
        instance: InstanceRef,
        execution: ExecutionId,
        payload_limit: usize,
        dedup_window: Duration,
    ) -> Self {
        Self {
            identity: Identity {
                instance,
                execution,
                run: None,
                workflow: String::new(),
                generation: 0,
                parent: None,
                tags: BTreeMap::new(),
            },
            now: Timestamp::default(),
            is_replaying: true,
            is_closed: false,
            decided: VecDeque::new(),
            open: BTreeMap::new(),
            custom_status: None,
            continue_as_new: None,
            events: EventQueue::default(),
            seen: HashMap::new(),
            next_sequence: 0,
            draws: 0,
            slots: HashMap::new(),
            next_slot: 0,
            stamps: 0,
            groups: HashMap::new(),
            to_wake: Vec::new(),
            waiting: 0,
            #[cfg(test)]
            looks: 0,
            patches: HashMap::new(),
            recorded_patches: HashSet::new(),
            recorded_refusals: HashMap::new(),
            payload_limit,
            dedup_window,
        }
    }

    // --- what code asks for

    /// Calls an activity or a child; the slot is filled when its last attempt is over.
    pub(super) fn call(&mut self, plan: Plan) -> SlotId {
        let slot = self.new_slot();
        if let Some(failure) = self.refusal(Refused::Call, &plan.input) {
            self.fill(slot, Err(failure));
            return slot;
        }
        self.attempt(slot, plan);
        slot
    }

    /// A call that is not valid: it takes its number all the same, so that the calls after it keep theirs.
    pub(super) fn refused_call(&mut self, failure: Failure) -> SlotId {
        let slot = self.new_slot();
        let failure = self.refuse(Refused::Call, failure);
        self.fill(slot, Err(failure));
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
        let slot = self.new_slot();
        self.set_timer(slot, due, TimerPurpose::Timer);
        slot
    }

    /// Waits for an event; with a time limit, the slot may be filled with `None`.
    pub(super) fn wait_event(&mut self, name: &str, within: Option<Duration>) -> SlotId {
        let slot = self.new_slot();
        let folded = EventQueue::fold(name);
        if let Some((place, event)) = self.events.take(&folded) {
            self.slot(slot).event = Some((folded, Some((place, event.name))));
            self.fill(slot, Ok(Some(event.payload)));
            return slot;
        }
        self.slot(slot).event = Some((folded, None));
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
        if let Some(known) = self.patches.get(name) {
            return *known;
        }
        let answer = !self.is_replaying || self.recorded_patches.contains(name);
        if answer {
            self.decided
                .push_back(HistoryEvent::PatchMarked { name: name.to_owned() });
        }
        self.patches.insert(name.to_owned(), answer);
        answer
    }

    /// 128 bits that are the same on every replay: a uuid (version 5) of the execution ID and a count of draws.
    pub(super) fn draw(&mut self) -> uuid::Uuid {
        let drawn = self.identity.execution.derive("draw", self.draws);
        self.draws += 1;
        drawn
    }

    // --- slots

    /// The filling, once, or registers whom to wake.
    pub(super) fn poll_slot(&mut self, id: SlotId, waker: &Waker) -> Option<Filling> {
        #[cfg(test)]
        {
            self.looks += 1;
        }
        let slot = self.slots.get_mut(&id)?;
        if slot.filled.is_some() {
            return self
                .slots
                .remove(&id)
                .and_then(|slot| slot.filled)
                .map(|(_, filling)| filling);
        }
        register(&mut slot.waker, waker);
        None
    }

    /// In which order slots were filled; `None` if this one is not.
    pub(super) fn stamp(&self, id: SlotId) -> Option<u64> {
        self.slots.get(&id)?.filled.as_ref().map(|(stamp, _)| *stamp)
    }

    /// A new group of slots, so that whoever waits for many learns which are filled without asking each.
    pub(super) fn new_group(&mut self) -> u64 {
        self.next_slot += 1;
        self.groups.insert(self.next_slot, Group::default());
        self.next_slot
    }

    /// Adds a slot to a group: from then on the group's waker is woken for it.
    pub(super) fn join_group(&mut self, group: u64, id: SlotId) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        slot.group = Some(group);
        if slot.filled.is_some()
            && let Some(group) = self.groups.get_mut(&group)
        {
            group.ready.push_back(id);
        }
    }

    /// The group's next slot that was filled, in history order; if there is none, whom to wake when there is.
    pub(super) fn next_of_group(&mut self, group: u64, waker: &Waker) -> Option<SlotId> {
        let group = self.groups.get_mut(&group)?;
        let next = group.ready.pop_front();
        if next.is_none() {
            register(&mut group.waker, waker);
        }
        next
    }

    pub(super) fn leave_group(&mut self, group: u64) {
        self.groups.remove(&group);
    }

    /// Nobody waits on the slot any more. A call goes on, its result is recorded and then ignored, and it is not retried; a timer is cancelled; an
    /// event that was not taken goes back to its place.
    pub(super) fn abandon(&mut self, id: SlotId) {
        let Some(slot) = self.slots.remove(&id) else { return };
        if slot.filled.is_none() {
            self.waiting -= 1;
        }
        if self.is_closed {
            return;
        }
        match (slot.event, slot.filled) {
            (Some((folded, Some((place, name)))), Some((_, Ok(Some(payload))))) => {
                self.give_back(&folded, place, CarriedEvent { name, payload });
            }
            (Some((folded, _)), None) => self.events.stop_waiting(&folded, id),
            _ => {}
        }
        let Some(sequence) = slot.open else { return };
        match self.open.get_mut(&sequence) {
            Some((_, Open::Timer { .. })) => self.cancel_timer(sequence),
            Some((owner, _)) => *owner = None,
            None => {}
        }
    }

    fn give_back(&mut self, folded: &str, place: u64, event: CarriedEvent) {
        match self.events.next_waiter(folded) {
            Some(waiter) => self.hand_over(waiter, place, event),
            None => self.events.put_back(folded, place, event),
        }
    }

    fn hand_over(&mut self, waiter: SlotId, place: u64, event: CarriedEvent) {
        let slot = self.slot(waiter);
        if let Some((_, taken)) = &mut slot.event {
            *taken = Some((place, event.name));
        }
        if let Some(timer) = slot.open.take() {
            self.cancel_timer(timer);
        }
        self.fill(waiter, Ok(Some(event.payload)));
    }

    fn new_slot(&mut self) -> SlotId {
        self.next_slot += 1;
        self.waiting += 1;
        self.slots.insert(self.next_slot, Slot::default());
        self.next_slot
    }

    fn slot(&mut self, id: SlotId) -> &mut Slot {
        self.slots.entry(id).or_default()
    }

    fn fill(&mut self, id: SlotId, filling: Filling) {
        self.stamps += 1;
        let stamp = self.stamps;
        let Some(slot) = self.slots.get_mut(&id) else { return };
        slot.filled = Some((stamp, filling));
        slot.plan = None;
        slot.open = None;
        self.waiting -= 1;
        self.to_wake.extend(slot.waker.take());
        if let Some(group) = slot.group.and_then(|group| self.groups.get_mut(&group)) {
            group.ready.push_back(id);
            self.to_wake.extend(group.waker.take());
        }
    }

    // --- scheduling

    fn take_sequence(&mut self) -> Sequence {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        sequence
    }

    /// Records the refusal. It takes a number, so that what is asked for after it keeps its own. A recorded failure stands as it was worded then.
    fn refuse(&mut self, what: Refused, failure: Failure) -> Failure {
        let sequence = self.take_sequence();
        let failure = self.recorded_refusals.remove(&(sequence, what)).unwrap_or(failure);
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
            self.recorded_refusals.get(&(self.next_sequence, what)).cloned()
        } else {
            too_large(what, payload, self.payload_limit)
        }?;
        Some(self.refuse(what, failure))
    }

    fn attempt(&mut self, slot: SlotId, mut plan: Plan) {
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
        self.open.insert(sequence, (Some(slot), open));
        if plan.retry.is_none() {
            plan.input = Payload::null();
        }
        let slot = self.slot(slot);
        slot.open = Some(sequence);
        slot.plan = Some(Box::new(plan));
    }

    fn set_timer(&mut self, slot: SlotId, due: Timestamp, purpose: TimerPurpose) {
        let sequence = self.take_sequence();
        self.decided.push_back(HistoryEvent::TimerCreated {
            sequence,
            due,
            purpose: purpose.clone(),
        });
        self.open.insert(sequence, (Some(slot), Open::Timer { due, purpose }));
        self.slot(slot).open = Some(sequence);
    }

    fn cancel_timer(&mut self, sequence: Sequence) {
        self.open.remove(&sequence);
        self.decided.push_back(HistoryEvent::TimerCancelled { sequence });
    }

    // --- what arrives

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
                self.seen.extend(seen.iter().cloned());
            }
            HistoryEvent::TaskCompleted { sequence, output } | HistoryEvent::ChildCompleted { sequence, output } => {
                if let Some(slot) = self.close(*sequence) {
                    self.fill(slot, Ok(Some(output.clone())));
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
                self.remember(message_id);
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
        let (slot, open) = self.open.remove(&sequence)?;
        if open.has_deadline() {
            self.decided.push_back(HistoryEvent::TimerCancelled { sequence });
        }
        slot
    }

    fn failed(&mut self, slot: SlotId, failure: &Failure) {
        let random = unit(self.identity.execution.derive("jitter", self.next_sequence));
        let now = self.now;
        let next = self.slot(slot).plan.as_ref().and_then(|plan| {
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
            None => self.fill(slot, Err(failure.clone())),
        }
    }

    fn fired(&mut self, sequence: Sequence) {
        let Some((Some(slot), Open::Timer { purpose, .. })) = self.open.remove(&sequence) else {
            return;
        };
        match purpose {
            TimerPurpose::Timer => self.fill(slot, Ok(Some(Payload::null()))),
            TimerPurpose::EventTimeout { name } => {
                self.events.stop_waiting(&EventQueue::fold(&name), slot);
                self.fill(slot, Ok(None));
            }
            TimerPurpose::Retry { attempt, .. } => {
                let Some(mut plan) = self.slot(slot).plan.take() else {
                    return;
                };
                plan.attempt = attempt;
                self.attempt(slot, *plan);
            }
        }
    }

    /// Remembers an event's message ID, and forgets those whose time is over.
    fn remember(&mut self, id: &MessageId) {
        const SWEEP_AT: usize = 1024;
        self.seen.insert(id.clone(), self.now);
        if self.seen.len().is_multiple_of(SWEEP_AT) {
            let (now, window) = (self.now, self.dedup_window);
            self.seen.retain(|_, at| now.since(*at) < window);
        }
    }

    // --- for the execution around it

    pub(super) fn next_sequence(&self) -> Sequence {
        self.next_sequence
    }

    pub(super) fn has_seen(&self, id: &MessageId) -> bool {
        self.seen.contains_key(id)
    }

    /// What continue-as-new hands to the next execution.
    pub(super) fn carry(&mut self) -> (Vec<CarriedEvent>, Vec<(MessageId, Timestamp)>) {
        let (now, window) = (self.now, self.dedup_window);
        let mut seen: Vec<_> = self.seen.drain().filter(|(_, at)| now.since(*at) < window).collect();
        seen.sort();
        (self.events.drain(), seen)
    }

    /// Whom to wake after the lock is released.
    pub(super) fn take_wakers(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.to_wake)
    }

    /// True if code waits on something that an event can bring.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting > 0
    }

    /// Learns from a turn's events, before they are replayed, what the code was told then.
    pub(super) fn note_recorded(&mut self, events: &[HistoryEvent]) {
        for event in events {
            match event {
                HistoryEvent::PatchMarked { name } => {
                    self.recorded_patches.insert(name.clone());
                }
                HistoryEvent::CallRefused {
                    sequence,
                    what,
                    failure,
                } => {
                    self.recorded_refusals.insert((*sequence, *what), failure.clone());
                }
                _ => {}
            }
        }
    }

    /// A replayed decision stands in the history as `recorded`: its due time is the one that counts.
    pub(super) fn confirm(&mut self, recorded: &HistoryEvent) {
        if let HistoryEvent::TimerCreated {
            sequence,
            due: recorded,
            ..
        } = recorded
            && let Some((_, Open::Timer { due, .. })) = self.open.get_mut(sequence)
        {
            *due = *recorded;
        }
    }

    /// The execution ends: nothing that is open has a due-set entry any more. Gives the children that are still open.
    pub(super) fn wind_up(&mut self) -> Vec<ChildRef> {
        let mut children = Vec::new();
        for (sequence, (_, open)) in std::mem::take(&mut self.open) {
            match open {
                Open::Activity { limited: false, .. } => continue,
                Open::Child { instance, limits, .. } => {
                    children.push(ChildRef { instance, sequence });
                    if limits.is_empty() {
                        continue;
                    }
                }
                Open::Timer { .. } | Open::Activity { .. } => {}
            }
            self.decided.push_back(HistoryEvent::TimerCancelled { sequence });
        }
        children
    }

    /// Rough size in memory, in bytes: what the cache counts.
    pub(super) fn weight(&self) -> usize {
        const EACH: usize = 512;
        let inputs: usize = self
            .slots
            .values()
            .filter_map(|slot| slot.plan.as_ref())
            .map(|plan| plan.input.len())
            .sum();
        2048 + EACH * (self.open.len() + self.slots.len()) + self.events.weight() + inputs + 96 * self.seen.len()
    }
}

/// Puts a waker in place of the one before, unless both wake the same.
fn register(place: &mut Option<Waker>, waker: &Waker) {
    match place {
        Some(known) if known.will_wake(waker) => {}
        other => *other = Some(waker.clone()),
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
