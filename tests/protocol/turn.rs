//! An activation, one await after the other: `src/worker/{activation,reading,turn,commit,inbox}.rs`.

use super::mistakes::Mistake;
use super::model::Protocol;
use super::program::{Intake, ended_by, examine, is_over};
use super::sets::{Effect, HistoryEvent, Mark, Set};
use super::state::{Activation, At, Commit, DueKey, ExecutionId, Item, Live, ProcessId, Record, State, Status, Wrong};
use super::store::Delivered;

/// How a turn begins, if not with what waits.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Opening {
    First,
    Renewed,
}

impl Protocol {
    /// Takes a message. The state is read at once, unless it is live.
    pub(crate) fn arrive(&self, state: &mut State, worker: ProcessId, item: Item) -> Activation {
        state.pass(item, None, Some(worker));
        if self.mistake == Some(Mistake::AcknowledgedFirst) {
            self.let_go(state, worker, item);
        }
        let mut activation = Activation {
            at: At::Load,
            came: item,
            item: Some(item),
            is_current: false,
            live: state.processes[usize::from(worker)].cache.take(),
            inbox: Vec::new(),
        };
        activation.at = if activation.live.is_some() {
            self.step(state, worker, &mut activation)
        } else {
            self.load(state, worker, &mut activation)
        };
        activation
    }

    /// The await that the activation stands at. True when all is done.
    pub(crate) fn turn_await(&self, state: &mut State, worker: ProcessId, activation: &mut Activation) -> bool {
        let next = match activation.at.clone() {
            At::Load => self.load(state, worker, activation),
            At::Drive(mut driving) => {
                if self.drive(state, worker, &mut driving) {
                    self.after_read(state, worker, activation)
                } else {
                    At::Drive(driving)
                }
            }
            At::Confirm => self.confirm(state, activation),
            At::StartAgain => {
                if let Some(live) = activation.live {
                    self.make(state, live.record.execution, Effect::Start);
                }
                At::Deliver { park: false }
            }
            At::Deliver { park } => {
                let item = activation.item.expect("only an item is delivered");
                if state.deliver(item, park, self.mistake) == Delivered::ToLane {
                    At::Load
                } else {
                    At::Acknowledge
                }
            }
            At::Commit(commit) => self.commit(state, worker, activation, commit),
            At::Effects {
                commit,
                left,
                inbox_left,
            } => {
                let effect = left.first::<Effect>().expect("there are effects left");
                self.make(state, commit.execution(), effect);
                self.after_commit(state, worker, activation, commit, left.without(effect), inbox_left)
            }
            At::ClearMark { commit, inbox_left } => {
                let mark = Mark::Turn(commit.version());
                state.clear_mark(commit.execution(), mark);
                if let Some(live) = &mut activation.live {
                    live.record.marks = live.record.marks.without(mark);
                }
                if self.mistake == Some(Mistake::MarkIsClearedFirst) {
                    let left = self.life.effects_of(commit.execution(), commit.events);
                    let at = At::Effects {
                        commit,
                        left,
                        inbox_left,
                    };
                    activation.at = at;
                    return false;
                }
                self.after_mark(state, worker, activation, &commit, inbox_left)
            }
            At::Acknowledge => {
                self.let_go(state, worker, activation.came);
                let is_kept = |live: &Live| live.record.status == Status::Running && !is_over(live.events);
                state.processes[usize::from(worker)].cache = activation
                    .live
                    .filter(|live| is_kept(live) && activation.inbox.is_empty());
                return true;
            }
        };
        activation.at = next;
        false
    }

    /// Acknowledges the message, if it is still ours.
    fn let_go(&self, state: &mut State, worker: ProcessId, item: Item) {
        if state.remove(item, Some(worker)) {
            self.has_let_go(state, item);
        }
    }

    /// Nothing of what a message caused may be open and unmarked once it is gone.
    pub(crate) fn has_let_go(&self, state: &mut State, item: Item) {
        if !(state.is_settled(item) || state.is_waiting(item)) || self.is_forgotten(state) {
            state.wrong(Wrong::LetGoTooEarly);
        }
    }

