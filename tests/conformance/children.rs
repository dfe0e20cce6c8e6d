//! Child workflows and what ends with them; scenarios 10 to 13.

use std::time::Duration;

use leveret::backend::Mark;
use leveret::client::{CommandState, Error};
use leveret::replay::history::HistoryEvent;
use leveret::{Event, Limits, Result, Retention, Settings, Status, Workflow, WorkflowContext, all, kinds};

use crate::between::{Call, with_store_behind};
use crate::harness::*;

const MAIN: Workflow<u64, u64> = Workflow::new("orders", "main");
const CHILD: Workflow<u64, u64> = Workflow::new("payments", "child");
const GRANDCHILD: Workflow<u64, u64> = Workflow::new("shipping", "grandchild");
const GO: Event<()> = Event::new("go");

async fn sleeper(ctx: WorkflowContext, n: u64) -> Result<u64> {
    ctx.timer(Duration::from_secs(3600)).await?;
    Ok(n)
}

async fn waiter(ctx: WorkflowContext, n: u64) -> Result<u64> {
    ctx.event(GO).await?;
    Ok(n)
}

pub(crate) async fn the_end_of_a_parent_ends_its_children_on_other_apps(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let _shipping = up(stage.worker("shipping").workflow(GRANDCHILD, sleeper)).await;
    let _payments = up(stage
        .worker("payments")
        .workflow(CHILD, async |ctx: WorkflowContext, n: u64| {
            ctx.child(GRANDCHILD, n).id("grandkid").await
        }))
    .await;
    let _orders = up(stage
        .worker("orders")
        .workflow(MAIN, async |ctx: WorkflowContext, n: u64| {
            ctx.child(CHILD, n).id("kid").await
        }))
    .await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    stage.wait_for_status("shipping", "grandkid", Status::Running).await;
    assert_eq!(
        run.terminate("enough").and_wait(PATIENCE).await.unwrap(),
        CommandState::Done
    );
    stage.wait_for_status("payments", "kid", Status::Terminated).await;
    stage.wait_for_status("shipping", "grandkid", Status::Terminated).await;
    assert!(matches!(run.result().await, Err(Error::Terminated { .. })));
}

pub(crate) async fn a_child_whose_app_is_down_ends_when_it_comes_back(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let payments = up(stage.worker("payments").workflow(CHILD, sleeper)).await;
    let _orders = up(stage
        .worker("orders")
        .workflow(MAIN, async |ctx: WorkflowContext, n: u64| {
            ctx.child(CHILD, n).id("kid").await
        }))
    .await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    stage.wait_for_status("payments", "kid", Status::Running).await;
    payments.stop().await;
    run.terminate("enough").and_wait(PATIENCE).await.unwrap();
    assert_eq!(stage.at("payments", "kid").get().await.unwrap().status, Status::Running);
    let _payments = up(stage.worker("payments").workflow(CHILD, sleeper)).await;
    stage.wait_for_status("payments", "kid", Status::Terminated).await;
}

pub(crate) async fn a_pending_child_ends_without_its_app(h: &impl Harness) {
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
    run.terminate("enough").and_wait(PATIENCE).await.unwrap();
    stage.wait_for_status("payments", "kid", Status::Terminated).await;
}

pub(crate) async fn a_child_of_an_unknown_app_ends_with_its_parent(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let _orders = up(stage
        .worker("orders")
        .workflow(MAIN, async |ctx: WorkflowContext, n: u64| {
            ctx.child(CHILD, n).id("kid").await
        }))
    .await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    stage.wait_for_status("payments", "kid", Status::Pending).await;
    run.terminate("enough").and_wait(PATIENCE).await.unwrap();
    stage.wait_for_status("payments", "kid", Status::Terminated).await;
    // When the app comes at last, the child stays ended.
    let _payments = up(stage.worker("payments").workflow(CHILD, waiter)).await;
    assert_eq!(
        stage.at("payments", "kid").get().await.unwrap().status,
        Status::Terminated
    );
}

