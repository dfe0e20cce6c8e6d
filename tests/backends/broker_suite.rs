//! What every broker must do, as functions over the trait.
//!
//! Each takes a broker of a namespace that nothing was declared in yet. [`broker_suite!`] makes a test of each of them; its argument is an
//! expression that gives such a broker, evaluated anew for every test, and may await:
//!
//! ```ignore
//! broker_suite!(fresh_broker().await);
//! ```

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use leveret::AppId;
use leveret::backend::{Broker, Browse, Consumer, Delivery, Message, Properties, Queue, QueueDepth};

/// Makes a test of every behaviour. The list is here, so that no broker can leave one out.
macro_rules! broker_suite {
    ($broker:expr) => {
        $crate::broker_suite::broker_suite! { @ $broker;
            a_message_arrives_as_it_was_sent
            bodies_of_any_size_arrive_whole
            messages_arrive_in_the_order_of_their_publishing
            messages_published_side_by_side_all_arrive_once
            a_confirmed_message_is_stored
            a_message_that_is_handed_back_comes_again_and_says_so
            an_acknowledged_message_does_not_come_again
            a_delivery_is_settled_once_whatever_is_asked
            a_dropped_delivery_comes_again_when_its_consumer_is_gone
            a_message_for_an_unknown_app_is_unrouted_and_keeps_its_address
            an_event_queue_has_one_active_consumer_and_the_next_takes_over
            a_dropped_active_consumer_hands_its_messages_to_the_next
            competing_consumers_take_no_more_than_their_prefetch
            no_competing_consumer_is_left_without_messages
            an_acknowledgement_past_a_gap_frees_its_place
            a_long_gap_frees_every_place_behind_it
            a_cancelled_consumer_hands_back_what_it_did_not_hand_out
            a_cancelled_consumer_can_settle_what_it_handed_out
            waiting_for_a_message_may_be_given_up_without_losing_one
            a_missing_queue_has_no_depth_and_no_consumers
            depth_counts_what_waits_and_who_listens
            declaring_twice_keeps_what_is_there
            an_app_may_be_declared_again_with_more_lanes
            a_removed_app_is_unknown
            the_dead_queue_keeps_what_it_is_sent
            a_look_through_a_queue_leaves_it_as_it_was
            what_a_look_removes_is_gone_and_the_rest_is_there
            two_who_look_at_the_same_time_lose_nothing
            a_broker_that_works_is_ready
        }
    };
    (@ $broker:expr; $($behaviour:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $behaviour() {
                $crate::broker_suite::$behaviour($broker).await;
            }
        )*
    };
}
pub(crate) use broker_suite;

/// Longest wait for what must happen. Long, because the machine may be busy; nothing waits for it to pass.
const SOON: Duration = Duration::from_secs(20);

/// What must come, comes.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future)
        .await
        .unwrap_or_else(|_| panic!("{what} did not come within {SOON:?}"))
}

/// The next delivery, which must come.
pub(crate) async fn next(consumer: &mut Box<dyn Consumer>) -> Delivery {
    soon("a message", consumer.next())
        .await
        .expect("the subscription lives")
}

pub(crate) fn app(name: &str) -> AppId {
    AppId::new(name).expect("a valid app ID")
}

pub(crate) fn message(queue: &Queue, body: &str) -> Message {
    Message {
        queue: queue.clone(),
        body: Bytes::copy_from_slice(body.as_bytes()),
        properties: Properties::default(),
    }
}

pub(crate) async fn publish(broker: &Arc<dyn Broker>, queue: &Queue, bodies: &[&str]) {
    for body in bodies {
        soon("a confirm", broker.publish(message(queue, body)))
            .await
            .expect("published");
    }
}

pub(crate) async fn consume(broker: &Arc<dyn Broker>, queue: &Queue, prefetch: u16) -> Box<dyn Consumer> {
    soon("a subscription", broker.consume(queue, prefetch))
        .await
        .expect("subscribed")
}

