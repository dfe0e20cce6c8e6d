//! The same by Leveret: a worker of the app that hosts the workflow, one of the app that owns the activity, and a client.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use leveret::backend::{Backend, RabbitMqConfig, RedisConfig};
use leveret::{Activity, ActivityContext, Client, Event, Result, Settings, Worker, Workflow, WorkflowContext, all};

use crate::process::{Counts, LONGEST_ROUND, Part, Ran, Requests, Round, Scene};
use crate::workload::Workload;

/// What a workflow does, with how many activities, of how many apps, and the text that they pass on.
type Input = (Workload, u32, u32, String);

const MAIN: Workflow<Input, String> = Workflow::new("main", "main");
const STEP: Activity<String, String> = Activity::new("steps", "step");
const MIDDLE: Workflow<String, String> = Workflow::new("steps", "middle");
const LEAF: Workflow<String, String> = Workflow::new("main", "leaf");
/// What wakes those who wait.
const WAKE: Event<String> = Event::new("wake");
/// Activities of each of the apps in a workload of many.
const ACTIVITIES_EACH: u128 = 10;
/// Apps that have the activity as well, the caller's own among them.
const HOPS: [&str; 5] = ["main", "steps", "hop-1", "hop-2", "hop-3"];

async fn step(_: ActivityContext, text: String) -> Result<String> {
    Ok(text)
}

async fn main(ctx: WorkflowContext, (workload, steps, apps, mut text): Input) -> Result<String> {
    match workload {
        Workload::Series | Workload::Loop => {
            for _ in 0..steps {
                text = ctx.call(STEP, text).await?;
            }
        }
        Workload::Local => {
            for _ in 0..steps {
                text = ctx.call(STEP, text).app_id("main").await?;
            }
        }
        Workload::Apps => {
            for _ in 0..steps {
                let any = ctx.uuid().as_u128();
                let (app, activity) = (any % u128::from(apps), any / u128::from(apps) % ACTIVITIES_EACH);
                let call = ctx.call_named::<String>(format!("step-{activity}"), text);
                text = call.app_id(format!("app-{app}")).await?;
            }
        }
        Workload::Parallel => {
            let results = all((0..steps).map(|_| ctx.call(STEP, text.clone()))).await;
            results.into_iter().collect::<Result<Vec<_>>>()?;
        }
        Workload::Children => text = ctx.child(MIDDLE, text).await?,
        Workload::Hops => {
            for app in HOPS {
                text = ctx.call(STEP, text).app_id(app).await?;
            }
        }
        Workload::Events | Workload::Sleepers => text = ctx.event(WAKE).await?,
    }
    Ok(text)
}

async fn middle(ctx: WorkflowContext, text: String) -> Result<String> {
    ctx.child(LEAF, text).await
}

async fn leaf(_: WorkflowContext, text: String) -> Result<String> {
    Ok(text)
}

pub(crate) async fn backend(scene: &Scene) -> std::result::Result<Backend, String> {
    let namespace = leveret::Namespace::new(&scene.namespace).map_err(|error| error.to_string())?;
    let rabbit = RabbitMqConfig::new(scene.amqp.as_str(), namespace.clone());
    let backend = Backend::servers(rabbit, RedisConfig::new(scene.redis.as_str(), namespace)).await;
    backend.map_err(|error| error.to_string())
}

fn settings(scene: &Scene) -> Settings {
    let mut settings = Settings {
        activities: 512,
        ..Settings::default()
    };
    if let Some(items) = scene.bundle {
        settings.limits.bundle_items = items;
    }
    settings
}

/// A process with so many workers, until the bench is gone.
async fn work(scene: &Scene, workers: Vec<Worker>) -> std::result::Result<(), String> {
    let mut running = Vec::new();
    for worker in workers {
        let worker = worker.settings(settings(scene)).start().await;
        running.push(worker.map_err(|error| error.to_string())?);
    }
    for worker in &running {
        worker.wait_for_lane().await;
    }
    let counts = || {
        let of_each = running.iter().map(|worker| worker.counts());
        of_each.fold(Counts::default(), |sum, counts| Counts {
            live: sum.live + counts.live_hits,
            replayed: sum.replayed + counts.replays,
        })
    };
    Requests::new().tell(counts).await;
    for worker in running {
        worker.stop().await;
    }
    Ok(())
}

