//! Activations: an instance's turns, from the first item that waits for it to the last.
//!
//! A turn is: take what waits, run the code on it, commit, make the effects, clear the mark, and only then let go of the messages. At each gap a line
//! says what a crash there costs. [`super::turn`] holds what happens between loading and committing, [`super::commit`] the rest; [`super::not_running`] is
//! about instances for which no code may run.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, SemaphorePermit};
use tracing::{debug, warn};

use super::delivery::Arrival;
use super::room::Waiting;
use super::runtime::Runtime;
use super::state::Live;
use super::turn::Opening;
use crate::backend::{Mark, Result};
use crate::fault::{Defect, fault_point, planted};
use crate::model::{ExecutionId, InstanceRef, Lane, MessageId, RunToken, StallReason, Status};
use crate::replay::Stuck;
use crate::wire::Item;

/// For so long a start is taken at its word.
const FRESH_FOR: Duration = Duration::from_secs(5);

/// How long an instance is left alone after its turn failed for reasons outside it.
const PAUSE_AFTER_ERROR: Duration = Duration::from_secs(1);

/// Takes an item to its instance. Whoever finds nobody at work begins an activation.
pub(super) fn arrive(runtime: &Arc<Runtime>, instance: &InstanceRef, arrival: Arrival) {
    if runtime.mailboxes.push(instance, arrival) {
        let waiting = runtime.room.enter();
        // Boxed, since a task's future is moved five times on its way in and out.
        let activation = Box::pin(activate(runtime.clone(), instance.clone(), waiting));
        runtime.tracker.spawn(activation);
    }
}

/// Works until nothing waits for the instance.
async fn activate(runtime: Arc<Runtime>, instance: InstanceRef, waiting: Waiting) {
    let mut waiting = Some(waiting);
    let mut guard = Abandoned {
        runtime: &runtime,
        instance: &instance,
        is_over: false,
    };
    loop {
        let batch = runtime.mailboxes.take(&instance, runtime.settings.limits.turn_events);
        if batch.is_empty() {
            // From here on the mailbox may be somebody else's.
            guard.is_over = true;
            return;
        }
        let Ok(permit) = runtime.turns.acquire().await else {
            return;
        };
        drop(waiting.take());
        let mut activation = Activation::new(&runtime, &instance, &batch, permit);
        let batch = if planted(Defect::AcknowledgedFirst) {
            batch.into_iter().for_each(|arrival| arrival.ticket.done());
            Vec::new()
        } else {
            batch
        };
        let outcome = activation.run().await;
        activation.end(outcome.is_ok()).await;
        match outcome {
            Ok(()) => {
                fault_point("turn-unacknowledged");
                batch.into_iter().for_each(|arrival| arrival.ticket.done());
            }
            Err(error) => {
                // The messages go back to the broker, along with those behind them, so that events keep their order; the marks of what was committed
                // are driven when they come again.
                if !runtime.draining.is_cancelled() {
                    warn!(%instance, %error, "a turn could not be finished; its messages are handed back");
                    runtime.pause(PAUSE_AFTER_ERROR).await;
                }
                batch.iter().for_each(|arrival| arrival.held.comes_again(runtime.now()));
                drop(batch);
                if runtime.mailboxes.take(&instance, usize::MAX).is_empty() {
                    // From here on the mailbox may be somebody else's.
                    guard.is_over = true;
                    return;
                }
            }
        }
    }
}

/// If an activation is dropped in the middle, what waits in its mailbox is handed back, so that the instance is not blocked in this worker.
struct Abandoned<'a> {
    runtime: &'a Runtime,
    instance: &'a InstanceRef,
    is_over: bool,
}

impl Drop for Abandoned<'_> {
    fn drop(&mut self) {
        while !self.is_over && !self.runtime.mailboxes.take(self.instance, usize::MAX).is_empty() {}
    }
}

/// What to do after a step.
pub(super) enum Step {
    /// There is more to do with the state as it is.
    Again,
    /// The state is not current: read it.
    Reload,
    /// Everything that came is taken care of.
    Done,
}

/// One batch of items on its way through an instance.
pub(super) struct Activation<'a> {
    pub(super) runtime: &'a Runtime,
    pub(super) instance: &'a InstanceRef,
    /// Items that are not taken care of yet.
    pub(super) items: VecDeque<Item>,
    /// True if one of them was delivered before.
    pub(super) is_redelivered: bool,
    /// Lanes by which they came.
    pub(super) lane: Option<Lane>,
    /// True if the state was read, or confirmed by a commit, since the items came: only then may one be dropped because of it.
    pub(super) is_current: bool,
    /// Executions begun by continue-as-new in this activation.
    pub(super) generations: u32,
    /// True once an item was put into the inbox because it is ahead of the state: the state is then read anew next time.
    pub(super) has_parked: bool,
    /// The execution whose run token this activation has set, because code runs for redelivered items.
    token: Option<ExecutionId>,
    /// Executions of which whoever had the redelivered items before us may have left a run token.
    tried: BTreeSet<ExecutionId>,
    /// Held while code runs, or may run.
    permit: Option<SemaphorePermit<'a>>,
    /// True if its turns may take the process down.
    is_suspect: bool,
    /// Held while such code runs, or may run.
    suspect: Option<Suspicion<'a>>,
}