pub(crate) fn text(delivery: &Delivery) -> String {
    String::from_utf8(delivery.body.to_vec()).expect("text")
}

/// The bodies of the next deliveries, all acknowledged.
async fn take(consumer: &mut Box<dyn Consumer>, count: usize) -> Vec<String> {
    let mut bodies = Vec::new();
    for _ in 0..count {
        let delivery = next(consumer).await;
        delivery.ack();
        bodies.push(text(&delivery));
    }
    bodies
}

/// Waits until a queue's depth is as told: brokers count with a delay.
async fn depth_becomes(broker: &Arc<dyn Broker>, queue: &Queue, expected: Option<QueueDepth>) {
    let counted = async {
        while broker.depth(queue).await.expect("counted") != expected {
            tokio::task::yield_now().await;
        }
    };
    soon(&format!("depth {expected:?} of {queue}"), counted).await;
}

/// A broker with the app `orders` of two lanes.
async fn with_orders(broker: &Arc<dyn Broker>) -> (Queue, Queue) {
    broker.declare(&app("orders"), 2).await.expect("declared");
    (Queue::Activities(app("orders")), Queue::Events(app("orders"), 1))
}

pub(crate) async fn a_message_arrives_as_it_was_sent(broker: Arc<dyn Broker>) {
    let (activities, events) = with_orders(&broker).await;
    for queue in [
        activities,
        events,
        Queue::Workflows(app("orders")),
        Queue::Events(app("orders"), 0),
    ] {
        let properties = Properties {
            content_type: Some("application/json".into()),
            message_id: Some("m-17".into()),
            headers: vec![
                ("leveret-at".into(), "1700000000000".into()),
                ("leveret-reason".into(), "ünïcödé, \"quoted\"".into()),
            ],
        };
        let sent = Message {
            properties: properties.clone(),
            ..message(&queue, "{\"a\":1}")
        };
        broker.publish(sent).await.expect("published");
        let mut consumer = consume(&broker, &queue, 10).await;
        let delivery = next(&mut consumer).await;
        assert_eq!(text(&delivery), "{\"a\":1}");
        assert_eq!(delivery.properties, properties);
        assert_eq!(delivery.routed_to, Some(queue));
        assert!(!delivery.redelivered);
        delivery.ack();
    }
}

pub(crate) async fn bodies_of_any_size_arrive_whole(broker: Arc<dyn Broker>) {
    let (queue, _) = with_orders(&broker).await;
    let mut consumer = consume(&broker, &queue, 1).await;
    for size in [0, 1, 4_096, 131_071, 131_072, 131_073, 3_000_000] {
        let body: Bytes = (0..size).map(|index| (index % 251) as u8).collect();
        broker
            .publish(Message {
                body: body.clone(),
                ..message(&queue, "")
            })
            .await
            .expect("published");
        let delivery = next(&mut consumer).await;
        assert!(delivery.body == body, "a body of {size} bytes");
        delivery.ack();
    }
}

pub(crate) async fn messages_arrive_in_the_order_of_their_publishing(broker: Arc<dyn Broker>) {
    let (_, lane) = with_orders(&broker).await;
    let mut consumer = consume(&broker, &lane, 10).await;
    let sent: Vec<String> = (0..50).map(|number| number.to_string()).collect();
    for body in &sent {
        broker.publish(message(&lane, body)).await.expect("published");
    }
    assert_eq!(take(&mut consumer, sent.len()).await, sent);
}

pub(crate) async fn messages_published_side_by_side_all_arrive_once(broker: Arc<dyn Broker>) {
    let (queue, _) = with_orders(&broker).await;
    let mut consumer = consume(&broker, &queue, 100).await;
    let sent: HashSet<String> = (0..2_000).map(|number| number.to_string()).collect();
    let published = join_all(sent.iter().map(|body| broker.publish(message(&queue, body))));
    let (published, arrived) = tokio::join!(published, take(&mut consumer, sent.len()));
    assert!(published.iter().all(Result::is_ok));
    assert_eq!(arrived.into_iter().collect::<HashSet<_>>(), sent);
}

