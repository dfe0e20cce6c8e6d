//! Creating, reading and deleting instances.

use std::time::Duration;

use bytes::Bytes;
use deadpool_redis::redis::cmd;

use super::record;
use super::reply::Reply;
use super::script;
use super::store::{RedisStore, millis};
use crate::backend::{ConflictPolicy, Create, Created, Deleted, Ending, Error, Loaded, Record, Result};
use crate::model::{ExecutionId, InstanceRef, MessageId, RunId, Timestamp};
use crate::wire::Outcome;

/// How long the outcome of a run outlives its record, so that whoever waits for it can read it.
const OUTCOME_KEPT: Duration = Duration::from_secs(60);

/// How often a create asks again because the run that it was about to replace has been replaced by somebody else's.
const ASKED_AGAIN: usize = 8;

impl RedisStore {
    pub(super) async fn create_instance(&self, create: &Create) -> Result<Created> {
        let keys = self.keys.instance(&create.instance);
        let standing = [
            keys.meta(),
            keys.inbox(),
            keys.claims(),
            keys.receipt(create.origin.request.as_str()),
        ];
        let mut replaced: Option<(String, String)> = None;
        // A record may be large, and is not asked for in vain.
        let mut is_there = false;
        for _ in 0..ASKED_AGAIN {
            let of_replaced = replaced
                .as_ref()
                .map(|(run, request)| [keys.receipt(request), keys.past_outcome(run)]);
            let all = standing.iter().chain(of_replaced.iter().flatten());
            let call = script::CREATE
                .on(&all.map(String::as_str).collect::<Vec<_>>())
                .arg(create.execution.to_string())
                .arg(create.run.to_string())
                .arg(create.origin.request.as_str())
                .arg(record::pack_origin(&create.origin))
                .arg(create.input.as_bytes())
                .arg(u8::from(create.policy == ConflictPolicy::Reject))
                .arg(replaced.as_ref().map_or("", |(run, _)| run.as_str()))
                .arg(millis(create.keep))
                .arg(millis(create.keep.max(OUTCOME_KEPT)))
                .arg(is_there.then_some(&record::FIELDS));
            let reply = match is_there {
                false => call.send_small(&self.links).await?,
                true => call.send(&self.links).await?,
            };
            let (word, mut rest) = reply.word()?;
            match (word.as_str(), rest.len()) {
                ("created", 1) => {
                    let at = rest.remove(0).number()?;
                    return Ok(Created::Created(Timestamp::from_millis(at.max(0) as u64)));
                }
                ("refused", 0) => return Ok(Created::Refused),
                ("exists", 0) => is_there = true,
                ("repeated", 1) => return repeated(rest.remove(0)),
                ("exists", 1) => match record::read(&create.instance, rest.remove(0))? {
                    Some(record) => return Ok(Created::Exists(Box::new(record))),
                    None => return Reply::strange("create", "exists"),
                },
                ("replace", 2) => {
                    let request = rest.remove(1).text()?;
                    replaced = Some((rest.remove(0).text()?, request));
                }
                _ => return Reply::strange("create", &word),
            }
        }
        Err(Error::transient(format!(
            "{} is replaced by others faster than it can be created",
            create.instance
        )))
    }

    pub(super) async fn read_record(&self, instance: &InstanceRef) -> Result<Option<Record>> {
        let mut read = cmd("HMGET");
        read.arg(self.keys.instance(instance).meta()).arg(&record::FIELDS);
        record::read(instance, Reply::new("HMGET", self.links.send("HMGET", &read).await?))
    }

    pub(super) async fn load_instance(
        &self,
        instance: &InstanceRef,
        after: u64,
        inbox: usize,
    ) -> Result<Option<Loaded>> {
        let keys = self.keys.instance(instance);
        let call = script::LOAD
            .on(&[&keys.meta(), &keys.inbox()])
            .arg(after.saturating_add(1))
            .arg(after.saturating_add(Loaded::TURNS as u64))
            .arg(inbox)
            .arg(&record::FIELDS);
        let mut parts = call.send(&self.links).await?.items()?.into_iter();
        let (Some(meta), Some(turns), Some(inbox)) = (parts.next(), parts.next(), parts.next()) else {
            return Ok(None);
        };
        let Some(record) = record::read(instance, meta)? else {
            return Ok(None);
        };
        Ok(Some(Loaded {
            record,
            turns: unbroken(turns)?,
            inbox: inbox.list()?,
        }))
    }

