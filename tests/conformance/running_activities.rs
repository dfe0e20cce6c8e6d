//! What holds an activity while it runs, or waits to: its lease, the worker that stops, its turn.

use leveret::backend::{DueKind, Queue};
use leveret::replay::history::HistoryEvent;
use leveret::wire::{Bundle, Item};
use leveret::{
    Activity, ActivityContext, Event, Failure, MessageId, Result, Settings, Status, Worker, Workflow, WorkflowContext,
};

use crate::between::{Call, with_store_behind};
use crate::harness::*;

const MAIN: Workflow<u64, u64> = Workflow::new("orders", "main");
const WORK: Activity<u64, u64> = Activity::new("payments", "work");
const GO: Event<()> = Event::new("go");

/// Half of the delivery timeout is over soon, so that activities get leases.
fn short_deliveries() -> Settings {
    Settings {
        delivery_timeout: millis(200),
        ..settings()
    }
}

async fn call(ctx: WorkflowContext, n: u64) -> Result<u64> {
    ctx.call(WORK, n).await
}

/// When a frozen worker, which has lost its lease to another, comes back; and what its body makes of being told.
#[derive(Clone, Copy, PartialEq)]
enum Thaw {
    WhileTheOtherRuns,
    WhenTheOtherIsDone,
    /// As the first; and the body fails for being told.
    AndFails,
}

async fn a_lease_is_lost(h: &impl Harness, thaw: Thaw) {
    let stage = Stage::new(h).await;
    let (frozen, thawed) = (Gate::new(), Gate::new());
    let gates = (frozen.clone(), thawed.clone());
    let freezing = with_store_behind(&stage.backend, move |call: Call| {
        let (frozen, thawed) = gates.clone();
        Box::pin(async move {
            if frozen.is_open() && matches!(call.method, "settle_due" | "due_entry" | "claim_due") {
                thawed.pass().await;
            }
        })
    });
    let orders = up(stage
        .worker("orders")
        .workflow(MAIN, async |ctx: WorkflowContext, n: u64| {
            let answer = ctx.call(WORK, n).await?;
            ctx.set_custom_status("answered")?;
            ctx.event(GO).await?;
            ok(answer)
        }))
    .await;
    let (stopped, late) = (Tally::new(), Gate::new());
    let first = async |(stopped, late, thaw): (Tally, Gate, Thaw), ctx: ActivityContext, _: u64| {
        ctx.cancelled().cancelled().await;
        stopped.add();
        if thaw == Thaw::AndFails {
            return Err(Failure::new("Interrupted", "told to stop"));
        }
        late.pass().await;
        ok(666)
    };
    // Long enough to be renewed in time on a loaded machine. The other's does not lapse within the test.
    let deliveries = Settings {
        delivery_timeout: millis(2000),
        ..settings()
    };
    let first = up(Worker::new("payments", freezing)
        .settings(deliveries)
        .activity(WORK, with((stopped.clone(), late.clone(), thaw), first)))
    .await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    stage.wait_for_text("orders", "one", &["lease until"]).await;
    frozen.open();
    let (begun, gate) = (Tally::new(), Gate::new());
    let second = async |(begun, gate): (Tally, Gate), _: ActivityContext, n: u64| {
        begun.add();
        gate.pass().await;
        ok(n)
    };
    let _second = up(stage
        .worker("payments")
        .activity(WORK, with((begun.clone(), gate.clone()), second)))
    .await;
    begun.reach(1).await;
    let leases = async || {
        let store = stage.backend.store();
        store
            .due_entries(&app("payments"), DueKind::Lease, 10)
            .await
            .unwrap()
            .len()
    };
    let is_over = thaw == Thaw::WhenTheOtherIsDone;
    if is_over {
        gate.open();
        until("the lease to be over", async || (leases().await == 0).then_some(())).await;
    }
    thawed.open();
    stopped.reach(1).await;
    assert_eq!(leases().await, usize::from(!is_over), "the lease is the other's");
    if thaw == Thaw::AndFails {
        until("the failure to be dropped", async || {
            first
                .counts()
                .dropped
                .contains_key("another worker has the task")
                .then_some(())
        })
        .await;
    }
    gate.open();
    stage
        .wait_for("orders", "one", "answered", |info| info.custom_status.is_some())
        .await;
    late.open();
    if thaw != Thaw::AndFails {
        until("the late result to be dropped", async || {
            orders.counts().dropped.contains_key("already in history").then_some(())
        })
        .await;
    }
    run.raise(GO, ()).await.unwrap();
    assert_eq!(done(&run).await, 7);
    let answered = |event: &HistoryEvent| {
        matches!(
            event,
            HistoryEvent::TaskCompleted { .. } | HistoryEvent::TaskFailed { .. }
        )
    };
    assert_eq!(stage.count_events("orders", "one", answered).await, 1);
    until("no lease to be left", async || (leases().await == 0).then_some(())).await;
}

