//! Starts that any AMQP client publishes.

use bytes::Bytes;
use leveret::backend::{Message, Properties, Queue};
use leveret::replay::history::HistoryEvent;
use leveret::{Result, Status, Workflow, WorkflowContext};

use crate::harness::*;

const MAIN: Workflow<u64, u64> = Workflow::new("orders", "main");

async fn add_one(_: WorkflowContext, n: u64) -> Result<u64> {
    Ok(n + 1)
}

async fn publish(stage: &Stage, body: &str, message_id: Option<&str>) {
    let message = Message {
        queue: Queue::Workflows(app("orders")),
        body: Bytes::copy_from_slice(body.as_bytes()),
        properties: Properties {
            message_id: message_id.map(str::to_owned),
            ..Properties::default()
        },
    };
    stage.broker().publish(message).await.unwrap();
}

pub(crate) async fn a_raw_start_runs_its_workflow(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let _orders = up(stage.worker("orders").workflow(MAIN, add_one)).await;
    publish(
        &stage,
        r#"{"workflow": "main", "instance_id": "one", "input": 41, "tags": {"from": "afar"}}"#,
        None,
    )
    .await;
    let info = stage.wait_for_status("orders", "one", Status::Completed).await;
    assert_eq!(info.output.as_ref().unwrap().decode::<u64>().unwrap(), 42);
    assert_eq!(info.tags.get("from").map(String::as_str), Some("afar"));
}