    pub(super) async fn read_inbox(&self, instance: &InstanceRef, from: usize, most: usize) -> Result<Vec<Bytes>> {
        let Some(last) = most.checked_sub(1).map(|rest| from.saturating_add(rest)) else {
            return Ok(Vec::new());
        };
        let mut range = cmd("LRANGE");
        range.arg(self.keys.instance(instance).inbox()).arg(from).arg(last);
        Reply::new("LRANGE", self.links.send("LRANGE", &range).await?).list()
    }

    pub(super) async fn read_turns(
        &self,
        instance: &InstanceRef,
        execution: ExecutionId,
        after: u64,
        count: usize,
    ) -> Result<Vec<Bytes>> {
        let keys = self.keys.instance(instance);
        let call = script::TURNS
            .on(&[&keys.meta()])
            .arg(execution.to_string())
            .arg(after.saturating_add(1))
            .arg(after.saturating_add(count as u64));
        unbroken(call.send(&self.links).await?)
    }

    pub(super) async fn refuse_request(
        &self,
        instance: &InstanceRef,
        request: &MessageId,
        keep: Duration,
    ) -> Result<bool> {
        let keys = self.keys.instance(instance);
        let call = script::REFUSE
            .on(&[&keys.receipt(request.as_str()), &keys.meta()])
            .arg(millis(keep))
            .arg(request.as_str());
        Ok(call.send(&self.links).await?.number()? == 1)
    }

    pub(super) async fn delete_instance(
        &self,
        instance: &InstanceRef,
        execution: ExecutionId,
        keep: Duration,
    ) -> Result<Deleted> {
        let keys = self.keys.instance(instance);
        // Run and request name keys, which a script has to be told. They are fixed for an execution, so they can be read first.
        let mut read = cmd("HGET");
        read.arg(keys.meta()).arg("run");
        let field = Reply::new("HGET", self.links.send("HGET", &read).await?).optional_bytes()?;
        let field = field.map(|field| String::from_utf8_lossy(&field).into_owned());
        let Some((run, request)) = field.as_deref().and_then(|field| field.split_once(' ')) else {
            return Ok(Deleted::Absent);
        };
        let call = script::DELETE
            .on(&[
                &keys.meta(),
                &keys.inbox(),
                &keys.claims(),
                &keys.receipt(request),
                &keys.past_outcome(run),
            ])
            .arg(execution.to_string())
            .arg(run)
            .arg(millis(keep))
            .arg(millis(keep.max(OUTCOME_KEPT)));
        match call.send(&self.links).await?.text()?.as_str() {
            "deleted" => Ok(Deleted::Deleted),
            "active" => Ok(Deleted::Active),
            "marked" => Ok(Deleted::Marked),
            "absent" => Ok(Deleted::Absent),
            other => Reply::strange("delete", other),
        }
    }

    pub(super) async fn read_ending(&self, instance: &InstanceRef) -> Result<Option<Ending>> {
        let meta = self.keys.instance(instance).meta();
        let read = |fields: &[&str]| {
            let mut read = cmd("HMGET");
            read.arg(&meta).arg(fields);
            read
        };
        // An outcome may be large, and most who ask do so before there is one.
        let [small @ .., _] = &record::ENDING_FIELDS;
        let fields = self.links.send_small("HMGET", read(small)).await?;
        let ending = record::read_ending(instance, Reply::new("HMGET", fields))?;
        if !ending.as_ref().is_some_and(|ending| ending.status.is_terminal()) {
            return Ok(ending);
        }
        let fields = self.links.send("HMGET", &read(&record::ENDING_FIELDS)).await?;
        record::read_ending(instance, Reply::new("HMGET", fields))
    }

    pub(super) async fn read_past_outcome(&self, instance: &InstanceRef, run: RunId) -> Result<Option<Outcome>> {
        let mut read = cmd("GET");
        let key = self.keys.instance(instance).past_outcome_of(run);
        let reply = self.links.send("GET", read.arg(key)).await?;
        let stored = Reply::new("GET", reply).optional_bytes()?;
        stored
            .map(|stored| record::unpack(instance, "past outcome", &stored))
            .transpose()
    }
}

/// What the request created: its execution, which may be a later one of that run by now, and the run.
fn repeated(receipt: Reply) -> Result<Created> {
    let receipt = receipt.text()?;
    let parsed = receipt.split_once(' ').and_then(|(execution, run)| {
        Some(Created::Repeated {
            execution: execution.parse().ok()?,
            run: run.parse().ok()?,
        })
    });
    parsed.map_or_else(|| Reply::strange("create", &receipt), Ok)
}

/// Turns up to the first that is missing: whoever reads them finds that there are fewer than the record says.
fn unbroken(turns: Reply) -> Result<Vec<Bytes>> {
    let turns = turns.items()?.into_iter().map(Reply::optional_bytes);
    turns.map_while(Result::transpose).collect()
}
