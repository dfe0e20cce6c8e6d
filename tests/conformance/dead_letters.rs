//! Dead letters: what could not be processed is listed, shown, retried and dropped, and none is lost on the way.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use leveret::backend::{
    Backend, Broker, Browse, Consumer, DueKind, Message, Properties, Queue, QueueDepth, Result as BackendResult,
};
use leveret::client::{DeadLetter, DeadLetters, LetterContent, LetterFilter, Retried};
use leveret::wire::{Bundle, Item};
use leveret::{AppId, Client, Limits, MessageId, Settings, Status, Workflow, WorkflowContext, kinds};

use crate::harness::*;
use crate::programs::*;

const MAIN: Workflow<u64, u64> = Workflow::new("orders", "main");

async fn add_one(_: WorkflowContext, n: u64) -> leveret::Result<u64> {
    ok(n + 1)
}

impl Stage {
    /// Publishes something by hand.
    async fn send(&self, queue: Queue, body: impl AsRef<[u8]>) {
        let message = Message {
            queue,
            body: Bytes::copy_from_slice(body.as_ref()),
            properties: Properties::default(),
        };
        self.broker().publish(message).await.unwrap();
    }

    /// Puts a message into a dead queue, as somebody who gives it up.
    async fn give_up(&self, app_id: &str, origin: &str, items: Vec<Item>) {
        let at = self.backend.store().now().await.unwrap().as_millis().to_string();
        let headers = [
            ("leveret-reason", "a reason"),
            ("leveret-origin", origin),
            ("leveret-at", at.as_str()),
        ];
        let mut message = Message::bundle(
            Queue::Dead(app(app_id)),
            Bundle::new(items).encode(),
            &MessageId::generate(),
        );
        message.properties.headers = headers
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec();
        self.broker().publish(message).await.unwrap();
    }

    /// The same with a raw start.
    async fn give_up_raw(&self, app_id: &str, origin: &str, body: &str) {
        let headers = [("leveret-reason", "a reason"), ("leveret-origin", origin)];
        let properties = Properties {
            headers: headers
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .to_vec(),
            ..Properties::default()
        };
        let message = Message {
            queue: Queue::Dead(app(app_id)),
            body: Bytes::copy_from_slice(body.as_bytes()),
            properties,
        };
        self.broker().publish(message).await.unwrap();
    }

    fn dead(&self, app_id: &str) -> DeadLetters {
        self.client.dead_letters(LetterFilter::app(app_id))
    }

    /// Returns when there are so many letters.
    async fn wait_for_letters(&self, app_id: &str, count: u64) -> Vec<DeadLetter> {
        self.wait_for_depth(Queue::Dead(app(app_id)), count).await;
        let letters = self.dead(app_id).list().await.unwrap();
        assert_eq!(letters.len() as u64, count, "{letters:?}");
        self.wait_for_depth(Queue::Dead(app(app_id)), count).await;
        letters
    }

    /// The letters that a filter chooses.
    async fn chosen(&self, filter: LetterFilter) -> usize {
        self.client.dead_letters(filter).list().await.unwrap().len()
    }
}

