//! The activities and workflows that many behaviours are shown with.

use futures_util::future::BoxFuture;
use leveret::{Activity, ActivityContext, Event, Result, Workflow, WorkflowContext};

use crate::harness::{Gate, Tally};

pub(crate) const WORK: Activity<u64, u64> = Activity::new("payments", "work");
pub(crate) const CHILD: Workflow<u64, u64> = Workflow::new("payments", "child");
pub(crate) const GO: Event<()> = Event::new("go");

/// An activity that gives its input back.
pub(crate) async fn echo(_: ActivityContext, n: u64) -> Result<u64> {
    Ok(n)
}

/// An activity or a workflow that gives its input back; its runs are counted.
pub(crate) fn counted<C>(runs: &Tally) -> impl Fn(C, u64) -> BoxFuture<'static, Result<u64>> + use<C> {
    let runs = runs.clone();
    move |_, n| {
        let runs = runs.clone();
        Box::pin(async move {
            runs.add();
            Ok(n)
        })
    }
}

/// The same as an activity that ends when the gate is open.
pub(crate) fn gated(
    runs: &Tally,
    gate: &Gate,
) -> impl Fn(ActivityContext, u64) -> BoxFuture<'static, Result<u64>> + use<> {
    let (runs, gate) = (runs.clone(), gate.clone());
    move |_, n| {
        let (runs, gate) = (runs.clone(), gate.clone());
        Box::pin(async move {
            runs.add();
            gate.pass().await;
            Ok(n)
        })
    }
}

/// The same as an activity whose first run never ends.
pub(crate) fn stuck_once(runs: &Tally) -> impl Fn(ActivityContext, u64) -> BoxFuture<'static, Result<u64>> + use<> {
    let runs = runs.clone();
    move |_, n| {
        let runs = runs.clone();
        Box::pin(async move {
            if runs.add() == 1 {
                std::future::pending::<()>().await;
            }
            Ok(n)
        })
    }
}

/// A workflow that gives its input back when it is told to go.
pub(crate) async fn waiter(ctx: WorkflowContext, n: u64) -> Result<u64> {
    ctx.event(GO).await?;
    Ok(n)
}

/// A workflow that has its input worked on.
pub(crate) async fn call_work(ctx: WorkflowContext, n: u64) -> Result<u64> {
    ctx.call(WORK, n).await
}

/// The output as text, or the failure's kind: for workflows that say how a call ended.
pub(crate) fn kind_of(result: Result<u64>) -> Result<String> {
    result.map(|n| n.to_string()).or_else(|failure| Ok(failure.kind))
}