    fn load(&self, state: &mut State, worker: ProcessId, activation: &mut Activation) -> At {
        activation.live = None;
        let Some(record) = state.store.record else {
            if let (Some(Mistake::TakerCreates), Some(Item::Start(execution))) = (self.mistake, activation.item) {
                state.store.receipts[usize::from(execution / 2)] = None;
                state.create(execution / 2, None);
            }
            // There is no such instance (any more). Events wait for one that may come.
            return match activation.item {
                Some(Item::Event) => At::Deliver { park: false },
                _ => At::Acknowledge,
            };
        };
        let events = state
            .store
            .history
            .iter()
            .fold(Set::default(), |all, turn| all.and(turn.events));
        activation.live = Some(Live { record, events });
        activation.inbox = state.store.inbox.clone();
        // A start's mark is cleared by the first turn, which is what we are here for.
        let turns = record.marks.without(Mark::Start).without(Mark::Run);
        match self.begin_drive(state, worker, record, turns) {
            Some(driving) => At::Drive(driving),
            None => self.after_read(state, worker, activation),
        }
    }

    fn after_read(&self, state: &State, worker: ProcessId, activation: &mut Activation) -> At {
        if let Some(live) = &mut activation.live {
            live.record.marks = live.record.marks.both(Set::of(&[Mark::Start, Mark::Run]));
        }
        activation.is_current = true;
        self.step(state, worker, activation)
    }

    fn step(&self, state: &State, worker: ProcessId, activation: &mut Activation) -> At {
        let Some(live) = activation.live else { return At::Load };
        if !activation.is_current && activation.item == Some(Item::Wake) {
            return At::Load;
        }
        match live.record.status {
            status if status.is_terminal() => At::Acknowledge,
            Status::Pending => match activation.item {
                Some(Item::Start(execution)) if execution == live.record.execution => {
                    activation.item = None;
                    self.turn(state, worker, activation, Some(Opening::First))
                }
                None | Some(Item::Start(_) | Item::Wake) => At::Acknowledge,
                Some(Item::Completion { .. }) => At::StartAgain,
                Some(_) => At::Deliver { park: false },
            },
            _ if live.events.has(HistoryEvent::ContinuedAsNew)
                && self.mistake != Some(Mistake::NextExecutionIsForgotten) =>
            {
                self.turn(state, worker, activation, Some(Opening::Renewed))
            }
            _ => self.turn(state, worker, activation, None),
        }
    }

