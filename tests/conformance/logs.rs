//! What a worker's log tells. On this thread alone, where the log is heard, and so on the memory backend.

use std::sync::atomic::{AtomicBool, Ordering};

use leveret::backend::Backend;
use leveret::{Client, Limits, Namespace, Settings, Status, Workflow, WorkflowContext};

use crate::harness::*;
use crate::log::Log;
use crate::programs::*;

const MAIN: Workflow<u64, u64> = Workflow::new("orders", "main");

#[tokio::test]
async fn a_history_that_grows_long_is_warned_of_once() {
    let log = Log::default();
    log.hear_this_thread();
    let backend = Backend::memory(Namespace::new("shop").unwrap());
    let limits = Limits {
        history_events: 20,
        ..Limits::default()
    };
    let worker = |app| {
        leveret::Worker::new(app, backend.clone()).settings(Settings {
            limits: limits.clone(),
            ..settings()
        })
    };
    let _payments = up(worker("payments").activity(WORK, echo)).await;
    let _orders = up(worker("orders").workflow(MAIN, async |ctx: WorkflowContext, n: u64| {
        let mut sum = 0;
        for step in 0..n {
            sum += ctx.call(WORK, step).await?;
        }
        ok(sum)
    }))
    .await;
    let client = Client::new(backend.clone());
    let short = client.start(MAIN, 5).id("short").await.unwrap();
    let long = client.start(MAIN, 30).id("long").await.unwrap();
    assert_eq!((done(&short).await, done(&long).await), (10, 435));
    let warned = log.lines("the history grows long");
    assert_eq!(warned.len(), 1, "{warned:#?}");
    for part in ["WARN", "orders/long", "20", "continue-as-new"] {
        assert!(warned[0].contains(part), "{part} in {}", warned[0]);
    }
}

#[tokio::test]
async fn a_line_of_workflow_code_that_was_first_met_in_a_replay_is_told_of_later_instances() {
    static SPEAKS: AtomicBool = AtomicBool::new(false);
    let log = Log::default();
    log.hear_this_thread();
    let backend = Backend::memory(Namespace::new("shop").unwrap());
    let orders = || {
        up(leveret::Worker::new("orders", backend.clone())
            .settings(settings())
            .workflow(MAIN, async |ctx: WorkflowContext, n: u64| {
                if SPEAKS.load(Ordering::Relaxed) {
                    tracing::info!(instance = %ctx.instance(), "the order is looked at");
                }
                ctx.event_named::<()>("go").await?;
                ok(n)
            }))
    };
    let first = orders().await;
    let client = Client::new(backend.clone());
    let replayed = client.start(MAIN, 1).id("replayed").await.unwrap();
    until("the first turn", async || {
        let info = replayed.get().await.unwrap();
        (info.status == Status::Running).then_some(())
    })
    .await;
    first.stop().await;
    SPEAKS.store(true, Ordering::Relaxed);
    let _second = orders().await;
    replayed.handle().raise_named("go", ()).await.unwrap();
    assert_eq!(done(&replayed).await, 1);
    let new = client.start(MAIN, 2).id("new").await.unwrap();
    new.handle().raise_named("go", ()).await.unwrap();
    assert_eq!(done(&new).await, 2);
    let told = log.lines("the order is looked at");
    assert!(told.len() == 1 && told[0].contains("orders/new"), "{told:#?}");
}
