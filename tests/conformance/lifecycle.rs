//! Suspend, resume, terminate, purge, continue-as-new, starts on a taken ID; scenarios 22 and 24.

use std::collections::BTreeSet;

use leveret::backend::{DueKind, Queue};
use leveret::client::Error;
use leveret::replay::history::HistoryEvent;
use leveret::wire::{Command, CommandItem, Item};
use leveret::{ActivityContext, Event, OnConflict, RunningWorker, Status, Workflow, WorkflowContext};

use crate::between::{Call, with_store_behind};
use crate::harness::*;
use crate::programs::*;

const MAIN: Workflow<u64, u64> = Workflow::new("orders", "main");
const NUMBER: Event<u64> = Event::new("number");

async fn waiting_orders(stage: &Stage) -> RunningWorker {
    up(stage.worker("orders").workflow(MAIN, waiter)).await
}

pub(crate) async fn a_suspended_instance_keeps_what_arrives_and_goes_on_with_it(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let (gate, ran) = (Gate::new(), Tally::new());
    let work = async |(gate, ran): (Gate, Tally), _: ActivityContext, n: u64| {
        gate.pass().await;
        ran.add();
        ok(n)
    };
    let _payments = up(stage
        .worker("payments")
        .activity(WORK, with((gate.clone(), ran.clone()), work)))
    .await;
    let _orders = up(stage
        .worker("orders")
        .workflow(MAIN, async |ctx: WorkflowContext, n: u64| {
            let timer = ctx.timer(millis(2000)).start();
            let activity = ctx.call(WORK, n).start();
            let number = ctx.event(NUMBER).await?;
            timer.await?;
            ok(number + activity.await?)
        }))
    .await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    stage.wait_for_status("orders", "one", Status::Running).await;
    run.suspend("a break").and_wait(PATIENCE).await.unwrap();
    let turns = run.get().await.unwrap().turns;
    stage
        .wait_for_text("orders", "one", &["a resume: it is suspended"])
        .await;
    for n in 0..3 {
        run.raise(NUMBER, n + 10).await.unwrap();
    }
    gate.open();
    ran.reach(1).await;
    // The event, the result and the timer all wait.
    until("five things in the inbox", async || {
        (stage.inbox("orders", "one").await == 5).then_some(())
    })
    .await;
    let info = run.get().await.unwrap();
    assert_eq!((info.status, info.turns), (Status::Suspended, turns));
    run.resume("on we go").await.unwrap();
    assert_eq!(done(&run).await, 17);
}

pub(crate) async fn a_suspend_or_a_resume_that_comes_late_changes_nothing(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let _orders = waiting_orders(&stage).await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    let running = stage.wait_for_status("orders", "one", Status::Running).await;
    let lane = Queue::Events(app("orders"), running.lane.unwrap());
    let reason = || "maintenance".to_owned();
    let began = stage.backend.store().now().await.unwrap();
    let at = |after: u64, command| {
        let issued_at = began + millis(after);
        Item::Command(CommandItem {
            instance: run.instance().clone(),
            command,
            issued_at,
            run: Some(run.run_id()),
            parent: None,
        })
    };
    let suspend = |after| at(after, Command::Suspend { reason: reason() });
    let resume = |after| at(after, Command::Resume { reason: reason() });
    // A resume that comes before its suspend, a copy of a suspend behind its resume, and a copy of a resume behind the next suspend.
    stage
        .publish(
            lane.clone(),
            vec![resume(2), suspend(1), suspend(3), resume(4), suspend(3)],
        )
        .await;
    stage.wait_for_depth(lane.clone(), 0).await;
    run.raise(GO, ()).await.unwrap();
    assert_eq!(done(&run).await, 7);
    let again = stage.client.start(MAIN, 8).id("one").await.unwrap();
    stage.wait_for_status("orders", "one", Status::Running).await;
    again.suspend(reason()).and_wait(PATIENCE).await.unwrap();
    let of = |after: u64, command| {
        Item::Command(CommandItem {
            instance: run.instance().clone(),
            command,
            issued_at: began + millis(after),
            run: Some(again.run_id()),
            parent: None,
        })
    };
    let suspend = |after| of(after, Command::Suspend { reason: reason() });
    let resume = |after| of(after, Command::Resume { reason: reason() });
    // A resume of before, and one that the next suspend has overtaken.
    stage
        .publish(lane.clone(), vec![resume(0), suspend(120_000), resume(90_000)])
        .await;
    again.raise(GO, ()).await.unwrap();
    stage.wait_for_depth(lane.clone(), 0).await;
    assert_eq!(again.get().await.unwrap().status, Status::Suspended);
    stage.publish(lane, vec![resume(150_000)]).await;
    assert_eq!(done(&again).await, 8);
}

