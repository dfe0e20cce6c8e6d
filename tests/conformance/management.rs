//! What people see: status, waiting, progress, lists, histories, apps and workers; scenario 30.

use std::time::Duration;

use leveret::backend::{DueKind, When};
use leveret::client::{Filter, WaitingOn};
use leveret::replay::history::HistoryEvent;
use leveret::{ActivityContext, Payload, Result, Status, Worker, Workflow, WorkflowContext};

use crate::between::{Call, with_store_behind};
use crate::harness::*;
use crate::programs::*;

const MAIN: Workflow<u64, u64> = Workflow::new("orders", "main");

pub(crate) async fn an_instance_shows_all_that_it_waits_for(h: &impl Harness) {
    let stage = Stage::new(h).await;
    stage.known_app("payments").await;
    let _orders = up(stage
        .worker("orders")
        .workflow(MAIN, async |ctx: WorkflowContext, n: u64| {
            let activity = ctx.call(WORK, n).start();
            let child = ctx.child(CHILD, n).id("kid").start();
            let timer = ctx.timer(Duration::from_secs(3600)).start();
            ctx.event(GO).await?;
            drop((activity, child, timer));
            ok(n)
        }))
    .await;
    let run = stage.client.start(MAIN, 7).id("one").tag("region", "eu").await.unwrap();
    let texts = [
        "event `go`, since",
        "activity `work` on app `payments`, attempt 1, since",
        "child workflow `child` as payments/kid, attempt 1",
        "Pending",
        "no worker of payments since",
        "timer 2, due",
    ];
    stage.wait_for_text("orders", "one", &texts).await;
    let info = run.get().await.unwrap();
    assert_eq!(info.waiting.total, 4);
    assert_eq!(info.input, Some(Payload::encode(&7).unwrap()));
    assert_eq!(info.tags.get("region").map(String::as_str), Some("eu"));
    run.raise(GO, ()).await.unwrap();
    assert_eq!(done(&run).await, 7);
    let info = run.get().await.unwrap();
    assert_eq!(
        (info.waiting.total, info.output.clone()),
        (0, Some(Payload::encode(&7).unwrap()))
    );
    assert!(info.ended_at.is_some());
}

pub(crate) async fn progress_is_shown_and_forgotten(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let gate = Gate::new();
    let work = async |gate: Gate, ctx: ActivityContext, n: u64| {
        ctx.heartbeat("half way").await?;
        gate.pass().await;
        ok(n)
    };
    let _payments = up(stage.worker("payments").activity(WORK, with(gate.clone(), work))).await;
    let _orders = up(stage
        .worker("orders")
        .workflow(MAIN, async |ctx: WorkflowContext, n: u64| {
            let done = ctx.call(WORK, n).await?;
            waiter(ctx, done).await
        }))
    .await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    stage
        .wait_for_text("orders", "one", &["last progress", "half way"])
        .await;
    gate.open();
    stage.wait_for_text("orders", "one", &["event `go`"]).await;
    assert!(
        stage
            .backend
            .store()
            .progress_of(run.instance(), 10)
            .await
            .unwrap()
            .is_empty()
    );
}

pub(crate) async fn the_next_attempt_is_shown(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let work = async |_: ActivityContext, _: u64| -> Result<u64> { Err(leveret::Failure::new("Flaky", "no")) };
    let _payments = up(stage.worker("payments").activity(WORK, work)).await;
    let _orders = up(stage
        .worker("orders")
        .workflow(MAIN, async |ctx: WorkflowContext, n: u64| {
            ctx.call(WORK, n)
                .retry(leveret::Retry::times(3).first(Duration::from_secs(3600)))
                .await
        }))
    .await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    stage
        .wait_for_text("orders", "one", &["attempt 2 of `work` on app `payments`, due"])
        .await;
    assert!(matches!(
        run.get().await.unwrap().waiting.on[..],
        [WaitingOn::Retry { attempt: 2, .. }]
    ));
}

pub(crate) async fn instances_are_listed_by_status_in_pages(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let _orders = up(stage.worker("orders").workflow(MAIN, waiter)).await;
    let mut ids = Vec::new();
    for n in 0..25u64 {
        let run = stage.client.start(MAIN, n).id(format!("i{n:02}")).await.unwrap();
        if n % 5 == 0 {
            run.raise(GO, ()).await.unwrap();
            assert_eq!(done(&run).await, n);
        }
        stage
            .wait_for("orders", run.id(), "past its first turn", |info| {
                info.started_at.is_some()
            })
            .await;
        ids.push(format!("i{n:02}"));
    }
    let mut list = stage.client.list(Filter::app("orders")).page_size(7);
    let mut listed = Vec::new();
    loop {
        let page = list.clone().await.unwrap();
        assert!(page.instances.len() <= 7);
        listed.extend(page.instances.iter().map(|found| found.instance.id.to_string()));
        let Some(next) = page.next else { break };
        list = list.after(next);
    }
    assert_eq!(listed, ids);
    let completed = stage
        .client
        .list(Filter::app("orders").status(Status::Completed))
        .await
        .unwrap();
    assert_eq!(completed.instances.len(), 5);
    assert_eq!(stage.client.purge(Filter::app("orders")).await.unwrap(), 5);
    let left = stage.client.list(Filter::app("orders")).await.unwrap();
    assert_eq!(left.instances.len(), 20);
}

