//! The auditor: things are broken by hand, and it finds each and mends it. What works it leaves alone.

use std::future::IntoFuture;
use std::time::Duration;

use leveret::backend::{DueEntry, DueKind, Mark, Queue, When};
use leveret::client::{AuditReport, Finding, Repair, Trouble};
use leveret::replay::history::HistoryEvent;
use leveret::wire::Item;
use leveret::{RunningWorker, Settings, Status, Worker, Workflow, WorkflowContext};

use crate::between::{Call, with_store_behind};
use crate::harness::*;
use crate::programs::*;

const MAIN: Workflow<u64, u64> = Workflow::new("orders", "main");
const HOUR: Duration = Duration::from_secs(3600);

impl Stage {
    /// What an audit finds that leaves nothing alone for being young.
    pub(crate) async fn audit(&self) -> AuditReport {
        soon("an audit", self.client.audit().grace(Duration::ZERO).into_future())
            .await
            .unwrap()
    }

    pub(crate) async fn repair(&self) -> AuditReport {
        let audit = self.client.audit().grace(Duration::ZERO).repair();
        soon("an audit", audit.into_future()).await.unwrap()
    }

    /// An audit finds just this; one that repairs mends it.
    pub(crate) async fn mends(&self, troubles: &[Trouble]) -> Vec<Finding> {
        let found = self.audit().await;
        assert_eq!(sorts(&found), troubles, "{found:?}");
        assert!(found.findings.iter().all(|finding| finding.repair == Repair::NotAsked));
        assert!(!found.is_clean());
        let repaired = self.repair().await;
        assert_eq!(sorts(&repaired), troubles, "{repaired:?}");
        assert!(repaired.is_clean(), "{repaired:?}");
        assert!(repaired.stuck().is_empty());
        found.findings
    }

    pub(crate) async fn finds_nothing(&self) -> AuditReport {
        let report = self.audit().await;
        assert!(report.findings.is_empty(), "{report:?}");
        report
    }

    async fn unschedule(&self, app_id: &str, entries: &[DueEntry]) {
        let keys: Vec<_> = entries.iter().map(|entry| entry.key.clone()).collect();
        self.backend.store().unschedule(&app(app_id), &keys).await.unwrap();
    }

    /// Returns when no worker is about to make effects of the instance.
    async fn settled(&self, app: &str, id: &str) {
        until(&format!("{app}/{id} to have no marks"), async || {
            let record = self.record(app, id).await.unwrap();
            record.marks.is_empty().then_some(())
        })
        .await;
    }

    async fn wait_for_entry(&self, app_id: &str, kind: DueKind) -> DueEntry {
        until(&format!("an entry of {kind:?}"), async || {
            self.due(app_id, kind).await.into_iter().next()
        })
        .await
    }
}

/// The sorts of what was found, each as often as it was.
fn sorts(report: &AuditReport) -> Vec<Trouble> {
    let mut sorts: Vec<_> = report.findings.iter().map(|finding| finding.trouble).collect();
    sorts.sort();
    sorts
}

fn is_result(event: &HistoryEvent) -> bool {
    matches!(
        event,
        HistoryEvent::TaskCompleted { .. } | HistoryEvent::TaskFailed { .. } | HistoryEvent::ChildCompleted { .. }
    )
}

