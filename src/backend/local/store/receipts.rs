//! Receipts: what became of a request to create an instance, so that it counts once.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::key::{Key, Table};
use super::super::kv::{Snapshot, Transaction};
use super::expiry;
use crate::backend::Result;
use crate::model::{ExecutionId, InstanceRef, MessageId, Namespace, RunId, Timestamp};

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Receipt {
    /// It created this execution.
    Created {
        /// The execution.
        execution: ExecutionId,
        /// Its run.
        run: RunId,
    },
    /// It came too late: it must not create anything.
    Refused,
}

pub(super) fn read(
    from: &dyn Snapshot,
    namespace: &Namespace,
    instance: &InstanceRef,
    request: &MessageId,
    now: Timestamp,
) -> Result<Option<Receipt>> {
    expiry::get(from, &key(namespace, instance, request), now)
}

pub(super) fn put(
    to: &mut Transaction<'_>,
    namespace: &Namespace,
    instance: &InstanceRef,
    request: &MessageId,
    receipt: &Receipt,
    until: Option<Timestamp>,
) {
    expiry::put(to, namespace, key(namespace, instance, request), receipt, until);
}

/// See [`Store::refuse`](crate::backend::Store::refuse).
pub(super) fn refuse(
    to: &mut Transaction<'_>,
    namespace: &Namespace,
    instance: &InstanceRef,
    request: &MessageId,
    keep: Duration,
    now: Timestamp,
) -> Result<bool> {
    let key = key(namespace, instance, request);
    let found = expiry::get_with_time(to, &key, now)?;
    if let Some((Receipt::Created { .. }, _)) = found {
        return Ok(false);
    }
    let sooner = found.and_then(|(_, until)| until).unwrap_or_default();
    put(
        to,
        namespace,
        instance,
        request,
        &Receipt::Refused,
        Some(sooner.max(now + keep)),
    );
    Ok(true)
}

/// The record that the request created goes: from now on its receipt lapses.
pub(super) fn keep_for(
    to: &mut Transaction<'_>,
    namespace: &Namespace,
    instance: &InstanceRef,
    request: &MessageId,
    keep: Duration,
    now: Timestamp,
) -> Result<()> {
    if let Some(receipt) = read(to, namespace, instance, request, now)? {
        put(to, namespace, instance, request, &receipt, Some(now + keep));
    }
    Ok(())
}

fn key(namespace: &Namespace, instance: &InstanceRef, request: &MessageId) -> Vec<u8> {
    Key::of_instance(Table::Receipt, namespace, instance)
        .name(request.as_str())
        .end()
}
