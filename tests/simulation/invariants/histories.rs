//! What has to hold of histories: I1, I3, I5 and I8, and that an instance comes to what the model says.

use std::sync::Arc;

use bytes::Bytes;
use leveret::backend::{Commit, Record};
use leveret::replay::Execution;
use leveret::replay::history::{HistoryEvent, Turn};
use leveret::testing::World;
use leveret::{AppId, InstanceRef, Limits, Payload, Sequence};

use super::{History, State, at_once};
use crate::clients::HELD_UP;
use crate::code::PlanCode;
use crate::model::{self, Ended, Given};
use crate::plan::Round;

impl State {
    /// I1: a history only grows, by one turn a commit, and never after its end. I3: everything counts once.
    pub(super) fn history_grows(&mut self, world: &World, commit: &Commit) -> Result<(), String> {
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
}

fn decoded<T: serde::de::DeserializeOwned>(instance: &InstanceRef, payload: &Payload) -> Result<T, String> {
    payload.decode().map_err(|failure| format!("{instance}: {failure}"))
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
