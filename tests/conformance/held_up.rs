//! What is held up holds up nothing else (I6): messages that are too large, queues that take nothing, neighbours that cannot be read, a store that was
//! away.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use leveret::backend::{DueKind, Error, Queue};
use leveret::replay::history::HistoryEvent;
use leveret::wire::{Item, TaskItem};
use leveret::{
    Activity, ActivityContext, Event, Failure, RunningWorker, Settings, Status, Timestamp, Worker, Workflow,
    WorkflowContext, kinds,
};

use crate::between::{Call, with_failing_store, with_publisher_behind};
use crate::harness::*;
use crate::programs::*;

const MAIN: Workflow<u64, u64> = Workflow::new("orders", "main");
const BIG: Activity<String, String> = Activity::new("payments", "big");
const BIG_CHILD: Workflow<String, String> = Workflow::new("payments", "big child");
const NEWS: Event<String> = Event::new("news");
const SHIP: Activity<u64, u64> = Activity::new("shipping", "ship");

fn grown(text: String) -> String {
    if text == "grow" { "x".repeat(6000) } else { text }
}

fn short_leases() -> Settings {
    Settings {
        delivery_timeout: millis(200),
        ..settings()
    }
}

/// A backend whose broker takes messages of so many bytes.
fn narrow(stage: &Stage, most: usize) -> leveret::backend::Backend {
    with_publisher_behind(&stage.backend, move |message| {
        let (bytes, queue) = (message.body.len(), message.queue.clone());
        Box::pin(async move {
            if bytes > most {
                return Err(Error::too_large(format!(
                    "{queue}: {bytes} bytes, and at most {most} are taken"
                )));
            }
            Ok(())
        })
    })
}

pub(crate) async fn a_failure_over_the_limit_fails_its_call_alone(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let limited = || {
        let mut limited = settings();
        limited.limits.payload_bytes = 1000;
        limited
    };
    let bodies = Tally::new();
    let fail = async |bodies: Tally, _: ActivityContext, n: u64| {
        bodies.add();
        let cause = Failure::new("Cause", "x".repeat(n as usize));
        Err::<u64, _>(Failure::new("Bank", "no").caused_by(cause))
    };
    let child = |_: WorkflowContext, n: u64| async move {
        Err::<u64, _>(Failure::new("Child", "y".repeat(n as usize)).fatal())
    };
    let _payments = up(stage
        .worker("payments")
        .settings(limited())
        .activity(WORK, with(bodies.clone(), fail))
        .workflow(CHILD, child))
    .await;
    let main: Workflow<u64, Vec<String>> = Workflow::new("orders", "main");
    let _orders =
        up(stage
            .worker("orders")
            .settings(limited())
            .workflow(main, async |ctx: WorkflowContext, n: u64| {
                let large = ctx.call(WORK, n).await.unwrap_err();
                let small = ctx.call(WORK, 10).await.unwrap_err();
                let child = ctx.child(CHILD, n).await.unwrap_err();
                for failure in [&large, &child] {
                    assert_eq!(failure.kind, kinds::PAYLOAD_TOO_LARGE);
                    assert!(
                        failure.message.contains("the limit is 1000")
                            && failure.message.contains("LEVERET_PAYLOAD_BYTES"),
                        "{failure}"
                    );
                    assert_eq!(failure.app, Some(app("payments")));
                }
                assert!(small.is("Cause"), "{small}");
                assert!(!large.fatal && child.fatal);
                ok(vec![large.message, child.message])
            }))
        .await;
    let told = done(&stage.client.start(main, 5000).id("one").await.unwrap()).await;
    assert!(told[0].contains("`Bank`") && told[1].contains("`Child`"), "{told:?}");
    assert_eq!(bodies.get(), 2);
}