pub(crate) async fn letters_are_listed_with_reason_origin_and_age(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let _orders = up(stage.worker("orders").workflow(MAIN, add_one)).await;
    stage.known_app("payments").await;
    stage.send(Queue::Workflows(app("orders")), "no start at all").await;
    stage
        .send(
            Queue::Workflows(app("orders")),
            r#"{"workflow": "main", "instance_id": "x", "colour": "red"}"#,
        )
        .await;
    stage.send(Queue::Activities(app("orders")), [0xff, 0xfe]).await;
    let letters = stage.wait_for_letters("orders", 3).await;
    let now = stage.backend.store().now().await.unwrap();
    for letter in &letters {
        let age = now.since(letter.died_at.expect("a time"));
        assert!(age < PATIENCE, "{letter:?}");
        assert!(!letter.reason.is_empty() && letter.app == app("orders"), "{letter:?}");
    }
    assert_eq!(
        stage.wait_for_letters("orders", 3).await,
        letters,
        "a list changes nothing"
    );

    let of = || LetterFilter::app("orders");
    assert_eq!(stage.chosen(of().origin("orders.workflows")).await, 2);
    assert_eq!(stage.chosen(of().origin("orders.activities")).await, 1);
    assert_eq!(stage.chosen(of().reason("COLOUR")).await, 1);
    assert_eq!(stage.chosen(of().kind("unreadable")).await, 3);
    assert_eq!(stage.chosen(of().kind("task")).await, 0);
    assert_eq!(stage.chosen(of().younger_than(PATIENCE)).await, 3);
    assert_eq!(stage.chosen(of().older_than(PATIENCE)).await, 0);
    assert_eq!(stage.chosen(of().id(&letters[1].id)).await, 1);
    assert_eq!(stage.chosen(LetterFilter::app("payments")).await, 0);
    assert_eq!(stage.chosen(LetterFilter::all_apps()).await, 3);
    assert_eq!(stage.dead("orders").most(2).list().await.unwrap().len(), 2);

    let raw = stage.client.dead_letters(of().reason("colour"));
    let opened = raw.open().await.unwrap();
    let LetterContent::Text(text) = &opened[0].content else {
        panic!("{opened:?}")
    };
    assert!(text.contains("red"), "{text}");
    let dropped = raw.discard().await.unwrap();
    assert_eq!(dropped.len(), 1);
    let left = stage.wait_for_letters("orders", 2).await;
    assert!(left.iter().all(|letter| letter.id != dropped[0].id));
}

pub(crate) async fn a_letter_that_is_retried_completes_its_call(h: &impl Harness) {
    let stage = Stage::new(h).await;
    stage.known_app("payments").await;
    let _orders = up(stage.worker("orders").workflow(MAIN, call_work)).await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    let activities = Queue::Activities(app("payments"));
    // An operator's policy on the queue has it expire.
    let items = stage.take(&activities).await;
    stage.give_up("payments", "payments.activities", items).await;
    let letters = stage.wait_for_letters("payments", 1).await;
    assert_eq!(
        (letters[0].kind.as_str(), letters[0].name.as_deref()),
        ("task", Some("work"))
    );
    assert_eq!(letters[0].instance.as_ref(), Some(run.instance()));
    let opened = stage.dead("payments").open().await.unwrap();
    assert!(opened[0].settled.is_none(), "{opened:?}");
    assert!(matches!(&opened[0].content, LetterContent::Items(items) if matches!(items[0], Item::Task(_))));

    let runs = Tally::new();
    let _payments = up(stage.worker("payments").activity(WORK, counted(&runs))).await;
    let retried = stage.dead("payments").retry().await.unwrap();
    assert_eq!(retried[0].outcome, Retried::Sent(vec!["payments.activities".into()]));
    assert_eq!(done(&run).await, 7);
    assert_eq!(runs.get(), 1);
    stage.wait_for_letters("payments", 0).await;
    assert!(stage.dead("payments").retry().await.unwrap().is_empty());
}

pub(crate) async fn a_letter_whose_call_is_over_is_settled(h: &impl Harness) {
    let stage = Stage::new(h).await;
    stage.known_app("payments").await;
    let workflow: Workflow<u64, String> = Workflow::new("orders", "main");
    let kind = async |ctx: WorkflowContext, n: u64| kind_of(ctx.call(WORK, n).await);
    let _orders = up(stage.worker("orders").workflow(workflow, kind)).await;
    let run = stage.client.start(workflow, 7).id("one").await.unwrap();
    let activities = Queue::Activities(app("payments"));
    // It has taken down its process as often as it may.
    let items = stage.take_and_die(&activities).await;
    let Item::Task(task) = &items[0] else {
        panic!("{items:?}")
    };
    stage
        .runs_died("payments", &task.message_id(), Limits::default().crashes)
        .await;
    let runs = Tally::new();
    let _payments = up(stage.worker("payments").activity(WORK, counted(&runs))).await;
    assert_eq!(done(&run).await, kinds::ACTIVITY_CRASHED);
    let letters = stage.wait_for_letters("payments", 1).await;
    assert_eq!(letters[0].origin, "payments.activities");
    assert!(letters[0].reason.contains("died each time"), "{}", letters[0].reason);
    let retried = stage.dead("payments").retry().await.unwrap();
    let Retried::Settled(why) = &retried[0].outcome else {
        panic!("{retried:?}")
    };
    assert!(why.contains("orders/one is Completed"), "{why}");
    stage.wait_for_letters("payments", 1).await;
    assert_eq!(stage.dead("payments").discard().await.unwrap(), letters);
    stage.wait_for_letters("payments", 0).await;
    assert_eq!(runs.get(), 0);
}

