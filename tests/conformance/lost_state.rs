//! State that the store has lost, by a failover or by somebody's hand; scenario 21. What cannot be told any more is left alone, and nobody waits in
//! a loop for it.

use leveret::backend::Queue;
use leveret::wire::{CompletionItem, Item, Outcome, TaskRef};
use leveret::{Activity, Event, Payload, Result, Workflow, WorkflowContext};

use crate::harness::*;

const MAIN: Workflow<u64, u64> = Workflow::new("orders", "main");
const WORK: Activity<u64, u64> = Activity::new("payments", "work");
const GO: Event<()> = Event::new("go");

async fn caller(ctx: WorkflowContext, n: u64) -> Result<u64> {
    let answer = ctx.call(WORK, n).await?;
    ctx.event(GO).await?;
    Ok(answer)
}

pub(crate) async fn an_instance_that_lost_its_turns_begins_again(h: &impl Harness) {
    let stage = Stage::new(h).await;
    stage.known_app("orders").await;
    stage.known_app("payments").await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    // Its start was taken and its first turn was run, of which the store knows nothing any more: what is left is the answer to its call.
    stage.take(&Queue::Workflows(app("orders"))).await;
    let execution = stage.record("orders", "one").await.unwrap().execution;
    let answer = CompletionItem {
        task: TaskRef {
            instance: run.instance().clone(),
            execution,
            sequence: 0,
        },
        task_execution_id: Some(execution.derive("call", 0).into()),
        from: app("payments"),
        outcome: Outcome::Completed(Payload::encode(&8).unwrap()),
        progressed: false,
        ran: None,
    };
    stage
        .publish(Queue::Events(app("orders"), 1), vec![Item::Completion(answer)])
        .await;
    let _orders = up(stage.worker("orders").workflow(MAIN, caller)).await;
    run.raise(GO, ()).await.unwrap();
    assert_eq!(done(&run).await, 8);
}