pub(crate) async fn a_confirmed_message_is_stored(broker: Arc<dyn Broker>) {
    let (queue, lane) = with_orders(&broker).await;
    publish(&broker, &queue, &["one", "two"]).await;
    publish(&broker, &lane, &["three"]).await;
    depth_becomes(
        &broker,
        &queue,
        Some(QueueDepth {
            messages: 2,
            consumers: 0,
        }),
    )
    .await;
    assert_eq!(take(&mut consume(&broker, &queue, 1).await, 2).await, ["one", "two"]);
    assert_eq!(take(&mut consume(&broker, &lane, 1).await, 1).await, ["three"]);
}

pub(crate) async fn a_message_that_is_handed_back_comes_again_and_says_so(broker: Arc<dyn Broker>) {
    let (queue, _) = with_orders(&broker).await;
    publish(&broker, &queue, &["one"]).await;
    let mut consumer = consume(&broker, &queue, 1).await;
    let first = next(&mut consumer).await;
    assert!(!first.redelivered);
    first.requeue();
    let second = next(&mut consumer).await;
    assert_eq!(text(&second), "one");
    assert!(second.redelivered);
    assert_eq!(second.properties, first.properties);
    second.ack();
}

pub(crate) async fn an_acknowledged_message_does_not_come_again(broker: Arc<dyn Broker>) {
    let (queue, _) = with_orders(&broker).await;
    publish(&broker, &queue, &["done", "left"]).await;
    let mut consumer = consume(&broker, &queue, 10).await;
    next(&mut consumer).await.ack();
    let _left = next(&mut consumer).await;
    drop(consumer);
    let mut consumer = consume(&broker, &queue, 10).await;
    assert_eq!(take(&mut consumer, 1).await, ["left"]);
    publish(&broker, &queue, &["new"]).await;
    assert_eq!(take(&mut consumer, 1).await, ["new"]);
}

pub(crate) async fn a_delivery_is_settled_once_whatever_is_asked(broker: Arc<dyn Broker>) {
    let (queue, _) = with_orders(&broker).await;
    publish(&broker, &queue, &["one", "two", "three"]).await;
    let mut consumer = consume(&broker, &queue, 2).await;
    let (one, two) = (next(&mut consumer).await, next(&mut consumer).await);
    two.ack();
    two.ack();
    one.ack();
    one.requeue();
    two.requeue();
    one.ack();
    let three = next(&mut consumer).await;
    assert_eq!(text(&three), "three");
    three.ack();
    three.requeue();
    publish(&broker, &queue, &["four"]).await;
    assert_eq!(take(&mut consumer, 1).await, ["four"]);
}

pub(crate) async fn a_dropped_delivery_comes_again_when_its_consumer_is_gone(broker: Arc<dyn Broker>) {
    let (queue, _) = with_orders(&broker).await;
    publish(&broker, &queue, &["one"]).await;
    let mut consumer = consume(&broker, &queue, 1).await;
    drop(next(&mut consumer).await);
    drop(consumer);
    let again = next(&mut consume(&broker, &queue, 1).await).await;
    assert_eq!(text(&again), "one");
    assert!(again.redelivered);
}

pub(crate) async fn a_message_for_an_unknown_app_is_unrouted_and_keeps_its_address(broker: Arc<dyn Broker>) {
    with_orders(&broker).await;
    let mut unrouted = consume(&broker, &Queue::Unrouted, 10).await;
    let nobody = app("nobody");
    for queue in [
        Queue::Activities(nobody.clone()),
        Queue::Workflows(nobody.clone()),
        Queue::Events(nobody, 3),
        Queue::Events(app("orders"), 2),
    ] {
        let properties = Properties {
            message_id: Some("m-1".into()),
            ..Properties::default()
        };
        let sent = Message {
            properties: properties.clone(),
            ..message(&queue, "hello")
        };
        broker.publish(sent).await.expect("stored");
        let delivery = next(&mut unrouted).await;
        assert_eq!(delivery.routed_to, Some(queue));
        assert_eq!(delivery.properties, properties);
        assert_eq!(text(&delivery), "hello");
        delivery.ack();
    }
}

