//! What works, however slowly, is left alone; what is left over of what is gone is removed, and nothing else.

use super::*;

pub(crate) async fn what_runs_is_leased_or_waits_is_left_alone(h: &impl Harness) {
    let stage = Stage::new(h).await;
    stage.known_app("payments").await;
    let _orders = up(stage.worker("orders").workflow(MAIN, call_work)).await;
    let (runs, gate) = (Tally::new(), Gate::new());
    let one_slot = Settings {
        activities: 1,
        ..settings()
    };
    let first = up(stage
        .worker("payments")
        .settings(one_slot)
        .activity(WORK, gated(&runs, &gate)))
    .await;
    let held = stage.client.start(MAIN, 1).await.unwrap();
    runs.reach(1).await;
    // Long enough to be renewed in time on a loaded machine.
    let leasing = Settings {
        delivery_timeout: millis(4000),
        heartbeat: millis(1000),
        ..settings()
    };
    let second = up(stage
        .worker("payments")
        .settings(leasing)
        .activity(WORK, gated(&runs, &gate)))
    .await;
    let leased = stage.client.start(MAIN, 2).await.unwrap();
    stage.wait_for_entry("payments", DueKind::Lease).await;
    let third = stage.client.start(MAIN, 3).await.unwrap();
    runs.reach(3).await;
    let report = stage.finds_nothing().await;
    assert!(report.undecided.is_empty() && report.is_clean(), "{report:?}");
    assert_eq!(report.instances[&app("orders")], 3);
    gate.open();
    for (n, run) in [held, leased, third].iter().enumerate() {
        assert_eq!(done(run).await, n as u64 + 1);
    }
    first.stop().await;
    second.stop().await;
}

pub(crate) async fn what_is_left_over_is_removed_and_nothing_else(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let sleeper = async |ctx: WorkflowContext, n: u64| {
        ctx.timer(HOUR).await?;
        ok(n)
    };
    let _orders = up(stage.worker("orders").workflow(MAIN, sleeper)).await;
    let store = stage.backend.store();
    // Its client looks at it once more after the start: from then on nobody is about to find out that it is gone.
    let looked = Tally::new();
    let looks = looked.clone();
    let client = leveret::Client::new(with_answers_seen(&stage.backend, move |method, _| {
        if method == "clear_first_start" {
            looks.add();
        }
    }));
    let gone = client.start(MAIN, 7).id("gone").await.unwrap();
    let timer = stage.wait_for_entry("orders", DueKind::Timer).await;
    until("the effects to be made", async || {
        let record = stage.unmarked("orders", "gone").await;
        (record.status == Status::Running).then_some(())
    })
    .await;
    let ended = stage.client.start(MAIN, 7).id("ended").await.unwrap();
    let timers = until("both timers", async || {
        let timers = stage.due("orders", DueKind::Timer).await;
        (timers.len() == 2).then_some(timers)
    })
    .await;
    for run in [&gone, &ended] {
        run.terminate("enough").and_wait(PATIENCE).await.unwrap();
        stage.unmarked("orders", run.id()).await;
    }
    until("the timers to be gone", async || {
        stage.due("orders", DueKind::Timer).await.is_empty().then_some(())
    })
    .await;
    let live = stage.client.start(MAIN, 7).id("live").await.unwrap();
    stage.wait_for_entry("orders", DueKind::Timer).await;
    stage.wait_for_text("orders", "live", &["timer"]).await;
    looked.reach(1).await;
    // As somebody leaves it who dies between two steps of a purge.
    let keep = Duration::from_secs(60);
    let over = stage.unmarked("orders", gone.id()).await;
    store.delete(gone.instance(), over.execution, keep).await.unwrap();
    store.schedule(&app("orders"), &timers, When::Set).await.unwrap();
    // Two timers, and the retention of the one that is gone.
    let found = stage
        .mends(&[
            Trouble::StaleDueEntry,
            Trouble::StaleDueEntry,
            Trouble::StaleDueEntry,
            Trouble::StaleIndexEntry,
        ])
        .await;
    assert!(
        found
            .iter()
            .any(|finding| finding.instance.as_ref() == Some(ended.instance()))
    );
    let left = stage.due("orders", DueKind::Timer).await;
    assert!(left.len() == 1 && left[0].key != timer.key, "{left:?}");
    assert_eq!(
        stage.due("orders", DueKind::Retention).await.len(),
        1,
        "that of the one that is there"
    );
    stage.finds_nothing().await;
    live.terminate("enough").and_wait(PATIENCE).await.unwrap();
}

pub(crate) async fn audits_of_a_busy_namespace_find_nothing_and_change_nothing(h: &impl Harness) {
    const RUNS: u64 = 40;
    let stage = Stage::new(h).await;
    let runs = Tally::new();
    let work = async |runs: Tally, _: leveret::ActivityContext, n: u64| {
        runs.add();
        tokio::time::sleep(millis(n % 7 * 20)).await;
        ok(n)
    };
    let child = async |ctx: WorkflowContext, n: u64| {
        ctx.timer(millis(n % 5 * 30)).await?;
        ok(n)
    };
    let many = async |ctx: WorkflowContext, n: u64| {
        let mut sum = 0;
        for step in 0..4 {
            let (work, child) = (ctx.call(WORK, n + step).start(), ctx.child(CHILD, n + step).start());
            ctx.timer(millis(step * 40)).await?;
            sum += work.await? + child.await?;
        }
        ok(sum)
    };
    let _payments = up(stage
        .worker("payments")
        .activity(WORK, with(runs.clone(), work))
        .workflow(CHILD, child))
    .await;
    let _orders = up(stage.worker("orders").workflow(MAIN, many)).await;
    let all = async {
        let mut started = Vec::new();
        for n in 0..RUNS {
            started.push(stage.client.start(MAIN, n).await.unwrap());
        }
        for (n, run) in started.iter().enumerate() {
            assert_eq!(done(run).await, 8 * n as u64 + 12);
        }
    };
    tokio::pin!(all);
    let mut audits = 0;
    loop {
        tokio::select! {
            () = &mut all => break,
            report = stage.repair() => {
                assert!(report.findings.is_empty(), "{report:?}");
                audits += 1;
            }
        }
    }
    assert_eq!(runs.get() as u64, RUNS * 4, "after {audits} audits");
    stage.finds_nothing().await;
}

