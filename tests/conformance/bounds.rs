//! How much a worker takes on at once, and what becomes of tasks that share a message.

use std::sync::{Arc, Mutex};

use leveret::backend::{Message, Queue};
use leveret::wire::{Bundle, Item};
use leveret::{Result, Settings, Worker, Workflow, WorkflowContext, all};

use crate::between::{Call, with_publisher_behind, with_store_behind};
use crate::harness::*;
use crate::programs::*;

const MAIN: Workflow<u64, u64> = Workflow::new("orders", "main");

/// So many tasks that wait for app `payments`, each of an instance of its own.
async fn waiting_tasks(stage: &Stage, tasks: u64) -> (Vec<leveret::Run<u64>>, leveret::RunningWorker) {
    stage.known_app("payments").await;
    let orders = up(stage.worker("orders").workflow(MAIN, call_work)).await;
    let mut runs = Vec::new();
    for n in 0..tasks {
        runs.push(stage.client.start(MAIN, n).await.unwrap());
    }
    stage.wait_for_depth(Queue::Activities(app("payments")), tasks).await;
    (runs, orders)
}

async fn all_done(runs: &[leveret::Run<u64>]) {
    for (n, run) in runs.iter().enumerate() {
        assert_eq!(done(run).await, n as u64);
    }
}

async fn waits(ctx: WorkflowContext, n: u64) -> Result<u64> {
    ctx.event(GO).await?;
    Ok(n)
}

fn three_activities() -> Settings {
    Settings {
        activities: 3,
        ..settings()
    }
}

pub(crate) async fn a_worker_takes_no_more_tasks_than_it_runs_at_once(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let (runs, _orders) = waiting_tasks(&stage, 10).await;
    let (begun, gate) = (Tally::new(), Gate::new());
    let payments = stage.worker("payments").settings(three_activities());
    let _payments = up(payments.activity(WORK, gated(&begun, &gate))).await;
    begun.reach(3).await;
    a_while(&stage).await;
    assert_eq!(begun.get(), 3);
    // The others are there for any other worker.
    assert_eq!(stage.depth(Queue::Activities(app("payments"))).await, 7);
    gate.open();
    all_done(&runs).await;
    assert_eq!(begun.get(), 10);
}

pub(crate) async fn tasks_of_one_message_run_no_more_at_once_than_the_setting_says(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let (runs, _orders) = waiting_tasks(&stage, 10).await;
    let queue = Queue::Activities(app("payments"));
    let mut tasks = Vec::new();
    for _ in 0..10 {
        tasks.extend(stage.take(&queue).await);
    }
    stage.publish(queue, tasks).await;
    let (begun, gate) = (Tally::new(), Gate::new());
    let payments = stage.worker("payments").settings(three_activities());
    let _payments = up(payments.activity(WORK, gated(&begun, &gate))).await;
    begun.reach(3).await;
    a_while(&stage).await;
    assert_eq!(begun.get(), 3);
    gate.open();
    all_done(&runs).await;
    assert_eq!(begun.get(), 10);
}

/// So many messages of twenty tasks each, and whoever waits for them.
async fn messages_of_tasks(stage: &Stage, messages: u64) -> (Vec<leveret::Run<u64>>, leveret::RunningWorker) {
    let waiting = waiting_tasks(stage, 20 * messages).await;
    let queue = Queue::Activities(app("payments"));
    // All before the first is published: one that is taken next to it would count as delivered before.
    let mut tasks = Vec::new();
    for _ in 0..20 * messages {
        tasks.extend(stage.take(&queue).await);
    }
    for message in tasks.chunks(20) {
        stage.publish(queue.clone(), message.to_vec()).await;
    }
    waiting
}

pub(crate) async fn tasks_that_have_not_begun_in_time_go_to_another_worker(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let (runs, _orders) = messages_of_tasks(&stage, 2).await;
    let (begun, gate) = (Tally::new(), Gate::new());
    let short_deliveries = Settings {
        delivery_timeout: millis(400),
        ..three_activities()
    };
    let payments = stage.worker("payments").settings(short_deliveries);
    let _payments = up(payments.activity(WORK, gated(&begun, &gate))).await;
    begun.reach(3).await;
    // It has both messages, and keeps what it has begun on under leases. Of the rest it may take some again.
    stage.wait_for_depth(Queue::Activities(app("payments")), 0).await;
    let other = Tally::new();
    let _other = up(stage.worker("payments").activity(WORK, counted(&other))).await;
    other.reach(10).await;
    gate.open();
    all_done(&runs).await;
}