pub(crate) async fn a_raw_start_that_is_retried_counts_once(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let narrow = Settings {
        limits: Limits {
            payload_bytes: 4,
            ..Limits::default()
        },
        ..settings()
    };
    let orders = || stage.worker("orders").workflow(MAIN, add_one);
    let narrow = up(orders().settings(narrow)).await;
    let body = r#"{"workflow": "main", "instance_id": "one", "input": 1000000}"#;
    stage.send(Queue::Workflows(app("orders")), body).await;
    stage.send(Queue::Workflows(app("orders")), body).await;
    let letters = stage.wait_for_letters("orders", 2).await;
    assert_eq!(letters[0].kind, "raw start");
    assert!(letters[0].reason.contains("input"), "{}", letters[0].reason);
    narrow.stop().await;
    let _wide = up(orders()).await;
    let first = stage.client.dead_letters(LetterFilter::app("orders")).most(1);
    let retried = first.retry().await.unwrap();
    assert_eq!(retried[0].outcome, Retried::Sent(vec!["orders.workflows".into()]));
    let info = stage.wait_for_status("orders", "one", Status::Completed).await;
    assert_eq!(info.output.as_ref().unwrap().decode::<u64>().unwrap(), 1_000_001);
    stage.wait_for_depth(Queue::Dead(app("orders")), 1).await;
    let retried = stage.dead("orders").retry().await.unwrap();
    assert!(matches!(&retried[0].outcome, Retried::Settled(why) if why.contains("orders/one")));
}

pub(crate) async fn a_letter_that_cannot_be_processed_this_time_either_comes_back(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let _orders = up(stage.worker("orders").workflow(MAIN, add_one)).await;
    stage.send(Queue::Workflows(app("orders")), "no start at all").await;
    let letters = stage.wait_for_letters("orders", 1).await;
    let retried = stage.dead("orders").retry().await.unwrap();
    assert_eq!(retried.len(), 1, "what comes back meanwhile is not retried at once");
    let again = until("the letter to come back", async || {
        let again = stage.dead("orders").list().await.unwrap();
        again
            .first()
            .filter(|again| again.died_at > letters[0].died_at)
            .cloned()
    })
    .await;
    assert_eq!((&again.reason, &again.origin), (&letters[0].reason, &letters[0].origin));
    // A routing key that names no queue: nobody can tell where it should go.
    stage.give_up("orders", "unrouted", Vec::new()).await;
    let lost = stage
        .client
        .dead_letters(LetterFilter::app("orders").origin("unrouted"));
    stage.wait_for_depth(Queue::Dead(app("orders")), 2).await;
    assert!(matches!(lost.retry().await.unwrap()[0].outcome, Retried::Impossible(_)));
}

pub(crate) async fn an_item_in_the_wrong_place_is_sent_to_where_it_belongs(h: &impl Harness) {
    let stage = Stage::new(h).await;
    stage.known_app("orders").await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    let items = stage.take(&Queue::Workflows(app("orders"))).await;
    stage.publish(Queue::Events(app("orders"), 1), items).await;
    let _orders = up(stage.worker("orders").workflow(MAIN, add_one)).await;
    let letters = stage.wait_for_letters("orders", 1).await;
    assert_eq!(
        (letters[0].origin.as_str(), letters[0].kind.as_str()),
        ("orders.events.1", "start")
    );
    let retried = stage.dead("orders").retry().await.unwrap();
    assert_eq!(retried[0].outcome, Retried::Sent(vec!["orders.workflows".into()]));
    assert_eq!(done(&run).await, 8);
}

