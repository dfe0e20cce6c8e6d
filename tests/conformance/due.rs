//! The due loop, which sees to it that nothing is forgotten: what it looks at while something else happens to it, or nothing answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use leveret::backend::{DueEntry, DueKind, When};
use leveret::{Event, Result, Timestamp, Worker, Workflow, WorkflowContext};

use crate::between::{Call, with_long_waits_behind, with_store_behind};
use crate::harness::*;

const MAIN: Workflow<u64, u64> = Workflow::new("orders", "main");
const GO: Event<()> = Event::new("go");

async fn echo(_: WorkflowContext, n: u64) -> Result<u64> {
    Ok(n)
}

impl Stage {
    /// Returns when the app has so many entries of this kind.
    async fn wait_for_due(&self, app_id: &str, kind: DueKind, count: usize) -> Vec<DueEntry> {
        until(&format!("{count} entries of {kind:?}"), async || {
            let entries = self.due(app_id, kind).await;
            (entries.len() == count).then_some(entries)
        })
        .await
    }
}

pub(crate) async fn a_start_that_is_made_while_its_check_gives_it_up_is_not_lost(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let (missed, created) = (Gate::new(), Gate::new());
    // The client creates its instance once the check has looked for it in vain, and dies before it publishes the start.
    let gates = (missed.clone(), created.clone());
    let client = with_store_behind(&stage.backend, move |call: Call| {
        let (missed, created) = gates.clone();
        Box::pin(async move {
            match call.method {
                "create" => missed.pass().await,
                "index" => {
                    created.open();
                    std::future::pending::<()>().await;
                }
                _ => {}
            }
        })
    });
    let worker = with_store_behind(&stage.backend, move |call: Call| {
        let (missed, created) = (missed.clone(), created.clone());
        Box::pin(async move {
            if call.method == "refuse" {
                missed.open();
                created.pass().await;
            }
        })
    });
    let _orders = up(Worker::new("orders", worker).settings(settings()).workflow(MAIN, echo)).await;
    let client = leveret::Client::new(client);
    let start = std::future::IntoFuture::into_future(client.start(MAIN, 7).id("one"));
    let found = async {
        stage.wait_for_due("orders", DueKind::Check, 1).await;
        stage.check_now("orders").await;
        stage.wait_for_status("orders", "one", leveret::Status::Completed).await
    };
    tokio::select! {
        _ = start => panic!("the client was to die"),
        info = found => assert_eq!(info.output.as_ref().unwrap().decode::<u64>().unwrap(), 7),
    }
}

pub(crate) async fn a_start_that_was_given_up_is_asked_for_anew(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let given_up = Gate::new();
    let gate = given_up.clone();
    let client = with_store_behind(&stage.backend, move |call: Call| {
        let gate = gate.clone();
        Box::pin(async move {
            if call.method == "create" {
                gate.pass().await;
            }
        })
    });
    let _orders = up(stage.worker("orders").workflow(MAIN, echo)).await;
    let client = leveret::Client::new(client);
    let (run, ()) = tokio::join!(std::future::IntoFuture::into_future(client.start(MAIN, 7)), async {
        stage.wait_for_due("orders", DueKind::Check, 1).await;
        stage.check_now("orders").await;
        stage.wait_for_due("orders", DueKind::Check, 0).await;
        given_up.open();
    });
    assert_eq!(done(&run.unwrap()).await, 7);
}

pub(crate) async fn a_due_entry_that_hangs_holds_up_no_other(h: &impl Harness) {
    const OTHERS: usize = 5;
    let stage = Stage::new(h).await;
    let (all_due, answered, too_late) = (Gate::new(), Gate::new(), Gate::new());
    let gates = (all_due.clone(), answered.clone());
    // Nobody answers for one of the instances; and the loop finds the timers of all of them at once.
    let worker = with_store_behind(&stage.backend, move |call: Call| {
        let (all_due, answered) = gates.clone();
        Box::pin(async move {
            match call.method {
                "claim_due" => all_due.pass().await,
                "record" if call.instance == Some(instance("orders", "stuck")) => answered.pass().await,
                _ => {}
            }
        })
    });
    let worker = with_long_waits_behind(&worker, too_late.clone());
    let timer = async |ctx: WorkflowContext, n: u64| {
        ctx.timer(millis(50)).await?;
        ctx.event(GO).await?;
        ok(n)
    };
    let _orders = up(Worker::new("orders", worker).settings(settings()).workflow(MAIN, timer)).await;
    let stuck = stage.client.start(MAIN, 7).id("stuck").await.unwrap();
    let mut others = Vec::new();
    for n in 0..OTHERS {
        others.push(stage.client.start(MAIN, n as u64).await.unwrap());
    }
    let timers = stage.wait_for_due("orders", DueKind::Timer, OTHERS + 1).await;
    let last = timers.iter().map(|timer| timer.due).max().unwrap();
    until("all timers to be due", async || {
        (stage.backend.store().now().await.unwrap() > last).then_some(())
    })
    .await;
    all_due.open();
    for run in &others {
        stage.wait_for_text("orders", run.id(), &["event `go`"]).await;
    }
    // It is given up for now. The others are done with, and are not told again and again until the last of them is.
    too_late.open();
    stage.wait_for_due("orders", DueKind::Timer, 1).await;
    answered.open();
    stage.wait_for_text("orders", "stuck", &["event `go`"]).await;
    for (n, run) in others.iter().enumerate() {
        run.raise(GO, ()).await.unwrap();
        assert_eq!(done(run).await, n as u64);
    }
    stuck.raise(GO, ()).await.unwrap();
    assert_eq!(done(&stuck).await, 7);
}

pub(crate) async fn the_claim_of_a_due_entry_is_short_and_renewed_while_it_is_handled(h: &impl Harness) {
    // What a dead worker had claimed is another's after this.
    const LONGEST: std::time::Duration = std::time::Duration::from_secs(1);
    let stage = Stage::new(h).await;
    let (is_held, answered, too_late) = (Arc::new(AtomicBool::new(false)), Gate::new(), Gate::new());
    let held = (is_held.clone(), answered.clone());
    let worker = with_store_behind(&stage.backend, move |call: Call| {
        let (is_held, answered) = held.clone();
        Box::pin(async move {
            if call.method == "record" && is_held.load(Ordering::SeqCst) {
                answered.pass().await;
            }
        })
    });
    // Nothing is given up as too late.
    let worker = with_long_waits_behind(&worker, too_late);
    let timer = async |ctx: WorkflowContext, n: u64| {
        ctx.timer(std::time::Duration::from_secs(3600)).await?;
        ok(n)
    };
    let _orders = up(Worker::new("orders", worker).settings(settings()).workflow(MAIN, timer)).await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    let timer = stage.wait_for_due("orders", DueKind::Timer, 1).await.remove(0);
    is_held.store(true, Ordering::SeqCst);
    let store = stage.backend.store();
    let before = store.now().await.unwrap();
    let now_due = [DueEntry { due: before, ..timer }];
    store.schedule(&app("orders"), &now_due, When::Sooner).await.unwrap();
    let moved_from = async |before: Timestamp| {
        until("another time", async || {
            let due = stage.due("orders", DueKind::Timer).await.first()?.due;
            (due > before).then_some(due)
        })
        .await
    };
    let mut due = moved_from(before).await;
    for _ in 0..3 {
        assert!(due.since(store.now().await.unwrap()) <= LONGEST, "{due}");
        due = moved_from(due).await;
    }
    answered.open();
    assert_eq!(done(&run).await, 7);
    stage.wait_for_due("orders", DueKind::Timer, 0).await;
}
