//! The operations of `Store` and `Broker` that the protocol is made of. Each is atomic, as its script is (`src/backend/redis/scripts`).

use super::mistakes::Mistake;
use super::sets::{Effect, HistoryEvent, Mark, Set};
use super::state::{
    Commit, DueEntry, DueKey, ExecutionId, Item, Message, ProcessId, Receipt, Record, RequestId, State, Status, Turn,
    Wrong, request_of,
};

/// What [`State::create`] did.
#[allow(clippy::enum_variant_names, reason = "the names of the code")]
pub(crate) enum Created {
    Created,
    Repeated(ExecutionId),
    Exists(Record),
    Refused,
}

/// What [`State::deliver`] did.
#[derive(PartialEq, Eq)]
pub(crate) enum Delivered {
    ToLane,
    Kept,
    Over,
    Absent,
}

/// What [`State::delete`] did.
#[allow(clippy::enum_variant_names, reason = "the names of the code")]
pub(crate) enum Deleted {
    Deleted,
    Active,
    Marked,
    Absent,
}

/// The most copies of one message that wait at once: one more would be taken like the one before it.
const COPIES: usize = 2;

impl State {
    // --- one instance

    pub(crate) fn create(&mut self, request: RequestId, mistake: Option<Mistake>) -> Created {
        match self.store.receipts[usize::from(request)] {
            Some(Receipt::Refused) => return Created::Refused,
            Some(Receipt::Created(execution)) => return Created::Repeated(execution),
            None => {}
        }
        if let Some(old) = self.store.record {
            let is_marked = !old.marks.is_empty() && mistake != Some(Mistake::MarkedTurnIsDeleted);
            if !old.status.is_terminal() || is_marked {
                return Created::Exists(old);
            }
            self.store.inbox.clear();
        }
        let execution = request * 2;
        self.store.record = Some(Record {
            execution,
            version: 0,
            commit: None,
            status: Status::Pending,
            marks: Set::of(&[Mark::Start]),
            request,
        });
        self.store.history.clear();
        self.store.receipts[usize::from(request)] = Some(Receipt::Created(execution));
        if std::mem::replace(&mut self.notes.created[usize::from(request)], true) {
            self.wrong(Wrong::CountedTwice);
        }
        self.owe(execution, Set::of(&[Effect::Start]));
        Created::Created
    }

    /// Appends a turn, if the guard holds. Gives what is left in the inbox, or `None` on a conflict.
    pub(crate) fn commit(&mut self, commit: &Commit, effects: Set, mistake: Option<Mistake>) -> Option<u8> {
        let record = self.store.record?;
        if record.commit == Some(commit.id) {
            return Some(self.store.inbox.len() as u8);
        }
        let guard = record.guard();
        let holds = match mistake {
            Some(Mistake::GuardIsTheVersion) => guard.version == commit.guard.version,
            Some(Mistake::LaneIsGuard) => true,
            _ => guard == commit.guard,
        };
        if !holds {
            return None;
        }
        if guard != commit.guard {
            self.wrong(Wrong::AppendedBlindly);
        }
        let mut left = record.marks.less(commit.cleared);
        if commit.next_execution.is_some() {
            left = left.without(Mark::Run);
            // The turns of the old execution go: none of them may have effects outstanding.
            if !left.is_empty() {
                return None;
            }
            self.store.history.clear();
        }
        self.note(commit, effects);
        self.store.history.push(Turn {
            execution: commit.execution(),
            version: commit.version(),
            events: commit.events,
        });
        self.store.record = Some(Record {
            execution: commit.execution(),
            version: commit.version(),
            commit: Some(commit.id),
            status: commit.status,
            marks: left.and(commit.marks),
            request: record.request,
        });
        let taken = usize::from(commit.inbox_taken).min(self.store.inbox.len());
        match mistake {
            Some(Mistake::InboxIsEmptied) => self.store.inbox.clear(),
            _ => drop(self.store.inbox.drain(..taken)),
        }
        self.store.inbox.splice(0..0, commit.inbox_kept.iter().copied());
        Some(self.store.inbox.len() as u8)
    }