pub(crate) async fn an_event_queue_has_one_active_consumer_and_the_next_takes_over(broker: Arc<dyn Broker>) {
    let (_, lane) = with_orders(&broker).await;
    let mut active = consume(&broker, &lane, 10).await;
    let mut waiting = consume(&broker, &lane, 10).await;
    publish(&broker, &lane, &["1", "2", "3", "4"]).await;
    // The prefetch of both together would hold them all: that the first one gets each says that the second got none.
    assert_eq!(take(&mut active, 4).await, ["1", "2", "3", "4"]);
    active.cancel().await.expect("cancelled");
    publish(&broker, &lane, &["5"]).await;
    assert_eq!(take(&mut waiting, 1).await, ["5"]);
    assert!(active.next().await.is_none());
}

pub(crate) async fn a_dropped_active_consumer_hands_its_messages_to_the_next(broker: Arc<dyn Broker>) {
    let (_, lane) = with_orders(&broker).await;
    let mut active = consume(&broker, &lane, 10).await;
    let mut waiting = consume(&broker, &lane, 10).await;
    publish(&broker, &lane, &["1", "2", "3"]).await;
    next(&mut active).await.ack();
    let handed_out = next(&mut active).await;
    drop(active);
    for body in ["2", "3"] {
        let delivery = next(&mut waiting).await;
        assert_eq!(text(&delivery), body);
        assert!(delivery.redelivered);
        delivery.ack();
    }
    // Its consumer is gone: this does nothing, to nobody.
    handed_out.ack();
    publish(&broker, &lane, &["4"]).await;
    assert_eq!(take(&mut waiting, 1).await, ["4"]);
}

pub(crate) async fn competing_consumers_take_no_more_than_their_prefetch(broker: Arc<dyn Broker>) {
    let (queue, _) = with_orders(&broker).await;
    let mut greedy = consume(&broker, &queue, 2).await;
    publish(&broker, &queue, &["1", "2", "3"]).await;
    let (one, two) = (next(&mut greedy).await, next(&mut greedy).await);
    // Had the first consumer taken a third message, this one would wait in vain.
    let mut other = consume(&broker, &queue, 1).await;
    assert_eq!(take(&mut other, 1).await, ["3"]);
    other.cancel().await.expect("cancelled");
    publish(&broker, &queue, &["4"]).await;
    one.ack();
    assert_eq!(take(&mut greedy, 1).await, ["4"]);
    two.ack();
}

pub(crate) async fn no_competing_consumer_is_left_without_messages(broker: Arc<dyn Broker>) {
    let (activities, _) = with_orders(&broker).await;
    let counts = [AtomicUsize::new(0), AtomicUsize::new(0)];
    let consumers = [
        consume(&broker, &activities, 10).await,
        consume(&broker, &activities, 10).await,
    ];
    let takers = join_all(consumers.into_iter().zip(&counts).map(async |(mut consumer, count)| {
        loop {
            next(&mut consumer).await.ack();
            count.fetch_add(1, Ordering::Relaxed);
        }
    }));
    let feeder = async {
        // One at a time, so that whoever takes one has no more than the other.
        for number in 1..=50 {
            publish(&broker, &activities, &["message"]).await;
            let taken = async {
                while counts.iter().map(|count| count.load(Ordering::Relaxed)).sum::<usize>() < number {
                    tokio::task::yield_now().await;
                }
            };
            soon("a message to be taken", taken).await;
        }
    };
    tokio::select! {
        _ = takers => {}
        () = feeder => {}
    }
    assert!(
        counts.iter().all(|count| count.load(Ordering::Relaxed) > 0),
        "{counts:?}"
    );
}