pub(crate) async fn a_task_whose_message_is_deleted_is_sent_again(h: &impl Harness) {
    let stage = Stage::new(h).await;
    stage.known_app("payments").await;
    let _orders = up(stage.worker("orders").workflow(MAIN, call_work)).await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    let items = stage.take(&Queue::Activities(app("payments"))).await;
    stage.settled("orders", "one").await;
    let Item::Task(lost) = &items[0] else {
        panic!("{items:?}")
    };
    let (runs, keys) = (Tally::new(), Keys::default());
    let work = async |(runs, keys): (Tally, Keys), ctx: leveret::ActivityContext, n: u64| {
        runs.add();
        keys.0.lock().unwrap().push(ctx.task_execution_id());
        ok(n)
    };
    let _payments = up(stage
        .worker("payments")
        .activity(WORK, with((runs.clone(), keys.clone()), work)))
    .await;
    let report = stage.audit().await;
    assert_eq!(report.stuck().into_iter().collect::<Vec<_>>(), [run.instance()]);
    let namespace = stage.backend.namespace();
    let line = format!("leveret_stuck_instances{{namespace=\"{namespace}\",app=\"orders\"}} 1\n");
    assert!(report.metrics().contains(&line), "{}", report.metrics());
    let found = stage.mends(&[Trouble::LostTask]).await;
    assert!(
        found[0].reason.contains("activity `work` on app `payments`"),
        "{found:?}"
    );
    assert_eq!(done(&run).await, 7);
    assert_eq!(runs.get(), 1);
    assert_eq!(*keys.0.lock().unwrap(), [lost.task_execution_id]);
    assert_eq!(stage.count_events("orders", "one", is_result).await, 1);
    let after = stage.finds_nothing().await;
    assert!(after.metrics().contains("app=\"orders\"} 0\n"), "{}", after.metrics());
}

#[derive(Clone, Default)]
struct Keys(std::sync::Arc<std::sync::Mutex<Vec<leveret::TaskExecutionId>>>);

pub(crate) async fn a_task_that_was_lost_while_its_app_is_away_is_sent_again(h: &impl Harness) {
    let stage = Stage::new(h).await;
    stage.known_app("payments").await;
    let _orders = up(stage.worker("orders").workflow(MAIN, call_work)).await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    let activities = Queue::Activities(app("payments"));
    stage.take(&activities).await;
    stage.settled("orders", "one").await;
    stage.mends(&[Trouble::LostTask]).await;
    stage.wait_for_depth(activities, 1).await;
    let report = stage.finds_nothing().await;
    assert_eq!(report.undecided[0].queue, "payments.activities");
    assert!(report.undecided[0].reason.contains("away"), "{report:?}");
    let _payments = up(stage.worker("payments").activity(WORK, echo)).await;
    assert_eq!(done(&run).await, 7);
}

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

pub(crate) async fn a_start_whose_message_is_deleted_is_published_again(h: &impl Harness) {
    let stage = Stage::new(h).await;
    stage.known_app("orders").await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    stage.take(&Queue::Workflows(app("orders"))).await;
    stage.settled("orders", "one").await;
    let runs = Tally::new();
    let _orders = up(stage.worker("orders").workflow(MAIN, counted(&runs))).await;
    stage.mends(&[Trouble::LostStart]).await;
    assert_eq!(done(&run).await, 7);
    assert_eq!(runs.get(), 1);
    stage.finds_nothing().await;
}

pub(crate) async fn a_result_whose_message_is_deleted_is_asked_for_again(h: &impl Harness) {
    let stage = Stage::new(h).await;
    stage.known_app("payments").await;
    let orders = || up(stage.worker("orders").workflow(MAIN, call_work));
    let first = orders().await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    stage.wait_for_depth(Queue::Activities(app("payments")), 1).await;
    stage.settled("orders", "one").await;
    first.stop().await;
    let runs = Tally::new();
    let _payments = up(stage.worker("payments").activity(WORK, counted(&runs))).await;
    let lane = stage.record("orders", "one").await.unwrap().lane.unwrap();
    let lane = Queue::Events(app("orders"), lane);
    take_completion(&stage, &lane).await;
    let _second = orders().await;
    stage.mends(&[Trouble::LostTask]).await;
    assert_eq!(done(&run).await, 7);
    assert_eq!(runs.get(), 2, "only the body knows what it came to");
    assert_eq!(stage.count_events("orders", "one", is_result).await, 1);
}

/// Takes messages out of a lane until a completion has come.
async fn take_completion(stage: &Stage, lane: &Queue) {
    while !matches!(stage.take(lane).await[..], [Item::Completion(_)]) {}
}