pub(crate) async fn apps_and_their_workers_are_shown(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let payments = up(stage
        .worker("payments")
        .build_id("v7")
        .activity(WORK, echo)
        .workflow(CHILD, waiter))
    .await;
    let workers = stage.client.workers("payments").await.unwrap();
    let [worker] = &workers[..] else {
        panic!("one worker: {workers:?}")
    };
    assert_eq!((worker.id, worker.build.as_str()), (payments.id(), "v7"));
    assert_eq!(
        (&worker.activities[..], &worker.workflows[..]),
        (&["work".to_owned()][..], &["child".to_owned()][..])
    );
    until("its lanes to be shown", async || {
        (stage.client.workers("payments").await.unwrap()[0].lanes.len() == 2).then_some(())
    })
    .await;
    payments.stop().await;
    assert!(stage.client.workers("payments").await.unwrap().is_empty());
    let apps = stage.client.apps().await.unwrap();
    assert_eq!(
        apps.iter().map(|app| app.id.to_string()).collect::<Vec<_>>(),
        ["payments"]
    );
}

pub(crate) async fn a_dead_worker_is_not_shown_for_long(h: &impl Harness) {
    let stage = Stage::new(h).await;
    drop(up(stage.worker("payments")).await);
    until("it to be gone", async || {
        stage.client.workers("payments").await.unwrap().is_empty().then_some(())
    })
    .await;
}

pub(crate) async fn the_root_tells_the_whole_story(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let _payments = up(stage.worker("payments").activity(WORK, echo).workflow(CHILD, call_work)).await;
    let _orders = up(stage
        .worker("orders")
        .workflow(MAIN, async |ctx: WorkflowContext, n: u64| {
            let work = ctx.call(WORK, n).await?;
            ok(work + ctx.child(CHILD, n).id("kid").await?)
        }))
    .await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    assert_eq!(done(&run).await, 14);
    let told: Vec<_> = stage
        .events("orders", "one")
        .await
        .iter()
        .map(HistoryEvent::describe)
        .collect();
    assert_eq!(told.len(), 6, "{told:?}");
    let events = stage.events("orders", "one").await;
    assert!(
        matches!(&events[1], HistoryEvent::TaskScheduled { app, name, .. } if app.as_str() == "payments" && name == "work")
    );
    assert!(
        matches!(&events[3], HistoryEvent::ChildScheduled { instance, .. } if *instance == self::instance("payments", "kid"))
    );
    let children = run.handle().children().await.unwrap();
    assert_eq!(children.len(), 1);
    assert_eq!(
        (&children[0].instance, children[0].status),
        (&instance("payments", "kid"), Some(Status::Completed))
    );
}

pub(crate) async fn an_instance_that_is_purged_while_its_end_is_noted_leaves_nothing_behind(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let (noting, purged, forgotten) = (Gate::new(), Gate::new(), Gate::new());
    let gates = (noting.clone(), purged.clone(), forgotten.clone());
    let worker = with_store_behind(&stage.backend, move |call: Call| {
        let (noting, purged, forgotten) = gates.clone();
        Box::pin(async move {
            match call.method {
                // The note of its end, and the entry that is to delete it one day.
                "index" | "schedule" => {
                    noting.open();
                    purged.pass().await;
                }
                "unindex" => forgotten.open(),
                _ => {}
            }
        })
    });
    let echo = async |_: WorkflowContext, n: u64| ok(n);
    let _orders = up(Worker::new("orders", worker).settings(settings()).workflow(MAIN, echo)).await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    soon("the note of its end", noting.pass()).await;
    assert_eq!(done(&run).await, 7);
    assert_eq!(run.handle().purge().await.unwrap(), 1);
    // What sweeps up after a worker that dies now. Whoever writes the entry later changes nothing.
    let store = stage.backend.store();
    let [mut sweep] = <[_; 1]>::try_from(stage.due("orders", DueKind::Retention).await).expect("one entry");
    let now = store.now().await.unwrap();
    assert!(sweep.due < now + Duration::from_secs(31), "{sweep:?} at {now}");
    let due = std::mem::replace(&mut sweep.due, now + Duration::from_secs(3600));
    store
        .schedule(&app("orders"), std::slice::from_ref(&sweep), When::Sooner)
        .await
        .unwrap();
    assert_eq!(stage.due("orders", DueKind::Retention).await[0].due, due);
    // The worker lives, and finds out that the instance is gone.
    purged.open();
    soon("the note to be taken back", forgotten.pass()).await;
    assert_eq!(stage.due("orders", DueKind::Retention).await, []);
}

pub(crate) async fn what_sweeps_up_notes_an_instance_whose_id_is_used_anew(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let waits = async |ctx: WorkflowContext, n: u64| ctx.event(GO).await.and(ok(n));
    let _orders = up(stage.worker("orders").workflow(MAIN, waits)).await;
    let start = async || stage.client.start(MAIN, 7).id("one").await.unwrap();
    let first = start().await;
    first.raise(GO, ()).await.unwrap();
    assert_eq!(done(&first).await, 7);
    // After the purge it may be gone: the worker that noted the end may find the instance purged, and take its entry back.
    let mut sweep = until("the end to be noted", async || {
        stage.due("orders", DueKind::Retention).await.pop()
    })
    .await;
    assert_eq!(first.handle().purge().await.unwrap(), 1);
    let second = start().await;
    stage.wait_for_text("orders", "one", &["event `go`"]).await;
    stage.unmarked("orders", "one").await;
    // Somebody forgot the first one, and died before the second one was noted again.
    let store = stage.backend.store();
    store.unindex(second.instance()).await.unwrap();
    sweep.due = store.now().await.unwrap();
    store.schedule(&app("orders"), &[sweep], When::Sooner).await.unwrap();
    until("it to be in the list", async || {
        let all = stage.client.list(Filter::app("orders")).collect().await.unwrap();
        (all.len() == 1).then_some(())
    })
    .await;
    second.raise(GO, ()).await.unwrap();
    assert_eq!(done(&second).await, 7);
}
