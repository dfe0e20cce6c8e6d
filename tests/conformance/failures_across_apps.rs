//! How failures find their way from app to app, and chains of calls over five.

use std::collections::BTreeMap;

use leveret::backend::{Message, Queue};
use leveret::replay::history::HistoryEvent;
use leveret::wire::{Item, TaskRef};
use leveret::{
    Activity, ActivityContext, Failure, Lane, MessageId, Payload, Result, Status, TaskExecutionId, Workflow,
    WorkflowContext, kinds,
};

use crate::harness::*;
use crate::programs::*;

const MAIN: Workflow<u64, String> = Workflow::new("orders", "main");
const LEAF: Workflow<u64, u64> = Workflow::new("shipping", "leaf");
const BOOK: Activity<u64, u64> = Activity::new("carrier", "book");

/// How often the history of `orders/one` holds an attempt that failed like this.
async fn failed_attempts(stage: &Stage, kind: &str) -> usize {
    let failed =
        |event: &HistoryEvent| matches!(event, HistoryEvent::TaskFailed { failure, .. } if failure.kind == kind);
    stage.count_events("orders", "one", failed).await
}

/// A task of which some fields cannot be read, and those that say who waits for it can.
#[derive(serde::Serialize)]
struct Unreadable {
    v: u32,
    items: Vec<BTreeMap<&'static str, Readable>>,
}

#[derive(serde::Serialize)]
struct Readable {
    caller: TaskRef,
    reply_to: Lane,
    task_execution_id: TaskExecutionId,
    name: u64,
}

pub(crate) async fn a_task_that_cannot_be_read_is_answered_and_put_among_the_dead(h: &impl Harness) {
    let stage = Stage::new(h).await;
    stage.known_app("payments").await;
    let _orders = up(stage
        .worker("orders")
        .workflow(MAIN, async |ctx: WorkflowContext, n: u64| {
            kind_of(ctx.call(WORK, n).retry(quick_retry(3)).await)
        }))
    .await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    let queue = Queue::Activities(app("payments"));
    let tasks = stage.take(&queue).await;
    let [Item::Task(task)] = &tasks[..] else {
        panic!("one task: {tasks:?}")
    };
    let readable = Readable {
        caller: task.caller.clone(),
        reply_to: task.reply_to,
        task_execution_id: task.task_execution_id,
        name: 7,
    };
    let unreadable = Unreadable {
        v: 1,
        items: vec![BTreeMap::from([("task", readable)])],
    };
    let body = rmp_serde::to_vec_named(&unreadable).unwrap();
    let message = Message::bundle(queue, body.into(), &MessageId::generate());
    stage.broker().publish(message).await.unwrap();
    let begun = Tally::new();
    let _payments = up(stage.worker("payments").activity(WORK, counted(&begun))).await;
    // Another attempt would not be read either: the policy is not asked.
    assert_eq!(done(&run).await, kinds::UNDELIVERABLE);
    assert_eq!(failed_attempts(&stage, kinds::UNDELIVERABLE).await, 1);
    assert_eq!(begun.get(), 0);
    let events = stage.events("orders", "one").await;
    let failure = events.iter().find_map(|event| match event {
        HistoryEvent::TaskFailed { failure, .. } => Some(failure),
        _ => None,
    });
    let told = failure.unwrap().to_string();
    for part in ["payments", "`items[0].task.name`"] {
        assert!(told.contains(part), "{part} in {told}");
    }
    stage.wait_for_depth(Queue::Dead(app("payments")), 1).await;
}

pub(crate) async fn a_failure_crosses_two_apps_whole_and_a_fatal_one_is_tried_once(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let (bookings, leaves, children) = (Tally::new(), Tally::new(), Tally::new());
    let book = async |bookings: Tally, _: ActivityContext, n: u64| -> Result<u64> {
        bookings.add();
        let closed = Failure::new("DepotClosed", "it is Sunday").caused_by(Failure::new("Calendar", "no day left"));
        let failure = Failure::new("NoCarrier", "nobody goes there").caused_by(closed);
        let failure = failure.with_details(Payload::encode(&n)?);
        Err(if n == 0 { failure } else { failure.fatal() })
    };
    let _carrier = up(stage.worker("carrier").activity(BOOK, with(bookings.clone(), book))).await;
    let leaf = async |leaves: Tally, ctx: WorkflowContext, n: u64| {
        leaves.add();
        ctx.call(BOOK, n).retry(quick_retry(2)).await
    };
    let _shipping = up(stage.worker("shipping").workflow(LEAF, with(leaves.clone(), leaf))).await;
    let child = async |children: Tally, ctx: WorkflowContext, n: u64| {
        children.add();
        ctx.child(LEAF, n).retry(quick_retry(2)).await
    };
    let _payments = up(stage.worker("payments").workflow(CHILD, with(children.clone(), child))).await;
    let main: Workflow<u64, u64> = Workflow::new("orders", "main");
    let _orders = up(stage
        .worker("orders")
        .workflow(main, async |ctx: WorkflowContext, n: u64| {
            ctx.child(CHILD, n).retry(quick_retry(2)).await
        }))
    .await;
    let run = stage.client.start(main, 7).id("one").await.unwrap();
    let failure = failure(&run).await;
    assert_eq!((failure.kind.as_str(), failure.fatal), ("NoCarrier", true));
    assert_eq!(failure.message, "nobody goes there");
    assert_eq!(failure.app, Some(app("carrier")), "where it began");
    assert_eq!(failure.details.as_ref().unwrap().decode::<u64>().unwrap(), 7);
    let causes: Vec<_> = std::iter::successors(failure.cause.as_deref(), |cause| cause.cause.as_deref())
        .map(|cause| (cause.kind.as_str(), cause.message.as_str()))
        .collect();
    assert_eq!(causes, [("DepotClosed", "it is Sunday"), ("Calendar", "no day left")]);
    assert_eq!([&bookings, &leaves, &children].map(Tally::get), [1, 1, 1]);
    // One that is not fatal is tried again at every hop.
    let run = stage.client.start(main, 0).id("two").await.unwrap();
    let failure = self::failure_of(&run).await;
    assert_eq!((failure.kind.as_str(), failure.fatal), ("NoCarrier", false));
    assert_eq!([&bookings, &leaves, &children].map(Tally::get), [1 + 8, 1 + 4, 1 + 2]);
}

