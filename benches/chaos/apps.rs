//! The apps: three that are alike, so that each shape of job goes through all of them.

use std::sync::Arc;
use std::time::Duration;

use leveret::backend::Backend;
use leveret::{
    Activity, ActivityContext, Call, Compensations, Failure, Limits, Result, Retention, Retry, Settings, Worker,
    Workflow, WorkflowContext, all,
};
use serde::{Deserialize, Serialize};

use crate::effects::Journal;
use crate::jobs::{HOPELESS, Job, Shape, worked};
use crate::pulses;

pub(crate) const APPS: [&str; 3] = ["orders", "payments", "shipping"];
/// Enough that two or three workers share them.
pub(crate) const LANES: u16 = 4;
/// How often a worker gives a sign of life, and RabbitMQ and its client as well.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(2);

const WORK: &str = "work";

/// An activity's input.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Work {
    /// The step's name.
    pub(crate) step: String,
    pub(crate) value: u64,
    /// The first attempt that does not fail; 0 for one that never works.
    pub(crate) succeeds_from: u32,
    /// How long it takes.
    pub(crate) millis: u64,
}

impl Work {
    fn new(job: &Job, step: impl std::fmt::Display, value: u64) -> Self {
        Self {
            step: job.step(step),
            value,
            succeeds_from: 1,
            millis: 0,
        }
    }
}

/// The activity that builds from this number on have.
pub(crate) fn newest(build: u32) -> String {
    format!("work-of-build-{build}")
}

/// A worker of the app, of this build.
pub(crate) fn worker(app: &'static str, build: u32, backend: &Backend, journal: &Arc<Journal>) -> Worker {
    let settings = Settings {
        lanes: LANES,
        heartbeat: HEARTBEAT,
        shutdown_grace: Duration::from_secs(3),
        // Not the broker's: only so that an activity of some seconds lives on its lease.
        delivery_timeout: Duration::from_secs(3),
        limits: Limits {
            // A task may be in hand in many of the processes that are killed here; it is not it that kills them.
            crashes: 100,
            ..Limits::default()
        },
        retention: Retention {
            completed: None,
            failed: None,
            terminated: None,
        },
        ..Settings::default()
    };
    let mut worker = Worker::new(app, backend.clone())
        .settings(settings)
        .build_id(format!("build-{build}"))
        .workflow(pulses::workflow(app), pulses::run);
    for shape in Shape::ALL {
        worker = worker.workflow(Workflow::<Job, u64>::new(app, shape.name()), run);
    }
    let names = (1..=build).map(|build| &*newest(build).leak()).chain([WORK]);
    for name in names {
        let journal = journal.clone();
        worker = worker.activity(
            Activity::<Work, u64>::new(app, name),
            move |ctx: ActivityContext, work: Work| {
                let journal = journal.clone();
                async move { do_work(&journal, ctx, work).await }
            },
        );
    }
    worker
}

/// The one body: it is noted that it has begun and ended.
async fn do_work(journal: &Journal, ctx: ActivityContext, work: Work) -> Result<u64> {
    /// How often a long body says that it lives.
    const BEAT: Duration = Duration::from_millis(250);
    journal.note("begin", &work.step, &ctx);
    let end = tokio::time::Instant::now() + Duration::from_millis(work.millis);
    while work.millis > 0 && tokio::time::Instant::now() < end {
        ctx.heartbeat(work.value).await?;
        tokio::time::sleep(BEAT).await;
    }
    if work.succeeds_from == 0 {
        journal.note("end", &work.step, &ctx);
        return Err(Failure::new(HOPELESS, "as planned").fatal());
    }
    if ctx.attempt() < work.succeeds_from {
        return Err(Failure::new("Planned", "not yet"));
    }
    journal.note("end", &work.step, &ctx);
    Ok(worked(work.value))
}

/// A call on the app that is so many further on than the job's own.
fn call(ctx: &WorkflowContext, job: &Job, further: u64, work: Work) -> Call<u64> {
    let app = APPS[(job.home + further as usize) % APPS.len()];
    ctx.call_named::<u64>(WORK, work).app_id(app)
}

