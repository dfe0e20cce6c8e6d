//! Stalls: an instance whose code cannot go on here is marked as such, with the reason, and waits.

use tracing::warn;

use super::activation::{Activation, Step};
use super::homes::Successor;
use super::state::Live;
use super::turn::Opening;
use crate::backend::{Commit, Committed, Record, Result, Stall, View, WorkerInfo};
use crate::model::{CommitId, Lane, StallReason, Status};
use crate::replay::Stuck;
use crate::replay::history::Turn;

impl Activation<'_> {
    /// Marks the instance as stalled; nothing of it is lost. If it stalls here as it did before, nothing is written.
    pub(super) async fn stall(&mut self, state: &mut Live, stuck: Stuck) -> Result<Step> {
        // The commit's guard sees to it that no stale state stalls an instance.
        self.stall_record(&state.record, stuck).await
    }

    pub(super) async fn stall_record(&mut self, record: &Record, stuck: Stuck) -> Result<Step> {
        let known = record.view.stall.as_ref().filter(|_| record.status == Status::Stalled);
        if known.is_some_and(|stall| stall.build == self.runtime.build && stall.reason == stuck.reason) {
            return Ok(Step::Reload);
        }
        warn!(instance = %self.instance, reason = %stuck.reason, "the instance is stalled: {}", stuck.message);
        let build = self.runtime.build.clone();
        let before = known
            .into_iter()
            .flat_map(|stall| stall.tried.iter().chain([&stall.build]));
        let mut tried: Vec<_> = before.filter(|tried| **tried != build).cloned().collect();
        tried.drain(..tried.len().saturating_sub(Stall::TRIED));
        let mut view = record.view.clone();
        view.stall = Some(Stall {
            reason: stuck.reason,
            message: stuck.message,
            build,
            tried,
            since: self.runtime.now(),
        });
        let commit = self.empty_commit(
            record,
            Status::Stalled,
            record.lane.or_else(|| self.runtime.lanes.pick(self.runtime.now())),
            view,
        );
        if self.commit_empty(commit).await? {
            let engine = &self.runtime.engine;
            if let Some(record) = engine
                .retrying("record", || engine.store().record(self.instance))
                .await?
            {
                engine
                    .retrying("index", || engine.store().index(self.instance, &record))
                    .await?;
            }
        }
        Ok(Step::Reload)
    }

    /// Tries a stalled instance with the code that is here.
    pub(super) async fn unstall(&mut self, state: &mut Live, is_asked_for: bool) -> Result<Step> {
        let stall = state.record.view.stall.clone();
        let tried =
            stall.filter(|stall| stall.has_tried(&self.runtime.build) && stall.reason != StallReason::NotRegistered);
        if let Some(stall) = tried
            && (!is_asked_for || stall.reason.is_of_the_code())
        {
            // This code has been tried. If a worker of another build is up, it is that one's turn.
            let workflow = state.record.origin.workflow.clone();
            let fits = |worker: &WorkerInfo| !stall.has_tried(&worker.build);
            if let Successor::Holds(lane) = self.successor(&workflow, fits).await? {
                return self.hand_over(state, lane).await;
            }
            if stall.reason == StallReason::Crashed {
                // It would take this worker down as it did others. A resume is a person's word that it will not.
                return Ok(Step::Again);
            }
        }
        if let Some(refused) = self.prepare(state).await? {
            return Ok(refused);
        }
        if state.renewal.is_some() {
            return self.renew(state).await;
        }
        // One that stalled before its first turn still has its input.
        let opening = if state.record.input.is_some() {
            Opening::First
        } else {
            Opening::Unstall
        };
        self.turn(state, Some(opening)).await
    }

    pub(super) fn empty_commit(&self, record: &Record, status: Status, lane: Option<Lane>, view: View) -> Commit {
        let turn = Turn {
            version: record.version + 1,
            commit: CommitId::generate(),
            at: self.runtime.now().max(record.updated_at),
            build: Some(self.runtime.build.clone()),
            events: Vec::new(),
        };
        Commit {
            instance: self.instance.clone(),
            guard: record.guard(),
            id: turn.commit,
            turn: turn.encode(),
            next_execution: None,
            status,
            lane,
            view,
            outcome: None,
            drop_input: false,
            inbox_taken: 0,
            inbox_kept: Vec::new(),
            marks: Vec::new(),
            cleared: Vec::new(),
            claims_opened: Vec::new(),
            claims_closed: Vec::new(),
        }
    }

    pub(super) async fn commit_empty(&self, commit: Commit) -> Result<bool> {
        let engine = &self.runtime.engine;
        let committed = engine.retrying("commit", || engine.store().commit(&commit)).await?;
        Ok(matches!(committed, Committed::Applied { .. }))
    }
}
