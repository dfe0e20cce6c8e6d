//! The due-set: a sorted set a shard, by time; a member is the kind's letter and the subject.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use deadpool_redis::redis::{cmd, pipe};
use futures_util::future::{try_join, try_join_all};

use super::gather::Change;
use super::keys::{DUE_SHARDS, Keys};
use super::link::Links;
use super::reply::Reply;
use super::script;
use super::store::{RedisStore, millis};
use crate::backend::{DueEntry, DueKey, DueKind, DueOutcome, DuePage, Error, Result, When};
use crate::model::{AppId, MessageId, RunToken, Timestamp};

/// Entries that one script call changes at most: so that none holds up others for long.
const BATCH: usize = 500;

/// How long a run token counts.
const TOKEN_LIFE: Duration = Duration::from_secs(24 * 3600);

/// Scores are doubles: whole milliseconds are exact up to here, which is in the year 287396.
const LAST: u64 = 1 << 53;

fn score(at: Timestamp) -> u64 {
    at.as_millis().min(LAST)
}

fn member(key: &DueKey) -> Bytes {
    let mut member = BytesMut::with_capacity(key.subject.len() + 1);
    member.put_u8(key.kind.letter() as u8);
    member.put_slice(&key.subject);
    member.freeze()
}

/// `None` for a kind that this release does not know: it is left to workers that do.
fn due_key(mut member: Bytes) -> Option<DueKey> {
    let letter = char::from(*member.first()?);
    let subject = member.split_off(1);
    DueKind::from_letter(letter).map(|kind| DueKey { kind, subject })
}

/// Puts each into its shard.
fn by_shard<T>(all: impl Iterator<Item = (Bytes, T)>) -> Vec<(u64, Vec<(Bytes, T)>)> {
    let mut shards: Vec<_> = (0..DUE_SHARDS).map(|shard| (shard, Vec::new())).collect();
    for (member, with) in all {
        shards[Keys::due_shard(&member) as usize].1.push((member, with));
    }
    shards.retain(|(_, members)| !members.is_empty());
    shards
}

/// An entry as it is to be.
pub(super) struct ScheduledEntry {
    when: When,
    due: u64,
    pub(super) member: Bytes,
    payload: Bytes,
}

/// Adds or re-times entries of one shard.
pub(super) async fn schedule_in(links: &Links, [set, payloads]: [String; 2], entries: &[ScheduledEntry]) -> Result<()> {
    // Most have no payload, and then it is one plain command for many, at a fraction of a script's cost.
    let (bare, loaded): (Vec<_>, Vec<_>) = entries.iter().partition(|entry| entry.payload.is_empty());
    let adding = [When::Set, When::Sooner, When::Absent].map(async |when| {
        let bare: Vec<_> = bare.iter().filter(|entry| entry.when == when).collect();
        for batch in bare.chunks(BATCH) {
            let mut add = cmd("ZADD");
            add.arg(&set);
            match when {
                When::Set => {}
                When::Sooner => drop(add.arg("LT")),
                When::Absent => drop(add.arg("NX")),
            }
            for entry in batch {
                add.arg(entry.due).arg(entry.member.as_ref());
            }
            if when == When::Set {
                // One that was there may have had a payload.
                let members: Vec<&[u8]> = batch.iter().map(|entry| entry.member.as_ref()).collect();
                let mut both = pipe();
                both.atomic().add_command(add).hdel(&payloads, &members);
                links.send_all("`schedule`", &both).await?;
            } else {
                links.send_small("ZADD", add).await?;
            }
        }
        Ok(())
    });
    let calls = loaded.chunks(BATCH).map(|batch| {
        let call = batch
            .iter()
            .fold(script::SCHEDULE.on(&[&set, &payloads]), |call, entry| {
                let mode: u8 = match entry.when {
                    When::Set => 0,
                    When::Sooner => 1,
                    When::Absent => 2,
                };
                call.arg(mode)
                    .arg(entry.due)
                    .arg(entry.member.as_ref())
                    .arg(entry.payload.as_ref())
            });
        call.send(links)
    });
    try_join(try_join_all(adding), try_join_all(calls)).await.map(drop)
}

