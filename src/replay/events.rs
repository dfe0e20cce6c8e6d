//! External events of an execution: those that nobody has taken yet, and those who wait. Names match without case, first in first out.

use std::collections::{HashMap, VecDeque};

use super::history::CarriedEvent;
use super::slots::SlotId;
use crate::model::Timestamp;

/// One name's queue. Either nobody waits or nothing is kept.
#[derive(Default)]
struct Named {
    kept: VecDeque<(u64, CarriedEvent)>,
    waiters: VecDeque<SlotId>,
    shown: String,
    since: Timestamp,
}

/// A name that is waited for.
pub(super) struct Awaited<'a> {
    /// As the code wrote it.
    pub(super) name: &'a str,
    pub(super) since: Timestamp,
    /// Who has waited longest.
    pub(super) first: SlotId,
    /// How many wait.
    pub(super) waits: usize,
}

/// See the module.
#[derive(Default)]
pub(super) struct EventQueue {
    names: HashMap<String, Named>,
    places: u64,
}

impl EventQueue {
    /// The form under which names are equal.
    pub(super) fn fold(name: &str) -> String {
        name.to_lowercase()
    }

    /// A place in the order of arrival.
    pub(super) fn take_place(&mut self) -> u64 {
        self.places += 1;
        self.places
    }

    /// Keeps an event that nobody waits for.
    pub(super) fn push(&mut self, event: CarriedEvent) {
        let place = self.take_place();
        self.names
            .entry(Self::fold(&event.name))
            .or_default()
            .kept
            .push_back((place, event));
    }

    /// The oldest kept event of the name.
    pub(super) fn take(&mut self, folded: &str) -> Option<(u64, CarriedEvent)> {
        let taken = self.names.get_mut(folded)?.kept.pop_front();
        self.tidy(folded);
        taken
    }

    /// Puts an event back to the place that it had.
    pub(super) fn put_back(&mut self, folded: &str, place: u64, event: CarriedEvent) {
        let kept = &mut self.names.entry(folded.to_owned()).or_default().kept;
        let at = kept.partition_point(|(other, _)| *other < place);
        kept.insert(at, (place, event));
    }

    /// Adds a waiter.
    pub(super) fn wait(&mut self, name: &str, slot: SlotId, now: Timestamp) {
        let named = self.names.entry(Self::fold(name)).or_default();
        if named.waiters.is_empty() {
            named.shown = name.to_owned();
            named.since = now;
        }
        named.waiters.push_back(slot);
    }

    /// Takes the one who has waited longest.
    pub(super) fn next_waiter(&mut self, folded: &str) -> Option<SlotId> {
        let waiter = self.names.get_mut(folded)?.waiters.pop_front();
        self.tidy(folded);
        waiter
    }

    /// Removes a waiter.
    pub(super) fn stop_waiting(&mut self, folded: &str, slot: SlotId) {
        if let Some(named) = self.names.get_mut(folded) {
            named.waiters.retain(|waiter| *waiter != slot);
        }
        self.tidy(folded);
    }

    /// What is waited for, in order of names.
    pub(super) fn awaited(&self) -> Vec<Awaited<'_>> {
        let awaited = self.names.values().filter_map(|named| {
            Some(Awaited {
                name: &named.shown,
                since: named.since,
                first: *named.waiters.front()?,
                waits: named.waiters.len(),
            })
        });
        let mut awaited: Vec<_> = awaited.collect();
        awaited.sort_by_key(|awaited| (awaited.name, awaited.since));
        awaited
    }

    /// All kept events in order of arrival.
    pub(super) fn drain(&mut self) -> Vec<CarriedEvent> {
        let mut all: Vec<_> = self.names.values_mut().flat_map(|named| named.kept.drain(..)).collect();
        all.sort_by_key(|(place, _)| *place);
        all.into_iter().map(|(_, event)| event).collect()
    }

    /// Rough size in memory, in bytes.
    pub(super) fn weight(&self) -> usize {
        self.names
            .values()
            .map(|named| {
                128 + named
                    .kept
                    .iter()
                    .map(|(_, event)| 64 + event.payload.len())
                    .sum::<usize>()
            })
            .sum()
    }

    fn tidy(&mut self, folded: &str) {
        if self
            .names
            .get(folded)
            .is_some_and(|named| named.kept.is_empty() && named.waiters.is_empty())
        {
            self.names.remove(folded);
        }
    }
}
