//! A turn: events applied, code run, history committed, effects made.

use tracing::{debug, warn};

use super::activation::{Activation, Step};
use super::state::{Live, Renewal};
use crate::backend::{Commit, Committed, Mark, Queue, Record, Result};
use crate::engine::{claim_terms, effects_of, ended_by, started};
use crate::fault::fault_point;
use crate::model::{CommitId, ExecutionId, Payload, Sequence, Status, Timestamp, kinds};
use crate::replay::history::{HistoryEvent, Turn};
use crate::replay::{Execution, Intake, Stuck};
use crate::wire::{Item, Outcome, WakeItem};

/// How a turn begins, if not with what waits.
pub(super) enum Opening {
    /// The first turn of an instance.
    First,
    /// The first turn after continue-as-new.
    Renewed(Renewal),
    /// A suspended instance goes on: its first waiting item is the command.
    Resume,
    /// A stalled instance goes on.
    Unstall,
}

/// What a turn has gathered before its commit.
pub(super) struct Draft {
    pub(super) now: Timestamp,
    pub(super) execution_id: ExecutionId,
    next_execution: Option<ExecutionId>,
    events: Vec<HistoryEvent>,
    inbox_taken: usize,
    inbox_kept: Vec<Item>,
    /// Items of the activation that this turn has dealt with.
    consumed: usize,
    /// Of these, the ones that are ahead of the state.
    ahead: Vec<Item>,
    claims_closed: Vec<Sequence>,
    dropped: Vec<&'static str>,
    is_suspended: bool,
    must_commit: bool,
}

