//! Apps and names that are not there: rows 1 to 3 and 6 of the table of semantics; scenario 3.

use leveret::backend::{DueKind, Queue};
use leveret::client::{Error, TargetState, WaitingOn};
use leveret::replay::history::HistoryEvent;
use leveret::{Activity, Failure, Settings, Status, Workflow, WorkflowContext, kinds};

use crate::harness::*;
use crate::programs::*;

const MAIN: Workflow<u64, u64> = Workflow::new("orders", "main");
const NEAR: Activity<u64, u64> = Activity::new("orders", "near");

pub(crate) async fn a_task_waits_for_an_app_that_is_away(h: &impl Harness) {
    let stage = Stage::new(h).await;
    stage.known_app("payments").await;
    let _orders = up(stage.worker("orders").workflow(MAIN, call_work)).await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    stage.wait_for_depth(Queue::Activities(app("payments")), 1).await;
    stage
        .wait_for_text(
            "orders",
            "one",
            &["activity `work` on app `payments`", "no worker of payments since"],
        )
        .await;
    let _payments = up(stage.worker("payments").activity(WORK, echo)).await;
    assert_eq!(done(&run).await, 7);
}

pub(crate) async fn without_a_policy_a_call_waits_for_an_unknown_app(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let _orders = up(stage.worker("orders").workflow(MAIN, call_work)).await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    let seen = async || match run.get().await.unwrap().waiting.on.first() {
        Some(WaitingOn::Activity {
            target,
            tried_again: Some(again),
            ..
        }) if target.state == TargetState::Unknown => Some(*again),
        _ => None,
    };
    let first = until("the task to be parked", seen).await;
    let before = run.get().await.unwrap();
    // It is tried again and again, and its history does not grow.
    until("a second try", async || seen().await.filter(|again| *again > first)).await;
    let after = run.get().await.unwrap();
    assert_eq!(
        (before.status, before.turns, before.history_events),
        (Status::Running, after.turns, after.history_events)
    );
    let _payments = up(stage.worker("payments").activity(WORK, echo)).await;
    assert_eq!(done(&run).await, 7);
}

pub(crate) async fn what_waits_for_an_unknown_app_holds_up_nothing_else(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let worker = stage
        .worker("orders")
        .activity(NEAR, echo)
        .workflow(MAIN, async |ctx: WorkflowContext, n: u64| {
            let far = ctx.call(WORK, n).start();
            let child = ctx.child(CHILD, n).id("kid").start();
            for step in 0..5 {
                ctx.call(NEAR, step).await?;
                ctx.set_custom_status(step)?;
            }
            ok(far.await? + child.await?)
        });
    let _orders = up(worker).await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    stage
        .wait_for("orders", "one", "past its own steps", |info| {
            info.custom_status
                .as_ref()
                .is_some_and(|status| status.as_bytes() == b"4")
        })
        .await;
    stage
        .wait_for_text(
            "orders",
            "one",
            &[
                "activity `work` on app `payments`",
                "child workflow `child` as payments/kid",
            ],
        )
        .await;
    let _payments = up(stage
        .worker("payments")
        .activity(WORK, echo)
        .workflow(CHILD, async |_: WorkflowContext, n: u64| ok(n)))
    .await;
    assert_eq!(done(&run).await, 14);
}

pub(crate) async fn with_a_policy_each_attempt_at_an_unknown_app_is_a_failure(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let workflow: Workflow<u64, String> = Workflow::new("orders", "main");
    let _orders = up(stage
        .worker("orders")
        .workflow(workflow, async |ctx: WorkflowContext, n: u64| {
            kind_of(ctx.call(WORK, n).retry(quick_retry(3)).await)
        }))
    .await;
    let run = stage.client.start(workflow, 7).id("one").await.unwrap();
    assert_eq!(done(&run).await, kinds::APP_NOT_FOUND);
    let failed = |event: &HistoryEvent| matches!(event, HistoryEvent::TaskFailed { failure, .. } if failure.kind == kinds::APP_NOT_FOUND);
    assert_eq!(stage.count_events("orders", "one", failed).await, 3);
}

pub(crate) async fn with_a_policy_a_child_on_an_unknown_app_fails_and_shows_it(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let workflow: Workflow<u64, String> = Workflow::new("orders", "main");
    let _orders = up(stage
        .worker("orders")
        .workflow(workflow, async |ctx: WorkflowContext, n: u64| {
            kind_of(ctx.child(CHILD, n).id("kid").retry(quick_retry(2)).await)
        }))
    .await;
    let run = stage.client.start(workflow, 7).id("one").await.unwrap();
    assert_eq!(done(&run).await, kinds::APP_NOT_FOUND);
    let child = stage.at("payments", "kid").get().await.unwrap();
    assert_eq!(child.status, Status::Failed);
    assert_eq!(
        child.failure.as_ref().map(|failure| failure.kind.as_str()),
        Some(kinds::APP_NOT_FOUND)
    );
}

