//! Histories that are damaged: turns that no release can read, or that are missing. Nothing else is held up, nothing is taken for done that was not, and
//! a person has a way out.

use bytes::Bytes;
use leveret::backend::{Mark, Queue};
use leveret::client::Error;
use leveret::replay::history::Turn;
use leveret::{InstanceRef, StallReason, Status, Workflow, WorkflowContext};

use crate::harness::*;
use crate::programs::*;

const MAIN: Workflow<u64, u64> = Workflow::new("orders", "main");
const CHILD: Workflow<u64, u64> = Workflow::new("payments", "child");

/// Appends a turn that no release can read, with effects that are yet to be made or without.
async fn spoil(stage: &Stage, instance: &InstanceRef, has_effects: bool) {
    let record = stage.record(instance.app.as_str(), instance.id.as_str()).await.unwrap();
    let mark = has_effects.then_some(Mark::Turn(record.version + 1));
    stage
        .append(
            instance,
            &record,
            Bytes::from_static(b"not a turn"),
            mark.into_iter().collect(),
        )
        .await;
}

async fn with_a_child(ctx: WorkflowContext, n: u64) -> leveret::Result<u64> {
    ctx.child(CHILD, n).id("kid").await
}

pub(crate) async fn a_history_that_cannot_be_read_holds_up_nothing_else_and_can_be_ended(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let mut one_at_a_time = settings();
    one_at_a_time.prefetch = 1;
    let first = up(stage.worker("orders").workflow(MAIN, waiter)).await;
    let mut spoilt = Vec::new();
    for (id, has_effects) in [("without effects", false), ("with effects", true)] {
        let run = stage.client.start(MAIN, 7).id(id).await.unwrap();
        stage.wait_for_status("orders", id, Status::Running).await;
        spoilt.push((run, has_effects));
    }
    first.stop().await;
    for (run, has_effects) in &spoilt {
        spoil(&stage, run.instance(), *has_effects).await;
    }
    let _second = up(stage.worker("orders").settings(one_at_a_time).workflow(MAIN, waiter)).await;
    for (run, _) in &spoilt {
        run.raise(GO, ()).await.unwrap();
        let id = run.instance().id.as_str();
        let stalled = stage.wait_for_status("orders", id, Status::Stalled).await;
        assert_eq!(
            stalled.stall.as_ref().map(|stall| stall.reason),
            Some(StallReason::Unreadable)
        );
    }
    let other = stage.client.start(MAIN, 5).await.unwrap();
    other.raise(GO, ()).await.unwrap();
    assert_eq!(done(&other).await, 5);
    for (run, _) in &spoilt {
        run.terminate("enough").and_wait(PATIENCE).await.unwrap();
        assert_eq!(run.get().await.unwrap().status, Status::Terminated);
    }
}

pub(crate) async fn a_suspended_instance_that_cannot_be_read_stays_suspended(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let orders = || stage.worker("orders").workflow(MAIN, waiter);
    let first = up(orders()).await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    stage.wait_for_status("orders", "one", Status::Running).await;
    run.suspend("a break").and_wait(PATIENCE).await.unwrap();
    first.stop().await;
    spoil(&stage, run.instance(), false).await;
    let _second = up(orders()).await;
    run.raise(GO, ()).await.unwrap();
    let lane = Queue::Events(app("orders"), run.get().await.unwrap().lane.unwrap());
    let wake = leveret::wire::WakeItem {
        instance: run.instance().clone(),
    };
    stage.publish(lane.clone(), vec![leveret::wire::Item::Wake(wake)]).await;
    stage.wait_for_depth(lane, 0).await;
    assert_eq!(run.get().await.unwrap().status, Status::Suspended);
    run.resume("on we go").await.unwrap();
    let stalled = stage.wait_for_status("orders", "one", Status::Stalled).await;
    assert_eq!(stalled.stall.map(|stall| stall.reason), Some(StallReason::Unreadable));
    run.terminate("enough").and_wait(PATIENCE).await.unwrap();
}

pub(crate) async fn a_finished_instance_whose_effects_cannot_be_made_can_be_purged(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let payments = up(stage.worker("payments").workflow(CHILD, waiter)).await;
    let orders = up(stage.worker("orders").workflow(MAIN, with_a_child)).await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    let child = stage.at("payments", "kid");
    stage.wait_for_status("payments", "kid", Status::Running).await;
    orders.stop().await;
    child.raise(GO, ()).await.unwrap();
    stage.wait_for_status("payments", "kid", Status::Completed).await;
    payments.stop().await;
    // Its answer is lost, and the turn that it would be made from is not one.
    let lane = stage.record("orders", "one").await.unwrap().lane.unwrap();
    stage.take(&Queue::Events(app("orders"), lane)).await;
    spoil(&stage, child.instance(), true).await;
    let refused = child.purge().not_recursive().await.unwrap_err();
    assert!(
        matches!(&refused, Error::Backend(problem) if problem.to_string().contains("turn")),
        "{refused}"
    );
    assert_eq!(child.purge().not_recursive().give_up_effects().await.unwrap(), 1);
    let _orders = up(stage.worker("orders").workflow(MAIN, with_a_child)).await;
    assert_eq!(done(&run).await, 7);
}

