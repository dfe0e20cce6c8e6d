//! Code that changes under running instances, and code that does what it must not; scenario 25.

use leveret::backend::Queue;
use leveret::client::Filter;
use leveret::wire::{Command, CommandItem, Item};
use leveret::{Activity, Result, StallReason, Status, Timestamp, Worker, Workflow, WorkflowContext};

use crate::between::{Call, with_store_behind};
use crate::harness::*;
use crate::programs::*;

const MAIN: Workflow<u64, u64> = Workflow::new("orders", "main");
const OTHER: Workflow<u64, u64> = Workflow::new("orders", "other");
const ONE: Activity<u64, u64> = Activity::new("payments", "one");
const TWO: Activity<u64, u64> = Activity::new("payments", "two");

async fn one_then_two(ctx: WorkflowContext, n: u64) -> Result<u64> {
    let first = ctx.call(ONE, n).await?;
    ctx.event(GO).await?;
    Ok(first + ctx.call(TWO, n).await?)
}

async fn two_then_one(ctx: WorkflowContext, n: u64) -> Result<u64> {
    let first = ctx.call(TWO, n).await?;
    ctx.event(GO).await?;
    Ok(first + ctx.call(ONE, n).await?)
}

async fn payments(stage: &Stage) -> leveret::RunningWorker {
    up(stage.worker("payments").activity(ONE, echo).activity(TWO, echo)).await
}

pub(crate) async fn swapped_calls_stall_the_instance_until_the_old_code_is_back(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let _payments = payments(&stage).await;
    let old = || {
        stage
            .worker("orders")
            .workflow(MAIN, one_then_two)
            .workflow(OTHER, waiter)
    };
    let first = up(old().build_id("v1")).await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    stage.wait_for_text("orders", "one", &["event `go`"]).await;
    first.stop().await;
    let second = up(stage
        .worker("orders")
        .build_id("v2")
        .workflow(MAIN, two_then_one)
        .workflow(OTHER, waiter))
    .await;
    run.raise(GO, ()).await.unwrap();
    let stalled = stage.wait_for_status("orders", "one", Status::Stalled).await;
    let stall = stalled.stall.as_ref().expect("a reason");
    assert_eq!(stall.reason, StallReason::Nondeterminism);
    for part in ["`one`", "`two`", "turn 1"] {
        assert!(stall.message.contains(part), "{part} in {}", stall.message);
    }
    // Nothing else is held up.
    let other = stage.client.start(OTHER, 5).await.unwrap();
    other.raise(GO, ()).await.unwrap();
    assert_eq!(done(&other).await, 5);
    second.stop().await;
    let _third = up(old().build_id("v3")).await;
    assert_eq!(done(&run).await, 14);
    let info = run.get().await.unwrap();
    assert!(info.stall.is_none());
}

pub(crate) async fn of_two_builds_the_fitting_one_takes_the_instance(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let _payments = payments(&stage).await;
    let old = || stage.worker("orders").workflow(MAIN, one_then_two);
    let first = up(old().build_id("v1")).await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    stage.wait_for_text("orders", "one", &["event `go`"]).await;
    first.stop().await;
    let _second = up(stage.worker("orders").build_id("v2").workflow(MAIN, two_then_one)).await;
    run.raise(GO, ()).await.unwrap();
    stage.wait_for_status("orders", "one", Status::Stalled).await;
    // The worker whose code does not fit stays, with its lanes.
    let _third = up(old().build_id("v3")).await;
    assert_eq!(done(&run).await, 14);
}

