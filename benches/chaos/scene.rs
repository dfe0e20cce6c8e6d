//! The run, from the first server to the last check.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use leveret::client::Error;
use leveret::{Client, Namespace};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::apps::APPS;
use crate::faults::Faults;
use crate::fleet::{Fleet, Surroundings};
use crate::jobs::{Job, Shape};
use crate::load::{Ledger, Load, Stage, insist};
use crate::options::Options;
use crate::poison::Poison;
use crate::proxy::Proxy;
use crate::pulses::Pulses;
use crate::report::{Report, open_jobs};
use crate::schedule::Schedule;
use crate::servers::Servers;
use crate::throughput::Throughput;
use crate::{checks, effects, inspect, remains, worker};

/// RabbitMQ loses a quorum queue that it is killed within a second of its making; see tests/servers. It is work for the load meanwhile.
const WARM_UP: Duration = Duration::from_secs(4);
/// An instance that only its check finds is found within 5 min at the most.
const DRAINED_WITHIN: Duration = Duration::from_secs(330);
const PROGRESS_EVERY: Duration = Duration::from_secs(10);
const POISON_EVERY: Duration = Duration::from_millis(2_500);

/// Plays it, tells what came of it and cleans up, also when the user interrupts it.
pub(crate) async fn play(options: Options) -> ExitCode {
    let directory = std::env::temp_dir().join(format!("leveret-chaos-{}", uuid::Uuid::now_v7().simple()));
    if let Err(error) = std::fs::create_dir_all(&directory) {
        eprintln!("chaos: {}: {error}", directory.display());
        return ExitCode::FAILURE;
    }
    log_to(&directory);
    eprintln!(
        "chaos: seed {}, fsync {}; everything is in {}",
        options.seed,
        options.fsync.name(),
        directory.display()
    );
    let servers = tokio::select! {
        servers = Servers::start(&directory, options.fsync) => servers,
        () = leveret::shutdown_signal() => Err("interrupted while the servers start".into()),
    };
    let servers = match servers {
        Ok(servers) => Arc::new(servers),
        Err(problem) => {
            // One that was interrupted may have begun.
            eprintln!("chaos: {problem}");
            Servers::stop_in(&directory).await;
            return ExitCode::FAILURE;
        }
    };
    let ended = tokio::select! {
        ended = run(&options, &directory, servers.clone()) => ended,
        () = leveret::shutdown_signal() => Err("interrupted".into()),
    };
    // Workers end with their places, which are gone here.
    servers.stop().await;
    let is_good = match ended {
        Ok(report) => {
            report.print();
            if let Some(path) = &options.json
                && let Err(error) = std::fs::write(path, format!("{:#}\n", report.json()))
            {
                eprintln!("chaos: {}: {error}", path.display());
            }
            report.is_good()
        }
        Err(problem) => {
            eprintln!("chaos: {problem}");
            false
        }
    };
    if is_good && !options.keep {
        let _ = std::fs::remove_dir_all(&directory);
        return ExitCode::SUCCESS;
    }
    eprintln!("chaos: the logs are in {}", directory.display());
    if is_good {
        return ExitCode::SUCCESS;
    }
    eprintln!(
        "chaos: FAILED; again with: cargo bench --bench chaos -- --seconds {} --seed {} --fsync {} --in-flight {} --faults {}",
        options.time.as_secs(),
        options.seed,
        options.fsync.name(),
        options.in_flight,
        options
            .kinds
            .iter()
            .map(|kind| kind.name())
            .collect::<Vec<_>>()
            .join(",")
    );
    ExitCode::FAILURE
}

/// The client's own log.
fn log_to(directory: &Path) {
    let Ok(file) = std::fs::File::create(directory.join("client.log")) else {
        return;
    };
    let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| "leveret=info".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::sync::Mutex::new(file))
        .with_ansi(false)
        .init();
}

