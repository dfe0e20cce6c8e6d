//! Claims and progress of activity calls.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use deadpool_redis::redis::cmd;

use super::reply::Reply;
use super::script;
use super::store::{RedisStore, millis};
use crate::backend::{Claim, ClaimVerdict, Progress, Result};
use crate::model::{ExecutionId, InstanceRef, Sequence, Timestamp};

/// When to look again at a claim that nothing limits: it is for nobody's sake.
const LOOK_AGAIN: Duration = Duration::from_secs(24 * 3600);

impl RedisStore {
    pub(super) async fn take_claim(
        &self,
        instance: &InstanceRef,
        execution: ExecutionId,
        sequence: Sequence,
    ) -> Result<Claim> {
        let keys = self.keys.instance(instance);
        let call = script::CLAIM.on(&[&keys.meta(), &keys.claims()]);
        let reply = call.arg(execution.to_string()).arg(sequence).send(&self.links).await?;
        Ok(match reply.number()? {
            1 => Claim::Granted,
            _ => Claim::Closed,
        })
    }

    pub(super) async fn decide_claim(
        &self,
        instance: &InstanceRef,
        execution: ExecutionId,
        sequence: Sequence,
    ) -> Result<ClaimVerdict> {
        let keys = self.keys.instance(instance);
        let call = script::SETTLE_CLAIM
            .on(&[&keys.meta(), &keys.claims()])
            .arg(execution.to_string())
            .arg(sequence)
            .arg(millis(LOOK_AGAIN));
        let (word, mut rest) = call.send(&self.links).await?.word()?;
        match (word.as_str(), rest.pop()) {
            ("not-started", None) => Ok(ClaimVerdict::NotStarted),
            ("timed-out", None) => Ok(ClaimVerdict::TimedOut),
            ("heartbeat-missed", None) => Ok(ClaimVerdict::HeartbeatMissed),
            ("closed", None) => Ok(ClaimVerdict::Closed),
            ("again", Some(at)) => Ok(ClaimVerdict::Again(Timestamp::from_millis(at.number()? as u64))),
            _ => Reply::strange("settle_claim", &word),
        }
    }

    pub(super) async fn store_progress(
        &self,
        instance: &InstanceRef,
        execution: ExecutionId,
        sequence: Sequence,
        is_claimed: bool,
        details: Option<Bytes>,
    ) -> Result<bool> {
        let keys = self.keys.instance(instance);
        let call = script::PROGRESS
            .on(&[&keys.meta(), &keys.claims()])
            .arg(execution.to_string())
            .arg(sequence)
            .arg(u8::from(is_claimed))
            .arg(details.as_deref());
        Ok(call.send(&self.links).await?.number()? == 1)
    }

    pub(super) async fn read_progress(&self, instance: &InstanceRef, most: usize) -> Result<Vec<Progress>> {
        let mut read = cmd("HGETALL");
        let reply = self
            .links
            .send("HGETALL", read.arg(self.keys.instance(instance).claims()))
            .await?;
        let mut calls: BTreeMap<Sequence, Attempt> = BTreeMap::new();
        for (field, value) in Reply::new("HGETALL", reply).pairs()? {
            // Fields as claim.lua names them: a letter, a colon and the sequence number.
            let Some((letter, sequence)) = std::str::from_utf8(&field).ok().and_then(|field| field.split_once(':'))
            else {
                continue;
            };
            let Ok(sequence) = sequence.parse() else {
                continue;
            };
            let attempt = calls.entry(sequence).or_default();
            match letter {
                "c" => attempt.claimed_at = time(&value),
                "p" => attempt.at = time(&value),
                "d" => attempt.details = Some(value),
                "v" => attempt.is_over = true,
                _ => {}
            }
        }
        let running = calls.into_iter().filter(|(_, attempt)| attempt.is_running());
        let progress = running.map(|(sequence, attempt)| Progress {
            sequence,
            claimed_at: attempt.claimed_at,
            at: attempt.at,
            details: attempt.details,
        });
        Ok(progress.take(most).collect())
    }
}

fn time(value: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(value).ok()?;
    text.parse().ok().map(Timestamp::from_millis)
}

/// What the claims' fields say of one call.
#[derive(Default)]
struct Attempt {
    claimed_at: Option<Timestamp>,
    at: Option<Timestamp>,
    details: Option<Bytes>,
    is_over: bool,
}

impl Attempt {
    fn is_running(&self) -> bool {
        !self.is_over && (self.claimed_at.is_some() || self.at.is_some())
    }
}
