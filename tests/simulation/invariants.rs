//! What has to hold after every step: I1 to I5, looked at from the outside, in the servers' true state.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::FutureExt;
use leveret::backend::{Commit, Committed, Create, Created, DueKind, Mark, Message, Origin, Queue, Record};
use leveret::replay::Execution;
use leveret::replay::history::{HistoryEvent, Turn};
use leveret::testing::{Observed, World};
use leveret::wire::{Bundle, Command, CompletionItem, Item, Outcome, TaskItem, TaskRef};
use leveret::{
    AppId, ExecutionId, Failure, InstanceRef, Limits, MessageId, Payload, RunId, Sequence, Status, Timestamp,
};

use crate::clients::HELD_UP;
use crate::code::PlanCode;
use crate::memory::Memory;
use crate::model::{self, Ended, Given};
use crate::plan::{APPS, Round};
use crate::script::Script;

/// Watches a world. The first thing that is wrong stays.
#[derive(Clone, Default)]
pub(crate) struct Watcher(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    wrong: Option<String>,
    known: BTreeSet<InstanceRef>,
    /// Records of those that are not over, or have marks.
    unsettled: BTreeMap<InstanceRef, Record>,
    histories: BTreeMap<InstanceRef, History>,
    /// Calls and timers that have their end in a history.
    settled: BTreeSet<(ExecutionId, Sequence)>,
    /// Events that a run has seen.
    raised: BTreeSet<(RunId, MessageId)>,
    /// Activity calls that stand in a history, and the app that each was sent to.
    scheduled: BTreeMap<(ExecutionId, Sequence), AppId>,
    /// Which apps have answered a call.
    answered: BTreeMap<(ExecutionId, Sequence), BTreeSet<AppId>>,
    /// Parents of children that are not detached.
    parents: BTreeMap<InstanceRef, InstanceRef>,
    /// The version of an instance when a start was last sent to it.
    starts: BTreeMap<ExecutionId, u64>,
    /// Which runs were active when an event was sent.
    sent_to: BTreeMap<MessageId, BTreeSet<Option<RunId>>>,
    /// Copies of an item, by its digest, that are in queues.
    in_queues: BTreeMap<u64, u32>,
    /// When each timer is due.
    due: BTreeMap<(ExecutionId, Sequence), Timestamp>,
    /// Requests that have created an instance.
    requests: BTreeSet<(InstanceRef, MessageId)>,
    /// Children that an end has to reach: those of the execution that was terminated.
    to_end: BTreeMap<InstanceRef, (ExecutionId, Vec<InstanceRef>)>,
    /// Instances that a terminate was sent to.
    told_to_end: BTreeSet<InstanceRef>,
    /// Children that a client is told to end.
    ended_children: BTreeSet<String>,
    /// Nothing goes wrong in this world.
    is_calm: bool,
    /// Somebody says of an app that is there that it is not. Its task is sent again then, beside a body that may run.
    denies_apps: bool,
    memory: Memory,
    turns: u64,
    /// Steps, and a digest of them all.
    footprint: (u64, u64),
}

/// What an instance's history was when it was last looked at.
struct History {
    execution: ExecutionId,
    turns: Vec<Bytes>,
    is_over: bool,
}

impl Watcher {
    pub(crate) fn watch(&self, world: &World, script: &Script) {
        let state = self.0.clone();
        self.lock().ended_children = script.ended_children();
        self.lock().is_calm = script.is_calm;
        self.lock().denies_apps = !script.is_calm && !script.has_long_bodies();
        world.observe(move |world, observed| {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.wrong.is_none()
                && let Err(wrong) = state.look(world, observed)
            {
                state.wrong = Some(wrong);
            }
        });
    }

    /// What the workers keep in memory.
    pub(crate) fn with_memory<T>(&self, look: impl FnOnce(&mut Memory) -> T) -> T {
        look(&mut self.lock().memory)
    }

    /// What was wrong first.
    pub(crate) fn wrong(&self) -> Option<String> {
        self.lock().wrong.clone()
    }

    /// Every instance that was ever created.
    pub(crate) fn known(&self) -> Vec<InstanceRef> {
        self.lock().known.iter().cloned().collect()
    }

