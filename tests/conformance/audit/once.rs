//! A repair does nothing twice: what has run is not run again, by whatever it is missed.

use super::*;

/// A parent whose child has ended, and the answer is lost. The parent's worker and the child's are up again.
struct Unanswered {
    run: leveret::Run<u64>,
    runs: Tally,
    _workers: [RunningWorker; 2],
}

/// `meanwhile` happens to the child before the parent's worker is up again.
async fn unanswered(stage: &Stage, settings: Settings, meanwhile: impl AsyncFnOnce()) -> Unanswered {
    stage.known_app("payments").await;
    let parent = async |ctx: WorkflowContext, n: u64| ctx.child(CHILD, n).id("kid").await;
    let orders = || up(stage.worker("orders").settings(settings.clone()).workflow(MAIN, parent));
    let first = orders().await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    stage.wait_for_status("payments", "kid", Status::Pending).await;
    stage.wait_for("orders", "one", "begun", |info| info.turns == 1).await;
    stage.settled("orders", "one").await;
    first.stop().await;
    let runs = Tally::new();
    let payments = up(stage
        .worker("payments")
        .settings(settings.clone())
        .workflow(CHILD, counted(&runs)))
    .await;
    let lane = stage.record("orders", "one").await.unwrap().lane.unwrap();
    take_completion(stage, &Queue::Events(app("orders"), lane)).await;
    stage.settled("payments", "kid").await;
    meanwhile().await;
    let second = orders().await;
    Unanswered {
        run,
        runs,
        _workers: [payments, second],
    }
}

/// A window that is over soon.
fn forgetful() -> Settings {
    let limits = leveret::Limits {
        dedup_window: millis(500),
        ..Default::default()
    };
    Settings { limits, ..settings() }
}

/// Purges the child, and returns when its receipt has lapsed.
async fn purged_long_ago(stage: &Stage) {
    let limits = forgetful().limits;
    let client = Client::builder(stage.backend.clone()).limits(limits.clone()).build();
    assert_eq!(client.instance("payments", "kid").unwrap().purge().await.unwrap(), 1);
    let store = stage.backend.store();
    let gone = store.now().await.unwrap();
    until("the window to be over", async || {
        (store.now().await.unwrap().since(gone) > limits.dedup_window).then_some(())
    })
    .await;
}

pub(crate) async fn a_child_that_was_purged_long_ago_is_not_run_again(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let at_hand = unanswered(&stage, forgetful(), async || purged_long_ago(&stage).await).await;
    let client = Client::builder(stage.backend.clone())
        .limits(forgetful().limits)
        .build();
    let report = stage.repair_by(&client).await;
    assert_eq!(sorts(&report), [Trouble::LostChild], "{report:?}");
    // What came of it is kept for a minute at least.
    assert_eq!(report.findings[0].repair, Repair::Done, "{report:?}");
    assert_eq!(done(&at_hand.run).await, 7);
    assert_eq!(at_hand.runs.get(), 1, "it was run once more");
}

pub(crate) async fn a_child_of_which_nothing_is_kept_is_not_run_again(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let at_hand = unanswered(&stage, forgetful(), async || purged_long_ago(&stage).await).await;
    let backend = crate::between::with_store_that_forgets_outcomes(&stage.backend);
    let client = Client::builder(backend).limits(forgetful().limits).build();
    let report = stage.repair_by(&client).await;
    assert_eq!(sorts(&report), [Trouble::LostChild], "{report:?}");
    let Repair::Impossible(why) = &report.findings[0].repair else {
        panic!("{report:?}")
    };
    assert!(why.contains("terminate the instance"), "{why}");
    assert!(stage.record("payments", "kid").await.is_none());
    assert_eq!(at_hand.runs.get(), 1);
    at_hand.run.terminate("enough").and_wait(PATIENCE).await.unwrap();
}

pub(crate) async fn the_answer_of_a_child_whose_id_was_taken_by_another_is_told_again(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let at_hand = unanswered(&stage, settings(), async || {
        let other = stage.client.start(CHILD, 666).id("kid").await.unwrap();
        assert_eq!(done(&other).await, 666);
    })
    .await;
    // Its retention is left over, too.
    stage.mends(&[Trouble::LostChild, Trouble::StaleDueEntry]).await;
    assert_eq!(done(&at_hand.run).await, 7);
    assert_eq!(at_hand.runs.get(), 2, "its own run and the other's");
}

pub(crate) async fn a_task_that_two_audits_repair_runs_once(h: &impl Harness) {
    let stage = Stage::new(h).await;
    stage.known_app("payments").await;
    let _orders = up(stage.worker("orders").workflow(MAIN, call_work)).await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    stage.take(&Queue::Activities(app("payments"))).await;
    stage.settled("orders", "one").await;
    let (runs, gate) = (Tally::new(), Gate::new());
    let _payments = up(stage.worker("payments").activity(WORK, gated(&runs, &gate))).await;
    let (one, other) = tokio::join!(stage.repair(), stage.repair());
    assert!(one.is_clean() && other.is_clean(), "{one:?} {other:?}");
    runs.reach(1).await;
    // Whoever looks now finds it at work.
    stage.finds_nothing().await;
    gate.open();
    assert_eq!(done(&run).await, 7);
    assert_eq!(runs.get(), 1, "two copies ran at once");
}