    /// Applies what waits, one event after the other, and runs the code after each.
    fn turn(&self, state: &State, worker: ProcessId, activation: &mut Activation, opening: Option<Opening>) -> At {
        let live = activation.live.expect("a turn has a state");
        let mut execution = live.record.execution;
        let (mut before, mut events) = (live.events, Set::default());
        match opening {
            Some(Opening::First) => events = events.with(HistoryEvent::ExecutionStarted),
            Some(Opening::Renewed) => {
                execution += 1;
                events = events.with(HistoryEvent::ExecutionStarted);
                if before.has(HistoryEvent::EventRaised) {
                    events = events.with(HistoryEvent::Carried);
                }
                before = Set::default();
            }
            None => {}
        }
        if opening.is_some() {
            events = events.and(self.life.decide(execution, before.and(events)));
        }
        let inbox = std::mem::take(&mut activation.inbox);
        let inbox_taken = inbox.len() as u8;
        let mut inbox_kept = Vec::new();
        for item in inbox {
            if is_over(before.and(events)) || !self.take_in(execution, before, &mut events, item) {
                inbox_kept.push(item);
            }
        }
        let (mut ahead, mut consumed) = (None, false);
        if let Some(item) = activation.item
            && !is_over(before.and(events))
        {
            if !self.take_in(execution, before, &mut events, item) {
                ahead = Some(item);
            }
            consumed = ahead.is_none();
        }
        if events.is_empty() && inbox_kept.len() == usize::from(inbox_taken) {
            // Nothing that waits has changed anything. Before it is dropped for that, the state must be known to be current.
            activation.inbox = inbox_kept;
            if !activation.is_current && self.mistake != Some(Mistake::CachedStateIsBelieved) {
                return At::Confirm;
            }
            return if ahead.is_some() {
                At::Deliver { park: true }
            } else {
                At::Acknowledge
            };
        }
        // (An item that is ahead while the inbox is not is parked after the commit: by the next turn, which finds nothing else.)
        let effects = self.life.effects_of(execution, events);
        let is_effect = match self.mistake {
            Some(Mistake::TurnIsNotMarked | Mistake::AcknowledgedBeforeEffects) => false,
            Some(Mistake::TimerIsNoEffect) => !effects.without(Effect::Timer).is_empty(),
            _ => !effects.is_empty(),
        };
        let commit = Commit {
            guard: live.record.guard(),
            id: state.fresh_commit(),
            next_execution: (opening == Some(Opening::Renewed)).then_some(execution),
            events,
            status: ended_by(events).unwrap_or(Status::Running),
            marks: Set::default(),
            cleared: live
                .record
                .marks
                .both(Set::of(&[Mark::Start]))
                .and(state.processes[usize::from(worker)].confirmed[usize::from(live.record.execution)]),
            inbox_taken,
            inbox_kept,
            consumed,
        };
        let mut marks = Set::default();
        if is_effect {
            marks = marks.with(Mark::Turn(commit.version()));
        }
        if events.has(HistoryEvent::ContinuedAsNew) {
            marks = marks.with(Mark::Run);
        }
        let commit = Commit { marks, ..commit };
        if self.mistake == Some(Mistake::PublishedFirst) && !effects.is_empty() {
            return At::Effects {
                commit,
                left: effects,
                inbox_left: u8::MAX,
            };
        }
        At::Commit(commit)
    }

    /// Applies one item. False if it is ahead of the state.
    fn take_in(&self, execution: ExecutionId, before: Set, events: &mut Set, item: Item) -> bool {
        let now = before.and(*events);
        let known = match self.mistake {
            Some(Mistake::SeenIsForgotten) => now.without(HistoryEvent::Carried),
            _ => now,
        };
        let taken = match (self.mistake, item) {
            (Some(Mistake::ExecutionIsNotCompared), Item::Completion { is_genuine, .. }) => {
                Item::Completion { execution, is_genuine }
            }
            (Some(Mistake::SenderIsNotCompared), Item::Completion { execution, .. }) => Item::Completion {
                execution,
                is_genuine: true,
            },
            _ => item,
        };
        match examine(execution, known, taken) {
            Intake::Ahead => false,
            Intake::Seen | Intake::Stray => true,
            Intake::Accept(event) => {
                *events = events.with(event);
                if taken != item {
                    *events = events.with(HistoryEvent::Foreign);
                }
                if ended_by(*events).is_none() {
                    *events = events.and(self.life.decide(execution, before.and(*events)));
                }
                true
            }
        }
    }

    fn confirm(&self, state: &mut State, activation: &mut Activation) -> At {
        let live = activation.live.expect("a state is confirmed");
        let is_same = |record: &Record| record.guard() == live.record.guard() && record.status == live.record.status;
        match state.store.record {
            // What another worker may have left unmade is made before our message is let go.
            Some(record) if is_same(&record) && record.marks.is_empty() => {
                activation.is_current = true;
                match activation
                    .item
                    .map(|item| examine(live.record.execution, live.events, item))
                {
                    Some(Intake::Ahead) => At::Deliver { park: true },
                    _ => At::Acknowledge,
                }
            }
            _ => At::Load,
        }
    }

