//! What an execution's history leaves open, read off its events alone; and whether anybody still waits for an item.

use std::collections::BTreeSet;

use super::Engine;
use crate::backend::{Record, Result};
use crate::model::{InstanceRef, Sequence};
use crate::replay::history::{HistoryEvent, Turn};
use crate::wire::{Item, TaskRef};

/// Turns read at a time.
const PAGE: usize = 100;

/// Calls and timers that are scheduled and not over.
fn apply(open: &mut BTreeSet<Sequence>, turn: &Turn) {
    for event in &turn.events {
        match event {
            HistoryEvent::TaskScheduled { sequence, .. }
            | HistoryEvent::ChildScheduled { sequence, .. }
            | HistoryEvent::TimerCreated { sequence, .. } => {
                open.insert(*sequence);
            }
            HistoryEvent::TaskCompleted { sequence, .. }
            | HistoryEvent::TaskFailed { sequence, .. }
            | HistoryEvent::ChildCompleted { sequence, .. }
            | HistoryEvent::ChildFailed { sequence, .. }
            | HistoryEvent::TimerFired { sequence } => {
                open.remove(sequence);
            }
            _ => {}
        }
    }
}

impl Engine {
    /// What the record's execution leaves open, as of the record's version; `None` if the instance is in another execution by now, or its history cannot
    /// be read as a whole.
    async fn open_calls(&self, instance: &InstanceRef, record: &Record) -> Result<Option<BTreeSet<Sequence>>> {
        let mut open = BTreeSet::new();
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
                apply(&mut open, &turn);
            }
            after += page.len() as u64;
        }
        Ok(Some(open))
    }

    /// Why nobody waits for the item any more, for a person; `None` if somebody does, or may.
    pub(crate) async fn settled(&self, item: &Item) -> Result<Option<String>> {
        let Some(instance) = item.instance() else {
            return Ok(Some("nobody waits for a probe".into()));
        };
        let Some(record) = self.retrying("record", || self.store().record(instance)).await? else {
            // An event is kept for an instance that may come.
            return Ok((!matches!(item, Item::Event(_))).then(|| format!("there is no instance {instance} any more")));
        };
        if record.status.is_terminal() {
            return Ok(Some(format!("instance {instance} is {}", record.status)));
        }
        let of_call = |task: &TaskRef| (task.execution, task.sequence);
        let (execution, sequence) = match item {
            Item::Start(start) if start.execution == record.execution && record.lane.is_some() => {
                return Ok(Some(format!("instance {instance} has begun: it is {}", record.status)));
            }
            Item::Start(start) => (start.execution, None),
            Item::Task(task) => (task.caller.execution, Some(task.caller.sequence)),
            Item::Completion(completion) => {
                let (execution, sequence) = of_call(&completion.task);
                (execution, Some(sequence))
            }
            Item::Timer(timer) => {
                let (execution, sequence) = of_call(&timer.task);
                (execution, Some(sequence))
            }
            Item::Event(_) | Item::Command(_) | Item::Wake(_) | Item::Probe(_) => return Ok(None),
        };
        if execution != record.execution {
            return Ok(Some(format!("instance {instance} is in another execution by now")));
        }
        let Some(sequence) = sequence else { return Ok(None) };
        let open = self.open_calls(instance, &record).await?;
        let is_over = open.is_some_and(|open| !open.contains(&sequence));
        Ok(is_over.then(|| format!("call {sequence} of {instance} is over: its result is in the history")))
    }
}