pub(crate) async fn an_app_that_comes_between_two_attempts_is_found(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let _orders = up(stage
        .worker("orders")
        .workflow(MAIN, async |ctx: WorkflowContext, n: u64| {
            ctx.call(WORK, n).retry(quick_retry(1000)).await
        }))
    .await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    stage
        .wait_for("orders", "one", "at its second attempt", |info| info.turns > 3)
        .await;
    let _payments = up(stage.worker("payments").activity(WORK, echo)).await;
    assert_eq!(done(&run).await, 7);
}

pub(crate) async fn a_name_that_is_not_registered_fails_at_once(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let workflow: Workflow<u64, (String, String)> = Workflow::new("orders", "main");
    let _payments = up(stage.worker("payments")).await;
    let _orders = up(stage
        .worker("orders")
        .workflow(workflow, async |ctx: WorkflowContext, n: u64| {
            let activity = ctx.call(WORK, n).await.err();
            let child = ctx.child(CHILD, n).id("kid").retry(quick_retry(2)).await.err();
            let kind = |failure: Option<Failure>| failure.map(|failure| failure.kind).unwrap_or_default();
            ok((kind(activity), kind(child)))
        }))
    .await;
    let run = stage.client.start(workflow, 7).id("one").await.unwrap();
    assert_eq!(
        done(&run).await,
        (
            kinds::ACTIVITY_NOT_REGISTERED.to_owned(),
            kinds::WORKFLOW_NOT_REGISTERED.to_owned()
        )
    );
    let attempts = |event: &HistoryEvent| matches!(event, HistoryEvent::ChildScheduled { .. });
    assert_eq!(stage.count_events("orders", "one", attempts).await, 2);
    assert_eq!(stage.at("payments", "kid").get().await.unwrap().status, Status::Failed);
}

pub(crate) async fn a_start_at_an_app_that_is_away_is_pending_and_runs_when_it_comes(h: &impl Harness) {
    let stage = Stage::new(h).await;
    stage.known_app("payments").await;
    let _orders = up(stage
        .worker("orders")
        .workflow(MAIN, async |ctx: WorkflowContext, n: u64| {
            ctx.child(CHILD, n).id("kid").await
        }))
    .await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    stage.wait_for_status("payments", "kid", Status::Pending).await;
    stage
        .wait_for_text(
            "orders",
            "one",
            &[
                "child workflow `child` as payments/kid",
                "Pending",
                "no worker of payments since",
            ],
        )
        .await;
    let _payments = up(stage
        .worker("payments")
        .workflow(CHILD, async |_: WorkflowContext, n: u64| ok(n)))
    .await;
    assert_eq!(done(&run).await, 7);
}

pub(crate) async fn an_app_that_is_removed_is_unknown_again(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let remove = || stage.client.remove_app("payments");
    assert!(matches!(remove().await, Err(Error::NoSuchApp { .. })));
    let payments = up(stage.worker("payments").activity(WORK, echo)).await;
    let refusal = async || remove().await.unwrap_err().to_string();
    assert!(refusal().await.contains("1 workers of it are up"));
    payments.stop().await;
    let waiting = stage.client.start(CHILD, 1).id("waiting").await.unwrap();
    assert!(
        refusal().await.contains("instance payments/waiting is Pending"),
        "{}",
        refusal().await
    );
    waiting.terminate("enough").await.unwrap();
    assert!(
        refusal().await.contains("queue payments.workflows has 1 messages"),
        "{}",
        refusal().await
    );
    remove().anyway().await.unwrap();
    let _orders = up(stage.worker("orders").workflow(MAIN, call_work)).await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    stage.wait_for_text("orders", "one", &["payments", "unknown"]).await;
    let _payments = up(stage.worker("payments").activity(WORK, echo)).await;
    assert_eq!(done(&run).await, 7);
}

pub(crate) async fn an_app_with_an_activity_under_way_is_not_removed(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let (bodies, gate) = (Tally::new(), Gate::new());
    let short_leases = Settings {
        delivery_timeout: millis(200),
        ..settings()
    };
    let payments = || {
        stage
            .worker("payments")
            .settings(short_leases.clone())
            .activity(WORK, gated(&bodies, &gate))
    };
    let first = up(payments()).await;
    let _orders = up(stage.worker("orders").workflow(MAIN, call_work)).await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    stage.wait_for_text("orders", "one", &["lease until"]).await;
    // Its process dies; the task is in the lease alone, and would be gone with the app's due-set.
    drop(first);
    until("the worker to be counted out", async || {
        let refusal = stage.client.remove_app("payments").await.unwrap_err().to_string();
        refusal.contains("activities under way").then_some(())
    })
    .await;
    let _second = up(payments()).await;
    gate.open();
    assert_eq!(done(&run).await, 7);
}

pub(crate) async fn what_waits_for_an_unknown_app_is_dropped_with_its_caller(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let _orders = up(stage.worker("orders").workflow(MAIN, call_work)).await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    let parked = async || stage.due("orders", DueKind::Parked).await.len();
    until("the task to be parked", async || (parked().await == 1).then_some(())).await;
    run.terminate("enough").and_wait(PATIENCE).await.unwrap();
    until("the task to be dropped", async || (parked().await == 0).then_some(())).await;
    assert!(
        stage
            .broker()
            .depth(&Queue::Activities(app("payments")))
            .await
            .unwrap()
            .is_none()
    );
}
