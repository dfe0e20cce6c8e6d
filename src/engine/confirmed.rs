//! Marks whose effects this process saw confirmed. They are cleared with the instance's next commit, or by themselves after a moment: so a turn costs one
//! write, and nobody waits for the second.
//!
//! Until then the store shows them. If this process dies first, whoever sees the instance next makes the effects once more, which changes nothing but that
//! bodies of activities may run again: hence the moment is short.
//!
//! Ends are settled in the same rounds, those that left a mark and those that did not. If this process dies first, their checks do that.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{join, join_all};
use tracing::{debug, warn};

use super::Engine;
use crate::backend::{Mark, Record, Result};
use crate::fault::fault_point;
use crate::model::{ExecutionId, InstanceRef, Map, Timestamp};

/// A turn's mark is left to the next commit for so long.
const TURN_KEPT: Duration = Duration::from_millis(200);
/// A start's is left to the first turn for so long: less than its check waits.
const START_KEPT: Duration = Duration::from_secs(1);
/// How often is looked for what has been kept for long enough.
const LOOKED_EVERY: Duration = Duration::from_millis(20);
/// Instances whose marks or ends are kept at most (I7); those of others are cleared or settled at once.
pub(crate) const MOST_KEPT: usize = 16_384;
/// Marks that are cleared side by side.
const SIDE_BY_SIDE: usize = 256;

/// See the module.
#[derive(Clone, Default)]
pub(crate) struct Confirmed(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    marks: Map<InstanceRef, Vec<Kept>>,
    /// In the order in which they are looked at again.
    turns: VecDeque<(Timestamp, InstanceRef)>,
    starts: VecDeque<(Timestamp, InstanceRef)>,
    ended: VecDeque<(Timestamp, InstanceRef)>,
    /// Instances that are over and left no mark.
    unmarked: Vec<(InstanceRef, Box<Record>)>,
    /// Those of them that are being settled.
    settling: usize,
    is_being_cleared: bool,
    is_urgent: bool,
}

#[derive(Clone)]
struct Kept {
    execution: ExecutionId,
    mark: Mark,
    until: Timestamp,
    /// The record of an instance that is over: its end is settled once the last mark is cleared.
    end: Option<Box<Record>>,
}

impl Confirmed {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks of turns of the execution: a commit may clear them.
    pub(crate) fn turns(&self, instance: &InstanceRef, execution: ExecutionId) -> Vec<Mark> {
        let state = self.lock();
        let kept = state.marks.get(instance).into_iter().flatten();
        kept.filter(|kept| kept.execution == execution && kept.mark != Mark::Start)
            .map(|kept| kept.mark)
            .collect()
    }

    /// True if this process has published the first start of the execution a moment ago.
    pub(crate) fn has_started(&self, instance: &InstanceRef, execution: ExecutionId) -> bool {
        let state = self.lock();
        let mut kept = state.marks.get(instance).into_iter().flatten();
        kept.any(|kept| kept.execution == execution && kept.mark == Mark::Start)
    }

    /// These are cleared.
    pub(crate) fn forget(&self, instance: &InstanceRef, execution: ExecutionId, cleared: &[Mark]) {
        let mut state = self.lock();
        if let Some(kept) = state.marks.get_mut(instance) {
            kept.retain(|kept| kept.execution != execution || !cleared.contains(&kept.mark));
            if kept.is_empty() {
                state.marks.remove(instance);
            }
        }
    }

    /// The instance is gone. (If its ID is in use again, the marks of the new one are left to its first turn and its check.)
    pub(crate) fn forget_instance(&self, instance: &InstanceRef) {
        self.lock().marks.remove(instance);
    }

    /// Its first turn has cleared the mark of the start. (If its ID is in use again, that one's is left to its first turn and its check.)
    pub(crate) fn forget_start(&self, instance: &InstanceRef) {
        let mut state = self.lock();
        if let Some(kept) = state.marks.get_mut(instance) {
            kept.retain(|kept| kept.mark != Mark::Start);
            if kept.is_empty() {
                state.marks.remove(instance);
            }
        }
    }

