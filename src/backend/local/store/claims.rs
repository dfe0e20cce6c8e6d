//! Claims: the time limits of activity calls, decided in the caller's record; and the progress that their attempts report.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::super::key::{Key, Table, leading_number};
use super::super::kv::{Snapshot, Transaction, decode, get_as};
use super::{records, trash};
use crate::backend::{Claim, ClaimTerms, ClaimVerdict, Progress, Result};
use crate::fault::{Defect, planted};
use crate::model::{ExecutionId, InstanceRef, Namespace, Sequence, Timestamp};

/// When to look again at a call that has no limit left to reach.
const UNLIMITED: Duration = Duration::from_secs(3600);

/// What is stored of a running call: its claim, if it has time limits, and its progress.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Call {
    /// The time limits; `None` if the call has none and is here for its progress alone.
    terms: Option<ClaimTerms>,
    /// When the body started last.
    claimed_at: Option<Timestamp>,
    /// When it reported last.
    progress_at: Option<Timestamp>,
    /// What it reported.
    details: Option<Bytes>,
    /// How its limits were decided, once and for all.
    verdict: Option<ClaimVerdict>,
}

impl Call {
    /// True while an attempt runs, as far as is known, and somebody waits for it.
    fn is_running(&self) -> bool {
        self.verdict.is_none() && (self.claimed_at.is_some() || self.progress_at.is_some())
    }

    /// Takes the claim before the body starts.
    fn claim(&mut self, now: Timestamp) -> Claim {
        let Some(terms) = self.terms else {
            return Claim::Closed;
        };
        if self.verdict.is_none() && self.claimed_at.is_none() && terms.start_by.is_some_and(|by| by <= now) {
            self.verdict = Some(ClaimVerdict::NotStarted);
        }
        if self.verdict.is_some() || (planted(Defect::ClaimIsTakenOnce) && self.claimed_at.is_some()) {
            return Claim::Closed;
        }
        self.claimed_at = Some(now);
        Claim::Granted
    }

    /// Decides the claim, if that has not been done.
    fn settle(&mut self, now: Timestamp) -> ClaimVerdict {
        let (Some(terms), None) = (self.terms, self.verdict) else {
            return self.verdict.unwrap_or(ClaimVerdict::Closed);
        };
        let verdict = match self.claimed_at {
            None => not_claimed(&terms, now),
            Some(claimed_at) => claimed(&terms, claimed_at, self.progress_at, now),
        };
        if !matches!(verdict, ClaimVerdict::Again(_)) {
            self.verdict = Some(verdict);
        }
        verdict
    }
}

fn not_claimed(terms: &ClaimTerms, now: Timestamp) -> ClaimVerdict {
    match terms.start_by {
        Some(by) if by <= now => ClaimVerdict::NotStarted,
        Some(by) => ClaimVerdict::Again(by),
        // It may be claimed at any moment, and no limit can be reached sooner than this after it.
        None => ClaimVerdict::Again(now + shortest(terms)),
    }
}

fn claimed(terms: &ClaimTerms, claimed_at: Timestamp, progress_at: Option<Timestamp>, now: Timestamp) -> ClaimVerdict {
    let over_at = terms.timeout.map(|timeout| claimed_at + timeout);
    let alive_at = progress_at.map_or(claimed_at, |at| at.max(claimed_at));
    let silent_at = terms.heartbeat.map(|heartbeat| alive_at + heartbeat);
    match (over_at, silent_at) {
        (Some(over_at), _) if over_at <= now => ClaimVerdict::TimedOut,
        (_, Some(silent_at)) if silent_at <= now => ClaimVerdict::HeartbeatMissed,
        (Some(over_at), Some(silent_at)) => ClaimVerdict::Again(over_at.min(silent_at)),
        (Some(at), None) | (None, Some(at)) => ClaimVerdict::Again(at),
        // Only its start was limited, and it has started.
        (None, None) => ClaimVerdict::Again(now + UNLIMITED),
    }
}

fn shortest(terms: &ClaimTerms) -> Duration {
    let limits = [terms.timeout, terms.heartbeat];
    limits.into_iter().flatten().min().unwrap_or(UNLIMITED)
}

/// Opens claims.
pub(super) fn open(
    to: &mut Transaction<'_>,
    namespace: &Namespace,
    instance: &InstanceRef,
    execution: ExecutionId,
    opened: &[(Sequence, ClaimTerms)],
) {
    for (sequence, terms) in opened {
        let call = Call {
            terms: Some(*terms),
            ..Call::default()
        };
        to.put_as(key(Table::Claim, namespace, instance, execution, *sequence), &call);
    }
}

/// Forgets claims and progress; only that the calls are over is remembered, so that a straggler is told so.
pub(super) fn close(
    to: &mut Transaction<'_>,
    namespace: &Namespace,
    instance: &InstanceRef,
    execution: ExecutionId,
    closed: &[Sequence],
) {
    for sequence in closed {
        to.delete(key(Table::Claim, namespace, instance, execution, *sequence));
        to.put(
            key(Table::ClosedCall, namespace, instance, execution, *sequence),
            Bytes::new(),
        );
    }
}