/// The code of every shape.
async fn run(ctx: WorkflowContext, job: Job) -> Result<u64> {
    match job.shape {
        Shape::Chain | Shape::Raw | Shape::Held => {
            let mut value = job.value;
            for step in 0..job.size {
                value = call(&ctx, &job, step, Work::new(&job, step, value)).await?;
                if job.shape == Shape::Held {
                    ctx.timer(Duration::from_millis(100)).await?;
                }
            }
            Ok(value)
        }
        Shape::Fan => {
            let calls =
                (0..job.size).map(|number| call(&ctx, &job, number, Work::new(&job, number, job.value + number)));
            let mut sum = 0;
            for value in all(calls).await {
                sum += value?;
            }
            ctx.timer(Duration::from_millis(50)).await?;
            call(&ctx, &job, 1, Work::new(&job, job.size, sum)).await
        }
        Shape::Family => family(ctx, job).await,
        Shape::Timers => {
            let mut value = job.value;
            for step in 0..job.size {
                ctx.timer(Duration::from_millis(200 + 400 * step)).await?;
                value = call(&ctx, &job, step, Work::new(&job, step, value)).await?;
            }
            Ok(value)
        }
        Shape::Events => {
            let mut sum = job.value;
            for number in 0..job.size {
                sum += ctx.event_named::<u64>(event_name(number)).await?;
            }
            call(&ctx, &job, 1, Work::new(&job, 0, sum)).await
        }
        Shape::Stubborn => stubborn(ctx, job).await,
        Shape::Generations => {
            let work = Work::new(&job, job.generation, job.value);
            let value = call(&ctx, &job, job.generation, work).await?;
            if job.generation < job.size {
                let generation = job.generation + 1;
                return ctx.continue_as_new(Job {
                    value,
                    generation,
                    ..job
                });
            }
            Ok(value + ctx.event_named::<u64>(event_name(0)).await?)
        }
        Shape::Saga => saga(ctx, job).await,
        Shape::Long => long(ctx, job).await,
        Shape::Ended => {
            call(&ctx, &job, 1, Work::new(&job, 0, job.value)).await?;
            if job.size > 0 {
                let child = job.child();
                let child = ctx
                    .child_named::<u64>(job.shape.name(), &child)
                    .app_id(APPS[child.home]);
                return child.id(job.child().id).await;
            }
            ctx.event_named::<u64>("never").await
        }
        Shape::Newest => {
            let app = APPS[(job.home + 1) % APPS.len()];
            let name = newest(job.size as u32);
            let retry = Retry::forever()
                .first(Duration::from_millis(200))
                .cap(Duration::from_secs(1));
            ctx.call_named::<u64>(name, Work::new(&job, 0, job.value))
                .app_id(app)
                .retry(retry)
                .await
        }
    }
}

/// The events that a job waits for, one after the other.
pub(crate) fn event_name(number: u64) -> String {
    format!("go-{number}")
}

async fn family(ctx: WorkflowContext, job: Job) -> Result<u64> {
    let own = call(&ctx, &job, 1, Work::new(&job, 0, job.value)).await?;
    if job.size == 0 {
        let orphan = job.detached();
        let child = ctx.child_named::<u64>(orphan.shape.name(), &orphan);
        child.app_id(APPS[orphan.home]).id(&orphan.id).detach()?;
        return Ok(own);
    }
    let child = job.child();
    let call = ctx.child_named::<u64>(job.shape.name(), &child);
    Ok(own + call.app_id(APPS[child.home]).id(&child.id).await?)
}

async fn stubborn(ctx: WorkflowContext, job: Job) -> Result<u64> {
    let retry = || Retry::times(10).first(Duration::from_millis(50)).factor(1.3);
    let first = Work {
        succeeds_from: job.size as u32 + 1,
        ..Work::new(&job, 0, job.value)
    };
    let value = call(&ctx, &job, 1, first).retry(retry()).await?;
    let hopeless = Work {
        succeeds_from: 0,
        ..Work::new(&job, 1, value)
    };
    match call(&ctx, &job, 2, hopeless).retry(retry()).await {
        Err(failure) if failure.is(HOPELESS) => {}
        other => return Err(Failure::new("Unexpected", format!("{other:?}"))),
    }
    call(&ctx, &job, 2, Work::new(&job, 2, value)).await
}

async fn saga(ctx: WorkflowContext, job: Job) -> Result<u64> {
    let mut undo = Compensations::new();
    for step in 0..job.size {
        call(&ctx, &job, step, Work::new(&job, step, job.value)).await?;
        let undoing = Work::new(&job, format!("undo-{step}"), job.value);
        undo.push(call(&ctx, &job, step, undoing).retry(Retry::forever()));
    }
    let hopeless = Work {
        succeeds_from: 0,
        ..Work::new(&job, job.size, job.value)
    };
    match call(&ctx, &job, job.size, hopeless).await {
        Ok(value) => Ok(value),
        Err(failure) => Err(undo.run(failure).await),
    }
}

async fn long(ctx: WorkflowContext, job: Job) -> Result<u64> {
    let work = |step: u64, value: u64, millis: u64| Work {
        millis,
        ..Work::new(&job, step, value)
    };
    let retry = Retry::forever()
        .first(Duration::from_millis(100))
        .cap(Duration::from_secs(1));
    let value = call(&ctx, &job, 1, work(0, job.value, 1_500))
        .heartbeat(Duration::from_secs(2))
        .timeout(Duration::from_secs(15))
        .retry(retry)
        .await?;
    call(&ctx, &job, 2, work(1, value, 3_500)).await
}