pub(crate) async fn an_answer_of_a_child_whose_message_is_deleted_is_told_again(h: &impl Harness) {
    let stage = Stage::new(h).await;
    stage.known_app("payments").await;
    let parent = async |ctx: WorkflowContext, n: u64| ctx.child(CHILD, n).id("kid").await;
    let orders = || up(stage.worker("orders").workflow(MAIN, parent));
    let first = orders().await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    stage.wait_for_status("payments", "kid", Status::Pending).await;
    stage.wait_for("orders", "one", "begun", |info| info.turns == 1).await;
    stage.settled("orders", "one").await;
    first.stop().await;
    let runs = Tally::new();
    let _payments = up(stage.worker("payments").workflow(CHILD, counted(&runs))).await;
    let lane = stage.record("orders", "one").await.unwrap().lane.unwrap();
    take_completion(&stage, &Queue::Events(app("orders"), lane)).await;
    let _second = orders().await;
    stage.mends(&[Trouble::LostAnswer]).await;
    assert_eq!(done(&run).await, 7);
    assert_eq!(runs.get(), 1);
    assert_eq!(stage.count_events("orders", "one", is_result).await, 1);
}

pub(crate) async fn a_timer_whose_entry_is_deleted_is_set_again(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let sleeper = async |ctx: WorkflowContext, n: u64| {
        ctx.timer(Duration::from_millis(n)).await?;
        ok(n)
    };
    let orders = || up(stage.worker("orders").workflow(MAIN, sleeper));
    let first = orders().await;
    let far = stage.client.start(MAIN, HOUR.as_millis() as u64).await.unwrap();
    let set = stage.wait_for_entry("orders", DueKind::Timer).await;
    stage.wait_for_text("orders", far.id(), &["timer"]).await;
    stage.settled("orders", far.id()).await;
    stage.unschedule("orders", std::slice::from_ref(&set)).await;
    stage.mends(&[Trouble::LostTimer]).await;
    assert_eq!(stage.due("orders", DueKind::Timer).await, [set]);
    far.terminate("enough").and_wait(PATIENCE).await.unwrap();

    until("its timer to be gone", async || {
        stage.due("orders", DueKind::Timer).await.is_empty().then_some(())
    })
    .await;

    // One that is due before anybody notices.
    let near = stage.client.start(MAIN, 5000).await.unwrap();
    let set = stage.wait_for_entry("orders", DueKind::Timer).await;
    stage.settled("orders", near.id()).await;
    first.stop().await;
    stage.unschedule("orders", std::slice::from_ref(&set)).await;
    until("the timer to be due", async || {
        (stage.backend.store().now().await.unwrap() > set.due).then_some(())
    })
    .await;
    let _second = orders().await;
    stage.mends(&[Trouble::LostTimer]).await;
    assert_eq!(done(&near).await, 5000);
    stage.finds_nothing().await;
}

pub(crate) async fn a_task_whose_lease_is_deleted_is_sent_again(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let orders = up(stage.worker("orders").workflow(MAIN, call_work)).await;
    let runs = Tally::new();
    let leasing = Settings {
        delivery_timeout: millis(200),
        ..settings()
    };
    let work = async |runs: Tally, ctx: leveret::ActivityContext, n: u64| {
        if runs.add() == 1 {
            ctx.cancelled().cancelled().await;
            return ok(666);
        }
        ok(n)
    };
    let payments = up(stage
        .worker("payments")
        .settings(leasing)
        .activity(WORK, with(runs.clone(), work)))
    .await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    let lease = stage.wait_for_entry("payments", DueKind::Lease).await;
    stage.unschedule("payments", &[lease]).await;
    // The body's late result counts if it gets there first: it is the first run's, of the same call.
    let repaired = until("the task to be missed, or done", async || {
        let report = stage.repair().await;
        let is_over = stage.record("orders", "one").await.unwrap().status.is_terminal();
        (is_over || !report.findings.is_empty()).then_some(report)
    })
    .await;
    assert!(
        sorts(&repaired).iter().all(|sort| *sort == Trouble::LostTask),
        "{repaired:?}"
    );
    let output = done(&run).await;
    assert!(output == 7 || repaired.findings.is_empty(), "{output} {repaired:?}");
    assert_eq!(stage.count_events("orders", "one", is_result).await, 1);
    orders.stop().await;
    payments.stop().await;
}