pub(crate) async fn a_patch_keeps_running_instances_on_their_way(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let _payments = payments(&stage).await;
    let before = async |ctx: WorkflowContext, n: u64| {
        ctx.event(GO).await?;
        ctx.call(ONE, n).await?;
        ctx.set_custom_status("called")?;
        ctx.event(GO).await?;
        ok(1)
    };
    let after = async |ctx: WorkflowContext, n: u64| {
        ctx.event(GO).await?;
        let is_new = ctx.patched("two-for-one");
        ctx.call(if is_new { TWO } else { ONE }, n).await?;
        ctx.set_custom_status("called")?;
        ctx.event(GO).await?;
        ok(if is_new { 2 } else { 1 })
    };
    let first = up(stage.worker("orders").build_id("v1").workflow(MAIN, before)).await;
    let past = stage.client.start(MAIN, 7).id("past").await.unwrap();
    let not_yet = stage.client.start(MAIN, 7).id("not-yet").await.unwrap();
    past.raise(GO, ()).await.unwrap();
    stage
        .wait_for("orders", "past", "past its call", has_custom_status)
        .await;
    stage.wait_for_text("orders", "not-yet", &["event `go`"]).await;
    first.stop().await;
    let second = up(stage.worker("orders").build_id("v2").workflow(MAIN, after)).await;
    let new = stage.client.start(MAIN, 7).id("new").await.unwrap();
    for run in [&not_yet, &new] {
        run.raise(GO, ()).await.unwrap();
        stage
            .wait_for("orders", run.id(), "past its call", has_custom_status)
            .await;
    }
    // What was answered stays, in another worker too.
    second.stop().await;
    let _third = up(stage.worker("orders").build_id("v3").workflow(MAIN, after)).await;
    for (run, way) in [(past, 1), (not_yet, 2), (new, 2)] {
        run.raise(GO, ()).await.unwrap();
        assert_eq!(done(&run).await, way, "{}", run.id());
    }
}

pub(crate) async fn code_that_waits_for_a_foreign_future_is_told_so(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let _payments = payments(&stage).await;
    let first = up(stage
        .worker("orders")
        .build_id("v1")
        .workflow(MAIN, async |_: WorkflowContext, n: u64| {
            tokio::time::sleep(millis(1)).await;
            ok(n)
        }))
    .await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    let stalled = stage.wait_for_status("orders", "one", Status::Stalled).await;
    let stall = stalled.stall.as_ref().expect("a reason");
    assert_eq!(stall.reason, StallReason::ForeignFuture);
    assert!(stall.message.contains("ctx.timer"), "{}", stall.message);
    first.stop().await;
    let _second = up(stage.worker("orders").build_id("v2").workflow(MAIN, waiter)).await;
    stage.wait_for_status("orders", "one", Status::Running).await;
    // It is among those that run, for whoever looks there.
    let running = Filter::app("orders").status(Status::Running);
    assert_eq!(stage.client.list(running).await.unwrap().instances.len(), 1);
    run.raise(GO, ()).await.unwrap();
    assert_eq!(done(&run).await, 7);
}

pub(crate) async fn a_resume_that_comes_late_tries_no_code(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let old = up(stage.worker("orders").workflow(MAIN, waiter)).await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    stage.wait_for_status("orders", "one", Status::Running).await;
    run.suspend("a break").and_wait(PATIENCE).await.unwrap();
    old.stop().await;
    let _new = up(stage.worker("orders").build_id("new").workflow(MAIN, one_then_two)).await;
    let resume = CommandItem {
        instance: run.instance().clone(),
        command: Command::Resume {
            reason: "a copy".into(),
        },
        issued_at: Timestamp::from_millis(0),
        run: Some(run.run_id()),
        parent: None,
    };
    let lane = Queue::Events(app("orders"), run.get().await.unwrap().lane.unwrap());
    stage.publish(lane.clone(), vec![Item::Command(resume)]).await;
    stage.wait_for_depth(lane, 0).await;
    assert_eq!(run.get().await.unwrap().status, Status::Suspended);
    // One that is in time does, and then the two do not fit.
    run.resume("go on").await.unwrap();
    stage.wait_for_status("orders", "one", Status::Stalled).await;
}

pub(crate) async fn a_stalled_instance_keeps_events_and_can_be_ended(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let _orders = up(stage
        .worker("orders")
        .workflow(MAIN, async |_: WorkflowContext, n: u64| {
            std::future::pending::<()>().await;
            ok(n)
        }))
    .await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    stage.wait_for_status("orders", "one", Status::Stalled).await;
    for _ in 0..3 {
        run.raise(GO, ()).await.unwrap();
    }
    assert_eq!(stage.inbox("orders", "one").await, 3);
    run.terminate("enough").and_wait(PATIENCE).await.unwrap();
    assert_eq!(run.get().await.unwrap().status, Status::Terminated);
    assert_eq!(run.handle().purge().await.unwrap(), 1);
}

