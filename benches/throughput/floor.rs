//! The floor: the same series written by hand, with no framework and one message an item.
//!
//! The driver is client and state machine of app A, the target runs the activities of app B. A workflow of three steps takes seven messages (a start, three
//! tasks, three results), each persistent, confirmed and acknowledged, and four commits, each one fenced script. It is written as well as that can be:
//! what is ready is handled together, with one pipeline to Redis, publishes side by side, and one acknowledgement for all.
//!
//! Two other loops by hand show what stands between it and Leveret ([`ByHand`]).

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::time::{Duration, Instant};

use deadpool_redis::redis::aio::MultiplexedConnection;
use deadpool_redis::redis::io::tcp::TcpSettings;
use deadpool_redis::redis::{self, Client, IntoConnectionInfo};
use futures_util::future::try_join_all;
use futures_util::stream::FuturesOrdered;
use futures_util::{FutureExt, StreamExt};
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Consumer};
use serde::{Deserialize, Serialize};

use crate::kept;
use crate::process::{ByHand, Counts, Ran, Requests, Round, Scene};

/// Deliveries that are handled together, and batches that are on their way at once.
const BATCH: usize = 128;
const BATCHES: usize = 4;
const PREFETCH: u16 = 1000;
/// A round that comes no further for so long has lost something.
const STANDSTILL: Duration = Duration::from_secs(60);

/// Items that share a message at most, if any do: as many as of Leveret's, to A's lane and to B's workers.
fn bundle(to: To) -> usize {
    match to {
        To::A => 1024,
        To::B => 128,
    }
}

/// Appends a turn, if the workflow is at the version that its worker has seen.
const COMMIT: &str = "
if (redis.call('HGET', KEYS[1], 'version') or '0') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'version', ARGV[2], 'status', ARGV[3])
redis.call('RPUSH', KEYS[2], ARGV[4])
return 1";

/// A start (step 0 to A), a task (to B) or its result (to A).
#[derive(Serialize, Deserialize)]
pub(crate) struct Item {
    pub(crate) workflow: String,
    pub(crate) step: u32,
    pub(crate) payload: String,
}

/// Who takes an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum To {
    A,
    B,
}

impl To {
    fn queue(self, by_hand: ByHand) -> String {
        format!("{}.{self:?}", by_hand.name())
    }
}

