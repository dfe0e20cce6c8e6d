//! The record of an instance: creating it, committing turns to it, deleting it.

use std::time::Duration;

use bytes::Bytes;

use super::super::key::{Key, Table};
use super::super::kv::{Snapshot, Transaction};
use super::receipts::{self, Receipt};
use super::stored::{State, StoredRecord};
use super::{claims, expiry, inbox, trash};
use crate::backend::{
    Commit, Committed, ConflictPolicy, Create, Created, Deleted, Deliver, Delivered, Ending, Loaded, Mark, Record,
    Result,
};
use crate::fault::{Defect, planted};
use crate::model::{ExecutionId, InstanceRef, Namespace, RunId, Timestamp};
use crate::wire::Outcome;

/// The outcome of a replaced or deleted run is kept at least this long, so that whoever waits for it reads it in peace.
const OUTCOME_KEPT: Duration = Duration::from_secs(60);

pub(super) fn read(from: &dyn Snapshot, namespace: &Namespace, instance: &InstanceRef) -> Result<Option<Record>> {
    let stored = from.get(&key(namespace, instance))?;
    stored.map(|stored| StoredRecord::read(&stored)?.record()).transpose()
}

/// The part of the record that tells where the instance is in its life.
pub(super) fn state(from: &dyn Snapshot, namespace: &Namespace, instance: &InstanceRef) -> Result<Option<State>> {
    let stored = from.get(&key(namespace, instance))?;
    stored.map(|stored| Ok(StoredRecord::read(&stored)?.state)).transpose()
}

/// See [`Store::ending`](crate::backend::Store::ending).
pub(super) fn ending(from: &dyn Snapshot, namespace: &Namespace, instance: &InstanceRef) -> Result<Option<Ending>> {
    let stored = from.get(&key(namespace, instance))?;
    stored.map(|stored| StoredRecord::read(&stored)?.ending()).transpose()
}

/// True if there is a record, whether or not it can be read.
pub(super) fn is_there(from: &dyn Snapshot, namespace: &Namespace, instance: &InstanceRef) -> Result<bool> {
    Ok(from.get(&key(namespace, instance))?.is_some())
}

/// See [`Store::create`](crate::backend::Store::create).
pub(super) fn create(
    to: &mut Transaction<'_>,
    namespace: &Namespace,
    create: &Create,
    now: Timestamp,
) -> Result<Created> {
    let Create {
        instance,
        execution,
        run,
        ..
    } = create;
    match receipts::read(to, namespace, instance, &create.origin.request, now)? {
        Some(Receipt::Created { execution, run }) => return Ok(Created::Repeated { execution, run }),
        Some(Receipt::Refused) => return Ok(Created::Refused),
        None => (),
    }
    match read(to, namespace, instance)? {
        Some(record) if !may_be_replaced(&record, create.policy) => return Ok(Created::Exists(Box::new(record))),
        Some(record) => remove(to, namespace, instance, &record, create.keep, now)?,
        None => inbox::adopt(to, namespace, instance, now)?,
    }
    let receipt = Receipt::Created {
        execution: *execution,
        run: *run,
    };
    receipts::put(to, namespace, instance, &create.origin.request, &receipt, None);
    to.put(key(namespace, instance), StoredRecord::of(&create.record(now)).encode());
    Ok(Created::Created(now))
}

fn may_be_replaced(record: &Record, policy: ConflictPolicy) -> bool {
    let is_unmarked = record.marks.is_empty() || planted(Defect::MarkedTurnIsReplaced);
    policy == ConflictPolicy::RejectActive && record.status.is_terminal() && is_unmarked
}

/// See [`Store::load`](crate::backend::Store::load).
pub(super) fn load(
    from: &dyn Snapshot,
    namespace: &Namespace,
    instance: &InstanceRef,
    after: u64,
    most_inbox: usize,
    now: Timestamp,
) -> Result<Option<Loaded>> {
    let Some(record) = read(from, namespace, instance)? else {
        return Ok(None);
    };
    Ok(Some(Loaded {
        turns: turns(from, namespace, instance, record.execution, after, Loaded::TURNS)?,
        inbox: inbox::items(from, namespace, instance, now, most_inbox)?,
        record,
    }))
}

