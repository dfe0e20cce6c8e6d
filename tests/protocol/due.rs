//! Handling a due entry, one await after the other: `src/worker/due.rs`, and `src/engine/delete.rs` for retention.

use super::mistakes::Mistake;
use super::model::Protocol;
use super::sets::{Effect, Mark};
use super::state::{AfterDrive, Due, DueKey, ExecutionId, Handling, Item, ProcessId, Record, RequestId, State, Status};
use super::store::Deleted;

impl Protocol {
    /// Claims an entry and reads its instance's record. `None` if it has nothing to do there: the entry would be set to a later time, which is no
    /// change, because it may come at any time anyhow.
    pub(crate) fn claim(&self, state: &mut State, worker: ProcessId, key: DueKey) -> Option<Handling> {
        let at = match key {
            DueKey::Check(request) => self.look_at(state, worker, request)?,
            DueKey::Timer(execution) => fire(state, execution)?,
            DueKey::Retention(execution) => self.retire(state, worker, execution),
        };
        if self.mistake == Some(Mistake::TimerIsRemovedFirst) && at == Due::Fire {
            state.unschedule(key);
        } else {
            state.claim(key, Some(worker));
        }
        Some(Handling { key, at })
    }

    /// The await that the handler stands at. True when all is done.
    pub(crate) fn due_await(&self, state: &mut State, worker: ProcessId, handling: &mut Handling) -> bool {
        let next = match (handling.at.clone(), handling.key) {
            (Due::Refuse, DueKey::Check(request)) => {
                if self.mistake == Some(Mistake::AbsentIsForgotten) || state.refuse(request) {
                    Due::Settle { remove: true }
                } else {
                    Due::ReadAgain
                }
            }
            (Due::ReadAgain, DueKey::Check(request)) => {
                let is_there = state.store.record.is_some_and(|record| record.request == request);
                Due::Settle { remove: !is_there }
            }
            (Due::Drive(mut driving, then), key) => {
                if !self.drive(state, worker, &mut driving) {
                    handling.at = Due::Drive(driving, then);
                    return false;
                }
                match (then, key) {
                    (AfterDrive::Look, _) => look_on(driving.record).unwrap_or(Due::Settle { remove: false }),
                    (AfterDrive::Delete, DueKey::Retention(_)) => Due::Delete,
                    _ => Due::Settle { remove: true },
                }
            }
            (Due::StartAgain(execution), _) => {
                self.make(state, execution, Effect::Start);
                Due::Settle { remove: false }
            }
            (Due::Inbox, _) if state.store.inbox.is_empty() || self.mistake == Some(Mistake::InboxStaysUnread) => {
                Due::Settle { remove: false }
            }
            (Due::Inbox, _) => Due::Wake,
            (Due::Wake, _) => {
                state.publish(Item::Wake);
                Due::Settle { remove: false }
            }
            (Due::Fire, DueKey::Timer(execution)) => {
                state.publish(Item::Timer(execution));
                Due::Settle { remove: true }
            }
            (Due::Delete, DueKey::Retention(execution)) => {
                let request = state.store.record.map(|record| record.request);
                match state.delete(execution, self.mistake) {
                    Deleted::Marked => self.retire(state, worker, execution),
                    Deleted::Active => Due::Settle { remove: true },
                    Deleted::Deleted | Deleted::Absent => Due::Unschedule(
                        request
                            .filter(|request| request * 2 == execution & !1)
                            .unwrap_or(execution / 2),
                    ),
                }
            }
            (Due::Unschedule(request), key) => {
                state.unschedule(DueKey::Check(request));
                state.unschedule(key);
                Due::Settle { remove: true }
            }
            (Due::Settle { remove }, key) => {
                state.settle_due(key, worker, remove);
                if remove && let DueKey::Timer(execution) = key {
                    self.has_let_go(state, Item::Timer(execution));
                }
                return true;
            }
            (at, key) => unreachable!("a handler of {key:?} at {at:?}"),
        };
        handling.at = next;
        false
    }

    fn look_at(&self, state: &State, worker: ProcessId, request: RequestId) -> Option<Due> {
        let Some(record) = state.store.record.filter(|record| record.request == request) else {
            return Some(Due::Refuse);
        };
        let drive = |then| {
            self.begin_drive(state, worker, record, record.marks)
                .map(|driving| Due::Drive(driving, then))
        };
        if record.status.is_terminal() {
            return drive(AfterDrive::Settle).or(Some(match self.mistake {
                Some(Mistake::EndIsNotSettled) => Due::Settle { remove: true },
                _ => Due::Drive(Self::begin_settling(record), AfterDrive::Settle),
            }));
        }
        if let Some(driving) = drive(AfterDrive::Look) {
            return Some(driving);
        }
        match look_on(record)? {
            // Nobody has taken the published start for a long time: here, when it is not on its way any more.
            Due::StartAgain(execution) if state.is_waiting(Item::Start(execution)) => None,
            Due::Wake if self.mistake == Some(Mistake::NextExecutionIsForgotten) => None,
            // A look that finds nothing is no step.
            Due::Inbox if state.store.inbox.is_empty() || self.mistake == Some(Mistake::InboxStaysUnread) => None,
            at => Some(at),
        }
    }

    /// A finished instance's time is over.
    fn retire(&self, state: &State, worker: ProcessId, execution: ExecutionId) -> Due {
        match state.store.record.filter(|record| record.execution == execution) {
            Some(record) if record.status.is_terminal() && self.mistake != Some(Mistake::MarkedTurnIsDeleted) => self
                .begin_drive(state, worker, record, record.marks)
                .map_or(Due::Delete, |driving| Due::Drive(driving, AfterDrive::Delete)),
            Some(record) if record.status.is_terminal() => Due::Delete,
            _ => Due::Settle { remove: true },
        }
    }
}

/// What a check does once the marks are driven.
fn look_on(record: Record) -> Option<Due> {
    match record.status {
        Status::Pending if !record.marks.has(Mark::Start) => Some(Due::StartAgain(record.execution)),
        Status::Running if record.marks.has(Mark::Run) => Some(Due::Wake),
        Status::Running => Some(Due::Inbox),
        _ => None,
    }
}

/// A timer is due: its instance's lane hears of it.
fn fire(state: &State, execution: ExecutionId) -> Option<Due> {
    match state.store.record {
        Some(record) if record.execution == execution && !record.status.is_terminal() => {
            // Without a lane it comes again.
            (record.status == Status::Running).then_some(Due::Fire)
        }
        _ => Some(Due::Settle { remove: true }),
    }
}
