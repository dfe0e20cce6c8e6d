//! Making effects and driving marks: `src/engine/effects.rs` and `src/engine/marks.rs`.

use super::mistakes::Mistake;
use super::model::Protocol;
use super::sets::{Effect, HistoryEvent, Mark, Set};
use super::state::{Driving, DueKey, ExecutionId, Item, ProcessId, Record, State, Status, Wrong};

impl Protocol {
    /// Makes one effect.
    pub(crate) fn make(&self, state: &mut State, execution: ExecutionId, effect: Effect) {
        let events = state.notes.events[usize::from(execution)];
        let is_caused = match effect {
            Effect::Start => state.notes.created[usize::from(execution / 2)],
            Effect::Task => events.has(HistoryEvent::TaskScheduled),
            Effect::Timer => events.has(HistoryEvent::TimerCreated),
            Effect::Answer => super::program::ended_by(events).is_some(),
        };
        if !is_caused {
            state.wrong(Wrong::MadeBeforeCommit);
        }
        match effect {
            Effect::Start => state.publish(Item::Start(execution)),
            Effect::Task => state.publish(Item::Task(execution)),
            Effect::Timer => state.schedule(DueKey::Timer(execution)),
            Effect::Answer => {}
        }
        let owed = &mut state.notes.owed[usize::from(execution)];
        *owed = owed.without(effect);
    }

    /// Begins to drive these marks of a record; `None` if that is nothing to do.
    pub(crate) fn begin_drive(&self, state: &State, process: ProcessId, record: Record, marks: Set) -> Option<Driving> {
        let mut driving = Driving {
            record,
            marks,
            now: None,
            is_cleared: false,
            is_retained: false,
        };
        self.next_mark(state, process, &mut driving);
        driving.now.is_some().then_some(driving)
    }

    /// Begins to settle the end of an instance that has no marks: what comes once the last one is driven.
    pub(crate) fn begin_settling(record: Record) -> Driving {
        Driving {
            record,
            marks: Set::default(),
            now: None,
            is_cleared: false,
            is_retained: false,
        }
    }

    fn next_mark(&self, state: &State, process: ProcessId, driving: &mut Driving) {
        driving.now = None;
        while let Some(mark) = driving.marks.first::<Mark>() {
            driving.marks = driving.marks.without(mark);
            let confirmed = state.processes[usize::from(process)].confirmed;
            let effects = match mark {
                Mark::Turn(_) if confirmed[usize::from(driving.record.execution)].has(mark) => Set::default(),
                // Only the next execution clears it, and none comes after the end.
                Mark::Run if !driving.record.status.is_terminal() => continue,
                Mark::Run => Set::default(),
                Mark::Start if driving.record.status == Status::Pending => Set::of(&[Effect::Start]),
                Mark::Start => Set::default(),
                Mark::Turn(_) if self.mistake == Some(Mistake::OthersMarkIsCleared) => Set::default(),
                Mark::End | Mark::Retained => unreachable!("no record has it"),
                Mark::Turn(version) => self.effects_of_stored(state, driving.record.execution, version),
            };
            driving.now = Some((mark, effects));
            return;
        }
    }

    /// The turn as it is stored now. That it is read here, and not by an await of its own, shows no less: a turn never changes, and one whose effects
    /// are made late is one whose driver is slow.
    fn effects_of_stored(&self, state: &State, execution: ExecutionId, version: u8) -> Set {
        let is_it = |record: &Record| record.execution == execution;
        if !state.store.record.as_ref().is_some_and(is_it) {
            return Set::default();
        }
        let turn = state.store.history.iter().find(|turn| turn.version == version);
        turn.map_or(Set::default(), |turn| self.life.effects_of(execution, turn.events))
    }

    /// One await of it. True when it is done.
    pub(crate) fn drive(&self, state: &mut State, process: ProcessId, driving: &mut Driving) -> bool {
        match driving.now {
            Some((mark, effects)) => match effects.first::<Effect>() {
                Some(effect) => {
                    self.make(state, driving.record.execution, effect);
                    driving.now = Some((mark, effects.without(effect)));
                    false
                }
                None => {
                    state.clear_mark(driving.record.execution, mark);
                    let cleared = Set::default().with(mark);
                    state.processes[usize::from(process)].forget(driving.record.execution, cleared);
                    driving.is_cleared = true;
                    self.next_mark(state, process, driving);
                    driving.now.is_none() && !driving.record.status.is_terminal()
                }
            },
            // It is over, and has no marks now: it is to be deleted one day, and nobody needs to look at it any more.
            None if self.life.has_retention() && !driving.is_retained => {
                self.retain(state, driving.record.execution);
                driving.is_retained = true;
                false
            }
            None => {
                state.unschedule(DueKey::Check(driving.record.request));
                true
            }
        }
    }

    pub(crate) fn retain(&self, state: &mut State, execution: ExecutionId) {
        if super::program::ended_by(state.notes.events[usize::from(execution)]).is_none() {
            state.wrong(Wrong::MadeBeforeCommit);
        }
        state.schedule(DueKey::Retention(execution));
    }

    /// Clears a mark that the process has confirmed, or settles an end: `src/engine/confirmed.rs`.
    pub(crate) fn clear_confirmed(&self, state: &mut State, process: ProcessId) {
        let Some((execution, mark)) = state.processes[usize::from(process)].first_confirmed() else {
            return;
        };
        state.processes[usize::from(process)].forget(execution, Set::default().with(mark));
        match mark {
            Mark::End => {
                self.retain(state, execution);
                return state.processes[usize::from(process)].confirm(execution, Mark::Retained);
            }
            Mark::Retained => return state.unschedule(DueKey::Check(execution / 2)),
            _ => {}
        }
        let Some(record) = state.store.record else { return };
        let is_meant = match mark {
            // Another start may have to be published since, if it has been changed.
            Mark::Start => record.execution == execution && record.version == 0,
            _ => record.execution == execution || self.mistake == Some(Mistake::ConfirmedOutlivesItsExecution),
        };
        if !is_meant {
            return;
        }
        state.clear_mark(record.execution, mark);
        let is_settled = state.store.record.is_some_and(|record| record.marks.is_empty());
        match record.status.is_terminal() && is_settled {
            true if self.life.has_retention() => {
                state.processes[usize::from(process)].confirm(record.execution, Mark::End);
            }
            true => state.unschedule(DueKey::Check(record.request)),
            false => {}
        }
    }
}
