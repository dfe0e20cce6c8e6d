//! Every kind of message delivered twice, at once and after a restart: scenarios 14, 15 and 17.

use leveret::backend::{Mark, Queue};
use leveret::replay::history::HistoryEvent;
use leveret::wire::{
    Command, CommandItem, CompletionItem, EventItem, Item, Outcome, ProbeItem, TaskRef, TimerItem, WakeItem,
};
use leveret::{
    Activity, ActivityContext, Event, MessageId, Payload, Result, RunningWorker, Status, Timestamp, WorkerId, Workflow,
    WorkflowContext,
};

use crate::harness::*;
use crate::programs::counted;

const MAIN: Workflow<u64, u64> = Workflow::new("orders", "main");
const CHILD: Workflow<u64, u64> = Workflow::new("payments", "child");
const WORK: Activity<u64, u64> = Activity::new("payments", "work");
const NUMBER: Event<u64> = Event::new("number");
const GO: Event<()> = Event::new("go");

async fn everything(ctx: WorkflowContext, n: u64) -> Result<u64> {
    let activity = ctx.call(WORK, n).await?;
    ctx.timer(millis(1)).await?;
    let child = ctx.child(CHILD, n).id("kid").await?;
    let event = ctx.event(NUMBER).await?;
    ctx.set_custom_status("waits")?;
    ctx.event(GO).await?;
    // A number that came twice would be found here.
    let second = ctx.event(NUMBER).within(millis(1)).await?;
    Ok(activity + child + event + second.unwrap_or(1000))
}

/// One after the other.
async fn series(ctx: WorkflowContext, n: u64) -> Result<u64> {
    let mut sum = 0;
    for step in 0..n {
        sum += ctx.call(WORK, step).await?;
    }
    Ok(sum)
}

async fn orders(stage: &Stage) -> RunningWorker {
    up(stage.worker("orders").workflow(MAIN, everything)).await
}

async fn payments(stage: &Stage) -> RunningWorker {
    let worker = stage
        .worker("payments")
        .activity(WORK, async |_: ActivityContext, n: u64| ok(n));
    up(worker.workflow(CHILD, async |_: WorkflowContext, n: u64| ok(n))).await
}

pub(crate) async fn a_result_that_comes_again_has_no_history_read(h: &impl Harness) {
    let stage = Stage::new(h).await;
    stage.known_app("payments").await;
    let orders = up(stage.worker("orders").workflow(MAIN, series)).await;
    let run = stage.client.start(MAIN, 5).id("one").await.unwrap();
    let mut before = None;
    let dropped = || orders.counts().dropped.get("already in history").copied();
    for step in 0..5 {
        let tasks = stage.take(&Queue::Activities(app("payments"))).await;
        // The turn that the result before it led to is committed, and its mark is left to the next commit.
        if let Some((home, result)) = before.take() {
            stage.publish(home, vec![result]).await;
            until("it to be dropped", async || (dropped() == Some(step)).then_some(())).await;
        }
        let [Item::Task(task)] = &tasks[..] else {
            panic!("{tasks:?}")
        };
        let home = Queue::Events(app("orders"), task.reply_to);
        let result = answer_to(task);
        stage.publish(home.clone(), vec![result.clone()]).await;
        before = Some((home, result));
    }
    assert_eq!(run.result().await.unwrap(), 10);
    assert_eq!(orders.counts().replays, 0);
}

