//! Messages that are deleted, and queues: what was in them is found, and goes on.

use super::*;

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
    // It waits for a worker, in the due-set: by whomever it is repaired, it is one.
    stage.wait_for_entry("payments", DueKind::Lease).await;
    let report = stage.finds_nothing().await;
    assert!(report.undecided.is_empty(), "{report:?}");
    // What waits in a queue is not known.
    let waiting = stage.client.start(MAIN, 8).id("two").await.unwrap();
    stage.wait_for_depth(activities, 1).await;
    stage.settled("orders", "two").await;
    let report = stage.finds_nothing().await;
    assert_eq!(report.undecided[0].queue.as_deref(), Some("payments.activities"));
    assert!(report.undecided[0].reason.contains("away"), "{report:?}");
    let _payments = up(stage.worker("payments").activity(WORK, echo)).await;
    assert_eq!((done(&run).await, done(&waiting).await), (7, 8));
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
    stage.settled("payments", "kid").await;
    let _second = orders().await;
    stage.mends(&[Trouble::LostAnswer]).await;
    assert_eq!(done(&run).await, 7);
    assert_eq!(runs.get(), 1);
    assert_eq!(stage.count_events("orders", "one", is_result).await, 1);
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
    stage.wait_for_entry("payments", DueKind::Lease).await;
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
