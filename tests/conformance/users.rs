//! Broker users: whom a result is taken from, if each app has a user of its own.

use leveret::{Activity, Settings, Workflow, WorkflowContext};

use crate::harness::*;
use crate::programs::echo;

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