/// Runs an instance on a store that does not answer from the so-manyth of these calls on, and lets the worker die there.
async fn die_at(
    stage: &Stage,
    (method, nth): (&'static str, usize),
    worker: impl FnOnce(Worker) -> Worker,
    is_there: impl AsyncFn() -> bool,
) {
    let reached = Tally::new();
    let seen = reached.clone();
    let dying = with_store_behind(&stage.backend, move |call: Call| {
        let seen = seen.clone();
        Box::pin(async move {
            if call.method == method && seen.add() >= nth {
                std::future::pending::<()>().await;
            }
        })
    });
    let dying = worker(Worker::new("orders", dying).settings(settings()));
    let dying: RunningWorker = soon("a worker", dying.start()).await.unwrap();
    soon("a lane", dying.wait_for_lane()).await;
    reached.reach(nth).await;
    until("the turn to be committed", async || is_there().await.then_some(())).await;
    drop(dying);
}

/// Waits for one of everything.
async fn everything(ctx: WorkflowContext, n: u64) -> leveret::Result<u64> {
    let timer = ctx.timer(millis(100)).start();
    let work = ctx.call(WORK, n).start();
    let child = ctx.child(CHILD, n).id("kid").start();
    timer.await?;
    Ok(work.await? + child.await?)
}

pub(crate) async fn effects_whose_mark_is_deleted_are_made(h: &impl Harness) {
    let stage = Stage::new(h).await;
    stage.known_app("payments").await;
    stage.known_app("orders").await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    let is_marked = async || {
        let record = stage.record("orders", "one").await.unwrap();
        record.marks.contains(&Mark::Turn(1))
    };
    die_at(
        &stage,
        ("schedule", 1),
        |worker| worker.workflow(MAIN, everything),
        is_marked,
    )
    .await;
    let record = stage.record("orders", "one").await.unwrap();
    let cleared = stage.backend.store();
    let cleared = cleared
        .clear_mark(run.instance(), record.execution, Mark::Turn(1))
        .await;
    assert_eq!(cleared.unwrap(), Some(0));
    let runs = Tally::new();
    let _payments = up(stage
        .worker("payments")
        .activity(WORK, counted(&runs))
        .workflow(CHILD, counted(&runs)))
    .await;
    let _orders = up(stage.worker("orders").workflow(MAIN, everything)).await;
    stage.check_now("orders").await;
    stage
        .mends(&[Trouble::LostTask, Trouble::LostTimer, Trouble::LostChild])
        .await;
    assert_eq!(done(&run).await, 14);
    assert_eq!(runs.get(), 2);
    stage.finds_nothing().await;
}

pub(crate) async fn a_next_execution_whose_mark_is_deleted_begins(h: &impl Harness) {
    let stage = Stage::new(h).await;
    stage.known_app("orders").await;
    let renewing = async |ctx: WorkflowContext, n: u64| {
        if n < 9 {
            return ctx.continue_as_new(n + 1);
        }
        ok(n)
    };
    let run = stage.client.start(MAIN, 8).id("one").await.unwrap();
    let is_renewed = async || {
        let record = stage.record("orders", "one").await.unwrap();
        record.marks.contains(&Mark::Run)
    };
    // The first execution ends, and the next is not committed.
    die_at(
        &stage,
        ("commit", 2),
        |worker| worker.workflow(MAIN, renewing),
        is_renewed,
    )
    .await;
    let record = stage.record("orders", "one").await.unwrap();
    for mark in &record.marks {
        let store = stage.backend.store();
        store.clear_mark(run.instance(), record.execution, *mark).await.unwrap();
    }
    let _orders = up(stage.worker("orders").workflow(MAIN, renewing)).await;
    stage.mends(&[Trouble::LostExecution]).await;
    assert_eq!(done(&run).await, 9);
}

pub(crate) async fn a_check_that_is_deleted_is_written_again(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let _orders = up(stage.worker("orders").workflow(MAIN, waiter)).await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    stage.wait_for_text("orders", "one", &["event `go`"]).await;
    stage.settled("orders", "one").await;
    let checks = stage.due("orders", DueKind::Check).await;
    assert_eq!(checks.len(), 1);
    stage.unschedule("orders", &checks).await;
    let found = stage.mends(&[Trouble::NoCheck]).await;
    assert_eq!(found[0].instance.as_ref(), Some(run.instance()));
    let again = stage.due("orders", DueKind::Check).await;
    assert_eq!((&again[0].key, &again[0].payload), (&checks[0].key, &checks[0].payload));
    stage.finds_nothing().await;
    run.raise(GO, ()).await.unwrap();
    assert_eq!(done(&run).await, 7);
    until("no check to be left", async || {
        stage.due("orders", DueKind::Check).await.is_empty().then_some(())
    })
    .await;
}

pub(crate) async fn queues_that_are_deleted_are_declared_and_their_tasks_sent_again(h: &impl Harness) {
    let stage = Stage::new(h).await;
    stage.known_app("payments").await;
    let _orders = up(stage.worker("orders").workflow(MAIN, call_work)).await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    let activities = Queue::Activities(app("payments"));
    stage.wait_for_depth(activities.clone(), 1).await;
    stage.settled("orders", "one").await;
    stage.broker().remove(&app("payments"), settings().lanes).await.unwrap();
    let queues = 3 + usize::from(settings().lanes);
    let mut troubles = vec![Trouble::LostTask];
    troubles.extend(vec![Trouble::MissingQueue; queues]);
    stage.mends(&troubles).await;
    stage.wait_for_depth(activities, 1).await;
    let runs = Tally::new();
    let _payments = up(stage.worker("payments").activity(WORK, counted(&runs))).await;
    assert_eq!(done(&run).await, 7);
    assert_eq!(runs.get(), 1);
}

pub(crate) async fn queues_that_are_deleted_under_running_workers_cost_no_workflow(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let (runs, gate) = (Tally::new(), Gate::new());
    let one_slot = Settings {
        activities: 1,
        ..settings()
    };
    let _payments = up(stage
        .worker("payments")
        .settings(one_slot)
        .activity(WORK, gated(&runs, &gate)))
    .await;
    let _orders = up(stage.worker("orders").workflow(MAIN, call_work)).await;
    let held = stage.client.start(MAIN, 1).await.unwrap();
    runs.reach(1).await;
    let waits = stage.client.start(MAIN, 2).await.unwrap();
    let activities = Queue::Activities(app("payments"));
    stage.wait_for_depth(activities.clone(), 1).await;
    stage.settled("orders", waits.id()).await;
    stage.broker().remove(&app("payments"), settings().lanes).await.unwrap();
    // The worker makes them again; what waited in them is gone, and what runs goes on.
    until("the queue to be there", async || {
        stage.broker().depth(&activities).await.unwrap()
    })
    .await;
    gate.open();
    assert_eq!(done(&held).await, 1);
    let repaired = stage.repair().await;
    assert_eq!(sorts(&repaired), [Trouble::LostTask], "{repaired:?}");
    assert_eq!(done(&waits).await, 2);
    assert_eq!(runs.get(), 2);
}

pub(crate) async fn what_is_left_over_is_removed_and_nothing_else(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let sleeper = async |ctx: WorkflowContext, n: u64| {
        ctx.timer(HOUR).await?;
        ok(n)
    };
    let _orders = up(stage.worker("orders").workflow(MAIN, sleeper)).await;
    let store = stage.backend.store();
    let gone = stage.client.start(MAIN, 7).id("gone").await.unwrap();
    let timer = stage.wait_for_entry("orders", DueKind::Timer).await;
    let record = until("the effects to be made", async || {
        let record = stage.record("orders", "gone").await.unwrap();
        (record.status == Status::Running && record.marks.is_empty()).then_some(record)
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
    }
    gone.handle().purge().await.unwrap();
    until("the timers to be gone", async || {
        stage.due("orders", DueKind::Timer).await.is_empty().then_some(())
    })
    .await;
    let live = stage.client.start(MAIN, 7).id("live").await.unwrap();
    stage.wait_for_entry("orders", DueKind::Timer).await;
    stage.wait_for_text("orders", "live", &["timer"]).await;
    // As somebody leaves it who dies between two steps of a purge.
    store.schedule(&app("orders"), &timers, When::Set).await.unwrap();
    store.index(gone.instance(), &record).await.unwrap();
    let found = stage
        .mends(&[Trouble::StaleDueEntry, Trouble::StaleDueEntry, Trouble::StaleIndexEntry])
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
