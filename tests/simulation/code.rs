//! The code that runs plans, and the journal of the bodies that ran.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use leveret::replay::{Code, CodeFuture};
use leveret::testing::Process;
use leveret::{
    Activity, ActivityContext, AppId, Call, Event, Failure, InstanceId, InstanceRef, Payload, Result, Retry,
    TaskExecutionId, Workflow, WorkflowContext, race,
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::plan::{APPS, CallPlan, ChildPlan, Plan, Round, Seen, Step, event_name, result_of};

pub(crate) const RUN: &str = "run";
pub(crate) const WORK: &str = "work";
/// An activity that only the newer build has.
pub(crate) const NEW_WORK: &str = "new work";

pub(crate) fn workflow(app: &'static str) -> Workflow<Round, Vec<Seen>> {
    Workflow::new(app, RUN)
}

pub(crate) fn activity(app: &'static str, name: &'static str) -> Activity<Work, u64> {
    Activity::new(app, name)
}

/// An event that nobody waits for.
const HELLO: &str = "hello";

pub(crate) fn instance(app: &str, id: &str) -> InstanceRef {
    let app = AppId::new(app).expect("an app of ours");
    InstanceRef::new(app, InstanceId::new(id).expect("an ID of ours"))
}

/// An activity's input.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Work {
    key: String,
    round: u32,
    value: u64,
    succeeds_from: u32,
    millis: u64,
}

/// Which bodies have run, and run: what the outside world has seen.
#[derive(Clone)]
pub(crate) struct Journal {
    /// After so long a body runs under a lease, and must be the only one.
    leased_after: Duration,
    entries: Arc<Mutex<Entries>>,
}

#[derive(Default)]
struct Entries {
    /// Steps and rounds to the calls that ran them.
    calls: BTreeMap<(String, u32), BTreeSet<TaskExecutionId>>,
    /// When bodies that run now began, by call and attempt.
    running: BTreeMap<(TaskExecutionId, u32), Vec<Instant>>,
    wrong: Option<String>,
}

impl Journal {
    pub(crate) fn new(leased_after: Duration) -> Self {
        Self {
            leased_after,
            entries: Arc::default(),
        }
    }

    /// How many calls of a step have run their body in a round.
    pub(crate) fn calls(&self, key: &str, round: u32) -> usize {
        self.lock().calls.get(&(key.to_owned(), round)).map_or(0, BTreeSet::len)
    }

    pub(crate) fn wrong(&self) -> Option<String> {
        self.lock().wrong.clone()
    }

