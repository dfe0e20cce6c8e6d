//! The due-set of an app: entries by name, and in order of their time within each kind.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::super::key::{Key, Table, leading_number};
use super::super::kv::{Snapshot, Transaction, decode, get_as};
use super::survey;
use crate::backend::{DueEntry, DueKey, DueKind, DueOutcome, DuePage, Result, When};
use crate::model::{AppId, Namespace, Timestamp};

#[derive(Serialize, Deserialize)]
struct Entry {
    due: Timestamp,
    payload: Bytes,
}

/// See [`Store::schedule`](crate::backend::Store::schedule).
pub(super) fn schedule(
    to: &mut Transaction<'_>,
    namespace: &Namespace,
    app: &AppId,
    entries: &[DueEntry],
    when: When,
) -> Result<()> {
    for entry in entries {
        match (entry_of(to, namespace, app, &entry.key)?, when) {
            (Some(_), When::Absent) => (),
            (Some(there), When::Sooner) if there.due <= entry.due => (),
            (Some(there), When::Sooner) => {
                let payload = there.payload;
                move_to(
                    to,
                    namespace,
                    app,
                    &entry.key,
                    Some(there.due),
                    Some((entry.due, payload)),
                );
            }
            (there, _) => {
                let from = there.map(|there| there.due);
                let put = (entry.due, entry.payload.clone());
                move_to(to, namespace, app, &entry.key, from, Some(put));
            }
        }
    }
    Ok(())
}

/// See [`Store::unschedule`](crate::backend::Store::unschedule).
pub(super) fn unschedule(
    to: &mut Transaction<'_>,
    namespace: &Namespace,
    app: &AppId,
    keys: &[DueKey],
) -> Result<bool> {
    let mut were_there = true;
    for key in keys {
        match entry_of(to, namespace, app, key)? {
            Some(there) => move_to(to, namespace, app, key, Some(there.due), None),
            None => were_there = false,
        }
    }
    Ok(were_there)
}

/// True if an entry is due.
pub(super) fn is_due(from: &dyn Snapshot, namespace: &Namespace, app: &AppId, now: Timestamp) -> Result<bool> {
    Ok(!first_due(from, namespace, app, now, 1)?.is_empty())
}

/// See [`Store::claim_due`](crate::backend::Store::claim_due).
pub(super) fn claim(
    to: &mut Transaction<'_>,
    namespace: &Namespace,
    app: &AppId,
    most: usize,
    lease: Duration,
    now: Timestamp,
) -> Result<Vec<DueEntry>> {
    let mut claimed = first_due(to, namespace, app, now, most)?;
    for entry in &mut claimed {
        let was = std::mem::replace(&mut entry.due, now + lease);
        move_to(
            to,
            namespace,
            app,
            &entry.key,
            Some(was),
            Some((entry.due, entry.payload.clone())),
        );
    }
    Ok(claimed)
}

/// See [`Store::settle_due`](crate::backend::Store::settle_due).
pub(super) fn settle(
    to: &mut Transaction<'_>,
    namespace: &Namespace,
    app: &AppId,
    entries: &[(DueEntry, DueOutcome)],
) -> Result<()> {
    for (claimed, outcome) in entries {
        match entry_of(to, namespace, app, &claimed.key)? {
            Some(there) if there.due == claimed.due => {
                let put = match outcome {
                    DueOutcome::Remove => None,
                    DueOutcome::Again(at) => Some((*at, there.payload)),
                };
                move_to(to, namespace, app, &claimed.key, Some(claimed.due), put);
            }
            _ => (),
        }
    }
    Ok(())
}

/// See [`Store::due_entry`](crate::backend::Store::due_entry).
pub(super) fn entry(from: &dyn Snapshot, namespace: &Namespace, app: &AppId, key: &DueKey) -> Result<Option<DueEntry>> {
    let found = entry_of(from, namespace, app, key)?;
    Ok(found.map(|Entry { due, payload }| DueEntry {
        key: key.clone(),
        due,
        payload,
    }))
}

