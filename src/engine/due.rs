//! The due-set's entries: how each sort is named and what it holds.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::backend::{DueEntry, DueKey, DueKind, Queue, Record};
use crate::model::{AppId, ExecutionId, InstanceRef, MessageId, Sequence, Timestamp};
use crate::wire::{Item, StartItem, TaskItem, TaskRef};

/// Look at an instance. One for each start: a later run of the same instance has its own, so removing one never uncovers the other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct CheckEntry {
    pub(crate) instance: InstanceRef,
    pub(crate) request: MessageId,
    /// The parent's call, if it is a child.
    #[serde(default)]
    pub(crate) parent: Option<TaskRef>,
}

/// The entry that has the instance looked at, as it was asked for by this request.
pub(crate) fn check_entry(
    instance: &InstanceRef,
    request: &MessageId,
    parent: Option<&TaskRef>,
    due: Timestamp,
) -> DueEntry {
    DueEntry {
        key: check_key(instance, request),
        due,
        payload: encode(&CheckEntry {
            instance: instance.clone(),
            request: request.clone(),
            parent: parent.cloned(),
        }),
    }
}

/// The same of an instance that is there.
pub(crate) fn check_of(instance: &InstanceRef, record: &Record, due: Timestamp) -> DueEntry {
    let parent = record.origin.parent.as_ref().map(|parent| &parent.task);
    check_entry(instance, &record.origin.request, parent, due)
}

pub(crate) fn check_key(instance: &InstanceRef, request: &MessageId) -> DueKey {
    DueKey {
        kind: DueKind::Check,
        subject: joined(request.as_str(), instance.id.as_str()),
    }
}

/// A timer's or a deadline's payload is the [`TimerItem`](crate::wire::TimerItem) itself.
pub(crate) fn timer_key(execution: ExecutionId, sequence: Sequence) -> DueKey {
    let mut subject = Vec::with_capacity(24);
    subject.extend_from_slice(execution.as_uuid().as_bytes());
    subject.extend_from_slice(&sequence.to_be_bytes());
    DueKey {
        kind: DueKind::Timer,
        subject: subject.into(),
    }
}

/// A long activity whose message is acknowledged: the whole task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct LeaseEntry {
    pub(crate) task: TaskItem,
}

pub(crate) fn lease_key(item: &MessageId) -> DueKey {
    DueKey {
        kind: DueKind::Lease,
        subject: Bytes::copy_from_slice(item.as_str().as_bytes()),
    }
}

/// An item whose target app does not exist, or whose queue takes no messages.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ParkedEntry {
    pub(crate) item: Item,
    /// Where it goes: the app, and which of its queues.
    pub(crate) app: crate::model::AppId,
    /// The lane, if it goes to a lane.
    #[serde(default)]
    pub(crate) lane: Option<crate::model::Lane>,
    pub(crate) since: Timestamp,
}

impl ParkedEntry {
    /// The queue that it is for.
    pub(crate) fn queue(&self) -> Queue {
        match (&self.item, self.lane) {
            (_, Some(lane)) => Queue::Events(self.app.clone(), lane),
            (Item::Start(_), None) => Queue::Workflows(self.app.clone()),
            (_, None) => Queue::Activities(self.app.clone()),
        }
    }
}

/// The entry that has the item tried again, and the app whose due-set it belongs to: that of whoever waits for it, where it can be seen and whose
/// workers need it; `home`, if nobody does. Nothing for a queue that is no app's.
pub(crate) fn parked_entry(
    home: &AppId,
    queue: &Queue,
    item: Item,
    since: Timestamp,
    due: Timestamp,
) -> Option<(AppId, DueEntry)> {
    let app = queue.app()?.clone();
    let owner = match &item {
        Item::Task(task) => &task.caller.instance.app,
        Item::Completion(completion) => &completion.task.instance.app,
        Item::Start(StartItem {
            parent: Some(parent), ..
        }) => &parent.task.instance.app,
        _ => home,
    };
    let owner = owner.clone();
    let key = match &item {
        // Its sender chose the ID, and may have chosen it for other instances too.
        Item::Event(event) => DueKey {
            kind: DueKind::Parked,
            subject: joined(event.message_id.as_str(), &event.instance.to_string()),
        },
        // An auditor looks for what is lost by its identity.
        item => parked_key(
            &item
                .identity()
                .unwrap_or_else(|| uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, &encode(item)).into()),
        ),
    };
    let lane = match queue {
        Queue::Events(_, lane) => Some(*lane),
        _ => None,
    };
    let parked = ParkedEntry { item, app, lane, since };
    let payload = encode(&parked);
    Some((owner, DueEntry { key, due, payload }))
}

pub(crate) fn parked_key(id: &MessageId) -> DueKey {
    DueKey {
        kind: DueKind::Parked,
        subject: Bytes::copy_from_slice(id.as_str().as_bytes()),
    }
}

/// The subject holds the execution, so that a later run's retention is another entry; the payload is the [`InstanceRef`].
pub(crate) fn retention_key(execution: ExecutionId) -> DueKey {
    DueKey {
        kind: DueKind::Retention,
        subject: Bytes::copy_from_slice(execution.as_uuid().as_bytes()),
    }
}

/// The entry that has the execution deleted, if it is still the instance's.
pub(crate) fn retention_entry(instance: &InstanceRef, execution: ExecutionId, due: Timestamp) -> DueEntry {
    DueEntry {
        key: retention_key(execution),
        due,
        payload: encode(&RetentionEntry {
            instance: instance.clone(),
            execution,
        }),
    }
}

/// What a retention entry holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct RetentionEntry {
    pub(crate) instance: InstanceRef,
    pub(crate) execution: ExecutionId,
}

pub(crate) fn encode<T: Serialize>(value: &T) -> Bytes {
    rmp_serde::to_vec_named(value)
        .expect("an entry holds only values that MessagePack can write")
        .into()
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    rmp_serde::from_slice(bytes).map_err(|error| error.to_string())
}

/// A request ID has no control characters, so a zero byte after it keeps the two apart.
fn joined(first: &str, last: &str) -> Bytes {
    let mut subject = Vec::with_capacity(first.len() + 1 + last.len());
    subject.extend_from_slice(first.as_bytes());
    subject.push(0);
    subject.extend_from_slice(last.as_bytes());
    subject.into()
}
