//! The commit of a turn, and what follows from it: rules 2 and 3 of the commit protocol.

use tracing::{debug, warn};

use super::activation::{Activation, Step};
use super::state::{Live, Renewal};
use super::turn::Draft;
use crate::backend::{ClaimTerms, Commit, Committed, Mark, Record, Result};
use crate::engine::{Effect, claim_terms, effects_of, encode, ended_by};
use crate::fault::{Defect, fault_point, planted};
use crate::model::{CommitId, Sequence, Status, Timestamp};
use crate::replay::Execution;
use crate::replay::history::{HistoryEvent, Turn};
use crate::wire::Item;

/// A turn as it is to be stored, and what is to be made of it then.
struct Composed {
    commit: Commit,
    effects: Vec<Effect>,
    /// The execution that this turn ends by continue-as-new begins anew with this.
    renewal: Option<Renewal>,
    /// Events in the turn.
    events: usize,
}

impl Activation<'_> {
    /// Commits what was drawn up, makes its effects, and lets go of the items that it has dealt with.
    pub(super) async fn commit(&mut self, state: &mut Live, execution: Execution, mut draft: Draft) -> Result<Step> {
        let composed = self.compose(&state.record, &execution, &mut draft);
        let Composed {
            commit,
            effects,
            renewal,
            events,
        } = composed;
        self.warn_of_size(&commit, events);
        let engine = &self.runtime.engine;
        if planted(Defect::PublishedFirst) {
            engine.make(self.instance, &state.record, effects.clone()).await?;
        }
        // A crash before this line costs nothing: the messages come again.
        fault_point("turn-drawn-up");
        let committed = if planted(Defect::LostReplyIsConflict) {
            match engine.store().commit(&commit).await {
                Err(error) if !error.is_permanent() => {
                    let mark = Mark::Turn(commit.version());
                    engine
                        .store()
                        .clear_mark(self.instance, commit.execution(), mark)
                        .await?;
                    Committed::Conflict
                }
                committed => committed?,
            }
        } else {
            engine.retrying("commit", || engine.store().commit(&commit)).await?
        };
        let (inbox_left, updated_at) = match committed {
            Committed::Applied { inbox_left, updated_at } => (inbox_left, updated_at),
            Committed::Conflict | Committed::Absent => {
                self.runtime.counters.conflicts.add();
                debug!(instance = %self.instance, version = commit.version(), "another worker was quicker; reading the state again");
                return Ok(Step::Reload);
            }
        };
        engine
            .confirmed
            .forget(self.instance, commit.guard.execution, &commit.cleared);
        self.runtime.counters.turns.add();
        self.is_current = true;
        applied(&mut state.record, &commit, updated_at);
        // A crash here: the turn is in the history and marked; whoever sees the instance next makes its effects.
        fault_point("turn-committed");
        // No code runs until they are made: others may run theirs, and if that is deadly, it is not for this turn.
        self.is_through().await;
        self.rest();
        let making = engine.make(self.instance, &state.record, effects);
        let are_made = engine.as_far_as_possible(self.instance, making).await?.is_some();
        // A crash here: the effects are made again, which changes nothing.
        fault_point("turn-effects-made");
        let status = commit.status;
        let mark = Mark::Turn(commit.version());
        if are_made {
            // Of an earlier turn some effects may be left: the check stays, then.
            state.record.marks.retain(|left| *left != mark);
            // More than can be cleared and settled in time: whoever comes next waits, too, and what has not been opened stays closed (I7).
            let _waiting = engine.confirmed.is_full().then(|| self.runtime.room.enter());
            let is_over = status.is_terminal() && state.record.marks.is_empty();
            let end = is_over.then(|| state.record.end());
            match (commit.marks.contains(&mark), end) {
                (true, end) => {
                    engine
                        .has_confirmed(self.instance, commit.execution(), mark, end)
                        .await?
                }
                (false, Some(end)) => engine.has_ended(self.instance, end).await?,
                (false, None) => {}
            }
        }
        fault_point("turn-confirmed");
        // A crash here: the messages come again and are found in the history.
        self.finish(draft.consumed, draft.ahead, draft.dropped).await?;
        // It has begun, and may be over.
        self.items
            .retain(|item| !matches!(item, Item::Start(start) if start.execution == commit.execution()));
        debug!(instance = %self.instance, version = commit.version(), events, %status, "turn committed");
        state.renewal = renewal;
        state.execution = (!execution.is_over()).then_some(execution);
        // They stand at the front of the stored inbox again: the next turn reads them first, so that nothing overtakes them.
        state.inbox = draft.inbox_kept;
        let has_unread = inbox_left > state.inbox.len() && !status.is_terminal() && !planted(Defect::InboxStaysUnread);
        Ok(match status {
            _ if has_unread && status != Status::Suspended => Step::Reload,
            _ if state.renewal.is_some() => Step::Again,
            _ if self.items.is_empty() => Step::Done,
            _ => Step::Again,
        })
    }

    /// The turn in the form that the store takes.
    fn compose(&self, record: &Record, execution: &Execution, draft: &mut Draft) -> Composed {
        let is_first = draft.next_execution.is_some();
        let turn = Turn {
            version: if is_first { 1 } else { record.version + 1 },
            commit: CommitId::generate(),
            at: draft.now,
            build: Some(self.runtime.build.clone()),
            events: std::mem::take(&mut draft.events),
        };
        let encoded = turn.encode();
        let effects = effects_of(
            self.instance,
            draft.next_execution.unwrap_or(record.execution),
            record.lane,
            record.origin.parent.as_ref(),
            &turn,
        );
        let renewal = turn.events.last().and_then(Renewal::from_event);
        let ended = turn.events.iter().find_map(ended_by);
        let status = match &ended {
            Some((status, _)) => *status,
            None if draft.is_suspended => Status::Suspended,
            None => Status::Running,
        };
        let mut view = record.view.clone();
        if is_first {
            view.generation += 1;
            view.history_events = 0;
            view.history_bytes = 0;
        }
        view.started_at.get_or_insert(draft.now);
        view.custom_status = execution.custom_status().or(view.custom_status);
        view.waiting = execution.waiting();
        view.commanded_at = draft.commanded_at;
        view.stall = None;
        view.history_events += turn.events.len() as u64;
        view.history_bytes += encoded.len() as u64;
        let has_effects = if planted(Defect::TimerIsNoEffect) {
            effects.iter().any(|effect| !matches!(effect, Effect::Schedule(_)))
        } else {
            !effects.is_empty()
        };
        let turn_mark = has_effects.then_some(Mark::Turn(turn.version));
        let run_mark = renewal.is_some().then_some(Mark::Run);
        let start_mark = record.marks.contains(&Mark::Start).then_some(Mark::Start);
        let confirmed = self.runtime.engine.confirmed.turns(self.instance, record.execution);
        let cancelled = turn.events.iter().filter_map(|event| match event {
            HistoryEvent::TimerCancelled { sequence } => Some(*sequence),
            _ => None,
        });
        let commit = Commit {
            instance: self.instance.clone(),
            guard: record.guard(),
            id: turn.commit,
            turn: encoded,
            next_execution: draft.next_execution,
            status,
            lane: record.lane,
            view,
            outcome: ended.map(|(_, outcome)| outcome),
            drop_input: record.input.is_some(),
            inbox_taken: draft.inbox_taken,
            inbox_kept: draft.inbox_kept.iter().map(encode).collect(),
            marks: turn_mark.into_iter().chain(run_mark).collect(),
            cleared: start_mark.into_iter().chain(confirmed).collect(),
            claims_opened: claims_opened(&turn),
            claims_closed: draft.claims_closed.iter().copied().chain(cancelled).collect(),
        };
        Composed {
            commit,
            effects,
            renewal,
            events: turn.events.len(),
        }
    }

    fn warn_of_size(&self, commit: &Commit, added: usize) {
        let (limit, after) = (self.runtime.settings.limits.history_events, commit.view.history_events);
        if after >= limit && after - (added as u64) < limit {
            warn!(instance = %self.instance, events = limit, "the history grows long; consider continue-as-new");
        }
    }

    /// Lets go of the items that a turn has dealt with, on a state that is known to be current.
    pub(super) async fn finish(&mut self, consumed: usize, ahead: Vec<Item>, dropped: Vec<&'static str>) -> Result<()> {
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
}

fn claims_opened(turn: &Turn) -> Vec<(Sequence, ClaimTerms)> {
    let open = turn.events.iter().filter_map(|event| match event {
        HistoryEvent::TaskScheduled { sequence, limits, .. } if !limits.is_empty() => {
            Some((*sequence, claim_terms(limits, turn.at)))
        }
        _ => None,
    });
    open.collect()
}

/// What a commit has made of the record.
fn applied(record: &mut Record, commit: &Commit, updated_at: Timestamp) {
    record.execution = commit.execution();
    record.version = commit.version();
    record.commit = Some(commit.id);
    record.status = commit.status;
    record.lane = commit.lane;
    record.view = commit.view.clone();
    record.outcome.clone_from(&commit.outcome);
    record.input = None;
    record.updated_at = updated_at;
    let is_renewed = commit.next_execution.is_some();
    record
        .marks
        .retain(|mark| !commit.cleared.contains(mark) && (!is_renewed || *mark != Mark::Run));
    record.marks.extend(&commit.marks);
    if commit.status.is_terminal() {
        record.ended_at = Some(updated_at);
    }
}