pub(crate) async fn a_worker_whose_lease_was_taken_over_stops_and_its_late_result_is_dropped(h: &impl Harness) {
    a_lease_is_lost(h, Thaw::WhileTheOtherRuns).await;
}

pub(crate) async fn a_worker_whose_lease_is_gone_stops_and_its_late_result_is_dropped(h: &impl Harness) {
    a_lease_is_lost(h, Thaw::WhenTheOtherIsDone).await;
}

pub(crate) async fn a_body_that_fails_because_its_lease_was_taken_over_is_no_answer(h: &impl Harness) {
    a_lease_is_lost(h, Thaw::AndFails).await;
}

/// The body fails because it is told to stop, or panics over it.
async fn a_body_fails_while_its_worker_stops(h: &impl Harness, settings: Settings, panics: bool) {
    let stage = Stage::new(h).await;
    let begun = Tally::new();
    let interrupted = async |(begun, panics): (Tally, bool), ctx: ActivityContext, _: u64| {
        begun.add();
        ctx.cancelled().cancelled().await;
        assert!(!panics, "interrupted");
        Err::<u64, _>(Failure::new("Interrupted", "told to stop"))
    };
    let is_leased = settings.delivery_timeout < PATIENCE;
    let first = up(stage
        .worker("payments")
        .settings(settings)
        .activity(WORK, with((begun.clone(), panics), interrupted)))
    .await;
    let _orders = up(stage.worker("orders").workflow(MAIN, call)).await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    begun.reach(1).await;
    if is_leased {
        stage.wait_for_text("orders", "one", &["lease until"]).await;
    }
    soon("the worker to stop", first.stop()).await;
    assert_eq!(run.get().await.unwrap().status, Status::Running);
    let _second = up(stage
        .worker("payments")
        .activity(WORK, async |_: ActivityContext, n: u64| ok(n)))
    .await;
    assert_eq!(done(&run).await, 7);
    let failed = |event: &HistoryEvent| matches!(event, HistoryEvent::TaskFailed { .. });
    assert_eq!(stage.count_events("orders", "one", failed).await, 0);
}

pub(crate) async fn a_body_that_fails_while_its_worker_stops_runs_again(h: &impl Harness) {
    a_body_fails_while_its_worker_stops(h, settings(), false).await;
}

pub(crate) async fn a_body_that_panics_while_its_worker_stops_runs_again(h: &impl Harness) {
    a_body_fails_while_its_worker_stops(h, settings(), true).await;
}

pub(crate) async fn a_long_body_that_fails_while_its_worker_stops_runs_again(h: &impl Harness) {
    a_body_fails_while_its_worker_stops(h, short_deliveries(), false).await;
}

