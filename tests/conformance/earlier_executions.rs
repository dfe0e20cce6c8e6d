//! What an execution leaves behind when it continues as new.

use leveret::{Status, Workflow, WorkflowContext};

use crate::harness::*;
use crate::programs::*;

const MAIN: Workflow<u64, u64> = Workflow::new("orders", "main");

pub(crate) async fn children_of_an_earlier_execution_go_on_and_are_ended_by_their_own_ids(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let _payments = up(stage.worker("payments").workflow(CHILD, waiter)).await;
    let _orders = up(stage
        .worker("orders")
        .workflow(MAIN, async |ctx: WorkflowContext, n: u64| {
            let child = ctx.child(CHILD, n).id(format!("kid-{n}")).start();
            if n == 0 {
                ctx.event(GO).await?;
                return ctx.continue_as_new(1);
            }
            child.await
        }))
    .await;
    let run = stage.client.start(MAIN, 0).id("one").await.unwrap();
    stage.wait_for_status("payments", "kid-0", Status::Running).await;
    run.raise(GO, ()).await.unwrap();
    stage.wait_for_status("payments", "kid-1", Status::Running).await;
    run.terminate("enough").and_wait(PATIENCE).await.unwrap();
    stage.wait_for_status("payments", "kid-1", Status::Terminated).await;
    // The end of its siblings has been and gone, and checks have looked.
    stage.check_now("payments").await;
    assert_eq!(
        stage.at("payments", "kid-0").get().await.unwrap().status,
        Status::Running
    );
    let handle = stage.at("payments", "kid-0");
    handle.terminate("by its own ID").and_wait(PATIENCE).await.unwrap();
    stage.wait_for_status("payments", "kid-0", Status::Terminated).await;
}
