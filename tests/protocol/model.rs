//! The model: which steps a state allows, and what each does.

use stateright::{Model, Property};

use super::mistakes::Mistake;
use super::program::Life;
use super::properties;
use super::sets::{HistoryEvent, Mark};
use super::state::{
    Activation, At, CLIENT, Commit, Due, DueEntry, DueKey, Item, Job, Notes, Process, ProcessId, State, Status, Store,
    Wish, Wrong,
};

/// The protocol under one set of bounds.
#[derive(Clone, Debug)]
pub(crate) struct Protocol {
    pub(crate) life: Life,
    /// What the client wants, one thing after the other.
    pub(crate) wishes: &'static [Wish],
    pub(crate) workers: u8,
    /// Faults in one behaviour, of whatever sorts.
    pub(crate) faults: u8,
    pub(crate) mistake: Option<Mistake>,
}

/// A step: everything up to the next await of one process, or a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The client begins with its next wish.
    Ask(Wish),
    /// A worker takes a message.
    Take(ProcessId, Item),
    /// A worker claims a due entry.
    Claim(ProcessId, DueKey),
    /// Fault: a check is due although somebody is at work: who is that slow looks dead.
    ClaimFromSlow(ProcessId, DueKey),
    /// A process goes on: the await that it stands at is over.
    GoOn(ProcessId),
    /// A process clears a mark that it has confirmed.
    Clear(ProcessId),
    /// The target runs the task's body, answers, and acknowledges; or drops it because its call is over.
    Perform(Item),
    /// Fault: the process dies. What it holds comes again.
    Crash(ProcessId),
    /// Fault: the operation had its effect, and its reply was lost: it is sent again.
    LoseReply(ProcessId),
    /// Fault: a commit stays on its way. Its sender sends it again, or dies.
    Delay(ProcessId),
    /// The delayed commit arrives.
    Arrive,
    /// Fault: a message comes again: its confirm or its acknowledgement was lost, it was published by two, its connection broke. It is taken at once:
    /// one that waits for a while is one that comes later.
    TakeAgain(ProcessId, Item),
    /// Fault: the same of a result that is not the call's: of another app, or with another task execution ID.
    TakeForged(ProcessId, Item),
    /// Fault: a handler is so slow that its claim lapses.
    Lapse(DueKey),
}

impl Protocol {
    fn first(&self) -> State {
        State {
            store: Store::default(),
            broker: Vec::new(),
            processes: vec![Process::default(); usize::from(self.workers) + 1],
            wishes_granted: 0,
            late: None,
            faults_left: self.faults,
            notes: Notes::default(),
        }
    }

    /// Steps that need no fault.
    pub(crate) fn fair_steps(&self, state: &State, steps: &mut Vec<Step>) {
        let is_quiet = state.is_quiet();
        for (process, it) in (0..).zip(&state.processes) {
            if it.first_confirmed().is_some() {
                steps.push(Step::Clear(process));
            }
            if it.job != Job::Idle {
                steps.push(Step::GoOn(process));
                continue;
            }
            if process == CLIENT {
                let wish = self.wishes.get(usize::from(state.wishes_granted));
                // One that finds the instance active is refused, and that is all.
                let is_active = state.store.record.is_some_and(|record| !record.status.is_terminal());
                let wish = wish.filter(|wish| **wish != Wish::Start(1) || !is_active);
                steps.extend(wish.map(|wish| Step::Ask(*wish)));
                continue;
            }
            let mut last = None;
            for message in state.broker.iter().filter(|message| message.holder.is_none()) {
                if !matches!(message.item, Item::Task(_)) && last != Some(message.item) {
                    steps.push(Step::Take(process, message.item));
                    last = Some(message.item);
                }
            }
            let is_in_time = |entry: &&DueEntry| is_quiet || !matches!(entry.key, DueKey::Check(_));
            let free = state.store.due.iter().filter(|entry| entry.holder.is_none());
            steps.extend(free.filter(is_in_time).map(|entry| Step::Claim(process, entry.key)));
        }
        let mut last = None;
        for message in &state.broker {
            if matches!(message.item, Item::Task(_)) && last != Some(message.item) {
                steps.push(Step::Perform(message.item));
                last = Some(message.item);
            }
        }
        if state.late.is_some() {
            steps.push(Step::Arrive);
        }
    }

