//! Slots: what workflow code waits on.
//!
//! A slot is empty, then filled, once; polling takes the filling out and the slot away. Fillings are numbered in the order in which they came, which
//! is the history's, so that code learns what was over first. A *group* holds slots that are waited for together: whoever waits for a thousand
//! calls is told which one is ready and does not ask each.
//!
//! Nothing here decides anything: what fills a slot is for the machine around it to say.

use std::collections::VecDeque;
use std::task::Waker;

use super::open::Plan;
use crate::model::{Failure, Map, Payload, Sequence};

/// Names something that code can wait on. Not recorded: it only lives with the future.
pub(super) type SlotId = u64;

/// What a slot is filled with: `None` for a wait for an event that ran out of time.
pub(super) type Filling = Result<Option<Payload>, Failure>;

/// Something that code waits on.
#[derive(Default)]
pub(super) struct Slot {
    /// With its place in the order of fillings.
    filled: Option<(u64, Filling)>,
    waker: Option<Waker>,
    group: Option<u64>,
    /// Of a call: how its attempts are made.
    pub(super) plan: Option<Box<Plan>>,
    /// What is open for it: an attempt, a timer, the time limit of a wait for an event.
    pub(super) open: Option<Sequence>,
    /// Of a wait for an event: its folded name; once filled, the place that the event had in the queue and its name as sent.
    pub(super) event: Option<(String, Option<(u64, String)>)>,
}

impl Slot {
    /// What the code never looked at.
    pub(super) fn into_filling(self) -> Option<Filling> {
        self.filled.map(|(_, filling)| filling)
    }
}

/// Slots that are waited for together.
#[derive(Default)]
struct Group {
    /// Those that were filled and not looked at yet, in history order.
    ready: VecDeque<SlotId>,
    waker: Option<Waker>,
}

/// See the module.
#[derive(Default)]
pub(super) struct Slots {
    slots: Map<SlotId, Slot>,
    groups: Map<u64, Group>,
    /// The last number given to a slot or a group.
    last: u64,
    fillings: u64,
    /// Slots that are not filled.
    empty: usize,
    to_wake: Vec<Waker>,
    /// How often code has polled a slot: what a fan-out costs.
    #[cfg(test)]
    pub(super) looks: u64,
}

impl Slots {
    /// A new slot, empty.
    pub(super) fn open(&mut self) -> SlotId {
        self.last += 1;
        self.empty += 1;
        self.slots.insert(self.last, Slot::default());
        self.last
    }

    /// The slot of this number.
    pub(super) fn at(&mut self, id: SlotId) -> &mut Slot {
        self.slots.entry(id).or_default()
    }

    /// What is open for it.
    pub(super) fn open_for(&self, id: SlotId) -> Option<Sequence> {
        self.slots.get(&id)?.open
    }

    /// Fills a slot; nothing is open for it any more.
    pub(super) fn fill(&mut self, id: SlotId, filling: Filling) {
        self.fillings += 1;
        let place = self.fillings;
        let Some(slot) = self.slots.get_mut(&id) else { return };
        slot.filled = Some((place, filling));
        slot.plan = None;
        slot.open = None;
        self.empty -= 1;
        self.to_wake.extend(slot.waker.take());
        if let Some(group) = slot.group.and_then(|group| self.groups.get_mut(&group)) {
            group.ready.push_back(id);
            self.to_wake.extend(group.waker.take());
        }
    }

    /// The filling, once, or registers whom to wake.
    pub(super) fn poll(&mut self, id: SlotId, waker: &Waker) -> Option<Filling> {
        #[cfg(test)]
        {
            self.looks += 1;
        }
        let slot = self.slots.get_mut(&id)?;
        if slot.filled.is_some() {
            return self.slots.remove(&id).and_then(Slot::into_filling);
        }
        register(&mut slot.waker, waker);
        None
    }

    /// Takes a slot away that nobody waits on any more.
    pub(super) fn remove(&mut self, id: SlotId) -> Option<Slot> {
        let slot = self.slots.remove(&id)?;
        if slot.filled.is_none() {
            self.empty -= 1;
        }
        Some(slot)
    }

    /// Its place in the order of fillings; `None` if it is empty.
    pub(super) fn place(&self, id: SlotId) -> Option<u64> {
        self.slots.get(&id)?.filled.as_ref().map(|(place, _)| *place)
    }

    /// True if code waits on something that an event can bring.
    pub(super) fn is_waiting(&self) -> bool {
        self.empty > 0
    }

    /// Whom to wake after the machine's lock is released.
    pub(super) fn take_wakers(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.to_wake)
    }

    /// A new group, without slots.
    pub(super) fn open_group(&mut self) -> u64 {
        self.last += 1;
        self.groups.insert(self.last, Group::default());
        self.last
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

    /// How many slots there are.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// The inputs that are kept for further attempts, in bytes.
    pub(super) fn input_bytes(&self) -> usize {
        let plans = self.slots.values().filter_map(|slot| slot.plan.as_ref());
        plans.map(|plan| plan.input.len()).sum()
    }
}

/// Puts a waker in place of the one before, unless both wake the same.
fn register(place: &mut Option<Waker>, waker: &Waker) {
    match place {
        Some(known) if known.will_wake(waker) => {}
        other => *other = Some(waker.clone()),
    }
}
