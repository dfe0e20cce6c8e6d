//! The state of an execution between its code and its history.
//!
//! Code asks for things ([`scheduling`](super::scheduling)): each request takes a sequence number, becomes a *decision* (a history event) and leaves a
//! *slot* to wait on ([`slots`](super::slots)). Arrived events are applied one at a time and fill slots ([`arrivals`](super::arrivals)). The lock around
//! a machine is held only inside these methods; no user code runs under it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::answers::Answers;
use super::events::EventQueue;
use super::history::{CarriedEvent, ChildRef, HistoryEvent};
use super::open::{Open, OpenSet};
use super::seen::Seen;
use super::slots::Slots;
use crate::fault::{Defect, planted};
use crate::model::{ExecutionId, InstanceRef, MessageId, Payload, RunId, Sequence, Timestamp};
use crate::wire::ParentLink;

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

/// See the module.
pub(super) struct Machine {
    pub(super) identity: Identity,
    pub(super) now: Timestamp,
    pub(super) is_replaying: bool,
    /// Set while the code is being dropped: futures that go away then mean nothing.
    pub(super) is_closed: bool,
    /// Decisions that are not in the history yet (live) or not compared with it yet (replay).
    pub(super) decided: VecDeque<HistoryEvent>,
    /// Calls and timers that are not over.
    pub(super) open: OpenSet,
    pub(super) slots: Slots,
    pub(super) events: EventQueue,
    pub(super) seen: Seen,
    pub(super) answers: Answers,
    pub(super) custom_status: Option<Payload>,
    pub(super) continue_as_new: Option<Payload>,
    /// The number that the next request takes.
    pub(super) next_sequence: Sequence,
    /// How often the code has drawn a random value.
    pub(super) draws: u64,
    /// The largest payload, in bytes.
    pub(super) payload_limit: usize,
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
            open: OpenSet::default(),
            slots: Slots::default(),
            events: EventQueue::default(),
            seen: Seen::new(dedup_window),
            answers: Answers::default(),
            custom_status: None,
            continue_as_new: None,
            next_sequence: 0,
            draws: 0,
            payload_limit,
        }
    }

    /// What continue-as-new hands to the next execution.
    pub(super) fn carry(&mut self) -> (Vec<CarriedEvent>, Vec<(MessageId, Timestamp)>) {
        let seen = self.seen.drain(self.now);
        if planted(Defect::SeenIsForgotten) {
            return (self.events.drain(), Vec::new());
        }
        (self.events.drain(), seen)
    }

    /// A replayed decision stands in the history as `recorded`: its due time is the one that counts.
    pub(super) fn confirm(&mut self, recorded: &HistoryEvent) {
        if let HistoryEvent::TimerCreated { sequence, due, .. } = recorded {
            self.open.set_due(*sequence, *due);
        }
    }

    /// The execution ends: nothing that is open has a due-set entry any more. Gives the children that are still open.
    pub(super) fn wind_up(&mut self) -> Vec<ChildRef> {
        let mut children = Vec::new();
        for (sequence, open) in self.open.take() {
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
        let things = EACH * (self.open.len() + self.slots.len());
        2048 + things + self.events.weight() + self.slots.input_bytes() + 96 * self.seen.len()
    }
}
