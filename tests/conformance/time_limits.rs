//! `schedule_to_start`, `timeout`, `heartbeat`, and the leases of long activities; scenario 20.

use std::time::Duration;

use leveret::backend::{DueKind, Queue};
use leveret::replay::history::HistoryEvent;
use leveret::wire::{Item, TaskRef, TimerItem};
use leveret::{ActivityContext, Result, Settings, Status, Workflow, WorkflowContext, kinds};

use crate::harness::*;
use crate::programs::*;

const MAIN: Workflow<u64, String> = Workflow::new("orders", "main");

async fn call_to_start_soon(ctx: WorkflowContext, n: u64) -> Result<String> {
    kind_of(ctx.call(WORK, n).schedule_to_start(millis(50)).await)
}

async fn child_to_start_soon(ctx: WorkflowContext, n: u64) -> Result<String> {
    kind_of(ctx.child(CHILD, n).id("kid").schedule_to_start(millis(50)).await)
}

pub(crate) async fn a_call_that_does_not_start_in_time_never_runs(h: &impl Harness) {
    let stage = Stage::new(h).await;
    stage.known_app("payments").await;
    let _orders = up(stage.worker("orders").workflow(MAIN, call_to_start_soon)).await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    assert_eq!(done(&run).await, kinds::TARGET_UNAVAILABLE);
    let runs = Tally::new();
    let payments = up(stage.worker("payments").activity(WORK, counted(&runs))).await;
    wait_for_dropped(&payments, 1).await;
    assert_eq!(runs.get(), 0);
}

pub(crate) async fn a_call_to_an_unknown_app_does_not_start_in_time_either(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let _orders = up(stage.worker("orders").workflow(MAIN, call_to_start_soon)).await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    assert_eq!(done(&run).await, kinds::TARGET_UNAVAILABLE);
}

pub(crate) async fn a_call_that_starts_in_time_is_not_limited_by_that(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let gate = Gate::new();
    let work = gated(&Tally::new(), &gate);
    let _payments = up(stage.worker("payments").activity(WORK, work)).await;
    let _orders = up(stage
        .worker("orders")
        .workflow(MAIN, async |ctx: WorkflowContext, n: u64| {
            let limited = ctx.call(WORK, n).schedule_to_start(millis(3000)).start();
            ctx.timer(millis(3100)).await?;
            ctx.set_custom_status("past it")?;
            kind_of(limited.await)
        }))
    .await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    stage
        .wait_for("orders", "one", "past the limit", has_custom_status)
        .await;
    gate.open();
    assert_eq!(done(&run).await, "7");
}

pub(crate) async fn an_attempt_that_takes_too_long_times_out_and_is_retried(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let runs = Tally::new();
    let _payments = up(stage.worker("payments").activity(WORK, stuck_once(&runs))).await;
    let _orders = up(stage
        .worker("orders")
        .workflow(MAIN, async |ctx: WorkflowContext, n: u64| {
            kind_of(ctx.call(WORK, n).timeout(millis(100)).retry(quick_retry(2)).await)
        }))
    .await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    assert_eq!(done(&run).await, "7");
    let timed_out = |event: &HistoryEvent| matches!(event, HistoryEvent::TaskFailed { failure, .. } if failure.kind == kinds::TIMED_OUT);
    assert_eq!(stage.count_events("orders", "one", timed_out).await, 1);
}

pub(crate) async fn the_time_of_an_attempt_begins_when_it_starts(h: &impl Harness) {
    let stage = Stage::new(h).await;
    stage.known_app("payments").await;
    let _orders = up(stage
        .worker("orders")
        .workflow(MAIN, async |ctx: WorkflowContext, n: u64| {
            let limited = ctx.call(WORK, n).timeout(millis(200)).start();
            ctx.timer(millis(900)).await?;
            ctx.set_custom_status("later")?;
            kind_of(limited.await)
        }))
    .await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    stage
        .wait_for("orders", "one", "past the limit", has_custom_status)
        .await;
    let _payments = up(stage.worker("payments").activity(WORK, echo)).await;
    assert_eq!(done(&run).await, "7");
}