/// Removes members of one shard; of each, whether it was there.
pub(super) async fn unschedule_in(links: &Links, [set, payloads]: [String; 2], members: &[Bytes]) -> Result<Vec<bool>> {
    let mut were_there = Vec::with_capacity(members.len());
    for batch in members.chunks(BATCH) {
        let members: Vec<&[u8]> = batch.iter().map(Bytes::as_ref).collect();
        let mut both = pipe();
        both.atomic();
        both.cmd("ZMSCORE").arg(&set).arg(&members);
        both.zrem(&set, &members).hdel(&payloads, &members);
        let replies = links.send_all("`unschedule`", &both).await?;
        let scores = Reply::new("ZMSCORE", replies.into_iter().next().unwrap_or_default()).items()?;
        for score in scores {
            were_there.push(score.optional_bytes()?.is_some());
        }
    }
    Ok(were_there)
}

impl RedisStore {
    pub(super) async fn schedule_entries(&self, app: &AppId, entries: &[DueEntry], when: When) -> Result<()> {
        let changes = entries.iter().map(|entry| {
            Change::Schedule(ScheduledEntry {
                when,
                due: score(entry.due),
                member: member(&entry.key),
                payload: entry.payload.clone(),
            })
        });
        self.gatherer.make(app, changes.collect()).await.map(drop)
    }

    pub(super) async fn unschedule_entries(&self, app: &AppId, keys: &[DueKey]) -> Result<bool> {
        let changes = keys.iter().map(|key| Change::Unschedule(member(key)));
        self.gatherer.make(app, changes.collect()).await
    }

    pub(super) async fn claim_entries(&self, app: &AppId, most: usize, lease: Duration) -> Result<Vec<DueEntry>> {
        let mut shards = self.shards_with_something_due(app).await?;
        if !shards.is_empty() {
            // None is first, and may take the room that there is, each time.
            let first = self.first_shard.fetch_add(1, Ordering::Relaxed) % DUE_SHARDS;
            let before = shards.partition_point(|shard| *shard < first);
            shards.rotate_left(before);
        }
        let mut claimed = Vec::new();
        // Each shard in the same measure first, since entries spread evenly; then those that had more.
        while !shards.is_empty() && claimed.len() + shards.len() <= most {
            let share = ((most - claimed.len()) / shards.len()).min(BATCH);
            let calls = shards
                .iter()
                .map(|shard| self.claim_in_shard(app, *shard, share, lease));
            let found = try_join_all(calls).await?;
            let full = shards.iter().zip(&found).filter(|(_, found)| found.len() == share);
            shards = full.map(|(shard, _)| *shard).collect();
            claimed.extend(found.into_iter().flatten());
        }
        // Room for fewer than there are shards: one after the other.
        for shard in shards {
            let room = most - claimed.len();
            if room > 0 {
                claimed.extend(self.claim_in_shard(app, shard, room, lease).await?);
            }
        }
        claimed.sort_by(|(was_due, a), (b_was_due, b)| (was_due, &a.key).cmp(&(b_was_due, &b.key)));
        Ok(claimed.into_iter().map(|(_, entry)| entry).collect())
    }

    /// Most often nothing is due, and every worker asks many times a second: one look at the first entry of each shard costs a fraction of what claiming does.
    async fn shards_with_something_due(&self, app: &AppId) -> Result<Vec<u64>> {
        let mut looks = pipe();
        looks.cmd("TIME");
        for shard in 0..DUE_SHARDS {
            let [set, _] = self.keys.due(app, shard);
            looks.cmd("ZRANGE").arg(set).arg(0).arg(0).arg("WITHSCORES");
        }
        let mut replies = self.links.send_all("`claim_due`", &looks).await?.into_iter();
        let now = Reply::new("TIME", replies.next().unwrap_or_default()).time()?;
        let mut due = Vec::new();
        for (shard, first) in (0..).zip(replies) {
            let first = Reply::new("ZRANGE", first).pairs()?.into_iter().next();
            if let Some((_, at)) = first
                && Reply::of_bytes("ZRANGE", at).number()? <= now.as_millis() as i64
            {
                due.push(shard);
            }
        }
        Ok(due)
    }

