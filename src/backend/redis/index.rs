//! The index: instances by creation, and sets for the statuses that people search for.
//!
//! The sets are hints, written after the record; so every instance that a page returns is read and checked.

use std::collections::BTreeSet;

use deadpool_redis::redis::pipe;
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

/// Instances that one script call notes at most: so that none holds up others for long.
const NOTED_AT_ONCE: usize = 200;

/// All instances, by creation.
pub(super) const CREATED: &str = "created";

/// What was noted of each instance last, and when: so that a late note of an earlier record does not undo a newer one.
const NOTED: &str = "noted";

/// Whether a set holds the instances of a status.
type Holds = fn(Status) -> bool;

/// The sets beside `created`, and which statuses they hold. Completed instances are most of all, and `Running` ones most of the active: they have
/// none of their own.
const GROUPS: [(&str, Holds); 5] = [
    ("active", |status| !status.is_terminal()),
    ("suspended", |status| status == Status::Suspended),
    ("stalled", |status| status == Status::Stalled),
    ("failed", |status| status == Status::Failed),
    ("terminated", |status| status == Status::Terminated),
];

/// The fewest sets that hold every instance of these statuses.
fn sets_of(statuses: &[Status]) -> Vec<&'static str> {
    let group = |status: Status| match status {
        Status::Pending | Status::Running => Some("active"),
        Status::Suspended => Some("suspended"),
        Status::Stalled => Some("stalled"),
        Status::Failed => Some("failed"),
        Status::Terminated => Some("terminated"),
        Status::Completed => None,
    };
    let Some(mut sets) = statuses
        .iter()
        .map(|status| group(*status))
        .collect::<Option<BTreeSet<_>>>()
    else {
        return vec![CREATED];
    };
    if sets.contains("active") {
        sets.remove("suspended");
        sets.remove("stalled");
    }
    if sets.is_empty() {
        vec![CREATED]
    } else {
        sets.into_iter().collect()
    }
}

/// What is noted of an instance.
pub(super) struct Note {
    id: InstanceId,
    created_at: Timestamp,
    updated_at: Timestamp,
    status: Status,
}

/// A member of the index, as it was when it was read.
struct Entry {
    instance: InstanceRef,
    /// When the instance that it names was created, in milliseconds.
    created: u64,
}

/// A call of a script that takes all keys of an app's index.
fn on_all_sets(script: &'static Script, keys: &Keys, app: &AppId) -> Call {
    let names = [CREATED, NOTED].into_iter().chain(GROUPS.map(|(name, _)| name));
    let sets: Vec<String> = names.map(|name| keys.index(app, name)).collect();
    script.on(&sets.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Notes instances of one app, in any order.
pub(super) async fn note(links: &Links, keys: &Keys, app: &AppId, notes: &[Note]) -> Result<()> {
    let calls = notes.chunks(NOTED_AT_ONCE).map(|batch| {
        let call = batch.iter().fold(on_all_sets(&script::INDEX, keys, app), |call, note| {
            let in_groups = GROUPS.map(|(_, holds)| if holds(note.status) { "1" } else { "0" });
            call.arg(note.id.as_str())
                .arg(note.created_at.as_millis())
                .arg(note.updated_at.as_millis())
                .arg(in_groups.concat())
        });
        call.send(links)
    });
    try_join_all(calls).await.map(drop)
}

impl RedisStore {
    pub(super) async fn note_instance(&self, instance: &InstanceRef, record: &Record) -> Result<()> {
        let note = Note {
            id: instance.id.clone(),
            created_at: record.origin.created_at,
            updated_at: record.updated_at,
            status: record.status,
        };
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
        let sets = sets_of(&filter.statuses);
        let pages = sets
            .iter()
            .map(|set| self.page(&filter.app, set, filter, last.as_ref(), most));
        let pages = try_join_all(pages).await?;
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

    async fn page(
        &self,
        app: &AppId,
        set: &str,
        filter: &IndexFilter,
        after: Option<&Position>,
        most: usize,
    ) -> Result<Vec<Position>> {
        let from = filter.created_from.map_or(0, |from| from.as_millis());
        let call = script::PAGE
            .on(&[&self.keys.index(app, set)])
            .arg(from)
            .arg(after.map(|after| after.created.to_string()).unwrap_or_default())
            .arg(after.map_or(&[][..], |after| &after.id))
            .arg(most);
        let mut items = call.send(&self.links).await?.items()?.into_iter();
        let mut page = Vec::with_capacity(items.len() / 2);
        while let (Some(id), Some(created)) = (items.next(), items.next()) {
            page.push(Position {
                created: created.number()? as u64,
                id: id.bytes()?.into(),
            });
        }
        Ok(page)
    }

    /// Reads the records, and leaves out what does not match. What is gone is left out as well, and forgotten. One that cannot be read is left out too,
    /// with a warning: it must not hide the others.
    async fn check(&self, filter: &IndexFilter, found: Vec<Entry>) -> Result<Vec<(InstanceRef, Record)>> {
        if found.is_empty() {
            return Ok(Vec::new());
        }
        let mut reads = pipe();
        for entry in &found {
            reads.hgetall(self.keys.instance(&entry.instance).meta());
        }
        let replies = self.links.send_all("`list`", &reads).await?;
        let (mut matching, mut gone) = (Vec::with_capacity(found.len()), Vec::new());
        for (entry, reply) in found.into_iter().zip(replies) {
            let instance = &entry.instance;
            match record::read(instance, Reply::new("HGETALL", reply)) {
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
    fn the_sets_hold_every_status_that_is_asked_for() {
        assert_eq!(sets_of(&[]), [CREATED]);
        assert_eq!(sets_of(&[Status::Failed, Status::Completed]), [CREATED]);
        assert_eq!(sets_of(&[Status::Failed, Status::Terminated]), ["failed", "terminated"]);
        assert_eq!(sets_of(&[Status::Running, Status::Stalled]), ["active"]);
        for status in Status::ALL {
            for set in sets_of(&[status]) {
                let holds = GROUPS.iter().find(|(name, _)| *name == set).map(|(_, holds)| *holds);
                assert!(set == CREATED || holds.is_some_and(|holds| holds(status)), "{status}");
            }
        }
    }
}
