//! A worker at work: starting its parts and stopping them in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::cache::Cache;
use super::gauge::Gauge;
use super::held_lanes::HeldLanes;
use super::lanes::Lanes;
use super::registry::Registry;
use super::room::Room;
use super::runtime::Runtime;
use super::{WorkerCounts, WorkerError, activities, due, http, membership, starts, unrouted};
use crate::backend::Backend;
use crate::engine::Engine;
use crate::model::{AppId, BuildId, Lane, Result, Settings, WorkerId};
use crate::probes::Joined;

/// A worker that runs. Dropping it stops it abruptly: what it had is handed back by the broker. [`stop`](Self::stop) stops it in order.
pub struct RunningWorker {
    runtime: Arc<Runtime>,
    has_started: Arc<AtomicBool>,
    /// Its signs of life, which go on until everything else has ended.
    signs: TaskTracker,
    /// What it says at the health port.
    probes: Option<Joined>,
}

/// Each try of a parked item is a channel to the broker.
const PARKED_TRIES: usize = 16;

impl RunningWorker {
    pub(super) async fn start(
        app: AppId,
        build: BuildId,
        backend: Backend,
        registry: Registry,
        settings: Settings,
    ) -> Result<Self, WorkerError> {
        let tracker = TaskTracker::new();
        let (draining, stop) = (CancellationToken::new(), CancellationToken::new());
        let engine = Engine::new(
            backend,
            Some(app.clone()),
            settings.limits.clone(),
            settings.retention.clone(),
            tracker.clone(),
            stop,
        );
        let runtime = Arc::new(Runtime {
            id: WorkerId::generate(),
            build,
            registry,
            mailboxes: Default::default(),
            cache: Cache::new(settings.limits.cache_bytes),
            counters: Default::default(),
            in_hand: Default::default(),
            lanes: HeldLanes::default(),
            lane_count: AtomicU16::new(settings.lanes),
            turns: Semaphore::new(settings.turns),
            room: Arc::new(Room::for_turns(settings.turns)),
            slots: Arc::new(Semaphore::new(settings.activities)),
            slot_room: Arc::new(Room::for_activities(settings.activities)),
            splits: Semaphore::new(1),
            suspect: Semaphore::new(1),
            parked_tries: Semaphore::new(PARKED_TRIES),
            suspect_turn: Semaphore::new(1),
            tracker,
            cancel_activities: draining.child_token(),
            draining,
            is_abandoned: AtomicBool::new(false),
            app,
            engine,
            settings,
        });
        let mut running = Self {
            runtime: runtime.clone(),
            has_started: Arc::default(),
            signs: TaskTracker::new(),
            probes: None,
        };
        if let Some(address) = runtime.settings.http {
            let joined = http::join(&running, address).map_err(|error| WorkerError::Invalid {
                app: runtime.app.to_string(),
                problem: format!("setting `http`: cannot listen on {address}: {error}"),
            })?;
            running.probes = Some(joined);
        }
        running.set_up().await?;
        Ok(running)
    }

    async fn set_up(&self) -> Result<(), WorkerError> {
        let runtime = &self.runtime;
        let (engine, app) = (&runtime.engine, &runtime.app);
        let wanted = runtime.settings.lanes;
        let lanes = engine
            .retrying("adopt app", || engine.store().adopt_app(app, wanted))
            .await?;
        if lanes != wanted {
            warn!(%app, lanes, wanted, "the app has another number of lanes since its first start; the setting is ignored");
        }
        runtime.lane_count.store(lanes, Ordering::Relaxed);
        engine
            .retrying("declare", || engine.broker().declare(app, lanes))
            .await?;
        engine.retrying("time", || engine.look_at_clock()).await?;
        for warning in engine.retrying("warnings", || engine.store().warnings()).await? {
            warn!("{warning}");
        }
        let started_at = runtime.now();
        // Before anything is taken: others must know what we know.
        engine
            .retrying("beat", || membership::beat(runtime, started_at))
            .await?;
        let lanes = Lanes::start(runtime, lanes);
        self.signs.spawn(membership::run(runtime.clone(), lanes, started_at));
        runtime.tracker.spawn(membership::wake_stalled(runtime.clone()));
        runtime.tracker.spawn(starts::run(runtime.clone()));
        runtime.tracker.spawn(activities::run(runtime.clone()));
        runtime.tracker.spawn(unrouted::run(runtime.clone()));
        runtime.tracker.spawn(due::run(runtime.clone()));
        self.has_started.store(true, Ordering::Release);
        info!(%app, worker = %runtime.id, build = %runtime.build, backend = %engine.backend, "worker started");
        Ok(())
    }