impl<'a> Activation<'a> {
    fn new(runtime: &'a Runtime, instance: &'a InstanceRef, batch: &[Arrival], permit: SemaphorePermit<'a>) -> Self {
        Self {
            runtime,
            instance,
            items: batch.iter().map(|arrival| arrival.item.clone()).collect(),
            is_redelivered: batch.iter().any(|arrival| arrival.is_redelivered),
            lane: batch.iter().find_map(|arrival| arrival.lane),
            is_current: false,
            generations: 0,
            has_parked: false,
            token: None,
            tried: batch
                .iter()
                .filter(|arrival| arrival.is_redelivered)
                .filter_map(|arrival| arrival.item.execution())
                .collect(),
            permit: Some(permit),
            is_suspect: false,
            suspect: None,
        }
    }

    /// No code runs for a while: others may run theirs.
    pub(super) fn rest(&mut self) {
        self.permit = None;
        self.suspect = None;
    }

    /// Code may run again.
    pub(super) async fn go_on(&mut self) {
        if self.permit.is_some() {
            return;
        }
        // In the order in which one that begins takes them: else each could have what the other waits for.
        self.permit = self.runtime.turns.acquire().await.ok();
        if self.is_suspect {
            self.suspect = Some(Box::pin(suspicion(self.runtime)).await);
        }
    }

    async fn run(&mut self) -> Result<()> {
        let mut live = self.runtime.cache.take(self.instance);
        if live.is_some() {
            self.runtime.counters.live_hits.add();
        } else {
            live = self.fresh().map(Box::new);
        }
        loop {
            let mut state = match live.take() {
                Some(state) => state,
                None => match Box::pin(self.read()).await? {
                    Some(state) => Box::new(state),
                    None => return Box::pin(self.without_record()).await,
                },
            };
            self.go_on().await;
            match Box::pin(self.step(&mut state)).await? {
                Step::Again => live = Some(state),
                Step::Reload => self.is_current = false,
                Step::Done => {
                    if state.record.status == Status::Running
                        && state.execution.is_some()
                        && state.inbox.is_empty()
                        && !self.has_parked
                    {
                        self.runtime.cache.put(self.instance.clone(), state);
                    }
                    return Ok(());
                }
            }
        }
    }

    /// The state as a start brings it, if that is all that is needed for the first turn.
    fn fresh(&self) -> Option<Live> {
        let Some(Item::Start(start)) = self.items.front() else {
            return None;
        };
        let is_for_us = self.runtime.registry.find_workflow(&start.workflow).is_some();
        // What comes again, or has waited for long, may have been dealt with: the store knows.
        let is_young = |live: &Live| self.runtime.now().since(live.record.updated_at) < FRESH_FOR;
        Live::fresh(start).filter(|live| is_for_us && !self.is_redelivered && is_young(live))
    }

    /// The instance is over: nothing that came is of any use.
    pub(super) fn drop_all(&mut self) {
        for item in self.items.drain(..) {
            debug!(instance = %self.instance, kind = item.kind(), "dropped: the instance is over");
            self.runtime.counters.dropped("instance is over");
        }
    }

    async fn step(&mut self, state: &mut Live) -> Result<Step> {
        if self.is_redelivered {
            self.tried.insert(state.record.execution);
        }
        if !self.is_current && self.items.iter().any(|item| matches!(item, Item::Wake(_))) {
            // Whoever sent it knows of something that a live state does not show: the inbox, a mark.
            return Ok(Step::Reload);
        }
        match state.record.status {
            status if status.is_terminal() => {
                if !self.is_current {
                    return Ok(Step::Reload);
                }
                self.drop_all();
                Ok(Step::Done)
            }
            Status::Pending => self.pending(state).await,
            _ if self.is_elsewhere(&state.record) => Box::pin(self.forward(&state.record)).await,
            Status::Running => self.running(state).await,
            _ => Box::pin(self.held(state)).await,
        }
    }

    async fn running(&mut self, state: &mut Live) -> Result<Step> {
        if state.renewal.is_some()
            && let Some((reason, recursive)) = self.awaited_end(&state.record, &state.inbox)
        {
            // The next execution may begin anew at once, and so might the one after: an end wins over that.
            return Box::pin(self.terminate_held(state, reason, recursive)).await;
        }
        if planted(Defect::NextExecutionIsForgotten)
            && state.renewal.is_none()
            && state.record.marks.contains(&Mark::Run)
        {
            self.drop_all();
            return Ok(Step::Done);
        }
        if let Some(refused) = self.prepare(state).await? {
            return Ok(refused);
        }
        if state.renewal.is_some() {
            return Box::pin(self.renew(state)).await;
        }
        self.turn(state, None).await
    }