pub(crate) async fn a_worker_begins_on_no_more_tasks_than_it_has_room_for(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let (runs, _orders) = messages_of_tasks(&stage, 3).await;
    let (begun, gate) = (Tally::new(), Gate::new());
    let payments = stage.worker("payments").settings(three_activities());
    let payments = up(payments.activity(WORK, gated(&begun, &gate))).await;
    begun.reach(3).await;
    a_while(&stage).await;
    assert_eq!(payments.gauge().read().tasks, 6, "twice as many wait as run");
    assert_eq!(begun.get(), 3);
    // As soon as it is to stop, what it has not begun on goes back: at first the messages of which it has begun on nothing.
    let goes_back = async {
        stage.wait_for_depth(Queue::Activities(app("payments")), 2).await;
        gate.open();
    };
    tokio::join!(payments.stop(), goes_back);
    let first = begun.get();
    assert!(first <= 9, "{first} were begun");
    let _other = up(stage.worker("payments").activity(WORK, gated(&begun, &gate))).await;
    all_done(&runs).await;
    assert!(begun.get() >= 60);
}

pub(crate) async fn a_redelivered_bundle_of_tasks_is_split(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let (runs, _orders) = waiting_tasks(&stage, 3).await;
    let queue = Queue::Activities(app("payments"));
    let mut tasks = Vec::new();
    for _ in 0..3 {
        tasks.extend(stage.take(&queue).await);
    }
    stage.publish(queue.clone(), tasks).await;
    assert_eq!(stage.take_and_die(&queue).await.len(), 3);
    let sent: Arc<Mutex<Vec<usize>>> = Arc::default();
    let seen = sent.clone();
    let watched = with_publisher_behind(&stage.backend, move |message: &Message| {
        if message.queue == queue {
            let bundle = Bundle::decode(&message.body).unwrap();
            assert!(bundle.items.iter().all(|item| matches!(item, Item::Task(_))));
            seen.lock().unwrap().push(bundle.items.len());
        }
        Box::pin(async { Ok(()) })
    });
    let begun = Tally::new();
    let payments = Worker::new("payments", watched).settings(settings());
    let _payments = up(payments.activity(WORK, counted(&begun))).await;
    all_done(&runs).await;
    assert_eq!(*sent.lock().unwrap(), [1, 1, 1], "items a message");
    assert_eq!(begun.get(), 3);
}

pub(crate) async fn of_a_redelivered_bundle_only_tasks_without_a_result_run_again(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let (runs, _orders) = waiting_tasks(&stage, 3).await;
    let queue = Queue::Activities(app("payments"));
    let mut tasks = Vec::new();
    for _ in 0..3 {
        tasks.extend(stage.take(&queue).await);
    }
    let Item::Task(first) = tasks[0].clone() else {
        panic!("a task")
    };
    stage.publish(queue.clone(), tasks).await;
    // Whoever had it has answered the first one, and died.
    assert_eq!(stage.take_and_die(&queue).await.len(), 3);
    let lane = Queue::Events(app("orders"), first.reply_to);
    stage.publish(lane, vec![answer_to(&first)]).await;
    let answered = runs.iter().find(|run| *run.instance() == first.caller.instance);
    done(answered.unwrap()).await;
    let begun = Tally::new();
    let _payments = up(stage.worker("payments").activity(WORK, counted(&begun))).await;
    all_done(&runs).await;
    assert_eq!(begun.get(), 2);
}

