//! The suite against a real RabbitMQ, and what is RabbitMQ's alone: credentials, lost connections, blocked publishers, arguments.
#![cfg(feature = "rabbitmq")]

mod proxy;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use leveret::Namespace;
use leveret::backend::{Broker, Message, Queue, QueueType, RabbitMq, RabbitMqConfig, Retryable};
use uuid::Uuid;

use crate::broker_suite::{app, broker_suite, consume, message, next, publish, soon, text};
use crate::log::Log;
use proxy::Proxy;

/// The server that the test runner started.
fn url() -> String {
    std::env::var("LEVERET_TEST_AMQP_URL")
        .expect("LEVERET_TEST_AMQP_URL is not set: run the tests with tests/run, which starts a broker and sets it")
}

fn fresh_namespace() -> Namespace {
    Namespace::new(format!("t{}", Uuid::now_v7().simple())).expect("a valid namespace")
}

/// Settings for a namespace that nobody used before.
fn config(url: impl Into<String>) -> RabbitMqConfig {
    RabbitMqConfig::new(url, fresh_namespace())
}

async fn connect(config: RabbitMqConfig) -> Arc<RabbitMq> {
    soon("a connection", RabbitMq::connect(config))
        .await
        .expect("connected")
}

mod quorum_queues {
    use super::*;
    broker_suite!(connect(config(url())).await);
}

mod classic_queues {
    use super::*;
    broker_suite!(
        connect(RabbitMqConfig {
            queue_type: QueueType::Classic,
            ..config(url())
        })
        .await
    );
}

/// The URL with something in it replaced, which must be there.
fn url_with(from: &str, to: &str) -> String {
    let url = url();
    assert!(url.contains(from), "the tests expect {from:?} in LEVERET_TEST_AMQP_URL");
    url.replace(from, to)
}

#[tokio::test]
async fn a_wrong_password_is_named_and_not_told() {
    let error = RabbitMq::connect(config(url_with("guest@", "s3cret@")))
        .await
        .expect_err("refused");
    assert!(error.is_permanent());
    let told = format!("{error} {error:?}");
    assert!(told.contains("user name or password of \"guest\""), "{told}");
    assert!(told.contains("amqp://127.0.0.1:"), "{told}");
    assert!(!told.contains("s3cret"), "{told}");
}

#[tokio::test]
async fn a_missing_virtual_host_is_named() {
    let error = RabbitMq::connect(config(url_with("%2f", "nowhere")))
        .await
        .expect_err("refused");
    assert!(error.is_permanent());
    assert!(error.to_string().contains("virtual host \"nowhere\""), "{error}");
    assert!(!format!("{error} {error:?}").contains("guest:guest"), "{error:?}");
}

#[tokio::test]
async fn a_broker_that_is_away_is_worth_another_try() {
    let proxy = Proxy::start(&url()).await;
    let url = proxy.url();
    drop(proxy);
    let error = RabbitMq::connect(config(url)).await.expect_err("nobody listens");
    assert_eq!(error.retryable(), Retryable::Transient);
    assert!(
        error
            .to_string()
            .starts_with("not connected to the broker at amqp://127.0.0.1:"),
        "{error}"
    );
}

#[tokio::test]
async fn queues_with_other_arguments_are_named() {
    let quorum = config(url());
    let classic = RabbitMqConfig {
        queue_type: QueueType::Classic,
        ..quorum.clone()
    };
    let namespace = quorum.namespace.clone();
    connect(quorum).await;
    let error = RabbitMq::connect(classic).await.expect_err("another queue type");
    assert!(error.is_permanent());
    assert!(
        error.to_string().contains(&format!("queue {namespace}.unrouted")),
        "{error}"
    );
    assert!(error.to_string().contains("queue type"), "{error}");
}

