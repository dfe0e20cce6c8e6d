//! Starts that another client than ours publishes: Python's pika, by way of `raw_start.py`.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use leveret::backend::{Backend, Delivery, Queue, RabbitMq, RabbitMqConfig, RedisConfig, RedisStore, SystemClock};
use leveret::client::{Error, Filter};
use leveret::replay::history::HistoryEvent;
use leveret::{Client, Failure, Namespace, Result, RunningWorker, Settings, Worker, Workflow, WorkflowContext};
use serde_json::{Value, json};

const GREET: Workflow<String, String> = Workflow::new("greeter", "greet");

/// For what is to happen, on a loaded machine.
const LONG: Duration = Duration::from_secs(30);

fn setting(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run the tests with tests/run"))
}

/// A namespace of its own, with a worker of app `greeter`.
struct Fixture {
    namespace: String,
    backend: Backend,
    client: Client,
    worker: RunningWorker,
}

impl Fixture {
    async fn new() -> Self {
        let name = format!("raw-{}", uuid::Uuid::new_v4().simple());
        let namespace = Namespace::new(&name).unwrap();
        let broker = RabbitMqConfig::new(setting("LEVERET_TEST_AMQP_URL"), namespace.clone());
        let store = RedisConfig::new(setting("LEVERET_TEST_REDIS_URL"), namespace.clone());
        let (broker, store) = (
            RabbitMq::connect(broker).await.unwrap(),
            RedisStore::connect(store).await.unwrap(),
        );
        let backend = Backend::new(namespace, broker, store, Arc::new(SystemClock), "servers");
        let greet = async |_: WorkflowContext, name: String| Ok::<_, Failure>(format!("Hello, {name}!"));
        let settings = Settings {
            lanes: 1,
            ..Settings::default()
        };
        let worker = Worker::new("greeter", backend.clone())
            .settings(settings)
            .workflow(GREET, greet);
        Self {
            namespace: name,
            client: Client::new(backend.clone()),
            worker: worker.start().await.unwrap(),
            backend,
        }
    }

    /// Publishes to the namespace's exchange with the app's routing key.
    fn publish(&self, app: &str, messages: &[Value]) {
        let exchange = format!("leveret.{}", self.namespace);
        publish(&exchange, &format!("{}.{app}.workflows", self.namespace), messages);
    }

    async fn result(&self, id: &str) -> String {
        let instance = self.client.instance("greeter", id).unwrap();
        let wait = async {
            loop {
                match instance.result_as().await {
                    Err(Error::NotFound { .. }) => tokio::time::sleep(Duration::from_millis(20)).await,
                    result => return result.unwrap(),
                }
            }
        };
        tokio::time::timeout(LONG, wait).await.expect("a result")
    }

    /// The next dead letters: bodies and reasons.
    async fn dead(&self, count: usize) -> Vec<(String, String)> {
        let queue = Queue::Dead("greeter".parse().unwrap());
        let mut consumer = self.backend.broker().consume(&queue, 0).await.unwrap();
        let mut letters = Vec::new();
        for _ in 0..count {
            let delivery: Delivery = tokio::time::timeout(LONG, consumer.next())
                .await
                .expect("a dead letter")
                .unwrap();
            let reason = delivery
                .properties
                .headers
                .iter()
                .find(|(name, _)| name == "leveret-reason");
            let (_, reason) = reason.expect("a reason").clone();
            letters.push((String::from_utf8_lossy(&delivery.body).into_owned(), reason));
            delivery.ack();
        }
        letters
    }

    /// Leaves nothing on the shared servers.
    async fn close(self) {
        self.worker.stop().await;
        self.backend
            .broker()
            .remove(&"greeter".parse().unwrap(), 1)
            .await
            .unwrap();
    }
}

/// Publishes with pika; returns when the broker has confirmed every message.
fn publish(exchange: &str, routing_key: &str, messages: &[Value]) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/raw_start.py");
    let mut python = Command::new(setting("LEVERET_TEST_PYTHON"))
        .args([script, &setting("LEVERET_TEST_AMQP_URL"), exchange, routing_key])
        .stdin(Stdio::piped())
        .spawn()
        .expect("Python runs");
    let mut input = python.stdin.take().expect("piped");
    for message in messages {
        writeln!(input, "{message}").expect("written");
    }
    drop(input);
    assert!(python.wait().expect("ended").success(), "pika published {messages:?}");
}

#[tokio::test]
async fn a_json_message_starts_a_workflow() {
    let fixture = Fixture::new().await;
    let message = json!({"workflow": "greet", "instance_id": "ada", "input": "Ada", "tags": {"from": "python"}});
    fixture.publish("greeter", &[json!({"json": message})]);
    assert_eq!(fixture.result("ada").await, "Hello, Ada!");
    let info = fixture.client.instance("greeter", "ada").unwrap().get().await.unwrap();
    assert_eq!(info.tags["from"], "python");
    fixture.close().await;
}

#[tokio::test]
async fn a_message_pack_message_straight_to_the_queue_starts_a_workflow() {
    let fixture = Fixture::new().await;
    let message = json!({"workflow": "greet", "instance_id": "ada", "input": "Ada ✓", "start_at": 1});
    // The default exchange leads to the queue of the routing key's name.
    publish(
        "",
        &format!("{}.greeter.workflows", fixture.namespace),
        &[json!({"msgpack": message})],
    );
    assert_eq!(fixture.result("ada").await, "Hello, Ada ✓!");
    fixture.close().await;
}

