//! Broker users: whom a result is taken from, if each app has a user of its own.

use leveret::backend::Queue;
use leveret::wire::{CompletionItem, Item, Outcome, TaskRef};
use leveret::{Activity, ExecutionId, Payload, Settings, TaskExecutionId, Workflow, WorkflowContext};

use crate::harness::*;
use crate::programs::{echo, waiter};

const MAIN: Workflow<u64, u64> = Workflow::new("orders", "main");
/// The broker's user in the tests is `guest`, and so is this app.
const OWN: Activity<u64, u64> = Activity::new("guest", "work");
const FORGED: Activity<u64, u64> = Activity::new("payments", "work");

pub(crate) async fn a_result_counts_from_its_apps_own_user_alone(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let _guest = up(stage.worker("guest").activity(OWN, echo)).await;
    let _payments = up(stage.worker("payments").activity(FORGED, echo)).await;
    let strict = Settings {
        user_per_app: true,
        ..settings()
    };
    let orders = stage.worker("orders").settings(strict);
    let orders = up(orders.workflow(MAIN, async |ctx: WorkflowContext, n: u64| {
        let own = ctx.call(OWN, n).await?;
        ctx.call(FORGED, own).await
    }))
    .await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    wait_for_dropped(&orders, 1).await;
    stage
        .wait_for_text("orders", "one", &["activity `work` on app `payments`"])
        .await;
    run.terminate("enough").and_wait(PATIENCE).await.unwrap();
}

pub(crate) async fn a_forged_result_does_not_count_for_having_been_unrouted(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let strict = Settings {
        user_per_app: true,
        ..settings()
    };
    let orders = up(stage.worker("orders").settings(strict).workflow(MAIN, waiter)).await;
    let forged = Item::Completion(CompletionItem {
        task: TaskRef {
            instance: instance("nowhere", "one"),
            execution: ExecutionId::generate(),
            sequence: 0,
        },
        task_execution_id: Some(TaskExecutionId::generate()),
        from: app("payments"),
        outcome: Outcome::Completed(Payload::null()),
        progressed: false,
        ran: None,
    });
    // To a lane that is not there (yet): whoever takes what is unrouted would keep it, and its caller's worker send it on as its own.
    stage.publish(Queue::Events(app("nowhere"), 0), vec![forged]).await;
    until("the result to be dropped", async || {
        let dropped = orders.counts().dropped;
        (dropped.get("another user than its app's") == Some(&1)).then_some(())
    })
    .await;
}