pub(crate) async fn each_kind_of_message_counts_once(h: &impl Harness) {
    let stage = Stage::new(h).await;
    stage.known_app("orders").await;
    stage.known_app("payments").await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    let starts = stage.take(&Queue::Workflows(app("orders"))).await;
    for _ in 0..3 {
        stage.publish(Queue::Workflows(app("orders")), starts.clone()).await;
    }
    let first = orders(&stage).await;
    let tasks = stage.take(&Queue::Activities(app("payments"))).await;
    for _ in 0..3 {
        stage.publish(Queue::Activities(app("payments")), tasks.clone()).await;
    }
    let _payments = payments(&stage).await;
    stage.wait_for_text("orders", "one", &["event `number`"]).await;
    run.raise(NUMBER, 100).message_id("number").await.unwrap();
    stage
        .wait_for("orders", "one", "at its last wait", |info| info.custom_status.is_some())
        .await;
    let info = run.get().await.unwrap();
    let home = Queue::Events(app("orders"), info.lane.unwrap());
    let history = stage.events("orders", "one").await;

    // All that it was ever told, and what it was not told but hears in vain.
    let task = |sequence| TaskRef {
        instance: run.instance().clone(),
        execution: info.execution,
        sequence,
    };
    let mut items = vec![
        Item::Wake(WakeItem {
            instance: run.instance().clone(),
        }),
        Item::Probe(ProbeItem {
            worker: WorkerId::generate(),
            marker: None,
        }),
        Item::Event(EventItem {
            instance: run.instance().clone(),
            name: "number".into(),
            payload: Payload::encode(&100).unwrap(),
            message_id: MessageId::new("number").unwrap(),
        }),
        Item::Command(CommandItem {
            instance: run.instance().clone(),
            command: Command::Resume {
                reason: "it is not suspended".into(),
            },
            issued_at: Timestamp::from_millis(0),
            run: Some(info.run),
            parent: None,
        }),
        Item::Command(CommandItem {
            instance: run.instance().clone(),
            command: Command::Terminate {
                reason: "another run".into(),
                recursive: true,
            },
            issued_at: Timestamp::from_millis(0),
            run: Some(leveret::RunId::generate()),
            parent: None,
        }),
    ];
    for event in &history {
        match event {
            HistoryEvent::TaskScheduled {
                sequence,
                task_execution_id,
                ..
            } => items.push(Item::Completion(CompletionItem {
                task: task(*sequence),
                task_execution_id: Some(*task_execution_id),
                from: app("payments"),
                outcome: Outcome::Completed(Payload::encode(&666).unwrap()),
                progressed: false,
                ran: None,
            })),
            HistoryEvent::ChildScheduled { sequence, .. } => items.push(Item::Completion(CompletionItem {
                task: task(*sequence),
                task_execution_id: None,
                from: app("payments"),
                outcome: Outcome::Completed(Payload::encode(&666).unwrap()),
                progressed: false,
                ran: None,
            })),
            HistoryEvent::TimerCreated { sequence, .. } => items.push(Item::Timer(TimerItem {
                task: task(*sequence),
                deadline: false,
            })),
            _ => {}
        }
    }
    assert_eq!(items.len(), 8);
    let again = async |stage: &Stage| {
        stage
            .publish(home.clone(), items.iter().cloned().chain(items.clone()).collect())
            .await;
        for item in &items {
            stage.publish(home.clone(), vec![item.clone()]).await;
        }
        stage.publish(Queue::Workflows(app("orders")), starts.clone()).await;
        stage.publish(Queue::Activities(app("payments")), tasks.clone()).await;
        stage.wait_for_depth(home.clone(), 0).await;
        stage.wait_for_depth(Queue::Workflows(app("orders")), 0).await;
    };
    again(&stage).await;
    first.stop().await;
    let _second = orders(&stage).await;
    again(&stage).await;
    run.raise(GO, ()).await.unwrap();
    assert_eq!(done(&run).await, 7 + 7 + 100 + 1000);
    let events = stage.events("orders", "one").await;
    assert_eq!(
        events[..history.len()],
        history[..],
        "nothing was added, nothing was changed"
    );
    let count = |is_meant: fn(&HistoryEvent) -> bool| events.iter().filter(|event| is_meant(event)).count();
    assert_eq!(count(|event| matches!(event, HistoryEvent::ExecutionStarted { .. })), 1);
    assert_eq!(
        count(|event| matches!(
            event,
            HistoryEvent::TaskCompleted { .. } | HistoryEvent::TaskFailed { .. }
        )),
        1
    );
    assert_eq!(count(|event| matches!(event, HistoryEvent::ChildCompleted { .. })), 1);
    assert_eq!(
        count(|event| matches!(event, HistoryEvent::ExecutionCompleted { .. })),
        1
    );
}

pub(crate) async fn what_comes_after_the_end_changes_nothing(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let _orders = up(stage
        .worker("orders")
        .workflow(MAIN, async |ctx: WorkflowContext, n: u64| {
            ctx.event(GO).await?;
            ok(n)
        }))
    .await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    run.raise(GO, ()).await.unwrap();
    assert_eq!(done(&run).await, 7);
    let info = run.get().await.unwrap();
    let home = Queue::Events(app("orders"), info.lane.unwrap());
    let item = EventItem {
        instance: run.instance().clone(),
        name: "go".into(),
        payload: Payload::null(),
        message_id: MessageId::new("late").unwrap(),
    };
    let terminate = CommandItem {
        instance: run.instance().clone(),
        command: Command::Terminate {
            reason: "late".into(),
            recursive: true,
        },
        issued_at: Timestamp::from_millis(0),
        run: None,
        parent: None,
    };
    stage
        .publish(home.clone(), vec![Item::Event(item), Item::Command(terminate)])
        .await;
    stage.wait_for_depth(home, 0).await;
    let after = run.get().await.unwrap();
    assert_eq!(
        (after.status, after.turns, after.updated_at),
        (Status::Completed, info.turns, info.updated_at)
    );
}