    /// What the checker notes of a turn that was appended.
    fn note(&mut self, commit: &Commit, effects: Set) {
        let execution = usize::from(commit.execution());
        let mut before = self.notes.events[execution];
        if execution % 2 == 1 {
            // A raised event counts once in the run, not in the execution.
            let last = self.notes.events[execution - 1];
            before = before.and(last.both(Set::of(&[HistoryEvent::EventRaised])));
        }
        if !before.both(commit.events).is_empty() {
            self.wrong(Wrong::CountedTwice);
        }
        if commit.events.has(HistoryEvent::Foreign) {
            self.wrong(Wrong::ForeignResult);
        }
        self.notes.events[execution] = self.notes.events[execution].and(commit.events);
        self.notes.turns[execution] += 1;
        if commit.guard.version == 0 {
            // It has begun, or is over: nobody waits for its start to be published.
            let owed = &mut self.notes.owed[usize::from(commit.guard.execution)];
            *owed = owed.without(Effect::Start);
        }
        self.owe(commit.execution(), effects);
    }

    fn owe(&mut self, execution: ExecutionId, effects: Set) {
        let owed = &mut self.notes.owed[usize::from(execution)];
        *owed = owed.and(effects);
    }

    pub(crate) fn clear_mark(&mut self, execution: ExecutionId, mark: Mark) {
        if let Some(record) = &mut self.store.record
            && record.execution == execution
        {
            record.marks = record.marks.without(mark);
        }
    }

    pub(crate) fn deliver(&mut self, item: Item, park: bool, mistake: Option<Mistake>) -> Delivered {
        match self.store.record {
            None if item != Item::Event || mistake == Some(Mistake::EarlyEventIsLost) => return Delivered::Absent,
            None => {}
            Some(record) if record.status.is_terminal() => return Delivered::Over,
            Some(record) if record.status == Status::Running && !park => return Delivered::ToLane,
            Some(_) => {}
        }
        if self.store.inbox.last() != Some(&item) {
            self.store.inbox.push(item);
        }
        // Whoever raised it may do so again, by the same message ID, and then it may come by the lane.
        self.notes.published = self.notes.published.with(item);
        Delivered::Kept
    }

    /// True if the request is refused from now on.
    pub(crate) fn refuse(&mut self, request: RequestId) -> bool {
        let receipt = &mut self.store.receipts[usize::from(request)];
        match receipt {
            Some(Receipt::Created(_)) => false,
            _ => {
                *receipt = Some(Receipt::Refused);
                true
            }
        }
    }

    pub(crate) fn delete(&mut self, execution: ExecutionId, mistake: Option<Mistake>) -> Deleted {
        let Some(record) = self.store.record.filter(|record| record.execution == execution) else {
            return Deleted::Absent;
        };
        if !record.status.is_terminal() {
            return Deleted::Active;
        }
        if !record.marks.is_empty() && mistake != Some(Mistake::MarkedTurnIsDeleted) {
            return Deleted::Marked;
        }
        if mistake == Some(Mistake::NoReceiptIsLeft) {
            self.store.receipts[usize::from(record.request)] = None;
        }
        self.store.record = None;
        self.store.history.clear();
        self.store.inbox.clear();
        Deleted::Deleted
    }

    // --- the due-set

    /// Adds the entry, or sets its time: whoever has claimed it has it no longer.
    pub(crate) fn schedule(&mut self, key: DueKey) {
        self.unschedule(key);
        let entry = DueEntry { key, holder: None };
        let at = self.store.due.partition_point(|other| *other < entry);
        self.store.due.insert(at, entry);
    }

    pub(crate) fn unschedule(&mut self, key: DueKey) {
        self.store.due.retain(|entry| entry.key != key);
    }

    /// Changes who has the entry.
    pub(crate) fn claim(&mut self, key: DueKey, holder: Option<ProcessId>) {
        self.unschedule(key);
        let entry = DueEntry { key, holder };
        let at = self.store.due.partition_point(|other| *other < entry);
        self.store.due.insert(at, entry);
    }