#[tokio::test]
async fn namespaces_do_not_see_each_other() {
    let (one, other): (Arc<dyn Broker>, Arc<dyn Broker>) = (connect(config(url())).await, connect(config(url())).await);
    let queue = Queue::Activities(app("orders"));
    for broker in [&one, &other] {
        broker.declare(&app("orders"), 1).await.expect("declared");
    }
    publish(&one, &queue, &["for one"]).await;
    publish(&other, &queue, &["for the other"]).await;
    assert_eq!(text(&next(&mut consume(&one, &queue, 2).await).await), "for one");
    assert_eq!(
        text(&next(&mut consume(&other, &queue, 2).await).await),
        "for the other"
    );
}

#[tokio::test]
async fn the_broker_vouches_for_the_publisher() {
    for (send_user, expected) in [(true, Some("guest".to_owned())), (false, None)] {
        let broker: Arc<dyn Broker> = connect(RabbitMqConfig {
            send_user,
            ..config(url())
        })
        .await;
        broker.declare(&app("orders"), 1).await.expect("declared");
        let queue = Queue::Workflows(app("orders"));
        publish(&broker, &queue, &["hello"]).await;
        assert_eq!(next(&mut consume(&broker, &queue, 1).await).await.user, expected);
    }
}

#[tokio::test]
async fn a_message_above_the_limit_is_refused_before_it_breaks_the_channel() {
    let broker = connect(RabbitMqConfig {
        message_bytes: 1000,
        ..config(url())
    })
    .await;
    let large = Message {
        body: Bytes::from(vec![0; 1001]),
        ..message(&Queue::Unrouted, "")
    };
    let error = broker.publish(large).await.expect_err("too large");
    assert!(error.is_permanent());
    assert!(error.to_string().contains("1001 bytes"), "{error}");
    broker
        .publish(message(&Queue::Unrouted, "small"))
        .await
        .expect("published");
}

