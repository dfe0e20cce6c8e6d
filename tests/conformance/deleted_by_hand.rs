//! State that somebody deletes by hand in Redis, under running instances; scenario 21. No worker crashes over it, nobody goes round in circles for it,
//! and the ID is free again. (The other backends' state is in one process's hands.)

use std::time::Duration;

use deadpool_redis::redis;
use leveret::backend::{DueKind, Mark, Queue};
use leveret::client::Error;
use leveret::{Activity, ActivityContext, Event, Result, StallReason, Status, Workflow, WorkflowContext};

use crate::harness::*;

const MAIN: Workflow<u64, u64> = Workflow::new("orders", "main");
const CHILD: Workflow<u64, u64> = Workflow::new("payments", "child");
const WORK: Activity<u64, u64> = Activity::new("payments", "work");
const GO: Event<()> = Event::new("go");

async fn connection() -> redis::aio::MultiplexedConnection {
    let url = std::env::var("LEVERET_TEST_REDIS_URL").unwrap();
    let client = redis::Client::open(url).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}

/// What the keys of an instance begin with.
fn prefix(stage: &Stage, run: &leveret::Run<u64>) -> String {
    format!("lv:{{{}/{}}}:", stage.backend.namespace(), run.instance())
}

/// Deletes all turns of an instance.
async fn delete_history(stage: &Stage, run: &leveret::Run<u64>) {
    let (mut connection, meta) = (connection().await, prefix(stage, run) + "meta");
    let mut fields: Vec<String> = redis::cmd("HKEYS")
        .arg(&meta)
        .query_async(&mut connection)
        .await
        .unwrap();
    fields.retain(|field| field.parse::<u64>().is_ok());
    assert!(!fields.is_empty());
    let deleted: usize = redis::cmd("HDEL")
        .arg(&meta)
        .arg(&fields)
        .query_async(&mut connection)
        .await
        .unwrap();
    assert_eq!(deleted, fields.len());
}

/// Deletes all keys of an instance.
async fn delete(stage: &Stage, run: &leveret::Run<u64>) {
    let mut connection = connection().await;
    let keys: Vec<String> = redis::cmd("KEYS")
        .arg(prefix(stage, run) + "*")
        .query_async(&mut connection)
        .await
        .unwrap();
    assert!(!keys.is_empty());
    let deleted: usize = redis::cmd("DEL").arg(&keys).query_async(&mut connection).await.unwrap();
    assert_eq!(deleted, keys.len());
}

async fn waiter(ctx: WorkflowContext, n: u64) -> Result<u64> {
    ctx.event(GO).await?;
    Ok(n)
}

/// Waits for one of everything at once.
async fn everything(ctx: WorkflowContext, n: u64) -> Result<u64> {
    let work = ctx.call(WORK, n).timeout(Duration::from_secs(1)).start();
    let kid = ctx.child(CHILD, n).id("kid").start();
    let timer = ctx.timer(Duration::from_secs(1)).start();
    waiter(ctx, n).await?;
    timer.await?;
    Ok(work.await? + kid.await?)
}

pub(crate) async fn an_instance_whose_state_is_gone_is_missed_by_nobody(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let (begun, gate) = (Tally::new(), Gate::new());
    let work = async |(begun, gate): (Tally, Gate), _: ActivityContext, n: u64| {
        begun.add();
        gate.pass().await;
        ok(n)
    };
    let payments = up(stage
        .worker("payments")
        .workflow(CHILD, waiter)
        .activity(WORK, with((begun.clone(), gate.clone()), work)))
    .await;
    let orders = up(stage.worker("orders").workflow(MAIN, everything)).await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    begun.reach(1).await;
    stage.wait_for_text("orders", "one", &["event `go`"]).await;
    stage.wait_for_status("payments", "kid", Status::Running).await;
    delete(&stage, &run).await;

    let handle = stage.at("orders", "one");
    assert!(matches!(handle.get().await, Err(Error::NotFound { .. })));
    assert!(matches!(run.result().await, Err(Error::RunGone { .. })));
    assert!(matches!(handle.terminate("enough").await, Err(Error::NotFound { .. })));
    let list = stage.client.list(leveret::client::Filter::app("orders")).await.unwrap();
    assert!(list.instances.is_empty(), "{list:?}");
    // All that it waits for comes.
    gate.open();
    stage.at("payments", "kid").raise(GO, ()).await.unwrap();
    stage.wait_for_status("payments", "kid", Status::Completed).await;
    until("both answers to be dropped", async || {
        (orders.counts().dropped.get("no such instance") >= Some(&2)).then_some(())
    })
    .await;
    stage.check_now("orders").await;
    for kind in [DueKind::Check, DueKind::Timer] {
        until(&format!("no {kind:?} to be left"), async || {
            let left = stage
                .backend
                .store()
                .due_entries(&app("orders"), kind, 10)
                .await
                .unwrap();
            left.is_empty().then_some(())
        })
        .await;
    }
    for lane in [0, 1] {
        stage.wait_for_depth(Queue::Events(app("orders"), lane), 0).await;
    }
    // The ID is free; an event that came meanwhile is for the next that has it.
    handle.raise(GO, ()).await.unwrap();
    assert_eq!(stage.at("payments", "kid").purge().await.unwrap(), 1);
    let again = stage.client.start(MAIN, 5).id("one").await.unwrap();
    stage.wait_for_status("payments", "kid", Status::Running).await;
    stage.at("payments", "kid").raise(GO, ()).await.unwrap();
    assert_eq!(done(&again).await, 10);
    orders.stop().await;
    payments.stop().await;
}