/// A broker whose publisher stands still from the third message on.
struct Stopping {
    broker: Arc<dyn Broker>,
    published: Tally,
}

#[async_trait::async_trait]
impl Broker for Stopping {
    async fn declare(&self, app: &AppId, lanes: u16) -> BackendResult<()> {
        self.broker.declare(app, lanes).await
    }

    async fn publish(&self, message: Message) -> BackendResult<()> {
        if self.published.get() == 2 {
            self.published.add();
            std::future::pending::<()>().await;
        }
        self.broker.publish(message).await?;
        self.published.add();
        Ok(())
    }

    async fn consume(&self, queue: &Queue, prefetch: u16) -> BackendResult<Box<dyn Consumer>> {
        self.broker.consume(queue, prefetch).await
    }

    async fn browse(&self, queue: &Queue) -> BackendResult<Box<dyn Browse>> {
        self.broker.browse(queue).await
    }

    async fn depth(&self, queue: &Queue) -> BackendResult<Option<QueueDepth>> {
        self.broker.depth(queue).await
    }

    async fn remove(&self, app: &AppId, lanes: u16) -> BackendResult<()> {
        self.broker.remove(app, lanes).await
    }

    fn readiness(&self) -> Result<(), String> {
        self.broker.readiness()
    }
}

pub(crate) async fn a_retry_that_ends_in_the_middle_loses_no_letter(h: &impl Harness) {
    const LETTERS: u64 = 5;
    let stage = Stage::new(h).await;
    stage.known_app("orders").await;
    let mut runs = Vec::new();
    for n in 0..LETTERS {
        runs.push(stage.client.start(MAIN, n).await.unwrap());
        let items = stage.take(&Queue::Workflows(app("orders"))).await;
        stage.give_up("orders", "orders.workflows", items).await;
    }
    stage.wait_for_letters("orders", LETTERS).await;
    let published = Tally::new();
    let broker = Stopping {
        broker: stage.broker().clone(),
        published: published.clone(),
    };
    let backend = Backend::new(
        stage.backend.namespace().clone(),
        Arc::new(broker),
        stage.backend.store().clone(),
        stage.backend.clock().clone(),
        "a publisher that stands still",
    );
    let client = Client::builder(backend).patience(Duration::from_secs(600)).build();
    let letters = client.dead_letters(LetterFilter::app("orders"));
    tokio::select! {
        retried = letters.retry() => panic!("the publisher was to stand still: {retried:?}"),
        () = published.reach(3) => {}
    }
    // Two were sent; that they were removed may not be known to the broker, and what is sent twice counts once.
    stage.wait_for_depth(Queue::Workflows(app("orders")), 2).await;
    until("the others to be back", async || {
        let left = stage.depth(Queue::Dead(app("orders"))).await;
        (left >= LETTERS - 2).then_some(())
    })
    .await;
    let retried = stage.dead("orders").retry().await.unwrap();
    assert!(retried.iter().all(|letter| matches!(letter.outcome, Retried::Sent(_))));
    assert_eq!(stage.dead("orders").list().await.unwrap(), []);
    let begun = Tally::new();
    let _orders = up(stage.worker("orders").workflow(MAIN, counted(&begun))).await;
    for (n, run) in runs.iter().enumerate() {
        assert_eq!(done(run).await, n as u64);
    }
    assert_eq!(begun.get() as u64, LETTERS);
    assert!(stage.due("orders", DueKind::Parked).await.is_empty());
}