pub(crate) async fn a_marked_turn_that_is_not_in_its_place_is_not_taken_for_done(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let orders = up(stage.worker("orders").workflow(MAIN, waiter)).await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    run.raise(GO, ()).await.unwrap();
    assert_eq!(done(&run).await, 7);
    orders.stop().await;
    let record = stage.record("orders", "one").await.unwrap();
    let turn = Turn {
        version: record.version + 7,
        commit: leveret::CommitId::generate(),
        at: record.updated_at,
        build: None,
        events: Vec::new(),
    };
    let marks = vec![Mark::Turn(record.version + 1)];
    stage
        .append(run.instance(), &record, turn.encode(), marks.clone())
        .await;
    let refused = run.handle().purge().not_recursive().await.unwrap_err();
    assert!(refused.to_string().contains("stands in its place"), "{refused}");
    assert_eq!(stage.record("orders", "one").await.unwrap().marks, marks);
}

pub(crate) async fn effects_that_cannot_be_made_do_not_hold_up_what_children_have_to_tell(h: &impl Harness) {
    let stage = Stage::new(h).await;
    stage.known_app("payments").await;
    let orders = || stage.worker("orders").workflow(MAIN, with_a_child);
    let first = up(orders()).await;
    // A delayed start's marks are driven by its check at once, however young they are.
    let now = stage.backend.store().now().await.unwrap();
    let run = stage.client.start(MAIN, 7).id("one").at(now + millis(1)).await.unwrap();
    stage.wait_for_status("payments", "kid", Status::Pending).await;
    stage.wait_for_text("orders", "one", &["kid"]).await;
    first.stop().await;
    let child = stage.at("payments", "kid");
    child.terminate("enough").await.unwrap();
    // Whoever ended it died before its parent was told, and the child's own app is away.
    let record = stage.record("payments", "kid").await.unwrap();
    stage
        .mark_again(child.instance(), &record, Mark::Turn(record.version + 1))
        .await;
    spoil(&stage, run.instance(), true).await;
    stage.check_now("orders").await;
    let _second = up(orders()).await;
    until("the child's effects to be made", async || {
        let record = stage.record("payments", "kid").await.unwrap();
        record.marks.is_empty().then_some(())
    })
    .await;
}

pub(crate) async fn a_turn_that_is_not_in_its_place_stalls_the_instance(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let orders = || stage.worker("orders").workflow(MAIN, waiter);
    let first = up(orders()).await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    stage.wait_for_status("orders", "one", Status::Running).await;
    first.stop().await;
    let record = stage.record("orders", "one").await.unwrap();
    let turn = Turn {
        version: record.version + 7,
        commit: leveret::CommitId::generate(),
        at: record.updated_at,
        build: None,
        events: Vec::new(),
    };
    let marks = vec![Mark::Turn(record.version + 1)];
    stage.append(run.instance(), &record, turn.encode(), marks).await;
    let _second = up(orders()).await;
    run.raise(GO, ()).await.unwrap();
    let stalled = stage.wait_for_status("orders", "one", Status::Stalled).await;
    let stall = stalled.stall.expect("a reason");
    assert_eq!(stall.reason, StallReason::Unreadable);
    assert!(stall.message.contains("place"), "{}", stall.message);
    run.terminate("enough").and_wait(PATIENCE).await.unwrap();
}

pub(crate) async fn a_damaged_occupant_of_a_childs_id_holds_up_no_parent(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let payments = up(stage.worker("payments").workflow(CHILD, waiter)).await;
    let occupant = stage.client.start(CHILD, 1).id("kid").await.unwrap();
    occupant.raise(GO, ()).await.unwrap();
    assert_eq!(done(&occupant).await, 1);
    payments.stop().await;
    spoil(&stage, occupant.instance(), true).await;
    let _orders = up(stage.worker("orders").workflow(MAIN, with_a_child)).await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    let failure = failure(&run).await;
    assert_eq!(failure.kind, leveret::kinds::INSTANCE_ALREADY_EXISTS, "{failure}");
}