#[tokio::test]
async fn a_message_that_is_published_again_starts_nothing() -> Result<()> {
    let fixture = Fixture::new().await;
    let by_message = json!({"json": {"workflow": "greet", "input": "Ada"}, "message_id": "m-1"});
    let both = json!({"json": {"workflow": "greet", "instance_id": "bob", "input": "Bob"}, "message_id": "m-2"});
    let by_instance = json!({"json": {"workflow": "greet", "instance_id": "cy", "input": "Cy"}});
    let last = json!({"json": {"workflow": "greet", "instance_id": "last", "input": "last"}});
    let again = [&by_message, &both, &by_instance, &by_message, &both, &by_instance].map(Clone::clone);
    fixture.publish("greeter", &again);
    for id in ["bob", "cy"] {
        fixture.result(id).await;
    }
    // And once more when they are over.
    fixture.publish("greeter", &again);
    fixture.publish("greeter", &[last]);
    fixture.result("last").await;
    let wait = async {
        loop {
            let all = fixture.client.list(Filter::app("greeter")).collect().await.unwrap();
            let queue = Queue::Workflows("greeter".parse().unwrap());
            let waiting = fixture.backend.broker().depth(&queue).await.unwrap().unwrap().messages;
            if waiting == 0 && all.len() == 4 && all.iter().all(|instance| instance.status.is_terminal()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LONG, wait)
        .await
        .expect("four instances, all over");
    for instance in fixture.client.list(Filter::app("greeter")).collect().await? {
        let handle = fixture.client.instance("greeter", instance.instance.id.as_str())?;
        let history = handle.history().await?;
        let events = history.iter().flat_map(|turn| &turn.events);
        let started = events.filter(|event| matches!(event, HistoryEvent::ExecutionStarted { .. }));
        assert_eq!(started.count(), 1, "{}", instance.instance);
    }
    fixture.close().await;
    Ok(())
}

#[tokio::test]
async fn a_message_that_cannot_be_read_is_a_dead_letter_whose_reason_names_the_field() {
    let fixture = Fixture::new().await;
    let start = |fields: Value| {
        let mut start = json!({"workflow": "greet", "instance_id": "ada", "input": "Ada"});
        start
            .as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        json!({ "json": start })
    };
    let cases = [
        (json!({"json": {"instance_id": "ada"}}), "`workflow`"),
        (json!({"json": {"workflow": "greet", "input": "Ada"}}), "`instance_id`"),
        (json!({"json": {"workflow": "greet", "input": "Ada"}}), "message_id"),
        (json!({"msgpack": {"workflow": "greet", "input": "Ada"}}), "message_id"),
        (start(json!({"workflow": 7})), "`workflow`"),
        (start(json!({"workflow": ""})), "`workflow`"),
        (start(json!({"instance_id": ["ada"]})), "`instance_id`"),
        (start(json!({"instance_id": "a".repeat(300)})), "`instance_id`"),
        (start(json!({"start_at": "tomorrow"})), "`start_at`"),
        (start(json!({"tags": {"from": 1}})), "`tags`"),
        (start(json!({"colour": "red"})), "`colour`"),
        (
            json!({"msgpack": {"workflow": "greet", "instance_id": "ada", "tags": 5}}),
            "`tags`",
        ),
        (
            json!({"json": {"workflow": "greet"}, "message_id": "m\n1"}),
            "`message_id`",
        ),
        (json!({"text": "Hello?"}), "not a start message"),
    ];
    for (message, named) in cases {
        fixture.publish("greeter", std::slice::from_ref(&message));
        let (_, reason) = fixture.dead(1).await.remove(0);
        assert!(reason.contains(named), "{message}\nwas refused so: {reason}");
    }
    assert!(
        fixture
            .client
            .list(Filter::app("greeter"))
            .collect()
            .await
            .unwrap()
            .is_empty()
    );
    fixture.close().await;
}

#[tokio::test]
async fn a_start_with_a_taken_instance_id_is_a_dead_letter() {
    let fixture = Fixture::new().await;
    // Whichever is first waits, and holds the ID: one that was over might be replaced.
    let delayed =
        |input| json!({"workflow": "greet", "instance_id": "ada", "input": input, "start_at": 4_102_444_800_000_u64});
    fixture.publish(
        "greeter",
        &[
            json!({"json": delayed("Ada"), "message_id": "m-1"}),
            json!({"json": delayed("other"), "message_id": "m-2"}),
        ],
    );
    let (body, reason) = fixture.dead(1).await.remove(0);
    assert!(
        reason.contains("`instance_id`") && reason.contains("greeter/ada"),
        "{reason}"
    );
    assert!(body.contains("other") || body.contains("Ada"), "{body}");
    fixture.close().await;
}

#[tokio::test]
async fn a_start_for_an_app_that_does_not_exist_ends_where_somebody_sees_it() {
    let fixture = Fixture::new().await;
    fixture.publish(
        "nobody",
        &[json!({"json": {"workflow": "greet", "instance_id": "ada", "input": "Ada"}})],
    );
    let (body, reason) = fixture.dead(1).await.remove(0);
    assert!(body.contains("\"Ada\""), "{body}");
    assert!(reason.contains("nobody.workflows"), "{reason}");
    fixture.close().await;
}
