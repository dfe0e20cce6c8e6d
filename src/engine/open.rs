//! What an execution's history leaves open, read off its events alone; and whether anybody still waits for an item.

use std::collections::{BTreeMap, HashMap};

use super::Engine;
use super::effects::{Effect, answer, effects_of};
use crate::backend::{Error, Record, Result};
use crate::model::{AppId, InstanceRef, Sequence, Timestamp};
use crate::replay::history::{HistoryEvent, Turn};
use crate::wire::{Item, TaskRef};

/// Turns read at a time.
const PAGE: usize = 100;

/// What an execution waits for, as far as its history tells. (Events it does not: a wait for one is no event.)
#[derive(Clone, Debug, Default)]
pub(crate) struct Outline {
    /// Calls and timers that are scheduled and not over.
    pub(crate) open: BTreeMap<Sequence, Open>,
    /// The highest number of a call or timer that it has.
    last: Option<Sequence>,
    /// The last event is continue-as-new: the next execution has not begun.
    pub(crate) is_renewed: bool,
}

/// An open call or timer.
#[derive(Clone, Debug)]
pub(crate) struct Open {
    /// The turn that scheduled it.
    pub(crate) turn: u64,
    /// When.
    pub(crate) at: Timestamp,
    pub(crate) what: What,
    /// When its entry in the due-set was due at first, if it has one: a timer's, or that of a time limit.
    pub(crate) due: Option<Timestamp>,
}

/// Which sort of thing is open.
#[derive(Clone, Debug)]
pub(crate) enum What {
    Activity { app: AppId, name: String },
    Child { instance: InstanceRef },
    Timer,
}

impl Outline {
    /// True if the call or timer of this number was scheduled and is over. (One that the history has never had is neither: the store may have lost its
    /// last turns.)
    pub(crate) fn is_over(&self, sequence: Sequence) -> bool {
        Some(sequence) <= self.last && !self.open.contains_key(&sequence)
    }

    fn apply(&mut self, turn: &Turn) {
        for event in &turn.events {
            self.is_renewed = matches!(event, HistoryEvent::ContinuedAsNew { .. });
            let (sequence, what, due) = match event {
                HistoryEvent::TaskScheduled {
                    sequence,
                    app,
                    name,
                    limits,
                    ..
                } => {
                    let (app, name) = (app.clone(), name.clone());
                    let due = limits.first_check().map(|first| turn.at + first);
                    (*sequence, What::Activity { app, name }, due)
                }
                HistoryEvent::ChildScheduled {
                    sequence,
                    instance,
                    limits,
                    detached: false,
                    ..
                } => {
                    let due = limits.first_check().map(|first| turn.at + first);
                    let instance = instance.clone();
                    (*sequence, What::Child { instance }, due)
                }
                HistoryEvent::TimerCreated { sequence, due, .. } => (*sequence, What::Timer, Some(*due)),
                HistoryEvent::TimerCancelled { sequence } => {
                    match self.open.get_mut(sequence) {
                        // A call goes on without its time limit.
                        Some(open) if !matches!(open.what, What::Timer) => open.due = None,
                        _ => drop(self.open.remove(sequence)),
                    }
                    continue;
                }
                HistoryEvent::TaskCompleted { sequence, .. }
                | HistoryEvent::TaskFailed { sequence, .. }
                | HistoryEvent::ChildCompleted { sequence, .. }
                | HistoryEvent::ChildFailed { sequence, .. }
                | HistoryEvent::TimerFired { sequence } => {
                    self.open.remove(sequence);
                    continue;
                }
                _ => continue,
            };
            self.last = self.last.max(Some(sequence));
            let (turn, at) = (turn.version, turn.at);
            self.open.insert(sequence, Open { turn, at, what, due });
        }
    }
}

impl Engine {
    /// What the record's execution leaves open, as of the record's version; `None` if the instance is in another execution by now, or its history cannot
    /// be read as a whole.
    pub(crate) async fn outline(&self, instance: &InstanceRef, record: &Record) -> Result<Option<Outline>> {
        let mut outline = Outline::default();
        let mut after = 0;
        while after < record.version {
            let page = self
                .retrying("turns", || self.store().turns(instance, record.execution, after, PAGE))
                .await?;
            if page.is_empty() {
                return Ok(None);
            }
            for bytes in page.iter().take((record.version - after) as usize) {
                let Ok(turn) = Turn::decode(bytes) else { return Ok(None) };
                outline.apply(&turn);
            }
            after += page.len() as u64;
        }
        Ok(Some(outline))
    }

