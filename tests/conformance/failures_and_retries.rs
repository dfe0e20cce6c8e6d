//! Activities that fail, panic or take their process down; scenario 19.

use std::collections::BTreeSet;

use leveret::backend::Queue;
use leveret::replay::history::HistoryEvent;
use leveret::wire::{Bundle, Item};
use leveret::{ActivityContext, Failure, MessageId, Result, Status, TaskExecutionId, Workflow, WorkflowContext, kinds};
use std::sync::{Arc, Mutex};

use crate::harness::*;
use crate::programs::*;

const MAIN: Workflow<u64, u64> = Workflow::new("orders", "main");

pub(crate) async fn a_failed_attempt_is_tried_again_by_the_policy(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let seen: Arc<Mutex<Vec<(u32, TaskExecutionId)>>> = Arc::default();
    let work = async |seen: Arc<Mutex<Vec<(u32, TaskExecutionId)>>>, ctx: ActivityContext, n: u64| {
        seen.lock().unwrap().push((ctx.attempt(), ctx.task_execution_id()));
        if ctx.attempt() < 3 {
            return Err(Failure::new("Flaky", "try again"));
        }
        ok(n)
    };
    let _payments = up(stage.worker("payments").activity(WORK, with(seen.clone(), work))).await;
    let _orders = up(stage
        .worker("orders")
        .workflow(MAIN, async |ctx: WorkflowContext, n: u64| {
            ctx.call(WORK, n).retry(quick_retry(5)).await
        }))
    .await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    assert_eq!(done(&run).await, 7);
    let seen = seen.lock().unwrap().clone();
    assert_eq!(seen.iter().map(|(attempt, _)| *attempt).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(
        seen.iter().map(|(_, id)| *id).collect::<BTreeSet<_>>().len(),
        1,
        "the idempotency key stays"
    );
    // Each attempt is a call of its own in the history, with a timer between.
    let events = stage.events("orders", "one").await;
    let scheduled = events
        .iter()
        .filter(|event| matches!(event, HistoryEvent::TaskScheduled { .. }))
        .count();
    let fired = events
        .iter()
        .filter(|event| matches!(event, HistoryEvent::TimerFired { .. }))
        .count();
    assert_eq!((scheduled, fired), (3, 2));
}

pub(crate) async fn attempts_end_with_the_policy_and_the_failure_arrives_whole(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let runs = Tally::new();
    let work = async |runs: Tally, _: ActivityContext, _: u64| -> Result<u64> {
        runs.add();
        let details = leveret::Payload::encode(&17)?;
        Err(Failure::new("Declined", "no money")
            .caused_by(Failure::new("Bank", "closed"))
            .with_details(details))
    };
    let _payments = up(stage.worker("payments").activity(WORK, with(runs.clone(), work))).await;
    let _orders = up(stage
        .worker("orders")
        .workflow(MAIN, async |ctx: WorkflowContext, n: u64| {
            ctx.call(WORK, n).retry(quick_retry(3)).await
        }))
    .await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    let failure = failure(&run).await;
    assert_eq!(
        (failure.kind.as_str(), failure.message.as_str()),
        ("Declined", "no money")
    );
    assert_eq!(failure.app, Some(app("payments")));
    assert!(failure.is("Bank"));
    assert_eq!(failure.details.unwrap().decode::<u64>().unwrap(), 17);
    assert_eq!(runs.get(), 3);
}

pub(crate) async fn a_fatal_failure_is_not_tried_again(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let runs = Tally::new();
    let work = async |runs: Tally, _: ActivityContext, n: u64| -> Result<u64> {
        runs.add();
        let failure = Failure::new("Declined", "no money");
        Err(if n == 0 { failure.fatal() } else { failure })
    };
    let _payments = up(stage.worker("payments").activity(WORK, with(runs.clone(), work))).await;
    let _orders = up(stage
        .worker("orders")
        .workflow(MAIN, async |ctx: WorkflowContext, n: u64| {
            ctx.call(WORK, n).retry(quick_retry(3).not_on("Declined")).await
        }))
    .await;
    for n in [0, 1] {
        let run = stage.client.start(MAIN, n).await.unwrap();
        assert_eq!(failure(&run).await.kind, "Declined");
    }
    assert_eq!(runs.get(), 2);
}

pub(crate) async fn a_panic_fails_the_attempt_and_not_the_worker(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let work = async |_: ActivityContext, n: u64| {
        assert!(n != 0, "zero is not to be had");
        ok(n)
    };
    let _payments = up(stage.worker("payments").activity(WORK, work)).await;
    let _orders = up(stage.worker("orders").workflow(MAIN, call_work)).await;
    let run = stage.client.start(MAIN, 0).await.unwrap();
    let failure = failure(&run).await;
    assert_eq!(failure.kind, kinds::PANIC);
    assert!(failure.message.contains("zero is not to be had"), "{failure}");
    let run = stage.client.start(MAIN, 7).await.unwrap();
    assert_eq!(done(&run).await, 7);
}

pub(crate) async fn a_payload_of_another_type_fails_the_call(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let workflow: Workflow<u64, String> = Workflow::new("orders", "main");
    let _payments = up(stage.worker("payments").activity(WORK, echo)).await;
    let _orders = up(stage
        .worker("orders")
        .workflow(workflow, async |ctx: WorkflowContext, _: u64| {
            let input = ctx.call_named::<u64>("work", "text").app_id("payments").await;
            let output = ctx.call_named::<String>("work", 7).app_id("payments").await;
            ok(format!("{} {}", input.unwrap_err().kind, output.unwrap_err().kind))
        }))
    .await;
    let run = stage.client.start(workflow, 0).await.unwrap();
    assert_eq!(done(&run).await, "InvalidPayload InvalidPayload");
}

pub(crate) async fn an_activity_that_takes_its_process_down_fails_in_the_end(h: &impl Harness) {
    let stage = Stage::new(h).await;
    stage.known_app("payments").await;
    let _orders = up(stage
        .worker("orders")
        .workflow(MAIN, async |ctx: WorkflowContext, n: u64| {
            ctx.call(WORK, n).retry(quick_retry(3)).await
        }))
    .await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    let queue = Queue::Activities(app("payments"));
    // Five processes have begun it and died of it.
    let items = stage.take_and_die(&queue).await;
    let [Item::Task(task)] = &items[..] else {
        panic!("a task")
    };
    stage.runs_died("payments", &task.message_id(), 5).await;
    let runs = Tally::new();
    let payments = up(stage.worker("payments").activity(WORK, counted(&runs))).await;
    let failure = failure(&run).await;
    assert_eq!(failure.kind, kinds::ACTIVITY_CRASHED);
    assert_eq!(runs.get(), 0);
    assert_eq!(stage.depth(Queue::Dead(app("payments"))).await, 1);
    assert_eq!(payments.counts().dead, 1);
}

pub(crate) async fn a_task_that_took_a_process_down_once_runs_again(h: &impl Harness) {
    let stage = Stage::new(h).await;
    stage.known_app("payments").await;
    let _orders = up(stage.worker("orders").workflow(MAIN, call_work)).await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    let items = stage.take_and_die(&Queue::Activities(app("payments"))).await;
    let [Item::Task(task)] = &items[..] else {
        panic!("a task")
    };
    let id = task.message_id();
    stage.runs_died("payments", &id, 1).await;
    let _payments = up(stage.worker("payments").activity(WORK, echo)).await;
    assert_eq!(done(&run).await, 7);
    // Its end has taken the count away.
    uncounted(&stage, &id).await;
}

async fn uncounted(stage: &Stage, task: &MessageId) {
    until("the count to be taken away", async || {
        let count = stage.backend.store().runs(&app("payments"), task).await.unwrap();
        (count == 0).then_some(())
    })
    .await;
}

pub(crate) async fn a_task_that_nobody_knows_any_more_is_no_longer_counted(h: &impl Harness) {
    let stage = Stage::new(h).await;
    stage.known_app("payments").await;
    let _orders = up(stage.worker("orders").workflow(MAIN, call_work)).await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    let items = stage.take_and_die(&Queue::Activities(app("payments"))).await;
    let [Item::Task(task)] = &items[..] else {
        panic!("a task")
    };
    stage.runs_died("payments", &task.message_id(), 1).await;
    let _older = up(stage.worker("payments")).await;
    assert_eq!(failure(&run).await.kind, kinds::ACTIVITY_NOT_REGISTERED);
    uncounted(&stage, &task.message_id()).await;
}

pub(crate) async fn a_copy_that_comes_after_its_call_is_over_is_no_longer_counted(h: &impl Harness) {
    let stage = Stage::new(h).await;
    stage.known_app("payments").await;
    let _orders = up(stage
        .worker("orders")
        .workflow(MAIN, async |ctx: WorkflowContext, n: u64| {
            let done = ctx.call(WORK, n).await?;
            ctx.event(GO).await?;
            ok(done)
        }))
    .await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    let queue = Queue::Activities(app("payments"));
    let mut consumer = stage.broker().consume(&queue, 1).await.unwrap();
    let held = soon("a task", consumer.next()).await.expect("a task");
    let items = Bundle::decode(&held.body).unwrap().items;
    let [Item::Task(task)] = &items[..] else {
        panic!("a task")
    };
    // Another copy is run and counts; the process that has this one dies in it.
    let newer = up(stage.worker("payments").activity(WORK, echo)).await;
    stage.publish(queue, items.clone()).await;
    stage.wait_for_text("orders", "one", &["event `go`"]).await;
    newer.stop().await;
    stage.runs_died("payments", &task.message_id(), 1).await;
    let _older = up(stage.worker("payments")).await;
    drop((held, consumer));
    uncounted(&stage, &task.message_id()).await;
    run.raise(GO, ()).await.unwrap();
    assert_eq!(done(&run).await, 7);
}

pub(crate) async fn a_workflow_that_fails_or_panics_says_why(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let _orders = up(stage
        .worker("orders")
        .workflow(MAIN, async |_: WorkflowContext, n: u64| {
            assert!(n != 0, "zero is not to be had");
            Err::<u64, _>("x".parse::<u64>().unwrap_err())
        }))
    .await;
    let run = stage.client.start(MAIN, 0).id("panics").await.unwrap();
    let panicked = failure(&run).await;
    assert_eq!(panicked.kind, kinds::PANIC);
    assert!(panicked.message.contains("zero is not to be had"), "{panicked}");
    let run = stage.client.start(MAIN, 1).id("fails").await.unwrap();
    assert_eq!(failure(&run).await.kind, "ParseIntError");
    assert_eq!(stage.at("orders", "fails").get().await.unwrap().status, Status::Failed);
}
