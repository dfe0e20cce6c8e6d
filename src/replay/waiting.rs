//! What an execution waits for, as it is stored with each turn and told to people.

use super::execution::Execution;
use super::history::TimerPurpose;
use super::machine::Machine;
use super::open::Open;
use super::slots::SlotId;
use crate::model::{Sequence, Timestamp, WaitingFor, WaitingView};

impl Execution {
    /// What the code waits for.
    pub fn waiting(&self) -> WaitingView {
        if self.is_over() {
            return WaitingView::default();
        }
        let machine = self.machine().lock();
        let awaited = machine.events.awaited();
        let events = awaited.iter().map(|event| WaitingFor::Event {
            name: event.name.to_owned(),
            since: event.since,
            until: limit(&machine, event.first),
        });
        let open = machine
            .open
            .iter()
            .filter(|(_, slot, open)| slot.is_some() && !open.is_event_limit())
            .map(|(sequence, _, open)| show(sequence, open));
        let waits: usize = awaited.iter().map(|event| event.waits).sum();
        WaitingView {
            // A wait for an event and its time limit are one thing.
            total: waits + machine.open.len() - machine.open.event_limits(),
            given_up: machine.open.given_up(),
            shown: events.chain(open).take(WaitingView::SHOWN).collect(),
        }
    }
}

/// The time limit of a wait for an event.
fn limit(machine: &Machine, slot: SlotId) -> Option<Timestamp> {
    match machine.open.get(machine.slots.open_for(slot)?)? {
        Open::Timer { due, .. } => Some(*due),
        _ => None,
    }
}

fn show(sequence: Sequence, open: &Open) -> WaitingFor {
    match open.clone() {
        Open::Activity {
            app,
            name,
            attempt,
            since,
            ..
        } => WaitingFor::Activity {
            sequence,
            app,
            name,
            attempt,
            since,
        },
        Open::Child {
            instance,
            workflow,
            attempt,
            since,
            ..
        } => WaitingFor::Child {
            sequence,
            instance,
            workflow,
            attempt,
            since,
        },
        Open::Timer {
            due,
            purpose: TimerPurpose::Retry { app, name, attempt },
        } => WaitingFor::Retry {
            sequence,
            app,
            name,
            attempt,
            due,
        },
        Open::Timer { due, .. } => WaitingFor::Timer { sequence, due },
    }
}