pub(crate) async fn what_waits_for_an_app_that_does_not_exist_is_left_alone(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let parent = async |ctx: WorkflowContext, n: u64| ctx.child(CHILD, n).id("kid").await;
    let _orders = up(stage.worker("orders").workflow(MAIN, parent)).await;
    let child = stage.client.start(MAIN, 7).await.unwrap();
    let root = stage.client.start(CHILD, 8).id("root").await.unwrap();
    let parked = async || {
        let parked = stage.due("orders", DueKind::Parked).await;
        (parked.len() == 2).then_some(())
    };
    until("both starts to be parked", parked).await;
    for id in ["kid", "root"] {
        stage.settled("payments", id).await;
    }
    stage.finds_nothing().await;
    let report = stage.repair().await;
    assert!(report.findings.is_empty() && report.undecided.is_empty(), "{report:?}");
    let runs = Tally::new();
    let _payments = up(stage.worker("payments").workflow(CHILD, counted(&runs))).await;
    assert_eq!((done(&child).await, done(&root).await), (7, 8));
    assert_eq!(runs.get(), 2);
}

pub(crate) async fn an_answer_that_waits_for_a_queue_that_was_deleted_is_left_alone(h: &impl Harness) {
    let stage = Stage::new(h).await;
    stage.known_app("payments").await;
    let orders = || up(stage.worker("orders").workflow(MAIN, call_work));
    let first = orders().await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    stage.wait_for_depth(Queue::Activities(app("payments")), 1).await;
    stage.settled("orders", "one").await;
    first.stop().await;
    stage.broker().remove(&app("orders"), settings().lanes).await.unwrap();
    let runs = Tally::new();
    let _payments = up(stage.worker("payments").activity(WORK, counted(&runs))).await;
    // In the due-set of whoever waits for it: of the answering app no worker may be left.
    stage.wait_for_entry("orders", DueKind::Parked).await;
    let report = stage.audit().await;
    let queues = 3 + usize::from(settings().lanes);
    assert_eq!(sorts(&report), vec![Trouble::MissingQueue; queues], "{report:?}");
    let _second = orders().await;
    assert_eq!(done(&run).await, 7);
    assert_eq!(runs.get(), 1);
}

pub(crate) async fn a_task_that_waits_for_the_one_worker_that_knows_it_is_left_alone(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let (runs, gate) = (Tally::new(), Gate::new());
    let one_slot = Settings {
        activities: 1,
        ..settings()
    };
    let _knowing = up(stage
        .worker("payments")
        .settings(one_slot)
        .activity(WORK, gated(&runs, &gate)))
    .await;
    let _orders = up(stage.worker("orders").workflow(MAIN, call_work)).await;
    let first = stage.client.start(MAIN, 1).await.unwrap();
    runs.reach(1).await;
    // It takes the second task again and again, and publishes it for the one that is busy.
    let _other = up(stage.worker("payments")).await;
    let second = stage.client.start(MAIN, 2).id("second").await.unwrap();
    stage
        .wait_for("orders", "second", "begun", |info| info.turns == 1)
        .await;
    stage.settled("orders", "second").await;
    let report = stage.repair().await;
    assert!(report.findings.is_empty(), "{report:?}");
    gate.open();
    assert_eq!((done(&first).await, done(&second).await), (1, 2));
    assert_eq!(runs.get(), 2);
}

pub(crate) async fn what_a_worker_still_runs_while_it_stops_is_left_alone(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let (runs, gate) = (Tally::new(), Gate::new());
    let patient = Settings {
        shutdown_grace: PATIENCE * 3,
        ..settings()
    };
    let stopping = up(stage
        .worker("payments")
        .settings(patient)
        .activity(WORK, gated(&runs, &gate)))
    .await;
    let _orders = up(stage.worker("orders").workflow(MAIN, call_work)).await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    runs.reach(1).await;
    stage.settled("orders", "one").await;
    let audited = async {
        // Others may pass nothing on to it.
        let listed = until("it to say so", async || {
            let workers = stage.client.workers("payments").await.unwrap();
            workers.into_iter().next().filter(|worker| worker.is_draining)
        })
        .await;
        assert!(listed.activities.is_empty() && listed.lanes.is_empty(), "{listed:?}");
        let report = stage.repair().await;
        assert!(report.findings.is_empty(), "{report:?}");
        gate.open();
    };
    tokio::join!(stopping.stop(), audited);
    assert_eq!(done(&run).await, 7);
    assert_eq!(runs.get(), 1);
    assert!(stage.client.workers("payments").await.unwrap().is_empty());
}
