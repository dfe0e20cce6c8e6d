//! Scenario 18: RabbitMQ and Redis go and come back, in order and by SIGKILL, with many items in flight; everything completes.

use std::future::IntoFuture;
use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use futures_util::{StreamExt, TryStreamExt, stream};
use leveret::{Client, Run};

use super::apps::{FAN_CALLS, fan_result};
use super::effects;
use super::inspect::{assert_histories, messages_left, untidy};
use super::servers::Servers;
use super::soon::{PATIENCE, soon};
use super::world::World;

/// Activity calls in each round. A fan of ten makes eleven.
const ITEMS: (&str, usize) = ("LEVERET_TEST_ITEMS", 1_100);

/// RabbitMQ loses a quorum queue that it is killed within a second of its making, on disk or not; see tests/servers.
const QUEUES_SETTLE: Duration = Duration::from_secs(2);

fn fans() -> usize {
    let items = std::env::var(ITEMS.0).map_or(ITEMS.1, |items| items.parse().expect("a number"));
    items.div_ceil(FAN_CALLS)
}

fn bodies(directory: &Path) -> usize {
    effects::read(directory).len()
}

#[test]
fn servers_that_go_and_come_back_lose_nothing_and_repeat_nothing() {
    // Dropped last: the world still talks to them.
    let servers = Servers::start();
    let mut world = World::new("", |_| servers.place());
    world.start("orders payments");
    let declared = Instant::now();
    soon("queues that a SIGKILL spares", PATIENCE, || {
        (world.has_lanes() && declared.elapsed() > QUEUES_SETTLE).then_some(())
    });
    let rounds: [&[&str]; 4] = [
        &["stop-broker", "start-broker", "stop-redis", "start-redis"],
        &["kill-broker", "start-broker"],
        &["kill-redis", "start-redis"],
        &["kill-redis", "kill-broker", "start-redis", "start-broker"],
    ];
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let client = runtime.block_on(async {
        let backend = world.place.open().await;
        Client::builder(backend).patience(PATIENCE * 2).build()
    });
    for (round, commands) in rounds.into_iter().enumerate() {
        servers.sync_each_write(&world.place);
        let before = bodies(world.directory());
        let (runs, total) = (start_fans(&runtime, &client, round), fans() * FAN_CALLS);
        soon("work in flight", PATIENCE, || {
            (bodies(world.directory()) - before > total / 10).then_some(())
        });
        for command in commands {
            servers.tell(command);
        }
        let done = bodies(world.directory()) - before;
        println!("round {round}: {done} of {total} bodies had run when {commands:?} were done");
        let sums: Vec<u64> = runtime.block_on(async {
            let results = runs.iter().map(|run| run.result().within(PATIENCE * 2).into_future());
            try_join_all(results).await.expect("everything completes")
        });
        assert!(
            sums.into_iter()
                .enumerate()
                .all(|(number, sum)| sum == fan_result(number as u64))
        );
        assert_eq!(bodies(world.directory()) - before, total, "a body for each call");
    }
    drop(client);
    drop(runtime);
    nothing_is_left(&mut world);
}

/// Starts a round's instances.
fn start_fans(runtime: &tokio::runtime::Runtime, client: &Client, round: usize) -> Vec<Run<u64>> {
    let starts = (0..fans()).map(|number| {
        let start = client.start_named::<u64>("orders", "fan", number as u64);
        start.id(format!("fan-{round}-{number}")).into_future()
    });
    runtime
        .block_on(stream::iter(starts).buffered(50).try_collect())
        .expect("started")
}

fn nothing_is_left(world: &mut World) {
    world.with_backend(async |backend| {
        let began = Instant::now();
        loop {
            let left = untidy(backend).await;
            if left.is_empty() {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "left over: {left:#?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    world.stop();
    let again = effects::read(world.directory())
        .values()
        .filter(|runs| runs.begun > 1)
        .count();
    println!("{again} bodies ran more than once");
    world.with_backend(async |backend| {
        assert_histories(backend).await;
        assert_eq!(messages_left(backend).await, [""; 0]);
    });
}

impl World {
    /// True once workers hold lanes of both apps that take part.
    fn has_lanes(&self) -> bool {
        self.with_backend(async |backend| {
            for app in ["orders", "payments"] {
                let workers = backend
                    .store()
                    .workers(&app.parse().expect("valid"))
                    .await
                    .expect("answered");
                if !workers.iter().any(|worker| !worker.lanes.is_empty()) {
                    return false;
                }
            }
            true
        })
    }
}