    /// `Ok` while the worker can do its work; else why not. The same as `/ready` at its port answers.
    ///
    /// # Errors
    /// The reason: one line for a person, without a final period. The broker's or the store's, which names the server; or `the worker is still setting
    /// up its queues`; or `the worker is stopping`.
    pub fn readiness(&self) -> Result<(), String> {
        readiness(&self.runtime, &self.has_started)
    }

    /// What it has done since it started.
    pub fn counts(&self) -> WorkerCounts {
        self.runtime.counters.snapshot()
    }

    /// The lanes that it believes to hold.
    pub fn lanes(&self) -> Vec<Lane> {
        self.runtime.lanes.all()
    }

    /// Workflows that it keeps live in memory.
    pub fn live_workflows(&self) -> usize {
        self.runtime.cache.len()
    }

    /// Tells what it keeps in memory.
    pub fn gauge(&self) -> Gauge {
        Gauge::of(&self.runtime)
    }

    /// Its ID.
    pub fn id(&self) -> WorkerId {
        self.runtime.id
    }

    /// Returns when it holds at least one lane, so that it takes starts.
    pub async fn wait_for_lane(&self) {
        self.runtime.lanes.wait_until(|held| held > 0).await;
    }

    /// Stops in order. Consumers are cancelled first; turns and short activities end; what takes longer than the grace of the settings is handed back.
    pub async fn stop(self) {
        /// What is left to do once everything is told to stop: to notice it.
        const LAST: Duration = Duration::from_secs(5);
        let runtime = &self.runtime;
        runtime.draining.cancel();
        runtime.engine.confirmed.hurry();
        runtime.tracker.close();
        let clock = runtime.engine.backend.clock().clone();
        tokio::select! {
            biased;
            () = runtime.tracker.wait() => {}
            () = clock.sleep(runtime.settings.shutdown_grace) => {
                warn!("the grace is over; what still runs is handed back");
            }
        }
        runtime.engine.stop.cancel();
        tokio::select! {
            biased;
            () = runtime.tracker.wait() => {}
            () = clock.sleep(LAST) => warn!("some tasks did not end"),
        }
        self.signs.close();
        tokio::select! {
            biased;
            () = self.signs.wait() => {}
            () = clock.sleep(LAST) => warn!("its last sign of life did not end"),
        }
        if let Err(error) = runtime.engine.store().leave(&runtime.app, runtime.id).await {
            warn!(%error, "the worker could not say good-bye; it counts as live until its time is over");
        }
        info!(app = %runtime.app, worker = %runtime.id, "worker stopped");
    }

    pub(super) fn probe(&self) -> (Arc<Runtime>, Arc<AtomicBool>) {
        (self.runtime.clone(), self.has_started.clone())
    }
}

impl Drop for RunningWorker {
    fn drop(&mut self) {
        // Gone as if it had been killed: it does not say any more that it drains.
        self.runtime.is_abandoned.store(true, Ordering::Release);
        // In this order: what it hands back it must not take again.
        self.runtime.draining.cancel();
        self.runtime.engine.stop.cancel();
    }
}

pub(super) fn readiness(runtime: &Runtime, has_started: &AtomicBool) -> Result<(), String> {
    runtime.engine.broker().readiness()?;
    runtime.engine.store().readiness()?;
    if !has_started.load(Ordering::Acquire) {
        return Err("the worker is still setting up its queues".into());
    }
    if runtime.draining.is_cancelled() {
        return Err("the worker is stopping".into());
    }
    Ok(())
}
