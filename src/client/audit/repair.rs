//! What is done about each finding. Everything here may be done any number of times, by two auditors at once, and beside the workers.

use std::collections::HashMap;

use super::report::Repair;
use super::suspect::{Missing, Suspect};
use crate::backend::{Created, DueEntry, Queue, Record, When};
use crate::client::{Client, Error};
use crate::engine::{Effect, LeaseEntry, NewInstance, answer, check_of, encode, lease_key};
use crate::model::{AppId, ExecutionId, InstanceRef, Sequence, Timestamp};
use crate::wire::{Item, TaskItem, WakeItem};

/// Repairs one thing after the other.
pub(super) struct Mender {
    client: Client,
    /// What the turn has to make that was asked for last: a turn may have scheduled thousands of calls that are lost.
    last: Option<(TurnOf, HashMap<Sequence, Vec<Effect>>)>,
}

/// A turn; its effects go to the lane as well, which may move.
type TurnOf = (InstanceRef, ExecutionId, u64, Option<crate::model::Lane>);

impl Mender {
    pub(super) fn new(client: Client) -> Self {
        Self { client, last: None }
    }

    /// Mends what is missing, if the instance is still in the execution in which it was.
    pub(super) async fn mend(&mut self, suspect: &Suspect) -> Result<Repair, Error> {
        let client = self.client.clone();
        let (client, instance) = (&client, &suspect.instance);
        let record = client.record(instance).await?;
        let Some(record) = record.filter(|record| record.execution == suspect.execution) else {
            return Ok(Repair::NotNeeded);
        };
        if record.status.is_terminal() && suspect.what != Missing::Check {
            return Ok(Repair::NotNeeded);
        }
        match &suspect.what {
            Missing::Check => check(client, instance, &record).await,
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
                let effects = self.effects(instance, &record, *turn, *sequence).await?;
                let entries = effects.into_iter().filter_map(|effect| match effect {
                    Effect::Schedule(entry) => Some(entry),
                    _ => None,
                });
                schedule(client, &instance.app, entries.collect(), When::Sooner).await
            }
            Missing::Task { sequence, turn, .. } => {
                // Its time limit has an entry of its own, which may have moved since.
                let effects = self.effects(instance, &record, *turn, *sequence).await?;
                let tasks = effects.into_iter().filter_map(|effect| match effect {
                    Effect::Send(_, item) => match *item {
                        Item::Task(task) => Some(task),
                        _ => None,
                    },
                    _ => None,
                });
                match tasks.into_iter().next() {
                    Some(task) => self::task(client, task).await,
                    None => Ok(Repair::NotNeeded),
                }
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
            Missing::Child { sequence, turn, at, .. } => {
                let effects = self.effects(instance, &record, *turn, *sequence).await?;
                let children = effects.into_iter().filter_map(|effect| match effect {
                    Effect::Child(child) => Some(*child),
                    _ => None,
                });
                match children.into_iter().next() {
                    Some(new) => child(client, &record, new, *at).await,
                    None => Ok(Repair::NotNeeded),
                }
            }
        }
    }

    async fn effects(
        &mut self,
        instance: &InstanceRef,
        record: &Record,
        turn: u64,
        sequence: Sequence,
    ) -> Result<Vec<Effect>, Error> {
        let of = (instance.clone(), record.execution, turn, record.lane);
        if self.last.as_ref().is_none_or(|(last, _)| *last != of) {
            let engine = self.client.engine();
            let effects = self
                .client
                .reach(engine.effects_by_call(instance, record, turn))
                .await?;
            self.last = Some((of, effects));
        }
        let effects = self.last.as_ref().and_then(|(_, effects)| effects.get(&sequence));
        Ok(effects.cloned().unwrap_or_default())
    }
}

async fn schedule(client: &Client, app: &AppId, entries: Vec<DueEntry>, when: When) -> Result<Repair, Error> {
    if entries.is_empty() {
        return Ok(Repair::NotNeeded);
    }
    let store = client.store();
    client.ask("schedule", || store.schedule(app, &entries, when)).await?;
    Ok(Repair::Done)
}