    async fn pending(&mut self, state: &mut Live) -> Result<Step> {
        let is_started = self
            .items
            .iter()
            .any(|item| matches!(item, Item::Start(start) if start.execution == state.record.execution));
        // Whoever published the start has asked the store whether its time has come.
        if !is_started {
            if !self.is_current {
                return Ok(Step::Reload);
            }
            // A start of another execution is of no use; other things wait in the inbox for the first turn.
            if self.items.iter().any(|item| matches!(item, Item::Completion(_))) {
                // It had called somebody, so it had begun: the store has lost its turns (see the guarantees), and its start is gone from the queue.
                self.runtime.engine.drive_start(self.instance, &state.record).await?;
            }
            return self.all_to_inbox().await;
        }
        let Some(lane) = self.runtime.lanes.pick(self.runtime.now()) else {
            return Err(crate::backend::Error::transient(
                "no lane is held: another worker has to take the start",
            ));
        };
        // Before the code is looked at: if it stalls, whoever wakes it must find it at home somewhere.
        state.record.lane = Some(lane);
        if let Some(refused) = self.prepare(state).await? {
            return Ok(refused);
        }
        // The start stays among the items until the turn is committed: if it is not, the state that is read then may still need one.
        if planted(Defect::StartIsDroppedFirst) {
            self.items.retain(|item| !matches!(item, Item::Start(_)));
        }
        self.turn(state, Some(Opening::First)).await
    }

    /// Gets the code ready for a turn: finds it, counts a crash if the last worker died of it, replays the history. `Some` if it cannot run: what
    /// then is to be done is done.
    pub(super) async fn prepare(&mut self, state: &mut Live) -> Result<Option<Step>> {
        if state.execution.is_some() {
            return Ok(None);
        }
        let Some(code) = self
            .runtime
            .registry
            .find_workflow(&state.record.origin.workflow)
            .cloned()
        else {
            return Box::pin(self.homeless(state)).await.map(Some);
        };
        if self.is_redelivered && self.token.is_none() {
            let tries = self.begin_try(state.record.execution).await?;
            if tries >= self.runtime.settings.limits.crashes {
                let message = format!(
                    "its turn was begun {tries} times and never committed: it seems to take down its worker; resume it once the cause is mended, or deploy another build"
                );
                return self
                    .stall(
                        state,
                        Stuck {
                            reason: StallReason::Crashed,
                            message,
                        },
                    )
                    .await
                    .map(Some);
            }
        }
        if state.renewal.is_some() {
            // The next execution has nothing to replay.
            return Ok(None);
        }
        if state.record.version > 0 {
            self.runtime.counters.replays.add();
        }
        match state.replay(self.instance, code, &self.runtime.settings.limits) {
            Ok(()) => Ok(None),
            Err(stuck) => Box::pin(self.stall(state, stuck)).await.map(Some),
        }
    }

    /// Counts a turn that may be deadly: by a token, as an activity's run is. Gives the number of those that have died in it.
    async fn begin_try(&mut self, execution: ExecutionId) -> Result<u32> {
        let (runtime, engine) = (self.runtime, &self.runtime.engine);
        let (turn, run) = (turn_token(execution), RunToken::generate());
        let tries = engine
            .retrying("runs", || engine.store().runs(&runtime.app, &turn))
            .await?;
        if tries > 0 {
            // All turns that were under way when a process died have a token. One at a time, only the deadly one gets another.
            self.is_suspect = true;
            self.suspect = Some(Box::pin(suspicion(runtime)).await);
        }
        self.token = Some(execution);
        engine
            .retrying("begin run", || engine.store().begin_run(&runtime.app, &turn, run))
            .await?;
        Ok(tries)
    }

    /// The turn is committed: it has taken nobody down.
    pub(super) async fn is_through(&mut self) {
        self.is_suspect = false;
        if let Some(execution) = self.token.take() {
            self.take_away(execution).await;
        }
    }

    /// Nobody has died: what the turn came to is no matter. (Not every turn commits, and something else may take the process down each time.)
    /// What was begun by others before us is over as well if the items are done with; else they still count for whoever has them next.
    async fn end(&mut self, are_done: bool) {
        let mut over = std::mem::take(&mut self.tried);
        if !are_done {
            over.clear();
        }
        over.extend(self.token.take());
        for execution in over {
            self.take_away(execution).await;
        }
        // Not sooner: whoever dies next must not find them.
        self.suspect = None;
        self.permit = None;
    }

    async fn take_away(&self, execution: ExecutionId) {
        let (engine, token) = (&self.runtime.engine, turn_token(execution));
        if let Err(error) = engine
            .retrying("end run", || engine.store().end_run(&self.runtime.app, &token))
            .await
        {
            debug!(instance = %self.instance, %error, "a turn's token was not taken away; it lapses");
        }
    }
}

/// Held by the one turn of a worker that may take its process down, which is also kept apart from all else in the process that may.
type Suspicion<'a> = (Option<SemaphorePermit<'a>>, Option<OwnedSemaphorePermit>);

async fn suspicion(runtime: &Runtime) -> Suspicion<'_> {
    (runtime.suspect_turn.acquire().await.ok(), runtime.apart().await)
}

/// What turns of an execution are counted by.
fn turn_token(execution: ExecutionId) -> MessageId {
    execution.derive("turn", 0).into()
}