pub(crate) async fn a_root_that_is_terminated_twice_ends_ten_children_once(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let _payments = up(stage.worker("payments").workflow(CHILD, waiter)).await;
    let _orders = up(stage
        .worker("orders")
        .workflow(MAIN, async |ctx: WorkflowContext, n: u64| {
            let calls = (0..n).map(|n| ctx.child(CHILD, n).id(format!("kid-{n}")));
            all(calls).await.into_iter().sum::<Result<u64>>()
        }))
    .await;
    let run = stage.client.start(MAIN, 10).id("one").await.unwrap();
    for n in 0..10 {
        stage
            .wait_for_status("payments", &format!("kid-{n}"), Status::Running)
            .await;
    }
    run.terminate("enough").and_wait(PATIENCE).await.unwrap();
    assert_eq!(
        run.terminate("again").await.unwrap(),
        CommandState::AlreadyOver(Status::Terminated)
    );
    for n in 0..10 {
        let id = format!("kid-{n}");
        stage.wait_for_status("payments", &id, Status::Terminated).await;
        let ends = |event: &HistoryEvent| {
            matches!(
                event,
                HistoryEvent::ExecutionTerminated { .. } | HistoryEvent::ExecutionCompleted { .. }
            )
        };
        assert_eq!(stage.count_events("payments", &id, ends).await, 1);
    }
}

pub(crate) async fn children_are_left_alone_if_that_is_wanted(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let _payments = up(stage.worker("payments").workflow(CHILD, waiter)).await;
    let _orders = up(stage
        .worker("orders")
        .workflow(MAIN, async |ctx: WorkflowContext, n: u64| {
            ctx.child(CHILD, n).id("kid").await
        }))
    .await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    stage.wait_for_status("payments", "kid", Status::Running).await;
    run.terminate("enough")
        .not_recursive()
        .and_wait(PATIENCE)
        .await
        .unwrap();
    stage.at("payments", "kid").raise(GO, ()).await.unwrap();
    stage.wait_for_status("payments", "kid", Status::Completed).await;
    assert_eq!(run.get().await.unwrap().status, Status::Terminated);
}

pub(crate) async fn a_detached_child_outlives_its_parent(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let _payments = up(stage.worker("payments").workflow(CHILD, waiter)).await;
    let _orders = up(stage
        .worker("orders")
        .workflow(MAIN, async |ctx: WorkflowContext, n: u64| {
            ctx.child(CHILD, n).id("kid").detach()?;
            ok(n)
        }))
    .await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    assert_eq!(done(&run).await, 7);
    stage.wait_for_status("payments", "kid", Status::Running).await;
    stage.at("payments", "kid").raise(GO, ()).await.unwrap();
    stage.wait_for_status("payments", "kid", Status::Completed).await;
}

pub(crate) async fn a_child_whose_id_is_taken_fails_and_the_occupant_is_untouched(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let _payments = up(stage.worker("payments").workflow(CHILD, waiter)).await;
    let workflow: Workflow<u64, String> = Workflow::new("orders", "main");
    let _orders = up(stage
        .worker("orders")
        .workflow(workflow, async |ctx: WorkflowContext, n: u64| {
            let taken = ctx.child(CHILD, n).id("taken").await;
            let free = ctx.child(CHILD, n).id("free").start();
            ok(format!("{} {}", taken.unwrap_err().kind, free.await?))
        }))
    .await;
    let occupant = stage.client.start(CHILD, 1).id("taken").await.unwrap();
    stage.wait_for_status("payments", "taken", Status::Running).await;
    let run = stage.client.start(workflow, 7).id("one").await.unwrap();
    stage.wait_for_status("payments", "free", Status::Running).await;
    stage.at("payments", "free").raise(GO, ()).await.unwrap();
    assert_eq!(done(&run).await, format!("{} 7", kinds::INSTANCE_ALREADY_EXISTS));
    occupant.raise(GO, ()).await.unwrap();
    assert_eq!(done(&occupant).await, 1);
}

pub(crate) async fn with_a_policy_a_child_starts_once_the_occupant_is_over(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let _payments = up(stage.worker("payments").workflow(CHILD, waiter)).await;
    let _orders = up(stage
        .worker("orders")
        .workflow(MAIN, async |ctx: WorkflowContext, n: u64| {
            ctx.child(CHILD, n).id("taken").retry(quick_retry(10_000)).await
        }))
    .await;
    let occupant = stage.client.start(CHILD, 1).id("taken").await.unwrap();
    stage.wait_for_status("payments", "taken", Status::Running).await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    stage
        .wait_for("orders", "one", "at its second attempt", |info| info.turns > 3)
        .await;
    occupant.raise(GO, ()).await.unwrap();
    assert_eq!(done(&occupant).await, 1);
    stage
        .wait_for("payments", "taken", "the child", |info| {
            info.parent.is_some() && info.status == Status::Running
        })
        .await;
    stage.at("payments", "taken").raise(GO, ()).await.unwrap();
    assert_eq!(done(&run).await, 7);
}