pub(crate) async fn an_instance_that_is_suspended_twice_is_resumed_once(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let _orders = waiting_orders(&stage).await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    stage.wait_for_status("orders", "one", Status::Running).await;
    for _ in 0..3 {
        run.suspend("a break").and_wait(PATIENCE).await.unwrap();
    }
    run.resume("on we go").and_wait(PATIENCE).await.unwrap();
    run.resume("on we go").await.unwrap();
    run.raise(GO, ()).await.unwrap();
    assert_eq!(done(&run).await, 7);
}

pub(crate) async fn a_suspended_instance_stays_so_in_another_worker(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let first = waiting_orders(&stage).await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    stage.wait_for_status("orders", "one", Status::Running).await;
    run.suspend("a break").and_wait(PATIENCE).await.unwrap();
    run.raise(GO, ()).await.unwrap();
    drop(first);
    let _second = waiting_orders(&stage).await;
    assert_eq!(run.get().await.unwrap().status, Status::Suspended);
    run.resume("on we go").await.unwrap();
    assert_eq!(done(&run).await, 7);
}

pub(crate) async fn a_pending_instance_is_suspended_and_resumed_without_a_worker(h: &impl Harness) {
    let stage = Stage::new(h).await;
    stage.known_app("orders").await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    run.suspend("a break").and_wait(PATIENCE).await.unwrap();
    assert_eq!(run.get().await.unwrap().status, Status::Suspended);
    let orders = waiting_orders(&stage).await;
    // Its first start is of no use.
    stage.wait_for_depth(Queue::Workflows(app("orders")), 0).await;
    assert_eq!(run.get().await.unwrap().status, Status::Suspended);
    run.raise(GO, ()).await.unwrap();
    run.resume("on we go").await.unwrap();
    assert_eq!(done(&run).await, 7);
    drop(orders);
}

pub(crate) async fn a_suspend_that_comes_late_to_a_pending_instance_changes_nothing(h: &impl Harness) {
    let stage = Stage::new(h).await;
    stage.known_app("orders").await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    // Somebody asks for a suspend, and their process is frozen before it has looked at the instance.
    let (asked, thawed) = (Tally::new(), Gate::new());
    let gates = (asked.clone(), thawed.clone());
    let frozen = with_store_behind(&stage.backend, move |call: Call| {
        let (asked, thawed) = gates.clone();
        Box::pin(async move {
            match call.method {
                "now" => drop(asked.add()),
                "record" if asked.get() > 0 => {
                    asked.add();
                    thawed.pass().await;
                }
                _ => {}
            }
        })
    });
    let handle = leveret::Client::new(frozen).instance("orders", "one").unwrap();
    let others = async {
        asked.reach(2).await;
        let store = stage.backend.store();
        let asked_at = store.now().await.unwrap();
        until("a later time", async || {
            (store.now().await.unwrap() > asked_at).then_some(())
        })
        .await;
        run.resume("no break").await.unwrap();
        thawed.open();
    };
    let (suspended, ()) = tokio::join!(handle.suspend("a break").into_future(), others);
    suspended.unwrap();
    assert_eq!(run.get().await.unwrap().status, Status::Pending);
    let _orders = waiting_orders(&stage).await;
    run.raise(GO, ()).await.unwrap();
    assert_eq!(done(&run).await, 7);
}

