//! External events and timers; scenarios 22 and 23.

use std::sync::{Arc, Mutex};

use leveret::backend::DueKind;
use leveret::client::{Error, Raised};
use leveret::replay::history::{HistoryEvent, TimerPurpose};
use leveret::{Event, InstanceId, InstanceRef, Result, Status, Timestamp, Workflow, WorkflowContext, all};

use crate::harness::*;
use crate::programs::*;

const COLLECT: Workflow<u64, Vec<u64>> = Workflow::new("orders", "collect");
const NUMBER: Event<u64> = Event::new("Number");

/// As many events as the input says, in the order in which they come.
async fn collect(ctx: WorkflowContext, count: u64) -> Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for _ in 0..count {
        numbers.push(ctx.event(NUMBER).await?);
    }
    Ok(numbers)
}

pub(crate) async fn events_arrive_in_order_whoever_waits(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let _orders = up(stage
        .worker("orders")
        .workflow(COLLECT, async |ctx: WorkflowContext, count: u64| {
            // Some come before anybody waits, some after.
            ctx.event(GO).await?;
            collect(ctx, count).await
        }))
    .await;
    let run = stage.client.start(COLLECT, 6).id("one").await.unwrap();
    for n in 0..3 {
        run.raise(NUMBER, n).await.unwrap();
    }
    run.raise(GO, ()).await.unwrap();
    for n in 3..6 {
        // Names match without case.
        run.handle()
            .raise_named(if n % 2 == 0 { "NUMBER" } else { "number" }, n)
            .await
            .unwrap();
    }
    assert_eq!(done(&run).await, [0, 1, 2, 3, 4, 5]);
}

pub(crate) async fn events_wait_for_an_instance_that_is_yet_to_come(h: &impl Harness) {
    let stage = Stage::new(h).await;
    for n in 0..3 {
        assert_eq!(
            stage.at("orders", "one").raise(NUMBER, n).await.unwrap(),
            Raised::KeptForLater
        );
    }
    let run = stage.client.start(COLLECT, 5).id("one").await.unwrap();
    assert_eq!(run.raise(NUMBER, 3).await.unwrap(), Raised::Kept(Status::Pending));
    let _orders = up(stage.worker("orders").workflow(COLLECT, collect)).await;
    stage.wait_for_status("orders", "one", Status::Running).await;
    run.raise(NUMBER, 4).await.unwrap();
    assert_eq!(done(&run).await, [0, 1, 2, 3, 4]);
    assert!(matches!(run.raise(NUMBER, 5).await, Err(Error::InstanceOver { .. })));
}

pub(crate) async fn a_workflow_raises_events_on_another_app(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let sender: Workflow<u64, u64> = Workflow::new("payments", "sender");
    let _payments = up(stage
        .worker("payments")
        .workflow(sender, async |ctx: WorkflowContext, n: u64| {
            let target = InstanceRef::new("orders".parse()?, InstanceId::new("one")?);
            for number in 0..n {
                ctx.raise(&target, NUMBER, number)?;
            }
            ok(n)
        }))
    .await;
    let _orders = up(stage.worker("orders").workflow(COLLECT, collect)).await;
    let run = stage.client.start(COLLECT, 2).id("one").await.unwrap();
    stage.wait_for_text("orders", "one", &["event `Number`"]).await;
    stage.client.start(sender, 2).await.unwrap();
    let mut numbers = done(&run).await;
    numbers.sort();
    assert_eq!(numbers, [0, 1]);
}

pub(crate) async fn an_event_with_one_message_id_counts_once(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let _orders = up(stage.worker("orders").workflow(COLLECT, collect)).await;
    let run = stage.client.start(COLLECT, 2).id("one").await.unwrap();
    for _ in 0..3 {
        run.raise(NUMBER, 1).message_id("first").await.unwrap();
    }
    run.raise(NUMBER, 2).message_id("second").await.unwrap();
    assert_eq!(done(&run).await, [1, 2]);
}

pub(crate) async fn a_timer_is_never_early(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let workflow: Workflow<(), (Timestamp, Timestamp)> = Workflow::new("orders", "main");
    let _orders = up(stage
        .worker("orders")
        .workflow(workflow, async |ctx: WorkflowContext, ()| {
            let before = ctx.now();
            ctx.timer(millis(300)).await?;
            ok((before, ctx.now()))
        }))
    .await;
    for _ in 0..3 {
        let run = stage.client.start(workflow, ()).await.unwrap();
        let (before, after) = done(&run).await;
        assert!(after.since(before) >= millis(300), "{before} {after}");
    }
}