pub(crate) async fn an_acknowledgement_past_a_gap_frees_its_place(broker: Arc<dyn Broker>) {
    let (queue, _) = with_orders(&broker).await;
    publish(&broker, &queue, &["slow", "1", "2"]).await;
    let mut consumer = consume(&broker, &queue, 2).await;
    let slow = next(&mut consumer).await;
    assert_eq!(take(&mut consumer, 2).await, ["1", "2"]);
    slow.ack();
    publish(&broker, &queue, &["3"]).await;
    assert_eq!(take(&mut consumer, 1).await, ["3"]);
}

pub(crate) async fn a_long_gap_frees_every_place_behind_it(broker: Arc<dyn Broker>) {
    let (queue, _) = with_orders(&broker).await;
    let sent: Vec<String> = (0..300).map(|number| number.to_string()).collect();
    let published = join_all(sent.iter().map(|body| broker.publish(message(&queue, body)))).await;
    assert!(published.iter().all(Result::is_ok));
    let mut consumer = consume(&broker, &queue, 100).await;
    let slow = next(&mut consumer).await;
    take(&mut consumer, sent.len() - 1).await;
    consumer.cancel().await.expect("cancelled");
    slow.requeue();
    let again = next(&mut consume(&broker, &queue, 10).await).await;
    assert_eq!(text(&again), text(&slow));
    again.ack();
}

pub(crate) async fn a_cancelled_consumer_hands_back_what_it_did_not_hand_out(broker: Arc<dyn Broker>) {
    let (queue, _) = with_orders(&broker).await;
    publish(&broker, &queue, &["1", "2", "3"]).await;
    let mut consumer = consume(&broker, &queue, 10).await;
    let _kept = next(&mut consumer).await;
    consumer.cancel().await.expect("cancelled");
    consumer.cancel().await.expect("harmless");
    assert!(consumer.next().await.is_none());
    let mut other = consume(&broker, &queue, 10).await;
    let mut handed_back = take(&mut other, 2).await;
    handed_back.sort();
    assert_eq!(handed_back, ["2", "3"]);
}

pub(crate) async fn a_cancelled_consumer_can_settle_what_it_handed_out(broker: Arc<dyn Broker>) {
    let (queue, _) = with_orders(&broker).await;
    publish(&broker, &queue, &["done", "handed back", "dropped"]).await;
    let mut consumer = consume(&broker, &queue, 10).await;
    let (done, back, dropped) = (
        next(&mut consumer).await,
        next(&mut consumer).await,
        next(&mut consumer).await,
    );
    consumer.cancel().await.expect("cancelled");
    drop(consumer);
    let mut other = consume(&broker, &queue, 10).await;
    back.requeue();
    assert_eq!(take(&mut other, 1).await, ["handed back"]);
    done.ack();
    drop((done, back, dropped));
    assert_eq!(take(&mut other, 1).await, ["dropped"]);
    publish(&broker, &queue, &["new"]).await;
    assert_eq!(take(&mut other, 1).await, ["new"]);
}

pub(crate) async fn waiting_for_a_message_may_be_given_up_without_losing_one(broker: Arc<dyn Broker>) {
    let (queue, _) = with_orders(&broker).await;
    let mut consumer = consume(&broker, &queue, 10).await;
    let (mut received, mut published) = (Vec::new(), 0);
    while received.len() < 20 {
        // Either side may be ready first, and the loser is dropped half-way.
        tokio::select! {
            delivery = consumer.next() => {
                let delivery = delivery.expect("the subscription lives");
                delivery.ack();
                received.push(text(&delivery));
            }
            () = publish(&broker, &queue, &["x"]), if published < 20 => published += 1,
        }
    }
    assert_eq!(received.len(), 20);
}