/// The same as the harness's, whose name a variable has.
async fn failure_of(run: &leveret::Run<u64>) -> Failure {
    failure(run).await
}

pub(crate) async fn the_root_tells_which_call_failed_on_which_app(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let work = async |ctx: ActivityContext, n: u64| -> Result<u64> {
        if ctx.attempt() == 1 {
            return Err(Failure::new("Busy", "the bank is busy"));
        }
        Ok(n)
    };
    let refuses = async |_: WorkflowContext, _: u64| -> Result<u64> { Err(Failure::new("Closed", "it is Sunday")) };
    let _payments = up(stage.worker("payments").activity(WORK, work).workflow(CHILD, refuses)).await;
    let _orders = up(stage
        .worker("orders")
        .workflow(MAIN, async |ctx: WorkflowContext, n: u64| {
            ctx.call(WORK, n).retry(quick_retry(2)).await?;
            kind_of(ctx.child(CHILD, n).id("kid").await)
        }))
    .await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    assert_eq!(done(&run).await, "Closed");
    let events = stage.events("orders", "one").await;
    let mut failed = Vec::new();
    for event in &events {
        match event {
            HistoryEvent::TaskFailed { failure, .. } | HistoryEvent::ChildFailed { failure, .. } => {
                failed.push((failure.kind.as_str(), failure.app.as_ref().map(|app| app.as_str())));
            }
            _ => {}
        }
    }
    assert_eq!(failed, [("Busy", Some("payments")), ("Closed", Some("payments"))]);
    let told: Vec<_> = events.iter().map(HistoryEvent::describe).collect();
    for part in ["(Busy)", "(Closed)"] {
        assert!(told.iter().any(|line| line.contains(part)), "{part} in {told:#?}");
    }
}

pub(crate) async fn a_name_that_is_not_registered_is_tried_again_by_the_policy(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let without = up(stage.worker("payments")).await;
    let _orders = up(stage
        .worker("orders")
        .workflow(MAIN, async |ctx: WorkflowContext, n: u64| {
            let few = kind_of(ctx.call(WORK, n).retry(quick_retry(3)).await)?;
            ctx.set_custom_status(&few)?;
            kind_of(ctx.call(WORK, n).retry(quick_retry(100_000)).await)
        }))
    .await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    stage
        .wait_for("orders", "one", "past its first call", has_custom_status)
        .await;
    let info = run.get().await.unwrap();
    let first: String = info.custom_status.as_ref().unwrap().decode().unwrap();
    assert_eq!(first, kinds::ACTIVITY_NOT_REGISTERED);
    // Three attempts, and those of the second call until somebody knows the name.
    until("more attempts than the first call has", async || {
        (failed_attempts(&stage, kinds::ACTIVITY_NOT_REGISTERED).await > 3).then_some(())
    })
    .await;
    let _with = up(stage.worker("payments").activity(WORK, echo)).await;
    without.stop().await;
    assert_eq!(done(&run).await, "7");
}

pub(crate) async fn an_attempt_after_a_missed_heartbeat_succeeds(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let begun = Tally::new();
    let _payments = up(stage.worker("payments").activity(WORK, stuck_once(&begun))).await;
    let _orders = up(stage
        .worker("orders")
        .workflow(MAIN, async |ctx: WorkflowContext, n: u64| {
            kind_of(ctx.call(WORK, n).heartbeat(millis(1000)).retry(quick_retry(2)).await)
        }))
    .await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    assert_eq!(done(&run).await, "7");
    assert_eq!(failed_attempts(&stage, kinds::HEARTBEAT_MISSED).await, 1);
    assert_eq!(begun.get(), 2);
}

pub(crate) async fn activities_of_five_apps_are_called_in_a_chain(h: &impl Harness) {
    const APPS: [&str; 5] = ["a", "b", "c", "d", "e"];
    let stage = Stage::new(h).await;
    let begun = Tally::new();
    let mut workers = Vec::new();
    for name in APPS {
        let add: Activity<String, String> = Activity::new(name, "add");
        let code = async |(begun, name): (Tally, &'static str), _: ActivityContext, path: String| {
            begun.add();
            ok(path + name)
        };
        workers.push(up(stage.worker(name).activity(add, with((begun.clone(), name), code))).await);
    }
    let chain: Workflow<(), String> = Workflow::new("orders", "chain");
    let _orders = up(stage
        .worker("orders")
        .workflow(chain, async |ctx: WorkflowContext, ()| {
            let mut path = String::new();
            for name in APPS {
                path = ctx.call_named::<String>("add", &path).app_id(name).await?;
            }
            ok(path)
        }))
    .await;
    let run = stage.client.start(chain, ()).id("one").await.unwrap();
    assert_eq!(done(&run).await, "abcde");
    assert_eq!(begun.get(), 5);
    let events = stage.events("orders", "one").await;
    let scheduled: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            HistoryEvent::TaskScheduled { app, .. } => Some(app.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(scheduled, APPS);
    stage.wait_for_status("orders", "one", Status::Completed).await;
}