pub(crate) async fn an_attempt_without_a_heartbeat_fails_and_one_with_it_goes_on(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let work = async |ctx: ActivityContext, n: u64| {
        if n == 0 {
            std::future::pending::<()>().await;
        }
        // Beats past several intervals, then is done.
        let end = tokio::time::Instant::now() + Duration::from_millis(2000);
        while tokio::time::Instant::now() < end {
            ctx.heartbeat("alive").await?;
            tokio::time::sleep(millis(20)).await;
        }
        ok(n)
    };
    let _payments = up(stage.worker("payments").activity(WORK, work)).await;
    let _orders = up(stage
        .worker("orders")
        .workflow(MAIN, async |ctx: WorkflowContext, n: u64| {
            let limit = if n == 0 { 100 } else { 1000 };
            kind_of(ctx.call(WORK, n).heartbeat(millis(limit)).await)
        }))
    .await;
    let silent = stage.client.start(MAIN, 0).id("silent").await.unwrap();
    let alive = stage.client.start(MAIN, 1).id("alive").await.unwrap();
    assert_eq!(done(&silent).await, kinds::HEARTBEAT_MISSED);
    assert_eq!(done(&alive).await, "1");
}

pub(crate) async fn a_child_that_does_not_start_in_time_never_runs(h: &impl Harness) {
    let stage = Stage::new(h).await;
    stage.known_app("payments").await;
    let _orders = up(stage.worker("orders").workflow(MAIN, child_to_start_soon)).await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    assert_eq!(done(&run).await, kinds::TARGET_UNAVAILABLE);
    let runs = Tally::new();
    let _payments = up(stage.worker("payments").workflow(CHILD, counted(&runs))).await;
    stage.wait_for_depth(Queue::Workflows(app("payments")), 0).await;
    assert_eq!(runs.get(), 0);
    assert!(stage.at("payments", "kid").get().await.unwrap().status.is_terminal());
}

pub(crate) async fn a_child_of_an_unknown_app_does_not_start_in_time_either(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let _orders = up(stage.worker("orders").workflow(MAIN, child_to_start_soon)).await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    assert_eq!(done(&run).await, kinds::TARGET_UNAVAILABLE);
}

pub(crate) async fn a_child_that_takes_too_long_is_terminated(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let _payments = up(stage
        .worker("payments")
        .workflow(CHILD, async |ctx: WorkflowContext, n: u64| {
            ctx.timer(Duration::from_secs(3600)).await?;
            ok(n)
        }))
    .await;
    let _orders = up(stage
        .worker("orders")
        .workflow(MAIN, async |ctx: WorkflowContext, n: u64| {
            kind_of(ctx.child(CHILD, n).id("kid").timeout(millis(100)).await)
        }))
    .await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    assert_eq!(done(&run).await, kinds::TIMED_OUT);
    stage.wait_for_status("payments", "kid", Status::Terminated).await;
}

async fn call_to_the_end(ctx: WorkflowContext, n: u64) -> Result<String> {
    kind_of(ctx.call(WORK, n).await)
}

fn short_deliveries() -> Settings {
    Settings {
        delivery_timeout: millis(300),
        ..settings()
    }
}

pub(crate) async fn an_activity_longer_than_the_delivery_timeout_runs_once(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let (runs, gate) = (Tally::new(), Gate::new());
    let _payments = up(stage
        .worker("payments")
        .settings(short_deliveries())
        .activity(WORK, gated(&runs, &gate)))
    .await;
    let _orders = up(stage.worker("orders").workflow(MAIN, call_to_the_end)).await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    // The lease is renewed again and again, past what the broker would have waited.
    let mut until_then = None;
    for _ in 0..4 {
        let leased = async || {
            let text = run.get().await.unwrap().waiting.to_string();
            let lease = text.split("lease until ").nth(1)?.split(';').next()?.to_owned();
            (Some(&lease) > until_then.as_ref()).then_some(lease)
        };
        until_then = Some(until("a lease that is renewed", leased).await);
    }
    gate.open();
    assert_eq!(done(&run).await, "7");
    assert_eq!(runs.get(), 1);
}