    /// Removes or frees a claimed entry, if it is still the caller's.
    pub(crate) fn settle_due(&mut self, key: DueKey, by: ProcessId, remove: bool) {
        let is_ours = |entry: &DueEntry| entry.key == key && entry.holder == Some(by);
        match self.store.due.iter().any(is_ours) {
            true if remove => self.unschedule(key),
            true => self.claim(key, None),
            false => {}
        }
    }

    // --- the broker

    pub(crate) fn publish(&mut self, item: Item) {
        if !matches!(item, Item::Wake | Item::Task(_)) {
            self.notes.published = self.notes.published.with(item);
        }
        let message = Message { item, holder: None };
        let waiting = self.broker.iter().filter(|other| **other == message).count();
        // A second wake says no more than the first.
        if waiting < if item == Item::Wake { 1 } else { COPIES } {
            self.put(message);
        }
    }

    /// Another copy of what was published, for whoever takes it.
    pub(crate) fn bring_again(&mut self, item: Item) {
        self.put(Message { item, holder: None });
    }

    fn put(&mut self, message: Message) {
        let at = self.broker.partition_point(|other| *other < message);
        self.broker.insert(at, message);
    }

    /// Changes who has one of these messages. False if there is none.
    pub(crate) fn pass(&mut self, item: Item, from: Option<ProcessId>, to: Option<ProcessId>) -> bool {
        if !self.remove(item, from) {
            return false;
        }
        self.put(Message { item, holder: to });
        true
    }

    pub(crate) fn remove(&mut self, item: Item, holder: Option<ProcessId>) -> bool {
        let wanted = Message { item, holder };
        match self.broker.iter().position(|message| *message == wanted) {
            Some(at) => {
                self.broker.remove(at);
                true
            }
            None => false,
        }
    }

    /// True if the item has had its effect, or can have none any more: only then may its message be let go.
    pub(crate) fn is_settled(&self, item: Item) -> bool {
        let ended = Set::of(&[
            HistoryEvent::ExecutionCompleted,
            HistoryEvent::ExecutionTerminated,
            HistoryEvent::ContinuedAsNew,
        ]);
        let counted = |execution: ExecutionId, event: HistoryEvent| {
            let events = self.notes.events[usize::from(execution)];
            events.has(event) || !events.both(ended).is_empty() || self.store.inbox.contains(&item)
        };
        match item {
            Item::Start(execution) => !self.notes.events[usize::from(execution)].is_empty(),
            Item::Task(execution) => {
                let answer = Item::Completion {
                    execution,
                    is_genuine: true,
                };
                counted(execution, HistoryEvent::TaskCompleted) || self.is_waiting(answer)
            }
            Item::Completion { is_genuine: false, .. } | Item::Wake => true,
            Item::Completion { execution, .. } => counted(execution, HistoryEvent::TaskCompleted),
            Item::Timer(execution) => counted(execution, HistoryEvent::TimerFired),
            Item::Event => match self.store.record {
                None => self.store.inbox.contains(&item) || self.notes.created.contains(&true),
                Some(record) => {
                    let run = usize::from(request_of(record.execution) * 2);
                    let events = self.notes.events[run].and(self.notes.events[run + 1]);
                    record.status.is_terminal()
                        || events.has(HistoryEvent::EventRaised)
                        || self.store.inbox.contains(&item)
                        || self.is_waiting(item)
                }
            },
            Item::Terminate(request) => self.is_run_over(request) || self.is_waiting(item),
        }
    }

    /// True if another copy of the item is in the broker.
    pub(crate) fn is_waiting(&self, item: Item) -> bool {
        self.broker.iter().any(|message| message.item == item)
    }

    /// True if the run has ended.
    pub(crate) fn is_run_over(&self, request: RequestId) -> bool {
        let ended = Set::of(&[HistoryEvent::ExecutionCompleted, HistoryEvent::ExecutionTerminated]);
        let run = usize::from(request * 2);
        let events = self.notes.events[run].and(self.notes.events[run + 1]);
        !events.both(ended).is_empty()
    }
}