#[tokio::test]
async fn a_quorum_queue_hands_back_in_order_and_without_end() {
    let broker: Arc<dyn Broker> = connect(config(url())).await;
    broker.declare(&app("orders"), 1).await.expect("declared");
    let lane = Queue::Events(app("orders"), 0);
    publish(&broker, &lane, &["1", "2", "3"]).await;
    // More often than RabbitMQ 4 would allow by itself.
    for _ in 0..25 {
        let mut consumer = consume(&broker, &lane, 3).await;
        let mut deliveries = Vec::new();
        for body in ["1", "2", "3"] {
            let delivery = next(&mut consumer).await;
            assert_eq!(text(&delivery), body);
            deliveries.push(delivery);
        }
        consumer.cancel().await.expect("cancelled");
        for delivery in &deliveries {
            delivery.requeue();
        }
    }
    assert_eq!(
        broker
            .depth(&Queue::Dead(app("orders")))
            .await
            .expect("answered")
            .expect("exists")
            .messages,
        0
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_cut_connection_nothing_confirmed_is_lost() {
    let proxy = Proxy::start(&url()).await;
    let broker = connect(config(proxy.url())).await;
    let broker: Arc<dyn Broker> = broker;
    broker.declare(&app("orders"), 1).await.expect("declared");
    let queue = Queue::Activities(app("orders"));
    let mut consumer = consume(&broker, &queue, 10).await;
    publish(&broker, &queue, &["before"]).await;
    let before = next(&mut consumer).await;

    let mut confirmed = Vec::new();
    for round in 0..5 {
        let bodies: Vec<String> = (0..200).map(|number| format!("{round}-{number}")).collect();
        let publishes = join_all(bodies.iter().map(|body| broker.publish(message(&queue, body))));
        let cut = async {
            tokio::task::yield_now().await;
            proxy.cut();
        };
        let (published, ()) = soon("the end of every publish", async { tokio::join!(publishes, cut) }).await;
        for (body, result) in bodies.into_iter().zip(published) {
            match result {
                Ok(()) => confirmed.push(body),
                Err(error) => assert!(!error.is_permanent(), "{error}"),
            }
        }
        // Healed, without anybody's help.
        publish(&broker, &queue, &[&format!("{round}-after")]).await;
        confirmed.push(format!("{round}-after"));
    }

    let ended = async { while consumer.next().await.is_some() {} };
    soon("the end of the subscription", ended).await;
    // It was delivered by a link that is no more: this does nothing, and it comes again.
    before.ack();
    confirmed.push("before".into());
    let mut consumer = consume(&broker, &queue, 100).await;
    let mut missing: std::collections::HashSet<String> = confirmed.into_iter().collect();
    while !missing.is_empty() {
        let delivery = next(&mut consumer).await;
        delivery.ack();
        missing.remove(&text(&delivery));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_broker_is_away_readiness_says_so_and_publishes_wait() {
    let proxy = Proxy::start(&url()).await;
    let settings = RabbitMqConfig {
        publish_timeout: Duration::from_millis(300),
        ..config(proxy.url())
    };
    let broker = connect(settings).await;
    proxy.refuse();
    proxy.cut();
    let noticed = async {
        loop {
            match broker.readiness() {
                Err(reason) if reason.contains(" since ") => return reason,
                _ => tokio::task::yield_now().await,
            }
        }
    };
    let reason = soon("the news", noticed).await;
    assert!(
        reason.starts_with("not connected to the broker at amqp://127.0.0.1:"),
        "{reason}"
    );
    let error = broker.publish(message(&Queue::Unrouted, "x")).await.expect_err("away");
    assert_eq!(error.retryable(), Retryable::Transient);
    assert!(error.to_string().contains("not connected to the broker"), "{error}");
    proxy.accept();
    let healed = async {
        while broker.readiness().is_err() {
            tokio::task::yield_now().await;
        }
    };
    soon("the connection", healed).await;
    broker.publish(message(&Queue::Unrouted, "x")).await.expect("published");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_broker_blocks_publishers_publishes_wait_and_acknowledgements_go_on() {
    let proxy = Proxy::start(&url()).await;
    let broker: Arc<dyn Broker> = connect(config(proxy.url())).await;
    broker.declare(&app("orders"), 1).await.expect("declared");
    let queue = Queue::Activities(app("orders"));
    publish(&broker, &queue, &["1", "2"]).await;
    let mut consumer = consume(&broker, &queue, 1).await;
    let first = next(&mut consumer).await;

    proxy.inject(&proxy::blocked("low on memory"));
    let blocked = async {
        while broker.readiness() != Err("the broker blocks publishers: low on memory".into()) {
            tokio::task::yield_now().await;
        }
    };
    soon("the news", blocked).await;
    let mut waiting = Box::pin(broker.publish(message(&queue, "3")));
    // The second message is delivered only once the first is acknowledged, and that publish stays where it is.
    first.ack();
    tokio::select! {
        biased;
        _ = &mut waiting => panic!("published while the broker blocks publishers"),
        second = next(&mut consumer) => second.ack(),
    }
    proxy.inject(&proxy::unblocked());
    soon("the confirm", waiting).await.expect("published");
    assert_eq!(text(&next(&mut consumer).await), "3");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_is_built_again_makes_the_queues_again() {
    let proxy = Proxy::start(&url()).await;
    let settings = config(proxy.url());
    let other = connect(RabbitMqConfig {
        url: url().into(),
        ..settings.clone()
    })
    .await;
    let broker: Arc<dyn Broker> = connect(settings).await;
    broker.declare(&app("orders"), 1).await.expect("declared");
    let queue = Queue::Activities(app("orders"));
    // As if the broker had been replaced by an empty one.
    other.remove(&app("orders"), 1).await.expect("removed");
    proxy.cut();
    let made = async {
        loop {
            match broker.depth(&queue).await {
                Ok(Some(_)) => return,
                _ => tokio::task::yield_now().await,
            }
        }
    };
    soon("the queue", made).await;
}

#[tokio::test]
async fn a_closed_broker_sends_the_acknowledgements_that_it_has() {
    let settings = config(url());
    let broker = connect(settings.clone()).await;
    broker.declare(&app("orders"), 1).await.expect("declared");
    let queue = Queue::Activities(app("orders"));
    let shared: Arc<dyn Broker> = broker.clone();
    publish(&shared, &queue, &["slow", "done", "left"]).await;
    let mut consumer = consume(&shared, &queue, 10).await;
    let (_slow, done) = (next(&mut consumer).await, next(&mut consumer).await);
    done.ack();
    soon("the end", broker.close()).await;
    assert!(consumer.next().await.is_none());
    let error = broker.publish(message(&queue, "x")).await.expect_err("closed");
    assert!(error.is_permanent(), "{error}");

    let again: Arc<dyn Broker> = connect(settings).await;
    let mut consumer = consume(&again, &queue, 10).await;
    assert_eq!(text(&next(&mut consumer).await), "slow");
    assert_eq!(text(&next(&mut consumer).await), "left");
}

#[test]
fn closing_is_no_error_in_the_log() {
    let log = Log::default();
    let heard = log.clone();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .on_thread_start(move || heard.hear_this_thread())
        .build()
        .expect("a runtime");
    // What is closed in the wrong order fails once in a few times.
    for _ in 0..20 {
        let closed = runtime.spawn(async {
            let broker = connect(config(url())).await;
            broker.declare(&app("orders"), 1).await.expect("declared");
            let shared: Arc<dyn Broker> = broker.clone();
            let _consumer = consume(&shared, &Queue::Activities(app("orders")), 10).await;
            soon("the end", broker.close()).await;
        });
        runtime.block_on(closed).expect("no panic");
    }
    drop(runtime);
    assert_eq!(log.lines("ERROR"), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_falls_silent_is_dead_after_its_heartbeat() {
    let proxy = Proxy::start(&url()).await;
    let settings = RabbitMqConfig {
        heartbeat: Duration::from_secs(1),
        ..config(proxy.url())
    };
    let broker: Arc<dyn Broker> = connect(settings).await;
    broker.declare(&app("orders"), 1).await.expect("declared");
    let queue = Queue::Activities(app("orders"));
    let mut consumer = consume(&broker, &queue, 1).await;
    proxy.freeze();
    let error = soon("the end of the publish", broker.publish(message(&queue, "1"))).await;
    assert_eq!(error.expect_err("silence").retryable(), Retryable::Unknown);
    assert!(soon("the end of the subscription", consumer.next()).await.is_none());
    proxy.cut();
    proxy.thaw();
    publish(&broker, &queue, &["2"]).await;
    // The first publish may have arrived behind the silence: unknown means just that.
    let mut consumer = consume(&broker, &queue, 2).await;
    while text(&next(&mut consumer).await) != "2" {}
}

#[tokio::test]
async fn what_the_broker_gives_up_is_in_the_dead_queue() {
    let settings = config(url());
    let namespace = settings.namespace.clone();
    let broker: Arc<dyn Broker> = connect(settings).await;
    broker.declare(&app("orders"), 1).await.expect("declared");
    for queue in ["workflows", "activities", "events.0"] {
        // As an operator's policy of a time to live would have it: 1 ms.
        let name = format!("{namespace}.orders.{queue}");
        publish_expiring(&name).await;
        let mut dead = consume(&broker, &Queue::Dead(app("orders")), 1).await;
        let delivery = next(&mut dead).await;
        delivery.ack();
        assert_eq!(text(&delivery), "short-lived");
        let headers: std::collections::HashMap<_, _> = delivery.properties.headers.iter().cloned().collect();
        assert_eq!(headers.get("x-first-death-reason").map(String::as_str), Some("expired"));
        assert_eq!(headers.get("x-first-death-queue"), Some(&name));
        dead.cancel().await.expect("cancelled");
    }
}

/// Publishes to a queue what nobody takes in time.
async fn publish_expiring(queue: &str) {
    use lapin::{BasicProperties, Connection, ConnectionProperties};
    let connection = Connection::connect(&url(), ConnectionProperties::default())
        .await
        .expect("connected");
    let channel = connection.create_channel().await.expect("a channel");
    channel.confirm_select(Default::default()).await.expect("confirms");
    let properties = BasicProperties::default().with_expiration("1".into());
    let sent = channel
        .basic_publish("".into(), queue.into(), Default::default(), b"short-lived", properties)
        .await;
    sent.expect("sent").await.expect("confirmed");
    connection.close(200, "done".into()).await.expect("closed");
}
