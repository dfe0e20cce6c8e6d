//! The same series by Leveret: a worker of the app that hosts the workflow, one of the app that owns the activity, and a client.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use leveret::backend::{Backend, RabbitMqConfig, RedisConfig};
use leveret::{Activity, ActivityContext, Client, Result, Settings, Worker, Workflow, WorkflowContext};

use crate::process::{Ran, Requests, Round, Scene};

const STEP: Activity<String, String> = Activity::new("steps", "step");
const SERIES: Workflow<(u8, String), String> = Workflow::new("series", "series");

async fn step(_: ActivityContext, text: String) -> Result<String> {
    Ok(text)
}

async fn series(ctx: WorkflowContext, (steps, mut text): (u8, String)) -> Result<String> {
    for _ in 0..steps {
        text = ctx.call(STEP, text).await?;
    }
    Ok(text)
}

pub(crate) async fn backend(scene: &Scene) -> std::result::Result<Backend, String> {
    let namespace = leveret::Namespace::new(&scene.namespace).map_err(|error| error.to_string())?;
    let rabbit = RabbitMqConfig::new(scene.amqp.as_str(), namespace.clone());
    let backend = Backend::servers(rabbit, RedisConfig::new(scene.redis.as_str(), namespace)).await;
    backend.map_err(|error| error.to_string())
}

fn settings() -> Settings {
    Settings {
        activities: 512,
        turns: 1024,
        ..Settings::default()
    }
}

async fn work(worker: Worker) -> std::result::Result<(), String> {
    let running = worker
        .settings(settings())
        .start()
        .await
        .map_err(|error| error.to_string())?;
    running.wait_for_lane().await;
    Requests::new().end().await;
    running.stop().await;
    Ok(())
}

pub(crate) async fn caller(scene: Scene) -> std::result::Result<(), String> {
    work(Worker::new("series", backend(&scene).await?).workflow(SERIES, series)).await
}

pub(crate) async fn target(scene: Scene) -> std::result::Result<(), String> {
    work(Worker::new("steps", backend(&scene).await?).activity(STEP, step)).await
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
    let one = || async {
        let began = Instant::now();
        let run = client.start(SERIES, (scene.steps, text.clone())).await?;
        let output = run.result().within(Duration::from_secs(120)).await?;
        let is_right = output == text;
        std::result::Result::<_, leveret::client::Error>::Ok((began.elapsed(), is_right))
    };
    let began = Instant::now();
    let mut running = FuturesUnordered::new();
    let (mut micros, mut started) = (Vec::with_capacity(round.count), 0);
    while micros.len() < round.count {
        while started < round.count && running.len() < round.in_flight {
            running.push(one());
            started += 1;
        }
        match running.next().await {
            Some(Ok((took, true))) => micros.push(took.as_micros() as u64),
            Some(Ok((_, false))) => return Err("a workflow came to another result".into()),
            Some(Err(error)) => return Err(error.to_string()),
            None => return Err("nothing is in flight".into()),
        }
    }
    Ok(Ran {
        seconds: began.elapsed().as_secs_f64(),
        micros,
    })
}
