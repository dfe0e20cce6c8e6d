//! Activities and children on the apps that own them; scenarios 1, 2 and 4 to 9.

use leveret::backend::Queue;
use leveret::replay::history::HistoryEvent;
use leveret::wire::{CompletionItem, Item, Outcome};
use leveret::{Activity, ActivityContext, Either, Payload, Result, Status, Workflow, WorkflowContext, all, race};

use crate::harness::*;
use crate::programs::*;

const MAIN: Workflow<(), String> = Workflow::new("orders", "main");
const HERE: Activity<(), String> = Activity::new("orders", "where");
const THERE: Activity<(), String> = Activity::new("payments", "where");
const OTHER_WORK: Activity<u64, u64> = Activity::new("shipping", "work");
const SUM: Workflow<u64, u64> = Workflow::new("orders", "sum");
const LONG_CHILD: Workflow<u64, u64> = Workflow::new("payments", "long");

pub(crate) async fn each_activity_runs_once_where_it_belongs(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let runs = Tally::new();
    let whereabouts = |runs: &Tally| {
        let runs = runs.clone();
        move |ctx: ActivityContext, (): ()| {
            runs.add();
            async move { ok(ctx.app_id().to_string()) }
        }
    };
    let _orders = up(stage.worker("orders").activity(HERE, whereabouts(&runs)).workflow(
        MAIN,
        async |ctx: WorkflowContext, ()| {
            let local = ctx.call(HERE, ()).await?;
            let remote = ctx.call(THERE, ()).await?;
            let by_name: String = ctx.call_named("where", ()).await?;
            let own: String = ctx.call_named("where", ()).app_id("orders").await?;
            let moved = ctx.call(HERE, ()).app_id("payments").await?;
            ok(format!("{local} {remote} {by_name} {own} {moved}"))
        },
    ))
    .await;
    let _payments = up(stage.worker("payments").activity(THERE, whereabouts(&runs))).await;
    let run = stage.client.start(MAIN, ()).id("one").await.unwrap();
    assert_eq!(done(&run).await, "orders payments orders orders payments");
    assert_eq!(runs.get(), 5);
}

pub(crate) async fn results_come_back_through_a_chain_of_apps(h: &impl Harness) {
    const APPS: [&str; 5] = ["a", "b", "c", "d", "e"];
    let stage = Stage::new(h).await;
    let mut workers = Vec::new();
    for name in APPS {
        let hop: Workflow<usize, Vec<String>> = Workflow::new(name, "hop");
        let code = async |ctx: WorkflowContext, at: usize| -> Result<Vec<String>> {
            let mut path = vec![ctx.app_id().to_string()];
            if let Some(next) = APPS.get(at + 1) {
                path.extend(
                    ctx.child_named::<Vec<String>>("hop", at + 1)
                        .app_id(next)
                        .id(format!("hop-{next}"))
                        .await?,
                );
            }
            ok(path)
        };
        workers.push(up(stage.worker(name).workflow(hop, code)).await);
    }
    let first: Workflow<usize, Vec<String>> = Workflow::new("a", "hop");
    let run = stage.client.start(first, 0).id("hop-a").await.unwrap();
    assert_eq!(done(&run).await, APPS);
    for (at, name) in APPS.iter().enumerate() {
        let events = stage.events(name, &format!("hop-{name}")).await;
        let children = events
            .iter()
            .filter(|event| matches!(event, HistoryEvent::ChildScheduled { .. }))
            .count();
        assert_eq!(children, usize::from(at < 4), "{name} keeps its own story");
        let parent = stage
            .at(name, &format!("hop-{name}"))
            .get()
            .await
            .unwrap()
            .parent
            .clone();
        assert_eq!(
            parent.map(|parent| parent.app.to_string()),
            at.checked_sub(1).map(|at| APPS[at].to_owned())
        );
    }
}

pub(crate) async fn a_fan_out_goes_on_while_one_of_its_apps_is_down(h: &impl Harness) {
    let stage = Stage::new(h).await;
    stage.known_app("shipping").await;
    let runs = Tally::new();
    let _orders = up(stage
        .worker("orders")
        .workflow(SUM, async |ctx: WorkflowContext, n: u64| {
            let far: Vec<_> = (0..n).map(|n| ctx.call(OTHER_WORK, n).start()).collect();
            let near: u64 = all((0..n).map(|n| ctx.call(WORK, n)))
                .await
                .into_iter()
                .sum::<Result<u64>>()?;
            ctx.set_custom_status(near)?;
            let far: u64 = all(far).await.into_iter().sum::<Result<u64>>()?;
            ok(near + far)
        }))
    .await;
    let _payments = up(stage.worker("payments").activity(WORK, counted(&runs))).await;
    let run = stage.client.start(SUM, 10).id("one").await.unwrap();
    stage
        .wait_for("orders", "one", "half done", |info| {
            info.custom_status == Some(Payload::encode(&45).unwrap())
        })
        .await;
    assert_eq!(runs.get(), 10);
    let text = run.get().await.unwrap().waiting.to_string();
    assert!(text.contains("no worker of shipping"), "{text}");
    let _shipping = up(stage.worker("shipping").activity(OTHER_WORK, counted(&runs))).await;
    assert_eq!(done(&run).await, 90);
    assert_eq!(runs.get(), 20);
}

