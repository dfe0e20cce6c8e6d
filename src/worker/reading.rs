//! Reading an instance: its record, its history and its inbox, with the marks driven that it has; and what becomes of one that cannot be read.

use tracing::error;

use super::activation::{Activation, Step};
use super::state::{Live, OpenCalls};
use crate::backend::{Error, Loaded, Mark, Record, Result};
use crate::model::{StallReason, Status};
use crate::replay::Stuck;
use crate::replay::history::Turn;
use crate::wire::Item;

impl Activation<'_> {
    /// Reads the state, and drives the marks that it has: whatever happens to our items next, nothing of the instance is left unmade. `None` if there
    /// is none, or none that can be read.
    pub(super) async fn read(&mut self) -> Result<Option<Live>> {
        let engine = &self.runtime.engine;
        loop {
            let most = self.runtime.settings.limits.turn_events;
            let loaded = engine
                .retrying("load", || engine.store().load(self.instance, 0, most))
                .await;
            let loaded = match loaded {
                Err(error) if error.is_permanent() => return self.without_readable_record(error).await.map(|()| None),
                loaded => loaded?,
            };
            let Some(loaded) = loaded else { return Ok(None) };
            let marks = self.drive_turns(&loaded.record).await?;
            let Some(more) = self.rest_of_history(&loaded).await? else {
                continue;
            };
            let mut state = match Live::read(&loaded, &more) {
                Ok(state) => state,
                Err(problem) if self.without_history(&loaded, &more, &problem).await? => return Ok(None),
                Err(_) => continue,
            };
            state.record.marks = marks;
            self.is_current = true;
            return Ok(Some(state));
        }
    }

    /// Makes what the record's turns may have left unmade, as far as it can be made; the marks that stay. (A start's is cleared by the first turn, which is
    /// what we are here for.)
    pub(super) async fn drive_turns(&mut self, record: &Record) -> Result<Vec<Mark>> {
        let (of_turns, others): (Vec<Mark>, Vec<Mark>) =
            record.marks.iter().partition(|mark| matches!(mark, Mark::Turn(_)));
        if of_turns.is_empty() {
            return Ok(others);
        }
        let outstanding = Record {
            marks: of_turns,
            ..record.clone()
        };
        self.rest();
        let engine = &self.runtime.engine;
        let driving = engine.drive_marks(self.instance, &outstanding);
        let are_driven = engine.as_far_as_possible(self.instance, driving).await? == Some(true);
        Ok(if are_driven { others } else { record.marks.clone() })
    }

    /// Not even the record can be read. What came waits in the inbox, which can be filled unread: handed back again and again, it would hold up the lane.
    async fn without_readable_record(&mut self, error: Error) -> Result<()> {
        error!(instance = %self.instance, %error, "the instance's record cannot be read: nothing of it goes on until a worker comes that can, or the record is mended");
        if self.items.iter().any(|item| matches!(item, Item::Start(_))) {
            return Err(error);
        }
        self.all_parked().await
    }

    /// The stored state cannot be read: the instance stalls, and what came waits in its inbox for a worker that can, unless it is to end. False if the
    /// state is to be read again first.
    async fn without_history(&mut self, loaded: &Loaded, more: &[bytes::Bytes], problem: &str) -> Result<bool> {
        let record = &loaded.record;
        if record.status.is_terminal() {
            self.drop_all();
            return Ok(true);
        }
        if let Some((reason, recursive)) = self.awaited_end(record, &[]) {
            // The children that end with it are those that can be read of.
            let turns = loaded
                .turns
                .iter()
                .chain(more)
                .filter_map(|bytes| Turn::decode(bytes).ok());
            let events = OpenCalls::of(turns).terminate(reason, recursive);
            let now = self.runtime.now().max(record.updated_at);
            self.runtime
                .engine
                .commit_plain(self.instance, record, now, events)
                .await?;
            return Ok(false);
        }
        // One that is suspended stays so, or it would run as soon as it can be read.
        let is_to_run = record.status != Status::Suspended || self.items.iter().any(|item| self.resumes(item, record));
        if is_to_run {
            let stuck = Stuck {
                reason: StallReason::Unreadable,
                message: problem.to_owned(),
            };
            self.stall_record(record, stuck).await?;
        }
        Ok(matches!(self.all_to_inbox().await?, Step::Done))
    }

    /// The turns after the first page, as far as they are there; `None` if the instance began another execution meanwhile.
    async fn rest_of_history(&self, loaded: &Loaded) -> Result<Option<Vec<bytes::Bytes>>> {
        let engine = &self.runtime.engine;
        let (mut more, execution, version) = (Vec::new(), loaded.record.execution, loaded.record.version);
        let mut have = loaded.turns.len() as u64;
        while have < version {
            let page = engine
                .retrying("turns", || {
                    engine.store().turns(self.instance, execution, have, Loaded::TURNS)
                })
                .await?;
            if page.is_empty() {
                let record = engine
                    .retrying("record", || engine.store().record(self.instance))
                    .await?;
                let is_same = record.is_some_and(|record| record.execution == execution);
                return Ok(is_same.then_some(more));
            }
            // Turns that were committed since belong to another state than the one that was loaded.
            let wanted = page.into_iter().take((version - have) as usize);
            more.extend(wanted);
            have = loaded.turns.len() as u64 + more.len() as u64;
        }
        Ok(Some(more))
    }
}