pub(crate) async fn an_id_names_one_letter_or_nothing_is_touched(h: &impl Harness) {
    const LETTERS: u64 = 40;
    let stage = Stage::new(h).await;
    stage.known_app("orders").await;
    for n in 0..LETTERS {
        stage.send(Queue::Dead(app("orders")), n.to_string()).await;
    }
    let letters = stage.wait_for_letters("orders", LETTERS).await;
    let of = |ids: &[&str]| {
        let filter = LetterFilter::app("orders");
        stage
            .client
            .dead_letters(ids.iter().fold(filter, |filter, id| filter.id(*id)))
    };
    let whole = letters[0].id.as_str();
    // Of forty letters two begin alike.
    let shared = letters.iter().find_map(|one| {
        let first = &one.id[..1];
        let alike = letters.iter().filter(|other| other.id.starts_with(first)).count();
        (alike > 1).then_some(first)
    });
    let shared = shared.expect("a digit that two begin with");
    for (ids, told) in [
        (&[""][..], "empty"),
        (&[whole, shared], "begin with"),
        (&[whole, "no such letter"], "no such letter"),
    ] {
        for problem in [of(ids).discard().await.unwrap_err(), of(ids).retry().await.unwrap_err()] {
            assert!(problem.to_string().contains(told), "{ids:?}: {problem}");
        }
        stage.wait_for_depth(Queue::Dead(app("orders")), LETTERS).await;
    }
    // To look at, a beginning may name many, and none.
    assert!(of(&[shared]).list().await.unwrap().len() > 1);
    assert!(of(&[""]).list().await.is_err());
    let empty = stage.client.dead_letters(LetterFilter::app("orders").reason(""));
    assert!(empty.discard().await.is_err());
    stage.wait_for_depth(Queue::Dead(app("orders")), LETTERS).await;
    let dropped = of(&[&whole[..12]]).discard().await.unwrap();
    assert_eq!((dropped.len(), dropped[0].id.as_str()), (1, whole));
    stage.wait_for_depth(Queue::Dead(app("orders")), LETTERS - 1).await;
}

pub(crate) async fn a_raw_start_that_another_app_has_buried_is_about_its_own_app(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let _payments = up(stage.worker("payments")).await;
    let body = r#"{"workflow": "main", "instance_id": "one", "input": 7}"#;
    stage.send(Queue::Workflows(app("orders")), body).await;
    let letters = stage.wait_for_letters("payments", 1).await;
    assert_eq!(letters[0].instance, Some(instance("orders", "one")));
    let _orders = up(stage.worker("orders").workflow(MAIN, add_one)).await;
    let retried = stage.dead("payments").retry().await.unwrap();
    assert_eq!(retried[0].outcome, Retried::Sent(vec!["orders.workflows".into()]));
    stage.wait_for_status("orders", "one", Status::Completed).await;
    stage.give_up_raw("payments", "orders.workflows", body).await;
    stage.wait_for_depth(Queue::Dead(app("payments")), 1).await;
    let again = stage.dead("payments").retry().await.unwrap();
    assert!(
        matches!(&again[0].outcome, Retried::Settled(why) if why.contains("orders/one")),
        "{again:?}"
    );
}

pub(crate) async fn a_letter_of_a_call_that_the_history_does_not_have_is_not_settled(h: &impl Harness) {
    let stage = Stage::new(h).await;
    stage.known_app("payments").await;
    let _orders = up(stage.worker("orders").workflow(MAIN, call_work)).await;
    let run = stage.client.start(MAIN, 7).id("one").await.unwrap();
    let items = stage.take(&Queue::Activities(app("payments"))).await;
    // As when the store has lost the turn that scheduled it.
    let Item::Task(task) = &items[0] else {
        panic!("{items:?}")
    };
    let mut unknown = task.clone();
    unknown.caller.sequence += 7;
    stage
        .give_up("payments", "payments.activities", vec![Item::Task(unknown)])
        .await;
    stage.wait_for_letters("payments", 1).await;
    let opened = stage.dead("payments").open().await.unwrap();
    assert_eq!(opened[0].settled, None);
    run.terminate("enough").and_wait(PATIENCE).await.unwrap();
}
