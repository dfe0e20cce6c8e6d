//! Series of three remote activities: one app calls another three times in a row, with so many workflows in flight.
//!
//! `cargo bench --bench series` runs the memory and the embedded backend, and RabbitMQ + Redis as well if `LEVERET_TEST_AMQP_URL` and
//! `LEVERET_TEST_REDIS_URL` are set (`tests/servers start DIR` starts private ones). `--short` is the form that CI runs: it fails on lost
//! workflows, never on speed. Each row: medians of the rounds, with the spread. For profiles: `--backend memory` plays no other, `--in-flight 512` with
//! `--count 20000` nothing else, in one round, and `--threads 1` has all of it in one thread.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use leveret::backend::{Backend, RabbitMq, RabbitMqConfig, RedisConfig, RedisStore, SystemClock};
use leveret::{Activity, ActivityContext, Client, Namespace, Result, Settings, Worker, Workflow, WorkflowContext};

/// As in the bench of throughput: small allocations by the million.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const STEP: Activity<String, String> = Activity::new("steps", "step");
const SERIES: Workflow<String, String> = Workflow::new("series", "series");

/// What each workflow and each activity carries: 100 bytes.
const PAYLOAD_BYTES: usize = 100;

async fn step(_: ActivityContext, text: String) -> Result<String> {
    Ok(text)
}

async fn series(ctx: WorkflowContext, text: String) -> Result<String> {
    let text = ctx.call(STEP, text).await?;
    let text = ctx.call(STEP, text).await?;
    ctx.call(STEP, text).await
}

/// What `--backend` takes.
const BACKENDS: [&str; 3] = ["memory", "embedded", "servers"];

/// How much is run.
struct Size {
    rounds: usize,
    /// In flight, and workflows a round.
    loads: Vec<(usize, usize)>,
}

impl Size {
    fn from_args() -> Self {
        if std::env::args().any(|arg| arg == "--short" || arg == "--test") {
            return Self {
                rounds: 1,
                loads: vec![(1, 5), (64, 128)],
            };
        }
        match (number("--in-flight"), number("--count")) {
            (None, None) => Self {
                rounds: 5,
                loads: vec![(1, 100), (64, 3_000), (512, 6_000)],
            },
            (in_flight, count) => Self {
                rounds: 1,
                loads: vec![(in_flight.unwrap_or(512), count.unwrap_or(6_000))],
            },
        }
    }
}

/// What follows the option.
fn option(name: &str) -> Option<String> {
    std::env::args().skip_while(|arg| arg != name).nth(1)
}

fn number(name: &str) -> Option<usize> {
    let text = option(name)?;
    let number = text.parse().ok().filter(|number| *number > 0);
    Some(number.unwrap_or_else(|| panic!("{name} takes a number from 1 on, and not {text:?}")))
}

fn main() -> Result<()> {
    let mut runtime = match number("--threads") {
        Some(1) => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    if let Some(threads) = number("--threads") {
        runtime.worker_threads(threads);
    }
    let runtime = runtime.enable_all().build().expect("a runtime");
    runtime.block_on(play(Size::from_args()))
}

async fn play(size: Size) -> Result<()> {
    let wanted = option("--backend");
    if let Some(unknown) = wanted.as_deref().filter(|name| !BACKENDS.contains(name)) {
        panic!("--backend takes one of {BACKENDS:?}, and not {unknown:?}");
    }
    let is_wanted = |name: &str| wanted.as_deref().is_none_or(|wanted| wanted == name);
    println!(
        "series-3: workflows/s median (min-max), latency p50 / p99, {} round(s), payload {PAYLOAD_BYTES} B",
        size.rounds
    );
    if is_wanted("memory") {
        measure("memory", Backend::memory(namespace()?), &size).await?;
    }
    if is_wanted("embedded") {
        let dir = tempfile::tempdir()?;
        let file = Backend::embedded(dir.path().join("bench.db"), namespace()?).await?;
        measure("embedded", file, &size).await?;
    }
    if !is_wanted("servers") {
        return Ok(());
    }
    match (
        std::env::var("LEVERET_TEST_AMQP_URL"),
        std::env::var("LEVERET_TEST_REDIS_URL"),
    ) {
        (Ok(amqp), Ok(redis)) => {
            let namespace = namespace()?;
            let broker = RabbitMq::connect(RabbitMqConfig::new(amqp, namespace.clone())).await?;
            let store = RedisStore::connect(RedisConfig::new(redis, namespace.clone())).await?;
            let backend = Backend::new(namespace, broker, store, Arc::new(SystemClock), "rabbitmq + redis");
            measure("servers", backend, &size).await?;
        }
        _ => println!("servers: skipped, LEVERET_TEST_AMQP_URL and LEVERET_TEST_REDIS_URL are not set"),
    }
    Ok(())
}

fn namespace() -> Result<Namespace> {
    Ok(Namespace::new(format!("bench-{}", uuid::Uuid::now_v7().simple()))?)
}

async fn measure(name: &str, backend: Backend, size: &Size) -> Result<()> {
    let settings = Settings {
        activities: 512,
        turns: 1024,
        ..Settings::default()
    };
    let caller = Worker::new("series", backend.clone())
        .workflow(SERIES, series)
        .settings(settings.clone())
        .start()
        .await?;
    let callee = Worker::new("steps", backend.clone())
        .activity(STEP, step)
        .settings(settings)
        .start()
        .await?;
    caller.wait_for_lane().await;
    let client = Client::new(backend);
    run(&client, 16, 64).await?;
    for (in_flight, count) in &size.loads {
        let mut rates = Vec::new();
        let mut latencies = Vec::new();
        for _ in 0..size.rounds {
            let (rate, mut taken) = run(&client, *in_flight, *count).await?;
            rates.push(rate);
            latencies.append(&mut taken);
        }
        rates.sort_by(f64::total_cmp);
        latencies.sort();
        let at = |part: f64| latencies[((latencies.len() - 1) as f64 * part) as usize];
        println!(
            "{name:>9} {in_flight:>5} in flight: {:>8.0} ({:.0}-{:.0}) /s, p50 {:?} / p99 {:?}",
            rates[rates.len() / 2],
            rates[0],
            rates[rates.len() - 1],
            at(0.5),
            at(0.99)
        );
    }
    caller.stop().await;
    callee.stop().await;
    Ok(())
}

/// Keeps so many workflows in flight until the count is reached; fails if one is lost or wrong.
async fn run(client: &Client, in_flight: usize, count: usize) -> Result<(f64, Vec<Duration>)> {
    let text = "x".repeat(PAYLOAD_BYTES);
    let one = || async {
        let began = Instant::now();
        let answer = client
            .start(SERIES, text.clone())
            .await?
            .result()
            .within(Duration::from_secs(60))
            .await?;
        assert_eq!(answer.len(), text.len());
        Result::<_>::Ok(began.elapsed())
    };
    let began = Instant::now();
    let mut running = FuturesUnordered::new();
    let mut latencies = Vec::with_capacity(count);
    let mut started = 0;
    while latencies.len() < count {
        while started < count && running.len() < in_flight {
            running.push(one());
            started += 1;
        }
        if let Some(latency) = running.next().await {
            latencies.push(latency?);
        }
    }
    Ok((count as f64 / began.elapsed().as_secs_f64(), latencies))
}
