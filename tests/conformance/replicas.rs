//! Several workers of one app: lanes move, work is shared, deploys roll; scenarios 16 and 26.

use std::time::Duration;

use futures_util::future::join_all;
use leveret::backend::Queue;
use leveret::replay::history::HistoryEvent;
use leveret::{
    Activity, ActivityContext, Event, Result, RunningWorker, Settings, Status, Workflow, WorkflowContext, all,
};

use crate::harness::*;

const MAIN: Workflow<u64, u64> = Workflow::new("orders", "main");
const NEW: Workflow<u64, u64> = Workflow::new("orders", "new");
const WORK: Activity<u64, u64> = Activity::new("payments", "work");
const NEW_WORK: Activity<u64, u64> = Activity::new("payments", "new-work");
const GO: Event<()> = Event::new("go");

async fn echo(_: ActivityContext, n: u64) -> Result<u64> {
    Ok(n)
}

async fn waiter(ctx: WorkflowContext, n: u64) -> Result<u64> {
    ctx.event(GO).await?;
    Ok(n)
}

async fn caller(ctx: WorkflowContext, n: u64) -> Result<u64> {
    let first = ctx.call(WORK, n).await?;
    ctx.timer(millis(20)).await?;
    Ok(first + ctx.call(WORK, n).await?)
}

pub(crate) async fn each_worker_and_each_build_gets_a_lane(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let first = up(stage.worker("orders")).await;
    let second = up(stage.worker("orders")).await;
    let each_has_one = async || {
        let (one, other) = (first.lanes(), second.lanes());
        (one.len() == 1 && other.len() == 1 && one != other).then_some(())
    };
    until("each worker to hold one lane", each_has_one).await;
    // A build that has no lane gets one, though there are more workers than lanes.
    let third = up(stage.worker("orders").build_id("another")).await;
    drop((first, third));
    until("the other to hold both", async || {
        (second.lanes().len() == 2).then_some(())
    })
    .await;
}

pub(crate) async fn two_workers_share_the_work_and_one_takes_over(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let _payments = up(stage.worker("payments").activity(WORK, echo)).await;
    let orders = || stage.worker("orders").workflow(MAIN, caller);
    let (first, second) = (up(orders()).await, up(orders()).await);
    let mut runs = Vec::new();
    // The second may come late to the first starts.
    while runs.len() < 20 || first.counts().turns == 0 || second.counts().turns == 0 {
        runs.push(
            stage
                .client
                .start(MAIN, runs.len() as u64)
                .id(format!("i{}", runs.len()))
                .await
                .unwrap(),
        );
    }
    drop(first);
    for (n, run) in runs.iter().enumerate() {
        assert_eq!(done(run).await, 2 * n as u64);
        let completed = |event: &HistoryEvent| matches!(event, HistoryEvent::TaskCompleted { .. });
        assert_eq!(stage.count_events("orders", run.id(), completed).await, 2);
    }
}

pub(crate) async fn of_two_workers_that_run_one_turn_one_commits(h: &impl Harness) {
    let stage = Stage::new(h).await;
    stage.known_app("orders").await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    let queue = Queue::Workflows(app("orders"));
    let starts = stage.take(&queue).await;
    for _ in 0..10 {
        stage.publish(queue.clone(), starts.clone()).await;
    }
    let orders = || stage.worker("orders").workflow(MAIN, caller);
    let (first, second) = tokio::join!(up(orders()), up(orders()));
    stage.wait_for_depth(queue, 0).await;
    let _payments = up(stage.worker("payments").activity(WORK, echo)).await;
    assert_eq!(done(&run).await, 14);
    let started = |event: &HistoryEvent| matches!(event, HistoryEvent::ExecutionStarted { .. });
    assert_eq!(stage.count_events("orders", "one", started).await, 1);
    drop((first, second));
}