pub(crate) async fn tasks_that_may_be_deadly_run_one_at_a_time_beside_all_others(h: &impl Harness) {
    const HEALTHY: u64 = 100;
    let stage = Stage::new(h).await;
    let two_slots = |settings: Settings| Settings {
        activities: 2,
        ..settings
    };
    let _orders = up(stage.worker("orders").workflow(MAIN, call)).await;
    let first = up(stage
        .worker("payments")
        .settings(two_slots(short_deliveries()))
        .activity(WORK, async |_: ActivityContext, _: u64| {
            std::future::pending::<Result<u64>>().await
        }))
    .await;
    let mut runs = Vec::new();
    for n in 0..2 {
        runs.push(stage.client.start(MAIN, n).id(format!("i{n}")).await.unwrap());
    }
    for run in &runs {
        stage.wait_for_text("orders", run.id(), &["lease until"]).await;
    }
    // Their process dies, and one before it had died, too.
    drop(first);
    let store = stage.backend.store();
    for lease in store.due_entries(&app("payments"), DueKind::Lease, 10).await.unwrap() {
        let id = MessageId::new(std::str::from_utf8(&lease.key.subject).unwrap()).unwrap();
        stage.runs_died("payments", &id, 1).await;
    }
    let counted = Tally::new();
    let tally = counted.clone();
    let watched = with_store_behind(&stage.backend, move |call: Call| {
        if call.method == "runs" {
            tally.add();
        }
        Box::pin(std::future::ready(()))
    });
    let (begun, gate) = (Tally::new(), Gate::new());
    let work = async |(begun, gate): (Tally, Gate), _: ActivityContext, n: u64| {
        if n < HEALTHY {
            begun.add();
            gate.pass().await;
        }
        ok(n)
    };
    let _second = up(Worker::new("payments", watched)
        .settings(two_slots(settings()))
        .activity(WORK, with((begun.clone(), gate.clone()), work)))
    .await;
    begun.reach(1).await;
    counted.reach(2).await;
    let healthy = stage.client.start(MAIN, HEALTHY).await.unwrap();
    assert_eq!(done(&healthy).await, HEALTHY);
    assert_eq!(begun.get(), 1);
    gate.open();
    for (n, run) in runs.iter().enumerate() {
        assert_eq!(done(run).await, n as u64);
    }
}

pub(crate) async fn tasks_that_may_be_deadly_leave_room_for_others_in_the_prefetch(h: &impl Harness) {
    const HEALTHY: u64 = 100;
    let stage = Stage::new(h).await;
    stage.known_app("payments").await;
    let _orders = up(stage.worker("orders").workflow(MAIN, call)).await;
    let mut runs = Vec::new();
    for n in 0..2 {
        runs.push(stage.client.start(MAIN, n).await.unwrap());
    }
    // A process dies with both of them in hand, and one before it had died, too.
    let queue = Queue::Activities(app("payments"));
    let mut consumer = stage.broker().consume(&queue, 2).await.unwrap();
    let mut in_hand = Vec::new();
    for _ in 0..2 {
        let delivery = soon("a task", consumer.next()).await.expect("a task");
        let items = Bundle::decode(&delivery.body).unwrap().items;
        let [Item::Task(task)] = &items[..] else {
            panic!("a task")
        };
        stage.runs_died("payments", &task.message_id(), 1).await;
        in_hand.push(delivery);
    }
    drop((in_hand, consumer));
    let (begun, gate) = (Tally::new(), Gate::new());
    let work = async |(begun, gate): (Tally, Gate), _: ActivityContext, n: u64| {
        if n < HEALTHY {
            begun.add();
            gate.pass().await;
        }
        ok(n)
    };
    let two_slots = Settings {
        activities: 2,
        ..settings()
    };
    let _payments = up(stage
        .worker("payments")
        .settings(two_slots)
        .activity(WORK, with((begun.clone(), gate.clone()), work)))
    .await;
    begun.reach(1).await;
    for n in 0..5 {
        let healthy = stage.client.start(MAIN, HEALTHY + n).await.unwrap();
        assert_eq!(done(&healthy).await, HEALTHY + n);
    }
    assert_eq!(begun.get(), 1);
    gate.open();
    for (n, run) in runs.iter().enumerate() {
        assert_eq!(done(run).await, n as u64);
    }
    assert_eq!(begun.get(), 2);
}

