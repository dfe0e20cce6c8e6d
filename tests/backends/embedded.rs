//! The embedded backend: the suites, and what only a file has to show.

mod crash;
mod speed;

use std::path::{Path, PathBuf};

use leveret::backend::{Backend, Queue};
use leveret::{Namespace, Status};

use crate::broker_suite as broker_words;
use crate::store_suite::fixture as store_words;

/// A directory that goes with the test.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("leveret-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&path).expect("a directory");
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("state.leveret")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn namespace(name: &str) -> Namespace {
    Namespace::new(name).expect("a valid namespace")
}

async fn open(path: &Path) -> Backend {
    Backend::embedded(path, namespace("n")).await.expect("opened")
}

mod broker {
    use super::{Directory, open};

    /// The directory outlives the broker's construction only: the open file needs no name.
    async fn fresh() -> std::sync::Arc<dyn leveret::backend::Broker> {
        let directory = Directory::new();
        open(&directory.file()).await.broker().clone()
    }

    crate::broker_suite::broker_suite!(fresh().await);
}

mod store {
    use super::{Directory, open};

    async fn fresh() -> (crate::store_suite::fixture::Fresh, Directory) {
        let directory = Directory::new();
        (open(&directory.file()).await.store().clone(), directory)
    }

    crate::store_suite::store_suite!(fresh());
}

#[tokio::test]
async fn a_file_that_is_opened_again_has_everything() {
    let directory = Directory::new();
    let instance = store_words::instance("a");
    let queue = Queue::Activities(store_words::app("orders"));
    {
        let backend = open(&directory.file()).await;
        store_words::running(backend.store(), &instance).await;
        store_words::park(backend.store(), &instance, "parked").await;
        backend
            .broker()
            .declare(&store_words::app("orders"), 2)
            .await
            .expect("declared");
        let bodies = ["acknowledged", "delivered", "not delivered"];
        broker_words::publish(backend.broker(), &queue, &bodies).await;
        let mut consumer = broker_words::consume(backend.broker(), &queue, 2).await;
        broker_words::next(&mut consumer).await.ack();
        let _delivered = broker_words::next(&mut consumer).await;
    }
    let backend = open(&directory.file()).await;
    let loaded = backend
        .store()
        .load(&instance, 0, 10)
        .await
        .expect("loaded")
        .expect("a record");
    assert_eq!(loaded.record.status, Status::Running);
    assert_eq!((loaded.turns.len(), &loaded.inbox[0][..]), (1, &b"parked"[..]));
    let mut consumer = broker_words::consume(backend.broker(), &queue, 10).await;
    let delivered = broker_words::next(&mut consumer).await;
    assert_eq!(
        (broker_words::text(&delivered).as_str(), delivered.redelivered),
        ("delivered", true)
    );
    let waiting = broker_words::next(&mut consumer).await;
    assert_eq!(broker_words::text(&waiting), "not delivered");
}

#[tokio::test]
async fn a_backlog_that_was_never_delivered_is_not_taken_for_redelivered() {
    let directory = Directory::new();
    let queue = Queue::Activities(store_words::app("orders"));
    let backlog: Vec<String> = (0..600).map(|number| number.to_string()).collect();
    {
        let backend = open(&directory.file()).await;
        backend
            .broker()
            .declare(&store_words::app("orders"), 1)
            .await
            .expect("declared");
        let publishing = backlog
            .iter()
            .map(|body| backend.broker().publish(broker_words::message(&queue, body)));
        for published in futures_util::future::join_all(publishing).await {
            published.expect("published");
        }
        let mut consumer = broker_words::consume(backend.broker(), &queue, 1).await;
        broker_words::next(&mut consumer).await.ack();
    }
    let backend = open(&directory.file()).await;
    let mut consumer = broker_words::consume(backend.broker(), &queue, 0).await;
    let mut last = broker_words::next(&mut consumer).await;
    assert!(last.redelivered, "it may have been delivered just before the end");
    // One was acknowledged, one is in hand.
    for _ in 2..backlog.len() {
        last = broker_words::next(&mut consumer).await;
    }
    assert!(!last.redelivered, "it is far behind what was delivered");
}

#[tokio::test]
async fn backends_of_one_process_share_the_file_and_namespaces_do_not_meet() {
    let directory = Directory::new();
    let (one, twin) = (open(&directory.file()).await, open(&directory.file()).await);
    let elsewhere = Backend::embedded(directory.file(), namespace("m"))
        .await
        .expect("opened");
    let instance = store_words::instance("a");
    let queue = Queue::Activities(store_words::app("orders"));
    one.broker()
        .declare(&store_words::app("orders"), 1)
        .await
        .expect("declared");

    let mut consumer = broker_words::consume(twin.broker(), &queue, 1).await;
    let (delivery, ()) = tokio::join!(
        broker_words::next(&mut consumer),
        broker_words::publish(one.broker(), &queue, &["from the one to its twin"])
    );
    delivery.ack();
    assert_eq!(elsewhere.broker().depth(&queue).await.expect("answered"), None);

    store_words::running(one.store(), &instance).await;
    let mut watch = twin.store().watch(&instance).await.expect("watched");
    let woken = broker_words::soon("the end", watch.changed());
    tokio::join!(woken, store_words::end(one.store(), &instance));
    assert_eq!(elsewhere.store().record(&instance).await.expect("answered"), None);
}

#[tokio::test]
async fn what_is_no_leveret_file_is_refused_by_name() {
    let directory = Directory::new();
    for garbage in [
        "x",
        "a text that is long enough to have been mistaken for a header"
            .repeat(200)
            .as_str(),
    ] {
        std::fs::write(directory.file(), garbage).expect("written");
        let error = Backend::embedded(directory.file(), namespace("n"))
            .await
            .expect_err("refused");
        assert!(error.is_permanent());
        let message = error.to_string();
        assert!(message.contains("state.leveret is not a Leveret file"), "{message}");
        assert_eq!(
            std::fs::read(directory.file()).expect("still there"),
            garbage.as_bytes()
        );
    }
    let nowhere = Backend::embedded(directory.0.join("missing/file"), namespace("n")).await;
    let message = nowhere.expect_err("refused").to_string();
    assert!(message.contains("missing/file"), "{message}");
}
