//! The client, one await after the other: `src/engine/{start,command,ending}.rs` and `Engine::raise`. A parent's worker and the taker of a raw start
//! create instances in the same way.

use super::mistakes::Mistake;
use super::model::Protocol;
use super::sets::{Effect, HistoryEvent, Mark, Set};
use super::state::{Asking, CLIENT, Commit, DueKey, ExecutionId, Item, Record, RequestId, State, Status, Wish};
use super::store::{Created, Delivered};

impl Protocol {
    pub(crate) fn ask(&self, wish: Wish) -> Asking {
        match wish {
            Wish::Start(_) if self.mistake == Some(Mistake::CheckIsWrittenLast) => Asking::Create,
            Wish::Start(_) => Asking::ScheduleCheck,
            Wish::Raise => Asking::Deliver,
            Wish::Terminate => Asking::Command,
        }
    }

    /// The await that the client stands at; `None` when it has done what it could.
    pub(crate) fn ask_await(&self, state: &mut State, wish: Wish, at: Asking) -> Option<Asking> {
        match (at, wish) {
            (Asking::ScheduleCheck, Wish::Start(request)) => {
                // `When::Sooner`: one that is there keeps its payload, and whoever has claimed it may keep it too.
                if !state.store.due.iter().any(|entry| entry.key == DueKey::Check(request)) {
                    state.schedule(DueKey::Check(request));
                }
                if self.mistake == Some(Mistake::CheckIsWrittenLast) {
                    return self.publish_start(state, request * 2);
                }
                Some(Asking::Create)
            }
            (Asking::Create, Wish::Start(request)) => match state.create(request, self.mistake) {
                Created::Created if self.mistake == Some(Mistake::CheckIsWrittenLast) => Some(Asking::ScheduleCheck),
                Created::Created => self.publish_start(state, request * 2),
                // Whoever asked first may have died before it published.
                Created::Repeated(execution) => self.publish_start(state, execution),
                Created::Exists(occupant) if occupant.status.is_terminal() => self
                    .begin_drive(state, CLIENT, occupant, occupant.marks)
                    .map(Asking::DriveOccupant)
                    .or(Some(Asking::ScheduleCheck)),
                Created::Exists(_) | Created::Refused => None,
            },
            (Asking::DriveOccupant(mut driving), _) => Some(if self.drive(state, CLIENT, &mut driving) {
                Asking::ScheduleCheck
            } else {
                Asking::DriveOccupant(driving)
            }),
            (Asking::PublishStart, Wish::Start(request)) => {
                self.make(state, request * 2, Effect::Start);
                if self.mistake != Some(Mistake::StartIsClearedFirst) {
                    state.processes[usize::from(CLIENT)].confirm(request * 2, Mark::Start);
                }
                None
            }
            (Asking::ClearStart, Wish::Start(request)) => {
                state.clear_mark(request * 2, Mark::Start);
                Some(Asking::PublishStart)
            }
            (Asking::Deliver, _) => match state.deliver(Item::Event, false, self.mistake) {
                Delivered::ToLane => Some(Asking::Publish(Item::Event)),
                Delivered::Kept | Delivered::Over | Delivered::Absent => None,
            },
            (Asking::Publish(item), _) => {
                state.publish(item);
                None
            }
            (Asking::Command, _) => self.command(state, 0),
            (Asking::DriveEnded(mut driving), _) => {
                (!self.drive(state, CLIENT, &mut driving)).then_some(Asking::DriveEnded(driving))
            }
            (Asking::CommitPlain(commit), _) => {
                let effects = self.life.effects_of(commit.execution(), commit.events);
                match state.commit(&commit, effects, self.mistake) {
                    Some(_) if effects.is_empty() => Some(self.settle(commit.execution())),
                    Some(_) => Some(Asking::EndEffects(commit, effects)),
                    // It is not as it was: read it again.
                    None => Some(Asking::Command),
                }
            }
            (Asking::EndEffects(commit, left), _) => {
                let effect = left.first::<Effect>()?;
                self.make(state, commit.execution(), effect);
                let left = left.without(effect);
                Some(if left.is_empty() {
                    Asking::ClearEnd(commit)
                } else {
                    Asking::EndEffects(commit, left)
                })
            }
            (Asking::ClearEnd(commit), _) => {
                state.clear_mark(commit.execution(), Mark::Turn(commit.version()));
                Some(self.settle(commit.execution()))
            }
            (Asking::Retain(execution), _) => {
                self.retain(state, execution);
                Some(Asking::ForgetCheck)
            }
            (Asking::ForgetCheck, _) => {
                state.unschedule(DueKey::Check(0));
                None
            }
            (at, wish) => unreachable!("{wish:?} at {at:?}"),
        }
    }

    /// Reads the record: it may be published already, and the mark be gone.
    fn publish_start(&self, state: &State, execution: ExecutionId) -> Option<Asking> {
        let record = state.store.record?;
        if record.execution != execution || !record.marks.has(Mark::Start) {
            return None;
        }
        if self.mistake == Some(Mistake::StartIsClearedFirst) {
            return Some(Asking::ClearStart);
        }
        Some(Asking::PublishStart)
    }

    /// A terminate of the run of this request: through its lane, or in the store before its first turn.
    fn command(&self, state: &State, request: RequestId) -> Option<Asking> {
        let record = state.store.record.filter(|record| record.request == request)?;
        match record.status {
            status if status.is_terminal() => self
                .begin_drive(state, CLIENT, record, record.marks)
                .map(Asking::DriveEnded),
            Status::Running => Some(Asking::Publish(Item::Terminate(request))),
            _ => Some(Asking::CommitPlain(self.end_early(state, record))),
        }
    }

    fn settle(&self, execution: ExecutionId) -> Asking {
        match self.life.has_retention() {
            true => Asking::Retain(execution),
            false => Asking::ForgetCheck,
        }
    }

    /// A turn without code.
    fn end_early(&self, state: &State, record: Record) -> Commit {
        let events = Set::of(&[HistoryEvent::ExecutionStarted, HistoryEvent::ExecutionTerminated]);
        let has_effects = !self.life.effects_of(record.execution, events).is_empty();
        let mark = has_effects.then_some(Mark::Turn(record.version + 1));
        Commit {
            guard: record.guard(),
            id: state.fresh_commit(),
            next_execution: None,
            events,
            status: Status::Terminated,
            marks: mark.map_or(Set::default(), |mark| Set::of(&[mark])),
            // Neither its start nor its next execution is wanted any more.
            cleared: Set::of(&[Mark::Start, Mark::Run]),
            inbox_taken: 0,
            inbox_kept: Vec::new(),
            consumed: false,
        }
    }
}