pub(crate) async fn results_that_come_by_any_lane_are_all_in_the_history(h: &impl Harness) {
    use leveret::wire::Item;
    const CALLS: u64 = 20;
    let stage = Stage::new(h).await;
    stage.known_app("payments").await;
    let orders = || {
        stage
            .worker("orders")
            .workflow(MAIN, async |ctx: WorkflowContext, n: u64| {
                all((0..n).map(|n| ctx.call(WORK, n)))
                    .await
                    .into_iter()
                    .sum::<Result<u64>>()
            })
    };
    let (_first, _second) = (up(orders()).await, up(orders()).await);
    let run = stage.client.start(MAIN, CALLS).id("one").await.unwrap();
    let queue = Queue::Activities(app("payments"));
    stage.wait_for_depth(queue.clone(), CALLS).await;
    let mut answers = Vec::new();
    for _ in 0..CALLS {
        let items = stage.take(&queue).await;
        let [Item::Task(task)] = &items[..] else {
            panic!("a task")
        };
        answers.push(answer_to(task));
    }
    // Both workers get all of them, at the same time.
    let lanes = [0, 1].map(|lane| Queue::Events(app("orders"), lane));
    join_all(answers.iter().flat_map(|answer| {
        lanes
            .iter()
            .map(|lane| stage.publish(lane.clone(), vec![answer.clone()]))
    }))
    .await;
    assert_eq!(done(&run).await, (0..CALLS).sum::<u64>());
    let completed = |event: &HistoryEvent| matches!(event, HistoryEvent::TaskCompleted { .. });
    assert_eq!(stage.count_events("orders", "one", completed).await, CALLS as usize);
}

pub(crate) async fn while_half_of_the_workers_know_an_activity_calls_to_it_do_not_fail(h: &impl Harness) {
    const CALLS: u64 = 20;
    let stage = Stage::new(h).await;
    let _old = up(stage.worker("payments").activity(WORK, echo)).await;
    let _new = up(stage.worker("payments").activity(WORK, echo).activity(NEW_WORK, echo)).await;
    let _orders = up(stage
        .worker("orders")
        .workflow(MAIN, async |ctx: WorkflowContext, n: u64| {
            all((0..n).map(|n| ctx.call(NEW_WORK, n)))
                .await
                .into_iter()
                .sum::<Result<u64>>()
        }))
    .await;
    let run = stage.client.start(MAIN, CALLS).id("one").await.unwrap();
    assert_eq!(done(&run).await, (0..CALLS).sum::<u64>());
}

pub(crate) async fn while_half_of_the_workers_know_a_workflow_starts_of_it_do_not_fail(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let _old = up(stage.worker("orders").workflow(MAIN, waiter)).await;
    let _new = up(stage.worker("orders").workflow(MAIN, waiter).workflow(NEW, waiter)).await;
    let mut runs = Vec::new();
    for n in 0..10 {
        runs.push(stage.client.start(NEW, n).await.unwrap());
    }
    for (n, run) in runs.iter().enumerate() {
        run.raise(GO, ()).await.unwrap();
        assert_eq!(done(run).await, n as u64);
    }
}

pub(crate) async fn an_instance_whose_lane_moves_to_an_older_worker_goes_on_in_a_newer_one(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let newer = || {
        stage
            .worker("orders")
            .build_id("newer")
            .workflow(MAIN, waiter)
            .workflow(NEW, waiter)
    };
    let first = up(newer()).await;
    let mut runs = Vec::new();
    for n in 0..6 {
        let run = stage.client.start(NEW, n).id(format!("i{n}")).await.unwrap();
        stage.wait_for_status("orders", run.id(), Status::Running).await;
        runs.push(run);
    }
    let _older = up(stage.worker("orders").build_id("older").workflow(MAIN, waiter)).await;
    let _second = soon("a worker", newer().start()).await.unwrap();
    drop(first);
    for (n, run) in runs.iter().enumerate() {
        run.raise(GO, ()).await.unwrap();
        assert_eq!(done(run).await, n as u64);
    }
}

pub(crate) async fn an_instance_that_only_older_workers_are_left_for_waits_for_a_newer_one(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let newer = || stage.worker("orders").workflow(NEW, waiter);
    let first = up(newer()).await;
    let run = stage.client.start(NEW, 7).id("one").await.unwrap();
    stage.wait_for_status("orders", "one", Status::Running).await;
    first.stop().await;
    let _older = up(stage.worker("orders").workflow(MAIN, waiter)).await;
    run.raise(GO, ()).await.unwrap();
    stage.wait_for_status("orders", "one", Status::Stalled).await;
    stage
        .wait_for_text("orders", "one", &["not registered", "workflow `new`"])
        .await;
    let _second = up(newer()).await;
    assert_eq!(done(&run).await, 7);
}