pub(crate) async fn a_thousand_timers_due_at_once_all_fire(h: &impl Harness) {
    const TIMERS: u64 = 1000;
    let stage = Stage::new(h).await;
    let workflow: Workflow<(), usize> = Workflow::new("orders", "main");
    let _orders = up(stage
        .worker("orders")
        .workflow(workflow, async |ctx: WorkflowContext, ()| {
            let timers = (0..TIMERS).map(|n| ctx.timer(millis(50 + n % 7)));
            let fired = all(timers).await.into_iter().collect::<Result<Vec<()>>>()?;
            ok(fired.len())
        }))
    .await;
    let run = stage.client.start(workflow, ()).id("one").await.unwrap();
    assert_eq!(done(&run).await, TIMERS as usize);
}

pub(crate) async fn a_timer_goes_on_in_another_worker(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let workflow: Workflow<(), u64> = Workflow::new("orders", "main");
    let orders = || {
        stage
            .worker("orders")
            .workflow(workflow, async |ctx: WorkflowContext, ()| {
                ctx.timer(millis(100)).await?;
                ok(7)
            })
    };
    let first = up(orders()).await;
    let run = stage.client.start(workflow, ()).id("one").await.unwrap();
    stage.wait_for_text("orders", "one", &["timer 0"]).await;
    drop(first);
    let _second = up(orders()).await;
    assert_eq!(done(&run).await, 7);
}

/// Timers that were created and neither fired nor cancelled.
fn left_over(events: &[HistoryEvent]) -> Vec<u64> {
    let mut open = Vec::new();
    for event in events {
        match event {
            HistoryEvent::TimerCreated { sequence, .. } => open.push(*sequence),
            HistoryEvent::TimerFired { sequence } | HistoryEvent::TimerCancelled { sequence } => {
                open.retain(|other| other != sequence)
            }
            _ => {}
        }
    }
    open
}

pub(crate) async fn a_wait_that_is_over_leaves_no_timer(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let workflow: Workflow<(), Vec<Option<u64>>> = Workflow::new("orders", "main");
    let _orders = up(stage
        .worker("orders")
        .workflow(workflow, async |ctx: WorkflowContext, ()| {
            let mut seen = Vec::new();
            for limit in [3_600_000, 20, 3_600_000] {
                seen.push(ctx.event(NUMBER).within(millis(limit)).await?);
                ctx.set_custom_status(seen.len())?;
            }
            ok(seen)
        }))
    .await;
    let run = stage.client.start(workflow, ()).id("one").await.unwrap();
    for (number, rounds) in [(1, "null"), (3, "2")] {
        let is_there = |info: &leveret::client::InstanceInfo| {
            info.custom_status
                .as_ref()
                .map_or("null".into(), |status| status.preview())
                == rounds
                && info.status == Status::Running
        };
        stage.wait_for("orders", "one", "at its next wait", is_there).await;
        let events = stage.events("orders", "one").await;
        assert_eq!(left_over(&events).len(), 1, "one live timer at a time");
        run.raise(NUMBER, number).await.unwrap();
    }
    assert_eq!(done(&run).await, [Some(1), None, Some(3)]);
    let events = stage.events("orders", "one").await;
    assert!(left_over(&events).is_empty());
    let timeouts = events
        .iter()
        .filter(|event| {
            matches!(
                event,
                HistoryEvent::TimerCreated {
                    purpose: TimerPurpose::EventTimeout { .. },
                    ..
                }
            )
        })
        .count();
    assert_eq!(timeouts, 3);
    // The last turn's effects come after its commit.
    until("no timer to be due", async || {
        stage.due("orders", DueKind::Timer).await.is_empty().then_some(())
    })
    .await;
}

pub(crate) async fn time_and_chance_are_the_same_on_replay(h: &impl Harness) {
    type Seen = Arc<Mutex<Vec<(Timestamp, uuid::Uuid, bool)>>>;
    let stage = Stage::new(h).await;
    let seen: Seen = Arc::default();
    let workflow: Workflow<(), u64> = Workflow::new("orders", "main");
    let orders = || {
        let code = async |seen: Seen, ctx: WorkflowContext, (): ()| {
            seen.lock().unwrap().push((ctx.now(), ctx.uuid(), ctx.is_replaying()));
            ctx.event(GO).await?;
            ok(7)
        };
        stage.worker("orders").workflow(workflow, with(seen.clone(), code))
    };
    let first = up(orders()).await;
    let run = stage.client.start(workflow, ()).id("one").await.unwrap();
    stage.wait_for_text("orders", "one", &["event `go`"]).await;
    first.stop().await;
    let second = up(orders()).await;
    run.raise(GO, ()).await.unwrap();
    assert_eq!(done(&run).await, 7);
    let seen = seen.lock().unwrap().clone();
    assert_eq!(seen.len(), 2);
    assert_eq!((seen[0].0, seen[0].1), (seen[1].0, seen[1].1));
    assert_eq!((seen[0].2, seen[1].2), (false, true));
    assert_eq!(second.counts().replays, 1);
}
