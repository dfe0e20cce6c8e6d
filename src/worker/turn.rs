//! A turn up to its commit: events applied, code run. [`super::commit`] is the rest.

use tracing::debug;

use super::activation::{Activation, Step};
use super::state::{Live, Renewal};
use crate::backend::{Mark, Queue, Record, Result};
use crate::engine::started;
use crate::fault::{Defect, planted};
use crate::model::{ExecutionId, Payload, Sequence, Status, Timestamp, kinds};
use crate::replay::history::HistoryEvent;
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
    pub(super) next_execution: Option<ExecutionId>,
    pub(super) events: Vec<HistoryEvent>,
    pub(super) inbox_taken: usize,
    pub(super) inbox_kept: Vec<Item>,
    /// Items of the activation that this turn has dealt with.
    pub(super) consumed: usize,
    /// Of these, the ones that are ahead of the state.
    pub(super) ahead: Vec<Item>,
    pub(super) claims_closed: Vec<Sequence>,
    pub(super) dropped: Vec<&'static str>,
    pub(super) is_suspended: bool,
    /// When the last suspend or resume that came in time was asked for.
    pub(super) commanded_at: Option<Timestamp>,
    must_commit: bool,
}

impl Draft {
    /// True if a suspend or a resume comes behind one that was asked for later; notes one that does not.
    fn is_late(&mut self, item: &Item) -> bool {
        let Item::Command(command) = item else { return false };
        if self.commanded_at > Some(command.issued_at) {
            self.dropped.push("a later suspend or resume came first");
            return true;
        }
        self.commanded_at = Some(command.issued_at);
        false
    }
}

impl Activation<'_> {
    /// Runs one turn on what waits.
    pub(super) async fn turn(&mut self, state: &mut Live, opening: Option<Opening>) -> Result<Step> {
        let Some(mut execution) = state.execution.take() else {
            return Ok(Step::Reload);
        };
        if planted(Defect::UnknownTaskIsDropped) && !self.is_current {
            self.items.retain(|item| execution.examine(item) != Intake::Ahead);
        }
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
            commanded_at: state.record.view.commanded_at,
            must_commit: matches!(opening, Some(Opening::Unstall)),
        };
        if let Err(stuck) = self.draw_up(state, &mut execution, &mut draft, opening).await? {
            return Box::pin(self.stall(state, stuck)).await;
        }
        if draft.events.is_empty() && !draft.must_commit && draft.inbox_taken == draft.inbox_kept.len() {
            return Box::pin(self.settle_without_commit(state, execution, draft)).await;
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
            Intake::Deadline(sequence) => Box::pin(self.settle_deadline(draft, sequence, item)).await?,
            Intake::ChildDeadline {
                sequence,
                child,
                limits,
                since,
            } => Box::pin(self.settle_child_deadline(draft, sequence, child, limits, since, item)).await?,
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
                && Box::pin(self.resend(record, completion)).await?
            {
                draft.dropped.push("app not found, but it is there");
                return Ok(Ok(true));
            }
            if completion.progressed {
                draft.claims_closed.push(completion.task.sequence);
            }
        }
        match &event {
            HistoryEvent::ExecutionSuspended { .. } | HistoryEvent::ExecutionResumed { .. } => {
                if draft.is_late(item) {
                    return Ok(Ok(true));
                }
                let was_suspended = draft.is_suspended;
                draft.is_suspended = matches!(event, HistoryEvent::ExecutionSuspended { .. });
                if !was_suspended && !draft.is_suspended {
                    // The suspend that it is meant for comes too late now, and has to be known as such.
                    draft.must_commit = true;
                    return Ok(Ok(true));
                }
            }
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
                    state.record.marks = self.drive_turns(&record).await?;
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

    /// Begins the next execution after continue-as-new.
    pub(super) async fn renew(&mut self, state: &mut Live) -> Result<Step> {
        if state.record.marks.iter().any(|mark| matches!(mark, Mark::Turn(_))) {
            // Effects are left of this execution, and no other begins before they are made: the instance's check makes them, and goes on.
            self.all_parked().await?;
            return Ok(Step::Done);
        }
        if self.generations >= self.runtime.settings.limits.generations {
            // Others have waited long enough. What came waits in the inbox, where nothing that comes later overtakes it; the mark `run` and this wake
            // see to it that the instance goes on.
            self.all_parked().await?;
            let lane = state.record.lane.unwrap_or_default();
            let wake = Item::Wake(WakeItem {
                instance: self.instance.clone(),
            });
            let queue = Queue::Events(self.instance.app.clone(), lane);
            if let Err(error) = self.runtime.engine.outbox.send(queue, wake).await {
                debug!(instance = %self.instance, %error, "the instance goes on with its next check");
            }
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
}
