//! The due-set's entries: how each sort is named and what it holds.
//!
//! There may be millions, most of them of instances that wait: what can be read from an entry's name does not stand in its payload as well.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::backend::{DueEntry, DueKey, DueKind, Queue, Record};
use crate::model::{AppId, ExecutionId, InstanceRef, MessageId, Sequence, Timestamp};
use crate::wire::{Item, StartItem, TaskItem, TaskRef, TimerItem};

/// What an entry is about.
pub(crate) enum Due {
    Timer(TimerItem),
    Check(CheckEntry),
    Lease(Box<LeaseEntry>),
    Parked(Box<ParkedEntry>),
    Retention(RetentionEntry),
}

impl Due {
    /// Reads an entry of the app's due-set.
    ///
    /// # Errors
    /// What is wrong with it: it is damaged, or a later release's.
    pub(crate) fn read(app: &AppId, entry: &DueEntry) -> Result<Self, String> {
        let subject = &entry.key.subject[..];
        Ok(match entry.key.kind {
            DueKind::Timer => {
                let (execution, rest) = split_execution(subject)?;
                let (sequence, id) = rest.split_first_chunk().ok_or("its name has no sequence number")?;
                Self::Timer(TimerItem {
                    task: TaskRef {
                        instance: instance_of(app, id)?,
                        execution,
                        sequence: Sequence::from_be_bytes(*sequence),
                    },
                    deadline: match &entry.payload[..] {
                        b"" => false,
                        DEADLINE => true,
                        _ => return Err("it is neither a timer nor a time limit".into()),
                    },
                })
            }
            DueKind::Check => {
                let zero = subject.iter().position(|byte| *byte == 0);
                let (request, id) = subject.split_at(zero.ok_or("its name has no request ID")?);
                let request = std::str::from_utf8(request).map_err(|error| error.to_string())?;
                Self::Check(CheckEntry {
                    instance: instance_of(app, &id[1..])?,
                    request: MessageId::new(request).map_err(|error| error.to_string())?,
                    parent: match &entry.payload[..] {
                        b"" => None,
                        parent => Some(decode(parent)?),
                    },
                })
            }
            DueKind::Lease => Self::Lease(Box::new(decode(&entry.payload)?)),
            DueKind::Parked => Self::Parked(Box::new(decode(&entry.payload)?)),
            DueKind::Retention => {
                let (execution, id) = split_execution(subject)?;
                Self::Retention(RetentionEntry {
                    instance: instance_of(app, id)?,
                    execution,
                })
            }
        })
    }
}

fn split_execution(subject: &[u8]) -> Result<(ExecutionId, &[u8]), String> {
    let (execution, rest) = subject.split_first_chunk().ok_or("its name has no execution ID")?;
    Ok((Uuid::from_bytes(*execution).into(), rest))
}

fn instance_of(app: &AppId, id: &[u8]) -> Result<InstanceRef, String> {
    let id = std::str::from_utf8(id).map_err(|error| error.to_string())?;
    let id = id
        .parse()
        .map_err(|error| format!("its name has no instance ID: {error}"))?;
    Ok(InstanceRef::new(app.clone(), id))
}

/// Look at an instance. One for each start: a later run of the same instance has its own, so removing one never uncovers the other.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CheckEntry {
    pub(crate) instance: InstanceRef,
    pub(crate) request: MessageId,
    /// The parent's call, if it is a child.
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
        payload: parent.map(encode).unwrap_or_default(),
    }
}

/// The same of an instance that is there.
pub(crate) fn check_of(instance: &InstanceRef, record: &Record, due: Timestamp) -> DueEntry {
    let parent = record.origin.parent.as_ref().map(|parent| &parent.task);
    check_entry(instance, &record.origin.request, parent, due)
}

/// A request ID has no control characters, so a zero byte after it keeps the two apart.
pub(crate) fn check_key(instance: &InstanceRef, request: &MessageId) -> DueKey {
    DueKey {
        kind: DueKind::Check,
        subject: joined(&[request.as_str().as_bytes(), b"\0", instance.id.as_str().as_bytes()]),
    }
}

/// The payload of a call's time limit. A timer has none.
const DEADLINE: &[u8] = b"deadline";

/// The entry of a timer, or of the time limit of a call.
pub(crate) fn timer_entry(timer: &TimerItem, due: Timestamp) -> DueEntry {
    DueEntry {
        key: timer_key(&timer.task),
        due,
        payload: Bytes::from_static(if timer.deadline { DEADLINE } else { b"" }),
    }
}