    fn faults(&self, state: &State, steps: &mut Vec<Step>) {
        for (process, it) in (0..).zip(&state.processes) {
            if it.job == Job::Idle {
                let checks = state
                    .store
                    .due
                    .iter()
                    .filter(|entry| matches!(entry.key, DueKey::Check(_)));
                let free = checks.filter(|entry| entry.holder.is_none() && process != CLIENT && !state.is_quiet());
                steps.extend(free.map(|entry| Step::ClaimFromSlow(process, entry.key)));
                if process != CLIENT {
                    steps.extend(
                        state
                            .notes
                            .published
                            .members()
                            .map(|item| Step::TakeAgain(process, item)),
                    );
                    let forged = state.open_call().map(|execution| Item::Completion {
                        execution,
                        is_genuine: false,
                    });
                    steps.extend(forged.map(|item| Step::TakeForged(process, item)));
                }
                if it.first_confirmed().is_some() {
                    steps.push(Step::Crash(process));
                }
                continue;
            }
            steps.extend([Step::Crash(process), Step::LoseReply(process)]);
            if commit_of(&it.job).is_some() && state.late.is_none() {
                steps.push(Step::Delay(process));
            }
        }
        let claimed = state.store.due.iter().filter(|entry| entry.holder.is_some());
        steps.extend(claimed.map(|entry| Step::Lapse(entry.key)));
    }

    /// Does a step. `None` if it is none.
    pub(crate) fn take(&self, before: &State, step: &Step) -> Option<State> {
        let mut state = before.clone();
        match *step {
            Step::Ask(wish) => {
                state.wishes_granted += 1;
                state.processes[usize::from(CLIENT)].job = Job::Ask(wish, self.ask(wish));
            }
            Step::Take(worker, item) => {
                let activation = self.arrive(&mut state, worker, item);
                self.go_on_from_read(&mut state, worker, activation);
            }
            Step::Claim(worker, key) => {
                let mut handling = self.claim(&mut state, worker, key)?;
                // A timer or a retention of what is gone: nothing can change that, so it is let go at once.
                let is_useless = handling.at == Due::Settle { remove: true } && !matches!(key, DueKey::Check(_));
                let is_done = is_useless && self.due_await(&mut state, worker, &mut handling);
                state.processes[usize::from(worker)].job = if is_done { Job::Idle } else { Job::Due(handling) };
            }
            Step::GoOn(process) => self.go_on(&mut state, process),
            Step::Clear(process) => self.clear_confirmed(&mut state, process),
            Step::Perform(item) => self.perform(&mut state, item),
            Step::Arrive => {
                let commit = state.late.take()?;
                state.commit(
                    &commit,
                    self.life.effects_of(commit.execution(), commit.events),
                    self.mistake,
                );
            }
            _ => {
                state.faults_left = before.faults_left.checked_sub(1)?;
                self.fail(&mut state, step)?;
            }
        }
        Some(state.canonical())
    }

    fn go_on(&self, state: &mut State, process: ProcessId) {
        let index = usize::from(process);
        let job = std::mem::take(&mut state.processes[index].job);
        let next = match job {
            Job::Idle => Job::Idle,
            Job::Turn(mut activation) => {
                let is_read = matches!(activation.at, At::Load | At::Confirm);
                if self.turn_await(state, process, &mut activation) {
                    Job::Idle
                } else if is_read {
                    return self.go_on_from_read(state, process, activation);
                } else {
                    Job::Turn(activation)
                }
            }
            Job::Due(mut handling) => {
                if self.due_await(state, process, &mut handling) {
                    Job::Idle
                } else {
                    Job::Due(handling)
                }
            }
            Job::Ask(wish, at) => self
                .ask_await(state, wish, at)
                .map_or(Job::Idle, |at| Job::Ask(wish, at)),
        };
        state.processes[index].job = next;
    }

    /// A message that is dropped because of what was read is acknowledged in the same step. Nothing is lost by that: what was true of it stays true, and
    /// a crash in between has it come again, as a crash before the read does.
    fn go_on_from_read(&self, state: &mut State, worker: ProcessId, mut activation: Activation) {
        let is_done = activation.at == At::Acknowledge && self.turn_await(state, worker, &mut activation);
        state.processes[usize::from(worker)].job = if is_done { Job::Idle } else { Job::Turn(activation) };
    }

    fn perform(&self, state: &mut State, item: Item) {
        let Item::Task(execution) = item else { return };
        let is_wanted = state
            .store
            .record
            .is_some_and(|record| record.execution == execution && !record.status.is_terminal())
            && !state.notes.events[usize::from(execution)].has(HistoryEvent::TaskCompleted);
        if is_wanted {
            state.publish(Item::Completion {
                execution,
                is_genuine: true,
            });
        }
        state.remove(item, None);
        self.has_let_go(state, item);
    }