pub(crate) async fn tasks_of_an_activity_that_is_known_to_be_short_share_messages(h: &impl Harness) {
    const CALLS: u64 = 200;
    let stage = Stage::new(h).await;
    let messages = Tally::new();
    let (counted_messages, queue) = (messages.clone(), Queue::Activities(app("payments")));
    let watched = with_publisher_behind(&stage.backend, move |message: &Message| {
        if message.queue == queue {
            counted_messages.add();
        }
        Box::pin(async { Ok(()) })
    });
    let begun = Tally::new();
    let _payments = up(stage.worker("payments").activity(WORK, counted(&begun))).await;
    let fan_out = async |ctx: WorkflowContext, n: u64| {
        // One after the other, so that it is known what they take.
        for step in 0..5 {
            ctx.call(WORK, step).await?;
        }
        let calls = all((0..n).map(|step| ctx.call(WORK, step))).await;
        calls.into_iter().try_fold(0, |sum, call| call.map(|_| sum + 1))
    };
    let orders = Worker::new("orders", watched).settings(settings());
    let _orders = up(orders.workflow(MAIN, fan_out)).await;
    let run = stage.client.start(MAIN, CALLS).await.unwrap();
    assert_eq!(done(&run).await, CALLS);
    assert_eq!(begun.get() as u64, CALLS + 5);
    // What goes out first goes alone; the rest gathers behind it. (On a machine that stands still for long a body may count as long.)
    assert!(messages.get() as u64 <= CALLS, "{} messages", messages.get());
}

/// A backend whose commits are counted and wait for the second gate once the first is open.
fn with_commits_held(stage: &Stage, entered: &Tally, holding: &Gate, gate: &Gate) -> leveret::backend::Backend {
    let shared = (entered.clone(), holding.clone(), gate.clone());
    with_store_behind(&stage.backend, move |call: Call| {
        let (entered, holding, gate) = shared.clone();
        Box::pin(async move {
            if call.method == "commit" && holding.is_open() {
                entered.add();
                gate.pass().await;
            }
        })
    })
}

pub(crate) async fn no_more_turns_run_at_once_than_the_setting_says(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let (entered, holding, gate) = (Tally::new(), Gate::new(), Gate::new());
    holding.open();
    let two = Settings { turns: 2, ..settings() };
    let worker = Worker::new("orders", with_commits_held(&stage, &entered, &holding, &gate));
    let worker = worker.settings(two);
    let _orders = up(worker.workflow(MAIN, async |_: WorkflowContext, n: u64| ok(n))).await;
    let mut runs = Vec::new();
    for n in 0..6 {
        runs.push(stage.client.start(MAIN, n).await.unwrap());
    }
    entered.reach(2).await;
    // The worker has them all; it does not begin them.
    stage.wait_for_depth(Queue::Workflows(app("orders")), 0).await;
    a_while(&stage).await;
    assert_eq!(entered.get(), 2);
    gate.open();
    all_done(&runs).await;
}

/// One turn at a time, and messages of one item, or of eight to the lane.
fn one_turn() -> Settings {
    let mut one = Settings {
        turns: 1,
        lanes: 1,
        ..settings()
    };
    one.limits.bundle_items = 1;
    one
}

/// Instances that ask for a turn all at once.
const MANY: u64 = 20;

/// So many starts, and no worker.
async fn many_starts(stage: &Stage) -> Vec<leveret::Run<u64>> {
    let worker = stage.worker("orders").settings(one_turn()).workflow(MAIN, waits);
    up(worker).await.stop().await;
    let mut runs = Vec::new();
    for n in 0..MANY {
        runs.push(stage.client.start(MAIN, n).await.unwrap());
    }
    runs
}

/// A worker that has begun on what there is; its commits wait for the gate.
async fn held_up(stage: &Stage) -> (leveret::RunningWorker, Gate) {
    let (entered, holding, gate) = (Tally::new(), Gate::new(), Gate::new());
    holding.open();
    let worker = Worker::new("orders", with_commits_held(stage, &entered, &holding, &gate));
    let worker = up(worker.settings(one_turn()).workflow(MAIN, waits)).await;
    entered.reach(1).await;
    a_while(stage).await;
    (worker, gate)
}

/// The workflows have begun; each waits for its event, and all of these stand in the lane.
async fn many_events(stage: &Stage) -> Vec<leveret::Run<u64>> {
    let runs = many_starts(stage).await;
    let worker = up(stage.worker("orders").settings(one_turn()).workflow(MAIN, waits)).await;
    for run in &runs {
        let id = run.instance().id.as_str();
        stage.wait_for_text("orders", id, &["event `go`"]).await;
    }
    worker.stop().await;
    for run in &runs {
        run.raise(GO, ()).await.unwrap();
    }
    runs
}

