//! Making effects and driving marks: `src/engine/effects.rs` and `src/engine/marks.rs`.

use super::mistakes::Mistake;
use super::model::Protocol;
use super::sets::{Effect, HistoryEvent, Mark, Set};
use super::state::{Driving, DueKey, ExecutionId, Item, Record, State, Status, Wrong};

impl Protocol {
    /// Makes one effect.
    pub(crate) fn make(&self, state: &mut State, execution: ExecutionId, effect: Effect) {
        let events = state.notes.events[usize::from(execution)];
        let is_caused = match effect {
            Effect::Start => state.notes.created[usize::from(execution / 2)],
            Effect::Task => events.has(HistoryEvent::TaskScheduled),
            Effect::Timer => events.has(HistoryEvent::TimerCreated),
            Effect::Answer | Effect::Retain => super::program::ended_by(events).is_some(),
        };
        if !is_caused {
            state.wrong(Wrong::MadeBeforeCommit);
        }
        match effect {
            Effect::Start => state.publish(Item::Start(execution)),
            Effect::Task => state.publish(Item::Task(execution)),
            Effect::Timer => state.schedule(DueKey::Timer(execution)),
            Effect::Retain => state.schedule(DueKey::Retention(execution)),
            Effect::Answer => {}
        }
        let owed = &mut state.notes.owed[usize::from(execution)];
        *owed = owed.without(effect);
    }

    /// Begins to drive these marks of a record; `None` if that is nothing to do.
    pub(crate) fn begin_drive(&self, state: &State, record: Record, marks: Set) -> Option<Driving> {
        let mut driving = Driving {
            record,
            marks,
            now: None,
            is_cleared: false,
        };
        self.next_mark(state, &mut driving);
        driving.now.is_some().then_some(driving)
    }

    fn next_mark(&self, state: &State, driving: &mut Driving) {
        driving.now = None;
        while let Some(mark) = driving.marks.first::<Mark>() {
            driving.marks = driving.marks.without(mark);
            let effects = match mark {
                // Only the next execution clears it, and none comes after the end.
                Mark::Run if !driving.record.status.is_terminal() => continue,
                Mark::Run => Set::default(),
                Mark::Start if driving.record.status == Status::Pending => Set::of(&[Effect::Start]),
                Mark::Start => Set::default(),
                Mark::Turn(_) if self.mistake == Some(Mistake::OthersMarkIsCleared) => Set::default(),
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
        turn.map_or(Set::default(), |turn| self.life.effects_of(turn.events))
    }

    /// One await of it. True when it is done.
    pub(crate) fn drive(&self, state: &mut State, driving: &mut Driving) -> bool {
        match driving.now {
            Some((mark, effects)) => match effects.first::<Effect>() {
                Some(effect) => {
                    self.make(state, driving.record.execution, effect);
                    driving.now = Some((mark, effects.without(effect)));
                    false
                }
                None => {
                    state.clear_mark(driving.record.execution, mark);
                    driving.is_cleared = true;
                    self.next_mark(state, driving);
                    driving.now.is_none() && !driving.record.status.is_terminal()
                }
            },
            // It is over, and has no marks now: nobody needs to look at it any more.
            None => {
                state.unschedule(DueKey::Check(driving.record.request));
                true
            }
        }
    }
}
