//! What has to hold: the invariants I1 to I5, and that every instance comes to its end.
//!
//! **Why not `Property::eventually`.** Checks come again and again, so the graph has cycles, and stateright's `eventually` is blind to a behaviour that
//! ends in one. Instead: *from every state in which no process is in the middle of something, an undisturbed continuation leads to rest*, as an
//! `always` property. The continuation is computed: one worker at a time takes what there is, until nothing is left that changes anything. From any
//! other state such a state is reached by letting each process finish what it is at. So rest can be reached from wherever one is; and as there are
//! finitely many states, a behaviour that goes on for ever without coming to rest would have to turn down for ever a step that it could take again and
//! again: a worker that never takes a message that waits, a check that never comes.

use stateright::Property;

use super::model::{Protocol, Step};
use super::sets::{Effect, HistoryEvent, Mark, Set};
use super::state::{DueKey, Job, Record, State, Wrong};

pub(crate) const I1: &str = "I1: history is append-only, one commit a turn";
pub(crate) const I2: &str = "I2: commit, then publish, then acknowledge";
pub(crate) const I3: &str = "I3: each counts once";
pub(crate) const I4: &str = "I4: what is not over has a check entry";
pub(crate) const I5: &str = "I5: a call's own result enters history exactly once";
pub(crate) const END: &str = "every instance comes to its end";

pub(crate) fn all() -> Vec<Property<Protocol>> {
    vec![
        Property::always(I1, |_: &Protocol, state: &State| {
            !Wrong::AppendedBlindly.is_seen(state) && is_whole(state)
        }),
        Property::always(I2, |_: &Protocol, state: &State| {
            !Wrong::MadeBeforeCommit.is_seen(state) && !Wrong::LetGoTooEarly.is_seen(state)
        }),
        Property::always(I3, |_: &Protocol, state: &State| !Wrong::CountedTwice.is_seen(state)),
        Property::always(I4, |_: &Protocol, state: &State| has_check(state)),
        Property::always(I5, |_: &Protocol, state: &State| {
            !Wrong::ForeignResult.is_seen(state) && has_results(state)
        }),
        Property::always(END, |protocol: &Protocol, state: &State| {
            state.notes.wrong.is_some() || !state.is_quiet() || protocol.comes_to_rest(state)
        }),
        Property::sometimes("it ends after all faults", |protocol: &Protocol, state: &State| {
            state.faults_left == 0 && protocol.is_at_rest(state) && state.notes.created[0]
        }),
        Property::sometimes("a mark is driven by another", |_: &Protocol, state: &State| {
            state.processes[1..].iter().any(|process| {
                matches!(&process.job, Job::Turn(activation) if matches!(activation.at, super::state::At::Drive(_)))
            })
        }),
    ]
}

/// The history is what was appended, in order, and nothing of it is gone.
fn is_whole(state: &State) -> bool {
    let Some(record) = state.store.record else {
        return state.store.history.is_empty();
    };
    let turns = &state.store.history;
    let is_in_order = (1..)
        .zip(turns)
        .all(|(version, turn)| turn.version == version && turn.execution == record.execution);
    let events = turns.iter().fold(Set::default(), |all, turn| all.and(turn.events));
    is_in_order
        && turns.len() == usize::from(record.version)
        && record.version == state.notes.turns[usize::from(record.execution)]
        && events == state.notes.events[usize::from(record.execution)]
}

fn has_check(state: &State) -> bool {
    state.store.record.is_none_or(|record| {
        let is_settled = record.status.is_terminal() && record.marks.is_empty();
        is_settled
            || state
                .store
                .due
                .iter()
                .any(|entry| entry.key == DueKey::Check(record.request))
    })
}

/// An execution that has completed has the results of its calls. (Twice is I3.)
fn has_results(state: &State) -> bool {
    state.notes.events.iter().all(|events| {
        let is_complete = events.has(HistoryEvent::ExecutionCompleted) || events.has(HistoryEvent::ContinuedAsNew);
        !is_complete || !events.has(HistoryEvent::TaskScheduled) || events.has(HistoryEvent::TaskCompleted)
    })
}

pub(crate) fn marked_start(record: Record) -> Set {
    if record.marks.has(Mark::Start) {
        Set::of(&[Effect::Start])
    } else {
        Set::default()
    }
}

impl Protocol {
    /// Nothing is under way, nothing is left over, and every instance that was created is over.
    fn is_at_rest(&self, state: &State) -> bool {
        let is_over = |request: usize| !state.notes.created[request] || state.is_run_over(request as u8);
        state.is_quiet()
            && usize::from(state.wishes_granted) == self.wishes.len()
            && state.broker.is_empty()
            && state.store.due.is_empty()
            && !self.is_forgotten(state)
            && state.store.record.is_none_or(|record| {
                record.status.is_terminal() && record.marks.is_empty() && !self.life.has_retention()
            })
            && is_over(0)
            && is_over(1)
    }

    /// Lets everything go its way, undisturbed.
    fn comes_to_rest(&self, state: &State) -> bool {
        let mut state = state.clone();
        // A run of the longest life has some twenty errands; one that needs hundreds goes in circles.
        for _ in 0..200 {
            let mut steps = Vec::new();
            self.fair_steps(&state, &mut steps);
            let next = steps.iter().find_map(|step| self.errand(&state, step));
            match next {
                Some(next) => state = next,
                None => return self.is_at_rest(&state),
            }
        }
        false
    }

    /// One errand from its first step to its last, if it changes anything.
    fn errand(&self, before: &State, step: &Step) -> Option<State> {
        let mut state = self.take(before, step)?;
        while let Some(process) = state.processes.iter().position(|process| process.job != Job::Idle) {
            state = self.take(&state, &Step::GoOn(process as u8))?;
        }
        (state != *before).then_some(state)
    }
}