pub(crate) async fn a_worker_takes_no_more_starts_than_it_has_room_for(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let runs = many_starts(&stage).await;
    let (worker, gate) = held_up(&stage).await;
    // One has its turn, another waits for its own, and the others wait for room.
    let active = worker.gauge().read().active;
    assert!((2..=3).contains(&active), "{active} starts");
    gate.open();
    for run in &runs {
        let id = run.instance().id.as_str();
        stage.wait_for_text("orders", id, &["event `go`"]).await;
    }
}

pub(crate) async fn a_worker_opens_no_more_of_a_lane_than_it_has_room_for(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let runs = many_events(&stage).await;
    // All of them in one message.
    let lane = Queue::Events(app("orders"), 0);
    let mut events = Vec::new();
    while events.len() < MANY as usize {
        events.extend(stage.take(&lane).await);
    }
    stage.publish(lane, events).await;
    let (worker, gate) = held_up(&stage).await;
    // One has its turn, and another waits for its own.
    let active = worker.gauge().read().active;
    assert!((2..=3).contains(&active), "{active} events");
    gate.open();
    all_done(&runs).await;
}

pub(crate) async fn what_a_worker_has_not_opened_goes_back_when_it_stops(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let runs = many_events(&stage).await;
    let (worker, gate) = held_up(&stage).await;
    tokio::join!(worker.stop(), async { gate.open() });
    let left = stage.depth(Queue::Events(app("orders"), 0)).await;
    assert!(left >= MANY - 12, "{left} messages are left");
    let _other = up(stage.worker("orders").settings(one_turn()).workflow(MAIN, waits)).await;
    all_done(&runs).await;
}

pub(crate) async fn a_worker_holds_no_more_messages_than_its_prefetch(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let few = || Settings {
        prefetch: 3,
        lanes: 1,
        ..settings()
    };
    up(stage.worker("orders").settings(few())).await.stop().await;
    let mut runs = Vec::new();
    for n in 0..10 {
        runs.push(stage.client.start(MAIN, n).await.unwrap());
    }
    // Starts.
    let (entered, holding, gate) = (Tally::new(), Gate::new(), Gate::new());
    holding.open();
    let worker = Worker::new("orders", with_commits_held(&stage, &entered, &holding, &gate));
    let first = up(worker.settings(few()).workflow(MAIN, waits)).await;
    entered.reach(3).await;
    a_while(&stage).await;
    assert_eq!(entered.get(), 3);
    assert_eq!(stage.depth(Queue::Workflows(app("orders"))).await, 7);
    gate.open();
    for run in &runs {
        stage
            .wait_for_text("orders", run.instance().id.as_str(), &["event `go`"])
            .await;
    }
    first.stop().await;
    // A lane.
    let (entered, holding, gate) = (Tally::new(), Gate::new(), Gate::new());
    let worker = Worker::new("orders", with_commits_held(&stage, &entered, &holding, &gate));
    let _second = up(worker.settings(few()).workflow(MAIN, waits)).await;
    let lane = Queue::Events(app("orders"), 0);
    stage.wait_for_depth(lane.clone(), 0).await;
    holding.open();
    for run in &runs {
        run.raise(GO, ()).await.unwrap();
    }
    entered.reach(3).await;
    a_while(&stage).await;
    assert_eq!(entered.get(), 3);
    assert_eq!(stage.depth(lane).await, 7);
    gate.open();
    all_done(&runs).await;
}

pub(crate) async fn a_fan_out_wider_than_the_worker_is_joined(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let begun = Tally::new();
    let one = Settings {
        activities: 1,
        turns: 1,
        prefetch: 1,
        ..settings()
    };
    let payments = stage.worker("payments").settings(one.clone());
    let _payments = up(payments.activity(WORK, counted(&begun))).await;
    let orders = stage.worker("orders").settings(one);
    let _orders = up(orders.workflow(MAIN, async |ctx: WorkflowContext, n: u64| {
        all((0..n).map(|n| ctx.call(WORK, n)))
            .await
            .into_iter()
            .sum::<Result<u64>>()
    }))
    .await;
    let run = stage.client.start(MAIN, 20).await.unwrap();
    assert_eq!(done(&run).await, (0..20).sum::<u64>());
    assert_eq!(begun.get(), 20);
}