/// Turns of an execution, whether it is the current one or not.
pub(super) fn turns(
    from: &dyn Snapshot,
    namespace: &Namespace,
    instance: &InstanceRef,
    execution: ExecutionId,
    after: u64,
    most: usize,
) -> Result<Vec<Bytes>> {
    let range = history(namespace, instance, execution).range_of_numbers(after.saturating_add(1)..u64::MAX);
    let pairs = from.scan(&range, most)?;
    Ok(pairs.into_iter().map(|(_, turn)| turn).collect())
}

/// See [`Store::commit`](crate::backend::Store::commit).
pub(super) fn commit(
    to: &mut Transaction<'_>,
    namespace: &Namespace,
    commit: &Commit,
    now: Timestamp,
) -> Result<Committed> {
    let instance = &commit.instance;
    let key = key(namespace, instance);
    let Some(stored) = to.get(&key)? else {
        return Ok(Committed::Absent);
    };
    let mut stored = StoredRecord::read(&stored)?;
    let state = &mut stored.state;
    if state.execution == commit.execution() && state.commit == Some(commit.id) {
        let inbox_left = inbox::len(to, namespace, instance, now)?;
        return Ok(Committed::Applied {
            inbox_left,
            updated_at: state.updated_at,
        });
    }
    let is_guarded = if planted(Defect::GuardIsTheVersion) {
        state.version == commit.guard.version
    } else {
        state.guard() == commit.guard || planted(Defect::LaneIsGuard)
    };
    if !is_guarded {
        return Ok(Committed::Conflict);
    }
    state.marks.retain(|mark| !commit.cleared.contains(mark));
    if commit.next_execution.is_some() {
        state.marks.retain(|mark| *mark != Mark::Run);
        if !state.marks.is_empty() {
            return Ok(Committed::Conflict);
        }
        end_execution(to, namespace, instance, state.execution)?;
    }
    apply(state, commit, now);
    let (execution, updated_at) = (state.execution, state.updated_at);
    let turn = history(namespace, instance, execution).number(state.version);
    to.put(turn.end(), commit.turn.clone());
    if commit.status.is_terminal() {
        claims::throw(to, namespace, instance, execution)?;
    } else {
        claims::open(to, namespace, instance, execution, &commit.claims_opened);
        claims::close(to, namespace, instance, execution, &commit.claims_closed);
    }
    let inbox_left = inbox::take(to, namespace, instance, commit.inbox_taken, &commit.inbox_kept, now)?;
    stored.set_view(&commit.view);
    stored.set_outcome(commit.outcome.as_ref());
    if commit.drop_input {
        stored.drop_input();
    }
    to.put(key, stored.encode());
    Ok(Committed::Applied { inbox_left, updated_at })
}

/// What a commit changes in the state.
fn apply(state: &mut State, commit: &Commit, now: Timestamp) {
    state.version = commit.version();
    state.execution = commit.execution();
    state.commit = Some(commit.id);
    state.status = commit.status;
    state.lane = commit.lane;
    // Whoever orders records by it can tell two commits of one millisecond apart.
    state.updated_at = now.max(state.updated_at + Duration::from_millis(1));
    state.ended_at = commit.status.is_terminal().then_some(state.updated_at);
    state.marks.extend(&commit.marks);
    state.marks.sort_unstable();
    state.marks.dedup();
}

/// See [`Store::clear_mark`](crate::backend::Store::clear_mark).
pub(super) fn clear_mark(
    to: &mut Transaction<'_>,
    namespace: &Namespace,
    instance: &InstanceRef,
    execution: ExecutionId,
    mark: Mark,
) -> Result<Option<usize>> {
    clear_mark_if(to, namespace, instance, mark, |state| state.execution == execution)
}

/// See [`Store::clear_first_start`](crate::backend::Store::clear_first_start).
pub(super) fn clear_first_start(
    to: &mut Transaction<'_>,
    namespace: &Namespace,
    instance: &InstanceRef,
    execution: ExecutionId,
) -> Result<Option<usize>> {
    clear_mark_if(to, namespace, instance, Mark::Start, |state| {
        state.execution == execution && state.version == 0
    })
}

fn clear_mark_if(
    to: &mut Transaction<'_>,
    namespace: &Namespace,
    instance: &InstanceRef,
    mark: Mark,
    is_meant: impl Fn(&State) -> bool,
) -> Result<Option<usize>> {
    let key = key(namespace, instance);
    let Some(stored) = to.get(&key)? else {
        return Ok(None);
    };
    let mut stored = StoredRecord::read(&stored)?;
    let is_there = stored.state.marks.contains(&mark) && is_meant(&stored.state);
    if is_there {
        stored.state.marks.retain(|set| *set != mark);
        to.put(key, stored.encode());
    }
    Ok(Some(stored.state.marks.len()))
}

