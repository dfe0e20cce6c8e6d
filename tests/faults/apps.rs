//! The apps that the processes host: `orders` calls `payments` and `shipping`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use leveret::{
    Activity, ActivityContext, Event, Failure, Result, Settings, Worker, Workflow, WorkflowContext, all,
    backend::Backend, kinds,
};

use super::effects::note;

pub(crate) const APPS: [&str; 3] = ["orders", "payments", "shipping"];

/// Few, so that a world has few queues.
pub(crate) const LANES: u16 = 2;

pub(crate) const APPROVED: Event<u64> = Event::new("approved");

const TOUR: Workflow<u64, u64> = Workflow::new("orders", "tour");
const VISIT: Workflow<String, u64> = Workflow::new("orders", "visit");
const VOYAGE: Workflow<String, u64> = Workflow::new("orders", "voyage");
const MINEFIELD: Workflow<(), String> = Workflow::new("orders", "minefield");
const FAN: Workflow<u64, u64> = Workflow::new("orders", "fan");
const SHIP: Workflow<u64, u64> = Workflow::new("shipping", "ship");
const CRUISE: Workflow<String, u64> = Workflow::new("shipping", "cruise");

const DOUBLE: Activity<u64, u64> = Activity::new("payments", "double");
const PASS: Activity<String, u64> = Activity::new("payments", "pass");
const DETONATE: Activity<(), ()> = Activity::new("payments", "detonate");
const PACK: Activity<u64, u64> = Activity::new("shipping", "pack");

/// What [`tour`] comes to, when it starts with 0 and is approved with 1,000.
pub(crate) const TOUR_RESULT: &str = "1222";
/// The calls to activities that it makes, its child's included.
pub(crate) const TOUR_CALLS: usize = 3;
/// What [`visit`] and [`voyage`] come to.
pub(crate) const VISIT_RESULT: &str = "7";
pub(crate) const VOYAGE_RESULT: &str = "13";

/// A bit of everything: activities on another app, one with a time limit; continue-as-new; a timer; a child that runs and one that cannot; an event.
async fn tour(ctx: WorkflowContext, carried: u64) -> Result<u64> {
    if carried == 0 {
        let doubled = ctx.call(DOUBLE, 1).await?;
        return ctx.continue_as_new(doubled);
    }
    let doubled = ctx.call(DOUBLE, 10).timeout(Duration::from_secs(120)).await?;
    ctx.timer(Duration::from_millis(100)).await?;
    let shipped = ctx.child(SHIP, 100).await?;
    match ctx.child_named::<()>("nowhere", ()).app_id("shipping").await {
        Err(failure) if failure.is(kinds::WORKFLOW_NOT_REGISTERED) => {}
        other => return Err(Failure::new("Unexpected", format!("{other:?}"))),
    }
    let approved = ctx.event(APPROVED).await?;
    Ok(carried + doubled + shipped + approved)
}

async fn ship(ctx: WorkflowContext, weight: u64) -> Result<u64> {
    ctx.call(PACK, weight).await
}

/// One activity on another app, which waits at a gate.
async fn visit(ctx: WorkflowContext, gate: String) -> Result<u64> {
    ctx.call(PASS, gate).await
}

async fn voyage(ctx: WorkflowContext, gate: String) -> Result<u64> {
    ctx.child(CRUISE, gate).await
}

/// Packs, waits at a gate, packs.
async fn cruise(ctx: WorkflowContext, gate: String) -> Result<u64> {
    let before = ctx.call(PACK, 1).await?;
    let passed = ctx.call(PASS, gate).await?;
    let after = ctx.call(PACK, 2).await?;
    Ok(before + passed + after)
}

/// Says how a deadly activity ended.
async fn minefield(ctx: WorkflowContext, (): ()) -> Result<String> {
    match ctx.call(DETONATE, ()).await {
        Ok(()) => Ok("survived".into()),
        Err(failure) => Ok(failure.kind),
    }
}

/// Ten activities at once, a timer, one more.
async fn fan(ctx: WorkflowContext, number: u64) -> Result<u64> {
    let mut sum = 0;
    for doubled in all((0..10).map(|_| ctx.call(DOUBLE, number))).await {
        sum += doubled?;
    }
    ctx.timer(Duration::from_millis(50)).await?;
    Ok(sum + ctx.call(DOUBLE, number).await?)
}

/// What [`fan`] comes to.
pub(crate) fn fan_result(number: u64) -> u64 {
    number * 2 * 11
}

/// The calls to activities that it makes.
pub(crate) const FAN_CALLS: usize = 11;

/// A gate is a file: an activity passes it once it is there.
pub(crate) fn gate(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("gate-{name}"))
}

async fn pass(directory: &Path, name: &str) {
    while !gate(directory, name).exists() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A worker of the app, whose activities leave their traces in the directory.
pub(crate) fn worker(app: &str, backend: &Backend, directory: &Path) -> Worker {
    let settings = Settings {
        lanes: LANES,
        // A process that was killed is out of the balance soon.
        heartbeat: Duration::from_millis(500),
        shutdown_grace: Duration::from_secs(5),
        ..Settings::default()
    };
    let worker = Worker::new(app, backend.clone()).settings(settings);
    let directory: Arc<Path> = directory.into();
    let noted = |work: fn(u64) -> u64| {
        let directory = directory.clone();
        move |ctx: ActivityContext, number: u64| {
            let directory = directory.clone();
            async move {
                note(&directory, &ctx, "begin");
                let result = work(number);
                note(&directory, &ctx, "end");
                Ok::<_, Failure>(result)
            }
        }
    };
    match app {
        "orders" => worker
            .workflow(TOUR, tour)
            .workflow(VISIT, visit)
            .workflow(VOYAGE, voyage)
            .workflow(MINEFIELD, minefield)
            .workflow(FAN, fan),
        "payments" => {
            let (passing, deadly) = (directory.clone(), directory.clone());
            worker
                .activity(DOUBLE, noted(|number| number * 2))
                .activity(PASS, move |ctx: ActivityContext, name: String| {
                    let directory = passing.clone();
                    async move {
                        note(&directory, &ctx, "begin");
                        pass(&directory, &name).await;
                        note(&directory, &ctx, "end");
                        Ok::<_, Failure>(7)
                    }
                })
                .activity(DETONATE, move |ctx: ActivityContext, (): ()| {
                    let directory = deadly.clone();
                    async move {
                        note(&directory, &ctx, "begin");
                        let this = std::process::id().to_string();
                        let _ = std::process::Command::new("kill").args(["-KILL", &this]).status();
                        Err::<(), _>(Failure::new("Survived", "the process outlived SIGKILL"))
                    }
                })
        }
        "shipping" => worker
            .workflow(SHIP, ship)
            .workflow(CRUISE, cruise)
            .activity(PACK, noted(|weight| weight * 2)),
        other => panic!("no app {other}"),
    }
}
