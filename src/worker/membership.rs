//! Signs of life: who the app's workers are, what they know, and which lanes they hold.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tracing::{debug, info, warn};

use super::lanes::Lanes;
use super::runtime::Runtime;
use crate::backend::{IndexFilter, When, WorkerInfo};
use crate::engine::check_of;
use crate::model::{Status, Timestamp};

/// Beats until the worker has nothing in hand any more, and balances lanes when workers come and go. While it drains it only beats: what it still has in
/// hand is known by that alone.
pub(super) async fn run(runtime: Arc<Runtime>, lanes: Lanes, started_at: Timestamp) {
    let mut known = Vec::new();
    loop {
        if runtime.engine.stop.is_cancelled() || runtime.is_abandoned.load(Ordering::Acquire) {
            return;
        }
        if let Err(error) = beat(&runtime, started_at).await {
            debug!(%error, "no sign of life was given");
        }
        if runtime.draining.is_cancelled() {
            tokio::select! {
                biased;
                () = runtime.engine.stop.cancelled() => return,
                () = runtime.engine.backend.clock().sleep(runtime.settings.heartbeat) => continue,
            }
        }
        match runtime.engine.store().workers(&runtime.app).await {
            Ok(mut workers) => {
                // Those that stop have no share in the lanes.
                workers.retain(|worker| !worker.is_draining);
                let ids: Vec<_> = workers.iter().map(|worker| worker.id).collect();
                if ids != known {
                    info!(workers = ids.len(), "workers of app {} changed", runtime.app);
                    known = ids;
                }
                lanes.balance(&runtime, &workers);
                let mut held: Vec<_> = workers
                    .iter()
                    .filter(|worker| worker.id != runtime.id)
                    .flat_map(|worker| worker.lanes.clone())
                    .collect();
                held.extend(runtime.lanes.all());
                lanes.probe_missing(&runtime, &held);
            }
            Err(error) => debug!(%error, "the app's workers are not known"),
        }
        if !runtime.pause(runtime.settings.heartbeat).await {
            // Others are told at once that nothing is to be passed on to it.
            continue;
        }
        if let Err(error) = runtime.engine.look_at_clock().await {
            debug!(%error, "the store's time is not known");
        }
    }
}

/// One sign of life.
pub(super) async fn beat(runtime: &Runtime, started_at: Timestamp) -> crate::backend::Result<()> {
    let is_draining = runtime.draining.is_cancelled();
    // Nothing may be passed on to a worker that stops.
    let (workflows, activities, lanes) = match is_draining {
        true => Default::default(),
        false => (
            runtime.registry.workflow_names(),
            runtime.registry.activity_names(),
            runtime.lanes.all(),
        ),
    };
    let info = WorkerInfo {
        id: runtime.id,
        app: runtime.app.clone(),
        build: runtime.build.clone(),
        workflows,
        activities,
        lanes,
        started_at,
        beat_at: runtime.now(),
        is_draining,
        host: std::env::var("HOSTNAME").unwrap_or_default(),
        holds: Some(runtime.in_hand.report(runtime.now(), runtime.settings.heartbeat)),
    };
    runtime.engine.store().beat(&info, runtime.settings.worker_ttl()).await
}

/// A build that registers has every stalled instance looked at: it may be the code that they wait for.
pub(super) async fn wake_stalled(runtime: Arc<Runtime>) {
    let filter = IndexFilter {
        app: runtime.app.clone(),
        statuses: vec![Status::Stalled],
        created_from: None,
        created_before: None,
    };
    let engine = &runtime.engine;
    let mut after: Option<String> = None;
    loop {
        let page = match engine
            .retrying("list", || engine.store().list(&filter, after.as_deref(), 200))
            .await
        {
            Ok(page) => page,
            Err(error) => {
                warn!(%error, "stalled instances were not looked up; their checks come within minutes");
                return;
            }
        };
        let checks: Vec<_> = page
            .instances
            .iter()
            .filter(|(_, record)| record.status == Status::Stalled)
            .map(|(instance, record)| check_of(instance, record, runtime.now()))
            .collect();
        if !checks.is_empty()
            && engine
                .retrying("schedule", || {
                    engine.store().schedule(&runtime.app, &checks, When::Sooner)
                })
                .await
                .is_err()
        {
            return;
        }
        after = page.next;
        if after.is_none() {
            return;
        }
    }
}