/// See [`Store::due_entries`](crate::backend::Store::due_entries).
pub(super) fn entries(
    from: &dyn Snapshot,
    namespace: &Namespace,
    app: &AppId,
    kind: DueKind,
    most: usize,
) -> Result<Vec<DueEntry>> {
    in_order(from, namespace, app, kind, None, most)
}

/// See [`Store::due_page`](crate::backend::Store::due_page). A token is the last entry's key within the set, as hexadecimal digits.
pub(super) fn page(
    from: &dyn Snapshot,
    namespace: &Namespace,
    app: &AppId,
    after: Option<&str>,
    most: usize,
) -> Result<DuePage> {
    let prefix = Key::of_app(Table::Due, namespace, app);
    let begin = prefix.len();
    let found = from.scan(&prefix.range_from(&survey::after(after)?), most.max(1))?;
    let mut page = DuePage::default();
    if found.len() == most.max(1) {
        page.next = found.last().map(|(key, _)| survey::token(&key[begin..]));
    }
    for (key, value) in found {
        let kind = DueKind::from_letter(char::from(key[begin]));
        if let (Some(kind), Ok(Entry { due, payload })) = (kind, decode(&value)) {
            let subject = key.slice(begin + 1..);
            page.entries.push(DueEntry {
                key: DueKey { kind, subject },
                due,
                payload,
            });
        }
    }
    Ok(page)
}

/// The entries of all kinds that are due, the longest due first.
fn first_due(
    from: &dyn Snapshot,
    namespace: &Namespace,
    app: &AppId,
    now: Timestamp,
    most: usize,
) -> Result<Vec<DueEntry>> {
    let mut due = Vec::new();
    for kind in DueKind::ALL {
        due.extend(in_order(from, namespace, app, kind, Some(now), most)?);
    }
    due.sort_by_key(|entry| entry.due);
    due.truncate(most);
    Ok(due)
}

fn in_order(
    from: &dyn Snapshot,
    namespace: &Namespace,
    app: &AppId,
    kind: DueKind,
    until: Option<Timestamp>,
    most: usize,
) -> Result<Vec<DueEntry>> {
    let prefix = Key::of_app(Table::DueOrder, namespace, app).letter(kind.letter());
    let begin = prefix.len();
    let range = match until {
        Some(until) => {
            let end = prefix.clone().number(until.as_millis().saturating_add(1)).end();
            prefix.range().until(end)
        }
        None => prefix.range(),
    };
    let mut entries = Vec::new();
    for (order, _) in from.scan(&range, most)? {
        let subject = order.slice((begin + size_of::<u64>()).min(order.len())..);
        debug_assert!(
            leading_number(&order[begin..]).is_some(),
            "the order begins with a time"
        );
        entries.extend(entry(from, namespace, app, &DueKey { kind, subject })?);
    }
    Ok(entries)
}

/// Puts the entry at another time, takes it away, or adds it.
fn move_to(
    to: &mut Transaction<'_>,
    namespace: &Namespace,
    app: &AppId,
    key: &DueKey,
    was: Option<Timestamp>,
    put: Option<(Timestamp, Bytes)>,
) {
    if let Some(was) = was {
        to.delete(order_key(namespace, app, key, was));
    }
    let name = entry_key(namespace, app, key);
    match put {
        Some((due, payload)) => {
            to.put(order_key(namespace, app, key, due), Bytes::new());
            to.put_as(name, &Entry { due, payload });
        }
        None => to.delete(name),
    }
}

fn entry_of(from: &dyn Snapshot, namespace: &Namespace, app: &AppId, key: &DueKey) -> Result<Option<Entry>> {
    get_as(from, &entry_key(namespace, app, key))
}

fn entry_key(namespace: &Namespace, app: &AppId, key: &DueKey) -> Vec<u8> {
    Key::of_app(Table::Due, namespace, app)
        .letter(key.kind.letter())
        .rest(&key.subject)
}

fn order_key(namespace: &Namespace, app: &AppId, key: &DueKey, due: Timestamp) -> Vec<u8> {
    let prefix = Key::of_app(Table::DueOrder, namespace, app).letter(key.kind.letter());
    prefix.time(due).rest(&key.subject)
}