pub(crate) async fn a_long_activity_whose_worker_is_killed_is_taken_over(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let runs = Tally::new();
    let payments = || {
        // Its lease must not lapse while it is renewed, however busy the machine.
        let settings = Settings {
            delivery_timeout: millis(1_200),
            ..settings()
        };
        stage
            .worker("payments")
            .settings(settings)
            .activity(WORK, stuck_once(&runs))
    };
    let _orders = up(stage.worker("orders").workflow(MAIN, call_to_the_end)).await;
    let first = up(payments()).await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    stage.wait_for_text("orders", "one", &["lease until"]).await;
    drop(first);
    let _second = up(payments()).await;
    assert_eq!(done(&run).await, "7");
    assert_eq!(runs.get(), 2);
}

pub(crate) async fn a_running_activity_learns_that_its_caller_is_gone(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let (runs, cancelled) = (Tally::new(), Tally::new());
    let work = async |(runs, cancelled): (Tally, Tally), ctx: ActivityContext, n: u64| {
        runs.add();
        loop {
            ctx.heartbeat(n).await?;
            if tokio::time::timeout(millis(20), ctx.cancelled().cancelled())
                .await
                .is_ok()
            {
                cancelled.add();
                return ok(n);
            }
        }
    };
    let _payments = up(stage
        .worker("payments")
        .activity(WORK, with((runs.clone(), cancelled.clone()), work)))
    .await;
    let _orders = up(stage
        .worker("orders")
        .workflow(MAIN, async |ctx: WorkflowContext, n: u64| {
            kind_of(ctx.call(WORK, n).heartbeat(millis(400)).await)
        }))
    .await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    runs.reach(1).await;
    run.terminate("enough").and_wait(PATIENCE).await.unwrap();
    cancelled.reach(1).await;
}

pub(crate) async fn an_activity_that_gives_no_sign_of_life_learns_that_its_caller_is_gone(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let (runs, cancelled) = (Tally::new(), Tally::new());
    let work = async |(runs, cancelled): (Tally, Tally), ctx: ActivityContext, n: u64| {
        runs.add();
        ctx.cancelled().cancelled().await;
        cancelled.add();
        ok(n)
    };
    let _payments = up(stage
        .worker("payments")
        .activity(WORK, with((runs.clone(), cancelled.clone()), work)))
    .await;
    let _orders = up(stage.worker("orders").workflow(MAIN, call_to_the_end)).await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    runs.reach(1).await;
    run.terminate("enough").and_wait(PATIENCE).await.unwrap();
    // The worker asks every 5 s.
    cancelled.reach(1).await;
}

pub(crate) async fn a_deadline_that_is_told_early_or_twice_changes_nothing(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let (runs, gate) = (Tally::new(), Gate::new());
    let _payments = up(stage.worker("payments").activity(WORK, gated(&runs, &gate))).await;
    let _orders = up(stage
        .worker("orders")
        .workflow(MAIN, async |ctx: WorkflowContext, n: u64| {
            let limited = ctx.call(WORK, n).timeout(PATIENCE).schedule_to_start(PATIENCE).await;
            let done = kind_of(limited)?;
            ctx.set_custom_status(&done)?;
            ctx.event_named::<()>("go").await?;
            ok(done)
        }))
    .await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    runs.reach(1).await;
    let info = stage.wait_for_status("orders", "one", Status::Running).await;
    let task = TaskRef {
        instance: run.instance().clone(),
        execution: info.execution,
        sequence: 0,
    };
    let home = Queue::Events(app("orders"), info.lane.unwrap());
    let deadline = Item::Timer(TimerItem { task, deadline: true });
    for _ in 0..3 {
        stage
            .publish(home.clone(), vec![deadline.clone(), deadline.clone()])
            .await;
    }
    stage.wait_for_depth(home.clone(), 0).await;
    gate.open();
    stage
        .wait_for("orders", "one", "past its call", has_custom_status)
        .await;
    stage.publish(home.clone(), vec![deadline]).await;
    stage.wait_for_depth(home, 0).await;
    run.handle().raise_named("go", ()).await.unwrap();
    assert_eq!(done(&run).await, "7");
    until("no deadline to be left", async || {
        stage.due("orders", DueKind::Timer).await.is_empty().then_some(())
    })
    .await;
}