pub(crate) async fn a_child_without_an_id_is_named_after_its_call(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let _payments = up(stage
        .worker("payments")
        .workflow(CHILD, async |_: WorkflowContext, n: u64| ok(n)))
    .await;
    let _orders = up(stage
        .worker("orders")
        .workflow(MAIN, async |ctx: WorkflowContext, n: u64| {
            ctx.timer(millis(1)).await?;
            ctx.child(CHILD, n).await
        }))
    .await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    assert_eq!(done(&run).await, 7);
    assert_eq!(
        stage.at("payments", "one:0001").get().await.unwrap().status,
        Status::Completed
    );
}

pub(crate) async fn a_tree_over_three_apps_is_purged_as_one(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let mut workers = Vec::new();
    workers.push(
        up(stage
            .worker("shipping")
            .workflow(GRANDCHILD, async |_: WorkflowContext, n: u64| ok(n)))
        .await,
    );
    workers.push(
        up(stage
            .worker("payments")
            .workflow(CHILD, async |ctx: WorkflowContext, n: u64| {
                ctx.child(GRANDCHILD, n).id(format!("grandkid-{n}")).await
            }))
        .await,
    );
    let main = async |ctx: WorkflowContext, n: u64| {
        let sum = all((0..n).map(|n| ctx.child(CHILD, n).id(format!("kid-{n}"))))
            .await
            .into_iter()
            .sum::<Result<u64>>()?;
        ctx.event(GO).await?;
        ok(sum)
    };
    workers.push(up(stage.worker("orders").workflow(MAIN, main)).await);
    let run = stage.client.start(MAIN, 3).id("one").await.unwrap();
    stage.wait_for_text("orders", "one", &["event `go`"]).await;
    assert!(matches!(run.handle().purge().await, Err(Error::StillActive { .. })));
    run.raise(GO, ()).await.unwrap();
    assert_eq!(done(&run).await, 3);
    // No worker is needed for this.
    for worker in workers {
        worker.stop().await;
    }
    assert_eq!(stage.at("payments", "kid-0").purge().await.unwrap(), 2);
    assert_eq!(stage.at("orders", "one").purge().await.unwrap(), 5);
    assert_eq!(stage.at("orders", "one").purge().await.unwrap(), 0);
    assert!(stage.record("orders", "one").await.is_none(), "the root is gone");
    for n in 0..3 {
        for (app, id) in [("payments", format!("kid-{n}")), ("shipping", format!("grandkid-{n}"))] {
            assert!(stage.record(app, &id).await.is_none(), "{app}/{id} is gone");
        }
    }
}

pub(crate) async fn a_result_for_a_parent_that_was_purged_is_dropped(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let _payments = up(stage.worker("payments").workflow(CHILD, waiter)).await;
    let orders = up(stage
        .worker("orders")
        .workflow(MAIN, async |ctx: WorkflowContext, n: u64| {
            ctx.child(CHILD, n).id("kid").await
        }))
    .await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    stage.wait_for_status("payments", "kid", Status::Running).await;
    run.terminate("enough")
        .not_recursive()
        .and_wait(PATIENCE)
        .await
        .unwrap();
    assert_eq!(run.handle().purge().not_recursive().await.unwrap(), 1);
    stage.at("payments", "kid").raise(GO, ()).await.unwrap();
    stage.wait_for_status("payments", "kid", Status::Completed).await;
    until("the result to be dropped", async || {
        orders.counts().dropped.contains_key("no such instance").then_some(())
    })
    .await;
    assert!(stage.record("orders", "one").await.is_none());
}

pub(crate) async fn a_child_whose_end_was_not_told_is_heard_of_without_its_app(h: &impl Harness) {
    the_end_of_a_child_is_not_told(h, 0).await;
}

pub(crate) async fn a_child_whose_end_was_not_told_is_heard_of_whatever_its_parent_waits_for(h: &impl Harness) {
    the_end_of_a_child_is_not_told(h, 2 * leveret::WaitingView::SHOWN).await;
}