/// See [`Store::deliver`](crate::backend::Store::deliver).
pub(super) fn deliver(
    to: &mut Transaction<'_>,
    namespace: &Namespace,
    deliver: &Deliver,
    now: Timestamp,
) -> Result<Delivered> {
    let state = state(to, namespace, &deliver.instance)?;
    let keep = match &state {
        Some(state) if state.status.is_terminal() => return Ok(Delivered::Over(state.status)),
        Some(State {
            status,
            lane: Some(lane),
            ..
        }) if status.runs_code() && !deliver.park => {
            return Ok(Delivered::ToLane(*lane));
        }
        Some(_) => None,
        None if deliver.keep_absent.is_none() => return Ok(Delivered::Absent),
        None => deliver.keep_absent,
    };
    let push = inbox::Push {
        item: deliver.item.clone(),
        bound: deliver.bound,
        keep,
    };
    if inbox::push(to, namespace, &deliver.instance, push, now)? {
        let status = state.map(|state| state.status);
        Ok(Delivered::Kept { status })
    } else {
        Ok(Delivered::Full)
    }
}

/// See [`Store::delete`](crate::backend::Store::delete).
pub(super) fn delete(
    to: &mut Transaction<'_>,
    namespace: &Namespace,
    instance: &InstanceRef,
    execution: ExecutionId,
    keep: Duration,
    now: Timestamp,
) -> Result<Deleted> {
    let record = match read(to, namespace, instance)? {
        Some(record) if record.execution == execution => record,
        _ => return Ok(Deleted::Absent),
    };
    if !record.status.is_terminal() {
        return Ok(Deleted::Active);
    }
    let is_guarded = !planted(Defect::MarkedTurnIsRetired) && !planted(Defect::MarkedTurnIsPurged);
    if !record.marks.is_empty() && is_guarded {
        return Ok(Deleted::Marked);
    }
    remove(to, namespace, instance, &record, keep, now)?;
    Ok(Deleted::Deleted)
}

/// Removes a terminal, unmarked record and all that belongs to it, but for what is kept a while: the receipt of its request, and its outcome.
fn remove(
    to: &mut Transaction<'_>,
    namespace: &Namespace,
    instance: &InstanceRef,
    record: &Record,
    keep: Duration,
    now: Timestamp,
) -> Result<()> {
    let keep_receipt = if planted(Defect::NoReceiptIsLeft) {
        Duration::ZERO
    } else {
        keep
    };
    receipts::keep_for(to, namespace, instance, &record.origin.request, keep_receipt, now)?;
    if let Some(outcome) = &record.outcome {
        let until = now + keep.max(OUTCOME_KEPT);
        expiry::put(
            to,
            namespace,
            outcome_key(namespace, instance, record.run),
            outcome,
            Some(until),
        );
    }
    end_execution(to, namespace, instance, record.execution)?;
    inbox::discard(to, namespace, instance)?;
    to.delete(key(namespace, instance));
    Ok(())
}

/// Throws away what belongs to one execution.
fn end_execution(
    to: &mut Transaction<'_>,
    namespace: &Namespace,
    instance: &InstanceRef,
    execution: ExecutionId,
) -> Result<()> {
    claims::throw(to, namespace, instance, execution)?;
    trash::throw(to, namespace, history(namespace, instance, execution).range())
}

/// See [`Store::past_outcome`](crate::backend::Store::past_outcome).
pub(super) fn past_outcome(
    from: &dyn Snapshot,
    namespace: &Namespace,
    instance: &InstanceRef,
    run: RunId,
    now: Timestamp,
) -> Result<Option<Outcome>> {
    expiry::get(from, &outcome_key(namespace, instance, run), now)
}

fn key(namespace: &Namespace, instance: &InstanceRef) -> Vec<u8> {
    Key::of_instance(Table::Record, namespace, instance).end()
}

/// The beginning of the keys of an execution's turns.
fn history(namespace: &Namespace, instance: &InstanceRef, execution: ExecutionId) -> Key {
    Key::of_instance(Table::Turn, namespace, instance).uuid(execution.as_uuid())
}

fn outcome_key(namespace: &Namespace, instance: &InstanceRef, run: RunId) -> Vec<u8> {
    Key::of_instance(Table::Outcome, namespace, instance)
        .uuid(run.as_uuid())
        .end()
}
