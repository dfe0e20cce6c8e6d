//! All records and all of the index, page by page: for audits.

use super::super::key::{Key, Table};
use super::super::kv::Snapshot;
use super::records;
use super::stored::StoredRecord;
use crate::backend::{Error, Record, Result, Survey};
use crate::model::{AppId, InstanceId, InstanceRef, Namespace};

/// The first letter of a token: which table it stands in.
const RECORDS: &str = "r";
const INDEX: &str = "x";

/// See [`Store::survey`](crate::backend::Store::survey): first the records, then the index.
pub(super) fn page(from: &dyn Snapshot, namespace: &Namespace, after: Option<&str>, most: usize) -> Result<Survey> {
    let (table, last) = match after {
        None => (RECORDS, None),
        Some(token) => {
            let (table, last) = token.split_at_checked(1).ok_or_else(|| strange(token))?;
            (table, Some(last).filter(|last| !last.is_empty()))
        }
    };
    let prefix = match table {
        RECORDS => Key::new(Table::Record, namespace),
        INDEX => Key::new(Table::IndexPlace, namespace),
        _ => return Err(strange(table)),
    };
    let begin = prefix.len();
    let found = from.scan(&prefix.range_from(&self::after(last)?), most.max(1))?;
    let mut page = Survey {
        next: (table == RECORDS).then(|| INDEX.to_owned()),
        ..Survey::default()
    };
    if found.len() == most.max(1) {
        page.next = found.last().map(|(key, _)| format!("{table}{}", token(&key[begin..])));
    }
    for (key, value) in found {
        let Some(instance) = instance_of(&key[begin..]) else {
            continue;
        };
        if table == INDEX {
            if !records::is_there(from, namespace, &instance)? {
                page.indexed.push(instance);
            }
            continue;
        }
        match active(&value) {
            Ok(None) => {}
            Ok(Some(record)) => page.active.push((instance, record)),
            Err(error) => page.unreadable.push((instance, error.to_string())),
        }
    }
    Ok(page)
}

/// The record without what may be large; `None` if it is over and has no marks.
fn active(value: &[u8]) -> Result<Option<Record>> {
    let mut stored = StoredRecord::read(value)?;
    if stored.state.status.is_terminal() && stored.state.marks.is_empty() {
        return Ok(None);
    }
    stored.drop_input();
    stored.set_outcome(None);
    stored.record().map(Some)
}

/// App and instance ID, each with a zero byte behind it.
fn instance_of(remainder: &[u8]) -> Option<InstanceRef> {
    let text = std::str::from_utf8(remainder).ok()?;
    let (app, id) = text.strip_suffix('\0')?.split_once('\0')?;
    Some(InstanceRef::new(AppId::new(app).ok()?, InstanceId::new(id).ok()?))
}

/// A key's remainder as hexadecimal digits.
pub(super) fn token(remainder: &[u8]) -> String {
    remainder.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The smallest remainder after the token's own; the very first without one.
pub(super) fn after(token: Option<&str>) -> Result<Vec<u8>> {
    let Some(token) = token else { return Ok(Vec::new()) };
    let digits = token.as_bytes();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Option<Vec<u8>> = digits.chunks(2).map(byte).collect();
    let mut bytes = bytes
        .filter(|_| digits.len().is_multiple_of(2))
        .ok_or_else(|| strange(token))?;
    bytes.push(0);
    Ok(bytes)
}

fn strange(token: &str) -> Error {
    Error::permanent(format!(
        "{token:?} is not the token of a page: pass the `next` of the page before, unchanged"
    ))
}
