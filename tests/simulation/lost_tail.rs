//! A store that fails over to a replica that lags behind, and so loses what it had answered last: the limit that `docs/guarantees.md` documents.
//!
//! What that may cost is a start that was answered in the lag, and turns, which are made once more. Nothing loops and nothing is doubled beyond that; and
//! what waits for a message that was acknowledged by a turn that is gone is found by an audit, and goes on.

use std::collections::BTreeSet;
use std::future::IntoFuture;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use leveret::client::Error;
use leveret::testing::{Faults, World, simulate};
use leveret::{Client, Run, Settings, Worker};
use tokio::time::{Instant, sleep, sleep_until};

use crate::code::{self, Journal, NEW_WORK, RUN, WORK};
use crate::generator::Generator;
use crate::model::{self, Ended, Given};
use crate::plan::{APPS, Plan, Seen};
use crate::search::{each, number};

/// A script: some workflows, and when the store is replicated and fails over, in milliseconds.
struct Script {
    seed: u64,
    /// When each is started, and what it does.
    roots: Vec<(u64, Plan)>,
    replicated_at: u64,
    lost_at: u64,
}

/// What the loss came to.
struct Cost {
    /// Starts that were answered and are gone.
    starts: u64,
    /// What an audit had to get going.
    repairs: u64,
}

impl Script {
    fn draw(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let count = 2 + rng.usize(..6);
        let mut generator = Generator { rng: &mut rng, keys: 0 };
        let plans: Vec<_> = (0..count).map(|number| generator.root(number)).collect();
        let roots = plans
            .into_iter()
            .map(|mut root| (rng.u64(..4_000), root.lives.remove(0).plan.without_events()))
            .collect();
        let replicated_at = 500 + rng.u64(..4_000);
        Self {
            seed,
            roots,
            replicated_at,
            lost_at: replicated_at + rng.u64(..1_500),
        }
    }
}

#[test]
fn a_store_that_loses_its_tail_costs_what_is_documented_and_an_audit_gets_the_rest_going() {
    let first = number("LEVERET_SEED").unwrap_or(1);
    let seeds = number("LEVERET_SEEDS").map_or(300, |seeds| seeds.div_ceil(10));
    let seeds = number("LEVERET_SEED").map_or(seeds, |_| 1);
    let (starts, repairs) = (AtomicU64::new(0), AtomicU64::new(0));
    let failed = each(first..first + seeds, |seed| {
        let script = Script::draw(seed);
        let played = std::panic::catch_unwind(|| simulate(seed, async |world| play(&script, world).await));
        let cost = played
            .unwrap_or_else(|_| Err("it panicked".into()))
            .map_err(|wrong| format!("seed {seed}: {wrong}\nplay it again: LEVERET_SEED={seed} cargo test --release --all-features --test simulation tail\n"))?;
        starts.fetch_add(cost.starts, Ordering::Relaxed);
        repairs.fetch_add(cost.repairs, Ordering::Relaxed);
        Ok(())
    });
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    let (starts, repairs) = (starts.into_inner(), repairs.into_inner());
    println!("{seeds} seeds: {starts} answered starts lost, {repairs} repairs");
    assert!(
        seeds == 1 || (starts > 0 && repairs > 0),
        "a loss that costs nothing has not happened"
    );
}

async fn play(script: &Script, world: World) -> Result<Cost, String> {
    let began = Instant::now();
    let at = |millis| sleep_until(began + Duration::from_millis(millis));
    world.set_faults(Faults::slow(Duration::from_millis(20)));
    let workers = join_all(APPS.map(|app| hire(&world, app))).await;
    let client = Client::new(world.process("client").spared().backend());
    let roots = join_all(script.roots.iter().enumerate().map(async |(number, (when, plan))| {
        at(*when).await;
        let app = APPS[(script.seed as usize + number) % APPS.len()];
        let start = client
            .start_named::<Vec<Seen>>(app, RUN, plan.clone().begin())
            .id(format!("root-{number}"));
        let run = start.into_future().await.map_err(|error| error.to_string())?;
        Ok::<_, String>((run, began.elapsed()))
    }));
    let loss = async {
        at(script.replicated_at).await;
        world.replicate();
        at(script.lost_at).await;
        world.lose_tail();
    };
    let (roots, ()) = tokio::join!(roots, loss);
    let mut cost = Cost {
        starts: 0,
        repairs: audit_until_over(&client).await?,
    };
    for (root, (_, plan)) in roots.into_iter().zip(&script.roots) {
        let (run, answered) = root?;
        let is_in_tail = answered >= Duration::from_millis(script.replicated_at);
        match outcome(&run).await? {
            Some(ended) => {
                let given = Given {
                    follows_run: false,
                    follows_plan: false,
                    ended: &BTreeSet::new(),
                    is_calm: false,
                };
                model::check(plan, &ended, given).map_err(|wrong| format!("{}: {wrong}", run.id()))?;
            }
            None if is_in_tail => cost.starts += 1,
            None => return Err(format!("{} was replicated, and is gone", run.id())),
        }
    }
    for worker in workers {
        worker.stop().await;
    }
    Ok(cost)
}

async fn hire(world: &World, app: &'static str) -> leveret::RunningWorker {
    let process = world.process(app);
    let journal = Journal::new(Duration::MAX);
    let body = || {
        let (process, journal) = (process.clone(), journal.clone());
        move |ctx, work| {
            let (process, journal) = (process.clone(), journal.clone());
            async move { code::work(&process, &journal, ctx, work).await }
        }
    };
    let settings = Settings {
        lanes: 2,
        due_interval: Duration::from_millis(500),
        ..Settings::default()
    };
    let worker = Worker::new(app, process.backend())
        .settings(settings)
        .workflow(code::workflow(app), code::run)
        .activity(code::activity(app, WORK), body())
        .activity(code::activity(app, NEW_WORK), body());
    worker.start().await.expect("nothing is wrong with the worker")
}

/// Audits and repairs until nothing is active and nothing is wrong any more. Gives back the number of repairs.
async fn audit_until_over(client: &Client) -> Result<u64, String> {
    let mut repairs = 0;
    for _ in 0..30 {
        sleep(Duration::from_secs(60)).await;
        let report = client.audit().repair().await.map_err(|error| error.to_string())?;
        if report.instances.values().sum::<u64>() == 0 && report.findings.is_empty() {
            return Ok(repairs);
        }
        if !report.is_clean() {
            return Err(format!("the audit cannot repair all of it:\n{report:#?}"));
        }
        repairs += report.findings.len() as u64;
    }
    let report = client.audit().await.map_err(|error| error.to_string())?;
    Err(format!("it does not come to an end:\n{report:#?}"))
}

/// How it ended; nothing if it is gone.
async fn outcome(run: &Run<Vec<Seen>>) -> Result<Option<Ended>, String> {
    match run.result().within(Duration::from_secs(60)).await {
        Ok(seen) => Ok(Some(Ended::Completed(seen))),
        Err(Error::Failed(failure)) => Ok(Some(Ended::Failed(failure.kind))),
        Err(Error::NotFound { .. } | Error::RunGone { .. }) => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}
