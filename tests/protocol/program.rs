//! The workflow's code, and what it means to a turn: `replay` and `effects_of` in small.

use super::sets::{Effect, HistoryEvent, Set};
use super::state::{ExecutionId, Item, Status};

/// Lives of an instance: each leads through other parts of the protocol, and is checked by itself, because together they are too many states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Life {
    /// A call, a timer, the end.
    Called,
    /// A call, then an event that comes at any time, before the instance exists too.
    Raised,
    /// A call, continue-as-new, an event that either execution may get, another call, the end.
    Continued,
    /// A call, the end; a terminate that may come at any time, before the first turn too.
    Ended,
    /// The end with the first turn; retention; a second start under the same ID.
    Again,
    /// Too much for every day: a call, a timer, an event, a terminate, the end; retention; a second start under the same ID.
    Everything,
}

#[derive(Clone, Copy)]
enum Stage {
    Call,
    Timer,
    Event,
}

impl Life {
    fn stages(self, execution: ExecutionId) -> (&'static [Stage], HistoryEvent) {
        use Stage::*;
        match (self, execution % 2) {
            (Life::Called, _) => (&[Call, Timer], HistoryEvent::ExecutionCompleted),
            (Life::Raised, _) => (&[Call, Event], HistoryEvent::ExecutionCompleted),
            (Life::Continued, 0) => (&[Call], HistoryEvent::ContinuedAsNew),
            (Life::Continued, _) => (&[Event, Call], HistoryEvent::ExecutionCompleted),
            (Life::Ended, _) => (&[Call], HistoryEvent::ExecutionCompleted),
            (Life::Again, _) => (&[], HistoryEvent::ExecutionCompleted),
            (Life::Everything, _) => (&[Call, Timer, Event], HistoryEvent::ExecutionCompleted),
        }
    }

    /// Runs the code to where it waits: what it decides after these events.
    pub(crate) fn decide(self, execution: ExecutionId, events: Set) -> Set {
        let (stages, end) = self.stages(execution);
        let mut decided = Set::default();
        for stage in stages {
            let (begun, done) = match stage {
                Stage::Call => (Some(HistoryEvent::TaskScheduled), HistoryEvent::TaskCompleted),
                Stage::Timer => (Some(HistoryEvent::TimerCreated), HistoryEvent::TimerFired),
                Stage::Event => (None, HistoryEvent::EventRaised),
            };
            decided = begun.map_or(decided, |begun| decided.with(begun));
            let is_done = events.has(done) || (done == HistoryEvent::EventRaised && events.has(HistoryEvent::Carried));
            if !is_done {
                return decided.less(events);
            }
        }
        decided.with(end).less(events)
    }

    /// True if finished instances are deleted after a while.
    pub(crate) fn has_retention(self) -> bool {
        matches!(self, Life::Again | Life::Everything)
    }

    /// The effects of a turn: a function of the stored turn, so that whoever finds it marked can make them.
    pub(crate) fn effects_of(self, execution: ExecutionId, events: Set) -> Set {
        let mut effects = Set::default();
        if events.has(HistoryEvent::TaskScheduled) {
            effects = effects.with(Effect::Task);
        }
        if events.has(HistoryEvent::TimerCreated) {
            effects = effects.with(Effect::Timer);
        }
        if ended_by(events).is_some() && self.has_parent(execution) {
            effects = effects.with(Effect::Answer);
        }
        effects
    }

    /// The run of the second request has none: its end has no effect, and leaves no mark.
    fn has_parent(self, execution: ExecutionId) -> bool {
        execution < 2
    }
}

pub(crate) fn ended_by(events: Set) -> Option<Status> {
    if events.has(HistoryEvent::ExecutionTerminated) {
        return Some(Status::Terminated);
    }
    events
        .has(HistoryEvent::ExecutionCompleted)
        .then_some(Status::Completed)
}

pub(crate) fn is_over(events: Set) -> bool {
    ended_by(events).is_some() || events.has(HistoryEvent::ContinuedAsNew)
}

/// What an arriving item means to an execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Intake {
    Accept(HistoryEvent),
    Seen,
    Ahead,
    Stray,
}

/// See `Execution::examine`.
pub(crate) fn examine(execution: ExecutionId, events: Set, item: Item) -> Intake {
    let known = |its: ExecutionId, begun: HistoryEvent, done: HistoryEvent| {
        if its != execution {
            Intake::Stray
        } else if events.has(done) {
            Intake::Seen
        } else if events.has(begun) {
            Intake::Accept(done)
        } else {
            Intake::Ahead
        }
    };
    match item {
        Item::Completion { execution, is_genuine } => {
            match known(execution, HistoryEvent::TaskScheduled, HistoryEvent::TaskCompleted) {
                Intake::Accept(_) if !is_genuine => Intake::Stray,
                intake => intake,
            }
        }
        Item::Timer(execution) => known(execution, HistoryEvent::TimerCreated, HistoryEvent::TimerFired),
        Item::Event if events.has(HistoryEvent::EventRaised) || events.has(HistoryEvent::Carried) => Intake::Seen,
        Item::Event => Intake::Accept(HistoryEvent::EventRaised),
        Item::Terminate(request) if request * 2 != execution & !1 => Intake::Stray,
        Item::Terminate(_) => Intake::Accept(HistoryEvent::ExecutionTerminated),
        Item::Start(_) | Item::Task(_) | Item::Wake => Intake::Seen,
    }
}