/// Two connections: while a broker blocks publishers, the client library stops acknowledgements on theirs.
struct Station {
    publish: Publisher,
    consume: Channel,
    consumer: Consumer,
    _connections: [Connection; 2],
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl Station {
    async fn open(scene: &Scene, reader: To) -> Result<Self, String> {
        let connect = || Connection::connect(&scene.amqp, ConnectionProperties::default());
        let connections = [connect().await.map_err(text)?, connect().await.map_err(text)?];
        let publish = connections[0].create_channel().await.map_err(text)?;
        publish
            .confirm_select(ConfirmSelectOptions::default())
            .await
            .map_err(text)?;
        let consume = connections[1].create_channel().await.map_err(text)?;
        for queue in [To::A, To::B] {
            let mut arguments = FieldTable::default();
            arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
            let options = QueueDeclareOptions {
                durable: true,
                ..Default::default()
            };
            consume
                .queue_declare(queue.queue(scene.by_hand).into(), options, arguments)
                .await
                .map_err(text)?;
        }
        consume
            .basic_qos(PREFETCH, BasicQosOptions::default())
            .await
            .map_err(text)?;
        let consumer = consume
            .basic_consume(
                reader.queue(scene.by_hand).into(),
                "".into(),
                BasicConsumeOptions::default(),
                FieldTable::default(),
            )
            .await
            .map_err(text)?;
        Ok(Self {
            publish: Publisher {
                channel: publish,
                by_hand: scene.by_hand,
            },
            consume,
            consumer,
            _connections: connections,
        })
    }

    /// What is ready, at least one.
    async fn batch(consumer: &mut Consumer) -> Result<Vec<Delivery>, String> {
        let mut batch = Vec::new();
        let mut next = consumer.next().await;
        loop {
            match next {
                Some(delivery) => batch.push(delivery.map_err(text)?),
                None => return Err("the subscription has ended".into()),
            }
            if batch.len() == BATCH {
                return Ok(batch);
            }
            next = match consumer.next().now_or_never() {
                Some(next) => next,
                None => return Ok(batch),
            };
        }
    }

    /// Handles batches, some at once, and acknowledges each when it and those before it are done; until `is_over`.
    async fn serve<F: Future<Output = Result<(), String>>>(
        &mut self,
        handle: impl Fn(Publisher, Vec<Item>) -> F,
        is_over: impl Fn() -> bool,
    ) -> Result<(), String> {
        let mut under_way = FuturesOrdered::new();
        while !is_over() || !under_way.is_empty() {
            tokio::select! {
                biased;
                Some(done) = under_way.next() => {
                    let last: u64 = done?;
                    self.consume.basic_ack(last, BasicAckOptions { multiple: true }).await.map_err(text)?;
                }
                batch = Self::batch(&mut self.consumer), if under_way.len() < BATCHES => {
                    let batch = batch?;
                    let last = batch.last().map_or(0, |delivery| delivery.delivery_tag);
                    let items = batch.iter().map(|delivery| serde_json::from_slice::<Vec<Item>>(&delivery.data));
                    let items = items.collect::<Result<Vec<_>, _>>().map_err(text)?.into_iter().flatten().collect();
                    let handled = handle(self.publish.clone(), items);
                    under_way.push_back(async move { handled.await.map(|()| last) });
                }
                () = tokio::time::sleep(STANDSTILL) => return Err(format!("nothing has come for {STANDSTILL:?}")),
            }
        }
        Ok(())
    }
}

/// What publishes items, one a message or as many as there are.
#[derive(Clone)]
struct Publisher {
    channel: Channel,
    by_hand: ByHand,
}

impl Publisher {
    /// Publishes side by side; returns when all are confirmed.
    async fn publish(&self, items: Vec<(To, Item)>) -> Result<(), String> {
        let (of_a, of_b): (Vec<_>, Vec<_>) = items.into_iter().partition(|(to, _)| *to == To::A);
        let mut messages = Vec::new();
        for (to, items) in [(To::A, of_a), (To::B, of_b)] {
            let items: Vec<Item> = items.into_iter().map(|(_, item)| item).collect();
            let most = if self.by_hand == ByHand::Floor { 1 } else { bundle(to) };
            for bundle in items.chunks(most) {
                messages.push((to.queue(self.by_hand), serde_json::to_vec(bundle).map_err(text)?));
            }
        }
        let published = messages.into_iter().map(|(queue, body)| async move {
            let properties = BasicProperties::default().with_delivery_mode(2);
            let options = BasicPublishOptions::default();
            let sent = self
                .channel
                .basic_publish("".into(), queue.into(), options, &body, properties);
            sent.await.map_err(text)?.await.map_err(text)
        });
        try_join_all(published).await.map(drop)
    }
}

/// App B: answers each task.
pub(crate) async fn target(scene: Scene) -> Result<(), String> {
    let mut station = Station::open(&scene, To::B).await?;
    let answer = |publisher: Publisher, items: Vec<Item>| async move {
        publisher
            .publish(items.into_iter().map(|item| (To::A, item)).collect())
            .await
    };
    let end = Requests::new().tell(Counts::default);
    let served = async {
        loop {
            // Between rounds nothing comes.
            match station.serve(answer, || false).await {
                Err(problem) if problem.starts_with("nothing has come") => {}
                ended => return ended,
            }
        }
    };
    tokio::select! {
        served = served => served,
        () = end => Ok(()),
    }
}

/// What the client part knows of the round.
#[derive(Default)]
struct Progress {
    began: HashMap<String, Instant>,
    started: usize,
    micros: Vec<u64>,
}

/// App A: starts workflows and takes them on.
pub(crate) async fn driver(scene: Scene) -> Result<(), String> {
    let mut station = Station::open(&scene, To::A).await?;
    let address = scene.redis.as_str().into_connection_info().map_err(text)?;
    let address = address.set_tcp_settings(TcpSettings::default().set_nodelay(true));
    let redis = Client::open(address).map_err(text)?;
    let mut redis = redis.get_multiplexed_async_connection().await.map_err(text)?;
    let own = redis::Script::new(COMMIT);
    for script in [&own].into_iter().chain(kept::scripts()) {
        script.prepare_invoke().load_async(&mut redis).await.map_err(text)?;
    }
    let mut requests = Requests::new();
    while let Some(round) = requests.next().await {
        requests.answer(&run(&mut station, &redis, &scene, round).await);
    }
    Ok(())
}

async fn run(station: &mut Station, redis: &MultiplexedConnection, scene: &Scene, round: Round) -> Result<Ran, String> {
    let steps = scene.workload.floor_steps(round.steps);
    let progress = &RefCell::new(Progress::default());
    let start = || {
        let mut progress = progress.borrow_mut();
        if progress.started == round.count {
            return None;
        }
        progress.started += 1;
        let workflow = uuid::Uuid::now_v7().to_string();
        progress.began.insert(workflow.clone(), Instant::now());
        let payload = "x".repeat(scene.payload);
        Some((
            To::A,
            Item {
                workflow,
                step: 0,
                payload,
            },
        ))
    };
    let began = Instant::now();
    let first: Vec<_> = (0..round.in_flight).map_while(|_| start()).collect();
    let by_hand = scene.by_hand;
    create(&mut redis.clone(), by_hand, &first).await?;
    station.publish.publish(first).await?;
    let turn = |publisher: Publisher, items: Vec<Item>| {
        let mut redis = redis.clone();
        async move {
            commit(&mut redis, by_hand, &items, steps).await?;
            let mut next = Vec::with_capacity(items.len());
            for item in items {
                if item.step < steps {
                    let step = item.step + 1;
                    next.push((To::B, Item { step, ..item }));
                    continue;
                }
                let took = progress
                    .borrow_mut()
                    .began
                    .remove(&item.workflow)
                    .map(|began| began.elapsed());
                let took = took.ok_or("a workflow has ended twice")?;
                progress.borrow_mut().micros.push(took.as_micros() as u64);
                next.extend(start());
            }
            create(&mut redis, by_hand, &next).await?;
            publisher.publish(next).await
        }
    };
    let is_over = || progress.borrow().micros.len() == round.count;
    station.serve(turn, is_over).await?;
    Ok(Ran {
        seconds: began.elapsed().as_secs_f64(),
        micros: std::mem::take(&mut progress.borrow_mut().micros),
    })
}

/// Creates what is started, if it has a record before its first turn.
async fn create(redis: &mut MultiplexedConnection, by_hand: ByHand, items: &[(To, Item)]) -> Result<(), String> {
    let started: Vec<&Item> = items
        .iter()
        .map(|(_, item)| item)
        .filter(|item| item.step == 0)
        .collect();
    match by_hand {
        ByHand::Kept if !started.is_empty() => kept::create(redis, &started).await,
        _ => Ok(()),
    }
}

/// One commit a turn, all of them in one pipeline.
async fn commit(redis: &mut MultiplexedConnection, by_hand: ByHand, items: &[Item], steps: u32) -> Result<(), String> {
    if by_hand == ByHand::Kept {
        return kept::commit(redis, items, steps).await;
    }
    let script = redis::Script::new(COMMIT);
    let mut pipeline = redis::pipe();
    for item in items {
        let status = if item.step == steps { "completed" } else { "running" };
        let id = &item.workflow;
        pipeline
            .cmd("EVALSHA")
            .arg(script.get_hash())
            .arg(2)
            .arg(format!("{}:{{{id}}}:meta", by_hand.name()))
            .arg(format!("{}:{{{id}}}:history", by_hand.name()))
            .arg(item.step)
            .arg(item.step + 1)
            .arg(status)
            .arg(&item.payload);
    }
    let committed: Vec<u8> = pipeline.query_async(redis).await.map_err(text)?;
    if committed.contains(&0) {
        return Err("a commit was refused: a message came twice".into());
    }
    Ok(())
}