    /// From now on nothing is left to a later commit: the process is to stop.
    pub(crate) fn hurry(&self) {
        self.lock().is_urgent = true;
    }

    /// True if no more is kept: marks are cleared, and ends settled, while whoever comes with them waits.
    pub(crate) fn is_full(&self) -> bool {
        self.len() >= MOST_KEPT
    }

    /// Instances of which something is kept.
    pub(crate) fn len(&self) -> usize {
        let state = self.lock();
        state.marks.len() + state.unmarked.len() + state.settling
    }
}

impl State {
    /// What has been kept for long enough, or everything.
    fn take(&mut self, now: Option<Timestamp>) -> Vec<(InstanceRef, Kept)> {
        let mut taken = Vec::new();
        for queue in [&mut self.turns, &mut self.starts, &mut self.ended] {
            while let Some((at, _)) = queue.front()
                && now.is_none_or(|now| *at <= now)
                && let Some((at, instance)) = queue.pop_front()
            {
                // They stay until they are cleared: whoever meets them meanwhile has to know them. Those of other times have their own places in the queues.
                let kept = self.marks.get(&instance).into_iter().flatten();
                let kept = kept.filter(|kept| kept.until == at);
                taken.extend(kept.map(|kept| (instance.clone(), kept.clone())));
            }
        }
        taken
    }
}

impl Engine {
    /// The effects that the mark stands for are made: nobody needs it any more. `end` is given if the instance is over: see [`Record::end`].
    ///
    /// # Errors
    /// If there are too many, so that it is cleared at once, and cannot be.
    pub(crate) async fn has_confirmed(
        &self,
        instance: &InstanceRef,
        execution: ExecutionId,
        mark: Mark,
        end: Option<Box<Record>>,
    ) -> Result<()> {
        let now = self.backend.clock().now();
        if self.confirmed.is_full() {
            let kept = Kept {
                execution,
                mark,
                until: now,
                end,
            };
            return Box::pin(self.clear_kept(instance, &kept)).await;
        }
        let mut state = self.confirmed.lock();
        let (queue, until) = match (&end, mark) {
            (Some(_), _) => (&mut state.ended, now),
            (None, Mark::Start) => (&mut state.starts, now + START_KEPT),
            (None, _) => (&mut state.turns, now + TURN_KEPT),
        };
        queue.push_back((until, instance.clone()));
        let kept = Kept {
            execution,
            mark,
            until,
            end,
        };
        state.marks.entry(instance.clone()).or_default().push(kept);
        self.clear_soon(&mut state);
        Ok(())
    }

    /// The instance is over and has left no mark: its end is settled in a moment. Nobody has to wait for that, as its check sees to it otherwise.
    ///
    /// # Errors
    /// If there are too many, so that it is settled at once, and cannot be.
    pub(crate) async fn has_ended(&self, instance: &InstanceRef, end: Box<Record>) -> Result<()> {
        if self.confirmed.is_full() {
            return Box::pin(self.settle_end(instance, &end)).await;
        }
        let mut state = self.confirmed.lock();
        state.unmarked.push((instance.clone(), end));
        self.clear_soon(&mut state);
        Ok(())
    }

    fn clear_soon(&self, state: &mut State) {
        if !std::mem::replace(&mut state.is_being_cleared, true) {
            self.tracker.spawn(clear_in_time(self.clone()));
        }
    }

    /// Clears all marks whose effects are made: another process is about to take over. (Ends are no matter to it.)
    pub(crate) async fn clear_confirmed(&self) {
        let all = self.confirmed.lock().take(None);
        self.clear_all(all).await;
    }

    async fn settle_all(&self, ends: Vec<(InstanceRef, Box<Record>)>) {
        for some in ends.chunks(SIDE_BY_SIDE) {
            join_all(some.iter().map(async |(instance, record)| {
                // A crash here: its check settles it.
                fault_point("end-kept");
                if let Err(error) = self.settle_end(instance, record).await
                    && !self.stop.is_cancelled()
                {
                    warn!(%instance, %error, "an end could not be noted; the instance's check notes it");
                }
            }))
            .await;
        }
    }

