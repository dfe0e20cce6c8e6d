//! What is left of a purged tree in Redis; scenario 12.

use std::time::Duration;

use deadpool_redis::redis;
use leveret::backend::{DueKind, IndexFilter, When};
use leveret::{Result, Timestamp, Workflow, WorkflowContext, all};

use crate::harness::*;
use crate::programs::*;

const MAIN: Workflow<u64, u64> = Workflow::new("orders", "main");
const GRANDCHILD: Workflow<u64, u64> = Workflow::new("shipping", "grandchild");
/// What is left for those who ask late: a start that comes again, a client that waits for a result.
const LAPSING: [&str; 2] = ["receipt:", "run:"];
const APPS: [&str; 3] = ["orders", "payments", "shipping"];

/// The keys of an instance, without what they have in common, each with the seconds until it lapses (below 0: it does not).
async fn keys(stage: &Stage, app: &str, id: &str) -> Vec<(String, i64)> {
    let url = std::env::var("LEVERET_TEST_REDIS_URL").unwrap();
    let client = redis::Client::open(url).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let begin = format!("lv:{{{}/{app}/{id}}}:", stage.backend.namespace());
    let keys: Vec<String> = redis::cmd("KEYS")
        .arg(format!("{begin}*"))
        .query_async(&mut connection)
        .await
        .unwrap();
    let mut found = Vec::new();
    for key in keys {
        let lapses: i64 = redis::cmd("TTL").arg(&key).query_async(&mut connection).await.unwrap();
        found.push((key.replacen(&begin, "", 1), lapses));
    }
    found
}

pub(crate) async fn a_purged_tree_leaves_no_key_but_receipts(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let mut workers = Vec::new();
    let leaf = async |_: WorkflowContext, n: u64| ok(n);
    workers.push(up(stage.worker("shipping").workflow(GRANDCHILD, leaf)).await);
    let child = async |ctx: WorkflowContext, n: u64| ctx.child(GRANDCHILD, n).id(format!("grandkid-{n}")).await;
    workers.push(up(stage.worker("payments").activity(WORK, echo).workflow(CHILD, child)).await);
    let main = async |ctx: WorkflowContext, n: u64| {
        // Everything that has keys of its own: a claim, progress, a timer, an event, a status.
        let limited = ctx.call(WORK, 0).timeout(PATIENCE).heartbeat(PATIENCE).await?;
        ctx.event(GO).within(PATIENCE).await?;
        ctx.set_custom_status("fans out")?;
        let children = (0..n).map(|n| ctx.child(CHILD, n).id(format!("kid-{n}")));
        ok(limited + all(children).await.into_iter().sum::<Result<u64>>()?)
    };
    workers.push(up(stage.worker("orders").workflow(MAIN, main)).await);
    let run = stage.client.start(MAIN, 3).id("root").await.unwrap();
    run.raise(GO, ()).await.unwrap();
    assert_eq!(done(&run).await, 3);
    for worker in workers {
        worker.stop().await;
    }
    let mut tree = vec![("orders", "root".to_owned())];
    for n in 0..3 {
        tree.push(("payments", format!("kid-{n}")));
        tree.push(("shipping", format!("grandkid-{n}")));
    }
    for (app, id) in &tree {
        let before = keys(&stage, app, id).await;
        assert!(before.iter().any(|(key, _)| key == "meta"), "{app}/{id}: {before:?}");
    }
    assert_eq!(run.handle().purge().await.unwrap(), 7);
    for (app, id) in &tree {
        assert!(stage.record(app, id).await.is_none(), "{app}/{id} is gone");
        for (key, lapses) in keys(&stage, app, id).await {
            assert!(
                LAPSING.iter().any(|part| key.starts_with(part)) && lapses > 0,
                "{app}/{id}: {key} lapses in {lapses} s"
            );
        }
    }
    // Nor does anything outside their keys speak of them, but what sweeps up behind a worker that may still note their end. Its time comes, and it goes.
    for name in APPS {
        let mut sweeps = stage.due(name, DueKind::Retention).await;
        let (store, soon) = (
            stage.backend.store(),
            stage.backend.store().now().await.unwrap() + Duration::from_secs(31),
        );
        assert!(sweeps.iter().all(|sweep| sweep.due < soon), "{name}: {sweeps:?}");
        sweeps
            .iter_mut()
            .for_each(|sweep| sweep.due = Timestamp::from_millis(0));
        store.schedule(&app(name), &sweeps, When::Sooner).await.unwrap();
        let worker = up(stage.worker(name)).await;
        for kind in DueKind::ALL {
            until("nothing to be due", async || {
                stage.due(name, kind).await.is_empty().then_some(())
            })
            .await;
        }
        worker.stop().await;
        let filter = IndexFilter {
            app: app(name),
            statuses: Vec::new(),
            created_from: None,
            created_before: None,
        };
        let page = stage.backend.store().list(&filter, None, 10).await.unwrap();
        assert!(page.instances.is_empty(), "{name}: {page:?}");
    }
}