pub(crate) async fn an_old_copy_of_a_task_that_is_done_does_not_run(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let runs = Tally::new();
    stage.known_app("payments").await;
    let _orders = orders(&stage).await;
    let _run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    let queue = Queue::Activities(app("payments"));
    let mut tasks = stage.take(&queue).await;
    for item in &mut tasks {
        if let Item::Task(task) = item {
            // Young tasks are not asked about.
            task.scheduled_at = Timestamp::from_millis(task.scheduled_at.as_millis() - 10_000);
        }
    }
    stage.publish(queue.clone(), tasks.clone()).await;
    let child = stage
        .worker("payments")
        .workflow(CHILD, async |_: WorkflowContext, n: u64| ok(n));
    let payments = up(child.activity(WORK, counted(&runs))).await;
    stage.wait_for_text("orders", "one", &["event `number`"]).await;
    stage.publish(queue, tasks).await;
    wait_for_dropped(&payments, 1).await;
    assert_eq!(runs.get(), 1);
}

pub(crate) async fn a_start_whose_taker_died_is_taken_again(h: &impl Harness) {
    let stage = Stage::new(h).await;
    stage.known_app("orders").await;
    stage.known_app("payments").await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    stage.take_and_die(&Queue::Workflows(app("orders"))).await;
    let _orders = orders(&stage).await;
    stage.wait_for_status("orders", "one", Status::Running).await;
    run.terminate("enough").and_wait(PATIENCE).await.unwrap();
}

pub(crate) async fn a_start_that_was_lost_is_sent_again(h: &impl Harness) {
    let stage = Stage::new(h).await;
    stage.known_app("orders").await;
    stage.known_app("payments").await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    // As if its client had died before it published: the mark is there and the message is not.
    stage.take(&Queue::Workflows(app("orders"))).await;
    let record = stage.unmarked("orders", "one").await;
    stage.mark_again(run.instance(), &record, Mark::Start).await;
    let _orders = orders(&stage).await;
    stage.wait_for_status("orders", "one", Status::Running).await;
    run.terminate("enough").and_wait(PATIENCE).await.unwrap();
}

pub(crate) async fn effects_that_a_crash_left_unmade_are_made_by_whoever_comes_next(h: &impl Harness) {
    let stage = Stage::new(h).await;
    stage.known_app("payments").await;
    let first = orders(&stage).await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    // The task of the first turn is lost, and the turn is marked again: a crash between the commit and the publish.
    stage.wait_for_depth(Queue::Activities(app("payments")), 1).await;
    first.stop().await;
    stage.take(&Queue::Activities(app("payments"))).await;
    let record = stage.record("orders", "one").await.unwrap();
    stage
        .mark_again(run.instance(), &record, Mark::Turn(record.version))
        .await;
    let _second = orders(&stage).await;
    let _payments = payments(&stage).await;
    // Any message will do.
    run.raise(NUMBER, 100).await.unwrap();
    run.raise(GO, ()).await.unwrap();
    run.raise(NUMBER, 5).await.unwrap();
    assert_eq!(done(&run).await, 7 + 7 + 100 + 5);
    let scheduled = |event: &HistoryEvent| matches!(event, HistoryEvent::TaskScheduled { .. });
    assert_eq!(stage.count_events("orders", "one", scheduled).await, 1);
}

pub(crate) async fn the_due_loop_finds_unmade_effects_without_any_message(h: &impl Harness) {
    let stage = Stage::new(h).await;
    stage.known_app("payments").await;
    let workflow: Workflow<u64, u64> = Workflow::new("orders", "call");
    let orders = || {
        stage
            .worker("orders")
            .workflow(workflow, async |ctx: WorkflowContext, n: u64| ctx.call(WORK, n).await)
    };
    let first = up(orders()).await;
    let run = stage.client.start(workflow, 7).id("one").await.unwrap();
    stage.wait_for_depth(Queue::Activities(app("payments")), 1).await;
    first.stop().await;
    stage.take(&Queue::Activities(app("payments"))).await;
    let record = stage.record("orders", "one").await.unwrap();
    stage
        .mark_again(run.instance(), &record, Mark::Turn(record.version))
        .await;
    let _payments = payments(&stage).await;
    let _second = up(orders()).await;
    assert_eq!(done(&run).await, 7);
}