    async fn clear_all(&self, marks: Vec<(InstanceRef, Kept)>) {
        for some in marks.chunks(SIDE_BY_SIDE) {
            join_all(some.iter().map(async |(instance, kept)| {
                if let Err(error) = self.clear_kept(instance, kept).await
                    && !self.stop.is_cancelled()
                {
                    warn!(%instance, mark = %kept.mark, %error, "a mark could not be cleared: its effects are made again with the instance's check");
                }
                self.confirmed.forget(instance, kept.execution, &[kept.mark]);
            }))
            .await;
        }
    }

    async fn clear_kept(&self, instance: &InstanceRef, kept: &Kept) -> Result<()> {
        // A crash here: the mark is driven by whoever sees the instance next, though all was made and acknowledged.
        fault_point("mark-kept");
        if kept.mark == Mark::Start {
            return self.clear_first_start(instance, kept.execution).await;
        }
        let left = self.clear_mark(instance, kept.execution, kept.mark).await?;
        // A crash here: the check of what is over finds that nothing but its end is left to settle.
        fault_point("mark-cleared");
        match (&kept.end, left) {
            (Some(end), Some(0)) => {
                debug!(%instance, "over, with all effects made");
                self.settle_end(instance, end).await
            }
            _ => Ok(()),
        }
    }
}

/// Clears what no commit has cleared in time, until there is nothing.
async fn clear_in_time(engine: Engine) {
    loop {
        engine.backend.clock().sleep(LOOKED_EVERY).await;
        let now = engine.backend.clock().now();
        let (due, ends) = {
            let mut state = engine.confirmed.lock();
            let until = (!state.is_urgent).then_some(now);
            let (due, ends) = (state.take(until), std::mem::take(&mut state.unmarked));
            let is_empty = state.turns.is_empty() && state.starts.is_empty() && state.ended.is_empty();
            if engine.stop.is_cancelled() || due.is_empty() && ends.is_empty() && is_empty {
                state.is_being_cleared = false;
                return;
            }
            state.settling = ends.len();
            (due, ends)
        };
        join(engine.clear_all(due), engine.settle_all(ends)).await;
        engine.confirmed.lock().settling = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_taken_once_whatever_else_was_kept_of_its_instance() {
        let instance = InstanceRef::new("orders".parse().unwrap(), "one".parse().unwrap());
        let execution = ExecutionId::generate();
        let mut state = State::default();
        // Three turns that later commits have cleared, and the last one.
        for millis in [100, 150, 160] {
            state
                .turns
                .push_back((Timestamp::from_millis(millis), instance.clone()));
        }
        let until = Timestamp::from_millis(170);
        state.ended.push_back((until, instance.clone()));
        let last = Kept {
            execution,
            mark: Mark::Turn(4),
            until,
            end: None,
        };
        state.marks.insert(instance.clone(), vec![last]);
        let taken = state.take(Some(Timestamp::from_millis(200)));
        let marks: Vec<Mark> = taken.into_iter().map(|(_, kept)| kept.mark).collect();
        assert_eq!(marks, [Mark::Turn(4)]);
    }

    #[test]
    fn once_the_end_is_known_the_mark_of_the_start_is_no_matter_and_those_of_turns_are() {
        let instance = InstanceRef::new("orders".parse().unwrap(), "one".parse().unwrap());
        let execution = ExecutionId::generate();
        let kept = |mark| Kept {
            execution,
            mark,
            until: Timestamp::from_millis(0),
            end: None,
        };
        let confirmed = Confirmed::default();
        let keep = |marks: Vec<Mark>| {
            let marks = marks.into_iter().map(kept).collect();
            confirmed.lock().marks.insert(instance.clone(), marks);
        };
        keep(vec![Mark::Start, Mark::Turn(1)]);
        confirmed.forget_start(&instance);
        assert!(!confirmed.has_started(&instance, execution));
        assert_eq!(confirmed.turns(&instance, execution), [Mark::Turn(1)]);
        keep(vec![Mark::Start]);
        confirmed.forget_start(&instance);
        assert_eq!(confirmed.len(), 0);
        // Nor does it matter if there is none.
        confirmed.forget_start(&instance);
    }
}