pub(crate) async fn a_missing_queue_has_no_depth_and_no_consumers(broker: Arc<dyn Broker>) {
    let (queue, _) = with_orders(&broker).await;
    let missing = Queue::Activities(app("nobody"));
    assert_eq!(broker.depth(&missing).await.expect("answered"), None);
    assert_eq!(
        broker.depth(&Queue::Events(app("orders"), 2)).await.expect("answered"),
        None
    );
    let error = broker.consume(&missing, 1).await.err().expect("refused");
    assert!(error.is_permanent(), "{error}");
    assert!(error.to_string().contains("nobody.activities"), "{error}");
    // Neither disturbed anybody else.
    publish(&broker, &queue, &["one"]).await;
    assert_eq!(take(&mut consume(&broker, &queue, 1).await, 1).await, ["one"]);
}

pub(crate) async fn depth_counts_what_waits_and_who_listens(broker: Arc<dyn Broker>) {
    let (queue, _) = with_orders(&broker).await;
    depth_becomes(&broker, &queue, Some(QueueDepth::default())).await;
    publish(&broker, &queue, &["1", "2", "3"]).await;
    depth_becomes(
        &broker,
        &queue,
        Some(QueueDepth {
            messages: 3,
            consumers: 0,
        }),
    )
    .await;
    let mut consumer = consume(&broker, &queue, 1).await;
    let held = next(&mut consumer).await;
    depth_becomes(
        &broker,
        &queue,
        Some(QueueDepth {
            messages: 2,
            consumers: 1,
        }),
    )
    .await;
    drop((consumer, held));
    depth_becomes(
        &broker,
        &queue,
        Some(QueueDepth {
            messages: 3,
            consumers: 0,
        }),
    )
    .await;
}

pub(crate) async fn declaring_twice_keeps_what_is_there(broker: Arc<dyn Broker>) {
    let (queue, _) = with_orders(&broker).await;
    publish(&broker, &queue, &["one"]).await;
    with_orders(&broker).await;
    assert_eq!(take(&mut consume(&broker, &queue, 1).await, 1).await, ["one"]);
}

pub(crate) async fn an_app_may_be_declared_again_with_more_lanes(broker: Arc<dyn Broker>) {
    broker.declare(&app("orders"), 1).await.expect("declared");
    let lane = Queue::Events(app("orders"), 3);
    assert_eq!(broker.depth(&lane).await.expect("answered"), None);
    broker.declare(&app("orders"), 4).await.expect("declared");
    publish(&broker, &lane, &["one"]).await;
    assert_eq!(take(&mut consume(&broker, &lane, 1).await, 1).await, ["one"]);
}

pub(crate) async fn a_removed_app_is_unknown(broker: Arc<dyn Broker>) {
    let (queue, lane) = with_orders(&broker).await;
    broker.declare(&app("billing"), 1).await.expect("declared");
    publish(&broker, &queue, &["lost with its queue"]).await;
    let mut consumer = consume(&broker, &lane, 1).await;
    broker.remove(&app("orders"), 2).await.expect("removed");
    broker.remove(&app("orders"), 2).await.expect("harmless");
    assert!(soon("the end of the subscription", consumer.next()).await.is_none());
    for queue in [
        &queue,
        &lane,
        &Queue::Workflows(app("orders")),
        &Queue::Dead(app("orders")),
    ] {
        assert_eq!(broker.depth(queue).await.expect("answered"), None, "{queue}");
    }
    publish(&broker, &queue, &["unrouted"]).await;
    assert_eq!(
        take(&mut consume(&broker, &Queue::Unrouted, 1).await, 1).await,
        ["unrouted"]
    );
    // And nobody else is.
    let other = Queue::Activities(app("billing"));
    publish(&broker, &other, &["routed"]).await;
    assert_eq!(take(&mut consume(&broker, &other, 1).await, 1).await, ["routed"]);
}

pub(crate) async fn the_dead_queue_keeps_what_it_is_sent(broker: Arc<dyn Broker>) {
    with_orders(&broker).await;
    let dead = Queue::Dead(app("orders"));
    let properties = Properties {
        headers: vec![("leveret-reason".into(), "undecodable".into())],
        ..Properties::default()
    };
    let sent = Message {
        properties: properties.clone(),
        ..message(&dead, "?")
    };
    broker.publish(sent).await.expect("stored");
    depth_becomes(
        &broker,
        &dead,
        Some(QueueDepth {
            messages: 1,
            consumers: 0,
        }),
    )
    .await;
    let delivery = next(&mut consume(&broker, &dead, 1).await).await;
    assert_eq!(delivery.properties, properties);
    assert_eq!(delivery.routed_to, Some(dead));
}