pub(crate) async fn a_workflow_that_takes_its_process_down_is_stopped(h: &impl Harness) {
    let stage = Stage::new(h).await;
    stage.known_app("orders").await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    stage.take_and_die(&Queue::Workflows(app("orders"))).await;
    // Five processes have begun its turn and died of it.
    let token = stage
        .record("orders", "one")
        .await
        .unwrap()
        .execution
        .derive("turn", 0)
        .into();
    stage.runs_died("orders", &token, 5).await;
    let turns = Tally::new();
    let code = async |turns: Tally, ctx: WorkflowContext, n: u64| {
        turns.add();
        waiter(ctx, n).await
    };
    let _orders = up(stage.worker("orders").workflow(MAIN, with(turns.clone(), code))).await;
    let stalled = stage.wait_for_status("orders", "one", Status::Stalled).await;
    assert_eq!(
        stalled.stall.as_ref().map(|stall| stall.reason),
        Some(StallReason::Crashed)
    );
    assert_eq!(turns.get(), 0);
    // Once the cause is mended, an operator lets it go on.
    run.raise(GO, ()).await.unwrap();
    run.resume("mended").await.unwrap();
    assert_eq!(done(&run).await, 7);
}

pub(crate) async fn turns_that_may_be_deadly_run_one_at_a_time_beside_all_others(h: &impl Harness) {
    let stage = Stage::new(h).await;
    stage.known_app("orders").await;
    let mut suspects = Vec::new();
    for id in ["one", "two"] {
        let run = stage.client.start(MAIN, 7).id(id).await.unwrap();
        let token = stage.record("orders", id).await.unwrap().execution.derive("turn", 0);
        stage.runs_died("orders", &token.into(), 1).await;
        suspects.push(run);
    }
    let mut dies = stage
        .broker()
        .consume(&Queue::Workflows(app("orders")), 2)
        .await
        .unwrap();
    for _ in 0..2 {
        soon("a start", dies.next()).await.expect("a start");
    }
    drop(dies);
    // Both were under way when their process died. One commits late; the other waits for that.
    let (counted, gate) = (Tally::new(), Gate::new());
    let seen = (counted.clone(), gate.clone());
    let watched = with_store_behind(&stage.backend, move |call: Call| {
        let (counted, gate) = seen.clone();
        Box::pin(async move {
            let is_healthy = call.instance.is_some_and(|instance| instance.id.as_str() == "healthy");
            match call.method {
                "runs" => drop(counted.add()),
                "commit" if !is_healthy => gate.pass().await,
                _ => {}
            }
        })
    });
    let begun = Tally::new();
    let code = async |begun: Tally, ctx: WorkflowContext, n: u64| {
        begun.add();
        waiter(ctx, n).await
    };
    let _orders = up(Worker::new("orders", watched)
        .settings(settings())
        .workflow(MAIN, with(begun.clone(), code)))
    .await;
    begun.reach(1).await;
    counted.reach(2).await;
    let healthy = stage.client.start(MAIN, 5).id("healthy").await.unwrap();
    // An event that comes between the reading and the commit of its first turn would have its code begun once more, by a replay.
    stage.wait_for_text("orders", "healthy", &["event `go`"]).await;
    healthy.raise(GO, ()).await.unwrap();
    assert_eq!(done(&healthy).await, 5);
    assert_eq!(begun.get(), 2, "one of the two, and the healthy one");
    gate.open();
    for run in suspects {
        run.raise(GO, ()).await.unwrap();
        assert_eq!(done(&run).await, 7);
    }
}

pub(crate) async fn a_turn_that_was_done_by_another_leaves_no_count_of_crashes(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let orders = || stage.worker("orders").workflow(MAIN, waiter);
    let first = up(orders()).await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    stage.wait_for_status("orders", "one", Status::Running).await;
    let record = stage.record("orders", "one").await.unwrap();
    run.raise(GO, ()).await.unwrap();
    assert_eq!(done(&run).await, 7);
    first.stop().await;
    // A worker has begun the turn, and died when it had committed it: what it had in hand comes again.
    let token = record.execution.derive("turn", 0).into();
    stage.runs_died("orders", &token, 1).await;
    let item = leveret::wire::Item::Timer(leveret::wire::TimerItem {
        task: leveret::wire::TaskRef {
            instance: run.instance().clone(),
            execution: record.execution,
            sequence: 0,
        },
        deadline: false,
    });
    let home = Queue::Events(app("orders"), record.lane.unwrap());
    stage.publish(home.clone(), vec![item]).await;
    // With a probe that may be left there.
    let mut consumer = stage.broker().consume(&home, 100).await.unwrap();
    soon("a message", consumer.next()).await.expect("a message");
    drop(consumer);
    let _second = up(orders()).await;
    until("the count to be gone", async || {
        let runs = stage.backend.store().runs(&app("orders"), &token).await.unwrap();
        (runs == 0).then_some(())
    })
    .await;
}

