//! Sizes: payloads, inboxes, names, fan-outs, loops; scenarios 28 and 29.

use leveret::client::Error;
use leveret::{
    Activity, ActivityContext, Client, Limits, Result, Settings, Status, Workflow, WorkflowContext, all, kinds,
};

use crate::harness::*;
use crate::programs::*;

const MAIN: Workflow<u64, u64> = Workflow::new("orders", "main");
const MAKE: Activity<usize, String> = Activity::new("payments", "make");

fn limited(limits: Limits) -> Settings {
    Settings { limits, ..settings() }
}

async fn make(_: ActivityContext, size: usize) -> Result<String> {
    Ok("x".repeat(size))
}

pub(crate) async fn a_large_payload_goes_all_the_way(h: &impl Harness) {
    const SIZE: usize = 3 << 20;
    let stage = Stage::new(h).await;
    let workflow: Workflow<String, String> = Workflow::new("orders", "main");
    let _payments = up(stage.worker("payments").activity(MAKE, make)).await;
    let _orders = up(stage
        .worker("orders")
        .workflow(workflow, async |ctx: WorkflowContext, input: String| {
            let made = ctx.call(MAKE, input.len()).await?;
            ok(format!("{input}{made}"))
        }))
    .await;
    let run = stage.client.start(workflow, "y".repeat(SIZE)).id("one").await.unwrap();
    let output = done(&run).await;
    assert_eq!(output.len(), 2 * SIZE);
    assert!(output.starts_with("yyy") && output.ends_with("xxx"));
}

pub(crate) async fn a_payload_over_the_limit_fails_its_call_alone(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let workflow: Workflow<(), Vec<String>> = Workflow::new("orders", "main");
    let small = || {
        limited(Limits {
            payload_bytes: 1000,
            ..Limits::default()
        })
    };
    let _payments = up(stage.worker("payments").settings(small()).activity(MAKE, make)).await;
    let _orders = up(stage
        .worker("orders")
        .settings(small())
        .workflow(workflow, async |ctx: WorkflowContext, ()| {
            let result = ctx.call(MAKE, 2000).await.unwrap_err();
            let input = ctx.call_named::<u64>("work", "x".repeat(2000)).await.unwrap_err();
            let fits = ctx.call(MAKE, 10).await?;
            for failure in [&result, &input] {
                assert!(
                    failure.message.contains("1000") && failure.message.contains("LEVERET_PAYLOAD_BYTES"),
                    "{failure}"
                );
            }
            ok(vec![result.kind, input.kind, fits])
        }))
    .await;
    let run = stage.client.start(workflow, ()).id("one").await.unwrap();
    assert_eq!(
        done(&run).await,
        [kinds::PAYLOAD_TOO_LARGE, kinds::PAYLOAD_TOO_LARGE, "xxxxxxxxxx"]
    );
    let client = Client::builder(stage.backend.clone())
        .limits(Limits {
            payload_bytes: 1000,
            ..Limits::default()
        })
        .build();
    let large: Workflow<String, u64> = Workflow::new("orders", "main");
    let refused = client.start(large, "x".repeat(2000)).await;
    assert!(matches!(refused, Err(Error::PayloadTooLarge { limit: 1000, .. })));
}

pub(crate) async fn an_output_over_the_limit_fails_its_workflow(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let workflow: Workflow<usize, String> = Workflow::new("orders", "main");
    let small = limited(Limits {
        payload_bytes: 1000,
        ..Limits::default()
    });
    let _orders = up(stage
        .worker("orders")
        .settings(small)
        .workflow(workflow, async |_: WorkflowContext, size: usize| ok("x".repeat(size))))
    .await;
    let run = stage.client.start(workflow, 2000).id("one").await.unwrap();
    assert_eq!(failure(&run).await.kind, kinds::PAYLOAD_TOO_LARGE);
}

pub(crate) async fn a_full_inbox_refuses_events_and_nothing_else(h: &impl Harness) {
    let stage = Stage::new(h).await;
    stage.known_app("orders").await;
    let client = Client::builder(stage.backend.clone())
        .limits(Limits {
            inbox_events: 3,
            ..Limits::default()
        })
        .build();
    let run = client.start(MAIN, 7).id("one").await.unwrap();
    for _ in 0..3 {
        run.raise(GO, ()).await.unwrap();
    }
    assert!(matches!(run.raise(GO, ()).await, Err(Error::InboxFull { .. })));
    let _orders = up(stage
        .worker("orders")
        .workflow(MAIN, async |ctx: WorkflowContext, n: u64| {
            for _ in 0..4 {
                ctx.event(GO).await?;
            }
            ok(n)
        }))
    .await;
    stage.wait_for_status("orders", "one", Status::Running).await;
    run.raise(GO, ()).await.unwrap();
    assert_eq!(done(&run).await, 7);
}