pub(crate) async fn a_timer_wins_against_a_call_to_a_dead_app(h: &impl Harness) {
    let stage = Stage::new(h).await;
    stage.known_app("payments").await;
    let _orders = up(stage
        .worker("orders")
        .workflow(SUM, async |ctx: WorkflowContext, n: u64| {
            ok(match race(ctx.call(WORK, n), ctx.timer(millis(50))).await {
                Either::Left(_) => 0,
                Either::Right(_) => 1,
            })
        }))
    .await;
    let run = stage.client.start(SUM, 1).id("one").await.unwrap();
    assert_eq!(done(&run).await, 1);
}

pub(crate) async fn an_activity_whose_worker_is_killed_runs_again(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let runs = Tally::new();
    let payments = || stage.worker("payments").activity(WORK, stuck_once(&runs));
    let _orders = up(stage.worker("orders").workflow(SUM, call_work)).await;
    let first = up(payments()).await;
    let run = stage.client.start(SUM, 7).id("one").await.unwrap();
    runs.reach(1).await;
    drop(first);
    let _second = up(payments()).await;
    assert_eq!(done(&run).await, 7);
    assert_eq!(runs.get(), 2);
    let completed = stage
        .count_events("orders", "one", |event| {
            matches!(event, HistoryEvent::TaskCompleted { .. })
        })
        .await;
    assert_eq!(completed, 1);
}

pub(crate) async fn a_child_whose_worker_is_killed_goes_on_from_its_history(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let (before, after) = (Tally::new(), Tally::new());
    let payments = || {
        let work = async |(before, after): (Tally, Tally), _: ActivityContext, n: u64| {
            if n == 0 {
                before.add();
            } else if after.add() == 1 {
                std::future::pending::<()>().await;
            }
            ok(n + 1)
        };
        stage
            .worker("payments")
            .activity(WORK, with((before.clone(), after.clone()), work))
            .workflow(LONG_CHILD, async |ctx: WorkflowContext, n: u64| {
                let first = ctx.call(WORK, n).await?;
                ctx.call(WORK, first).await
            })
    };
    let _orders = up(stage
        .worker("orders")
        .workflow(SUM, async |ctx: WorkflowContext, n: u64| {
            ctx.child(LONG_CHILD, n).id("kid").await
        }))
    .await;
    let first = up(payments()).await;
    let run = stage.client.start(SUM, 0).id("one").await.unwrap();
    after.reach(1).await;
    // Killed before its turn is done with, it would leave a second copy of the task.
    until("the child's turn to be over", async || {
        stage
            .record("payments", "kid")
            .await
            .unwrap()
            .marks
            .is_empty()
            .then_some(())
    })
    .await;
    drop(first);
    let _second = up(payments()).await;
    assert_eq!(done(&run).await, 2);
    assert_eq!((before.get(), after.get()), (1, 2));
    let execution = stage.at("payments", "kid").get().await.unwrap();
    assert_eq!((execution.status, execution.generation), (Status::Completed, 0));
}

pub(crate) async fn a_result_waits_for_its_caller(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let (runs, gate) = (Tally::new(), Gate::new());
    let orders = || stage.worker("orders").workflow(SUM, call_work);
    let _payments = up(stage.worker("payments").activity(WORK, gated(&runs, &gate))).await;
    let first = up(orders()).await;
    let run = stage.client.start(SUM, 7).id("one").await.unwrap();
    runs.reach(1).await;
    let lane = run.get().await.unwrap().lane.expect("a home");
    let home = Queue::Events(app("orders"), lane);
    first.stop().await;
    // Probes of the first worker may be left; the second takes them with it.
    let before = stage.depth(home.clone()).await;
    gate.open();
    stage.wait_for_depth(home, before + 1).await;
    let _second = up(orders()).await;
    assert_eq!(done(&run).await, 7);
    assert_eq!(runs.get(), 1);
}