pub(crate) async fn a_message_that_the_broker_does_not_take_fails_its_call_alone(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let narrow = narrow(&stage, 5000);
    let worker = |app| Worker::new(app, narrow.clone()).settings(settings());
    let _payments = up(worker("payments")
        .activity(BIG, async |_: ActivityContext, text: String| ok(grown(text)))
        .workflow(BIG_CHILD, async |_: WorkflowContext, text: String| ok(grown(text))))
    .await;
    let main: Workflow<(), Vec<String>> = Workflow::new("orders", "main");
    let _orders = up(worker("orders").workflow(main, async |ctx: WorkflowContext, ()| {
        let mut kinds = Vec::new();
        // Of calls that are made in one turn the others are made all the same.
        let (large, small) = (
            ctx.call(BIG, "x".repeat(6000)).start(),
            ctx.call(BIG, "small".into()).start(),
        );
        for result in [
            large.await,
            small.await,
            ctx.call(BIG, "grow".into()).await,
            ctx.child(BIG_CHILD, "grow".into()).await,
        ] {
            kinds.push(result.unwrap_or_else(|failure| failure.kind));
        }
        ok(kinds)
    }))
    .await;
    let run = stage.client.start(main, ()).id("one").await.unwrap();
    let too_large = kinds::PAYLOAD_TOO_LARGE;
    assert_eq!(done(&run).await, [too_large, "small", too_large, too_large]);
}

pub(crate) async fn an_event_that_the_broker_does_not_take_arrives_all_the_same(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let narrow = narrow(&stage, 5000);
    let listen: Workflow<(), usize> = Workflow::new("payments", "listen");
    let worker = |app| Worker::new(app, narrow.clone()).settings(settings());
    let _payments = up(worker("payments").workflow(listen, async |ctx: WorkflowContext, ()| {
        Ok::<_, Failure>(ctx.event(NEWS).await?.len())
    }))
    .await;
    let main: Workflow<(), ()> = Workflow::new("orders", "main");
    let _orders = up(worker("orders").workflow(main, async |ctx: WorkflowContext, ()| {
        ctx.raise(&instance("payments", "ear"), NEWS, "x".repeat(6000))
    }))
    .await;
    let ear = stage.client.start(listen, ()).id("ear").await.unwrap();
    stage.wait_for_text("payments", "ear", &["event `news`"]).await;
    done(&stage.client.start(main, ()).await.unwrap()).await;
    assert_eq!(done(&ear).await, 6000);
}

pub(crate) async fn a_queue_that_takes_nothing_holds_up_nothing_else(h: &impl Harness) {
    let stage = Stage::new(h).await;
    stage.known_app("shipping").await;
    let open = Gate::new();
    let gate = open.clone();
    let full = with_publisher_behind(&stage.backend, move |message| {
        let is_full = message.queue == Queue::Activities(app("shipping")) && !gate.is_open();
        Box::pin(async move {
            if is_full {
                return Err(Error::transient("the queue is full"));
            }
            Ok(())
        })
    });
    let mut one_at_a_time = settings();
    (one_at_a_time.turns, one_at_a_time.prefetch) = (1, 2);
    let bodies = Tally::new();
    let _payments = up(stage.worker("payments").activity(WORK, counted(&bodies))).await;
    let _orders =
        up(Worker::new("orders", full)
            .settings(one_at_a_time)
            .workflow(MAIN, async |ctx: WorkflowContext, n: u64| {
                let shipped = (n == 0).then(|| ctx.call(SHIP, n).start());
                let worked = ctx.call(WORK, n).await?;
                ctx.set_custom_status("worked")?;
                match shipped {
                    Some(shipped) => shipped.await,
                    None => Ok(worked),
                }
            }))
        .await;
    let held_up = stage.client.start(MAIN, 0).id("held up").await.unwrap();
    let other = stage.client.start(MAIN, 5).id("other").await.unwrap();
    assert_eq!(done(&other).await, 5);
    stage
        .wait_for("orders", "held up", "going on beside it", has_custom_status)
        .await;
    // The task waits in the due-set, where it is tried again, and nothing is left for a check to make: it would make the other call's task again.
    until("the task to be parked", async || {
        let is_marked = !stage.record("orders", "held up").await.unwrap().marks.is_empty();
        (stage.due("orders", DueKind::Parked).await.len() == 1 && !is_marked).then_some(())
    })
    .await;
    let text = ["`ship` on app `shipping`", "its queue has not taken it, sent again"];
    stage.wait_for_text("orders", "held up", &text).await;
    open.open();
    let _shipping = up(stage.worker("shipping").activity(SHIP, echo)).await;
    assert_eq!(done(&held_up).await, 0);
    assert_eq!(bodies.get(), 2);
    until("nothing to be parked", async || {
        stage.due("orders", DueKind::Parked).await.is_empty().then_some(())
    })
    .await;
}