pub(crate) async fn a_child_of_a_long_name_is_found_again(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let _orders = up(stage
        .worker("orders")
        .workflow(MAIN, async |ctx: WorkflowContext, n: u64| {
            if n == 0 {
                return ok(ctx.instance_id().as_str().len() as u64);
            }
            // By its own contract, with a name derived from its parent's.
            ctx.child(MAIN, n - 1).await
        }))
    .await;
    let run = stage.client.start(MAIN, 3).id("ü".repeat(100)).await.unwrap();
    assert_eq!(done(&run).await, 200 + 3 * 5);
}

pub(crate) async fn a_wide_fan_out_is_joined(h: &impl Harness) {
    let calls = size(10_000, 1000);
    let stage = Stage::new(h).await;
    let runs = Tally::new();
    let _payments = up(stage.worker("payments").activity(WORK, counted(&runs))).await;
    let _orders = up(stage
        .worker("orders")
        .workflow(MAIN, async |ctx: WorkflowContext, n: u64| {
            all((0..n).map(|n| ctx.call(WORK, n)))
                .await
                .into_iter()
                .sum::<Result<u64>>()
        }))
    .await;
    let run = stage.client.start(MAIN, calls).id("one").await.unwrap();
    assert_eq!(done_within(&run, PATIENCE * 10).await, (0..calls).sum::<u64>());
    assert_eq!(runs.get(), calls as usize);
}

pub(crate) async fn a_long_loop_goes_on_in_another_worker(h: &impl Harness) {
    let steps = size(100_000, 200);
    let stage = Stage::new(h).await;
    let runs = Tally::new();
    let _payments = up(stage.worker("payments").activity(WORK, counted(&runs))).await;
    let orders = || {
        stage
            .worker("orders")
            .workflow(MAIN, async |ctx: WorkflowContext, n: u64| {
                let mut sum = 0;
                for step in 0..n {
                    sum += ctx.call(WORK, step).await?;
                }
                ok(sum)
            })
    };
    let first = up(orders()).await;
    let run = stage.client.start(MAIN, steps).id("one").await.unwrap();
    runs.reach(steps.min(2000) as usize / 2).await;
    assert_eq!(first.counts().replays, 0, "it stays live: {:?}", first.counts());
    drop(first);
    let _second = up(orders()).await;
    assert_eq!(done_within(&run, PATIENCE * 30).await, (0..steps).sum::<u64>());
    // The first worker is gone without a word: what it had called last is called once more.
    let again = runs.get() - steps as usize;
    assert!(again <= 1, "{again} bodies ran again");
}

pub(crate) async fn a_history_of_many_pages_is_replayed(h: &impl Harness) {
    const TURNS: u64 = 1100;
    let stage = Stage::new(h).await;
    let orders = || {
        stage
            .worker("orders")
            .workflow(MAIN, async |ctx: WorkflowContext, n: u64| {
                for _ in 0..n {
                    ctx.event(GO).await?;
                }
                ctx.set_custom_status("waits")?;
                ctx.event_named::<()>("end").await?;
                ok(n)
            })
    };
    // One event a turn.
    let one_by_one = limited(Limits {
        turn_events: 1,
        ..Limits::default()
    });
    let first = up(orders().settings(one_by_one)).await;
    let run = stage.client.start(MAIN, TURNS).id("one").await.unwrap();
    stage.wait_for_status("orders", "one", Status::Running).await;
    for _ in 0..TURNS {
        run.raise(GO, ()).await.unwrap();
    }
    let info = stage.wait_for("orders", "one", "at its end", has_custom_status).await;
    assert!(info.turns > TURNS);
    first.stop().await;
    let _second = up(orders()).await;
    run.handle().raise_named("end", ()).await.unwrap();
    assert_eq!(done(&run).await, TURNS);
}

pub(crate) async fn a_cache_without_room_costs_replays_and_nothing_else(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let _payments = up(stage.worker("payments").activity(WORK, echo)).await;
    let tight = limited(Limits {
        cache_bytes: 0,
        ..Limits::default()
    });
    let orders = up(stage
        .worker("orders")
        .settings(tight)
        .workflow(MAIN, async |ctx: WorkflowContext, n: u64| {
            let mut sum = 0;
            for step in 0..n {
                sum += ctx.call(WORK, step).await?;
            }
            ok(sum)
        }))
    .await;
    let run = stage.client.start(MAIN, 10).id("one").await.unwrap();
    assert_eq!(done(&run).await, 45);
    assert_eq!(orders.live_workflows(), 0);
    assert!(orders.counts().replays >= 10, "{:?}", orders.counts());
}
