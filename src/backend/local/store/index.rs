//! The index of an app's instances, by time of creation, then ID.

use serde::{Deserialize, Serialize};

use super::super::key::{Key, Table, leading_number};
use super::super::kv::{Snapshot, Transaction, get_as};
use super::records;
use crate::backend::{Error, IndexFilter, IndexPage, Result};
use crate::model::{InstanceId, InstanceRef, Namespace, Timestamp};

/// Most entries that one page looks at, so that a filter that nothing matches holds nobody up.
const LOOKED_AT: usize = 1000;

/// Where an instance stands.
#[derive(Serialize, Deserialize)]
struct Place {
    created_at: Timestamp,
    /// The time of the record that says so.
    noted_at: Timestamp,
}

/// See [`Store::index`](crate::backend::Store::index). Only the time of creation is kept of the record, with the time by which one note is older
/// than another. An instance that is gone is not noted.
pub(super) fn put(
    to: &mut Transaction<'_>,
    namespace: &Namespace,
    instance: &InstanceRef,
    created_at: Timestamp,
    noted_at: Timestamp,
) -> Result<()> {
    if !records::is_there(to, namespace, instance)? {
        return Ok(());
    }
    match get_as::<Place>(to, &place_key(namespace, instance))? {
        Some(place) if place.created_at == created_at || place.noted_at > noted_at => return Ok(()),
        Some(place) => to.delete(entry_key(namespace, instance, place.created_at)),
        None => (),
    }
    to.put(entry_key(namespace, instance, created_at), Vec::new());
    to.put_as(place_key(namespace, instance), &Place { created_at, noted_at });
    Ok(())
}

/// See [`Store::unindex`](crate::backend::Store::unindex).
pub(super) fn remove(to: &mut Transaction<'_>, namespace: &Namespace, instance: &InstanceRef) -> Result<()> {
    if let Some(place) = get_as::<Place>(to, &place_key(namespace, instance))? {
        to.delete(entry_key(namespace, instance, place.created_at));
        to.delete(place_key(namespace, instance));
    }
    Ok(())
}

/// See [`Store::list`](crate::backend::Store::list). Statuses are read from the records themselves.
pub(super) fn list(
    from: &dyn Snapshot,
    namespace: &Namespace,
    filter: &IndexFilter,
    after: Option<&str>,
    most: usize,
) -> Result<IndexPage> {
    let prefix = Key::of_app(Table::Index, namespace, &filter.app);
    let begin = prefix.len();
    let first = match (after.map(Token::read).transpose()?, filter.created_from) {
        // The smallest key after the token's own.
        (Some(token), _) => [&token.key(), &[0][..]].concat(),
        (None, Some(from)) => from.as_millis().to_be_bytes().to_vec(),
        (None, None) => Vec::new(),
    };
    let mut range = prefix.clone().range_from(&first);
    if let Some(before) = filter.created_before {
        range = range.until(prefix.time(before).end());
    }
    let entries = from.scan(&range, LOOKED_AT)?;
    let mut page = IndexPage::default();
    let mut last = None;
    let ended = entries.len() < LOOKED_AT;
    for (key, _) in &entries {
        if page.instances.len() == most.max(1) {
            page.next = last;
            return Ok(page);
        }
        let token = Token::of_key(&key[begin..])?;
        let instance = InstanceRef::new(filter.app.clone(), token.id.clone());
        last = Some(token.to_string());
        if let Some(record) = records::read(from, namespace, &instance)?
            && (filter.statuses.is_empty() || filter.statuses.contains(&record.status))
        {
            page.instances.push((instance, record));
        }
    }
    page.next = if ended { None } else { last };
    Ok(page)
}

/// Where a page ended. As text: 16 hex digits of the time, then the ID.
struct Token {
    created_at: Timestamp,
    id: InstanceId,
}

impl Token {
    fn read(text: &str) -> Result<Self> {
        let parse = || {
            let (time, id) = text.split_at_checked(16)?;
            let created_at = Timestamp::from_millis(u64::from_str_radix(time, 16).ok()?);
            let id = InstanceId::new(id).ok()?;
            Some(Self { created_at, id })
        };
        // Numbers may be read from more than what is written: a sign, say.
        let parsed = parse().filter(|token| token.to_string() == text);
        parsed.ok_or_else(|| {
            Error::permanent(format!(
                "{:?} is not the token of a page: pass the `next` of the page before, unchanged",
                text.chars().take(80).collect::<String>()
            ))
        })
    }

    fn of_key(remainder: &[u8]) -> Result<Self> {
        let parse = || {
            let created_at = Timestamp::from_millis(leading_number(remainder)?);
            let id = std::str::from_utf8(&remainder[size_of::<u64>()..]).ok()?;
            let id = InstanceId::new(id).ok()?;
            Some(Self { created_at, id })
        };
        parse().ok_or_else(|| Error::permanent("an entry of the index cannot be read: the data is damaged"))
    }

    /// The remainder of the entry's key. The ID stands last.
    fn key(&self) -> Vec<u8> {
        let mut key = self.created_at.as_millis().to_be_bytes().to_vec();
        key.extend_from_slice(self.id.as_str().as_bytes());
        key
    }
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}{}", self.created_at.as_millis(), self.id)
    }
}

fn entry_key(namespace: &Namespace, instance: &InstanceRef, created_at: Timestamp) -> Vec<u8> {
    let token = Token {
        created_at,
        id: instance.id.clone(),
    };
    Key::of_app(Table::Index, namespace, &instance.app).rest(&token.key())
}

fn place_key(namespace: &Namespace, instance: &InstanceRef) -> Vec<u8> {
    Key::of_instance(Table::IndexPlace, namespace, instance).end()
}
