//! What people see of an instance.

use std::collections::BTreeMap;
use std::ops::Deref;

use serde::Serialize;

use super::history::turns_after;
use super::waiting::waiting;
use super::{Client, Error, Instance, Waiting};
use crate::backend::{Record, Stall};
use crate::model::{ExecutionId, Failure, InstanceRef, Lane, Payload, RunId, Status, Timestamp};
use crate::replay::history::HistoryEvent;
use crate::wire::Outcome;

/// An instance as a list shows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct InstanceSummary {
    /// The app and the ID.
    pub instance: InstanceRef,
    /// The workflow's name.
    pub workflow: String,
    /// Where it is in its life.
    pub status: Status,
    /// Its run: from its start, across continue-as-new.
    pub run: RunId,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it is to start, if the start is delayed.
    pub start_at: Option<Timestamp>,
    /// When its first turn ran.
    pub started_at: Option<Timestamp>,
    /// When its state last changed.
    pub updated_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// What its code says about itself.
    pub custom_status: Option<Payload>,
    /// Who called it, if it is a child.
    pub parent: Option<InstanceRef>,
    /// Its labels.
    pub tags: BTreeMap<String, String>,
}

/// An instance as [`Instance::get`] shows it: all of the summary (which this derefs to, so that `info.status` works), and more.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct InstanceInfo {
    /// What a list shows too.
    #[serde(flatten)]
    pub summary: InstanceSummary,
    /// The input of its current execution. `None` if its history cannot be read.
    pub input: Option<Payload>,
    /// Its output, if it has completed.
    pub output: Option<Payload>,
    /// Why it failed or was terminated, if so.
    pub failure: Option<Failure>,
    /// What it waits for.
    pub waiting: Waiting,
    /// Why its code cannot go on, if it is stalled.
    pub stall: Option<Stall>,
    /// Its current execution.
    pub execution: ExecutionId,
    /// How many executions came before (continue-as-new).
    pub generation: u32,
    /// Turns in its history.
    pub turns: u64,
    /// Events in its history.
    pub history_events: u64,
    /// Bytes of its history.
    pub history_bytes: u64,
    /// The lane in which it is at home, from its first turn on.
    pub lane: Option<Lane>,
}

impl Deref for InstanceInfo {
    type Target = InstanceSummary;

    fn deref(&self) -> &InstanceSummary {
        &self.summary
    }
}

impl InstanceSummary {
    pub(super) fn of(instance: InstanceRef, record: &Record) -> Self {
        Self {
            instance,
            workflow: record.origin.workflow.clone(),
            status: record.status,
            run: record.run,
            created_at: record.origin.created_at,
            start_at: record.origin.start_at,
            started_at: record.view.started_at,
            updated_at: record.updated_at,
            ended_at: record.ended_at,
            custom_status: record.view.custom_status.clone(),
            parent: record.origin.parent.as_ref().map(|parent| parent.task.instance.clone()),
            tags: record.origin.tags.clone(),
        }
    }
}

/// See [`Instance::get`].
pub(super) async fn get(handle: &Instance) -> Result<InstanceInfo, Error> {
    let (client, instance) = (handle.client(), handle.instance());
    let mut record = handle.current().await?;
    let mut input = record.input.take();
    // Two more looks, in case it has begun another execution between the record and its first turn.
    for _ in 0..2 {
        if input.is_some() {
            break;
        }
        input = input_in_history(client, instance, &record).await?;
        if input.is_none() {
            record = handle.current().await?;
            input = record.input.take();
        }
    }
    let (output, failure) = match record.outcome.clone() {
        Some(Outcome::Completed(output)) => (Some(output), None),
        Some(Outcome::Failed(failure)) => (None, Some(failure)),
        None => (None, None),
    };
    Ok(InstanceInfo {
        summary: InstanceSummary::of(instance.clone(), &record),
        input,
        output,
        failure,
        waiting: waiting(client, instance, &record).await?,
        execution: record.execution,
        generation: record.view.generation,
        turns: record.version,
        history_events: record.view.history_events,
        history_bytes: record.view.history_bytes,
        lane: record.lane,
        stall: record.view.stall,
    })
}

/// The execution's input. It stands in its first turn, unless it was suspended or resumed before that: then soon after.
async fn input_in_history(client: &Client, instance: &InstanceRef, record: &Record) -> Result<Option<Payload>, Error> {
    const AT_A_TIME: usize = 4;
    let mut after = 0;
    while after < record.version {
        // A history that this release cannot read is no reason to show nothing else.
        let turns = match turns_after(client, instance, record.execution, after, AT_A_TIME).await {
            Ok(turns) if turns.is_empty() => return Ok(None),
            Ok(turns) => turns,
            Err(Error::UnreadableHistory { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        after += turns.len() as u64;
        let events = turns.into_iter().flat_map(|turn| turn.events);
        let input = events.into_iter().find_map(|event| match event {
            HistoryEvent::ExecutionStarted { input, .. } => Some(input),
            _ => None,
        });
        if input.is_some() {
            return Ok(input);
        }
    }
    Ok(None)
}