async fn run(options: &Options, directory: &Path, servers: Arc<Servers>) -> Result<Report, String> {
    let namespace: Namespace = "chaos".parse().expect("valid");
    let io = |error: std::io::Error| error.to_string();
    let broker = Proxy::start(servers.broker_port).await.map_err(io)?;
    let redis = Proxy::start(servers.redis_port).await.map_err(io)?;
    let (amqp_url, redis_url) = (servers.amqp_url(broker.port()), servers.redis_url(redis.port()));
    let fleet = Arc::new(
        Fleet::start(Surroundings {
            directory: directory.to_owned(),
            amqp: amqp_url.clone(),
            redis: redis_url.clone(),
            namespace: namespace.to_string(),
        })
        .await?,
    );
    let open = |error: leveret::backend::Error| error.to_string();
    let backend = worker::open(&amqp_url, &redis_url, &namespace).await.map_err(open)?;
    let past_amqp = servers.amqp_url(servers.broker_port);
    let past_redis = servers.redis_url(servers.redis_port);
    let observing = worker::open(&past_amqp, &past_redis, &namespace).await.map_err(open)?;
    wait_for_lanes(&observing).await?;
    // Less patient than by default: so that it comes to trying again.
    let client = Client::builder(backend.clone())
        .patience(Duration::from_secs(8))
        .build();
    let observer = Client::new(observing.clone());

    let ledger = Arc::new(Ledger::default());
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let throughput = Throughput::new(directory.to_owned());
    tasks.spawn(throughput.clone().run(stop.clone()));
    let pulses = Pulses::start(client.clone(), observing.clone()).await?;
    let faults = Faults {
        servers: servers.clone(),
        broker,
        redis,
        fleet: fleet.clone(),
        pulses,
        throughput,
        ledger: ledger.clone(),
        recoveries: Default::default(),
        counts: Default::default(),
    };
    let is_closing = Arc::new(AtomicBool::new(false));
    let jobs = TaskTracker::new();
    let load = Load {
        client: client.clone(),
        backend: backend.clone(),
        observer: observer.clone(),
        ledger: ledger.clone(),
        fleet: fleet.clone(),
        tasks: jobs.clone(),
        is_closing: is_closing.clone(),
    };
    jobs.spawn(load.run(options.in_flight, options.seed));
    let poison = Arc::new(Poison::default());
    tasks.spawn(put_poison(
        poison.clone(),
        backend.clone(),
        options.seed,
        is_closing.clone(),
    ));
    let watcher = tasks.spawn(watch(fleet.clone(), ledger.clone(), stop.clone()));

    tokio::time::sleep(WARM_UP).await;
    let began = Instant::now();
    let mut schedule = Schedule::new(options.seed, &options.kinds);
    while began.elapsed() < options.time || schedule.has_new_kinds() {
        let round = schedule.next_round();
        let names: Vec<_> = round.faults.iter().map(|fault| fault.kind.name()).collect();
        eprintln!(
            "chaos: {:>5.0} s  {}",
            began.elapsed().as_secs_f64(),
            names.join(" beside ")
        );
        let is_alone = round.faults.len() == 1;
        let strikes = round.faults.iter().map(|fault| faults.strike(*fault, is_alone));
        futures_util::future::try_join_all(strikes).await?;
        tokio::time::sleep(round.pause).await;
    }
    let lasted = began.elapsed();

    eprintln!(
        "chaos: no more faults; {} of {} workflows are over",
        ledger.finished(),
        ledger.started()
    );
    let calm = Instant::now();
    is_closing.store(true, Ordering::Relaxed);
    jobs.close();
    let is_drained = tokio::time::timeout(DRAINED_WITHIN, jobs.wait()).await.is_ok();
    let drained = calm.elapsed();
    let mut stuck = Vec::new();
    let mut lost = Vec::new();
    for (job, stage) in open_jobs(&ledger) {
        match missing(&observer, &job, &stage).await {
            Missing::Lost(what) => lost.push(what),
            Missing::Stuck(what) => stuck.push(what),
            Missing::No => {}
        }
    }
    if is_drained {
        stuck.extend(faults.pulses.stop(DRAINED_WITHIN).await);
    }
    stop.cancel();
    let _ = watcher.await;
    tasks.close();

    eprintln!("chaos: looking at what is left");
    let mut wrong = Vec::new();
    let mut doubled = Vec::new();
    for (app, workers) in wait_for_all_workers(&observer).await {
        wrong.push(format!("{workers} workers of {app} are live"));
    }
    wrong.extend(poison.collect(&observing).await.map_err(open)?);
    wrong.extend(remains::untidy(&observing).await);
    for instance in inspect::instances(&observing).await {
        // Each is its own tree here: its children are in the list.
        let history = insist(|| async { observer.handle(instance.clone()).history().await }).await;
        match history {
            Ok(history) => checks::look(instance, &history).report(&ledger),
            Err(error) => wrong.push(format!("the history of {instance} cannot be read: {error}")),
        }
    }
    let effects = effects::read(directory).map_err(io)?;
    for (job, _) in ledger.jobs().iter().filter(|(_, stage)| *stage == Stage::Right) {
        for step in job.steps().into_iter().filter(|step| !effects.calls.contains_key(step)) {
            lost.push(format!("step {step} is said to be done, and no body has run"));
        }
    }
    for (step, calls) in effects.calls.iter().filter(|(_, calls)| calls.len() > 1) {
        doubled.push(format!("step {step} was called {} times: {calls:?}", calls.len()));
    }
    for call in ledger.completed().iter().filter(|call| !effects.ended.contains(*call)) {
        lost.push(format!("call {call} has a result, and no body has come to its end"));
    }
    match remains::purge_all(&observer).await {
        Ok(_) => {}
        Err(problem) => wrong.push(format!("not everything can be purged: {problem}")),
    }
    wrong.extend(remains::unswept(&observing).await);
    wrong.extend(fleet.stop().await);
    wrong.extend(inspect::messages_left(&observing).await);
    let keys = remains::keys(&servers, &namespace).await.unwrap_or_else(|error| {
        wrong.push(format!("the keys cannot be read: {error}"));
        remains::Keys::default()
    });
    wrong.extend(keys.left.into_iter().map(|key| format!("key {key} is left")));
    faults.broker.stop().await;
    faults.redis.stop().await;

    let (twice, others): (Vec<_>, Vec<_>) = ledger
        .wrong()
        .into_iter()
        .partition(|problem| problem.contains("it is there twice"));
    doubled.extend(twice);
    wrong.extend(others);
    let counts = faults.counts.lock().expect("nobody panics with it").clone();
    let recoveries = faults.recoveries.lock().expect("nobody panics with it").clone();
    Ok(Report {
        options: options.clone(),
        lasted,
        faults: counts,
        started: ledger.started(),
        finished: ledger.finished(),
        purged: ledger.purged(),
        shapes: Shape::ALL.map(|shape| (shape, ledger.count_of(shape))).to_vec(),
        bodies: effects.begun,
        calls: effects.calls.len(),
        poison: poison.count(),
        run_tokens: keys.run_tokens,
        lost,
        stuck,
        doubled,
        wrong,
        recoveries,
        longest_job: ledger.longest(),
        drained,
    })
}