    fn commit(&self, state: &mut State, worker: ProcessId, activation: &mut Activation, commit: Commit) -> At {
        let effects = self.life.effects_of(commit.execution(), commit.events);
        let Some(inbox_left) = state.commit(&commit, effects, self.mistake) else {
            // Another worker was quicker.
            activation.is_current = false;
            return At::Load;
        };
        activation.is_current = true;
        state.processes[usize::from(worker)].forget(commit.guard.execution, commit.cleared);
        if self.mistake == Some(Mistake::ConfirmedTooEarly) {
            state.processes[usize::from(worker)].confirm(commit.execution(), Mark::Turn(commit.version()));
        }
        if commit.consumed {
            activation.item = None;
        }
        let live = activation.live.as_mut().expect("a commit has a state");
        let is_renewed = commit.next_execution.is_some();
        live.events = if is_renewed {
            commit.events
        } else {
            live.events.and(commit.events)
        };
        let mut marks = live.record.marks.less(commit.cleared);
        if is_renewed {
            marks = marks.without(Mark::Run);
        }
        live.record = Record {
            execution: commit.execution(),
            version: commit.version(),
            commit: Some(commit.id),
            status: commit.status,
            marks: marks.and(commit.marks),
            request: live.record.request,
        };
        activation.inbox.clone_from(&commit.inbox_kept);
        match self.mistake {
            Some(Mistake::AcknowledgedBeforeEffects) => self.let_go(state, worker, activation.came),
            Some(Mistake::CheckIsRemovedEarly) if commit.status.is_terminal() => {
                state.unschedule(DueKey::Check(live.record.request));
            }
            Some(Mistake::PublishedFirst) => return self.after_effects(state, worker, activation, commit, inbox_left),
            Some(Mistake::MarkIsClearedFirst) if !effects.is_empty() => {
                return At::ClearMark { commit, inbox_left };
            }
            _ => {}
        }
        self.after_commit(state, worker, activation, commit, effects, inbox_left)
    }

    fn after_commit(
        &self,
        state: &mut State,
        worker: ProcessId,
        activation: &mut Activation,
        commit: Commit,
        left: Set,
        inbox_left: u8,
    ) -> At {
        if !left.is_empty() {
            return At::Effects {
                commit,
                left,
                inbox_left,
            };
        }
        match self.mistake {
            Some(Mistake::PublishedFirst) => At::Commit(commit),
            Some(Mistake::MarkIsClearedFirst) => self.after_mark(state, worker, activation, &commit, inbox_left),
            _ => self.after_effects(state, worker, activation, commit, inbox_left),
        }
    }

    fn after_effects(
        &self,
        state: &mut State,
        worker: ProcessId,
        activation: &mut Activation,
        commit: Commit,
        inbox_left: u8,
    ) -> At {
        let mark = Mark::Turn(commit.version());
        if commit.marks.has(mark) {
            state.processes[usize::from(worker)].confirm(commit.execution(), mark);
            if let Some(live) = &mut activation.live {
                live.record.marks = live.record.marks.without(mark);
            }
        } else if commit.status.is_terminal() && activation.live.is_some_and(|live| live.record.marks.is_empty()) {
            let first = if self.life.has_retention() {
                Mark::End
            } else {
                Mark::Retained
            };
            state.processes[usize::from(worker)].confirm(commit.execution(), first);
        }
        self.after_mark(state, worker, activation, &commit, inbox_left)
    }

    fn after_mark(
        &self,
        state: &State,
        worker: ProcessId,
        activation: &mut Activation,
        commit: &Commit,
        inbox_left: u8,
    ) -> At {
        if commit.status.is_terminal() {
            // What came is of no use to an instance that is over.
            return At::Acknowledge;
        }
        let has_unread = usize::from(inbox_left) > commit.inbox_kept.len();
        if has_unread && self.mistake != Some(Mistake::InboxStaysUnread) {
            activation.is_current = false;
            return At::Load;
        }
        if activation.item.is_none() && !commit.events.has(HistoryEvent::ContinuedAsNew) {
            return At::Acknowledge;
        }
        self.step(state, worker, activation)
    }
}