    /// Children of the instance, and theirs, as far as they are still there.
    pub(crate) fn descendants(&self, world: &World, of: &InstanceRef) -> Vec<InstanceRef> {
        let state = self.lock();
        let mut found = Vec::new();
        let mut parents = vec![of.clone()];
        while let Some(parent) = parents.pop() {
            for (child, _) in state.parents.iter().filter(|(_, its)| **its == parent) {
                let record = at_once(world.servers().store().record(child));
                let is_its = |record: &Record| {
                    let link = record.origin.parent.as_ref();
                    link.is_some_and(|link| link.task.instance == parent && !link.detached)
                };
                if record.is_some_and(|record| is_its(&record)) {
                    found.push(child.clone());
                }
                parents.push(child.clone());
            }
        }
        found
    }

    /// How many steps there were, and a digest of them.
    pub(crate) fn footprint(&self) -> (u64, u64) {
        self.lock().footprint
    }

    /// Turns committed.
    pub(crate) fn turns(&self) -> u64 {
        self.lock().turns
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The answer of a server that never waits.
pub(crate) fn at_once<T>(future: impl Future<Output = leveret::backend::Result<T>>) -> T {
    tokio::task::unconstrained(future)
        .now_or_never()
        .expect("the servers of a simulation never wait")
        .expect("the servers of a simulation do not fail")
}

impl State {
    fn look(&mut self, world: &World, observed: &Observed<'_>) -> Result<(), String> {
        self.step(observed);
        self.memory.is_bounded()?;
        match observed {
            Observed::Create { create, result } => {
                if matches!(result, Created::Created(_)) {
                    let request = (create.instance.clone(), create.origin.request.clone());
                    if !self.requests.insert(request) {
                        let request = &create.origin.request;
                        return Err(format!("I3: request {request} has created {} twice", create.instance));
                    }
                    self.known.insert(create.instance.clone());
                    match create.origin.parent.as_ref().filter(|parent| !parent.detached) {
                        Some(parent) => {
                            is_wanted(world, &create.instance, &parent.task)?;
                            self.parents
                                .insert(create.instance.clone(), parent.task.instance.clone())
                        }
                        None => self.parents.remove(&create.instance),
                    };
                }
                if let Created::Exists(occupant) = result {
                    is_of_the_same_parent(create, occupant)?;
                }
                self.note(world, &create.instance)?;
                self.nothing_is_forgotten(world)
            }
            Observed::Commit {
                commit,
                result: Committed::Applied { .. },
            } => {
                self.history_grows(world, commit)?;
                self.note(world, &commit.instance)?;
                self.nothing_is_forgotten(world)
            }
            Observed::Request { name, instance }
                if ["unschedule", "settle_due", "clear_mark", "delete"].contains(name) =>
            {
                if let Some(instance) = instance {
                    self.note(world, instance)?;
                }
                self.nothing_is_forgotten(world)
            }
            Observed::Published { body, .. } => {
                for item in items(body) {
                    *self.in_queues.entry(digest(&item)).or_default() += 1;
                    if let Item::Task(task) = &item
                        && !self.is_calm
                    {
                        forge(world, task, self.denies_apps);
                    }
                    if let Item::Task(task) = &item
                        && !self
                            .scheduled
                            .contains_key(&(task.caller.execution, task.caller.sequence))
                    {
                        return Err(format!(
                            "I2: the task of call {} of {} was published before its turn was committed",
                            task.caller.sequence, task.caller.instance
                        ));
                    }
                    if let Item::Completion(completion) = &item {
                        let call = (completion.task.execution, completion.task.sequence);
                        self.answered.entry(call).or_default().insert(completion.from.clone());
                    }
                    if is_terminate(&item) {
                        self.told_to_end.extend(item.instance().cloned());
                    }
                    if let Item::Start(start) = &item
                        && let Some(record) = at_once(world.servers().store().record(&start.instance))
                    {
                        self.starts.insert(start.execution, record.version);
                    }
                    if let Item::Event(event) = item {
                        let record = at_once(world.servers().store().record(&event.instance));
                        let run = record
                            .filter(|record| !record.status.is_terminal())
                            .map(|record| record.run);
                        self.sent_to.entry(event.message_id).or_default().insert(run);
                    }
                }
                Ok(())
            }
            Observed::Acknowledged { queue, body } => {
                let items = items(body);
                // Of the unrouted some wait in the due-set now.
                let is_judged = !matches!(queue, Queue::Unrouted);
                for item in &items {
                    let copies = self.in_queues.entry(digest(item)).or_default();
                    *copies = copies.saturating_sub(1);
                    // What was sent on to where it belongs is judged there.
                    if is_judged && *copies == 0 {
                        self.is_dealt_with(world, item)?;
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn step(&mut self, observed: &Observed<'_>) {
        let mut digest = std::hash::DefaultHasher::new();
        self.footprint.hash(&mut digest);
        match observed {
            Observed::Create { create, .. } => ("create", &create.instance).hash(&mut digest),
            Observed::Commit { commit, .. } => ("commit", &commit.instance, commit.version()).hash(&mut digest),
            Observed::Request { name, instance } => (name, instance).hash(&mut digest),
            Observed::Published { body, .. } => ("published", body).hash(&mut digest),
            Observed::Acknowledged { body, .. } => ("acknowledged", body).hash(&mut digest),
            _ => {}
        }
        self.footprint = (self.footprint.0 + 1, digest.finish());
    }

    /// I1: a history only grows, by one turn a commit, and never after its end. I3: everything counts once.
    fn history_grows(&mut self, world: &World, commit: &Commit) -> Result<(), String> {
        let instance = &commit.instance;
        let store = world.servers().store();
        let Some(record) = at_once(store.record(instance)) else {
            return Err(format!("I1: {instance} has a commit and no record"));
        };
        let turns = at_once(store.turns(instance, record.execution, 0, usize::MAX));
        let (known, was_over) = match self.histories.get(instance) {
            Some(history) if history.execution == record.execution => (&history.turns[..], history.is_over),
            _ => (&[][..], false),
        };
        if !turns.starts_with(known) || turns.len() as u64 != record.version {
            return Err(format!("I1: the history of {instance} has changed behind its end"));
        }
        let news = turns.get(known.len()..).unwrap_or_default().to_vec();
        if news.len() > 1 {
            return Err(format!("I1: {instance} got {} turns in one commit", news.len()));
        }
        if was_over && !news.is_empty() {
            return Err(format!("I1: {instance} got a turn after its end"));
        }
        self.turns += news.len() as u64;
        for turn in &news {
            let turn = Turn::decode(turn).map_err(|problem| format!("I1: {instance}: {problem}"))?;
            self.counts_once(instance, &record, &turn)?;
            self.is_in_time(world, instance, &record, &turn)?;
            self.is_as_planned(instance, &turns, turn.events.last())?;
            if let Some(HistoryEvent::ExecutionTerminated { children, .. }) = turn.events.last() {
                let children = children.iter().map(|child| child.instance.clone()).collect();
                self.to_end.insert(instance.clone(), (record.execution, children));
            }
            let is_last = |event: &HistoryEvent| matches!(event, HistoryEvent::ContinuedAsNew { .. });
            // The code of what was held up may not fit.
            let is_replayed = instance.id.as_str() != HELD_UP;
            if !is_replayed {
                continue;
            }
            if record.status.is_terminal() || turn.events.iter().any(is_last) {
                replays(instance, &record, &turns)?;
            }
        }
        self.histories.insert(
            instance.clone(),
            History {
                execution: record.execution,
                turns,
                is_over: record.status.is_terminal(),
            },
        );
        Ok(())
    }

    /// An instance that is over has come to what the model says, children that nobody waits for included.
    fn is_as_planned(
        &self,
        instance: &InstanceRef,
        turns: &[Bytes],
        last: Option<&HistoryEvent>,
    ) -> Result<(), String> {
        let ended = match last {
            Some(HistoryEvent::ExecutionCompleted { output }) => Ended::Completed(decoded(instance, output)?),
            // Its start was refused before its app had a worker.
            Some(HistoryEvent::ExecutionFailed { failure })
                if failure.is("AppNotFound") && turns.len() == 1 && !self.is_calm =>
            {
                return Ok(());
            }
            Some(HistoryEvent::ExecutionFailed { failure }) => Ended::Failed(failure.kind.clone()),
            _ => return Ok(()),
        };
        let turns = turns.iter().filter_map(|turn| Turn::decode(turn).ok());
        // Before it there may be a suspend and a resume.
        let input = turns.flat_map(|turn| turn.events).find_map(|event| match event {
            HistoryEvent::ExecutionStarted { input, .. } => Some(input),
            _ => None,
        });
        let input = input.ok_or_else(|| format!("I1: {instance} is over and has never started"))?;
        let Round { plan, .. } = decoded(instance, &input)?;
        let given = Given {
            follows_run: true,
            follows_plan: true,
            ended: &self.ended_children,
            is_calm: self.is_calm,
        };
        model::check(&plan, &ended, given).map_err(|wrong| format!("{instance}: {wrong}"))
    }

    fn counts_once(&mut self, instance: &InstanceRef, record: &Record, turn: &Turn) -> Result<(), String> {
        for event in &turn.events {
            if let Some(sequence) = settles(event)
                && !self.settled.insert((record.execution, sequence))
            {
                return Err(format!("I3: call {sequence} of {instance} has ended twice"));
            }
            if let HistoryEvent::TaskScheduled { sequence, app, .. } = event {
                self.scheduled.insert((record.execution, *sequence), app.clone());
            }
            self.is_from_its_app(instance, record, event)?;
            if let HistoryEvent::EventRaised { message_id, .. } = event
                && !self.raised.insert((record.run, message_id.clone()))
            {
                return Err(format!("I3: event {message_id} was raised twice in {instance}"));
            }
        }
        Ok(())
    }

    /// No timer is early, whatever the clock of whoever set it.
    fn is_in_time(
        &mut self,
        world: &World,
        instance: &InstanceRef,
        record: &Record,
        turn: &Turn,
    ) -> Result<(), String> {
        let now = at_once(world.servers().store().now());
        for event in &turn.events {
            match event {
                HistoryEvent::TimerCreated { sequence, due, .. } => {
                    self.due.insert((record.execution, *sequence), *due);
                }
                HistoryEvent::TimerFired { sequence } => match self.due.get(&(record.execution, *sequence)) {
                    Some(due) if *due <= now => {}
                    due => {
                        return Err(format!(
                            "timer {sequence} of {instance} fired at {now}, and was due at {due:?}"
                        ));
                    }
                },
                _ => {}
            }
        }
        Ok(())
    }

    /// I5: a result is from the app that the task was sent to. What the caller's own app finds out is not a result.
    fn is_from_its_app(&self, instance: &InstanceRef, record: &Record, event: &HistoryEvent) -> Result<(), String> {
        const OWN: [&str; 4] = ["AppNotFound", "TimedOut", "TargetUnavailable", "HeartbeatMissed"];
        let sequence = match event {
            HistoryEvent::TaskCompleted { sequence, .. } => *sequence,
            HistoryEvent::TaskFailed { sequence, failure } if !OWN.contains(&failure.kind.as_str()) => *sequence,
            _ => return Ok(()),
        };
        let call = (record.execution, sequence);
        let has_answered = |app: &AppId| self.answered.get(&call).is_some_and(|apps| apps.contains(app));
        match self.scheduled.get(&call) {
            Some(app) if has_answered(app) => Ok(()),
            app => Err(format!(
                "I5: call {sequence} of {instance} was sent to {app:?}, and ended by another"
            )),
        }
    }

    /// The instance's record has changed. Until their effects are made, its turns stay (I2).
    fn note(&mut self, world: &World, instance: &InstanceRef) -> Result<(), String> {
        let record = at_once(world.servers().store().record(instance));
        if let Some(before) = self.unsettled.get(instance)
            && record.as_ref().is_none_or(|record| record.run != before.run)
            && before.marks.iter().any(|mark| matches!(mark, Mark::Turn(_)))
        {
            return Err(format!("I2: {instance} was deleted with marks {:?}", before.marks));
        }
        if record.as_ref().is_none_or(|record| record.marks.is_empty())
            && let Some((execution, children)) = self.to_end.remove(instance)
        {
            for child in children {
                self.is_reached(world, instance, execution, &child)?;
            }
        }
        match record {
            Some(record) if !record.status.is_terminal() || !record.marks.is_empty() => {
                self.unsettled.insert(instance.clone(), record);
            }
            _ => drop(self.unsettled.remove(instance)),
        }
        Ok(())
    }

    /// I2: the end of a parent has reached its child, however late that came to be.
    fn is_reached(
        &self,
        world: &World,
        parent: &InstanceRef,
        execution: ExecutionId,
        child: &InstanceRef,
    ) -> Result<(), String> {
        let store = world.servers().store();
        let is_its = |record: &Record| {
            let link = record.origin.parent.as_ref();
            link.is_some_and(|link| link.task.instance == *parent && link.task.execution == execution)
        };
        let record = at_once(store.record(child)).filter(is_its);
        let is_active = record.is_some_and(|record| !record.status.is_terminal());
        if !is_active || self.told_to_end.contains(child) {
            return Ok(());
        }
        let inbox = at_once(store.load(child, 0, usize::MAX)).map_or_else(Vec::new, |loaded| loaded.inbox);
        let is_kept = inbox
            .iter()
            .any(|kept| rmp_serde::from_slice(kept).is_ok_and(|item| is_terminate(&item)));
        // In the due-set, where it waits for a queue that takes nothing: of that we know no more than the name.
        let name = child.id.as_str().as_bytes();
        let parked = at_once(store.due_entries(&parent.app, DueKind::Parked, usize::MAX));
        let is_parked = parked
            .iter()
            .any(|entry| entry.payload.windows(name.len()).any(|part| part == name));
        if is_kept || is_parked {
            return Ok(());
        }
        Err(format!("I2: {parent} was terminated, and its child {child} goes on"))
    }

    /// I4: whoever is not over, or has something to be made yet, is looked at again.
    fn nothing_is_forgotten(&self, world: &World) -> Result<(), String> {
        for (instance, record) in &self.unsettled {
            if !at_once(world.has_check(instance, record)) {
                return Err(format!(
                    "I4: {instance} is {} with marks {:?}, and nothing looks at it again",
                    record.status, record.marks
                ));
            }
        }
        Ok(())
    }

    /// I2: what is acknowledged has had its effect.
    fn is_dealt_with(&self, world: &World, item: &Item) -> Result<(), String> {
        let store = world.servers().store();
        let live = |instance: &InstanceRef, execution: Option<ExecutionId>| {
            let record = at_once(store.record(instance))?;
            let is_meant = execution.is_none_or(|execution| execution == record.execution);
            (is_meant && !record.status.is_terminal()).then_some(record)
        };
        let is_kept = |instance: &InstanceRef| {
            let inbox = at_once(store.load(instance, 0, usize::MAX)).map_or_else(Vec::new, |loaded| loaded.inbox);
            inbox
                .iter()
                .any(|kept| rmp_serde::from_slice::<Item>(kept).is_ok_and(|kept| kept == *item))
        };
        let is_settled = |task: &TaskRef| self.settled.contains(&(task.execution, task.sequence));
        match item {
            Item::Completion(completion) => {
                let task = &completion.task;
                let sent_to = self.scheduled.get(&(task.execution, task.sequence));
                if sent_to.is_some_and(|app| *app != completion.from) {
                    // Nobody's result.
                    return Ok(());
                }
                // An app that is there after all is called again.
                let is_missing = matches!(&completion.outcome, Outcome::Failed(failure) if failure.is("AppNotFound"));
                if let Some(record) = live(&task.instance, Some(task.execution))
                    && !is_missing
                    && !is_settled(task)
                    && !is_kept(&task.instance)
                {
                    return Err(format!(
                        "I2: the result of call {} of {} was acknowledged and is lost: {completion:?}; {} at version {}",
                        task.sequence, task.instance, record.status, record.version
                    ));
                }
            }
            Item::Event(event) => {
                if let Some(record) = live(&event.instance, None)
                    // One that was sent to an earlier run may be dropped with it.
                    && self.sent_to.get(&event.message_id).is_some_and(|runs| runs.iter().all(|run| *run == Some(record.run)))
                    && !self.raised.contains(&(record.run, event.message_id.clone()))
                    && !is_kept(&event.instance)
                {
                    return Err(format!(
                        "I2: event {} for {} was acknowledged and is lost",
                        event.message_id, event.instance
                    ));
                }
            }
            Item::Start(start) => {
                // One that comes while its instance is suspended is of no use: whoever resumes it publishes another.
                let is_resumed = |record: &Record| {
                    let last_sent = self.starts.get(&start.execution);
                    record.version > 0 && (record.marks.contains(&Mark::Start) || last_sent == Some(&record.version))
                };
                if let Some(record) = live(&start.instance, Some(start.execution))
                    && record.status == Status::Pending
                    && !is_resumed(&record)
                {
                    return Err(format!(
                        "I2: the start of {} was acknowledged and it is pending",
                        start.instance
                    ));
                }
            }
            Item::Command(command) if is_terminate(item) => {
                let is_meant = |record: &Record| {
                    command.run.is_none_or(|run| run == record.run)
                        && command.parent.as_ref().is_none_or(|call| record.is_child_of(call))
                };
                if let Some(record) = live(&command.instance, None).filter(is_meant)
                    && !is_kept(&command.instance)
                {
                    return Err(format!(
                        "I2: a terminate for {} was acknowledged and is lost: it is {}",
                        command.instance, record.status
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

fn decoded<T: serde::de::DeserializeOwned>(instance: &InstanceRef, payload: &Payload) -> Result<T, String> {
    payload.decode().map_err(|failure| format!("{instance}: {failure}"))
}

/// A parent that was terminated, and has had every effect of that, starts no child any more.
fn is_wanted(world: &World, child: &InstanceRef, call: &TaskRef) -> Result<(), String> {
    match at_once(world.servers().store().record(&call.instance)) {
        Some(parent)
            if parent.execution == call.execution && parent.status == Status::Terminated && parent.marks.is_empty() =>
        {
            Err(format!(
                "{child} was created, and its parent {} is terminated",
                call.instance
            ))
        }
        _ => Ok(()),
    }
}

/// I8: a history that is complete gives the same decisions again.
fn replays(instance: &InstanceRef, record: &Record, turns: &[Bytes]) -> Result<(), String> {
    let mut execution = Execution::new(
        instance.clone(),
        record.execution,
        Arc::new(PlanCode),
        &Limits::default(),
    );
    for turn in turns {
        let turn = Turn::decode(turn).map_err(|problem| format!("I8: {instance}: {problem}"))?;
        execution
            .replay(&turn)
            .map_err(|stuck| format!("I8: {instance}: {stuck}"))?;
    }
    Ok(())
}

/// A child's ID can be taken only by a child of an earlier run, or attempt, of its parent.
fn is_of_the_same_parent(create: &Create, occupant: &Record) -> Result<(), String> {
    let parent = |origin: &Origin| origin.parent.as_ref().map(|link| link.task.clone());
    // Attempts differ behind the colon.
    let root = |task: &TaskRef| {
        task.instance
            .id
            .as_str()
            .split(':')
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    match (parent(&create.origin), parent(&occupant.origin)) {
        (Some(call), Some(its)) if root(&its) == root(&call) && its.execution != call.execution => Ok(()),
        (None, _) => Ok(()),
        _ if occupant.status.is_terminal() => Ok(()),
        (call, its) => Err(format!(
            "{} cannot be started by {call:?}, as it is there and belongs to {its:?}",
            create.instance
        )),
    }
}

/// Now and then an app that was not asked answers a task, with all that the task says of itself, or says that the task's app is not there. That only
/// counts for a call with a policy, which the model knows.
fn forge(world: &World, task: &TaskItem, denies_apps: bool) {
    let forger = APPS.iter().find(|app| **app != task.app.as_str());
    let outcome = match task.scheduled_at.as_millis() % 15 {
        0 | 5 => Outcome::Completed(Payload::encode(&FORGED).expect("a number")),
        10 if denies_apps => Outcome::Failed(Failure::new("AppNotFound", "somebody says so")),
        _ => return,
    };
    let item = CompletionItem {
        task: task.caller.clone(),
        task_execution_id: Some(task.task_execution_id),
        from: AppId::new(forger.expect("there are several")).expect("an app of ours"),
        outcome,
        progressed: false,
        ran: None,
    };
    let queue = Queue::Events(task.caller.instance.app.clone(), task.reply_to);
    let body = Bundle::new(vec![Item::Completion(item)]).encode();
    at_once(
        world
            .servers()
            .broker()
            .publish(Message::bundle(queue, body, &MessageId::generate())),
    );
}

/// A result that no activity comes to.
const FORGED: u64 = u64::MAX;

fn items(body: &[u8]) -> Vec<Item> {
    Bundle::decode(body).map_or_else(|_| Vec::new(), |bundle| bundle.items)
}

fn digest(item: &Item) -> u64 {
    let mut digest = std::hash::DefaultHasher::new();
    rmp_serde::to_vec(item)
        .expect("an item can be written")
        .hash(&mut digest);
    digest.finish()
}

fn is_terminate(item: &Item) -> bool {
    matches!(item, Item::Command(command) if matches!(command.command, Command::Terminate { .. }))
}

fn settles(event: &HistoryEvent) -> Option<Sequence> {
    match event {
        HistoryEvent::TaskCompleted { sequence, .. }
        | HistoryEvent::TaskFailed { sequence, .. }
        | HistoryEvent::ChildCompleted { sequence, .. }
        | HistoryEvent::ChildFailed { sequence, .. }
        | HistoryEvent::TimerFired { sequence } => Some(*sequence),
        _ => None,
    }
}
