//! A worker whose connection to RabbitMQ is cut while it runs an activity under a lease; scenario 20.

use std::sync::Arc;

use leveret::backend::{Backend, DueKind, Queue, RabbitMq, RabbitMqConfig, SystemClock};
use leveret::{Settings, Worker, Workflow};

use crate::harness::*;
use crate::programs::*;
use crate::proxy::Proxy;

const MAIN: Workflow<u64, u64> = Workflow::new("orders", "main");

pub(crate) async fn an_activity_whose_lease_is_written_runs_once_though_its_connection_is_cut(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let url = std::env::var("LEVERET_TEST_AMQP_URL").unwrap();
    let proxy = Proxy::start(&url).await;
    let namespace = stage.backend.namespace().clone();
    let broker = RabbitMq::connect(RabbitMqConfig::new(proxy.url(), namespace.clone())).await;
    let store = stage.backend.store().clone();
    let behind = Backend::new(namespace, broker.unwrap(), store, Arc::new(SystemClock), "a proxy");
    let short_deliveries = Settings {
        delivery_timeout: millis(4000),
        ..settings()
    };
    let (runs, gate) = (Tally::new(), Gate::new());
    let payments = Worker::new("payments", behind)
        .settings(short_deliveries)
        .activity(WORK, gated(&runs, &gate));
    let payments = up(payments).await;
    let _orders = up(stage.worker("orders").workflow(MAIN, call_work)).await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    runs.reach(1).await;
    stage.wait_for_text("orders", "one", &["lease until"]).await;
    let tasks = Queue::Activities(app("payments"));
    proxy.refuse();
    proxy.cut();
    until("the worker to notice", async || payments.readiness().err()).await;
    until("its consumers to be gone", async || {
        let depth = stage.broker().depth(&tasks).await.unwrap().unwrap();
        (depth.consumers == 0).then_some(())
    })
    .await;
    // What it had not acknowledged would be there for anybody now. A second worker takes what there is, and finds nothing to run.
    assert_eq!(stage.depth(tasks.clone()).await, 0);
    let other = up(stage.worker("payments").activity(WORK, gated(&runs, &gate))).await;
    proxy.accept();
    until("the first to be back", async || {
        let depth = stage.broker().depth(&tasks).await.unwrap().unwrap();
        (payments.readiness().is_ok() && depth.consumers == 2).then_some(())
    })
    .await;
    let lease = async || {
        stage
            .due("payments", DueKind::Lease)
            .await
            .first()
            .map(|lease| lease.due)
    };
    let before = lease().await.expect("it is still leased");
    until("the lease to be renewed", async || {
        lease().await.filter(|due| *due > before)
    })
    .await;
    assert_eq!(runs.get(), 1);
    gate.open();
    assert_eq!(done(&run).await, 7);
    assert_eq!(runs.get(), 1);
    other.stop().await;
    payments.stop().await;
}
