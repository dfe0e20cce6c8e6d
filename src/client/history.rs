//! Reading histories, page by page.

use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Serialize;

use super::{Client, Error, Instance};
use crate::backend::Record;
use crate::model::{ExecutionId, InstanceRef, Sequence, Status};
use crate::replay::history::{HistoryEvent, Turn};
use crate::wire::TaskRef;

/// Turns read at a time.
pub(super) const PAGE: usize = 200;
/// How often a read begins again because the instance has begun another execution meanwhile.
const ROUNDS: usize = 20;
/// Records of children read at a time.
const AT_A_TIME: usize = 16;

/// A child workflow that an instance has called.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChildInfo {
    /// The call's number in the parent's history.
    pub sequence: Sequence,
    /// The child.
    pub instance: InstanceRef,
    /// The workflow called.
    pub workflow: String,
    /// Which attempt of the call, from 1.
    pub attempt: u32,
    /// True if the parent does not wait for it, and does not take it along when it ends.
    pub detached: bool,
    /// Its status now; `None` if there is no such instance (it is yet to be created, or was purged), or if the ID belongs to another call's.
    pub status: Option<Status>,
}

/// A call to a child, as it stands in history.
pub(super) struct ChildCall {
    pub(super) task: TaskRef,
    pub(super) child: InstanceRef,
    workflow: String,
    attempt: u32,
    pub(super) is_detached: bool,
}

impl ChildCall {
    /// The calls of one turn.
    pub(super) fn of_turn(
        instance: &InstanceRef,
        execution: ExecutionId,
        turn: Turn,
    ) -> impl Iterator<Item = ChildCall> {
        let instance = instance.clone();
        turn.events.into_iter().filter_map(move |event| match event {
            HistoryEvent::ChildScheduled {
                sequence,
                instance: child,
                workflow,
                attempt,
                detached,
                ..
            } => Some(ChildCall {
                task: TaskRef {
                    instance: instance.clone(),
                    execution,
                    sequence,
                },
                child,
                workflow,
                attempt,
                is_detached: detached,
            }),
            _ => None,
        })
    }

    /// The child's record, if it is this call's child: the ID may have been taken by another instance.
    pub(super) async fn record(&self, client: &Client) -> Result<Option<Record>, Error> {
        let record = client.record(&self.child).await?;
        Ok(record.filter(|record| record.is_child_of(&self.task)))
    }
}

/// Decoded turns after version `after` of the execution; empty if the instance is in another one by now.
pub(super) async fn turns_after(
    client: &Client,
    instance: &InstanceRef,
    execution: ExecutionId,
    after: u64,
    count: usize,
) -> Result<Vec<Turn>, Error> {
    let turns = client
        .ask("turns", || client.store().turns(instance, execution, after, count))
        .await?;
    let decoded = turns.iter().zip(after + 1..).map(|(bytes, version)| {
        Turn::decode(bytes).map_err(|problem| Error::UnreadableHistory {
            instance: instance.clone(),
            version,
            problem,
        })
    });
    decoded.collect()
}

pub(super) async fn all(handle: &Instance) -> Result<Vec<Turn>, Error> {
    read(handle, |_, turn| [turn]).await
}

pub(super) async fn page(handle: &Instance, after: u64, count: usize) -> Result<Vec<Turn>, Error> {
    let record = handle.current().await?;
    turns_after(handle.client(), handle.instance(), record.execution, after, count).await
}

pub(super) async fn children(handle: &Instance) -> Result<Vec<ChildInfo>, Error> {
    let calls = read(handle, |execution, turn| {
        ChildCall::of_turn(handle.instance(), execution, turn)
    })
    .await?;
    stream::iter(calls)
        .map(|call| async move {
            let record = call.record(handle.client()).await?;
            Ok(ChildInfo {
                sequence: call.task.sequence,
                instance: call.child,
                workflow: call.workflow,
                attempt: call.attempt,
                detached: call.is_detached,
                status: record.map(|record| record.status),
            })
        })
        .buffered(AT_A_TIME)
        .try_collect()
        .await
}

/// Goes through all turns of one execution and keeps what is wanted of each.
async fn read<T, I: IntoIterator<Item = T>>(
    handle: &Instance,
    keep: impl Fn(ExecutionId, Turn) -> I,
) -> Result<Vec<T>, Error> {
    'execution: for _ in 0..ROUNDS {
        let record = handle.current().await?;
        let (mut kept, mut after) = (Vec::new(), 0);
        while after < record.version {
            let page = turns_after(handle.client(), handle.instance(), record.execution, after, PAGE).await?;
            if page.is_empty() {
                continue 'execution;
            }
            after += page.len() as u64;
            kept.extend(page.into_iter().flat_map(|turn| keep(record.execution, turn)));
        }
        return Ok(kept);
    }
    let message = format!(
        "instance {} began a new execution each of the {ROUNDS} times that its history was being read",
        handle.instance()
    );
    Err(crate::backend::Error::transient(message).into())
}
