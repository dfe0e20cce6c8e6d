//! Entries of the due-set and marks that are deleted: what nobody would look at again is found, and goes on.

use super::*;

pub(crate) async fn a_timer_whose_entry_is_deleted_is_set_again(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let sleeper = async |ctx: WorkflowContext, n: u64| {
        ctx.timer(Duration::from_millis(n)).await?;
        ok(n)
    };
    let orders = || up(stage.worker("orders").workflow(MAIN, sleeper));
    let first = orders().await;
    let far = stage.client.start(MAIN, HOUR.as_millis() as u64).await.unwrap();
    let set = stage.wait_for_entry("orders", DueKind::Timer).await;
    stage.wait_for_text("orders", far.id(), &["timer"]).await;
    stage.settled("orders", far.id()).await;
    stage.unschedule("orders", std::slice::from_ref(&set)).await;
    stage.mends(&[Trouble::LostTimer]).await;
    assert_eq!(stage.due("orders", DueKind::Timer).await, [set]);
    far.terminate("enough").and_wait(PATIENCE).await.unwrap();

    until("its timer to be gone", async || {
        stage.due("orders", DueKind::Timer).await.is_empty().then_some(())
    })
    .await;

    // One that is due before anybody notices.
    let near = stage.client.start(MAIN, 5000).await.unwrap();
    let set = stage.wait_for_entry("orders", DueKind::Timer).await;
    stage.settled("orders", near.id()).await;
    first.stop().await;
    stage.unschedule("orders", std::slice::from_ref(&set)).await;
    until("the timer to be due", async || {
        (stage.backend.store().now().await.unwrap() > set.due).then_some(())
    })
    .await;
    let _second = orders().await;
    stage.mends(&[Trouble::LostTimer]).await;
    assert_eq!(done(&near).await, 5000);
    stage.finds_nothing().await;
}

pub(crate) async fn a_task_whose_lease_is_deleted_is_sent_again(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let orders = up(stage.worker("orders").workflow(MAIN, call_work)).await;
    let runs = Tally::new();
    let leasing = Settings {
        delivery_timeout: millis(200),
        ..settings()
    };
    let work = async |runs: Tally, _: leveret::ActivityContext, n: u64| {
        if runs.add() == 1 {
            // It does not even hear that its worker goes.
            std::future::pending::<()>().await;
        }
        ok(n)
    };
    let worker = || {
        stage
            .worker("payments")
            .settings(leasing.clone())
            .activity(WORK, with(runs.clone(), work))
    };
    let first = up(worker()).await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    let mut lease = stage.wait_for_entry("payments", DueKind::Lease).await;
    // Renewed a few times, it stands in place of the message, which is acknowledged.
    for _ in 0..5 {
        lease = until("the lease to be renewed", async || {
            let renewed = stage.wait_for_entry("payments", DueKind::Lease).await;
            (renewed.due != lease.due).then_some(renewed)
        })
        .await;
    }
    // Its worker dies, and it is deleted: nothing is left that would run the task.
    drop(first);
    stage.unschedule("payments", &[lease]).await;
    let payments = up(worker()).await;
    until("the dead worker to count as gone", async || {
        let live = stage.backend.store().workers(&app("payments")).await.unwrap();
        (live.len() == 1).then_some(())
    })
    .await;
    stage.mends(&[Trouble::LostTask]).await;
    assert_eq!(done(&run).await, 7);
    assert_eq!(runs.get(), 2);
    assert_eq!(stage.count_events("orders", "one", is_result).await, 1);
    orders.stop().await;
    payments.stop().await;
}

