//! What a worker's log warns of. On this thread alone, where the log is listened to, and so on the memory backend.

use std::sync::{Arc, Mutex};

use leveret::backend::Backend;
use leveret::{Client, Limits, Namespace, Settings, Workflow, WorkflowContext};

use crate::harness::*;
use crate::programs::*;

const MAIN: Workflow<u64, u64> = Workflow::new("orders", "main");

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn lines(&self, about: &str) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines()
            .filter(|line| line.contains(about))
            .map(str::to_owned)
            .collect()
    }
}

#[tokio::test]
async fn a_history_that_grows_long_is_warned_of_once() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_ansi(false)
        .with_writer(move || writer.clone());
    let _guard = tracing::subscriber::set_default(subscriber.finish());
    let backend = Backend::memory(Namespace::new("shop").unwrap());
    let limits = Limits {
        history_events: 20,
        ..Limits::default()
    };
    let worker = |app| {
        leveret::Worker::new(app, backend.clone()).settings(Settings {
            limits: limits.clone(),
            ..settings()
        })
    };
    let _payments = up(worker("payments").activity(WORK, echo)).await;
    let _orders = up(worker("orders").workflow(MAIN, async |ctx: WorkflowContext, n: u64| {
        let mut sum = 0;
        for step in 0..n {
            sum += ctx.call(WORK, step).await?;
        }
        ok(sum)
    }))
    .await;
    let client = Client::new(backend.clone());
    let short = client.start(MAIN, 5).id("short").await.unwrap();
    let long = client.start(MAIN, 30).id("long").await.unwrap();
    assert_eq!((done(&short).await, done(&long).await), (10, 435));
    let warned = log.lines("the history grows long");
    assert_eq!(warned.len(), 1, "{warned:#?}");
    for part in ["WARN", "orders/long", "20", "continue-as-new"] {
        assert!(warned[0].contains(part), "{part} in {}", warned[0]);
    }
}