async fn check(client: &Client, instance: &InstanceRef, record: &Record) -> Result<Repair, Error> {
    if record.status.is_terminal() && record.marks.is_empty() {
        return Ok(Repair::NotNeeded);
    }
    let now = client.ask("time", || client.store().now()).await?;
    // A start that is delayed is published by its check.
    let due = record.origin.start_at.filter(|at| *at > now).unwrap_or(now);
    // If it is over by the time that the entry is there, the entry removes itself.
    let entry = check_of(instance, record, due);
    schedule(client, &instance.app, vec![entry], When::Sooner).await
}

/// Not as a message: two auditors would send two, and both would run at once. A lease that has lapsed is one, whoever writes it, and a worker that takes it
/// keeps it.
async fn task(client: &Client, task: TaskItem) -> Result<Repair, Error> {
    let (app, queue) = (task.app.clone(), Queue::Activities(task.app.clone()));
    let broker = client.engine().broker();
    if client.ask("depth", || broker.depth(&queue)).await?.is_none() {
        // An app that does not exist: its caller is told so, or waits for it, by one entry however often it is sent.
        client
            .reach(client.engine().outbox.send(queue, Item::Task(task)))
            .await?;
        return Ok(Repair::Done);
    }
    let entry = DueEntry {
        key: lease_key(&task.message_id()),
        due: client.ask("time", || client.store().now()).await?,
        payload: encode(&LeaseEntry { task }),
    };
    schedule(client, &app, vec![entry], When::Absent).await
}

/// A child that is not there. If it has run, what is kept of its outcome is told; if it certainly has not, it is made as its parent's worker would make it.
async fn child(client: &Client, parent: &Record, new: NewInstance, called_at: Timestamp) -> Result<Repair, Error> {
    let Some(link) = new.parent.clone() else {
        return Ok(Repair::NotNeeded);
    };
    let (engine, store, id) = (client.engine(), client.store(), &new.instance);
    let occupant = client.record(id).await?;
    if occupant
        .as_ref()
        .is_some_and(|occupant| occupant.is_child_of(&link.task))
    {
        return Ok(Repair::NotNeeded);
    }
    let outcome = client.ask("past outcome", || store.past_outcome(id, new.run)).await?;
    if let Some(outcome) = outcome {
        let mut link = link;
        link.lane = parent.lane.unwrap_or(link.lane);
        return match answer(id, Some(&link), outcome) {
            Some(Effect::Send(lane, answer)) => {
                client.reach(engine.outbox.send(lane, *answer)).await?;
                Ok(Repair::Done)
            }
            _ => Ok(Repair::NotNeeded),
        };
    }
    let gone = |how: &str| Ok(Repair::Impossible(format!("child {id} {how}; terminate the instance")));
    // What has run leaves a receipt for so long behind its end. Later nobody knows, unless its ID was another's all the time.
    let now = client.ask("time", || store.now()).await?;
    let is_known = now.since(called_at) < client.limits().dedup_window;
    let was_taken = occupant.is_some_and(|occupant| occupant.origin.created_at < called_at);
    if !is_known && !was_taken {
        return gone("is not there, and whether it has run is known no more");
    }
    match client.reach(engine.begin(&new)).await? {
        Created::Created(_) => Ok(Repair::Done),
        Created::Repeated { .. } => match client.record(id).await? {
            Some(record) if record.is_child_of(&link.task) => Ok(Repair::NotNeeded),
            _ => gone("has run, and its outcome is kept no longer"),
        },
        Created::Exists(_) => {
            client
                .reach(engine.make(&link.task.instance, parent, vec![Effect::Child(Box::new(new))]))
                .await?;
            Ok(Repair::Done)
        }
        Created::Refused => gone("was refused before it came to be"),
    }
}