/// What became of a job that has not ended as it had to.
enum Missing {
    /// It is gone.
    Lost(String),
    /// It is there and not over, or nobody could say.
    Stuck(String),
    /// It is over, and its client has told what is wrong with that.
    No,
}

async fn missing(observer: &Client, job: &Job, stage: &Stage) -> Missing {
    let app = APPS[job.home];
    let handle = observer.instance(app, &job.id).expect("valid");
    match insist(|| async { handle.get().await }).await {
        Ok(info) if info.status.is_terminal() => Missing::No,
        Ok(info) => Missing::Stuck(format!(
            "{app}/{} is {} since {} and waits for: {}",
            job.id, info.status, info.updated_at, info.waiting
        )),
        Err(Error::NotFound { .. }) if *stage == Stage::Starting => {
            Missing::Stuck(format!("the start of {app}/{} was never confirmed", job.id))
        }
        Err(Error::NotFound { .. }) => Missing::Lost(format!("{app}/{} was confirmed and does not exist", job.id)),
        Err(error) => Missing::Stuck(format!("{app}/{}: {error}", job.id)),
    }
}

/// Until workers hold lanes of each app.
async fn wait_for_lanes(backend: &leveret::backend::Backend) -> Result<(), String> {
    let began = Instant::now();
    for app in APPS {
        let id = app.parse().expect("valid");
        loop {
            let workers = backend.store().workers(&id).await.unwrap_or_default();
            if workers.iter().any(|worker| !worker.lanes.is_empty()) {
                break;
            }
            if began.elapsed() > Duration::from_secs(60) {
                return Err(format!("no worker of {app} holds a lane after 60 s"));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(())
}

/// Until all that run are known, and nobody who is gone. Gives the apps of which that is not so in time.
async fn wait_for_all_workers(observer: &Client) -> Vec<(&'static str, usize)> {
    let began = Instant::now();
    loop {
        let mut others = Vec::new();
        for app in APPS {
            let workers = insist(|| async { observer.workers(app).await }).await;
            let count = workers.map_or(0, |workers| workers.len());
            if count != crate::fleet::REPLICAS {
                others.push((app, count));
            }
        }
        if others.is_empty() || began.elapsed() > Duration::from_secs(30) {
            return others;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

async fn put_poison(poison: Arc<Poison>, backend: leveret::backend::Backend, seed: u64, is_closing: Arc<AtomicBool>) {
    let mut random = fastrand::Rng::with_seed(!seed);
    while !is_closing.load(Ordering::Relaxed) {
        poison.put(&backend, &mut random).await;
        tokio::time::sleep(POISON_EVERY).await;
    }
}

/// Says how it goes, and finds workers that have died by themselves.
async fn watch(fleet: Arc<Fleet>, ledger: Arc<Ledger>, stop: CancellationToken) {
    let mut said = Instant::now();
    while !stop.is_cancelled() {
        match fleet.deaths().await {
            Ok(deaths) => deaths.into_iter().for_each(|death| ledger.note_wrong(death)),
            Err(problem) => ledger.note_wrong(problem),
        }
        if said.elapsed() > PROGRESS_EVERY {
            said = Instant::now();
            eprintln!(
                "chaos:          {} workflows started, {} over",
                ledger.started(),
                ledger.finished()
            );
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