/// The parent waits for so many other things before it comes to its child.
async fn the_end_of_a_child_is_not_told(h: &impl Harness, others: usize) {
    let stage = Stage::new(h).await;
    stage.known_app("payments").await;
    let parent = async |others: usize, ctx: WorkflowContext, n: u64| {
        let hour = std::time::Duration::from_secs(3600);
        let _others: Vec<_> = (0..others).map(|_| ctx.timer(hour).start()).collect();
        ctx.child(CHILD, n).id("kid").await
    };
    let orders = || stage.worker("orders").workflow(MAIN, with(others, parent));
    let first = up(orders()).await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    stage.wait_for_status("payments", "kid", Status::Pending).await;
    first.stop().await;
    // Whoever ends it dies after the commit.
    let (committed, died) = (Gate::new(), Gate::new());
    let gate = died.clone();
    let dying = with_store_behind(&stage.backend, move |call: Call| {
        let (committed, died) = (committed.clone(), gate.clone());
        Box::pin(async move {
            if committed.is_open() {
                died.open();
                std::future::pending::<()>().await;
            }
            if call.method == "commit" {
                committed.open();
            }
        })
    });
    let kid = leveret::Client::new(dying).instance("payments", "kid").unwrap();
    tokio::select! {
        _ = std::future::IntoFuture::into_future(kid.terminate("enough")) => panic!("the client was to die"),
        () = died.pass() => {}
    }
    assert_eq!(
        stage.record("payments", "kid").await.unwrap().status,
        Status::Terminated
    );
    let _second = up(orders()).await;
    stage.check_now("orders").await;
    assert_eq!(failure(&run).await.kind, kinds::TERMINATED);
}

/// A parent's worker dies before it sees its child's start confirmed, and the parent is away. The child ends and is deleted; the next worker of the
/// parent makes the child's start once more. (Without a mark at that time it is a worker that was only frozen and goes on.)
async fn a_child_goes_while_its_parent_is_away(h: &impl Harness, settings: Settings, is_marked: bool) {
    let stage = Stage::new(h).await;
    let runs = Tally::new();
    let code = async |runs: Tally, ctx: WorkflowContext, n: u64| {
        runs.add();
        waiter(ctx, n).await
    };
    let _payments = up(stage
        .worker("payments")
        .settings(settings.clone())
        .workflow(CHILD, with(runs.clone(), code)))
    .await;
    let orders = || {
        stage
            .worker("orders")
            .settings(settings.clone())
            .workflow(MAIN, async |ctx: WorkflowContext, n: u64| {
                let answer = ctx.child(CHILD, n).id("kid").await?;
                ctx.event(GO).await?;
                ok(answer)
            })
    };
    let first = up(orders()).await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    stage.wait_for_status("payments", "kid", Status::Running).await;
    first.stop().await;
    let record = stage.record("orders", "one").await.unwrap();
    let mark = async || {
        let first_turn = Mark::Turn(record.version);
        stage.mark_again(run.instance(), &record, first_turn).await;
    };
    if is_marked {
        mark().await;
    }
    let client = leveret::Client::builder(stage.backend.clone())
        .limits(settings.limits.clone())
        .build();
    let kid = client.instance("payments", "kid").unwrap();
    kid.raise(GO, ()).await.unwrap();
    until("the child to end", async || {
        match stage.record("payments", "kid").await {
            Some(record) => record.status.is_terminal().then_some(()),
            None => Some(()),
        }
    })
    .await;
    if settings.retention.completed != Some(Duration::ZERO) {
        assert_eq!(kid.purge().await.unwrap(), 1);
    }
    until("the child to be gone", async || {
        stage.record("payments", "kid").await.is_none().then_some(())
    })
    .await;
    if is_marked {
        // The start's receipt lapses.
        let store = stage.backend.store();
        let gone = store.now().await.unwrap();
        until("the window to be over", async || {
            (store.now().await.unwrap().since(gone) > settings.limits.dedup_window).then_some(())
        })
        .await;
    } else {
        mark().await;
    }
    let _second = up(orders()).await;
    stage.wait_for_text("orders", "one", &["event `go`"]).await;
    assert!(stage.record("payments", "kid").await.is_none());
    run.raise(GO, ()).await.unwrap();
    assert_eq!(done(&run).await, 7);
    assert_eq!(runs.get(), 1);
}

pub(crate) async fn a_child_that_was_purged_while_its_parent_was_away_is_not_started_again(h: &impl Harness) {
    a_child_goes_while_its_parent_is_away(h, settings(), false).await;
}

fn forgetful() -> Settings {
    let limits = Limits {
        dedup_window: millis(500),
        ..Limits::default()
    };
    Settings { limits, ..settings() }
}

pub(crate) async fn a_child_that_was_purged_long_ago_is_not_started_again(h: &impl Harness) {
    a_child_goes_while_its_parent_is_away(h, forgetful(), true).await;
}

pub(crate) async fn a_child_whose_time_was_over_long_ago_is_not_started_again(h: &impl Harness) {
    let retention = Retention {
        completed: Some(Duration::ZERO),
        ..Retention::default()
    };
    let settings = Settings {
        retention,
        ..forgetful()
    };
    a_child_goes_while_its_parent_is_away(h, settings, true).await;
}
