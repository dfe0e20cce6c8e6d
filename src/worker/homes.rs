//! Homes: the lane of an instance, and what to do with one whose code is elsewhere.

use tracing::debug;

use super::activation::{Activation, Step};
use super::state::Live;
use crate::backend::{Error, Queue, Record, Result, WorkerInfo};
use crate::model::{Lane, StallReason, Status};
use crate::replay::Stuck;
use crate::wire::{Item, WakeItem};

/// Another worker that could run an instance's code.
pub(super) enum Successor {
    /// It holds this lane.
    Holds(Lane),
    /// It holds none, as far as is known.
    Waits,
    /// There is none.
    Nobody,
}

impl Activation<'_> {
    /// True if the instance is at home in a lane that another worker holds, and its items came by another lane.
    pub(super) fn is_elsewhere(&self, record: &Record) -> bool {
        match (record.lane, self.lane) {
            (Some(home), Some(came)) => home != came && !self.runtime.lanes.holds(home),
            _ => false,
        }
    }

    /// Sends the items on to the instance's lane.
    pub(super) async fn forward(&mut self, record: &Record) -> Result<Step> {
        if !self.is_current {
            return Ok(Step::Reload);
        }
        let Some(lane) = record.lane else {
            return Ok(Step::Reload);
        };
        let queue = Queue::Events(self.instance.app.clone(), lane);
        while let Some(item) = self.items.front() {
            if !matches!(item, Item::Start(_) | Item::Probe(_)) {
                match self.runtime.engine.outbox.send(queue.clone(), item.clone()).await {
                    Err(error) if matches!(item, Item::Wake(_)) && !error.is_permanent() => {
                        debug!(instance = %self.instance, %error, "a wake was not sent on; the instance's check wakes it");
                    }
                    sent => sent?,
                }
            }
            self.items.pop_front();
        }
        Ok(Step::Done)
    }

    /// The workflow is not registered here: another live worker that knows it takes the instance over; if there is none, it stalls.
    pub(super) async fn homeless(&mut self, state: &mut Live) -> Result<Step> {
        if !self.is_current {
            return Ok(Step::Reload);
        }
        let workflow = state.record.origin.workflow.clone();
        match self.successor(&workflow, |_| true).await? {
            Successor::Holds(lane) => self.hand_over(state, lane).await,
            Successor::Waits => Err(Error::transient(format!(
                "a worker that knows workflow `{workflow}` holds no lane yet"
            ))),
            Successor::Nobody => {
                let message = format!(
                    "workflow `{workflow}` is not registered by any live worker of app {}: start one that registers it",
                    self.instance.app
                );
                self.stall(
                    state,
                    Stuck {
                        reason: StallReason::NotRegistered,
                        message,
                    },
                )
                .await
            }
        }
    }

    /// Who else of the app could run the workflow.
    pub(super) async fn successor(&self, workflow: &str, fits: impl Fn(&WorkerInfo) -> bool) -> Result<Successor> {
        let engine = &self.runtime.engine;
        let mut workers = engine
            .retrying("workers", || engine.store().workers(&self.runtime.app))
            .await?;
        workers.retain(|worker| {
            worker.id != self.runtime.id && worker.workflows.iter().any(|known| known == workflow) && fits(worker)
        });
        // A lane that we hold was another's at its last sign of life, which may have been its last.
        let mut lanes = workers
            .iter()
            .flat_map(|worker| &worker.lanes)
            .filter(|lane| !self.runtime.lanes.holds(**lane));
        Ok(match lanes.next() {
            Some(lane) => Successor::Holds(*lane),
            None if workers.is_empty() => Successor::Nobody,
            None => Successor::Waits,
        })
    }

    /// Makes another worker's lane the instance's home, and sends what waits there.
    pub(super) async fn hand_over(&mut self, state: &mut Live, lane: Lane) -> Result<Step> {
        debug!(instance = %self.instance, lane, "moved to the lane of another worker, whose code may fit");
        if state.record.status != Status::Pending && !self.move_to(state, lane).await? {
            return Ok(Step::Reload);
        }
        if self.items.is_empty() {
            self.items.push_back(Item::Wake(WakeItem {
                instance: self.instance.clone(),
            }));
        }
        let record = Record {
            lane: Some(lane),
            ..state.record.clone()
        };
        self.forward(&record).await
    }

    /// Moves the instance to another lane.
    pub(super) async fn move_to(&mut self, state: &mut Live, lane: Lane) -> Result<bool> {
        let commit = self.empty_commit(
            &state.record,
            state.record.status,
            Some(lane),
            state.record.view.clone(),
        );
        self.commit_empty(commit).await
    }
}