/// The app's activity of that name.
fn step_of(app: &'static str) -> Activity<String, String> {
    Activity::new(app, STEP.name())
}

pub(crate) async fn caller(scene: Scene) -> std::result::Result<(), String> {
    let worker = Worker::new("main", backend(&scene).await?)
        .workflow(MAIN, main)
        .workflow(LEAF, leaf)
        .activity(step_of("main"), step);
    work(&scene, vec![worker]).await
}

/// A worker of one of many apps.
fn worker_of_many(number: u32, backend: &Backend) -> Worker {
    // Names last for as long as the process.
    let app: &'static str = format!("app-{number}").leak();
    let names = (0..ACTIVITIES_EACH).map(|activity| &*format!("step-{activity}").leak());
    names.fold(Worker::new(app, backend.clone()), |worker, name| {
        worker.activity(Activity::<String, String>::new(app, name), step)
    })
}

pub(crate) async fn target(scene: Scene) -> std::result::Result<(), String> {
    let backend = backend(&scene).await?;
    let steps = Worker::new("steps", backend.clone())
        .workflow(MIDDLE, middle)
        .activity(STEP, step);
    let hops = HOPS.into_iter().filter(|app| app.starts_with("hop-"));
    let hops = hops.map(|app| Worker::new(app, backend.clone()).activity(step_of(app), step));
    // They are of no use to the others, and would read their queues.
    let hops = hops.filter(|_| scene.workload == Workload::Hops);
    let apps = (0..scene.apps).filter(|_| scene.workload == Workload::Apps);
    let apps = apps.map(|number| worker_of_many(number, &backend));
    work(&scene, std::iter::once(steps).chain(hops).chain(apps).collect()).await
}

pub(crate) async fn client(scene: Scene) -> std::result::Result<(), String> {
    let client = Client::new(backend(&scene).await?);
    let mut requests = Requests::new();
    while let Some(round) = requests.next().await {
        requests.answer(&run(&client, &scene, round).await);
    }
    Ok(())
}

/// Keeps so many workflows in flight until the count is reached; fails if one is lost or wrong.
async fn run(client: &Client, scene: &Scene, round: Round) -> std::result::Result<Ran, String> {
    let text = "x".repeat(scene.payload);
    let one = |number: usize, began: Instant| {
        let input = (scene.workload, round.steps, scene.apps, text.clone());
        let text = &text;
        async move {
            let is_right = match round.part {
                Part::Whole => {
                    let run = client.start(MAIN, input).await?;
                    if scene.workload == Workload::Events {
                        run.raise(WAKE, text.clone()).await?;
                    }
                    run.result().within(LONGEST_ROUND).await? == *text
                }
                Part::Start => client.start(MAIN, input).id(sleeper(number)).await.map(|_| true)?,
                Part::Wake => {
                    let asleep = client.instance("main", sleeper(number))?;
                    asleep.raise(WAKE, text.clone()).await.map(|_| true)?
                }
            };
            std::result::Result::<_, leveret::client::Error>::Ok((began.elapsed(), is_right))
        }
    };
    let began = Instant::now();
    let mut running = FuturesUnordered::new();
    let (mut micros, mut started) = (Vec::with_capacity(round.count), 0);
    // With a pace a workflow's time begins when it was to start: one that is held up here waits as well.
    let turn_of = |number: usize| match round.pace {
        Some(pace) => began + Duration::from_secs_f64(number as f64 / pace),
        None => Instant::now(),
    };
    while micros.len() < round.count {
        let is_room = started < round.count && running.len() < round.in_flight;
        let turn = turn_of(started);
        // A sleep of no time at all takes up to a millisecond.
        if is_room && (round.pace.is_none() || turn <= Instant::now()) {
            running.push(one(started, turn));
            started += 1;
            continue;
        }
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(turn.into()), if is_room => {}
            ended = running.next(), if !running.is_empty() => match ended {
                Some(Ok((took, true))) => micros.push(took.as_micros() as u64),
                Some(Ok((_, false))) => return Err("a workflow came to another result".into()),
                Some(Err(error)) => return Err(error.to_string()),
                None => return Err("nothing is in flight".into()),
            },
        }
    }
    Ok(Ran {
        seconds: began.elapsed().as_secs_f64(),
        micros,
    })
}

/// The ID of an instance that is not waited for.
pub(crate) fn sleeper(number: usize) -> String {
    format!("sleeper-{number}")
}