pub(crate) async fn an_activity_that_fails_as_if_its_app_were_not_there_runs_once(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let bodies = Tally::new();
    let fail = async |bodies: Tally, _: ActivityContext, _: u64| {
        bodies.add();
        Err::<u64, _>(Failure::new(
            kinds::APP_NOT_FOUND,
            "there is no such app on the customer's phone",
        ))
    };
    let _payments = up(stage.worker("payments").activity(WORK, with(bodies.clone(), fail))).await;
    let _orders = up(stage.worker("orders").workflow(MAIN, call_work)).await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    let failure = failure(&run).await;
    assert!(failure.message.contains("the customer's phone"), "{failure}");
    assert_eq!(bodies.get(), 1);
}

/// A backend on which nobody can read the record of that instance while the gate is closed.
fn unreadable(stage: &Stage, id: &'static str, mended: &Gate) -> leveret::backend::Backend {
    let mended = mended.clone();
    with_failing_store(&stage.backend, move |call: Call| {
        let is_meant = call.instance.is_some_and(|instance| instance.id.as_str() == id)
            && matches!(call.method, "record" | "load")
            && !mended.is_open();
        Box::pin(async move {
            if is_meant {
                return Err(Error::permanent("the record cannot be read"));
            }
            Ok(())
        })
    })
}

pub(crate) async fn a_child_that_cannot_be_read_holds_up_nothing_else_of_its_parent(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let mended = Gate::new();
    let damaged = unreadable(&stage, "kid", &mended);
    stage.known_app("payments").await;
    let _orders = up(Worker::new("orders", damaged.clone()).settings(settings()).workflow(
        MAIN,
        async |ctx: WorkflowContext, n: u64| {
            let child = ctx.child(CHILD, n).id("kid").schedule_to_start(millis(50)).start();
            ctx.event(GO).await?;
            ctx.set_custom_status("went on")?;
            child.await
        },
    ))
    .await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    stage.wait_for_text("orders", "one", &["event `go`"]).await;
    // Its limit is due, and what is to be known of it is not.
    tokio::time::sleep(millis(100)).await;
    run.raise(GO, ()).await.unwrap();
    stage.wait_for("orders", "one", "going on", has_custom_status).await;
    run.terminate("enough").and_wait(PATIENCE).await.unwrap();
}

pub(crate) async fn an_instance_that_cannot_be_read_keeps_its_messages_and_its_lane_free(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let first = up(stage.worker("orders").workflow(MAIN, waiter)).await;
    let run = stage.client.start(MAIN, 7).id("damaged").await.unwrap();
    stage.wait_for_text("orders", "damaged", &["event `go`"]).await;
    first.stop().await;
    let mended = Gate::new();
    let mut narrow = settings();
    (narrow.prefetch, narrow.lanes) = (1, 1);
    let damaged = Worker::new("orders", unreadable(&stage, "damaged", &mended));
    let _second = up(damaged.settings(narrow).workflow(MAIN, waiter)).await;
    run.raise(GO, ()).await.unwrap();
    until("the event to be kept", async || {
        (stage.inbox("orders", "damaged").await == 1).then_some(())
    })
    .await;
    let other = stage.client.start(MAIN, 5).id("other").await.unwrap();
    other.raise(GO, ()).await.unwrap();
    assert_eq!(done(&other).await, 5);
    mended.open();
    let woken = until("the instance to go on", async || {
        stage.check_now("orders").await;
        let info = run.get().await.unwrap();
        info.status.is_terminal().then_some(info.status)
    })
    .await;
    assert_eq!(woken, Status::Completed);
}