    fn begins(&self, work: &Work, id: TaskExecutionId, attempt: u32) -> Running {
        let now = Instant::now();
        let mut entries = self.lock();
        entries
            .calls
            .entry((work.key.clone(), work.round))
            .or_default()
            .insert(id);
        let running = entries.running.entry((id, attempt)).or_default();
        let is_leased = running.iter().any(|since| now - *since > self.leased_after);
        running.push(now);
        if is_leased {
            let wrong = format!("step {} runs a second time beside a body with a lease", work.key);
            entries.wrong.get_or_insert(wrong);
        }
        drop(entries);
        Running {
            journal: self.clone(),
            id,
            attempt,
            since: now,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A body that runs.
struct Running {
    journal: Journal,
    id: TaskExecutionId,
    attempt: u32,
    since: Instant,
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut entries = self.journal.lock();
        if let Some(running) = entries.running.get_mut(&(self.id, self.attempt))
            && let Some(place) = running.iter().position(|since| *since == self.since)
        {
            running.remove(place);
        }
    }
}

/// An activity's body in a process.
pub(crate) async fn work(process: &Process, journal: &Journal, ctx: ActivityContext, work: Work) -> Result<u64> {
    process.goes_on().await;
    let _running = journal.begins(&work, ctx.task_execution_id(), ctx.attempt());
    if work.millis > 0 {
        tokio::time::sleep(Duration::from_millis(work.millis)).await;
        process.goes_on().await;
    }
    match work.succeeds_from {
        0 => Err(Failure::new("Hopeless", "it never works").fatal()),
        from if ctx.attempt() < from => Err(Failure::new("Planned", "not yet")),
        _ => Ok(result_of(work.value, work.round)),
    }
}

/// A workflow's code.
pub(crate) async fn run(ctx: WorkflowContext, input: Round) -> Result<Vec<Seen>> {
    let Round { plan, round, mut seen } = input;
    for step in &plan.steps {
        seen.push(run_step(&ctx, step, round).await?);
    }
    if round < plan.rounds {
        return ctx.continue_as_new(Round {
            plan,
            round: round + 1,
            seen,
        });
    }
    if plan.fails {
        return Err(Failure::new("PlanFailed", "as planned"));
    }
    Ok(seen)
}

async fn run_step(ctx: &WorkflowContext, step: &Step, round: u32) -> Result<Seen> {
    Ok(match step {
        Step::Call(plan) => value(call(ctx, plan, round).await),
        Step::All(plans) => {
            let handles = plans.iter().map(|plan| call(ctx, plan, round).start());
            Seen::Many(settled(handles).await)
        }
        Step::Child(child) => match child_call(ctx, child).await {
            Ok(seen) => Seen::Child(seen),
            Err(failure) => Seen::Failed(failure.kind),
        },
        Step::Detached(child) => {
            let mut call = ctx
                .child_named::<Vec<Seen>>(RUN, child.plan.clone().begin())
                .app_id(&child.app);
            if let Some(id) = &child.id {
                call = call.id(id);
            }
            call.detach()?;
            Seen::Nothing
        }
        Step::Timer { millis } => {
            ctx.timer(Duration::from_millis(*millis)).await?;
            Seen::Nothing
        }
        Step::Event { name, within } => {
            let wait = ctx.event_named::<u64>(event_name(name, round));
            Seen::Event(match within {
                Some(millis) => wait.within(Duration::from_millis(*millis)).await?,
                None => Some(wait.await?),
            })
        }
        Step::Race { call: plan, millis } => {
            let timer = ctx.timer(Duration::from_millis(*millis));
            match race(call(ctx, plan, round).start(), timer.start()).await {
                leveret::Either::Left(result) => Seen::Race(Some(Box::new(value(result)))),
                leveret::Either::Right(fired) => {
                    fired?;
                    Seen::Race(None)
                }
            }
        }
        Step::Raise { app, id, value } => {
            ctx.raise(&instance(app, id), Event::<u64>::new(HELLO), *value)?;
            Seen::Nothing
        }
        Step::Status(number) => {
            ctx.set_custom_status(number)?;
            Seen::Nothing
        }
        Step::Unsteady { key } if ctx.is_replaying() => {
            ctx.set_custom_status(key)?;
            ctx.timer(Duration::ZERO).await?;
            Seen::Nothing
        }
        Step::Unsteady { key } => value(call(ctx, &CallPlan::plain(APPS[1], key), round).await),
        Step::Patched => {
            let _ = ctx.patched("a patch");
            Seen::Value(u64::from(ctx.random() < 2.0))
        }
    })
}

/// The results of all calls, failures included.
async fn settled(handles: impl Iterator<Item = leveret::Handle<u64>>) -> Vec<Seen> {
    let mut seen = Vec::new();
    for handle in handles.collect::<Vec<_>>() {
        seen.push(value(handle.await));
    }
    seen
}

fn value(result: Result<u64>) -> Seen {
    match result {
        Ok(value) => Seen::Value(value),
        Err(failure) => Seen::Failed(failure.kind),
    }
}

fn retry(attempts: u32) -> Retry {
    Retry::times(attempts).first(Duration::from_millis(100)).factor(1.5)
}

fn call(ctx: &WorkflowContext, plan: &CallPlan, round: u32) -> Call<u64> {
    let input = Work {
        key: plan.key.clone(),
        round,
        value: plan.value,
        succeeds_from: plan.succeeds_from,
        millis: plan.millis,
    };
    let name = if plan.is_new { NEW_WORK } else { WORK };
    let mut call = ctx.call_named::<u64>(name, input).app_id(&plan.app);
    if plan.attempts > 1 {
        call = call.retry(retry(plan.attempts));
    }
    if let Some(millis) = plan.timeout {
        call = call.timeout(Duration::from_millis(millis));
    }
    if let Some(millis) = plan.schedule_to_start {
        call = call.schedule_to_start(Duration::from_millis(millis));
    }
    call
}

fn child_call(ctx: &WorkflowContext, child: &ChildPlan) -> leveret::Child<Vec<Seen>> {
    let plan: Plan = child.plan.clone();
    let mut call = ctx.child_named::<Vec<Seen>>(RUN, plan.begin()).app_id(&child.app);
    if let Some(id) = &child.id {
        call = call.id(id);
    }
    if child.attempts > 1 {
        call = call.retry(retry(child.attempts));
    }
    call
}

/// The code of plans, for replaying.
pub(crate) struct PlanCode;

impl Code for PlanCode {
    fn begin(&self, ctx: WorkflowContext, input: Payload) -> CodeFuture {
        Box::pin(async move { Payload::encode(&run(ctx, input.decode()?).await?) })
    }
}