    /// Entries with the times at which they were due.
    async fn claim_in_shard(
        &self,
        app: &AppId,
        shard: u64,
        most: usize,
        lease: Duration,
    ) -> Result<Vec<(i64, DueEntry)>> {
        let [set, payloads] = self.keys.due(app, shard);
        let call = script::CLAIM_DUE.on(&[&set, &payloads]).arg(most).arg(millis(lease));
        let mut items = call.send(&self.links).await?.items()?.into_iter();
        let Some(due) = items.next() else {
            return Ok(Vec::new());
        };
        let due = Timestamp::from_millis(due.number()? as u64);
        let mut entries = Vec::with_capacity(items.len() / 3);
        while let (Some(member), Some(was_due), Some(payload)) = (items.next(), items.next(), items.next()) {
            let payload = payload.optional_bytes()?.unwrap_or_default();
            if let Some(key) = due_key(member.bytes()?) {
                entries.push((was_due.number()?, DueEntry { key, due, payload }));
            }
        }
        Ok(entries)
    }

    pub(super) async fn settle_entries(&self, app: &AppId, entries: &[(DueEntry, DueOutcome)]) -> Result<()> {
        let shards = by_shard(entries.iter().map(|settled| (member(&settled.0.key), settled)));
        let calls = shards.iter().flat_map(|(shard, members)| {
            members.chunks(BATCH).map(|batch| {
                let [set, payloads] = self.keys.due(app, *shard);
                let call = script::SETTLE_DUE.on(&[&set, &payloads]);
                let call = batch.iter().fold(call, |call, (member, (entry, outcome))| {
                    let again = match outcome {
                        DueOutcome::Remove => String::new(),
                        DueOutcome::Again(at) => score(*at).to_string(),
                    };
                    call.arg(member.as_ref()).arg(score(entry.due)).arg(again)
                });
                call.send(&self.links)
            })
        });
        try_join_all(calls).await?;
        Ok(())
    }

    pub(super) async fn read_due_entry(&self, app: &AppId, key: &DueKey) -> Result<Option<DueEntry>> {
        let member = member(key);
        let [set, payloads] = self.keys.due(app, Keys::due_shard(&member));
        let mut both = pipe();
        both.atomic()
            .zscore(&set, member.as_ref())
            .hget(&payloads, member.as_ref());
        let mut replies = self.links.send_all("`due_entry`", &both).await?.into_iter();
        let (Some(due), Some(payload)) = (replies.next(), replies.next()) else {
            return Ok(None);
        };
        let Some(due) = Reply::new("ZSCORE", due).optional_number()? else {
            return Ok(None);
        };
        Ok(Some(DueEntry {
            key: key.clone(),
            due: Timestamp::from_millis(due as u64),
            payload: Reply::new("HGET", payload).optional_bytes()?.unwrap_or_default(),
        }))
    }

    pub(super) async fn read_due_entries(&self, app: &AppId, kind: DueKind, most: usize) -> Result<Vec<DueEntry>> {
        let shards = (0..DUE_SHARDS).map(|shard| self.entries_in_shard(app, shard, kind, most));
        let mut entries = try_join_all(shards).await?.concat();
        entries.sort_by(|a, b| (a.due, &a.key).cmp(&(b.due, &b.key)));
        entries.truncate(most);
        Ok(entries)
    }

    /// The shard's first entries of the kind. Other kinds stand between them, so the whole shard may have to be paged through.
    async fn entries_in_shard(&self, app: &AppId, shard: u64, kind: DueKind, most: usize) -> Result<Vec<DueEntry>> {
        let [set, payloads] = self.keys.due(app, shard);
        let mut entries = Vec::new();
        for from in (0..).step_by(BATCH) {
            let mut range = cmd("ZRANGE");
            range.arg(&set).arg(from).arg(from + BATCH - 1).arg("WITHSCORES");
            let page = Reply::new("ZRANGE", self.links.send("ZRANGE", &range).await?).pairs()?;
            let is_last = page.len() < BATCH;
            let mut read = cmd("HMGET");
            read.arg(&payloads);
            let mut found = Vec::new();
            for (member, due) in page {
                if let Some(key) = due_key(member.clone()).filter(|key| key.kind == kind) {
                    read.arg(member.as_ref());
                    found.push((key, due));
                }
            }
            // HMGET of nothing is an error.
            if !found.is_empty() {
                let payloads = Reply::new("HMGET", self.links.send("HMGET", &read).await?).items()?;
                for ((key, due), payload) in found.into_iter().zip(payloads) {
                    let due = Reply::of_bytes("ZRANGE", due).number()?;
                    entries.push(DueEntry {
                        key,
                        due: Timestamp::from_millis(due as u64),
                        payload: payload.optional_bytes()?.unwrap_or_default(),
                    });
                }
            }
            if is_last || entries.len() >= most {
                break;
            }
        }
        entries.truncate(most);
        Ok(entries)
    }