/// The execution is over, and all its calls with it.
pub(super) fn throw(
    to: &mut Transaction<'_>,
    namespace: &Namespace,
    instance: &InstanceRef,
    execution: ExecutionId,
) -> Result<()> {
    for table in [Table::Claim, Table::ClosedCall] {
        trash::throw(to, namespace, calls(table, namespace, instance, execution).range())?;
    }
    Ok(())
}

/// A call of an instance.
#[derive(Clone, Copy)]
pub(super) struct CallRef<'a> {
    pub(super) namespace: &'a Namespace,
    pub(super) instance: &'a InstanceRef,
    pub(super) execution: ExecutionId,
    pub(super) sequence: Sequence,
}

impl CallRef<'_> {
    /// The call as stored, if its execution is the current one and not over.
    fn find(self, from: &dyn Snapshot) -> Result<Found> {
        let state = records::state(from, self.namespace, self.instance)?;
        let current = state.is_some_and(|state| state.execution == self.execution && !state.status.is_terminal());
        if !current || from.get(&self.key(Table::ClosedCall))?.is_some() {
            return Ok(Found::Over);
        }
        Ok(match get_as(from, &self.key(Table::Claim))? {
            Some(call) => Found::Call(call),
            None => Found::Nothing,
        })
    }

    fn key(self, table: Table) -> Vec<u8> {
        key(table, self.namespace, self.instance, self.execution, self.sequence)
    }
}

enum Found {
    /// Nobody waits for the call any more.
    Over,
    /// It has no claim and has reported nothing.
    Nothing,
    Call(Call),
}

/// See [`Store::claim`](crate::backend::Store::claim).
pub(super) fn claim(to: &mut Transaction<'_>, of: CallRef<'_>, now: Timestamp) -> Result<Claim> {
    let Found::Call(mut call) = of.find(to)? else {
        return Ok(Claim::Closed);
    };
    let claim = call.claim(now);
    to.put_as(of.key(Table::Claim), &call);
    Ok(claim)
}

/// See [`Store::settle_claim`](crate::backend::Store::settle_claim).
pub(super) fn settle(to: &mut Transaction<'_>, of: CallRef<'_>, now: Timestamp) -> Result<ClaimVerdict> {
    let Found::Call(mut call) = of.find(to)? else {
        return Ok(ClaimVerdict::Closed);
    };
    let verdict = call.settle(now);
    to.put_as(of.key(Table::Claim), &call);
    Ok(verdict)
}

/// See [`Store::progress`](crate::backend::Store::progress).
pub(super) fn progress(
    to: &mut Transaction<'_>,
    of: CallRef<'_>,
    is_claimed: bool,
    details: Option<Bytes>,
    now: Timestamp,
) -> Result<bool> {
    let mut call = match of.find(to)? {
        Found::Over => return Ok(false),
        // A claim goes with its call.
        Found::Nothing if is_claimed => return Ok(false),
        Found::Nothing => Call::default(),
        Found::Call(call) if call.verdict.is_some() => return Ok(false),
        Found::Call(call) => call,
    };
    call.progress_at = Some(now);
    if details.is_some() {
        call.details = details;
    }
    to.put_as(of.key(Table::Claim), &call);
    Ok(true)
}

/// See [`Store::progress_of`](crate::backend::Store::progress_of).
pub(super) fn progress_of(
    from: &dyn Snapshot,
    namespace: &Namespace,
    instance: &InstanceRef,
    most: usize,
) -> Result<Vec<Progress>> {
    let Some(state) = records::state(from, namespace, instance)? else {
        return Ok(Vec::new());
    };
    let calls = calls(Table::Claim, namespace, instance, state.execution);
    let mut running = Vec::new();
    let mut next: Sequence = 0;
    // Claims that nobody has taken, or that are decided, are skipped, so one scan may not be enough.
    while running.len() < most {
        let pairs = from.scan(&calls.clone().range_from(&next.to_be_bytes()), most)?;
        for (key, stored) in &pairs {
            let call: Call = decode(stored)?;
            let sequence = leading_number(&key[calls.len()..]).unwrap_or_default();
            next = sequence + 1;
            if call.is_running() {
                running.push(Progress {
                    sequence,
                    claimed_at: call.claimed_at,
                    at: call.progress_at,
                    details: call.details,
                });
            }
        }
        if pairs.len() < most {
            break;
        }
    }
    running.truncate(most);
    Ok(running)
}

/// The beginning of the keys of an execution's calls.
fn calls(table: Table, namespace: &Namespace, instance: &InstanceRef, execution: ExecutionId) -> Key {
    Key::of_instance(table, namespace, instance).uuid(execution.as_uuid())
}

fn key(
    table: Table,
    namespace: &Namespace,
    instance: &InstanceRef,
    execution: ExecutionId,
    sequence: Sequence,
) -> Vec<u8> {
    calls(table, namespace, instance, execution).number(sequence).end()
}
