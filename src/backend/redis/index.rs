//! The index: a set of instances by creation for each group of statuses that people search for.
//!
//! The sets are hints, written after the record; so every instance that a page returns is read and checked.

use std::collections::BTreeSet;

use bytes::Bytes;
use deadpool_redis::redis::{cmd, pipe};
use futures_util::future::try_join_all;

use super::gather::Change;
use super::keys::{Keys, instance_id};
use super::link::Links;
use super::record;
use super::reply::Reply;
use super::script::{self, Call, Script};
use super::store::RedisStore;
use super::token::Position;
use crate::backend::{IndexFilter, IndexPage, Record, Result};
use crate::model::{AppId, InstanceId, InstanceRef, Status, Timestamp};

/// Members that a page examines at most: each costs a record's read.
const EXAMINED: usize = 1000;

/// How often records are asked for one round of notes.
const ASKED_AGAIN: usize = 3;

/// Instances that one script call notes at most: so that none holds up others for long.
const NOTED_AT_ONCE: usize = 200;

/// What was noted last of each instance that has been in another group than the first, and when: so that a late note of an earlier record does not
/// undo a newer one.
const NOTED: &str = "noted";

/// The sets. An instance is in one of them.
pub(super) const GROUPS: [&str; 6] = ["running", "suspended", "stalled", "completed", "failed", "terminated"];

/// Which of the sets has the instances of a status.
fn group(status: Status) -> usize {
    match status {
        Status::Pending | Status::Running => 0,
        Status::Suspended => 1,
        Status::Stalled => 2,
        Status::Completed => 3,
        Status::Failed => 4,
        Status::Terminated => 5,
    }
}

/// The sets that have the instances of these statuses; of all, if none is named.
fn groups_of(statuses: &[Status]) -> BTreeSet<usize> {
    if statuses.is_empty() {
        return (0..GROUPS.len()).collect();
    }
    let goes_on = |status: &Status| matches!(status, Status::Pending | Status::Running);
    let mut groups: BTreeSet<usize> = statuses.iter().map(|status| group(*status)).collect();
    if statuses.iter().any(goes_on) {
        // One that goes on after a stall is not noted, and after a suspension a moment later: it is where it was.
        groups.extend(
            Status::ALL
                .iter()
                .filter(|status| !status.is_terminal())
                .map(|status| group(*status)),
        );
    }
    groups
}

/// What is noted of an instance.
pub(super) struct Note {
    id: InstanceId,
    created_at: Timestamp,
    updated_at: Timestamp,
    status: Status,
    kind: Kind,
}

/// What is known of a note.
enum Kind {
    /// Its instance has only ever been in the first group.
    First,
    Later,
    /// It is what the record says since this score was found in the first group, of which it could not be told whose it is.
    Now(Bytes),
}

impl Note {
    fn of(id: InstanceId, record: &Record) -> Self {
        // Had it been suspended or stalled, that would have been a turn, and going on another.
        let is_first = group(record.status) == 0 && record.version <= 1 && record.view.generation == 0;
        Self {
            id,
            created_at: record.origin.created_at,
            updated_at: record.updated_at,
            status: record.status,
            kind: if is_first { Kind::First } else { Kind::Later },
        }
    }
}

/// A member of the index, as it was when it was read.
struct Entry {
    instance: InstanceRef,
    /// When the instance that it names was created, in milliseconds.
    created: u64,
}

