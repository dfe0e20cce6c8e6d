//! What is done about each finding. Everything here may be done any number of times, by two auditors at once, and beside the workers.

use super::look::{Missing, Suspect};
use super::report::Repair;
use crate::backend::{Created, DueEntry, Queue, Record, When};
use crate::client::{Client, Error};
use crate::engine::{CheckEntry, Effect, check_key, encode};
use crate::model::{InstanceRef, Sequence};
use crate::wire::{CompletionItem, Item, ParentLink, WakeItem};

/// Mends what is missing, if the instance is still in the execution in which it was.
pub(super) async fn mend(client: &Client, suspect: &Suspect) -> Result<Repair, Error> {
    let instance = &suspect.instance;
    let record = client.record(instance).await?;
    let Some(record) = record.filter(|record| record.execution == suspect.execution) else {
        return Ok(Repair::NotNeeded);
    };
    if let Missing::Check = suspect.what {
        return check(client, instance, &record).await;
    }
    if record.status.is_terminal() {
        return Ok(Repair::NotNeeded);
    }
    match &suspect.what {
        Missing::Check => Ok(Repair::NotNeeded),
        Missing::Start => {
            client.reach(client.engine().drive_start(instance, &record)).await?;
            Ok(Repair::Done)
        }
        Missing::NextExecution => {
            let wake = Item::Wake(WakeItem {
                instance: instance.clone(),
            });
            let lane = Queue::Events(instance.app.clone(), record.lane.unwrap_or_default());
            client.reach(client.engine().outbox.send(lane, wake)).await?;
            Ok(Repair::Done)
        }
        Missing::Timer { sequence, turn, .. } => {
            let entries = effects(client, instance, &record, *turn, *sequence).await?;
            let entries = entries.into_iter().filter_map(|effect| match effect {
                Effect::Schedule(entry) => Some(entry),
                _ => None,
            });
            schedule(client, instance, entries.collect()).await
        }
        Missing::Task { sequence, turn, .. } => {
            let mut effects = effects(client, instance, &record, *turn, *sequence).await?;
            // Its time limit has an entry of its own, which may have moved since.
            effects.retain(|effect| matches!(effect, Effect::Send(..)));
            make(client, instance, &record, effects).await
        }
        Missing::Answer { child, is_marked, .. } => {
            let Some(ended) = client.record(child).await? else {
                return Ok(Repair::NotNeeded);
            };
            if *is_marked {
                client.reach(client.engine().drive_marks(child, &ended)).await?;
                return Ok(Repair::Done);
            }
            match client.reach(client.engine().tell_again(child, &ended)).await? {
                true => Ok(Repair::Done),
                false => Ok(Repair::NotNeeded),
            }
        }
        Missing::Child { sequence, turn, child } => {
            let effects = effects(client, instance, &record, *turn, *sequence).await?;
            self::child(client, instance, &record, effects, child).await
        }
    }
}

async fn effects(
    client: &Client,
    instance: &InstanceRef,
    record: &Record,
    turn: u64,
    sequence: Sequence,
) -> Result<Vec<Effect>, Error> {
    client
        .reach(client.engine().effects_about(instance, record, turn, sequence))
        .await
}

async fn make(client: &Client, instance: &InstanceRef, record: &Record, effects: Vec<Effect>) -> Result<Repair, Error> {
    if effects.is_empty() {
        return Ok(Repair::NotNeeded);
    }
    client.reach(client.engine().make(instance, record, effects)).await?;
    Ok(Repair::Done)
}

async fn schedule(client: &Client, instance: &InstanceRef, entries: Vec<DueEntry>) -> Result<Repair, Error> {
    if entries.is_empty() {
        return Ok(Repair::NotNeeded);
    }
    let store = client.store();
    client
        .ask("schedule", || store.schedule(&instance.app, &entries, When::Sooner))
        .await?;
    Ok(Repair::Done)
}

async fn check(client: &Client, instance: &InstanceRef, record: &Record) -> Result<Repair, Error> {
    if record.status.is_terminal() && record.marks.is_empty() {
        return Ok(Repair::NotNeeded);
    }
    let request = record.origin.request.clone();
    let now = client.ask("time", || client.store().now()).await?;
    let entry = DueEntry {
        key: check_key(instance, &request),
        // A start that is delayed is published by its check.
        due: record.origin.start_at.filter(|at| *at > now).unwrap_or(now),
        payload: encode(&CheckEntry {
            instance: instance.clone(),
            request,
            parent: record.origin.parent.as_ref().map(|parent| parent.task.clone()),
        }),
    };
    // If it is over by the time that the entry is there, the entry removes itself.
    schedule(client, instance, vec![entry]).await
}

/// A child that is not there: it is made, as its parent's worker would make it. If it was there once, what is kept of its outcome is told.
async fn child(
    client: &Client,
    instance: &InstanceRef,
    record: &Record,
    effects: Vec<Effect>,
    child: &InstanceRef,
) -> Result<Repair, Error> {
    let Some(new) = effects.iter().find_map(|effect| match effect {
        Effect::Child(new) => Some((**new).clone()),
        _ => None,
    }) else {
        return Ok(Repair::NotNeeded);
    };
    // This makes it too, and says what its parent's worker would not be told.
    let run = match client.reach(client.engine().begin(&new)).await? {
        Created::Created => return Ok(Repair::Done),
        Created::Repeated { run, .. } => run,
        Created::Exists(_) => {
            let made = effects.into_iter().filter(|effect| matches!(effect, Effect::Child(_)));
            return make(client, instance, record, made.collect()).await;
        }
        Created::Refused => {
            return Ok(Repair::Impossible(
                "the child was refused before it came to be; terminate the instance".into(),
            ));
        }
    };
    if client.record(child).await?.is_some() {
        return Ok(Repair::NotNeeded);
    }
    let store = client.store();
    let outcome = client.ask("past outcome", || store.past_outcome(child, run)).await?;
    let (Some(outcome), Some(ParentLink { task, lane, .. })) = (outcome, new.parent) else {
        return Ok(Repair::Impossible(format!(
            "child {child} has run, was purged, and its outcome is kept no longer; terminate the instance"
        )));
    };
    let answer = CompletionItem {
        task,
        task_execution_id: None,
        from: child.app.clone(),
        outcome,
        progressed: false,
    };
    let lane = Queue::Events(instance.app.clone(), record.lane.unwrap_or(lane));
    client
        .reach(client.engine().outbox.send(lane, Item::Completion(answer)))
        .await?;
    Ok(Repair::Done)
}