pub(crate) async fn redelivered_messages_that_change_nothing_are_no_crashes(h: &impl Harness) {
    use leveret::wire::{Item, WakeItem};
    let stage = Stage::new(h).await;
    let orders = || stage.worker("orders").workflow(MAIN, waiter);
    let first = up(orders()).await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    let lane = stage
        .wait_for_status("orders", "one", Status::Running)
        .await
        .lane
        .unwrap();
    first.stop().await;
    let home = Queue::Events(app("orders"), lane);
    for _ in 0..8 {
        stage
            .publish(
                home.clone(),
                vec![Item::Wake(WakeItem {
                    instance: run.instance().clone(),
                })],
            )
            .await;
        // Whatever else is left there comes again as well.
        let mut consumer = stage.broker().consume(&home, 100).await.unwrap();
        soon("a message", consumer.next()).await.expect("a message");
        drop(consumer);
        let worker = up(orders()).await;
        stage.wait_for_depth(home.clone(), 0).await;
        worker.stop().await;
        assert_eq!(run.get().await.unwrap().status, Status::Running);
    }
    let _last = up(orders()).await;
    run.raise(GO, ()).await.unwrap();
    assert_eq!(done(&run).await, 7);
}

pub(crate) async fn code_that_was_dropped_by_replay_leaves_no_trace(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let _payments = payments(&stage).await;
    // A call that is given up, a timer that loses, an event that is given back: the second worker has to come to the same.
    let code = async |ctx: WorkflowContext, n: u64| {
        let lost = ctx.call(ONE, n).start();
        let timer = ctx.timer(std::time::Duration::from_secs(3600)).start();
        ctx.event(GO).await?;
        drop((lost, timer));
        let second = ctx.call(TWO, n).await?;
        ctx.set_custom_status("called")?;
        ctx.event(GO).await?;
        ok(second)
    };
    let first = up(stage.worker("orders").workflow(MAIN, code)).await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    run.raise(GO, ()).await.unwrap();
    stage
        .wait_for("orders", "one", "at its second wait", has_custom_status)
        .await;
    first.stop().await;
    let _second = up(stage.worker("orders").workflow(MAIN, code)).await;
    run.raise(GO, ()).await.unwrap();
    assert_eq!(done(&run).await, 7);
}

pub(crate) async fn builds_that_were_tried_are_not_tried_again(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let _payments = payments(&stage).await;
    let worker = |build: &str| stage.worker("orders").build_id(build);
    let first = up(worker("v1").workflow(MAIN, one_then_two)).await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    stage.wait_for_text("orders", "one", &["event `go`"]).await;
    first.stop().await;
    let second = up(worker("v2").workflow(MAIN, two_then_one)).await;
    let third = up(worker("v3").workflow(MAIN, two_then_one)).await;
    run.raise(GO, ()).await.unwrap();
    let has_tried = |info: &leveret::client::InstanceInfo| {
        let stall = info.stall.as_ref();
        stall.is_some_and(|stall| {
            ["v2", "v3"]
                .iter()
                .all(|build| stall.has_tried(&leveret::BuildId::new(*build).unwrap()))
        })
    };
    until("both builds to be tried", async || {
        stage.check_now("orders").await;
        run.get().await.ok().filter(has_tried)
    })
    .await;
    let turns = run.get().await.unwrap().turns;
    for _ in 0..5 {
        stage.check_now("orders").await;
        let now = stage.backend.store().now().await.unwrap();
        until("the check to be over", async || {
            let checks = stage.due("orders", leveret::backend::DueKind::Check).await;
            checks.iter().all(|check| check.due > now + millis(1000)).then_some(())
        })
        .await;
    }
    assert_eq!(run.get().await.unwrap().turns, turns, "nothing was tried again");
    second.stop().await;
    third.stop().await;
    let _fourth = up(worker("v4").workflow(MAIN, one_then_two)).await;
    assert_eq!(done(&run).await, 14);
}