/// A call of a script that takes all keys of an app's index.
fn on_all_sets(script: &'static Script, keys: &Keys, app: &AppId) -> Call {
    let names = [NOTED].into_iter().chain(GROUPS);
    let sets: Vec<String> = names.map(|name| keys.index(app, name)).collect();
    script.on(&sets.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Notes instances of one app, in any order.
pub(super) async fn note(links: &Links, keys: &Keys, app: &AppId, notes: &[Note]) -> Result<()> {
    let mut untold = send(links, keys, app, notes).await?;
    for _ in 0..ASKED_AGAIN {
        if untold.is_empty() {
            return Ok(());
        }
        // Their IDs were others' before, or are by now.
        let mut notes = Vec::with_capacity(untold.len());
        for (id, place) in untold {
            let instance = instance_id(&id).map(|id| InstanceRef::new(app.clone(), id));
            if let Some(instance) = instance
                && let Some(record) = small_record(links, keys, &instance).await?
            {
                notes.push(Note {
                    kind: Kind::Now(place),
                    ..Note::of(instance.id, &record)
                });
            }
        }
        untold = send(links, keys, app, &notes).await?;
    }
    for (id, _) in untold {
        let id = String::from_utf8_lossy(&id);
        tracing::debug!(%app, %id, "its ID is used anew faster than it can be noted in the index");
    }
    Ok(())
}

/// Sends notes. The IDs and scores of which nothing was noted, because that takes their records.
async fn send(links: &Links, keys: &Keys, app: &AppId, notes: &[Note]) -> Result<Vec<(Bytes, Bytes)>> {
    let calls = notes.chunks(NOTED_AT_ONCE).map(async |batch| {
        let call = batch.iter().fold(on_all_sets(&script::INDEX, keys, app), |call, note| {
            call.arg(note.id.as_str())
                .arg(note.created_at.as_millis())
                .arg(note.updated_at.as_millis())
                .arg(group(note.status) + 1)
                .arg(match &note.kind {
                    Kind::First => b"first",
                    Kind::Later => b"later",
                    Kind::Now(place) => &place[..],
                })
        });
        call.send(links).await?.pairs()
    });
    Ok(try_join_all(calls).await?.concat())
}

/// What there is to note of an instance. One that cannot be read is left out, with a warning: it must not keep others from being noted.
async fn small_record(links: &Links, keys: &Keys, instance: &InstanceRef) -> Result<Option<Record>> {
    let mut read = cmd("HMGET");
    read.arg(keys.instance(instance).meta()).arg(&record::SMALL_FIELDS);
    let fields = links.send("HMGET", &read).await;
    match fields.and_then(|fields| record::read_small(instance, Reply::new("HMGET", fields))) {
        Err(error) if error.is_permanent() => {
            tracing::warn!(%instance, %error, "not noted in the index");
            Ok(None)
        }
        record => record,
    }
}

impl RedisStore {
    pub(super) async fn note_instance(&self, instance: &InstanceRef, record: &Record) -> Result<()> {
        let note = Note::of(instance.id.clone(), record);
        self.gatherer
            .make(&instance.app, vec![Change::Note(note)])
            .await
            .map(drop)
    }

    pub(super) async fn forget_instance(&self, instance: &InstanceRef) -> Result<()> {
        let call = on_all_sets(&script::UNINDEX, &self.keys, &instance.app);
        call.arg(instance.id.as_str()).arg("").send(&self.links).await?;
        Ok(())
    }

    /// Removes entries whose instance has no record: a record is there before it is noted, so their notes came after the instance was deleted, from a
    /// process that died there or that the network had held up. An ID that is in use again is noted with another time of creation, and stays.
    async fn forget_gone(&self, app: &AppId, gone: &[Entry]) -> Result<()> {
        if gone.is_empty() {
            return Ok(());
        }
        let call = gone
            .iter()
            .fold(on_all_sets(&script::UNINDEX, &self.keys, app), |call, entry| {
                call.arg(entry.instance.id.as_str()).arg(entry.created)
            });
        call.send(&self.links).await?;
        Ok(())
    }

    pub(super) async fn list_instances(
        &self,
        filter: &IndexFilter,
        after: Option<&str>,
        most: usize,
    ) -> Result<IndexPage> {
        let mut last = after.map(Position::parse).transpose()?;
        if most == 0 {
            return Ok(IndexPage {
                instances: Vec::new(),
                next: after.map(str::to_owned),
            });
        }
        let most = most.min(EXAMINED);
        let pages = self.pages(filter, last.as_ref(), most).await?;
        // A set that gave all that was asked for may have more, and so may what does not fit below.
        let mut has_more = pages.iter().any(|page| page.len() == most);
        let members: BTreeSet<Position> = pages.into_iter().flatten().collect();
        has_more |= members.len() > most;

        let before = filter.created_before.map_or(u64::MAX, |before| before.as_millis());
        let mut found = Vec::new();
        for position in members.into_iter().take(most) {
            if position.created >= before {
                has_more = false;
                break;
            }
            if let Some(id) = instance_id(&position.id) {
                found.push(Entry {
                    instance: InstanceRef::new(filter.app.clone(), id),
                    created: position.created,
                });
            }
            last = Some(position);
        }
        Ok(IndexPage {
            instances: self.check(filter, found).await?,
            next: last.filter(|_| has_more).map(|last| last.token()),
        })
    }

    /// Of each set that may have what is asked for, as many members as are asked for.
    async fn pages(&self, filter: &IndexFilter, after: Option<&Position>, most: usize) -> Result<Vec<Vec<Position>>> {
        let from = filter.created_from.map_or(0, |from| from.as_millis());
        let sets: Vec<String> = groups_of(&filter.statuses)
            .into_iter()
            .map(|group| self.keys.index(&filter.app, GROUPS[group]))
            .collect();
        let call = script::PAGE
            .on(&sets.iter().map(String::as_str).collect::<Vec<_>>())
            .arg(from)
            .arg(after.map(|after| after.created.to_string()).unwrap_or_default())
            .arg(after.map_or(&[][..], |after| &after.id))
            .arg(most);
        let pages = call.send(&self.links).await?.items()?.into_iter();
        pages.map(page).collect()
    }

    /// Reads the records, and leaves out what does not match. What is gone is left out as well, and forgotten. One that cannot be read is left out too,
    /// with a warning: it must not hide the others.
    async fn check(&self, filter: &IndexFilter, found: Vec<Entry>) -> Result<Vec<(InstanceRef, Record)>> {
        if found.is_empty() {
            return Ok(Vec::new());
        }
        let mut reads = pipe();
        for entry in &found {
            reads
                .cmd("HMGET")
                .arg(self.keys.instance(&entry.instance).meta())
                .arg(&record::FIELDS);
        }
        let replies = self.links.send_all("`list`", &reads).await?;
        let (mut matching, mut gone) = (Vec::with_capacity(found.len()), Vec::new());
        for (entry, reply) in found.into_iter().zip(replies) {
            let instance = &entry.instance;
            match record::read(instance, Reply::new("HMGET", reply)) {
                Ok(Some(record)) if matches(filter, &record) => matching.push((entry.instance, record)),
                Ok(Some(_)) => {}
                Ok(None) => gone.push(entry),
                Err(error) => tracing::warn!(%instance, %error, "left out of a list"),
            }
        }
        if let Err(error) = self.forget_gone(&filter.app, &gone).await {
            tracing::warn!(app = %filter.app, %error, "entries of the index whose instances are gone stay until the next list");
        }
        Ok(matching)
    }
}

/// Members and their scores.
fn page(reply: Reply) -> Result<Vec<Position>> {
    let mut items = reply.items()?.into_iter();
    let mut page = Vec::with_capacity(items.len() / 2);
    while let (Some(id), Some(created)) = (items.next(), items.next()) {
        page.push(Position {
            created: created.number()? as u64,
            id: id.bytes()?.into(),
        });
    }
    Ok(page)
}

fn matches(filter: &IndexFilter, record: &Record) -> bool {
    let created = record.origin.created_at;
    (filter.statuses.is_empty() || filter.statuses.contains(&record.status))
        && filter.created_from.is_none_or(|from| created >= from)
        && filter.created_before.is_none_or(|before| created < before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_is_looked_for_where_it_is_noted() {
        let all = groups_of(&[]);
        for status in Status::ALL {
            assert!(
                groups_of(&[Status::Failed, status]).contains(&group(status)),
                "{status}"
            );
            assert!(all.contains(&group(status)), "{status}");
        }
        assert_eq!(all.len(), GROUPS.len());
        // Not the many that are over.
        assert_eq!(groups_of(&[Status::Stalled, Status::Pending]).len(), 3);
        assert_eq!(groups_of(&[Status::Stalled]).len(), 1);
    }
}
