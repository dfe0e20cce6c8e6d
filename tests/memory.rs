//! I7 on real servers: what a worker needs in memory does not grow with the number of instances, the length of a history or the size of a backlog. The
//! store and the broker are processes of their own, so what is allocated here is the worker's, and a little of the client's.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use leveret::backend::{Backend, Queue, RabbitMq, RabbitMqConfig, RedisConfig, RedisStore, SystemClock};
use leveret::{
    Activity, ActivityContext, Client, Event, Limits, Namespace, RunningWorker, Settings, Status, Worker, Workflow,
    WorkflowContext,
};
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const STEPS: Workflow<u64, u64> = Workflow::new("orders", "steps");
const SLEEPER: Workflow<u64, u64> = Workflow::new("orders", "sleeper");
const STEP: Activity<String, String> = Activity::new("orders", "step");
const GO: Event<()> = Event::new("go");

/// For what is to happen, on a loaded machine.
const LONG: Duration = Duration::from_secs(120);

/// What the larger of two loads, which is ten times the smaller, may need beside what that one does: less than 2 KiB for each instance or step of it.
const MARGIN: usize = 6 << 20;

fn setting(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run the tests with tests/run"))
}

/// A namespace of its own.
struct Stage {
    backend: Backend,
    client: Client,
    steps: Arc<AtomicU64>,
}

impl Stage {
    async fn new() -> Self {
        let namespace = Namespace::new(format!("memory-{}", uuid::Uuid::new_v4().simple())).unwrap();
        let broker = RabbitMqConfig::new(setting("LEVERET_TEST_AMQP_URL"), namespace.clone());
        let store = RedisConfig::new(setting("LEVERET_TEST_REDIS_URL"), namespace.clone());
        let (broker, store) = (
            RabbitMq::connect(broker).await.unwrap(),
            RedisStore::connect(store).await.unwrap(),
        );
        let backend = Backend::new(namespace, broker, store, Arc::new(SystemClock), "servers");
        Self {
            client: Client::new(backend.clone()),
            backend,
            steps: Arc::default(),
        }
    }

    async fn worker(&self) -> RunningWorker {
        let settings = Settings {
            // So little at a time that the smaller load needs all of it.
            lanes: 2,
            prefetch: 8,
            activities: 8,
            turns: 8,
            limits: Limits {
                cache_bytes: 256 << 10,
                ..Limits::default()
            },
            ..Settings::default()
        };
        let steps = self.steps.clone();
        Worker::new("orders", self.backend.clone())
            .settings(settings)
            .workflow(STEPS, async |ctx: WorkflowContext, count: u64| {
                let mut bytes = 0;
                for _ in 0..count {
                    bytes += ctx.call(STEP, "x".repeat(2_000)).await?.len() as u64;
                }
                Ok::<_, leveret::Failure>(bytes)
            })
            .workflow(SLEEPER, async |ctx: WorkflowContext, n: u64| {
                ctx.event(GO).await?;
                Ok::<_, leveret::Failure>(n)
            })
            .activity(STEP, move |_: ActivityContext, text: String| {
                steps.fetch_add(1, Ordering::Relaxed);
                async move { Ok::<_, leveret::Failure>(text) }
            })
            .start()
            .await
            .unwrap()
    }

    async fn start_all(&self, workflow: Workflow<u64, u64>, count: u64, input: u64) {
        stream::iter(0..count)
            .for_each_concurrent(32, async |number| {
                let start = self.client.start(workflow, input).id(format!("i{number}"));
                start.await.unwrap();
            })
            .await;
    }

    /// Returns when that many steps have been made, and no instance of these is active.
    async fn until(&self, what: &str, is_so: impl AsyncFn() -> bool) {
        let wait = async {
            while !is_so().await {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        assert!(
            tokio::time::timeout(LONG, wait).await.is_ok(),
            "waited {LONG:?} for {what}"
        );
    }

    async fn status(&self, id: &str) -> Option<Status> {
        let info = self.client.instance("orders", id).unwrap().get().await;
        info.ok().map(|info| info.status)
    }

    async fn messages(&self, queue: Queue) -> u64 {
        self.backend
            .broker()
            .depth(&queue)
            .await
            .unwrap()
            .map_or(0, |depth| depth.messages)
    }

    async fn clean_up(self) {
        for app in self.backend.store().apps().await.unwrap() {
            self.backend.broker().remove(&app.id, app.lanes).await.unwrap();
        }
        self.client.close().await;
    }
}

/// The most that is allocated while the future runs, beside what is allocated now.
async fn peak_of(work: impl Future<Output = ()>) -> usize {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    work.await;
    MEMORY.peak_usage().saturating_sub(before)
}

/// So many workflows wait in the queue when their worker starts.
async fn backlog(count: u64) -> usize {
    let stage = Stage::new().await;
    stage.worker().await.stop().await;
    stage.start_all(STEPS, count, 1).await;
    let peak = peak_of(async {
        let worker = stage.worker().await;
        let is_done = async || stage.steps.load(Ordering::Relaxed) >= count;
        stage.until("every workflow's step", is_done).await;
        worker.stop().await;
    })
    .await;
    stage.clean_up().await;
    peak
}

/// So many workflows wait for an event.
async fn sleepers(count: u64) -> usize {
    let stage = Stage::new().await;
    let worker = stage.worker().await;
    worker.wait_for_lane().await;
    let peak = peak_of(async {
        stage.start_all(SLEEPER, count, 1).await;
        let has_begun = async || {
            let app = leveret::AppId::new("orders").unwrap();
            stage.messages(Queue::Workflows(app)).await == 0
        };
        stage.until("every workflow to begin", has_begun).await;
    })
    .await;
    assert!(worker.gauge().read().cached_bytes <= 256 << 10);
    worker.stop().await;
    stage.clean_up().await;
    peak
}

/// One workflow makes so many steps.
async fn history(steps: u64) -> usize {
    let stage = Stage::new().await;
    let worker = stage.worker().await;
    worker.wait_for_lane().await;
    let peak = peak_of(async {
        stage.start_all(STEPS, 1, steps).await;
        let is_over = async || stage.status("i0").await == Some(Status::Completed);
        stage.until("the workflow to end", is_over).await;
    })
    .await;
    worker.stop().await;
    stage.clean_up().await;
    peak
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_worker_needs_does_not_grow_with_its_load() {
    // What is allocated once, whatever the load.
    backlog(50).await;
    let loads = [
        ("a backlog", backlog(400).await, backlog(4_000).await),
        ("sleepers", sleepers(400).await, sleepers(4_000).await),
        ("a history", history(200).await, history(2_000).await),
    ];
    for (what, small, large) in loads {
        println!(
            "{what}: {} KiB, and ten times as much: {} KiB",
            small >> 10,
            large >> 10
        );
    }
    for (what, small, large) in loads {
        assert!(
            large <= small + MARGIN,
            "{what}: {small} bytes, and with ten times as much {large}"
        );
    }
}