pub(crate) async fn another_namespace_is_never_reached(h: &impl Harness) {
    let (stage, elsewhere) = (Stage::new(h).await, Stage::new(h).await);
    let (ours, theirs) = (Tally::new(), Tally::new());
    let payments = |stage: &Stage, runs: &Tally| stage.worker("payments").activity(WORK, counted(runs));
    let _elsewhere = up(payments(&elsewhere, &theirs)).await;
    let _orders = up(stage.worker("orders").workflow(SUM, call_work)).await;
    let run = stage.client.start(SUM, 7).id("one").await.unwrap();
    stage.wait_for_text("orders", "one", &["payments", "unknown"]).await;
    let _payments = up(payments(&stage, &ours)).await;
    assert_eq!(done(&run).await, 7);
    assert_eq!((ours.get(), theirs.get()), (1, 0));
    assert!(elsewhere.record("orders", "one").await.is_none());
}

pub(crate) async fn the_same_id_in_two_apps_is_two_instances(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let mut workers = Vec::new();
    for name in ["orders", "payments"] {
        let contract: Workflow<(), String> = Workflow::new(name, "main");
        workers.push(
            up(stage.worker(name).workflow(contract, async |ctx: WorkflowContext, ()| {
                ok(ctx.instance().to_string())
            }))
            .await,
        );
    }
    // Text that means something to a broker, a store, a shell or a URL.
    for id in [
        "one",
        "a/b:c%{d} e",
        "{x}",
        "*",
        "a.b#",
        "ünï…",
        "c/d",
        "..",
        "a\\b'\"",
        "?q=1&r",
    ] {
        for name in ["orders", "payments"] {
            let run = stage
                .client
                .start_named::<String>(name, "main", ())
                .id(id)
                .await
                .unwrap();
            assert_eq!(done(&run).await, format!("{name}/{id}"));
        }
    }
}

pub(crate) async fn a_result_that_was_not_asked_for_is_ignored(h: &impl Harness) {
    let stage = Stage::new(h).await;
    stage.known_app("payments").await;
    let orders = up(stage.worker("orders").workflow(SUM, call_work)).await;
    let run = stage.client.start(SUM, 7).id("one").await.unwrap();
    stage.wait_for_depth(Queue::Activities(app("payments")), 1).await;
    let [Item::Task(task)] = &stage.take(&Queue::Activities(app("payments"))).await[..] else {
        panic!("a task")
    };
    let true_answer = CompletionItem {
        task: task.caller.clone(),
        task_execution_id: Some(task.task_execution_id),
        from: app("payments"),
        outcome: Outcome::Completed(Payload::encode(&7).unwrap()),
        progressed: false,
        ran: None,
    };
    let wrong = Outcome::Completed(Payload::encode(&666).unwrap());
    let lies = vec![
        CompletionItem {
            from: app("mallory"),
            outcome: wrong.clone(),
            ..true_answer.clone()
        },
        CompletionItem {
            task_execution_id: None,
            outcome: wrong.clone(),
            ..true_answer.clone()
        },
        CompletionItem {
            task_execution_id: Some(leveret::TaskExecutionId::generate()),
            outcome: wrong.clone(),
            ..true_answer.clone()
        },
    ];
    let home = Queue::Events(app("orders"), task.reply_to);
    stage
        .publish(home.clone(), lies.into_iter().map(Item::Completion).collect())
        .await;
    wait_for_dropped(&orders, 3).await;
    stage.publish(home, vec![Item::Completion(true_answer)]).await;
    assert_eq!(done(&run).await, 7);
}

pub(crate) async fn a_runtimes_macros_work_over_calls(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let runs = Tally::new();
    let _payments = up(stage.worker("payments").activity(WORK, counted(&runs))).await;
    let sum = async |ctx: WorkflowContext, n: u64| -> Result<u64> {
        let (first, second) = tokio::join!(ctx.call(WORK, n), ctx.call(WORK, n + 1));
        let third = tokio::select! {
            biased;
            waited = ctx.timer(PATIENCE).start() => waited.map(|()| 0),
            done = ctx.call(WORK, n + 2).start() => done,
        };
        Ok(first? + second? + third?)
    };
    let first = up(stage.worker("orders").workflow(SUM, sum)).await;
    let run = stage.client.start(SUM, 7).await.unwrap();
    assert_eq!(done(&run).await, 7 + 8 + 9);
    assert_eq!(runs.get(), 3);
    // A worker that has to replay it comes to the same.
    first.stop().await;
    let tight = leveret::Settings {
        limits: leveret::Limits {
            cache_bytes: 0,
            ..leveret::Limits::default()
        },
        ..settings()
    };
    let _second = up(stage.worker("orders").settings(tight).workflow(SUM, sum)).await;
    let run = stage.client.start(SUM, 17).await.unwrap();
    assert_eq!(done(&run).await, 17 + 18 + 19);
}