pub(crate) async fn an_instance_ends_in_whatever_state_it_is(h: &impl Harness) {
    let stage = Stage::new(h).await;
    stage.known_app("orders").await;
    let pending = stage.client.start(MAIN, 7).id("pending").await.unwrap();
    pending.terminate("enough").and_wait(PATIENCE).await.unwrap();
    let _orders = waiting_orders(&stage).await;
    let running = stage.client.start(MAIN, 7).id("running").await.unwrap();
    stage.wait_for_status("orders", "running", Status::Running).await;
    running.terminate("enough").and_wait(PATIENCE).await.unwrap();
    let suspended = stage.client.start(MAIN, 7).id("suspended").await.unwrap();
    stage.wait_for_status("orders", "suspended", Status::Running).await;
    suspended.suspend("a break").and_wait(PATIENCE).await.unwrap();
    suspended.terminate("enough").and_wait(PATIENCE).await.unwrap();
    for run in [pending, running, suspended] {
        assert_eq!(run.get().await.unwrap().status, Status::Terminated);
        match run.result().await {
            Err(Error::Terminated { message, .. }) => assert!(message.contains("enough"), "{message}"),
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) async fn an_end_wins_over_continue_as_new(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let _orders = up(stage
        .worker("orders")
        .workflow(MAIN, async |ctx: WorkflowContext, n: u64| {
            if n.is_multiple_of(10) {
                ctx.timer(millis(1)).await?;
            }
            ctx.continue_as_new::<u64>(n + 1)
        }))
    .await;
    let run = stage.client.start(MAIN, 0).id("one").await.unwrap();
    stage
        .wait_for("orders", "one", "past many generations", |info| info.generation > 50)
        .await;
    run.terminate("enough").and_wait(PATIENCE).await.unwrap();
    assert_eq!(run.get().await.unwrap().status, Status::Terminated);
}

pub(crate) async fn a_workflow_that_always_begins_anew_holds_up_nobody(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let other: Workflow<u64, u64> = Workflow::new("orders", "other");
    let mut one_turn = settings();
    one_turn.turns = 1;
    let worker = stage.worker("orders").settings(one_turn).workflow(other, waiter);
    let _orders = up(worker.workflow(MAIN, async |ctx: WorkflowContext, n: u64| {
        ctx.continue_as_new::<u64>(n + 1)
    }))
    .await;
    let endless = stage.client.start(MAIN, 0).id("endless").await.unwrap();
    stage
        .wait_for("orders", "endless", "past many generations", |info| {
            info.generation > 50
        })
        .await;
    let run = stage.client.start(other, 7).id("one").await.unwrap();
    run.raise(GO, ()).await.unwrap();
    assert_eq!(done(&run).await, 7);
    endless.terminate("enough").and_wait(PATIENCE).await.unwrap();
}

pub(crate) async fn a_run_goes_on_through_its_generations(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let _orders = up(stage
        .worker("orders")
        .workflow(MAIN, async |ctx: WorkflowContext, n: u64| {
            ctx.timer(millis(1)).await?;
            if n < 30 {
                return ctx.continue_as_new(n + 1);
            }
            ok(u64::from(ctx.generation()) + n)
        }))
    .await;
    let run = stage.client.start(MAIN, 0).id("one").await.unwrap();
    assert_eq!(done(&run).await, 60);
    let info = run.get().await.unwrap();
    assert_eq!((info.generation, info.run), (30, run.run_id()));
    let started = |event: &HistoryEvent| matches!(event, HistoryEvent::ExecutionStarted { .. });
    assert_eq!(
        stage.count_events("orders", "one", started).await,
        1,
        "only the last execution's history is left"
    );
}

pub(crate) async fn events_are_carried_over_and_seen_once(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let workflow: Workflow<Vec<u64>, Vec<u64>> = Workflow::new("orders", "main");
    let orders = || {
        stage
            .worker("orders")
            .workflow(workflow, async |ctx: WorkflowContext, mut seen: Vec<u64>| {
                seen.push(ctx.event(NUMBER).await?);
                if seen.len() < 100 {
                    return ctx.continue_as_new(seen);
                }
                ok(seen)
            })
    };
    stage.known_app("orders").await;
    let run = stage.client.start(workflow, Vec::new()).id("one").await.unwrap();
    for n in 0..50 {
        run.raise(NUMBER, n).message_id(format!("m{n}")).await.unwrap();
    }
    let first = up(orders()).await;
    for n in 25..75 {
        run.raise(NUMBER, n).message_id(format!("m{n}")).await.unwrap();
    }
    drop(first);
    let _second = up(orders()).await;
    for n in 50..100 {
        run.raise(NUMBER, n).message_id(format!("m{n}")).await.unwrap();
    }
    assert_eq!(done(&run).await, (0..100).collect::<Vec<_>>());
}

pub(crate) async fn late_results_of_the_old_execution_are_dropped(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let (gate, ran) = (Gate::new(), Tally::new());
    let _payments = up(stage.worker("payments").activity(WORK, gated(&ran, &gate))).await;
    let orders = up(stage
        .worker("orders")
        .workflow(MAIN, async |ctx: WorkflowContext, n: u64| {
            // The number of this call is that of the wait of the next execution.
            let call = ctx.call(WORK, n).start();
            if n == 0 {
                ctx.event(GO).await?;
                return ctx.continue_as_new(1);
            }
            ctx.event(GO).await?;
            drop(call);
            ok(n)
        }))
    .await;
    let run = stage.client.start(MAIN, 0).id("one").await.unwrap();
    ran.reach(1).await;
    run.raise(GO, ()).await.unwrap();
    ran.reach(2).await;
    gate.open();
    until("one result to be dropped", async || {
        orders.counts().dropped.contains_key("another execution").then_some(())
    })
    .await;
    run.raise(GO, ()).await.unwrap();
    assert_eq!(done(&run).await, 1);
}

pub(crate) async fn a_taken_id_is_handled_by_the_policy(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let _orders = waiting_orders(&stage).await;
    let start = |n: u64, policy: OnConflict| stage.client.start(MAIN, n).id("one").policy(policy);
    let first = start(1, OnConflict::RejectActive).await.unwrap();
    stage.wait_for_status("orders", "one", Status::Running).await;
    for policy in [OnConflict::RejectActive, OnConflict::Reject] {
        assert!(matches!(
            start(2, policy).await,
            Err(Error::InstanceAlreadyExists { .. })
        ));
    }
    let same = start(3, OnConflict::UseExisting).await.unwrap();
    assert!(same.is_existing() && same.run_id() == first.run_id());
    let second = start(4, OnConflict::TerminateExisting).await.unwrap();
    assert!(matches!(
        first.result().within(PATIENCE).await,
        Err(Error::Terminated { .. })
    ));
    second.raise(GO, ()).await.unwrap();
    assert_eq!(done(&second).await, 4);
    assert!(matches!(
        start(5, OnConflict::Reject).await,
        Err(Error::InstanceAlreadyExists { .. })
    ));
    let third = start(6, OnConflict::RejectActive).await.unwrap();
    third.raise(GO, ()).await.unwrap();
    assert_eq!(done(&third).await, 6);
    // Whoever waits for a run that was replaced still learns how it ended.
    assert_eq!(done(&second).await, 4);
    let runs: BTreeSet<_> = [first.run_id(), second.run_id(), third.run_id()].into();
    assert_eq!(runs.len(), 3);
}

pub(crate) async fn a_request_id_starts_one_run(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let _orders = waiting_orders(&stage).await;
    let first = stage.client.start(MAIN, 1).request_id("r").await.unwrap();
    let second = stage.client.start(MAIN, 1).request_id("r").await.unwrap();
    assert_eq!((first.run_id(), first.instance()), (second.run_id(), second.instance()));
    first.raise(GO, ()).await.unwrap();
    assert_eq!(done(&first).await, 1);
    let third = stage.client.start(MAIN, 1).request_id("r").await.unwrap();
    assert_eq!(done(&third).await, 1);
}

pub(crate) async fn a_delayed_start_waits_for_its_time(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let _orders = up(stage
        .worker("orders")
        .workflow(MAIN, async |ctx: WorkflowContext, _: u64| ok(ctx.now().as_millis())))
    .await;
    let now = stage.backend.store().now().await.unwrap();
    let run = stage
        .client
        .start(MAIN, 7)
        .id("one")
        .at(now + millis(500))
        .await
        .unwrap();
    stage.wait_for_text("orders", "one", &["its time"]).await;
    assert!(done(&run).await >= (now + millis(500)).as_millis());
}

pub(crate) async fn what_was_purged_is_gone_and_can_be_started_again(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let _orders = waiting_orders(&stage).await;
    let run = stage.client.start(MAIN, 1).id("one").await.unwrap();
    stage.wait_for_status("orders", "one", Status::Running).await;
    assert!(matches!(run.handle().purge().await, Err(Error::StillActive { .. })));
    run.raise(GO, ()).await.unwrap();
    assert_eq!(done(&run).await, 1);
    assert_eq!(run.handle().purge().await.unwrap(), 1);
    assert!(matches!(
        stage.at("orders", "one").get().await,
        Err(Error::NotFound { .. })
    ));
    let again = stage.client.start(MAIN, 2).id("one").await.unwrap();
    again.raise(GO, ()).await.unwrap();
    assert_eq!(done(&again).await, 2);
}

pub(crate) async fn nothing_of_an_instance_that_is_over_is_looked_at_again(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let _orders = waiting_orders(&stage).await;
    let run = stage.client.start(MAIN, 1).id("one").await.unwrap();
    run.raise(GO, ()).await.unwrap();
    assert_eq!(done(&run).await, 1);
    until("no check and no mark to be left", async || {
        let checks = stage.due("orders", DueKind::Check).await;
        let record = stage.record("orders", "one").await.unwrap();
        (checks.is_empty() && record.marks.is_empty()).then_some(())
    })
    .await;
}