pub(crate) async fn a_worker_that_stops_hands_back_what_it_cannot_finish(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let (runs, gate) = (Tally::new(), Gate::new());
    let payments = || {
        let work = async |(runs, gate): (Tally, Gate), _: ActivityContext, n: u64| {
            runs.add();
            gate.pass().await;
            ok(n)
        };
        stage
            .worker("payments")
            .activity(WORK, with((runs.clone(), gate.clone()), work))
    };
    let _orders = up(stage
        .worker("orders")
        .workflow(MAIN, async |ctx: WorkflowContext, n: u64| ctx.call(WORK, n).await))
    .await;
    let first = up(payments()).await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    runs.reach(1).await;
    soon("the worker to stop", first.stop()).await;
    let _second = up(payments()).await;
    runs.reach(2).await;
    gate.open();
    assert_eq!(done(&run).await, 7);
    assert_eq!(runs.get(), 2);
}

pub(crate) async fn a_long_activity_is_handed_back_by_a_worker_that_stops(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let (runs, gate) = (Tally::new(), Gate::new());
    // Half of the delivery timeout is over soon; a lapsed lease would be waited for much longer than the test waits.
    let leased = Settings {
        delivery_timeout: millis(200),
        ..settings()
    };
    let payments = |settings: Settings| {
        let work = async |(runs, gate): (Tally, Gate), _: ActivityContext, n: u64| {
            runs.add();
            gate.pass().await;
            ok(n)
        };
        stage
            .worker("payments")
            .settings(settings)
            .activity(WORK, with((runs.clone(), gate.clone()), work))
    };
    let _orders = up(stage
        .worker("orders")
        .workflow(MAIN, async |ctx: WorkflowContext, n: u64| ctx.call(WORK, n).await))
    .await;
    let first = up(payments(leased)).await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    stage.wait_for_text("orders", "one", &["lease until"]).await;
    soon("the worker to stop", first.stop()).await;
    let _second = up(payments(settings())).await;
    runs.reach(2).await;
    gate.open();
    assert_eq!(done(&run).await, 7);
}

pub(crate) async fn a_worker_that_stops_lets_short_activities_end(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let (runs, gate) = (Tally::new(), Gate::new());
    let work = async |(runs, gate): (Tally, Gate), _: ActivityContext, n: u64| {
        runs.add();
        gate.pass().await;
        ok(n)
    };
    let patient = Settings {
        shutdown_grace: PATIENCE,
        ..settings()
    };
    let payments = up(stage
        .worker("payments")
        .settings(patient)
        .activity(WORK, with((runs.clone(), gate.clone()), work)))
    .await;
    let _orders = up(stage
        .worker("orders")
        .workflow(MAIN, async |ctx: WorkflowContext, n: u64| ctx.call(WORK, n).await))
    .await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    runs.reach(1).await;
    let (_, ()) = tokio::join!(soon("the worker to stop", payments.stop()), async { gate.open() });
    assert_eq!(done(&run).await, 7);
    assert_eq!(runs.get(), 1);
}

pub(crate) async fn a_worker_says_what_is_wrong_with_it_at_start_up(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let wrong = async |worker: leveret::Worker| -> String {
        match worker.start().await {
            Ok(_) => panic!("it started"),
            Err(error) => error.to_string(),
        }
    };
    let twice = stage.worker("orders").workflow(MAIN, waiter).workflow(MAIN, waiter);
    assert!(wrong(twice).await.contains("workflow `main` is registered twice"));
    let foreign = stage.worker("orders").activity(WORK, echo);
    assert!(wrong(foreign).await.contains("belongs to app `payments`"));
    let dotted = wrong(stage.worker("or.ders")).await;
    assert!(dotted.contains("app ID \"or.ders\" contains '.'"), "{dotted}");
    let useless = stage.worker("orders").settings(Settings {
        heartbeat: Duration::ZERO,
        ..settings()
    });
    assert!(wrong(useless).await.contains("`heartbeat` is 0"));
}

pub(crate) async fn workers_that_come_and_go_leave_no_work_undone(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let _payments = up(stage.worker("payments").activity(WORK, echo)).await;
    let mut workers: Vec<RunningWorker> = Vec::new();
    for _ in 0..4 {
        workers.push(
            soon("a worker", stage.worker("orders").workflow(MAIN, caller).start())
                .await
                .unwrap(),
        );
    }
    let mut runs = Vec::new();
    for n in 0..24 {
        runs.push(stage.client.start(MAIN, n).await.unwrap());
        // One after the other goes, and another comes.
        if n % 8 == 7 {
            drop(workers.remove(0));
            workers.push(
                soon("a worker", stage.worker("orders").workflow(MAIN, caller).start())
                    .await
                    .unwrap(),
            );
        }
    }
    for (n, run) in runs.iter().enumerate() {
        assert_eq!(done(run).await, 2 * n as u64);
    }
}