    /// The effects of one turn that are about a call or a timer, by its number.
    pub(crate) async fn effects_by_call(
        &self,
        instance: &InstanceRef,
        record: &Record,
        turn: u64,
    ) -> Result<HashMap<Sequence, Vec<Effect>>> {
        let page = self
            .retrying("turns", || self.store().turns(instance, record.execution, turn - 1, 1))
            .await?;
        let Some(bytes) = page.first() else {
            return Ok(HashMap::new());
        };
        let turn = Turn::decode(bytes).map_err(Error::permanent)?;
        let parent = record.origin.parent.as_ref();
        let timers = turn.events.iter().filter_map(|event| match event {
            HistoryEvent::TaskScheduled { sequence, .. }
            | HistoryEvent::ChildScheduled { sequence, .. }
            | HistoryEvent::TimerCreated { sequence, .. } => {
                let task = TaskRef {
                    instance: instance.clone(),
                    execution: record.execution,
                    sequence: *sequence,
                };
                Some((super::timer_key(&task), *sequence))
            }
            _ => None,
        });
        let timers: HashMap<_, _> = timers.collect();
        let mut effects: HashMap<Sequence, Vec<Effect>> = HashMap::new();
        for effect in effects_of(instance, record.execution, record.lane, parent, &turn) {
            let sequence = match &effect {
                Effect::Send(_, item) => match &**item {
                    Item::Task(task) => Some(task.caller.sequence),
                    _ => None,
                },
                Effect::Child(child) => child.parent.as_ref().map(|link| link.task.sequence),
                Effect::Schedule(entry) => timers.get(&entry.key).copied(),
                _ => None,
            };
            if let Some(sequence) = sequence {
                effects.entry(sequence).or_default().push(effect);
            }
        }
        Ok(effects)
    }

    /// Tells a child's end to the call that waits for it once more. False if there is nothing to tell: it is not over, or not that call's.
    pub(crate) async fn tell_again(&self, child: &InstanceRef, record: &Record) -> Result<bool> {
        let parent = record.origin.parent.as_ref();
        let Some(answer) = record
            .outcome
            .clone()
            .and_then(|outcome| answer(child, parent, outcome))
        else {
            return Ok(false);
        };
        self.make(child, record, vec![answer]).await?;
        Ok(true)
    }

    /// Why nobody waits for the item any more, for a person; `None` if somebody does, or may.
    pub(crate) async fn settled(&self, item: &Item) -> Result<Option<String>> {
        let (instance, record, sequence) = match self.waited_for(item).await? {
            Waited::For => return Ok(None),
            Waited::Not(reason) => return Ok(Some(reason)),
            Waited::NotShown(instance, record, sequence) => (instance, record, sequence),
        };
        // The record names only the first few calls; the history names them all.
        let outline = self.outline(&instance, &record).await?;
        let is_over = outline.is_some_and(|outline| outline.is_over(sequence));
        Ok(is_over.then(|| format!("call {sequence} of {instance} is over: its result is in the history")))
    }

    /// False if the instance's record alone tells that nobody waits for the item: no history is read. A task whose call is not shown as open would only run
    /// again; a result or a timer of such a call is let go on, as it may be ahead of a store that has lost its last commits.
    pub(crate) async fn may_be_wanted(&self, item: &Item) -> Result<bool> {
        Ok(match self.waited_for(item).await? {
            Waited::For => true,
            Waited::Not(_) => false,
            Waited::NotShown(_, record, _) => {
                let waiting = &record.view.waiting;
                !matches!(item, Item::Task(_)) || waiting.shown.len() < waiting.total
            }
        })
    }

    async fn waited_for(&self, item: &Item) -> Result<Waited> {
        let Some(instance) = item.instance() else {
            return Ok(Waited::Not("nobody waits for a probe".into()));
        };
        let Some(record) = self.retrying("record", || self.store().record(instance)).await? else {
            return Ok(match item {
                // It is kept for an instance that may come.
                Item::Event(_) => Waited::For,
                _ => Waited::Not(format!("there is no instance {instance} any more")),
            });
        };
        if record.status.is_terminal() {
            return Ok(Waited::Not(format!("instance {instance} is {}", record.status)));
        }
        let of_call = |task: &TaskRef| (task.execution, Some(task.sequence));
        let (execution, sequence) = match item {
            Item::Start(start) if start.execution == record.execution && record.lane.is_some() => {
                let reason = format!("instance {instance} has begun: it is {}", record.status);
                return Ok(Waited::Not(reason));
            }
            Item::Start(start) => (start.execution, None),
            Item::Task(task) => of_call(&task.caller),
            Item::Completion(completion) => of_call(&completion.task),
            Item::Timer(timer) => of_call(&timer.task),
            Item::Event(_) | Item::Command(_) | Item::Wake(_) | Item::Probe(_) => return Ok(Waited::For),
        };
        if execution != record.execution {
            return Ok(Waited::Not(format!(
                "instance {instance} is in another execution by now"
            )));
        }
        let is_shown = |sequence| {
            record
                .view
                .waiting
                .shown
                .iter()
                .any(|open| open.sequence() == Some(sequence))
        };
        Ok(match sequence.filter(|sequence| !is_shown(*sequence)) {
            Some(sequence) => Waited::NotShown(instance.clone(), Box::new(record), sequence),
            None => Waited::For,
        })
    }
}

/// Whether somebody waits for an item, as far as its instance's record tells.
enum Waited {
    For,
    /// Why not, for a person.
    Not(String),
    /// The record does not show its call as open.
    NotShown(InstanceRef, Box<Record>, Sequence),
}