pub(crate) async fn an_instance_whose_history_is_gone_stalls_and_can_be_ended(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let orders = || stage.worker("orders").workflow(MAIN, waiter);
    let first = up(orders()).await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    stage.wait_for_text("orders", "one", &["event `go`"]).await;
    first.stop().await;
    delete_history(&stage, &run).await;
    let _second = up(orders()).await;
    run.raise(GO, ()).await.unwrap();
    let stalled = stage.wait_for_status("orders", "one", Status::Stalled).await;
    let stall = stalled.stall.as_ref().expect("a reason");
    assert_eq!(stall.reason, StallReason::Unreadable);
    assert!(stall.message.contains("turn"), "{}", stall.message);
    run.terminate("enough").and_wait(PATIENCE).await.unwrap();
    assert_eq!(run.get().await.unwrap().status, Status::Terminated);
    // What comes after the end is dropped.
    let home = Queue::Events(app("orders"), stalled.lane.unwrap());
    let wake = leveret::wire::WakeItem {
        instance: run.instance().clone(),
    };
    stage.publish(home.clone(), vec![leveret::wire::Item::Wake(wake)]).await;
    stage.wait_for_depth(home, 0).await;
    assert_eq!(run.handle().purge().not_recursive().await.unwrap(), 1);
}

pub(crate) async fn a_marked_turn_that_is_gone_is_not_taken_for_done(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let orders = up(stage.worker("orders").workflow(MAIN, waiter)).await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    run.raise(GO, ()).await.unwrap();
    assert_eq!(done(&run).await, 7);
    orders.stop().await;
    let record = stage.record("orders", "one").await.unwrap();
    stage
        .mark_again(run.instance(), &record, Mark::Turn(record.version + 1))
        .await;
    delete_history(&stage, &run).await;
    let refused = run.handle().purge().not_recursive().await.unwrap_err();
    assert!(refused.to_string().contains("missing from the history"), "{refused}");
    let purged = run.handle().purge().not_recursive().give_up_effects().await.unwrap();
    assert_eq!(purged, 1);
}

pub(crate) async fn a_tree_whose_children_cannot_all_be_named_is_not_given_up(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let _payments = up(stage.worker("payments").workflow(CHILD, waiter)).await;
    let with_a_child = async |ctx: WorkflowContext, n: u64| ctx.child(CHILD, n).id("kid").await;
    let _orders = up(stage.worker("orders").workflow(MAIN, with_a_child)).await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    until("the child", async || stage.at("payments", "kid").get().await.ok()).await;
    stage.at("payments", "kid").raise(GO, ()).await.unwrap();
    assert_eq!(done(&run).await, 7);
    // Its turns are gone, and with them the name of its child.
    delete_history(&stage, &run).await;
    let purge = || run.handle().purge().give_up_effects();
    let refused = purge().await.unwrap_err();
    assert!(
        matches!(refused, Error::UnreadableHistory { version: 1, .. }),
        "{refused}"
    );
    assert!(stage.record("orders", "one").await.is_some());
    assert_eq!(purge().not_recursive().await.unwrap(), 1);
}