pub(crate) async fn a_task_whose_caller_cannot_be_read_is_run_and_its_message_does_not_spin(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let _orders = up(stage.worker("orders").workflow(MAIN, call_work)).await;
    stage.known_app("payments").await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    let queue = Queue::Activities(app("payments"));
    stage.wait_for_depth(queue.clone(), 1).await;
    stage.take_and_die(&queue).await;
    let damaged = Worker::new("payments", unreadable(&stage, "one", &Gate::new()));
    let _payments = up(damaged.settings(settings()).activity(WORK, echo)).await;
    assert_eq!(done(&run).await, 7);
}

pub(crate) async fn leases_outlast_an_outage_of_the_store(h: &impl Harness) {
    outlasts_an_outage(h, true).await;
}

pub(crate) async fn a_lease_that_is_due_in_an_outage_of_the_store_is_written_after_it(h: &impl Harness) {
    outlasts_an_outage(h, false).await;
}

/// An activity that runs while the store is away for longer than its lease; it has the lease before, or would get it meanwhile.
async fn outlasts_an_outage(h: &impl Harness, has_lease: bool) {
    let stage = Stage::new(h).await;
    let (away, back) = (Gate::new(), Gate::new());
    let gates = (away.clone(), back.clone());
    let flaky = with_failing_store(&stage.backend, move |_: Call| {
        let is_away = gates.0.is_open() && !gates.1.is_open();
        Box::pin(async move {
            if is_away {
                return Err(Error::transient("the store is away"));
            }
            Ok(())
        })
    });
    let (bodies, gate, stopped) = (Tally::new(), Gate::new(), Tally::new());
    let body = async |(bodies, gate, stopped): (Tally, Gate, Tally), ctx: ActivityContext, n: u64| {
        bodies.add();
        tokio::select! {
            () = gate.pass() => {}
            () = ctx.cancelled().cancelled() => { stopped.add(); }
        }
        ok(n)
    };
    let payments = || {
        let body = with((bodies.clone(), gate.clone(), stopped.clone()), body);
        Worker::new("payments", flaky.clone())
            .settings(short_leases())
            .activity(WORK, body)
    };
    let _two = (up(payments()).await, up(payments()).await);
    let _orders = up(stage.worker("orders").workflow(MAIN, call_work)).await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    bodies.reach(1).await;
    if has_lease {
        stage.wait_for_text("orders", "one", &["lease until"]).await;
    }
    away.open();
    let lease = async || stage.due("payments", DueKind::Lease).await.pop().map(|entry| entry.due);
    let now = stage.backend.store().now().await.unwrap();
    let lapses = lease().await.unwrap_or(now + short_leases().delivery_timeout);
    until("the lease to lapse", async || {
        (stage.backend.store().now().await.unwrap() > lapses + millis(500)).then_some(())
    })
    .await;
    back.open();
    let renewed = until("the lease to be renewed", async || {
        lease().await.filter(|due| *due > lapses + millis(500))
    })
    .await;
    // Whoever claims lapsed leases has done so by now.
    until("more renewals", async || {
        lease().await.filter(|due| *due > renewed + millis(2000))
    })
    .await;
    gate.open();
    assert_eq!(done(&run).await, 7);
    assert_eq!((bodies.get(), stopped.get()), (1, 0));
}