    /// A token is the shard, a colon, and the server's cursor within it.
    pub(super) async fn read_due_page(&self, app: &AppId, after: Option<&str>, most: usize) -> Result<DuePage> {
        let (shard, cursor) = match after {
            None => (0, "0"),
            Some(token) => {
                let parts = token.split_once(':');
                let parsed = parts.and_then(|(shard, cursor)| Some((shard.parse::<u64>().ok()?, cursor)));
                parsed.filter(|(shard, _)| *shard < DUE_SHARDS).ok_or_else(|| {
                    Error::permanent(format!(
                        "{token:?} is not the token of a page: pass the `next` of the page before, unchanged"
                    ))
                })?
            }
        };
        let [set, payloads] = self.keys.due(app, shard);
        let mut scan = cmd("ZSCAN");
        scan.arg(&set).arg(cursor).arg("COUNT").arg(most.max(1));
        let mut reply = Reply::new("ZSCAN", self.links.send("ZSCAN", &scan).await?)
            .items()?
            .into_iter();
        let (Some(next), Some(members)) = (reply.next(), reply.next()) else {
            return Ok(DuePage::default());
        };
        let next = match next.text()?.as_str() {
            "0" if shard + 1 == DUE_SHARDS => None,
            "0" => Some(format!("{}:0", shard + 1)),
            cursor => Some(format!("{shard}:{cursor}")),
        };
        let members: Vec<_> = members
            .pairs()?
            .into_iter()
            .filter_map(|(member, due)| due_key(member.clone()).map(|key| (member, key, due)))
            .collect();
        let mut entries = Vec::with_capacity(members.len());
        for batch in members.chunks(BATCH) {
            let mut read = cmd("HMGET");
            read.arg(&payloads);
            for (member, ..) in batch {
                read.arg(member.as_ref());
            }
            let found = Reply::new("HMGET", self.links.send("HMGET", &read).await?).items()?;
            for ((_, key, due), payload) in batch.iter().zip(found) {
                let due = Reply::of_bytes("ZSCAN", due.clone()).number()?;
                entries.push(DueEntry {
                    key: key.clone(),
                    due: Timestamp::from_millis(due as u64),
                    payload: payload.optional_bytes()?.unwrap_or_default(),
                });
            }
        }
        Ok(DuePage { entries, next })
    }

    pub(super) async fn tokens(&self, app: &AppId, item: &MessageId) -> Result<u32> {
        let count = self
            .links
            .send("SCARD", cmd("SCARD").arg(self.keys.tokens(app, item)))
            .await?;
        let count = Reply::new("SCARD", count).number()?;
        Ok(u32::try_from(count).unwrap_or(u32::MAX))
    }

    pub(super) async fn add_token(&self, app: &AppId, item: &MessageId, token: RunToken) -> Result<u32> {
        let key = self.keys.tokens(app, item);
        let mut all = pipe();
        all.atomic()
            .sadd(&key, token.to_string())
            .ignore()
            .pexpire(&key, millis(TOKEN_LIFE) as i64)
            .ignore()
            .scard(&key);
        let count = self.links.send_all("`begin_run`", &all).await?.into_iter().next();
        let count = Reply::new("SCARD", count.unwrap_or_default()).number()?;
        Ok(u32::try_from(count).unwrap_or(u32::MAX))
    }

    pub(super) async fn remove_tokens(&self, app: &AppId, item: &MessageId) -> Result<()> {
        self.links
            .send("DEL", cmd("DEL").arg(self.keys.tokens(app, item)))
            .await?;
        Ok(())
    }
}
