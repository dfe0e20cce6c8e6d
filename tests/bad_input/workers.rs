//! Messages at running workers: what was really sent, spoiled, is published again while workflows wait. Every message ends, taken or among the dead;
//! nobody panics; and every workflow still comes to an end.

use std::cell::Cell;
use std::future::IntoFuture;
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use fastrand::Rng;
use leveret::backend::{Message, Queue};
use leveret::client::{Error, Filter};
use leveret::testing::{Faults, Observed, World, simulate};
use leveret::wire::Bundle;
use leveret::{
    Activity, ActivityContext, AppId, Client, Event, InstanceId, InstanceRef, MessageId, Result, Run, Worker, Workflow,
    WorkflowContext,
};

use super::messages::spoil;
use super::runner::{Fate, play_worlds};
use super::tree::Tree;

const MAIN: Workflow<u64, u64> = Workflow::new("orders", "main");
const PART: Workflow<u64, u64> = Workflow::new("payments", "part");
const WORK: Activity<u64, u64> = Activity::new("payments", "work");
const GO: Event<u64> = Event::new("go");

/// Spoiled messages of a world.
const MESSAGES: usize = 30;
/// What everything gets to end in.
const PATIENCE: Duration = Duration::from_secs(3 * 3600);

async fn main(ctx: WorkflowContext, n: u64) -> Result<u64> {
    let worked = ctx.call(WORK, n).await.unwrap_or(0);
    ctx.timer(Duration::from_millis(100)).await?;
    let part = ctx.child(PART, worked).start();
    ctx.raise(&instance("payments", "nobody"), GO, n)?;
    // Whoever spoils an event may have made text of its number.
    let went = ctx.event(GO).await.unwrap_or(0);
    Ok(part.await.unwrap_or(0).wrapping_add(went))
}

async fn part(ctx: WorkflowContext, n: u64) -> Result<u64> {
    ctx.call(WORK, n).await
}

async fn work(_: ActivityContext, n: u64) -> Result<u64> {
    Ok(n.wrapping_mul(3))
}

fn instance(app: &str, id: &str) -> InstanceRef {
    InstanceRef::new(AppId::new(app).expect("valid"), InstanceId::new(id).expect("valid"))
}

thread_local! {
    static HAS_PANICKED: Cell<bool> = const { Cell::new(false) };
}

/// A panic in a task of a worker is caught by the runtime, and nobody would hear of it.
fn hear_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            HAS_PANICKED.set(true);
            before(panic);
        }));
    });
}

#[test]
fn workers() {
    hear_panics();
    play_worlds("workers", MESSAGES as u64, |rng| {
        HAS_PANICKED.set(false);
        let fate = simulate(rng.u64(..), async |world| play(&world, rng).await);
        assert!(!HAS_PANICKED.get(), "somebody has panicked");
        fate
    });
}

/// What was published, and where to.
type Sent = Arc<Mutex<Vec<(Queue, Vec<u8>)>>>;

async fn play(world: &World, rng: &mut Rng) -> Fate {
    world.set_faults(Faults::slow(Duration::from_millis(5)));
    let sent = Sent::default();
    world.observe({
        let sent = sent.clone();
        move |_, observed| {
            if let Observed::Published { queue, body } = observed
                && Bundle::decode(body).is_ok()
            {
                sent.lock().unwrap().push(((*queue).clone(), body.to_vec()));
            }
        }
    });
    let orders = Worker::new("orders", world.process("orders").backend()).workflow(MAIN, main);
    let payments = Worker::new("payments", world.process("payments").backend())
        .workflow(PART, part)
        .activity(WORK, work);
    let workers = [orders.start().await.unwrap(), payments.start().await.unwrap()];
    let client = world.client();
    let start = |id: &str| client.start(MAIN, 7).id(id).into_future();
    let mut runs = vec![
        start("order-1:0002 ünï").await.unwrap(),
        start("order-1").await.unwrap(),
    ];
    tokio::time::sleep(Duration::from_millis(rng.u64(..2_000))).await;
    let sent = sent.lock().unwrap().clone();
    let mut fate = Fate::Refused;
    for number in 0..MESSAGES {
        let (queue, body) = &sent[rng.usize(..sent.len())];
        let (spoiled, _) = spoil(rng, &(body.clone(), Tree::read(body)));
        if number == 0 && Bundle::decode(&spoiled).is_ok() {
            fate = Fate::Taken;
        }
        let (other, _) = &sent[rng.usize(..sent.len())];
        let queue = if rng.u8(..4) == 0 { other } else { queue };
        let message = Message::bundle(queue.clone(), spoiled.into(), &MessageId::generate());
        world.servers().broker().publish(message).await.unwrap();
    }
    runs.push(start("a good one").await.unwrap());
    for run in &runs {
        tokio::time::timeout(PATIENCE, end(run))
            .await
            .unwrap_or_else(|_| panic!("{} is not over", run.id()));
    }
    tokio::time::timeout(PATIENCE, until_all_is_taken(world, &client))
        .await
        .expect("messages are never settled");
    for worker in workers {
        worker.stop().await;
    }
    fate
}

/// Gives the instance what it waits for, until it is over. Among what was spoiled there may have been a suspend, or a terminate.
async fn end(run: &Run<u64>) {
    loop {
        let _ = run.handle().resume("go on").await;
        let _ = run.handle().raise(GO, 1).await;
        match run.result().within(Duration::from_secs(60)).await {
            Err(Error::ResultPending { .. }) => {}
            _ => return,
        }
    }
}

async fn until_all_is_taken(world: &World, client: &Client) {
    let app = |app: &str| AppId::new(app).expect("valid");
    loop {
        let mut waiting = 0;
        for id in ["orders", "payments"] {
            let mut queues = vec![Queue::Workflows(app(id)), Queue::Activities(app(id))];
            queues.extend((0..8).map(|lane| Queue::Events(app(id), lane)));
            for queue in queues.into_iter().chain([Queue::Unrouted]) {
                let depth = world.servers().broker().depth(&queue).await.unwrap();
                waiting += depth.map_or(0, |depth| depth.messages);
            }
        }
        // A start that was spoiled may have made something that waits for the event.
        let mut active = 0;
        let mut found = client.list(Filter::default()).await.unwrap();
        for info in found.instances.drain(..).filter(|info| !info.status.is_terminal()) {
            active += 1;
            let handle = client.handle(info.instance.clone());
            let _ = handle.resume("go on").await;
            let _ = handle.raise(GO, 1).await;
        }
        if waiting == 0 && active == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_secs(30)).await;
    }
}
