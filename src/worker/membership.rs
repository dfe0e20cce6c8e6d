//! Signs of life: who the app's workers are, what they know, and which lanes they hold.

use std::sync::Arc;

use tracing::{debug, info, warn};

use super::lanes::Lanes;
use super::runtime::Runtime;
use crate::backend::{DueEntry, IndexFilter, When, WorkerInfo};
use crate::engine::{CheckEntry, check_key, encode};
use crate::model::{Status, Timestamp};

/// Beats until the worker drains, and balances lanes when workers come and go.
pub(super) async fn run(runtime: Arc<Runtime>, lanes: Lanes, started_at: Timestamp) {
    let mut known = Vec::new();
    loop {
        if let Err(error) = beat(&runtime, started_at).await {
            debug!(%error, "no sign of life was given");
        }
        match runtime.engine.store().workers(&runtime.app).await {
            Ok(workers) => {
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
            return;
        }
        if let Err(error) = runtime.measure_clock().await {
            debug!(%error, "the store's time is not known");
        }
    }
}

/// One sign of life.
pub(super) async fn beat(runtime: &Runtime, started_at: Timestamp) -> crate::backend::Result<()> {
    let info = WorkerInfo {
        id: runtime.id,
        app: runtime.app.clone(),
        build: runtime.build.clone(),
        workflows: runtime.registry.workflow_names(),
        activities: runtime.registry.activity_names(),
        lanes: runtime.lanes.all(),
        started_at,
        beat_at: runtime.now(),
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
            .map(|(instance, record)| {
                let request = &record.origin.request;
                let parent = record.origin.parent.as_ref().map(|parent| parent.task.clone());
                let payload = encode(&CheckEntry {
                    instance: instance.clone(),
                    request: request.clone(),
                    parent,
                });
                DueEntry {
                    key: check_key(instance, request),
                    due: runtime.now(),
                    payload,
                }
            })
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