/// Publishes a copy of a task that waits, changed.
async fn copy_of(stage: &Stage, change: impl Fn(TaskItem) -> TaskItem) -> Vec<Item> {
    let items = stage.take(&Queue::Activities(app("payments"))).await;
    items
        .into_iter()
        .map(|item| match item {
            Item::Task(task) => Item::Task(change(task)),
            other => other,
        })
        .collect()
}

pub(crate) async fn a_copy_of_a_task_that_runs_under_a_lease_does_not_run(h: &impl Harness) {
    let stage = Stage::new(h).await;
    stage.known_app("payments").await;
    let _orders = up(stage.worker("orders").workflow(MAIN, call_work)).await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    // As it is sent again by whoever has not seen its confirm, a while later.
    let long_ago = |task: TaskItem| TaskItem {
        scheduled_at: Timestamp::from_millis(task.scheduled_at.as_millis() - 10_000),
        ..task
    };
    let items = copy_of(&stage, long_ago).await;
    let (bodies, gate) = (Tally::new(), Gate::new());
    let payments = || {
        stage
            .worker("payments")
            .settings(short_leases())
            .activity(WORK, gated(&bodies, &gate))
    };
    let first = up(payments()).await;
    stage.publish(Queue::Activities(app("payments")), items.clone()).await;
    stage.wait_for_text("orders", "one", &["lease until"]).await;
    let second = up(payments()).await;
    for _ in 0..4 {
        stage.publish(Queue::Activities(app("payments")), items.clone()).await;
    }
    let dropped = |worker: &RunningWorker| worker.counts().dropped.get("the task is leased").copied().unwrap_or(0);
    until("the copies to be dropped", async || {
        (dropped(&first) + dropped(&second) == 4).then_some(())
    })
    .await;
    gate.open();
    assert_eq!(done(&run).await, 7);
    assert_eq!(bodies.get(), 1);
}

pub(crate) async fn copies_of_a_task_that_was_passed_on_never_run_at_once(h: &impl Harness) {
    let stage = Stage::new(h).await;
    stage.known_app("payments").await;
    let _orders = up(stage.worker("orders").workflow(MAIN, call_work)).await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    let items = copy_of(&stage, |task| TaskItem { misses: 1, ..task }).await;
    for _ in 0..3 {
        stage.publish(Queue::Activities(app("payments")), items.clone()).await;
    }
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let body = async |(running, most): (Arc<AtomicUsize>, Arc<AtomicUsize>), _: ActivityContext, n: u64| {
        most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        tokio::time::sleep(millis(100)).await;
        running.fetch_sub(1, Ordering::SeqCst);
        ok(n)
    };
    let _payments = up(stage
        .worker("payments")
        .activity(WORK, with((running, most.clone()), body)))
    .await;
    assert_eq!(done(&run).await, 7);
    stage.wait_for_depth(Queue::Activities(app("payments")), 0).await;
    let completed = |event: &HistoryEvent| matches!(event, HistoryEvent::TaskCompleted { .. });
    assert_eq!(stage.count_events("orders", "one", completed).await, 1);
    assert_eq!(most.load(Ordering::SeqCst), 1);
}

pub(crate) async fn one_probe_for_each_lane_waits_while_the_broker_is_away(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let (probes, back) = (Tally::new(), Gate::new());
    let shared = (probes.clone(), back.clone());
    let away = with_publisher_behind(&stage.backend, move |_| {
        let (probes, back) = shared.clone();
        Box::pin(async move {
            probes.add();
            back.pass().await;
            Ok(())
        })
    });
    let orders = Worker::new("orders", away).settings(settings()).start().await.unwrap();
    probes.reach(usize::from(settings().lanes)).await;
    // Each sign of life finds lanes that nobody is known to hold.
    tokio::time::sleep(settings().heartbeat * 10).await;
    back.open();
    soon("a lane", orders.wait_for_lane()).await;
    assert!(
        probes.get() <= 3 * usize::from(settings().lanes),
        "{} probes",
        probes.get()
    );
}