impl Activation<'_> {
    /// Runs one turn on what waits.
    pub(super) async fn turn(&mut self, state: &mut Live, opening: Option<Opening>) -> Result<Step> {
        let Some(mut execution) = state.execution.take() else {
            return Ok(Step::Reload);
        };
        // The record's times never go back, even if the clock of the store's new primary does.
        let now = self.runtime.now().max(state.record.updated_at);
        let mut draft = Draft {
            now,
            execution_id: execution.id(),
            next_execution: matches!(opening, Some(Opening::Renewed(_))).then(|| execution.id()),
            events: Vec::new(),
            inbox_taken: 0,
            inbox_kept: Vec::new(),
            consumed: 0,
            ahead: Vec::new(),
            claims_closed: Vec::new(),
            dropped: Vec::new(),
            is_suspended: state.record.status == Status::Suspended,
            must_commit: matches!(opening, Some(Opening::Unstall)),
        };
        if let Err(stuck) = self.draw_up(state, &mut execution, &mut draft, opening).await? {
            return self.stall(state, stuck).await;
        }
        if draft.events.is_empty() && !draft.must_commit && draft.inbox_taken == draft.inbox_kept.len() {
            return self.settle_without_commit(state, execution, draft).await;
        }
        self.commit(state, execution, draft).await
    }

    /// Applies what waits, one event after the other.
    async fn draw_up(
        &mut self,
        state: &mut Live,
        execution: &mut Execution,
        draft: &mut Draft,
        opening: Option<Opening>,
    ) -> Result<Result<(), Stuck>> {
        if let Err(stuck) = execution.begin_turn(draft.now) {
            return Ok(Err(stuck));
        }
        let first = match opening {
            Some(Opening::First) => Some(started(
                &state.record,
                state.record.input.clone().unwrap_or_else(Payload::null),
                state.record.run,
            )),
            Some(Opening::Renewed(renewal)) => Some(HistoryEvent::ExecutionStarted {
                workflow: state.record.origin.workflow.clone(),
                input: renewal.input,
                run: state.record.run,
                generation: state.record.view.generation + 1,
                parent: state.record.origin.parent.clone(),
                tags: state.record.origin.tags.clone(),
                carried: renewal.carried,
                seen: renewal.seen,
            }),
            Some(Opening::Resume | Opening::Unstall) | None => None,
        };
        if let Some(first) = first
            && let Err(stuck) = execution.advance(first, &mut draft.events)
        {
            return Ok(Err(stuck));
        }
        if !draft.is_suspended {
            let inbox = std::mem::take(&mut state.inbox);
            draft.inbox_taken = inbox.len();
            for item in inbox {
                // What the turn cannot take any more waits on, in its order.
                if execution.is_over() || draft.is_suspended {
                    draft.inbox_kept.push(item);
                    continue;
                }
                match self.take_in(&state.record, execution, draft, &item).await? {
                    Ok(true) => {}
                    Ok(false) => draft.inbox_kept.push(item),
                    Err(stuck) => return Ok(Err(stuck)),
                }
            }
        }
        while let Some(item) = self.items.get(draft.consumed).cloned() {
            let was_suspended = draft.is_suspended;
            if execution.is_over()
                || draft.events.len() >= self.runtime.settings.limits.turn_events
                || (was_suspended && draft.consumed > 0)
            {
                break;
            }
            match self.take_in(&state.record, execution, draft, &item).await? {
                Ok(true) => {}
                Ok(false) => draft.ahead.push(item),
                Err(stuck) => return Ok(Err(stuck)),
            }
            draft.consumed += 1;
            if draft.is_suspended || was_suspended {
                // From here on other rules hold; a resumed instance reads its inbox first.
                break;
            }
        }
        Ok(Ok(()))
    }

    /// Applies one item. False if it is ahead of the state.
    async fn take_in(
        &self,
        record: &Record,
        execution: &mut Execution,
        draft: &mut Draft,
        item: &Item,
    ) -> Result<Result<bool, Stuck>> {
        let intake = execution.examine(item);
        let event = match intake {
            Intake::Accept(event) => Some(event),
            Intake::Deadline(sequence) => self.settle_deadline(draft, sequence, item).await?,
            Intake::ChildDeadline {
                sequence,
                child,
                limits,
                since,
            } => {
                self.settle_child_deadline(draft, sequence, child, limits, since, item)
                    .await?
            }
            Intake::Seen => {
                if !matches!(item, Item::Wake(_) | Item::Start(_) | Item::Probe(_)) {
                    draft.dropped.push("already in history");
                }
                None
            }
            Intake::Stray(reason) => {
                draft.dropped.push(reason);
                None
            }
            Intake::Ahead => return Ok(Ok(false)),
        };
        let Some(event) = event else { return Ok(Ok(true)) };
        if let Item::Completion(completion) = item {
            if matches!(&completion.outcome, Outcome::Failed(failure) if failure.kind == kinds::APP_NOT_FOUND)
                && self.resend(record, completion.task.sequence).await?
            {
                draft.dropped.push("app not found, but it is there");
                return Ok(Ok(true));
            }
            if completion.progressed {
                draft.claims_closed.push(completion.task.sequence);
            }
        }
        match &event {
            HistoryEvent::ExecutionSuspended { .. } => draft.is_suspended = true,
            HistoryEvent::ExecutionResumed { .. } if !draft.is_suspended => return Ok(Ok(true)),
            HistoryEvent::ExecutionResumed { .. } => draft.is_suspended = false,
            _ => {}
        }
        Ok(execution.advance(event, &mut draft.events).map(|()| true))
    }

    /// Nothing that waits has changed anything. Before it is dropped for that, the state must be known to be current.
    async fn settle_without_commit(&mut self, state: &mut Live, execution: Execution, draft: Draft) -> Result<Step> {
        if !self.is_current {
            let engine = &self.runtime.engine;
            let record = engine
                .retrying("record", || engine.store().record(self.instance))
                .await?;
            match record {
                Some(record) if record.guard() == state.record.guard() && record.status == state.record.status => {
                    // What another worker may have left unmade is made before our messages are let go.
                    if !record.marks.is_empty() {
                        return Ok(Step::Reload);
                    }
                    self.is_current = true;
                }
                _ => return Ok(Step::Reload),
            }
        }
        state.execution = Some(execution);
        state.inbox = draft.inbox_kept;
        self.finish(draft.consumed, draft.ahead, draft.dropped).await?;
        Ok(if self.items.is_empty() { Step::Done } else { Step::Again })
    }

    /// Lets go of the items that a turn has dealt with, on a state that is known to be current.
    async fn finish(&mut self, consumed: usize, ahead: Vec<Item>, dropped: Vec<&'static str>) -> Result<()> {
        for item in ahead {
            self.park(&item).await?;
        }
        self.items.drain(..consumed);
        for reason in dropped {
            debug!(instance = %self.instance, reason, "item dropped");
            self.runtime.counters.dropped(reason);
        }
        Ok(())
    }

    async fn commit(&mut self, state: &mut Live, execution: Execution, draft: Draft) -> Result<Step> {
        let Draft {
            now,
            next_execution,
            events,
            inbox_taken,
            inbox_kept,
            consumed,
            ahead,
            claims_closed,
            dropped,
            is_suspended,
            ..
        } = draft;
        let record = &state.record;
        let turn = Turn {
            version: if next_execution.is_some() {
                1
            } else {
                record.version + 1
            },
            commit: CommitId::generate(),
            at: now,
            build: Some(self.runtime.build.clone()),
            events,
        };
        let ended = turn.events.iter().find_map(ended_by);
        let renewal = turn.events.last().and_then(Renewal::from_event);
        let encoded = turn.encode();
        let mut view = record.view.clone();
        if next_execution.is_some() {
            view.generation += 1;
            view.history_events = 0;
            view.history_bytes = 0;
        }
        view.started_at.get_or_insert(now);
        view.custom_status = execution.custom_status().or(view.custom_status);
        view.waiting = execution.waiting();
        view.stall = None;
        self.warn_of_size(view.history_events, turn.events.len());
        view.history_events += turn.events.len() as u64;
        view.history_bytes += encoded.len() as u64;
        let execution_id = next_execution.unwrap_or(record.execution);
        let effects = effects_of(
            self.instance,
            execution_id,
            record.lane,
            record.origin.parent.as_ref(),
            &turn,
        );
        let mut marks = Vec::new();
        if !effects.is_empty() {
            marks.push(Mark::Turn(turn.version));
        }
        if renewal.is_some() {
            marks.push(Mark::Run);
        }
        let mut claims_closed = claims_closed;
        claims_closed.extend(turn.events.iter().filter_map(|event| match event {
            HistoryEvent::TimerCancelled { sequence } => Some(*sequence),
            _ => None,
        }));
        let status = match &ended {
            Some((status, _)) => *status,
            None if is_suspended => Status::Suspended,
            None => Status::Running,
        };
        let commit = Commit {
            instance: self.instance.clone(),
            guard: record.guard(),
            id: turn.commit,
            turn: encoded,
            next_execution,
            status,
            lane: record.lane,
            view: view.clone(),
            outcome: ended.map(|(_, outcome)| outcome),
            drop_input: true,
            inbox_taken,
            inbox_kept: inbox_kept.iter().map(encode_item).collect(),
            marks: marks.clone(),
            cleared: if record.marks.contains(&Mark::Start) {
                vec![Mark::Start]
            } else {
                Vec::new()
            },
            claims_opened: claims_opened(&turn),
            claims_closed,
        };
        let engine = &self.runtime.engine;
        // A crash before this line costs nothing: the messages come again.
        fault_point("turn-drawn-up");
        let committed = engine.retrying("commit", || engine.store().commit(&commit)).await?;
        let inbox_left = match committed {
            Committed::Applied { inbox_left } => inbox_left,
            Committed::Conflict | Committed::Absent => {
                self.runtime.counters.conflicts.add();
                debug!(instance = %self.instance, version = turn.version, "another worker was quicker; reading the state again");
                return Ok(Step::Reload);
            }
        };
        self.runtime.counters.turns.add();
        self.is_current = true;
        applied(&mut state.record, &commit, now);
        // A crash here: the turn is in the history and marked; whoever sees the instance next makes its effects.
        fault_point("turn-committed");
        engine.make(self.instance, &state.record, effects).await?;
        // A crash here: the effects are made again, which changes nothing.
        fault_point("turn-effects-made");
        if marks.contains(&Mark::Turn(turn.version)) {
            engine
                .retrying("clear mark", || {
                    engine
                        .store()
                        .clear_mark(self.instance, execution_id, Mark::Turn(turn.version))
                })
                .await?;
        }
        state.record.marks.retain(|mark| *mark != Mark::Turn(turn.version));
        fault_point("turn-mark-cleared");
        if status.is_terminal() {
            engine.forget_check(self.instance, &state.record).await?;
        }
        // A crash here: the messages come again and are found in the history.
        self.finish(consumed, ahead, dropped).await?;
        debug!(instance = %self.instance, version = turn.version, events = turn.events.len(), %status, "turn committed");
        state.renewal = renewal;
        state.execution = (!execution.is_over()).then_some(execution);
        // They stand at the front of the stored inbox again: the next turn reads them first, so that nothing overtakes them.
        state.inbox = inbox_kept;
        let has_unread = inbox_left > state.inbox.len() && !status.is_terminal();
        Ok(match status {
            _ if has_unread && status != Status::Suspended => Step::Reload,
            _ if state.renewal.is_some() => Step::Again,
            _ if self.items.is_empty() => Step::Done,
            _ => Step::Again,
        })
    }

    fn warn_of_size(&self, before: u64, added: usize) {
        let limit = self.runtime.settings.limits.history_events;
        if before < limit && before + added as u64 >= limit {
            warn!(instance = %self.instance, events = limit, "the history grows long; consider continue-as-new");
        }
    }

    /// Begins the next execution after continue-as-new.
    pub(super) async fn renew(&mut self, state: &mut Live) -> Result<Step> {
        if self.generations >= self.runtime.settings.limits.generations {
            // Others have waited long enough. What came waits in the inbox, where nothing that comes later overtakes it; the mark `run` and this wake
            // see to it that the instance goes on.
            while let Some(item) = self.items.front() {
                if !matches!(item, Item::Start(_) | Item::Wake(_) | Item::Probe(_)) {
                    self.deliver(item, true).await?;
                }
                self.items.pop_front();
            }
            let lane = state.record.lane.unwrap_or_default();
            let wake = Item::Wake(WakeItem {
                instance: self.instance.clone(),
            });
            self.runtime
                .engine
                .outbox
                .send(Queue::Events(self.instance.app.clone(), lane), wake)
                .await?;
            return Ok(Step::Done);
        }
        self.generations += 1;
        let Some(renewal) = state.renewal.take() else {
            return Ok(Step::Reload);
        };
        let Some(code) = self
            .runtime
            .registry
            .find_workflow(&state.record.origin.workflow)
            .cloned()
        else {
            return Ok(Step::Reload);
        };
        state.execution = Some(Execution::new(
            self.instance.clone(),
            state.record.execution.next(),
            code,
            &self.runtime.settings.limits,
        ));
        self.turn(state, Some(Opening::Renewed(renewal))).await
    }

    /// Ends an instance whose code does not run, by its history alone.
    pub(super) async fn terminate_held(&mut self, state: &mut Live, reason: String, recursive: bool) -> Result<Step> {
        if !self.is_current || (state.turns.is_empty() && state.record.version > 0) {
            return Ok(Step::Reload);
        }
        let events = state.open_calls().terminate(reason, recursive);
        let applied = self
            .runtime
            .engine
            .commit_plain(
                self.instance,
                &state.record,
                self.runtime.now().max(state.record.updated_at),
                events,
            )
            .await?;
        if applied {
            self.runtime.counters.turns.add();
        }
        Ok(Step::Reload)
    }
}

