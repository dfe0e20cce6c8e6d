//! Events, effects and marks, and small sets of them: states are many, so they have to be small.

use super::state::Item;

/// What a turn has in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum HistoryEvent {
    ExecutionStarted,
    /// An event that the execution before had not read.
    Carried,
    TaskScheduled,
    TaskCompleted,
    TimerCreated,
    TimerFired,
    EventRaised,
    ExecutionCompleted,
    ExecutionTerminated,
    ContinuedAsNew,
    /// The checker's own: a result in this turn was not the call's.
    Foreign,
}

/// What has to happen outside the record because something is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Effect {
    /// Publish the start: the effect of the creation, and of no turn.
    Start,
    /// Publish the task.
    Task,
    /// Add the timer to the due-set.
    Timer,
    /// Tell whoever waits for the end.
    Answer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Mark {
    Start,
    Run,
    Turn(u8),
    /// No mark of the record: what a process keeps of an end that it has to settle.
    End,
    /// The same, of one whose retention is set.
    Retained,
}

/// A small set of things that have a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Set(u16);

impl Set {
    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn has(self, member: impl Member) -> bool {
        self.0 & (1 << member.number()) != 0
    }

    pub(crate) fn with(self, member: impl Member) -> Self {
        Set(self.0 | (1 << member.number()))
    }

    pub(crate) fn without(self, member: impl Member) -> Self {
        Set(self.0 & !(1 << member.number()))
    }

    pub(crate) fn and(self, other: Set) -> Self {
        Set(self.0 | other.0)
    }

    pub(crate) fn less(self, other: Set) -> Self {
        Set(self.0 & !other.0)
    }

    pub(crate) fn both(self, other: Set) -> Self {
        Set(self.0 & other.0)
    }

    pub(crate) fn of<M: Member>(members: &[M]) -> Self {
        members.iter().fold(Set::default(), |set, member| set.with(*member))
    }

    /// The member with the lowest number.
    pub(crate) fn first<M: Member>(self) -> Option<M> {
        (!self.is_empty()).then(|| M::numbered(self.0.trailing_zeros() as u8))
    }
}

impl Set {
    /// In order of their numbers.
    pub(crate) fn members<M: Member>(self) -> impl Iterator<Item = M> {
        (0..16)
            .filter(move |number| self.0 & (1 << number) != 0)
            .map(M::numbered)
    }
}

/// What can be in a [`Set`].
pub(crate) trait Member: Copy {
    fn number(self) -> u8;
    fn numbered(number: u8) -> Self;
}

impl Member for HistoryEvent {
    fn number(self) -> u8 {
        self as u8
    }
    fn numbered(number: u8) -> Self {
        use HistoryEvent::*;
        const ALL: [HistoryEvent; 11] = [
            ExecutionStarted,
            Carried,
            TaskScheduled,
            TaskCompleted,
            TimerCreated,
            TimerFired,
            EventRaised,
            ExecutionCompleted,
            ExecutionTerminated,
            ContinuedAsNew,
            Foreign,
        ];
        ALL[usize::from(number)]
    }
}

impl Member for Effect {
    fn number(self) -> u8 {
        self as u8
    }
    fn numbered(number: u8) -> Self {
        const ALL: [Effect; 4] = [Effect::Start, Effect::Task, Effect::Timer, Effect::Answer];
        ALL[usize::from(number)]
    }
}

impl Member for Mark {
    fn number(self) -> u8 {
        match self {
            Mark::Start => 0,
            Mark::Run => 1,
            Mark::Turn(version) => 1 + version,
            Mark::End => 14,
            Mark::Retained => 15,
        }
    }
    fn numbered(number: u8) -> Self {
        match number {
            0 => Mark::Start,
            1 => Mark::Run,
            14 => Mark::End,
            15 => Mark::Retained,
            version => Mark::Turn(version - 1),
        }
    }
}

/// Those that a worker may get twice; a task that comes twice is a completion that does.
impl Member for Item {
    fn number(self) -> u8 {
        match self {
            Item::Start(execution) => execution,
            Item::Completion { execution, .. } => 4 + execution,
            Item::Timer(execution) => 8 + execution,
            Item::Event => 12,
            Item::Terminate(request) => 13 + request,
            Item::Task(_) | Item::Wake => 15,
        }
    }
    fn numbered(number: u8) -> Self {
        match number {
            0..4 => Item::Start(number),
            4..8 => Item::Completion {
                execution: number - 4,
                is_genuine: true,
            },
            8..12 => Item::Timer(number - 8),
            12 => Item::Event,
            13 | 14 => Item::Terminate(number - 13),
            _ => Item::Wake,
        }
    }
}