/// A process hosts both, and has died with both in hand: whichever is deadly must die alone, or the other is taken for deadly as well.
pub(crate) async fn a_turn_and_a_task_of_one_process_that_may_be_deadly_do_not_run_at_once(h: &impl Harness) {
    let stage = Stage::new(h).await;
    stage.known_app("payments").await;
    let orders = up(stage.worker("orders").workflow(MAIN, call)).await;
    let caller = stage.client.start(MAIN, 1).id("caller").await.unwrap();
    let activities = Queue::Activities(app("payments"));
    stage.wait_for_depth(activities.clone(), 1).await;
    orders.stop().await;
    let other = stage.client.start(MAIN, 2).id("other").await.unwrap();
    let items = stage.take_and_die(&activities).await;
    let [Item::Task(task)] = &items[..] else {
        panic!("a task")
    };
    stage.runs_died("payments", &task.message_id(), 1).await;
    stage.take_and_die(&Queue::Workflows(app("orders"))).await;
    let turn = stage
        .record("orders", "other")
        .await
        .unwrap()
        .execution
        .derive("turn", 0);
    stage.runs_died("orders", &turn.into(), 1).await;

    let (counted, committing, gate) = (Tally::new(), Tally::new(), Gate::new());
    let seen = (counted.clone(), committing.clone(), gate.clone());
    let one_process = with_store_behind(&stage.backend, move |call: Call| {
        let (counted, committing, gate) = seen.clone();
        Box::pin(async move {
            match call.method {
                "runs" => drop(counted.add()),
                "commit" if call.instance.is_some_and(|instance| instance.id.as_str() == "other") => {
                    committing.add();
                    gate.pass().await;
                }
                _ => {}
            }
        })
    });
    let _orders = up(Worker::new("orders", one_process.clone())
        .settings(settings())
        .workflow(MAIN, call))
    .await;
    committing.reach(1).await;
    let begun = Tally::new();
    let work = async |begun: Tally, _: ActivityContext, n: u64| {
        begun.add();
        ok(n)
    };
    let _payments = up(Worker::new("payments", one_process)
        .settings(settings())
        .activity(WORK, with(begun.clone(), work)))
    .await;
    counted.reach(2).await;
    a_while(&stage).await;
    assert_eq!(begun.get(), 0, "the task runs beside a turn that may be deadly");
    gate.open();
    assert_eq!((done(&caller).await, done(&other).await), (1, 2));
}

pub(crate) async fn a_leased_task_whose_activity_is_not_known_here_keeps_its_lease(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let _orders = up(stage.worker("orders").workflow(MAIN, call)).await;
    // One that knows the activity, and counts as live for long after its death.
    let knowing = Settings {
        heartbeat: millis(30_000),
        ..short_deliveries()
    };
    let begun = Tally::new();
    let hang = async |begun: Tally, _: ActivityContext, _: u64| {
        begun.add();
        std::future::pending::<()>().await;
        ok(0)
    };
    let first = up(stage
        .worker("payments")
        .settings(knowing)
        .activity(WORK, with(begun.clone(), hang)))
    .await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    begun.reach(1).await;
    stage.wait_for_text("orders", "one", &["lease until"]).await;
    drop(first);
    // Another process has died of it, too.
    let lease = stage.due("payments", DueKind::Lease).await.remove(0);
    let id = MessageId::new(std::str::from_utf8(&lease.key.subject).unwrap()).unwrap();
    stage.runs_died("payments", &id, 1).await;
    let _unknowing = up(stage.worker("payments")).await;
    // It takes the task over and hands it back; a message would be let go by whoever finds the lease.
    let due = async || {
        let leases = stage.due("payments", DueKind::Lease).await;
        leases.first().expect("the lease stays").due
    };
    let mut last = due().await;
    for _ in 0..4 {
        last = until("the lease to be claimed or handed back", async || {
            let now = due().await;
            (now != last).then_some(now)
        })
        .await;
    }
    let runs = stage.backend.store().runs(&app("payments"), &id).await.unwrap();
    assert_eq!(runs, 1, "nobody has shown that it is harmless");
    let _third = up(stage
        .worker("payments")
        .activity(WORK, async |_: ActivityContext, n: u64| ok(n)))
    .await;
    assert_eq!(done(&run).await, 7);
}