fn encode_item(item: &Item) -> bytes::Bytes {
    rmp_serde::to_vec_named(item)
        .expect("an item holds only values that MessagePack can write")
        .into()
}

fn claims_opened(turn: &Turn) -> Vec<(Sequence, crate::backend::ClaimTerms)> {
    let open = turn.events.iter().filter_map(|event| match event {
        HistoryEvent::TaskScheduled { sequence, limits, .. } if !limits.is_empty() => {
            Some((*sequence, claim_terms(limits, turn.at)))
        }
        _ => None,
    });
    open.collect()
}

/// What a commit has made of the record.
fn applied(record: &mut Record, commit: &Commit, now: Timestamp) {
    record.execution = commit.execution();
    record.version = commit.version();
    record.commit = Some(commit.id);
    record.status = commit.status;
    record.lane = commit.lane;
    record.view = commit.view.clone();
    record.outcome.clone_from(&commit.outcome);
    record.input = None;
    record.updated_at = now;
    let is_renewed = commit.next_execution.is_some();
    record
        .marks
        .retain(|mark| !commit.cleared.contains(mark) && (!is_renewed || *mark != Mark::Run));
    record.marks.extend(&commit.marks);
    if commit.status.is_terminal() {
        record.ended_at = Some(now);
    }
}