pub(crate) async fn a_raw_start_counts_once_by_its_message_id(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let _orders = up(stage.worker("orders").workflow(MAIN, add_one)).await;
    for _ in 0..3 {
        publish(&stage, r#"{"workflow": "main", "input": 41}"#, Some("mail-17")).await;
    }
    stage.wait_for_depth(Queue::Workflows(app("orders")), 0).await;
    publish(
        &stage,
        r#"{"workflow": "main", "input": 41, "instance_id": "last"}"#,
        None,
    )
    .await;
    stage.wait_for_status("orders", "last", Status::Completed).await;
    let list = stage.client.list(leveret::client::Filter::app("orders")).await.unwrap();
    assert_eq!(list.instances.len(), 2);
    for instance in list.instances {
        let id = instance.instance.id.as_str();
        stage.wait_for_status("orders", id, Status::Completed).await;
        let is_start = |event: &HistoryEvent| matches!(event, HistoryEvent::ExecutionStarted { .. });
        assert_eq!(stage.count_events("orders", id, is_start).await, 1, "{id}");
    }
}

pub(crate) async fn a_raw_start_that_cannot_be_is_among_the_dead_with_its_reason(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let _orders = up(stage.worker("orders").workflow(MAIN, add_one)).await;
    publish(
        &stage,
        r#"{"workflow": "main", "instance_id": "taken", "input": 1}"#,
        None,
    )
    .await;
    stage.wait_for_status("orders", "taken", Status::Completed).await;
    let wrong = [
        ("this is no JSON", "not a start message"),
        (r#"{"input": 1, "instance_id": "x"}"#, "workflow"),
        (r#"{"workflow": "main", "input": 1}"#, "instance_id"),
        (r#"{"workflow": "main", "instance_id": "a\nb"}"#, "instance_id"),
        (r#"{"workflow": "main", "instance_id": "x", "colour": "red"}"#, "colour"),
    ];
    let dead = Queue::Dead(app("orders"));
    for (body, reason) in wrong {
        publish(&stage, body, None).await;
        let mut consumer = stage.broker().consume(&dead, 1).await.unwrap();
        let delivery = soon("a dead letter", consumer.next()).await.expect("a dead letter");
        let header = |name: &str| {
            delivery
                .properties
                .headers
                .iter()
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.clone())
        };
        let told = header("leveret-reason").expect("a reason");
        assert!(told.contains(reason), "{told}");
        assert_eq!(header("leveret-origin").as_deref(), Some("orders.workflows"));
        assert_eq!(&delivery.body[..], body.as_bytes());
        delivery.ack();
        consumer.cancel().await.unwrap();
    }
}

/// Headers have to fit into one frame (128 KiB by default); the reason repeats what is wrong, and is a header.
pub(crate) async fn a_raw_start_whose_fault_is_monstrous_is_among_the_dead_all_the_same(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let _orders = up(stage.worker("orders").workflow(MAIN, add_one)).await;
    let body = format!(
        r#"{{"workflow": "main", "instance_id": "x", "{}": 1}}"#,
        "x".repeat(300_000)
    );
    let message = Message {
        queue: Queue::Workflows(app("orders")),
        body: Bytes::from(body.clone()),
        properties: Properties {
            headers: vec![("colour".into(), "red".into()), ("note".into(), "y".repeat(100_000))],
            ..Properties::default()
        },
    };
    stage.broker().publish(message).await.unwrap();
    let mut consumer = stage.broker().consume(&Queue::Dead(app("orders")), 1).await.unwrap();
    let delivery = soon("a dead letter", consumer.next()).await.expect("a dead letter");
    assert_eq!(delivery.body.len(), body.len());
    let header = |name: &str| {
        let mut headers = delivery.properties.headers.iter();
        headers.find(|(key, _)| key == name).map(|(_, value)| value.clone())
    };
    let reason = header("leveret-reason").expect("a reason");
    assert!(
        reason.contains("unknown field `xxx") && reason.len() < 2200,
        "{} bytes",
        reason.len()
    );
    assert_eq!(header("colour").as_deref(), Some("red"));
    delivery.ack();
    publish(
        &stage,
        r#"{"workflow": "main", "instance_id": "next", "input": 1}"#,
        None,
    )
    .await;
    stage.wait_for_status("orders", "next", Status::Completed).await;
}

pub(crate) async fn a_raw_start_at_an_app_that_is_away_waits(h: &impl Harness) {
    let stage = Stage::new(h).await;
    stage.known_app("orders").await;
    publish(
        &stage,
        r#"{"workflow": "main", "instance_id": "one", "input": 41}"#,
        None,
    )
    .await;
    let _orders = up(stage.worker("orders").workflow(MAIN, add_one)).await;
    stage.wait_for_status("orders", "one", Status::Completed).await;
}

/// As one that comes between the declaration of the app's queue and its binding: no route leads to the queue yet, and then the queue is there.
pub(crate) async fn a_raw_start_that_came_before_its_app_runs_when_the_app_is_there(h: &impl Harness) {
    let stage = Stage::new(h).await;
    stage.known_app("payments").await;
    publish(
        &stage,
        r#"{"workflow": "main", "instance_id": "one", "input": 41}"#,
        None,
    )
    .await;
    let _orders = up(stage.worker("orders").workflow(MAIN, add_one)).await;
    stage.wait_for_status("orders", "one", Status::Completed).await;
    assert_eq!(stage.depth(Queue::Dead(app("orders"))).await, 0);
}

pub(crate) async fn a_raw_message_to_the_unrouted_queue_is_among_the_dead(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let _orders = up(stage.worker("orders").workflow(MAIN, add_one)).await;
    let message = Message {
        queue: Queue::Unrouted,
        body: r#"{"workflow": "main", "instance_id": "one", "input": 41}"#.into(),
        properties: Default::default(),
    };
    stage.broker().publish(message).await.unwrap();
    stage.wait_for_depth(Queue::Dead(app("orders")), 1).await;
    stage.wait_for_depth(Queue::Unrouted, 0).await;
}

pub(crate) async fn a_raw_start_of_an_unknown_workflow_fails_and_says_so(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let _orders = up(stage.worker("orders").workflow(MAIN, add_one)).await;
    publish(
        &stage,
        r#"{"workflow": "mian", "instance_id": "one", "input": 41}"#,
        None,
    )
    .await;
    let info = stage.wait_for_status("orders", "one", Status::Failed).await;
    let failure = info.failure.clone().expect("a failure");
    assert!(failure.message.contains("`mian`"), "{failure}");
}

pub(crate) async fn a_message_that_cannot_be_read_holds_up_no_queue(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let _orders = up(stage.worker("orders").workflow(MAIN, add_one)).await;
    let garbage = Message::bundle(
        Queue::Workflows(app("orders")),
        Bytes::from_static(b"garbage"),
        &leveret::MessageId::generate(),
    );
    for queue in [
        Queue::Workflows(app("orders")),
        Queue::Activities(app("orders")),
        Queue::Events(app("orders"), 0),
    ] {
        stage
            .broker()
            .publish(Message {
                queue,
                ..garbage.clone()
            })
            .await
            .unwrap();
    }
    stage.wait_for_depth(Queue::Dead(app("orders")), 3).await;
    let run = stage.client.start(MAIN, 41).await.unwrap();
    assert_eq!(done(&run).await, 42);
}
