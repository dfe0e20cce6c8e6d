//! How fast the backends without servers are. Not a check: `cargo test --release --test backends -- --ignored --nocapture speed` prints numbers.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use leveret::backend::{Backend, Commit, Queue};
use leveret::{InstanceId, InstanceRef};

use super::{Directory, broker_words, namespace, open, store_words};

/// Callers side by side.
const CALLERS: usize = 64;

/// How long each measurement runs.
const RUN: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints numbers and checks nothing"]
async fn speed_of_memory_and_of_a_file() {
    measure("memory", &Backend::memory(namespace("n"))).await;
    let directory = Directory::new();
    measure("embedded", &open(&directory.file()).await).await;
}

async fn measure(name: &str, backend: &Backend) {
    let commits = per_second(join_all((0..CALLERS).map(|number| commit(backend, number)))).await;
    let (backend, queue) = (&backend, &Queue::Activities(store_words::app("orders")));
    backend
        .broker()
        .declare(&store_words::app("orders"), 1)
        .await
        .expect("declared");
    let publishing = join_all((0..CALLERS).map(|_| publish(backend, queue)));
    let consuming = consume(backend, queue);
    let messages = per_second(async { tokio::join!(consuming, publishing).1 }).await;
    println!(
        "{name}, {CALLERS} callers: {commits:.0} commits/s, {messages:.0} messages/s published, delivered and acknowledged"
    );
}

async fn per_second(counts: impl Future<Output = Vec<u64>>) -> f64 {
    let begin = Instant::now();
    counts.await.iter().sum::<u64>() as f64 / begin.elapsed().as_secs_f64()
}

/// Turns of 300 bytes to one instance.
async fn commit(backend: &Backend, number: usize) -> u64 {
    let id = InstanceId::new(format!("i{number}")).expect("valid");
    let instance = InstanceRef::new(store_words::app("orders"), id);
    let mut guard = store_words::pending(backend.store(), &instance).await.guard();
    let (begin, mut count) = (Instant::now(), 0);
    while begin.elapsed() < RUN {
        let commit = Commit {
            turn: vec![7; 300].into(),
            ..store_words::turn(&instance, guard)
        };
        backend.store().commit(&commit).await.expect("committed");
        guard.version += 1;
        guard.commit = Some(commit.id);
        count += 1;
    }
    count
}

async fn publish(backend: &Backend, queue: &Queue) -> u64 {
    let (begin, mut count) = (Instant::now(), 0);
    while begin.elapsed() < RUN {
        let message = broker_words::message(queue, &"x".repeat(300));
        backend.broker().publish(message).await.expect("published");
        count += 1;
    }
    count
}

/// Takes and acknowledges until nothing has come for a while after the end of the run.
async fn consume(backend: &Backend, queue: &Queue) {
    let mut consumer = broker_words::consume(backend.broker(), queue, 100).await;
    while let Ok(Some(delivery)) = tokio::time::timeout(Duration::from_millis(500), consumer.next()).await {
        delivery.ack();
    }
}
