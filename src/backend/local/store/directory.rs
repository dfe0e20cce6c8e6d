//! Apps, their workers, and the run tokens of their items.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::super::key::{Key, Table};
use super::super::kv::{Snapshot, Transaction, decode, get_as};
use super::expiry;
use crate::backend::{App, Result, WorkerInfo};
use crate::model::{AppId, MessageId, Namespace, RunToken, Timestamp, WorkerId};

/// Run tokens lapse after a day: a crash loop is quicker, and an item that slow is not one.
const TOKENS_KEPT: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Serialize, Deserialize)]
struct StoredApp {
    id: AppId,
    lanes: u16,
    last_seen: Option<Timestamp>,
}

impl From<StoredApp> for App {
    fn from(stored: StoredApp) -> App {
        App {
            id: stored.id,
            lanes: stored.lanes,
            last_seen: stored.last_seen,
        }
    }
}

/// See [`Store::adopt_app`](crate::backend::Store::adopt_app).
pub(super) fn adopt(to: &mut Transaction<'_>, namespace: &Namespace, id: &AppId, lanes: u16) -> Result<u16> {
    let key = app_key(namespace, id);
    if let Some(app) = get_as::<StoredApp>(to, &key)? {
        return Ok(app.lanes);
    }
    let app = StoredApp {
        id: id.clone(),
        lanes,
        last_seen: None,
    };
    to.put_as(key, &app);
    Ok(lanes)
}

/// See [`Store::app`](crate::backend::Store::app).
pub(super) fn app(from: &dyn Snapshot, namespace: &Namespace, id: &AppId) -> Result<Option<App>> {
    Ok(get_as::<StoredApp>(from, &app_key(namespace, id))?.map(App::from))
}

/// See [`Store::apps`](crate::backend::Store::apps).
pub(super) fn apps(from: &dyn Snapshot, namespace: &Namespace) -> Result<Vec<App>> {
    let pairs = from.scan(&Key::new(Table::App, namespace).range(), usize::MAX)?;
    let apps = pairs.iter().map(|(_, app)| Ok(decode::<StoredApp>(app)?.into()));
    apps.collect()
}

/// See [`Store::remove_app`](crate::backend::Store::remove_app).
pub(super) fn remove(to: &mut Transaction<'_>, namespace: &Namespace, id: &AppId) -> Result<()> {
    to.delete(app_key(namespace, id));
    for (key, _) in to.scan(&workers_of(namespace, id).range(), usize::MAX)? {
        to.delete(key.to_vec());
    }
    Ok(())
}

/// See [`Store::beat`](crate::backend::Store::beat).
pub(super) fn beat(
    to: &mut Transaction<'_>,
    namespace: &Namespace,
    worker: &WorkerInfo,
    ttl: Duration,
    now: Timestamp,
) -> Result<()> {
    let key = app_key(namespace, &worker.app);
    if let Some(mut app) = get_as::<StoredApp>(to, &key)? {
        app.last_seen = Some(now);
        to.put_as(key, &app);
    }
    let key = worker_key(namespace, &worker.app, worker.id);
    expiry::put(to, namespace, key, &worker.encode(), Some(now + ttl));
    Ok(())
}

/// See [`Store::leave`](crate::backend::Store::leave).
pub(super) fn leave(to: &mut Transaction<'_>, namespace: &Namespace, app: &AppId, worker: WorkerId) {
    to.delete(worker_key(namespace, app, worker));
}

/// See [`Store::workers`](crate::backend::Store::workers). An entry that a later release wrote and this one cannot read is left out.
pub(super) fn workers(
    from: &dyn Snapshot,
    namespace: &Namespace,
    app: &AppId,
    now: Timestamp,
) -> Result<Vec<WorkerInfo>> {
    let mut live = Vec::new();
    for (key, _) in from.scan(&workers_of(namespace, app).range(), usize::MAX)? {
        let worker: Option<Bytes> = expiry::get(from, &key, now)?;
        live.extend(worker.as_deref().and_then(WorkerInfo::decode));
    }
    Ok(live)
}

/// See [`Store::runs`](crate::backend::Store::runs).
pub(super) fn runs(
    from: &dyn Snapshot,
    namespace: &Namespace,
    app: &AppId,
    item: &MessageId,
    now: Timestamp,
) -> Result<u32> {
    let tokens = expiry::get::<Vec<RunToken>>(from, &runs_key(namespace, app, item), now)?;
    Ok(count(&tokens.unwrap_or_default()))
}

/// See [`Store::begin_run`](crate::backend::Store::begin_run).
pub(super) fn begin_run(
    to: &mut Transaction<'_>,
    namespace: &Namespace,
    app: &AppId,
    item: &MessageId,
    token: RunToken,
    now: Timestamp,
) -> Result<u32> {
    let key = runs_key(namespace, app, item);
    let mut tokens = expiry::get::<Vec<RunToken>>(to, &key, now)?.unwrap_or_default();
    if !tokens.contains(&token) {
        tokens.push(token);
    }
    expiry::put(to, namespace, key, &tokens, Some(now + TOKENS_KEPT));
    Ok(count(&tokens))
}

fn count(tokens: &[RunToken]) -> u32 {
    u32::try_from(tokens.len()).unwrap_or(u32::MAX)
}

/// See [`Store::end_run`](crate::backend::Store::end_run).
pub(super) fn end_run(to: &mut Transaction<'_>, namespace: &Namespace, app: &AppId, item: &MessageId) -> Result<()> {
    let key = runs_key(namespace, app, item);
    if to.get(&key)?.is_some() {
        to.delete(key);
    }
    Ok(())
}

fn app_key(namespace: &Namespace, app: &AppId) -> Vec<u8> {
    Key::of_app(Table::App, namespace, app).end()
}

fn workers_of(namespace: &Namespace, app: &AppId) -> Key {
    Key::of_app(Table::Worker, namespace, app)
}

fn worker_key(namespace: &Namespace, app: &AppId, worker: WorkerId) -> Vec<u8> {
    workers_of(namespace, app).uuid(worker.as_uuid()).end()
}

fn runs_key(namespace: &Namespace, app: &AppId, item: &MessageId) -> Vec<u8> {
    Key::of_app(Table::Runs, namespace, app).name(item.as_str()).end()
}