/// All that a look through the queue finds, in its order, and the tags.
async fn look(browse: &mut Box<dyn Browse>) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    while let Some(message) = soon("a look", browse.next()).await.expect("a look") {
        found.push((String::from_utf8(message.body.to_vec()).expect("text"), message.tag));
    }
    found
}

/// What waits in the queue, once so many messages do.
async fn contents(broker: &Arc<dyn Broker>, queue: &Queue, count: u64) -> Vec<String> {
    let expected = QueueDepth {
        messages: count,
        consumers: 0,
    };
    depth_becomes(broker, queue, Some(expected)).await;
    let mut browse = broker.browse(queue).await.expect("a look");
    let found = look(&mut browse).await;
    browse.close().await.expect("closed");
    // Not every broker puts back what was looked at in its order.
    let mut bodies: Vec<String> = found.into_iter().map(|(body, _)| body).collect();
    bodies.sort();
    bodies
}

pub(crate) async fn a_look_through_a_queue_leaves_it_as_it_was(broker: Arc<dyn Broker>) {
    with_orders(&broker).await;
    let dead = Queue::Dead(app("orders"));
    let mut bodies: Vec<String> = (0..300).map(|n| n.to_string()).collect();
    bodies.sort();
    let all: Vec<&str> = bodies.iter().map(String::as_str).collect();
    publish(&broker, &dead, &all).await;
    for _ in 0..3 {
        assert_eq!(contents(&broker, &dead, 300).await, bodies);
    }
    // One that is dropped in the middle.
    let mut browse = broker.browse(&dead).await.expect("a look");
    for _ in 0..100 {
        browse.next().await.expect("a look");
    }
    drop(browse);
    assert_eq!(contents(&broker, &dead, 300).await, bodies);
    assert!(
        broker
            .browse(&Queue::Dead(app("nobody")))
            .await
            .err()
            .is_some_and(|error| error.is_permanent())
    );
}

pub(crate) async fn what_a_look_removes_is_gone_and_the_rest_is_there(broker: Arc<dyn Broker>) {
    with_orders(&broker).await;
    let dead = Queue::Dead(app("orders"));
    publish(&broker, &dead, &["a", "b", "c", "d", "e"]).await;
    let mut browse = broker.browse(&dead).await.expect("a look");
    let found = look(&mut browse).await;
    for (body, tag) in &found {
        if body == "b" || body == "d" {
            browse.remove(*tag).await.expect("removed");
        }
    }
    publish(&broker, &dead, &["f"]).await;
    browse.close().await.expect("closed");
    assert_eq!(contents(&broker, &dead, 4).await, ["a", "c", "e", "f"]);
}

pub(crate) async fn two_who_look_at_the_same_time_lose_nothing(broker: Arc<dyn Broker>) {
    with_orders(&broker).await;
    let dead = Queue::Dead(app("orders"));
    publish(&broker, &dead, &["a", "b", "c", "d"]).await;
    let (mut one, mut other) = (
        broker.browse(&dead).await.expect("a look"),
        broker.browse(&dead).await.expect("a look"),
    );
    one.next().await.expect("a look").expect("a message");
    let rest = look(&mut other).await;
    assert_eq!(rest.len(), 3, "each finds a part");
    other.remove(rest[1].1).await.expect("removed");
    drop(one);
    other.close().await.expect("closed");
    assert_eq!(contents(&broker, &dead, 3).await, ["a", "b", "d"]);
}

pub(crate) async fn a_broker_that_works_is_ready(broker: Arc<dyn Broker>) {
    assert_eq!(broker.readiness(), Ok(()));
    with_orders(&broker).await;
    assert_eq!(broker.readiness(), Ok(()));
}
