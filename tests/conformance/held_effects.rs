//! Effects that cannot be made: what else their turn began is not begun anew, and what has to wait for them waits.

use leveret::backend::{Error, Mark};
use leveret::{Status, Worker, Workflow, WorkflowContext, all};

use crate::between::{Call, with_failing_store};
use crate::harness::*;
use crate::programs::*;

const MAIN: Workflow<u64, u64> = Workflow::new("orders", "main");

/// A backend on which that instance can never be created while the gate is closed; tries are counted.
fn uncreatable(stage: &Stage, id: &'static str, tries: &Tally, mended: &Gate) -> leveret::backend::Backend {
    let (tries, mended) = (tries.clone(), mended.clone());
    with_failing_store(&stage.backend, move |call: Call| {
        let is_child = call.instance.is_some_and(|instance| instance.id.as_str() == id);
        let refused = is_child && call.method == "create" && !mended.is_open();
        if refused {
            tries.add();
        }
        Box::pin(std::future::ready(match refused {
            true => Err(Error::permanent("it was written by a later release")),
            false => Ok(()),
        }))
    })
}

pub(crate) async fn what_is_over_is_not_begun_anew_with_what_cannot_be_made(h: &impl Harness) {
    /// More than a record names as open.
    const CALLS: u64 = 20;
    let stage = Stage::new(h).await;
    let (bodies, tries, mended) = (Tally::new(), Tally::new(), Gate::new());
    let _payments = up(stage
        .worker("payments")
        .activity(WORK, counted(&bodies))
        .workflow(CHILD, async |_: WorkflowContext, n: u64| ok(n)))
    .await;
    let damaged = uncreatable(&stage, "kid", &tries, &mended);
    let _orders =
        up(Worker::new("orders", damaged)
            .settings(settings())
            .workflow(MAIN, async |ctx: WorkflowContext, n: u64| {
                let child = ctx.child(CHILD, n).id("kid").start();
                for result in all((0..CALLS).map(|n| ctx.call(WORK, n))).await {
                    result?;
                }
                ctx.set_custom_status("worked")?;
                child.await
            }))
        .await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    stage.wait_for("orders", "one", "going on", has_custom_status).await;
    let before = tries.get();
    until("checks", async || {
        stage.check_now("orders").await;
        (tries.get() >= before + 3).then_some(())
    })
    .await;
    mended.open();
    let end = until("the child to begin and to end", async || {
        stage.check_now("orders").await;
        let info = run.get().await.unwrap();
        info.status.is_terminal().then_some(info.status)
    })
    .await;
    assert_eq!(end, Status::Completed);
    assert_eq!(bodies.get() as u64, CALLS);
}

pub(crate) async fn continue_as_new_waits_for_what_cannot_be_made_and_does_not_spin(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let (tries, mended) = (Tally::new(), Gate::new());
    stage.known_app("payments").await;
    let damaged = uncreatable(&stage, "kid", &tries, &mended);
    let _orders =
        up(Worker::new("orders", damaged)
            .settings(settings())
            .workflow(MAIN, async |ctx: WorkflowContext, n: u64| {
                if n == 0 {
                    return Ok(n);
                }
                ctx.child(CHILD, n).id("kid").detach()?;
                ctx.event(GO).await?;
                ctx.continue_as_new(0)
            }))
        .await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    stage.wait_for_text("orders", "one", &["event `go`"]).await;
    run.raise(GO, ()).await.unwrap();
    until("the next execution to wait", async || {
        let marks = stage.record("orders", "one").await.unwrap().marks;
        marks.contains(&Mark::Run).then_some(())
    })
    .await;
    let before = tries.get();
    // What arrives meanwhile finds the same, and is kept.
    for _ in 0..5 {
        run.raise(GO, ()).await.unwrap();
    }
    until("the events to be kept", async || {
        (stage.inbox("orders", "one").await == 5).then_some(())
    })
    .await;
    assert!(tries.get() <= before + 20, "{} tries", tries.get() - before);
    mended.open();
    let end = until("the next execution to run", async || {
        stage.check_now("orders").await;
        let info = run.get().await.unwrap();
        info.status.is_terminal().then_some(info.status)
    })
    .await;
    assert_eq!(end, Status::Completed);
    stage.wait_for_status("payments", "kid", Status::Pending).await;
}
