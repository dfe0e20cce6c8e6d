//! What has to hold after every step: I1 to I5 and I7, looked at from the outside, in the servers' true state. Here is what is watched, and I4.

mod effects;
mod histories;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::FutureExt;
use leveret::backend::{Committed, Create, Created, Mark, Origin, Queue, Record};
use leveret::testing::{Observed, World};
use leveret::wire::{Bundle, Item, TaskRef};
use leveret::{AppId, ExecutionId, InstanceRef, MessageId, RunId, Sequence, Timestamp};

use crate::memory::Memory;
use crate::script::Script;
use effects::{forge, is_terminate, is_wanted};

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
                    if create.origin.parent.is_some() {
                        // Those of a finished child whose ID is used anew are nobody's.
                        self.parents.retain(|_, parent| *parent != create.instance);
                    }
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

fn items(body: &[u8]) -> Vec<Item> {
    Bundle::decode(body).map_or_else(|_| Vec::new(), |bundle| bundle.items)
}

fn digest(item: &Item) -> u64 {
    let mut digest = std::hash::DefaultHasher::new();
    rmp_serde::to_vec_named(item)
        .expect("an item can be written")
        .hash(&mut digest);
    digest.finish()
}