/// Runs an instance on a store that does not answer from the so-manyth of these calls on, and lets the worker die there.
async fn die_at(
    stage: &Stage,
    (method, nth): (&'static str, usize),
    worker: impl FnOnce(Worker) -> Worker,
    is_there: impl AsyncFn() -> bool,
) {
    let reached = Tally::new();
    let seen = reached.clone();
    let dying = with_store_behind(&stage.backend, move |call: Call| {
        let seen = seen.clone();
        Box::pin(async move {
            if call.method == method && seen.add() >= nth {
                std::future::pending::<()>().await;
            }
        })
    });
    let dying = worker(Worker::new("orders", dying).settings(settings()));
    let dying: RunningWorker = soon("a worker", dying.start()).await.unwrap();
    soon("a lane", dying.wait_for_lane()).await;
    reached.reach(nth).await;
    until("the turn to be committed", async || is_there().await.then_some(())).await;
    drop(dying);
}

/// Waits for one of everything.
async fn everything(ctx: WorkflowContext, n: u64) -> leveret::Result<u64> {
    let timer = ctx.timer(millis(100)).start();
    let work = ctx.call(WORK, n).start();
    let child = ctx.child(CHILD, n).id("kid").start();
    timer.await?;
    Ok(work.await? + child.await?)
}

pub(crate) async fn effects_whose_mark_is_deleted_are_made(h: &impl Harness) {
    let stage = Stage::new(h).await;
    stage.known_app("payments").await;
    stage.known_app("orders").await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    let is_marked = async || {
        let record = stage.record("orders", "one").await.unwrap();
        record.marks.contains(&Mark::Turn(1))
    };
    die_at(
        &stage,
        ("schedule", 1),
        |worker| worker.workflow(MAIN, everything),
        is_marked,
    )
    .await;
    let record = stage.record("orders", "one").await.unwrap();
    let cleared = stage.backend.store();
    let cleared = cleared
        .clear_mark(run.instance(), record.execution, Mark::Turn(1))
        .await;
    assert_eq!(cleared.unwrap(), Some(0));
    let runs = Tally::new();
    let _payments = up(stage
        .worker("payments")
        .activity(WORK, counted(&runs))
        .workflow(CHILD, counted(&runs)))
    .await;
    let _orders = up(stage.worker("orders").workflow(MAIN, everything)).await;
    stage.check_now("orders").await;
    stage
        .mends(&[Trouble::LostTask, Trouble::LostTimer, Trouble::LostChild])
        .await;
    assert_eq!(done(&run).await, 14);
    assert_eq!(runs.get(), 2);
    stage.finds_nothing().await;
}

pub(crate) async fn a_next_execution_whose_mark_is_deleted_begins(h: &impl Harness) {
    let stage = Stage::new(h).await;
    stage.known_app("orders").await;
    let renewing = async |ctx: WorkflowContext, n: u64| {
        if n < 9 {
            return ctx.continue_as_new(n + 1);
        }
        ok(n)
    };
    let run = stage.client.start(MAIN, 8).id("one").await.unwrap();
    let is_renewed = async || {
        let record = stage.record("orders", "one").await.unwrap();
        record.marks.contains(&Mark::Run)
    };
    // The first execution ends, and the next is not committed.
    die_at(
        &stage,
        ("commit", 2),
        |worker| worker.workflow(MAIN, renewing),
        is_renewed,
    )
    .await;
    let record = stage.record("orders", "one").await.unwrap();
    for mark in &record.marks {
        let store = stage.backend.store();
        store.clear_mark(run.instance(), record.execution, *mark).await.unwrap();
    }
    let _orders = up(stage.worker("orders").workflow(MAIN, renewing)).await;
    stage.mends(&[Trouble::LostExecution]).await;
    assert_eq!(done(&run).await, 9);
}

pub(crate) async fn a_check_that_is_deleted_is_written_again(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let _orders = up(stage.worker("orders").workflow(MAIN, waiter)).await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    stage.wait_for_text("orders", "one", &["event `go`"]).await;
    stage.settled("orders", "one").await;
    let checks = stage.due("orders", DueKind::Check).await;
    assert_eq!(checks.len(), 1);
    stage.unschedule("orders", &checks).await;
    let found = stage.mends(&[Trouble::NoCheck]).await;
    assert_eq!(found[0].instance.as_ref(), Some(run.instance()));
    let again = stage.due("orders", DueKind::Check).await;
    assert_eq!((&again[0].key, &again[0].payload), (&checks[0].key, &checks[0].payload));
    stage.finds_nothing().await;
    run.raise(GO, ()).await.unwrap();
    assert_eq!(done(&run).await, 7);
    until("no check to be left", async || {
        stage.due("orders", DueKind::Check).await.is_empty().then_some(())
    })
    .await;
}
