//! What histories have to say: everything once.

use std::collections::{BTreeMap, BTreeSet};

use leveret::client::Error;
use leveret::replay::history::{HistoryEvent, Turn};
use leveret::{Client, InstanceRef};

use crate::load::Ledger;

/// What the history of an instance shows.
pub(crate) struct Found {
    instance: InstanceRef,
    problems: Vec<String>,
    /// The calls whose result it holds.
    completed: Vec<String>,
    is_over: bool,
}

impl Found {
    /// True if the history has an end.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    pub(crate) fn report(self, ledger: &Ledger) {
        for problem in self.problems {
            ledger.note_wrong(format!("in the history of {}: {problem}", self.instance));
        }
        ledger.note_completed(self.completed);
    }
}

/// Looks at an instance that is over and at all children that it has called and waited for.
pub(crate) async fn tree(client: &Client, instance: InstanceRef) -> Result<Vec<Found>, Error> {
    let mut found = Vec::new();
    let root = instance.clone();
    let mut left = vec![instance];
    while let Some(instance) = left.pop() {
        let handle = client.handle(instance.clone());
        let history = match handle.history().await {
            Ok(history) => history,
            // A child that was never created because its parent ended first, or one that was purged by another.
            Err(Error::NotFound { .. }) if instance != root => continue,
            Err(error) => return Err(error),
        };
        left.extend(children(&history));
        found.push(look(instance, &history));
    }
    Ok(found)
}

fn children(history: &[Turn]) -> Vec<InstanceRef> {
    let events = history.iter().flat_map(|turn| &turn.events);
    let called = events.filter_map(|event| match event {
        HistoryEvent::ChildScheduled {
            instance,
            detached: false,
            ..
        } => Some(instance.clone()),
        _ => None,
    });
    called.collect()
}

/// Each completion, timer and event once, one beginning, one end, and nothing completed that was not scheduled.
pub(crate) fn look(instance: InstanceRef, history: &[Turn]) -> Found {
    let mut problems = Vec::new();
    let (mut settled, mut scheduled, mut raised) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let (mut started, mut ended) = (0, 0);
    let mut tasks = BTreeMap::new();
    let mut completed = Vec::new();
    for (number, turn) in history.iter().enumerate() {
        if turn.version != number as u64 + 1 {
            problems.push(format!("turn {} stands in place {}", turn.version, number + 1));
        }
    }
    for event in history.iter().flat_map(|turn| &turn.events) {
        let is_new = match event {
            HistoryEvent::TaskCompleted { sequence, .. } => {
                completed.extend(tasks.get(sequence).cloned());
                settled.insert(*sequence)
            }
            HistoryEvent::TaskFailed { sequence, .. }
            | HistoryEvent::ChildCompleted { sequence, .. }
            | HistoryEvent::ChildFailed { sequence, .. }
            | HistoryEvent::TimerFired { sequence } => settled.insert(*sequence),
            HistoryEvent::TaskScheduled {
                sequence,
                task_execution_id,
                ..
            } => {
                tasks.insert(*sequence, task_execution_id.to_string());
                scheduled.insert(*sequence)
            }
            HistoryEvent::ChildScheduled { sequence, .. } | HistoryEvent::TimerCreated { sequence, .. } => {
                scheduled.insert(*sequence)
            }
            HistoryEvent::EventRaised { message_id, .. } => raised.insert(message_id.clone()),
            HistoryEvent::ExecutionStarted { seen, .. } => {
                started += 1;
                raised.extend(seen.iter().map(|(id, _)| id.clone()));
                true
            }
            HistoryEvent::ExecutionCompleted { .. }
            | HistoryEvent::ExecutionFailed { .. }
            | HistoryEvent::ExecutionTerminated { .. } => {
                ended += 1;
                true
            }
            _ => true,
        };
        if !is_new {
            problems.push(format!("it is there twice: {event:?}"));
        }
    }
    // One that was ended before its first turn never began.
    let may_lack_beginning = history
        .iter()
        .flat_map(|turn| &turn.events)
        .any(|event| matches!(event, HistoryEvent::ExecutionTerminated { .. }));
    if started > 1 || (started == 0 && !may_lack_beginning) || ended != 1 {
        problems.push(format!("it begins {started} times and ends {ended} times"));
    }
    if let Some(unasked) = settled.difference(&scheduled).next() {
        problems.push(format!("a result of call {unasked}, which it does not have"));
    }
    Found {
        instance,
        problems,
        completed,
        is_over: ended > 0,
    }
}