    fn fail(&self, state: &mut State, step: &Step) -> Option<()> {
        match *step {
            Step::ClaimFromSlow(worker, key) => {
                let handling = self.claim(state, worker, key)?;
                state.processes[usize::from(worker)].job = Job::Due(handling);
            }
            Step::Crash(process) => state.crash(process),
            Step::LoseReply(process) => {
                let before = state.clone();
                self.go_on(state, process);
                // A confirm that was lost, or an acknowledgement, is a message that comes again.
                if state.store == before.store {
                    return None;
                }
                let index = usize::from(process);
                let mut job = before.processes[index].job.clone();
                if let (Some(Mistake::LostReplyIsConflict), Job::Turn(activation)) = (self.mistake, &mut job)
                    && let At::Commit(commit) = &activation.at
                {
                    state.clear_mark(commit.execution(), Mark::Turn(commit.version()));
                    activation.at = At::Load;
                }
                state.processes[index].job = job;
            }
            Step::Delay(process) => state.late = commit_of(&state.processes[usize::from(process)].job),
            Step::TakeAgain(worker, item) | Step::TakeForged(worker, item) => {
                state.bring_again(item);
                let activation = self.arrive(state, worker, item);
                self.go_on_from_read(state, worker, activation);
            }
            Step::Lapse(key) => state.claim(key, None),
            _ => return None,
        }
        Some(())
    }

    /// True if something that a turn (or a creation) has caused was not made, and no mark says so: nobody will make it.
    pub(crate) fn is_forgotten(&self, state: &State) -> bool {
        let owed = (0..).zip(&state.notes.owed).filter(|(_, owed)| !owed.is_empty());
        owed.into_iter().any(|(execution, owed)| {
            let Some(record) = state.store.record.filter(|record| record.execution == execution) else {
                return true;
            };
            let mut marked = properties::marked_start(record);
            for turn in state
                .store
                .history
                .iter()
                .filter(|turn| record.marks.has(Mark::Turn(turn.version)))
            {
                marked = marked.and(self.life.effects_of(record.execution, turn.events));
            }
            !owed.less(marked).is_empty()
        })
    }
}

fn commit_of(job: &Job) -> Option<Commit> {
    match job {
        Job::Turn(Activation {
            at: At::Commit(commit), ..
        })
        | Job::Ask(_, super::state::Asking::CommitPlain(commit)) => Some(commit.clone()),
        _ => None,
    }
}

impl State {
    /// The execution that waits for a result.
    fn open_call(&self) -> Option<u8> {
        let record = self.store.record.filter(|record| record.status == Status::Running)?;
        let events = self.notes.events[usize::from(record.execution)];
        (events.has(HistoryEvent::TaskScheduled) && !events.has(HistoryEvent::TaskCompleted))
            .then_some(record.execution)
    }

    fn crash(&mut self, process: ProcessId) {
        let it = &mut self.processes[usize::from(process)];
        let job = std::mem::take(&mut it.job);
        it.cache = None;
        it.confirmed = Default::default();
        if let Job::Ask(wish, _) = job {
            if !matches!(wish, Wish::Start(_)) {
                // Whoever wanted it asks again, by the same message ID. A start is not asked for again: what it has begun has to go on without it.
                self.wishes_granted -= 1;
            }
            return;
        }
        for message in &mut self.broker {
            if message.holder == Some(process) {
                message.holder = None;
            }
        }
        self.broker.sort_unstable();
        for entry in &mut self.store.due {
            if entry.holder == Some(process) {
                entry.holder = None;
            }
        }
    }

    /// Workers are all alike: of the states that differ in their order alone, one stands for all. (So a worker may change its number within a trace.)
    fn canonical(mut self) -> Self {
        let count = self.processes.len();
        let mut order: Vec<usize> = (0..count).collect();
        order[1..].sort_by(|a, b| self.processes[*a].cmp(&self.processes[*b]));
        if order.is_sorted() {
            return self;
        }
        let mut places = vec![0; count];
        for (place, process) in (0..).zip(&order) {
            places[*process] = place;
        }
        self.processes = order
            .iter()
            .map(|process| std::mem::take(&mut self.processes[*process]))
            .collect();
        let renumber = |holder: &mut Option<ProcessId>| *holder = holder.map(|process| places[usize::from(process)]);
        self.broker.iter_mut().for_each(|message| renumber(&mut message.holder));
        self.broker.sort_unstable();
        self.store.due.iter_mut().for_each(|entry| renumber(&mut entry.holder));
        self.store.due.sort_unstable();
        self
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![self.first()]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        // A state that is wrong already has been found.
        if state.notes.wrong.is_some() {
            return;
        }
        self.fair_steps(state, steps);
        if state.faults_left > 0 {
            self.faults(state, steps);
        }
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        self.take(state, &step).filter(|next| next != state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all()
    }
}

impl Wrong {
    pub(crate) fn is_seen(self, state: &State) -> bool {
        state.notes.wrong == Some(self)
    }
}
