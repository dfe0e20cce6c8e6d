//! First light.
use std::time::Duration;
use leveret::backend::{Backend, Queue, Message, Properties};
use leveret::*;

const DOUBLE: Activity<u64, u64> = Activity::new("math", "double");
const SUM: Workflow<u64, u64> = Workflow::new("front", "sum");

async fn double(_: ActivityContext, n: u64) -> Result<u64> {
    Ok(n * 2)
}
async fn sum(ctx: WorkflowContext, n: u64) -> Result<u64> {
    let a = ctx.call(DOUBLE, n).await?;
    ctx.timer(Duration::from_millis(50)).await?;
    let rest = all((0..10u64).map(|i| ctx.call(DOUBLE, i))).await;
    let mut total = a;
    for r in rest {
        total += r?;
    }
    Ok(total)
}

#[tokio::test]
async fn a_workflow_calls_another_app() {
    tracing_subscriber::fmt().with_env_filter("debug").with_test_writer().init();
    let backend = Backend::memory("demo".parse().unwrap());
    let _front = Worker::new("front", backend.clone()).workflow(SUM, sum).start().await.unwrap();
    let _math = Worker::new("math", backend.clone()).activity(DOUBLE, double).start().await.unwrap();
    let body = br#"{"workflow":"sum","instance_id":"one","input":21}"#;
    let message = Message { queue: Queue::Workflows("front".parse().unwrap()), body: bytes::Bytes::from_static(body), properties: Properties::default() };
    backend.broker().publish(message).await.unwrap();
    let instance = InstanceRef::new("front".parse().unwrap(), InstanceId::new("one").unwrap());
    for _ in 0..60 {
        if let Some(record) = backend.store().record(&instance).await.unwrap() {
            println!("{:?} {:?}", record.status, record.outcome);
            if record.status.is_terminal() { return; }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not over");
}