pub(crate) fn timer_key(task: &TaskRef) -> DueKey {
    let execution = task.execution.as_uuid();
    DueKey {
        kind: DueKind::Timer,
        subject: joined(&[
            execution.as_bytes(),
            &task.sequence.to_be_bytes(),
            task.instance.id.as_str().as_bytes(),
        ]),
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
            subject: joined(&[
                event.message_id.as_str().as_bytes(),
                b"\0",
                event.instance.to_string().as_bytes(),
            ]),
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

/// A finished execution that is to be deleted, if it is still the instance's. A later run's retention is another entry.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RetentionEntry {
    pub(crate) instance: InstanceRef,
    pub(crate) execution: ExecutionId,
}

pub(crate) fn retention_entry(instance: &InstanceRef, execution: ExecutionId, due: Timestamp) -> DueEntry {
    DueEntry {
        key: retention_key(instance, execution),
        due,
        payload: Bytes::new(),
    }
}

pub(crate) fn retention_key(instance: &InstanceRef, execution: ExecutionId) -> DueKey {
    DueKey {
        kind: DueKind::Retention,
        subject: joined(&[execution.as_uuid().as_bytes(), instance.id.as_str().as_bytes()]),
    }
}

pub(crate) fn encode<T: Serialize>(value: &T) -> Bytes {
    rmp_serde::to_vec_named(value)
        .expect("an entry holds only values that MessagePack can write")
        .into()
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    rmp_serde::from_slice(bytes).map_err(|error| error.to_string())
}

fn joined(parts: &[&[u8]]) -> Bytes {
    parts.concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Timestamp = Timestamp::from_millis(7);

    fn app() -> AppId {
        "orders".parse().expect("valid")
    }

    fn task(id: &str) -> TaskRef {
        TaskRef {
            instance: InstanceRef::new(app(), id.parse().expect("valid")),
            execution: ExecutionId::generate(),
            sequence: 0x0100_0a00,
        }
    }

    #[test]
    fn entries_are_read_as_they_were_written() {
        for id in ["one", "a:b/c%{d} e", "ünïcödé", "0"] {
            let task = task(id);
            for deadline in [false, true] {
                let timer = TimerItem {
                    task: task.clone(),
                    deadline,
                };
                let entry = timer_entry(&timer, AT);
                assert_eq!(entry.key, timer_key(&task));
                let Ok(Due::Timer(read)) = Due::read(&app(), &entry) else {
                    panic!("{entry:?}")
                };
                assert_eq!(read, timer);
            }
            for parent in [None, Some(&task)] {
                let request = MessageId::new("request of 17").expect("valid");
                let entry = check_entry(&task.instance, &request, parent, AT);
                let Ok(Due::Check(read)) = Due::read(&app(), &entry) else {
                    panic!("{entry:?}")
                };
                let expected = CheckEntry {
                    instance: task.instance.clone(),
                    request,
                    parent: parent.cloned(),
                };
                assert_eq!(read, expected);
            }
            let entry = retention_entry(&task.instance, task.execution, AT);
            let Ok(Due::Retention(read)) = Due::read(&app(), &entry) else {
                panic!("{entry:?}")
            };
            assert_eq!((read.instance, read.execution), (task.instance, task.execution));
        }
    }

    #[test]
    fn an_entry_that_cannot_be_read_says_what_is_wrong() {
        let whole = [b'x'; 16 + 8];
        for (kind, subject, payload, wrong) in [
            (DueKind::Timer, &whole[..15], "", "no execution ID"),
            (DueKind::Timer, &whole[..20], "", "no sequence number"),
            (DueKind::Timer, &whole[..], "", "no instance ID"),
            (
                DueKind::Timer,
                b"executionexecutionnumberone",
                "?",
                "neither a timer nor a time limit",
            ),
            (DueKind::Check, b"no zero", "", "no request ID"),
            (DueKind::Check, b"request\0", "", "no instance ID"),
            (DueKind::Check, b"request\0one", "?", ""),
            (DueKind::Retention, &whole[..16], "", "no instance ID"),
            (DueKind::Retention, b"executionexecution\xff", "", "utf-8"),
            (DueKind::Lease, b"one", "", ""),
            (DueKind::Parked, b"one", "", ""),
        ] {
            let entry = DueEntry {
                key: DueKey {
                    kind,
                    subject: Bytes::copy_from_slice(subject),
                },
                due: AT,
                payload: payload.into(),
            };
            let Err(problem) = Due::read(&app(), &entry) else {
                panic!("{entry:?} is read")
            };
            assert!(problem.contains(wrong), "{entry:?}: {problem}");
        }
    }
}
